//! The simulated world: its clock, its queue, and the way by which a happening reaches a process.
//!
//! Invariants: time never goes back; happenings of one instant come in the order of their making; a process that is
//! frozen is handed nothing until it thaws, and one that is down nothing ever.

use std::collections::BinaryHeap;

use twinsan_wire::NodeId;

use crate::check::{Check, Violation};
use crate::client::Client;
use crate::config::SimConfig;
use crate::counts::Counts;
use crate::disk::Disk;
use crate::event::{Ev, Host, Inbound, LifeIndex, Scheduled};
use crate::fence::Fence;
use crate::hold::Holds;
use crate::net::{Dial, Net};
use crate::node::{Life, Node};
use crate::plan::Plan;
use crate::rng::Rng;
use crate::shared::Shared;
use crate::trace::{Trace, trace};

/// What a process is up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Process {
    /// It runs.
    Up,
    /// It is stopped, and may go on later.
    Frozen,
    /// There is none.
    Down,
}

/// Everything.
#[derive(Clone)]
pub struct World {
    pub(crate) config: Shared<SimConfig>,
    pub(crate) rng: Rng,
    pub(crate) now_us: u64,
    pub(crate) queue: BinaryHeap<Scheduled>,
    next_number: u64,
    /// All lives of both nodes' processes; what a dead one left behind may still be read by its disk writes.
    pub(crate) lives: Vec<Shared<Life>>,
    pub(crate) nodes: [Shared<Node>; 2],
    pub(crate) clients: Vec<Shared<Client>>,
    pub(crate) net: Net,
    pub(crate) disk: Shared<Disk>,
    pub(crate) fence: Fence,
    pub(crate) check: Shared<Check>,
    pub(crate) plan: Plan,
    /// When everything was mended.
    pub(crate) plan_ended_us: u64,
    pub(crate) holds: Holds,
    /// What each node has done ([`crate::boundaries`]).
    pub(crate) actions: [u64; 2],
    pub(crate) boundary_done: bool,
    pub(crate) trace: Trace,
    pub(crate) counts: Shared<Counts>,
}

impl World {
    /// A formatted disk, and nobody running.
    #[must_use]
    pub fn new(config: SimConfig) -> Self {
        Self {
            rng: Rng::new(config.noise.wrapping_mul(0x2545_f491_4f6c_dd1d)),
            now_us: 0,
            queue: BinaryHeap::new(),
            next_number: 0,
            lives: Vec::new(),
            nodes: NodeId::BOTH.map(|node| Shared::new(Node::down(node))),
            clients: Vec::new(),
            net: Net::default(),
            disk: Shared::new(Disk::formatted(config.volume_blocks)),
            fence: Fence::new(config.fence),
            check: Shared::new(Check::new(config.volume_blocks)),
            plan: Plan::drawn(&config),
            plan_ended_us: 0,
            holds: Holds::default(),
            actions: [0; 2],
            boundary_done: false,
            trace: Trace::new(config.trace),
            counts: Shared::default(),
            config: Shared::new(config),
        }
    }

    /// Milliseconds since the beginning, as the machines see them.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.now_us / 1000
    }

    /// What has been broken, if anything.
    #[must_use]
    pub fn violation(&self) -> Option<&Violation> {
        self.check.violation.as_ref()
    }

    /// The record so far; empty unless the configuration asks for one.
    #[must_use]
    pub fn trace_lines(&self) -> &[String] {
        self.trace.lines()
    }

    /// What has been counted.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Lets `ev` happen `delay_us` from now.
    pub(crate) fn after(&mut self, delay_us: u64, ev: Ev) {
        self.next_number += 1;
        self.queue.push(Scheduled { at_us: self.now_us + delay_us, number: self.next_number, ev });
    }

    /// Hands something to a host's present process, `delay_us` from now.
    pub(crate) fn hand_after(&mut self, delay_us: u64, host: Host, life: LifeIndex, what: Inbound) {
        self.after(delay_us, Ev::Hand(host, life, what));
    }

    /// The next happening; false when there is none left or something has been broken.
    pub fn step(&mut self) -> bool {
        if self.check.violation.is_some() {
            return false;
        }
        let Some(next) = self.queue.pop() else { return false };
        self.now_us = next.at_us;
        self.counts.events += 1;
        if self.config.writes > 0 {
            self.rng.go_to(self.config.noise, [self.now_us, self.place(&next.ev)]);
        }
        self.happen(next.ev);
        true
    }

    /// Noise belongs to the time and the place of a happening, so that what is left out elsewhere does not change it. (In
    /// scripts it is one sequence.)
    fn place(&self, ev: &Ev) -> u64 {
        let host = |host: &Host| match host {
            Host::Node(node) => node.index() as u64,
            Host::Client(number) => 2 + *number as u64,
        };
        match ev {
            Ev::Fault => 1,
            Ev::Deed(_) | Ev::Work(_) => 2,
            Ev::Tick(who, _) => 16 + host(who),
            Ev::Hand(who, ..) => 1024 + host(who),
            Ev::Deliver { conn, dir } => 1 << 20 | (2 * conn + dir) as u64,
            Ev::Disk { op, unit } => {
                2 << 20 | (self.disk.ops.get(op).map_or(0, |op| op.node.index()) << 10 | unit) as u64
            }
            Ev::Dial { from, .. } => 4096 + host(from),
            Ev::SetupTimeout(conn) | Ev::Break { conn, .. } | Ev::Reset { conn, .. } => 3 << 20 | *conn as u64,
            Ev::FenceStep(_) => 3,
            Ev::Heal(_) => 4,
        }
    }

    pub(crate) fn happen(&mut self, ev: Ev) {
        match ev {
            Ev::Tick(host, life) => self.tick(host, life),
            Ev::Hand(host, life, what) => self.hand(host, life, what),
            Ev::Dial { from, life, to, relay } => self.dial_arrives(Dial { from, life, to, relay }),
            Ev::SetupTimeout(conn) => self.setup_times_out(conn),
            Ev::Deliver { conn, dir } => self.deliver(conn, dir),
            Ev::Break { conn, end, cut } => self.break_end(conn, end, cut),
            Ev::Disk { op, unit } => self.disk_lands(op, unit),
            Ev::FenceStep(request) => self.fence_step(request),
            Ev::Work(client) => self.work(client),
            Ev::Fault => self.strike(),
            Ev::Deed(at) => self.next_deed(at),
            Ev::Reset { conn, end } => self.reset_arrives(conn, end),
            Ev::Heal(remedy) => self.remedy(remedy),
        }
    }

    /// Goes on until `done` holds; false if it does not within `limit_ms`, or something is broken first.
    pub fn run_until(&mut self, limit_ms: u64, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now_us + limit_ms * 1000;
        while !done(self) {
            if self.queue.peek().is_none_or(|next| next.at_us > end) || !self.step() {
                return false;
            }
        }
        true
    }

    /// Lets `ms` pass.
    pub fn run_for(&mut self, ms: u64) {
        let end = self.now_us + ms * 1000;
        while self.queue.peek().is_some_and(|next| next.at_us <= end) && self.step() {}
        self.now_us = self.now_us.max(end);
    }

    fn tick(&mut self, host: Host, life: LifeIndex) {
        if self.life_of(host) != Some(life) {
            return;
        }
        let jitter = self.rng.below(self.config.timing.tick_ms * 250);
        let period = self.config.timing.tick_ms * 1000 - jitter;
        self.after(period, Ev::Tick(host, life));
        if self.process(host) == Process::Up {
            self.process_one(host, Inbound::Tick);
        }
    }

    /// The life of the host's present process.
    pub(crate) fn life_of(&self, host: Host) -> Option<LifeIndex> {
        match host {
            Host::Node(node) => self.nodes[node.index()].life,
            Host::Client(number) => (self.clients[number].process != Process::Down).then_some(0),
        }
    }

    /// What the host's process is up to.
    #[must_use]
    pub fn process(&self, host: Host) -> Process {
        match host {
            Host::Node(node) => self.nodes[node.index()].process,
            Host::Client(number) => self.clients[number].process,
        }
    }

    /// Hands something over now, or queues it while the process is frozen.
    pub(crate) fn hand(&mut self, host: Host, life: LifeIndex, what: Inbound) {
        if self.life_of(host) != Some(life) {
            return;
        }
        match self.process(host) {
            Process::Up => self.process_one(host, what),
            Process::Frozen => self.inbox(host).push_back(what),
            Process::Down => {}
        }
    }

    pub(crate) fn inbox(&mut self, host: Host) -> &mut std::collections::VecDeque<Inbound> {
        match host {
            Host::Node(node) => &mut self.nodes[node.index()].inbox,
            Host::Client(number) => &mut self.clients[number].inbox,
        }
    }

    pub(crate) fn process_one(&mut self, host: Host, what: Inbound) {
        match host {
            Host::Node(node) => self.node_takes(node, what),
            Host::Client(number) => self.client_takes(number, what),
        }
    }

    /// Stops a process; what it is sent waits, what is written into its memory lands.
    pub fn freeze(&mut self, host: Host) {
        if self.process(host) == Process::Up {
            trace!(self, host, "=== frozen");
            self.set_process(host, Process::Frozen);
        }
    }

    /// Lets a frozen process go on: the clock has jumped, and all that was queued comes at once.
    pub fn thaw(&mut self, host: Host) {
        if self.process(host) != Process::Frozen {
            return;
        }
        trace!(self, host, "=== thaws");
        self.set_process(host, Process::Up);
        if self.rng.coin() {
            self.process_one(host, Inbound::Tick);
        }
        let queued = std::mem::take(self.inbox(host));
        for what in queued {
            if self.process(host) != Process::Up {
                break;
            }
            self.process_one(host, what);
        }
    }

    pub(crate) fn set_process(&mut self, host: Host, process: Process) {
        match host {
            Host::Node(node) => self.nodes[node.index()].process = process,
            Host::Client(number) => self.clients[number].process = process,
        }
    }
}
