//! The reads that have not been answered.
//!
//! A read is sent to the primary once per connection and epoch: the node ignores a read of another epoch, and answers
//! none that it took in an earlier one, so an answer that fits is the only one. Two answers to one read would write
//! into a buffer that the caller may have given to the next.
//!
//! An answer counts when everything that it may show has completed (rule 1 †): until then the read is open, and the
//! answer void if the reads have to be sent again.

use alloc::vec::Vec;

use twinsan_wire::limits::MAX_OPEN_READS;
use twinsan_wire::{Blob, ClientMsg, Epoch, Lba, Seq};

use crate::event::ConnId;

/// The open reads, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Reads {
    open: Vec<Read>,
    next_id: u64,
    /// Where all of them have been sent: the connection, and the epoch that they named.
    sent: Option<(ConnId, Epoch)>,
}

/// One read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Read {
    pub(crate) id: u64,
    pub(crate) lba: Lba,
    pub(crate) blocks: u32,
    pub(crate) slot: u32,
    /// It has been answered; what the answer may show ends here.
    pub(crate) shows: Option<Seq>,
}

impl Read {
    pub(crate) const fn message(&self, epoch: Epoch, after: Seq) -> ClientMsg {
        ClientMsg::Read { id: self.id, epoch, after, lba: self.lba, blocks: self.blocks, slot: self.slot }
    }

    pub(crate) fn overlaps(&self, blob: &Blob) -> bool {
        self.lba.0 < blob.end().0 && blob.lba.0 < self.lba.0 + u64::from(self.blocks)
    }
}

impl Reads {
    pub(crate) fn new() -> Self {
        Self { open: Vec::with_capacity(MAX_OPEN_READS), next_id: 1, sent: None }
    }

    /// Opens a read.
    ///
    /// # Panics
    /// If there are [`MAX_OPEN_READS`], or one of them uses the buffer: the caller's mistakes.
    pub(crate) fn open(&mut self, lba: Lba, blocks: u32, slot: u32) -> Read {
        assert!(self.open.len() < MAX_OPEN_READS, "{MAX_OPEN_READS} reads are open: wait for one to complete");
        let taken = self.open.iter().find(|read| read.slot == slot);
        assert!(taken.is_none(), "read buffer {slot} is in use by {taken:?}");
        let read = Read { id: self.next_id, lba, blocks, slot, shows: None };
        self.next_id += 1;
        self.open.push(read);
        read
    }

    /// Whether all open reads have been sent there.
    pub(crate) fn are_sent(&self, conn: ConnId, epoch: Epoch) -> bool {
        self.sent == Some((conn, epoch))
    }

    /// The caller sends them all there now.
    pub(crate) fn mark_sent(&mut self, conn: ConnId, epoch: Epoch) {
        self.unsend();
        self.sent = Some((conn, epoch));
    }

    /// The connection on which reads may still be answered.
    pub(crate) fn sent_by(&self) -> Option<ConnId> {
        self.sent.map(|(conn, _)| conn)
    }

    /// That connection is gone: nothing is on its way to a buffer any more.
    pub(crate) fn forget(&mut self, conn: ConnId) {
        if self.sent_by() == Some(conn) {
            self.unsend();
        }
    }

    /// For a search over all states: gives the connection and the epoch other numbers.
    #[cfg(feature = "explore")]
    pub(crate) fn rename(&mut self, name: impl FnOnce(u64, Epoch) -> (u64, Epoch)) {
        self.sent = self.sent.map(|(conn, epoch)| name(conn.0, epoch)).map(|(conn, epoch)| (ConnId(conn), epoch));
    }

    /// For a search over all states: the epoch that they named.
    #[cfg(feature = "explore")]
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        self.sent.map(|(_, epoch)| epoch)
    }

    /// They must be sent again, wherever they are. What has been answered and does not count yet is void.
    pub(crate) fn unsend(&mut self) {
        self.sent = None;
        self.open.iter_mut().for_each(|read| read.shows = None);
    }

    /// An open read that has not been answered.
    pub(crate) fn unanswered(&mut self, id: u64) -> Option<&mut Read> {
        self.open.iter_mut().find(|read| read.id == id && read.shows.is_none())
    }

    /// Takes out the oldest read whose answer counts, as everything up to `completed` has completed.
    pub(crate) fn take_done(&mut self, completed: Seq) -> Option<Read> {
        let at = self.open.iter().position(|read| read.shows.is_some_and(|shows| shows <= completed))?;
        Some(self.open.remove(at))
    }

    pub(crate) fn iter(&self) -> core::slice::Iter<'_, Read> {
        self.open.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}
