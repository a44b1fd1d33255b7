//! Connections: how they begin, how they end, and contract 5.

use std::collections::BTreeSet;

use super::Setup;
use super::harness::{Pair, REGION, at, pattern};
use crate::{CloseReason, Event, FabricError, PostError};

/// Nobody listens there: told as that, as the only news.
pub(super) fn refused_connect_is_told(setup: Setup) {
    let mut pair = Pair::new(setup);
    let nobody = pair.nobody.clone();
    for _ in 0..3 {
        let conn = pair.left.fabric.connect(&nobody).expect("the address is good");
        assert_eq!(pair.left_closed(conn), CloseReason::Refused);
        assert!(pair.left.news_of(conn).is_empty());
        assert_eq!(pair.left.fabric.send(conn, b"x"), Err(PostError::NotConnected));
    }
}

/// An address that makes no sense is an error at once, and says the address.
pub(super) fn bad_addresses_are_errors(mut setup: Setup) {
    for address in ["", "nonsense", "bogus://127.0.0.1:7000"] {
        let bad = |error: FabricError| {
            let told = error.to_string();
            assert!(matches!(error, FabricError::Address { .. }) && told.contains(address), "{told}");
        };
        bad(setup.left.connect(address).expect_err("nothing to connect to"));
        bad(setup.left.listen(address).expect_err("nothing to listen at"));
    }
}

/// A taken address can't be listened at again.
pub(super) fn listening_twice_is_refused(setup: Setup) {
    let mut pair = Pair::new(setup);
    let address = pair.address.clone();
    assert!(pair.left.fabric.listen(&address).is_err(), "another listens there");
    // And the first one does so still. It may have seen a connection by which the system was asked who is there.
    let conn = pair.left.fabric.connect(&address).expect("connect");
    pair.wait("connected", |pair| {
        pair.left.pick(|event| matches!(event, Event::Connected { conn: on } if *on == conn).then_some(()))
    });
    pair.send(conn, b"still here");
    let bytes = pair.wait("a message", |pair| {
        pair.right.pick(|event| if let Event::Message { bytes, .. } = event { Some(bytes.clone()) } else { None })
    });
    assert_eq!(&bytes[..], b"still here");
}

/// The peer's end is told once, after everything else; one's own is not.
pub(super) fn close_is_told_once(setup: Setup) {
    let mut pair = Pair::new(setup);
    let (a, b) = (pair.a, pair.b);
    pair.send(a, b"last words");
    pair.message(b);
    pair.left.fabric.disconnect(a);
    assert_eq!(pair.right_closed(b), CloseReason::Ended);
    let (a2, b2) = pair.connect();
    pair.send(a2, b"later");
    pair.message(b2);
    assert!(pair.left.news_of(a).is_empty(), "own disconnect is not news");
    assert!(pair.right.news_of(b).is_empty(), "told twice");
    assert_eq!(pair.right.fabric.send(b, b"x"), Err(PostError::NotConnected));
}

/// A connection whose fabric is gone has ended.
pub(super) fn a_dead_peer_is_told(setup: Setup) {
    let Pair { left, mut right, b, _keep, .. } = Pair::new(setup);
    // As by the death of its process.
    drop(left);
    let start = std::time::Instant::now();
    while right.events.is_empty() {
        right.fabric.poll(&mut right.events, Some(super::PATIENCE));
        assert!(start.elapsed() < super::PATIENCE, "no close");
    }
    let closed = &right.events[..];
    assert!(
        matches!(closed, [Event::Closed { conn, why: CloseReason::Ended }] if *conn == b),
        "{closed:?} instead of one close"
    );
}

/// After disconnect returns nothing lands, whatever was in flight.
pub(super) fn nothing_lands_after_disconnect(setup: Setup) {
    let mut pair = Pair::new(setup);
    pair.left.arena.copy_in(0, &vec![0xdd; REGION]);
    let (mut a, mut b) = (pair.a, pair.b);
    for polls in 0..12 {
        let key = pair.right.expose_all(b);
        // Some in the sender's queue, some on the way, some half landed.
        for piece in 0..4 {
            let payload = pair.left.payload(piece << 20, 1 << 20);
            match pair.left.fabric.write(a, payload, at(key, piece << 20), None) {
                Ok(()) | Err(PostError::Full) => pair.left.fabric.submit(a),
                Err(other) => panic!("{other}"),
            }
        }
        for _ in 0..polls {
            pair.poll();
        }
        pair.right.fabric.disconnect(b);
        pair.right.arena.fill_zero(0, REGION);
        assert!(pair.right.news_of(b).is_empty());
        // The sender goes on sending until it finds out.
        pair.left_closed(a);
        assert!(pair.right.is_all(0, REGION, 0), "something landed after disconnect, {polls} polls on");
        (a, b) = pair.connect();
        assert!(pair.right.is_all(0, REGION, 0), "something landed after a reconnect");
    }
}

/// After disconnect nothing is reported of that connection, whatever was in flight.
pub(super) fn no_event_after_disconnect(setup: Setup) {
    let mut pair = Pair::new(setup);
    let (mut a, mut b) = (pair.a, pair.b);
    for polls in 0..12 {
        let key = pair.right.expose_all(b);
        for number in 0..6 {
            let payload = pair.left.payload(0, 1000);
            if pair.left.fabric.write_imm(a, payload, at(key, 0), number, Some(number.into())).is_ok() {
                pair.left.fabric.submit(a);
            }
        }
        for _ in 0..polls {
            pair.poll();
        }
        pair.left.news_of(a);
        pair.right.news_of(b);
        pair.right.fabric.disconnect(b);
        pair.left.fabric.disconnect(a);
        let (next_a, next_b) = pair.connect();
        pair.send(next_a, b"next");
        pair.message(next_b);
        assert!(pair.left.news_of(a).is_empty() && pair.right.news_of(b).is_empty());
        (a, b) = (next_a, next_b);
    }
}

/// After disconnect the local slices are free: what is done to them then never arrives.
pub(super) fn disconnect_frees_local_slices(setup: Setup) {
    let mut pair = Pair::new(setup);
    let (mut a, mut b) = (pair.a, pair.b);
    for polls in 0..8 {
        let bytes = pattern(polls, REGION);
        pair.left.arena.copy_in(0, &bytes);
        pair.right.arena.fill_zero(0, REGION);
        let key = pair.right.expose_all(b);
        for piece in 0..4 {
            let payload = pair.left.payload(piece << 20, 1 << 20);
            if pair.left.fabric.write(a, payload, at(key, piece << 20), None).is_ok() {
                pair.left.fabric.submit(a);
            }
        }
        for _ in 0..polls {
            pair.left.fabric.poll(&mut pair.left.events, None);
        }
        pair.left.fabric.disconnect(a);
        pair.left.arena.copy_in(0, &vec![0xee; REGION]);
        pair.right_closed(b);
        let landed = pair.right.bytes(0, REGION);
        let strange = landed.iter().zip(&bytes).position(|(&there, &posted)| there != posted && there != 0);
        assert_eq!(strange, None, "bytes that were not there when it was posted");
        (a, b) = pair.connect();
    }
}

/// A connection can be given up while it is being made.
pub(super) fn disconnect_while_connecting(setup: Setup) {
    let mut pair = Pair::new(setup);
    let address = pair.address.clone();
    let mut given_up = BTreeSet::new();
    for _ in 0..8 {
        let conn = pair.left.fabric.connect(&address).expect("connect");
        pair.left.fabric.disconnect(conn);
        given_up.insert(conn);
    }
    pair.right.events.clear();
    let conn = pair.left.fabric.connect(&address).expect("connect");
    pair.wait("connected", |pair| {
        pair.left.pick(|event| matches!(event, Event::Connected { conn: on } if *on == conn).then_some(()))
    });
    assert!(pair.left.events.iter().all(|event| event.conn().is_none_or(|conn| !given_up.contains(&conn))));
}

/// Many connections at once: each has its own keys, order and end.
pub(super) fn many_connections(setup: Setup) {
    const COUNT: u32 = 64;
    let mut pair = Pair::new(setup);
    let ends: Vec<_> = (0..COUNT).map(|_| pair.connect()).collect();
    let keys: Vec<_> = ends.iter().zip(0..).map(|(&(_, b), at)| pair.right.expose(b, at * 64, 64)).collect();
    for round in 0..3_u32 {
        for (&(a, _), (&key, number)) in ends.iter().zip(keys.iter().zip(0_u64..)) {
            pair.write_imm(a, &pattern(number, 64), at(key, 0), round);
            pair.send(a, &round.to_le_bytes());
        }
        for (&(_, b), number) in ends.iter().zip(0_u64..) {
            assert_eq!(pair.immediate(b), round);
            assert_eq!(pair.message(b)[..], round.to_le_bytes());
            let place = usize::try_from(number * 64).expect("small");
            assert_eq!(pair.right.bytes(place, 64), pattern(number, 64));
        }
    }
    let (odd, even): (Vec<_>, Vec<_>) = ends.into_iter().zip(0..COUNT).partition(|(_, number)| number % 2 == 1);
    for ((a, b), _) in odd {
        pair.left.fabric.disconnect(a);
        assert_eq!(pair.right_closed(b), CloseReason::Ended);
    }
    for ((a, b), number) in even {
        pair.send(a, &number.to_le_bytes());
        assert_eq!(pair.message(b)[..], number.to_le_bytes());
    }
    assert!(!pair.right.events.iter().any(|event| matches!(event, Event::Closed { .. })));
}

/// A connection's id is never another's.
pub(super) fn ids_are_never_reused(setup: Setup) {
    let mut pair = Pair::new(setup);
    let (mut lefts, mut rights) = (BTreeSet::from([pair.a]), BTreeSet::from([pair.b]));
    for round in 0..20 {
        let (a, b) = pair.connect();
        assert!(lefts.insert(a) && rights.insert(b), "an id came again");
        if round % 2 == 0 {
            pair.left.fabric.disconnect(a);
            pair.right_closed(b);
        } else {
            pair.right.fabric.disconnect(b);
            pair.left_closed(a);
        }
    }
}
