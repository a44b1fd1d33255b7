//! Before the machines: [`SetupMsg`].

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::parts::{bad, flag, incarnation, node, node_to_wire, optional, zero};
use crate::error::DecodeError;
use crate::frame::{Encoded, Message};
use crate::message::{Purpose, Rejection, RemoteKey, SetupMsg, VolumeName, VolumeShape};

const WHAT: &str = "set-up message";

const HELLO: u8 = 0x01;
const CHALLENGE: u8 = 0x02;
const PROOF: u8 = 0x03;
const WELCOME: u8 = 0x04;
const READY: u8 = 0x05;
const REJECTED: u8 = 0x06;

const PURPOSE_CLIENT: u8 = 1;
const PURPOSE_PEER: u8 = 2;
const PURPOSE_PROBE: u8 = 3;
const PURPOSE_RELAY: u8 = 4;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Hello {
    volume: [u8; 64],
    nonce: [u8; 32],
    incarnation: U64,
    purpose: u8,
    node: u8,
    keyed: u8,
    reserved: [u8; 5],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Challenge {
    nonce: [u8; 32],
    proof: MaybeProof,
}

/// Also the whole of Proof's body.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct MaybeProof {
    proof: [u8; 32],
    has_proof: u8,
    reserved: [u8; 7],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Welcome {
    uuid: [u8; 16],
    blocks: U64,
    ring_bytes: U64,
    incarnation: U64,
    mailbox: U64,
    block_bytes: U32,
    node: u8,
    reserved: [u8; 3],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Ready {
    mailbox: U64,
    reads: U64,
    has_reads: u8,
    reserved: [u8; 7],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Rejected {
    why: u8,
    reserved: [u8; 7],
}

const _: () = assert!(size_of::<Hello>() == 112);
const _: () = assert!(size_of::<Challenge>() == 72);
const _: () = assert!(size_of::<MaybeProof>() == 40);
const _: () = assert!(size_of::<Welcome>() == 56);
const _: () = assert!(size_of::<Ready>() == 24);
const _: () = assert!(size_of::<Rejected>() == 8);

impl SetupMsg {
    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> Encoded {
        match *self {
            Self::Hello { purpose, volume, nonce, keyed } => {
                Encoded::new(HELLO, &Hello::new(purpose, volume, nonce, keyed))
            }
            Self::Challenge { nonce, proof } => {
                Encoded::new(CHALLENGE, &Challenge { nonce, proof: MaybeProof::new(proof) })
            }
            Self::Proof { proof } => Encoded::new(PROOF, &MaybeProof::new(proof)),
            Self::Welcome { node, incarnation, volume, mailbox } => {
                let body = Welcome {
                    uuid: volume.uuid,
                    blocks: volume.blocks.into(),
                    ring_bytes: volume.ring_bytes.into(),
                    incarnation: incarnation.get().into(),
                    mailbox: mailbox.0.into(),
                    block_bytes: volume.block_bytes.into(),
                    node: node_to_wire(Some(node)),
                    reserved: [0; 3],
                };
                Encoded::new(WELCOME, &body)
            }
            Self::Ready { mailbox, reads } => {
                let body = Ready {
                    mailbox: mailbox.0.into(),
                    reads: reads.map_or(0, |key| key.0).into(),
                    has_reads: reads.is_some().into(),
                    reserved: [0; 7],
                };
                Encoded::new(READY, &body)
            }
            Self::Rejected { why } => {
                Encoded::new(REJECTED, &Rejected { why: rejection_to_wire(why), reserved: [0; 7] })
            }
        }
    }

    /// From the bytes.
    ///
    /// # Errors
    /// If they are not exactly one set-up message. [`DecodeError::Version`] tells a peer of another version from
    /// rubbish; a listener answers it with [`Rejection::Version`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let message = Message::parse(WHAT, bytes)?;
        match message.kind {
            HELLO => message.body::<Hello>()?.hello(),
            CHALLENGE => {
                let raw: Challenge = message.body()?;
                Ok(Self::Challenge { nonce: raw.nonce, proof: raw.proof.proof()? })
            }
            PROOF => Ok(Self::Proof { proof: message.body::<MaybeProof>()?.proof()? }),
            WELCOME => message.body::<Welcome>()?.welcome(),
            READY => {
                let raw: Ready = message.body()?;
                zero("Ready.reserved", &raw.reserved)?;
                let given = flag("Ready.has_reads", raw.has_reads)?;
                let reads = optional("Ready.reads", given, raw.reads)?.map(RemoteKey);
                Ok(Self::Ready { mailbox: RemoteKey(raw.mailbox.get()), reads })
            }
            REJECTED => {
                let raw: Rejected = message.body()?;
                zero("Rejected.reserved", &raw.reserved)?;
                Ok(Self::Rejected { why: rejection(raw.why)? })
            }
            _ => Err(message.unknown_kind()),
        }
    }
}

impl Hello {
    fn new(purpose: Purpose, volume: VolumeName, nonce: [u8; 32], keyed: bool) -> Self {
        let (purpose, node, incarnation) = match purpose {
            Purpose::Client => (PURPOSE_CLIENT, None, 0),
            Purpose::Peer { node, incarnation } => (PURPOSE_PEER, Some(node), incarnation.get()),
            Purpose::Relay { node, incarnation } => (PURPOSE_RELAY, Some(node), incarnation.get()),
            Purpose::Probe { node } => (PURPOSE_PROBE, Some(node), 0),
        };
        Self {
            volume: *volume.as_bytes(),
            nonce,
            incarnation: incarnation.into(),
            purpose,
            node: node_to_wire(node),
            keyed: keyed.into(),
            reserved: [0; 5],
        }
    }

    fn hello(&self) -> Result<SetupMsg, DecodeError> {
        zero("Hello.reserved", &self.reserved)?;
        Ok(SetupMsg::Hello {
            purpose: self.purpose()?,
            volume: VolumeName::from_wire("Hello.volume", &self.volume)?,
            nonce: self.nonce,
            keyed: flag("Hello.keyed", self.keyed)?,
        })
    }

    fn purpose(&self) -> Result<Purpose, DecodeError> {
        if !matches!(self.purpose, PURPOSE_PEER | PURPOSE_RELAY) && self.incarnation != U64::ZERO {
            return Err(bad("Hello.incarnation", self.incarnation, "zero unless the purpose is 2 (peer) or 4 (relay)"));
        }
        match self.purpose {
            PURPOSE_CLIENT if self.node == 0 => Ok(Purpose::Client),
            PURPOSE_CLIENT => Err(bad("Hello.node", self.node, "zero from a client")),
            PURPOSE_PEER => Ok(Purpose::Peer {
                node: node("Hello.node", self.node)?,
                incarnation: incarnation("Hello.incarnation", self.incarnation)?,
            }),
            PURPOSE_RELAY => Ok(Purpose::Relay {
                node: node("Hello.node", self.node)?,
                incarnation: incarnation("Hello.incarnation", self.incarnation)?,
            }),
            PURPOSE_PROBE => Ok(Purpose::Probe { node: node("Hello.node", self.node)? }),
            found => Err(bad("Hello.purpose", found, "1 (client), 2 (peer), 3 (probe) or 4 (relay)")),
        }
    }
}

impl MaybeProof {
    fn new(proof: Option<[u8; 32]>) -> Self {
        Self { proof: proof.unwrap_or_default(), has_proof: proof.is_some().into(), reserved: [0; 7] }
    }

    fn proof(&self) -> Result<Option<[u8; 32]>, DecodeError> {
        zero("Proof.reserved", &self.reserved)?;
        if flag("Proof.has_proof", self.has_proof)? {
            return Ok(Some(self.proof));
        }
        zero("Proof.proof without has_proof", &self.proof).map(|()| None)
    }
}

impl Welcome {
    fn welcome(&self) -> Result<SetupMsg, DecodeError> {
        zero("Welcome.reserved", &self.reserved)?;
        let volume = VolumeShape {
            uuid: self.uuid,
            blocks: self.blocks.get(),
            block_bytes: self.block_bytes.get(),
            ring_bytes: self.ring_bytes.get(),
        };
        volume.check()?;
        Ok(SetupMsg::Welcome {
            node: node("Welcome.node", self.node)?,
            incarnation: incarnation("Welcome.incarnation", self.incarnation)?,
            volume,
            mailbox: RemoteKey(self.mailbox.get()),
        })
    }
}

const fn rejection_to_wire(why: Rejection) -> u8 {
    match why {
        Rejection::UnknownVolume => 1,
        Rejection::WrongKey => 2,
        Rejection::Version => 3,
        Rejection::NotAPeer => 4,
    }
}

fn rejection(raw: u8) -> Result<Rejection, DecodeError> {
    Ok(match raw {
        1 => Rejection::UnknownVolume,
        2 => Rejection::WrongKey,
        3 => Rejection::Version,
        4 => Rejection::NotAPeer,
        _ => return Err(bad("Rejected.why", raw, "a reason, 1 to 4")),
    })
}
