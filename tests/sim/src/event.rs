//! What may happen next in the simulated world.

use core::cmp::Ordering;
use core::fmt;

use twinsan_wire::{Blob, ClientMsg, Incarnation, Mailbox, NodeId, NodeMsg, PeerMsg};
use {twinsan_replica as replica, twinsan_session as session};

use crate::stamp::Cell;

/// A host of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// A SAN node.
    Node(NodeId),
    /// A client, by its number; each attach is a new one.
    Client(usize),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => f.pad(if *node == NodeId::A { "A" } else { "B" }),
            Self::Client(number) => f.pad(&format!("C{number}")),
        }
    }
}

/// A connection: an index that is never used again, and both machines' number for it.
pub(crate) type ConnIndex = usize;
/// One life of a host's process: an index that is never used again.
pub(crate) type LifeIndex = usize;
/// A disk operation of a driver.
pub(crate) type OpId = u64;

/// What travels by a connection.
#[derive(Clone, Debug)]
pub enum Item {
    /// The listener's half of the set-up, with its incarnation.
    Welcome(Incarnation),
    /// The connector's half; a node's names its incarnation.
    Ready(Option<Incarnation>),
    /// Node to node.
    Peer(PeerMsg),
    /// Client to node.
    Client(ClientMsg),
    /// Node to client.
    Node(NodeMsg),
    /// A one-sided word.
    Mailbox(Mailbox),
    /// Payload and descriptor.
    Blob(Blob),
    /// The same from a connection that its sender has closed: its bytes as they were then.
    BlobCopied(Blob, Vec<Cell>),
    /// A read's payload; its ReadDone follows.
    Answer(Box<Answer>),
    /// The same from a connection that its sender has closed.
    AnswerCopied(Box<AnswerCopied>),
    /// The other end is gone.
    End,
}

/// A read's answer on its way.
#[derive(Clone, Debug)]
pub struct Answer {
    pub(crate) token: replica::ReadToken,
    pub(crate) life: LifeIndex,
    pub(crate) slot: u32,
    pub(crate) pieces: Vec<replica::Piece>,
    pub(crate) from_disk: Vec<Cell>,
    /// The session that reads.
    pub(crate) generation: u64,
}

/// A read's answer whose bytes have left their host.
#[derive(Clone, Debug)]
pub struct AnswerCopied {
    pub(crate) slot: u32,
    pub(crate) cells: Vec<Cell>,
}

/// What a host's process is handed.
#[derive(Clone, Debug)]
pub(crate) enum Inbound {
    Tick,
    Replica(replica::Event),
    Session(session::Event),
    /// By a connection: void once the process itself has closed it.
    ByConn(ConnIndex, ByConn),
    /// The driver itself goes on with the second superblock slot.
    SecondSlot(OpId),
}

#[derive(Clone, Debug)]
pub(crate) enum ByConn {
    Replica(replica::Event),
    Session(session::Event),
    /// The immediate of a mailbox write: look what stands there now.
    MailboxWritten {
        kind: usize,
    },
}

/// A scheduled happening.
#[derive(Clone, Debug)]
pub(crate) enum Ev {
    Tick(Host, LifeIndex),
    Hand(Host, LifeIndex, Inbound),
    Dial {
        from: Host,
        life: LifeIndex,
        to: NodeId,
        relay: Option<Incarnation>,
    },
    SetupTimeout(ConnIndex),
    Deliver {
        conn: ConnIndex,
        dir: usize,
    },
    Break {
        conn: ConnIndex,
        end: usize,
        cut: u64,
    },
    Disk {
        op: OpId,
        unit: usize,
    },
    FenceStep(u64),
    Work(usize),
    /// The next fault is drawn.
    Fault,
    /// The next of a given list.
    Deed(usize),
    /// An end hears at last that the other one is gone.
    Reset {
        conn: ConnIndex,
        end: usize,
    },
    Heal(crate::faults::Remedy),
}

/// An entry of the queue: earliest first, then what the plan does, then in order of its making. So it makes no difference
/// whether the plan is drawn as the run goes or was there before.
#[derive(Clone, Debug)]
pub(crate) struct Scheduled {
    pub(crate) at_us: u64,
    pub(crate) number: u64,
    pub(crate) ev: Ev,
}

impl Scheduled {
    fn class(&self) -> u8 {
        match self.ev {
            Ev::Fault => 0,
            Ev::Work(_) | Ev::Deed(_) => 1,
            _ => 2,
        }
    }
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at_us, other.class(), other.number).cmp(&(self.at_us, self.class(), self.number))
    }
}
