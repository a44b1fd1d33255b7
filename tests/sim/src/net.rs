//! The network: connections that keep their order, links that break, and writes that land in others' memory.
//!
//! - A connection is FIFO in each direction; nothing is promised across connections.
//! - A one-sided write lands in the receiver's memory whatever its process is doing.
//! - Closing is a barrier for what comes in: nothing lands after it. What was going out may be lost.
//! - A cut path stalls. After a while an end may notice, or not until the path is back (half-open).

use std::collections::VecDeque;

use twinsan_replica::{self as replica, Probe};
use twinsan_session::{self as session, ConnectError};
use twinsan_wire::{Incarnation, Mailbox, NodeId, Seq};

use crate::event::{ByConn, ConnIndex, Ev, Host, Inbound, Item, LifeIndex};
use crate::shared::Shared;
use crate::trace::trace;
use crate::weak::DriverWeakness;
use crate::world::{Process, World};

/// Kinds of mailboxes, each with its own 64 bytes per connection and end.
pub(crate) const MAILBOX_KINDS: usize = 3;

/// How long a connector waits for an answer, in µs.
const SETUP_TIMEOUT_US: u64 = 150_000;

/// All connections and paths.
#[derive(Clone, Default)]
pub(crate) struct Net {
    pub(crate) conns: Vec<Shared<Conn>>,
    /// Cut paths, with the number of the cut.
    pub(crate) cuts: Vec<(Host, Host, u64)>,
    next_cut: u64,
    /// The next blob that lands at that node is corrupt.
    pub(crate) corrupt_blob: [bool; 2],
}

/// A connection. End 0 is who connected, end 1 who listened.
#[derive(Clone)]
pub(crate) struct Conn {
    pub(crate) ends: [Host; 2],
    pub(crate) lives: [LifeIndex; 2],
    /// What has happened to each end, as its own driver sees it.
    pub(crate) state: [End; 2],
    /// `dirs[e]`: what end `e` has sent and the other has not received.
    pub(crate) dirs: [Dir; 2],
    /// The connector's incarnation when it asked, if it is a node.
    pub(crate) connector: Option<Incarnation>,
    /// It is a relay (rule 14).
    pub(crate) relay: bool,
    /// `words[e]`: end `e`'s mailbox region.
    pub(crate) words: [[Option<Mailbox>; MAILBOX_KINDS]; 2],
    /// The node has opened its lane's memory to this client.
    pub(crate) lane_open: bool,
    /// When one end is gone, the other one is not told.
    pub(crate) mute: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum End {
    /// The set-up is under way.
    Setup,
    /// In use.
    Open,
    /// It has been told that the other end is gone.
    Lost,
    /// It has closed it itself: nothing from it is taken any more.
    Closed,
}

/// Somebody connects.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dial {
    pub(crate) from: Host,
    pub(crate) life: LifeIndex,
    pub(crate) to: NodeId,
    /// As a relay, to this incarnation only.
    pub(crate) relay: Option<Incarnation>,
}

#[derive(Clone, Default)]
pub(crate) struct Dir {
    pub(crate) items: VecDeque<(u64, Item)>,
    last_at_us: u64,
    /// Nothing lands before.
    pub(crate) stalls_until_us: u64,
    /// The next message is corrupt.
    pub(crate) corrupt_next: bool,
}

impl Net {
    /// Whether the path is cut; the number of the cut.
    pub(crate) fn cut(&self, a: Host, b: Host) -> Option<u64> {
        let (a, b) = (a.min(b), a.max(b));
        self.cuts.iter().find(|c| (c.0, c.1) == (a, b)).map(|c| c.2)
    }
}

impl Conn {
    /// The end at `host`.
    pub(crate) fn end_at(&self, host: Host) -> usize {
        usize::from(self.ends[0] != host)
    }

    pub(crate) fn alive(&self, end: usize) -> bool {
        matches!(self.state[end], End::Setup | End::Open)
    }

    /// The link between the nodes.
    fn is_link(&self) -> bool {
        matches!(self.ends, [Host::Node(_), Host::Node(_)]) && !self.relay
    }
}

impl World {
    /// The process at `from` connects to `to` (a node that probes: see [`Item::Ready`]); as a relay to that incarnation.
    pub(crate) fn dial(&mut self, from: Host, to: NodeId, relay: Option<Incarnation>) {
        let life = self.life_of(from).expect("a process that dials is there");
        let delay = self.net_delay();
        self.after(delay, Ev::Dial { from, life, to, relay });
    }

    pub(crate) fn dial_arrives(&mut self, dial: Dial) {
        let Dial { from, life, to, relay } = dial;
        if self.life_of(from) != Some(life) {
            return;
        }
        let target = Host::Node(to);
        let delay = self.net_delay();
        if self.net.cut(from, target).is_some() || self.process(target) == Process::Frozen {
            let late = SETUP_TIMEOUT_US + delay;
            return self.dial_fails(dial, ConnectError::Unreachable, late);
        }
        if self.process(target) == Process::Down {
            return self.dial_fails(dial, ConnectError::Refused, delay);
        }
        let incarnation = self.nodes[to.index()].incarnation;
        if relay.is_some_and(|wanted| wanted != incarnation) {
            return self.dial_fails(dial, ConnectError::Rejected, delay);
        }
        if let (Host::Node(node), None) = (from, relay) {
            let linked = self.open_links(node).next().is_some();
            if node == NodeId::A || linked {
                let alive = replica::Event::Probed(Probe::Alive(incarnation));
                return self.hand_after(delay, from, life, Inbound::Replica(alive));
            }
        }
        let target_life = self.life_of(target).expect("it is up");
        let connector = if let Host::Node(node) = from { Some(self.nodes[node.index()].incarnation) } else { None };
        let conn = self.net.conns.len();
        self.net.conns.push(Shared::new(Conn {
            ends: [from, target],
            lives: [life, target_life],
            state: [End::Setup; 2],
            dirs: [Dir::default(), Dir::default()],
            connector,
            relay: relay.is_some(),
            words: [[None; MAILBOX_KINDS]; 2],
            lane_open: false,
            mute: false,
        }));
        self.send(conn, 1, Item::Welcome(incarnation));
        self.after(SETUP_TIMEOUT_US, Ev::SetupTimeout(conn));
    }

    fn dial_fails(&mut self, dial: Dial, why: ConnectError, delay: u64) {
        let Dial { from, life, to, relay } = dial;
        let what = match from {
            Host::Client(_) => Inbound::Session(session::Event::ConnectFailed { node: to, why }),
            Host::Node(_) if relay.is_some() => Inbound::Replica(replica::Event::RelayDialled(None)),
            Host::Node(_) => {
                let probe = if why == ConnectError::Refused { Probe::Refused } else { Probe::Silent };
                Inbound::Replica(replica::Event::Probed(probe))
            }
        };
        self.hand_after(delay, from, life, what);
    }

    /// The connector gives up waiting for the listener's half.
    pub(crate) fn setup_times_out(&mut self, conn: ConnIndex) {
        if self.net.conns[conn].state[0] == End::Setup {
            self.abort_setup(conn);
        }
    }

    fn abort_setup(&mut self, conn: ConnIndex) {
        let c = &self.net.conns[conn];
        let (from, life, to, connector) = (c.ends[0], c.lives[0], c.ends[1], c.connector);
        let Host::Node(to) = to else { unreachable!("only nodes listen") };
        let dial = Dial { from, life, to, relay: connector.filter(|_| c.relay) };
        self.close_end(conn, 0, End::Closed);
        self.dial_fails(dial, ConnectError::Unreachable, 1);
    }

    /// A node has taken another incarnation: what is being set up under the old name is not finished.
    pub(crate) fn abort_setups_of(&mut self, host: Host) {
        for conn in 0..self.net.conns.len() {
            let c = &self.net.conns[conn];
            if c.ends.contains(&host) && c.state[0] == End::Setup {
                self.abort_setup(conn);
            } else if c.ends[1] == host && c.state[1] == End::Setup {
                self.close_end(conn, 1, End::Closed);
            }
        }
    }

    /// The links that this node's driver has open.
    pub(crate) fn open_links(&self, node: NodeId) -> impl Iterator<Item = ConnIndex> + '_ {
        let host = Host::Node(node);
        let link = move |c: &Conn| c.is_link() && c.ends.contains(&host) && c.alive(c.end_at(host));
        self.net.conns.iter().enumerate().filter(move |(_, c)| link(c)).map(|(i, _)| i)
    }

    pub(crate) fn net_delay(&mut self) -> u64 {
        let span = self.config.net;
        self.rng.latency(span.low, span.high)
    }

    /// Sends from end `end`; a connection that has ended swallows it.
    pub(crate) fn send(&mut self, conn: ConnIndex, end: usize, item: Item) {
        if !self.net.conns[conn].alive(end) {
            return self.item_lost(item);
        }
        self.enqueue(conn, end, item);
    }

    fn enqueue(&mut self, conn: ConnIndex, end: usize, item: Item) {
        let delay = self.net_delay();
        let now = self.now_us;
        let dir = &mut self.net.conns[conn].dirs[end];
        let at = (now + delay).max(dir.last_at_us);
        dir.last_at_us = at;
        dir.items.push_back((at, item));
        self.after(at - now, Ev::Deliver { conn, dir: end });
    }

    /// What is due in one direction lands, unless the path is cut or the head is held by a script.
    pub(crate) fn deliver(&mut self, conn: ConnIndex, dir: usize) {
        loop {
            let c = &self.net.conns[conn];
            if self.net.cut(c.ends[0], c.ends[1]).is_some() || c.dirs[dir].stalls_until_us > self.now_us {
                return;
            }
            let (from, to) = (c.ends[dir], c.ends[1 - dir]);
            match c.dirs[dir].items.front() {
                Some((at, item)) if *at <= self.now_us => {
                    if self.holds.holds_item(from, to, item) {
                        return;
                    }
                }
                _ => return,
            }
            let (_, item) = self.net.conns[conn].dirs[dir].items.pop_front().expect("there is a head");
            self.land(conn, dir, item);
        }
    }

    /// After a script has let go: everything that is due goes on.
    pub(crate) fn deliver_all(&mut self) {
        for conn in 0..self.net.conns.len() {
            for dir in 0..2 {
                if !self.net.conns[conn].dirs[dir].items.is_empty() {
                    self.after(0, Ev::Deliver { conn, dir });
                }
            }
        }
    }

    pub(crate) fn land(&mut self, conn: ConnIndex, dir: usize, item: Item) {
        let end = 1 - dir;
        let c = &self.net.conns[conn];
        if !c.alive(end) || self.arrives_corrupt(conn, dir, &item) {
            return self.item_lost(item);
        }
        let c = &self.net.conns[conn];
        let (host, life) = (c.ends[end], c.lives[end]);
        match item {
            Item::Welcome(incarnation) => self.connected(conn, incarnation),
            Item::Ready(incarnation) => self.accepted(conn, incarnation),
            Item::Peer(msg) => {
                let event = replica::Event::Peer { link: replica::LinkId(conn as u64), msg };
                self.hand(host, life, Inbound::ByConn(conn, ByConn::Replica(event)));
            }
            Item::Client(msg) => {
                let event = replica::Event::Client { conn: replica::ConnId(conn as u64), msg };
                self.hand(host, life, Inbound::ByConn(conn, ByConn::Replica(event)));
            }
            Item::Node(msg) if c.relay => {
                let event = replica::Event::Relay { relay: replica::RelayId(conn as u64), msg };
                self.hand(host, life, Inbound::ByConn(conn, ByConn::Replica(event)));
            }
            Item::Node(msg) => {
                let event = session::Event::Message { conn: session::ConnId(conn as u64), msg };
                self.hand(host, life, Inbound::ByConn(conn, ByConn::Session(event)));
            }
            Item::Mailbox(mailbox) => {
                let kind = mailbox_kind(&mailbox);
                self.net.conns[conn].words[end][kind] = Some(mailbox);
                self.hand(host, life, Inbound::ByConn(conn, ByConn::MailboxWritten { kind }));
            }
            Item::Blob(blob) => {
                let cells = self.payload_now(conn, &blob);
                self.blob_lands(conn, life, &blob, &cells);
            }
            Item::BlobCopied(blob, cells) => self.blob_lands(conn, life, &blob, &cells),
            Item::Answer(answer) => {
                let copied = self.copy_answer(&answer);
                self.answer_lands(host, copied);
            }
            Item::AnswerCopied(copied) => self.answer_lands(host, *copied),
            Item::End => self.end_noticed(conn, end),
        }
    }

    /// The connector is let in.
    fn connected(&mut self, conn: ConnIndex, incarnation: Incarnation) {
        let c = &mut self.net.conns[conn];
        c.state[0] = End::Open;
        let (host, life, connector, relay) = (c.ends[0], c.lives[0], c.connector, c.relay);
        let Host::Node(listener) = c.ends[1] else { unreachable!("only nodes listen") };
        self.send(conn, 0, Item::Ready(connector));
        let id = conn as u64;
        match host {
            Host::Client(_) => {
                let conn_id = session::ConnId(id);
                let event = session::Event::Connected { node: listener, conn: conn_id, incarnation };
                self.hand(host, life, Inbound::ByConn(conn, ByConn::Session(event)));
            }
            Host::Node(_) if relay => {
                let event = replica::Event::RelayDialled(Some(replica::RelayId(id)));
                self.hand(host, life, Inbound::ByConn(conn, ByConn::Replica(event)));
            }
            Host::Node(_) => {
                self.hand(host, life, Inbound::Replica(replica::Event::Probed(Probe::Alive(incarnation))));
                let event = replica::Event::LinkUp { link: replica::LinkId(id), peer: incarnation };
                self.hand(host, life, Inbound::ByConn(conn, ByConn::Replica(event)));
            }
        }
    }

    /// The listener has heard the connector's half.
    fn accepted(&mut self, conn: ConnIndex, connector: Option<Incarnation>) {
        let c = &mut self.net.conns[conn];
        c.state[1] = End::Open;
        let (host, life) = (c.ends[1], c.lives[1]);
        let id = conn as u64;
        let event = match connector {
            Some(from) if c.relay => replica::Event::RelayAccepted { conn: replica::ConnId(id), from },
            Some(peer) => replica::Event::LinkUp { link: replica::LinkId(id), peer },
            None => replica::Event::ClientUp { conn: replica::ConnId(id) },
        };
        self.hand(host, life, Inbound::ByConn(conn, ByConn::Replica(event)));
    }

    pub(crate) fn end_noticed(&mut self, conn: ConnIndex, end: usize) {
        let was = self.net.conns[conn].state[end];
        if was == End::Setup && end == 0 {
            return self.abort_setup(conn);
        }
        self.close_end(conn, end, End::Lost);
        if was != End::Open {
            return;
        }
        let c = &self.net.conns[conn];
        let (host, life, id) = (c.ends[end], c.lives[end], conn as u64);
        let what = match (host, c.ends[1 - end]) {
            (Host::Client(_), _) => ByConn::Session(session::Event::Closed { conn: session::ConnId(id) }),
            _ if c.relay && end == 0 => ByConn::Replica(replica::Event::RelayDown { relay: replica::RelayId(id) }),
            _ if c.relay => ByConn::Replica(replica::Event::ClientDown { conn: replica::ConnId(id) }),
            (_, Host::Client(_)) => ByConn::Replica(replica::Event::ClientDown { conn: replica::ConnId(id) }),
            _ => ByConn::Replica(replica::Event::LinkDown { link: replica::LinkId(id) }),
        };
        trace!(self, host, "connection {conn} is gone");
        self.hand(host, life, Inbound::ByConn(conn, what));
    }

    /// End `end` is over: nothing lands there any more, and of what it sent only some still arrives.
    pub(crate) fn close_end(&mut self, conn: ConnIndex, end: usize, state: End) {
        let was_alive = self.net.conns[conn].alive(end);
        if state == End::Closed || was_alive {
            self.net.conns[conn].state[end] = state;
        }
        if !was_alive {
            return;
        }
        self.net.conns[conn].lane_open &= end == 0; // The one whose lane it is has listened.
        let incoming = std::mem::take(&mut self.net.conns[conn].dirs[1 - end].items);
        incoming.into_iter().for_each(|(_, item)| self.item_lost(item));
        let sent = self.net.conns[conn].dirs[end].items.len();
        let kept = if self.rng.coin() { sent } else { self.rng.index(sent + 1) };
        let lost = self.net.conns[conn].dirs[end].items.split_off(kept);
        lost.into_iter().for_each(|(_, item)| self.item_lost(item));
        self.copy_out(conn, end);
        if !self.net.conns[conn].mute {
            self.enqueue(conn, end, Item::End);
        }
    }

    /// What a closed end had sent uses its host's memory no more.
    fn copy_out(&mut self, conn: ConnIndex, end: usize) {
        let mut items = std::mem::take(&mut self.net.conns[conn].dirs[end].items);
        if !self.net.conns[conn].alive(1 - end) {
            items.retain(|(_, item)| !matches!(item, Item::Blob(_))); // Nobody takes them.
        }
        let copy = |(at, item): (u64, Item)| match item {
            Item::Blob(blob) => {
                let cells = self.payload_now(conn, &blob);
                (at, Item::BlobCopied(blob, cells))
            }
            Item::Answer(answer) => (at, Item::AnswerCopied(Box::new(self.copy_answer(&answer)))),
            other => (at, other),
        };
        self.net.conns[conn].dirs[end].items = items.into_iter().map(copy).collect();
    }

    /// The process at `host` is gone, and its kernel closes what it had.
    pub(crate) fn close_all_of(&mut self, host: Host) {
        for conn in 0..self.net.conns.len() {
            for end in 0..2 {
                let c = &self.net.conns[conn];
                if c.ends[end] == host && c.alive(end) {
                    self.close_end(conn, end, End::Closed);
                }
            }
        }
    }

    /// An item that will never land; its sender's buffers are free.
    fn item_lost(&mut self, item: Item) {
        if let Item::Answer(answer) = item {
            self.read_answered(answer.token, answer.life);
        }
    }

    /// What the mailbox says when its immediate is looked at; `None`: torn, as a newer write is under way, or void.
    pub(crate) fn read_mailbox(&mut self, conn: ConnIndex, host: Host, kind: usize) -> Option<Mailbox> {
        let c = &self.net.conns[conn];
        let end = c.end_at(host);
        let same_kind = |(_, item): &(u64, Item)| matches!(item, Item::Mailbox(m) if mailbox_kind(m) == kind);
        let another_on_its_way = c.dirs[1 - end].items.iter().find(|item| same_kind(item));
        let word = c.words[end][kind];
        let Some((_, Item::Mailbox(next))) = another_on_its_way else { return word };
        if self.config.driver_weak(DriverWeakness::BelieveTornMailboxes) {
            return word.map(|word| torn(word, *next));
        }
        if self.rng.chance(200) {
            self.counts.torn_mailboxes += 1;
            trace!(self, host, "a torn mailbox is waited out");
            return None;
        }
        word
    }

    /// Cuts the path between two hosts.
    pub fn cut(&mut self, a: Host, b: Host) {
        if self.net.cut(a, b).is_some() {
            return;
        }
        trace!(self, "net", "=== {a} - {b} cut");
        self.net.next_cut += 1;
        let cut = self.net.next_cut;
        self.net.cuts.push((a.min(b), a.max(b), cut));
        for conn in 0..self.net.conns.len() {
            let ends = self.net.conns[conn].ends;
            if !(ends.contains(&a) && ends.contains(&b)) {
                continue;
            }
            for end in 0..2 {
                if self.rng.chance(750) {
                    let delay = self.rng.between(10_000, 900_000);
                    self.after(delay, Ev::Break { conn, end, cut });
                }
            }
        }
    }

    /// An end gives up on a path that is still cut.
    pub(crate) fn break_end(&mut self, conn: ConnIndex, end: usize, cut: u64) {
        let c = &self.net.conns[conn];
        if self.net.cut(c.ends[0], c.ends[1]) == Some(cut) && c.alive(end) {
            self.end_noticed(conn, end);
        }
    }

    /// Mends the path: what stalled goes on.
    pub fn mend(&mut self, a: Host, b: Host) {
        if self.net.cut(a, b).is_none() {
            return;
        }
        trace!(self, "net", "=== {a} - {b} mended");
        let pair = (a.min(b), a.max(b));
        self.net.cuts.retain(|c| (c.0, c.1) != pair);
        for conn in 0..self.net.conns.len() {
            let ends = self.net.conns[conn].ends;
            if ends.contains(&a) && ends.contains(&b) {
                for dir in 0..2 {
                    let delay = self.net_delay();
                    self.after(delay, Ev::Deliver { conn, dir });
                }
            }
        }
    }

    /// Mends all paths.
    pub fn mend_all(&mut self) {
        for (a, b, _) in self.net.cuts.clone() {
            self.mend(a, b);
        }
    }
}

/// The slot of the mailbox region that this kind has.
pub(crate) fn mailbox_kind(mailbox: &Mailbox) -> usize {
    match mailbox {
        Mailbox::Ack { .. } => 0,
        Mailbox::Released { .. } => 1,
        Mailbox::Completion { .. } => 2,
    }
}

/// What a reader without a checksum sees while `new` lands over `old`: the numbers' low bytes are still the old ones.
fn torn(old: Mailbox, new: Mailbox) -> Mailbox {
    let mix = |old: Seq, new: Seq| Seq(new.0 & !0xff | old.0 & 0xff);
    match (old, new) {
        (
            Mailbox::Ack { received: before, .. },
            Mailbox::Ack { epoch, from, to, generation, first, received, released },
        ) => Mailbox::Ack { epoch, from, to, generation, first, received: mix(before, received), released },
        (Mailbox::Released { released: before, .. }, Mailbox::Released { epoch, from, to, generation, released }) => {
            Mailbox::Released { epoch, from, to, generation, released: mix(before, released) }
        }
        (
            Mailbox::Completion { durable: done, released: before, .. },
            Mailbox::Completion { epoch, from, generation, durable, released, relayed },
        ) => {
            let durable = durable.map(|new| done.map_or(new, |old| mix(old, new)));
            Mailbox::Completion { epoch, from, generation, durable, released: mix(before, released), relayed }
        }
        (_, new) => new,
    }
}
