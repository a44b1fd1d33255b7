//! What the fabrics say to each other: over sockets the frames of a stream, over verbs messages and private data.

use twinsan_tcp::fuzz as tcp;
use twinsan_verbs::fuzz as verbs;

use crate::input::Input;

pub(crate) fn run(data: &[u8]) {
    let mut input = Input(data);
    match input.byte() % 4 {
        0 => tcp::header(&input.array()),
        1 => {
            let cuts = input.counted();
            tcp::stream(input.0, cuts);
        }
        2 => {
            let len = usize::from(u16::from_le_bytes(input.array()));
            verbs::message(&input.array(), len);
        }
        _ => verbs::greeting(input.0),
    }
}
