//! Immediates: the 32 bits that come with a write and tell the receiver what has landed.
//!
//! ```text
//! 31      28 27                            0
//! +---------+------------------------------+
//! | kind    | slot                         |
//! +---------+------------------------------+
//! ```
//!
//! No kind is zero: an immediate that was never filled in is not mistaken for one.

use crate::error::DecodeError;
use crate::limits::MAX_LANE_SLOTS;

use crate::layout::{CLIENT_MAILBOX_SLOTS, PEER_MAILBOX_SLOTS};

const KIND_SHIFT: u32 = 28;
const SLOT_MASK: u32 = (1 << KIND_SHIFT) - 1;
const KIND_BLOB: u32 = 1;
const KIND_MAILBOX: u32 = 2;

/// The most mailbox slots that any region has.
const MAILBOX_SLOTS: u32 =
    if PEER_MAILBOX_SLOTS > CLIENT_MAILBOX_SLOTS { PEER_MAILBOX_SLOTS } else { CLIENT_MAILBOX_SLOTS };

const _: () = assert!(MAX_LANE_SLOTS - 1 <= SLOT_MASK && MAILBOX_SLOTS - 1 <= SLOT_MASK);

/// What a write with immediate has put where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Immediate {
    /// A descriptor, in this slot of the lane's descriptor ring; its payload landed before it.
    Blob {
        /// Below [`MAX_LANE_SLOTS`]; the receiver knows how many the lane has.
        slot: u32,
    },
    /// A mailbox, in this slot of the receiver's mailbox region.
    Mailbox {
        /// One of [`crate::layout`]'s, by what the region is for.
        slot: u32,
    },
}

impl Immediate {
    /// The 32 bits.
    ///
    /// # Panics
    /// If the slot does not exist: the caller has miscounted.
    #[must_use]
    pub const fn encode(self) -> u32 {
        let (kind, slot, slots) = match self {
            Self::Blob { slot } => (KIND_BLOB, slot, MAX_LANE_SLOTS),
            Self::Mailbox { slot } => (KIND_MAILBOX, slot, MAILBOX_SLOTS),
        };
        assert!(slot < slots, "an immediate for a slot that does not exist");
        kind << KIND_SHIFT | slot
    }

    /// From the 32 bits that a peer has sent.
    ///
    /// # Errors
    /// If the kind or the slot does not exist.
    pub const fn decode(raw: u32) -> Result<Self, DecodeError> {
        let slot = raw & SLOT_MASK;
        match raw >> KIND_SHIFT {
            KIND_BLOB if slot < MAX_LANE_SLOTS => Ok(Self::Blob { slot }),
            KIND_BLOB => Err(bad("Immediate.slot (blob)", slot, "below MAX_LANE_SLOTS, 131072")),
            KIND_MAILBOX if slot < MAILBOX_SLOTS => Ok(Self::Mailbox { slot }),
            KIND_MAILBOX => Err(bad("Immediate.slot (mailbox)", slot, "0 or 1")),
            kind => Err(bad("Immediate.kind", kind, "1 (blob) or 2 (mailbox)")),
        }
    }
}

const fn bad(field: &'static str, value: u32, right: &'static str) -> DecodeError {
    DecodeError::Field { field, value: value as u64, right }
}
