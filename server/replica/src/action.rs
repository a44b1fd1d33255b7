//! What a node wants done.

use alloc::vec::Vec;

use twinsan_wire::{Blob, BlobKind, ClientMsg, Epoch, Incarnation, Lba, Mailbox, NodeMsg, PeerMsg, Seq, Superblock};

use crate::event::FenceError;
use crate::handover::Obstacle;
use crate::ids::{ConnId, LinkId, ReadToken, RelayId};

/// One thing to do. Drivers carry actions out in order; disk actions may overlap each other unless the machine waits
/// for the answer, which it does wherever order matters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Read both slots.
    ReadSuperblock,
    /// Write both slots, the older first, mending what differs; then the disk's cache.
    WriteSuperblock(Superblock),
    /// Write the own heartbeat block.
    WriteHeartbeat {
        /// The counter.
        beat: u64,
    },
    /// Read the other node's heartbeat block.
    ReadHeartbeat,

    /// Rule 8: take the host's exclusive claim and register, so that this incarnation may become a member.
    Admit,
    /// Section 5: make it impossible for any other incarnation's writes to reach the disk, those in flight included.
    Fence,
    /// Let the claim go: no I/O of ours is in flight and none will be issued.
    ReleaseFence,
    /// Is the own registration still there?
    CheckFence,
    /// Rule 13, the old primary: write no more, and stay let in. No I/O of ours is in flight and none will be issued.
    YieldFence,
    /// Rule 13, the new primary: be able to write, without fencing anybody.
    AcceptFence,

    /// Write these ranges to the disk; then its cache. No two ranges overlap; sorted by block.
    Flush {
        /// Answered by this number.
        batch: u64,
        /// What goes where.
        writes: Vec<WriteRange>,
    },
    /// Read the pieces that come from the disk into the read's buffer.
    ReadDisk {
        /// The read; `AnswerRead` or `DropRead` follows.
        token: ReadToken,
        /// Its pieces of kind [`PieceSource::Disk`].
        pieces: Vec<Piece>,
    },
    /// Write all pieces into the client's buffer `slot`, then send [`NodeMsg::ReadDone`] with these values. Answered
    /// by `ReadAnswered`.
    AnswerRead {
        /// The read.
        token: ReadToken,
        /// Where to.
        conn: ConnId,
        /// The client's number.
        id: u64,
        /// The client's buffer.
        slot: u32,
        /// What it consists of, in block order.
        pieces: Vec<Piece>,
        /// For ReadDone.
        epoch: Epoch,
        /// For ReadDone.
        durable: Seq,
    },
    /// The read is void; free its buffer. Not answered.
    DropRead {
        /// The read.
        token: ReadToken,
    },

    /// Connect to the other node to see who is there; on the node that dials (B), a link to a live one follows by
    /// itself as `LinkUp`.
    Probe,
    /// Send to the other node.
    SendPeer {
        /// By this link.
        link: LinkId,
        /// The message.
        msg: PeerMsg,
    },
    /// Write the other node's mailbox; a newer one of the same kind may replace one not yet sent.
    PeerMailbox {
        /// By this link.
        link: LinkId,
        /// The contents.
        mailbox: Mailbox,
    },
    /// Destroy the link; nothing comes from it any more, `LinkDown` neither.
    CloseLink {
        /// Which.
        link: LinkId,
    },

    /// Connect to the other node as a relay (rule 14), if it is still this incarnation. Answered by `RelayDialled`.
    RelayConnect {
        /// The only one to be fed.
        to: Incarnation,
    },
    /// Send by a relay that this node feeds.
    SendRelay {
        /// By which.
        relay: RelayId,
        /// The message.
        msg: ClientMsg,
    },
    /// Write payload and descriptor, as they stand in the own lane, into the other node's lane at the same places. They
    /// stay as they are until that node has ACKed the blob, or the relay is destroyed.
    RelayPost {
        /// By which.
        relay: RelayId,
        /// The blob.
        blob: Blob,
    },
    /// Destroy a relay that this node feeds: when this has been carried out, nothing is taken from the lane any more.
    /// `RelayDown` does not follow.
    CloseRelay {
        /// Which.
        relay: RelayId,
    },

    /// Send to a client. [`NodeMsg::Attached`] and [`NodeMsg::Resumed`] carry the lane's keys: the driver opens the
    /// lane's memory to this connection first.
    SendClient {
        /// To whom.
        conn: ConnId,
        /// The message.
        msg: NodeMsg,
    },
    /// Write a client's mailbox; a newer one may replace one not yet sent.
    ClientMailbox {
        /// Whose.
        conn: ConnId,
        /// The contents.
        mailbox: Mailbox,
    },
    /// Destroy a client's connection, or a relay that feeds this node: when this has been carried out, nothing from it can land. `ClientDown` does not
    /// follow.
    CloseClient {
        /// Which.
        conn: ConnId,
    },

    /// The incarnation has changed: new connections say this one.
    Incarnation(Incarnation),
    /// Something that an operator should know.
    Notice(Notice),
    /// The work is done: end the process.
    Exit,
}

impl Action {
    /// Whether the driver tells, by an event, how it has ended.
    #[must_use]
    pub const fn is_answered(&self) -> bool {
        matches!(
            self,
            Self::ReadSuperblock
                | Self::WriteSuperblock(_)
                | Self::WriteHeartbeat { .. }
                | Self::ReadHeartbeat
                | Self::Admit
                | Self::Fence
                | Self::ReleaseFence
                | Self::CheckFence
                | Self::YieldFence
                | Self::AcceptFence
                | Self::Flush { .. }
                | Self::ReadDisk { .. }
                | Self::AnswerRead { .. }
                | Self::Probe
                | Self::RelayConnect { .. }
        )
    }
}

/// One contiguous write of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WriteRange {
    /// First block.
    pub lba: Lba,
    /// Number of blocks.
    pub blocks: u64,
    /// Which blob it comes from.
    pub seq: Seq,
    /// With what.
    pub source: Source,
}

/// Where a write's bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The data ring, from this position (byte offset = position mod ring size; it does not wrap).
    Staged {
        /// The position.
        data_pos: u64,
    },
    /// Zeros; `Discard` may give the space back.
    Zeros(BlobKind),
}

/// A part of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Piece {
    /// First block.
    pub lba: Lba,
    /// Number of blocks.
    pub blocks: u32,
    /// Where it comes from.
    pub source: PieceSource,
}

/// Where a part of a read comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PieceSource {
    /// The disk.
    Disk,
    /// A staged blob's payload.
    Staged {
        /// The blob.
        seq: Seq,
        /// The position in the data ring.
        data_pos: u64,
    },
    /// A staged blob without payload.
    Zeros {
        /// The blob.
        seq: Seq,
    },
}

/// What an operator should know; the driver words it and logs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    /// A new epoch is in force.
    EpochEntered(Superblock),
    /// Taking over begins.
    TakingOver {
        /// By rule 5 (a member), else rule 6.
        member: bool,
    },
    /// Takeover has ended: serving.
    Serving,
    /// The secondary is being dropped (rule 7).
    DroppingSecondary,
    /// Rule 14: the client does not reach the secondary; this node feeds it.
    Relaying,
    /// Rule 14: that has ended.
    RelayEnded,
    /// The secondary has joined (rule 8).
    Joined,
    /// A join was thrown away.
    JoinThrownAway,
    /// Rule 13: the primary has stopped, to hand over.
    HandingOver,
    /// Rule 13: it goes on itself; the superblock was not touched.
    HandOverCalledOff(Obstacle),
    /// Rule 13: the other node serves.
    HandedOver {
        /// From the stop here to the other one's word that it serves.
        pause_ms: u64,
    },
    /// Rule 13: the other node has handed over to this one.
    HandedTo,
    /// Rule 13: what was handed over could not be taken, or was another's by then: by rule 9, then.
    NotAccepted(FenceError),
    /// Rule 11: this node has a usable path to the disk again, or none any more.
    Paths {
        /// It has.
        usable: bool,
    },
    /// Rule 11: what the other node says of its paths.
    OtherPaths {
        /// It has a usable one.
        usable: bool,
    },
    /// Rule 11: the other node is asked to take over, as this one does not reach the disk.
    Asking,
    /// A new session.
    SessionAttached,
    /// Fenced out (rule 9).
    Fenced,
    /// Rule 12: refusing to serve.
    NeedsRecovery(Superblock),
    /// The disk fails, and is tried again until it works.
    DiskTrouble,
    /// The disk works again.
    DiskWell,
    /// A client broke the protocol; its connection was destroyed.
    ClientViolation(&'static str),
    /// The superblock can't be read in either slot.
    SuperblockCorrupt,
}
