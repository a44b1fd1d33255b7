//! Peers that speak bytes of their own: what they send is judged frame by frame, however it is cut.
//!
//! Over unix sockets: what is written there is there at once for the other end, so the cuts are as the test makes them.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use twinsan_arena::{Arena, ArenaOptions, PagePolicy};
use twinsan_fabric::conformance::PATIENCE;
use twinsan_fabric::{CloseReason, ConnId, Event, Fabric, PostError, RegionId};
use twinsan_tcp::{RECEIVE_CREDITS, TcpFabric};

use crate::setups::fabric;

const BYTES: usize = 1 << 16;
const WRITE: u8 = 1;
const WRITE_IMM: u8 = 2;
const MESSAGE: u8 = 3;
const CREDITS: u8 = 4;

/// A fabric with a raw peer.
struct Raw {
    fabric: TcpFabric,
    arena: Arc<Arena>,
    region: RegionId,
    conn: ConnId,
    peer: UnixStream,
    _directory: TempDir,
    events: Vec<Event>,
}

impl Raw {
    fn new() -> Self {
        let mut fabric = fabric();
        let options = ArenaOptions { name: "raw".into(), bytes: BYTES, pages: PagePolicy::Small, lock: false };
        let arena = Arc::new(Arena::new(&options).expect("a small arena"));
        let region = fabric.register(Arc::clone(&arena)).expect("register");
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("s");
        fabric.listen(&format!("unix://{}", path.display())).expect("listen");
        let peer = UnixStream::connect(path).expect("connect");
        let mut events = Vec::new();
        fabric.poll(&mut events, Some(PATIENCE));
        let Some(Event::Accepted { conn }) = events.pop() else { panic!("not accepted") };
        Self { fabric, arena, region, conn, peer, events, _directory: directory }
    }

    fn expose(&mut self, offset: u64, len: u64) -> u64 {
        self.fabric.expose(self.conn, self.region, offset, len).expect("expose").0
    }

    fn say(&mut self, bytes: &[u8]) {
        self.peer.write_all(bytes).expect("say something");
    }

    /// Polls until there are `count` events, and takes them.
    fn events(&mut self, count: usize) -> Vec<Event> {
        let start = Instant::now();
        while self.events.len() < count {
            self.fabric.poll(&mut self.events, Some(Duration::from_millis(10)));
            assert!(start.elapsed() < PATIENCE, "only {:?}", self.events);
        }
        std::mem::take(&mut self.events)
    }

    /// The connection ends as the peer's fault, for a reason with `word` in it.
    fn violation(&mut self, word: &str) {
        match &self.events(1)[..] {
            [Event::Closed { why: CloseReason::Violation(why), .. }] => assert!(why.contains(word), "{why}"),
            other => panic!("{other:?}"),
        }
        let mut rest = Vec::new();
        // Closed over there too: the end, or a reset where unread bytes were thrown away.
        let end = self.peer.read_to_end(&mut rest);
        assert!(end.is_ok() || end.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset));
        assert_eq!(self.fabric.send(self.conn, b"x"), Err(PostError::NotConnected));
    }
}

/// A frame as the crate's documentation has it, made by hand.
fn frame(op: u8, imm: u32, key: u64, offset: u64, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("short");
    let mut bytes = vec![op, 0, 0, 0];
    bytes.extend(imm.to_le_bytes());
    bytes.extend(key.to_le_bytes());
    bytes.extend(offset.to_le_bytes());
    bytes.extend(len.to_le_bytes());
    bytes.extend(b"TWF1");
    bytes.extend(payload);
    bytes
}

#[test]
fn frames_may_come_in_any_pieces() {
    let mut raw = Raw::new();
    let key = raw.expose(100, 5000);
    let payload: Vec<u8> = (0..200).collect();
    let mut bytes = frame(WRITE, 0, key, 1, &payload);
    bytes.extend(frame(WRITE_IMM, 77, key, 4936, &[9; 64]));
    bytes.extend(frame(MESSAGE, 0, 0, 0, b"hello"));
    for piece in [1, 2, 31, 33, 97, bytes.len()] {
        raw.arena.fill_zero(0, BYTES);
        for part in bytes.chunks(piece) {
            raw.say(part);
            // Each part is received by itself.
            raw.fabric.poll(&mut raw.events, None);
        }
        let events = raw.events(2);
        assert!(matches!(&events[0], Event::Immediate { imm: 77, .. }), "{events:?}");
        assert!(matches!(&events[1], Event::Message { bytes, .. } if **bytes == *b"hello"), "{events:?}");
        let mut landed = [0; 200];
        raw.arena.copy_out(101, &mut landed);
        assert_eq!(landed[..], payload);
        let mut landed = [0; 64];
        raw.arena.copy_out(100 + 4936, &mut landed);
        assert_eq!(landed, [9; 64]);
    }
}

#[test]
fn what_is_no_frame_ends_the_connection() {
    let spoilt = |at: usize, value: u8| {
        let mut bytes = frame(MESSAGE, 0, 0, 0, b"");
        bytes[at] = value;
        bytes
    };
    let cases = [
        (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), "magic"),
        (spoilt(0, 9), "operation 9"),
        (spoilt(1, 1), "flags"),
        (spoilt(4, 1), "does not use"),
        (frame(CREDITS, 0, 0, 0, b"x"), "does not use"),
        (frame(MESSAGE, 0, 0, 0, &[0; 513]), "513 bytes, the limit is 512"),
        (frame(WRITE, 0, 5, 0, b"x"), "key"),
    ];
    for (bytes, word) in cases {
        let mut raw = Raw::new();
        raw.say(&bytes);
        raw.violation(word);
    }
}

#[test]
fn a_peer_can_not_land_a_byte_out_of_its_range() {
    for (offset, len) in [(0, 257), (256, 1), (257, 0), (u64::MAX, 1), (u64::MAX - 255, 256)] {
        let mut raw = Raw::new();
        let key = raw.expose(4096, 256);
        raw.say(&frame(WRITE_IMM, 1, key, offset, &vec![0xbb; len]));
        raw.violation("of a range of 256 bytes");
        assert!(raw.arena.is_zero(0, BYTES));
    }
}

#[test]
fn a_peer_without_credits_is_shown_the_door() {
    let mut raw = Raw::new();
    // One more than it may, in one breath: before any can have come back.
    let many = usize::from(RECEIVE_CREDITS) + 1;
    let mut bytes = Vec::new();
    for _ in 0..many {
        bytes.extend(frame(MESSAGE, 0, 0, 0, b""));
    }
    raw.say(&bytes);
    let start = Instant::now();
    while !matches!(raw.events.last(), Some(Event::Closed { .. })) {
        raw.fabric.poll(&mut raw.events, Some(Duration::from_millis(10)));
        assert!(start.elapsed() < PATIENCE, "not closed: {} events", raw.events.len());
    }
    assert!(raw.events.len() <= many, "the message without a credit was delivered");
    assert!(matches!(raw.events.last(), Some(Event::Closed { why: CloseReason::Violation(_), .. })));
}

#[test]
fn made_up_credits_end_the_connection() {
    let mut raw = Raw::new();
    let mut bytes = frame(CREDITS, 0, 0, 0, b"");
    bytes[2] = 1;
    raw.say(&bytes);
    raw.violation("credits given back");
}

/// A sender has exactly [`RECEIVE_CREDITS`] to begin with; the rest of its slots fill up, then posts are refused.
#[test]
fn a_silent_receiver_gets_exactly_its_credits() {
    let mut raw = Raw::new();
    let depth = raw.fabric.limits().send_depth;
    let mut taken = 0;
    while raw.fabric.send(raw.conn, b"x").is_ok() {
        raw.fabric.submit(raw.conn);
        raw.fabric.poll(&mut raw.events, None);
        taken += 1;
    }
    assert_eq!(taken, usize::from(RECEIVE_CREDITS) + depth);
    let mut came = vec![0; 33 * usize::from(RECEIVE_CREDITS)];
    raw.peer.read_exact(&mut came).expect("the messages with a credit");
    raw.peer.set_nonblocking(true).expect("an option");
    assert!(
        raw.peer.read(&mut [0]).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock),
        "more than its credits"
    );
    raw.peer.set_nonblocking(false).expect("an option");
    // One credit back, one message out.
    let mut one = frame(CREDITS, 0, 0, 0, b"");
    one[2] = 1;
    raw.say(&one);
    let mut next = [0; 33];
    let start = Instant::now();
    raw.peer.set_read_timeout(Some(Duration::from_millis(1))).expect("an option");
    while raw.peer.read_exact(&mut next).is_err() {
        raw.fabric.poll(&mut raw.events, None);
        assert!(start.elapsed() < PATIENCE, "the credit brought nothing");
    }
    assert_eq!((next[0], next[32]), (MESSAGE, b'x'));
}

/// A peer that breaks off in the middle of a frame has ended; nothing of it is reported.
#[test]
fn a_frame_cut_short_is_an_end() {
    for keep in [1, 31, 32, 40] {
        let mut raw = Raw::new();
        let key = raw.expose(0, 4096);
        raw.say(&frame(WRITE_IMM, 1, key, 0, &[1; 64])[..keep]);
        raw.peer.shutdown(std::net::Shutdown::Both).expect("an end");
        let events = raw.events(1);
        assert!(matches!(events[..], [Event::Closed { why: CloseReason::Ended, .. }]), "{events:?}");
    }
}
