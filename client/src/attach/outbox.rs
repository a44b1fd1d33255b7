//! One node's connection in use: what waits to be posted, and posting it.
//!
//! # Why no post is signalled for its memory's sake
//!
//! A blob's payload is posted from the client's ring and must stay as it is until the fabric is done with it (contract
//! 2). The session gives ring space to a new payload only when every holder of the lane has *released* the old one,
//! and a node releases only what it has received; so what it has released has left our memory. A node that is no
//! holder any more has its connection destroyed first, which frees local slices too (contract 5). These are the
//! session's invariants 3 and 4. What holds the memory is therefore the window, never a completion of ours.
//!
//! Nothing else is posted from registered memory: descriptors are inline, messages are copied.
//!
//! # Bound
//!
//! The queue holds at most the window's blobs, each once, and the few messages that a connection is sent before the
//! session takes it for dead.

use std::collections::VecDeque;

use twinsan_fabric::{ConnId, Fabric, LocalSlice, Payload, PostError, RegionId, RemoteAddr};
use twinsan_wire::imm::Immediate;
use twinsan_wire::layout::{descriptor_offset, descriptor_slot};
use twinsan_wire::{Blob, ClientMsg, Descriptor, LaneGrant};

use crate::memory::Memory;

/// Work requests between two signalled ones: a send queue frees its entries only at those.
const SIGNAL_EVERY: u64 = 32;

/// A blob's payload, or its descriptor after that.
#[derive(Clone, Copy, Debug)]
enum Item {
    Message(ClientMsg),
    Blob { blob: Blob, payload_crc: Option<u32>, payload_posted: bool },
}

/// The queue of one connection.
#[derive(Debug)]
pub(crate) struct Outbox {
    conn: ConnId,
    lane: Option<LaneGrant>,
    queue: VecDeque<Item>,
    posts: u64,
    /// Blobs ask how long they take.
    timed: bool,
}

impl Outbox {
    pub(crate) const fn new(conn: ConnId, timed: bool) -> Self {
        Self { conn, lane: None, queue: VecDeque::new(), posts: 0, timed }
    }

    pub(crate) const fn conn(&self) -> ConnId {
        self.conn
    }

    /// The node has opened its lane to this connection.
    pub(crate) const fn grant(&mut self, lane: LaneGrant) {
        self.lane = Some(lane);
    }

    pub(crate) fn message(&mut self, msg: ClientMsg) {
        self.queue.push_back(Item::Message(msg));
    }

    pub(crate) fn blob(&mut self, blob: Blob, payload_crc: Option<u32>) {
        self.queue.push_back(Item::Blob { blob, payload_crc, payload_posted: false });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Posts as much as the connection takes, and rings its doorbell once.
    ///
    /// # Panics
    /// If a post is refused for a reason that no peer can cause.
    pub(crate) fn flush<F: Fabric>(&mut self, fabric: &mut F, memory: &Memory, region: RegionId) {
        if self.queue.is_empty() {
            return;
        }
        while let Some(item) = self.queue.front().copied() {
            match self.post(fabric, item, memory, region) {
                Ok(()) => drop(self.queue.pop_front()),
                // Full: the next poll makes room. Not connected: the fabric's Closed is on its way.
                Err(PostError::Full | PostError::NotConnected) => break,
                Err(error @ (PostError::TooLong { .. } | PostError::OutOfRegion)) => {
                    panic!("the driver posted what the fabric can't take: {error}")
                }
            }
        }
        fabric.submit(self.conn);
    }

    fn post<F: Fabric>(
        &mut self,
        fabric: &mut F,
        item: Item,
        memory: &Memory,
        region: RegionId,
    ) -> Result<(), PostError> {
        let (blob, payload_crc, payload_posted) = match item {
            Item::Message(msg) => return fabric.send(self.conn, msg.encode().as_bytes()),
            Item::Blob { blob, payload_crc, payload_posted } => (blob, payload_crc, payload_posted),
        };
        let lane = self.lane.expect("the session posts only to a lane that has been opened");
        if blob.payload_len > 0 && !payload_posted {
            let offset = memory.staged(blob.data_pos) as u64;
            let payload = Payload::Region(LocalSlice { region, offset, len: blob.payload_len });
            let to = RemoteAddr { key: lane.data, offset: memory.ring_offset(blob.data_pos) };
            let signal = self.signal();
            fabric.write(self.conn, payload, to, signal)?;
            if let Some(Item::Blob { payload_posted, .. }) = self.queue.front_mut() {
                *payload_posted = true;
            }
        }
        let slot = descriptor_slot(blob.seq);
        let to = RemoteAddr { key: lane.descriptors, offset: descriptor_offset(slot) };
        let bytes = Descriptor { blob, payload_crc, timed: self.timed }.encode();
        let signal = self.signal();
        fabric.write_imm(self.conn, Payload::Inline(&bytes), to, Immediate::Blob { slot }.encode(), signal)
    }

    fn signal(&mut self) -> Option<u64> {
        self.posts += 1;
        self.posts.is_multiple_of(SIGNAL_EVERY).then_some(self.posts)
    }
}
