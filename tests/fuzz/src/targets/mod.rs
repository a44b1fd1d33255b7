//! The targets, one a file.

pub(crate) mod config;
pub(crate) mod disk;
pub(crate) mod framing;
pub(crate) mod host;
pub(crate) mod memory;
pub(crate) mod messages;
pub(crate) mod nbd;
pub(crate) mod replica;
pub(crate) mod session;
pub(crate) mod setup;
