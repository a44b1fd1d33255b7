//! A SAN node's host: the process around the real replica machine, its memory, and the driver's work.

use std::collections::{BTreeMap, VecDeque};

use twinsan_replica::{self as replica, Action, Notice, ReadToken, Replica, ReplicaConfig};
use twinsan_wire::{Blob, Incarnation, NodeId, NodeMsg, Role};

use crate::boundaries::changes_something;
use crate::check::{lane_space_is_not_reused_early, one_authoritative_primary};
use crate::clock::Clock;
use crate::config::BLOCK_BYTES;
use crate::coverage::Watch;
use crate::event::{Answer, AnswerCopied, ByConn, ConnIndex, Ev, Host, Inbound, Item, LifeIndex};
use crate::net::End;
use crate::shared::Shared;
use crate::stamp::{Cell, Version};
use crate::trace::{Told, trace};
use crate::weak::Weakness;
use crate::world::{Process, World};

/// The registered memory of one life: what others write and its own disk writes read, dead or alive.
#[derive(Clone)]
pub(crate) struct Life {
    pub(crate) node: NodeId,
    pub(crate) ring: Vec<Cell>,
    pub(crate) slots: Vec<Option<Blob>>,
}

/// A host, and the process that runs on it.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) process: Process,
    pub(crate) life: Option<LifeIndex>,
    pub(crate) machine: Option<Replica>,
    pub(crate) inbox: VecDeque<Inbound>,
    /// What new connections are told.
    pub(crate) incarnation: Incarnation,
    /// Read buffers, filled from the disk.
    pub(crate) buffers: BTreeMap<ReadToken, Vec<Cell>>,
    /// Its host's clock (the explorer's way to let timeouts come early).
    pub(crate) clock: Clock,
    /// What the count of rules needs to know of it.
    pub(crate) watch: Watch,
    out: Vec<Action>,
}

impl Node {
    pub(crate) fn down(_: NodeId) -> Self {
        Self {
            process: Process::Down,
            life: None,
            machine: None,
            inbox: VecDeque::new(),
            incarnation: Incarnation::from_random(1),
            buffers: BTreeMap::new(),
            clock: Clock::default(),
            watch: Watch::default(),
            out: Vec::new(),
        }
    }

    /// What the machine says that it does; nothing runs: `None`.
    pub(crate) fn role(&self) -> Option<Role> {
        self.machine.as_ref().map(|m| m.status().role)
    }
}

impl World {
    /// Starts a node's process: a new life with a new seed.
    pub fn start_node(&mut self, node: NodeId) {
        let host = Host::Node(node);
        if self.process(host) != Process::Down {
            return;
        }
        trace!(self, host, "=== starts");
        let life = self.lives.len();
        let cells = usize::try_from(self.config.ring_blocks()).expect("a small ring");
        let slots = self.config.geometry.slots() as usize;
        let memory = Life { node, ring: vec![Cell::default(); cells], slots: vec![None; slots] };
        self.lives.push(Shared::new(memory));
        let config = ReplicaConfig {
            node,
            geometry: self.config.geometry,
            volume_blocks: self.config.volume_blocks,
            timing: self.config.timing,
            max_batch_bytes: u64::from(BLOCK_BYTES) * self.config.max_batch_blocks,
            weakness: if let Some(Weakness::Replica(w)) = self.config.weakness { Some(w) } else { None },
        };
        let seed = self.rng.bits();
        let mut machine = Replica::new(config, seed);
        let mut out = Vec::new();
        machine.start(self.clock_ms(host), &mut out);
        let clock = self.nodes[node.index()].clock;
        let process = Process::Up;
        let up = Node { process, life: Some(life), machine: Some(machine), clock, ..Node::down(node) };
        self.nodes[node.index()] = Shared::new(up);
        if self.trace.on {
            let born = self.nodes[node.index()].machine.as_ref().expect("it runs").status().incarnation;
            self.trace.call(node, born);
        }
        self.carry_out(node, out);
        let first = self.rng.below(self.config.timing.tick_ms * 1000);
        self.after(first, Ev::Tick(host, life));
        self.watch_paths(node);
    }

    /// Kills a node's process: its memory's contents count no more, its disk writes may still land.
    pub fn crash_node(&mut self, node: NodeId) {
        let host = Host::Node(node);
        if self.process(host) == Process::Down {
            return;
        }
        trace!(self, host, "=== killed");
        self.end_process(node);
    }

    fn end_process(&mut self, node: NodeId) {
        let life = self.nodes[node.index()].life.expect("it runs");
        self.cover_end(node);
        let clock = self.nodes[node.index()].clock;
        self.nodes[node.index()] = Shared::new(Node { clock, ..Node::down(node) });
        self.close_all_of(Host::Node(node));
        self.orphan_writes(life);
        self.check_amnesia();
    }

    /// An operator's order or a signal.
    pub fn order(&mut self, node: NodeId, event: replica::Event) {
        if let Some(life) = self.nodes[node.index()].life {
            trace!(self, Host::Node(node), "=== {event:?}");
            self.hand(Host::Node(node), life, Inbound::Replica(event));
        }
    }

    pub(crate) fn node_takes(&mut self, node: NodeId, what: Inbound) {
        let event = match what {
            Inbound::Tick => replica::Event::Tick,
            Inbound::Replica(event) => event,
            Inbound::SecondSlot(op) => return self.write_second_slot(op),
            Inbound::ByConn(conn, what) => match self.node_conn_event(node, conn, &what) {
                Some(event) => event,
                None => return,
            },
            Inbound::Session(_) => unreachable!("a client's event at a node"),
        };
        if !matches!(event, replica::Event::Tick | replica::Event::PeerMailbox { .. }) {
            trace!(self, Host::Node(node), "<- {event:?}");
        }
        if self.trace.on {
            let said = self.say_event(node, &event);
            self.trace.tell(self.now_us, &node, Told::In(said));
        }
        let now = self.clock_ms(Host::Node(node));
        let n = &mut self.nodes[node.index()];
        let mut out = std::mem::take(&mut n.out);
        let machine = n.machine.as_mut().expect("it runs");
        machine.handle(event, now, &mut out);
        self.counts.held_back += u64::from(machine.is_at_budget());
        let status = machine.status();
        self.cover_event(&event);
        out.iter().for_each(|action| self.cover(node, &event, action, &status));
        self.cover_status(node, &event, &status);
        self.carry_out(node, out);
        if self.nodes[node.index()].machine.is_some() {
            one_authoritative_primary::check_status(self, node, &status);
        }
    }

    fn node_conn_event(&mut self, node: NodeId, conn: ConnIndex, what: &ByConn) -> Option<replica::Event> {
        let host = Host::Node(node);
        let end = self.net.conns[conn].end_at(host);
        if self.net.conns[conn].state[end] == End::Closed {
            return None;
        }
        match what {
            ByConn::Replica(event @ replica::Event::LinkUp { .. }) => {
                // It replaces an earlier one, which is destroyed first.
                let earlier: Vec<ConnIndex> = self.open_links(node).filter(|&c| c != conn).collect();
                earlier.into_iter().for_each(|c| self.close_end(c, self.net.conns[c].end_at(host), End::Closed));
                Some(*event)
            }
            ByConn::Replica(event) => Some(*event),
            ByConn::MailboxWritten { kind } => {
                let mailbox = self.read_mailbox(conn, host, *kind)?;
                Some(replica::Event::PeerMailbox { link: replica::LinkId(conn as u64), mailbox })
            }
            ByConn::Session(_) => unreachable!("a client's event at a node"),
        }
    }

    fn carry_out(&mut self, node: NodeId, mut actions: Vec<Action>) {
        for action in actions.drain(..) {
            if !matches!(action, Action::ReadHeartbeat | Action::WriteHeartbeat { .. } | Action::PeerMailbox { .. }) {
                trace!(self, Host::Node(node), "-> {action:?}");
            }
            if self.trace.on {
                if let Action::Incarnation(incarnation) = action {
                    self.trace.call(node, incarnation);
                }
                let said = self.say_action(&action);
                self.trace.tell(self.now_us, &node, Told::Out(said));
            }
            let counts = changes_something(&action);
            self.carry_out_one(node, action);
            if counts && self.passes_boundary(node) {
                return;
            }
            if self.nodes[node.index()].process == Process::Down {
                return;
            }
        }
        self.nodes[node.index()].out = actions;
    }

    fn carry_out_one(&mut self, node: NodeId, action: Action) {
        match action {
            Action::ReadSuperblock => self.begin_read_superblock(node),
            Action::WriteSuperblock(superblock) => self.begin_superblock(node, superblock),
            Action::WriteHeartbeat { beat } => self.begin_beat(node, beat),
            Action::ReadHeartbeat => self.begin_read_beat(node),
            Action::Admit => self.admit(node),
            Action::Fence => self.fence(node),
            Action::ReleaseFence => self.release_fence(node),
            Action::CheckFence => self.check_fence(node),
            Action::YieldFence => self.yield_fence(node),
            Action::AcceptFence => self.accept_fence(node),
            Action::Flush { batch, writes } => self.begin_flush(node, batch, &writes),
            Action::ReadDisk { token, pieces } => self.begin_read(node, token, &pieces),
            Action::AnswerRead { token, conn, id, slot, pieces, epoch, durable } => {
                let done = NodeMsg::ReadDone { id, epoch, durable };
                self.answer_read(node, token, conn, slot, pieces, done);
            }
            Action::DropRead { token } => {
                self.nodes[node.index()].buffers.remove(&token);
            }
            Action::Probe => self.dial(Host::Node(node), node.other(), None),
            Action::RelayConnect { to } => self.dial(Host::Node(node), node.other(), Some(to)),
            Action::SendRelay { relay, msg } => self.node_sends(node, relay.0, Item::Client(msg)),
            Action::RelayPost { relay, blob } => {
                self.counts.relayed += 1;
                self.node_sends(node, relay.0, Item::Blob(blob));
            }
            Action::CloseRelay { relay } => self.node_closes(node, relay.0),
            Action::SendPeer { link, msg } => self.node_sends(node, link.0, Item::Peer(msg)),
            Action::PeerMailbox { link, mailbox } => self.node_sends(node, link.0, Item::Mailbox(mailbox)),
            Action::CloseLink { link } => self.node_closes(node, link.0),
            Action::SendClient { conn, msg } => {
                if matches!(msg, NodeMsg::Attached { .. } | NodeMsg::Resumed { .. }) {
                    self.net.conns[conn_index(conn.0)].lane_open = true;
                }
                self.node_sends(node, conn.0, Item::Node(msg));
            }
            Action::ClientMailbox { conn, mailbox } => {
                one_authoritative_primary::check_completion(self, node, &mailbox);
                self.node_sends(node, conn.0, Item::Mailbox(mailbox));
            }
            Action::CloseClient { conn } => self.node_closes(node, conn.0),
            Action::Incarnation(incarnation) => {
                self.nodes[node.index()].incarnation = incarnation;
                self.abort_setups_of(Host::Node(node));
            }
            Action::Notice(notice) => self.node_noticed(node, notice),
            Action::Exit => {
                trace!(self, Host::Node(node), "=== ends");
                self.end_process(node);
            }
        }
    }

    fn node_sends(&mut self, node: NodeId, conn: u64, item: Item) {
        let conn = conn_index(conn);
        let end = self.net.conns[conn].end_at(Host::Node(node));
        self.send(conn, end, item);
    }

    fn node_closes(&mut self, node: NodeId, conn: u64) {
        let conn = conn_index(conn);
        let end = self.net.conns[conn].end_at(Host::Node(node));
        self.close_end(conn, end, End::Closed);
    }

    fn node_noticed(&mut self, node: NodeId, notice: Notice) {
        self.counts.notice(&notice);
        if notice == (Notice::TakingOver { member: false }) {
            let other = node.other();
            let lives = self.process(Host::Node(other)) == Process::Up && self.role(other) == Some(Role::Primary);
            let unheard = self.net.cut(Host::Node(node), Host::Node(other)).is_some();
            self.counts.taken_from_the_living += u64::from(lives && unheard);
        }
        if notice == Notice::Serving {
            self.serving_begins(node);
        }
    }

    /// A blob's payload, fetched from the ring of the client, or of the node that relays, now, as a NIC may when it
    /// lands.
    pub(crate) fn payload_now(&mut self, conn: ConnIndex, blob: &Blob) -> Vec<Cell> {
        let (who, life) = (self.net.conns[conn].ends[0], self.net.conns[conn].lives[0]);
        let mut cells = Vec::new();
        for (at, lba) in self.payload_places(blob) {
            let cell = match who {
                Host::Client(client) => self.clients[client].ring[at],
                Host::Node(_) => self.lives[life].ring[at],
            };
            if cell != (Cell { version: Version::of(blob), lba }) {
                lane_space_is_not_reused_early::broken(self, who, "a post", lba, blob.seq.0, cell.version);
            }
            cells.push(cell);
        }
        cells
    }

    /// Where a payload's blocks lie in the ring, and which they are.
    pub(crate) fn payload_places(&self, blob: &Blob) -> Vec<(usize, u64)> {
        let block = u64::from(BLOCK_BYTES);
        let ring = self.config.ring_blocks();
        let place = |i: u64| (usize::try_from((blob.data_pos / block + i) % ring).expect("small"), blob.lba.0 + i);
        (0..u64::from(blob.payload_len) / block).map(place).collect()
    }

    /// A client's blob lands in the lane.
    pub(crate) fn blob_lands(&mut self, conn: ConnIndex, life: LifeIndex, blob: &Blob, cells: &[Cell]) {
        let c = &self.net.conns[conn];
        let (client, host) = (c.ends[0], c.ends[1]);
        if !c.lane_open {
            let what = format!("{client} posts {} to {host}, which has not opened its lane to it", blob.seq);
            return self.fail("lane_space_is_not_reused_early", what);
        }
        if self.blob_is_corrupt(conn, life, blob) {
            return;
        }
        for ((at, _), &cell) in self.payload_places(blob).into_iter().zip(cells) {
            self.lives[life].ring[at] = cell;
        }
        let slot = self.config.geometry.slot(blob.seq) as usize;
        self.lives[life].slots[slot] = Some(*blob);
        let event = replica::Event::Blob { conn: replica::ConnId(conn as u64), blob: *blob };
        self.hand(host, life, Inbound::ByConn(conn, ByConn::Replica(event)));
    }

    fn answer_read(
        &mut self,
        node: NodeId,
        token: ReadToken,
        conn: replica::ConnId,
        slot: u32,
        pieces: Vec<replica::Piece>,
        done: NodeMsg,
    ) {
        let Host::Client(client) = self.net.conns[conn_index(conn.0)].ends[0] else { unreachable!("clients read") };
        let generation = self.clients[client].generation.map_or(0, |g| g.0);
        let n = &mut self.nodes[node.index()];
        let from_disk = n.buffers.remove(&token).unwrap_or_default();
        let life = n.life.expect("it runs");
        let answer = Answer { token, life, slot, pieces, from_disk, generation };
        self.node_sends(node, conn.0, Item::Answer(Box::new(answer)));
        self.node_sends(node, conn.0, Item::Node(done));
    }

    /// The answer's bytes leave their host now.
    pub(crate) fn copy_answer(&mut self, answer: &Answer) -> AnswerCopied {
        let cells = self.compose(answer);
        self.read_answered(answer.token, answer.life);
        AnswerCopied { slot: answer.slot, cells }
    }

    /// The answer's pieces are in the client's buffer, or never will be.
    pub(crate) fn read_answered(&mut self, token: ReadToken, life: LifeIndex) {
        let owner = NodeId::BOTH.into_iter().find(|n| self.nodes[n.index()].life == Some(life));
        if let Some(node) = owner {
            let event = replica::Event::ReadAnswered { token };
            self.hand_after(20, Host::Node(node), life, Inbound::Replica(event));
        }
    }
}

pub(crate) fn conn_index(id: u64) -> ConnIndex {
    usize::try_from(id).expect("an index")
}
