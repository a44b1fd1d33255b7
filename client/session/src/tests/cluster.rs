//! Honest nodes, a network that delays and breaks, crashes, joins and takeovers: a session with them, and what its
//! caller sees. The nodes are a model that changes epochs in one stroke; the simulator runs the real machines.
//!
//! The bytes are there too, one number per block: a ring place that is written over early, a blob sent from a place
//! that holds another one by then, or a late answer in a reused read buffer, shows.

mod nodes;

use alloc::collections::{BTreeMap, VecDeque};
use core::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use twinsan_staging::Lane;

use super::*;

const BLOCKS: usize = 6;
const RING: usize = 12;

fn geometry() -> Geometry {
    Geometry::new(8, RING as u64 * u64::from(BLOCK), BLOCK).expect("legal")
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("small")
}

fn place(blob: &Blob) -> impl Iterator<Item = usize> + use<> {
    let first = blob.data_pos / u64::from(BLOCK);
    (first..first + u64::from(blob.blocks)).map(|block| index(block) % RING)
}

/// From a node to the client.
#[derive(Clone, Copy, Debug)]
enum Down {
    Message(NodeMsg),
    Mailbox(Mailbox),
    /// A read's bytes; its ReadDone comes after them.
    Bytes {
        slot: u32,
        bytes: u64,
    },
}

/// From the client to a node.
#[derive(Clone, Copy, Debug)]
enum Up {
    Message(ClientMsg),
    Blob(Blob),
}

struct Wire {
    node: NodeId,
    to_node: VecDeque<Up>,
    to_client: VecDeque<Down>,
    /// The client has yet to hear of it.
    cut: bool,
}

struct Node {
    up: bool,
    incarnation: u64,
    lane: Option<Lane>,
    ring: [u64; RING],
    session: Option<ConnId>,
    reads: Vec<(ConnId, ClientMsg)>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Accept(NodeId),
    FailToConnect(NodeId),
    ToNode(NodeId, usize),
    ToClient(NodeId, usize),
    Cut(NodeId),
    Tick(u64),
    Write(u64, u32),
    Read(u64, u32),
    Flush(u64),
    Release(NodeId),
    Answer,
    Crash(NodeId),
    Restart(NodeId),
    Join,
    Joined,
    Drop,
    Handover,
    TakeOver(NodeId),
}

fn step() -> impl Strategy<Value = Step> {
    let node = || prop_oneof![Just(A), Just(B)];
    prop_oneof![
        6 => node().prop_map(Step::Accept),
        1 => node().prop_map(Step::FailToConnect),
        16 => (node(), 1..6usize).prop_map(|(node, n)| Step::ToNode(node, n)),
        16 => (node(), 1..6usize).prop_map(|(node, n)| Step::ToClient(node, n)),
        1 => node().prop_map(Step::Cut),
        6 => (1..80u64).prop_map(Step::Tick),
        14 => (0..BLOCKS as u64, 1..3u32).prop_map(|(lba, blocks)| Step::Write(lba, blocks)),
        6 => (0..BLOCKS as u64, 0..4u32).prop_map(|(lba, slot)| Step::Read(lba, slot)),
        5 => (1..6u64).prop_map(Step::Flush),
        6 => node().prop_map(Step::Release),
        5 => Just(Step::Answer),
        1 => node().prop_map(Step::Crash),
        3 => node().prop_map(Step::Restart),
        4 => Just(Step::Join),
        4 => Just(Step::Joined),
        1 => Just(Step::Drop),
        1 => Just(Step::Handover),
        2 => node().prop_map(Step::TakeOver),
    ]
}

struct Cluster {
    session: Session,
    now: u64,
    out: Vec<Action>,
    conns: u64,
    connecting: [bool; 2],
    wires: BTreeMap<ConnId, Wire>,
    nodes: [Node; 2],
    incarnations: u64,
    epoch: Epoch,
    primary: NodeId,
    /// 0: none.
    members: [u64; 2],
    joiner: u64,
    generation: Generation,
    /// What the primary knows to be on the disk.
    flushed: Seq,
    disk: [u64; BLOCKS],
    /// The client's own ring, and its read buffers.
    ring: [u64; RING],
    buffers: BTreeMap<u32, u64>,
    /// By block: the newest write, the newest that has completed, the newest that was read.
    written: [u64; BLOCKS],
    completed: [u64; BLOCKS],
    seen: [u64; BLOCKS],
    blobs: BTreeMap<u64, Blob>,
    /// Open reads: the block, and the least that it may show.
    reads: BTreeMap<u64, (u64, u64, u32)>,
    reads_done: u64,
    takeovers: u64,
}

impl Cluster {
    fn new(config: SessionConfig) -> Self {
        let node = |incarnation| Node {
            up: true,
            incarnation,
            lane: Some(Lane::new(geometry(), Generation::ZERO, Some(Seq(1)))),
            ring: [0; RING],
            session: None,
            reads: Vec::new(),
        };
        let mut cluster = Self {
            session: Session::new(config),
            now: 0,
            out: Vec::new(),
            conns: 0,
            connecting: [false; 2],
            wires: BTreeMap::new(),
            nodes: [node(1), node(2)],
            incarnations: 2,
            epoch: Epoch(1),
            primary: A,
            members: [1, 2],
            joiner: 0,
            generation: Generation(0),
            flushed: Seq::ZERO,
            disk: [0; BLOCKS],
            ring: [0; RING],
            buffers: BTreeMap::new(),
            written: [0; BLOCKS],
            completed: [0; BLOCKS],
            seen: [0; BLOCKS],
            blobs: BTreeMap::new(),
            reads: BTreeMap::new(),
            reads_done: 0,
            takeovers: 0,
        };
        cluster.session.start(0, &mut cluster.out);
        cluster.obey();
        cluster
    }

    // ---- The client's side.

    fn event(&mut self, event: Event) {
        self.session.handle(event, self.now, &mut self.out);
        self.obey();
    }

    fn obey(&mut self) {
        for action in core::mem::take(&mut self.out) {
            match action {
                Action::Connect { node } => self.connecting[node.index()] = true,
                Action::Close { conn } => {
                    self.wires.remove(&conn);
                    self.hang_up(conn);
                }
                Action::Send { conn, msg } => self.send_up(conn, Up::Message(msg)),
                Action::Post { conn, blob } => self.send_up(conn, Up::Blob(blob)),
                Action::WritesCompleted { upto } => self.check_completed(upto),
                Action::ReadCompleted { id, slot } => self.check_read(id, slot),
                Action::Ended(why) => panic!("ended: {why:?}"),
                Action::Notice(Notice::NodeViolation(what)) => panic!("an honest node: {what}"),
                Action::Opened { .. } | Action::Notice(_) => {}
            }
        }
    }

    fn send_up(&mut self, conn: ConnId, what: Up) {
        let wire = self.wires.get_mut(&conn).expect("the session uses what is open");
        if !wire.cut {
            wire.to_node.push_back(what);
        }
    }

    fn check_completed(&mut self, upto: Seq) {
        let newest = self.blobs.range(..=upto.0).map(|(_, blob)| *blob).collect::<Vec<_>>();
        for blob in newest {
            for lba in blob.lba.0..blob.end().0 {
                self.completed[index(lba)] = self.completed[index(lba)].max(blob.seq.0);
            }
        }
    }

    fn check_read(&mut self, id: u64, slot: u32) {
        let (lba, least, expected_slot) = self.reads.remove(&id).expect("an open read");
        assert_eq!(slot, expected_slot);
        let shown = self.buffers[&slot];
        let (block, written) = (index(lba), self.written[index(lba)]);
        assert!(shown >= least && shown <= written, "block {lba} shows {shown}, not {least}..={written}");
        self.seen[block] = self.seen[block].max(shown);
        self.reads_done += 1;
    }

    fn write(&mut self, lba: u64, blocks: u32) {
        if lba + u64::from(blocks) > BLOCKS as u64 {
            return;
        }
        let Some(data_pos) = self.session.place(blocks * BLOCK) else { return };
        let seq = self.session.last().next();
        let (kind, lba, payload_len) = (BlobKind::Write, Lba(lba), blocks * BLOCK);
        let blob = Blob { generation: self.generation, seq, kind, lba, blocks, data_pos, payload_len };
        for at in place(&blob) {
            self.ring[at] = seq.0;
        }
        for lba in blob.lba.0..blob.end().0 {
            self.written[index(lba)] = seq.0;
        }
        self.blobs.insert(seq.0, blob);
        assert_eq!(self.session.write(kind, lba, blocks, self.now, &mut self.out), seq);
        self.obey();
    }

    fn read(&mut self, lba: u64, slot: u32) {
        if !self.session.is_open() || self.reads.values().any(|&(_, _, taken)| taken == slot) {
            return;
        }
        let least = self.completed[index(lba)].max(self.seen[index(lba)]);
        self.buffers.insert(slot, u64::MAX);
        let id = self.session.read(Lba(lba), 1, slot, self.now, &mut self.out);
        self.reads.insert(id, (lba, least, slot));
        self.obey();
    }

    /// Section 2: what has completed is on the disk, or while dual in both lanes.
    fn check_durable(&self) {
        for (block, &completed) in self.completed.iter().enumerate() {
            let held = |node| self.lane(node).is_some_and(|lane| lane.get(Seq(completed)).is_some());
            let safe = self.disk[block] >= completed || (self.is_dual() && NodeId::BOTH.into_iter().all(held));
            assert!(safe, "block {block}: {completed} has completed, the disk has {}", self.disk[block]);
        }
    }

    // ---- The network.

    fn accept(&mut self, node: NodeId) {
        if !core::mem::take(&mut self.connecting[node.index()]) {
            return;
        }
        if !self.nodes[node.index()].up {
            return self.event(Event::ConnectFailed { node, why: ConnectError::Refused });
        }
        self.conns += 1;
        let conn = ConnId(self.conns);
        let wire = Wire { node, to_node: VecDeque::new(), to_client: VecDeque::new(), cut: false };
        self.wires.insert(conn, wire);
        self.send_view(conn);
        let incarnation = inc(self.nodes[node.index()].incarnation);
        self.event(Event::Connected { node, conn, incarnation });
    }

    fn conn(&self, node: NodeId) -> Option<ConnId> {
        self.wires.iter().find(|(_, wire)| wire.node == node).map(|(&conn, _)| conn)
    }

    /// The node's end is gone at once; the client hears what was on its way first.
    fn cut(&mut self, conn: ConnId) {
        if let Some(wire) = self.wires.get_mut(&conn) {
            wire.cut = true;
            wire.to_node.clear();
        }
        self.hang_up(conn);
    }

    fn hang_up(&mut self, conn: ConnId) {
        for node in &mut self.nodes {
            if node.session == Some(conn) {
                node.session = None;
            }
            node.reads.retain(|&(by, _)| by != conn);
        }
    }

    fn cut_all(&mut self, node: NodeId) {
        let conns: Vec<ConnId> = self.wires.iter().filter(|(_, w)| w.node == node).map(|(&conn, _)| conn).collect();
        for conn in conns {
            self.cut(conn);
        }
    }

    fn deliver_down(&mut self, node: NodeId) -> bool {
        let Some(conn) = self.conn(node) else { return false };
        let wire = self.wires.get_mut(&conn).expect("found");
        match wire.to_client.pop_front() {
            Some(Down::Message(msg)) => self.event(Event::Message { conn, msg }),
            Some(Down::Mailbox(mailbox)) => self.event(Event::Mailbox { conn, mailbox }),
            Some(Down::Bytes { slot, bytes }) => drop(self.buffers.insert(slot, bytes)),
            None if wire.cut => {
                self.wires.remove(&conn);
                self.event(Event::Closed { conn });
            }
            None => return false,
        }
        true
    }

    fn send(&mut self, conn: ConnId, what: Down) {
        if let Some(wire) = self.wires.get_mut(&conn).filter(|wire| !wire.cut) {
            wire.to_client.push_back(what);
        }
    }

    // ---- What happens.

    fn run(&mut self, step: Step) {
        match step {
            Step::Accept(node) => self.accept(node),
            Step::FailToConnect(node) => {
                if core::mem::take(&mut self.connecting[node.index()]) {
                    self.event(Event::ConnectFailed { node, why: ConnectError::Unreachable });
                }
            }
            Step::ToNode(node, n) => while_some(n, || self.deliver_up(node)),
            Step::ToClient(node, n) => while_some(n, || self.deliver_down(node)),
            Step::Cut(node) => self.cut_all(node),
            Step::Tick(ms) => {
                self.now += ms;
                self.event(Event::Tick);
            }
            Step::Write(lba, blocks) => self.write(lba, blocks),
            Step::Read(lba, slot) => self.read(lba, slot),
            Step::Flush(n) => {
                if self.primary_lives() {
                    self.flush(self.primary, self.allowed().min(Seq(self.flushed.0 + n)));
                }
            }
            Step::Release(node) => {
                if self.primary_lives() {
                    self.release(node);
                }
            }
            Step::Answer => self.answer_reads(),
            Step::Crash(node) => self.crash(node),
            Step::Restart(node) => self.nodes[node.index()].up = true,
            Step::Join => self.join(),
            Step::Joined => self.joined(),
            Step::Drop => self.drop_secondary(),
            Step::Handover => self.handover(),
            Step::TakeOver(node) => self.take_over(node),
        }
        self.check_durable();
    }

    /// Nothing fails any more: everything must complete, and the pair be dual.
    fn heal(&mut self) {
        for _ in 0..1000 {
            let open = self.session.is_open();
            if open && self.is_dual() && self.session.completed() == self.session.last() && self.reads.is_empty() {
                return;
            }
            for node in NodeId::BOTH {
                self.nodes[node.index()].up = true;
                self.take_over(node);
                self.accept(node);
                while_some(1000, || self.deliver_up(node));
                while_some(1000, || self.deliver_down(node));
            }
            self.join();
            self.run(Step::Flush(100));
            self.joined();
            NodeId::BOTH.into_iter().for_each(|node| self.release(node));
            self.answer_reads();
            self.announce();
            self.run(Step::Tick(10));
        }
        panic!("a healthy cluster does not finish: {:#?}", self.session);
    }
}

fn while_some(most: usize, mut step: impl FnMut() -> bool) {
    for _ in 0..most {
        if !step() {
            return;
        }
    }
}

/// Many random lives of a cluster; what they came to: writes, reads, takeovers.
pub(super) fn live(config: SessionConfig, cases: u32) -> Result<[u64; 3], alloc::string::String> {
    let shrinks = if config == SessionConfig::new(geometry(), BLOCKS as u64) { 2000 } else { 0 };
    let config_of_runner =
        ProptestConfig { cases, failure_persistence: None, max_shrink_iters: shrinks, ..Default::default() };
    let mut runner = TestRunner::new(config_of_runner);
    let counts = [const { Cell::new(0) }; 3];
    let outcome = runner.run(&prop::collection::vec(step(), 100..700), |steps| {
        let mut cluster = Cluster::new(config);
        for step in steps {
            cluster.run(step);
        }
        cluster.heal();
        let sums = [cluster.session.last().0, cluster.reads_done, cluster.takeovers];
        for (count, sum) in counts.iter().zip(sums) {
            count.set(count.get() + sum);
        }
        // All that was written is on the disk in the end.
        cluster.flush(cluster.primary, Seq(u64::MAX));
        prop_assert_eq!(cluster.disk, cluster.written);
        Ok(())
    });
    outcome.map(|()| counts.map(|count| count.get())).map_err(|error| alloc::format!("{error}"))
}

#[test]
fn a_session_with_honest_nodes() {
    let counts = live(SessionConfig::new(geometry(), BLOCKS as u64), 400).unwrap_or_else(|error| panic!("{error}"));
    let [writes, reads, takeovers] = counts;
    assert!(
        writes >= 4000 && reads >= 1000 && takeovers >= 300,
        "{writes} writes, {reads} reads, {takeovers} takeovers"
    );
}

#[cfg(feature = "weaken")]
#[test]
fn each_wrong_wording_shows() {
    use crate::Weakness::{CountAnswersAtOnce, TrustFirstAsk};
    // No relay feeds a joiner here, and no old primary reads what a new one flushes: the simulator has scripts for these
    // (join_by_relay.rs; section8.rs, seen_too_early).
    let shown_here = |weakness: &crate::Weakness| !matches!(weakness, TrustFirstAsk | CountAnswersAtOnce);
    for weakness in crate::Weakness::ALL.into_iter().filter(shown_here) {
        let config = SessionConfig::new(geometry(), BLOCKS as u64).weakened(Some(weakness));
        let outcome = live(config, 3000);
        assert!(outcome.is_err(), "{weakness:?} went unnoticed: {outcome:?}");
    }
}
