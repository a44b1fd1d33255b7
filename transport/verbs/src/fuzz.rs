//! What a peer's bytes come to, for the fuzz targets (`tests/fuzz`).

use crate::greeting::{GREETING_BYTES, Greeting};
use crate::message::{self, CREDITS_AT, HEADER, Head, Kind, MAX_BYTES};

/// The fabric's own part of a message of `len` bytes, which begins with `bytes`: what is taken has one encoding.
///
/// # Panics
/// If it has two, or is longer than a receive.
pub fn message(bytes: &[u8; HEADER + 20], len: usize) {
    let Ok(Head { kind, credits }) = message::decode(bytes, len) else { return };
    assert!((HEADER..=MAX_BYTES).contains(&len));
    match kind {
        // What follows is the caller's.
        Kind::Message => assert_eq!(bytes[..CREDITS_AT], message::header()[..CREDITS_AT]),
        Kind::Credits => assert_eq!(bytes[..HEADER], message::credits(credits)),
        Kind::Empty { to, imm } => {
            let (mut encoded, encoded_len) = message::empty(to, imm);
            encoded[CREDITS_AT..HEADER].copy_from_slice(&credits.to_le_bytes());
            assert_eq!((&encoded[..len], encoded_len), (&bytes[..len], len));
        }
    }
}

/// Private data of a request, reply or rejection: what is taken is a greeting and zeros.
///
/// # Panics
/// If it is not.
pub fn greeting(data: &[u8]) {
    if let Ok(greeting) = Greeting::decode(data) {
        let (said, padding) = data.split_at(GREETING_BYTES);
        assert_eq!(said, greeting.encode());
        assert!(padding.iter().all(|&byte| byte == 0));
    }
}
