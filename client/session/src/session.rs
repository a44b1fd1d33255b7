//! The session: one writer's view of a volume that two nodes hold.
//!
//! Phases are drawn at [`Phase`], a node's connection at `link.rs`. What a node says is dealt with in `told.rs`; what
//! follows from the state, in [`Session::settle`], which runs after every event and does whatever is due, so that no
//! step depends on the order in which the news came.
//!
//! What holds after every call:
//!
//! 1. Seqs are given from 1 without gaps, each names one blob for ever, and the window holds all after `freed`
//!    (rule 14).
//! 2. `freed ≤ completed ≤ last`. `completed` only grows, by the word of the primary of the known epoch alone: by its
//!    mailbox, or with the answer to a read (rule 1, section 3 †).
//! 3. `freed` is at most what each holder (member or joiner) has released, so that each can be sent all that it may
//!    lack, and no ring byte is written over that one may still use (rules 8, 14, section 3.4). What a member that
//!    mirrors has released, it says itself, or the primary that feeds it by relay. A primary that was never asked to open
//!    a lane will begin after `completed`, and so needs nothing before; nor does a joiner, unless the primary feeds it, and
//!    then the primary tells us no more to be released than that joiner has.
//! 4. A fed node is a holder by its very incarnation, and has been posted every blob; at most one connection per node.
//! 5. Open reads are out only on the connection of the known epoch's primary, naming that epoch, once, and after every
//!    blob that was written before them (rule 1).
//! 6. The known epoch only grows. When it moves to another primary, the connection to the old one is destroyed before
//!    anything else is done: nothing may land in a read buffer that is going to be used again (section 3 †).
//! 7. The death of nodes is never an error for the caller: what is open waits.

use alloc::vec::Vec;

use twinsan_staging::Window;
use twinsan_wire::limits::{MAX_OPEN_READS, MAX_READ_BYTES, MAX_ZERO_BLOCKS};
use twinsan_wire::{Blob, BlobKind, ClientMsg, Generation, Lba, Member, NodeId, Seq};

use crate::action::{Action, Ended, Notice};
use crate::config::{SessionConfig, Weakness};
use crate::event::{ConnId, Event};
use crate::link::{Duty, LaneMark, Link, State};
use crate::reads::Reads;
use crate::status::Phase;
use crate::view::Known;

/// The client's machine. Times are milliseconds of any clock that does not go back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Session {
    pub(crate) config: SessionConfig,
    pub(crate) phase: Phase,
    /// What the session acts under; `None` until a primary has been heard.
    pub(crate) known: Option<Known>,
    pub(crate) links: [Link; 2],
    pub(crate) window: Window,
    pub(crate) completed: Seq,
    pub(crate) reads: Reads,
    /// The latest time that anybody told us.
    pub(crate) now: u64,
    /// When the next heartbeat is due.
    pub(crate) beat_at: u64,
    /// When a connection was last lost with an Attach unanswered.
    pub(crate) attach_cut_off_at: Option<u64>,
    /// Rule 10: the newest session that may be taken over though its client lives: that of the first primary that was
    /// heard. Until the own one is open, and only if that is wanted.
    pub(crate) over: Option<Generation>,
}

impl Session {
    /// A session that has not begun: [`Session::start`] begins it.
    ///
    /// # Panics
    /// If the volume has no blocks.
    #[must_use]
    pub fn new(config: SessionConfig) -> Self {
        assert!(config.volume_blocks > 0, "a volume of 0 blocks: a session needs at least 1");
        Self {
            config,
            phase: Phase::Attaching,
            known: None,
            links: [Link::new(), Link::new()],
            window: Window::new(config.geometry),
            completed: Seq::ZERO,
            reads: Reads::new(),
            now: 0,
            beat_at: 0,
            attach_cut_off_at: None,
            over: None,
        }
    }

    /// Begins: connects to both nodes, and attaches to the one that serves.
    pub fn start(&mut self, now_ms: u64, out: &mut Vec<Action>) {
        self.now = now_ms;
        self.beat_at = now_ms;
        for link in &mut self.links {
            link.down_since = Some(now_ms);
        }
        self.settle(out);
    }

    /// Something has happened. Events of connections that are gone are ignored.
    ///
    /// # Panics
    /// If the driver reports the outcome of an attempt to connect that was not made.
    pub fn handle(&mut self, event: Event, now_ms: u64, out: &mut Vec<Action>) {
        self.pass(now_ms);
        if let Phase::Ended(_) = self.phase {
            // The attempt was under way when the session ended.
            if let Event::Connected { conn, .. } = event {
                out.push(Action::Close { conn });
            }
            return;
        }
        match event {
            Event::Tick => {}
            Event::Connected { node, conn, incarnation } => {
                self.links[node.index()].connected(conn, incarnation, self.now);
            }
            Event::ConnectFailed { node, why: _ } => self.links[node.index()].failed(self.now, &self.config.timing),
            Event::Closed { conn } => {
                if let Some(node) = self.node_of(conn) {
                    self.gone(node, out);
                }
            }
            Event::Message { conn, msg } => {
                if let Some(node) = self.heard(conn) {
                    self.message(node, msg, out);
                }
            }
            Event::Mailbox { conn, mailbox } => {
                if let Some(node) = self.heard(conn) {
                    self.mailbox(node, mailbox, out);
                }
            }
            Event::Detach => self.detach(out),
        }
        self.settle(out);
        self.check();
    }

    /// Where the payload of the next write goes in the data ring, as a position (byte offset = position mod ring
    /// size); for 0 bytes, a position that no payload takes. `None`: the session is not open, or the window is full
    /// until more is released. Changes nothing.
    ///
    /// # Panics
    /// If the length is not a whole number of blocks or longer than a payload may be.
    #[must_use]
    pub fn place(&self, payload_len: u32) -> Option<u64> {
        if self.is_open() { self.window.place(payload_len) } else { None }
    }

    /// Writes. The caller has put the payload at [`Session::place`] of its length; it leaves it alone until the ring
    /// takes that place again. Completed by [`Action::WritesCompleted`].
    ///
    /// # Panics
    /// If `place` says `None`, or the blocks are none, too many, or not on the volume.
    pub fn write(&mut self, kind: BlobKind, lba: Lba, blocks: u32, now_ms: u64, out: &mut Vec<Action>) -> Seq {
        self.pass(now_ms);
        let Phase::Open { generation } = self.phase else { panic!("a write to a session that is not open") };
        self.check_blocks(lba, blocks);
        let payload_len = match kind {
            BlobKind::Write => self.payload_len(blocks),
            BlobKind::Zeroes | BlobKind::Discard => {
                assert!(blocks <= MAX_ZERO_BLOCKS, "{kind:?} of {blocks} blocks: at most {MAX_ZERO_BLOCKS}");
                0
            }
        };
        let data_pos = self.window.place(payload_len).expect("a write without room: place() says when there is");
        let seq = self.window.next_seq();
        let blob = Blob { generation, seq, kind, lba, blocks, data_pos, payload_len };
        self.window.push(blob);
        self.post_to_all(blob, out);
        seq
    }

    fn payload_len(&self, blocks: u32) -> u32 {
        let most = self.config.geometry.max_payload_blocks();
        assert!(blocks <= most, "a write of {blocks} blocks: at most {most}");
        blocks * self.config.geometry.block_bytes()
    }

    fn check_blocks(&self, lba: Lba, blocks: u32) {
        let volume = self.config.volume_blocks;
        let inside = lba.0.checked_add(u64::from(blocks)).is_some_and(|end| end <= volume);
        assert!(blocks > 0 && inside, "{blocks} blocks from {lba}: the volume has {volume} blocks");
    }

    /// To the secondary first: its way to the completion is longer by the ACK.
    fn post_to_all(&mut self, blob: Blob, out: &mut Vec<Action>) {
        let primary = self.known.as_ref().expect("an open session knows who serves").primary.node;
        for node in [primary.other(), primary] {
            let Some(up) = self.links[node.index()].up_mut() else { continue };
            if let Duty::Feeding { sent } = &mut up.duty {
                assert_eq!(blob.seq, sent.next(), "a fed node has been posted every blob");
                *sent = blob.seq;
                out.push(Action::Post { conn: up.conn, blob });
            }
        }
    }

    /// Reads into the read buffer `slot`, and gives the read's number. The answer holds every write that was made
    /// before. Completed by [`Action::ReadCompleted`]; the buffer is the session's until then.
    ///
    /// # Panics
    /// If the session is not open, [`MAX_OPEN_READS`] reads are open, the buffer is in use or is none, or the blocks
    /// are none, more than a buffer takes ([`MAX_READ_BYTES`]) or not on the volume.
    pub fn read(&mut self, lba: Lba, blocks: u32, slot: u32, now_ms: u64, out: &mut Vec<Action>) -> u64 {
        self.pass(now_ms);
        assert!(self.is_open(), "a read from a session that is not open");
        assert!((slot as usize) < MAX_OPEN_READS, "read buffer {slot}: there are {MAX_OPEN_READS}");
        self.check_blocks(lba, blocks);
        let bytes = u64::from(blocks) * u64::from(self.config.geometry.block_bytes());
        assert!(bytes <= u64::from(MAX_READ_BYTES), "a read of {bytes} bytes: a buffer has {MAX_READ_BYTES}");
        let read = self.reads.open(lba, blocks, slot);
        let known = self.known.as_ref().expect("an open session knows who serves");
        let conn = self.links[known.primary.node.index()].conn();
        if let Some(conn) = conn.filter(|&conn| self.reads.are_sent(conn, known.epoch)) {
            out.push(Action::Send { conn, msg: read.message(known.epoch, self.last()) });
        }
        read.id
    }

    /// Whether reads and writes are taken.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open { .. })
    }

    /// The session's number, once it is open and until it has ended.
    #[must_use]
    pub const fn generation(&self) -> Option<Generation> {
        self.phase.generation()
    }

    /// Every write up to here has completed.
    #[must_use]
    pub const fn completed(&self) -> Seq {
        self.completed
    }

    /// The last seq given.
    pub(crate) fn last(&self) -> Seq {
        self.window.next_seq().prev()
    }

    pub(crate) fn now(&self) -> u64 {
        self.now
    }

    /// Time goes on. If it has jumped, this process has stood still, not the nodes: they are given their time anew.
    fn pass(&mut self, now_ms: u64) {
        let jumped = now_ms.saturating_sub(self.now) > self.config.timing.silent_ms / 2;
        self.now = self.now.max(now_ms);
        if !jumped {
            return;
        }
        for link in &mut self.links {
            if let Some(up) = link.up_mut() {
                up.heard = self.now;
            } else {
                link.down_since = Some(self.now);
            }
        }
    }

    fn node_of(&self, conn: ConnId) -> Option<NodeId> {
        NodeId::BOTH.into_iter().find(|node| self.links[node.index()].conn() == Some(conn))
    }

    /// Notes that a connection lives; `None`: it is gone.
    fn heard(&mut self, conn: ConnId) -> Option<NodeId> {
        let node = self.node_of(conn)?;
        let now = self.now;
        self.links[node.index()].up_mut()?.heard = now;
        Some(node)
    }

    // ---- What is due.

    fn settle(&mut self, out: &mut Vec<Action>) {
        for node in NodeId::BOTH {
            if self.phase.is_over() {
                return;
            }
            self.tend(node, out);
        }
        self.send_reads(out);
        if self.now >= self.beat_at {
            self.beat_at = self.now + self.config.timing.heartbeat_ms;
            self.beat(out);
        }
        self.finish_detaching(out);
    }

    /// Connects, and asks for what the connection is there for.
    fn tend(&mut self, node: NodeId, out: &mut Vec<Action>) {
        if let State::Up(up) = &self.links[node.index()].state
            && self.now.saturating_sub(up.heard) >= self.config.timing.silent_ms
        {
            self.break_off(node, out);
        }
        let link = &mut self.links[node.index()];
        match &link.state {
            State::Idle { retry_at } if *retry_at <= self.now => {
                link.connecting();
                out.push(Action::Connect { node });
            }
            State::Up(up) => {
                if let Duty::Listening { ask_at } = up.duty
                    && ask_at <= self.now
                {
                    self.ask(node, out);
                }
            }
            State::Idle { .. } | State::Connecting => {}
        }
    }

    /// Rule 10 at the primary, rule 14 at every holder.
    fn ask(&mut self, node: NodeId, out: &mut Vec<Action>) {
        let (Some(known), Some(up)) = (&self.known, self.links[node.index()].up()) else { return };
        let member = Member { node, incarnation: up.incarnation };
        match self.phase {
            // Who says now that it serves can take an attach; the knowledge may be from an earlier connection.
            Phase::Attaching if member == known.primary && up.serves(known.epoch) => {
                let over = self.over.unwrap_or(Generation::ZERO);
                out.push(Action::Send { conn: up.conn, msg: ClientMsg::Attach { over } });
                self.links[node.index()].turn(Duty::Attaching);
            }
            Phase::Open { generation } | Phase::Detaching { generation } if known.holds(member) => {
                self.resume(member, generation, out);
            }
            _ => {}
        }
    }

    fn resume(&mut self, member: Member, generation: Generation, out: &mut Vec<Action>) {
        let (freed, forgets) = (self.window.freed(), self.forgets());
        let begins = if self.config.weak(Weakness::TrustFirstAsk) { self.completed } else { freed };
        let link = &mut self.links[member.node.index()];
        let first_ask = link.released(member.incarnation).is_none();
        match link.released(member.incarnation) {
            // It had stopped being a holder, and its space was written over or its missing blobs were forgotten. If an
            // answer was lost it may never have opened that lane; if it has one, its own word will show (told.rs).
            Some(released) if released < freed && !forgets => {
                link.lane = Some(LaneMark::new(member.incarnation, begins));
            }
            Some(_) => {}
            // From the moment that it is asked, it may begin after `completed`, and needs what comes after (rule 8). Or it has
            // begun before, fed by relay, and holds all that has not been forgotten; it says so with its answer.
            None => link.lane = Some(LaneMark::new(member.incarnation, begins)),
        }
        let conn = link.conn().expect("only a connected node is asked");
        link.turn(Duty::Resuming { first_ask });
        out.push(Action::Send { conn, msg: ClientMsg::Resume { generation, first: self.completed.next() } });
    }

    /// Rule 1: on a new connection to the primary, and in a new epoch, all open reads are sent again.
    fn send_reads(&mut self, out: &mut Vec<Action>) {
        let Some(known) = &self.known else { return };
        let link = &self.links[known.primary.node.index()];
        let (Some(conn), Some(up)) = (link.feeding(), link.up()) else { return };
        // A node that has not entered the epoch ignores them, and they are sent only once.
        if !up.serves(known.epoch) || self.reads.are_sent(conn, known.epoch) {
            return;
        }
        let after = self.last();
        out.extend(self.reads.iter().map(|read| Action::Send { conn, msg: read.message(known.epoch, after) }));
        self.reads.mark_sent(conn, known.epoch);
    }

    fn beat(&self, out: &mut Vec<Action>) {
        for node in NodeId::BOTH {
            let Some(conn) = self.links[node.index()].conn() else { continue };
            out.push(Action::Send { conn, msg: ClientMsg::Heartbeat });
            if let Some(msg) = self.complaint(node) {
                out.push(Action::Send { conn, msg });
            }
        }
    }

    /// Rule 15: what is to be said to `node` about the other one. The epoch is the newest that either the primary has
    /// told us or the listener itself; a listener ignores one that is not its own. The session goes with it, as a node
    /// without a lane has nothing else to know us by.
    fn complaint(&self, node: NodeId) -> Option<ClientMsg> {
        let other = node.other();
        let down_ms = self.now - self.links[other.index()].down_since?;
        if down_ms < self.config.timing.unreachable_ms {
            return None;
        }
        let said = self.links[node.index()].up().and_then(|up| up.said.as_ref());
        let (epoch, concerned) = match (&self.known, said) {
            (Some(known), Some(said)) if said.epoch > known.epoch => (said.epoch, said.concerns(other)),
            (Some(known), _) => (known.epoch, known.holder(other).is_some()),
            (None, Some(said)) => (said.epoch, said.concerns(other)),
            (None, None) => return None,
        };
        let generation = self.generation().unwrap_or(Generation::ZERO);
        concerned.then_some(ClientMsg::Unreachable { node: other, epoch, generation })
    }

    // ---- The end.

    fn detach(&mut self, out: &mut Vec<Action>) {
        match self.phase {
            Phase::Attaching => self.end(Ended::Detached, out),
            Phase::Open { generation } => self.phase = Phase::Detaching { generation },
            Phase::Detaching { .. } | Phase::Ended(_) => {}
        }
    }

    /// Once everything has completed, the primary is told, so that the volume is free at once.
    fn finish_detaching(&mut self, out: &mut Vec<Action>) {
        let idle = self.completed == self.last() && self.reads.is_empty();
        if !matches!(self.phase, Phase::Detaching { .. }) || !idle {
            return;
        }
        let primary = self.known.as_ref().expect("an open session knows who serves").primary.node;
        if let Some(conn) = self.links[primary.index()].feeding() {
            out.push(Action::Send { conn, msg: ClientMsg::Detach });
            self.phase = Phase::Ended(Ended::Detached);
            out.push(Action::Ended(Ended::Detached));
        }
    }

    /// Ends at once: every connection is destroyed, so that nothing lands any more.
    pub(crate) fn end(&mut self, why: Ended, out: &mut Vec<Action>) {
        for link in &self.links {
            out.extend(link.conn().map(|conn| Action::Close { conn }));
        }
        self.phase = Phase::Ended(why);
        out.push(Action::Ended(why));
    }

    // ---- Connections that go.

    /// The driver says that it is gone.
    fn gone(&mut self, node: NodeId, out: &mut Vec<Action>) {
        if self.links[node.index()].feeding().is_some() {
            out.push(Action::Notice(Notice::NodeLost { node }));
        }
        self.forget(node);
        self.links[node.index()].lost(self.now, &self.config.timing);
    }

    /// Nothing more comes by the node's connection.
    fn forget(&mut self, node: NodeId) {
        let up = self.links[node.index()].up().expect("only what is up can go");
        self.reads.forget(up.conn);
        if up.duty == Duty::Attaching {
            self.attach_cut_off_at = Some(self.now);
        }
    }

    /// Destroys it; another one will be made.
    pub(crate) fn break_off(&mut self, node: NodeId, out: &mut Vec<Action>) {
        out.extend(self.links[node.index()].conn().map(|conn| Action::Close { conn }));
        self.gone(node, out);
    }

    /// The node broke the protocol: nothing that it says on this connection counts any more.
    pub(crate) fn violation(&mut self, node: NodeId, what: &'static str, out: &mut Vec<Action>) {
        out.extend(self.links[node.index()].conn().map(|conn| Action::Close { conn }));
        out.push(Action::Notice(Notice::NodeViolation(what)));
        self.forget(node);
        self.links[node.index()].distrusted(self.now, &self.config.timing);
    }

    // ---- Invariants.

    /// The numbered list at the head of this file, as far as one state shows it.
    fn check(&self) {
        let (freed, last) = (self.window.freed(), self.last());
        assert!(freed <= self.completed && self.completed <= last, "{freed} ≤ {} ≤ {last}", self.completed);
        let Some(known) = &self.known else { return };
        for node in NodeId::BOTH {
            let Some(up) = self.links[node.index()].up() else { continue };
            if let Duty::Feeding { sent } = up.duty {
                assert!(known.holds(Member { node, incarnation: up.incarnation }), "{node} is fed and no holder");
                assert_eq!(sent, last, "{node} lacks blobs");
                let released = self.links[node.index()].released(up.incarnation);
                assert!(self.forgets() || released.is_some_and(|released| freed <= released), "{node} needs {freed}");
            }
            if self.reads.sent_by() == Some(up.conn) {
                assert_eq!(node, known.primary.node, "reads are out at a node that is not the primary");
            }
        }
    }

    pub(crate) fn forgets(&self) -> bool {
        self.config.weak(Weakness::ForgetWhatCompleted)
    }
}
