//! Block devices served from user space, by the kernel's ublk driver (Documentation/block/ublk.rst).
//!
//! [`Control`] makes, finds and removes devices; [`Queue`] is one device's only queue of requests. Both are driven from
//! one thread, the caller's: a queue says by its descriptor that something has happened, and never waits. Payloads
//! move by `pread` and `pwrite` between the request's pages and an arena (`UBLK_F_USER_COPY`): one copy, and the
//! caller decides where, when it knows.
//!
//! # Life of a device
//!
//! ```text
//!            add             open, fetch, start                    the process ends
//! (none) ─────────▶ Dead ─────────────────────────▶ Live ──────────────────────────────▶ Quiesced
//!    ▲               │                              │  ▲                                     │
//!    └──── delete ───┴───────────── stop ───────────┘  └── begin_recovery, open, fetch, ─────┘
//!                                                          end_recovery
//! ```
//!
//! A device lives on without its process: requests wait in the kernel, those that the process had and did not complete
//! too, and the next process gets them all (`UBLK_F_USER_RECOVERY_REISSUE`).

mod abi;
mod control;
mod error;
mod queue;

pub use abi::{Command, Request};
pub use control::{Control, Device, Parameters, State};
pub use error::UblkError;
pub use queue::{Happened, Queue, is_farewell};
