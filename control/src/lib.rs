//! What a node, a client and an operator agree on besides the wire: the configuration file ([`config`]) and the
//! language of a node's admin socket ([`admin`]).
//!
//! One `twinsan.toml` serves both nodes and every client, so that they cannot disagree about who is node A, where a
//! volume's disk is or how long a silence is.
#![forbid(unsafe_code)]

pub mod admin;
pub mod config;
mod size;

pub use config::{Address, Config, ConfigError, FenceKind, Node, Timing, Volume};
pub use size::{Size, SizeError};
