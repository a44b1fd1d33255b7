//! The side that connects.
//!
//! ```text
//! Challenged --Challenge, right proof--> Welcomed --Welcome--> Ended
//!      |                                    |
//!      +------ anything else ---------------+----------------> Ended, with an error
//! ```

use twinsan_wire::{Incarnation, NodeId, Purpose, RemoteKey, SetupMsg, VolumeName, VolumeShape};

use crate::error::{AuthError, name};
use crate::key::Key;
use crate::nonce::Nonce;
use crate::proof::{Proof, Role, Transcript};

/// What a connector does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectorStep {
    /// Send this, and wait for the next message.
    Send(SetupMsg),
    /// Both sides are proven. The driver opens its memory and sends Ready (a probe closes instead).
    Welcomed(Welcome),
}

/// What the listener says of itself: [`SetupMsg::Welcome`], from a listener that is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The listener.
    pub node: NodeId,
    /// Its incarnation for this volume.
    pub incarnation: Incarnation,
    /// The volume.
    pub volume: VolumeShape,
    /// The listener's mailbox region, for the other node.
    pub mailbox: RemoteKey,
}

/// One outgoing connection, until it is proven.
#[derive(Debug)]
pub struct Connector {
    purpose: Purpose,
    volume: VolumeName,
    key: Option<Key>,
    nonce: Nonce,
    awaits: Awaits,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaits {
    Challenge,
    Welcome,
    Nothing,
}

impl Connector {
    /// Begins; the message is the first to send. `nonce` is fresh: [`fresh_nonce`](crate::fresh_nonce).
    #[must_use]
    pub fn new(purpose: Purpose, volume: VolumeName, key: Option<Key>, nonce: Nonce) -> (Self, SetupMsg) {
        let connector = Self { purpose, volume, key, nonce, awaits: Awaits::Challenge };
        let hello = connector.hello();
        (connector, hello)
    }

    /// Takes a message's bytes.
    ///
    /// # Errors
    /// As [`Connector::handle`], or if they are no set-up message of this version.
    pub fn handle_bytes(&mut self, bytes: &[u8]) -> Result<ConnectorStep, AuthError> {
        match SetupMsg::decode(bytes) {
            Ok(msg) => self.handle(msg),
            Err(error) => {
                self.awaits = Awaits::Nothing;
                Err(error.into())
            }
        }
    }

    /// Takes a message.
    ///
    /// # Errors
    /// If the listener is not what it should be, or does not let us in. The driver closes the connection; whatever
    /// comes after an error is an error.
    pub fn handle(&mut self, msg: SetupMsg) -> Result<ConnectorStep, AuthError> {
        // An error leaves it at Nothing: a refused conversation can't be picked up again.
        let awaits = std::mem::replace(&mut self.awaits, Awaits::Nothing);
        match (awaits, msg) {
            (Awaits::Challenge, SetupMsg::Challenge { nonce, proof }) => {
                let proof = self.answer(&nonce, proof)?;
                self.awaits = Awaits::Welcome;
                Ok(ConnectorStep::Send(SetupMsg::Proof { proof }))
            }
            (Awaits::Welcome, SetupMsg::Welcome { node, incarnation, volume, mailbox }) => {
                if own_node(self.purpose) == Some(node) {
                    return Err(AuthError::OwnName { node });
                }
                Ok(ConnectorStep::Welcomed(Welcome { node, incarnation, volume, mailbox }))
            }
            (Awaits::Challenge | Awaits::Welcome, SetupMsg::Rejected { why }) => Err(AuthError::Rejected { why }),
            (awaits, msg) => Err(AuthError::OutOfTurn { got: name(&msg), expected: awaits.name() }),
        }
    }

    fn hello(&self) -> SetupMsg {
        let Self { purpose, volume, nonce, .. } = *self;
        SetupMsg::Hello { purpose, volume, nonce, keyed: self.key.is_some() }
    }

    /// Checks the listener's proof; returns our own.
    fn answer(&self, nonce: &Nonce, proof: Option<Proof>) -> Result<Option<Proof>, AuthError> {
        let volume = self.volume;
        if *nonce == self.nonce {
            return Err(AuthError::Reflected);
        }
        let (key, listener_proof) = match (&self.key, proof) {
            (None, None) => return Ok(None),
            (Some(_), None) => return Err(AuthError::PeerHasNoKey { volume }),
            (None, Some(_)) => return Err(AuthError::PeerHasKey { volume }),
            (Some(key), Some(proof)) => (key, proof),
        };
        let hello = self.hello();
        if !Transcript::new(key, Role::Listener, &hello, nonce).matches(&listener_proof) {
            return Err(AuthError::WrongKey { volume });
        }
        let role = Role::Connector { listener_proof: &listener_proof };
        Ok(Some(Transcript::new(key, role, &hello, nonce).proof()))
    }
}

impl Awaits {
    const fn name(self) -> &'static str {
        match self {
            Self::Challenge => "Challenge",
            Self::Welcome => "Welcome",
            Self::Nothing => "nothing",
        }
    }
}

/// Which node says that it has this purpose.
pub(crate) const fn own_node(purpose: Purpose) -> Option<NodeId> {
    match purpose {
        Purpose::Client => None,
        Purpose::Peer { node, .. } | Purpose::Relay { node, .. } | Purpose::Probe { node } => Some(node),
    }
}
