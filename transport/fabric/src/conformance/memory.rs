//! Contracts 2 and 3: whose the memory is, and the doorbell.

use super::Setup;
use super::harness::{Pair, at, pattern};
use crate::{Event, Payload};

/// An inline payload is copied at the post.
pub(super) fn inline_payload_is_copied_at_the_post(setup: Setup) {
    let mut pair = Pair::new(setup);
    let (a, b) = (pair.a, pair.b);
    let key = pair.right.expose_all(b);
    let mut bytes = pattern(1, 64);
    pair.left.fabric.write_imm(a, Payload::Inline(&bytes), at(key, 0), 1, None).expect("a post");
    bytes.fill(0xee);
    pair.left.fabric.submit(a);
    pair.immediate(b);
    assert_eq!(pair.right.bytes(0, 64), pattern(1, 64));
}

/// Nothing leaves before the doorbell of its own connection.
pub(super) fn nothing_leaves_before_submit(setup: Setup) {
    let mut pair = Pair::new(setup);
    let (a, b) = (pair.a, pair.b);
    let (a2, b2) = pair.connect();
    let key = pair.right.expose_all(b);
    pair.left.fabric.write_imm(a, Payload::Inline(&[1; 64]), at(key, 0), 1, Some(9)).expect("a post");
    pair.left.fabric.send(a, b"early?").expect("a post");
    // Enough traffic elsewhere that what had left would have come.
    for number in 0..200_u32 {
        pair.send(a2, &number.to_le_bytes());
        assert_eq!(pair.message(b2)[..], number.to_le_bytes());
    }
    assert!(pair.right.news_of(b).is_empty() && pair.left.news_of(a).is_empty());
    assert!(pair.right.is_all(0, 64, 0));
    pair.left.fabric.submit(a);
    assert_eq!(pair.immediate(b), 1);
    assert_eq!(&pair.message(b)[..], b"early?");
    assert_eq!(pair.sent(a), 9);
}

/// After Sent the memory is the caller's: changing it changes nothing over there.
pub(super) fn memory_is_free_after_sent(setup: Setup) {
    // More than a socket's buffers hold: what has been posted is not gone yet.
    const LEN: u32 = 1 << 20;
    const ROUNDS: u64 = 12;
    let mut pair = Pair::new(setup);
    let (a, b) = (pair.a, pair.b);
    let key = pair.right.expose_all(b);
    let mut seen = 0;
    for round in 0..ROUNDS {
        pair.left.arena.copy_in(0, &pattern(round, LEN as usize));
        // Three places over there, so that a late read would be seen in the place before.
        let (from, place) = (pair.left.payload(0, LEN), (round % 3) * u64::from(LEN));
        let imm = u32::try_from(round).expect("small");
        pair.post(a, |left| left.fabric.write_imm(a, from, at(key, place), imm, Some(round)));
        assert_eq!(pair.sent(a), round);
        pair.left.arena.copy_in(0, &vec![0xee; LEN as usize]);
        // Looked at before the place is written again.
        while seen + 2 <= round {
            check(&mut pair, &mut seen, LEN);
        }
    }
    while seen < ROUNDS {
        check(&mut pair, &mut seen, LEN);
    }
}

fn check(pair: &mut Pair, seen: &mut u64, len: u32) {
    let imm = pair.immediate(pair.b);
    assert_eq!(u64::from(imm), *seen);
    let place = usize::try_from(*seen % 3).expect("small") * len as usize;
    assert!(pair.right.bytes(place, len as usize) == pattern(*seen, len as usize), "round {seen} was overwritten");
    *seen += 1;
}

/// A Sent frees the memory of every earlier post on its connection too.
pub(super) fn sent_covers_earlier_posts(setup: Setup) {
    let mut pair = Pair::new(setup);
    let (a, b) = (pair.a, pair.b);
    let key = pair.right.expose_all(b);
    let bytes = pattern(3, 4 << 20);
    pair.left.arena.copy_in(0, &bytes);
    for piece in 0..4_u64 {
        let from = pair.left.slice(piece << 20, 1 << 20);
        pair.write(a, from, at(key, piece << 20), (piece == 3).then_some(77));
    }
    assert_eq!(pair.sent(a), 77);
    pair.left.arena.fill_zero(0, 4 << 20);
    pair.send(a, b"look");
    pair.message(b);
    assert!(pair.right.bytes(0, 4 << 20) == bytes);
}

/// Every signalled post completes once, in post order, and no other does.
pub(super) fn completions_come_once_and_in_order(setup: Setup) {
    const COUNT: u64 = 300;
    let mut pair = Pair::new(setup);
    let (a, b) = (pair.a, pair.b);
    let key = pair.right.expose_all(b);
    for number in 0..COUNT {
        let (from, signal) = (pair.left.payload(0, 512), (number % 2 == 0).then_some(number));
        if number % 3 == 0 {
            pair.post(a, |left| left.fabric.write_imm(a, from, at(key, 0), 5, signal));
        } else {
            pair.post(a, |left| left.fabric.write(a, from, at(key, 0), signal));
        }
    }
    let mut works = Vec::new();
    pair.wait("all completions", |pair| {
        works.extend(pair.left.news_of(a).into_iter().map(|event| match event {
            Event::Sent { work, .. } => work,
            other => panic!("{other:?} at the sender"),
        }));
        (works.last() == Some(&(COUNT - 2))).then_some(())
    });
    assert!(works.iter().copied().eq((0..COUNT).step_by(2)), "{works:?}");
}

/// Sent says nothing about the receiving program, which takes nothing here of what its fabric has found.
pub(super) fn sent_says_nothing_about_the_receiver(setup: Setup) {
    let mut pair = Pair::new(setup);
    let (a, b) = (pair.a, pair.b);
    let key = pair.right.expose_all(b);
    for round in 0..100 {
        let from = pair.left.payload(0, 4096);
        pair.post(a, |left| left.fabric.write_imm(a, from, at(key, 0), 1, Some(round)));
        assert_eq!(pair.sent(a), round);
    }
}

/// Where the wire or the kernel carries a write, Sent needs nothing at all of the receiver, not even that its fabric is
/// polled. Not one of [`TESTS`](super::TESTS), as it is no line of the contract.
///
/// # Panics
/// If the fabric fails it.
pub fn sent_needs_no_receiver(setup: Setup) {
    let mut pair = Pair::new(setup);
    let (a, b) = (pair.a, pair.b);
    let key = pair.right.expose_all(b);
    let from = pair.left.payload(0, 4096);
    pair.left.fabric.write(a, from, at(key, 0), Some(5)).expect("a post");
    pair.left.fabric.submit(a);
    let left = &mut pair.left;
    let start = std::time::Instant::now();
    while left.events.is_empty() {
        left.fabric.poll(&mut left.events, Some(super::PATIENCE));
        assert!(start.elapsed() < super::PATIENCE, "no completion without the receiver");
    }
    assert!(matches!(left.events[..], [Event::Sent { work: 5, .. }]), "{:?}", left.events);
    assert!(pair.right.events.is_empty());
}
