//! Contract 1: order, and what an event says about the writes before it.

use super::Setup;
use super::harness::{Pair, REGION, at, pattern};
use crate::{Event, Payload};

/// Messages and immediates arrive in the order of their posts.
pub(super) fn events_come_in_post_order(setup: Setup) {
    const COUNT: u32 = 1000;
    let mut pair = Pair::new(setup);
    let (a, b) = (pair.a, pair.b);
    let key = pair.right.expose_all(b);
    for number in 0..COUNT {
        if number % 3 == 0 {
            pair.send(a, &number.to_le_bytes());
        } else {
            pair.write_imm(a, &number.to_le_bytes(), at(key, 0), number);
        }
    }
    let mut numbers = Vec::new();
    pair.wait("all events", |pair| {
        numbers.extend(pair.right.news_of(b).into_iter().map(|event| match event {
            Event::Message { bytes, .. } => u32::from_le_bytes(bytes[..].try_into().expect("four bytes")),
            Event::Immediate { imm, .. } => imm,
            other => panic!("{other:?} was not posted"),
        }));
        (numbers.len() == COUNT as usize).then_some(())
    });
    assert!(numbers.into_iter().eq(0..COUNT), "out of order");
}

/// At an immediate its own bytes and those of every write before it are there.
pub(super) fn payload_is_there_at_its_immediate(setup: Setup) {
    let mut pair = Pair::new(setup);
    let (a, b) = (pair.a, pair.b);
    let key = pair.right.expose_all(b);
    let lens = [1_u32, 63, 4096, 4097, (16 << 10) - 33, 16 << 10, (16 << 10) + 1, 102_400, 1 << 20];
    for (len, imm) in lens.into_iter().zip(1_u32..) {
        let (payload, descriptor) = (pattern(imm.into(), len as usize), pattern(u64::MAX - u64::from(imm), 64));
        pair.left.arena.copy_in(0, &payload);
        let from = pair.left.payload(0, len);
        pair.post(a, |left| left.fabric.write(a, from, at(key, 4096), None));
        let (bytes, to) = (Payload::Inline(&descriptor), at(key, REGION as u64 - 64));
        pair.post(a, |left| left.fabric.write_imm(a, bytes, to, imm, None));
        // The payload itself with an immediate; signalled, so that it may be replaced for the next one.
        let to = at(key, 2 << 20);
        pair.post(a, |left| left.fabric.write_imm(a, from, to, !imm, Some(imm.into())));
        assert_eq!(pair.immediate(b), imm);
        assert!(pair.right.bytes(4096, len as usize) == payload, "{len} bytes were not there");
        assert_eq!(pair.right.bytes(REGION - 64, 64), descriptor);
        assert_eq!(pair.immediate(b), !imm);
        assert!(pair.right.bytes(2 << 20, len as usize) == payload, "{len} bytes with an immediate were not there");
        assert_eq!(pair.sent(a), u64::from(imm));
    }
}

/// At a message the bytes of every write before it are there.
pub(super) fn payload_is_there_at_a_later_message(setup: Setup) {
    let mut pair = Pair::new(setup);
    let (a, b) = (pair.a, pair.b);
    let key = pair.right.expose_all(b);
    let payload = pattern(7, 3 << 20);
    pair.left.arena.copy_in(0, &payload);
    for piece in 0..3 {
        let from = pair.left.slice(piece << 20, 1 << 20);
        pair.write(a, from, at(key, piece << 20), None);
    }
    pair.send(a, b"done");
    assert_eq!(&pair.message(b)[..], b"done");
    assert!(pair.right.bytes(0, 3 << 20) == payload, "the pieces of an answer were not all there");
}

/// A plain write is reported to nobody: not to the receiver, nor, unsignalled, to the sender.
pub(super) fn plain_write_is_not_reported(setup: Setup) {
    let mut pair = Pair::new(setup);
    let (a, b) = (pair.a, pair.b);
    let key = pair.right.expose_all(b);
    for _ in 0..10 {
        let from = pair.left.slice(0, 100);
        pair.write(a, from, at(key, 0), None);
    }
    pair.send(a, b"the only one");
    assert_eq!(&pair.message(b)[..], b"the only one");
    assert!(pair.right.events.is_empty(), "{:?}", pair.right.events);
    assert!(pair.left.events.is_empty(), "{:?}", pair.left.events);
}

/// An immediate without bytes is an event like any other.
pub(super) fn empty_writes_are_fine(setup: Setup) {
    let mut pair = Pair::new(setup);
    let (a, b) = (pair.a, pair.b);
    let key = pair.right.expose(b, 0, 64);
    pair.write_imm(a, &[], at(key, 0), 1);
    pair.write_imm(a, &[], at(key, 64), 2);
    let nothing = pair.left.slice(REGION as u64, 0);
    pair.write(a, nothing, at(key, 64), None);
    pair.send(a, &[]);
    assert_eq!((pair.immediate(b), pair.immediate(b)), (1, 2));
    assert!(pair.message(b).is_empty());
    assert!(pair.right.is_all(0, REGION, 0));
}

/// Long transfers both ways at once don't wait for each other.
pub(super) fn both_directions_at_once(setup: Setup) {
    const ROUNDS: u32 = 24;
    const LEN: u32 = 1 << 20;
    let mut pair = Pair::new(setup);
    let (a, b) = (pair.a, pair.b);
    // The lower half of each region is sent, the upper half is written to.
    let half = REGION as u64 / 2;
    let (to_right, to_left) = (pair.right.expose(b, half, half), pair.left.expose(a, half, half));
    let (from_left, from_right) = (pattern(1, LEN as usize), pattern(2, LEN as usize));
    pair.left.arena.copy_in(0, &from_left);
    pair.right.arena.copy_in(0, &from_right);
    let (mut posted, mut seen) = ([0; 2], [0; 2]);
    pair.wait("all transfers", |pair| {
        let ends = [(&mut pair.left, a, to_right), (&mut pair.right, b, to_left)];
        for (end, (side, conn, key)) in ends.into_iter().enumerate() {
            let payload = side.payload(0, LEN);
            while posted[end] < ROUNDS && side.fabric.write_imm(conn, payload, at(key, 0), posted[end], None).is_ok() {
                posted[end] += 1;
            }
            side.fabric.submit(conn);
            for event in side.news_of(conn) {
                assert!(matches!(event, Event::Immediate { imm, .. } if imm == seen[end]), "{event:?}");
                seen[end] += 1;
            }
        }
        (seen == [ROUNDS; 2]).then_some(())
    });
    assert!(pair.right.bytes(REGION / 2, LEN as usize) == from_left);
    assert!(pair.left.bytes(REGION / 2, LEN as usize) == from_right);
}

/// Contract 7: what is unsolicited comes in order with what is not, and comes too where nothing follows it.
pub(super) fn unsolicited_posts_keep_order_and_arrive(setup: Setup) {
    const COUNT: u32 = 300;
    let mut pair = Pair::new(setup);
    let (a, b) = (pair.a, pair.b);
    let key = pair.right.expose_all(b);
    for number in 0..COUNT {
        let bytes = number.to_le_bytes();
        // The last ones are all unsolicited.
        match number % 3 {
            0 if number < COUNT - 10 => pair.send(a, &bytes),
            1 => pair.unsolicited(a, |left| left.fabric.send(a, &bytes)),
            _ => pair.unsolicited(a, |left| {
                left.fabric.write_imm(a, Payload::Inline(&bytes), at(key, u64::from(number) * 4), number, None)
            }),
        }
    }
    for number in 0..COUNT {
        let event = pair.wait("the next event", |pair| pair.right.pick_first(b));
        let came = match event {
            Event::Message { bytes, .. } => u32::from_le_bytes(bytes[..].try_into().expect("four bytes")),
            Event::Immediate { imm, .. } => {
                assert_eq!(pair.right.bytes(4 * imm as usize, 4), imm.to_le_bytes(), "its bytes were not there");
                imm
            }
            other => panic!("{other:?} was not posted"),
        };
        assert_eq!(came, number, "out of order");
    }
}

/// Contract 7: a poll whose time is over has what was rung for before it, without a further post.
pub(super) fn an_unsolicited_message_is_there_when_a_poll_has_ended(setup: Setup) {
    let mut pair = Pair::new(setup);
    let (a, b) = (pair.a, pair.b);
    for number in 0..20_u32 {
        // Both have just slept.
        pair.doze();
        pair.unsolicited(a, |left| left.fabric.send(a, &number.to_le_bytes()));
        assert_eq!(&pair.message(b)[..], number.to_le_bytes());
    }
}
