//! What depends on the volume: whether a volume's shape is one, and whether a request lies on it.

use crate::blob::{Blob, BlobKind};
use crate::codec::parts::bad;
use crate::error::DecodeError;
use crate::ids::Lba;
use crate::limits::{MAX_BLOCK_BYTES, MAX_READ_BYTES, MIN_BLOCK_BYTES, MIN_RING_BYTES, lane_slots};
use crate::message::VolumeShape;

impl VolumeShape {
    /// Descriptor ring slots of this volume's lanes.
    #[must_use]
    pub const fn slots(&self) -> u32 {
        lane_slots(self.ring_bytes)
    }

    /// Whether a volume can have this shape.
    ///
    /// # Errors
    /// If the block size is neither 512 nor 4096, there is no block, the size in bytes does not fit 64 bits, or the
    /// ring is shorter than [`MIN_RING_BYTES`] or no multiple of 4096 (a wrap must not split a block).
    pub fn check(&self) -> Result<(), DecodeError> {
        if self.block_bytes != MIN_BLOCK_BYTES && self.block_bytes != MAX_BLOCK_BYTES {
            return Err(bad("VolumeShape.block_bytes", self.block_bytes, "512 or 4096"));
        }
        if self.blocks == 0 || self.blocks.checked_mul(self.block_bytes.into()).is_none() {
            return Err(bad("VolumeShape.blocks", self.blocks, "at least 1, and below 2^64 bytes in all"));
        }
        if self.ring_bytes < MIN_RING_BYTES || !self.ring_bytes.is_multiple_of(MAX_BLOCK_BYTES.into()) {
            return Err(bad("VolumeShape.ring_bytes", self.ring_bytes, "at least 4194304, a multiple of 4096"));
        }
        Ok(())
    }

    /// Whether a decoded blob lies on this volume and its payload in this ring, in one piece and on a block's bound.
    ///
    /// # Errors
    /// If it does not: its sender broke the protocol.
    pub fn check_blob(&self, blob: &Blob) -> Result<(), DecodeError> {
        self.check_blocks("Descriptor.lba", blob.lba, blob.blocks)?;
        if blob.kind != BlobKind::Write {
            return Ok(());
        }
        if u64::from(blob.blocks) * u64::from(self.block_bytes) != u64::from(blob.payload_len) {
            return Err(bad("Descriptor.payload_len", blob.payload_len, "the blocks times the volume's block size"));
        }
        if !blob.data_pos.is_multiple_of(self.block_bytes.into()) {
            return Err(bad("Descriptor.data_pos", blob.data_pos, "a multiple of the volume's block size"));
        }
        if blob.data_pos % self.ring_bytes + u64::from(blob.payload_len) > self.ring_bytes {
            return Err(bad("Descriptor.data_pos", blob.data_pos, "a position whose payload does not cross the wrap"));
        }
        Ok(())
    }

    /// Whether a decoded read lies on this volume and fits a read slot.
    ///
    /// # Errors
    /// If it does not: its sender broke the protocol.
    pub fn check_read(&self, lba: Lba, blocks: u32) -> Result<(), DecodeError> {
        self.check_blocks("Read.lba", lba, blocks)?;
        if u64::from(blocks) * u64::from(self.block_bytes) > MAX_READ_BYTES.into() {
            return Err(bad("Read.blocks", blocks, "at most MAX_READ_BYTES, 1048576 bytes"));
        }
        Ok(())
    }

    fn check_blocks(&self, field: &'static str, lba: Lba, blocks: u32) -> Result<(), DecodeError> {
        match lba.0.checked_add(blocks.into()) {
            Some(end) if end <= self.blocks => Ok(()),
            _ => Err(bad(field, lba.0, "a span that ends on the volume")),
        }
    }
}
