//! The sending half of a connection: posts from the call to the kernel.
//!
//! A post goes through `posted` (not rung for yet, contract 3), `rung` (it may go), `launched` (it has the credit it
//! needs, its header is final) and is gone when its last byte is the kernel's. The three are prefixes of one queue:
//!
//! ```text
//! queue:  | launched ……… | rung, waits for a credit ……… | posted |
//!           ^ `written` bytes of the first are gone
//! ```
//!
//! A post takes one of the connection's slots until [`Outbox::reap`] has seen it gone, which the fabric calls from
//! `poll` only: verbs give a send queue's slots back with its completions, not before.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use twinsan_arena::{Arena, IoPart, writev};
use twinsan_fabric::WorkId;
use twinsan_fabric::parts::Span;

use crate::credits::Credits;
use crate::frame::{HEADER, Header, Op, set_credits};

/// Inline bytes of a post: what mlx5 takes without growing its send queue's entries, and a descriptor twice.
pub(crate) const MAX_INLINE: usize = 128;

/// Parts of one writev(2). A post has at most two, so half as many posts leave together at least.
const PARTS: usize = 32;

/// What follows a post's header.
#[derive(Debug)]
pub(crate) enum Body {
    /// At most [`MAX_INLINE`] bytes, kept beside the header.
    Inline,
    /// A longer message.
    Owned(Box<[u8]>),
    /// Registered memory, read when the post leaves.
    Region(Span),
}

/// One post.
#[derive(Debug)]
struct Post {
    /// The header, and the inline bytes after it: one part of the writev.
    head: [u8; HEADER + MAX_INLINE],
    head_len: usize,
    body: Body,
    signal: Option<WorkId>,
    takes_credit: bool,
    /// A credits frame of our own: it takes no slot.
    ours: bool,
}

/// How far [`Outbox::flush`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// All that may go is gone.
    Done,
    /// The socket is full.
    Blocked,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Outbox {
    queue: VecDeque<Post>,
    launched: usize,
    rung: usize,
    written: usize,
    /// Slots taken.
    outstanding: usize,
    /// Posts gone whose slots are not given back yet.
    gone: usize,
    /// Their signals.
    signals: VecDeque<WorkId>,
    /// A credits frame is in the queue.
    credits_queued: bool,
}

impl Outbox {
    /// An empty one.
    pub(crate) const fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            launched: 0,
            rung: 0,
            written: 0,
            outstanding: 0,
            gone: 0,
            signals: VecDeque::new(),
            credits_queued: false,
        }
    }

    /// Slots taken.
    pub(crate) const fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Adds a post whose payload is `inline` or `body`; the caller has checked all limits.
    pub(crate) fn post(&mut self, op: Op, inline: &[u8], body: Body, signal: Option<WorkId>) {
        let len = match &body {
            Body::Inline => inline.len(),
            Body::Owned(bytes) => bytes.len(),
            Body::Region(span) => span.len,
        };
        let len = u32::try_from(len).expect("payloads are at most u32::MAX bytes, as LocalSlice has it");
        self.queue.push_back(Post::new(op, len, inline, body, signal));
        self.outstanding += 1;
    }

    /// The doorbell.
    pub(crate) fn ring(&mut self) {
        self.rung = self.queue.len();
    }

    /// Whether anything could be sent now if the socket has room.
    pub(crate) fn has_work(&self, credits: &Credits) -> bool {
        self.rung > 0 || credits.overdue()
    }

    /// Sends what may go.
    ///
    /// # Errors
    /// Of writev(2), but for a full socket.
    pub(crate) fn flush(
        &mut self,
        socket: BorrowedFd<'_>,
        regions: &[Arc<Arena>],
        credits: &mut Credits,
    ) -> io::Result<Flushed> {
        loop {
            self.launch(credits);
            if self.launched == 0 {
                return Ok(Flushed::Done);
            }
            match self.write_some(socket, regions) {
                Ok((sent, asked)) => {
                    self.advance(sent);
                    // A short write means that the socket is full: asking again would only cost a system call.
                    if sent < asked {
                        return Ok(Flushed::Blocked);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Flushed::Blocked),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Gives back the slots of posts that are gone, and returns their signals.
    pub(crate) fn reap(&mut self) -> impl Iterator<Item = WorkId> + '_ {
        self.outstanding -= std::mem::take(&mut self.gone);
        self.signals.drain(..)
    }

    /// Whether [`Outbox::reap`] would find anything.
    pub(crate) const fn has_gone(&self) -> bool {
        self.gone > 0
    }

    /// Moves rung posts to launched ones as far as the credits reach, and puts the credits owed into a header.
    fn launch(&mut self, credits: &mut Credits) {
        let before = self.launched;
        while self.launched < self.rung {
            if self.queue[self.launched].takes_credit && !credits.spend() {
                break;
            }
            self.launched += 1;
        }
        if self.launched > before {
            let owed = credits.give_back();
            set_credits(&mut self.queue[before].head, owed);
        } else if credits.overdue() && !self.credits_queued {
            // Ahead of everything but a post that is partly written. It must not queue behind posts that wait for
            // credits themselves: two sides that did so would wait for each other for ever.
            let header = Header { op: Op::Credits, len: 0, credits: credits.give_back() };
            self.queue.insert(usize::from(self.written > 0), Post::credits(&header));
            self.launched += 1;
            self.rung += 1;
            self.credits_queued = true;
        }
    }

    /// One writev of what is launched: bytes written, bytes asked.
    fn write_some(&self, socket: BorrowedFd<'_>, regions: &[Arc<Arena>]) -> io::Result<(usize, usize)> {
        let mut parts: [IoPart<'_>; PARTS] = std::array::from_fn(|_| IoPart::Bytes(&[]));
        let (mut count, mut asked, mut skip) = (0, 0, self.written);
        for post in self.queue.iter().take(self.launched) {
            if count + 2 > PARTS {
                break;
            }
            let head_skip = skip.min(post.head_len);
            if head_skip < post.head_len {
                parts[count] = IoPart::Bytes(&post.head[head_skip..post.head_len]);
                asked += post.head_len - head_skip;
                count += 1;
            }
            let body_skip = skip - head_skip;
            skip = 0;
            let left = post.body.len() - body_skip;
            if left == 0 {
                continue;
            }
            parts[count] = match &post.body {
                Body::Inline => IoPart::Bytes(&[]),
                Body::Owned(bytes) => IoPart::Bytes(&bytes[body_skip..]),
                Body::Region(span) => {
                    IoPart::Arena { arena: &regions[span.region], offset: span.offset + body_skip, len: left }
                }
            };
            asked += left;
            count += 1;
        }
        Ok((writev(socket, &parts[..count])?, asked))
    }

    /// Takes `sent` bytes off the front.
    fn advance(&mut self, sent: usize) {
        self.written += sent;
        while let Some(first) = self.queue.front() {
            let whole = first.head_len + first.body.len();
            if self.launched == 0 || self.written < whole {
                break;
            }
            self.written -= whole;
            self.launched -= 1;
            self.rung -= 1;
            if first.ours {
                self.credits_queued = false;
            } else {
                self.gone += 1;
                self.signals.extend(first.signal);
            }
            self.queue.pop_front();
        }
    }
}

impl Body {
    /// Bytes beyond the head.
    fn len(&self) -> usize {
        match self {
            Self::Inline => 0,
            Self::Owned(bytes) => bytes.len(),
            Self::Region(span) => span.len,
        }
    }
}

impl Post {
    fn new(op: Op, len: u32, inline: &[u8], body: Body, signal: Option<WorkId>) -> Self {
        let mut head = [0; HEADER + MAX_INLINE];
        head[..HEADER].copy_from_slice(&Header { op, len, credits: 0 }.encode());
        head[HEADER..HEADER + inline.len()].copy_from_slice(inline);
        Self { head, head_len: HEADER + inline.len(), body, signal, takes_credit: op.takes_credit(), ours: false }
    }

    fn credits(header: &Header) -> Self {
        let mut post = Self::new(Op::Credits, 0, &[], Body::Inline, None);
        post.head[..HEADER].copy_from_slice(&header.encode());
        post.ours = true;
        post
    }
}
