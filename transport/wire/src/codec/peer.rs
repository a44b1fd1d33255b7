//! Between the two nodes: [`PeerMsg`].
//!
//! Every body begins with the same head: epoch, from, to.

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::parts::{
    RawSuperblock, flag, incarnation, maybe_incarnation, optional, role, role_to_wire, seq_from_one, zero,
};
use crate::error::DecodeError;
use crate::frame::{Encoded, Message};
use crate::ids::{Epoch, Generation, Incarnation, Seq};
use crate::message::{PeerBody, PeerMsg};

const WHAT: &str = "message from the other node";

const STATUS: u8 = 0x20;
const ANNOUNCE: u8 = 0x21;
const JOIN_REQUEST: u8 = 0x22;
const JOIN_ACCEPT: u8 = 0x23;
const JOIN_ABORT: u8 = 0x24;
const CLOSE_SESSION: u8 = 0x25;
const DROP_LANE: u8 = 0x26;
const LANE_DROPPED: u8 = 0x27;
const LEAVE: u8 = 0x28;
const TAKE_OVER: u8 = 0x29;
const HAND_OVER: u8 = 0x2a;
const ASK_HAND_OVER: u8 = 0x2b;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Head {
    epoch: U64,
    from: U64,
    to: U64,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Status {
    head: Head,
    beat: U64,
    role: u8,
    paths: u8,
    reserved: [u8; 6],
}

/// Announce, HandOver.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Announce {
    head: Head,
    superblock: RawSuperblock,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct JoinAccept {
    head: Head,
    generation: U64,
    first: U64,
    has_first: u8,
    reserved: [u8; 7],
}

/// CloseSession, DropLane, LaneDropped.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct OfSession {
    head: Head,
    generation: U64,
}

const _: () = assert!(size_of::<Head>() == 24);
const _: () = assert!(size_of::<Status>() == 40);
const _: () = assert!(size_of::<Announce>() == 72);
const _: () = assert!(size_of::<JoinAccept>() == 48);
const _: () = assert!(size_of::<OfSession>() == 32);

impl PeerMsg {
    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> Encoded {
        let head = Head { epoch: self.epoch.0.into(), from: self.from.get().into(), to: maybe_incarnation(self.to) };
        let of_session = |kind, head, generation: Generation| {
            Encoded::new(kind, &OfSession { head, generation: generation.0.into() })
        };
        match self.body {
            PeerBody::Status { role, beat, paths } => {
                let (role, paths) = (role_to_wire(role), paths.into());
                Encoded::new(STATUS, &Status { head, beat: beat.into(), role, paths, reserved: [0; 6] })
            }
            PeerBody::Announce { superblock } => {
                Encoded::new(ANNOUNCE, &Announce { head, superblock: RawSuperblock::new(&superblock) })
            }
            PeerBody::HandOver { superblock } => {
                Encoded::new(HAND_OVER, &Announce { head, superblock: RawSuperblock::new(&superblock) })
            }
            PeerBody::AskHandOver => Encoded::new(ASK_HAND_OVER, &head),
            PeerBody::JoinRequest => Encoded::new(JOIN_REQUEST, &head),
            PeerBody::JoinAccept { generation, first } => {
                let body = JoinAccept {
                    head,
                    generation: generation.0.into(),
                    first: first.map_or(0, |seq| seq.0).into(),
                    has_first: first.is_some().into(),
                    reserved: [0; 7],
                };
                Encoded::new(JOIN_ACCEPT, &body)
            }
            PeerBody::JoinAbort => Encoded::new(JOIN_ABORT, &head),
            PeerBody::CloseSession { generation } => of_session(CLOSE_SESSION, head, generation),
            PeerBody::DropLane { generation } => of_session(DROP_LANE, head, generation),
            PeerBody::LaneDropped { generation } => of_session(LANE_DROPPED, head, generation),
            PeerBody::Leave => Encoded::new(LEAVE, &head),
            PeerBody::TakeOver => Encoded::new(TAKE_OVER, &head),
        }
    }

    /// From the bytes.
    ///
    /// # Errors
    /// If they are not exactly one message of this direction.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let message = Message::parse(WHAT, bytes)?;
        let (head, body) = read_body(&message)?;
        let to = match body {
            PeerBody::Status { .. } | PeerBody::Announce { .. } => Incarnation::from_wire(head.to.get()),
            _ => Some(incarnation("PeerMsg.to", head.to)?),
        };
        Ok(Self { epoch: Epoch(head.epoch.get()), from: incarnation("PeerMsg.from", head.from)?, to, body })
    }
}

fn read_body(message: &Message<'_>) -> Result<(Head, PeerBody), DecodeError> {
    // Generation zero is right in these: the first session of all replaces none, a node may join before it.
    let of_session = || message.body().map(|raw: OfSession| (raw.head, Generation(raw.generation.get())));
    Ok(match message.kind {
        STATUS => {
            let raw: Status = message.body()?;
            zero("Status.reserved", &raw.reserved)?;
            let (role, paths) = (role("Status.role", raw.role)?, flag("Status.paths", raw.paths)?);
            (raw.head, PeerBody::Status { role, beat: raw.beat.get(), paths })
        }
        ANNOUNCE => {
            let raw: Announce = message.body()?;
            (raw.head, PeerBody::Announce { superblock: raw.superblock.superblock()? })
        }
        HAND_OVER => {
            let raw: Announce = message.body()?;
            (raw.head, PeerBody::HandOver { superblock: raw.superblock.superblock()? })
        }
        ASK_HAND_OVER => (message.body()?, PeerBody::AskHandOver),
        JOIN_REQUEST => (message.body()?, PeerBody::JoinRequest),
        JOIN_ACCEPT => {
            let raw: JoinAccept = message.body()?;
            zero("JoinAccept.reserved", &raw.reserved)?;
            let given = flag("JoinAccept.has_first", raw.has_first)?;
            let first = optional("JoinAccept.first", given, raw.first)?
                .map(|first| seq_from_one("JoinAccept.first", Seq(first)))
                .transpose()?;
            (raw.head, PeerBody::JoinAccept { generation: Generation(raw.generation.get()), first })
        }
        JOIN_ABORT => (message.body()?, PeerBody::JoinAbort),
        CLOSE_SESSION => {
            let (head, generation) = of_session()?;
            (head, PeerBody::CloseSession { generation })
        }
        DROP_LANE => {
            let (head, generation) = of_session()?;
            (head, PeerBody::DropLane { generation })
        }
        LANE_DROPPED => {
            let (head, generation) = of_session()?;
            (head, PeerBody::LaneDropped { generation })
        }
        LEAVE => (message.body()?, PeerBody::Leave),
        TAKE_OVER => (message.body()?, PeerBody::TakeOver),
        _ => return Err(message.unknown_kind()),
    })
}
