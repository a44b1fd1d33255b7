//! Other descriptors in the same loop, and the poll itself.

use std::io::{PipeWriter, Read, Write, pipe};
use std::os::fd::AsFd;
use std::thread;

use super::harness::Pair;
use super::{PATIENCE, Setup};
use crate::{Event, Fabric, Interest};

/// What one poll says of watched descriptors.
fn ready(fabric: &mut dyn Fabric) -> Vec<u64> {
    let mut events = Vec::new();
    fabric.poll(&mut events, None);
    let tokens = events.iter().map(|event| match event {
        Event::Ready { token } => *token,
        other => panic!("{other:?} without a connection"),
    });
    tokens.collect()
}

/// Ready comes as long as there is something to read, and no longer.
pub(super) fn watched_descriptor_is_reported_while_ready(mut setup: Setup) {
    let fabric = &mut *setup.left;
    let (mut from, mut to) = pipe().expect("a pipe");
    fabric.watch(from.as_fd(), 7, Interest::Readable).expect("watch a pipe");
    assert!(ready(fabric).is_empty());
    to.write_all(b"xy").expect("room for two bytes");
    assert_eq!(ready(fabric), [7]);
    from.read_exact(&mut [0]).expect("one of two bytes");
    assert_eq!(ready(fabric), [7], "there is one byte more");
    from.read_exact(&mut [0]).expect("the other byte");
    assert!(ready(fabric).is_empty());
    drop(to);
    assert_eq!(ready(fabric), [7], "a broken descriptor is ready");
}

/// Room to write is told to whoever asks for it; watching again changes interest and token.
pub(super) fn watched_for_room_to_write(mut setup: Setup) {
    let fabric = &mut *setup.left;
    let (_from, to) = pipe().expect("a pipe");
    fabric.watch(to.as_fd(), 1, Interest::Readable).expect("watch a pipe");
    assert!(ready(fabric).is_empty());
    fabric.watch(to.as_fd(), 2, Interest::Writable).expect("watch it again");
    assert_eq!(ready(fabric), [2]);
    fabric.watch(to.as_fd(), 3, Interest::ReadableWritable).expect("watch it again");
    assert_eq!(ready(fabric), [3]);
    fabric.watch(to.as_fd(), 4, Interest::Readable).expect("watch it again");
    assert!(ready(fabric).is_empty());
}

/// After unwatch there is no Ready; unwatching what was not watched is nothing.
pub(super) fn unwatched_descriptor_is_not_reported(mut setup: Setup) {
    let fabric = &mut *setup.left;
    let (from, mut to) = pipe().expect("a pipe");
    fabric.unwatch(from.as_fd());
    fabric.watch(from.as_fd(), 7, Interest::Readable).expect("watch a pipe");
    to.write_all(b"x").expect("room for a byte");
    assert_eq!(ready(fabric), [7]);
    fabric.unwatch(from.as_fd());
    assert!(ready(fabric).is_empty());
    fabric.watch(from.as_fd(), 8, Interest::Readable).expect("watch it again");
    assert_eq!(ready(fabric), [8]);
}

/// A poll that sleeps is woken by a descriptor, and by the peer.
pub(super) fn a_sleeping_poll_wakes(setup: Setup) {
    let mut pair = Pair::new(setup);
    let (from, to) = pipe().expect("a pipe");
    pair.right.fabric.watch(from.as_fd(), 7, Interest::Readable).expect("watch a pipe");
    let waker = thread::spawn(move || write_one(to));
    let mut events = Vec::new();
    assert_eq!(pair.right.fabric.poll(&mut events, Some(PATIENCE)), 1);
    assert!(matches!(events[..], [Event::Ready { token: 7 }]), "{events:?}");
    let _to = waker.join().expect("a byte was written");
    pair.right.fabric.unwatch(from.as_fd());
    pair.send(pair.a, b"wake up");
    // The left one may hold the message back: it needs its polls too.
    assert_eq!(&pair.message(pair.b)[..], b"wake up");
}

fn write_one(mut to: PipeWriter) -> PipeWriter {
    to.write_all(b"x").expect("room for a byte");
    to
}

/// Poll adds to what is there, and counts what it adds.
pub(super) fn poll_counts_what_it_adds(setup: Setup) {
    let mut pair = Pair::new(setup);
    let (a, b) = (pair.a, pair.b);
    pair.send(a, b"one");
    pair.message(b);
    assert_eq!(pair.right.fabric.poll(&mut pair.right.events, None), 0);
    pair.send(a, b"two");
    let mut events = vec![Event::Ready { token: 1 }];
    let start = std::time::Instant::now();
    let mut added = 0;
    while added == 0 {
        pair.left.fabric.poll(&mut pair.left.events, None);
        added = pair.right.fabric.poll(&mut events, None);
        assert!(start.elapsed() < PATIENCE, "no message");
    }
    assert_eq!((added, events.len()), (1, 2));
    assert!(matches!(events[0], Event::Ready { token: 1 }), "what was there stays first");
}
