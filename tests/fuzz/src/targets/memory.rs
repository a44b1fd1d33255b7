//! What a peer has written into our memory: a descriptor, a mailbox, and the immediate that comes with them.
//!
//! The first byte chooses; then come the bytes, as they are and with their CRC made right.

use twinsan_wire::{Descriptor, Immediate, Lba, Mailbox, VolumeShape};

use crate::input::Input;
use crate::seal::sealed_64;

const SHAPES: [VolumeShape; 3] = [
    VolumeShape { uuid: [0; 16], blocks: 1 << 30, block_bytes: 4096, ring_bytes: 4 << 20 },
    VolumeShape { uuid: [0; 16], blocks: 8, block_bytes: 512, ring_bytes: 64 << 20 },
    VolumeShape { uuid: [0; 16], blocks: u64::MAX / 4096, block_bytes: 4096, ring_bytes: 1 << 40 },
];

pub(crate) fn run(data: &[u8]) {
    let mut input = Input(data);
    match input.byte() % 3 {
        0 => {
            let bytes = input.array();
            descriptor(&bytes);
            descriptor(&sealed_64(bytes));
        }
        1 => {
            let bytes = input.array();
            mailbox(&bytes);
            mailbox(&sealed_64(bytes));
        }
        _ => {
            let raw = u32::from_le_bytes(input.array());
            if let Ok(immediate) = Immediate::decode(raw) {
                assert_eq!(immediate.encode(), raw);
            }
            read(Lba(u64::from_le_bytes(input.array())), u32::from_le_bytes(input.array()));
        }
    }
}

fn descriptor(bytes: &[u8; 64]) {
    let Ok(descriptor) = Descriptor::decode(bytes) else { return };
    assert_eq!(descriptor.encode(), *bytes, "two encodings of one descriptor");
    let blob = descriptor.blob;
    assert!(blob.end() > blob.lba);
    for shape in SHAPES {
        if shape.check_blob(&blob).is_ok() {
            assert!(blob.end().0 <= shape.blocks, "a blob that ends beyond the volume");
            if blob.payload_len == 0 {
                continue; // Where the next payload begins is the lane's to judge.
            }
            let at = blob.data_pos % shape.ring_bytes;
            assert!(at + u64::from(blob.payload_len) <= shape.ring_bytes, "a payload beyond the ring");
            assert!(at.is_multiple_of(u64::from(shape.block_bytes)), "a payload across blocks");
        }
    }
}

fn mailbox(bytes: &[u8; 64]) {
    match Mailbox::decode(bytes) {
        Ok(mailbox) => assert_eq!(mailbox.encode(), *bytes, "two encodings of one mailbox"),
        // A torn one is waited out; one whose CRC is right would be waited for in vain.
        Err(error) => assert!(!error.is_torn() || *bytes != sealed_64(*bytes)),
    }
}

fn read(lba: Lba, blocks: u32) {
    for shape in SHAPES {
        if shape.check_read(lba, blocks).is_ok() {
            assert!(lba.0 + u64::from(blocks) <= shape.blocks, "a read beyond the volume");
        }
    }
}
