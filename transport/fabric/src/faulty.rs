//! A fabric that does the worst that the contract allows.
//!
//! [`FaultyFabric`] wraps another one and, by a seed, stretches each line of the contract as far as it goes:
//!
//! - Posts leave late; plain writes only just before the next immediate or message of their connection, or when they
//!   have waited long enough. So does memory get read: whoever reuses it before [`Event::Sent`] sends garbage, and is
//!   told so by a panic ([`Faults::guard_memory`]).
//! - 64-byte inline writes with immediate (descriptors, mailboxes) land in two halves. A mailbox that is written again
//!   meanwhile may be seen with its first half newer than its second.
//! - Events come late, some at a time, in another order across connections (never within one).
//! - Few slots, the least inline payload.
//! - Connections break, if asked ([`Faults::drop_one_in`]).
//!
//! Time is counted in polls: a run over an inner fabric that is itself deterministic repeats by its seed.

mod conn;
mod rng;

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use twinsan_arena::Arena;

use self::conn::{Conn, Post, Source, What};
use self::rng::Rng;
use crate::parts::within;
use crate::{
    CloseReason, ConnId, Event, Fabric, FabricError, Interest, Limits, LocalSlice, Payload, PostError, RegionId,
    RemoteAddr, RemoteKey, WorkId,
};

/// The longest sleep while something is held back: it is let go by polls, so they must go on.
const TICK: Duration = Duration::from_micros(100);

/// What to do to the inner fabric.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// Everything random follows from it.
    pub seed: u64,
    /// The inline limit, if the inner one is not lower; at least 64.
    pub max_inline: usize,
    /// The send depth, if the inner one is not lower; at least 1.
    pub send_depth: usize,
    /// Polls that a post or an event is held back at most.
    pub hold: u32,
    /// Whether 64-byte inline writes with immediate land in halves.
    pub tear: bool,
    /// Whether to panic when memory has changed between its post and its [`Event::Sent`].
    pub guard_memory: bool,
    /// One in so many visits to a connection breaks it; 0: none.
    pub drop_one_in: u32,
}

impl Faults {
    /// All but dropped connections.
    #[must_use]
    pub const fn with_seed(seed: u64) -> Self {
        Self { seed, max_inline: 64, send_depth: 8, hold: 12, tear: true, guard_memory: true, drop_one_in: 0 }
    }
}

/// See the module.
#[derive(Debug)]
pub struct FaultyFabric<F> {
    inner: F,
    faults: Faults,
    rng: Rng,
    regions: BTreeMap<u32, Arc<Arena>>,
    conns: BTreeMap<ConnId, Conn>,
    /// Inner work ids; the caller's are kept with the posts.
    next_work: WorkId,
}

impl<F: Fabric> FaultyFabric<F> {
    /// Wraps `inner`.
    pub fn new(inner: F, faults: Faults) -> Self {
        let rng = Rng::new(faults.seed);
        Self { inner, faults, rng, regions: BTreeMap::new(), conns: BTreeMap::new(), next_work: 0 }
    }

    /// The wrapped fabric.
    pub const fn inner(&self) -> &F {
        &self.inner
    }

    fn post(&mut self, conn: ConnId, what: What, signal: Option<WorkId>) -> Result<(), PostError> {
        let depth = self.limits().send_depth;
        let guard = match &what {
            What::Write { source: Source::Region(slice), .. } => self.guard(*slice)?,
            _ => None,
        };
        let conn = self.conns.get_mut(&conn).filter(|c| c.open).ok_or(PostError::NotConnected)?;
        if conn.outstanding >= depth {
            return Err(PostError::Full);
        }
        conn.post(Post::new(what, signal, guard));
        Ok(())
    }

    /// Checks a slice, and remembers its contents if wanted.
    fn guard(&self, slice: LocalSlice) -> Result<Option<u32>, PostError> {
        let arena = self.regions.get(&slice.region.0).ok_or(PostError::OutOfRegion)?;
        let end = slice.offset.checked_add(u64::from(slice.len));
        if end.is_none_or(|end| end > arena.len() as u64) {
            return Err(PostError::OutOfRegion);
        }
        Ok(self.faults.guard_memory.then(|| checksum(arena, slice)))
    }

    fn source(&self, payload: Payload<'_>) -> Result<Source, PostError> {
        match payload {
            Payload::Inline(bytes) => {
                within(bytes.len(), self.limits().max_inline)?;
                Ok(Source::Inline(bytes.into()))
            }
            Payload::Region(slice) => Ok(Source::Region(slice)),
        }
    }

    /// One step of time: lets some posts go, collects, hands some events out.
    fn step(&mut self, events: &mut Vec<Event>, wait: Option<Duration>) {
        for id in self.shuffled() {
            self.let_go(id);
        }
        let mut fresh = Vec::new();
        self.inner.poll(&mut fresh, wait);
        for event in fresh {
            self.take(event, events);
        }
        for id in self.shuffled() {
            self.hand_out(id, events);
        }
    }

    fn shuffled(&mut self) -> Vec<ConnId> {
        let mut ids: Vec<ConnId> = self.conns.keys().copied().collect();
        self.rng.shuffle(&mut ids);
        ids
    }

    /// The doorbell.
    fn ring(&mut self, conn: ConnId, solicited: bool) {
        if let Some(known) = self.conns.get_mut(&conn) {
            known.ring(solicited);
            // At once, now and then, as a good day has it.
            if self.rng.one_in(3) {
                self.let_go(conn);
            }
        }
    }

    /// Moves some of a connection's posts to the inner fabric, or breaks it.
    fn let_go(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if conn.open && self.faults.drop_one_in > 0 && self.rng.one_in(self.faults.drop_one_in) {
            self.inner.disconnect(id);
            conn.end(CloseReason::Ended, id);
            return;
        }
        conn.release(&mut self.rng, &self.faults);
        while let Some(atom) = conn.next_atom() {
            match atom.give(&mut self.inner, id, &mut self.next_work) {
                Ok(work) => conn.given(work),
                // Full: at the next poll. Not connected: it has ended, and that is about to be reported.
                Err(PostError::Full | PostError::NotConnected) => break,
                Err(other) => panic!("the inner fabric refuses what was checked: {other}"),
            }
        }
        if conn.take_solicited() {
            self.inner.submit(id);
        } else {
            self.inner.submit_unsolicited(id);
        }
    }

    /// Puts an event of the inner fabric in its connection's queue.
    fn take(&mut self, event: Event, events: &mut Vec<Event>) {
        let id = match &event {
            Event::Ready { .. } => return events.push(event),
            Event::Accepted { conn }
            | Event::Connected { conn }
            | Event::Message { conn, .. }
            | Event::Immediate { conn, .. }
            | Event::Sent { conn, .. }
            | Event::Closed { conn, .. } => *conn,
        };
        let conn = match event {
            Event::Accepted { .. } => self.conns.entry(id).or_default(),
            _ => match self.conns.get_mut(&id) {
                Some(conn) => conn,
                None => return,
            },
        };
        match event {
            Event::Sent { work, .. } => conn.sent(id, work),
            Event::Closed { why, .. } => conn.end(why, id),
            other => conn.events.push_back(other),
        }
    }

    /// Hands out some of the events that a connection has.
    fn hand_out(&mut self, id: ConnId, events: &mut Vec<Event>) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        for event in conn.due(&mut self.rng, &self.faults) {
            match &event {
                Event::Connected { .. } | Event::Accepted { .. } => conn.open = true,
                Event::Sent { work, .. } => check_guards(&self.regions, conn.guards_until(*work)),
                _ => {}
            }
            let last = matches!(event, Event::Closed { .. });
            events.push(event);
            if last {
                self.conns.remove(&id);
                return;
            }
        }
    }

    fn holds_anything(&self) -> bool {
        self.conns.values().any(Conn::holds_anything)
    }
}

impl<F: Fabric> Fabric for FaultyFabric<F> {
    fn limits(&self) -> Limits {
        let inner = self.inner.limits();
        Limits {
            max_inline: inner.max_inline.min(self.faults.max_inline),
            max_message: inner.max_message,
            send_depth: inner.send_depth.min(self.faults.send_depth),
        }
    }

    fn register(&mut self, arena: Arc<Arena>) -> Result<RegionId, FabricError> {
        let region = self.inner.register(Arc::clone(&arena))?;
        self.regions.insert(region.0, arena);
        Ok(region)
    }

    fn expose(&mut self, conn: ConnId, region: RegionId, offset: u64, len: u64) -> Result<RemoteKey, FabricError> {
        self.inner.expose(conn, region, offset, len)
    }

    fn listen(&mut self, address: &str) -> Result<String, FabricError> {
        self.inner.listen(address)
    }

    fn connect(&mut self, address: &str) -> Result<ConnId, FabricError> {
        let id = self.inner.connect(address)?;
        self.conns.insert(id, Conn::default());
        Ok(id)
    }

    fn write(
        &mut self,
        conn: ConnId,
        payload: Payload<'_>,
        to: RemoteAddr,
        signal: Option<WorkId>,
    ) -> Result<(), PostError> {
        let source = self.source(payload)?;
        self.post(conn, What::Write { source, to, imm: None }, signal)
    }

    fn write_imm(
        &mut self,
        conn: ConnId,
        payload: Payload<'_>,
        to: RemoteAddr,
        imm: u32,
        signal: Option<WorkId>,
    ) -> Result<(), PostError> {
        let source = self.source(payload)?;
        self.post(conn, What::Write { source, to, imm: Some(imm) }, signal)
    }

    fn send(&mut self, conn: ConnId, message: &[u8]) -> Result<(), PostError> {
        within(message.len(), self.limits().max_message)?;
        self.post(conn, What::Message(message.into()), None)
    }

    fn submit(&mut self, conn: ConnId) {
        self.ring(conn, true);
    }

    fn submit_unsolicited(&mut self, conn: ConnId) {
        self.ring(conn, false);
    }

    fn disconnect(&mut self, conn: ConnId) {
        self.inner.disconnect(conn);
        self.conns.remove(&conn);
    }

    fn watch(&mut self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> Result<(), FabricError> {
        self.inner.watch(fd, token, interest)
    }

    fn unwatch(&mut self, fd: BorrowedFd<'_>) {
        self.inner.unwatch(fd);
    }

    fn peer_core(&self, conn: ConnId) -> Option<usize> {
        self.inner.peer_core(conn)
    }

    fn poll(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> usize {
        let before = events.len();
        let Some(timeout) = timeout else {
            self.step(events, None);
            return events.len() - before;
        };
        let end = Instant::now().checked_add(timeout);
        loop {
            let left = end.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
            let wait = if self.holds_anything() { left.min(TICK) } else { left };
            self.step(events, Some(wait));
            if events.len() > before || left.is_zero() {
                return events.len() - before;
            }
        }
    }
}

fn checksum(arena: &Arena, slice: LocalSlice) -> u32 {
    let offset = usize::try_from(slice.offset).expect("checked against the arena's length");
    arena.crc32c(offset, slice.len as usize)
}

fn check_guards(regions: &BTreeMap<u32, Arc<Arena>>, guards: impl Iterator<Item = (LocalSlice, u32)>) {
    for (slice, then) in guards {
        let now = checksum(&regions[&slice.region.0], slice);
        assert_eq!(now, then, "{slice:?} was changed between its post and its Sent (contract 2)");
    }
}
