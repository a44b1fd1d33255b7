//! The replication machine of one volume on one node: rules 1 to 15 of `docs/protocol.md`, without I/O.
//!
//! Everything that happens enters as one [`Event`]; everything to be done leaves as [`Action`]s, in order. The driver
//! (and the simulator) carries actions out and decides nothing.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod action;
#[cfg(feature = "explore")]
mod canonical;
mod config;
mod disk;
mod ending;
mod event;
mod exposure;
mod flush;
mod handover;
mod ids;
mod machine;
mod pair;
mod peer;
mod random;
mod reads;
mod relay;
mod serve;
mod sessions;
mod state;
mod status;
mod takeover;

pub use action::{Action, Notice, Piece, PieceSource, Source, WriteRange};
#[cfg(feature = "explore")]
pub use canonical::Names;
pub use config::{ReplicaConfig, Timing, Weakness};
pub use event::{DiskError, Event, FenceError, Probe, SlotRead};
pub use exposure::Drained;
pub use handover::{HandedOver, Obstacle};
pub use ids::{ConnId, LinkId, ReadToken, RelayId};
pub use machine::Replica;
pub use relay::RelayPhase;
pub use status::Status;
pub use takeover::Evidence;
