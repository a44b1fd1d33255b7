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
use super::requests::{InLine, OpKind, Requests, Told};
use super::span::Span;
use super::{JobId, OpId, PortId};

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

impl Content {
    fn payload_len(&self) -> u32 {
        match self {
            Self::Bytes(bytes) => u32::try_from(bytes.len()).expect("at most a payload"),
            Self::Zeros(_) => 0,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Queueing,
    /// So many edges have not come.
    Reading(u32),
    InLine,
}

impl Requests {
    /// One more blob of a request is to be committed; `last`: there are no more.
    pub(super) fn expect_part(&mut self, op: OpId, last: bool) {
        let OpKind::Change { uncommitted, whole, .. } = &mut self.ops[op].kind else { panic!("not a change") };
        *uncommitted += 1;
        *whole = last;
    }

    /// No more of a request comes than has come; `unfinished` of the counted blobs are not there in full.
    pub(super) fn cut_off(&mut self, op: OpId, unfinished: u32) {
        let OpKind::Change { uncommitted, whole, .. } = &mut self.ops[op].kind else { panic!("not a change") };
        *uncommitted -= unfinished;
        *whole = true;
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

    /// A write's part, received outside of the ring.
    pub(super) fn add_write_job(&mut self, op: OpId, span: Span, bytes: Vec<u8>) {
        self.add_job(op, span, Content::Bytes(bytes));
    }

    /// Discard: the whole blocks of a range.
    pub(super) fn begin_discard(&mut self, port: PortId, cookie: u64, range: (u64, u32)) {
        let op = self.begin(port, cookie, OpKind::CHANGE);
        self.zero_inner(op, range, BlobKind::Discard);
    }

    /// Zeroes: all of a range.
    pub(super) fn begin_zeroes(&mut self, port: PortId, cookie: u64, range: (u64, u32), kind: BlobKind) {
        let op = self.begin(port, cookie, OpKind::CHANGE);
        self.zero_edges(op, port, range);
        self.zero_inner(op, range, kind);
    }

    /// The partly covered blocks, each a write of one block.
    fn zero_edges(&mut self, op: OpId, port: PortId, (offset, len): (u64, u32)) {
        let shape = self.shape;
        let block = u64::from(shape.block_bytes);
        let end = offset + u64::from(len);
        for edge in Span::of(&shape, offset, len).edges().into_iter().filter(|edge| !edge.is_empty()) {
            let (from, to) = (offset.max(edge.start * block), end.min(edge.end * block));
            let span = Span::of(&shape, from, u32::try_from(to - from).expect("less than a block"));
            self.expect_part(op, false);
            let bytes = vec![0; shape.block_bytes as usize];
            self.share_mut(port).private += bytes.len();
            self.add_job(op, span, Content::Bytes(bytes));
        }
    }

    /// The fully covered blocks, and the end of the request.
    fn zero_inner(&mut self, op: OpId, (offset, len): (u64, u32), kind: BlobKind) {
        let shape = self.shape;
        let inner = Span::of(&shape, offset, len).inner();
        let mut lba = inner.start;
        while lba < inner.end {
            let blocks = u32::try_from((inner.end - lba).min(u64::from(MAX_ZERO_BLOCKS))).expect("bounded");
            // The length in bytes of so many blocks may be 4 GiB and is not needed.
            let span = Span { lba, blocks, head: 0, len: 0, tail: 0 };
            self.expect_part(op, false);
            self.add_job(op, span, Content::Zeros(kind));
            lba += u64::from(blocks);
        }
        if let OpKind::Change { whole, .. } = &mut self.ops[op].kind {
            *whole = true;
        }
        self.maybe_committed(op);
    }

    /// The front calls its `serve_line` next: without a queue for its blocks the job may go at once.
    fn add_job(&mut self, op: OpId, span: Span, content: Content) {
        let waits = !span.is_whole() || self.ranges.wanted(&span.range());
        let ticket = waits.then(|| self.ranges.enqueue(span.range()));
        let state = if waits { State::Queueing } else { State::InLine };
        let id = self.jobs.insert(Job { op, span, content, ticket, state });
        if waits {
            self.queueing.push_back(id);
            self.ranges_changed = true;
        } else {
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
            let block = self.shape.block_bytes as usize;
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

    /// Whether the window takes a job now.
    pub(super) fn job_fits<B: Backend>(&self, id: JobId, backend: &mut B) -> bool {
        backend.place(self.jobs[id].content.payload_len()).is_some()
    }

    /// Whether a job brings a payload, which takes the place of whatever is being received into the ring.
    pub(super) fn job_has_payload(&self, id: JobId) -> bool {
        self.jobs[id].content.payload_len() > 0
    }

    /// Commits a job that fits.
    ///
    /// # Panics
    /// If it does not.
    pub(super) fn commit_job<B: Backend>(&mut self, id: JobId, backend: &mut B) {
        let Job { content, span, .. } = &self.jobs[id];
        let kind = match content {
            Content::Zeros(kind) => *kind,
            Content::Bytes(bytes) => {
                let data_pos = backend.place(content.payload_len()).expect("the caller has asked");
                self.memory.arena().copy_in(self.memory.staged(data_pos), bytes);
                BlobKind::Write
            }
        };
        let seq = backend.write(kind, Lba(span.lba), span.blocks);
        let op = self.remove_job(id);
        self.part_committed(op, seq);
    }

    /// The job is done or dropped.
    fn remove_job(&mut self, id: JobId) -> OpId {
        let job = self.jobs.remove(id);
        if let Some(ticket) = job.ticket {
            self.ranges.release(ticket);
            self.ranges_changed = true;
        }
        if let Content::Bytes(bytes) = &job.content {
            let port = self.ops[job.op].port;
            self.share_mut(port).private -= bytes.len();
            self.told.push_back(Told::Freed { port });
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
