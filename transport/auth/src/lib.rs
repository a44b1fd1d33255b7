//! Who may connect: a mutual challenge-response with a pre-shared key per volume, before anything is said that lets
//! the other side reach memory.
//!
//! ```text
//!  connector                                            listener
//!     | -- Hello {purpose, volume, nonce, keyed} ---------> |   unknown volume, keyed here and not there,
//!     |                                                     |   or the other way round: Rejected
//!     | <-- Challenge {nonce, listener's proof} ----------- |
//!     |  checks the proof, else closes                      |
//!     | -- Proof {connector's proof} ---------------------> |   checks the proof, else Rejected
//!     | <-- Welcome {node, incarnation, shape, mailbox} --- |   said by the driver
//!     | -- Ready {mailbox, reads} ------------------------> |   said by the driver
//! ```
//!
//! [`Connector`] and [`Listener`] are machines without I/O: a driver gives them every message that comes and sends
//! what they return, until [`ConnectorStep::Welcomed`] or [`ListenerStep::Admitted`]. They know no clock: a driver
//! closes a connection that does not get there in time.
//!
//! # What it promises
//!
//! 1. Each side knows that the other one holds the volume's key, and that it took part in this very conversation:
//!    both nonces, the purpose and the volume are in both proofs ([`proof`](mod@proof)).
//! 2. A proof fits one role, so none can be sent back to where it came from.
//! 3. No downgrade: a side with a key never goes on with one that has none, nor the other way round.
//! 4. The key, and anything that opens memory, stays out of every message before the proofs.
//!
//! It does not encrypt, and it does not guard what follows the proofs: against somebody who can change packets on the
//! way, the network must be trusted, or TLS put below. A key is as good as its randomness: whoever can connect gets a
//! proof to try guesses on.
#![forbid(unsafe_code)]

mod connector;
mod error;
mod key;
mod keyring;
mod listen;
mod listener;
mod nonce;
pub mod proof;
#[cfg(test)]
mod tests;

pub use connector::{Connector, ConnectorStep, Welcome};
pub use error::AuthError;
pub use key::{Key, KeyError, MAX_KEY_BYTES, MIN_KEY_BYTES};
pub use keyring::Keyring;
pub use listen::may_listen_without_key;
pub use listener::{Admitted, Listener, ListenerStep};
pub use nonce::{Nonce, fresh_nonce};
