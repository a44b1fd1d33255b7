//! The four bytes before each message, and the messages of the fabric itself.
//!
//! | offset | bytes | field | |
//! | ---: | ---: | --- | --- |
//! | 0 | 1 | kind | 1 the caller's message, 2 credits, 3 a write without bytes, 4 one with an immediate |
//! | 1 | 1 | reserved | |
//! | 2 | 2 | credits | given back with this message; kind 2: at least 1 |
//! | 4 | | kind 1: the message, at most 512 bytes. Kinds 3 and 4: the remote key (8), the offset (8), and for 4 the immediate (4) |

use twinsan_fabric::{RemoteAddr, RemoteKey};
use twinsan_wire::limits::MAX_MESSAGE_BYTES;

/// The header's bytes.
pub(crate) const HEADER: usize = 4;
/// Bytes of the longest message with its header: what every receive has room for.
pub(crate) const MAX_BYTES: usize = HEADER + MAX_MESSAGE_BYTES;

const MESSAGE: u8 = 1;
const CREDITS: u8 = 2;
const EMPTY: u8 = 3;
const EMPTY_IMM: u8 = 4;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The caller's.
    Message,
    /// Credits alone.
    Credits,
    /// A write of no bytes, to this place.
    Empty { to: RemoteAddr, imm: Option<u32> },
}

/// A message that has come, but for the caller's bytes after the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    pub(crate) credits: u16,
}

/// The header of the caller's message, credits to be filled in when it leaves.
pub(crate) const fn header() -> [u8; HEADER] {
    [MESSAGE, 0, 0, 0]
}

/// Where a message's credits are.
pub(crate) const CREDITS_AT: usize = 2;

/// Credits alone.
pub(crate) const fn credits(count: u16) -> [u8; HEADER] {
    let [low, high] = count.to_le_bytes();
    [CREDITS, 0, low, high]
}

/// A write of no bytes, to be checked by the receiver; and its length.
pub(crate) fn empty(to: RemoteAddr, imm: Option<u32>) -> ([u8; HEADER + 20], usize) {
    let mut bytes = [0; HEADER + 20];
    bytes[0] = if imm.is_some() { EMPTY_IMM } else { EMPTY };
    bytes[4..12].copy_from_slice(&to.key.0.to_le_bytes());
    bytes[12..20].copy_from_slice(&to.offset.to_le_bytes());
    bytes[20..24].copy_from_slice(&imm.unwrap_or(0).to_le_bytes());
    (bytes, if imm.is_some() { HEADER + 20 } else { HEADER + 16 })
}

/// Reads the first bytes of a message of `len` bytes; what a shorter one lacks is zero in `bytes`.
///
/// # Errors
/// What the peer did wrong.
pub(crate) fn decode(bytes: &[u8; HEADER + 20], len: usize) -> Result<Head, String> {
    let [kind, reserved, low, high] = *bytes.first_chunk::<HEADER>().expect("longer");
    let credits = u16::from_le_bytes([low, high]);
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let to = RemoteAddr { key: RemoteKey(word(4)), offset: word(12) };
    let imm = u32::from_le_bytes(bytes[20..24].try_into().expect("four bytes"));
    let (kind, right) = match kind {
        MESSAGE => (Kind::Message, (HEADER..=MAX_BYTES).contains(&len)),
        CREDITS => (Kind::Credits, len == HEADER && credits > 0),
        EMPTY => (Kind::Empty { to, imm: None }, len == HEADER + 16),
        EMPTY_IMM => (Kind::Empty { to, imm: Some(imm) }, len == HEADER + 20),
        other => return Err(format!("a message of kind {other}")),
    };
    if reserved != 0 || !right {
        return Err(format!("a broken message of kind {}, {len} bytes", bytes[0]));
    }
    Ok(Head { kind, credits })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn padded(bytes: &[u8]) -> [u8; HEADER + 20] {
        let mut all = [0; HEADER + 20];
        all[..bytes.len()].copy_from_slice(bytes);
        all
    }

    #[test]
    fn every_byte_is_pinned() {
        assert_eq!(header(), [1, 0, 0, 0]);
        assert_eq!(credits(0x0102), [2, 0, 2, 1]);
        let to = RemoteAddr { key: RemoteKey(0x0807_0605_0403_0201), offset: 0x100f_0e0d_0c0b_0a09 };
        let (bytes, len) = empty(to, Some(0x1413_1211));
        assert_eq!((bytes[0], len), (4, 24));
        assert!(bytes[4..].iter().copied().eq(1..=20));
        let (bytes, len) = empty(to, None);
        assert_eq!((bytes[0], len, &bytes[20..]), (3, 20, &[0; 4][..]));
    }

    #[test]
    fn come_back() {
        let head = |bytes: &[u8]| decode(&padded(bytes), bytes.len()).expect("good");
        assert_eq!(head(&header()), Head { kind: Kind::Message, credits: 0 });
        assert_eq!(head(&credits(7)), Head { kind: Kind::Credits, credits: 7 });
        let to = RemoteAddr { key: RemoteKey(5), offset: 6 };
        for imm in [None, Some(9)] {
            let (bytes, len) = empty(to, imm);
            assert_eq!(head(&bytes[..len]), Head { kind: Kind::Empty { to, imm }, credits: 0 });
        }
    }

    #[test]
    fn broken_ones_are_told() {
        let bad = |bytes: &[u8], len: usize| assert!(decode(&padded(bytes), len).is_err(), "{bytes:?}, {len}");
        bad(&[0, 0, 0, 0], 4);
        bad(&[5, 0, 0, 0], 4);
        bad(&[1, 1, 0, 0], 4);
        bad(&[1, 0, 0], 3);
        bad(&[1, 0, 0, 0], MAX_BYTES + 1);
        bad(&[2, 0, 0, 0], 4);
        bad(&[2, 0, 1, 0, 0], 5);
        bad(&[3, 0, 0, 0], 24);
        bad(&[4, 0, 0, 0], 20);
    }
}
