//! What a client wants done.

use twinsan_wire::{Blob, ClientMsg, Epoch, Generation, NodeId, Refusal, Seq};

use crate::event::ConnId;

/// One thing to do, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Connect and authenticate.
    Connect {
        /// To this node.
        node: NodeId,
    },
    /// Destroy the connection: when this has been carried out, nothing from it lands any more.
    Close {
        /// Which.
        conn: ConnId,
    },
    /// Send a message.
    Send {
        /// By this connection.
        conn: ConnId,
        /// The message.
        msg: ClientMsg,
    },
    /// Write payload (from the client's own ring, at the same position) and descriptor into the node's lane.
    Post {
        /// By this connection.
        conn: ConnId,
        /// The blob.
        blob: Blob,
    },
    /// Every write up to here has completed: tell the callers.
    WritesCompleted {
        /// Cumulative.
        upto: Seq,
    },
    /// The read's bytes are in its buffer: tell the caller, after the writes completed before it.
    ReadCompleted {
        /// The caller's number.
        id: u64,
        /// The buffer.
        slot: u32,
    },
    /// The volume is open: reads and writes are taken.
    Opened {
        /// The session.
        generation: Generation,
    },
    /// The session has ended; nothing more will complete. After [`Ended::Detached`] the driver closes what connections
    /// are left once everything sent has gone; otherwise they have been closed.
    Ended(Ended),
    /// Something that the operator should know.
    Notice(Notice),
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ended {
    /// As asked.
    Detached,
    /// A newer session has replaced it.
    Superseded,
    /// The attach was refused for good.
    Refused(Refusal),
}

/// What the operator should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A new epoch: who serves now.
    NewEpoch {
        /// The epoch.
        epoch: Epoch,
        /// The node that serves.
        primary: NodeId,
        /// Two members.
        dual: bool,
    },
    /// A node was lost; requests go on or wait.
    NodeLost {
        /// Which.
        node: NodeId,
    },
    /// A node feeds again from here.
    NodeResumed {
        /// Which.
        node: NodeId,
        /// The blobs sent again.
        resent: u64,
    },
    /// The node refuses to serve until an operator accepts the loss of data (rule 12); it is asked on and on.
    NeedsRecovery {
        /// Which.
        node: NodeId,
    },
    /// A node said what it may not say; its connection was destroyed.
    NodeViolation(&'static str),
}
