//! How a choice comes about.

use twinsan_replica::Event;
use twinsan_wire::{BlobKind, NodeId};

use crate::disk::{Part, Pathless, UnitState};
use crate::event::{ConnIndex, Ev, Host, Inbound, OpId};
use crate::explore::choice::Choice;
use crate::explore::scenario::{Request, TIME_MS};
use crate::explore::situation::Situation;
use crate::trace::trace;
use crate::world::Process;

impl Situation {
    /// Lets it happen, and whatever follows by itself.
    pub(crate) fn apply(&mut self, choice: Choice) {
        match choice {
            Choice::Deliver(conn, dir) => self.deliver(conn, dir),
            Choice::Bag(at) => match self.bag.remove(at) {
                Ev::Disk { op, unit } => self.lands(op, unit),
                ev => self.world.happen(ev),
            },
            Choice::Vanish(op, unit) => self.vanish(op, unit),
            Choice::Request => self.next_request(),
            Choice::Time => self.pass_time(),
            Choice::Reset(conn, dir) => {
                let items = &mut self.world.net.conns[conn].dirs[dir].items;
                items.drain(..items.len() - 1);
                self.deliver(conn, dir);
            }
            Choice::GiveUp(conn, end) => {
                let c = &self.world.net.conns[conn];
                let cut = self.world.net.cut(c.ends[0], c.ends[1]).expect("it is cut");
                self.world.break_end(conn, end, cut);
            }
            Choice::LetGo(conn, dir) => self.held.retain(|&held| held != (conn, dir)),
            fault => self.strike(fault),
        }
        self.take_in();
    }

    /// Both slots are read in one step where no write of one is in flight: when the second is read then makes no
    /// difference.
    fn lands(&mut self, id: OpId, unit: usize) {
        let ops = &self.world.disk.ops;
        let units = ops[&id].units.len();
        let reads_slots = ops[&id].units.iter().all(|u| matches!(u.part, Part::ReadSlot(_)));
        let mut all = ops.values().flat_map(|op| &op.units);
        let written = all.any(|u| matches!(u.part, Part::Slot(_)) && u.state != UnitState::Ended);
        if reads_slots && !written {
            (0..units).for_each(|unit| self.world.disk_lands(id, unit));
        } else {
            self.world.disk_lands(id, unit);
        }
    }

    fn vanish(&mut self, id: OpId, unit: usize) {
        let op = self.world.disk.ops.get_mut(&id).expect("it is there");
        op.units[unit].state = UnitState::Ended;
        if op.units.iter().all(|u| u.state == UnitState::Ended) {
            self.world.disk.ops.remove(&id);
        }
        self.world.poll_fence();
    }

    fn next_request(&mut self) {
        let client = self.client();
        let (&request, rest) = self.program.split_first().expect("there is one");
        self.program = rest;
        match request {
            Request::Write(lba) => drop(self.world.write(client, BlobKind::Write, lba, 1)),
            Request::Read(lba) => drop(self.world.read(client, lba, 1)),
        }
    }

    /// What was to end by now has, but for disk writes that are late; connectors that wait for an answer give up.
    fn pass_time(&mut self) {
        let mut setups: Vec<ConnIndex> = Vec::new();
        for ev in &self.bag {
            match *ev {
                Ev::SetupTimeout(conn) => setups.push(conn),
                Ev::Disk { op, unit } if !self.late.contains(&(op, unit)) => {
                    self.late.push((op, unit));
                    self.left.late -= 1;
                }
                _ => {}
            }
        }
        self.world.now_us += TIME_MS * 1000;
        self.fail_fences();
        setups.into_iter().for_each(|conn| self.world.setup_times_out(conn));
        let clients = (0..self.world.clients.len()).map(Host::Client);
        for host in NodeId::BOTH.map(Host::Node).into_iter().chain(clients) {
            if self.world.process(host) == Process::Up {
                self.world.process_one(host, Inbound::Tick);
            }
        }
    }

    /// A fence's step for which there is no path fails.
    fn fail_fences(&mut self) {
        let world = &self.world;
        let pathless = |ev: &mut Ev| match ev {
            Ev::FenceStep(number) => {
                let request = world.fence.requests.iter().find(|r| r.number == *number);
                request.is_some_and(|r| {
                    world.process(Host::Node(r.node)) == Process::Up && !world.disk.is_reached_by(r.node)
                })
            }
            _ => false,
        };
        let failing: Vec<Ev> = self.bag.extract_if(.., pathless).collect();
        failing.into_iter().for_each(|ev| self.world.happen(ev));
    }

    fn strike(&mut self, fault: Choice) {
        let (world, left) = (&mut self.world, &mut self.left);
        match fault {
            Choice::Crash(node) => {
                left.crash -= 1;
                world.crash_node(node);
            }
            Choice::Restart(node) => {
                left.restart -= 1;
                world.start_node(node);
                if world.disk.pathless[node.index()].is_some() {
                    self.paths(node, false);
                }
            }
            Choice::Freeze(node) => {
                left.freeze -= 1;
                world.freeze(Host::Node(node));
            }
            Choice::Thaw(node) => self.thaw(Host::Node(node)),
            Choice::Cut(a, b) => {
                left.cut -= 1;
                world.cut(a, b);
            }
            Choice::Mend(a, b) => world.mend(a, b),
            Choice::Reattach => {
                left.reattach -= 1;
                let old = world.clients.len() - 1;
                world.crash_client(old);
                world.start_client();
            }
            Choice::HandOver(node) => {
                left.handover -= 1;
                world.order(node, Event::Switchover);
            }
            Choice::HoldConn(conn, dir) => {
                left.hold -= 1;
                self.held.push((conn, dir));
            }
            Choice::HoldDisk(op, unit) => {
                if left.late > 0 {
                    left.late -= 1;
                } else {
                    left.hold -= 1;
                }
                self.late.push((op, unit));
            }
            Choice::Hasten(node) => {
                left.hasten -= 1;
                world.nodes[node.index()].clock.ahead_ms += 3 * TIME_MS;
                world.process_one(Host::Node(node), Inbound::Tick);
            }
            Choice::LosePaths(node) => {
                left.pathless -= 1;
                self.paths(node, false);
            }
            Choice::PathsBack(node) => self.paths(node, true),
            Choice::AddPath(node) => {
                left.path -= 1;
                world.add_path(node);
            }
            Choice::Rot(slot) => {
                left.rot -= 1;
                world.rot(slot);
            }
            Choice::Conflict(node) => {
                left.conflict -= 1;
                world.conflict_once(node);
            }
            _ => unreachable!("{fault:?} is no fault"),
        }
    }

    /// A frozen process goes on; what was handed to it meanwhile comes in any order.
    fn thaw(&mut self, host: Host) {
        trace!(self.world, host, "=== thaws");
        self.world.set_process(host, Process::Up);
        let life = self.world.life_of(host).expect("it was frozen, not dead");
        let queued = std::mem::take(self.world.inbox(host));
        self.bag.extend(queued.into_iter().map(|what| Ev::Hand(host, life, what)));
    }

    /// The node's paths go, so that its I/O fails at once, or come back; its process will hear of it.
    fn paths(&mut self, node: NodeId, usable: bool) {
        let host = Host::Node(node);
        self.world.disk.pathless[node.index()] = (!usable).then_some(Pathless::Fails);
        if let Some(life) = self.world.life_of(host) {
            let news = Inbound::Replica(Event::Paths { usable });
            self.bag.retain(|ev| !matches!(ev, Ev::Hand(to, _, Inbound::Replica(Event::Paths { .. })) if *to == host));
            self.bag.push(Ev::Hand(host, life, news));
        }
        self.world.poll_fence();
    }
}
