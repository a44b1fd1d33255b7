//! The client's half of the protocol, without I/O: lanes, resending, who is primary, what has completed.
//!
//! Everything that happens enters as one [`Event`] (or a call of the caller's: a write, a read); everything to be
//! done leaves as [`Action`]s, in order.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod action;
mod event;

pub use action::{Action, Ended, Notice};
pub use event::{ConnId, ConnectError, Event};
