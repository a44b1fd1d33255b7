//! Peers that write what they like into the rings, and send what they like by the socket: whatever it is, the connection
//! ends as their fault, and nothing has landed.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketType, connect, recv, recvmsg, sendmsg, socket,
};
use tempfile::TempDir;
use twinsan_arena::{Arena, ArenaOptions, PagePolicy};
use twinsan_fabric::conformance::PATIENCE;
use twinsan_fabric::{CloseReason, ConnId, Event, Fabric, RegionId, RemoteKey};
use twinsan_shm::ShmFabric;

use crate::setups::fabric;

const BYTES: usize = 1 << 16;
const SLOT: usize = 576;
const SLOTS: usize = 512;
const DIRECTION: usize = 128 + SLOTS * SLOT;
/// Words of the direction that the raw peer sends by, and of the other one.
const TAIL: usize = 0;
const CLOSED: usize = 8;
const ASLEEP: usize = 16;
const HEAD: usize = DIRECTION + 64;

/// A fabric with a raw peer that has connected to it.
struct Raw {
    fabric: ShmFabric,
    arena: Arc<Arena>,
    region: RegionId,
    conn: ConnId,
    socket: OwnedFd,
    rings: Arena,
    posted: u64,
    _folder: TempDir,
}

fn memory(bytes: usize, lendable: bool) -> Arena {
    let options = ArenaOptions { name: "raw".into(), bytes, pages: PagePolicy::Small, lock: false };
    let arena = if lendable { Arena::lendable(&options) } else { Arena::common(&options) };
    arena.expect("memory for a test")
}

impl Raw {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("fabric.shm");
        let mut fabric = fabric();
        let arena = Arc::new(memory(BYTES, true));
        let region = fabric.register(Arc::clone(&arena)).expect("an arena");
        fabric.listen(&format!("shm://{}", path.display())).expect("a folder to listen in");
        let socket = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).expect("a socket");
        connect(&socket, &SocketAddrUnix::new(&path).expect("a short path")).expect("it listens");
        let mut events = Vec::new();
        fabric.poll(&mut events, Some(PATIENCE));
        let [Event::Accepted { conn }] = events[..] else { panic!("{events:?}") };
        let rings = Arena::join("rings", receive_rings(&socket), 2 * DIRECTION).expect("as documented");
        Self { fabric, arena, region, conn, socket, rings, posted: 0, _folder: folder }
    }

    fn expose(&mut self) -> RemoteKey {
        self.fabric.expose(self.conn, self.region, 0, BYTES as u64).expect("a range")
    }

    /// Puts a post into the next slot, and rings for it.
    fn post(&mut self, header: &[u8; 64], inline: &[u8]) {
        let slot = 128 + usize::try_from(self.posted).expect("few") % SLOTS * SLOT;
        self.rings.copy_in(slot, header);
        self.rings.copy_in(slot + 64, inline);
        self.posted += 1;
        self.rings.word(TAIL).store(self.posted, SeqCst);
    }

    fn packet(&self, bytes: &[u8], file: Option<BorrowedFd<'_>>) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let files = [file.unwrap_or_else(|| self.socket.as_fd())];
        if file.is_some() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(&files)));
        }
        sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL).expect("room for a packet");
    }

    /// Lends `memory` as region 7, and says that it has so many bytes.
    fn lend(&self, memory: BorrowedFd<'_>, bytes: u64) {
        let mut packet = vec![2, 7, 0, 0, 0];
        packet.extend(bytes.to_le_bytes());
        self.packet(&packet, Some(memory));
    }

    /// All that the fabric has to say, up to the end of the connection: why that is.
    fn end(mut self) -> (Vec<Event>, CloseReason) {
        let (start, mut events) = (Instant::now(), Vec::new());
        loop {
            self.fabric.poll(&mut events, Some(PATIENCE));
            if let Some(at) = events.iter().position(|event| matches!(event, Event::Closed { .. })) {
                let Event::Closed { why, .. } = events.remove(at) else { unreachable!("just looked at") };
                assert!(self.arena.is_zero(0, BYTES), "something has landed");
                return (events, why);
            }
            assert!(start.elapsed() < PATIENCE, "it goes on: {events:?}");
        }
    }

    /// It ends as the peer's fault, with `word` in the reason, and nothing else has come of it.
    fn must_be_cut_off(self, word: &str) {
        let (events, why) = self.end();
        assert!(matches!(&why, CloseReason::Violation(told) if told.contains(word)), "{why:?} instead of {word}");
        assert!(events.is_empty(), "{events:?}");
    }
}

fn receive_rings(socket: &OwnedFd) -> OwnedFd {
    let mut bytes = [0; 64];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::empty()).expect("rings");
    assert_eq!(bytes[..got.bytes], [b"TWS1".as_slice(), &u32::try_from(2 * DIRECTION).unwrap().to_le_bytes()].concat());
    let mut files = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    files.next().expect("a descriptor")
}

/// A write with immediate 9 of 64 bytes from `from` of region 7.
fn write_imm(RemoteKey(key): RemoteKey, from: u64) -> [u8; 64] {
    let mut header = [0; 64];
    header[..2].copy_from_slice(&[2, 1]);
    header[4] = 9;
    header[8..16].copy_from_slice(&key.to_le_bytes());
    header[24] = 64;
    header[28] = 7;
    header[32..40].copy_from_slice(&from.to_le_bytes());
    header
}

#[test]
fn counts_that_can_not_be_are_seen() {
    for (word, value, told) in [
        (TAIL, SLOTS as u64 + 1, "513 posts"),
        (TAIL, u64::MAX, "posts, of which 0 are taken"),
        (HEAD, 1, "1 posts taken, of 0"),
        (HEAD, u64::MAX, "posts taken, of 0"),
    ] {
        let raw = Raw::new();
        raw.rings.word(word).store(value, SeqCst);
        raw.packet(&[1], None);
        raw.must_be_cut_off(told);
    }
}

#[test]
fn a_count_that_goes_back_is_seen() {
    let mut raw = Raw::new();
    for _ in 0..2 {
        raw.fabric.send(raw.conn, b"to be taken").expect("a free slot");
    }
    raw.fabric.submit(raw.conn);
    raw.rings.word(HEAD).store(2, SeqCst);
    raw.fabric.poll(&mut Vec::new(), None);
    raw.rings.word(HEAD).store(1, SeqCst);
    raw.packet(&[1], None);
    raw.must_be_cut_off("1 posts taken, of 2, after 2");
}

#[test]
fn posts_that_are_none_are_refused() {
    let mut header = [0; 64];
    header[0] = 3;
    for (at, value, told) in
        [(0, 0, "operation 0"), (1, 1, "not in its slot"), (26, 1, "in a slot"), (63, 1, "does not use")]
    {
        let mut raw = Raw::new();
        let mut bad = header;
        bad[at] = value;
        raw.post(&bad, b"");
        raw.packet(&[1], None);
        raw.must_be_cut_off(told);
    }
}

#[test]
fn packets_that_are_none_are_refused() {
    let some = memory(BYTES, true);
    for (bytes, file, told) in [
        (&b"GET /"[..], None, "a packet [47, 45"),
        (&[1, 1], None, "without a descriptor"),
        // Nothing has been exposed: what is lent is dropped by the kernel.
        (&[2, 7, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0], some.file(), "without a descriptor"),
    ] {
        let raw = Raw::new();
        raw.packet(bytes, file);
        raw.must_be_cut_off(told);
    }
    let mut raw = Raw::new();
    raw.expose();
    raw.packet(&[b"TWS1".as_slice(), &u32::try_from(2 * DIRECTION).unwrap().to_le_bytes()].concat(), some.file());
    raw.must_be_cut_off("rings, which are there already");
}

#[test]
fn only_sealed_memory_is_borrowed() {
    let (sealed, other) = (memory(BYTES, true), memory(BYTES, false));
    let file = tempfile::tempfile().expect("a file");
    for (memory, bytes, told) in [
        (other.file().expect("it is shared"), BYTES as u64, "not sealed"),
        (file.as_fd(), BYTES as u64, "no memfd"),
        (sealed.file().expect("it is shared"), BYTES as u64 + 1, "65537 were said"),
        (sealed.file().expect("it is shared"), u64::MAX, "were said"),
        (sealed.file().expect("it is shared"), 0, "0 were said"),
    ] {
        let mut raw = Raw::new();
        raw.expose();
        raw.lend(memory, bytes);
        raw.must_be_cut_off(told);
    }
}

#[test]
fn posts_from_what_was_not_lent_are_refused() {
    let lent = memory(BYTES, true);
    lent.copy_in(0, &[0xbb; BYTES]);
    for (from, lends, told) in [
        (0, false, "region 7, which was not lent"),
        (BYTES as u64 - 63, true, "64 bytes from outside of region 7"),
        (u64::MAX - 10, true, "64 bytes from outside"),
    ] {
        let mut raw = Raw::new();
        let key = raw.expose();
        if lends {
            raw.lend(lent.file().expect("lendable"), BYTES as u64);
        }
        raw.post(&write_imm(key, from), b"");
        raw.packet(&[1], None);
        raw.must_be_cut_off(told);
    }
}

/// The good case, so that the others fail for their reason: it lands, wherever the socket's news are read first.
#[test]
fn a_post_from_lent_memory_lands() {
    let lent = memory(BYTES, true);
    lent.copy_in(100, &[0xbb; 64]);
    let mut raw = Raw::new();
    let key = raw.expose();
    raw.lend(lent.file().expect("lendable"), BYTES as u64);
    raw.post(&write_imm(key, 100), b"");
    let mut events = Vec::new();
    raw.fabric.poll(&mut events, None);
    assert!(matches!(events[..], [Event::Immediate { imm: 9, .. }]), "{events:?}");
    let mut there = [0; 64];
    raw.arena.copy_out(0, &mut there);
    assert_eq!(there, [0xbb; 64]);
}

/// What it has posted inline before its end arrives, and nothing from its memory, nor what comes after that.
#[test]
fn memory_that_is_closed_is_not_read() {
    let lent = memory(BYTES, true);
    lent.copy_in(0, &[0xbb; BYTES]);
    let mut raw = Raw::new();
    let key = raw.expose();
    raw.lend(lent.file().expect("lendable"), BYTES as u64);
    let mut message = [0; 64];
    (message[0], message[24]) = (3, 4);
    raw.post(&message, b"last");
    raw.post(&write_imm(key, 0), b"");
    raw.post(&message, b"more");
    raw.rings.word(CLOSED).store(1, SeqCst);
    raw.packet(&[1], None);
    let (events, why) = raw.end();
    assert_eq!(why, CloseReason::Ended);
    assert!(matches!(&events[..], [Event::Message { bytes, .. }] if bytes[..] == *b"last"), "{events:?}");
}

/// Wake-ups without end cost a look each, and are no reason to end.
#[test]
fn wake_ups_for_nothing_are_nothing() {
    let mut raw = Raw::new();
    for _ in 0..100 {
        raw.packet(&[1], None);
    }
    let mut events = Vec::new();
    raw.fabric.poll(&mut events, None);
    assert!(events.is_empty(), "{events:?}");
    let mut message = [0; 64];
    (message[0], message[24]) = (3, 2);
    raw.post(&message, b"hi");
    raw.fabric.poll(&mut events, None);
    assert!(matches!(&events[..], [Event::Message { bytes, .. }] if bytes[..] == *b"hi"), "{events:?}");
}

/// The raw peer's own word says how it sleeps; what wakes it for what, as documented.
#[test]
fn who_is_woken_for_what() {
    let mut raw = Raw::new();
    let conn = raw.conn;
    let mut rung = |sleeps: u64, solicited: bool| {
        raw.rings.word(ASLEEP).store(sleeps, SeqCst);
        raw.fabric.send(conn, b"a post").expect("a free slot");
        if solicited {
            raw.fabric.submit(conn);
        } else {
            raw.fabric.submit_unsolicited(conn);
        }
        let mut byte = [0];
        let woken = match recv(&raw.socket, &mut byte, RecvFlags::DONTWAIT) {
            Ok((_, bytes)) => {
                assert_eq!((bytes, byte), (1, [1]), "a wake-up is one packet of one byte");
                true
            }
            Err(Errno::AGAIN) => false,
            Err(other) => panic!("{other}"),
        };
        (woken, raw.rings.word(ASLEEP).load(SeqCst))
    };
    assert_eq!(rung(0, true), (false, 0), "it is awake");
    assert_eq!(rung(0, false), (false, 0));
    assert_eq!(rung(1, false), (false, 1), "it sees it when it wakes up, and is to be woken for the next");
    assert_eq!(rung(1, true), (true, 0));
    assert_eq!(rung(2, false), (true, 0), "it does not look before it is woken for this connection");
    assert_eq!(rung(2, true), (true, 0));
}
