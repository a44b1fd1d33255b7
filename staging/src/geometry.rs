//! A lane's shape.

use core::fmt;

use twinsan_wire::Seq;
use twinsan_wire::limits::{MAX_PAYLOAD_BYTES, MIN_RING_BYTES, lane_slots};

/// The shape of a lane, the same on the client and on both nodes.
///
/// A volume's lanes come from [`Geometry::for_volume`]. The simulator makes far smaller ones, so that they fill and
/// wrap all the time; that is all that [`Geometry::new`] is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    slots: u32,
    ring_bytes: u64,
    block_bytes: u32,
}

// What `for_volume` promises: a volume's ring takes the longest payload wherever the position stands.
const _: () = assert!(MIN_RING_BYTES / 2 >= MAX_PAYLOAD_BYTES as u64);

impl Geometry {
    /// Any shape that the ring rule can work with: `slots` descriptor slots, a data ring of `ring_bytes` bytes,
    /// logical blocks of `block_bytes` bytes.
    ///
    /// # Errors
    /// See [`GeometryError`].
    pub const fn new(slots: u32, ring_bytes: u64, block_bytes: u32) -> Result<Self, GeometryError> {
        if !slots.is_power_of_two() {
            return Err(GeometryError::Slots { slots });
        }
        if !block_bytes.is_power_of_two() || block_bytes > MAX_PAYLOAD_BYTES {
            return Err(GeometryError::BlockBytes { block_bytes });
        }
        if !ring_bytes.is_multiple_of(block_bytes as u64) {
            return Err(GeometryError::RingNotInBlocks { ring_bytes, block_bytes });
        }
        let least = 2 * block_bytes as u64;
        if ring_bytes < least {
            return Err(GeometryError::RingTooSmall { ring_bytes, least });
        }
        Ok(Self { slots, ring_bytes, block_bytes })
    }

    /// The shape of a volume's lanes: a ring of at least [`MIN_RING_BYTES`], and as many slots as go with it.
    ///
    /// # Errors
    /// See [`GeometryError`].
    pub const fn for_volume(ring_bytes: u64, block_bytes: u32) -> Result<Self, GeometryError> {
        if ring_bytes < MIN_RING_BYTES {
            return Err(GeometryError::RingTooSmall { ring_bytes, least: MIN_RING_BYTES });
        }
        Self::new(lane_slots(ring_bytes), ring_bytes, block_bytes)
    }

    /// Descriptor slots: the most blobs that are staged and not released.
    #[must_use]
    pub const fn slots(&self) -> u32 {
        self.slots
    }

    /// The data ring's size in bytes.
    #[must_use]
    pub const fn ring_bytes(&self) -> u64 {
        self.ring_bytes
    }

    /// The logical block's size in bytes.
    #[must_use]
    pub const fn block_bytes(&self) -> u32 {
        self.block_bytes
    }

    /// The longest payload in bytes, a whole number of blocks: [`MAX_PAYLOAD_BYTES`], or half of a smaller ring.
    ///
    /// Half, because a payload that does not fit before the wrap skips what is left there, which is less than its own
    /// length: the two together must never need more than the ring, or a write could wait for ever.
    #[must_use]
    pub const fn max_payload(&self) -> u32 {
        let half = self.ring_bytes / 2;
        if half >= MAX_PAYLOAD_BYTES as u64 {
            return MAX_PAYLOAD_BYTES;
        }
        #[expect(clippy::cast_possible_truncation, reason = "less than MAX_PAYLOAD_BYTES, a u32")]
        let half = half as u32;
        half - half % self.block_bytes
    }

    /// The most blocks of one payload: [`Geometry::max_payload`] in blocks.
    #[must_use]
    pub const fn max_payload_blocks(&self) -> u32 {
        self.max_payload() / self.block_bytes
    }

    /// The descriptor slot of a blob.
    #[must_use]
    pub const fn slot(&self, seq: Seq) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "the remainder of a u32")]
        let slot = (seq.0 % self.slots as u64) as u32;
        slot
    }

    /// The byte offset in the data ring of a data position.
    #[must_use]
    pub const fn offset(&self, data_pos: u64) -> u64 {
        data_pos % self.ring_bytes
    }
}

/// Why a shape can't be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeometryError {
    /// The number of slots.
    Slots {
        /// As given.
        slots: u32,
    },
    /// The logical block size.
    BlockBytes {
        /// As given.
        block_bytes: u32,
    },
    /// The ring is not a whole number of blocks.
    RingNotInBlocks {
        /// As given.
        ring_bytes: u64,
        /// The block size that it must be a multiple of.
        block_bytes: u32,
    },
    /// The ring.
    RingTooSmall {
        /// As given.
        ring_bytes: u64,
        /// The least that would do.
        least: u64,
    },
}

impl fmt::Display for GeometryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slots { slots } => write!(f, "{slots} descriptor slots: must be a power of two"),
            Self::BlockBytes { block_bytes } => {
                write!(f, "logical blocks of {block_bytes} bytes: must be a power of two up to {MAX_PAYLOAD_BYTES}")
            }
            Self::RingNotInBlocks { ring_bytes, block_bytes } => {
                write!(
                    f,
                    "a data ring of {ring_bytes} bytes: must be a multiple of the logical block, {block_bytes} bytes"
                )
            }
            Self::RingTooSmall { ring_bytes, least } => {
                write!(f, "a data ring of {ring_bytes} bytes: must have at least {least}")
            }
        }
    }
}

impl core::error::Error for GeometryError {}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn a_volume_takes_the_longest_payload_and_a_tiny_ring_half_of_itself() {
        assert_eq!(Geometry::for_volume(MIN_RING_BYTES, 4096).unwrap().ring_bytes(), MIN_RING_BYTES);
        let volume = Geometry::for_volume(64 << 20, 4096).unwrap();
        assert_eq!((volume.slots(), volume.max_payload()), (16_384, MAX_PAYLOAD_BYTES));
        assert_eq!(volume.max_payload_blocks(), 256);
        for (ring_blocks, max_blocks) in [(2, 1), (3, 1), (4, 2), (7, 3), (8, 4)] {
            let tiny = Geometry::new(8, ring_blocks * 512, 512).unwrap();
            assert_eq!(tiny.max_payload_blocks(), max_blocks, "ring of {ring_blocks} blocks");
        }
    }

    #[test]
    fn slots_and_offsets_go_round() {
        let tiny = Geometry::new(8, 5 * 512, 512).unwrap();
        assert_eq!([1, 7, 8, 9].map(|seq| tiny.slot(Seq(seq))), [1, 7, 0, 1]);
        assert_eq!([0, 2559, 2560, 5632].map(|pos| tiny.offset(pos)), [0, 2559, 0, 512]);
    }

    #[test]
    fn a_bad_shape_is_named() {
        let cases = [
            (Geometry::new(6, 4096, 512), "6 descriptor slots: must be a power of two"),
            (Geometry::new(0, 4096, 512), "0 descriptor slots: must be a power of two"),
            (Geometry::new(8, 4096, 0), "logical blocks of 0 bytes: must be a power of two up to 1048576"),
            (Geometry::new(8, 4096, 520), "logical blocks of 520 bytes: must be a power of two up to 1048576"),
            (Geometry::new(8, 4096, 2 << 20), "logical blocks of 2097152 bytes: must be a power of two up to 1048576"),
            (
                Geometry::new(8, 4100, 512),
                "a data ring of 4100 bytes: must be a multiple of the logical block, 512 bytes",
            ),
            (Geometry::new(8, 512, 512), "a data ring of 512 bytes: must have at least 1024"),
            (Geometry::for_volume(1 << 20, 512), "a data ring of 1048576 bytes: must have at least 4194304"),
        ];
        for (got, expected) in cases {
            assert_eq!(got.unwrap_err().to_string(), expected);
        }
    }
}
