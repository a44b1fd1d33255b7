//! Where things go, and what fits a volume.

use twinsan_wire::layout::{
    CLIENT_MAILBOX_BYTES, PEER_MAILBOX_BYTES, READ_REGION_BYTES, descriptor_offset, descriptor_ring_bytes,
    descriptor_slot, mailbox_offset, read_offset,
};
use twinsan_wire::limits::lane_slots;
use twinsan_wire::{Blob, BlobKind, DecodeError, Generation, Immediate, Lba, Seq, VolumeShape};

use crate::pinned;

const SHAPE: VolumeShape = VolumeShape { uuid: [0; 16], blocks: 1000, block_bytes: 4096, ring_bytes: 4 << 20 };

const fn write(lba: u64, blocks: u32, data_pos: u64) -> Blob {
    Blob {
        generation: Generation(1),
        seq: Seq(1),
        kind: BlobKind::Write,
        lba: Lba(lba),
        blocks,
        data_pos,
        payload_len: blocks * 4096,
    }
}

fn named(error: Result<(), DecodeError>) -> Option<&'static str> {
    match error {
        Ok(()) => None,
        Err(DecodeError::Field { field, .. }) => Some(field),
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn slots_have_their_places() {
    assert_eq!((descriptor_ring_bytes(1024), PEER_MAILBOX_BYTES, CLIENT_MAILBOX_BYTES), (65_536, 128, 64));
    assert_eq!(READ_REGION_BYTES, 64 << 20);
    assert_eq!([0, 1, 1023, 1024, 1025, u64::MAX].map(|seq| descriptor_slot(Seq(seq), 1024)), [0, 1, 1023, 0, 1, 1023]);
    assert_eq!([1024, 4095, 4096].map(|seq| descriptor_slot(Seq(seq), 4096)), [1024, 4095, 0]);
    assert_eq!((descriptor_offset(1023), mailbox_offset(1), read_offset(63)), (65_472, 64, 63 << 20));
}

/// Both ends go by the ring's size alone.
#[test]
fn a_lane_has_a_slot_for_each_4_kib_of_its_ring() {
    let mib = |n: u64| lane_slots(n << 20);
    assert_eq!([4, 16, 64, 256, 512].map(mib), [1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 17]);
    assert_eq!([mib(17), mib(48), lane_slots((64 << 20) + 4096)], [1 << 13, 1 << 14, 1 << 15], "a power of two");
    assert_eq!([lane_slots(0), mib(513), lane_slots(u64::MAX)], [1 << 10, 1 << 17, 1 << 17], "bounded");
}

#[test]
fn mailboxes_have_their_slots() {
    for (name, mailbox, _) in pinned::MAILBOXES {
        assert_eq!(mailbox.slot(), u32::from(*name == "released"), "{name}");
    }
}

#[test]
#[should_panic(expected = "an immediate for a slot that does not exist")]
fn an_immediate_is_not_made_for_a_slot_past_the_ring() {
    let _ = Immediate::Blob { slot: 1 << 17 }.encode();
}

#[test]
fn a_blob_lies_on_the_volume_and_in_the_ring() {
    for good in [write(0, 1, 0), write(999, 1, 4096), write(744, 256, (3 << 20) + (12 << 20))] {
        assert_eq!(SHAPE.check_blob(&good), Ok(()), "{good:?}");
    }
    assert_eq!(named(SHAPE.check_blob(&write(1000, 1, 0))), Some("Descriptor.lba"));
    assert_eq!(named(SHAPE.check_blob(&write(999, 2, 0))), Some("Descriptor.lba"));
    assert_eq!(named(SHAPE.check_blob(&write(u64::MAX, 2, 0))), Some("Descriptor.lba"));
    assert_eq!(named(SHAPE.check_blob(&write(0, 1, 512))), Some("Descriptor.data_pos"));
    assert_eq!(named(SHAPE.check_blob(&write(0, 2, (4 << 20) - 4096))), Some("Descriptor.data_pos"), "it wraps");
    let of_512 = Blob { payload_len: 512, ..write(0, 1, 0) };
    assert_eq!(named(SHAPE.check_blob(&of_512)), Some("Descriptor.payload_len"));
    for kind in [BlobKind::Zeroes, BlobKind::Discard] {
        let blob = Blob { kind, payload_len: 0, ..write(0, 1000, 4096) };
        assert_eq!(SHAPE.check_blob(&blob), Ok(()));
        assert_eq!(named(SHAPE.check_blob(&Blob { blocks: 1001, ..blob })), Some("Descriptor.lba"));
    }
}

#[test]
fn a_read_lies_on_the_volume_and_in_its_slot() {
    assert_eq!(SHAPE.check_read(Lba(0), 256), Ok(()));
    assert_eq!(SHAPE.check_read(Lba(999), 1), Ok(()));
    assert_eq!(named(SHAPE.check_read(Lba(0), 257)), Some("Read.blocks"));
    assert_eq!(named(SHAPE.check_read(Lba(999), 2)), Some("Read.lba"));
    assert_eq!(named(SHAPE.check_read(Lba(u64::MAX), 1)), Some("Read.lba"));
}

#[test]
fn a_shape_is_whole() {
    assert_eq!(SHAPE.check(), Ok(()));
    for block_bytes in [0, 1, 1024, 8192] {
        assert_eq!(named(VolumeShape { block_bytes, ..SHAPE }.check()), Some("VolumeShape.block_bytes"));
    }
    for blocks in [0, u64::MAX / 4096 + 1] {
        assert_eq!(named(VolumeShape { blocks, ..SHAPE }.check()), Some("VolumeShape.blocks"));
    }
    for ring_bytes in [0, (4 << 20) - 4096, (4 << 20) + 512] {
        assert_eq!(named(VolumeShape { ring_bytes, ..SHAPE }.check()), Some("VolumeShape.ring_bytes"));
    }
}
