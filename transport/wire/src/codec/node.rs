//! From a node to a client: [`NodeMsg`], with the lane's keys where it opens a lane.

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::parts::{
    bad, incarnation, maybe_incarnation, maybe_node, members, members_to_wire, node_to_wire, role, role_to_wire,
    session, zero,
};
use crate::error::DecodeError;
use crate::frame::{Encoded, Message};
use crate::ids::{Epoch, Generation, Incarnation, Seq};
use crate::message::{LaneGrant, NodeMsg, Refusal, RemoteKey};

const WHAT: &str = "message from a node";

const VIEW: u8 = 0x60;
const ATTACHED: u8 = 0x61;
const RESUMED: u8 = 0x62;
const REFUSED: u8 = 0x63;
const READ_DONE: u8 = 0x64;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct View {
    from: U64,
    epoch: U64,
    generation: U64,
    members: [U64; 2],
    joiner: U64,
    role: u8,
    primary: u8,
    reserved: [u8; 6],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Attached {
    generation: U64,
    grant: Grant,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Resumed {
    generation: U64,
    from: U64,
    received: U64,
    grant: Grant,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Grant {
    descriptors: U64,
    data: U64,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Refused {
    why: u8,
    reserved: [u8; 7],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct ReadDone {
    id: U64,
    epoch: U64,
    durable: U64,
}

const _: () = assert!(size_of::<View>() == 56);
const _: () = assert!(size_of::<Attached>() == 24);
const _: () = assert!(size_of::<Resumed>() == 40);
const _: () = assert!(size_of::<Refused>() == 8);
const _: () = assert!(size_of::<ReadDone>() == 24);

/// A node's message as it travels: the machines' words, and the lane's keys, which only drivers know.
///
/// [`NodeMsg::Attached`] and [`NodeMsg::Resumed`] travel with a grant, all others without: a decoded frame keeps that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeFrame {
    /// What the node's machine says.
    pub msg: NodeMsg,
    /// The lane that the node has opened to this connection.
    pub grant: Option<LaneGrant>,
}

impl NodeMsg {
    /// Whether this message opens a lane, and so travels with a [`LaneGrant`].
    #[must_use]
    pub const fn opens_lane(&self) -> bool {
        matches!(self, Self::Attached { .. } | Self::Resumed { .. })
    }
}

impl NodeFrame {
    /// The bytes.
    ///
    /// # Panics
    /// If the grant is missing where [`NodeMsg::opens_lane`], or given elsewhere: the driver has not opened the lane,
    /// and the client would write into nothing.
    #[must_use]
    pub fn encode(&self) -> Encoded {
        match (self.msg, self.grant) {
            (NodeMsg::Attached { generation }, Some(grant)) => {
                Encoded::new(ATTACHED, &Attached { generation: generation.0.into(), grant: Grant::new(grant) })
            }
            (NodeMsg::Resumed { generation, from, received }, Some(grant)) => {
                let body = Resumed {
                    generation: generation.0.into(),
                    from: from.get().into(),
                    received: received.0.into(),
                    grant: Grant::new(grant),
                };
                Encoded::new(RESUMED, &body)
            }
            (NodeMsg::View { role, from, epoch, primary, members, joiner, generation }, None) => {
                let body = View {
                    from: from.get().into(),
                    epoch: epoch.0.into(),
                    generation: generation.0.into(),
                    members: members_to_wire(members),
                    joiner: maybe_incarnation(joiner),
                    role: role_to_wire(role),
                    primary: node_to_wire(primary),
                    reserved: [0; 6],
                };
                Encoded::new(VIEW, &body)
            }
            (NodeMsg::Refused { why }, None) => {
                Encoded::new(REFUSED, &Refused { why: refusal_to_wire(why), reserved: [0; 7] })
            }
            (NodeMsg::ReadDone { id, epoch, durable }, None) => {
                let body = ReadDone { id: id.into(), epoch: epoch.0.into(), durable: durable.0.into() };
                Encoded::new(READ_DONE, &body)
            }
            (msg, grant) => panic!("{msg:?} with grant {grant:?}: Attached and Resumed carry one, nothing else does"),
        }
    }

    /// From the bytes.
    ///
    /// # Errors
    /// If they are not exactly one message of this direction.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let message = Message::parse(WHAT, bytes)?;
        let plain = |msg| Self { msg, grant: None };
        match message.kind {
            VIEW => message.body::<View>()?.view().map(plain),
            ATTACHED => {
                let raw: Attached = message.body()?;
                let msg = NodeMsg::Attached { generation: session("Attached.generation", raw.generation)? };
                Ok(Self { msg, grant: Some(raw.grant.grant()) })
            }
            RESUMED => {
                let raw: Resumed = message.body()?;
                let msg = NodeMsg::Resumed {
                    generation: session("Resumed.generation", raw.generation)?,
                    from: incarnation("Resumed.from", raw.from)?,
                    received: Seq(raw.received.get()),
                };
                Ok(Self { msg, grant: Some(raw.grant.grant()) })
            }
            REFUSED => {
                let raw: Refused = message.body()?;
                zero("Refused.reserved", &raw.reserved)?;
                Ok(plain(NodeMsg::Refused { why: refusal(raw.why)? }))
            }
            READ_DONE => {
                let raw: ReadDone = message.body()?;
                let (epoch, durable) = (Epoch(raw.epoch.get()), Seq(raw.durable.get()));
                Ok(plain(NodeMsg::ReadDone { id: raw.id.get(), epoch, durable }))
            }
            _ => Err(message.unknown_kind()),
        }
    }
}

impl View {
    fn view(&self) -> Result<NodeMsg, DecodeError> {
        zero("View.reserved", &self.reserved)?;
        Ok(NodeMsg::View {
            role: role("View.role", self.role)?,
            from: incarnation("View.from", self.from)?,
            epoch: Epoch(self.epoch.get()),
            primary: maybe_node("View.primary", self.primary)?,
            members: members(self.members),
            joiner: Incarnation::from_wire(self.joiner.get()),
            generation: Generation(self.generation.get()),
        })
    }
}

impl Grant {
    fn new(grant: LaneGrant) -> Self {
        Self { descriptors: grant.descriptors.0.into(), data: grant.data.0.into() }
    }

    fn grant(&self) -> LaneGrant {
        LaneGrant { descriptors: RemoteKey(self.descriptors.get()), data: RemoteKey(self.data.get()) }
    }
}

const fn refusal_to_wire(why: Refusal) -> u8 {
    match why {
        Refusal::NotReady => 1,
        Refusal::Busy => 2,
        Refusal::Superseded => 3,
        Refusal::NeedsRecovery => 4,
    }
}

fn refusal(raw: u8) -> Result<Refusal, DecodeError> {
    Ok(match raw {
        1 => Refusal::NotReady,
        2 => Refusal::Busy,
        3 => Refusal::Superseded,
        4 => Refusal::NeedsRecovery,
        _ => return Err(bad("Refused.why", raw, "a reason, 1 to 4")),
    })
}
