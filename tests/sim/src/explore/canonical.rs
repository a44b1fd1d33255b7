//! What makes one state of the search different from another: a number of 128 bits, the same for states from which the
//! same may follow.
//!
//! - The machines say what they are themselves (`Replica::canonical`, `Session::canonical`): times are ages and waits.
//! - Names (incarnations, connections, lives, reads, batches, heartbeats) are given anew, in the order in which a walk over the
//!   whole state comes upon them. Numbers that only tell newer from older are as small as they can be (`order.rs`).
//! - What waits is a bag, and so are disk operations: their order is nobody's. But in prompt order it is theirs: there what a
//!   process is to hear, a node's disk operations and the fence's requests are rows ([`Situation::rank`]).
//! - What the checkers remember belongs to it: a state in which less has completed can break less.

use std::hash::Hash;

use twinsan_replica as replica;
use twinsan_session as session;
use twinsan_wire::{ClientMsg, Epoch, Incarnation, Mailbox, NodeId, NodeMsg, PeerBody, PeerMsg, Superblock};

use crate::disk::{Op, Part, UnitState, What};
use crate::event::{Answer, ByConn, ConnIndex, Ev, Host, Inbound, Item, LifeIndex};
use crate::explore::order::Order;
use crate::explore::situation::Situation;
use crate::explore::sum::{Sum, halves};
use crate::fence::Step;
use crate::net::End;

/// Which state.
pub(crate) type Fingerprint = u128;

impl Situation {
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        let mut walk = Walk::new(self);
        walk.everything();
        walk.sum.end()
    }
}

impl Situation {
    /// Sums of its parts, each with names of its own: for the census.
    pub(crate) fn parts(&self) -> Vec<(String, Fingerprint)> {
        let mut out = Vec::new();
        let mut part = |name: &str, of: &dyn Fn(&mut Walk<'_>)| {
            let mut walk = Walk::new(self);
            of(&mut walk);
            out.push((name.to_owned(), walk.sum.end()));
        };
        part("budget", &|walk| walk.put((self.left, self.program.len())));
        for conn in Walk::new(self).names.conns {
            let [a, b] = self.world.net.conns[conn].ends;
            part(&format!("net {a}-{b}"), &|walk| {
                walk.names.conns.retain(|&c| self.world.net.conns[c].ends == [a, b]);
                walk.connections();
            });
        }
        part("disk", &|walk| walk.disk());
        part("fence", &|walk| walk.fence());
        part("checks", &|walk| walk.checks());
        part("bag", &|walk| walk.bag(&self.bag, Walk::scheduled));
        for node in NodeId::BOTH {
            part(&format!("{node} memory"), &|walk| {
                let n = &self.world.nodes[node.index()];
                walk.put((n.process, &n.buffers.values().collect::<Vec<_>>()));
                n.life.into_iter().for_each(|life| walk.memory(life));
            });
        }
        let mut names = Walk::new(self).names;
        for node in NodeId::BOTH {
            let n = &self.world.nodes[node.index()];
            let (Some(life), Some(machine)) = (n.life, &n.machine) else { continue };
            (names.node, names.life) = (node, life);
            let canonical = machine.canonical(self.world.clock_ms(Host::Node(node)), &mut names);
            out.extend(fields(&node.to_string(), &format!("{canonical:#?}")));
        }
        for (number, client) in self.world.clients.iter().enumerate() {
            let Some(machine) = &client.machine else { continue };
            let canonical = machine.canonical(self.world.now_ms(), &mut names);
            out.extend(fields(&Host::Client(number).to_string(), &format!("{canonical:#?}")));
        }
        out
    }
}

/// A machine's fields, from its record as the compiler writes it: those of its structs too.
fn fields(whose: &str, record: &str) -> Vec<(String, Fingerprint)> {
    let mut out: Vec<(String, Sum)> = Vec::new();
    let mut outer = "";
    for line in record.lines() {
        let inner = line.trim_start();
        let depth = line.len() - inner.len();
        let named = inner.split_once(':').map(|(name, _)| name);
        match (depth, named) {
            (4, Some(name)) => {
                outer = name;
                out.push((format!("{whose} {name}"), Sum::new()));
            }
            (8, Some(name)) if ["peer", "timers", "relay"].contains(&outer) => {
                out.push((format!("{whose} {outer}.{name}"), Sum::new()));
            }
            _ => {}
        }
        if let Some((_, sum)) = out.last_mut() {
            inner.hash(sum);
        }
    }
    out.into_iter().map(|(name, sum)| (name, sum.end())).collect()
}

/// Names in the order of their first appearance.
#[derive(Default)]
struct Dictionary(Vec<(u64, u64)>);

impl Dictionary {
    fn name(&mut self, space: u64, number: u64) -> u64 {
        let key = (space, number);
        let at = self.0.iter().position(|&k| k == key).unwrap_or_else(|| {
            self.0.push(key);
            self.0.len() - 1
        });
        at as u64 + 1
    }
}

/// The walk over a state.
struct Walk<'a> {
    state: &'a Situation,
    sum: Sum,
    names: Naming,
}

struct Naming {
    order: Order,
    incarnations: Dictionary,
    /// Those that are alive, or on which something still travels, in the order of their ends.
    conns: Vec<ConnIndex>,
    lives: Dictionary,
    tokens: Dictionary,
    batches: Dictionary,
    beats: Dictionary,
    /// Whose machine is being walked over.
    node: NodeId,
    life: LifeIndex,
}

impl replica::Names for Naming {
    fn incarnation(&mut self, incarnation: Incarnation) -> Incarnation {
        Incarnation::from_random(self.incarnations.name(0, incarnation.get()))
    }

    fn conn(&mut self, conn: u64) -> u64 {
        self.conns.iter().position(|&c| c as u64 == conn).map_or(0, |at| at as u64 + 1)
    }

    fn token(&mut self, token: u64) -> u64 {
        self.tokens.name(self.life as u64, token)
    }

    fn batch(&mut self, batch: u64) -> u64 {
        self.batches.name(self.life as u64, batch)
    }

    fn other_beat(&mut self, beat: u64) -> u64 {
        self.beats.name(self.node.other().index() as u64, beat)
    }

    fn epoch(&mut self, epoch: Epoch) -> Epoch {
        self.order.epoch(epoch)
    }

    fn counter(&mut self, counter: u64) -> u64 {
        self.order.counter(counter)
    }
}

impl session::Names for Naming {
    fn incarnation(&mut self, incarnation: Incarnation) -> Incarnation {
        replica::Names::incarnation(self, incarnation)
    }

    fn conn(&mut self, conn: u64) -> u64 {
        replica::Names::conn(self, conn)
    }

    fn epoch(&mut self, epoch: Epoch) -> Epoch {
        self.order.epoch(epoch)
    }
}

impl<'a> Walk<'a> {
    fn new(state: &'a Situation) -> Self {
        let all = state.world.net.conns.iter().enumerate();
        let lives = all.filter(|(_, c)| c.alive(0) || c.alive(1) || c.dirs.iter().any(|dir| !dir.items.is_empty()));
        let mut conns: Vec<ConnIndex> = lives.map(|(at, _)| at).collect();
        conns.sort_by_key(|&at| state.world.net.conns[at].ends);
        let names = Naming {
            order: Order::of(state),
            incarnations: Dictionary::default(),
            conns,
            lives: Dictionary::default(),
            tokens: Dictionary::default(),
            batches: Dictionary::default(),
            beats: Dictionary::default(),
            node: NodeId::A,
            life: 0,
        };
        Self { state, sum: Sum::new(), names }
    }

    fn put(&mut self, what: impl Hash) {
        what.hash(&mut self.sum);
    }

    fn everything(&mut self) {
        self.put(self.state.left);
        self.put(self.state.program.len());
        for node in NodeId::BOTH {
            self.node(node);
        }
        for number in 0..self.state.world.clients.len() {
            self.client(number);
        }
        self.connections();
        self.disk();
        self.fence();
        self.checks();
        let state = self.state;
        for host in self.hosts() {
            let for_it = |ev: &&Ev| matches!(ev, Ev::Hand(to, ..) if *to == host);
            self.row(state.bag.iter().filter(for_it), Self::scheduled);
        }
        let others = state.bag.iter().filter(|ev| !matches!(ev, Ev::Hand(..)));
        self.bag(others, Self::scheduled);
    }

    fn hosts(&self) -> impl Iterator<Item = Host> + use<> {
        let clients = (0..self.state.world.clients.len()).map(Host::Client);
        NodeId::BOTH.map(Host::Node).into_iter().chain(clients)
    }

    /// Puts in elements whose order means nothing but in prompt order.
    fn row<T>(&mut self, of: impl IntoIterator<Item = T>, each: impl Fn(&mut Self, T)) {
        if self.state.prompt {
            of.into_iter().for_each(|element| each(self, element));
            self.put(0_u8);
        } else {
            self.bag(of, each);
        }
    }

    /// Puts in elements whose order means nothing.
    fn bag<T>(&mut self, of: impl IntoIterator<Item = T>, each: impl Fn(&mut Self, T)) {
        let before = self.sum;
        let (mut a, mut b, mut count) = (0_u64, 0_u64, 0_u64);
        for element in of {
            self.sum = Sum::new();
            each(self, element);
            let [low, high] = halves(self.sum.end());
            (a, b, count) = (a.wrapping_add(low), b.wrapping_add(high), count + 1);
        }
        self.sum = before;
        self.put((a, b, count));
    }

    // ---- hosts --------------------------------------------------------------------------------------------------------

    fn node(&mut self, node: NodeId) {
        let world = &self.state.world;
        let n = &world.nodes[node.index()];
        self.put(n.process);
        let (Some(life), Some(machine)) = (n.life, &n.machine) else { return };
        (self.names.node, self.names.life) = (node, life);
        let life_name = self.names.lives.name(0, life as u64);
        self.put(life_name);
        let incarnation = replica::Names::incarnation(&mut self.names, n.incarnation);
        self.put(incarnation);
        let canonical = machine.canonical(world.clock_ms(Host::Node(node)), &mut self.names);
        self.put(canonical);
        for what in &n.inbox {
            self.inbound(Host::Node(node), life, what);
        }
        for (token, cells) in &n.buffers {
            let token = replica::Names::token(&mut self.names, token.0);
            self.put((token, cells));
        }
        self.memory(life);
    }

    fn memory(&mut self, life: LifeIndex) {
        let memory = &self.state.world.lives[life];
        self.put((&memory.ring, &memory.slots));
    }

    fn client(&mut self, number: usize) {
        let world = &self.state.world;
        let client = &world.clients[number];
        self.put(client.process);
        let Some(machine) = &client.machine else { return };
        let canonical = machine.canonical(world.now_ms(), &mut self.names);
        self.put(canonical);
        self.put((&client.ring, client.generation, client.ended, &client.writes, &client.reads));
        self.put(&client.buffers);
    }

    // ---- what travels -------------------------------------------------------------------------------------------------

    fn connections(&mut self) {
        let world = &self.state.world;
        for (a, b, _) in &world.net.cuts {
            self.put((a, b));
        }
        for conn in self.names.conns.clone() {
            let c = &world.net.conns[conn];
            self.put((c.ends, c.state, c.lane_open, c.relay));
            if c.state[0] == End::Setup {
                let connector = c.connector.map(|i| replica::Names::incarnation(&mut self.names, i));
                self.put(connector);
            }
            let relayed = c.relay && c.dirs[0].items.iter().any(|(_, item)| matches!(item, Item::Blob(_)));
            if relayed && self.life(c.lives[0]) {
                self.memory(c.lives[0]); // Whose payloads are still to be fetched.
            }
            for (end, dir) in c.dirs.iter().enumerate() {
                self.put((dir.items.len(), self.state.held.contains(&(conn, end))));
                dir.items.iter().for_each(|(_, item)| self.item(item));
            }
        }
    }

    fn item(&mut self, item: &Item) {
        self.put(core::mem::discriminant(item));
        match item {
            Item::Welcome(incarnation) => self.incarnation(Some(*incarnation)),
            Item::Ready(incarnation) => self.incarnation(*incarnation),
            Item::Peer(msg) => self.peer_msg(msg),
            Item::Client(msg) => self.client_msg(*msg),
            Item::Node(msg) => self.node_msg(msg),
            Item::Mailbox(mailbox) => self.mailbox(mailbox),
            Item::Blob(blob) => self.put(blob),
            Item::BlobCopied(blob, cells) => self.put((blob, cells)),
            Item::Answer(answer) => self.answer(answer),
            Item::AnswerCopied(answer) => self.put((answer.slot, &answer.cells)),
            Item::End => {}
        }
    }

    fn incarnation(&mut self, incarnation: Option<Incarnation>) {
        let name = incarnation.map(|i| replica::Names::incarnation(&mut self.names, i));
        self.put(name);
    }

    fn epoch(&mut self, epoch: Epoch) {
        self.put(self.names.order.epoch(epoch));
    }

    fn superblock(&mut self, mut superblock: Superblock) {
        replica::Names::superblock(&mut self.names, &mut superblock);
        self.put(superblock);
    }

    fn peer_msg(&mut self, msg: &PeerMsg) {
        self.epoch(msg.epoch);
        self.incarnation(Some(msg.from));
        self.incarnation(msg.to);
        match msg.body {
            PeerBody::Status { role, beat: _, paths } => self.put((role, paths)),
            PeerBody::Announce { superblock } => {
                self.put(1);
                self.superblock(superblock);
            }
            PeerBody::HandOver { superblock } => {
                self.put(2);
                self.superblock(superblock);
            }
            body => self.put(body),
        }
    }

    fn client_msg(&mut self, mut msg: ClientMsg) {
        if let ClientMsg::Read { epoch, .. } | ClientMsg::Unreachable { epoch, .. } = &mut msg {
            *epoch = self.names.order.epoch(*epoch);
        }
        self.put(msg);
    }

    fn node_msg(&mut self, msg: &NodeMsg) {
        match *msg {
            NodeMsg::View { role, from, epoch, primary, members, joiner, generation } => {
                self.epoch(epoch);
                self.put((role, primary, generation));
                for incarnation in [Some(from), joiner].into_iter().chain(members.0) {
                    self.incarnation(incarnation);
                }
            }
            NodeMsg::Resumed { generation, from, received } => {
                self.put((generation, received));
                self.incarnation(Some(from));
            }
            NodeMsg::ReadDone { id, epoch, durable } => {
                self.epoch(epoch);
                self.put((id, durable));
            }
            msg => self.put(msg),
        }
    }

    fn mailbox(&mut self, mailbox: &Mailbox) {
        self.put(core::mem::discriminant(mailbox));
        match *mailbox {
            Mailbox::Ack { epoch, from, to, generation, first, received, released } => {
                self.epoch(epoch);
                self.put((generation, first, received, released));
                self.incarnation(Some(from));
                self.incarnation(Some(to));
            }
            Mailbox::Released { epoch, from, to, generation, released } => {
                self.epoch(epoch);
                self.put((generation, released));
                self.incarnation(Some(from));
                self.incarnation(Some(to));
            }
            Mailbox::Completion { epoch, from, generation, durable, released, relayed } => {
                self.epoch(epoch);
                self.put((generation, durable, released, relayed));
                self.incarnation(Some(from));
            }
        }
    }

    fn answer(&mut self, answer: &Answer) {
        self.names.life = answer.life;
        let token = replica::Names::token(&mut self.names, answer.token.0);
        self.put((token, answer.slot, &answer.pieces, &answer.from_disk, answer.generation));
        if self.life(answer.life) {
            self.memory(answer.life);
        }
    }

    /// A process's name; true if it is one that has ended, whose memory is still used.
    fn life(&mut self, life: LifeIndex) -> bool {
        let name = self.names.lives.name(0, life as u64);
        self.put(name);
        !self.state.world.nodes.iter().any(|n| n.life == Some(life))
    }

    // ---- what waits ---------------------------------------------------------------------------------------------------

    fn scheduled(&mut self, ev: &Ev) {
        match ev {
            Ev::Hand(host, life, what) => {
                self.put((1, host));
                self.inbound(*host, *life, what);
            }
            Ev::Dial { from, life: _, to, relay } => {
                self.put((2, from, to));
                self.incarnation(*relay);
            }
            Ev::SetupTimeout(conn) => {
                let conn = replica::Names::conn(&mut self.names, *conn as u64);
                self.put((3, conn));
            }
            // The fence's requests and the disk's operations say themselves what is to come of them.
            Ev::FenceStep(number) => {
                let request = self.state.world.fence.requests.iter().find(|r| r.number == *number);
                self.put((4, request.map(|r| (r.node, core::mem::discriminant(&r.what)))));
            }
            _ => {}
        }
    }

    fn inbound(&mut self, host: Host, life: LifeIndex, what: &Inbound) {
        match what {
            Inbound::Tick => self.put(1),
            Inbound::Replica(event) => self.replica_event(host, life, event),
            Inbound::Session(event) => self.session_event(event),
            Inbound::ByConn(conn, what) => {
                let conn = replica::Names::conn(&mut self.names, *conn as u64);
                self.put((2, conn));
                match what {
                    ByConn::Replica(event) => self.replica_event(host, life, event),
                    ByConn::Session(event) => self.session_event(event),
                    ByConn::MailboxWritten { kind } => self.put(kind),
                }
            }
            Inbound::SecondSlot(_) => self.put(3),
        }
    }

    fn replica_event(&mut self, host: Host, life: LifeIndex, event: &replica::Event) {
        use replica::Event;
        if let Host::Node(node) = host {
            (self.names.node, self.names.life) = (node, life);
        }
        self.put(core::mem::discriminant(event));
        match *event {
            Event::SuperblockRead(Ok(mut read)) => {
                for superblock in [&mut read.superblock].into_iter().chain(&mut read.older) {
                    replica::Names::superblock(&mut self.names, superblock);
                }
                self.put(read);
            }
            Event::HeartbeatRead(Ok(beat)) => {
                let beat = replica::Names::other_beat(&mut self.names, beat);
                self.put(beat);
            }
            Event::Flushed { batch, result, us: _ } => {
                let batch = replica::Names::batch(&mut self.names, batch);
                self.put((batch, result));
            }
            Event::DiskRead { token, result } => {
                let token = replica::Names::token(&mut self.names, token.0);
                self.put((token, result));
            }
            Event::ReadAnswered { token } => {
                let token = replica::Names::token(&mut self.names, token.0);
                self.put(token);
            }
            Event::Probed(replica::Probe::Alive(incarnation)) => self.incarnation(Some(incarnation)),
            Event::LinkUp { link: _, peer } => self.incarnation(Some(peer)),
            Event::LinkDown { .. } | Event::ClientUp { .. } | Event::ClientDown { .. } | Event::RelayDown { .. } => {}
            Event::RelayAccepted { conn: _, from } => self.incarnation(Some(from)),
            Event::RelayDialled(relay) => self.put(relay.is_some()),
            Event::Relay { relay: _, msg } => self.node_msg(&msg),
            Event::Peer { link: _, msg } => self.peer_msg(&msg),
            Event::PeerMailbox { link: _, mailbox } => self.mailbox(&mailbox),
            Event::Client { conn: _, msg } => self.client_msg(msg),
            Event::Blob { conn: _, blob } => self.put(blob),
            event => self.put(event),
        }
    }

    fn session_event(&mut self, event: &session::Event) {
        use session::Event;
        self.put(core::mem::discriminant(event));
        match *event {
            Event::Tick | Event::Detach | Event::Closed { .. } => {}
            Event::Connected { node, conn: _, incarnation } => {
                self.put(node);
                self.incarnation(Some(incarnation));
            }
            Event::ConnectFailed { node, why: _ } => self.put(node),
            Event::Message { conn: _, msg } => self.node_msg(&msg),
            Event::Mailbox { conn: _, mailbox } => self.mailbox(&mailbox),
        }
    }

    // ---- disk and fence -----------------------------------------------------------------------------------------------

    fn disk(&mut self) {
        let disk = &self.state.world.disk;
        self.put(&disk.blocks);
        for slot in disk.slots {
            self.put(slot.is_some());
            slot.into_iter().for_each(|superblock| self.superblock(superblock));
        }
        for node in NodeId::BOTH {
            let beat = self.names.beats.name(node.index() as u64, disk.beats[node.index()]);
            self.put(beat);
        }
        self.put((disk.pathless.map(|how| how.is_some()), disk.false_conflict));
        for node in NodeId::BOTH {
            let its = disk.ops.iter().filter(|(_, op)| op.node == node);
            self.row(its, |walk, (&id, op)| walk.operation(id, op));
        }
    }

    fn operation(&mut self, id: u64, op: &Op) {
        self.put((op.node, op.failed));
        let ended = self.life(op.life);
        (self.names.node, self.names.life) = (op.node, op.life);
        match &op.what {
            What::Flush { batch } => {
                let batch = replica::Names::batch(&mut self.names, *batch);
                self.put((1, batch));
            }
            What::Superblock { superblock } => self.superblock(*superblock),
            What::Beat { beat } => {
                let beat = self.names.beats.name(op.node.index() as u64, *beat);
                self.put((2, beat));
            }
            What::ReadSuperblock { seen } => {
                for slot in seen.iter().flatten() {
                    self.superblock(*slot);
                }
            }
            What::ReadBeat => self.put(3),
            What::Read { token, cells } => {
                let token = replica::Names::token(&mut self.names, token.0);
                self.put((4, token, cells));
            }
        }
        for (unit, at) in op.units.iter().enumerate().filter(|(_, at)| at.state != UnitState::Ended) {
            self.put((unit, at, self.state.late.contains(&(id, unit))));
        }
        let data = op.units.iter().any(|at| matches!(at.part, Part::Block { .. }) && at.state != UnitState::Ended);
        if ended && data {
            self.memory(op.life);
        }
    }

    fn fence(&mut self) {
        let world = &self.state.world;
        let fence = &world.fence;
        for registered in fence.registered {
            self.put(registered.is_some());
            if let Some(life) = registered {
                self.life(life);
            }
        }
        for holder in [fence.holder, fence.entitled] {
            self.put(holder.is_some());
            if let Some((_, life)) = holder {
                self.life(life);
            }
        }
        let alive = fence.requests.iter().filter(|r| world.is_running(r.node, r.life));
        self.row(alive, |walk, r| match r.what {
            Step::AddPath { seen } => walk.put((r.node, seen.map(|seen| seen == fence.pr_generation))),
            what => walk.put((r.node, what)),
        });
    }

    fn checks(&mut self) {
        let check = &self.state.world.check;
        self.put((&check.blocks, check.newest_session, &check.sessions));
        self.epoch(Epoch(check.settled_epoch));
        // Of the superblock that counts: who serves, and the members.
        self.put(check.counted.primary);
        check.counted.members.0.into_iter().for_each(|member| self.incarnation(member));
        for (&epoch, &(node, incarnation)) in &check.primaries {
            if self.names.order.served.contains(&epoch) {
                let there = self.state.world.life_behind(node, incarnation).is_some();
                self.epoch(Epoch(epoch));
                self.put((node, there));
            }
        }
        self.put((check.loss_allowed, check.loss_accepted));
    }
}
