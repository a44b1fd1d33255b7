//! The bytes of every message: one file for each direction. All fields are little-endian; all enumerations start at
//! 1, so that zero is "none" where that may be said, and an error elsewhere; a field that is not given is zero.

pub(crate) mod client;
pub(crate) mod node;
pub(crate) mod parts;
pub(crate) mod peer;
pub(crate) mod setup;
pub(crate) mod times;
