//! Who may write the disk (protocol rules 3, 5, 6, 8, 9, and section 5).
//!
//! A [`Fence`] hands out the one [`ClaimedDisk`]. [`LocalLock`] is the provider for two nodes on one host,
//! [`ScsiPr`] the one for two hosts and a shared LUN.

mod local_lock;
mod process;
pub mod scsi_pr;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use twinsan_wire::Incarnation;

pub use local_lock::{LocalLock, LocalLockTiming};
pub use scsi_pr::{ReservationError, ScsiPr};

use crate::disk::{ClaimedDisk, DiskError, OpenError};

/// A fence provider, used by the flusher thread; each call may block for some hundred milliseconds, up to the
/// provider's limits.
pub trait Fence {
    /// Rule 8: from now on no write of this host by an earlier incarnation can land, and this one is registered, so it
    /// may become a member.
    ///
    /// # Errors
    /// The disk can't be reached, or the registration fails.
    fn admit(&mut self) -> Result<(), FenceError>;

    /// Rules 5 and 6: makes it impossible for any other incarnation's writes to reach the disk, those in flight
    /// included. When it has returned, nobody else can write, and the superblock is to be read again.
    ///
    /// # Errors
    /// Somebody else holds on or was quicker ([`FenceError::is_lost`]), or the disk can't be reached.
    fn fence(&mut self, incarnation: Incarnation) -> Result<ClaimedDisk, FenceError>;

    /// Rule 13, the old primary: it writes no more, and stays let in. No I/O through `claim` is in flight: the queue
    /// has surrendered it. Where the claim itself is what fences it is let go here, before the other node is told;
    /// where a key does, key, reservation and claim stay as they are.
    fn yield_claim(&mut self, claim: ClaimedDisk);

    /// Rule 13, the new primary, which is let in and has been told that nobody writes any more: the claim, without
    /// fencing anybody.
    ///
    /// # Errors
    /// Somebody holds on or was quicker ([`FenceError::is_lost`]), or the disk can't be reached. Then only
    /// [`Fence::fence`] helps.
    fn accept(&mut self, incarnation: Incarnation) -> Result<ClaimedDisk, FenceError>;

    /// Whether the own registration still stands; `claim` is the one that [`Fence::fence`] gave, if it has. If it does,
    /// every path that can be reached may be used.
    ///
    /// # Errors
    /// Nobody can tell: the disk can't be reached.
    fn check(&mut self, claim: Option<&ClaimedDisk>) -> Result<bool, FenceError>;

    /// A path of the disk has come back, and is to be let in before it is used. As everything here, called while nothing
    /// of this node is in flight at the disk or can be issued (section 5). `false`: the own registration is gone.
    ///
    /// # Errors
    /// The disk can't be reached.
    fn paths_changed(&mut self) -> Result<bool, FenceError> {
        Ok(true)
    }

    /// Lets the claim and the registration go. No I/O through it is in flight: the queue has surrendered it.
    fn release(&mut self, claim: Option<ClaimedDisk>);
}

/// Why fencing failed.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    /// The claim stayed taken, and nobody says in the heartbeat blocks that it is his.
    #[error("the disk is claimed, and no heartbeat block says by whom; tried for {} ms", waited.as_millis())]
    Unknown {
        /// For how long it was tried.
        waited: Duration,
    },
    /// The holder was killed, and the claim is still taken: its last write has not ended.
    #[error("process {pid} was killed {} ms ago and its last write has not ended", waited.as_millis())]
    StillHeld {
        /// The killed process.
        pid: u32,
        /// How long ago.
        waited: Duration,
    },
    /// Rule 13: the claim that was to be accepted is not free.
    #[error("the disk's claim, which was handed over, is still taken; tried for {} ms", waited.as_millis())]
    NotFree {
        /// For how long it was tried.
        waited: Duration,
    },
    /// Another one took the claim from the holder first.
    #[error("process {pid} was quicker")]
    Quicker {
        /// Who has it now.
        pid: u32,
    },
    /// The holder runs where it can't be killed from here.
    #[error(
        "the disk is claimed by process {pid} on another host, another boot or in another pid namespace: the local-lock \
         fence is for two nodes that see each other's processes"
    )]
    Elsewhere {
        /// Its pid there.
        pid: u32,
    },
    /// Another process of this host has the disk: its writes may still be in flight (rule 8).
    #[error(
        "{}: claimed by something else on this host for {} ms: an earlier process whose last write has not ended (one \
         queued in dm-multipath shows nowhere else), another node, a mount", path.display(), waited.as_millis()
    )]
    Claimed {
        /// The disk.
        path: PathBuf,
        /// How long it was tried.
        waited: Duration,
    },
    /// The LUN's registrations.
    #[error(transparent)]
    Reservation(#[from] ReservationError),
    /// This process holds the claim already.
    #[error("this process holds the disk's claim already")]
    OwnProcess,
    /// The kernel does not let us kill the holder.
    #[error("process {pid} holds the disk and can't be killed: {source}; run both nodes as one user")]
    CannotKill {
        /// The holder.
        pid: u32,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The disk can't be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The disk can't be read or written.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Something of the system that the fence needs does not work.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl FenceError {
    /// Somebody else has the disk: try later. Otherwise the disk can't be reached.
    #[must_use]
    pub const fn is_lost(&self) -> bool {
        match self {
            Self::Open(_) | Self::Disk(_) | Self::System { .. } => false,
            Self::Reservation(error) => error.is_lost(),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests;
