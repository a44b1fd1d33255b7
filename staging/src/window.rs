//! The client's side of its lanes: what it has sent, or will, and keeps until every member has released it.
//!
//! One window serves both nodes: the payloads lie at the same offsets on every host (section 3 of the protocol).

use alloc::collections::vec_deque;
use core::ops::RangeInclusive;

use twinsan_wire::{Blob, Seq};

use crate::geometry::Geometry;
use crate::held::Held;
use crate::ring;

/// The blobs that a session keeps, and the place of the next one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    geometry: Geometry,
    held: Held,
    /// The position after the last payload.
    cursor: u64,
}

impl Window {
    /// A new session's: the first blob is seq 1.
    #[must_use]
    pub fn new(geometry: Geometry) -> Self {
        Self { geometry, held: Held::new(geometry.slots()), cursor: 0 }
    }

    /// The data position that the next payload of `payload_len` bytes gets (0: a blob without payload), or `None`
    /// where slots or ring space are exhausted until more is freed. Changes nothing.
    ///
    /// # Panics
    /// If `payload_len` is not a whole number of blocks or more than [`Geometry::max_payload`]: that would never fit.
    #[must_use]
    pub fn place(&self, payload_len: u32) -> Option<u64> {
        assert!(
            payload_len.is_multiple_of(self.geometry.block_bytes()) && payload_len <= self.geometry.max_payload(),
            "a payload of {payload_len} bytes: must be whole blocks of {} bytes, at most {} bytes",
            self.geometry.block_bytes(),
            self.geometry.max_payload(),
        );
        if self.held.is_full() {
            return None;
        }
        let pos = ring::place(&self.geometry, self.cursor, payload_len).expect("2^64 bytes written in one session");
        ring::fits(&self.geometry, self.held.oldest_pos(), pos, payload_len).then_some(pos)
    }

    /// Keeps the next blob.
    ///
    /// # Panics
    /// If its seq is not [`Window::next_seq`] or its position not the one that [`Window::place`] gives.
    pub fn push(&mut self, blob: Blob) {
        let place = self.place(blob.payload_len);
        assert_eq!(place, Some(blob.data_pos), "{} is not where its payload belongs", blob.seq);
        self.held.push(blob);
        self.cursor = blob.data_pos + u64::from(blob.payload_len);
    }

    /// Lets go of everything up to `upto`: every member has released it. What is gone already is left alone.
    ///
    /// # Panics
    /// If `upto` was never sent.
    pub fn free(&mut self, upto: Seq) {
        drop(self.held.release(upto));
    }

    /// The shape.
    #[must_use]
    pub const fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The next blob's seq.
    #[must_use]
    pub fn next_seq(&self) -> Seq {
        self.held.last().next()
    }

    /// Everything up to here has been freed.
    #[must_use]
    pub fn freed(&self) -> Seq {
        self.held.released()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.len() == 0
    }

    /// The number of blobs held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// A held blob.
    #[must_use]
    pub fn get(&self, seq: Seq) -> Option<&Blob> {
        self.held.get(seq)
    }

    /// The held blobs, oldest first.
    pub fn iter(&self) -> vec_deque::Iter<'_, Blob> {
        self.iter_from(Seq::ZERO)
    }

    /// The held blobs from `from` on, oldest first: what is sent again (rule 14).
    pub fn iter_from(&self, from: Seq) -> vec_deque::Iter<'_, Blob> {
        self.range(from..=self.held.last())
    }

    /// The held blobs among `seqs`, oldest first.
    pub fn range(&self, seqs: RangeInclusive<Seq>) -> vec_deque::Iter<'_, Blob> {
        self.held.range(seqs)
    }
}

impl<'a> IntoIterator for &'a Window {
    type Item = &'a Blob;
    type IntoIter = vec_deque::Iter<'a, Blob>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests;
