//! What happens to a node.

use twinsan_wire::{Blob, ClientMsg, Incarnation, Mailbox, NodeMsg, PeerMsg, Superblock};

use crate::ids::{ConnId, LinkId, ReadToken, RelayId};

/// One thing that happened. Each event that answers an action comes exactly once per action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// Time has passed. Every [`crate::Timing::tick_ms`] while there is traffic; at rest, with every heartbeat.
    Tick,
    /// SIGTERM: end in order.
    Shutdown,
    /// `twinsan recover --accept-data-loss` (rule 12).
    Recover,
    /// `twinsan switchover`: hand over (rule 13).
    Switchover,
    /// News of the paths to the disk (rule 11): at least one is usable by this node, or none. True until told.
    Paths {
        /// One is.
        usable: bool,
    },

    /// Answers [`crate::Action::ReadSuperblock`].
    SuperblockRead(Result<SlotRead, DiskError>),
    /// Answers [`crate::Action::WriteSuperblock`]: both slots are on the disk, past its cache, or it failed.
    SuperblockWritten(Result<(), DiskError>),
    /// Answers [`crate::Action::WriteHeartbeat`].
    HeartbeatWritten(Result<(), DiskError>),
    /// Answers [`crate::Action::ReadHeartbeat`]: the other node's counter.
    HeartbeatRead(Result<u64, DiskError>),
    /// Answers [`crate::Action::Flush`]: every write of the batch has ended (succeeded past the disk's cache, or one
    /// failed; none is in flight any more).
    Flushed {
        /// The action's number.
        batch: u64,
        /// The outcome of all.
        result: Result<(), DiskError>,
        /// From its start to its end, in microseconds.
        us: u64,
    },
    /// Answers [`crate::Action::ReadDisk`].
    DiskRead {
        /// The read.
        token: ReadToken,
        /// The outcome.
        result: Result<(), DiskError>,
    },

    /// Answers [`crate::Action::Admit`]: no earlier write of this host can land, and it is registered.
    Admitted(Result<(), FenceError>),
    /// Answers [`crate::Action::Fence`]: nobody else's write can reach the disk, those in flight included.
    FenceHeld(Result<(), FenceError>),
    /// Answers [`crate::Action::CheckFence`]: whether the own registration still stands.
    FenceChecked {
        /// READ KEYS shows the own key.
        own: bool,
    },
    /// Answers [`crate::Action::ReleaseFence`].
    FenceReleased,
    /// Answers [`crate::Action::YieldFence`].
    FenceYielded,
    /// Answers [`crate::Action::AcceptFence`].
    FenceAccepted(Result<(), FenceError>),

    /// A link to the other node is up and authenticated. It replaces an earlier one.
    LinkUp {
        /// The link.
        link: LinkId,
        /// Who is at the other end.
        peer: Incarnation,
    },
    /// The link is gone.
    LinkDown {
        /// Which.
        link: LinkId,
    },
    /// Answers [`crate::Action::Probe`].
    Probed(Probe),
    /// A message from the other node.
    Peer {
        /// By which link.
        link: LinkId,
        /// What it says.
        msg: PeerMsg,
    },
    /// An Ack or Released mailbox from the other node, whole (CRC checked).
    PeerMailbox {
        /// By which link.
        link: LinkId,
        /// What it says.
        mailbox: Mailbox,
    },

    /// A client has connected and is authenticated.
    ClientUp {
        /// The connection.
        conn: ConnId,
    },
    /// The other node has connected as a relay, and is authenticated: blobs of the session come by it as from a client.
    RelayAccepted {
        /// The connection.
        conn: ConnId,
        /// Who is at the other end.
        from: Incarnation,
    },
    /// Answers [`crate::Action::RelayConnect`]: it is up and authenticated, or it did not work.
    RelayDialled(Option<RelayId>),
    /// A relay that this node feeds is gone.
    RelayDown {
        /// Which.
        relay: RelayId,
    },
    /// The other node's message by a relay that this node feeds. With Resumed the driver has taken the lane's keys for
    /// this connection.
    Relay {
        /// By which.
        relay: RelayId,
        /// What it says.
        msg: NodeMsg,
    },
    /// The connection of a client, or of a relay that feeds this node, is gone.
    ClientDown {
        /// Which.
        conn: ConnId,
    },
    /// A client's message.
    Client {
        /// From which connection.
        conn: ConnId,
        /// What it says.
        msg: ClientMsg,
    },
    /// A blob has landed in the lane; descriptor and payload have been checked (magic, CRCs). Only from a connection
    /// that has been told Attached or Resumed.
    Blob {
        /// From which connection.
        conn: ConnId,
        /// What has landed.
        blob: Blob,
    },
    /// Answers [`crate::Action::AnswerRead`]: nothing uses the staged pieces any more (or the connection is gone).
    ReadAnswered {
        /// The read.
        token: ReadToken,
    },
}

/// What the two superblock slots say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SlotRead {
    /// The valid slot with the highest counter.
    pub superblock: Superblock,
    /// Both slots are valid and say the same: what they say counts (section 7).
    pub settled: bool,
    /// What the other slot says, where it is valid and says something older: the write of the newer one has not ended.
    pub older: Option<Superblock>,
}

/// What a disk operation came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DiskError {
    /// A reservation conflict, or the claim is gone: whether we are fenced, [`crate::Action::CheckFence`] tells.
    Conflict,
    /// Anything else (EIO, ENOSPC, no path): it is retried.
    Failed,
    /// The superblock is unreadable in both slots.
    Corrupt,
}

/// What the fence came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FenceError {
    /// Another one was quicker, or holds on: try later.
    Lost,
    /// The disk can't be reached.
    Failed,
}

/// What connecting to the other node came to (rule 15).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Probe {
    /// Nobody listens: its process is not running.
    Refused,
    /// It answers, as this incarnation.
    Alive(Incarnation),
    /// No answer.
    Silent,
}
