//! The one-sided regions: which slot is where. Nothing here is negotiated; `docs/wire-format.md` has the picture.

use crate::ids::Seq;
use crate::limits::{DESCRIPTOR_BYTES, MAILBOX_BYTES, MAX_OPEN_READS, MAX_READ_BYTES};
use crate::mailbox::Mailbox;

/// Where the other node writes [`Mailbox::Ack`] in a node's mailbox region.
pub const PEER_ACK_SLOT: u32 = 0;
/// Where the other node writes [`Mailbox::Released`] in a node's mailbox region.
pub const PEER_RELEASED_SLOT: u32 = 1;
/// Slots of the mailbox region that a node opens to the other node.
pub const PEER_MAILBOX_SLOTS: u32 = 2;
/// Bytes of that region.
pub const PEER_MAILBOX_BYTES: u64 = PEER_MAILBOX_SLOTS as u64 * MAILBOX_BYTES as u64;

/// Where a node writes [`Mailbox::Completion`] in a client's mailbox region, of which it has one per connection.
pub const CLIENT_COMPLETION_SLOT: u32 = 0;
/// Slots of the mailbox region that a client opens to a node.
pub const CLIENT_MAILBOX_SLOTS: u32 = 1;
/// Bytes of that region.
pub const CLIENT_MAILBOX_BYTES: u64 = CLIENT_MAILBOX_SLOTS as u64 * MAILBOX_BYTES as u64;

/// Bytes of the read buffers that a client opens to a node.
pub const READ_REGION_BYTES: u64 = MAX_OPEN_READS as u64 * MAX_READ_BYTES as u64;

/// Bytes of a descriptor ring of so many slots ([`crate::limits::lane_slots`]).
#[must_use]
pub const fn descriptor_ring_bytes(slots: u32) -> u64 {
    slots as u64 * DESCRIPTOR_BYTES as u64
}

/// The slot of a blob in a descriptor ring of so many.
#[must_use]
pub const fn descriptor_slot(seq: Seq, slots: u32) -> u32 {
    // The remainder is below `slots`, a u32.
    #[allow(clippy::cast_possible_truncation)]
    let slot = (seq.0 % slots as u64) as u32;
    slot
}

/// The byte offset of a slot in the descriptor ring.
#[must_use]
pub const fn descriptor_offset(slot: u32) -> u64 {
    slot as u64 * DESCRIPTOR_BYTES as u64
}

/// The byte offset of a slot in a mailbox region.
#[must_use]
pub const fn mailbox_offset(slot: u32) -> u64 {
    slot as u64 * MAILBOX_BYTES as u64
}

/// The byte offset of a slot in a client's read buffers.
#[must_use]
pub const fn read_offset(slot: u32) -> u64 {
    slot as u64 * MAX_READ_BYTES as u64
}

impl Mailbox {
    /// The slot that this kind is written to. A receiver ignores a kind found in another one's slot.
    #[must_use]
    pub const fn slot(&self) -> u32 {
        match self {
            Self::Ack { .. } => PEER_ACK_SLOT,
            Self::Released { .. } => PEER_RELEASED_SLOT,
            Self::Completion { .. } => CLIENT_COMPLETION_SLOT,
        }
    }
}
