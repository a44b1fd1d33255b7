//! What can go wrong with a disk, sorted by what follows from it.

use std::io;
use std::path::PathBuf;

use core::fmt;

use crate::superblock::{HeartbeatError, SuperblockError};

/// What was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A read.
    Read,
    /// A write.
    Write,
    /// A range being zeroed.
    Zero,
    /// The disk's cache being flushed.
    Sync,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Zero => "zeroing",
            Self::Sync => "cache flush",
        })
    }
}

/// What a disk operation came to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// EBADE: a reservation conflict. Whether it means that this node is fenced, the fence's check tells (rule 9).
    #[error("{op} of {len} bytes at byte {offset}: reservation conflict")]
    Conflict {
        /// What was being done.
        op: Op,
        /// Byte on the disk.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// A write without the claim: it has been released, or was never taken.
    #[error("this process does not hold the disk's claim")]
    NotClaimed,
    /// Anything else that the kernel reports (EIO, ENOSPC, no path …). It may be tried again.
    #[error("{op} of {len} bytes at byte {offset}: {}", io::Error::from_raw_os_error(*errno))]
    Failed {
        /// What was being done.
        op: Op,
        /// Byte on the disk.
        offset: u64,
        /// Bytes.
        len: u64,
        /// The kernel's error.
        errno: i32,
    },
    /// The disk ended, or took or gave nothing, before all was done.
    #[error("{op} of {len} bytes at byte {offset}: {missing} bytes short")]
    Short {
        /// What was being done.
        op: Op,
        /// Byte on the disk.
        offset: u64,
        /// Bytes.
        len: u64,
        /// How many of them were not read or written.
        missing: u64,
    },
    /// The superblock is unusable, or a change of it is refused.
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    /// The other node's heartbeat block is unusable.
    #[error(transparent)]
    Heartbeat(#[from] HeartbeatError),
}

impl DiskError {
    /// From a (positive) errno.
    pub(crate) const fn from_errno(errno: i32, op: Op, offset: u64, len: u64) -> Self {
        match errno {
            libc::EBADE => Self::Conflict { op, offset, len },
            errno => Self::Failed { op, offset, len, errno },
        }
    }

    /// The reservation may be gone, or the claim is: the fence is to be checked before anything is tried again.
    #[must_use]
    pub const fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. } | Self::NotClaimed)
    }

    /// The superblock can't be read in either slot.
    #[must_use]
    pub const fn is_corrupt(&self) -> bool {
        matches!(self, Self::Superblock(_))
    }
}

/// Why a disk can't be opened for use.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system call failed.
    #[error("{}: {what}: {source}", path.display())]
    Io {
        /// The disk.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Neither a block device nor a regular file.
    #[error("{}: a {found}; a volume lives on a block device or in a regular file", path.display())]
    WrongKind {
        /// The path.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// O_DIRECT is not to be had.
    #[error("{}: its filesystem has no direct I/O (O_DIRECT); put the file on ext4, xfs or a block device", path.display())]
    NoDirectIo {
        /// The file.
        path: PathBuf,
    },
    /// The disk's own block is larger than the volume's.
    #[error("{}: the disk can only write blocks of {device} bytes, smaller blocks ({wanted} bytes) are impossible", path.display())]
    BlockTooSmall {
        /// The disk.
        path: PathBuf,
        /// Its logical block.
        device: u32,
        /// What the volume asks for.
        wanted: u32,
    },
    /// The path leads to another disk than before.
    #[error("{}: no longer the disk that it was (device or inode number changed)", path.display())]
    Replaced {
        /// The path.
        path: PathBuf,
    },
    /// The queue can't be set up.
    #[error("{}: io_uring: {what}: {source}", path.display())]
    Ring {
        /// The disk.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}
