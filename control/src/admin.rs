//! The language of a node's admin socket: one JSON line asks, one JSON line answers, then the node closes.
//!
//! The socket is local (unix) and has mode 0600: who may open it administers the node.

mod client;
mod status;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use client::{AdminError, MAX_LINE_BYTES, ask, read_line, write_line};
pub use status::{
    DiskPathStatus, DiskStatus, DrainStatus, HandoverState, HandoverStatus, LaneStatus, MemberStatus, MemoryStatus,
    NodeStatus, PathState, PeerStatus, SessionStatus, VolumeStatus,
};

/// What an administrator asks: `{"request":"status"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Everything about the node and its volumes.
    Status,
    /// Start a volume whose members are gone (rule 12).
    Recover {
        /// Which volume.
        volume: String,
        /// Must be true: completed writes may be lost, and whoever asks has to say that they know.
        accept_data_loss: bool,
    },
    /// Hand a volume over to the other node (rule 13). The answer is that it has begun; [`VolumeStatus::handover`] tells
    /// what comes of it.
    Switchover {
        /// Which volume.
        volume: String,
    },
}

/// What the node answers: `{"response":"status", …}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "response", rename_all = "kebab-case")]
pub enum Response {
    /// To [`Request::Status`].
    Status(Box<NodeStatus>),
    /// It was done, or has begun.
    Done {
        /// In words.
        message: String,
    },
    /// It was not done.
    Failed {
        /// Why, and what would be right.
        message: String,
    },
}
