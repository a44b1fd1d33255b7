//! The NBD front: many connections, one volume.
//!
//! # What becomes of a request
//!
//! ```text
//!           aligned ──────────────▶ payload straight into the ring ──▶ commit ──▶ durable ──▶ reply
//! WRITE ───┤ unaligned ─▶ private buffer ─▶ queue for edges ─▶ read them ─▶ merge ─▶ ▲
//!           └ another has the ring ─▶ private buffer ─────────────────────────────────┘
//! WRITE_ZEROES: whole blocks without payload, edges as unaligned writes · TRIM: whole blocks
//! READ ─▶ buffers, in order of arrival ─▶ answered from them
//! FLUSH, CACHE ─▶ reply
//! ```
//!
//! A reply to a write is sent when the session says that it is durable. So FLUSH is answered at once: it covers the
//! writes replied to before it (proto.md), on any connection, and those are durable; FUA for the same reason adds
//! nothing.
//!
//! Invariants, besides those of [`super::requests`]:
//! 1. At most one connection has the ring's *reservation*, the place that the next payload gets. Whoever else commits
//!    a payload first moves the holder to a private buffer (`evict`); so nobody waits for a slow sender.
//! 2. Every connection's share of requests and memory is bounded (`limits.rs`); at the bound its socket is not read.
//! 3. Whoever has not finished negotiating has a deadline, and keeps its place only as long as nobody else needs it: so
//!    connections that say nothing keep nobody out.

mod conn;
mod intake;
mod listener;
mod output;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use twinsan_nbd::{Errno, Export, reply};
use twinsan_wire::Seq;

pub use self::listener::{NbdAddress, NbdListener};

use self::conn::{Conn, Negotiation};
use self::output::{Flush, Output};
use super::backend::{Backend, Watcher};
use super::requests::{Answer, Failure, Requests, Told};
use super::slots::Slots;
use super::{Shape, limits};
use crate::memory::Memory;

/// A connection's number is its port's.
pub(crate) type ConnId = super::PortId;

/// Between two log lines about clients that were turned away.
const TURNED_AWAY_LOG_MS: u64 = 1000;

/// How to serve.
#[derive(Clone, Debug)]
pub struct NbdOptions {
    /// What clients see.
    pub export: Export,
    /// The volume.
    pub shape: Shape,
    /// A request that takes longer is answered by EIO; `None`: never.
    pub io_timeout_ms: Option<u64>,
    /// The number that connections' tokens begin at.
    pub first_token: u64,
}

/// All connections and requests.
#[derive(Debug)]
pub struct NbdFront {
    options: NbdOptions,
    pub(super) requests: Requests,
    conns: Slots<Conn>,
    /// Who receives into the ring (invariant 1).
    reservation: Option<ConnId>,
    /// Connections that can go on without hearing from their sockets.
    runnable: VecDeque<ConnId>,
    /// Connections with something to send, or whose interest may have changed.
    dirty: Vec<ConnId>,
    /// Clients that have ever been taken in.
    taken_in: u64,
    /// Turning away is logged at most once a second.
    turned_away_quiet_until: u64,
    /// Since when no request is begun any more.
    stopping: Option<u64>,
}

impl NbdFront {
    /// Without connections yet.
    #[must_use]
    pub fn new(options: NbdOptions, memory: Memory) -> Self {
        let requests = Requests::new(options.shape, options.io_timeout_ms, memory);
        Self {
            options,
            requests,
            conns: Slots::new(),
            reservation: None,
            runnable: VecDeque::new(),
            dirty: Vec::new(),
            taken_in: 0,
            turned_away_quiet_until: 0,
            stopping: None,
        }
    }

    /// A client has connected; its socket is non-blocking. `false`: all places are taken by clients that have negotiated,
    /// and it has been closed.
    pub fn accept(&mut self, fd: OwnedFd) -> bool {
        if self.stopping.is_some() || !self.make_room() {
            let now_ms = self.requests.now_ms();
            if now_ms >= self.turned_away_quiet_until {
                self.turned_away_quiet_until = now_ms + TURNED_AWAY_LOG_MS;
                let most = limits::MAX_CONNECTIONS;
                tracing::warn!(
                    "an NBD client was turned away: {most} have negotiated and are connected, or all is to end"
                );
            }
            return false;
        }
        self.taken_in += 1;
        let negotiation = Negotiation { number: self.taken_in, began_ms: self.requests.now_ms() };
        let id = self.conns.insert(Conn::new(fd, self.options.export.clone(), negotiation));
        tracing::debug!(connection = id, "NBD client connected");
        self.touch(id);
        true
    }

    /// Invariant 3: a place for a newcomer, if need be that of whoever has negotiated longest.
    fn make_room(&mut self) -> bool {
        let leaving = self.conns.iter().filter(|conn| conn.broken.is_some()).count();
        if self.conns.len() - leaving < limits::MAX_CONNECTIONS {
            return true;
        }
        let negotiating = |id: &ConnId| {
            let conn = &self.conns[*id];
            conn.negotiation.filter(|_| conn.broken.is_none() && !conn.is_closed()).map(|it| (it.number, *id))
        };
        let Some((_, oldest)) = self.conns.ids().iter().filter_map(negotiating).min() else { return false };
        self.give_up(oldest, "it has not finished negotiating, and its place is needed".into());
        true
    }

    /// The connection ends with the next [`NbdFront::send`].
    fn give_up(&mut self, id: ConnId, why: String) {
        self.conns[id].broken.get_or_insert(why);
        self.touch(id);
    }

    /// The kernel's nbd device has the other end of this non-blocking socket: it begins with requests.
    pub fn accept_kernel(&mut self, fd: OwnedFd) {
        let id = self.conns.insert(Conn::kernels(fd, self.options.export.clone()));
        tracing::debug!(connection = id, "the kernel has a new socket");
        self.touch(id);
    }

    /// The socket watched under `token` is ready.
    pub fn ready(&mut self, token: u64) {
        let Ok(id) = u32::try_from(token.wrapping_sub(self.options.first_token)) else { return };
        // It may have been closed since the report.
        if let Some(conn) = self.conns.get_mut(id).filter(|conn| !conn.is_closed()) {
            conn.input.more = true;
            conn.output_blocked = false;
            self.run_later(id);
            self.touch(id);
        }
    }

    /// The volume: every write up to here is durable.
    pub fn writes_completed(&mut self, upto: Seq) {
        self.requests.writes_completed(upto);
        self.take_told();
    }

    /// The volume: the read into buffer `slot` is there.
    ///
    /// # Panics
    /// If nothing is being read into it.
    pub fn read_completed(&mut self, slot: u32) {
        self.requests.read_completed(slot);
        self.take_told();
    }

    /// Takes requests and commits what can be committed: to be called after a batch of events. [`NbdFront::send`]
    /// follows, once the driver has posted what came of it.
    pub fn work<B: Backend>(&mut self, backend: &mut B, now_ms: u64) {
        self.requests.set_now(now_ms);
        self.requests.serve_ranges();
        self.serve_line(backend);
        // Those that are runnable now have one turn each; who is still runnable then has another after the others.
        for _ in 0..self.runnable.len() {
            let Some(id) = self.runnable.pop_front() else { break };
            self.conns[id].runnable = false;
            self.run(id, backend);
        }
        while !self.requests.issue_reads(backend) && self.vacate() {}
        self.take_told();
    }

    /// Sends what is owed, one gathered write per connection, and has the sockets watched for what they wait for.
    pub fn send(&mut self, watcher: &mut impl Watcher) {
        while let Some(id) = self.dirty.pop() {
            let Some(conn) = self.conns.get_mut(id) else { continue };
            conn.dirty = false;
            let Some(fd) = conn.fd.as_ref() else {
                self.forget_if_done(id);
                continue;
            };
            if !conn.output.is_empty() && !conn.output_blocked {
                let owed = conn.output.owed_bytes();
                match conn.output.flush(fd.as_fd(), &self.requests.memory, &mut self.requests.buffers.free) {
                    Ok(Flush::Empty) => {}
                    Ok(Flush::Blocked) => conn.output_blocked = true,
                    Err(error) => conn.broken = Some(format!("sending: {error}")),
                }
                if conn.output.owed_bytes() < owed {
                    conn.taken_ms = self.requests.now_ms();
                }
            }
            self.settle(id, watcher);
        }
    }

    /// Whether [`NbdFront::work`] can do something without hearing of an event first.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.runnable.is_empty() || self.requests.has_work()
    }

    /// Answers by EIO what has taken too long, if there is such a limit. Ends connections whose negotiation has, and, once
    /// no more requests are begun, those that take no answers: nobody else is to wait for them.
    pub fn expire(&mut self, now_ms: u64) {
        self.requests.expire(now_ms);
        self.take_told();
        for id in self.conns.ids() {
            let conn = &self.conns[id];
            let negotiating = conn.negotiation.map(|it| now_ms.saturating_sub(it.began_ms));
            let waits_since = self.stopping.filter(|_| conn.output_blocked).map(|at| at.max(conn.taken_ms));
            if conn.is_closed() {
                continue;
            }
            if negotiating.is_some_and(|ms| ms >= limits::NEGOTIATION_TIMEOUT_MS) {
                let ms = limits::NEGOTIATION_TIMEOUT_MS;
                self.give_up(id, format!("it has not finished negotiating within {ms} ms"));
            } else if waits_since.is_some_and(|at| now_ms.saturating_sub(at) >= limits::STOP_BLOCKED_MS) {
                self.give_up(id, "it takes no answers, and all is to end".into());
            }
        }
    }

    /// The volume is gone: everything, now and later, is answered by an error that says `why`.
    pub fn fail(&mut self, why: &str) {
        self.requests.fail(why);
        self.take_told();
    }

    /// Begins no more requests; those that have begun go on.
    pub fn stop(&mut self) {
        self.stopping.get_or_insert(self.requests.now_ms());
        for id in self.conns.ids() {
            self.touch(id);
        }
    }

    /// Whether every request that has begun has ended and is answered. A WRITE whose payload has not come in full has
    /// not been accepted.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let receiving = self.conns.iter().filter(|conn| conn.incoming.is_some()).count();
        self.requests.ops.len() <= receiving && self.conns.iter().all(|conn| conn.output.is_empty())
    }

    /// Connections that are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.conns.iter().filter(|conn| !conn.is_closed()).count()
    }

    /// Ends connections whose peer has hung up, although what it sent before has not been read: it sends that again. The
    /// kernel's; a socket that waits in line for the window is not watched.
    pub fn close_hung_up(&mut self, watcher: &mut impl Watcher) {
        for id in self.conns.ids() {
            if self.conns[id].is_hung_up() {
                self.close(id, "the kernel has hung up", watcher);
            }
        }
    }

    /// Ends all connections.
    pub fn close_all(&mut self, watcher: &mut impl Watcher) {
        for id in self.conns.ids() {
            if !self.conns[id].is_closed() {
                self.close(id, "the volume is detached", watcher);
            }
        }
    }

    /// Carries out what the requests have to say.
    fn take_told(&mut self) {
        while let Some(told) = self.requests.told.pop_front() {
            match told {
                Told::Answer { port, cookie, answer } => {
                    self.answer(port, cookie, answer);
                    self.touch(port);
                }
                Told::Freed { port } => {
                    self.touch(port);
                    self.forget_if_done(port);
                }
            }
        }
    }

    fn answer(&mut self, id: ConnId, cookie: u64, answer: Answer) {
        let conn = &mut self.conns[id];
        let structured = conn.server.structured();
        match answer {
            Answer::Done => conn.output.reply(|bytes| reply::success(bytes, cookie)),
            Answer::Read { offset, len, first, more } => {
                conn.output.reply(|bytes| reply::read_head(bytes, structured, cookie, offset, len));
                for part in std::iter::once(&first).chain(&more) {
                    conn.output.slot(part.slot(), part.span.head, part.span.len);
                }
            }
            Answer::Failed { op, why } => {
                fail(&mut conn.output, structured, cookie, &why);
                let receiving = conn.incoming.take_if(|incoming| incoming.op == op);
                let cut_off = receiving.is_some();
                if let Some(incoming) = receiving {
                    conn.server.discard_payload();
                    self.stop_receiving(id, &incoming);
                }
                self.requests.drop_unstarted(op, cut_off);
            }
        }
    }

    /// Takes the buffers of a client that does not take its answers; whether there was one.
    fn vacate(&mut self) -> bool {
        for id in self.conns.ids() {
            let conn = &mut self.conns[id];
            if conn.output_blocked {
                conn.output.vacate(&self.requests.memory, &mut self.requests.buffers.free);
            }
            if !self.requests.buffers.free.is_empty() {
                return true;
            }
        }
        false
    }

    /// Puts the connection on the list of those that can go on.
    fn run_later(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id)
            && !conn.runnable
            && !conn.is_closed()
        {
            conn.runnable = true;
            self.runnable.push_back(id);
        }
    }

    /// Puts the connection on the list of those to send from and to watch anew.
    fn touch(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id)
            && !conn.dirty
        {
            conn.dirty = true;
            self.dirty.push(id);
        }
    }

    /// After a change: lets a held connection go on, closes a finished one, watches for what it waits for.
    fn settle(&mut self, id: ConnId, watcher: &mut impl Watcher) {
        let share = self.requests.share(id);
        let conn = &mut self.conns[id];
        if conn.broken.is_some() || conn.is_finished(&share) {
            let why = conn.broken.take().unwrap_or_else(|| "the client is done".into());
            return self.close(id, &why, watcher);
        }
        let resumes = conn.held && conn.may_begin(&share);
        if resumes {
            conn.held = false;
        }
        let token = self.options.first_token + u64::from(id);
        let watched = conn.update_interest(self.stopping.is_none() || conn.incoming.is_some(), token, watcher);
        if resumes {
            self.run_later(id);
        }
        if let Err(why) = watched {
            self.close(id, &why, watcher);
        }
    }

    /// Ends a connection. Requests of it that have been accepted go on without it.
    fn close(&mut self, id: ConnId, why: &str, watcher: &mut impl Watcher) {
        tracing::debug!(connection = id, "NBD connection closed: {why}");
        let conn = &mut self.conns[id];
        conn.hang_up(watcher);
        conn.output.abandon(&mut self.requests.buffers.free);
        self.requests.abandon(id);
        if let Some(incoming) = self.conns[id].incoming.take() {
            // Not accepted: its payload did not come in full. Parts of it that are committed stay.
            let op = incoming.op;
            self.stop_receiving(id, &incoming);
            self.requests.maybe_committed(op);
        }
        self.take_told();
        self.forget_if_done(id);
    }

    /// Frees a closed connection's number once nothing refers to it.
    fn forget_if_done(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        if conn.is_closed() && self.requests.share(id).ops == 0 && !conn.dirty && !conn.runnable {
            self.conns.remove(id);
        }
    }
}

/// Says that a request has failed.
fn fail(output: &mut Output, structured: bool, cookie: u64, why: &Failure) {
    let errno = match why {
        Failure::Late(_) => Errno::Io,
        Failure::Gone(_) => Errno::Shutdown,
    };
    output.reply(|bytes| reply::error(bytes, structured, cookie, errno, &why.to_string()));
}
