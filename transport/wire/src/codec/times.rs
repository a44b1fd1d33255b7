//! From a node to a client, drivers to drivers: how long a timed blob took. No machine hears of it.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::parts::{seq_from_one, session};
use crate::error::DecodeError;
use crate::frame::{Encoded, Message, kind};
use crate::ids::{Generation, Seq};

const WHAT: &str = "times from a node";

const TIMES: u8 = 0x65;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Raw {
    generation: U64,
    seq: U64,
    to_ack_ns: U32,
    to_completion_ns: U32,
}

const _: () = assert!(size_of::<Raw>() == 24);

/// How long a blob whose descriptor asked for it ([`crate::Descriptor::timed`]) was with a node, by the node's own clock,
/// from the moment that it took the descriptor. Nanoseconds, at least 1; what took longer than 4.29 s says so much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Times {
    /// The blob's session.
    pub generation: Generation,
    /// The blob.
    pub seq: Seq,
    /// Until an ACK that covers it left (on the node that ACKs), or came (on the primary). `None`: there was none.
    pub to_ack_ns: Option<u32>,
    /// Until the completion that covers it left. `None`: this node completes nothing.
    pub to_completion_ns: Option<u32>,
}

impl Times {
    /// Whether a message is one of these, and not the node's machine's.
    #[must_use]
    pub fn is_kind_of(bytes: &[u8]) -> bool {
        kind(bytes) == Some(TIMES)
    }

    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> Encoded {
        let raw = Raw {
            generation: self.generation.0.into(),
            seq: self.seq.0.into(),
            to_ack_ns: self.to_ack_ns.map_or(0, |ns| ns.max(1)).into(),
            to_completion_ns: self.to_completion_ns.map_or(0, |ns| ns.max(1)).into(),
        };
        Encoded::new(TIMES, &raw)
    }

    /// From the bytes.
    ///
    /// # Errors
    /// If they are not exactly one such message.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let message = Message::parse(WHAT, bytes)?;
        if message.kind != TIMES {
            return Err(message.unknown_kind());
        }
        let raw: Raw = message.body()?;
        let given = |ns: U32| Some(ns.get()).filter(|ns| *ns > 0);
        Ok(Self {
            generation: session("Times.generation", raw.generation)?,
            seq: seq_from_one("Times.seq", Seq(raw.seq.get()))?,
            to_ack_ns: given(raw.to_ack_ns),
            to_completion_ns: given(raw.to_completion_ns),
        })
    }
}
