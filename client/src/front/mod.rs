//! Where requests come in: one volume, no thread.
//!
//! ```text
//! NBD clients, the kernel's nbd ──▶ nbd  ──┐
//!                                          ├──▶ requests ──▶ Backend: the session
//! the kernel's ublk driver ───────▶ ublk ──┘
//! ```
//!
//! A driver calls `ready` for what it watches and the two `…completed` methods for what the volume has done, then
//! `work`, which does everything that can be done, and `send`, which sends what is owed. Nothing
//! here waits.

mod backend;
mod jobs;
mod limits;
mod nbd;
mod ranges;
mod reads;
mod requests;
mod slots;
mod span;

pub use self::backend::{Backend, Watcher};
pub use self::nbd::{NbdAddress, NbdFront, NbdListener, NbdOptions};
pub use self::span::Shape;

pub(crate) type PortId = u32;
pub(crate) type OpId = u32;
pub(crate) type JobId = u32;
