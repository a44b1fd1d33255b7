//! One-sided transport: what the drivers ask of a network.
//!
//! Shaped for RDMA verbs (reliable connections) from the start; the socket fabric keeps the same contract and the
//! conformance suite holds every fabric to it.
//!
//! # Contract
//!
//! 1. **Order** holds within one connection only. What was posted there arrives in post order: when
//!    [`Event::Immediate`] or [`Event::Message`] is reported, every write posted before it on that connection has
//!    landed. A plain [`Fabric::write`] reports nothing at the receiver, and until such an event its bytes may be
//!    partly there.
//! 2. **Posted memory** ([`LocalSlice`]) belongs to the fabric from the post until its [`Event::Sent`], or until
//!    [`Fabric::disconnect`] returns. Inline payloads (at most [`Limits::max_inline`]) are copied at the post.
//! 3. **Nothing leaves** before [`Fabric::submit`], the doorbell: so that a payload and its immediate cost one.
//! 4. **Keys.** A [`RemoteKey`] opens one byte range of one region on one connection, for writing, and dies with the
//!    connection. A write outside of it closes the connection and lands nothing.
//! 5. **Disconnect** is a barrier: when it returns, nothing that the peer sends can land, and local slices are free.
//! 6. **Limits.** A connection takes [`Limits::send_depth`] posts that have not completed, and a message of at most
//!    [`Limits::max_message`] bytes; past that a post is [`PostError::Full`] or [`PostError::TooLong`]. The receiver
//!    side returns credits by itself; a sender that outruns them is held back, never dropped.
//! 7. **Unsolicited** posts ([`Fabric::submit_unsolicited`]) need not wake a receiver that sleeps in [`Fabric::poll`]. They
//!    are there when that poll returns, because its time is over or something else has woken it, in order with all other posts
//!    of their connection. So whoever is sent such sleeps for a bounded time.
//!
//! # Features
//!
//! For tests: `conformance` is the suite that every fabric must pass; `faulty` wraps a fabric and does the worst that
//! this contract allows.
#![forbid(unsafe_code)]

#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "faulty")]
pub mod faulty;
pub mod parts;
mod reason;

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use twinsan_arena::Arena;
pub use twinsan_wire::message::RemoteKey;

pub use crate::reason::{CloseReason, Verdict};

/// A connection of one fabric; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// A registered region of one fabric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RegionId(pub u32);

/// Bytes of a registered region here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalSlice {
    /// The region.
    pub region: RegionId,
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub len: u32,
}

/// Where a one-sided write lands over there: `offset` counts from the start of the range that `key` opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteAddr {
    /// What the peer told us.
    pub key: RemoteKey,
    /// First byte.
    pub offset: u64,
}

/// What a write carries.
#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    /// Copied at the post; at most [`Limits::max_inline`] bytes.
    Inline(&'a [u8]),
    /// Read from registered memory until [`Event::Sent`].
    Region(LocalSlice),
}

/// A number of the caller's for one post, handed back when it has completed.
pub type WorkId = u64;

/// What this fabric can carry.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of an inline payload; at least one descriptor (64).
    pub max_inline: usize,
    /// Bytes of one message; at least [`twinsan_wire::limits::MAX_MESSAGE_BYTES`].
    pub max_message: usize,
    /// Posts outstanding on one connection.
    pub send_depth: usize,
}

/// What happened, in order per connection.
#[derive(Debug)]
pub enum Event {
    /// A peer has connected to the listener at `local`.
    Accepted {
        /// The new connection.
        conn: ConnId,
    },
    /// Our own connect has succeeded.
    Connected {
        /// The connection.
        conn: ConnId,
    },
    /// A small message.
    Message {
        /// From where.
        conn: ConnId,
        /// The bytes.
        bytes: Box<[u8]>,
    },
    /// A write with immediate has landed, and every write before it.
    Immediate {
        /// From where.
        conn: ConnId,
        /// The 32 bits.
        imm: u32,
    },
    /// A signalled post has completed: its memory is the caller's again, and that of every post before it on this
    /// connection. It says nothing about the receiving program; but it may need its polls, where the receiver's fabric is
    /// what carries writes out.
    Sent {
        /// Which connection.
        conn: ConnId,
        /// The caller's number.
        work: WorkId,
    },
    /// The connection is gone; nothing comes from it any more. Not reported after [`Fabric::disconnect`].
    Closed {
        /// Which.
        conn: ConnId,
        /// Why.
        why: CloseReason,
    },
    /// A watched descriptor is ready.
    Ready {
        /// The caller's token.
        token: u64,
    },
}

impl Event {
    /// The connection that it is about.
    #[must_use]
    pub const fn conn(&self) -> Option<ConnId> {
        match self {
            Self::Accepted { conn }
            | Self::Connected { conn }
            | Self::Message { conn, .. }
            | Self::Immediate { conn, .. }
            | Self::Sent { conn, .. }
            | Self::Closed { conn, .. } => Some(*conn),
            Self::Ready { .. } => None,
        }
    }
}

/// Why a post was not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PostError {
    /// Too many outstanding.
    #[error("send queue full")]
    Full,
    /// Longer than the fabric's limit.
    #[error("{len} bytes, the limit is {limit}")]
    TooLong {
        /// What was asked.
        len: usize,
        /// What is possible.
        limit: usize,
    },
    /// No such connection, or not connected yet.
    #[error("not connected")]
    NotConnected,
    /// The local slice is outside of its region.
    #[error("local slice outside of its region")]
    OutOfRegion,
}

/// What can go wrong in setting up.
#[derive(Debug, thiserror::Error)]
pub enum FabricError {
    /// The address makes no sense to this fabric.
    #[error("address \"{address}\": {why}")]
    Address {
        /// As given.
        address: String,
        /// What would be right.
        why: String,
    },
    /// The operating system said no.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's word.
        source: std::io::Error,
    },
    /// The transport is not to be had on this host.
    #[error("address \"{address}\": {why}")]
    NoTransport {
        /// As given.
        address: String,
        /// What is missing, and what to do.
        why: String,
    },
    /// The range is outside of the region, or the region or connection is unknown.
    #[error("{0}")]
    Invalid(&'static str),
}

/// How the fabric waits.
#[derive(Clone, Copy, Debug, Default)]
pub struct WaitPolicy {
    /// Spin at most this long before sleeping; [`parts::Spin`] closes and opens it.
    pub spin: Duration,
}

/// A polled network endpoint with many connections. One thread owns it.
pub trait Fabric {
    /// What it can carry.
    fn limits(&self) -> Limits;

    /// Registers a whole arena; its memory stays mapped as long as the fabric lives.
    ///
    /// # Errors
    /// If the memory can't be registered.
    fn register(&mut self, arena: Arc<Arena>) -> Result<RegionId, FabricError>;

    /// Opens `len` bytes at `offset` of `region` for one-sided writes by the peer of `conn`.
    ///
    /// # Errors
    /// If the range is outside of the region, or the connection is gone.
    fn expose(&mut self, conn: ConnId, region: RegionId, offset: u64, len: u64) -> Result<RemoteKey, FabricError>;

    /// Listens; returns the address as bound (`tcp://127.0.0.1:0` gets its port).
    ///
    /// # Errors
    /// If the address is bad or taken.
    fn listen(&mut self, address: &str) -> Result<String, FabricError>;

    /// Begins to connect; [`Event::Connected`] or [`Event::Closed`] follows.
    ///
    /// # Errors
    /// If the address is bad.
    fn connect(&mut self, address: &str) -> Result<ConnId, FabricError>;

    /// Posts a one-sided write.
    ///
    /// # Errors
    /// See [`PostError`].
    fn write(
        &mut self,
        conn: ConnId,
        payload: Payload<'_>,
        to: RemoteAddr,
        signal: Option<WorkId>,
    ) -> Result<(), PostError>;

    /// Posts a one-sided write that the receiver is told of.
    ///
    /// # Errors
    /// See [`PostError`].
    fn write_imm(
        &mut self,
        conn: ConnId,
        payload: Payload<'_>,
        to: RemoteAddr,
        imm: u32,
        signal: Option<WorkId>,
    ) -> Result<(), PostError>;

    /// Posts a message.
    ///
    /// # Errors
    /// See [`PostError`].
    fn send(&mut self, conn: ConnId, message: &[u8]) -> Result<(), PostError>;

    /// The doorbell: what was posted on `conn` leaves.
    fn submit(&mut self, conn: ConnId);

    /// The doorbell for what the peer need not be woken for (contract 7), as it is without IBV_SEND_SOLICITED. A fabric may
    /// wake it all the same.
    fn submit_unsolicited(&mut self, conn: ConnId) {
        self.submit(conn);
    }

    /// Destroys the connection (contract 5). Unknown ones are ignored.
    fn disconnect(&mut self, conn: ConnId);

    /// Reports [`Event::Ready`] with `token` whenever `fd` is ready for `interest` (level-triggered), or broken. The
    /// caller unwatches it before it closes it.
    ///
    /// # Errors
    /// If the system refuses.
    fn watch(&mut self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> Result<(), FabricError>;

    /// Ends [`Fabric::watch`].
    fn unwatch(&mut self, fd: BorrowedFd<'_>);

    /// The core on which the peer of `conn` rang or took something last, where that is known: it is on this host then.
    fn peer_core(&self, conn: ConnId) -> Option<usize> {
        let _ = conn;
        None
    }

    /// Collects what has happened, waiting up to `timeout` for the first event (`None`: don't wait). Returns the
    /// number of events added.
    fn poll(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> usize;
}

/// What a watcher waits for; changed by watching the same descriptor again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Bytes to read.
    Readable,
    /// Room to write: the watcher does not want to read now, however much there is.
    Writable,
    /// Bytes to read, or room to write.
    ReadableWritable,
}
