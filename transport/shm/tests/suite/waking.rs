//! Whoever sleeps is woken by its peer; and memory that can't be lent is not posted from.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;

use twinsan_arena::{Arena, ArenaOptions, PagePolicy};
use twinsan_fabric::conformance::PATIENCE;
use twinsan_fabric::{
    CloseReason, ConnId, Event, Fabric, LocalSlice, Payload, PostError, RegionId, RemoteAddr, RemoteKey,
};
use twinsan_shm::{LIMITS, ShmFabric};

use crate::setups::fabric;

fn arena(lendable: bool) -> Arc<Arena> {
    let options = ArenaOptions { name: "mine".into(), bytes: 1 << 20, pages: PagePolicy::Small, lock: false };
    let arena = if lendable { Arena::lendable(&options) } else { Arena::new(&options) };
    Arc::new(arena.expect("memory for a test"))
}

/// A fabric that is polled only in order to sleep.
struct Sleeper {
    fabric: ShmFabric,
    events: VecDeque<Event>,
}

impl Sleeper {
    fn new() -> (Self, RegionId) {
        let mut fabric = fabric();
        let region = fabric.register(arena(true)).expect("any arena can be registered");
        (Self { fabric, events: VecDeque::new() }, region)
    }

    /// The next event.
    fn next(&mut self) -> Event {
        if self.events.is_empty() {
            let mut events = Vec::new();
            assert!(self.fabric.poll(&mut events, Some(PATIENCE)) > 0, "it was not woken");
            self.events.extend(events);
        }
        self.events.pop_front().expect("one at least")
    }
}

/// Two that only ever poll in order to sleep wake each other up: by messages, by writes, and by taking a signalled post.
#[test]
fn sleepers_wake_each_other() {
    const ROUNDS: u64 = 200;
    let folder = tempfile::tempdir().expect("a folder");
    let address = format!("shm://{}", folder.path().join("fabric.shm").display());
    let (listening, listens) = channel();
    let there = address.clone();
    let answerer = thread::spawn(move || {
        let (mut sleeper, region) = Sleeper::new();
        sleeper.fabric.listen(&there).expect("a folder to listen in");
        listening.send(()).expect("somebody waits for it");
        let Event::Accepted { conn } = sleeper.next() else { panic!("nobody came") };
        let RemoteKey(key) = sleeper.fabric.expose(conn, region, 0, 8).expect("a range");
        let answer = |sleeper: &mut Sleeper, bytes: &[u8]| {
            sleeper.fabric.send(conn, bytes).expect("a free slot");
            sleeper.fabric.submit(conn);
        };
        answer(&mut sleeper, &key.to_le_bytes());
        let mut seen = 0;
        loop {
            match sleeper.next() {
                Event::Immediate { imm, .. } => {
                    assert_eq!(u64::from(imm), seen, "each once, in order");
                    seen += 1;
                    answer(&mut sleeper, &imm.to_le_bytes());
                }
                Event::Closed { why: CloseReason::Ended, .. } => return seen,
                other => panic!("{other:?}"),
            }
        }
    });
    listens.recv().expect("it listens");
    let (mut sleeper, region) = Sleeper::new();
    let conn = sleeper.fabric.connect(&address).expect("an address");
    assert!(matches!(sleeper.next(), Event::Connected { .. }));
    let Event::Message { bytes, .. } = sleeper.next() else { panic!("no key") };
    let key = RemoteKey(u64::from_le_bytes(bytes[..].try_into().expect("eight bytes")));
    for round in 0..ROUNDS {
        let from = Payload::Region(LocalSlice { region, offset: round, len: 8 });
        let imm = u32::try_from(round).expect("few");
        sleeper.fabric.write_imm(conn, from, RemoteAddr { key, offset: 0 }, imm, Some(round)).expect("a free slot");
        sleeper.fabric.submit(conn);
        // The completion and the answer, in whichever order they come.
        let both = [sleeper.next(), sleeper.next()];
        let sent = |event: &Event| matches!(event, Event::Sent { work, .. } if *work == round);
        let answer = |event: &Event| matches!(event, Event::Message { bytes, .. } if bytes[..] == imm.to_le_bytes());
        assert!(both.iter().any(sent) && both.iter().any(answer), "{both:?}");
    }
    sleeper.fabric.disconnect(conn);
    assert_eq!(answerer.join().expect("it has seen nothing strange"), ROUNDS);
}

/// Contract 7: what is unsolicited waits for the sleeper's own time, and what is solicited behind it wakes the sleeper for both.
#[test]
fn a_sleeper_finds_what_is_unsolicited_when_it_wakes_up() {
    const ROUNDS: u32 = 200;
    let folder = tempfile::tempdir().expect("a folder");
    let address = format!("shm://{}", folder.path().join("fabric.shm").display());
    let (listening, listens) = channel();
    let there = address.clone();
    let answerer = thread::spawn(move || {
        let (mut sleeper, _) = Sleeper::new();
        sleeper.fabric.listen(&there).expect("a folder to listen in");
        listening.send(()).expect("somebody waits for it");
        let Event::Accepted { conn } = sleeper.next() else { panic!("nobody came") };
        let mut seen = 0_u32;
        loop {
            match sleeper.next() {
                Event::Message { bytes, .. } => {
                    assert_eq!(bytes[..], seen.to_le_bytes(), "each once, in order");
                    seen += 1;
                    // Of three, two are unsolicited; so the next is not sent before this one has been seen.
                    if seen.is_multiple_of(3) {
                        sleeper.fabric.send(conn, &seen.to_le_bytes()).expect("a free slot");
                        sleeper.fabric.submit(conn);
                    }
                }
                Event::Closed { why: CloseReason::Ended, .. } => return seen,
                other => panic!("{other:?}"),
            }
        }
    });
    listens.recv().expect("it listens");
    let (mut sleeper, _) = Sleeper::new();
    let conn = sleeper.fabric.connect(&address).expect("an address");
    assert!(matches!(sleeper.next(), Event::Connected { .. }));
    for round in 0..ROUNDS {
        for word in 3 * round..3 * round + 3 {
            sleeper.fabric.send(conn, &word.to_le_bytes()).expect("a free slot");
            if word % 3 == 2 {
                sleeper.fabric.submit(conn);
            } else {
                sleeper.fabric.submit_unsolicited(conn);
            }
        }
        let Event::Message { bytes, .. } = sleeper.next() else { panic!("no answer") };
        assert_eq!(bytes[..], (3 * round + 3).to_le_bytes());
    }
    sleeper.fabric.disconnect(conn);
    assert_eq!(answerer.join().expect("it has seen nothing strange"), 3 * ROUNDS);
}

/// It says so, and whose memory it is.
#[test]
fn private_memory_is_not_posted_from() {
    let folder = tempfile::tempdir().expect("a folder");
    let address = format!("shm://{}", folder.path().join("fabric.shm").display());
    let (mut left, mut right) = (fabric(), fabric());
    right.listen(&address).expect("a folder to listen in");
    let region = left.register(arena(false)).expect("any arena can be registered");
    let conn = left.connect(&address).expect("an address");
    let mut events = Vec::new();
    while !matches!(events[..], [Event::Connected { conn: on }] if on == conn) {
        right.poll(&mut Vec::new(), None);
        left.poll(&mut events, None);
    }
    let payload = Payload::Region(LocalSlice { region, offset: 0, len: 8 });
    let to = RemoteAddr { key: RemoteKey(1), offset: 0 };
    assert_eq!(left.write(conn, payload, to, None), Err(PostError::NotConnected));
    events.clear();
    left.poll(&mut events, None);
    let told = |why: &CloseReason| why.to_string().contains("arena \"mine\" is private");
    assert!(matches!(&events[..], [Event::Closed { conn: ConnId(_), why }] if told(why)), "{events:?}");
    assert_eq!(left.limits().send_depth, LIMITS.send_depth);
}

/// A connection that has been quiet for thousands of polls, while another was busy, is not looked at any more; and still nothing
/// that comes by it is missed, nor what becomes of what is posted on it.
#[test]
fn a_quiet_connection_is_heard_again_beside_a_busy_one() {
    const QUIET_POLLS: u32 = 5000;
    let folder = tempfile::tempdir().expect("a folder");
    let address = format!("shm://{}", folder.path().join("fabric.shm").display());
    let (mut left, mut right) = (fabric(), fabric());
    right.listen(&address).expect("a folder to listen in");
    let conns = [left.connect(&address).expect("an address"), left.connect(&address).expect("an address")];
    let (mut events, mut theirs) = (Vec::new(), Vec::new());
    while events.len() < 2 || theirs.len() < 2 {
        right.poll(&mut theirs, None);
        left.poll(&mut events, None);
    }
    let accepted: Vec<ConnId> = theirs.drain(..).filter_map(|event| event.conn()).collect();
    let message = |fabric: &mut ShmFabric, conn, word: u32| {
        fabric.send(conn, &word.to_le_bytes()).expect("a free slot");
        fabric.submit(conn);
    };
    let unsolicited = |fabric: &mut ShmFabric, conn, word: u32| {
        fabric.send(conn, &word.to_le_bytes()).expect("a free slot");
        fabric.submit_unsolicited(conn);
    };
    // The next message of `fabric` within so many polls that don't wait.
    let next = |fabric: &mut ShmFabric, polls| {
        let mut events = Vec::new();
        (0..polls).find_map(|_| {
            fabric.poll(&mut events, None);
            events.drain(..).find_map(|event| match event {
                Event::Message { conn, bytes } => Some((conn, u32::from_le_bytes(bytes[..].try_into().expect("4")))),
                _ => None,
            })
        })
    };
    let [busy, quiet] = [0, 1];
    for word in 0..QUIET_POLLS {
        message(&mut right, accepted[busy], word);
        assert_eq!(next(&mut left, 64), Some((conns[busy], word)));
        message(&mut left, conns[busy], word);
        assert_eq!(next(&mut right, 64), Some((accepted[busy], word)));
    }
    unsolicited(&mut right, accepted[quiet], 1);
    assert_eq!(next(&mut left, 64), Some((conns[quiet], 1)), "cold at both ends: nobody looks before it is told to");
    message(&mut left, conns[quiet], 2);
    assert_eq!(next(&mut right, 64), Some((accepted[quiet], 2)), "one end has spoken");
    // It ends while it is not looked at.
    for word in 0..QUIET_POLLS {
        message(&mut right, accepted[busy], word);
        assert_eq!(next(&mut left, 64), Some((conns[busy], word)));
        right.poll(&mut theirs, None);
    }
    right.disconnect(accepted[quiet]);
    events.clear();
    for _ in 0..64 {
        left.poll(&mut events, None);
    }
    let ended =
        |event: &Event| matches!(event, Event::Closed { conn, why: CloseReason::Ended } if *conn == conns[quiet]);
    assert!(matches!(&events[..], [event] if ended(event)), "{events:?}");
}
