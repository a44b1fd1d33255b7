//! One direction of a connection: posts of one end, in slots that both have mapped.
//!
//! ```text
//! offset  size  field    written by
//!      0     8  tail     sender      posts that have been rung for, since the beginning
//!      8     8  closed   sender      1: its memory is no longer to be read
//!     16     8  asleep   sender      wake it when something has come for it, or a signalled post of its is taken;
//!                                    1: not for what is unsolicited, 2: for everything
//!     24     8  core     sender      the core on which its end was last seen to work, plus one
//!     64     8  head     receiver    posts that have been taken, since the beginning
//!    128   512 × 576     sender      the slots; post n is in slot n mod 512
//! ```
//!
//! The other end may write what it likes at any time. Each side goes by its own counts, and believes the other's only
//! within what is possible.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU64, fence};

use twinsan_arena::{Arena, current_core};
use twinsan_fabric::WorkId;
use twinsan_wire::limits::MAX_MESSAGE_BYTES;

use crate::slot::{HEADER, Header, SLOT};

/// Posts of one direction that have not been taken.
pub(crate) const SLOTS: usize = 512;

const TAIL: usize = 0;
const CLOSED: usize = 8;
const ASLEEP: usize = 16;
const CORE: usize = 24;
const HEAD: usize = 64;
const FIRST: usize = 128;

/// Whether an end looks at the connection by itself: what stands in its word `asleep`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sleep {
    /// It does, all the time.
    Awake = 0,
    /// When it wakes up, whatever wakes it.
    Dozing = 1,
    /// Not before it is woken for it.
    Deep = 2,
}

/// Bytes of one direction.
pub(crate) const DIRECTION: usize = FIRST + SLOTS * SLOT;

/// Where one direction lies in the memory of a connection.
#[derive(Clone, Debug)]
struct Place {
    memory: Arc<Arena>,
    base: usize,
}

impl Place {
    fn word(&self, field: usize) -> &AtomicU64 {
        self.memory.word(self.base + field)
    }

    fn slot(&self, post: u64) -> usize {
        let slot = usize::try_from(post % SLOTS as u64).expect("a small remainder");
        self.base + FIRST + slot * SLOT
    }
}

/// The sending end.
#[derive(Debug)]
pub(crate) struct Sender {
    place: Place,
    /// Posts that have been made.
    posted: u64,
    /// Of those, which the receiver may see.
    rung: u64,
    /// Of those, which are known to be taken, and their slots free.
    reaped: u64,
    /// The signalled ones that have not been reaped.
    signals: VecDeque<(u64, WorkId)>,
    /// What stands in the core's place.
    core: u64,
}

impl Sender {
    /// At the start of a connection.
    pub(crate) fn new(memory: &Arc<Arena>, direction: usize) -> Self {
        let place = Place { memory: Arc::clone(memory), base: direction * DIRECTION };
        Self { place, posted: 0, rung: 0, reaped: 0, signals: VecDeque::new(), core: 0 }
    }

    /// Whether all slots are taken.
    pub(crate) const fn is_full(&self) -> bool {
        self.posted - self.reaped >= SLOTS as u64
    }

    /// Puts a post into the next slot, which the caller knows to be free; `inline` are its bytes, if they are not in a
    /// region.
    pub(crate) fn post(&mut self, header: &Header, inline: &[u8], signal: Option<WorkId>) {
        debug_assert!(!self.is_full() && inline.len() <= MAX_MESSAGE_BYTES);
        let slot = self.place.slot(self.posted);
        self.place.memory.copy_in(slot, &header.encode());
        self.place.memory.copy_in(slot + HEADER, inline);
        self.signals.extend(signal.map(|work| (self.posted, work)));
        self.posted += 1;
    }

    /// The doorbell. Returns whether the receiver, whose own direction is `back`, sleeps and is to be woken.
    pub(crate) fn ring(&mut self, back: &Receiver, solicited: bool) -> bool {
        if self.rung == self.posted {
            return false;
        }
        self.rung = self.posted;
        self.say_core();
        self.place.word(TAIL).store(self.rung, Release);
        back.must_wake(solicited)
    }

    /// Says on which core this end works. The other polls the cache line where that stands: it is written if it changes.
    pub(crate) fn say_core(&mut self) {
        let core = current_core().map_or(0, |core| core as u64 + 1);
        if core != self.core {
            self.core = core;
            self.place.word(CORE).store(core, Relaxed);
        }
    }

    /// Frees the slots of posts that have been taken, and hands the signals of those to `sent`.
    ///
    /// # Errors
    /// If the receiver says that it has taken what was not there.
    pub(crate) fn reap(&mut self, mut sent: impl FnMut(WorkId)) -> Result<(), String> {
        let head = self.place.word(HEAD).load(Acquire);
        if head < self.reaped || head > self.rung {
            return Err(format!("{head} posts taken, of {}, after {}", self.rung, self.reaped));
        }
        self.reaped = head;
        while let Some((_, work)) = self.signals.pop_front_if(|&mut (post, _)| post < head) {
            sent(work);
        }
        Ok(())
    }

    /// Says that this end is going to sleep, or that it is awake.
    pub(crate) fn set_asleep(&self, sleep: Sleep) {
        self.place.word(ASLEEP).store(sleep as u64, SeqCst);
    }

    /// Says that this end's memory is no longer to be read.
    pub(crate) fn close(&self) {
        self.place.word(CLOSED).store(1, Relaxed);
        // Before whatever the caller does to that memory from now on (see `Receiver::is_closed`).
        fence(Release);
    }
}

/// The receiving end.
#[derive(Debug)]
pub(crate) struct Receiver {
    place: Place,
    /// Posts that have been taken.
    taken: u64,
    /// Of those, which the sender has been told of.
    told: u64,
    /// The sender waits to be told of one.
    awaited: bool,
}

/// A post that is there.
pub(crate) struct Post {
    pub(crate) header: Header,
    slot: usize,
}

impl Receiver {
    /// At the start of a connection.
    pub(crate) fn new(memory: &Arc<Arena>, direction: usize) -> Self {
        let place = Place { memory: Arc::clone(memory), base: direction * DIRECTION };
        Self { place, taken: 0, told: 0, awaited: false }
    }

    /// Posts that have been taken, since the beginning.
    pub(crate) const fn taken(&self) -> u64 {
        self.taken
    }

    /// The core on which the sender's end rang or took something last, by its own word.
    pub(crate) fn core(&self) -> Option<usize> {
        usize::try_from(self.place.word(CORE).load(Relaxed)).ok()?.checked_sub(1)
    }

    /// Whether there is a post that has not been taken.
    pub(crate) fn has_post(&self) -> bool {
        self.place.word(TAIL).load(Acquire) != self.taken
    }

    /// The next post.
    ///
    /// # Errors
    /// If the sender's count or the post itself makes no sense.
    pub(crate) fn next(&self) -> Result<Option<Post>, String> {
        let tail = self.place.word(TAIL).load(Acquire);
        match tail.checked_sub(self.taken) {
            Some(0) => return Ok(None),
            Some(count) if count <= SLOTS as u64 => {}
            _ => return Err(format!("{tail} posts, of which {} are taken, in {SLOTS} slots", self.taken)),
        }
        let slot = self.place.slot(self.taken);
        let mut bytes = [0; HEADER];
        self.place.memory.copy_out(slot, &mut bytes);
        Ok(Some(Post { header: Header::decode(&bytes)?, slot }))
    }

    /// Copies the bytes of a post that has them in its slot.
    pub(crate) fn copy_out(&self, post: &Post, to: &mut [u8]) {
        self.place.memory.copy_out(post.slot + HEADER, &mut to[..]);
    }

    /// Copies them to their place.
    pub(crate) fn copy_to(&self, post: &Post, arena: &Arena, at: usize) {
        arena.copy_from(at, &self.place.memory, post.slot + HEADER, post.header.len as usize);
    }

    /// Whether the sender's memory is no longer to be read. Said after a copy of it, it is so if a byte of that had been
    /// changed after [`Sender::close`].
    pub(crate) fn is_closed(&self) -> bool {
        // A byte that was read above, and written after the other end's fence, makes the store before that fence seen.
        fence(Acquire);
        self.place.word(CLOSED).load(Relaxed) != 0
    }

    /// The post is done with.
    pub(crate) const fn take(&mut self, post: &Post) {
        self.taken += 1;
        self.awaited |= post.header.signalled;
    }

    /// Whether something has been taken of which the sender has not been told.
    pub(crate) const fn has_news(&self) -> bool {
        self.told != self.taken
    }

    /// Tells the sender what has been taken. Returns whether it waits for that asleep, and is to be woken.
    pub(crate) fn tell(&mut self) -> bool {
        if !self.has_news() {
            return false;
        }
        self.told = self.taken;
        self.place.word(HEAD).store(self.told, Release);
        std::mem::take(&mut self.awaited) && self.must_wake(true)
    }

    /// Whether the sender of this direction sleeps; the one who asks is to wake it. What it is to be woken for is stored
    /// already: either this sees that it is going to sleep, or it sees that before it does.
    fn must_wake(&self, solicited: bool) -> bool {
        fence(SeqCst);
        let asleep = self.place.word(ASLEEP);
        let spared = if solicited { Sleep::Awake } else { Sleep::Dozing };
        asleep.load(Relaxed) > spared as u64 && asleep.swap(Sleep::Awake as u64, SeqCst) > 0
    }
}

/// To be called between [`Sender::set_asleep`] and the last look before sleeping.
pub(crate) fn before_last_look() {
    fence(SeqCst);
}
