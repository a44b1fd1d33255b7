//! What the front end may use, and how much of it one connection may.

use twinsan_nbd::limits::MAX_PAYLOAD_BYTES;
use twinsan_wire::limits::{MAX_OPEN_READS, MAX_READ_BYTES};

/// NBD connections at once. Clients open 4 to 16.
pub(crate) const MAX_CONNECTIONS: usize = 128;
/// How long an NBD client may take from its connection to its first request being possible; then it is closed. When all
/// places are taken, the one that has negotiated longest makes room before that. Honest ones take a few round trips.
pub(crate) const NEGOTIATION_TIMEOUT_MS: u64 = 10_000;
/// Once no more requests are begun: how long a client that takes none of its answers is waited for.
pub(crate) const STOP_BLOCKED_MS: u64 = 5_000;
/// Bytes that one receive may bring besides a payload: several requests, or a request and its whole small payload in
/// one system call (10 KiB writes are common). What comes here instead of straight into the ring costs a copy.
pub(crate) const INPUT_BYTES: usize = 16 << 10;
/// The same while payloads are short, so that a deep queue of them costs few system calls.
pub(crate) const LONG_INPUT_BYTES: usize = 68 << 10;
/// A payload up to here is short.
pub(crate) const SHORT_PAYLOAD_BYTES: u32 = 8 << 10;
/// Requests that one connection may have open; past that its socket is not read.
pub(crate) const MAX_OPEN_REQUESTS: u32 = 256;
/// Bytes of READ answers that one connection may have asked for and not taken, before its socket is not read. One
/// more request of the longest payload may come on top.
pub(crate) const MAX_OWED_BYTES: u64 = 64 << 20;
/// Bytes that one connection's writes may hold in private buffers (unaligned, or waiting for another) before its
/// socket is not read.
pub(crate) const MAX_PRIVATE_BYTES: usize = 4 << 20;
/// Reply bytes other than READ data that may wait for a client that does not take them.
pub(crate) const MAX_OUTPUT_BYTES: usize = 256 << 10;
/// Requests that one connection may begin before the others have their turn.
pub(crate) const REQUESTS_PER_TURN: u32 = 64;
/// An unaligned write of at most so many bytes, edges included, is one blob; a longer one is cut at its edges, so that
/// its middle goes straight into the ring.
pub(crate) const SMALL_SPAN_BYTES: u32 = 64 << 10;

// Reads are given buffers in order of arrival, all pieces of one request next to each other: the oldest can always
// have what it needs, its unaligned edge included.
const _: () = assert!((MAX_PAYLOAD_BYTES.div_ceil(MAX_READ_BYTES) as usize) < MAX_OPEN_READS);
