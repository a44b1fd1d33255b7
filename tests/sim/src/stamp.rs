//! What stands in a block, wherever it is: the name of the write that put it there.
//!
//! The simulator moves no bytes. A block's content is the (generation, seq) of its write and the block's own number,
//! which rule 14 says is one content for ever, so that every wrong byte of a real system shows here as a wrong name.

use core::fmt;

use twinsan_wire::{Blob, Generation, Seq};

/// The write that a block's content comes from; ordered as rule 2 orders overlapping blobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The session.
    pub generation: u64,
    /// The write in it; zero with generation zero: never written.
    pub seq: u64,
}

impl Version {
    /// Never written: reads as zeros.
    pub const NEVER: Self = Self { generation: 0, seq: 0 };

    /// From the protocol's numbers.
    #[must_use]
    pub const fn new(generation: Generation, seq: Seq) -> Self {
        Self { generation: generation.0, seq: seq.0 }
    }

    /// A blob's.
    #[must_use]
    pub const fn of(blob: &Blob) -> Self {
        Self::new(blob.generation, blob.seq)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NEVER { f.write_str("never written") } else { write!(f, "g{}#{}", self.generation, self.seq) }
    }
}

/// One block in a memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cell {
    /// Whose content.
    pub version: Version,
    /// Which block of the volume it is meant for.
    pub lba: u64,
}
