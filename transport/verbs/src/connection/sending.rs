//! From the caller's post to the device's send queue, and back by its completions.

use std::io;
use std::time::Instant;

use twinsan_fabric::parts::Span;
use twinsan_fabric::{CloseReason, ConnId, Event, PostError, RemoteAddr, WorkId};

use super::{Connection, SPARE_SENDS};
use crate::exposure::operation;
use crate::fabric::MAX_INLINE;
use crate::message;
use crate::sys::{Op, Post};

/// Where a post's bytes are.
#[derive(Clone, Copy, Debug)]
enum Body {
    /// In its slot of the pool.
    Slot { at: usize, len: usize },
    /// In the caller's region.
    Region(Span),
}

impl Body {
    const fn len(&self) -> usize {
        match self {
            Self::Slot { len, .. } | Self::Region(Span { len, .. }) => *len,
        }
    }
}

/// A post that has not been given to the device.
#[derive(Debug)]
pub(super) struct Queued {
    op: Op,
    body: Body,
    signal: Option<WorkId>,
}

/// One that has.
#[derive(Debug)]
pub(super) struct Flying {
    signal: Option<WorkId>,
    signalled: bool,
    /// A credit message of our own.
    spare: bool,
}

impl Connection {
    /// Whether there is a slot for a post.
    ///
    /// # Errors
    /// [`PostError::NotConnected`], [`PostError::Full`].
    pub(crate) fn room(&self) -> Result<(), PostError> {
        if !self.is_open() {
            return Err(PostError::NotConnected);
        }
        if self.outstanding >= self.depth { Err(PostError::Full) } else { Ok(()) }
    }

    /// A write of bytes that are copied now. The caller has asked for [`Connection::room`], here and below.
    pub(crate) fn write_inline(&mut self, bytes: &[u8], to: RemoteAddr, imm: Option<u32>, signal: Option<WorkId>) {
        if bytes.is_empty() {
            return self.write_nothing(to, imm, signal);
        }
        let at = self.pool.send_at(self.posts);
        self.pool.put(at, bytes);
        self.queue_up(operation(to, imm), Body::Slot { at, len: bytes.len() }, signal);
    }

    /// A write from a region that [`Connection::local`] has registered.
    pub(crate) fn write_region(&mut self, span: Span, to: RemoteAddr, imm: Option<u32>, signal: Option<WorkId>) {
        if span.len == 0 {
            return self.write_nothing(to, imm, signal);
        }
        self.queue_up(operation(to, imm), Body::Region(span), signal);
    }

    /// A write of no bytes, which the receiver's software must judge.
    fn write_nothing(&mut self, to: RemoteAddr, imm: Option<u32>, signal: Option<WorkId>) {
        let (bytes, len) = message::empty(to, imm);
        let at = self.pool.send_at(self.posts);
        self.pool.put(at, &bytes[..len]);
        self.queue_up(Op::Send, Body::Slot { at, len }, signal);
    }

    /// A message of the caller's.
    pub(crate) fn message(&mut self, bytes: &[u8]) {
        let at = self.pool.send_at(self.posts);
        self.pool.put(at, &message::header());
        self.pool.put(at + message::HEADER, bytes);
        self.queue_up(Op::Send, Body::Slot { at, len: message::HEADER + bytes.len() }, None);
    }

    fn queue_up(&mut self, op: Op, body: Body, signal: Option<WorkId>) {
        self.queue.push_back(Queued { op, body, signal });
        self.posts += 1;
        self.outstanding += 1;
    }

    /// What has been posted may go.
    pub(crate) fn ring(&mut self) {
        self.rung = self.queue.len();
        self.launch();
    }

    /// Gives the device what has been rung for and has its credit: one list, one doorbell.
    pub(super) fn launch(&mut self) {
        if self.failure.is_some() {
            return;
        }
        let first = self.flying.len();
        while self.flying.len() - first < self.rung {
            let post = &self.queue[self.flying.len() - first];
            if post.op.takes_credit() && !self.credits.spend() {
                break;
            }
            if let (Op::Send, Body::Slot { at, .. }) = (post.op, post.body) {
                // Whatever is owed goes with it: the receives have been posted.
                self.pool.put(at + message::CREDITS_AT, &self.credits.give_back().to_le_bytes());
            }
            let signalled = self.signals.next(post.body.len(), post.signal.is_some());
            self.flying.push_back(Flying { signal: post.signal, signalled, spare: false });
        }
        let count = self.flying.len() - first;
        if count > 0 {
            self.watch(first);
            let outcome = self.give(first, count);
            self.queue.drain(..count);
            self.rung -= count;
            self.posted(outcome);
        }
    }

    /// Watches the last of `flying` from `first` on that has a completion. If there is none, and none before them, the last
    /// is given one now and then.
    fn watch(&mut self, first: usize) {
        let mut place = (first..self.flying.len()).rfind(|&at| self.flying[at].signalled);
        if place.is_none() && self.watch.wants_completion(Instant::now) {
            place = self.flying.len().checked_sub(1);
            self.signals.given();
        }
        if let Some(place) = place {
            self.flying[place].signalled = true;
            self.watch.sent(self.first_flying + place as u64, Instant::now);
        }
    }

    /// Posts the first `count` of the queue, whose records are in `flying` from `first` on.
    fn give(&mut self, first: usize, count: usize) -> io::Result<()> {
        let Self { pair, queue, flying, pool, locals, first_flying, .. } = self;
        let numbers = *first_flying + first as u64..;
        let posts = queue.iter().take(count).zip(flying.range(first..)).zip(numbers);
        pair.post(posts.map(|((post, flying), number)| {
            let (from, inline) = match post.body {
                Body::Slot { at, len } => ((pool.memory(), at, len), len <= MAX_INLINE),
                Body::Region(Span { region, offset, len }) => {
                    let memory = locals[region].as_ref().expect("registered before it is posted from");
                    ((memory, offset, len), false)
                }
            };
            Post { number, op: post.op, from, inline, signal: flying.signalled }
        }))
    }

    /// Gives credits back by a message of their own, if so many are owed and there is room for it. That there is none is
    /// mended by completions, which need nothing of the peer's program.
    pub(super) fn return_credits(&mut self) {
        if self.failure.is_some() || !self.credits.overdue() || self.spare_flying >= SPARE_SENDS {
            return;
        }
        let at = self.pool.credits_at();
        self.pool.put(at, &message::credits(self.credits.give_back()));
        let number = self.first_flying + self.flying.len() as u64;
        self.flying.push_back(Flying { signal: None, signalled: true, spare: true });
        self.spare_flying += 1;
        self.signals.given();
        self.watch(self.flying.len() - 1);
        // Inline: copied by the call, so the slot is free again after it.
        let from = (self.pool.memory(), at, message::HEADER);
        let post = Post { number, op: Op::Send, from, inline: true, signal: true };
        let outcome = self.pair.post(std::iter::once(post));
        self.posted(outcome);
    }

    fn posted(&mut self, outcome: io::Result<()>) {
        if let Err(error) = outcome {
            self.fail(CloseReason::Unreachable(format!("the device took no work: {error}")));
        }
    }

    /// Send `number` has completed, and every one before it.
    pub(super) fn sent(&mut self, number: u64, conn: ConnId, events: &mut Vec<Event>) {
        while self.first_flying <= number {
            let Some(flying) = self.flying.pop_front() else { return };
            self.first_flying += 1;
            if flying.spare {
                self.spare_flying -= 1;
            } else {
                self.outstanding -= 1;
            }
            events.extend(flying.signal.map(|work| Event::Sent { conn, work }));
        }
    }
}

impl Op {
    /// Whether it takes a receive of the peer's.
    const fn takes_credit(self) -> bool {
        match self {
            Self::Send | Self::WriteImm { .. } => true,
            Self::Write { .. } => false,
        }
    }
}
