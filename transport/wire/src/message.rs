//! The small two-sided messages.
//!
//! Between nodes: [`PeerMsg`]. From a client to a node: [`ClientMsg`]; back: [`NodeMsg`].

use crate::cluster::{Members, Role, Superblock};
use crate::codec::parts::bad;
use crate::error::DecodeError;
use crate::ids::{Epoch, Generation, Incarnation, Lba, NodeId, Seq};

/// A message between the two nodes. Whatever does not fit the receiver's epoch or incarnation is ignored; the bodies
/// that say so are the exceptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerMsg {
    /// The sender's epoch.
    pub epoch: Epoch,
    /// The sender.
    pub from: Incarnation,
    /// The receiver as the sender knows it; `None` where it need not (Status, Announce).
    pub to: Option<Incarnation>,
    /// What it says.
    pub body: PeerBody,
}

/// What one node tells the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerBody {
    /// The fabric heartbeat, sent several times a second and whenever the role changes. Fits always.
    Status {
        /// What the sender is doing.
        role: Role,
        /// It grows with every one sent, so that a stale one shows.
        beat: u64,
        /// The sender has a usable path to the disk, as far as it knows (rule 11).
        paths: bool,
    },
    /// The superblock that the sender has written and that is on the disk (rule 4). A newer epoch fits always.
    Announce {
        /// What stands on the disk.
        superblock: Superblock,
    },
    /// A waiting node, registered with the fence, asks the primary to let it join (rule 8).
    JoinRequest,
    /// The primary accepts: the joiner opens an empty lane for `generation`.
    JoinAccept {
        /// The session in the superblock; zero: none ever.
        generation: Generation,
        /// Where the lane begins, if no client is there to say it. With a client: `None`, it says it.
        first: Option<Seq>,
    },
    /// The primary throws the join away, or the joiner gives it up: the joiner drops its lane.
    JoinAbort,
    /// A new client attaches: tear down the session of `generation` (rule 10).
    CloseSession {
        /// The session that ends.
        generation: Generation,
    },
    /// All of the old session is on the disk: drop its lane (rule 10).
    DropLane {
        /// The session whose lane goes.
        generation: Generation,
    },
    /// The lane is gone and nobody can write into it (rule 10).
    LaneDropped {
        /// The session whose lane is gone.
        generation: Generation,
    },
    /// The secondary ends in order: drop it (rule 7).
    Leave,
    /// The primary can't go on, as it does not reach the disk, and asks the other one to take over: by rule 5, or 6
    /// where that one is no member (rules 11, 13). Repeated as long as it holds.
    TakeOver,
    /// Rule 13: the sender has written this superblock, which names the receiver the primary, and has stopped. A newer
    /// epoch fits always.
    HandOver {
        /// What stands on the disk.
        superblock: Superblock,
    },
    /// Rule 13: a client reaches the sender and not the primary, which is to hand over unless it hears its client.
    AskHandOver,
}

/// What a client tells a node; by a relay, the primary in its place: there only Resume is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientMsg {
    /// Opens a new session (rule 10). Only the primary answers it.
    Attach {
        /// The newest session that may be taken over though its client lives; zero: none, as no session has that number.
        /// One that has begun since the sender looked is not meant.
        over: Generation,
    },
    /// Goes on with a session, at any node that holds or will hold its lane (rule 14).
    Resume {
        /// The session.
        generation: Generation,
        /// The lowest seq not completed: where a node with an empty lane begins.
        first: Seq,
    },
    /// Reads `blocks` blocks from `lba` into the client's read slot `slot`.
    Read {
        /// The client's number for it, never used twice in a session.
        id: u64,
        /// The epoch that the client knows; another one's node ignores the request.
        epoch: Epoch,
        /// The last seq sent before it: the node must have received that far.
        after: Seq,
        /// First block.
        lba: Lba,
        /// Number of blocks.
        blocks: u32,
        /// Which of the client's read buffers the answer goes to.
        slot: u32,
    },
    /// Several times a second.
    Heartbeat,
    /// The client has been trying to reach `node` and can't (rule 15).
    Unreachable {
        /// The node that can't be reached.
        node: NodeId,
        /// The epoch that the client knows.
        epoch: Epoch,
        /// The client's session; [`Generation::ZERO`]: it has none yet.
        generation: Generation,
    },
    /// The session ends in order; all its writes have completed.
    Detach,
}

/// What a node tells a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeMsg {
    /// Who serves. Sent on connecting and at every change; authoritative from a primary, a hint from any other.
    View {
        /// The sender's role.
        role: Role,
        /// The sender's incarnation.
        from: Incarnation,
        /// The sender's epoch.
        epoch: Epoch,
        /// Who is the primary, as far as the sender knows.
        primary: Option<NodeId>,
        /// The members.
        members: Members,
        /// The incarnation that is joining, on the node that is not the primary.
        joiner: Option<Incarnation>,
        /// The session that may write.
        generation: Generation,
    },
    /// The new session is in the superblock. A View follows first, the lane is open from seq 1.
    Attached {
        /// The new session.
        generation: Generation,
    },
    /// The session goes on at this node: send what comes after `received`.
    Resumed {
        /// The session.
        generation: Generation,
        /// The sender's incarnation.
        from: Incarnation,
        /// The last seq that the node holds or has released.
        received: Seq,
    },
    /// The node can't do what was asked.
    Refused {
        /// Why.
        why: Refusal,
    },
    /// The answer to a read has been written into the client's buffer; this follows it on the same connection.
    ReadDone {
        /// The request's id.
        id: u64,
        /// The node's epoch: an older one than the client knows is ignored.
        epoch: Epoch,
        /// Complete up to here first (rule 1).
        durable: Seq,
    },
}

/// Why a node refuses a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Not the primary, or not ready yet: try again, here or at the other node.
    NotReady,
    /// Another session is live: this attach would need to take it over.
    Busy,
    /// A newer session has replaced this one: it ends for good.
    Superseded,
    /// The volume waits for an operator (rule 12).
    NeedsRecovery,
}

/// What precedes the machines: who is there, and whether it knows the volume's key. Nothing that lets the other side
/// reach memory is said before [`SetupMsg::Welcome`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SetupMsg {
    /// First message of whoever connected.
    Hello {
        /// What it wants.
        purpose: Purpose,
        /// The volume that it means.
        volume: VolumeName,
        /// Fresh random bytes.
        nonce: [u8; 32],
        /// Whether it holds a key and so demands a proof.
        keyed: bool,
    },
    /// The listener's answer: its own nonce, and where there is a key, the proof that it knows it.
    Challenge {
        /// Fresh random bytes.
        nonce: [u8; 32],
        /// HMAC-SHA-256 over the conversation so far; `None`: this volume has no key.
        proof: Option<[u8; 32]>,
    },
    /// The connector's proof.
    Proof {
        /// HMAC-SHA-256 over the conversation so far.
        proof: Option<[u8; 32]>,
    },
    /// The listener lets it in and says what it is.
    Welcome {
        /// The listener.
        node: NodeId,
        /// Its incarnation for this volume.
        incarnation: Incarnation,
        /// The volume, its shape and where the connector writes its mailboxes.
        volume: VolumeShape,
        /// Mailbox region of the listener, for the other node. A client or a probe writes none: any value, unused.
        mailbox: RemoteKey,
    },
    /// The connector's own side of the same.
    Ready {
        /// Mailbox region of the connector.
        mailbox: RemoteKey,
        /// A client's read buffers: [`crate::limits::MAX_OPEN_READS`] slots of
        /// [`crate::limits::MAX_READ_BYTES`] each.
        reads: Option<RemoteKey>,
    },
    /// The listener does not let it in, and ends the connection.
    Rejected {
        /// Why.
        why: Rejection,
    },
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// A client's session.
    Client,
    /// The link to the other node.
    Peer {
        /// The connecting node.
        node: NodeId,
        /// Its incarnation for this volume.
        incarnation: Incarnation,
    },
    /// The primary feeds the session's blobs to the other member, in the place of a client that does not reach it
    /// (rule 14).
    Relay {
        /// The connecting node.
        node: NodeId,
        /// Its incarnation for this volume.
        incarnation: Incarnation,
    },
    /// Only asks who is there (rule 15): the listener answers Welcome and closes.
    Probe {
        /// The asking node.
        node: NodeId,
    },
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// No such volume here.
    UnknownVolume,
    /// The key is wrong, or one side has none.
    WrongKey,
    /// Another version of this protocol.
    Version,
    /// A node that calls itself by the listener's own name.
    NotAPeer,
}

/// A remote key: what a peer must show to write into a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RemoteKey(pub u64);

/// The lane that a node opens to a client, sent with [`NodeMsg::Attached`] and [`NodeMsg::Resumed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LaneGrant {
    /// The descriptor ring.
    pub descriptors: RemoteKey,
    /// The data ring.
    pub data: RemoteKey,
}

/// What never changes of a volume, and the lane's shape: both nodes must agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VolumeShape {
    /// From `twinsan format`.
    pub uuid: [u8; 16],
    /// Size in logical blocks.
    pub blocks: u64,
    /// Logical block size in bytes: 512 or 4096.
    pub block_bytes: u32,
    /// The lane's data ring in bytes.
    pub ring_bytes: u64,
}

/// A volume's name: 1 to 63 bytes of `a-z A-Z 0-9 . _ -`, the first a letter or digit (so that it is never a hidden
/// file, `..` or an option), zero-padded.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct VolumeName([u8; 64]);

impl VolumeName {
    /// From its text; `None` if it is empty, too long or has other characters.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        if name.len() > 63 {
            return None;
        }
        let mut bytes = [0; 64];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        Self::from_wire("", &bytes).ok().filter(|made| made.as_str() == name)
    }

    /// From the wire's form, as it stands in `field`.
    ///
    /// # Errors
    /// If it is no legal name, zero-padded.
    pub fn from_wire(field: &'static str, bytes: &[u8; 64]) -> Result<Self, DecodeError> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let end = bytes.iter().position(|&b| b == 0).unwrap_or(64);
        let (name, padding) = bytes.split_at(end);
        let wrong = match (name.first(), padding) {
            (None, _) => Some(0),
            (_, []) => Some(bytes[63]),
            (Some(&first), _) if !first.is_ascii_alphanumeric() => Some(first),
            _ => name.iter().find(|&&b| !legal(b)).or(padding.iter().find(|&&b| b != 0)).copied(),
        };
        match wrong {
            None => Ok(Self(*bytes)),
            Some(byte) => Err(bad(field, byte, "1 to 63 of a-z A-Z 0-9 . _ -, a letter or digit first, then zeros")),
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let len = self.0.iter().position(|&b| b == 0).unwrap_or(self.0.len());
        core::str::from_utf8(&self.0[..len]).unwrap_or_default()
    }

    /// The wire's form.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl core::fmt::Debug for VolumeName {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
    }
}
