//! One connection under the fault injector.
//!
//! A post goes `posts` → (released, perhaps in pieces) `atoms` → (given to the inner fabric) `flying` → done. Events go
//! `events` → the caller.

use std::collections::VecDeque;

use super::Faults;
use super::rng::Rng;
use crate::{CloseReason, ConnId, Event, Fabric, LocalSlice, Payload, PostError, RemoteAddr, WorkId};

/// Bytes of what can tear, and of its halves.
const TORN: usize = 64;
const HALF: usize = TORN / 2;

/// Guards kept for a caller that never asks for a signal; the oldest go unchecked.
const MAX_GUARDS: usize = 4096;

/// Where a write's bytes are.
#[derive(Clone, Debug)]
pub(super) enum Source {
    Inline(Box<[u8]>),
    Region(LocalSlice),
}

/// What was posted.
#[derive(Clone, Debug)]
pub(super) enum What {
    Write { source: Source, to: RemoteAddr, imm: Option<u32> },
    Message(Box<[u8]>),
}

/// A post that has not been released.
#[derive(Debug)]
pub(super) struct Post {
    what: What,
    signal: Option<WorkId>,
    /// What its memory was at the post.
    guard: Option<u32>,
    /// Polls since the doorbell.
    age: u32,
    /// The first half is on its way already, ahead of its turn.
    first_half_gone: bool,
}

/// A piece of a post; the last one completes it.
#[derive(Debug)]
pub(super) struct Atom {
    what: What,
    completes: Option<Option<WorkId>>,
}

/// A piece that the inner fabric has. Messages have no inner signal: they count as complete when they are taken.
#[derive(Debug)]
struct Flying {
    work: Option<WorkId>,
    completes: Option<Option<WorkId>>,
}

/// Memory that belongs to the fabric until a Sent.
#[derive(Debug)]
struct Guard {
    slice: LocalSlice,
    then: u32,
    /// Which post of the connection, counted from 0.
    number: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Conn {
    /// The caller has been told that it is connected.
    pub(super) open: bool,
    /// Slots taken.
    pub(super) outstanding: usize,
    /// What the caller has not been told.
    pub(super) events: VecDeque<Event>,
    posts: VecDeque<Post>,
    rung: usize,
    /// Some of what was rung for and has not been given is solicited.
    solicited: bool,
    atoms: VecDeque<Atom>,
    flying: VecDeque<Flying>,
    guards: VecDeque<Guard>,
    /// Signals posted, and the number of the post of each.
    signals: VecDeque<(WorkId, u64)>,
    posted: u64,
    /// Polls that the first event has waited.
    waited: u32,
}

impl Post {
    pub(super) const fn new(what: What, signal: Option<WorkId>, guard: Option<u32>) -> Self {
        Self { what, signal, guard, age: 0, first_half_gone: false }
    }

    /// A plain write: nobody is told, so it need not land before something is.
    const fn is_silent(&self) -> bool {
        matches!(self.what, What::Write { imm: None, .. })
    }

    /// The bytes, the place and the immediate of what can tear.
    fn tearable(&self) -> Option<(&[u8], RemoteAddr, u32)> {
        match &self.what {
            What::Write { source: Source::Inline(bytes), to, imm: Some(imm) } if bytes.len() == TORN => {
                Some((bytes, *to, *imm))
            }
            _ => None,
        }
    }
}

impl Atom {
    fn piece(bytes: &[u8], to: RemoteAddr, by: usize, imm: Option<u32>) -> Self {
        // An offset beyond u64 is refused over there, whole or in halves.
        let to = RemoteAddr { offset: to.offset.saturating_add(by as u64), ..to };
        Self { what: What::Write { source: Source::Inline(bytes.into()), to, imm }, completes: None }
    }

    /// Posts it on the inner fabric; returns the inner work id, if it has one.
    pub(super) fn give<F: Fabric>(
        &self,
        inner: &mut F,
        conn: ConnId,
        next_work: &mut WorkId,
    ) -> Result<Option<WorkId>, PostError> {
        let (source, to, imm) = match &self.what {
            What::Message(bytes) => return inner.send(conn, bytes).map(|()| None),
            What::Write { source, to, imm } => (source, *to, *imm),
        };
        let payload = match source {
            Source::Inline(bytes) => Payload::Inline(bytes),
            Source::Region(slice) => Payload::Region(*slice),
        };
        let work = *next_work;
        match imm {
            Some(imm) => inner.write_imm(conn, payload, to, imm, Some(work))?,
            None => inner.write(conn, payload, to, Some(work))?,
        }
        *next_work += 1;
        Ok(Some(work))
    }
}

impl Conn {
    /// Takes a post.
    pub(super) fn post(&mut self, post: Post) {
        if let (Some(then), What::Write { source: Source::Region(slice), .. }) = (post.guard, &post.what) {
            self.guards.push_back(Guard { slice: *slice, then, number: self.posted });
            if self.guards.len() > MAX_GUARDS {
                self.guards.pop_front();
            }
        }
        self.signals.extend(post.signal.map(|work| (work, self.posted)));
        self.posted += 1;
        self.posts.push_back(post);
        self.outstanding += 1;
    }

    /// The doorbell.
    pub(super) fn ring(&mut self, solicited: bool) {
        self.solicited |= solicited && self.rung < self.posts.len();
        self.rung = self.posts.len();
    }

    /// Whether the inner doorbell is to wake the peer, for what it has just been given.
    pub(super) fn take_solicited(&mut self) -> bool {
        let solicited = self.solicited;
        // What is still held back may be what it is for.
        self.solicited &= self.rung > 0 || !self.atoms.is_empty();
        solicited
    }

    /// Moves some posts on, in order.
    pub(super) fn release(&mut self, rng: &mut Rng, faults: &Faults) {
        for post in self.posts.iter_mut().take(self.rung) {
            post.age += 1;
        }
        while self.rung > 0 {
            let ripe = self.posts[0].age > faults.hold;
            let told_later = self.posts.iter().take(self.rung).any(|post| !post.is_silent());
            // Silent writes wait for what makes them visible; everything waits by chance.
            if !ripe && (!told_later || rng.one_in(3)) {
                return;
            }
            self.release_until_told(rng, faults);
        }
    }

    /// Releases silent writes and the first that is not, if there is one.
    fn release_until_told(&mut self, rng: &mut Rng, faults: &Faults) {
        while self.rung > 0 {
            let Some(post) = self.posts.pop_front() else { return };
            self.rung -= 1;
            let silent = post.is_silent();
            match post.tearable() {
                Some((bytes, to, imm)) if faults.tear => self.tear(&post, bytes, to, imm, rng),
                _ => self.atoms.push_back(Atom { what: post.what, completes: Some(post.signal) }),
            }
            if !silent {
                return;
            }
        }
    }

    /// Lands a descriptor or mailbox in halves. If the same place is written again later, the first half of that may
    /// land before this one is told of: the receiver then finds new and old together.
    fn tear(&mut self, post: &Post, bytes: &[u8], to: RemoteAddr, imm: u32, rng: &mut Rng) {
        let (first, second) = bytes.split_at(HALF);
        if !post.first_half_gone {
            self.atoms.push_back(Atom::piece(first, to, 0, None));
        }
        let newer = self.posts.iter_mut().take(self.rung).find_map(|later| match later.tearable() {
            Some((bytes, at, _)) if at == to && !later.first_half_gone => {
                let half = Atom::piece(&bytes[..HALF], to, 0, None);
                Some((half, &mut later.first_half_gone))
            }
            _ => None,
        });
        let mut last = match newer {
            Some((half, gone)) if !rng.one_in(3) => {
                *gone = true;
                self.atoms.push_back(Atom::piece(second, to, HALF, None));
                self.atoms.push_back(half);
                Atom::piece(&[], to, 0, Some(imm))
            }
            _ => Atom::piece(second, to, HALF, Some(imm)),
        };
        last.completes = Some(post.signal);
        self.atoms.push_back(last);
    }

    /// The next piece for the inner fabric; [`Conn::given`] once it is there.
    pub(super) fn next_atom(&self) -> Option<&Atom> {
        self.atoms.front()
    }

    /// The first atom is with the inner fabric.
    pub(super) fn given(&mut self, work: Option<WorkId>) {
        if let Some(atom) = self.atoms.pop_front() {
            self.flying.push_back(Flying { work, completes: atom.completes });
        }
    }

    /// The inner fabric has completed `work`, and all before it.
    pub(super) fn sent(&mut self, id: ConnId, work: WorkId) {
        while let Some(flying) = self.flying.pop_front() {
            if let Some(signal) = flying.completes {
                self.outstanding -= 1;
                self.events.extend(signal.map(|work| Event::Sent { conn: id, work }));
            }
            if flying.work == Some(work) {
                break;
            }
        }
        self.pass_messages();
    }

    /// The connection is over: what was not given will not go, and Closed is the last event.
    pub(super) fn end(&mut self, why: CloseReason, id: ConnId) {
        self.posts.clear();
        self.rung = 0;
        self.atoms.clear();
        self.flying.clear();
        self.events.push_back(Event::Closed { conn: id, why });
    }

    /// Takes out the events whose time has come.
    pub(super) fn due(&mut self, rng: &mut Rng, faults: &Faults) -> Vec<Event> {
        self.pass_messages();
        if self.events.is_empty() {
            return Vec::new();
        }
        self.waited += 1;
        if self.waited <= faults.hold && !rng.one_in(3) {
            return Vec::new();
        }
        self.waited = 0;
        let most = u32::try_from(self.events.len()).unwrap_or(u32::MAX);
        let count = 1 + rng.below(most) as usize;
        self.events.drain(..count).collect()
    }

    /// The guards of all posts up to the one whose signal is `work`.
    pub(super) fn guards_until(&mut self, work: WorkId) -> impl Iterator<Item = (LocalSlice, u32)> + use<> {
        let mut until = 0;
        while let Some((signal, number)) = self.signals.pop_front() {
            until = number + 1;
            if signal == work {
                break;
            }
        }
        let count = self.guards.iter().take_while(|guard| guard.number < until).count();
        let due: Vec<_> = self.guards.drain(..count).map(|guard| (guard.slice, guard.then)).collect();
        due.into_iter()
    }

    /// Whether polls must go on for something to happen.
    pub(super) fn holds_anything(&self) -> bool {
        self.rung > 0 || !self.atoms.is_empty() || !self.events.is_empty()
    }

    /// Messages at the front of what flies are complete.
    fn pass_messages(&mut self) {
        while let Some(Flying { work: None, completes }) = self.flying.front() {
            self.outstanding -= usize::from(completes.is_some());
            self.flying.pop_front();
        }
    }
}
