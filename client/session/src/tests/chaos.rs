//! Nodes that say anything: the session must neither panic nor break a promise to its driver or caller.
//!
//! Half of the steps are plausible for the state, so that the deep ones are reached; the other half is noise. The
//! session checks its own invariants after every step.

use alloc::collections::{BTreeMap, BTreeSet};
use core::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;

#[derive(Clone, Copy, Debug)]
enum Step {
    Wait(u64),
    Connect(NodeId, u64),
    Fail(NodeId),
    Close(NodeId),
    Noise(NodeId, Noise),
    /// The node serves: epochs further, with the other one as nothing, joiner or member.
    Serve(NodeId, u64, u8),
    /// It answers what it was asked, this many blobs short of the last.
    Answer(NodeId, u64),
    /// Its mailbox: so much released, and as much again completed.
    Progress(NodeId, u64),
    /// It answers the oldest read.
    AnswerRead(NodeId),
    Write(BlobKind, u64, u32),
    Read(u32),
    Detach,
}

#[derive(Clone, Copy, Debug)]
enum Noise {
    View { role: u8, from: u64, epoch: u64, primary: Option<NodeId>, members: [u64; 2], joiner: u64, generation: u64 },
    Attached(u64),
    Resumed(u64, u64, u64),
    Refused(u8),
    ReadDone(u64, u64, u64),
    Mailbox { epoch: u64, from: u64, generation: u64, durable: Option<u64>, released: u64 },
}

fn node() -> impl Strategy<Value = NodeId> {
    prop_oneof![Just(A), Just(B)]
}

fn noise() -> impl Strategy<Value = Noise> {
    let (epoch, generation, from, seq) = (4..9u64, 7..10u64, 1..4u64, 0..20u64);
    let holder = 0..4u64;
    let view = (0..8u8, from.clone(), epoch.clone(), prop::option::of(node()), holder.clone(), holder.clone(), holder);
    prop_oneof![
        2 => (view, generation.clone()).prop_map(|((role, from, epoch, primary, a, b, joiner), generation)| {
            Noise::View { role, from, epoch, primary, members: [a, b], joiner, generation }
        }),
        1 => generation.clone().prop_map(Noise::Attached),
        1 => (generation.clone(), from.clone(), seq.clone()).prop_map(|(g, f, s)| Noise::Resumed(g, f, s)),
        1 => (0..20u8).prop_map(Noise::Refused),
        1 => (1..6u64, epoch.clone(), seq.clone()).prop_map(|(id, e, s)| Noise::ReadDone(id, e, s)),
        2 => (epoch, from, generation, prop::option::of(seq.clone()), seq).prop_map(
            |(epoch, from, generation, durable, released)| Noise::Mailbox { epoch, from, generation, durable, released }
        ),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![3 => Just(BlobKind::Write), 1 => Just(BlobKind::Zeroes), 1 => Just(BlobKind::Discard)];
    prop_oneof![
        3 => (0..120u64).prop_map(Step::Wait),
        1 => (500..3000u64).prop_map(Step::Wait),
        6 => (node(), 1..3u64).prop_map(|(node, incarnation)| Step::Connect(node, incarnation)),
        1 => node().prop_map(Step::Fail),
        1 => node().prop_map(Step::Close),
        4 => (node(), noise()).prop_map(|(node, noise)| Step::Noise(node, noise)),
        5 => (node(), 0..2u64, 0..3u8).prop_map(|(node, further, other)| Step::Serve(node, further, other)),
        8 => (node(), 0..6u64).prop_map(|(node, short)| Step::Answer(node, short)),
        6 => (node(), 0..10u64).prop_map(|(node, more)| Step::Progress(node, more)),
        3 => node().prop_map(Step::AnswerRead),
        8 => (kind, 0..VOLUME_BLOCKS - 8, 1..8u32).prop_map(|(kind, lba, blocks)| Step::Write(kind, lba, blocks)),
        3 => (0..4u32).prop_map(Step::Read),
        1 => prop::bool::weighted(0.1).prop_map(|detach| if detach { Step::Detach } else { Step::Wait(1) }),
    ]
}

/// A driver and a caller that trust the session's promises, and check them.
struct Driver {
    session: Session,
    now: u64,
    out: Vec<Action>,
    conns: u64,
    connecting: BTreeSet<NodeId>,
    live: BTreeMap<ConnId, (NodeId, u64)>,
    posted: BTreeMap<ConnId, Seq>,
    last: Seq,
    completed: Seq,
    reads: BTreeMap<u64, u32>,
    opened: u64,
    ended: bool,
}

impl Driver {
    fn new() -> Self {
        let mut driver = Self {
            session: Session::new(config()),
            now: 0,
            out: Vec::new(),
            conns: 0,
            connecting: BTreeSet::new(),
            live: BTreeMap::new(),
            posted: BTreeMap::new(),
            last: Seq::ZERO,
            completed: Seq::ZERO,
            reads: BTreeMap::new(),
            opened: 0,
            ended: false,
        };
        driver.session.start(0, &mut driver.out);
        driver.obey();
        driver
    }

    fn event(&mut self, event: Event) {
        self.session.handle(event, self.now, &mut self.out);
        self.obey();
    }

    /// Carries the actions out.
    fn obey(&mut self) {
        for action in core::mem::take(&mut self.out) {
            assert!(!self.ended || matches!(action, Action::Close { .. }), "{action:?} after the end");
            match action {
                Action::Connect { node } => {
                    assert!(self.connecting.insert(node), "one attempt at a time");
                    assert!(self.live.values().all(|&(other, _)| other != node), "one connection a node");
                }
                Action::Close { conn } => assert!(self.live.remove(&conn).is_some(), "{conn:?} is gone"),
                Action::Send { conn, .. } => assert!(self.live.contains_key(&conn), "{conn:?} is gone"),
                Action::Post { conn, blob } => {
                    assert!(self.live.contains_key(&conn), "{conn:?} is gone");
                    let before = self.posted.insert(conn, blob.seq);
                    assert!(before.is_none_or(|before| before.next() == blob.seq), "{} after {before:?}", blob.seq);
                    assert!(blob.seq <= self.session.last());
                }
                Action::WritesCompleted { upto } => {
                    assert!(self.completed < upto && upto <= self.last);
                    self.completed = upto;
                }
                Action::ReadCompleted { id, slot } => assert_eq!(self.reads.remove(&id), Some(slot)),
                Action::Opened { .. } => self.opened += 1,
                Action::Ended(_) => self.ended = true,
                Action::Notice(_) => {}
            }
        }
        assert!(self.opened <= 1, "a session is opened once");
    }

    fn conn(&self, node: NodeId) -> Option<(ConnId, u64)> {
        self.live.iter().find(|(_, on)| on.0 == node).map(|(&conn, &(_, incarnation))| (conn, incarnation))
    }

    fn message(&mut self, node: NodeId, msg: NodeMsg) {
        if let Some((conn, _)) = self.conn(node) {
            self.event(Event::Message { conn, msg });
        }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Wait(ms) => {
                self.now += ms;
                self.event(Event::Tick);
            }
            Step::Connect(node, incarnation) => {
                if self.connecting.remove(&node) {
                    self.conns += 1;
                    let conn = ConnId(self.conns);
                    self.live.insert(conn, (node, incarnation));
                    self.event(Event::Connected { node, conn, incarnation: inc(incarnation) });
                }
            }
            Step::Fail(node) => {
                if self.connecting.remove(&node) {
                    self.event(Event::ConnectFailed { node, why: ConnectError::Unreachable });
                }
            }
            Step::Close(node) => {
                if let Some((conn, _)) = self.conn(node) {
                    self.live.remove(&conn);
                    self.event(Event::Closed { conn });
                }
            }
            Step::Noise(node, noise) => self.noise(node, noise),
            Step::Serve(node, further, other) => self.serve(node, further, other),
            Step::Answer(node, short) => self.answer(node, short),
            Step::Progress(node, more) => self.progress(node, more),
            Step::AnswerRead(node) => {
                if let Some(&id) = self.reads.keys().next() {
                    let (epoch, durable) = (self.session.status().epoch, self.completed);
                    self.message(node, NodeMsg::ReadDone { id, epoch, durable });
                }
            }
            Step::Write(kind, lba, blocks) => self.write(kind, lba, blocks),
            Step::Read(slot) => {
                if self.session.is_open() && self.reads.values().all(|&taken| taken != slot) {
                    let id = self.session.read(Lba(0), 1, slot, self.now, &mut self.out);
                    self.reads.insert(id, slot);
                    self.obey();
                }
            }
            Step::Detach => self.event(Event::Detach),
        }
    }

    fn write(&mut self, kind: BlobKind, lba: u64, blocks: u32) {
        let payload = if kind == BlobKind::Write { blocks * BLOCK } else { 0 };
        if self.session.place(payload).is_some() {
            let seq = self.session.write(kind, Lba(lba), blocks, self.now, &mut self.out);
            assert_eq!(seq, self.last.next());
            self.last = seq;
            self.obey();
        }
    }

    fn generation(&self) -> Generation {
        let of_view = self.session.known.as_ref().map(|known| known.generation);
        self.session.generation().or(of_view).unwrap_or(OURS)
    }

    fn serve(&mut self, node: NodeId, further: u64, other: u8) {
        let Some((_, from)) = self.conn(node) else { return };
        let known = self.session.known;
        let epoch = known.map_or(5, |known| known.epoch.0) + further;
        let mut members = [0; 2];
        members[node.index()] = from;
        let mate = self.conn(node.other()).map_or(1, |(_, incarnation)| incarnation);
        members[node.other().index()] = if other == 2 { mate } else { 0 };
        let joiner = if other == 1 { mate } else { 0 };
        let (role, primary, generation) = (Role::Primary, Some(node), self.generation());
        self.message(node, Say { role, from, epoch, primary, members, joiner, generation }.msg());
    }

    fn answer(&mut self, node: NodeId, short: u64) {
        let Some((_, from)) = self.conn(node) else { return };
        let generation = self.generation();
        let msg = match self.session.links[node.index()].phase() {
            LinkPhase::Attaching => NodeMsg::Attached { generation },
            LinkPhase::Resuming => {
                let received = Seq(self.last.0.saturating_sub(short));
                NodeMsg::Resumed { generation, from: inc(from), received }
            }
            _ => return,
        };
        self.message(node, msg);
    }

    fn progress(&mut self, node: NodeId, more: u64) {
        let Some((conn, from)) = self.conn(node) else { return };
        let status = self.session.status();
        let released = Seq((status.freed.0 + more).min(self.last.0));
        let durable = Seq((self.completed.0 + more).min(self.last.0));
        let (epoch, from, generation) = (status.epoch, inc(from), self.generation());
        let mailbox = Mailbox::Completion { epoch, from, generation, durable: Some(durable), released, relayed: false };
        self.event(Event::Mailbox { conn, mailbox });
    }

    fn noise(&mut self, node: NodeId, noise: Noise) {
        let msg = match noise {
            Noise::View { role, from, epoch, primary, members, joiner, generation } => {
                let (role, generation) = (Role::ALL[usize::from(role)], Generation(generation));
                Say { role, from, epoch, primary, members, joiner, generation }.msg()
            }
            Noise::Attached(generation) => NodeMsg::Attached { generation: Generation(generation) },
            Noise::Resumed(generation, from, received) => {
                NodeMsg::Resumed { generation: Generation(generation), from: inc(from), received: Seq(received) }
            }
            // Being superseded ends it all, and is rare.
            Noise::Refused(0) => NodeMsg::Refused { why: Refusal::Superseded },
            Noise::Refused(n) if n % 2 == 0 => NodeMsg::Refused { why: Refusal::NotReady },
            Noise::Refused(_) => NodeMsg::Refused { why: Refusal::NeedsRecovery },
            Noise::ReadDone(id, epoch, durable) => NodeMsg::ReadDone { id, epoch: Epoch(epoch), durable: Seq(durable) },
            Noise::Mailbox { epoch, from, generation, durable, released } => {
                let Some((conn, _)) = self.conn(node) else { return };
                let (epoch, from, generation) = (Epoch(epoch), inc(from), Generation(generation));
                let (durable, released) = (durable.map(Seq), Seq(released));
                let mailbox = Mailbox::Completion { epoch, from, generation, durable, released, relayed: false };
                return self.event(Event::Mailbox { conn, mailbox });
            }
        };
        self.message(node, msg);
    }
}

#[test]
fn whatever_the_nodes_say() {
    let mut runner = TestRunner::new(ProptestConfig { cases: 1000, failure_persistence: None, ..Default::default() });
    let (opened, completed) = (Cell::new(0), Cell::new(0));
    let outcome = runner.run(&prop::collection::vec(step(), 1..300), |steps| {
        let mut driver = Driver::new();
        for step in steps {
            driver.run(step);
        }
        opened.set(opened.get() + driver.opened);
        completed.set(completed.get() + driver.completed.0);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    // The deep states were reached.
    assert!(opened.get() >= 150, "{} sessions opened", opened.get());
    assert!(completed.get() >= 1000, "{} writes completed", completed.get());
}
