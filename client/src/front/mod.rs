//! The NBD front end: many connections, one volume, no thread.
//!
//! A driver calls [`FrontEnd::ready`] for sockets and the two `…completed` methods for what the volume has done, then
//! [`FrontEnd::work`], which does everything that can be done, and [`FrontEnd::send`], which sends what is owed.
//! Nothing here waits.
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
//! Requests are kept as `Op`s until they have ended, whatever becomes of their connection. A reply to a write is
//! sent when the session says that it is durable. So FLUSH is answered at once: it covers the writes replied to before
//! it (proto.md), on any connection, and those are durable; FUA for the same reason adds nothing.
//!
//! Invariants:
//! 1. At most one connection has the ring's *reservation*, the place that the next payload gets. Whoever else commits
//!    a payload first moves the holder to a private buffer (`evict`); so nobody waits for a slow sender.
//! 2. A blob is committed only when nobody queues for its blocks in `ranges`, but for its own job.
//! 3. Every connection's share of requests and memory is bounded (`limits.rs`); at the bound its socket is not read.
//! 4. Window space is given first come, first served (`line`).

mod backend;
mod conn;
mod intake;
mod jobs;
mod limits;
mod listener;
mod output;
mod ranges;
mod reads;
mod slots;
mod span;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use twinsan_nbd::{Errno, Export, reply};
use twinsan_wire::Seq;

pub use self::backend::{Backend, Watcher};
pub use self::listener::{NbdAddress, NbdListener};
pub use self::span::Shape;

use self::conn::Conn;
use self::jobs::Job;
use self::output::Flush;
use self::ranges::RangeQueue;
use self::reads::{ReadBuffers, ReadPart};
use self::slots::Slots;
use crate::memory::Memory;

pub(crate) type ConnId = u32;
pub(crate) type OpId = u32;
pub(crate) type JobId = u32;

/// A request that has not ended.
#[derive(Debug)]
pub(crate) struct Op {
    conn: ConnId,
    cookie: u64,
    began_ms: u64,
    /// Its client has been told, or is gone.
    answered: bool,
    kind: OpKind,
}

/// What is left of it.
#[derive(Debug)]
enum OpKind {
    /// A WRITE, `WRITE_ZEROES` or TRIM.
    Change {
        /// Blobs of it that are not committed.
        uncommitted: u32,
        /// Every blob of it is counted there.
        whole: bool,
        /// The last that is committed.
        last: Seq,
    },
    /// A READ.
    Read {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u32,
        /// The first of its parts; most have no other.
        first: ReadPart,
        /// The others, in order.
        more: Vec<ReadPart>,
        /// Parts that have not come.
        missing: u32,
    },
}

/// Who waits for window space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InLine {
    /// A connection, to receive a payload straight into the ring.
    Conn(ConnId),
    /// A job, to be committed.
    Job(JobId),
}

/// How to serve.
#[derive(Clone, Debug)]
pub struct FrontOptions {
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
pub struct FrontEnd {
    options: FrontOptions,
    memory: Memory,
    conns: Slots<Conn>,
    ops: Slots<Op>,
    jobs: Slots<Job>,
    buffers: ReadBuffers,
    ranges: RangeQueue,
    /// Jobs that wait in `ranges`, oldest first.
    queueing: VecDeque<JobId>,
    /// Somebody has left `ranges`.
    ranges_changed: bool,
    /// Who receives into the ring (invariant 1).
    reservation: Option<ConnId>,
    /// Who waits for the window to open (invariant 4).
    line: VecDeque<InLine>,
    /// Committed requests, by the seq that makes them durable.
    committed: VecDeque<(Seq, OpId)>,
    /// Everything up to here is durable.
    completed: Seq,
    /// Connections that can go on without hearing from their sockets.
    runnable: VecDeque<ConnId>,
    /// Connections with something to send, or whose interest may have changed.
    dirty: Vec<ConnId>,
    now_ms: u64,
    /// No request is begun any more.
    stopping: bool,
    /// The volume is gone: what every request is answered with.
    failed: Option<Arc<str>>,
}

impl FrontEnd {
    /// Without connections yet.
    #[must_use]
    pub fn new(options: FrontOptions, memory: Memory) -> Self {
        Self {
            options,
            memory,
            conns: Slots::new(),
            ops: Slots::new(),
            jobs: Slots::new(),
            buffers: ReadBuffers::new(),
            ranges: RangeQueue::default(),
            queueing: VecDeque::new(),
            ranges_changed: false,
            reservation: None,
            line: VecDeque::new(),
            committed: VecDeque::new(),
            completed: Seq::ZERO,
            runnable: VecDeque::new(),
            dirty: Vec::new(),
            now_ms: 0,
            stopping: false,
            failed: None,
        }
    }

    /// A client has connected; its socket is non-blocking. `false`: there are too many, and it has been closed.
    pub fn accept(&mut self, fd: OwnedFd) -> bool {
        if self.conns.len() >= limits::MAX_CONNECTIONS || self.stopping {
            return false;
        }
        let id = self.conns.insert(Conn::new(fd, self.options.export.clone()));
        tracing::debug!(connection = id, "NBD client connected");
        self.touch(id);
        true
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
        self.completed = self.completed.max(upto);
        while let Some(&(seq, op)) = self.committed.front()
            && seq <= self.completed
        {
            self.committed.pop_front();
            self.end_change(op);
        }
    }

    /// Takes requests and commits what can be committed: to be called after a batch of events. [`FrontEnd::send`]
    /// follows, once the driver has posted what came of it.
    pub fn work<B: Backend>(&mut self, backend: &mut B, now_ms: u64) {
        self.now_ms = now_ms;
        self.serve_ranges();
        self.serve_line(backend);
        // Those that are runnable now have one turn each; who is still runnable then has another after the others.
        for _ in 0..self.runnable.len() {
            let Some(id) = self.runnable.pop_front() else { break };
            self.conns[id].runnable = false;
            self.run(id, backend);
        }
        self.issue_reads(backend);
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
                match conn.output.flush(fd.as_fd(), &self.memory, &mut self.buffers.free) {
                    Ok(Flush::Empty) => {}
                    Ok(Flush::Blocked) => conn.output_blocked = true,
                    Err(error) => conn.broken = Some(format!("sending: {error}")),
                }
            }
            self.settle(id, watcher);
        }
    }

    /// Whether [`FrontEnd::work`] can do something without hearing of an event first.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.runnable.is_empty() || self.ranges_changed || self.buffers.can_serve()
    }

    /// Answers by EIO what has taken too long, if there is such a limit.
    pub fn expire(&mut self, now_ms: u64) {
        let Some(limit) = self.options.io_timeout_ms else { return };
        for id in self.ops.ids() {
            let op = &self.ops[id];
            if !op.answered && now_ms.saturating_sub(op.began_ms) >= limit {
                self.fail_op(id, Errno::Io, &format!("no answer within the I/O timeout of {limit} ms"));
            }
        }
    }

    /// The volume is gone: everything, now and later, is answered by an error that says `why`.
    pub fn fail(&mut self, why: &str) {
        self.failed = Some(why.into());
        for id in self.ops.ids() {
            if !self.ops[id].answered {
                self.fail_op(id, Errno::Shutdown, why);
            }
        }
    }

    /// Begins no more requests; those that have begun go on.
    pub fn stop(&mut self) {
        self.stopping = true;
        for id in self.conns.ids() {
            self.touch(id);
        }
    }

    /// Whether every request that has begun has ended and is answered. A WRITE whose payload has not come in full has
    /// not been accepted.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let receiving = self.conns.iter().filter(|conn| conn.incoming.is_some()).count();
        self.ops.len() <= receiving && self.conns.iter().all(|conn| conn.output.is_empty())
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
        let conn = &mut self.conns[id];
        if conn.broken.is_some() || conn.is_finished() {
            let why = conn.broken.take().unwrap_or_else(|| "the client is done".into());
            return self.close(id, &why, watcher);
        }
        let resumes = conn.held && conn.may_begin();
        if resumes {
            conn.held = false;
        }
        let token = self.options.first_token + u64::from(id);
        let watched = conn.update_interest(!self.stopping || conn.incoming.is_some(), token, watcher);
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
        conn.output.abandon(&mut self.buffers.free);
        for op in self.ops.ids() {
            if self.ops[op].conn == id {
                self.answered(op);
            }
        }
        if let Some(incoming) = self.conns[id].incoming.take() {
            // Not accepted: its payload did not come in full. Parts of it that are committed stay.
            let op = incoming.op;
            self.stop_receiving(id, &incoming);
            self.maybe_committed(op);
        }
        self.forget_if_done(id);
    }

    /// Frees a closed connection's number once nothing refers to it.
    fn forget_if_done(&mut self, id: ConnId) {
        let conn = &self.conns[id];
        if conn.is_closed() && conn.ops == 0 && !conn.dirty && !conn.runnable {
            self.conns.remove(id);
        }
    }

    fn begin_op(&mut self, conn: ConnId, cookie: u64, kind: OpKind) -> OpId {
        self.conns[conn].ops += 1;
        self.conns[conn].open += 1;
        self.ops.insert(Op { conn, cookie, began_ms: self.now_ms, answered: false, kind })
    }

    /// The request's client has been told, or is gone.
    fn answered(&mut self, id: OpId) {
        let op = &mut self.ops[id];
        if !std::mem::replace(&mut op.answered, true) {
            let conn = op.conn;
            self.conns[conn].open -= 1;
            self.touch(conn);
        }
    }

    /// Answers a request that is not needed any more from then on.
    fn fail_op(&mut self, id: OpId, errno: Errno, why: &str) {
        let Op { conn: conn_id, cookie, .. } = self.ops[id];
        let conn = &mut self.conns[conn_id];
        let structured = conn.server.structured();
        conn.output.reply(|bytes| reply::error(bytes, structured, cookie, errno, why));
        let receiving = conn.incoming.take_if(|incoming| incoming.op == id);
        self.answered(id);
        let cut_off = receiving.is_some();
        if let Some(incoming) = receiving {
            self.conns[conn_id].server.discard_payload();
            self.stop_receiving(conn_id, &incoming);
        }
        self.drop_unstarted(id, cut_off);
    }

    /// Frees an ended request's number.
    fn end_op(&mut self, id: OpId) {
        self.answered(id);
        let conn = self.ops.remove(id).conn;
        self.conns[conn].ops -= 1;
        self.forget_if_done(conn);
    }

    /// A change is durable.
    fn end_change(&mut self, id: OpId) {
        let op = &self.ops[id];
        if !op.answered {
            let cookie = op.cookie;
            self.conns[op.conn].output.reply(|bytes| reply::success(bytes, cookie));
        }
        self.end_op(id);
    }
}
