//! Mailboxes: 64 bytes that are written again and again, with a CRC.

use std::sync::Arc;

use twinsan_arena::Arena;
use twinsan_wire::limits::MAILBOX_BYTES;

use super::Setup;
use super::harness::{Pair, arena, at};
use crate::{Event, Payload, PostError};

/// How often the mailbox is written.
const WRITES: u32 = 2000;
/// The CRC's place, at the end.
const CRC_AT: usize = MAILBOX_BYTES - 4;

/// A mailbox may be torn when it is read, as newer writes go on landing; a reader that checks its CRC sees only whole
/// ones, never an older one than it was told of, and at last the last.
pub(super) fn mailbox_reader_with_a_crc_survives_tearing(setup: Setup) {
    mailbox_under_overwrite(setup);
}

/// The test, with the number of torn mailboxes that the reader met: none is a fine number for a fabric, but not for a
/// fault injector.
pub fn mailbox_under_overwrite(setup: Setup) -> u32 {
    let mut pair = Pair::new(setup);
    let (a, b) = (pair.a, pair.b);
    let key = pair.right.expose(b, 0, MAILBOX_BYTES as u64);
    let scratch = arena();
    let (mut written, mut told, mut torn, mut newest) = (0_u32, 0_u32, 0_u32, None);
    pair.wait("the last mailbox", |pair| {
        while written < WRITES {
            let mail = seal(&scratch, written);
            match pair.left.fabric.write_imm(a, Payload::Inline(&mail), at(key, 0), written, None) {
                Ok(()) => written += 1,
                Err(PostError::Full) => break,
                Err(other) => panic!("{other}"),
            }
        }
        pair.left.fabric.submit(a);
        for event in pair.right.news_of(b) {
            assert!(matches!(event, Event::Immediate { imm, .. } if imm == told), "{event:?}, not {told}");
            let mail: [u8; MAILBOX_BYTES] = pair.right.bytes(0, MAILBOX_BYTES).try_into().expect("its length");
            match open(&scratch, &mail) {
                Some(number) => {
                    assert!(number >= told, "mailbox {number} was there when {told} was told");
                    assert!(newest <= Some(number), "mailbox {number} after {newest:?}");
                    newest = Some(number);
                }
                None => torn += 1,
            }
            told += 1;
        }
        (told == WRITES).then_some(())
    });
    // Nothing was written after the last: it is whole.
    assert_eq!(newest, Some(WRITES - 1));
    torn
}

/// Mailbox `number`: the number at either end and all through it, then the CRC.
fn seal(scratch: &Arc<Arena>, number: u32) -> [u8; MAILBOX_BYTES] {
    let mut mail = [0; MAILBOX_BYTES];
    for word in mail[..CRC_AT].chunks_mut(4) {
        word.copy_from_slice(&number.to_le_bytes());
    }
    let crc = crc(scratch, &mail);
    mail[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    mail
}

/// The number of a whole mailbox.
fn open(scratch: &Arc<Arena>, mail: &[u8; MAILBOX_BYTES]) -> Option<u32> {
    let word = |at: usize| u32::from_le_bytes([mail[at], mail[at + 1], mail[at + 2], mail[at + 3]]);
    let whole = word(CRC_AT) == crc(scratch, mail);
    assert!(!whole || word(0) == word(CRC_AT - 4), "a torn mailbox with a good CRC");
    whole.then(|| word(0))
}

fn crc(scratch: &Arc<Arena>, mail: &[u8; MAILBOX_BYTES]) -> u32 {
    scratch.copy_in(0, mail);
    scratch.crc32c(0, CRC_AT)
}
