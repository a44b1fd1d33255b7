//! How connections come to be: ours and the peers'.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Instant;

use rustix::io::Errno;
use twinsan_fabric::parts::{Resolver, Token};
use twinsan_fabric::{CloseReason, ConnId, Event, FabricError, Interest};

use super::{Listener, VerbsFabric};
use crate::address::Address;
use crate::connection::{Connection, Stage, set_patience};
use crate::dial::{Dial, Step};
use crate::greeting::Greeting;
use crate::sys::{CmEvent, CmEventKind, CmId};

/// Requests that may wait at a listener.
const BACKLOG: i32 = 64;

/// Connections that we have accepted and whose peers have not said that they know. Each has its queue pair and its pool, for
/// anybody who sends a request; those beyond are turned away, and a good peer comes again.
const MOST_ACCEPTING: usize = 64;

/// What the connection manager says is taken in so large pieces: a queue pair per request must not keep those who are
/// connected waiting. The descriptor stays readable for the rest.
const MOST_EVENTS: usize = 16;

/// Listeners' numbers for the connection manager have this bit; connections have theirs.
const LISTENER: u64 = 1 << 63;

/// "The service ID is not supported": nobody listens there (IB Architecture 12.6.7.2, code 8).
const REJECTED_NO_SERVICE: i32 = 8;

/// How a step went: the next one, or why there is none.
type Went = Result<Step, CloseReason>;

impl VerbsFabric {
    /// Begins to listen. A name is resolved at once: this is start-up, where waiting harms nobody.
    pub(super) fn begin_listen(&mut self, text: &str, address: &Address) -> Result<String, FabricError> {
        let bad = |why| FabricError::Address { address: text.to_owned(), why };
        let ip = address.resolve().map_err(bad)?.into_iter().next().expect("at least one");
        let number = LISTENER | self.listeners.len() as u64;
        let listening = self.channel.create_id(number).and_then(|id| {
            id.bind(ip)?;
            id.listen(BACKLOG)?;
            Ok(id)
        });
        let id = listening.map_err(|source| match Errno::from_io_error(&source) {
            Some(Errno::NODEV | Errno::ADDRNOTAVAIL) => FabricError::NoTransport {
                address: text.to_owned(),
                why: format!("no RDMA device of this host has this address ({source}); see `rdma link`, or use tcp://"),
            },
            _ => FabricError::Io { what: format!("listen at {text}"), source },
        })?;
        // Not a new address of IP and port: a link-local one has its scope too.
        let mut bound = ip;
        bound.set_port(id.local_port());
        let bound = format!("rdma://{bound}");
        self.listeners.push(Listener { _id: id, address: bound.clone() });
        Ok(bound)
    }

    /// Begins to connect. Names go to the resolver's thread: it may take seconds, and this thread has heartbeats to
    /// send.
    pub(super) fn begin_connect(&mut self, address: Address) -> Result<ConnId, FabricError> {
        let (conn, now) = (self.new_conn(), Instant::now());
        let mut dial = Dial::new(now, self.options.connect_timeout);
        match address {
            Address::Ip(ip) => {
                dial.set_addresses(vec![ip], now);
                self.next_address(conn, dial, now);
            }
            Address::Name { .. } => {
                self.resolver()?.ask(conn, move || address.resolve());
                self.making.insert(conn, dial);
            }
        }
        Ok(conn)
    }

    /// The resolver, made and watched when it is first needed.
    fn resolver(&mut self) -> Result<&mut Resolver<SocketAddr>, FabricError> {
        if self.resolver.is_none() {
            let io = |source| FabricError::Io { what: "make a resolver".into(), source };
            let resolver = Resolver::new().map_err(io)?;
            self.poller.add(resolver.wake(), Token::Resolver, Interest::Readable).map_err(io)?;
            self.resolver = Some(resolver);
        }
        self.resolver.as_mut().ok_or(FabricError::Invalid("no resolver"))
    }

    /// The resolver has answers.
    pub(super) fn resolved(&mut self) {
        let Some(resolver) = &mut self.resolver else { return };
        for (conn, answer) in resolver.answers() {
            // It may have been given up meanwhile.
            let Some(mut dial) = self.making.remove(&conn) else { continue };
            match answer {
                Ok(addresses) => {
                    let now = Instant::now();
                    dial.set_addresses(addresses, now);
                    self.next_address(conn, dial, now);
                }
                Err(why) => self.pending.push(Event::Closed { conn, why: CloseReason::Unreachable(why) }),
            }
        }
    }

    /// Tries the present address, and those after it as long as they can't even be tried.
    fn next_address(&mut self, conn: ConnId, mut dial: Dial, now: Instant) {
        while let Some(address) = dial.address() {
            let begun = self.channel.create_id(conn.0).and_then(|id| {
                set_patience(&id);
                id.resolve_address(address, dial.milliseconds_left(now))?;
                Ok(id)
            });
            match begun {
                Ok(id) => {
                    dial.step = Step::Address(id);
                    self.making.insert(conn, dial);
                    return;
                }
                Err(e) => dial.failed(no_way(&e), now),
            }
        }
        self.pending.push(Event::Closed { conn, why: dial.verdict() });
    }

    /// Takes what the connection manager has to say, at most [`MOST_EVENTS`].
    pub(super) fn manage(&mut self, events: &mut Vec<Event>) {
        for _ in 0..MOST_EVENTS {
            match self.channel.next() {
                Ok(Some(event)) => self.managed(event, events),
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "the RDMA connection manager gives no event");
                    return;
                }
            }
        }
    }

    fn managed(&mut self, mut event: CmEvent, events: &mut Vec<Event>) {
        if let Some(id) = event.request.take() {
            self.requested(id, &event.private_data);
            return;
        }
        let conn = ConnId(event.number);
        if let Some(dial) = self.making.remove(&conn) {
            self.advance(conn, dial, &event, events);
        } else if self.connections.contains_key(&conn) {
            self.told(conn, &event, events);
        } else if event.number & LISTENER != 0 && event.kind == CmEventKind::DeviceRemoval {
            let listener = self.listeners.get((event.number & !LISTENER) as usize);
            tracing::error!(address = listener.map(|l| &l.address), "the RDMA device of a listener is gone");
        }
    }

    // ---- ours -----------------------------------------------------------------------------------------------------

    /// The next step of a connection in the making.
    fn advance(&mut self, conn: ConnId, mut dial: Dial, event: &CmEvent, events: &mut Vec<Event>) {
        let now = Instant::now();
        let step = std::mem::replace(&mut dial.step, Step::Idle);
        let went = match (step, event.kind) {
            (Step::Address(id), CmEventKind::AddressResolved) => self.find_route(&dial, id, now),
            (Step::Route(id), CmEventKind::RouteResolved) => self.request(id),
            (Step::Connecting(connection), CmEventKind::Established) => {
                match self.established(conn, *connection, event) {
                    Ok(()) => {
                        events.push(Event::Connected { conn });
                        return;
                    }
                    Err(why) => Err(why),
                }
            }
            (step, kind) => failed(kind, event).map_or(Ok(step), Err),
        };
        match went {
            Ok(step) => {
                dial.step = step;
                self.making.insert(conn, dial);
            }
            Err(why) => {
                dial.failed(why, now);
                self.next_address(conn, dial, now);
            }
        }
    }

    #[expect(clippy::unused_self, reason = "one of the steps")]
    fn find_route(&self, dial: &Dial, id: CmId, now: Instant) -> Went {
        match id.resolve_route(dial.milliseconds_left(now)) {
            Ok(()) => Ok(Step::Route(id)),
            Err(e) => Err(no_way(&e)),
        }
    }

    fn request(&self, id: CmId) -> Went {
        let made = Connection::new(id, self.options.send_depth, Stage::Open).map_err(|(error, _)| error);
        let connecting = made.and_then(|connection| {
            connection.connect()?;
            Ok(connection)
        });
        match connecting {
            Ok(connection) => Ok(Step::Connecting(Box::new(connection))),
            Err(e) => Err(CloseReason::Unreachable(cant_make(&e))),
        }
    }

    fn established(&mut self, conn: ConnId, mut connection: Connection, event: &CmEvent) -> Result<(), CloseReason> {
        let greeting = Greeting::decode(&event.private_data).map_err(|e| CloseReason::Violation(e.to_string()))?;
        if greeting.credits == 0 {
            return Err(CloseReason::Violation("it gives no receive credits".into()));
        }
        connection.greeted(greeting);
        self.settle(conn, connection).map_err(|e| CloseReason::Unreachable(cant_make(&e)))
    }

    /// Puts a connection among those that are polled.
    fn settle(&mut self, conn: ConnId, connection: Connection) -> io::Result<()> {
        self.poller.add(connection.as_fd(), Token::Conn(conn), Interest::Readable)?;
        self.connections.insert(conn, connection);
        Ok(())
    }

    // ---- the peers' -----------------------------------------------------------------------------------------------

    /// A peer wants to connect.
    fn requested(&mut self, id: CmId, private_data: &[u8]) {
        let greeting = match Greeting::decode(private_data) {
            Ok(greeting) if greeting.credits > 0 => greeting,
            other => {
                tracing::warn!(?other, "an RDMA connection request that is no peer's of this version");
                reject(&id);
                return;
            }
        };
        let accepting = |connection: &&Connection| matches!(connection.stage, Stage::Accepting(_));
        if self.connections.values().filter(accepting).count() >= MOST_ACCEPTING {
            tracing::warn!("an RDMA connection request with {MOST_ACCEPTING} others under way");
            reject_for_now(&id);
            return;
        }
        let conn = self.new_conn();
        id.set_number(conn.0);
        set_patience(&id);
        let stage = Stage::Accepting(Instant::now() + self.options.connect_timeout);
        let made = Connection::new(id, self.options.send_depth, stage);
        let accepted = made.and_then(|mut connection| {
            connection.greeted(greeting);
            match connection.accept() {
                Ok(()) => Ok(connection),
                Err(e) => Err((e, None)),
            }
        });
        match accepted.map_err(|(error, id)| (cant_make(&error), id)) {
            Ok(connection) => {
                if let Err(error) = self.settle(conn, connection) {
                    tracing::warn!(%error, "an RDMA connection can't be watched");
                }
            }
            Err((error, id)) => {
                tracing::warn!(error, "an RDMA connection request can't be accepted");
                if let Some(id) = id {
                    reject(&id);
                }
            }
        }
    }

    /// Something about a connection that is made.
    fn told(&mut self, conn: ConnId, event: &CmEvent, events: &mut Vec<Event>) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        match event.kind {
            CmEventKind::Established => {
                if matches!(connection.stage, Stage::Accepting(_)) {
                    connection.stage = Stage::Open;
                    events.push(Event::Accepted { conn });
                }
            }
            CmEventKind::Disconnected => connection.disconnected(conn, events),
            kind => {
                if let Some(why) = failed(kind, event) {
                    connection.fail(why);
                }
            }
        }
    }

    // ---- time -----------------------------------------------------------------------------------------------------

    /// When something wants to be looked at without an event: for whoever sleeps on behalf of this fabric.
    #[must_use]
    pub(super) fn timer(&self) -> Option<Instant> {
        let made = self.connections.values().filter_map(Connection::wake_at);
        self.making.values().map(Dial::wake_at).chain(made).min()
    }

    /// Does what the time has come for.
    pub(super) fn timers(&mut self, now: Instant) {
        let due: Vec<ConnId> =
            self.making.iter().filter(|(_, dial)| now >= dial.wake_at()).map(|(&conn, _)| conn).collect();
        for conn in due {
            let Some(mut dial) = self.making.remove(&conn) else { continue };
            dial.was_silent(now);
            self.next_address(conn, dial, now);
        }
        self.connections.retain(|_, connection| match connection.stage {
            Stage::Accepting(deadline) => now < deadline,
            Stage::Open => {
                connection.check_peer(now);
                true
            }
        });
    }
}

/// Turns a request away, and says which version turns it away.
fn reject(id: &CmId) {
    turn_away(id, &Greeting { credits: 0 }.encode());
}

/// Turns a request away as a process that ends does: it is nobody's fault.
fn reject_for_now(id: &CmId) {
    turn_away(id, &[]);
}

fn turn_away(id: &CmId, private_data: &[u8]) {
    if let Err(error) = id.reject(private_data) {
        tracing::debug!(%error, "a request that is over already");
    }
}

/// What an event says that ends an attempt or a connection.
fn failed(kind: CmEventKind, event: &CmEvent) -> Option<CloseReason> {
    let system = || io::Error::from_raw_os_error(event.status.saturating_abs());
    let unreachable = |what: &str| CloseReason::Unreachable(format!("{what}: {}", system()));
    Some(match kind {
        CmEventKind::AddressError | CmEventKind::RouteError => no_way(&system()),
        CmEventKind::Unreachable => unreachable("no answer"),
        CmEventKind::ConnectError => unreachable("the connection could not be set up"),
        CmEventKind::Rejected => rejected(event),
        CmEventKind::Disconnected => CloseReason::Ended,
        CmEventKind::DeviceRemoval => CloseReason::Unreachable("the RDMA device was removed".into()),
        CmEventKind::AddressResolved
        | CmEventKind::RouteResolved
        | CmEventKind::ConnectRequest
        | CmEventKind::Established
        | CmEventKind::Other => return None,
    })
}

/// Only "no such service" means that no process runs there. A process that ends with our request unanswered rejects it as
/// a consumer would, and so does one that lives.
fn rejected(event: &CmEvent) -> CloseReason {
    if event.status == REJECTED_NO_SERVICE {
        return CloseReason::Refused;
    }
    match Greeting::decode(&event.private_data) {
        Err(crate::greeting::GreetingError::Foreign) => CloseReason::Ended,
        Ok(_) => CloseReason::Violation("it turned our connection request away".into()),
        Err(other) => CloseReason::Violation(other.to_string()),
    }
}

/// Address or route could not be resolved: there is no way to it, or nobody at its end answers.
fn no_way(error: &io::Error) -> CloseReason {
    match Errno::from_io_error(error) {
        Some(Errno::NODEV) => {
            CloseReason::NoRoute(format!("{error}; no RDMA device of this host leads there, see `rdma link`"))
        }
        _ => CloseReason::no_route(error)
            .unwrap_or_else(|| CloseReason::Unreachable(format!("its address could not be resolved: {error}"))),
    }
}

fn cant_make(error: &io::Error) -> String {
    let hint = match Errno::from_io_error(error) {
        Some(Errno::NOMEM) => "; is the limit on locked memory high enough?",
        // As rdma_cm says of a request that is not there any more: this process has stood still.
        Some(Errno::INVAL) => "; harmless if the other side has given up meanwhile",
        _ => "",
    };
    format!("the device gives no queue pair: {error}{hint}")
}
