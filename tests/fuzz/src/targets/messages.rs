//! Any bytes where a small message is due; and any body behind a right header, to the decoders of all directions.

use twinsan_wire::limits::MAX_MESSAGE_BYTES;
use twinsan_wire::{ClientMsg, NodeFrame, PeerMsg, SetupMsg, Times};

use crate::seal::sealed_message;

pub(crate) fn run(data: &[u8]) {
    decode_all(data);
    if let Some(bytes) = sealed_message(data) {
        decode_all(&bytes);
    }
}

fn decode_all(bytes: &[u8]) {
    let taken = [
        SetupMsg::decode(bytes).map(|msg| msg.encode()),
        PeerMsg::decode(bytes).map(|msg| msg.encode()),
        ClientMsg::decode(bytes).map(|msg| msg.encode()),
        NodeFrame::decode(bytes).map(|frame| frame.encode()),
        Times::decode(bytes).map(|times| times.encode()),
    ];
    for encoded in taken.iter().flatten() {
        assert_eq!(encoded.as_bytes(), bytes, "two encodings of one message");
        assert!(bytes.len() <= MAX_MESSAGE_BYTES);
    }
    assert!(taken.iter().flatten().count() <= 1, "two directions take one message");
    for error in taken.iter().filter_map(|taken| taken.as_ref().err()) {
        assert!(!error.is_torn(), "only mailboxes are waited out");
    }
}
