//! A client's host: the process around the real session machine, its ring and read buffers, and its workload.

use std::collections::{BTreeMap, VecDeque};

use twinsan_session::{self as session, Action, Ended, Session, SessionConfig};
use twinsan_wire::limits::MAX_OPEN_READS;
use twinsan_wire::{BlobKind, Generation, Lba, NodeId, Seq};

use crate::check::{completed_write_is_never_lost, read_never_goes_back};
use crate::clock::Clock;
use crate::config::BLOCK_BYTES;
use crate::event::{AnswerCopied, ByConn, ConnIndex, Ev, Host, Inbound, Item};
use crate::faults::Remedy;
use crate::net::End;
use crate::node::conn_index;
use crate::plan::Request;
use crate::shared::Shared;
use crate::stamp::{Cell, Version};
use crate::trace::{Told, trace, trace_block};
use crate::weak::Weakness;
use crate::world::{Process, World};

/// The most requests that the workload has open.
const DEPTH: usize = 12;
/// How much of that are reads.
const READ_DEPTH: usize = 4;

/// A client's host.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) process: Process,
    pub(crate) machine: Option<Session>,
    pub(crate) inbox: VecDeque<Inbound>,
    /// Its host's clock.
    pub(crate) clock: Clock,
    /// Its data ring: what posts are fetched from.
    pub(crate) ring: Vec<Cell>,
    /// Its read buffers.
    pub(crate) buffers: BTreeMap<u32, Vec<Cell>>,
    pub(crate) generation: Option<Generation>,
    pub(crate) ended: Option<Ended>,
    /// Times that a node was fed again.
    pub(crate) resumes: u64,
    /// Writes issued and not completed.
    pub(crate) writes: BTreeMap<Seq, Extent>,
    pub(crate) reads: BTreeMap<u64, OpenRead>,
    /// The lowest read that has not been sent yet.
    pub(crate) next_read: u64,
    out: Vec<Action>,
}

/// A range of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Extent {
    pub(crate) lba: u64,
    pub(crate) blocks: u64,
}

impl Extent {
    pub(crate) fn lbas(self) -> core::ops::Range<u64> {
        self.lba..self.lba + self.blocks
    }
}

/// A read that has been issued, and what it may return.
#[derive(Clone, Debug, Hash)]
pub(crate) struct OpenRead {
    pub(crate) extent: Extent,
    pub(crate) slot: u32,
    /// For each block what it must not be older than: the newest completed or read before, when the read began.
    pub(crate) floors: Vec<(Version, read_never_goes_back::Why)>,
}

impl Client {
    pub(crate) fn is_open(&self) -> bool {
        self.machine.as_ref().is_some_and(Session::is_open)
    }

    /// The last write that has completed.
    pub(crate) fn completed(&self) -> Seq {
        self.machine.as_ref().map_or(Seq::ZERO, Session::completed)
    }

    fn free_slot(&self) -> Option<u32> {
        let used = |slot: &u32| self.reads.values().any(|r| r.slot == *slot);
        // A freed buffer is taken again at once: what lands late then shows.
        (0..u32::try_from(MAX_OPEN_READS).expect("few")).find(|slot| !used(slot))
    }
}

impl World {
    /// Starts a new client, which attaches; returns its number. It waits where another one is attached.
    pub fn start_client(&mut self) -> usize {
        self.start_client_as(false)
    }

    /// The same for one that takes the volume over from another client that lives (rule 10).
    pub fn start_client_over(&mut self) -> usize {
        self.start_client_as(true)
    }

    fn start_client_as(&mut self, take_over: bool) -> usize {
        let number = self.clients.len();
        let host = Host::Client(number);
        trace!(self, host, "=== starts{}", if take_over { ", to take over" } else { "" });
        let mut config = SessionConfig::new(self.config.geometry, self.config.volume_blocks);
        config.timing = self.config.client_timing;
        config.wait_if_busy = true;
        config.take_over = take_over;
        let mut machine = Session::new(config.weakened(self.config.weakness.and_then(Weakness::of_the_client)));
        let mut out = Vec::new();
        machine.start(self.now_ms(), &mut out);
        let cells = usize::try_from(self.config.ring_blocks()).expect("a small ring");
        self.clients.push(Shared::new(Client {
            process: Process::Up,
            machine: Some(machine),
            inbox: VecDeque::new(),
            clock: Clock::default(),
            ring: vec![Cell::default(); cells],
            buffers: BTreeMap::new(),
            generation: None,
            ended: None,
            resumes: 0,
            writes: BTreeMap::new(),
            reads: BTreeMap::new(),
            next_read: 0,
            out: Vec::new(),
        }));
        self.client_carries_out(number, out);
        self.after(1_000, Ev::Tick(host, 0));
        if self.config.writes > 0 && self.plan.draws_requests() {
            self.after(1_000, Ev::Work(number));
        }
        number
    }

    /// Kills a client's process: its requests are nobody's any more.
    pub fn crash_client(&mut self, number: usize) {
        let host = Host::Client(number);
        if self.process(host) == Process::Down {
            return;
        }
        trace!(self, host, "=== killed");
        let client = &mut self.clients[number];
        client.process = Process::Down;
        client.machine = None;
        client.inbox.clear();
        client.writes.clear();
        client.reads.clear();
        self.close_all_of(host);
    }

    pub(crate) fn client_takes(&mut self, number: usize, what: Inbound) {
        let event = match what {
            Inbound::Tick => session::Event::Tick,
            Inbound::Session(event) => event,
            Inbound::ByConn(conn, what) => match self.client_conn_event(number, conn, &what) {
                Some(event) => event,
                None => return,
            },
            Inbound::Replica(_) | Inbound::SecondSlot(_) => unreachable!("a node's event at a client"),
        };
        if !matches!(event, session::Event::Tick) {
            trace!(self, Host::Client(number), "<- {event:?}");
        }
        if self.trace.on {
            let said = self.say_client_event(&event);
            self.trace.tell(self.now_us, &Host::Client(number), Told::In(said));
        }
        let now = self.clock_ms(Host::Client(number));
        self.with_session(number, |machine, out| machine.handle(event, now, out));
    }

    fn client_conn_event(&mut self, number: usize, conn: ConnIndex, what: &ByConn) -> Option<session::Event> {
        let host = Host::Client(number);
        let end = self.net.conns[conn].end_at(host);
        if self.net.conns[conn].state[end] == End::Closed {
            return None;
        }
        match what {
            ByConn::Session(event) => Some(*event),
            ByConn::MailboxWritten { kind } => {
                let mailbox = self.read_mailbox(conn, host, *kind)?;
                Some(session::Event::Mailbox { conn: session::ConnId(conn as u64), mailbox })
            }
            ByConn::Replica(_) => unreachable!("a node's event at a client"),
        }
    }

    pub(crate) fn with_session<R>(
        &mut self,
        number: usize,
        call: impl FnOnce(&mut Session, &mut Vec<Action>) -> R,
    ) -> R {
        let client = &mut self.clients[number];
        let mut out = std::mem::take(&mut client.out);
        let result = call(client.machine.as_mut().expect("it runs"), &mut out);
        self.client_carries_out(number, out);
        result
    }

    fn client_carries_out(&mut self, number: usize, mut actions: Vec<Action>) {
        for action in actions.drain(..) {
            if !matches!(action, Action::Send { msg: twinsan_wire::ClientMsg::Heartbeat, .. }) {
                trace!(self, Host::Client(number), "-> {action:?}");
            }
            if self.trace.on {
                let said = self.say_client_action(&action);
                self.trace.tell(self.now_us, &Host::Client(number), Told::Out(said));
            }
            self.cover_client(number, &action);
            self.client_carries_out_one(number, action);
        }
        self.clients[number].out = actions;
    }

    fn client_carries_out_one(&mut self, number: usize, action: Action) {
        match action {
            Action::Connect { node } => self.dial(Host::Client(number), node, None),
            Action::Close { conn } => self.close_end(conn_index(conn.0), 0, End::Closed),
            Action::Send { conn, msg } => self.send(conn_index(conn.0), 0, Item::Client(msg)),
            Action::Post { conn, blob } => self.send(conn_index(conn.0), 0, Item::Blob(blob)),
            Action::WritesCompleted { upto } => self.writes_completed(number, upto),
            Action::ReadCompleted { id, slot } => self.read_completed(number, id, slot),
            Action::Opened { generation } => {
                self.clients[number].generation = Some(generation);
                if let Err(what) = self.check.session_opened(generation) {
                    self.fail("completed_write_is_never_lost", what);
                }
            }
            Action::Ended(why) => {
                self.clients[number].ended = Some(why);
                self.counts.superseded += u64::from(why == Ended::Superseded);
                if self.config.writes > 0 {
                    self.after(50_000, Ev::Heal(Remedy::Client));
                }
            }
            Action::Notice(session::Notice::NodeViolation(what)) => {
                self.fail("nobody_breaks_the_protocol", format!("C{number} says of a node: {what}"));
            }
            Action::Notice(session::Notice::NodeResumed { .. }) => self.clients[number].resumes += 1,
            Action::Notice(_) => {}
        }
    }

    /// Issues a write, if the session takes it; `None`: there is no room, or it is not open.
    pub fn write(&mut self, number: usize, kind: BlobKind, lba: u64, blocks: u32) -> Option<Seq> {
        let client = &self.clients[number];
        let payload = if kind == BlobKind::Write { blocks * BLOCK_BYTES } else { 0 };
        let pos = client.machine.as_ref()?.place(payload)?;
        if client.process != Process::Up {
            return None;
        }
        let generation = client.generation.expect("an open session has one");
        let seq = client.machine.as_ref()?.status().last.next();
        let ring = self.config.ring_blocks();
        let version = Version::new(generation, seq);
        for i in 0..u64::from(payload / BLOCK_BYTES) {
            let at = usize::try_from((pos / u64::from(BLOCK_BYTES) + i) % ring).expect("a small ring");
            self.clients[number].ring[at] = Cell { version, lba: lba + i };
        }
        let extent = Extent { lba, blocks: u64::from(blocks) };
        trace!(self, Host::Client(number), "### {kind:?} {version}: blocks {lba} + {blocks}");
        extent.lbas().for_each(|lba| trace_block!(self, lba, "C{number} writes {version}"));
        self.check.write_issued(version, extent);
        self.counts.writes += 1;
        self.clients[number].writes.insert(seq, extent);
        let now = self.clock_ms(Host::Client(number));
        let given = self.with_session(number, |m, out| m.write(kind, Lba(lba), blocks, now, out));
        assert_eq!(given, seq, "seqs come without gaps");
        Some(seq)
    }

    /// Issues a read; `None`: all buffers are in use, or the session is not open.
    pub fn read(&mut self, number: usize, lba: u64, blocks: u32) -> Option<u64> {
        let client = &self.clients[number];
        if !client.is_open() || client.process != Process::Up {
            return None;
        }
        let slot = client.free_slot()?;
        let extent = Extent { lba, blocks: u64::from(blocks) };
        let generation = client.generation.expect("an open session has one");
        let floors = self.check.floors(generation, extent);
        let now = self.clock_ms(Host::Client(number));
        let id = self.with_session(number, |m, out| m.read(Lba(lba), blocks, slot, now, out));
        trace!(self, Host::Client(number), "### read {id}: blocks {lba} + {blocks}, buffer {slot}");
        self.counts.reads += 1;
        self.clients[number].reads.insert(id, OpenRead { extent, slot, floors });
        Some(id)
    }

    /// The caller ends the session in order.
    pub fn detach(&mut self, number: usize) {
        self.hand(Host::Client(number), 0, Inbound::Session(session::Event::Detach));
    }

    fn writes_completed(&mut self, number: usize, upto: Seq) {
        let generation = self.clients[number].generation.expect("an open session has one");
        let rest = self.clients[number].writes.split_off(&upto.next());
        let done = std::mem::replace(&mut self.clients[number].writes, rest);
        for (seq, extent) in done {
            trace!(self, Host::Client(number), "### g{}{seq} has completed", generation.0);
            let version = Version::new(generation, seq);
            extent.lbas().for_each(|lba| trace_block!(self, lba, "C{number}: {version} has completed"));
            self.counts.writes_completed += 1;
            completed_write_is_never_lost::completed(self, Version::new(generation, seq), extent);
        }
    }

    fn read_completed(&mut self, number: usize, id: u64, slot: u32) {
        let Some(read) = self.clients[number].reads.remove(&id) else {
            let what = format!("C{number}: read {id} completed twice or was never issued");
            return self.fail("read_never_goes_back", what);
        };
        let cells = self.clients[number].buffers.get(&slot).cloned().unwrap_or_default();
        for (lba, cell) in read.extent.lbas().zip(&cells) {
            trace_block!(self, lba, "C{number} reads {}", cell.version);
        }
        self.counts.reads_completed += 1;
        read_never_goes_back::check(self, number, id, &read, &cells);
    }

    /// A read's answer lands in the client's buffer, whatever that is used for now.
    pub(crate) fn answer_lands(&mut self, host: Host, answer: AnswerCopied) {
        let Host::Client(number) = host else { unreachable!("only clients are answered") };
        self.clients[number].buffers.insert(answer.slot, answer.cells);
    }

    /// Lets the session's workload go on: a request now and then, of any kind and size, several at a time.
    pub(crate) fn work(&mut self, number: usize) {
        if self.clients[number].ended.is_some() || self.clients[number].process == Process::Down {
            return;
        }
        if !self.plan.draws_requests() {
            return;
        }
        let think = self.config.think;
        let pause = self.plan.rng().latency(think.low, think.high);
        self.after(pause, Ev::Work(number));
        let client = &self.clients[number];
        if client.process != Process::Up || client.writes.len() + client.reads.len() >= DEPTH {
            return;
        }
        let reads_more = client.reads.len() < READ_DEPTH;
        let (volume, most) = (self.config.volume_blocks, u64::from(self.config.max_blocks));
        let rng = self.plan.rng();
        let blocks = rng.between(1, most);
        let lba = rng.below(volume - blocks + 1);
        let write = match rng.below(100) {
            0..=29 if reads_more => None,
            30..=39 => Some(BlobKind::Zeroes),
            40..=46 => Some(BlobKind::Discard),
            _ => Some(BlobKind::Write),
        };
        self.ask(number, Request { write, lba, blocks: u32::try_from(blocks).expect("few") });
    }

    /// Which of the two nodes a client could ask, for scripts.
    #[must_use]
    pub fn client_is_open(&self, number: usize) -> bool {
        self.clients[number].is_open()
    }

    /// Everything that the client asked for has been answered.
    #[must_use]
    pub fn client_is_idle(&self, number: usize) -> bool {
        self.clients[number].writes.is_empty() && self.clients[number].reads.is_empty()
    }

    /// The node that the client holds for the primary.
    #[must_use]
    pub fn client_primary(&self, number: usize) -> Option<NodeId> {
        self.clients[number].machine.as_ref().and_then(|m| m.status().primary)
    }
}
