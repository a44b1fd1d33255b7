//! Contract 4: a key opens its range on its connection, and nothing else.

use super::Setup;
use super::harness::{Pair, REGION, at, pattern};
use crate::{CloseReason, ConnId, FabricError, Payload, RegionId, RemoteAddr, RemoteKey};

/// Writes land at their offset from the start of the range, and nowhere else.
pub(super) fn writes_land_at_their_place(setup: Setup) {
    let mut pair = Pair::new(setup);
    let (a, b) = (pair.a, pair.b);
    pair.right.arena.copy_in(0, &vec![0xcc; 8192]);
    let key = pair.right.expose(b, 1000, 300);
    let other = pair.right.expose(b, 5000, 100);
    let bytes = pattern(1, 64);
    pair.write_imm(a, &bytes, at(key, 0), 1);
    pair.write_imm(a, &bytes, at(key, 300 - 64), 2);
    pair.write_imm(a, &bytes, at(other, 36), 3);
    assert_eq!([pair.immediate(b), pair.immediate(b), pair.immediate(b)], [1, 2, 3]);
    for place in [1000, 1300 - 64, 5036] {
        assert_eq!(pair.right.bytes(place, 64), bytes, "at {place}");
    }
    for (from, to) in [(0, 1000), (1064, 1236), (1300, 5036), (5100, 8192)] {
        assert!(pair.right.is_all(from, to - from, 0xcc), "something landed between {from} and {to}");
    }
}

/// Sends a write that must be refused: its connection ends, for the receiver as the sender's fault.
fn must_be_refused(pair: &mut Pair, (a, b): (ConnId, ConnId), to: RemoteAddr, len: u32) {
    pair.left.arena.copy_in(0, &vec![0xbb; len as usize]);
    let from = pair.left.slice(0, len);
    pair.write(a, from, to, None);
    // What is posted behind it is lost with the connection.
    let behind = pair.left.fabric.send(a, b"behind it");
    pair.left.fabric.submit(a);
    let why = pair.right_closed(b);
    assert!(matches!(why, CloseReason::Violation(_)), "{why:?} for {len} bytes to {to:?}, posted behind: {behind:?}");
    pair.left_closed(a);
    assert!(pair.right.news_of(b).is_empty(), "something came after the violation");
    assert!(pair.right.is_all(0, REGION, 0), "{len} bytes to {to:?} landed");
}

/// A made-up key closes the connection and lands nothing.
pub(super) fn wrong_key_is_refused(setup: Setup) {
    let mut pair = Pair::new(setup);
    let RemoteKey(key) = pair.right.expose_all(pair.b);
    let ends = (pair.a, pair.b);
    must_be_refused(&mut pair, ends, at(RemoteKey(!key), 0), 64);
    let ends = pair.connect();
    must_be_refused(&mut pair, ends, at(RemoteKey(0), 0), 1 << 20);
}

/// A key does not work on another connection, which ends; its own goes on.
pub(super) fn key_of_another_connection_is_refused(setup: Setup) {
    let mut pair = Pair::new(setup);
    let (a, b) = (pair.a, pair.b);
    let key = pair.right.expose_all(b);
    let ends = pair.connect();
    must_be_refused(&mut pair, ends, at(key, 0), 4096);
    pair.write_imm(a, &[1; 8], at(key, 0), 1);
    assert_eq!(pair.immediate(b), 1);
    assert_eq!(pair.right.bytes(0, 8), [1; 8]);
}

/// A key dies with its connection.
pub(super) fn key_dies_with_its_connection(setup: Setup) {
    let mut pair = Pair::new(setup);
    let (a, b) = (pair.a, pair.b);
    let key = pair.right.expose_all(b);
    pair.right.fabric.disconnect(b);
    pair.left_closed(a);
    let ends = pair.connect();
    must_be_refused(&mut pair, ends, at(key, 0), 64);
}

/// One byte too far is too far, also where the arithmetic would wrap.
pub(super) fn out_of_range_is_refused(setup: Setup) {
    let mut pair = Pair::new(setup);
    let cases = [
        (4096, 1),
        (0, 4097),
        (4000, 97),
        (4097, 0),
        (1 << 40, 64),
        (u64::MAX, 1),
        (u64::MAX - 63, 64),
        (u64::MAX - 4096, 8192),
    ];
    let mut ends = (pair.a, pair.b);
    for (offset, len) in cases {
        // From the middle of the region: a wrapped sum would fall inside.
        let key = pair.right.expose(ends.1, 1 << 20, 4096);
        must_be_refused(&mut pair, ends, at(key, offset), len);
        ends = pair.connect();
    }
}

/// A refused write with immediate is not reported, one before it is.
pub(super) fn what_came_before_a_violation_stands(setup: Setup) {
    let mut pair = Pair::new(setup);
    let (a, b) = (pair.a, pair.b);
    let key = pair.right.expose(b, 0, 4096);
    let good = pattern(4, 64);
    pair.write_imm(a, &good, at(key, 0), 1);
    assert_eq!(pair.immediate(b), 1);
    pair.write_imm(a, &[0xbb; 64], at(key, 4096), 2);
    assert!(matches!(pair.right_closed(b), CloseReason::Violation(_)));
    assert!(pair.right.news_of(b).is_empty());
    assert_eq!(pair.right.bytes(0, 64), good);
    assert!(pair.right.is_all(64, REGION - 64, 0));
}

/// Only what there is can be exposed.
pub(super) fn expose_checks_its_arguments(setup: Setup) {
    let mut pair = Pair::new(setup);
    let (b, region, size) = (pair.b, pair.right.region, REGION as u64);
    let right = &mut pair.right.fabric;
    let ranges = [(0, size + 1), (size, 1), (size + 1, 0), (u64::MAX, 1), (1, u64::MAX)];
    for (offset, len) in ranges {
        let outcome = right.expose(b, region, offset, len);
        assert!(matches!(outcome, Err(FabricError::Invalid(_))), "{offset}, {len}: {outcome:?}");
    }
    assert!(right.expose(b, RegionId(region.0 + 1), 0, 1).is_err(), "an unknown region");
    assert!(right.expose(ConnId(u64::MAX >> 2), region, 0, 1).is_err(), "an unknown connection");
    let (one, two) = (right.expose(b, region, 0, 64), right.expose(b, region, 0, 64));
    assert_ne!(one.expect("a range"), two.expect("the same range"), "every key is a new one");
    right.disconnect(b);
    assert!(right.expose(b, region, 0, 1).is_err(), "a connection that is gone");
    let payload = Payload::Inline(&[]);
    let outcome = right.write(b, payload, at(RemoteKey(0), 0), None);
    assert_eq!(outcome, Err(crate::PostError::NotConnected));
}
