//! What a round carries: who it is, and what makes a payload that did not arrive show.
//!
//! A *note* is 64 bytes, as long as a descriptor, a mailbox or a short message, and takes their place:
//!
//! | offset | bytes | |
//! | ---: | ---: | --- |
//! | 0 | 4 | magic, `TwPn` |
//! | 4 | 4 | the row's number ([`Row`]) |
//! | 8 | 4 | payload bytes |
//! | 12 | 4 | 1: all of the payload counts |
//! | 16 | 8 | the round's number |
//! | 24 | 8 | the payload's first 8 bytes, as the sender of this note has received them |
//! | 32 | 8 | its last 8 bytes |
//! | 40 | 4 | its CRC32C, where all of it counts |
//! | 44 | 20 | zero |
//!
//! All numbers are little-endian. The immediate is the row's number in the high 4 bits and the round's low 28.

use twinsan_arena::Arena;

use super::Row;
use twinsan_witness::pattern::Random;

/// Bytes of a note.
pub const NOTE_BYTES: usize = 64;
const MAGIC: u32 = u32::from_le_bytes(*b"TwPn");
const ROUND_MASK: u64 = (1 << 28) - 1;
const STAMP: usize = 8;

/// What one end tells the other in each round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// What kind of round trip this is.
    pub row: Row,
    /// Payload bytes.
    pub bytes: u32,
    /// All of the payload is to be looked at.
    pub whole: bool,
    /// The round's number.
    pub round: u64,
    /// What the sender of this note has received; nothing, where it has not been sent a payload.
    pub seen: Seen,
}

/// What an end has found in its memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The first 8 bytes.
    pub head: u64,
    /// The last 8 bytes.
    pub tail: u64,
    /// CRC32C of all, if asked for.
    pub crc: u32,
}

impl Note {
    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; NOTE_BYTES] {
        let mut bytes = [0; NOTE_BYTES];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &MAGIC.to_le_bytes());
        put(4, &self.row.code().to_le_bytes());
        put(8, &self.bytes.to_le_bytes());
        put(12, &u32::from(self.whole).to_le_bytes());
        put(16, &self.round.to_le_bytes());
        put(24, &self.seen.head.to_le_bytes());
        put(32, &self.seen.tail.to_le_bytes());
        put(40, &self.seen.crc.to_le_bytes());
        bytes
    }

    /// From bytes that a peer has sent; `None`: it is no note.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; NOTE_BYTES] = bytes.try_into().ok()?;
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let row = Row::from_code(u32_at(4)).filter(|_| u32_at(0) == MAGIC)?;
        let len = u32_at(8);
        let fits = if row.has_payload() { (super::MIN_BYTES..=super::MAX_BYTES).contains(&len) } else { len == 0 };
        let seen = Seen { head: u64_at(24), tail: u64_at(32), crc: u32_at(40) };
        fits.then_some(Self { row, bytes: len, whole: u32_at(12) == 1, round: u64_at(16), seen })
    }

    /// The immediate that goes with it.
    #[must_use]
    pub fn imm(&self) -> u32 {
        imm(self.row, self.round)
    }
}

/// The immediate of a round.
#[must_use]
pub fn imm(row: Row, round: u64) -> u32 {
    row.code() << 28 | u32::try_from(round & ROUND_MASK).expect("28 bits")
}

/// The row that an immediate belongs to.
#[must_use]
pub fn row_of(imm: u32) -> Option<Row> {
    Row::from_code(imm >> 28)
}

/// A payload's source, so that what goes there and what comes back are never the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The end that asks.
    Asker,
    /// The end that answers.
    Answerer,
}

/// What belongs into a payload of that round; no two rounds have the same.
fn stamps(from: From, round: u64) -> (u64, u64) {
    let mut random = Random::new(round << 1 | u64::from(from == From::Answerer));
    (random.bits(), random.bits())
}

/// Writes a round's payload to `offset`: its two ends, and in between too if all of it counts.
pub fn stamp(arena: &Arena, offset: usize, note: &Note, from: From) {
    let len = note.bytes as usize;
    if note.whole {
        arena.copy_in(offset, &whole(note, from));
        return;
    }
    let (head, tail) = stamps(from, note.round);
    arena.copy_in(offset, &head.to_le_bytes());
    arena.copy_in(offset + len - STAMP, &tail.to_le_bytes());
}

/// What lies at `offset`.
#[must_use]
pub fn look(arena: &Arena, offset: usize, note: &Note) -> Seen {
    let len = note.bytes as usize;
    let word = |at: usize| {
        let mut bytes = [0; STAMP];
        arena.copy_out(at, &mut bytes);
        u64::from_le_bytes(bytes)
    };
    let crc = if note.whole { arena.crc32c(offset, len) } else { 0 };
    Seen { head: word(offset), tail: word(offset + len - STAMP), crc }
}

/// What whoever received that round's payload must have seen.
#[must_use]
pub fn expected(note: &Note, from: From) -> Seen {
    let (head, tail) = stamps(from, note.round);
    Seen { head, tail, crc: if note.whole { crc32c::crc32c(&whole(note, from)) } else { 0 } }
}

/// All bytes of a payload.
fn whole(note: &Note, from: From) -> Vec<u8> {
    let (head, tail) = stamps(from, note.round);
    let mut random = Random::new(head);
    let mut bytes: Vec<u8> = (0..note.bytes.div_ceil(8)).flat_map(|_| random.bits().to_le_bytes()).collect();
    bytes.truncate(note.bytes as usize);
    let end = bytes.len() - STAMP;
    bytes[..STAMP].copy_from_slice(&head.to_le_bytes());
    bytes[end..].copy_from_slice(&tail.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinsan_arena::{ArenaOptions, PagePolicy};

    fn note(bytes: u32, whole: bool) -> Note {
        Note { row: Row::Blob, bytes, whole, round: 77, seen: Seen { head: 1, tail: 2, crc: 3 } }
    }

    fn arena() -> Arena {
        Arena::new(&ArenaOptions { name: "test".into(), bytes: 1 << 20, pages: PagePolicy::Small, lock: false })
            .unwrap()
    }

    #[test]
    fn a_note_comes_back_as_it_went() {
        for row in Row::ALL {
            let sent = Note { row, bytes: if row.has_payload() { 4096 } else { 0 }, ..note(64, true) };
            assert_eq!(Note::decode(&sent.encode()), Some(sent));
            assert_eq!(row_of(sent.imm()), Some(row));
        }
    }

    #[test]
    fn what_is_no_note_is_refused() {
        let good = note(4096, false).encode();
        let changed = |at: usize, value: u8| {
            let mut bytes = good;
            bytes[at] = value;
            bytes
        };
        assert_eq!(Note::decode(&changed(0, 0)), None, "magic");
        assert_eq!(Note::decode(&changed(4, 9)), None, "row");
        assert_eq!(Note::decode(&changed(11, 1)), None, "longer than any payload");
        assert_eq!(Note::decode(&note(8, false).encode()), None, "shorter than its stamps");
        assert_eq!(Note::decode(&good[1..]), None, "short");
    }

    #[test]
    fn what_was_stamped_is_seen_and_nothing_else_is() {
        let arena = arena();
        for whole in [false, true] {
            for bytes in [64, 100, 4096] {
                let note = note(bytes, whole);
                stamp(&arena, 512, &note, From::Asker);
                assert_eq!(look(&arena, 512, &note), expected(&note, From::Asker));
                assert_ne!(look(&arena, 512, &note), expected(&note, From::Answerer), "the other end's");
                let next = Note { round: 78, ..note };
                assert_ne!(look(&arena, 512, &note), expected(&next, From::Asker), "the round before");
            }
        }
        let note = note(4096, true);
        stamp(&arena, 0, &note, From::Asker);
        let mut byte = [0];
        arena.copy_out(2000, &mut byte);
        arena.copy_in(2000, &[byte[0] ^ 1]);
        assert_ne!(look(&arena, 0, &note), expected(&note, From::Asker), "one byte in the middle");
    }
}
