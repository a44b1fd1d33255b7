//! The client's half of the protocol, without I/O: lanes, resending, who is primary, what has completed.
//!
//! Everything that happens enters as one [`Event`] (or a call of the caller's: a write, a read); everything to be
//! done leaves as [`Action`]s, in order. [`Session`] is the machine.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod action;
#[cfg(feature = "explore")]
mod canonical;
mod config;
mod event;
mod link;
mod reads;
mod session;
mod status;
mod told;
mod view;

#[cfg(test)]
mod tests;

pub use action::{Action, Ended, Notice};
#[cfg(feature = "explore")]
pub use canonical::Names;
pub use config::{SessionConfig, Timing, Weakness};
pub use event::{ConnId, ConnectError, Event};
pub use link::LinkPhase;
pub use session::Session;
pub use status::{LinkStatus, Phase, Status};
