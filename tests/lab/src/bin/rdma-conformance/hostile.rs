//! Peers that speak verbs and break our rules, and the bare queue pair that they are made of.

use std::thread;
use std::time::{Duration, Instant};

use twinsan_fabric::conformance::{PATIENCE, Setup};
use twinsan_fabric::{CloseReason, Event, Fabric};
use twinsan_verbs::raw::{RawEnd, RawListener, Shape, Wait};
use twinsan_verbs::{RECEIVE_CREDITS, VerbsFabric, VerbsOptions};

/// The private data of a peer that gives 256 credits.
const GREETING: &[u8] = b"TwRv\x01\x0c\x00\x01\0\0\0\0";
/// A message without bytes.
const MESSAGE: &[u8] = &[1, 0, 0, 0];

/// What a connected peer does.
type Deed = fn(&mut RawEnd);

/// Polls a fabric while `peer` does its worst on a thread of its own; returns what the fabric has to say of it.
fn against(fabric: &mut dyn Fabric, peer: impl FnOnce() + Send + 'static) -> Vec<Event> {
    let peer = thread::spawn(peer);
    let (mut events, start) = (Vec::new(), Instant::now());
    while !peer.is_finished() {
        fabric.poll(&mut events, Some(Duration::from_millis(1)));
        assert!(start.elapsed() < PATIENCE, "{events:?}");
    }
    peer.join().expect("the peer's own checks");
    let end = Instant::now() + Duration::from_millis(300);
    while Instant::now() < end && !matches!(events.last(), Some(Event::Closed { .. })) {
        fabric.poll(&mut events, Some(Duration::from_millis(10)));
    }
    events
}

/// Private data that is not ours, or another version's: turned away, and nobody hears of it.
pub(crate) fn strangers_are_turned_away(setup: Setup) {
    let Setup { mut right, address, .. } = setup;
    let address = right.listen(&address).expect("listen");
    let no_credits = b"TwRv\x01\x0c\0\0\0\0\0\0";
    let strangers: [&[u8]; 5] =
        [b"", b"hello", b"TwRv\x02\x0c\x00\x01\0\0\0\0", b"TwRv\x01\x0c\x00\x01\0\0\0\x07", no_credits];
    for stranger in strangers {
        let to = address.clone();
        let events = against(&mut *right, move || {
            let error = RawEnd::connect_with(&to, Some(stranger)).expect_err("it must be turned away");
            assert!(error.to_string().contains("Rejected"), "{error}");
        });
        assert!(events.is_empty(), "{events:?} of {stranger:?}");
    }
}

/// Peers that ask and never confirm, more of them than there may be: those beyond are turned away, as by somebody who is
/// gone, and nobody hears of any. When one has confirmed there is room for the next.
pub(crate) fn requests_without_end_are_turned_away(setup: Setup) {
    const MOST: usize = 64;
    let Setup { address, .. } = setup;
    // None is given up meanwhile, however slow the machine is.
    let options = VerbsOptions { connect_timeout: Duration::from_secs(60), ..VerbsOptions::default() };
    let mut right = VerbsFabric::new(options).unwrap_or_else(|e| panic!("{e}"));
    let address = right.listen(&address).expect("listen");
    let events = against(&mut right, move || {
        let knock = |_| RawEnd::knock(&address, Some(GREETING)).expect("a request");
        let mut ends: Vec<RawEnd> = (0..MOST + 1).map(knock).collect();
        let error = ends[MOST].answered().expect_err("one too many");
        assert!(error.to_string().contains("Rejected"), "{error}");
        ends[0].answered().expect("room for it");
        ends[0].send(MESSAGE).and_then(|()| ends[0].flush(Wait::Yield)).expect("a good message");
        knock(0).answered().expect("room for another");
    });
    let accepted = events.iter().filter(|event| matches!(event, Event::Accepted { .. })).count();
    assert!((1..=2).contains(&accepted), "{events:?}");
}

/// Peers that are let in and then break a rule: closed, as their fault, whatever came before.
pub(crate) fn rule_breakers_are_shown_the_door(setup: Setup) {
    let Setup { mut right, address, .. } = setup;
    let address = right.listen(&address).expect("listen");
    let deeds: [(&str, Deed); 9] = [
        ("no message at all", |end| end.send(&[]).expect("a post")),
        ("an unknown kind", |end| end.send(&[9, 0, 0, 0]).expect("a post")),
        ("a reserved byte", |end| end.send(&[1, 1, 0, 0]).expect("a post")),
        ("credits that it never had", |end| end.send(&[2, 0, 1, 0]).expect("a post")),
        ("no credits in a message for them", |end| end.send(&[2, 0, 0, 0]).expect("a post")),
        ("an empty write to nowhere", |end| {
            let mut bytes = [0; 20];
            bytes[0] = 3;
            end.send(&bytes).expect("a post");
        }),
        ("a message cut short", |end| end.send(&[4, 0, 0, 0, 0]).expect("a post")),
        ("a write with a guessed key", |end| {
            let to = twinsan_verbs::raw::Target { address: 0x20_0000, key: 0x100 };
            end.write(to, 64, Some(1)).expect("a post");
        }),
        ("an immediate without bytes, and so without a key", |end| {
            let to = twinsan_verbs::raw::Target { address: 0, key: 0 };
            end.write(to, 0, Some(1)).expect("a post");
        }),
    ];
    for (what, deed) in deeds {
        let to = address.clone();
        let events = against(&mut *right, move || {
            let mut end = RawEnd::connect_with(&to, Some(GREETING)).expect("a good greeting");
            end.send(MESSAGE).expect("a post");
            end.flush(Wait::Yield).expect("a good message");
            deed(&mut end);
            // Until it is thrown out, or what it did was taken in.
            let _ = end.flush(Wait::Yield);
            thread::sleep(Duration::from_millis(50));
        });
        let good = |event: &Event| matches!(event, Event::Accepted { .. } | Event::Message { .. });
        let closed = |event: &Event| matches!(event, Event::Closed { why: CloseReason::Violation(_), .. });
        assert!(events.len() == 3 && events[..2].iter().all(good) && closed(&events[2]), "{what}: {events:?}");
    }
}

/// A peer that sends on without credits, to a program that takes nothing in: it comes as far as there are receives, and its own
/// device stops it. What had come is delivered, and the fabric is unharmed.
pub(crate) fn who_has_no_credits_is_stopped(setup: Setup) {
    let Setup { mut right, address, .. } = setup;
    let address = right.listen(&address).expect("listen");
    let (told, connected) = std::sync::mpsc::channel();
    let peer = thread::spawn(move || {
        let mut end = RawEnd::connect_with(&address, Some(GREETING)).expect("a good greeting");
        told.send(()).expect("the test waits");
        let mut taken = 0;
        while end.send(MESSAGE).and_then(|()| end.flush(Wait::Yield)).is_ok() {
            taken += 1;
            assert!(taken < 4 * usize::from(RECEIVE_CREDITS), "it was never stopped");
        }
        taken
    });
    let (mut events, start) = (Vec::new(), Instant::now());
    while connected.try_recv().is_err() {
        right.poll(&mut events, None);
        assert!(start.elapsed() < PATIENCE && !peer.is_finished(), "not connected");
    }
    let taken = peer.join().expect("it was stopped");
    while !matches!(events.last(), Some(Event::Closed { .. })) {
        right.poll(&mut events, Some(Duration::from_millis(10)));
        assert!(start.elapsed() < PATIENCE, "its end is not told");
    }
    let messages = events.iter().filter(|event| matches!(event, Event::Message { .. })).count();
    assert!(messages >= usize::from(RECEIVE_CREDITS) && messages <= taken, "{messages} of {taken} messages");
}

/// The bare queue pair's round trips move what they say, in every way of waiting.
pub(crate) fn bare_round_trips(setup: Setup) {
    let Setup { address, .. } = setup;
    let listener = RawListener::bind(&address).expect("bind");
    let to = listener.address().to_owned();
    let asking = thread::spawn(move || {
        let mut end = RawEnd::connect(&to).expect("connect");
        for wait in [Wait::Yield, Wait::Sleep(Duration::from_micros(50))] {
            for shape in [(0, 0), (4096, 0), (4096, 4096), (1 << 20, 0), (0, 1 << 20)] {
                let shape = Shape { payload: shape.0, answer: shape.1 };
                for _ in 0..40 {
                    end.ask(shape, wait).expect("a round trip");
                }
            }
        }
    });
    let mut end = listener.accept().expect("accept");
    let mut answered = 0;
    while end.answer(Wait::Sleep(Duration::from_micros(50))).is_ok() {
        answered += 1;
    }
    asking.join().expect("all round trips");
    assert_eq!(answered, 400);
}
