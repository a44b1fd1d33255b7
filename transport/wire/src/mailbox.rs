//! The one-sided words: 64 bytes that are written over, so that only the newest counts.
//!
//! Each names the epoch and both ends' incarnations; what does not fit the receiver's is ignored. It carries a CRC:
//! a torn one is waited out till the next.
//!
//! | offset | bytes | Ack | Released | Completion |
//! | ---: | ---: | --- | --- | --- |
//! | 0 | 4 | magic, `TwSm` | same | same |
//! | 4 | 1 | protocol version | same | same |
//! | 5 | 1 | kind: 1 | 2 | 3 |
//! | 6 | 2 | flags: bit 0, `first` is given | 0 | bit 0, `durable` is given; bit 1, `relayed` |
//! | 8 | 8 | epoch | same | same |
//! | 16 | 8 | from | same | same |
//! | 24 | 8 | to | to | zero |
//! | 32 | 8 | generation | same | same |
//! | 40 | 8 | received | released | released |
//! | 48 | 8 | first, or zero | zero | durable, or zero |
//! | 56 | 4 | received − released | reserved, zero | same |
//! | 60 | 4 | CRC32C of bytes 0 to 59 | same | same |

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::codec::parts::{bad, incarnation, optional, seq_from_one, zero};
use crate::crc::crc32c;
use crate::error::DecodeError;
use crate::ids::{Epoch, Generation, Incarnation, Seq};
use crate::limits::{MAILBOX_BYTES, MAX_LANE_SLOTS, PROTOCOL_VERSION};

/// A mailbox's contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mailbox {
    /// Secondary (or joiner) → primary: every blob of `generation` from `first` to `received` is in this RAM.
    Ack {
        /// The sender's epoch.
        epoch: Epoch,
        /// The sender.
        from: Incarnation,
        /// The primary that it is meant for.
        to: Incarnation,
        /// The lane's session.
        generation: Generation,
        /// Where the lane begins: the lowest seq that it took, or will take. `None`: no client has said yet.
        first: Option<Seq>,
        /// The last seq received.
        received: Seq,
        /// The sender's released position: at most [`MAX_LANE_SLOTS`] behind.
        released: Seq,
    },
    /// Primary → secondary (or joiner): every blob up to `released` is on the disk, its space may be given back.
    Released {
        /// The sender's epoch.
        epoch: Epoch,
        /// The sender.
        from: Incarnation,
        /// The node that it is meant for.
        to: Incarnation,
        /// The lane's session.
        generation: Generation,
        /// The released position.
        released: Seq,
    },
    /// Node → its client: the node's released position, and from the primary what may be completed.
    Completion {
        /// The node's epoch.
        epoch: Epoch,
        /// The sender.
        from: Incarnation,
        /// The session that it is meant for.
        generation: Generation,
        /// From the primary: complete every write up to here. From another node: `None`.
        durable: Option<Seq>,
        /// The node's own released position.
        released: Seq,
        /// From the primary: it feeds the other member by relay, and that one has released as much (rule 14).
        relayed: bool,
    },
}

const WHAT: &str = "mailbox";
const MAGIC: u32 = u32::from_le_bytes(*b"TwSm");
const CRC_OFFSET: usize = 60;
const FLAG_SECOND: u16 = 1;
const FLAG_RELAYED: u16 = 2;

const KIND_ACK: u8 = 1;
const KIND_RELEASED: u8 = 2;
const KIND_COMPLETION: u8 = 3;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Raw {
    magic: U32,
    version: u8,
    kind: u8,
    flags: U16,
    epoch: U64,
    from: U64,
    to: U64,
    generation: U64,
    position: U64,
    second: U64,
    behind: U32,
    crc: U32,
}

const _: () = assert!(size_of::<Raw>() == MAILBOX_BYTES);
const _: () = assert!(core::mem::offset_of!(Raw, crc) == CRC_OFFSET);

impl Mailbox {
    /// The bytes for the receiver's slot.
    ///
    /// # Panics
    /// If an ACK says that more is unreleased than a lane holds.
    #[must_use]
    pub fn encode(&self) -> [u8; MAILBOX_BYTES] {
        let raw = match *self {
            Self::Ack { epoch, from, to, generation, first, received, released } => {
                let behind = received.0.checked_sub(released.0).and_then(|behind| u32::try_from(behind).ok());
                let behind =
                    behind.filter(|behind| *behind <= MAX_LANE_SLOTS).expect("a lane holds no more than its slots");
                Raw { behind: behind.into(), ..Raw::new(KIND_ACK, epoch, from, Some(to), generation, received, first) }
            }
            Self::Released { epoch, from, to, generation, released } => {
                Raw::new(KIND_RELEASED, epoch, from, Some(to), generation, released, None)
            }
            Self::Completion { epoch, from, generation, durable, released, relayed } => {
                let mut raw = Raw::new(KIND_COMPLETION, epoch, from, None, generation, released, durable);
                raw.flags = (raw.flags.get() | if relayed { FLAG_RELAYED } else { 0 }).into();
                raw
            }
        };
        let mut bytes: [u8; MAILBOX_BYTES] = zerocopy::transmute!(raw);
        let crc = crc32c(&bytes[..CRC_OFFSET]);
        bytes[CRC_OFFSET..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// From bytes that were copied out of the region after the immediate's receive completion.
    ///
    /// # Errors
    /// [`DecodeError::Torn`] if it was being written over, or never was written: wait for the next. Any other: the
    /// peer wrote it so.
    pub fn decode(bytes: &[u8; MAILBOX_BYTES]) -> Result<Self, DecodeError> {
        // The CRC first: of a torn one no field means anything.
        let raw: Raw = zerocopy::transmute!(*bytes);
        let computed = crc32c(&bytes[..CRC_OFFSET]);
        if raw.crc != computed {
            return Err(DecodeError::Torn { found: raw.crc.get(), computed });
        }
        if raw.magic != MAGIC {
            return Err(DecodeError::Magic { what: WHAT, found: raw.magic.get(), expected: MAGIC });
        }
        if raw.version != PROTOCOL_VERSION {
            return Err(DecodeError::Version { what: WHAT, found: raw.version });
        }
        if matches!(raw.kind, KIND_RELEASED | KIND_COMPLETION) {
            zero("Mailbox.reserved", raw.behind.as_bytes())?;
        }
        raw.mailbox()
    }
}

impl Raw {
    fn new(
        kind: u8,
        epoch: Epoch,
        from: Incarnation,
        to: Option<Incarnation>,
        generation: Generation,
        position: Seq,
        second: Option<Seq>,
    ) -> Self {
        Self {
            magic: MAGIC.into(),
            version: PROTOCOL_VERSION,
            kind,
            flags: if second.is_some() { FLAG_SECOND } else { 0 }.into(),
            epoch: epoch.0.into(),
            from: from.get().into(),
            to: to.map_or(0, Incarnation::get).into(),
            generation: generation.0.into(),
            position: position.0.into(),
            second: second.map_or(0, |seq| seq.0).into(),
            behind: U32::ZERO,
            crc: U32::ZERO,
        }
    }

    fn mailbox(&self) -> Result<Mailbox, DecodeError> {
        let epoch = Epoch(self.epoch.get());
        let from = incarnation("Mailbox.from", self.from)?;
        let generation = Generation(self.generation.get());
        let position = Seq(self.position.get());
        let allowed = match self.kind {
            KIND_COMPLETION => FLAG_SECOND | FLAG_RELAYED,
            KIND_RELEASED => 0,
            _ => FLAG_SECOND,
        };
        let flags = self.flags.get();
        if flags & !allowed != 0 {
            return Err(bad("Mailbox.flags", flags, "0, for Ack also 1, for Completion up to 3"));
        }
        let given = flags & FLAG_SECOND != 0;
        let second = optional("Mailbox.second", given, self.second)?.map(Seq);
        match self.kind {
            KIND_ACK => {
                let to = incarnation("Mailbox.to", self.to)?;
                let first = second.map(|seq| seq_from_one("Mailbox.first", seq)).transpose()?;
                let released = self.released(position)?;
                Ok(Mailbox::Ack { epoch, from, to, generation, first, received: position, released })
            }
            KIND_RELEASED => {
                let to = incarnation("Mailbox.to", self.to)?;
                Ok(Mailbox::Released { epoch, from, to, generation, released: position })
            }
            KIND_COMPLETION => {
                if self.to != U64::ZERO {
                    return Err(bad("Mailbox.to", self.to, "zero in a Completion, which names the session instead"));
                }
                let relayed = flags & FLAG_RELAYED != 0;
                Ok(Mailbox::Completion { epoch, from, generation, durable: second, released: position, relayed })
            }
            found => Err(DecodeError::Kind { what: WHAT, found }),
        }
    }

    /// An ACK's released position.
    fn released(&self, received: Seq) -> Result<Seq, DecodeError> {
        let behind = u64::from(self.behind.get());
        if behind > u64::from(MAX_LANE_SLOTS) {
            return Err(bad("Mailbox.behind", behind, "at most MAX_LANE_SLOTS, 131072"));
        }
        match received.0.checked_sub(behind) {
            Some(released) => Ok(Seq(released)),
            None => Err(bad("Mailbox.behind", behind, "at most what was received")),
        }
    }
}
