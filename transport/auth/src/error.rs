//! Why a connection does not come about.

use twinsan_wire::{DecodeError, NodeId, Rejection, SetupMsg, VolumeName};

/// The other side is not let in, or does not let us in; the connection ends. Whether they tried a wrong key or have
/// changed a message can't be told apart, and is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The listener has no such volume.
    #[error("volume \"{}\": not served here", .volume.as_str())]
    UnknownVolume {
        /// As asked for.
        volume: VolumeName,
    },
    /// The other side's proof is not the one that this volume's key gives.
    #[error("volume \"{}\": the other side has another key; both must have the same key file", .volume.as_str())]
    WrongKey {
        /// The volume.
        volume: VolumeName,
    },
    /// This side has a key, the other one does not use any.
    #[error("volume \"{}\": this side has a key, the other side has none; give it the same key file", .volume.as_str())]
    PeerHasNoKey {
        /// The volume.
        volume: VolumeName,
    },
    /// The other side demands a key, this one has none.
    #[error("volume \"{}\": the other side has a key, this side has none; give it the same key file", .volume.as_str())]
    PeerHasKey {
        /// The volume.
        volume: VolumeName,
    },
    /// Our own nonce came back as the listener's: somebody holds up a mirror.
    #[error("the other side sent our own nonce back")]
    Reflected,
    /// The other side calls itself by this node's own name: an address leads back to this node, or two configurations
    /// disagree.
    #[error("the other side says that it is node {node}, which is this one; check the nodes' addresses and names")]
    OwnName {
        /// This node.
        node: NodeId,
    },
    /// The listener does not let us in.
    #[error("refused by the other side: {}", explain(*.why))]
    Rejected {
        /// What it says.
        why: Rejection,
    },
    /// A message out of turn.
    #[error("the other side sent {got} where {expected} was due")]
    OutOfTurn {
        /// What came.
        got: &'static str,
        /// What should have come.
        expected: &'static str,
    },
    /// Not a set-up message, or of another version.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

impl AuthError {
    /// What a listener sends before it closes the connection; `None`: it just closes. A connector sends nothing.
    #[must_use]
    pub const fn reply(&self) -> Option<SetupMsg> {
        let why = match self {
            Self::UnknownVolume { .. } => Rejection::UnknownVolume,
            Self::WrongKey { .. } | Self::PeerHasNoKey { .. } | Self::PeerHasKey { .. } => Rejection::WrongKey,
            Self::OwnName { .. } => Rejection::NotAPeer,
            Self::Decode(DecodeError::Version { .. }) => Rejection::Version,
            Self::Reflected | Self::Rejected { .. } | Self::OutOfTurn { .. } | Self::Decode(_) => return None,
        };
        Some(SetupMsg::Rejected { why })
    }
}

const fn explain(why: Rejection) -> &'static str {
    match why {
        Rejection::UnknownVolume => "it does not serve this volume",
        Rejection::WrongKey => "the key is wrong, or only one side has one; both must have the same key file",
        Rejection::Version => "it speaks another version of the protocol; both must run the same release",
        Rejection::NotAPeer => "it is the node that we say we are; check the nodes' addresses and names",
    }
}

/// A message's name, for [`AuthError::OutOfTurn`].
pub(crate) const fn name(msg: &SetupMsg) -> &'static str {
    match msg {
        SetupMsg::Hello { .. } => "Hello",
        SetupMsg::Challenge { .. } => "Challenge",
        SetupMsg::Proof { .. } => "Proof",
        SetupMsg::Welcome { .. } => "Welcome",
        SetupMsg::Ready { .. } => "Ready",
        SetupMsg::Rejected { .. } => "Rejected",
    }
}
