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
use twinsan_wire::{Blob, ClientMsg, Descriptor, LaneGrant, Seq};

use crate::memory::Memory;

/// Work requests between two signalled ones: a send queue frees its entries only at those.
const SIGNAL_EVERY: u64 = 32;

/// From here on a payload's CRC takes longer than a doorbell of its own.
const LONG_PAYLOAD_BYTES: u32 = 32 << 10;

/// Whether the fabric has taken a post. What it has not, goes later: full, and the next poll makes room; or not connected,
/// and its Closed is on its way.
///
/// # Panics
/// If it was refused for a reason that no peer can cause.
fn accepted(post: Result<(), PostError>) -> bool {
    match post {
        Ok(()) => true,
        Err(PostError::Full | PostError::NotConnected) => false,
        Err(error @ (PostError::TooLong { .. } | PostError::OutOfRegion)) => {
            panic!("the driver posted what the fabric can't take: {error}")
        }
    }
}

/// Payload CRCs of the blobs last posted with each descriptor slot: computed once for both nodes and for every time that
/// one is sent again.
#[derive(Debug)]
pub(crate) struct Crcs {
    /// Of the lane's descriptor ring.
    slots: u32,
    /// None, without `integrity`.
    crcs: Option<Box<[(Seq, u32)]>>,
}

impl Crcs {
    /// For a lane of so many slots.
    pub(crate) fn new(integrity: bool, slots: u32) -> Self {
        Self { slots, crcs: integrity.then(|| vec![(Seq::ZERO, 0); slots as usize].into()) }
    }

    /// A blob's descriptor slot.
    const fn slot(&self, seq: Seq) -> u32 {
        descriptor_slot(seq, self.slots)
    }

    fn of(&mut self, blob: &Blob, memory: &Memory) -> Option<u32> {
        let slot = self.slot(blob.seq);
        let crcs = self.crcs.as_mut().filter(|_| blob.payload_len > 0)?;
        let slot = &mut crcs[slot as usize];
        if slot.0 != blob.seq {
            let crc = memory.arena().crc32c(memory.staged(blob.data_pos), blob.payload_len as usize);
            *slot = (blob.seq, crc);
        }
        Some(slot.1)
    }
}

/// A blob's payload, or its descriptor after that.
#[derive(Clone, Copy, Debug)]
enum Item {
    Message(ClientMsg),
    Blob { blob: Blob, payload_posted: bool },
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

    pub(crate) fn blob(&mut self, blob: Blob) {
        self.queue.push_back(Item::Blob { blob, payload_posted: false });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// If the next thing to leave is a blob with a long payload, the payload leaves now, ahead of its descriptor.
    pub(crate) fn begin<F: Fabric>(&mut self, fabric: &mut F, memory: &Memory, region: RegionId) {
        let Some(Item::Blob { blob, payload_posted: false }) = self.queue.front().copied() else { return };
        if blob.payload_len >= LONG_PAYLOAD_BYTES && accepted(self.post_payload(fabric, &blob, memory, region)) {
            fabric.submit(self.conn);
        }
    }

    /// Posts as much as the connection takes, and rings its doorbell once.
    pub(crate) fn flush<F: Fabric>(&mut self, fabric: &mut F, memory: &Memory, region: RegionId, crcs: &mut Crcs) {
        if self.queue.is_empty() {
            return;
        }
        let mut solicited = false;
        while let Some(item) = self.queue.front().copied() {
            // A node need not wake up for a heartbeat: it is there with its own tick.
            solicited |= !matches!(item, Item::Message(ClientMsg::Heartbeat));
            if !accepted(self.post(fabric, item, memory, region, crcs)) {
                break;
            }
            self.queue.pop_front();
        }
        if solicited {
            fabric.submit(self.conn);
        } else {
            fabric.submit_unsolicited(self.conn);
        }
    }

    /// Posts the payload of the blob at the head of the queue.
    fn post_payload<F: Fabric>(
        &mut self,
        fabric: &mut F,
        blob: &Blob,
        memory: &Memory,
        region: RegionId,
    ) -> Result<(), PostError> {
        let lane = self.lane.expect("the session posts only to a lane that has been opened");
        let offset = memory.staged(blob.data_pos) as u64;
        let payload = Payload::Region(LocalSlice { region, offset, len: blob.payload_len });
        let to = RemoteAddr { key: lane.data, offset: memory.ring_offset(blob.data_pos) };
        let signal = self.signal();
        fabric.write(self.conn, payload, to, signal)?;
        if let Some(Item::Blob { payload_posted, .. }) = self.queue.front_mut() {
            *payload_posted = true;
        }
        Ok(())
    }

    fn post<F: Fabric>(
        &mut self,
        fabric: &mut F,
        item: Item,
        memory: &Memory,
        region: RegionId,
        crcs: &mut Crcs,
    ) -> Result<(), PostError> {
        let (blob, payload_posted) = match item {
            Item::Message(msg) => return fabric.send(self.conn, msg.encode().as_bytes()),
            Item::Blob { blob, payload_posted } => (blob, payload_posted),
        };
        if blob.payload_len > 0 && !payload_posted {
            self.post_payload(fabric, &blob, memory, region)?;
        }
        let lane = self.lane.expect("the session posts only to a lane that has been opened");
        let payload_crc = crcs.of(&blob, memory);
        let slot = crcs.slot(blob.seq);
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

#[cfg(test)]
mod tests;
