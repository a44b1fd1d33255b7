//! Buffers for what reads take from the disk.
//!
//! A read gets a slot when its disk pieces are to be read and keeps it until its answer has left, or it is void and
//! the disk has let go of it. The pieces lie there one after the other, in block order.

use std::collections::{BTreeMap, VecDeque};

use twinsan_replica::{Piece, ReadToken};
use twinsan_wire::limits::MAX_OPEN_READS;

/// A read that may go to the disk now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Begun {
    /// The read.
    pub(crate) token: ReadToken,
    /// Its slot.
    pub(crate) slot: u32,
    /// What to read into it.
    pub(crate) pieces: Vec<Piece>,
}

#[derive(Debug)]
struct Held {
    slot: u32,
    /// The disk may write into the slot.
    reading: bool,
    /// Free the slot as soon as it does not.
    dropped: bool,
}

/// All slots of a volume.
#[derive(Debug)]
pub(crate) struct Slab {
    free: Vec<u32>,
    held: BTreeMap<ReadToken, Held>,
    /// Void reads whose disk I/O has not ended keep their slots, so a session's full number of reads may have to wait.
    waiting: VecDeque<(ReadToken, Vec<Piece>)>,
}

impl Slab {
    /// All free.
    pub(crate) fn new() -> Self {
        let slots = u32::try_from(MAX_OPEN_READS).expect("few");
        Self { free: (0..slots).rev().collect(), held: BTreeMap::new(), waiting: VecDeque::new() }
    }

    /// A read needs its disk pieces, for the first time or again; [`Slab::next`] says when it may.
    pub(crate) fn ask(&mut self, token: ReadToken, pieces: Vec<Piece>) {
        self.waiting.push_back((token, pieces));
    }

    /// The next read that has a slot.
    pub(crate) fn next(&mut self) -> Option<Begun> {
        let (token, _) = self.waiting.front()?;
        let slot = match self.held.get_mut(token) {
            Some(held) => {
                assert!(!held.reading && !held.dropped, "a read is on the disk once at a time");
                held.reading = true;
                held.slot
            }
            None => {
                let slot = self.free.pop()?;
                self.held.insert(*token, Held { slot, reading: true, dropped: false });
                slot
            }
        };
        let (token, pieces) = self.waiting.pop_front().expect("looked at just now");
        Some(Begun { token, slot, pieces })
    }

    /// The disk has let go of a read's slot.
    pub(crate) fn disk_ended(&mut self, token: ReadToken) {
        let held = self.held.get_mut(&token).expect("a read on the disk holds a slot");
        assert!(held.reading, "a read ends on the disk once");
        held.reading = false;
        if held.dropped {
            self.free(token);
        }
    }

    /// A read is answered or void: its slot, if it has one, is free as soon as the disk has let go of it.
    pub(crate) fn end(&mut self, token: ReadToken) {
        self.waiting.retain(|(waiting, _)| *waiting != token);
        match self.held.get_mut(&token) {
            Some(held) if held.reading => held.dropped = true,
            Some(_) => self.free(token),
            None => {}
        }
    }

    /// The slot of a read that has one.
    pub(crate) fn slot(&self, token: ReadToken) -> Option<u32> {
        self.held.get(&token).map(|held| held.slot)
    }

    fn free(&mut self, token: ReadToken) {
        let held = self.held.remove(&token).expect("looked at just now");
        self.free.push(held.slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOTS: u64 = MAX_OPEN_READS as u64;

    fn full() -> Slab {
        let mut slab = Slab::new();
        for token in 1..=SLOTS {
            slab.ask(ReadToken(token), Vec::new());
            assert_eq!(slab.next().unwrap().token, ReadToken(token));
        }
        slab
    }

    #[test]
    fn every_read_has_its_own_slot() {
        let slab = full();
        let mut slots: Vec<u32> = (1..=SLOTS).map(|token| slab.slot(ReadToken(token)).unwrap()).collect();
        slots.sort_unstable();
        slots.dedup();
        assert_eq!(slots.len(), MAX_OPEN_READS);
    }

    #[test]
    fn one_too_many_waits_for_an_answered_one() {
        let mut slab = full();
        let late = ReadToken(SLOTS + 1);
        slab.ask(late, Vec::new());
        assert_eq!(slab.next(), None);
        let slot = slab.slot(ReadToken(3)).unwrap();
        slab.disk_ended(ReadToken(3));
        assert_eq!(slab.next(), None, "read, but not answered");
        slab.end(ReadToken(3));
        assert_eq!(slab.next(), Some(Begun { token: late, slot, pieces: Vec::new() }));
    }

    #[test]
    fn a_void_read_keeps_its_slot_while_the_disk_writes_into_it() {
        let mut slab = full();
        let late = ReadToken(SLOTS + 1);
        slab.ask(late, Vec::new());
        slab.end(ReadToken(7));
        assert_eq!(slab.next(), None);
        slab.disk_ended(ReadToken(7));
        assert_eq!(slab.next().unwrap().token, late);
    }

    #[test]
    fn a_void_read_that_waits_is_forgotten() {
        let mut slab = full();
        slab.ask(ReadToken(SLOTS + 1), Vec::new());
        slab.ask(ReadToken(SLOTS + 2), Vec::new());
        slab.end(ReadToken(SLOTS + 1));
        slab.disk_ended(ReadToken(1));
        slab.end(ReadToken(1));
        assert_eq!(slab.next().unwrap().token, ReadToken(SLOTS + 2));
        assert_eq!(slab.next(), None);
    }

    #[test]
    fn a_failed_read_goes_again_in_its_own_slot() {
        let mut slab = full();
        let slot = slab.slot(ReadToken(5)).unwrap();
        slab.disk_ended(ReadToken(5));
        slab.ask(ReadToken(5), Vec::new());
        assert_eq!(slab.next(), Some(Begun { token: ReadToken(5), slot, pieces: Vec::new() }));
    }
}
