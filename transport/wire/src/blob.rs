//! One staged write.

use crate::ids::{Generation, Lba, Seq};

/// What a blob does to its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlobKind {
    /// Replaces them with its payload.
    Write,
    /// Zeroes them; the disk keeps their space (NBD `WRITE_ZEROES` with `NO_HOLE`).
    Zeroes,
    /// Zeroes them; the disk may give their space back. Reads as zeros, always.
    Discard,
}

/// A blob without its bytes: what the machines move. The 64-byte descriptor on the wire adds magic, version and CRCs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Blob {
    /// The session.
    pub generation: Generation,
    /// The number in the session.
    pub seq: Seq,
    /// What it does.
    pub kind: BlobKind,
    /// First logical block.
    pub lba: Lba,
    /// Number of logical blocks, at least 1.
    pub blocks: u32,
    /// Where the payload begins in the data ring: a position that only grows (byte offset = position mod ring size).
    /// A payload never wraps: what is left of the ring before the wrap is skipped. Kinds without payload give the
    /// position that the next payload would take.
    pub data_pos: u64,
    /// Payload bytes: `blocks` times the logical block size for [`BlobKind::Write`], else 0.
    pub payload_len: u32,
}

impl Blob {
    /// The block after the last one.
    #[must_use]
    pub const fn end(&self) -> Lba {
        Lba(self.lba.0 + self.blocks as u64)
    }
}
