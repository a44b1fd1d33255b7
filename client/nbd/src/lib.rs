//! The server's side of the NBD protocol, without I/O: bytes in, [`Step`]s and reply bytes out.
//!
//! Source: `doc/proto.md` of the NetworkBlockDevice project, called *proto.md* in comments. Spoken here: the fixed
//! newstyle handshake (never oldstyle), structured replies, block size constraints. Not spoken, and refused by the
//! answer that proto.md has for it: TLS, metadata contexts, extended headers, resize.
//!
//! A driver owns one [`Server`] per connection. It gives received bytes to [`Server::advance`] and carries out the
//! steps in order:
//!
//! ```text
//!            +-- Hungry: all bytes used, receive more
//!  advance --+-- Entered: the handshake is over
//!            +-- Request (READ, FLUSH, …): do it, answer with reply::*
//!            +-- Request (WRITE): take the payload off the stream, telling payload_taken(n); answer
//!            +-- Refused: answer with reply::error; a refused payload is read off in here
//!            +-- Finish: nothing more comes; finish what is open, send what is owed, close
//! ```
//!
//! However the stream is cut into pieces, the steps and replies are the same. Memory is bounded by
//! [`limits`]: one option's data or one request header is kept, never a payload.
#![forbid(unsafe_code)]

mod export;
mod handshake;
pub mod limits;
mod option;
pub mod proto;
pub mod reply;
mod request;
mod server;
#[cfg(test)]
mod tests;

pub use export::Export;
pub use request::{Command, Errno, Refused, Request};
pub use server::{Server, Step, Violation};
