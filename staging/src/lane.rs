//! A node's side of a lane: the blobs of one session that are staged here.
//!
//! What holds at any time (`first` known):
//! 1. Held are the blobs `released + 1 ..= received`, without gaps; at most [`Geometry::slots`] of them.
//! 2. Their payloads lie where the ring rule puts them (`ring.rs`) and share no byte.
//! 3. `received` never goes back; a seq that was received is never taken again (rule 14).
//! 4. A refused blob changes nothing.

use alloc::collections::vec_deque;
use core::fmt;
use core::ops::RangeInclusive;

use twinsan_wire::limits::MAX_ZERO_BLOCKS;
use twinsan_wire::{Blob, BlobKind, Generation, Seq};

use crate::geometry::Geometry;
use crate::held::Held;
use crate::ring;

/// The staged blobs of one session on one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lane {
    geometry: Geometry,
    generation: Generation,
    first: Option<Seq>,
    held: Held,
    /// The position after the last payload. `None`: no blob yet, and the first one says it, because a joining node
    /// begins in the middle of the client's ring (rule 8).
    cursor: Option<u64>,
}

/// What became of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    /// It is staged now.
    New,
    /// It had been received before (rule 14); ignored.
    Duplicate,
}

impl Lane {
    /// An empty lane. `first`: the seq that it begins with; `None`: the client has yet to say it, see [`Lane::begin`].
    #[must_use]
    pub fn new(geometry: Geometry, generation: Generation, first: Option<Seq>) -> Self {
        let mut lane = Self { geometry, generation, first: None, held: Held::new(geometry.slots()), cursor: None };
        if let Some(first) = first {
            lane.begin(first);
        }
        lane
    }

    /// Says where the lane begins: all below `first` counts as received and released. Zero counts as one, which is the
    /// least seq there is.
    ///
    /// # Panics
    /// If that is known already.
    pub fn begin(&mut self, first: Seq) {
        assert_eq!(self.first, None, "the lane has begun");
        let first = first.max(Seq(1));
        self.first = Some(first);
        self.held.begin_after(first.prev());
    }

    /// Takes a blob whose descriptor and payload lie in the rings. The caller has checked its block range against the
    /// volume's size; everything else is checked here.
    ///
    /// # Errors
    /// If the client broke the protocol. The lane is as before.
    pub fn accept(&mut self, blob: Blob) -> Result<Accept, LaneError> {
        if blob.generation != self.generation {
            return Err(LaneError::Generation { expected: self.generation, got: blob.generation });
        }
        if self.first.is_none() {
            return Err(LaneError::NotBegun { got: blob.seq });
        }
        if blob.seq <= self.received() {
            return self.check_duplicate(&blob);
        }
        let expected = self.received().next();
        if blob.seq != expected {
            return Err(LaneError::Gap { expected, got: blob.seq });
        }
        self.check_shape(&blob)?;
        if self.held.is_full() {
            return Err(LaneError::Slots { slots: self.geometry.slots(), released: self.released(), got: blob.seq });
        }
        self.check_position(&blob)?;
        self.cursor = Some(blob.data_pos + u64::from(blob.payload_len));
        self.held.push(blob);
        Ok(Accept::New)
    }

    /// (generation, seq) names one content for ever; the part of it that is here to compare is compared.
    fn check_duplicate(&self, blob: &Blob) -> Result<Accept, LaneError> {
        match self.held.get(blob.seq) {
            Some(held) if held != blob => Err(LaneError::Changed { seq: blob.seq }),
            _ => Ok(Accept::Duplicate),
        }
    }

    fn check_shape(&self, blob: &Blob) -> Result<(), LaneError> {
        let (most_blocks, expected_len) = match blob.kind {
            BlobKind::Write => {
                (self.geometry.max_payload_blocks(), u64::from(blob.blocks) * u64::from(self.geometry.block_bytes()))
            }
            BlobKind::Zeroes | BlobKind::Discard => (MAX_ZERO_BLOCKS, 0),
        };
        if blob.blocks == 0 || blob.blocks > most_blocks {
            return Err(LaneError::Blocks { kind: blob.kind, blocks: blob.blocks, most: most_blocks });
        }
        if u64::from(blob.payload_len) != expected_len {
            return Err(LaneError::Length { kind: blob.kind, expected: expected_len, got: blob.payload_len });
        }
        Ok(())
    }

    fn check_position(&self, blob: &Blob) -> Result<(), LaneError> {
        let Blob { data_pos, payload_len, .. } = *blob;
        let expected = match self.cursor {
            Some(cursor) => ring::place(&self.geometry, cursor, payload_len),
            None => ring::is_placeable(&self.geometry, data_pos, payload_len).then_some(data_pos),
        };
        if expected != Some(data_pos) {
            return Err(LaneError::Position { expected, got: data_pos });
        }
        let oldest = self.held.oldest_pos();
        if !ring::fits(&self.geometry, oldest, data_pos, payload_len) {
            return Err(LaneError::Overlap { got: data_pos, payload_len, oldest: oldest.unwrap_or(data_pos) });
        }
        Ok(())
    }

    /// The shape.
    #[must_use]
    pub const fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The session.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// The seq that the lane began with; `None`: nobody has said it yet.
    #[must_use]
    pub const fn first(&self) -> Option<Seq> {
        self.first
    }

    /// The last seq received; before the first blob, `first - 1`. Zero while `first` is unknown.
    #[must_use]
    pub fn received(&self) -> Seq {
        self.held.last()
    }

    /// Everything up to here has been released; before the first release, `first - 1`.
    #[must_use]
    pub fn released(&self) -> Seq {
        self.held.released()
    }

    /// Whether every received blob has been released.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.len() == 0
    }

    /// The number of unreleased blobs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// An unreleased blob.
    #[must_use]
    pub fn get(&self, seq: Seq) -> Option<&Blob> {
        self.held.get(seq)
    }

    /// The unreleased blobs, oldest first.
    pub fn iter(&self) -> vec_deque::Iter<'_, Blob> {
        self.range(Seq::ZERO..=self.received())
    }

    /// The unreleased blobs among `seqs`, oldest first (or from the back).
    pub fn range(&self, seqs: RangeInclusive<Seq>) -> vec_deque::Iter<'_, Blob> {
        self.held.range(seqs)
    }

    /// Releases everything up to `upto`, and hands it out, oldest first. What was released already is left alone.
    ///
    /// # Panics
    /// If `upto` is beyond what was received.
    pub fn release(&mut self, upto: Seq) -> vec_deque::Drain<'_, Blob> {
        self.held.release(upto)
    }
}

impl<'a> IntoIterator for &'a Lane {
    type Item = &'a Blob;
    type IntoIter = vec_deque::Iter<'a, Blob>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// How a client broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneError {
    /// Another session's blob (rule 10).
    Generation {
        /// The lane's.
        expected: Generation,
        /// The blob's.
        got: Generation,
    },
    /// A blob before anybody said where the lane begins.
    NotBegun {
        /// The blob's.
        got: Seq,
    },
    /// A seq was left out.
    Gap {
        /// What comes next.
        expected: Seq,
        /// The blob's.
        got: Seq,
    },
    /// A seq that is held came again with another content.
    Changed {
        /// Which.
        seq: Seq,
    },
    /// No blocks, or more than one blob may carry.
    Blocks {
        /// The blob's.
        kind: BlobKind,
        /// The blob's.
        blocks: u32,
        /// The most of this kind in this lane.
        most: u32,
    },
    /// The payload's length is not that of the blocks.
    Length {
        /// The blob's.
        kind: BlobKind,
        /// The bytes that its blocks take.
        expected: u64,
        /// The bytes that it says.
        got: u32,
    },
    /// More blobs than slots: one that is not released would be overwritten.
    Slots {
        /// The lane's.
        slots: u32,
        /// What was released.
        released: Seq,
        /// The blob's.
        got: Seq,
    },
    /// The payload is not where the ring rule puts it.
    Position {
        /// Where it belongs; `None`: nowhere there (first blob: not aligned, or across the wrap).
        expected: Option<u64>,
        /// The blob's.
        got: u64,
    },
    /// The payload lies over one that is not released.
    Overlap {
        /// The blob's position.
        got: u64,
        /// The blob's length.
        payload_len: u32,
        /// The position of the oldest blob not released.
        oldest: u64,
    },
}

impl fmt::Display for LaneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Generation { expected, got } => {
                write!(f, "a blob of session {got} in the lane of session {expected}")
            }
            Self::NotBegun { got } => write!(f, "blob {got} before the lane's first seq was agreed"),
            Self::Gap { expected, got } => write!(f, "blob {got} where {expected} comes next"),
            Self::Changed { seq } => write!(f, "blob {seq} came again with another content"),
            Self::Blocks { kind, blocks, most } => write!(f, "{kind:?} of {blocks} blocks: must have 1 to {most}"),
            Self::Length { kind, expected, got } => {
                write!(f, "{kind:?} with {got} payload bytes: its blocks take {expected}")
            }
            Self::Slots { slots, released, got } => {
                write!(f, "blob {got} with only {released} released: the lane has {slots} slots")
            }
            Self::Position { expected: Some(expected), got } => {
                write!(f, "payload at position {got}: the ring rule puts it at {expected}")
            }
            Self::Position { expected: None, got } => {
                write!(f, "payload at position {got}: not aligned to a block, or across the wrap")
            }
            Self::Overlap { got, payload_len, oldest } => {
                write!(f, "{payload_len} payload bytes at position {got} lie over unreleased ones from {oldest} on")
            }
        }
    }
}

impl core::error::Error for LaneError {}

#[cfg(test)]
mod tests;
