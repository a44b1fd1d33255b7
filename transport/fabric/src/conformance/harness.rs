//! Two ends, polled in turn.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use twinsan_arena::{Arena, ArenaOptions, PagePolicy};

use super::{PATIENCE, Setup};
use crate::{
    CloseReason, ConnId, Event, Fabric, LocalSlice, Payload, PostError, RegionId, RemoteAddr, RemoteKey, WorkId,
};

/// Bytes of each end's region.
pub(super) const REGION: usize = 4 << 20;

/// How long one end sleeps for events before the other gets its turn, when neither had any.
const TURN: Duration = Duration::from_millis(1);

/// A fabric with one region.
pub(super) struct Side {
    pub(super) fabric: Box<dyn Fabric>,
    pub(super) arena: Arc<Arena>,
    pub(super) region: RegionId,
    /// What has happened and no test has looked at.
    pub(super) events: Vec<Event>,
}

/// Both ends, and one connection between them.
pub(super) struct Pair {
    pub(super) left: Side,
    pub(super) right: Side,
    /// The connection, as the left one knows it.
    pub(super) a: ConnId,
    /// The same, as the right one knows it.
    pub(super) b: ConnId,
    /// Where the right one listens.
    pub(super) address: String,
    pub(super) nobody: String,
    pub(super) _keep: Box<dyn Any>,
}

/// A region of its own. Not every fabric needs memory that can be lent.
pub(super) fn arena() -> Arc<Arena> {
    let options = ArenaOptions { name: "conformance".into(), bytes: REGION, pages: PagePolicy::Small, lock: false };
    Arc::new(Arena::lendable(&options).expect("four megabytes"))
}

impl Side {
    fn new(mut fabric: Box<dyn Fabric>) -> Self {
        let arena = arena();
        let region = fabric.register(Arc::clone(&arena)).expect("register an arena");
        Self { fabric, arena, region, events: Vec::new() }
    }

    /// Opens a range of the region to the peer of `conn`.
    pub(super) fn expose(&mut self, conn: ConnId, offset: u64, len: u64) -> RemoteKey {
        self.fabric.expose(conn, self.region, offset, len).expect("expose a range of the region")
    }

    /// Opens the whole region.
    pub(super) fn expose_all(&mut self, conn: ConnId) -> RemoteKey {
        self.expose(conn, 0, REGION as u64)
    }

    /// A slice of the region.
    pub(super) const fn slice(&self, offset: u64, len: u32) -> LocalSlice {
        LocalSlice { region: self.region, offset, len }
    }

    /// A payload in the region.
    pub(super) const fn payload(&self, offset: u64, len: u32) -> Payload<'static> {
        Payload::Region(self.slice(offset, len))
    }

    /// A copy of the region's bytes.
    pub(super) fn bytes(&self, offset: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.arena.copy_out(offset, &mut bytes);
        bytes
    }

    /// Whether the whole range is `value`.
    pub(super) fn is_all(&self, offset: usize, len: usize, value: u8) -> bool {
        self.bytes(offset, len).iter().all(|&byte| byte == value)
    }

    /// Takes out the first event that `pick` wants.
    pub(super) fn pick<T>(&mut self, mut pick: impl FnMut(&Event) -> Option<T>) -> Option<T> {
        let (index, found) = self.events.iter().enumerate().find_map(|(at, event)| Some((at, pick(event)?)))?;
        self.events.remove(index);
        Some(found)
    }

    /// Takes out the first event of one connection.
    pub(super) fn pick_first(&mut self, of: ConnId) -> Option<Event> {
        let at = self.events.iter().position(|event| event.conn() == Some(of))?;
        Some(self.events.remove(at))
    }

    /// Takes out what is the news of one connection.
    pub(super) fn news_of(&mut self, of: ConnId) -> Vec<Event> {
        let (news, rest) = std::mem::take(&mut self.events).into_iter().partition(|event| event.conn() == Some(of));
        self.events = rest;
        news
    }
}

impl Pair {
    /// Connects the two.
    pub(super) fn new(setup: Setup) -> Self {
        let (left, mut right) = (Side::new(setup.left), Side::new(setup.right));
        let address = right.fabric.listen(&setup.address).expect("listen");
        let mut pair =
            Self { left, right, a: ConnId(0), b: ConnId(0), address, nobody: setup.nobody, _keep: setup.keep };
        (pair.a, pair.b) = pair.connect();
        pair
    }

    /// Another connection: the left's id, the right's.
    pub(super) fn connect(&mut self) -> (ConnId, ConnId) {
        let a = self.left.fabric.connect(&self.address).expect("connect");
        self.wait("connected", |pair| {
            pair.left.pick(|event| matches!(event, Event::Connected { conn } if *conn == a).then_some(()))
        });
        let b = self.wait("accepted", |pair| {
            pair.right.pick(|event| if let Event::Accepted { conn } = event { Some(*conn) } else { None })
        });
        (a, b)
    }

    /// Polls both once; returns how many events came.
    pub(super) fn poll(&mut self) -> usize {
        self.poll_for(None)
    }

    fn poll_for(&mut self, timeout: Option<Duration>) -> usize {
        let left = self.left.fabric.poll(&mut self.left.events, timeout);
        left + self.right.fabric.poll(&mut self.right.events, timeout)
    }

    /// Polls both until `done` gives something.
    pub(super) fn wait<T>(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = done(self) {
                return found;
            }
            if self.poll() == 0 {
                self.poll_for(Some(TURN));
            }
            let (left, right) = (&self.left.events, &self.right.events);
            assert!(start.elapsed() < PATIENCE, "waited in vain: {what}; left has {left:?}, right has {right:?}");
        }
    }

    /// Both sleep for a moment.
    pub(super) fn doze(&mut self) {
        self.poll_for(Some(TURN));
    }

    /// Tries a post until there is a slot for it, and submits it.
    pub(super) fn post(&mut self, conn: ConnId, post: impl FnMut(&mut Side) -> Result<(), PostError>) {
        self.try_post(post);
        self.left.fabric.submit(conn);
    }

    /// The same, unsolicited.
    pub(super) fn unsolicited(&mut self, conn: ConnId, post: impl FnMut(&mut Side) -> Result<(), PostError>) {
        self.try_post(post);
        self.left.fabric.submit_unsolicited(conn);
    }

    fn try_post(&mut self, mut post: impl FnMut(&mut Side) -> Result<(), PostError>) {
        self.wait("a free slot", |pair| match post(&mut pair.left) {
            Ok(()) => Some(()),
            Err(PostError::Full) => None,
            Err(other) => panic!("a post was refused: {other}"),
        });
    }

    /// The left one's message on `conn`.
    pub(super) fn send(&mut self, conn: ConnId, message: &[u8]) {
        self.post(conn, |left| left.fabric.send(conn, message));
    }

    /// The left one's plain write from its region on `conn`.
    pub(super) fn write(&mut self, conn: ConnId, from: LocalSlice, to: RemoteAddr, signal: Option<WorkId>) {
        self.post(conn, |left| left.fabric.write(conn, Payload::Region(from), to, signal));
    }

    /// The left one's inline write with immediate on `conn`.
    pub(super) fn write_imm(&mut self, conn: ConnId, bytes: &[u8], to: RemoteAddr, imm: u32) {
        self.post(conn, |left| left.fabric.write_imm(conn, Payload::Inline(bytes), to, imm, None));
    }

    /// Waits for the right one's next message on `conn`.
    pub(super) fn message(&mut self, conn: ConnId) -> Box<[u8]> {
        self.wait("a message", |pair| {
            pair.right.pick(|event| match event {
                Event::Message { conn: on, bytes } if *on == conn => Some(bytes.clone()),
                _ => None,
            })
        })
    }

    /// Waits for the right one's next immediate on `conn`.
    pub(super) fn immediate(&mut self, conn: ConnId) -> u32 {
        self.wait("an immediate", |pair| {
            pair.right.pick(|event| match event {
                Event::Immediate { conn: on, imm } if *on == conn => Some(*imm),
                _ => None,
            })
        })
    }

    /// Waits for the left one's next completion on `conn`.
    pub(super) fn sent(&mut self, conn: ConnId) -> WorkId {
        self.wait("a completion", |pair| {
            pair.left.pick(|event| match event {
                Event::Sent { conn: on, work } if *on == conn => Some(*work),
                _ => None,
            })
        })
    }

    /// Waits until the left one is told that `conn` is over.
    pub(super) fn left_closed(&mut self, conn: ConnId) -> CloseReason {
        self.wait("the left one's close", |pair| closed(&mut pair.left, conn))
    }

    /// Waits until the right one is told that `conn` is over.
    pub(super) fn right_closed(&mut self, conn: ConnId) -> CloseReason {
        self.wait("the right one's close", |pair| closed(&mut pair.right, conn))
    }
}

fn closed(side: &mut Side, of: ConnId) -> Option<CloseReason> {
    side.pick(|event| match event {
        Event::Closed { conn, why } if *conn == of => Some(why.clone()),
        _ => None,
    })
}

/// The start of the range of `key`, or `offset` bytes on.
pub(super) const fn at(key: RemoteKey, offset: u64) -> RemoteAddr {
    RemoteAddr { key, offset }
}

/// Bytes that are another's for every `seed` and every place.
pub(super) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut word = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        word = word.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(seed | 1);
        bytes.extend_from_slice(&(word >> 8).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
