//! The unreleased blobs of one lane, in seq order: the part that [`crate::Lane`] and [`crate::Window`] have in common.

use alloc::collections::VecDeque;
use alloc::collections::vec_deque;
use core::ops::RangeInclusive;

use twinsan_wire::{Blob, Seq};

/// Blobs `released + 1 ..= last`, without gaps. Allocates its slots once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Held {
    blobs: VecDeque<Blob>,
    slots: usize,
    /// Everything up to here is gone.
    released: Seq,
}

impl Held {
    pub(crate) fn new(slots: u32) -> Self {
        let slots = usize::try_from(slots).expect("a slot count fits an address");
        Self { blobs: VecDeque::with_capacity(slots), slots, released: Seq::ZERO }
    }

    /// Begins after `released`, before anything is put in.
    pub(crate) fn begin_after(&mut self, released: Seq) {
        assert_eq!(self.last(), Seq::ZERO, "something is held already");
        self.released = released;
    }

    pub(crate) fn released(&self) -> Seq {
        self.released
    }

    /// The last one put in, released or not.
    pub(crate) fn last(&self) -> Seq {
        Seq(self.released.0 + self.blobs.len() as u64)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.blobs.len() == self.slots
    }

    pub(crate) fn len(&self) -> usize {
        self.blobs.len()
    }

    pub(crate) fn oldest_pos(&self) -> Option<u64> {
        self.blobs.front().map(|blob| blob.data_pos)
    }

    pub(crate) fn push(&mut self, blob: Blob) {
        assert_eq!(blob.seq, self.last().next(), "blobs are held without gaps");
        assert!(!self.is_full(), "{} comes with all slots taken", blob.seq);
        self.blobs.push_back(blob);
    }

    pub(crate) fn get(&self, seq: Seq) -> Option<&Blob> {
        let index = seq.0.checked_sub(self.released.0)?.checked_sub(1)?;
        self.blobs.get(usize::try_from(index).ok()?)
    }

    /// Those of `seqs` that are held.
    pub(crate) fn range(&self, seqs: RangeInclusive<Seq>) -> vec_deque::Iter<'_, Blob> {
        let index = |seq: Seq| {
            let index = usize::try_from(seq.0.saturating_sub(self.released.0)).unwrap_or(usize::MAX);
            index.min(self.blobs.len())
        };
        // Of blob `released + i` the index is `i - 1`; so `to` as an index is already the bound after it.
        let (from, to) = (index(seqs.start().prev()), index(*seqs.end()));
        self.blobs.range(from.min(to)..to)
    }

    /// Lets go of everything up to `upto`, which must have been put in.
    pub(crate) fn release(&mut self, upto: Seq) -> vec_deque::Drain<'_, Blob> {
        assert!(upto <= self.last(), "release up to {upto}, but the last blob is {}", self.last());
        let count = usize::try_from(upto.0.saturating_sub(self.released.0)).expect("no more than are held");
        self.released = self.released.max(upto);
        self.blobs.drain(..count)
    }
}
