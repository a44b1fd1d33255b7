//! Blobs staged in RAM: where their bytes lie, and which of them are newest.
//!
//! [`Window`] is the client's side of a lane, [`Lane`] a node's; both place payloads by the one rule in `ring.rs`, at
//! the same offsets on every host. [`Index`] says which blob is newest where: for reads, and for what
//! is to be flushed.
//!
//! Everything here moves descriptors, never payload bytes: the bytes lie in the drivers' registered memory, which
//! this crate does not see.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod geometry;
mod held;
mod index;
mod lane;
mod ring;
mod window;

pub use geometry::{Geometry, GeometryError};
pub use index::{Index, Resolve, Segment};
pub use lane::{Accept, Lane, LaneError};
pub use window::Window;
