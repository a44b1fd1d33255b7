//! The side that is connected to.
//!
//! ```text
//! Hello --right--> Proof --right--> Nothing, admitted
//!   |                |
//!   +--- anything else ----------> Nothing, with an error whose reply() says no
//! ```

use twinsan_wire::{NodeId, Purpose, SetupMsg, VolumeName};

use crate::connector::own_node;
use crate::error::{AuthError, name};
use crate::key::Key;
use crate::keyring::Keyring;
use crate::nonce::Nonce;
use crate::proof::{Proof, Role, Transcript};

/// What a listener does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerStep {
    /// Send this, and wait for the next message.
    Send(SetupMsg),
    /// Both sides are proven. The driver opens its memory, sends Welcome, and waits for Ready (a probe sends none).
    Admitted(Admitted),
}

/// Who has connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// What it wants.
    pub purpose: Purpose,
    /// The volume that it means.
    pub volume: VolumeName,
}

/// One incoming connection, until it is proven.
#[derive(Debug)]
pub struct Listener {
    own: NodeId,
    nonce: Nonce,
    awaits: Awaits,
    named: Option<VolumeName>,
}

/// What comes next.
#[derive(Debug)]
enum Awaits {
    Hello,
    Proof(Box<Pending>),
    Nothing,
}

/// A Hello that has been answered.
#[derive(Debug)]
struct Pending {
    admitted: Admitted,
    /// As it was when the Challenge went out: a key replaced since then changes nothing.
    expected: Option<Expected>,
}

/// What the connector's proof is checked against.
#[derive(Debug)]
struct Expected {
    key: Key,
    hello: SetupMsg,
    listener_proof: Proof,
}

impl Listener {
    /// Waits for a Hello. `own` is the listening node; `nonce` is fresh: [`fresh_nonce`](crate::fresh_nonce).
    #[must_use]
    pub const fn new(own: NodeId, nonce: Nonce) -> Self {
        Self { own, nonce, awaits: Awaits::Hello, named: None }
    }

    /// The volume that the connector has named, whether it has proven anything or not.
    #[must_use]
    pub const fn named(&self) -> Option<VolumeName> {
        self.named
    }

    /// Takes a message's bytes.
    ///
    /// # Errors
    /// As [`Listener::handle`], or if they are no set-up message of this version.
    pub fn handle_bytes(&mut self, bytes: &[u8], volumes: &Keyring) -> Result<ListenerStep, AuthError> {
        match SetupMsg::decode(bytes) {
            Ok(msg) => self.handle(msg, volumes),
            Err(error) => {
                self.awaits = Awaits::Nothing;
                Err(error.into())
            }
        }
    }

    /// Takes a message.
    ///
    /// # Errors
    /// If the connector is not let in. The driver sends [`AuthError::reply`] and closes the connection; whatever
    /// comes after an error is an error.
    pub fn handle(&mut self, msg: SetupMsg, volumes: &Keyring) -> Result<ListenerStep, AuthError> {
        // An error leaves it at Nothing: one Hello, one proof, one try.
        match (std::mem::replace(&mut self.awaits, Awaits::Nothing), msg) {
            (Awaits::Hello, SetupMsg::Hello { purpose, volume, nonce, keyed }) => {
                self.named = Some(volume);
                if nonce == self.nonce {
                    return Err(AuthError::Reflected);
                }
                if let Some(node) = own_node(purpose).filter(|&node| node == self.own) {
                    return Err(AuthError::OwnName { node });
                }
                let key = volumes.find(&volume).ok_or(AuthError::UnknownVolume { volume })?;
                let expected = match (key, keyed) {
                    (None, false) => None,
                    (Some(_), false) => return Err(AuthError::PeerHasNoKey { volume }),
                    (None, true) => return Err(AuthError::PeerHasKey { volume }),
                    (Some(key), true) => Some(Expected::new(key, msg, &self.nonce)),
                };
                let proof = expected.as_ref().map(|expected| expected.listener_proof);
                self.awaits = Awaits::Proof(Box::new(Pending { admitted: Admitted { purpose, volume }, expected }));
                Ok(ListenerStep::Send(SetupMsg::Challenge { nonce: self.nonce, proof }))
            }
            (Awaits::Proof(pending), SetupMsg::Proof { proof }) => pending.check(proof, &self.nonce),
            (awaits, msg) => Err(AuthError::OutOfTurn { got: name(&msg), expected: awaits.name() }),
        }
    }
}

impl Pending {
    fn check(self, proof: Option<Proof>, nonce: &Nonce) -> Result<ListenerStep, AuthError> {
        let volume = self.admitted.volume;
        match (self.expected, proof) {
            (None, None) => Ok(ListenerStep::Admitted(self.admitted)),
            (None, Some(_)) => Err(AuthError::PeerHasKey { volume }),
            (Some(_), None) => Err(AuthError::PeerHasNoKey { volume }),
            (Some(expected), Some(proof)) if expected.is(&proof, nonce) => Ok(ListenerStep::Admitted(self.admitted)),
            (Some(_), Some(_)) => Err(AuthError::WrongKey { volume }),
        }
    }
}

impl Expected {
    fn new(key: &Key, hello: SetupMsg, nonce: &Nonce) -> Self {
        let listener_proof = Transcript::new(key, Role::Listener, &hello, nonce).proof();
        Self { key: key.clone(), hello, listener_proof }
    }

    fn is(&self, proof: &Proof, nonce: &Nonce) -> bool {
        let role = Role::Connector { listener_proof: &self.listener_proof };
        Transcript::new(&self.key, role, &self.hello, nonce).matches(proof)
    }
}

impl Awaits {
    const fn name(&self) -> &'static str {
        match self {
            Self::Hello => "Hello",
            Self::Proof(_) => "Proof",
            Self::Nothing => "nothing",
        }
    }
}
