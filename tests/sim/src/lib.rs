//! The whole cluster in one deterministic process: two nodes with the real replica machine, clients with the real
//! session machine, and everything around them simulated: network, memories, disk, fences, processes' lives.
//!
//! A run is decided by its seed alone. [`SimConfig::from_seed`] says what it is made of, [`World::run`] lets faults
//! strike while the client works, mends everything and looks; [`World::violation`] says what promise was broken.
//! Scripts drive exact interleavings with [`World::hold_messages`] and [`World::hold_disk`].
#![forbid(unsafe_code)]

mod boundaries;
mod check;
mod client;
mod clock;
mod config;
mod counts;
mod coverage;
mod cuts;
mod disk;
mod event;
pub mod explore;
mod fabric;
mod faults;
mod fence;
mod hold;
mod net;
mod node;
mod plan;
mod rng;
mod script;
mod shared;
mod shrink;
mod stamp;
mod storage;
mod story;
mod trace;
mod weak;
mod words;
mod world;

pub use boundaries::{Boundary, TALES, Tale, at_each_boundary};
pub use check::Violation;
pub use config::{FenceKind, SimConfig, Span};
pub use counts::Counts;
pub use coverage::Coverage;
pub use disk::Pathless;
pub use event::{Answer, AnswerCopied, Host, Item};
pub use hold::{DiskAccess, HoldId};
pub use plan::{Deed, Fault, Request, What};
pub use rng::Rng;
pub use shrink::{Case, Progress, shrink};
pub use stamp::{Cell, Version};
pub use weak::{DriverWeakness, Weakness};
pub use world::{Process, World};
