//! Any bytes where a small message is due.
#![no_main]

use libfuzzer_sys::fuzz_target;
use twinsan_fuzz::sealed_message;
use twinsan_wire::{ClientMsg, NodeFrame, PeerMsg, SetupMsg};

fn decode_all(bytes: &[u8]) {
    let taken = [
        SetupMsg::decode(bytes).map(|msg| msg.encode()),
        PeerMsg::decode(bytes).map(|msg| msg.encode()),
        ClientMsg::decode(bytes).map(|msg| msg.encode()),
        NodeFrame::decode(bytes).map(|frame| frame.encode()),
    ];
    for encoded in taken.iter().flatten() {
        assert_eq!(encoded.as_bytes(), bytes);
    }
    assert!(taken.iter().flatten().count() <= 1, "two directions take one message");
}

fuzz_target!(|data: &[u8]| {
    decode_all(data);
    if let Some(bytes) = sealed_message(data) {
        decode_all(&bytes);
    }
});
