//! Everything between a request and its answer, whoever brings it: the NBD front ([`super::nbd`]) and the ublk front
//! ([`super::ublk`]) are two thin layers on top.
//!
//! A request is an `Op` until it has ended, whatever becomes of who brought it (its *port*: a connection, or the kernel's
//! queue). What a front has to tell its callers piles up in `told`, which the front drains after every call.
//!
//! Invariants:
//! 1. A blob is committed only when nobody queues for its blocks in `ranges`, but for its own job.
//! 2. Window space is given first come, first served (`line`).
//! 3. Read buffers are given in order of arrival (`buffers`).

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use twinsan_wire::Seq;

use super::jobs::Job;
use super::ranges::RangeQueue;
use super::reads::{ReadBuffers, ReadPart};
use super::slots::Slots;
use super::span::Shape;
use super::{JobId, OpId, PortId};
use crate::memory::Memory;

/// A request that has not ended.
#[derive(Debug)]
pub(crate) struct Op {
    pub(super) port: PortId,
    pub(super) cookie: u64,
    began_ms: u64,
    /// Its caller has been told, or is gone.
    pub(super) answered: bool,
    pub(super) kind: OpKind,
}

/// What is left of it.
#[derive(Debug)]
pub(super) enum OpKind {
    /// A write, zeroes or discard.
    Change {
        /// Blobs of it that are not committed.
        uncommitted: u32,
        /// Every blob of it is counted there.
        whole: bool,
        /// The last that is committed.
        last: Seq,
    },
    /// A read.
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

impl OpKind {
    /// A change of which nothing is counted yet.
    pub(super) const CHANGE: Self = Self::Change { uncommitted: 0, whole: false, last: Seq::ZERO };
}

/// Who waits for window space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InLine {
    /// A front, to put a payload straight into the ring: by what it calls it.
    Front(u32),
    /// A job, to be committed.
    Job(JobId),
}

/// What one port has open.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Share {
    /// Requests that have not ended.
    pub(crate) ops: u32,
    /// Requests that have not been answered.
    pub(crate) open: u32,
    /// Bytes of reads asked for and not yet answered.
    pub(crate) reading: u64,
    /// Bytes that its writes hold outside of the ring.
    pub(crate) private: usize,
}

/// What a front is told.
#[derive(Debug)]
pub(crate) enum Told {
    /// Answer this request.
    Answer { port: PortId, cookie: u64, answer: Answer },
    /// The port's share has become smaller.
    Freed { port: PortId },
}

/// The answer to a request.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A change is durable.
    Done,
    /// The bytes of a read lie in these buffers, which are the front's until it hands them back to `buffers.free`.
    Read { offset: u64, len: u32, first: ReadPart, more: Vec<ReadPart> },
    /// It failed. If the front has not handed all of it over, it says so by [`Requests::drop_unstarted`], which it calls
    /// anyway.
    Failed { op: OpId, why: Failure },
}

/// Why a request failed.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// It took longer than so many milliseconds.
    Late(u64),
    /// The volume is gone, and why.
    Gone(Arc<str>),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late(limit) => write!(f, "no answer within the I/O timeout of {limit} ms"),
            Self::Gone(why) => f.write_str(why),
        }
    }
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Requests {
    pub(super) shape: Shape,
    pub(super) memory: Memory,
    io_timeout_ms: Option<u64>,
    pub(super) ops: Slots<Op>,
    pub(super) jobs: Slots<Job>,
    pub(super) buffers: ReadBuffers,
    pub(super) ranges: RangeQueue,
    /// Jobs that wait in `ranges`, oldest first.
    pub(super) queueing: VecDeque<JobId>,
    /// Somebody has left `ranges`.
    pub(super) ranges_changed: bool,
    /// Who waits for the window to open.
    pub(super) line: VecDeque<InLine>,
    /// Committed requests, by the seq that makes them durable.
    pub(super) committed: VecDeque<(Seq, OpId)>,
    /// Everything up to here is durable.
    pub(super) completed: Seq,
    /// By port.
    shares: Vec<Share>,
    /// What the front has not been told.
    pub(super) told: VecDeque<Told>,
    now_ms: u64,
    /// The volume is gone: what every request is answered with.
    pub(super) failed: Option<Arc<str>>,
}

impl Requests {
    /// None yet. `io_timeout_ms`: a request that takes longer fails; `None`: never.
    pub(super) fn new(shape: Shape, io_timeout_ms: Option<u64>, memory: Memory) -> Self {
        Self {
            shape,
            memory,
            io_timeout_ms,
            ops: Slots::new(),
            jobs: Slots::new(),
            buffers: ReadBuffers::new(),
            ranges: RangeQueue::default(),
            queueing: VecDeque::new(),
            ranges_changed: false,
            line: VecDeque::new(),
            committed: VecDeque::new(),
            completed: Seq::ZERO,
            shares: Vec::new(),
            told: VecDeque::new(),
            now_ms: 0,
            failed: None,
        }
    }

    /// What a port has open.
    pub(super) fn share(&self, port: PortId) -> Share {
        self.shares.get(port as usize).copied().unwrap_or_default()
    }

    pub(super) fn share_mut(&mut self, port: PortId) -> &mut Share {
        let at = port as usize;
        if at >= self.shares.len() {
            self.shares.resize(at + 1, Share::default());
        }
        &mut self.shares[at]
    }

    /// The time of the last [`Self::set_now`].
    pub(super) const fn now_ms(&self) -> u64 {
        self.now_ms
    }

    pub(super) const fn set_now(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
    }

    /// The volume: every write up to here is durable.
    pub(super) fn writes_completed(&mut self, upto: Seq) {
        self.completed = self.completed.max(upto);
        while let Some(&(seq, op)) = self.committed.front()
            && seq <= self.completed
        {
            self.committed.pop_front();
            self.end_change(op);
        }
    }

    /// Whether something can be done without hearing of an event first.
    pub(super) fn has_work(&self) -> bool {
        self.ranges_changed || self.buffers.can_serve()
    }

    /// Fails what has taken too long, if there is such a limit.
    pub(super) fn expire(&mut self, now_ms: u64) {
        let Some(limit) = self.io_timeout_ms else { return };
        for id in self.ops.ids() {
            let op = &self.ops[id];
            if !op.answered && now_ms.saturating_sub(op.began_ms) >= limit {
                self.fail_op(id, Failure::Late(limit));
            }
        }
    }

    /// The volume is gone: all that is open fails, and the front fails what comes later by `failed`.
    pub(super) fn fail(&mut self, why: &str) {
        let why: Arc<str> = why.into();
        self.failed = Some(why.clone());
        for id in self.ops.ids() {
            if !self.ops[id].answered {
                self.fail_op(id, Failure::Gone(why.clone()));
            }
        }
    }

    /// A port is gone: nobody waits for the answers to its requests.
    pub(super) fn abandon(&mut self, port: PortId) {
        for id in self.ops.ids() {
            if self.ops[id].port == port {
                self.answered(id);
            }
        }
    }

    pub(super) fn begin(&mut self, port: PortId, cookie: u64, kind: OpKind) -> OpId {
        let share = self.share_mut(port);
        share.ops += 1;
        share.open += 1;
        self.ops.insert(Op { port, cookie, began_ms: self.now_ms, answered: false, kind })
    }

    /// The request's caller has been told, or is gone.
    fn answered(&mut self, id: OpId) {
        let op = &mut self.ops[id];
        if !std::mem::replace(&mut op.answered, true) {
            let port = op.port;
            self.share_mut(port).open -= 1;
            self.told.push_back(Told::Freed { port });
        }
    }

    fn fail_op(&mut self, id: OpId, why: Failure) {
        self.tell(id, Answer::Failed { op: id, why });
        self.answered(id);
    }

    /// Has the front answer a request, if anybody waits for that.
    pub(super) fn tell(&mut self, id: OpId, answer: Answer) {
        let Op { port, cookie, .. } = self.ops[id];
        self.told.push_back(Told::Answer { port, cookie, answer });
    }

    /// Frees an ended request's number.
    pub(super) fn end(&mut self, id: OpId) {
        self.answered(id);
        let port = self.ops.remove(id).port;
        self.share_mut(port).ops -= 1;
        self.told.push_back(Told::Freed { port });
    }

    /// A change is durable.
    pub(super) fn end_change(&mut self, id: OpId) {
        if !self.ops[id].answered {
            self.tell(id, Answer::Done);
        }
        self.end(id);
    }
}
