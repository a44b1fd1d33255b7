//! The fabric over TCP (`tcp://host:port`, IPv6 addresses in brackets) and unix stream sockets (`unix:///path`).
//!
//! The same one-sided semantics as RDMA verbs, and the same limits: a caller that runs on this one has not come to
//! rely on a socket being laxer. In detail, beyond [`twinsan_fabric`]'s contract:
//!
//! - A post's slot is free again after the [`poll`](twinsan_fabric::Fabric::poll) that could have reported it, not
//!   when its bytes leave.
//! - Messages and immediates take receive credits ([`RECEIVE_CREDITS`] of them); a receiver that does not poll holds
//!   its sender back.
//! - A remote key is 64 random bits, made for one connection.
//! - [`CloseReason::Refused`](twinsan_fabric::CloseReason::Refused) is a port or a socket file that nobody listens
//!   at; an address to which this host has no route is [`CloseReason::NoRoute`](twinsan_fabric::CloseReason::NoRoute);
//!   silence for [`TcpOptions::connect_timeout`] is
//!   [`CloseReason::Unreachable`](twinsan_fabric::CloseReason::Unreachable), as is whatever else the system says.
//! - After [`Event::Closed`](twinsan_fabric::Event::Closed) the connection's local slices are free as after a
//!   disconnect.
//!
//! | module | |
//! | --- | --- |
//! | `frame` | the 32-byte header before every payload |
//! | `outbox`, `inbox`, `credits` | the parts of a `connection` |
//! | `address`, `socket`, `listener`, `dial` | how connections come to be |
//! | `fabric` | [`TcpFabric`], which holds them all |
//!
//! Everything happens on the caller's thread, in the calls of the trait; only host names are resolved elsewhere.
#![forbid(unsafe_code)]

mod address;
mod connection;
mod credits;
mod dial;
mod fabric;
mod frame;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod inbox;
mod listener;
mod outbox;
mod socket;

pub use fabric::{TcpFabric, TcpOptions};
pub use frame::RECEIVE_CREDITS;
