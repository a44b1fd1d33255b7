//! From a client to a node: [`ClientMsg`].

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::parts::{bad, check_span, node, node_to_wire, seq_from_one, session, zero};
use crate::error::DecodeError;
use crate::frame::{Encoded, Message};
use crate::ids::{Epoch, Generation, Lba, Seq};
use crate::limits::{MAX_OPEN_READS, MAX_READ_BYTES, MIN_BLOCK_BYTES};
use crate::message::ClientMsg;

const WHAT: &str = "message from a client";

const ATTACH: u8 = 0x40;
const RESUME: u8 = 0x41;
const READ: u8 = 0x42;
const HEARTBEAT: u8 = 0x43;
const UNREACHABLE: u8 = 0x44;
const DETACH: u8 = 0x45;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Attach {
    over: U64,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Resume {
    generation: U64,
    first: U64,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Read {
    id: U64,
    epoch: U64,
    after: U64,
    lba: U64,
    blocks: U32,
    slot: U32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Unreachable {
    epoch: U64,
    generation: U64,
    node: u8,
    reserved: [u8; 7],
}

const _: () = assert!(size_of::<Attach>() == 8);
const _: () = assert!(size_of::<Resume>() == 16);
const _: () = assert!(size_of::<Read>() == 40);
const _: () = assert!(size_of::<Unreachable>() == 24);

impl ClientMsg {
    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> Encoded {
        match *self {
            Self::Attach { over } => Encoded::new(ATTACH, &Attach { over: over.0.into() }),
            Self::Resume { generation, first } => {
                Encoded::new(RESUME, &Resume { generation: generation.0.into(), first: first.0.into() })
            }
            Self::Read { id, epoch, after, lba, blocks, slot } => {
                let body = Read {
                    id: id.into(),
                    epoch: epoch.0.into(),
                    after: after.0.into(),
                    lba: lba.0.into(),
                    blocks: blocks.into(),
                    slot: slot.into(),
                };
                Encoded::new(READ, &body)
            }
            Self::Heartbeat => Encoded::new(HEARTBEAT, &()),
            Self::Unreachable { node, epoch, generation } => {
                let body = Unreachable {
                    epoch: epoch.0.into(),
                    generation: generation.0.into(),
                    node: node_to_wire(Some(node)),
                    reserved: [0; 7],
                };
                Encoded::new(UNREACHABLE, &body)
            }
            Self::Detach => Encoded::new(DETACH, &()),
        }
    }

    /// From the bytes. Whether a read lies on the volume is
    /// [`VolumeShape::check_read`](crate::message::VolumeShape::check_read)'s.
    ///
    /// # Errors
    /// If they are not exactly one message of this direction.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let message = Message::parse(WHAT, bytes)?;
        match message.kind {
            ATTACH => message.body().map(|raw: Attach| Self::Attach { over: Generation(raw.over.get()) }),
            RESUME => {
                let raw: Resume = message.body()?;
                Ok(Self::Resume {
                    generation: session("Resume.generation", raw.generation)?,
                    first: seq_from_one("Resume.first", Seq(raw.first.get()))?,
                })
            }
            READ => message.body::<Read>()?.read(),
            HEARTBEAT => message.no_body().map(|()| Self::Heartbeat),
            UNREACHABLE => {
                let raw: Unreachable = message.body()?;
                zero("Unreachable.reserved", &raw.reserved)?;
                Ok(Self::Unreachable {
                    node: node("Unreachable.node", raw.node)?,
                    epoch: Epoch(raw.epoch.get()),
                    generation: Generation(raw.generation.get()),
                })
            }
            DETACH => message.no_body().map(|()| Self::Detach),
            _ => Err(message.unknown_kind()),
        }
    }
}

impl Read {
    fn read(&self) -> Result<ClientMsg, DecodeError> {
        let (blocks, slot) = (self.blocks.get(), self.slot.get());
        if blocks == 0 || blocks > MAX_READ_BYTES / MIN_BLOCK_BYTES {
            return Err(bad("Read.blocks", blocks, "at least 1, at most 1 MiB"));
        }
        if usize::try_from(slot).map_or(true, |slot| slot >= MAX_OPEN_READS) {
            return Err(bad("Read.slot", slot, "below MAX_OPEN_READS, 64"));
        }
        check_span("Read.lba", self.lba.get(), blocks)?;
        Ok(ClientMsg::Read {
            id: self.id.get(),
            epoch: Epoch(self.epoch.get()),
            after: Seq(self.after.get()),
            lba: Lba(self.lba.get()),
            blocks,
            slot,
        })
    }
}
