//! The volume as a block device of this host's kernel.
//!
//! A kernel device outlives the process that serves it, on purpose: when that is killed, requests wait in the kernel
//! until `twinsan attach` is started again with the same arguments, finds the device and goes on serving it. So a device
//! carries the volume's identity, and is only ever taken up again for the very volume that it was made for.

mod claim;
mod genl;
mod host;
mod nbd;
pub(crate) mod ublk;
mod usage;

use self::claim::Claim;
#[cfg(feature = "fuzz")]
pub(crate) use self::genl::fuzz as fuzz_genl;
pub(crate) use self::host::protect;
pub use self::nbd::NbdDeviceName;
pub(crate) use self::nbd::{ClaimedNbd, NbdDevice};
pub(crate) use self::usage::{Usage, UsageCheck};
