//! [`TcpFabric`]: the trait, over the parts.

mod making;
mod polling;

use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use twinsan_arena::Arena;
use twinsan_fabric::{
    ConnId, Event, Fabric, FabricError, Interest, Limits, Payload, PostError, RegionId, RemoteAddr, RemoteKey,
    WaitPolicy, WorkId,
};
use twinsan_wire::limits::MAX_MESSAGE_BYTES;

use crate::address::{Address, Endpoint};
use crate::connection::Connection;
use crate::dial::Dial;
use crate::frame::Op;
use crate::inbox::SCRATCH;
use crate::listener::Listener;
use crate::outbox::{Body, MAX_INLINE};
use twinsan_fabric::parts::{Listeners, Poller, Regions, Resolver, Waiting, Watches, poll_until, within};

/// How a [`TcpFabric`] behaves.
#[derive(Clone, Copy, Debug)]
pub struct TcpOptions {
    /// How [`Fabric::poll`] waits.
    pub wait: WaitPolicy,
    /// Posts outstanding on one connection, at least 1; each takes about 200 bytes once used.
    pub send_depth: usize,
    /// How long [`Fabric::connect`] may take before the peer is unreachable.
    pub connect_timeout: Duration,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self { wait: WaitPolicy::default(), send_depth: 512, connect_timeout: Duration::from_secs(2) }
    }
}

/// A connection in the making.
#[derive(Debug)]
enum Making {
    /// Its name is being resolved.
    Resolving { deadline: Instant },
    /// Its socket is connecting, or waits to try again.
    Dialling { dial: Dial, socket: Option<OwnedFd> },
}

/// The fabric over sockets; see the crate.
#[derive(Debug)]
pub struct TcpFabric {
    options: TcpOptions,
    poller: Poller,
    resolver: Option<Resolver<Endpoint>>,
    regions: Regions,
    connections: BTreeMap<ConnId, Connection>,
    making: BTreeMap<ConnId, Making>,
    listeners: Listeners<Listener>,
    watches: Watches,
    next_conn: u64,
    /// Events that came up outside of poll.
    pending: Vec<Event>,
    /// Connections with completions, or broken ones.
    news: Vec<ConnId>,
    scratch: Box<[u8]>,
    waiting: Waiting,
}

impl TcpFabric {
    /// A fabric without regions, connections and listeners.
    ///
    /// # Errors
    /// If the system gives no epoll.
    pub fn new(options: TcpOptions) -> Result<Self, FabricError> {
        let poller = Poller::new().map_err(|source| FabricError::Io { what: "make an epoll".into(), source })?;
        Ok(Self {
            options,
            poller,
            resolver: None,
            regions: Regions::default(),
            connections: BTreeMap::new(),
            making: BTreeMap::new(),
            listeners: Listeners::default(),
            watches: Watches::default(),
            next_conn: 0,
            pending: Vec::new(),
            news: Vec::new(),
            waiting: Waiting::new(options.wait),
            scratch: vec![0; SCRATCH].into_boxed_slice(),
        })
    }

    fn new_conn(&mut self) -> ConnId {
        self.next_conn += 1;
        ConnId(self.next_conn)
    }

    /// Checks a payload against the limits and its region, and posts it.
    fn post_write(
        &mut self,
        conn: ConnId,
        payload: Payload<'_>,
        op: Op,
        signal: Option<WorkId>,
    ) -> Result<(), PostError> {
        let (inline, body) = match payload {
            Payload::Inline(bytes) => {
                within(bytes.len(), MAX_INLINE)?;
                (bytes, Body::Inline)
            }
            Payload::Region(slice) => (&[][..], Body::Region(self.regions.span(slice)?)),
        };
        self.open_slot(conn)?.outbox.post(op, inline, body, signal);
        Ok(())
    }

    /// The connection, if it has a free slot.
    fn open_slot(&mut self, conn: ConnId) -> Result<&mut Connection, PostError> {
        let depth = self.options.send_depth;
        let connection = self.connections.get_mut(&conn).filter(|c| c.is_open()).ok_or(PostError::NotConnected)?;
        if connection.outbox.outstanding() >= depth { Err(PostError::Full) } else { Ok(connection) }
    }

    /// Puts a connection on the list that the next poll goes through, if there is a reason.
    fn note_news(&mut self, conn: ConnId) {
        if let Some(connection) = self.connections.get_mut(&conn)
            && connection.has_news()
            && !std::mem::replace(&mut connection.listed, true)
        {
            self.news.push(conn);
        }
    }
}

impl Fabric for TcpFabric {
    fn limits(&self) -> Limits {
        Limits { max_inline: MAX_INLINE, max_message: MAX_MESSAGE_BYTES, send_depth: self.options.send_depth }
    }

    fn register(&mut self, arena: Arc<Arena>) -> Result<RegionId, FabricError> {
        self.regions.register(arena)
    }

    fn expose(&mut self, conn: ConnId, region: RegionId, offset: u64, len: u64) -> Result<RemoteKey, FabricError> {
        self.regions.to_expose(region, offset, len)?;
        let connection = self.connections.get_mut(&conn).ok_or(FabricError::Invalid("no such connection"))?;
        connection.exposures.open(region.0 as usize, offset, len)
    }

    fn listen(&mut self, address: &str) -> Result<String, FabricError> {
        let listener = Listener::open(address)?;
        let bound = listener.address.clone();
        self.listeners.add(&self.poller, listener, bound.clone())?;
        Ok(bound)
    }

    fn connect(&mut self, address: &str) -> Result<ConnId, FabricError> {
        self.begin_connect(Address::parse(address)?)
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
        let outbox = &mut self.open_slot(conn)?.outbox;
        if message.len() <= MAX_INLINE {
            outbox.post(Op::Message, message, Body::Inline, None);
        } else {
            outbox.post(Op::Message, &[], Body::Owned(message.into()), None);
        }
        Ok(())
    }

    fn submit(&mut self, conn: ConnId) {
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.outbox.ring();
            connection.flush(self.regions.as_slice(), &self.poller);
            self.note_news(conn);
        }
    }

    fn disconnect(&mut self, conn: ConnId) {
        // All receiving happens in poll, on this thread: with the socket gone, nothing can land (contract 5).
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

    fn poll(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> usize {
        poll_until(self, events, timeout)
    }
}
