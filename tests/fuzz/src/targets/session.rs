//! A client's machine, between nodes that have the key and say what they like, and a caller that keeps to the rules.
//!
//! - the machine gives up nowhere;
//! - a seq names one blob for ever, and is posted in order, inside the ring, to connections that stand;
//! - completions and answers are for what was written and asked, once, and never go back;
//! - a connection that was destroyed is never used again, and a session is opened once.

use std::collections::{BTreeMap, BTreeSet};

use twinsan_session::{Action, ConnId, ConnectError, Event, LinkPhase, Session, SessionConfig};
use twinsan_staging::Geometry;
use twinsan_wire::{
    Blob, BlobKind, ClientMsg, Epoch, Generation, Incarnation, LaneGrant, Lba, Mailbox, Members, NodeFrame, NodeId,
    NodeMsg, Refusal, RemoteKey, Role, Seq,
};

use crate::input::Input;

const BLOCK: u32 = 512;
const VOLUME_BLOCKS: u64 = 64;
const SLOTS: u32 = 8;
const RING: u64 = 16 * BLOCK as u64;
/// Read buffers that the caller uses.
const BUFFERS: u32 = 4;

fn incarnation(n: u64) -> Incarnation {
    Incarnation::from_random(n)
}

pub(crate) fn run(data: &[u8]) {
    let mut input = Input(data);
    let mut driver = Driver::new();
    if input.flag() {
        driver.open();
    }
    while !input.is_empty() && !driver.ended {
        driver.step(&mut input);
    }
}

/// A driver and a caller that trust the session's promises, and check them.
struct Driver {
    session: Session,
    now: u64,
    conns: u64,
    connecting: BTreeSet<NodeId>,
    /// Which node is at the other end, as which incarnation.
    live: BTreeMap<ConnId, (NodeId, u64)>,
    /// The last blob posted.
    posted: BTreeMap<ConnId, Seq>,
    blobs: BTreeMap<Seq, Blob>,
    last: Seq,
    completed: Seq,
    reads: BTreeMap<u64, (u32, Lba, u32)>,
    opened: bool,
    ended: bool,
}

impl Driver {
    fn new() -> Self {
        let geometry = Geometry::new(SLOTS, RING, BLOCK).expect("legal");
        let mut driver = Self {
            session: Session::new(SessionConfig::new(geometry, VOLUME_BLOCKS)),
            now: 0,
            conns: 0,
            connecting: BTreeSet::new(),
            live: BTreeMap::new(),
            posted: BTreeMap::new(),
            blobs: BTreeMap::new(),
            last: Seq::ZERO,
            completed: Seq::ZERO,
            reads: BTreeMap::new(),
            opened: false,
            ended: false,
        };
        let mut out = Vec::new();
        driver.session.start(0, &mut out);
        driver.obey(out);
        driver
    }

    /// The session of two honest nodes, open.
    fn open(&mut self) {
        for node in NodeId::BOTH {
            self.connect(node, 1 + node.index() as u64);
        }
        self.view(NodeId::A, 5, [1, 2], 0, 8);
        self.message(NodeId::A, NodeMsg::Attached { generation: Generation(8) });
        assert!(self.opened);
    }

    fn event(&mut self, event: Event) {
        let mut out = Vec::new();
        self.session.handle(event, self.now, &mut out);
        self.obey(out);
    }

    // ---- what it wants done ----------------------------------------------------------------------------------------

    fn obey(&mut self, out: Vec<Action>) {
        for action in out {
            assert!(!self.ended || matches!(action, Action::Close { .. }), "{action:?} after the end");
            match action {
                Action::Connect { node } => {
                    assert!(self.connecting.insert(node), "one attempt at a time");
                    assert!(self.live.values().all(|&(other, _)| other != node), "one connection a node");
                }
                Action::Close { conn } => assert!(self.live.remove(&conn).is_some(), "{conn:?} is gone"),
                Action::Send { conn, msg } => {
                    assert!(self.live.contains_key(&conn), "{conn:?} is gone");
                    self.sent(&msg);
                }
                Action::Post { conn, blob } => self.post(conn, blob),
                Action::WritesCompleted { upto } => {
                    assert!(self.completed < upto && upto <= self.last, "{upto} of {}", self.last);
                    self.completed = upto;
                }
                Action::ReadCompleted { id, slot } => {
                    assert_eq!(self.reads.remove(&id).map(|read| read.0), Some(slot), "read {id}");
                }
                Action::Opened { .. } => assert!(!std::mem::replace(&mut self.opened, true), "opened twice"),
                Action::Ended(_) => self.ended = true,
                Action::Notice(_) => {}
            }
        }
        let status = self.session.status();
        assert!(status.freed <= status.completed && status.completed == self.completed && status.last == self.last);
        assert!(self.last.0 - status.freed.0 <= u64::from(SLOTS));
    }

    /// What a decoder of the node's takes, and what was asked of the session.
    fn sent(&self, msg: &ClientMsg) {
        assert_eq!(ClientMsg::decode(msg.encode().as_bytes()).as_ref(), Ok(msg));
        if let ClientMsg::Read { id, after, lba, blocks, slot, .. } = *msg {
            assert_eq!(self.reads.get(&id), Some(&(slot, lba, blocks)), "a read that nobody asked for");
            assert!(after <= self.last);
        }
    }

    fn post(&mut self, conn: ConnId, blob: Blob) {
        assert!(self.live.contains_key(&conn), "{conn:?} is gone");
        let before = self.posted.insert(conn, blob.seq);
        assert!(before.is_none_or(|before| before.next() == blob.seq), "{} after {before:?}", blob.seq);
        assert!(blob.lba.0 + u64::from(blob.blocks) <= VOLUME_BLOCKS);
        assert!(blob.data_pos % RING + u64::from(blob.payload_len) <= RING, "across the ring's end: {blob:?}");
        assert_eq!(*self.blobs.entry(blob.seq).or_insert(blob), blob, "a seq names one content for ever");
    }

    // ---- what happens ----------------------------------------------------------------------------------------------

    fn step(&mut self, input: &mut Input<'_>) {
        let node = NodeId::BOTH[input.below(2)];
        match input.byte() % 16 {
            0 => {
                self.now += u64::from(input.byte()) * 16;
                self.event(Event::Tick);
            }
            1 | 2 => self.connect(node, 1 + input.number(node.index() as u64 + 4) % 8),
            3 if self.connecting.remove(&node) => {
                self.event(Event::ConnectFailed { node, why: ConnectError::Unreachable });
            }
            4 => {
                if let Some((conn, _)) = self.conn(node) {
                    self.live.remove(&conn);
                    self.event(Event::Closed { conn });
                }
            }
            5 | 6 => self.write(input),
            7 => self.read(input),
            8 => self.serve(node, input),
            9 => self.answer(node, input),
            10 => self.progress(node, input),
            11 => {
                if let Some(&id) = self.reads.keys().next() {
                    let epoch = self.session.status().epoch;
                    self.message(node, NodeMsg::ReadDone { id, epoch, durable: self.completed });
                }
            }
            12 | 13 => self.any_message(node, input),
            14 => self.any_mailbox(node, input),
            _ if input.byte() == u8::MAX => self.event(Event::Detach),
            _ => {}
        }
    }

    fn conn(&self, node: NodeId) -> Option<(ConnId, u64)> {
        self.live.iter().find(|(_, on)| on.0 == node).map(|(&conn, &(_, incarnation))| (conn, incarnation))
    }

    fn connect(&mut self, node: NodeId, n: u64) {
        if self.connecting.remove(&node) {
            self.conns += 1;
            let conn = ConnId(self.conns);
            self.live.insert(conn, (node, n));
            self.event(Event::Connected { node, conn, incarnation: incarnation(n) });
        }
    }

    fn message(&mut self, node: NodeId, msg: NodeMsg) {
        // Only what a decoder takes gets as far as here.
        let keys = LaneGrant { descriptors: RemoteKey(1), data: RemoteKey(2) };
        let frame = NodeFrame { msg, grant: msg.opens_lane().then_some(keys) };
        if let (Some((conn, _)), Ok(frame)) = (self.conn(node), NodeFrame::decode(frame.encode().as_bytes())) {
            self.event(Event::Message { conn, msg: frame.msg });
        }
    }

    fn view(&mut self, node: NodeId, epoch: u64, members: [u64; 2], joiner: u64, generation: u64) {
        let Some((_, from)) = self.conn(node) else { return };
        let someone = |n: u64| (n > 0).then(|| incarnation(n));
        let msg = NodeMsg::View {
            role: Role::Primary,
            from: incarnation(from),
            epoch: Epoch(epoch),
            primary: Some(node),
            members: Members(members.map(someone)),
            joiner: someone(joiner),
            generation: Generation(generation),
        };
        self.message(node, msg);
    }

    /// A primary's View that fits, alone, with the other one or with it as a joiner.
    fn serve(&mut self, node: NodeId, input: &mut Input<'_>) {
        let Some((_, from)) = self.conn(node) else { return };
        let how = input.byte();
        let mate = self.conn(node.other()).map_or(1, |(_, incarnation)| incarnation);
        let mut members = [0; 2];
        members[node.index()] = from;
        members[node.other().index()] = if how % 3 == 2 { mate } else { 0 };
        let epoch = self.session.status().epoch.0.max(4).saturating_add(u64::from((how >> 4) & 1));
        let generation = self.session.generation().map_or(8, |generation| generation.0);
        self.view(node, epoch, members, if how % 3 == 1 { mate } else { 0 }, generation);
    }

    /// What was asked for.
    fn answer(&mut self, node: NodeId, input: &mut Input<'_>) {
        let Some((_, from)) = self.conn(node) else { return };
        let status = self.session.status();
        let generation = self.session.generation().unwrap_or(Generation(8));
        match status.links[node.index()].phase {
            LinkPhase::Attaching => self.message(node, NodeMsg::Attached { generation }),
            LinkPhase::Resuming => {
                let received = Seq(self.last.0.saturating_sub(u64::from(input.byte() % 8)));
                self.message(node, NodeMsg::Resumed { generation, from: incarnation(from), received });
            }
            _ => {}
        }
    }

    fn progress(&mut self, node: NodeId, input: &mut Input<'_>) {
        let Some((conn, from)) = self.conn(node) else { return };
        let status = self.session.status();
        let released = Seq((status.freed.0 + u64::from(input.byte() % 8)).min(self.last.0));
        let durable = Some(Seq((self.completed.0 + u64::from(input.byte() % 8)).min(self.last.0)));
        let (epoch, from) = (status.epoch, incarnation(from));
        let generation = self.session.generation().unwrap_or(Generation(8));
        let mailbox = Mailbox::Completion { epoch, from, generation, durable, released, relayed: input.flag() };
        self.event(Event::Mailbox { conn, mailbox });
    }

    fn write(&mut self, input: &mut Input<'_>) {
        let kind = [BlobKind::Write, BlobKind::Zeroes, BlobKind::Discard][input.below(3)];
        let blocks = 1 + u32::from(input.byte() % 8);
        let lba = Lba(u64::from(input.byte()) % (VOLUME_BLOCKS - 8));
        let payload = if kind == BlobKind::Write { blocks * BLOCK } else { 0 };
        if self.session.place(payload).is_some() {
            let mut out = Vec::new();
            let seq = self.session.write(kind, lba, blocks, self.now, &mut out);
            assert_eq!(seq, self.last.next());
            self.last = seq;
            self.obey(out);
        }
    }

    fn read(&mut self, input: &mut Input<'_>) {
        let slot = u32::from(input.byte()) % BUFFERS;
        if self.session.is_open() && self.reads.values().all(|&(taken, ..)| taken != slot) {
            let (lba, blocks) = (Lba(u64::from(input.byte()) % (VOLUME_BLOCKS - 8)), 1 + u32::from(input.byte() % 8));
            let mut out = Vec::new();
            let id = self.session.read(lba, blocks, slot, self.now, &mut out);
            self.reads.insert(id, (slot, lba, blocks));
            self.obey(out);
        }
    }

    // ---- what no honest node says ----------------------------------------------------------------------------------

    fn any_message(&mut self, node: NodeId, input: &mut Input<'_>) {
        let status = self.session.status();
        let generation = Generation(input.number(self.session.generation().map_or(8, |generation| generation.0)));
        let epoch = Epoch(input.number(status.epoch.0));
        let someone = |input: &mut Input<'_>| incarnation(u64::from(input.byte() % 4) + 1);
        let anybody = |input: &mut Input<'_>| input.flag().then(|| someone(input));
        let msg = match input.byte() % 5 {
            0 => NodeMsg::View {
                role: Role::ALL[input.below(Role::ALL.len())],
                from: someone(input),
                epoch,
                primary: [None, Some(NodeId::A), Some(NodeId::B)][input.below(3)],
                members: Members([anybody(input), anybody(input)]),
                joiner: anybody(input),
                generation,
            },
            1 => NodeMsg::Attached { generation },
            2 => NodeMsg::Resumed { generation, from: someone(input), received: Seq(input.number(self.last.0)) },
            3 => NodeMsg::Refused {
                why: [Refusal::NotReady, Refusal::NeedsRecovery, Refusal::Busy, Refusal::Superseded][input.below(4)],
            },
            _ => {
                let id = self.reads.keys().next().copied().unwrap_or(1);
                NodeMsg::ReadDone { id: input.number(id), epoch, durable: Seq(input.number(self.last.0)) }
            }
        };
        self.message(node, msg);
    }

    fn any_mailbox(&mut self, node: NodeId, input: &mut Input<'_>) {
        let Some((conn, from)) = self.conn(node) else { return };
        let status = self.session.status();
        let generation = Generation(input.number(self.session.generation().map_or(8, |generation| generation.0)));
        let (epoch, from) = (Epoch(input.number(status.epoch.0)), incarnation(from + input.number(0) % 2));
        let released = Seq(input.number(status.freed.0));
        let mailbox = match input.byte() % 4 {
            0 => Mailbox::Released { epoch, from, to: incarnation(1), generation, released },
            _ => {
                let durable = input.flag().then(|| Seq(input.number(self.completed.0)));
                Mailbox::Completion { epoch, from, generation, durable, released, relayed: input.flag() }
            }
        };
        if let Ok(mailbox) = Mailbox::decode(&mailbox.encode()) {
            self.event(Event::Mailbox { conn, mailbox });
        }
    }
}
