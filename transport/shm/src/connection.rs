//! Both directions of one connection, and the memory that the peer posts from.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use twinsan_arena::{Arena, ArenaError, ArenaOptions, Lent, PagePolicy, SharedError, discard};
use twinsan_fabric::parts::{Exposures, Span};
use twinsan_fabric::{CloseReason, ConnId, Event, FabricError, PostError, RemoteKey, WorkId};

use crate::packet::{self, Packet, Received};
use crate::ring::{DIRECTION, Receiver, Sender, Sleep, before_last_look};
use crate::slot::{Header, Op, Source};

/// Bytes of a connection's memory.
const BYTES: usize = 2 * DIRECTION;

/// After so many bytes the next connection has its turn: one longest blob, some 100 µs of copying.
const BYTES_PER_VISIT: usize = 1 << 20;

/// The same in posts.
const POSTS_PER_VISIT: usize = 128;

/// After so many looks in vain a connection is not looked at any more: with many of them, looking at all costs the few that
/// are in use. About as long as loops spin before they sleep.
const COLD_AFTER: u32 = 1024;

/// The same for one by which something comes now and then only: a heartbeat is no reason to wait for the next.
const COLD_SOON: u32 = 32;

/// What comes so soon after something else is no heartbeat.
const TRAFFIC: Duration = Duration::from_millis(5);

/// Regions that a peer may post from. Its memory costs us addresses only.
const MOST_LENT: usize = 64;

/// Which end of a connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Connector,
    Listener,
}

/// See the module. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Connection {
    id: ConnId,
    socket: OwnedFd,
    sender: Sender,
    receiver: Receiver,
    exposures: Exposures,
    /// The peer has been let in somewhere, so that it may lend us memory.
    is_trusted: bool,
    /// Our regions that the peer has.
    given: Vec<usize>,
    /// The peer's that we have.
    lent: BTreeMap<u32, Lent>,
    /// The peer is gone; what it has posted is still to be taken.
    has_ended: bool,
    failure: Option<CloseReason>,
    /// Looks in a row that found nothing; `None`: it is not looked at, but wakes us.
    quiet: Option<u32>,
    /// How many of them it is given.
    patience: u32,
    /// When something was found last.
    stirred: Instant,
}

impl Connection {
    /// The listener's end of a connection that `socket` has brought: makes the rings, and sends them.
    pub(crate) fn accept(id: ConnId, socket: OwnedFd) -> io::Result<Self> {
        let options = ArenaOptions { name: "rings".to_owned(), bytes: BYTES, pages: PagePolicy::Small, lock: false };
        let memory = Arena::common(&options).map_err(|error| match error {
            ArenaError::System { source, .. } => source,
            other => io::Error::new(io::ErrorKind::OutOfMemory, other),
        })?;
        let file = memory.file().ok_or(io::ErrorKind::Unsupported)?;
        packet::rings(&socket, file, u32::try_from(BYTES).expect("half a megabyte"))?;
        // Whatever the peer lends after this is of no use to it, before it has been let in.
        Ok(Self::new(id, socket, memory, End::Listener))
    }

    /// The connector's end, once it has [`receive_rings`].
    pub(crate) fn connected(id: ConnId, socket: OwnedFd, rings: Arena) -> Self {
        Self::new(id, socket, rings, End::Connector)
    }

    fn new(id: ConnId, socket: OwnedFd, memory: Arena, end: End) -> Self {
        let memory = Arc::new(memory);
        let (ours, theirs) = if end == End::Connector { (0, 1) } else { (1, 0) };
        Self {
            id,
            socket,
            sender: Sender::new(&memory, ours),
            receiver: Receiver::new(&memory, theirs),
            exposures: Exposures::default(),
            is_trusted: false,
            given: Vec::new(),
            lent: BTreeMap::new(),
            has_ended: false,
            failure: None,
            quiet: Some(0),
            patience: COLD_AFTER,
            stirred: Instant::now(),
        }
    }

    /// Opens a range, which the caller has checked.
    pub(crate) fn expose(&mut self, region: usize, offset: u64, len: u64) -> Result<RemoteKey, FabricError> {
        self.is_trusted = true;
        self.exposures.open(region, offset, len)
    }

    // ---- Sending.

    /// Whether another post can be made.
    pub(crate) fn room(&self) -> Result<(), PostError> {
        if self.has_ended || self.failure.is_some() {
            return Err(PostError::NotConnected);
        }
        if self.sender.is_full() { Err(PostError::Full) } else { Ok(()) }
    }

    /// Posts bytes that go with the slot.
    pub(crate) fn post_inline(&mut self, op: Op, bytes: &[u8], signal: Option<WorkId>) {
        let len = u32::try_from(bytes.len()).expect("it has been checked against the limits");
        let header = Header { op, source: Source::Inline, len, signalled: signal.is_some() };
        self.sender.post(&header, bytes, signal);
    }

    /// Posts bytes of a region, which the peer is given if it has not got it.
    pub(crate) fn post_region(
        &mut self,
        op: Op,
        span: Span,
        arena: &Arena,
        signal: Option<WorkId>,
    ) -> Result<(), PostError> {
        let region = u32::try_from(span.region).expect("regions have numbers of 32 bits");
        if !self.given.contains(&span.region) {
            self.give(region, arena)?;
            self.given.push(span.region);
        }
        let source = Source::Region { region, from: span.offset as u64 };
        let len = u32::try_from(span.len).expect("a slice's length has 32 bits");
        self.sender.post(&Header { op, source, len, signalled: signal.is_some() }, &[], signal);
        Ok(())
    }

    fn give(&mut self, region: u32, arena: &Arena) -> Result<(), PostError> {
        let Some(file) = arena.file() else {
            let why =
                format!("arena \"{}\" is private: shm:// posts from memory that can be lent", arena.report().name);
            self.failure = Some(CloseReason::Unreachable(why));
            return Err(PostError::NotConnected);
        };
        match packet::memory(&self.socket, file, region, arena.len() as u64) {
            Ok(()) => Ok(()),
            // The peer has not read what was sent before.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Err(PostError::Full),
            Err(e) => {
                self.failure = Some(reason(&e));
                Err(PostError::NotConnected)
            }
        }
    }

    /// The doorbell.
    pub(crate) fn ring(&mut self, solicited: bool) {
        if self.sender.ring(&self.receiver, solicited) {
            packet::wake(&self.socket);
        }
    }

    // ---- Receiving.

    /// Takes what is there, within this visit's share. Returns whether something may be left.
    pub(crate) fn take(&mut self, regions: &[Arc<Arena>], events: &mut Vec<Event>) -> bool {
        if self.failure.is_some() {
            return false;
        }
        let more = match self.take_posts(regions, events) {
            Ok(more) => more,
            Err(why) => {
                self.failure = Some(why);
                false
            }
        };
        if self.receiver.has_news() {
            self.sender.say_core();
        }
        if self.receiver.tell() {
            packet::wake(&self.socket);
        }
        let conn = self.id;
        if let Err(why) = self.sender.reap(|work| events.push(Event::Sent { conn, work })) {
            self.failure.get_or_insert(CloseReason::Violation(why));
        }
        if self.has_ended && !more {
            self.failure.get_or_insert(CloseReason::Ended);
        }
        more
    }

    fn take_posts(&mut self, regions: &[Arc<Arena>], events: &mut Vec<Event>) -> Result<bool, CloseReason> {
        let mut bytes = 0;
        for _ in 0..POSTS_PER_VISIT {
            let Some(post) = self.receiver.next().map_err(CloseReason::Violation)? else { return Ok(false) };
            let Header { op, source, len, .. } = post.header;
            match (op, source) {
                (Op::Message, _) => {
                    let mut message = vec![0; len as usize].into_boxed_slice();
                    self.receiver.copy_out(&post, &mut message);
                    events.push(Event::Message { conn: self.id, bytes: message });
                }
                (Op::Write { key, offset } | Op::WriteImm { key, offset, .. }, source) => {
                    let (region, at) = self.exposures.find(key, offset, len).map_err(CloseReason::Violation)?;
                    match source {
                        Source::Inline => self.receiver.copy_to(&post, &regions[region], at),
                        Source::Region { region: theirs, from } => {
                            self.fetch(theirs, from, len as usize, &regions[region], at)?;
                        }
                    }
                    if let Op::WriteImm { imm, .. } = op {
                        events.push(Event::Immediate { conn: self.id, imm });
                    }
                }
            }
            self.receiver.take(&post);
            bytes += len as usize;
            if bytes >= BYTES_PER_VISIT {
                break;
            }
        }
        Ok(self.receiver.has_post())
    }

    /// Copies from the peer's memory.
    fn fetch(&mut self, region: u32, from: u64, len: usize, to: &Arena, at: usize) -> Result<(), CloseReason> {
        if self.receiver.is_closed() {
            return Err(CloseReason::Ended);
        }
        if !self.lent.contains_key(&region) {
            // It was sent before the post was rung for.
            self.read_socket()?;
        }
        let violation = CloseReason::Violation;
        let lent = self.lent.get_mut(&region);
        let lent = lent.ok_or_else(|| violation(format!("a post from region {region}, which was not lent")))?;
        let from = usize::try_from(from).ok().filter(|from| from.checked_add(len).is_some_and(|end| end <= lent.len()));
        let from = from.ok_or_else(|| violation(format!("a post of {len} bytes from outside of region {region}")))?;
        to.copy_from_lent(at, lent, from, len).map_err(|e| violation(e.to_string()))?;
        if self.receiver.is_closed() { Err(CloseReason::Ended) } else { Ok(()) }
    }

    /// The socket is readable.
    pub(crate) fn readable(&mut self) {
        if let Err(why) = self.read_socket() {
            self.failure.get_or_insert(why);
        }
    }

    fn read_socket(&mut self) -> Result<(), CloseReason> {
        while !self.has_ended {
            match packet::receive(&self.socket, self.is_trusted).map_err(|e| reason(&e))? {
                Received::Nothing => break,
                Received::End => self.has_ended = true,
                Received::Packet(Packet::Wake) => {}
                Received::Packet(Packet::Memory { region, bytes, file }) => self.borrow(region, bytes, file)?,
                Received::Packet(Packet::Rings { file, .. }) => {
                    discard(file);
                    return Err(CloseReason::Violation("rings, which are there already".to_owned()));
                }
                Received::Nonsense(what, file) => {
                    file.into_iter().for_each(discard);
                    return Err(CloseReason::Violation(what));
                }
            }
        }
        Ok(())
    }

    fn borrow(&mut self, region: u32, bytes: u64, file: OwnedFd) -> Result<(), CloseReason> {
        let opened = match usize::try_from(bytes) {
            _ if self.lent.len() >= MOST_LENT || self.lent.contains_key(&region) => {
                Err(format!("region {region} is lent again, or one too many of {MOST_LENT}"))
            }
            Ok(bytes) => Lent::open(file.as_fd(), bytes).map_err(|e: SharedError| e.to_string()),
            Err(_) => Err(format!("{bytes} bytes are lent, more than there are addresses")),
        };
        match opened {
            Ok(lent) => {
                self.lent.insert(region, lent);
                Ok(())
            }
            Err(why) => {
                discard(file);
                Err(CloseReason::Violation(why))
            }
        }
    }

    // ---- Its end, and sleep.

    /// Something is to be expected of it: whether it was not looked at, and now is to be.
    pub(crate) fn warm(&mut self) -> bool {
        let was_cold = self.quiet.replace(0).is_none();
        if was_cold {
            self.set_asleep(Sleep::Awake);
        }
        was_cold
    }

    /// [`Connection::take`] for one that is looked at over and over again. Returns whether posts may be left, and whether it
    /// is to be looked at again: after many looks in vain it rather wakes us. Not if that is what all are to do (`asleep`).
    pub(crate) fn look(&mut self, regions: &[Arc<Arena>], events: &mut Vec<Event>, asleep: bool) -> (bool, bool) {
        if asleep {
            return (self.take(regions, events), true);
        }
        let (before, taken) = (events.len(), self.receiver.taken());
        let more = self.take(regions, events);
        let is_quiet = |this: &Self, more: bool| !more && this.receiver.taken() == taken && this.failure.is_none();
        if !is_quiet(self, more) || events.len() > before {
            let now = Instant::now();
            self.patience = if now.duration_since(self.stirred) < TRAFFIC { COLD_AFTER } else { COLD_SOON };
            self.stirred = now;
            self.quiet = Some(0);
            return (more, true);
        }
        let quiet = self.quiet.unwrap_or(0) + 1;
        self.quiet = Some(quiet);
        if quiet < self.patience {
            return (more, true);
        }
        self.set_asleep(Sleep::Deep);
        before_last_look();
        let more = self.take(regions, events);
        if is_quiet(self, more) && events.len() == before {
            self.quiet = None;
            return (false, false);
        }
        self.quiet = Some(0);
        self.set_asleep(Sleep::Awake);
        (more, true)
    }

    /// Why it is over, once all is taken that is still to be taken.
    pub(crate) const fn failure(&self) -> Option<&CloseReason> {
        self.failure.as_ref()
    }

    /// Whether its socket has nothing more to say.
    pub(crate) const fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// The core on which the peer rang or took something last.
    pub(crate) fn peer_core(&self) -> Option<usize> {
        self.receiver.core()
    }

    /// Says to the peer that it has to wake us, or need not.
    pub(crate) fn set_asleep(&self, sleep: Sleep) {
        self.sender.set_asleep(sleep);
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.sender.close();
    }
}

/// The rings, once the listener has sent them: `None`, if not yet.
///
/// # Errors
/// Why there will be no connection.
pub(crate) fn receive_rings(socket: &OwnedFd) -> Result<Option<Arena>, CloseReason> {
    let violation = CloseReason::Violation;
    match packet::receive(socket, true).map_err(|e| reason(&e))? {
        Received::Nothing => Ok(None),
        Received::End => Err(CloseReason::Ended),
        Received::Packet(Packet::Rings { file, bytes }) if bytes as usize == BYTES => {
            Arena::join("rings", file, BYTES).map(Some).map_err(|e| violation(e.to_string()))
        }
        Received::Packet(Packet::Rings { bytes, file }) => {
            discard(file);
            Err(violation(format!("rings of {bytes} bytes, ours have {BYTES}: both ends must be of one build")))
        }
        Received::Packet(Packet::Wake) => Err(violation("a wake-up before there are rings".to_owned())),
        Received::Packet(Packet::Memory { file, .. }) => {
            discard(file);
            Err(violation("memory before there are rings".to_owned()))
        }
        Received::Nonsense(what, file) => {
            file.into_iter().for_each(discard);
            Err(violation(what))
        }
    }
}

/// A system error on a socket, or on the way to one.
pub(crate) fn reason(error: &io::Error) -> CloseReason {
    match Errno::from_io_error(error) {
        Some(Errno::CONNREFUSED | Errno::NOENT) => CloseReason::Refused,
        Some(Errno::CONNRESET | Errno::PIPE) => CloseReason::Ended,
        _ => CloseReason::Unreachable(error.to_string()),
    }
}
