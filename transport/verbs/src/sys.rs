//! The only unsafe code of this crate: verbs and the RDMA connection manager behind types that can't be misused.
//!
//! | module | |
//! | --- | --- |
//! | `bindings` | generated: types, and the functions as found in the libraries |
//! | `library` | opens them, or says why there is no RDMA here |
//! | `channel` | the connection manager's events |
//! | `id` | one of its identifiers: a connection or a listener |
//! | `memory` | protection domains and registered memory |
//! | `queue` | queue pairs: posting and completions |
//!
//! # What every SAFETY note leans on
//!
//! 1. *The libraries stay loaded*: they are opened once and never closed, so their functions are good for ever.
//! 2. *Ownership is a chain*: `QueuePair` and [`MemoryRegion`] hold the [`ProtectionDomain`], which holds the identifier
//!    ([`CmId`]), which holds the [`EventChannel`]'s. Each is destroyed in its `Drop`, so nothing is destroyed before
//!    what was made of it, and the device's context, which belongs to the library and stays open while an identifier is
//!    bound to it, outlives them all.
//! 3. *One thread*: the types hold raw pointers and are neither `Send` nor `Sync`.
//! 4. *Memory that the device reaches* is an arena's, held by the `MemoryRegion` until the device has let go of it. No
//!    reference to such bytes exists anywhere (see `twinsan_arena`), so the device may write them at any moment.
#![allow(unsafe_code)]

#[allow(missing_docs, non_camel_case_types, unsafe_op_in_unsafe_fn, unreachable_pub, dead_code)]
#[allow(clippy::all, clippy::pedantic, clippy::undocumented_unsafe_blocks)]
#[rustfmt::skip]
mod bindings;
mod channel;
mod id;
#[cfg(test)]
mod layout;
mod library;
mod memory;
mod queue;

pub(crate) use channel::{CmEvent, CmEventKind, EventChannel};
pub(crate) use id::{CmId, ConnectOptions};
pub(crate) use memory::{Access, MemoryRegion, ProtectionDomain};
pub(crate) use queue::{BATCH, Completion, Done, Failure, Op, Post, QueuePair, QueueSizes, Receive};

use std::ffi::c_int;
use std::io;

/// What the libraries' functions return: zero, or -1 with the error in errno.
fn check(outcome: c_int) -> io::Result<()> {
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What some verbs return: zero, or the error's number itself.
fn check_number(outcome: c_int) -> io::Result<()> {
    if outcome == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(outcome.abs())) }
}

fn set_nonblocking(fd: std::os::fd::BorrowedFd<'_>) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    Ok(rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK)?)
}
