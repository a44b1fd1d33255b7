//! One NBD connection: its socket, what has been received, what is owed.
//!
//! ```text
//! Negotiating ──Entered──▶ Open ──DISC, ABORT──▶ Finishing ──all answered and sent──▶ Closed
//!   └─ too long, no place ──┴────── the socket ended, a violation ─────────────────────▶ Closed
//! ```
//!
//! Closed keeps its number until the last of its requests has ended: a write that has been committed goes on without
//! its client.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use twinsan_fabric::Interest;
use twinsan_nbd::{Export, Server};

use super::output::Output;
use crate::front::OpId;
use crate::front::backend::Watcher;
use crate::front::limits::{
    INPUT_BYTES, LONG_INPUT_BYTES, MAX_OPEN_REQUESTS, MAX_OUTPUT_BYTES, MAX_OWED_BYTES, MAX_PRIVATE_BYTES,
    SHORT_PAYLOAD_BYTES,
};
use crate::front::requests::Share;
use crate::front::span::Span;

/// Received bytes that have not been used.
#[derive(Debug)]
pub(crate) struct Input {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// What one receive may bring: more than [`INPUT_BYTES`] only while payloads are short.
    most: usize,
    /// The socket may have more: its last receive was not short, or it was reported ready since.
    pub(crate) more: bool,
}

impl Input {
    fn new() -> Self {
        Self { buffer: vec![0; LONG_INPUT_BYTES].into(), start: 0, end: 0, most: INPUT_BYTES, more: true }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    pub(crate) fn consume(&mut self, n: usize) {
        self.start += n;
        assert!(self.start <= self.end, "no more is used than was received");
    }

    /// One receive; only when everything has been used. 0 is the end of the stream.
    pub(crate) fn receive(&mut self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        (self.start, self.end) = (0, 0);
        let most = self.most;
        let n = rustix::io::retry_on_intr(|| rustix::io::read(fd, &mut self.buffer[..most]))?;
        self.end = n;
        self.more = n == most;
        Ok(n)
    }

    /// A WRITE of so many bytes has begun: the next ones may be like it.
    pub(crate) fn expect_like(&mut self, payload_len: u32) {
        self.most = if payload_len <= SHORT_PAYLOAD_BYTES { LONG_INPUT_BYTES } else { INPUT_BYTES };
    }
}

/// A WRITE whose payload is being received.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) op: OpId,
    /// Where the bytes go that belong to no part yet.
    pub(crate) offset: u64,
    /// How many they are.
    pub(crate) left: u32,
    /// The part that is being received.
    pub(crate) part: Option<Part>,
}

/// A part of a WRITE, one blob to be.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) span: Span,
    /// Payload bytes received.
    pub(crate) filled: u32,
    pub(crate) place: Place,
}

/// Where a part is received.
#[derive(Debug)]
pub(crate) enum Place {
    /// Straight in the data ring: this connection has the reservation.
    Ring {
        /// The position.
        data_pos: u64,
    },
    /// In memory of its own, the span's whole blocks: it is not aligned, or somebody else has the reservation.
    Private(Vec<u8>),
}

/// A handshake that is not through.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Negotiation {
    /// It grows with every client: the lowest is the oldest.
    pub(crate) number: u64,
    /// When the client connected.
    pub(crate) began_ms: u64,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) fd: Option<OwnedFd>,
    pub(crate) server: Server,
    pub(crate) input: Input,
    pub(crate) incoming: Option<Incoming>,
    pub(crate) output: Output,
    /// It can't make requests yet.
    pub(crate) negotiation: Option<Negotiation>,
    /// It waits in line for window space.
    pub(crate) in_line: bool,
    /// It waits until fewer of its requests are open.
    pub(crate) held: bool,
    /// It is on the list of those that can go on.
    pub(crate) runnable: bool,
    /// It is on the list of those that have something to send.
    pub(crate) dirty: bool,
    /// The socket took no more at the last attempt.
    pub(crate) output_blocked: bool,
    /// When the client last took something of what is owed to it.
    pub(crate) taken_ms: u64,
    /// DISC or ABORT was said.
    pub(crate) finishing: bool,
    /// It has to end, and why.
    pub(crate) broken: Option<String>,
    watched: Option<Interest>,
}

impl Conn {
    /// A new client's; the greeting is in the output.
    pub(crate) fn new(fd: OwnedFd, export: Export, negotiation: Negotiation) -> Self {
        let mut output = Output::default();
        let mut server = None;
        output.reply(|bytes| server = Some(Server::new(export, bytes)));
        let server = server.expect("made by the closure");
        Self { negotiation: Some(negotiation), ..Self::with(fd, server, output) }
    }

    /// The kernel's: past the handshake.
    pub(crate) fn kernels(fd: OwnedFd, export: Export) -> Self {
        Self::with(fd, Server::past_handshake(export), Output::default())
    }

    fn with(fd: OwnedFd, server: Server, output: Output) -> Self {
        Self {
            fd: Some(fd),
            server,
            input: Input::new(),
            incoming: None,
            output,
            negotiation: None,
            in_line: false,
            held: false,
            runnable: false,
            dirty: false,
            output_blocked: false,
            taken_ms: 0,
            finishing: false,
            broken: None,
            watched: None,
        }
    }

    /// Whether the peer has hung up both ways.
    pub(crate) fn is_hung_up(&self) -> bool {
        let Some(fd) = &self.fd else { return false };
        let mut fds = [PollFd::new(fd, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
    }

    pub(crate) const fn is_closed(&self) -> bool {
        self.fd.is_none()
    }

    /// Whether it may begin another request; its share of everything is bounded.
    pub(crate) fn may_begin(&self, share: &Share) -> bool {
        share.open < MAX_OPEN_REQUESTS
            && share.reading + self.output.data_bytes() < MAX_OWED_BYTES
            && share.private < MAX_PRIVATE_BYTES
            && self.output.reply_bytes() < MAX_OUTPUT_BYTES
    }

    /// DISC was said and everything is done.
    pub(crate) fn is_finished(&self, share: &Share) -> bool {
        self.finishing && share.open == 0 && self.output.is_empty()
    }

    /// Has its socket watched for what it waits for now; `reads`: requests are taken at all.
    pub(crate) fn update_interest(
        &mut self,
        reads: bool,
        token: u64,
        watcher: &mut impl Watcher,
    ) -> Result<(), String> {
        let read = reads && !self.in_line && !self.held && !self.finishing;
        let interest = match (read, self.output_blocked) {
            (true, false) => Some(Interest::Readable),
            (true, true) => Some(Interest::ReadableWritable),
            (false, true) => Some(Interest::Writable),
            (false, false) => None,
        };
        let Some(fd) = self.fd.as_ref().filter(|_| interest != self.watched) else { return Ok(()) };
        match interest {
            Some(interest) => watcher.watch(fd.as_fd(), token, interest)?,
            None => watcher.unwatch(fd.as_fd()),
        }
        self.watched = interest;
        Ok(())
    }

    /// Closes the socket.
    pub(crate) fn hang_up(&mut self, watcher: &mut impl Watcher) {
        if let Some(fd) = self.fd.take()
            && self.watched.take().is_some()
        {
            watcher.unwatch(fd.as_fd());
        }
    }
}
