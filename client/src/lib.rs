//! The client host's side: `twinsan attach` makes a replicated volume a block device for NBD clients; the other
//! commands are the administrator's.
#![forbid(unsafe_code)]

pub mod attach;
pub mod cli;
pub mod commands;
pub mod device;
pub mod front;
pub mod memory;
