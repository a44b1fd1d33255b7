//! One state of the search: the simulated world, what may happen next in it, and what of the scenario is left.
//!
//! The world is the simulator's, with the real machines in it. Where the simulator has a queue and delays, here is a
//! bag: all that waits in it may come next (`choice.rs`). Delays mean nothing, and nothing is left to chance.

use std::collections::VecDeque;

use twinsan_replica::{Event, Probe};
use twinsan_session::Event as ClientEvent;
use twinsan_wire::{ClientMsg, NodeId, NodeMsg, PeerBody, PeerMsg};

use crate::disk::{Part, UnitState};
use crate::event::{ConnIndex, Ev, Host, Inbound, Item, OpId};
use crate::explore::choice::Choice;
use crate::explore::scenario::{Budget, Request, Scenario};
use crate::net::{End, mailbox_kind};
use crate::rng::Rng;
use crate::world::{Process, World};

/// A state.
#[derive(Clone)]
pub(crate) struct Situation {
    pub(crate) world: World,
    /// What the simulator would do at a time of its own.
    pub(crate) bag: Vec<Ev>,
    /// Disk writes that time passes by.
    pub(crate) late: Vec<(OpId, usize)>,
    /// In prompt order: directions of connections in which nothing arrives.
    pub(crate) held: Vec<(ConnIndex, usize)>,
    /// See [`Scenario::prompt`].
    pub(crate) prompt: bool,
    /// Requests of the client's program that are still to come.
    pub(crate) program: &'static [Request],
    pub(crate) left: Budget,
}

impl Situation {
    /// The scenario's beginning: reached without faults, by a fixed order of events.
    pub(crate) fn begin(scenario: &Scenario, trace: bool) -> Self {
        let mut world = World::new(scenario.config());
        world.rng = Rng::without_chance();
        let mut start = Self {
            world,
            bag: Vec::new(),
            late: Vec::new(),
            held: Vec::new(),
            prompt: false,
            program: &[],
            left: Budget::NONE,
        };
        start.world.start_node(NodeId::A);
        start.world.start_client();
        start.settle_until(|w| w.client_is_open(0));
        if scenario.dual {
            start.world.start_node(NodeId::B);
            start.settle_until(|w| w.is_dual() && w.clients[0].machine.as_ref().is_some_and(|m| m.status().dual));
        }
        start.world.trace.on = trace;
        Self { prompt: scenario.prompt, program: scenario.program, left: scenario.budget, ..start }
    }

    /// Without faults, the first of what may come next, until `done` and nothing but time would come.
    fn settle_until(&mut self, done: impl Fn(&World) -> bool) {
        self.take_in();
        for _ in 0..10_000 {
            let next = self.choices().into_iter().next().expect("time at least may pass");
            if next == Choice::Time && done(&self.world) {
                return;
            }
            self.apply(next);
        }
        panic!("the beginning of a scenario is not reached");
    }

    /// The client that works: the newest.
    pub(crate) fn client(&self) -> usize {
        self.world.clients.len() - 1
    }

    /// After every step: what the world has scheduled goes into the bag, what is void leaves it, and what makes no
    /// difference happens at once.
    pub(crate) fn take_in(&mut self) {
        loop {
            let scheduled = std::mem::take(&mut self.world.queue).into_sorted_vec();
            self.bag.extend(scheduled.into_iter().rev().map(|s| s.ev));
            self.drop_void();
            self.merge_words();
            if !self.do_what_nobody_sees() {
                return;
            }
        }
    }

    /// Takes no more memory than it needs, before it is put away.
    pub(crate) fn shrink(&mut self) {
        self.bag.shrink_to_fit();
        self.world.net.conns.shrink_to_fit();
    }

    /// What can't happen any more, or is the simulator's own way to let time pass.
    fn drop_void(&mut self) {
        let world = &self.world;
        let mut seen: Vec<(u64, usize)> = Vec::new();
        let mut first = |id: (u64, usize)| {
            let new = !seen.contains(&id);
            seen.push(id);
            new
        };
        self.bag.retain(|ev| match ev {
            Ev::Hand(host, life, what) => {
                let closed = |conn: ConnIndex| {
                    let c = &world.net.conns[conn];
                    c.state[c.end_at(*host)] == End::Closed
                };
                world.life_of(*host) == Some(*life) && !matches!(what, Inbound::ByConn(conn, _) if closed(*conn))
            }
            Ev::Dial { from, life, .. } => world.life_of(*from) == Some(*life),
            Ev::SetupTimeout(conn) => world.net.conns[*conn].state[0] == End::Setup,
            Ev::Disk { op, unit } => world.disk.is_pending(*op, *unit) && first((*op, *unit)),
            Ev::FenceStep(number) => {
                let request = world.fence.requests.iter().find(|r| r.number == *number);
                request.is_some_and(|r| world.is_running(r.node, r.life)) && first((*number, usize::MAX))
            }
            _ => false,
        });
        self.late.retain(|&(op, unit)| world.disk.is_pending(op, unit));
        self.held.retain(|&(conn, dir)| {
            let c = &world.net.conns[conn];
            !c.dirs[dir].items.is_empty() || (c.alive(0) && c.alive(1))
        });
    }

    fn merge_words(&mut self) {
        for conn in &mut self.world.net.conns {
            for dir in 0..2 {
                let mut at = 0;
                while at < conn.dirs[dir].items.len() {
                    match makes_void(&conn.dirs[dir].items, at) {
                        Some(void) => drop(conn.dirs[dir].items.remove(void)),
                        None => at += 1,
                    }
                }
            }
        }
    }

    /// Something of which it makes no difference when it happens, or that bears no decision: true if there was one.
    fn do_what_nobody_sees(&mut self) -> bool {
        if let Some(at) = self.bag.iter().position(|ev| self.is_seen_by_nobody(ev)) {
            let ev = self.bag.remove(at);
            self.world.happen(ev);
            return true;
        }
        for conn in 0..self.world.net.conns.len() {
            for dir in 0..2 {
                let c = &self.world.net.conns[conn];
                let lost = !c.dirs[dir].items.is_empty() && !c.alive(1 - dir);
                let heard = !self.held.contains(&(conn, dir)) && self.may_deliver(conn, dir);
                if lost || (heard && super::nothing_new::tells_nothing_new(&self.world, conn, dir)) {
                    self.deliver(conn, dir);
                    return true;
                }
            }
        }
        false
    }

    /// Disk heartbeats, and attempts to connect to who can't be reached.
    fn is_seen_by_nobody(&self, ev: &Ev) -> bool {
        let world = &self.world;
        let up = |host: Host| world.process(host) == Process::Up;
        match ev {
            Ev::Disk { op, unit } => {
                let op = &world.disk.ops[op];
                matches!(op.units[*unit].part, Part::Beat | Part::ReadBeat) && world.is_running(op.node, op.life)
            }
            Ev::Hand(host, _, Inbound::Replica(event)) => {
                let beat = matches!(event, Event::HeartbeatRead(_) | Event::HeartbeatWritten(_));
                (beat || *event == Event::Probed(Probe::Silent)) && up(*host)
            }
            Ev::Hand(host, _, Inbound::Session(ClientEvent::ConnectFailed { .. })) => up(*host),
            Ev::Dial { from, to, .. } => {
                let target = Host::Node(*to);
                up(*from) && (!up(target) || world.net.cut(*from, target).is_some())
            }
            _ => false,
        }
    }

    /// Something is on its way there, the path is whole, and who is to get it is not frozen.
    pub(crate) fn may_deliver(&self, conn: ConnIndex, dir: usize) -> bool {
        let c = &self.world.net.conns[conn];
        !c.dirs[dir].items.is_empty()
            && self.world.net.cut(c.ends[0], c.ends[1]).is_none()
            && self.world.process(c.ends[1 - dir]) != Process::Frozen
    }

    /// The first item lands.
    pub(crate) fn deliver(&mut self, conn: ConnIndex, dir: usize) {
        let (_, item) = self.world.net.conns[conn].dirs[dir].items.pop_front().expect("there is one");
        self.world.land(conn, dir, item);
    }
}

/// What the item at `at` makes of no use: an older word of its kind that only words follow; or itself, if it repeats the
/// last View, whatever was said since. Words (mailboxes, Status, View, heartbeats) are said again and again, and only the
/// newest counts.
fn makes_void(items: &VecDeque<(u64, Item)>, at: usize) -> Option<usize> {
    let newer = &items[at].1;
    for older in (0..at).rev() {
        match (&items[older].1, newer) {
            (Item::Node(a @ NodeMsg::View { .. }), Item::Node(b @ NodeMsg::View { .. })) => {
                return if a == b { Some(at) } else { (older + 1 == at).then_some(older) };
            }
            // A completion counts by the View before it: no View is taken away from before one.
            (_, Item::Node(NodeMsg::View { .. })) => {}
            (Item::Mailbox(a), Item::Mailbox(b)) if mailbox_kind(a) == mailbox_kind(b) => return Some(older),
            (Item::Client(ClientMsg::Heartbeat), Item::Client(ClientMsg::Heartbeat)) => return Some(older),
            (Item::Peer(a), Item::Peer(b)) if is_status(a) && is_status(b) => return Some(older),
            (Item::Peer(a), Item::Peer(b)) if a == b => return Some(older),
            (Item::Peer(a), _) if is_status(a) => {}
            (Item::Mailbox(_) | Item::Client(ClientMsg::Heartbeat), _) => {}
            _ => return None,
        }
    }
    None
}

fn is_status(msg: &PeerMsg) -> bool {
    matches!(msg.body, PeerBody::Status { .. })
}

impl crate::disk::Disk {
    /// The part of the operation has not ended.
    pub(crate) fn is_pending(&self, op: OpId, unit: usize) -> bool {
        self.ops.get(&op).is_some_and(|op| op.units[unit].state != UnitState::Ended)
    }
}
