//! [`ShmFabric`]: the trait, over the parts.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, connect, socket_with};
use twinsan_arena::Arena;
use twinsan_fabric::parts::{
    Listeners, Poller, Queues, Readiness, Regions, SocketFile, Token, Wait, Waiting, Watches, poll_until, socket_path,
    within,
};
use twinsan_fabric::{
    CloseReason, ConnId, Event, Fabric, FabricError, Interest, Limits, Payload, PostError, RegionId, RemoteAddr,
    RemoteKey, WaitPolicy, WorkId,
};
use twinsan_wire::limits::MAX_MESSAGE_BYTES;

use crate::connection::{Connection, reason, receive_rings};
use crate::ring::{SLOTS, Sleep, before_last_look};
use crate::slot::Op;

/// How addresses begin.
const SCHEME: &str = "shm://";

/// Inline bytes of a post: as many as the other fabrics take.
const MAX_INLINE: usize = 128;

/// A listener whose backlog is full gives no sign when there is room again (unix(7)): it is asked this often.
const RETRY: Duration = Duration::from_millis(5);

const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);

/// What this fabric can carry.
pub const LIMITS: Limits = Limits { max_inline: MAX_INLINE, max_message: MAX_MESSAGE_BYTES, send_depth: SLOTS };

/// How a [`ShmFabric`] behaves.
#[derive(Clone, Copy, Debug)]
pub struct ShmOptions {
    /// How [`Fabric::poll`] waits.
    pub wait: WaitPolicy,
    /// How long [`Fabric::connect`] may take before the peer is unreachable.
    pub connect_timeout: Duration,
    /// Connections are numbered from here on, below 2^62: where another fabric in the process numbers from zero.
    pub first_conn: u64,
}

impl Default for ShmOptions {
    fn default() -> Self {
        Self { wait: WaitPolicy::default(), connect_timeout: Duration::from_secs(2), first_conn: 0 }
    }
}

/// A connection in the making.
#[derive(Debug)]
struct Making {
    path: PathBuf,
    deadline: Instant,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The listener's backlog is full; to be asked again then.
    Waiting(Instant),
    /// Connected; the rings are to come.
    Greeting(OwnedFd),
}

/// A listening socket, and its file.
#[derive(Debug)]
struct Listener {
    socket: OwnedFd,
    /// Held for its drop.
    _file: SocketFile,
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The fabric over shared memory; see the crate.
#[derive(Debug)]
pub struct ShmFabric {
    options: ShmOptions,
    poller: Poller,
    regions: Regions,
    connections: BTreeMap<ConnId, Connection>,
    /// Those that are looked at with every poll; the others wake us.
    warm: Vec<ConnId>,
    making: BTreeMap<ConnId, Making>,
    listeners: Listeners<Listener>,
    watches: Watches,
    next_conn: u64,
    /// Events that came up outside of poll.
    pending: Vec<Event>,
    waiting: Waiting,
    /// Connections have been told that we sleep.
    is_asleep: bool,
    /// Kept for its memory.
    over: Vec<ConnId>,
}

impl ShmFabric {
    /// A fabric without regions, connections and listeners.
    ///
    /// # Errors
    /// If the system gives no epoll.
    pub fn new(options: ShmOptions) -> Result<Self, FabricError> {
        let poller = Poller::new().map_err(|source| FabricError::Io { what: "make an epoll".into(), source })?;
        Ok(Self {
            options,
            poller,
            regions: Regions::default(),
            connections: BTreeMap::new(),
            warm: Vec::new(),
            making: BTreeMap::new(),
            listeners: Listeners::default(),
            watches: Watches::default(),
            next_conn: options.first_conn,
            pending: Vec::new(),
            waiting: Waiting::new(options.wait),
            is_asleep: false,
            over: Vec::new(),
        })
    }

    fn post_write(
        &mut self,
        conn: ConnId,
        payload: Payload<'_>,
        op: Op,
        signal: Option<WorkId>,
    ) -> Result<(), PostError> {
        match payload {
            Payload::Inline(bytes) => {
                within(bytes.len(), MAX_INLINE)?;
                open_slot(&mut self.connections, conn)?.post_inline(op, bytes, signal);
                Ok(())
            }
            Payload::Region(slice) => {
                let span = self.regions.span(slice)?;
                let arena = &self.regions.as_slice()[span.region];
                open_slot(&mut self.connections, conn)?.post_region(op, span, arena, signal)
            }
        }
    }

    // ---- How connections come to be.

    /// Asks the listener; what comes of it waits for the next poll.
    fn knock(&mut self, conn: ConnId, path: PathBuf, deadline: Instant) {
        let knocked = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None)
            .and_then(|socket| SocketAddrUnix::new(path.as_path()).map(|address| (socket, address)))
            .and_then(|(socket, address)| connect(&socket, &address).map(|()| socket));
        let stage = match knocked {
            Ok(socket) => match self.poller.add(socket.as_fd(), Token::Conn(conn), Interest::Readable) {
                Ok(()) => Stage::Greeting(socket),
                Err(e) => return self.pending.push(Event::Closed { conn, why: reason(&e) }),
            },
            Err(Errno::AGAIN) => Stage::Waiting(Instant::now() + RETRY),
            Err(e) => return self.pending.push(Event::Closed { conn, why: reason(&e.into()) }),
        };
        self.making.insert(conn, Making { path, deadline, stage });
    }

    /// The listener has said something to a connection in the making.
    fn greeted(&mut self, conn: ConnId, events: &mut Vec<Event>) {
        let Some(making) = self.making.remove(&conn) else { return };
        let Stage::Greeting(socket) = &making.stage else { return };
        match (receive_rings(socket), making.stage) {
            (Ok(Some(rings)), Stage::Greeting(socket)) => {
                self.connections.insert(conn, Connection::connected(conn, socket, rings));
                self.warm.push(conn);
                events.push(Event::Connected { conn });
            }
            (Err(why), _) => events.push(Event::Closed { conn, why }),
            (Ok(_), stage) => drop(self.making.insert(conn, Making { stage, ..making })),
        }
    }

    fn accept(&mut self, index: u32, events: &mut Vec<Event>) {
        let (connections, poller, next_conn) = (&mut self.connections, &self.poller, &mut self.next_conn);
        let warm = &mut self.warm;
        let accept = |listener: BorrowedFd<'_>| Ok(accept_with(listener, FLAGS)?);
        self.listeners.accept(poller, index, accept, |socket| {
            *next_conn += 1;
            let conn = ConnId(*next_conn);
            let accepted = Connection::accept(conn, socket).and_then(|connection| {
                poller.add(connection.as_fd(), Token::Conn(conn), Interest::Readable)?;
                Ok(connection)
            });
            match accepted {
                Ok(connection) => {
                    connections.insert(conn, connection);
                    warm.push(conn);
                    events.push(Event::Accepted { conn });
                }
                // It may be gone already; nobody here has heard of it.
                Err(error) => tracing::debug!(%error, "an accepted connection could not be set up"),
            }
        });
    }

    /// Does what the time has come for.
    fn timers(&mut self, now: Instant) {
        let due = |making: &Making| now >= making.deadline || matches!(making.stage, Stage::Waiting(at) if now >= at);
        let due: Vec<ConnId> = self.making.iter().filter(|(_, making)| due(making)).map(|(&conn, _)| conn).collect();
        for conn in due {
            let Some(Making { path, deadline, .. }) = self.making.remove(&conn) else { continue };
            if now < deadline {
                self.knock(conn, path, deadline);
            } else {
                let why = format!("no answer within {} ms", self.options.connect_timeout.as_millis());
                self.pending.push(Event::Closed { conn, why: CloseReason::Unreachable(why) });
            }
        }
        self.listeners.timers(&self.poller, now);
    }

    // ---- Waiting.

    /// Looks at all warm rings once. Returns whether posts may be left.
    fn take_some(&mut self, events: &mut Vec<Event>) -> bool {
        events.append(&mut self.pending);
        let mut over = std::mem::take(&mut self.over);
        let mut more = false;
        let (connections, regions, asleep) = (&mut self.connections, self.regions.as_slice(), self.is_asleep);
        self.warm.retain(|conn| {
            let Some(connection) = connections.get_mut(conn) else { return false };
            let (left, stays) = connection.look(regions, events, asleep);
            more |= left;
            if connection.failure().is_some() {
                over.push(*conn);
            }
            stays
        });
        for conn in over.drain(..) {
            let Some(connection) = self.connections.remove(&conn) else { continue };
            let why = connection.failure().cloned().unwrap_or(CloseReason::Ended);
            drop(connection);
            tracing::debug!(conn = conn.0, %why, "connection closed");
            events.push(Event::Closed { conn, why });
        }
        self.over = over;
        more
    }

    fn set_asleep(&mut self, asleep: bool) {
        if asleep || self.is_asleep {
            // The others have said so before.
            let warm = self.warm.iter().filter_map(|conn| self.connections.get(conn));
            let sleep = if asleep { Sleep::Dozing } else { Sleep::Awake };
            warm.for_each(|connection| connection.set_asleep(sleep));
            self.is_asleep = asleep;
        }
    }

    /// Something is to be expected of a connection.
    fn warm(&mut self, conn: ConnId) {
        if self.connections.get_mut(&conn).is_some_and(Connection::warm) {
            self.warm.push(conn);
        }
    }

    /// The doorbell.
    fn ring(&mut self, conn: ConnId, solicited: bool) {
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.ring(solicited);
        }
        // What it answers, and that it has taken this.
        self.warm(conn);
    }

    fn dispatch(&mut self, ready: Readiness, events: &mut Vec<Event>) {
        match ready.token {
            Token::Conn(conn) => match self.connections.get_mut(&conn) {
                Some(connection) => {
                    connection.readable();
                    if connection.warm() {
                        self.warm.push(conn);
                    }
                    // A socket that has ended would be reported for ever.
                    if connection.has_ended()
                        && let Err(error) = self.poller.remove(connection.as_fd())
                    {
                        tracing::warn!(%error, "epoll did not know a connection");
                    }
                }
                None => self.greeted(conn, events),
            },
            Token::Listener(index) => self.accept(index, events),
            Token::Watch(fd) => events.extend(self.watches.ready(fd)),
            Token::Resolver => {}
        }
    }
}

impl Queues for ShmFabric {
    fn waiting(&mut self) -> &mut Waiting {
        &mut self.waiting
    }

    fn has_queues(&self) -> bool {
        true
    }

    fn poll_queues(&mut self, events: &mut Vec<Event>) -> usize {
        let before = events.len();
        self.take_some(events);
        events.len() - before
    }

    fn look(&mut self, events: &mut Vec<Event>, wait: Wait) {
        let count = self.poller.wait(wait);
        self.set_asleep(false);
        for index in 0..count {
            if let Some(ready) = self.poller.ready(index) {
                self.dispatch(ready, events);
            }
        }
        if self.next_timer().is_some() {
            self.timers(Instant::now());
        }
        self.take_some(events);
    }

    fn prepare_to_sleep(&mut self, events: &mut Vec<Event>) -> usize {
        let before = events.len();
        self.set_asleep(true);
        before_last_look();
        // What was there before wakes nobody: none may be left, whether it makes an event or not.
        while self.take_some(events) && events.len() == before {}
        if events.len() > before {
            self.set_asleep(false);
        }
        events.len() - before
    }

    fn next_timer(&self) -> Option<Instant> {
        let making = self.making.values().map(|making| match making.stage {
            Stage::Waiting(at) => at.min(making.deadline),
            Stage::Greeting(_) => making.deadline,
        });
        making.chain(self.listeners.next_timer()).min()
    }
}

impl Fabric for ShmFabric {
    fn limits(&self) -> Limits {
        LIMITS
    }

    fn register(&mut self, arena: Arc<Arena>) -> Result<RegionId, FabricError> {
        self.regions.register(arena)
    }

    fn expose(&mut self, conn: ConnId, region: RegionId, offset: u64, len: u64) -> Result<RemoteKey, FabricError> {
        self.regions.to_expose(region, offset, len)?;
        let connection = self.connections.get_mut(&conn).ok_or(FabricError::Invalid("no such connection"))?;
        connection.expose(region.0 as usize, offset, len)
    }

    fn listen(&mut self, address: &str) -> Result<String, FabricError> {
        let path = parse(address)?;
        let listening = SocketFile::listen(&path, SocketType::SEQPACKET);
        let listening = listening.map_err(|source| FabricError::Io { what: format!("listen at {address}"), source })?;
        let (socket, file) = listening.map_err(|why| FabricError::Address { address: address.to_owned(), why })?;
        self.listeners.add(&self.poller, Listener { socket, _file: file }, address.to_owned())?;
        Ok(address.to_owned())
    }

    fn connect(&mut self, address: &str) -> Result<ConnId, FabricError> {
        let path = parse(address)?;
        self.next_conn += 1;
        let conn = ConnId(self.next_conn);
        self.knock(conn, path, Instant::now() + self.options.connect_timeout);
        Ok(conn)
    }

    fn write(
        &mut self,
        conn: ConnId,
        payload: Payload<'_>,
        to: RemoteAddr,
        signal: Option<WorkId>,
    ) -> Result<(), PostError> {
        self.post_write(conn, payload, Op::Write { key: to.key.0, offset: to.offset }, signal)
    }

    fn write_imm(
        &mut self,
        conn: ConnId,
        payload: Payload<'_>,
        to: RemoteAddr,
        imm: u32,
        signal: Option<WorkId>,
    ) -> Result<(), PostError> {
        self.post_write(conn, payload, Op::WriteImm { key: to.key.0, offset: to.offset, imm }, signal)
    }

    fn send(&mut self, conn: ConnId, message: &[u8]) -> Result<(), PostError> {
        within(message.len(), MAX_MESSAGE_BYTES)?;
        open_slot(&mut self.connections, conn)?.post_inline(Op::Message, message, None);
        Ok(())
    }

    fn submit(&mut self, conn: ConnId) {
        self.ring(conn, true);
    }

    fn submit_unsolicited(&mut self, conn: ConnId) {
        self.ring(conn, false);
    }

    fn disconnect(&mut self, conn: ConnId) {
        // All receiving happens in poll, on this thread: with the connection gone, nothing can land (contract 5).
        self.connections.remove(&conn);
        self.making.remove(&conn);
        self.pending.retain(|event| event.conn() != Some(conn));
    }

    fn watch(&mut self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> Result<(), FabricError> {
        self.watches.watch(&self.poller, fd, token, interest)
    }

    fn unwatch(&mut self, fd: BorrowedFd<'_>) {
        self.watches.unwatch(&self.poller, fd);
    }

    fn peer_core(&self, conn: ConnId) -> Option<usize> {
        self.connections.get(&conn)?.peer_core()
    }

    fn poll(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> usize {
        poll_until(self, events, timeout)
    }
}

impl AsFd for ShmFabric {
    /// Readable when there is something to poll for, if [`Queues::prepare_to_sleep`] was called before: for an epoll that
    /// this fabric shares with others.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poller.as_fd()
    }
}

/// The connection, if it has a free slot.
fn open_slot(connections: &mut BTreeMap<ConnId, Connection>, conn: ConnId) -> Result<&mut Connection, PostError> {
    let connection = connections.get_mut(&conn).ok_or(PostError::NotConnected)?;
    connection.room()?;
    Ok(connection)
}

fn parse(address: &str) -> Result<PathBuf, FabricError> {
    let bad = |why: String| FabricError::Address { address: address.to_owned(), why };
    let path = address.strip_prefix(SCHEME).ok_or_else(|| bad(format!("it begins with {SCHEME}")))?;
    socket_path(SCHEME, path).map_err(bad)
}
