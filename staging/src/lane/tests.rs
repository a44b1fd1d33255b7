use alloc::string::ToString;
use alloc::vec::Vec;

use twinsan_wire::Lba;

use super::*;

const BLOCK: u32 = 512;

/// 8 slots, a ring of 10 blocks (so payloads of up to 5).
fn geometry() -> Geometry {
    Geometry::new(8, 10 * u64::from(BLOCK), BLOCK).unwrap()
}

fn lane() -> Lane {
    Lane::new(geometry(), Generation(3), Some(Seq(1)))
}

/// A write of `blocks` blocks with its payload `at` blocks into the ring's positions.
fn write(seq: u64, blocks: u32, at: u64) -> Blob {
    Blob {
        generation: Generation(3),
        seq: Seq(seq),
        kind: BlobKind::Write,
        lba: Lba(seq * 100),
        blocks,
        data_pos: at * u64::from(BLOCK),
        payload_len: blocks * BLOCK,
    }
}

fn zeroes(seq: u64, blocks: u32, at: u64) -> Blob {
    Blob { kind: BlobKind::Zeroes, payload_len: 0, blocks, ..write(seq, 1, at) }
}

/// Offers `blob`, which must be refused, and checks that the lane is as before.
#[track_caller]
fn refused(lane: &mut Lane, blob: Blob) -> LaneError {
    let state = |lane: &Lane| (lane.first, lane.received(), lane.released(), lane.cursor, held(lane));
    let before = state(lane);
    let error = lane.accept(blob).expect_err("a blob that breaks the protocol");
    assert_eq!(state(lane), before, "a refused blob has left a trace");
    error
}

fn held(lane: &Lane) -> Vec<u64> {
    lane.iter().map(|blob| blob.seq.0).collect()
}

#[test]
fn blobs_are_taken_in_order_held_and_released() {
    let mut lane = lane();
    assert!(lane.is_empty() && lane.received() == Seq(0) && lane.released() == Seq(0));
    for blob in [write(1, 2, 0), zeroes(2, 1000, 2), write(3, 3, 2)] {
        assert_eq!(lane.accept(blob), Ok(Accept::New));
    }
    assert_eq!(held(&lane), [1, 2, 3]);
    assert_eq!((lane.received(), lane.len(), lane.is_empty()), (Seq(3), 3, false));
    assert_eq!((&lane).into_iter().count(), 3);
    assert_eq!(lane.get(Seq(2)), Some(&zeroes(2, 1000, 2)));
    assert_eq!((lane.get(Seq(0)), lane.get(Seq(4))), (None, None));

    let released: Vec<u64> = lane.release(Seq(2)).map(|blob| blob.seq.0).collect();
    assert_eq!(released, [1, 2]);
    assert_eq!(held(&lane), [3]);
    assert_eq!((lane.received(), lane.released()), (Seq(3), Seq(2)));
    assert_eq!(lane.get(Seq(2)), None);
    assert_eq!(lane.release(Seq(1)).count(), 0, "what was released stays released");
    assert_eq!(lane.released(), Seq(2));
    drop(lane.release(Seq(3)));
    assert!(lane.is_empty() && lane.received() == Seq(3));
}

#[test]
fn a_range_is_what_is_held_of_it() {
    let mut lane = lane();
    for seq in 1..=5 {
        lane.accept(write(seq, 1, seq - 1)).unwrap();
    }
    drop(lane.release(Seq(2)));
    let range = |from, to| lane.range(Seq(from)..=Seq(to)).map(|blob| blob.seq.0).collect::<Vec<_>>();
    assert_eq!(range(0, u64::MAX), [3, 4, 5]);
    assert_eq!(range(4, 4), [4]);
    assert_eq!(range(1, 3), [3]);
    assert_eq!(range(5, 9), [5]);
    assert!(range(1, 2).is_empty() && range(6, 9).is_empty() && range(5, 4).is_empty());
    let newest_first: Vec<u64> = lane.range(Seq(3)..=Seq(4)).rev().map(|blob| blob.seq.0).collect();
    assert_eq!(newest_first, [4, 3]);
}

#[test]
fn what_was_received_is_not_taken_again() {
    let mut lane = lane();
    lane.accept(write(1, 1, 0)).unwrap();
    lane.accept(write(2, 1, 1)).unwrap();
    assert_eq!(lane.accept(write(2, 1, 1)), Ok(Accept::Duplicate));
    drop(lane.release(Seq(1)));
    assert_eq!(lane.accept(write(1, 1, 0)), Ok(Accept::Duplicate));
    assert_eq!(held(&lane), [2]);
    let other = Blob { lba: Lba(7), ..write(2, 1, 1) };
    assert_eq!(refused(&mut lane, other), LaneError::Changed { seq: Seq(2) });
}

#[test]
fn a_lane_without_a_beginning_takes_nothing_until_it_is_said() {
    let mut lane = Lane::new(geometry(), Generation(3), None);
    assert_eq!((lane.first(), lane.received()), (None, Seq(0)));
    assert_eq!(refused(&mut lane, write(1, 1, 0)), LaneError::NotBegun { got: Seq(1) });
    lane.begin(Seq(41));
    assert_eq!((lane.first(), lane.received(), lane.released()), (Some(Seq(41)), Seq(40), Seq(40)));
    // Lap 7 of the ring, two blocks in: the joiner learns the position from the first blob.
    assert_eq!(lane.accept(write(41, 4, 72)), Ok(Accept::New));
    assert_eq!(refused(&mut lane, write(42, 1, 72)), LaneError::Position { expected: Some(76 * 512), got: 72 * 512 });
    assert_eq!(lane.accept(write(40, 4, 68)), Ok(Accept::Duplicate));
}

#[test]
fn the_least_seq_is_one() {
    let mut lane = Lane::new(geometry(), Generation(3), Some(Seq(0)));
    assert_eq!(lane.first(), Some(Seq(1)));
    assert_eq!(lane.accept(write(0, 1, 0)), Ok(Accept::Duplicate));
    assert_eq!(lane.accept(write(1, 1, 0)), Ok(Accept::New));
}

#[test]
#[should_panic(expected = "the lane has begun")]
fn a_lane_begins_once() {
    lane().begin(Seq(2));
}

#[test]
#[should_panic(expected = "release up to #3, but the last blob is #1")]
fn what_was_not_received_is_not_released() {
    let mut lane = lane();
    lane.accept(write(1, 1, 0)).unwrap();
    drop(lane.release(Seq(3)));
}

#[test]
fn the_last_seq_of_all_does_not_overflow() {
    let mut lane = Lane::new(geometry(), Generation(3), Some(Seq(u64::MAX)));
    let last = Blob { seq: Seq(u64::MAX), ..write(1, 1, 0) };
    assert_eq!(lane.accept(last), Ok(Accept::New));
    assert_eq!(lane.accept(last), Ok(Accept::Duplicate));
    assert_eq!(lane.release(Seq(u64::MAX)).count(), 1);
}

#[test]
fn another_sessions_blob_and_a_gap_are_refused() {
    let mut lane = lane();
    let old = Blob { generation: Generation(2), ..write(1, 1, 0) };
    assert_eq!(refused(&mut lane, old), LaneError::Generation { expected: Generation(3), got: Generation(2) });
    assert_eq!(refused(&mut lane, write(2, 1, 0)), LaneError::Gap { expected: Seq(1), got: Seq(2) });
}

#[test]
fn a_length_that_does_not_fit_the_kind_is_refused() {
    let mut lane = lane();
    for (blocks, payload_len) in [(1, 0), (1, BLOCK - 1), (2, BLOCK), (1, BLOCK + 1)] {
        let blob = Blob { blocks, payload_len, ..write(1, 1, 0) };
        assert!(matches!(refused(&mut lane, blob), LaneError::Length { .. }), "{blocks} blocks, {payload_len} bytes");
    }
    for kind in [BlobKind::Zeroes, BlobKind::Discard] {
        let blob = Blob { kind, ..write(1, 1, 0) };
        assert_eq!(refused(&mut lane, blob), LaneError::Length { kind, expected: 0, got: BLOCK });
    }
    for blob in [write(1, 0, 0), write(1, 6, 0), zeroes(1, 0, 0), zeroes(1, MAX_ZERO_BLOCKS + 1, 0)] {
        assert!(matches!(refused(&mut lane, blob), LaneError::Blocks { .. }), "{blob:?}");
    }
    // So many blocks that their bytes pass 32 bits.
    let blob = Blob { blocks: 1 << 23, payload_len: 0, ..write(1, 1, 0) };
    assert!(matches!(refused(&mut lane, blob), LaneError::Blocks { most: 5, .. }));
}

#[test]
fn a_ninth_blob_waits_for_a_slot() {
    let mut lane = lane();
    for seq in 1..=8 {
        lane.accept(zeroes(seq, 1, 0)).unwrap();
    }
    let error = LaneError::Slots { slots: 8, released: Seq(0), got: Seq(9) };
    assert_eq!(refused(&mut lane, zeroes(9, 1, 0)), error);
    drop(lane.release(Seq(1)));
    assert_eq!(lane.accept(zeroes(9, 1, 0)), Ok(Accept::New));
}

#[test]
fn a_payload_lies_where_the_rule_puts_it() {
    let mut lane = lane();
    lane.accept(write(1, 4, 0)).unwrap();
    lane.accept(write(2, 4, 4)).unwrap();
    // Two blocks are left before the wrap: three skip them, payload-free ones stay at the cursor.
    let wrong = [write(3, 3, 8), write(3, 3, 11), write(3, 2, 10), write(3, 1, 7), zeroes(3, 1, 10), zeroes(3, 1, 7)];
    for blob in wrong {
        assert!(matches!(refused(&mut lane, blob), LaneError::Position { .. }), "{blob:?}");
    }
    assert_eq!(lane.accept(zeroes(3, 1, 8)), Ok(Accept::New));
    assert_eq!(
        refused(&mut lane, write(4, 3, 10)),
        LaneError::Overlap { got: 10 * 512, payload_len: 3 * 512, oldest: 0 },
    );
    drop(lane.release(Seq(1)));
    assert_eq!(lane.accept(write(4, 3, 10)), Ok(Accept::New));
    // The next one ends where blob 2 begins, and the one after that would lie over it.
    assert_eq!(lane.accept(write(5, 1, 13)), Ok(Accept::New));
    assert!(matches!(refused(&mut lane, write(6, 1, 14)), LaneError::Overlap { .. }));
}

#[test]
fn the_first_position_is_checked_too() {
    let fresh = || Lane::new(geometry(), Generation(3), Some(Seq(9)));
    let odd = Blob { data_pos: 100, ..write(9, 1, 0) };
    let end = Blob { data_pos: !511, ..write(9, 1, 0) };
    for blob in [odd, write(9, 3, 8), end] {
        let error = LaneError::Position { expected: None, got: blob.data_pos };
        assert_eq!(refused(&mut fresh(), blob), error);
    }
    for blob in [write(9, 2, 8), zeroes(9, 1, 9), write(9, 5, 20)] {
        assert_eq!(fresh().accept(blob), Ok(Accept::New), "{blob:?}");
    }
    // The last position of all: nothing can follow it.
    let mut lane = fresh();
    let last = Blob { data_pos: !511, ..zeroes(9, 1, 0) };
    assert_eq!(lane.accept(last), Ok(Accept::New));
    let beyond = Blob { data_pos: !511, ..write(10, 1, 0) };
    assert_eq!(refused(&mut lane, beyond), LaneError::Position { expected: None, got: !511 });
}

#[test]
fn errors_name_the_value_and_what_would_be_right() {
    let cases = [
        (LaneError::Gap { expected: Seq(4), got: Seq(6) }, "blob #6 where #4 comes next"),
        (
            LaneError::Position { expected: Some(1024), got: 512 },
            "payload at position 512: the ring rule puts it at 1024",
        ),
        (
            LaneError::Slots { slots: 8, released: Seq(2), got: Seq(11) },
            "blob #11 with only #2 released: the lane has 8 slots",
        ),
        (LaneError::Blocks { kind: BlobKind::Write, blocks: 9, most: 5 }, "Write of 9 blocks: must have 1 to 5"),
    ];
    for (error, expected) in cases {
        assert_eq!(error.to_string(), expected);
    }
}
