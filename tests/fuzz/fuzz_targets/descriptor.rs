//! Any 64 bytes in a descriptor ring.
#![no_main]

use libfuzzer_sys::fuzz_target;
use twinsan_fuzz::sealed_64;
use twinsan_wire::{Descriptor, VolumeShape};

const SHAPE: VolumeShape = VolumeShape { uuid: [0; 16], blocks: 1 << 30, block_bytes: 4096, ring_bytes: 4 << 20 };

fuzz_target!(|data: &[u8]| {
    let Ok(bytes) = <[u8; 64]>::try_from(data) else { return };
    for bytes in [bytes, sealed_64(bytes)] {
        if let Ok(descriptor) = Descriptor::decode(&bytes) {
            assert_eq!(descriptor.encode(), bytes);
            assert!(descriptor.blob.end() > descriptor.blob.lba);
            if SHAPE.check_blob(&descriptor.blob).is_ok() {
                assert!(descriptor.blob.end().0 <= SHAPE.blocks);
            }
        }
    }
});
