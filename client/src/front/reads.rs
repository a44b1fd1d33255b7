//! READs, and who has which read buffer.
//!
//! A buffer is free, being filled by the primary, waiting for the other parts of its READ, or being sent from. Buffers
//! are given in order of arrival, and all parts of one READ fit ([`super::limits`]), so the oldest always ends; one
//! that a slow client keeps is taken from it when it is wanted.

use std::collections::VecDeque;

use twinsan_wire::Lba;
use twinsan_wire::limits::{MAX_OPEN_READS, MAX_READ_BYTES};

use super::backend::Backend;
use super::requests::{Answer, OpKind, Requests};
use super::span::Span;
use super::{JobId, OpId, PortId};
use crate::memory::Memory;

/// What one buffer holds of a READ.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadPart {
    pub(super) span: Span,
    /// The buffer, once it has one.
    slot: Option<u32>,
}

impl ReadPart {
    /// Its buffer.
    ///
    /// # Panics
    /// If it has none: its bytes have not come.
    pub(super) fn slot(&self) -> u32 {
        self.slot.expect("what has come has a buffer")
    }
}

/// What a buffer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// A part of a READ, by its number.
    Part { op: OpId, at: usize },
    /// A partly covered block of a job: its first or its last.
    Edge { job: JobId, last: bool },
}

/// The read buffers.
#[derive(Debug)]
pub(crate) struct ReadBuffers {
    /// In no use; the last one used is used next, as it is warm.
    pub(crate) free: Vec<u32>,
    /// What those are for that the volume is reading into.
    uses: [Option<Use>; MAX_OPEN_READS],
    /// Who has none yet, in order of arrival.
    waiting: VecDeque<Use>,
}

impl ReadBuffers {
    pub(crate) fn new() -> Self {
        let free = (0..).take(MAX_OPEN_READS).collect();
        Self { free, uses: [None; MAX_OPEN_READS], waiting: VecDeque::new() }
    }

    pub(crate) fn want_edge(&mut self, job: JobId, last: bool) {
        self.waiting.push_back(Use::Edge { job, last });
    }

    /// Whether somebody waits and there is one.
    pub(crate) fn can_serve(&self) -> bool {
        !self.waiting.is_empty() && !self.free.is_empty()
    }
}

impl Requests {
    /// The volume: the read into buffer `slot` is there.
    ///
    /// # Panics
    /// If nothing is being read into it.
    pub(super) fn read_completed(&mut self, slot: u32) {
        let used = self.buffers.uses[slot as usize].take().expect("a read was asked for into this buffer");
        match used {
            Use::Edge { job, last } => {
                self.edge_read(job, last, Memory::read_slot(slot));
                self.buffers.free.push(slot);
            }
            Use::Part { op, .. } => {
                let OpKind::Read { missing, .. } = &mut self.ops[op].kind else { panic!("not a READ") };
                *missing -= 1;
                self.maybe_read(op);
            }
        }
    }

    /// A READ: asks for its parts.
    pub(super) fn begin_read(&mut self, port: PortId, cookie: u64, offset: u64, len: u32) {
        let shape = self.shape;
        let part = |at: u64, left: u32| {
            let head = u32::try_from(at % u64::from(shape.block_bytes)).expect("less than a block");
            ReadPart { span: Span::of(&shape, at, left.min(MAX_READ_BYTES - head)), slot: None }
        };
        let first = part(offset, len);
        let (mut at, mut left) = (offset + u64::from(first.span.len), len - first.span.len);
        let mut more = Vec::new();
        while left > 0 {
            let next = part(at, left);
            at += u64::from(next.span.len);
            left -= next.span.len;
            more.push(next);
        }
        let parts = 1 + more.len();
        let missing = u32::try_from(parts).expect("a few parts");
        let op = self.begin(port, cookie, OpKind::Read { offset, len, first, more, missing });
        self.share_mut(port).reading += u64::from(len);
        self.buffers.waiting.extend((0..parts).map(|at| Use::Part { op, at }));
    }

    /// Gives buffers to those who wait for one, and asks the volume. `false`: somebody still waits.
    pub(super) fn issue_reads<B: Backend>(&mut self, backend: &mut B) -> bool {
        while let Some(&next) = self.buffers.waiting.front() {
            let Some(slot) = self.buffers.free.pop() else { return false };
            self.buffers.waiting.pop_front();
            self.buffers.uses[slot as usize] = Some(next);
            let (lba, blocks) = match next {
                Use::Part { op, at } => {
                    let OpKind::Read { first, more, .. } = &mut self.ops[op].kind else { panic!("not a READ") };
                    let part = if at == 0 { first } else { &mut more[at - 1] };
                    part.slot = Some(slot);
                    (part.span.lba, part.span.blocks)
                }
                Use::Edge { job, last } => {
                    let span = self.jobs[job].span;
                    (if last { span.lba + u64::from(span.blocks) - 1 } else { span.lba }, 1)
                }
            };
            backend.read(Lba(lba), blocks, slot);
        }
        true
    }

    /// If all parts of a READ are there, answers it.
    fn maybe_read(&mut self, id: OpId) {
        let op = &mut self.ops[id];
        let OpKind::Read { offset, len, first, ref mut more, missing: 0 } = op.kind else { return };
        let more = std::mem::take(more);
        let (port, answered) = (op.port, op.answered);
        self.share_mut(port).reading -= u64::from(len);
        if answered {
            let parts = std::iter::once(&first).chain(&more);
            self.buffers.free.extend(parts.filter_map(|part| part.slot));
        } else {
            self.tell(id, Answer::Read { offset, len, first, more });
        }
        self.end(id);
    }

    /// A READ has been answered by an error: it wants no more buffers.
    pub(super) fn drop_unread(&mut self, id: OpId) {
        let before = self.buffers.waiting.len();
        self.buffers.waiting.retain(|waiting| !matches!(waiting, Use::Part { op, .. } if *op == id));
        let dropped = u32::try_from(before - self.buffers.waiting.len()).expect("a few parts");
        let OpKind::Read { missing, .. } = &mut self.ops[id].kind else { panic!("not a READ") };
        *missing -= dropped;
        self.maybe_read(id);
    }
}
