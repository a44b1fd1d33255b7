//! The shared disk: what lies on it, how it is written, and who may.
//!
//! - [`layout`], [`superblock`]: the bytes of the first MiB. Pure. `docs/disk-format.md` has the tables.
//! - [`disk`]: descriptions of the disk with and without the exclusive claim, and the io_uring queue that the flusher
//!   thread drives. Unsafe code is there, and in `fence/scsi_pr` for the SCSI commands.
//! - [`volume`]: the queue in the protocol's words: superblock, heartbeat, data.
//! - [`fence`]: who may write; the providers local-lock and scsi-pr.
//! - [`multipath`]: the paths of a SCSI disk, and how they are.
//! - [`format`](mod@format): makes a volume, and refuses to make one of somebody else's data.
//!
//! Descriptions come in two types, so that the compiler keeps rule 3: a [`disk::SharedReader`] can only read and is
//! anybody's; a [`disk::ClaimedDisk`] can write, exists once per disk, and comes from a fence.
#![deny(unsafe_code)]

pub mod disk;
pub mod fence;
pub mod format;
#[cfg(feature = "fuzz")]
pub mod fuzz;
pub mod layout;
pub mod multipath;
pub mod page;
pub mod superblock;
#[cfg(test)]
mod testing;
pub mod volume;

pub use disk::{ClaimedDisk, DiskError, OpenError, SharedReader};
pub use page::Page;
pub use superblock::{Heartbeat, NodeName, Slot, SlotPair, SuperblockError, Uuid, VolumeIdentity};

/// Seconds since 1970, for people to read.
fn now_unix() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs())
}
