//! The ublk front: the kernel's one queue, one volume.
//!
//! # What becomes of a request
//!
//! ```text
//! write ──▶ its place in the ring ──▶ payload copied there from its pages ──▶ commit ──▶ durable ──▶ completed
//!                └ the window is full: in line, its payload stays in its pages
//! read ──▶ a buffer ──▶ copied to its pages ──▶ completed
//! discard, zeroes ──▶ blobs without payload ──▶ durable ──▶ completed
//! ```
//!
//! The block layer keeps to the device's limits: whole blocks, and no read or write longer than a blob. So nothing is
//! cut, merged or kept in memory of its own, and a payload is copied once.
//!
//! # What comes again
//!
//! When this process dies, the kernel hands every request that it has not completed to the next one. Such a request may
//! have been committed: the new session begins when all that the old one left has been flushed (rule 10), and writes it
//! again under a newer (generation, seq). Its caller still waits, so nothing can have been built on it, nor ordered
//! after it. A request that was completed does not come again, and nothing old is written over it.

use std::io;

use twinsan_arena::Arena;
use twinsan_ublk::{Command, Happened, Queue, Request, is_farewell};
use twinsan_wire::limits::MAX_READ_BYTES;
use twinsan_wire::{BlobKind, Lba, Seq};

use super::backend::Backend;
use super::requests::{Answer, InLine, OpKind, Requests, Told};
use super::span::Span;
use super::{OpId, Shape};
use crate::memory::Memory;

/// Requests that the kernel may have open at once.
pub(crate) const DEPTH: u16 = 128;
/// All requests come by one port.
const PORT: super::PortId = 0;

const EIO: i32 = 5;
const EINVAL: i32 = 22;
const EOPNOTSUPP: i32 = 95;

/// The kernel's queue: [`Queue`], or the tests'.
pub trait RequestQueue {
    /// [`Queue::depth`].
    fn depth(&self) -> u16;
    /// [`Queue::poll`].
    ///
    /// # Errors
    /// The system's.
    fn poll(&mut self, happened: &mut Vec<Happened>) -> io::Result<()>;
    /// [`Queue::request`].
    fn request(&self, tag: u16) -> Option<Request>;
    /// [`Queue::take_payload`].
    ///
    /// # Errors
    /// The system's.
    fn take_payload(&self, tag: u16, arena: &Arena, at: usize, len: usize) -> io::Result<()>;
    /// [`Queue::give_payload`].
    ///
    /// # Errors
    /// The system's.
    fn give_payload(&self, tag: u16, from: u32, arena: &Arena, at: usize, len: usize) -> io::Result<()>;
    /// [`Queue::commit`].
    fn commit(&mut self, tag: u16, result: Result<u32, i32>);
    /// [`Queue::submit`].
    ///
    /// # Errors
    /// The system's.
    fn submit(&mut self) -> io::Result<()>;
}

impl RequestQueue for Queue {
    fn depth(&self) -> u16 {
        self.depth()
    }

    fn poll(&mut self, happened: &mut Vec<Happened>) -> io::Result<()> {
        self.poll(happened)
    }

    fn request(&self, tag: u16) -> Option<Request> {
        self.request(tag)
    }

    fn take_payload(&self, tag: u16, arena: &Arena, at: usize, len: usize) -> io::Result<()> {
        self.take_payload(tag, arena, at, len)
    }

    fn give_payload(&self, tag: u16, from: u32, arena: &Arena, at: usize, len: usize) -> io::Result<()> {
        self.give_payload(tag, from, arena, at, len)
    }

    fn commit(&mut self, tag: u16, result: Result<u32, i32>) {
        self.commit(tag, result);
    }

    fn submit(&mut self) -> io::Result<()> {
        self.submit()
    }
}

/// A write that waits in line.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    op: OpId,
    span: Span,
}

/// See the module's text.
#[derive(Debug)]
pub struct UblkFront<Q = Queue> {
    shape: Shape,
    requests: Requests,
    /// `None`: there is no device yet, or none any more.
    queue: Option<Q>,
    /// By tag.
    waiting: Vec<Option<Waiting>>,
    /// Requests that have come and not been looked at.
    arrived: Vec<u16>,
    happened: Vec<Happened>,
    stopping: bool,
}

/// The longest read or write that such a volume takes as one blob, whole pages.
pub(crate) fn max_io_bytes(shape: &Shape) -> u32 {
    shape.max_payload.min(MAX_READ_BYTES) / 4096 * 4096
}

impl<Q: RequestQueue> UblkFront<Q> {
    /// Without a queue yet. `io_timeout_ms`: a request that takes longer fails with EIO; `None`: never.
    #[must_use]
    pub fn new(shape: Shape, io_timeout_ms: Option<u64>, memory: Memory) -> Self {
        Self {
            shape,
            requests: Requests::new(shape, io_timeout_ms, memory),
            queue: None,
            waiting: Vec::new(),
            arrived: Vec::new(),
            happened: Vec::new(),
            stopping: false,
        }
    }

    /// Requests come by this queue from now on.
    pub fn attach(&mut self, queue: Q) {
        self.waiting = vec![None; usize::from(queue.depth())];
        self.queue = Some(queue);
    }

    /// The queue, for what is not a request.
    pub const fn queue(&mut self) -> Option<&mut Q> {
        self.queue.as_mut()
    }

    /// No request comes any more, and none is answered.
    pub fn detach(&mut self) -> Option<Q> {
        self.arrived.clear();
        self.queue.take()
    }

    /// The queue is ready: takes what has come. What is not a request is the caller's to deal with.
    ///
    /// # Panics
    /// If the kernel does not let the queue be read: the next process has to go on.
    pub fn poll(&mut self, mut other: impl FnMut(Happened)) {
        let Some(queue) = &mut self.queue else { return };
        queue.poll(&mut self.happened).expect("the kernel's queue can be read");
        for happened in self.happened.drain(..) {
            match happened {
                Happened::Request { tag } => self.arrived.push(tag),
                Happened::Aborted { tag, error } if is_farewell(&error) => {
                    tracing::trace!(tag, "the kernel has let go of a tag");
                }
                Happened::Aborted { tag, error } => {
                    tracing::error!(tag, "the kernel has refused a tag's command: {error}");
                    other(Happened::Aborted { tag, error });
                }
                happened @ (Happened::Started(_) | Happened::Stopped(_)) => other(happened),
            }
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

    /// Begins what has arrived and commits what can be committed.
    pub fn work<B: Backend>(&mut self, backend: &mut B, now_ms: u64) {
        self.requests.set_now(now_ms);
        self.serve_line(backend);
        if !self.stopping {
            let mut arrived = std::mem::take(&mut self.arrived);
            for tag in arrived.drain(..) {
                self.begin(tag, backend);
            }
            self.arrived = arrived;
        }
        // Who finds no buffer waits for those before it.
        self.requests.issue_reads(backend);
        self.take_told();
    }

    /// Hands the kernel what has been completed.
    ///
    /// # Panics
    /// If it does not take that: the next process has to go on.
    pub fn send(&mut self) {
        if self.requests.failed.is_some() {
            while let Some(tag) = self.arrived.pop() {
                self.complete(tag, Err(EIO));
            }
        }
        if let Some(queue) = &mut self.queue {
            queue.submit().expect("the kernel's queue takes completions");
        }
    }

    /// Whether [`UblkFront::work`] can do something without hearing of an event first.
    #[must_use]
    pub fn has_work(&self) -> bool {
        (!self.arrived.is_empty() && !self.stopping) || self.requests.has_work()
    }

    /// Fails with EIO what has taken too long, if there is such a limit.
    pub fn expire(&mut self, now_ms: u64) {
        self.requests.expire(now_ms);
        self.take_told();
    }

    /// The volume is gone: everything, now and later, fails.
    pub fn fail(&mut self, why: &str) {
        self.requests.fail(why);
        self.take_told();
    }

    /// Begins no more requests: they wait for the next process.
    pub const fn stop(&mut self) {
        self.stopping = true;
    }

    /// Whether every request that has begun has ended.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.requests.ops.len() == 0
    }

    fn begin<B: Backend>(&mut self, tag: u16, backend: &mut B) {
        let queue = self.queue.as_ref().expect("requests come by a queue");
        let Some(request) = queue.request(tag).filter(|request| self.fits(request)) else {
            tracing::error!(tag, "a request beyond the device's limits: {:?}", queue.request(tag));
            return self.complete(tag, Err(EINVAL));
        };
        if self.requests.failed.is_some() {
            return self.complete(tag, Err(EIO));
        }
        let Request { command, offset, len } = request;
        let cookie = u64::from(tag);
        match command {
            // What it asks for is true already: a write is completed when it is durable.
            Command::Flush => self.complete(tag, Ok(0)),
            Command::Read => self.requests.begin_read(PORT, cookie, offset, len),
            Command::Write => {
                let op = self.requests.begin(PORT, cookie, OpKind::CHANGE);
                self.requests.expect_part(op, true);
                self.waiting[usize::from(tag)] = Some(Waiting { op, span: Span::of(&self.shape, offset, len) });
                self.requests.line.push_back(InLine::Front(tag.into()));
            }
            Command::Discard => self.requests.begin_discard(PORT, cookie, (offset, len)),
            Command::WriteZeroes { no_hole } => {
                let kind = if no_hole { BlobKind::Zeroes } else { BlobKind::Discard };
                self.requests.begin_zeroes(PORT, cookie, (offset, len), kind);
            }
            Command::Unknown(_) => self.complete(tag, Err(EOPNOTSUPP)),
        }
        self.serve_line(backend);
    }

    /// Whether the block layer has kept to the device's limits.
    fn fits(&self, request: &Request) -> bool {
        let Request { command, offset, len } = *request;
        let limit = match command {
            Command::Read | Command::Write => max_io_bytes(&self.shape),
            Command::Discard | Command::WriteZeroes { .. } => u32::MAX,
            Command::Flush | Command::Unknown(_) => return true,
        };
        let block = u64::from(self.shape.block_bytes);
        let end = offset.checked_add(u64::from(len));
        len > 0
            && len <= limit
            && offset.is_multiple_of(block)
            && u64::from(len).is_multiple_of(block)
            && end.is_some_and(|end| end <= self.shape.bytes())
    }

    /// Gives window space, first come, first served.
    fn serve_line<B: Backend>(&mut self, backend: &mut B) {
        while let Some(&first) = self.requests.line.front() {
            match first {
                InLine::Front(tag) => {
                    let tag = u16::try_from(tag).expect("a tag");
                    let waiting = self.waiting[usize::from(tag)].expect("who is in line waits");
                    let Some(data_pos) = backend.place(waiting.span.len) else { return };
                    self.requests.line.pop_front();
                    self.waiting[usize::from(tag)] = None;
                    self.commit_write(tag, waiting, data_pos, backend);
                }
                InLine::Job(id) => {
                    if !self.requests.job_fits(id, backend) {
                        return;
                    }
                    self.requests.line.pop_front();
                    self.requests.commit_job(id, backend);
                }
            }
        }
    }

    fn commit_write<B: Backend>(&mut self, tag: u16, write: Waiting, data_pos: u64, backend: &mut B) {
        let Waiting { op, span } = write;
        let memory = &self.requests.memory;
        let queue = self.queue.as_ref().expect("requests come by a queue");
        match queue.take_payload(tag, memory.arena(), memory.staged(data_pos), span.len as usize) {
            Ok(()) => {
                let seq = backend.write(BlobKind::Write, Lba(span.lba), span.blocks);
                self.requests.part_committed(op, seq);
            }
            Err(error) => {
                // The place was not used: the next one gets it.
                tracing::error!(tag, "the payload of a write: {error}");
                self.requests.end(op);
                self.complete(tag, Err(EIO));
            }
        }
    }

    /// Carries out what the requests have to say.
    fn take_told(&mut self) {
        while let Some(told) = self.requests.told.pop_front() {
            let Told::Answer { cookie, answer, .. } = told else { continue };
            let tag = u16::try_from(cookie).expect("a tag");
            match answer {
                Answer::Done => {
                    // Bytes are counted where they move: discards and zeroes may be longer than a result can say.
                    let moved = match self.queue.as_ref().and_then(|queue| queue.request(tag)) {
                        Some(Request { command: Command::Read | Command::Write, len, .. }) => len,
                        _ => 0,
                    };
                    self.complete(tag, Ok(moved));
                }
                Answer::Read { len, first, more, .. } => {
                    let mut from = 0;
                    let mut result = Ok(len);
                    for part in std::iter::once(&first).chain(&more) {
                        let at = Memory::read_slot(part.slot()) + part.span.head as usize;
                        let arena = self.requests.memory.arena();
                        let given = self
                            .queue
                            .as_ref()
                            .map(|queue| queue.give_payload(tag, from, arena, at, part.span.len as usize));
                        if let Some(Err(error)) = given {
                            tracing::error!(tag, "the answer to a read: {error}");
                            result = Err(EIO);
                        }
                        from += part.span.len;
                        self.requests.buffers.free.push(part.slot());
                    }
                    self.complete(tag, result);
                }
                Answer::Failed { op, why } => {
                    tracing::error!(tag, "a request fails: {why}");
                    let waited = self.waiting[usize::from(tag)].take_if(|waiting| waiting.op == op).is_some();
                    if waited {
                        self.requests.line.retain(|waiter| *waiter != InLine::Front(tag.into()));
                        self.requests.cut_off(op, 1);
                    }
                    self.requests.drop_unstarted(op, waited);
                    self.complete(tag, Err(EIO));
                }
            }
        }
    }

    fn complete(&mut self, tag: u16, result: Result<u32, i32>) {
        if let Some(queue) = &mut self.queue {
            queue.commit(tag, result);
        }
    }
}

#[cfg(test)]
mod tests;
