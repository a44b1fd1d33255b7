//! The superblock: who holds the data, in two slots of 4 KiB at the disk's start.
//!
//! [`codec`] turns one slot into bytes and back; [`slots`] judges the two and plans a change; [`heartbeat`] is the
//! block beside them that each node counts in. All of it is pure: the disk is somebody else's.
//!
//! Protocol section 7: both slots are written at every change, the older first; a change counts when both are on the
//! disk. The valid slot with the highest counter serves, and the other is mended, under the fence, before anything else.

pub mod codec;
pub mod heartbeat;
pub mod slots;
#[cfg(test)]
mod tests;

use core::fmt;

use twinsan_wire::message::VolumeName;
use twinsan_wire::{NodeId, Superblock};

pub use codec::SlotError;
pub use heartbeat::{Heartbeat, HeartbeatError, ProcessStamp};
pub use slots::{SlotIndex, SlotPair, WritePlan};

use crate::layout;

/// What `twinsan format` decides once: the constant part of the superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeIdentity {
    /// Random, made by format.
    pub uuid: Uuid,
    /// The volume's name in the configuration.
    pub name: VolumeName,
    /// Size in logical blocks.
    pub blocks: u64,
    /// Logical block size in bytes: 512 or 4096.
    pub block_bytes: u32,
    /// Where block 0 lies on the disk, in bytes: [`layout::DATA_OFFSET`] in this version of the format.
    pub data_offset: u64,
    /// The names of node A and node B.
    pub nodes: [NodeName; 2],
}

impl VolumeIdentity {
    /// Size in bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.blocks * self.block_bytes as u64
    }

    /// Where the volume ends on the disk, in bytes: the least size that the disk must have.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.data_offset + self.bytes()
    }

    /// Which of the two nodes goes by this name.
    #[must_use]
    pub fn node(&self, name: &NodeName) -> Option<NodeId> {
        NodeId::BOTH.into_iter().find(|node| self.nodes[node.index()] == *name)
    }

    /// Whether size, block size and data offset are such as this version can serve.
    pub(crate) fn check(&self) -> Result<(), SlotError> {
        if !layout::BLOCK_SIZES.contains(&self.block_bytes) {
            return Err(SlotError::Field { what: "logical block size", value: u64::from(self.block_bytes) });
        }
        if self.data_offset != layout::DATA_OFFSET {
            return Err(SlotError::Field { what: "data offset", value: self.data_offset });
        }
        let end = self.blocks.checked_mul(u64::from(self.block_bytes)).and_then(|b| b.checked_add(self.data_offset));
        if self.blocks == 0 || end.is_none_or(|end| i64::try_from(end).is_err()) {
            return Err(SlotError::Field { what: "size in blocks", value: self.blocks });
        }
        if self.nodes[0] == self.nodes[1] {
            return Err(SlotError::Name { what: "second node (the same as the first)" });
        }
        Ok(())
    }
}

/// One slot's contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// What never changes.
    pub identity: VolumeIdentity,
    /// What the protocol changes.
    pub superblock: Superblock,
    /// When it was last changed, by the writer's clock: seconds since 1970. For people only ("dual since …"); nothing
    /// depends on it.
    pub changed_at: u64,
}

/// A volume's random id.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// From 16 random bytes: version 4, variant 1 (RFC 9562, section 5.4).
    #[must_use]
    pub const fn from_random(mut bytes: [u8; 16]) -> Self {
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Self(bytes)
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A node's name: the same alphabet and length as a volume's.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeName(VolumeName);

impl NodeName {
    /// From its text: 1 to 63 bytes of `a-z A-Z 0-9 . _ -`, else `None`.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        VolumeName::new(name).map(Self)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Zero-padded.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 64] {
        self.0.as_bytes()
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why the two slots don't make a superblock, or a change of it is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SuperblockError {
    /// Neither slot carries the magic.
    #[error(
        "no TwinSAN volume here (slot 0: {first}; slot 1: {second}): check the path, or make one with `twinsan format`"
    )]
    NoVolume {
        /// Of slot 0.
        first: SlotError,
        /// Of slot 1.
        second: SlotError,
    },
    /// At least one carries the magic, and neither is valid.
    #[error("both superblock slots are unusable (slot 0: {first}; slot 1: {second}): refusing to guess")]
    Corrupt {
        /// Of slot 0.
        first: SlotError,
        /// Of slot 1.
        second: SlotError,
    },
    /// Each slot is valid by itself, for another volume.
    #[error("the superblock slots belong to two volumes: {first} and {second}")]
    Mixed {
        /// In slot 0.
        first: Uuid,
        /// In slot 1.
        second: Uuid,
    },
    /// Each slot is valid by itself, they have one counter, and they say different things.
    #[error("both superblock slots have write counter {counter}, and they differ")]
    Disagree {
        /// The counter.
        counter: u64,
    },
    /// The disk is another volume's.
    #[error("the disk holds volume \"{found}\", not \"{expected}\"")]
    WrongName {
        /// The configuration's.
        expected: Box<str>,
        /// The disk's.
        found: Box<str>,
    },
    /// The disk has become another one since it was first read.
    #[error("the disk holds the volume with UUID {found}; it was {expected} before")]
    WrongUuid {
        /// As first read.
        expected: Uuid,
        /// As read now.
        found: Uuid,
    },
    /// The disk is smaller than its superblock says.
    #[error("the volume needs a disk of {needed} bytes, and this one has {found}")]
    TooSmall {
        /// First MiB and data.
        needed: u64,
        /// The disk's size.
        found: u64,
    },
    /// The disk's own block is larger than the volume's: writes of one volume block can't be made.
    #[error("the volume has blocks of {volume} bytes, the disk can only write blocks of {device}")]
    BlockTooSmall {
        /// The volume's logical block.
        volume: u32,
        /// The disk's logical block.
        device: u32,
    },
    /// A change that would turn the epoch back: never right, so never written.
    #[error("refusing to write epoch {new} over the disk's {on_disk}")]
    EpochBack {
        /// What was to be written.
        new: u64,
        /// What stands there.
        on_disk: u64,
    },
}
