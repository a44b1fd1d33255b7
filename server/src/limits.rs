//! Every limit of the driver's own queues and tables, and their relations. What both ends of a wire agree on stands in
//! [`twinsan_wire::limits`].

use twinsan_wire::limits::{MAX_OPEN_READS, MAX_PAYLOAD_BYTES};

/// The machines hear of time this often. A heartbeat is a multiple of it.
pub(crate) const TICK_MS: u64 = 10;

/// Connections of all kinds, those still in setup included. Two per volume are in ordinary use (a link and a client);
/// the rest is room for probes and for those who don't know the key.
pub(crate) const MAX_CONNECTIONS: usize = 256;

/// A connection that has not said who it is, and proved it, within this time is closed.
pub(crate) const SETUP_TIMEOUT_MS: u64 = 2000;

/// How long one address of the other node may take to answer a probe before the next is tried.
pub(crate) const DIAL_TIMEOUT_MS: u64 = 300;

/// Items waiting for room in one connection's send queue, the blobs of a relay not counted: of those it may have a whole
/// lane. More means that the peer takes nothing any more while its
/// kernel still holds the connection: it is closed, and comes back when it lives.
pub(crate) const MAX_OUTBOX: usize = 2048;

/// Pieces of an answer, or posts of a relay, between two signalled ones: a send queue frees its entries only at those.
pub(crate) const SIGNAL_EVERY: usize = 16;

/// Payload bytes of one flush batch. Large enough that the disk streams, small enough that the disk heartbeat, which
/// waits its turn behind a batch, stays far below a takeover timeout.
pub(crate) const MAX_BATCH_BYTES: u64 = 8 << 20;

/// Jobs on their way to one flusher: each is there at most once, but for reads and the flush batches.
pub(crate) const FLUSHER_QUEUE: usize = 1024;

/// How long the admin socket waits for a line, and for the reactor.
pub(crate) const ADMIN_TIMEOUT_MS: u64 = 2000;

/// Admin requests that wait for the reactor.
pub(crate) const ADMIN_QUEUE: usize = 16;

/// How long a scrape may take to say what it wants, and the answer to be taken. One is served at a time.
pub(crate) const SCRAPE_TIMEOUT_MS: u64 = 2000;

/// The head of a scrape's request; a browser's is about 1 KiB.
pub(crate) const MAX_HTTP_HEAD: usize = 8 << 10;

const _: () = assert!(MAX_BATCH_BYTES >= MAX_PAYLOAD_BYTES as u64);
const _: () = assert!(FLUSHER_QUEUE > 2 * MAX_OPEN_READS);
const _: () = assert!(MAX_OUTBOX > 2 * MAX_OPEN_READS);
const _: () = assert!(DIAL_TIMEOUT_MS < SETUP_TIMEOUT_MS);
