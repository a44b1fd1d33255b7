//! What a peer's bytes come to, for the fuzz targets (`tests/fuzz`).

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, LazyLock};

use twinsan_arena::{Arena, ArenaOptions, PagePolicy};
use twinsan_fabric::parts::Exposures;
use twinsan_fabric::{CloseReason, ConnId, Event};
use twinsan_wire::limits::MAX_MESSAGE_BYTES;

use crate::credits::Credits;
use crate::frame::{HEADER, Header, RECEIVE_CREDITS};
use crate::inbox::{Context, Inbox};

/// Of the region that the peer may write parts of.
const REGION: usize = 4096;
/// Key, first byte and length of what it may write. A real key is random; these are to be found.
const OPEN: [(u64, usize, usize); 2] = [(0x4141_4141_4141_4141, 512, 1024), (0x4242_4242_4242_4242, 2048, 1)];
/// A small receive buffer, so that payloads need not be long to be received straight into the region.
const SCRATCH: usize = 64;

/// One frame header: what is taken has one encoding.
///
/// # Panics
/// If it has two.
pub fn header(bytes: &[u8; HEADER]) {
    if let Ok(header) = Header::decode(bytes) {
        assert_eq!(header.encode(), *bytes, "two encodings of one header");
    }
}

/// What has come of a stream.
#[derive(Debug, PartialEq)]
struct Outcome {
    /// In words, as events can't be compared.
    events: Vec<String>,
    memory: Vec<u8>,
    over: Option<CloseReason>,
}

/// A connection's bytes, cut after each of `cuts` and whole: the same comes of both, and no byte outside of what was
/// opened has changed.
///
/// # Panics
/// If not.
pub fn stream(bytes: &[u8], cuts: &[u8]) {
    let whole = receive(bytes, &[]);
    assert_eq!(receive(bytes, cuts), whole, "it depends on how the stream is cut");
    for (at, &byte) in whole.memory.iter().enumerate() {
        let opened = OPEN.iter().any(|&(_, first, len)| (first..first + len).contains(&at));
        assert!(opened || byte == 0, "byte {at} was written and not opened");
    }
    // What costs the peer a credit is reported at most once, and nothing gives credits back here.
    assert!(whole.events.len() <= usize::from(RECEIVE_CREDITS));
}

fn receive(bytes: &[u8], cuts: &[u8]) -> Outcome {
    static ARENA: LazyLock<Arc<Arena>> = LazyLock::new(|| {
        let options = ArenaOptions { name: "fuzz".into(), bytes: REGION, pages: PagePolicy::Small, lock: false };
        Arc::new(Arena::new(&options).expect("a page of memory"))
    });
    ARENA.fill_zero(0, REGION);
    let mut exposures = Exposures::default();
    for (key, first, len) in OPEN {
        exposures.open_as(key, 0, first as u64, len as u64);
    }
    let (mut peer, socket) = UnixStream::pair().expect("a pair of sockets");
    socket.set_nonblocking(true).expect("a socket");
    let (mut inbox, mut credits, mut events) = (Inbox::new(), Credits::new(), Vec::new());
    let mut over = None;
    let mut rest = bytes;
    let mut cuts = cuts.iter();
    while over.is_none() && !rest.is_empty() {
        let piece = cuts.next().map_or(rest.len(), |&cut| usize::from(cut) + 1).min(rest.len());
        peer.write_all(&rest[..piece]).expect("it takes some pages");
        rest = &rest[piece..];
        over = take_in(&mut inbox, &socket, &mut credits, &exposures, &ARENA, &mut events);
    }
    let mut memory = vec![0; REGION];
    ARENA.copy_out(0, &mut memory);
    let events = events.iter().map(|event| format!("{event:?}")).collect();
    Outcome { events, memory, over }
}

/// Receives until nothing is left in the socket.
fn take_in(
    inbox: &mut Inbox,
    socket: &UnixStream,
    credits: &mut Credits,
    exposures: &Exposures,
    arena: &Arc<Arena>,
    events: &mut Vec<Event>,
) -> Option<CloseReason> {
    let (mut scratch, mut left) = ([0; SCRATCH], [0; 1]);
    loop {
        let mut cx = Context {
            conn: ConnId(1),
            regions: std::slice::from_ref(arena),
            exposures,
            credits,
            max_message: MAX_MESSAGE_BYTES,
            scratch: &mut scratch,
            events,
        };
        if let Err(why) = inbox.receive(socket.as_fd(), &mut cx) {
            return Some(why);
        }
        match rustix::net::recv(socket, &mut left[..], rustix::net::RecvFlags::PEEK) {
            Ok((1, _)) => {}
            _ => return None,
        }
    }
}
