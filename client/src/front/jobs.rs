//! Changes that can't be committed on the spot: unaligned ones, those over blocks that somebody queues for, those whose
//! payload came while another connection had the ring, and everything without payload.
//!
//! ```text
//! Queueing ──nobody before it──▶ Reading its edges ──▶ InLine ──window space──▶ committed
//!     └────────── has none ────────────────────────────▲
//! ```

use twinsan_wire::limits::MAX_ZERO_BLOCKS;
use twinsan_wire::{BlobKind, Lba, Seq};

use super::backend::Backend;
use super::ranges::Ticket;
use super::span::Span;
use super::{ConnId, FrontEnd, InLine, JobId, OpId, OpKind};

/// One blob to be.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) op: OpId,
    pub(crate) span: Span,
    pub(crate) content: Content,
    /// Its place in the queue for its blocks, if it has to have one.
    ticket: Option<Ticket>,
    state: State,
}

/// What it puts on its blocks.
#[derive(Debug)]
pub(crate) enum Content {
    /// These bytes, whole blocks; those before and after the span are read first.
    Bytes(Vec<u8>),
    /// Zeros.
    Zeros(BlobKind),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Queueing,
    /// So many edges have not come.
    Reading(u32),
    InLine,
}

impl FrontEnd {
    /// One more blob of a request is to be committed; `last`: there are no more.
    pub(super) fn expect_part(&mut self, op: OpId, last: bool) {
        let OpKind::Change { uncommitted, whole, .. } = &mut self.ops[op].kind else { panic!("not a change") };
        *uncommitted += 1;
        *whole = last;
    }

    /// A blob of a request has been committed.
    pub(super) fn part_committed(&mut self, op: OpId, seq: Seq) {
        let OpKind::Change { uncommitted, last, .. } = &mut self.ops[op].kind else { panic!("not a change") };
        *uncommitted -= 1;
        *last = seq;
        self.maybe_committed(op);
    }

    /// If nothing of a request is left to be committed, it ends when its last blob is durable.
    pub(super) fn maybe_committed(&mut self, op: OpId) {
        let OpKind::Change { uncommitted: 0, whole: true, last } = self.ops[op].kind else { return };
        if last <= self.completed {
            self.end_change(op);
        } else {
            self.committed.push_back((last, op));
        }
    }

    /// A WRITE's part, received outside of the ring.
    pub(super) fn add_write_job<B: Backend>(&mut self, op: OpId, span: Span, bytes: Vec<u8>, backend: &mut B) {
        self.add_job(op, span, Content::Bytes(bytes), backend);
    }

    /// TRIM: the whole blocks of a range.
    pub(super) fn begin_zeroes<B: Backend>(
        &mut self,
        conn: ConnId,
        cookie: u64,
        range: (u64, u32),
        kind: BlobKind,
        backend: &mut B,
    ) {
        let op = self.begin_op(conn, cookie, OpKind::Change { uncommitted: 0, whole: false, last: Seq::ZERO });
        self.zero_inner(op, range, kind, backend);
    }

    /// `WRITE_ZEROES`: the partly covered blocks, each a write of one block. [`FrontEnd::zero_inner`] follows.
    pub(super) fn begin_zero_edges<B: Backend>(
        &mut self,
        conn: ConnId,
        cookie: u64,
        (offset, len): (u64, u32),
        backend: &mut B,
    ) -> OpId {
        let op = self.begin_op(conn, cookie, OpKind::Change { uncommitted: 0, whole: false, last: Seq::ZERO });
        let shape = self.options.shape;
        let block = u64::from(shape.block_bytes);
        let end = offset + u64::from(len);
        for edge in Span::of(&shape, offset, len).edges().into_iter().filter(|edge| !edge.is_empty()) {
            let (from, to) = (offset.max(edge.start * block), end.min(edge.end * block));
            let span = Span::of(&shape, from, u32::try_from(to - from).expect("less than a block"));
            self.expect_part(op, false);
            let bytes = vec![0; shape.block_bytes as usize];
            self.conns[conn].private += bytes.len();
            self.add_job(op, span, Content::Bytes(bytes), backend);
        }
        op
    }

    /// The fully covered blocks, and the end of the request.
    pub(super) fn zero_inner<B: Backend>(
        &mut self,
        op: OpId,
        (offset, len): (u64, u32),
        kind: BlobKind,
        backend: &mut B,
    ) {
        let shape = self.options.shape;
        let inner = Span::of(&shape, offset, len).inner();
        let mut lba = inner.start;
        while lba < inner.end {
            let blocks = u32::try_from((inner.end - lba).min(u64::from(MAX_ZERO_BLOCKS))).expect("bounded");
            // The length in bytes of so many blocks may be 4 GiB and is not needed.
            let span = Span { lba, blocks, head: 0, len: 0, tail: 0 };
            self.expect_part(op, false);
            self.add_job(op, span, Content::Zeros(kind), backend);
            lba += u64::from(blocks);
        }
        if let OpKind::Change { whole, .. } = &mut self.ops[op].kind {
            *whole = true;
        }
        self.maybe_committed(op);
    }

    fn add_job<B: Backend>(&mut self, op: OpId, span: Span, content: Content, backend: &mut B) {
        let waits = !span.is_whole() || self.ranges.wanted(&span.range());
        let ticket = waits.then(|| self.ranges.enqueue(span.range()));
        let state = if waits { State::Queueing } else { State::InLine };
        let id = self.jobs.insert(Job { op, span, content, ticket, state });
        if waits {
            self.queueing.push_back(id);
            self.ranges_changed = true;
        } else if !self.line.is_empty() || !self.commit_job(id, backend) {
            self.line.push_back(InLine::Job(id));
        }
    }

    /// Lets everybody go on whose turn it is in the queue for blocks.
    pub(super) fn serve_ranges(&mut self) {
        if !std::mem::take(&mut self.ranges_changed) {
            return;
        }
        let mut at = 0;
        while let Some(&id) = self.queueing.get(at) {
            let ticket = self.jobs[id].ticket.expect("who queues has a ticket");
            if self.ranges.granted(ticket) {
                self.queueing.remove(at);
                self.granted(id);
            } else {
                at += 1;
            }
        }
    }

    /// The blocks are the job's: reads its edges, if it has any.
    fn granted(&mut self, id: JobId) {
        let job = &mut self.jobs[id];
        let [first, last] = job.span.edges().map(|edge| !edge.is_empty());
        job.state = State::Reading(u32::from(first) + u32::from(last));
        if first {
            self.buffers.want_edge(id, false);
        }
        if last {
            self.buffers.want_edge(id, true);
        }
        if !first && !last {
            self.line_up(id);
        }
    }

    /// An edge lies in a read buffer at `at`: takes from it what the request leaves alone.
    pub(super) fn edge_read(&mut self, id: JobId, last_edge: bool, at: usize) {
        let job = &mut self.jobs[id];
        let Content::Bytes(bytes) = &mut job.content else { panic!("zeros have no edges") };
        let Span { blocks, head, tail, .. } = job.span;
        let (head, tail) = (head as usize, tail as usize);
        let arena = self.memory.arena();
        if !last_edge {
            arena.copy_out(at, &mut bytes[..head]);
        }
        // A single block is the first and the last.
        if last_edge || blocks == 1 {
            let len = bytes.len();
            let block = self.options.shape.block_bytes as usize;
            arena.copy_out(at + block - tail, &mut bytes[len - tail..]);
        }
        let State::Reading(left) = &mut job.state else { panic!("an edge came that was not asked for") };
        *left -= 1;
        if *left == 0 {
            self.line_up(id);
        }
    }

    fn line_up(&mut self, id: JobId) {
        self.jobs[id].state = State::InLine;
        self.line.push_back(InLine::Job(id));
    }

    /// Gives window space, first come, first served.
    pub(super) fn serve_line<B: Backend>(&mut self, backend: &mut B) {
        while let Some(&first) = self.line.front() {
            match first {
                InLine::Conn(id) => {
                    if !self.can_open_part(id, backend) {
                        return;
                    }
                    self.line.pop_front();
                    self.conns[id].in_line = false;
                    self.open_part(id, true, backend);
                    self.run_later(id);
                }
                InLine::Job(id) => {
                    if !self.commit_job(id, backend) {
                        return;
                    }
                    self.line.pop_front();
                }
            }
        }
    }

    /// Commits a job, if the window takes it.
    fn commit_job<B: Backend>(&mut self, id: JobId, backend: &mut B) -> bool {
        let job = &self.jobs[id];
        let kind = match &job.content {
            Content::Zeros(kind) => {
                if backend.place(0).is_none() {
                    return false;
                }
                *kind
            }
            Content::Bytes(bytes) => {
                let len = u32::try_from(bytes.len()).expect("at most a payload");
                let Some(data_pos) = backend.place(len) else { return false };
                self.evict();
                let Content::Bytes(bytes) = &self.jobs[id].content else { unreachable!("as it was") };
                self.memory.arena().copy_in(self.memory.staged(data_pos), bytes);
                BlobKind::Write
            }
        };
        let span = self.jobs[id].span;
        let seq = backend.write(kind, Lba(span.lba), span.blocks);
        let op = self.remove_job(id);
        self.part_committed(op, seq);
        true
    }

    /// The job is done or dropped.
    fn remove_job(&mut self, id: JobId) -> OpId {
        let job = self.jobs.remove(id);
        if let Some(ticket) = job.ticket {
            self.ranges.release(ticket);
            self.ranges_changed = true;
        }
        if let Content::Bytes(bytes) = &job.content {
            let conn = self.ops[job.op].conn;
            self.conns[conn].private -= bytes.len();
            self.touch(conn);
        }
        job.op
    }

    /// A request has been answered by an error: drops what of it has not begun. `cut_off`: nor is the rest received.
    pub(super) fn drop_unstarted(&mut self, op: OpId, cut_off: bool) {
        let mut dropped = 0;
        if matches!(self.ops[op].kind, OpKind::Read { .. }) {
            return self.drop_unread(op);
        }
        for id in self.jobs.ids() {
            let job = &self.jobs[id];
            // One that reads its edges goes on: its buffer is in use.
            if job.op != op || matches!(job.state, State::Reading(_)) {
                continue;
            }
            self.queueing.retain(|queueing| *queueing != id);
            self.line.retain(|waiter| *waiter != InLine::Job(id));
            self.remove_job(id);
            dropped += 1;
        }
        if let OpKind::Change { uncommitted, .. } = &mut self.ops[op].kind {
            *uncommitted -= dropped;
        }
        // Without a change it is among the committed already, or waits for a job that goes on.
        if cut_off || dropped > 0 {
            self.maybe_committed(op);
        }
    }
}
