//! How connections come to be: ours and the peers'.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use twinsan_fabric::{CloseReason, ConnId, Event, FabricError, Interest};

use super::{Making, TcpFabric};
use crate::address::{Address, Endpoint};
use crate::connection::Connection;
use crate::dial::{Attempt, Dial};
use crate::socket;
use twinsan_fabric::parts::Resolver;
use twinsan_fabric::parts::Token;

impl TcpFabric {
    /// Begins to connect. Names go to the resolver's thread: it may take seconds, and this thread has heartbeats to
    /// send.
    pub(super) fn begin_connect(&mut self, address: Address) -> Result<ConnId, FabricError> {
        let conn = self.new_conn();
        let now = Instant::now();
        match address {
            Address::Ip(ip) => self.dial(conn, vec![Endpoint::Ip(ip)], now),
            Address::Unix(path) => self.dial(conn, vec![Endpoint::Unix(path)], now),
            Address::Name { .. } => {
                let deadline = now + self.options.connect_timeout;
                self.resolver()?.ask(conn, move || address.resolve());
                self.making.insert(conn, Making::Resolving { deadline });
            }
        }
        Ok(conn)
    }

    /// The resolver, made and watched when it is first needed.
    fn resolver(&mut self) -> Result<&mut Resolver<Endpoint>, FabricError> {
        if self.resolver.is_none() {
            let io = |source| FabricError::Io { what: "make a resolver".into(), source };
            let resolver = Resolver::new().map_err(io)?;
            self.poller.add(resolver.wake(), Token::Resolver, Interest::Readable).map_err(io)?;
            self.resolver = Some(resolver);
        }
        self.resolver.as_mut().ok_or(FabricError::Invalid("no resolver"))
    }

    /// The resolver has answers.
    pub(super) fn resolved(&mut self, events: &mut Vec<Event>) {
        let Some(resolver) = &mut self.resolver else { return };
        for (conn, answer) in resolver.answers() {
            // It may have been given up meanwhile.
            if self.making.remove(&conn).is_none() {
                continue;
            }
            match answer {
                Ok(endpoints) => self.dial(conn, endpoints, Instant::now()),
                Err(why) => events.push(Event::Closed { conn, why: CloseReason::Unreachable(why) }),
            }
        }
    }

    fn dial(&mut self, conn: ConnId, endpoints: Vec<Endpoint>, now: Instant) {
        let mut dial = Dial::new(endpoints, now, self.options.connect_timeout);
        let attempt = dial.attempt(now);
        self.went(conn, dial, attempt);
    }

    /// Acts on how an attempt went; what there is to report waits for the next poll.
    fn went(&mut self, conn: ConnId, dial: Dial, attempt: Attempt) {
        let closed = |why| Event::Closed { conn, why };
        match attempt {
            Attempt::Connected(socket) => match self.establish(conn, socket) {
                Ok(()) => self.pending.push(Event::Connected { conn }),
                Err(e) => self.pending.push(closed(socket::reason(&e))),
            },
            Attempt::Pending(socket) => match self.poller.add(socket.as_fd(), Token::Conn(conn), Interest::Writable) {
                Ok(()) => {
                    self.making.insert(conn, Making::Dialling { dial, socket: Some(socket) });
                }
                Err(e) => self.pending.push(closed(socket::reason(&e))),
            },
            Attempt::Later => {
                self.making.insert(conn, Making::Dialling { dial, socket: None });
            }
            Attempt::Failed(why) => self.pending.push(closed(why)),
        }
    }

    fn establish(&mut self, conn: ConnId, socket: OwnedFd) -> io::Result<()> {
        let connection = Connection::new(conn, socket, &self.poller)?;
        self.connections.insert(conn, connection);
        Ok(())
    }

    /// A socket that is connecting has become ready, one way or the other.
    pub(super) fn dialled(&mut self, conn: ConnId) {
        if let Some(Making::Dialling { mut dial, socket: Some(socket) }) = self.making.remove(&conn) {
            // Out of the epoll first: as a connection it is added with another interest.
            if let Err(error) = self.poller.remove(socket.as_fd()) {
                tracing::warn!(%error, "a connecting socket was not in the epoll");
            }
            let attempt = dial.finish(socket, Instant::now());
            self.went(conn, dial, attempt);
        }
    }

    /// Accepts what waits at a listener.
    pub(super) fn accept(&mut self, index: u32, events: &mut Vec<Event>) {
        let (connections, poller, next_conn) = (&mut self.connections, &self.poller, &mut self.next_conn);
        self.listeners.accept(poller, index, socket::accept, |socket| {
            *next_conn += 1;
            let conn = ConnId(*next_conn);
            match socket::tune(&socket).and_then(|()| Connection::new(conn, socket, poller)) {
                Ok(connection) => {
                    connections.insert(conn, connection);
                    events.push(Event::Accepted { conn });
                }
                // It may be gone already; nobody here has heard of it.
                Err(error) => tracing::debug!(%error, "an accepted connection could not be set up"),
            }
        });
    }

    /// When something wants to be looked at without an event.
    pub(super) fn timer(&self) -> Option<Instant> {
        let making = self.making.values().map(|making| match making {
            Making::Resolving { deadline } => *deadline,
            Making::Dialling { dial, .. } => dial.wake_at(),
        });
        making.chain(self.listeners.next_timer()).min()
    }

    /// Does what the time has come for.
    pub(super) fn timers(&mut self, now: Instant, events: &mut Vec<Event>) {
        let due: Vec<ConnId> = self.making.keys().copied().collect();
        for conn in due {
            let Some(making) = self.making.remove(&conn) else { continue };
            match making {
                Making::Resolving { deadline } if now >= deadline => {
                    let why = CloseReason::Unreachable("its name could not be resolved in time".into());
                    events.push(Event::Closed { conn, why });
                }
                Making::Dialling { mut dial, socket } => {
                    if dial.attempt_due(now) {
                        drop(socket);
                        let attempt = dial.attempt(now);
                        self.went(conn, dial, attempt);
                    } else {
                        self.making.insert(conn, Making::Dialling { dial, socket });
                    }
                }
                waiting @ Making::Resolving { .. } => {
                    self.making.insert(conn, waiting);
                }
            }
        }
        self.listeners.timers(&self.poller, now);
    }
}
