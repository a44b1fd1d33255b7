//! What happens to a client.

use twinsan_wire::{Incarnation, Mailbox, NodeId, NodeMsg};

/// A connection to a node, as the driver numbers them; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// One thing that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time has passed.
    Tick,
    /// Answers [`crate::Action::Connect`]: the connection is up and authenticated.
    Connected {
        /// To which node.
        node: NodeId,
        /// The connection.
        conn: ConnId,
        /// The incarnation that welcomed us.
        incarnation: Incarnation,
    },
    /// Answers [`crate::Action::Connect`]: it did not work.
    ConnectFailed {
        /// To which node.
        node: NodeId,
        /// Why.
        why: ConnectError,
    },
    /// The connection is gone. Not reported after [`crate::Action::Close`].
    Closed {
        /// Which.
        conn: ConnId,
    },
    /// A node's message. With Attached and Resumed the driver has taken the lane's keys for this connection.
    Message {
        /// From which connection.
        conn: ConnId,
        /// What it says.
        msg: NodeMsg,
    },
    /// A whole mailbox (CRC checked) from a node.
    Mailbox {
        /// From which connection.
        conn: ConnId,
        /// What it says.
        mailbox: Mailbox,
    },
    /// The caller ends the session in order: once every write and read has completed and the primary has been told. With
    /// no primary in reach that waits; a driver with a deadline of its own just goes, as if it had been killed.
    Detach,
}

/// Why a connection did not come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// Nobody listens.
    Refused,
    /// No answer.
    Unreachable,
    /// It answered and does not let us in (key, volume, version): the driver has logged why.
    Rejected,
}
