//! Contract 6: limits, and who is held back.

use twinsan_wire::limits::{DESCRIPTOR_BYTES, MAX_MESSAGE_BYTES};

use super::Setup;
use super::harness::{Pair, REGION, Side, at, pattern};
use crate::{ConnId, Event, LocalSlice, Payload, PostError, RegionId};

/// The limits allow what the protocol needs.
pub(super) fn limits_are_wide_enough(setup: Setup) {
    for fabric in [setup.left, setup.right] {
        let limits = fabric.limits();
        assert!(limits.max_inline >= DESCRIPTOR_BYTES, "{limits:?}");
        assert!(limits.max_message >= MAX_MESSAGE_BYTES, "{limits:?}");
        // A payload and its immediate.
        assert!(limits.send_depth >= 2, "{limits:?}");
    }
}

/// The longest inline payload arrives; a longer one is not taken and does no harm.
pub(super) fn inline_limit(setup: Setup) {
    let mut pair = Pair::new(setup);
    let (a, b) = (pair.a, pair.b);
    let key = pair.right.expose_all(b);
    let limit = pair.left.fabric.limits().max_inline;
    let bytes = pattern(1, limit + 1);
    let too_long = Err(PostError::TooLong { len: limit + 1, limit });
    let fabric = &mut pair.left.fabric;
    assert_eq!(fabric.write(a, Payload::Inline(&bytes), at(key, 0), None), too_long);
    assert_eq!(fabric.write_imm(a, Payload::Inline(&bytes), at(key, 0), 1, None), too_long);
    pair.write_imm(a, &bytes[..limit], at(key, 0), 2);
    assert_eq!(pair.immediate(b), 2);
    assert_eq!(pair.right.bytes(0, limit), bytes[..limit]);
    assert!(pair.right.is_all(limit, 1, 0));
}

/// The longest message arrives; a longer one is not taken and does no harm.
pub(super) fn message_limit(setup: Setup) {
    let mut pair = Pair::new(setup);
    let (a, b) = (pair.a, pair.b);
    let limit = pair.left.fabric.limits().max_message;
    let bytes = pattern(1, limit + 1);
    assert_eq!(pair.left.fabric.send(a, &bytes), Err(PostError::TooLong { len: limit + 1, limit }));
    for len in [limit, 0, 1, limit - 1] {
        pair.send(a, &bytes[..len]);
        assert_eq!(pair.message(b)[..], bytes[..len]);
    }
}

/// Posts up to the depth are taken, then none until poll has seen some complete.
pub(super) fn send_depth(setup: Setup) {
    let mut pair = Pair::new(setup);
    let (a, b) = (pair.a, pair.b);
    let key = pair.right.expose_all(b);
    let depth = u32::try_from(pair.left.fabric.limits().send_depth).expect("a depth");
    for round in 0..3 {
        for number in 0..depth {
            let bytes = number.to_le_bytes();
            let taken = match number % 3 {
                0 => pair.left.fabric.send(a, &bytes),
                1 => pair.left.fabric.write_imm(a, Payload::Inline(&bytes), at(key, 0), number, None),
                _ => pair.left.fabric.write(a, Payload::Inline(&bytes), at(key, 0), None),
            };
            assert_eq!(taken, Ok(()), "post {number} of round {round}, depth {depth}");
            // Submitting alone completes nothing: completions are poll's to find.
            if number % 5 == 0 {
                pair.left.fabric.submit(a);
            }
        }
        assert_eq!(pair.left.fabric.send(a, b"one more"), Err(PostError::Full));
        assert_eq!(pair.left.fabric.write(a, Payload::Inline(&[]), at(key, 0), None), Err(PostError::Full));
        pair.left.fabric.submit(a);
        let mut events = 0;
        pair.wait("all that were taken", |pair| {
            events += u32::try_from(pair.right.news_of(b).len()).expect("few");
            (events == depth - depth / 3).then_some(())
        });
        // All have arrived; the sender's side of it may take a few polls yet.
        pair.send(a, b"free again");
        assert_eq!(&pair.message(b)[..], b"free again");
        drain(&mut pair, a, b);
    }
}

/// Waits until every slot is free.
fn drain(pair: &mut Pair, a: ConnId, b: ConnId) {
    let from = pair.left.payload(0, 0);
    let key = pair.right.expose(b, 0, 0);
    pair.post(a, |left| left.fabric.write(a, from, at(key, 0), Some(1)));
    pair.sent(a);
}

/// A local slice is inside of its region.
pub(super) fn local_slices_are_checked(setup: Setup) {
    let mut pair = Pair::new(setup);
    let (a, b) = (pair.a, pair.b);
    let key = pair.right.expose_all(b);
    let (region, size) = (pair.left.region, REGION as u64);
    let unknown = RegionId(region.0 + 1);
    let slices = [
        LocalSlice { region, offset: size, len: 1 },
        LocalSlice { region, offset: size - 1, len: 2 },
        LocalSlice { region, offset: u64::MAX, len: 1 },
        LocalSlice { region, offset: u64::MAX - 63, len: 64 },
        LocalSlice { region, offset: 0, len: u32::MAX },
        LocalSlice { region: unknown, offset: 0, len: 1 },
    ];
    for slice in slices {
        let fabric = &mut pair.left.fabric;
        let write = fabric.write(a, Payload::Region(slice), at(key, 0), None);
        let write_imm = fabric.write_imm(a, Payload::Region(slice), at(key, 0), 1, None);
        assert_eq!([write, write_imm], [Err(PostError::OutOfRegion), Err(PostError::OutOfRegion)], "{slice:?}");
    }
    pair.send(a, b"unharmed");
    assert_eq!(&pair.message(b)[..], b"unharmed");
}

/// No posts on what is not a connection yet, or any more.
pub(super) fn posts_need_a_connection(setup: Setup) {
    let mut pair = Pair::new(setup);
    let (a, b) = (pair.a, pair.b);
    let key = pair.right.expose_all(b);
    let refused = |left: &mut Side, conn| {
        let fabric = &mut left.fabric;
        assert_eq!(fabric.send(conn, b"x"), Err(PostError::NotConnected));
        assert_eq!(fabric.write(conn, Payload::Inline(b"x"), at(key, 0), None), Err(PostError::NotConnected));
        assert_eq!(fabric.write_imm(conn, Payload::Inline(b"x"), at(key, 0), 1, None), Err(PostError::NotConnected));
        // Nothing to ring for, nothing to end: ignored.
        fabric.submit(conn);
        fabric.disconnect(conn);
    };
    refused(&mut pair.left, ConnId(u64::MAX >> 2));
    pair.right.fabric.disconnect(b);
    pair.left_closed(a);
    refused(&mut pair.left, a);
}

/// A receiver that does not poll holds its sender back; nothing is lost.
pub(super) fn receiver_that_does_not_poll_holds_its_sender_back(setup: Setup) {
    /// More than any fabric has buffers for.
    const MANY: u32 = 200_000;
    let mut pair = Pair::new(setup);
    let (a, b) = (pair.a, pair.b);
    let key = pair.right.expose_all(b);
    let mut posted = 0_u32;
    while posted < MANY && post_alone(&mut pair.left, a, posted, at(key, 0)) {
        posted += 1;
    }
    assert!(posted < MANY, "a sender was never held back");
    assert!(pair.left.news_of(a).is_empty(), "nothing was signalled, nothing has ended");
    // Now it polls: everything comes, in order.
    let mut seen = 0_u32;
    pair.wait("everything that was held back", |pair| {
        for event in pair.right.news_of(b) {
            let number = match event {
                Event::Message { bytes, .. } => u32::from_le_bytes(bytes[..4].try_into().expect("four bytes")),
                Event::Immediate { imm, .. } => imm,
                other => panic!("{other:?}"),
            };
            assert_eq!(number, seen, "out of order, or dropped");
            seen += 1;
        }
        (seen == posted).then_some(())
    });
    pair.send(a, b"and on");
    assert_eq!(&pair.message(b)[..], b"and on");
}

/// Posts the left one's event `number`, polling it alone; false if it stays full however often it is polled.
fn post_alone(left: &mut Side, conn: ConnId, number: u32, to: crate::RemoteAddr) -> bool {
    for _ in 0..200 {
        let posted = if number.is_multiple_of(2) {
            left.fabric.send(conn, &[number.to_le_bytes(); 100].concat())
        } else {
            left.fabric.write_imm(conn, Payload::Inline(&number.to_le_bytes()), to, number, None)
        };
        match posted {
            Ok(()) => {
                left.fabric.submit(conn);
                return true;
            }
            Err(PostError::Full) => left.fabric.poll(&mut left.events, None),
            Err(other) => panic!("{other}"),
        };
    }
    false
}
