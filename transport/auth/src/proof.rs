//! What each side computes to show that it knows the key.
//!
//! ```text
//! proof = HMAC-SHA-256(key, "TwinSAN set-up" 00 | role | version | Hello | listener's nonce | listener's proof)
//!                            15 bytes             1      1         128     32                 32, connector only
//! ```
//!
//! `role` is 1 for the listener's proof and 2 for the connector's. `Hello` is the whole message as it stands on the
//! wire, so purpose, node, incarnation, volume, the connector's nonce and whether it is keyed are all in it. Every
//! part has a fixed length: no two conversations give the same bytes.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use twinsan_wire::SetupMsg;
use twinsan_wire::limits::PROTOCOL_VERSION;

use crate::key::Key;
use crate::nonce::Nonce;

/// An HMAC-SHA-256.
pub type Proof = [u8; 32];

/// Separates these HMACs from any other that somebody may compute with the same key.
const DOMAIN: &[u8; 15] = b"TwinSAN set-up\0";

/// Whose proof it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role<'a> {
    Listener,
    Connector { listener_proof: &'a Proof },
}

/// The conversation as one role has it; what is left is to compute its proof, or to check the other side's.
pub(crate) struct Transcript(Hmac<Sha256>);

impl Transcript {
    /// `hello` as sent or received; `nonce` is the listener's.
    pub(crate) fn new(key: &Key, role: Role<'_>, hello: &SetupMsg, nonce: &Nonce) -> Self {
        let mut mac = Hmac::new_from_slice(key.bytes()).expect("HMAC takes a key of any length");
        mac.update(DOMAIN);
        mac.update(&[if role == Role::Listener { 1 } else { 2 }, PROTOCOL_VERSION]);
        // Decoding takes only what encoding makes, so both sides have the same bytes.
        mac.update(hello.encode().as_bytes());
        mac.update(nonce);
        if let Role::Connector { listener_proof } = role {
            mac.update(listener_proof);
        }
        Self(mac)
    }

    pub(crate) fn proof(self) -> Proof {
        self.0.finalize().into_bytes().into()
    }

    /// In a time that does not depend on where the two differ.
    pub(crate) fn matches(self, proof: &Proof) -> bool {
        self.0.verify_slice(proof).is_ok()
    }
}
