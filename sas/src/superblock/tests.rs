use proptest::prelude::*;
use twinsan_wire::{Epoch, Generation, Incarnation, Members, NodeId, Superblock};

use super::codec::{SlotError, decode, encode};
use super::slots::{Expected, SlotIndex, SlotPair};
use super::{Heartbeat, HeartbeatError, ProcessStamp, Slot, SuperblockError, Uuid};
use crate::layout::PAGE_BYTES;
use crate::page::Page;
use crate::testing::{identity, incarnation, name};

fn slot() -> Slot {
    let superblock = Superblock {
        counter: 0x0102_0304_0506_0708,
        epoch: Epoch(0x1112_1314_1516_1718),
        primary: Some(NodeId::B),
        members: Members([Some(incarnation(0x2122_2324_2526_2728)), Some(incarnation(0x3132_3334_3536_3738))]),
        generation: Generation(0x4142_4344_4546_4748),
        clean: true,
    };
    Slot { identity: identity(), superblock, changed_at: 0x5152_5354_5556_5758 }
}

/// Puts `bytes` at `offset`, which nothing has taken yet.
fn put(page: &mut [u8; PAGE_BYTES], offset: usize, bytes: &[u8]) {
    assert!(page[offset..offset + bytes.len()].iter().all(|&b| b == 0), "two fields at {offset}");
    page[offset..offset + bytes.len()].copy_from_slice(bytes);
}

#[test]
fn every_byte_of_a_slot_is_where_the_table_says() {
    let mut want = [0; PAGE_BYTES];
    put(&mut want, 0, b"TWSANSB\0");
    put(&mut want, 8, &[1, 0, 0, 0]);
    put(
        &mut want,
        16,
        &[0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x46, 0x37, 0xb8, 0x39, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66],
    );
    put(&mut want, 32, b"vol0");
    put(&mut want, 96, &[0x00, 0x08, 0, 0, 0, 0, 0, 0]);
    put(&mut want, 104, &[0x00, 0x10, 0, 0]);
    put(&mut want, 112, &[0, 0, 0x10, 0, 0, 0, 0, 0]);
    put(&mut want, 120, &[0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01]);
    put(&mut want, 128, &[0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11]);
    put(&mut want, 136, &[0x48, 0x47, 0x46, 0x45, 0x44, 0x43, 0x42, 0x41]);
    put(&mut want, 144, &[0x58, 0x57, 0x56, 0x55, 0x54, 0x53, 0x52, 0x51]);
    put(&mut want, 152, &[2]);
    put(&mut want, 153, &[1]);
    put(&mut want, 160, b"san1");
    put(&mut want, 224, &[0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21]);
    put(&mut want, 232, b"san2");
    put(&mut want, 296, &[0x38, 0x37, 0x36, 0x35, 0x34, 0x33, 0x32, 0x31]);
    let crc = crc32c::crc32c(&want[..PAGE_BYTES - 4]);
    put(&mut want, PAGE_BYTES - 4, &crc.to_le_bytes());
    let page = encode(&slot());
    let wrong = (0..PAGE_BYTES).find(|&at| page.0[at] != want[at]);
    assert_eq!(wrong, None, "first wrong byte");
    // The checksum itself, computed by another program (bit by bit, reflected polynomial 0x82f63b78).
    assert_eq!(crc, SLOT_CRC);
    assert_eq!(decode(&page), Ok(slot()));
}

const SLOT_CRC: u32 = 0xe0bf_1164;

#[test]
fn nobody_is_zero() {
    let fresh = Slot { superblock: Superblock { counter: 1, clean: true, ..Superblock::default() }, ..slot() };
    let page = encode(&fresh);
    assert!(page.0[128..144].iter().all(|&b| b == 0), "epoch and generation");
    assert_eq!((page.0[152], page.0[153]), (0, 1));
    assert!(page.0[224..232].iter().chain(&page.0[296..304]).all(|&b| b == 0), "members");
    assert_eq!(decode(&page), Ok(fresh));
}

#[test]
fn every_flipped_bit_is_seen() {
    let mut page = encode(&slot());
    for bit in 0..8 * PAGE_BYTES {
        page.0[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&page).is_err(), "bit {bit}");
        page.0[bit / 8] ^= 1 << (bit % 8);
    }
    assert_eq!(decode(&page), Ok(slot()));
}

/// The slot with `bytes` at `offset` and a right checksum.
fn forged(offset: usize, bytes: &[u8]) -> Page {
    let mut page = encode(&slot());
    page.0[offset..offset + bytes.len()].copy_from_slice(bytes);
    page.seal();
    page
}

#[test]
fn what_no_version_of_this_program_writes_is_refused_by_name() {
    let field = |what, value| Err(SlotError::Field { what, value });
    let u64_max = [0xff; 8];
    assert_eq!(decode(&Page::ZERO), Err(SlotError::Blank));
    assert_eq!(decode(&forged(0, b"EFI PART")), Err(SlotError::Magic));
    assert_eq!(decode(&forged(8, &[2])), Err(SlotError::Version(2)));
    for reserved in [12, 15, 108, 111, 154, 159, 304, 4091] {
        assert_eq!(decode(&forged(reserved, &[1])), Err(SlotError::Reserved), "byte {reserved}");
    }
    assert_eq!(decode(&forged(104, &[0, 4, 0, 0])), field("logical block size", 1024));
    assert_eq!(decode(&forged(112, &[1])), field("data offset", (1 << 20) + 1));
    assert_eq!(decode(&forged(96, &[0; 8])), field("size in blocks", 0));
    assert_eq!(decode(&forged(96, &u64_max)), field("size in blocks", u64::MAX));
    assert_eq!(decode(&forged(152, &[3])), field("primary", 3));
    assert_eq!(decode(&forged(153, &[2])), field("clean flag", 2));
    assert_eq!(decode(&forged(296, &[0; 8])), field("primary, which is not a member,", 2));
    for (bytes, why) in [(&b"\0"[..], "empty"), (b"a/b", "illegal"), (b"a\0b", "not padded"), (&[b'x'; 64], "unended")]
    {
        assert_eq!(decode(&forged(32, bytes)), Err(SlotError::Name { what: "volume" }), "{why}");
    }
    assert_eq!(decode(&forged(160, b"\xff")), Err(SlotError::Name { what: "first node" }));
    assert!(matches!(decode(&forged(160, b"san2")), Err(SlotError::Name { .. })), "both nodes have one name");
}

fn any_superblock() -> impl Strategy<Value = Superblock> {
    let member = || proptest::option::of(any::<u64>().prop_map(Incarnation::from_random));
    (any::<u64>(), any::<u64>(), (member(), member()), any::<u64>(), any::<bool>(), any::<bool>()).prop_map(
        |(counter, epoch, (a, b), generation, clean, second)| {
            let members = Members([a, b]);
            let preferred = if second { [NodeId::B, NodeId::A] } else { NodeId::BOTH };
            let primary = preferred.into_iter().find(|&node| members.of(node).is_some());
            let (epoch, generation) = (Epoch(epoch), Generation(generation));
            Superblock { counter, epoch, primary, members, generation, clean }
        },
    )
}

proptest! {
    #[test]
    fn slots_come_back_as_they_were(superblock in any_superblock(), changed_at in any::<u64>(), blocks in 1..u64::from(u32::MAX)) {
        let mut slot = Slot { superblock, changed_at, ..slot() };
        slot.identity.blocks = blocks;
        prop_assert_eq!(decode(&encode(&slot)), Ok(slot));
    }

    #[test]
    fn whatever_decodes_encodes_to_the_same_bytes(at in 8_usize..320, bytes in prop::collection::vec(any::<u8>(), 1..32)) {
        let page = forged(at, &bytes);
        if let Ok(slot) = decode(&page) {
            prop_assert!(encode(&slot) == page);
        }
        if let Ok(Some(beat)) = Heartbeat::decode(&page, NodeId::A, identity().uuid) {
            prop_assert!(beat.encode() == page);
        }
    }

    /// A crash anywhere in a change, with the write that it hit torn anywhere: what serves afterwards is the old state or
    /// the new one, and once the change has ended, either slot alone says the new one.
    #[test]
    fn a_change_is_atomic(
        old in any_superblock(), new in any_superblock(), settled in any::<bool>(), first in any::<bool>(),
        done in 0_usize..=2, torn in 0..=PAGE_BYTES,
    ) {
        let old = Superblock { counter: old.counter / 2, epoch: Epoch(old.epoch.0 / 2), ..old };
        let new = Superblock { epoch: Epoch(old.epoch.0 + 1), ..new };
        let before = encode(&Slot { superblock: old, ..slot() });
        let mut disk = [before.clone(), before];
        if !settled {
            disk[usize::from(first)].0[100] ^= 1;
        }
        let plan = SlotPair::judge(&disk, &Expected::default()).unwrap().plan(&new, 7).unwrap();
        for (step, (offset, page)) in plan.steps().into_iter().enumerate() {
            let at = usize::from(offset == SlotIndex::Second.offset());
            if step < done {
                disk[at] = page;
            } else if step == done {
                disk[at].0[..torn].copy_from_slice(&page.0[..torn]);
            }
        }
        let after = SlotPair::judge(&disk, &Expected::default()).unwrap();
        prop_assert!([old, plan.slot.superblock].contains(&after.best.superblock));
        if done == 2 {
            prop_assert!(after.settled);
            prop_assert_eq!(after.best.superblock, plan.slot.superblock);
            for rotten in 0..2 {
                let mut disk = disk.clone();
                disk[rotten].0[200] ^= 0x10;
                let left = SlotPair::judge(&disk, &Expected::default()).unwrap();
                prop_assert_eq!(left.best, plan.slot, "a rotten slot turns nothing back");
                prop_assert!(!left.settled);
            }
        }
    }
}

fn state(counter: u64, epoch: u64) -> Slot {
    let superblock = Superblock { counter, epoch: Epoch(epoch), ..slot().superblock };
    Slot { superblock, ..slot() }
}

fn judge(first: &Page, second: &Page) -> Result<SlotPair, SuperblockError> {
    SlotPair::judge(&[first.clone(), second.clone()], &Expected::default())
}

#[test]
fn the_higher_counter_serves_and_the_older_slot_is_written_first() {
    let (old, new) = (encode(&state(8, 3)), encode(&state(9, 4)));
    for (pages, at) in [([&new, &old], SlotIndex::First), ([&old, &new], SlotIndex::Second)] {
        let pair = judge(pages[0], pages[1]).expect("valid");
        assert_eq!((pair.best, pair.at, pair.settled, pair.other_error), (state(9, 4), at, false, None));
        assert_eq!(pair.older, Some(state(8, 3)));
        let plan = pair.plan(&state(10, 5).superblock, 1).expect("forward");
        assert_eq!(plan.order, [at.other(), at]);
        assert_eq!(plan.slot.superblock.counter, 10);
        assert_eq!(plan.steps().map(|(offset, _)| offset), [at.other().offset(), at.offset()]);
    }
}

#[test]
fn mending_writes_what_serves_once_more() {
    let good = encode(&state(9, 4));
    let mut rotten = good.clone();
    rotten.0[1000] = 1;
    let pair = judge(&rotten, &good).expect("one is valid");
    assert_eq!((pair.at, pair.settled, pair.other_error), (SlotIndex::Second, false, Some(SlotError::Checksum)));
    assert_eq!(pair.older, None);
    let plan = pair.plan(&pair.best.superblock, 99).expect("the same");
    assert_eq!((plan.slot, plan.order), (state(9, 4), [SlotIndex::First, SlotIndex::Second]));
    assert!(plan.steps().iter().all(|(_, page)| *page == good), "the time of the last change stays too");
}

#[test]
fn a_change_with_a_used_counter_gets_a_new_one() {
    // An attempt at counter 10 failed and left its slot, or not; the next attempt says something else.
    let pair = judge(&encode(&state(10, 5)), &encode(&state(9, 4))).expect("valid");
    for asked in [0, 9, 10, 11] {
        let other = Superblock { clean: false, ..state(asked, 5).superblock };
        assert_eq!(pair.plan(&other, 1).expect("forward").slot.superblock.counter, 11, "asked for {asked}");
    }
    assert_eq!(pair.plan(&state(20, 5).superblock, 1).expect("forward").slot.superblock.counter, 20);
    assert_eq!(pair.plan(&state(11, 4).superblock, 1), Err(SuperblockError::EpochBack { new: 4, on_disk: 5 }));
}

#[test]
fn slots_that_do_not_belong_together_are_refused() {
    let good = encode(&state(9, 4));
    let garbage = forged(0, b"whatever");
    let mut rotten = good.clone();
    rotten.0[77] ^= 4;
    let no_volume = judge(&Page::ZERO, &garbage);
    assert_eq!(no_volume, Err(SuperblockError::NoVolume { first: SlotError::Blank, second: SlotError::Magic }));
    let corrupt = judge(&garbage, &rotten);
    assert_eq!(corrupt, Err(SuperblockError::Corrupt { first: SlotError::Magic, second: SlotError::Checksum }));

    let mut stranger = state(10, 5);
    stranger.identity.uuid = Uuid::from_random([7; 16]);
    let mixed = judge(&good, &encode(&stranger));
    assert!(matches!(mixed, Err(SuperblockError::Mixed { second, .. }) if second == stranger.identity.uuid));
    assert_eq!(judge(&good, &encode(&state(9, 5))), Err(SuperblockError::Disagree { counter: 9 }));

    let pages = [good.clone(), good];
    let expected = Expected { name: Some(name("vol1")), uuid: None };
    let error = SlotPair::judge(&pages, &expected).expect_err("another name");
    assert_eq!(error.to_string(), "the disk holds volume \"vol0\", not \"vol1\"");
    let expected = Expected { name: Some(name("vol0")), uuid: Some(Uuid([1; 16])) };
    assert!(matches!(SlotPair::judge(&pages, &expected), Err(SuperblockError::WrongUuid { .. })));
}

fn heartbeat() -> Heartbeat {
    let process = ProcessStamp {
        pid: 0x0102_0304,
        start_ticks: 0x1112_1314_1516_1718,
        boot_id: *b"fedcba9876543210",
        pid_namespace: 0x2122_2324_2526_2728,
    };
    Heartbeat {
        volume: identity().uuid,
        node: NodeId::B,
        incarnation: incarnation(0x3132_3334_3536_3738),
        beat: 0x4142_4344_4546_4748,
        process,
        holder: true,
    }
}

#[test]
fn every_byte_of_a_heartbeat_is_where_the_table_says() {
    let mut want = [0; PAGE_BYTES];
    put(&mut want, 0, b"TWSANHB\0");
    put(&mut want, 8, &[1, 0, 0, 0]);
    put(&mut want, 12, &[2, 0, 0, 0]);
    put(&mut want, 16, &identity().uuid.0);
    put(&mut want, 32, &[0x38, 0x37, 0x36, 0x35, 0x34, 0x33, 0x32, 0x31]);
    put(&mut want, 40, &[0x48, 0x47, 0x46, 0x45, 0x44, 0x43, 0x42, 0x41]);
    put(&mut want, 48, &[0x04, 0x03, 0x02, 0x01]);
    put(&mut want, 52, &[1, 0, 0, 0]);
    put(&mut want, 56, &[0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11]);
    put(&mut want, 64, b"fedcba9876543210");
    put(&mut want, 80, &[0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21]);
    let crc = crc32c::crc32c(&want[..PAGE_BYTES - 4]);
    put(&mut want, PAGE_BYTES - 4, &crc.to_le_bytes());
    let page = heartbeat().encode();
    assert_eq!((0..PAGE_BYTES).find(|&at| page.0[at] != want[at]), None, "first wrong byte");
    assert_eq!(Heartbeat::decode(&page, NodeId::B, identity().uuid), Ok(Some(heartbeat())));
}

#[test]
fn every_flipped_bit_of_a_heartbeat_is_seen() {
    let mut page = heartbeat().encode();
    for bit in 0..8 * PAGE_BYTES {
        page.0[bit / 8] ^= 1 << (bit % 8);
        let seen = Heartbeat::decode(&page, NodeId::B, identity().uuid);
        assert_eq!(seen, Err(HeartbeatError::Torn { node: NodeId::B }), "bit {bit}");
        page.0[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn heartbeats_of_others_are_not_mistaken() {
    let page = heartbeat().encode();
    let uuid = identity().uuid;
    let invalid = |node, what| Err(HeartbeatError::Invalid { node, what });
    assert_eq!(Heartbeat::decode(&page, NodeId::A, uuid), invalid(NodeId::A, "another node's"));
    assert_eq!(Heartbeat::decode(&page, NodeId::B, Uuid([0; 16])), invalid(NodeId::B, "another volume's"));
    assert_eq!(Heartbeat::decode(&Page::ZERO, NodeId::A, uuid), Ok(None));
    let forged = |offset: usize, value: u8| {
        let mut page = heartbeat().encode();
        page.0[offset] = value;
        page.seal();
        Heartbeat::decode(&page, NodeId::B, uuid)
    };
    assert_eq!(forged(8, 2), invalid(NodeId::B, "another version of the format"));
    assert_eq!(forged(52, 2), invalid(NodeId::B, "reserved bits are set"));
    for reserved in [88, 4091] {
        assert_eq!(forged(reserved, 1), invalid(NodeId::B, "reserved bits are set"));
    }
}
