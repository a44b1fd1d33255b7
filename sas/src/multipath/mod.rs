//! The paths to a SCSI disk: which there are, how they are, and what dm-multipath makes of them.
//!
//! - [`Sysfs::find`]: from a device path to the [`ScsiDisk`] behind it, a dm-multipath map or one SCSI disk. Names of paths
//!   (`sda`) change from boot to boot and are used anew, so a [`PathId`] carries the kernel's serial number beside.
//! - [`multipathd`]: what the daemon thinks, by its socket.
//! - [`Tracker`]: from what was seen to states and events. Pure.
//! - [`Watch`]: the thread that looks, more often than multipathd does, and tells.

mod find;
pub mod multipathd;
mod tracker;
mod watch;

use std::path::PathBuf;

pub use find::{PathInfo, ScsiDisk, Sysfs};
pub use tracker::{Answer, PathEvent, PathSet, PathState, PathStatus, Seen, Tracker};
pub use watch::{Registrations, Watch, WatchOptions};

/// One path, as long as it lives.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PathId {
    /// The kernel's name: `sda`.
    pub name: String,
    /// The kernel's number for this life of the device (`diskseq`): a name that is given again has another.
    pub serial: u64,
}

/// Why a device is not what the configuration says.
#[derive(Debug, thiserror::Error)]
pub enum MultipathError {
    /// /sys or the device can't be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// What was read.
        path: PathBuf,
        /// The kernel's word.
        source: std::io::Error,
    },
    /// A file, a loop device, an NVMe disk, …
    #[error("{}: {what}; reservations need a SCSI disk or a dm-multipath map of one", path.display())]
    NotScsi {
        /// The disk of the configuration.
        path: PathBuf,
        /// What it is.
        what: String,
    },
    /// A single path where several are wanted.
    #[error(
        "{}: one path ({name}), not a dm-multipath map; give the map (/dev/mapper/NAME, `multipath -ll` lists them), or \
         say multipath = false if this host has only one path", path.display()
    )]
    SinglePath {
        /// The disk of the configuration.
        path: PathBuf,
        /// The SCSI disk.
        name: String,
    },
    /// A map that never gives an error back.
    #[error(
        "{}: map {map} queues I/O for ever when no path is left (queue_if_no_path): a node that has lost the disk could \
         not hand over, nor end; set no_path_retry fail, in the overrides section too, and run multipathd reconfigure",
        path.display()
    )]
    Queues {
        /// The disk of the configuration.
        path: PathBuf,
        /// The map.
        map: String,
    },
}
