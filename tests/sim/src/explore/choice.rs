//! What may come next in a state.
//!
//! | choice | when |
//! | --- | --- |
//! | the first item of a direction of a connection is delivered | the path is whole, the receiver not frozen |
//! | a process is handed what the disk, the fence or the network answers | it runs |
//! | a part of a disk operation reaches the disk; or, of a dead process's, it had never left the host | always |
//! | the next request of the client's program | the session takes it |
//! | a fault | the scenario's budget allows it |
//! | a fault's end: thaw, mend, paths back, what was held goes on | always |
//! | time passes: every running host's clock goes on, and it ticks | nothing is left that needs neither a fault nor the client |
//!
//! In prompt order only the first of the upper three comes (in the order of [`Situation::rank`]), or is held.

use twinsan_wire::NodeId;

use crate::event::{ConnIndex, Ev, Host, Item, OpId};
use crate::explore::scenario::Request;
use crate::explore::situation::Situation;
use crate::net::End;
use crate::world::Process;

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// By this connection, from this end.
    Deliver(ConnIndex, usize),
    /// What the bag holds at this place.
    Bag(usize),
    /// Of a dead process: it had never left the host.
    Vanish(OpId, usize),
    Request,
    Time,
    /// The sender has closed, and that is heard before what it had sent.
    Reset(ConnIndex, usize),
    /// An end takes a connection for broken whose path is cut.
    GiveUp(ConnIndex, usize),
    Crash(NodeId),
    Restart(NodeId),
    Freeze(NodeId),
    Thaw(NodeId),
    Cut(Host, Host),
    Mend(Host, Host),
    /// The client is killed, and another one attaches.
    Reattach,
    HandOver(NodeId),
    /// In prompt order: from here on what travels this way waits.
    HoldConn(ConnIndex, usize),
    /// And no more.
    LetGo(ConnIndex, usize),
    /// In prompt order: this write waits.
    HoldDisk(OpId, usize),
    /// All of a node's timeouts come early.
    Hasten(NodeId),
    LosePaths(NodeId),
    PathsBack(NodeId),
    /// One path of several comes back and is registered.
    AddPath(NodeId),
    Rot(usize),
    Conflict(NodeId),
}

impl Choice {
    /// It is a fault, or the mending of one: progress must not depend on it.
    pub(crate) fn is_fault(self) -> bool {
        !matches!(
            self,
            Self::Deliver(..)
                | Self::Bag(_)
                | Self::Vanish(..)
                | Self::Request
                | Self::Time
                | Self::Reset(..)
                | Self::GiveUp(..)
                | Self::LetGo(..)
        )
    }
}

impl Situation {
    /// All that may come next; what needs no fault comes first.
    pub(crate) fn choices(&self) -> Vec<Choice> {
        let mut out = Vec::new();
        self.deliveries(&mut out);
        self.out_of_the_bag(&mut out);
        let quiet = if self.prompt { self.only_the_first(&mut out) } else { self.only_late_ones_are_left(&out) };
        self.request(&mut out);
        if quiet {
            self.give_ups(&mut out);
            out.push(Choice::Time);
        }
        NodeId::BOTH.into_iter().for_each(|node| self.faults_of(node, &mut out));
        self.other_faults(&mut out);
        out
    }

    fn deliveries(&self, out: &mut Vec<Choice>) {
        for conn in 0..self.world.net.conns.len() {
            for dir in 0..2 {
                if !self.may_deliver(conn, dir) {
                    continue;
                }
                out.push(Choice::Deliver(conn, dir));
                let items = &self.world.net.conns[conn].dirs[dir].items;
                if items.len() > 1 && matches!(items.back(), Some((_, Item::End))) {
                    out.push(Choice::Reset(conn, dir));
                }
            }
        }
    }

    fn out_of_the_bag(&self, out: &mut Vec<Choice>) {
        let up = |host: Host| self.world.process(host) == Process::Up;
        for (at, ev) in self.bag.iter().enumerate() {
            let may = match ev {
                Ev::Hand(host, ..) | Ev::Dial { from: host, .. } => up(*host),
                // The kernel's work for a process goes on only while that runs.
                Ev::FenceStep(number) => {
                    let request = self.world.fence.requests.iter().find(|r| r.number == *number);
                    // What fails for want of a path takes its time.
                    request.is_some_and(|r| up(Host::Node(r.node)) && self.world.disk.is_reached_by(r.node))
                }
                Ev::Disk { .. } => true,
                _ => false,
            };
            if may {
                out.push(Choice::Bag(at));
            }
            if let Ev::Disk { op: id, unit } = *ev {
                let op = &self.world.disk.ops[&id];
                if !self.world.is_running(op.node, op.life) && op.units[unit].is_write() {
                    out.push(Choice::Vanish(id, unit));
                }
            }
        }
    }

    /// Nothing is left to come but disk writes that may be late.
    fn only_late_ones_are_left(&self, out: &[Choice]) -> bool {
        let mut more = 0;
        for choice in out {
            match *choice {
                Choice::Vanish(..) => {}
                Choice::Bag(at) => match self.bag[at] {
                    Ev::Disk { op, unit } if self.world.disk.ops[&op].units[unit].is_write() => {
                        more += u8::from(!self.late.contains(&(op, unit)));
                    }
                    _ => return false,
                },
                _ => return false,
            }
        }
        more <= self.left.late
    }

    // ---- prompt order -------------------------------------------------------------------------------------------------

    /// Leaves the first of those that are not held, or a hold on it instead; and what is held may be let go. True if there
    /// is no first.
    fn only_the_first(&self, out: &mut Vec<Choice>) -> bool {
        let all = std::mem::take(out);
        let free = all.iter().copied().filter(|&choice| self.rank(choice).is_some() && !self.is_held(choice));
        let first = free.min_by_key(|&choice| self.rank(choice));
        out.extend(first);
        let also = match first {
            Some(Choice::Deliver(conn, dir)) => Some((Choice::Reset(conn, dir), Choice::HoldConn(conn, dir))),
            Some(Choice::Bag(at)) => match self.bag[at] {
                Ev::Disk { op, unit } if self.world.disk.ops[&op].units[unit].is_write() => {
                    Some((Choice::Vanish(op, unit), Choice::HoldDisk(op, unit)))
                }
                _ => None,
            },
            _ => None,
        };
        if let Some((instead, hold)) = also {
            out.extend(all.contains(&instead).then_some(instead));
            let late = matches!(hold, Choice::HoldDisk(..)) && self.left.late > 0;
            out.extend((self.left.hold > 0 || late).then_some(hold));
        }
        for choice in all.into_iter().filter(|&choice| self.is_held(choice)) {
            out.push(if let Choice::Deliver(conn, dir) = choice { Choice::LetGo(conn, dir) } else { choice });
        }
        first.is_none()
    }

    fn is_held(&self, choice: Choice) -> bool {
        match choice {
            Choice::Deliver(conn, dir) => self.held.contains(&(conn, dir)),
            Choice::Bag(at) => matches!(self.bag[at], Ev::Disk { op, unit } if self.late.contains(&(op, unit))),
            _ => false,
        }
    }

    /// Answers are heard at once, then messages arrive, connections are made, fences and reads go on, and last writes land.
    fn rank(&self, choice: Choice) -> Option<(u8, [Host; 2], u64)> {
        match choice {
            Choice::Deliver(conn, dir) => {
                let c = &self.world.net.conns[conn];
                Some((1, [c.ends[dir], c.ends[1 - dir]], conn as u64))
            }
            Choice::Bag(at) => match self.bag[at] {
                Ev::Hand(host, ..) => Some((0, [host; 2], at as u64)),
                Ev::Dial { from, to, relay, .. } => Some((2, [from, Host::Node(to)], u64::from(relay.is_some()))),
                Ev::FenceStep(number) => Some((3, [Host::Node(NodeId::A); 2], number)),
                Ev::Disk { op: id, unit } => {
                    let op = &self.world.disk.ops[&id];
                    let kind = 4 + u8::from(op.units[unit].is_write());
                    Some((kind, [Host::Node(op.node); 2], id * 64 + unit as u64))
                }
                _ => None,
            },
            _ => None,
        }
    }

    // ---- the client, and faults ---------------------------------------------------------------------------------------

    fn request(&self, out: &mut Vec<Choice>) {
        let client = &self.world.clients[self.client()];
        let (Some(request), Some(session)) = (self.program.first(), &client.machine) else { return };
        let takes = match request {
            Request::Write(_) => session.place(crate::config::BLOCK_BYTES).is_some(),
            Request::Read(_) => session.is_open(),
        };
        if takes {
            out.push(Choice::Request);
        }
    }

    fn give_ups(&self, out: &mut Vec<Choice>) {
        for (conn, c) in self.world.net.conns.iter().enumerate() {
            if self.world.net.cut(c.ends[0], c.ends[1]).is_none() {
                continue;
            }
            for end in 0..2 {
                if c.state[end] == End::Open && self.world.process(c.ends[end]) == Process::Up {
                    out.push(Choice::GiveUp(conn, end));
                }
            }
        }
    }

    fn faults_of(&self, node: NodeId, out: &mut Vec<Choice>) {
        let (world, left) = (&self.world, &self.left);
        let process = world.process(Host::Node(node));
        let mut offer = |may: bool, choice: Choice| out.extend(may.then_some(choice));
        let up = process == Process::Up;
        let pathless = world.disk.pathless[node.index()].is_some();
        offer(process == Process::Frozen, Choice::Thaw(node));
        offer(process == Process::Down && left.restart > 0, Choice::Restart(node));
        offer(process != Process::Down && left.crash > 0 && !world.would_lose_ram(node), Choice::Crash(node));
        offer(up && left.freeze > 0, Choice::Freeze(node));
        offer(up && left.hasten > 0, Choice::Hasten(node));
        offer(up && left.handover > 0 && world.obstacle(node).is_none(), Choice::HandOver(node));
        offer(pathless, Choice::PathsBack(node));
        offer(!pathless && left.pathless > 0, Choice::LosePaths(node));
        offer(up && left.path > 0 && world.fence.registered[node.index()].is_some(), Choice::AddPath(node));
        offer(up && left.conflict > 0 && !world.disk.false_conflict[node.index()], Choice::Conflict(node));
    }

    fn other_faults(&self, out: &mut Vec<Choice>) {
        let (world, left) = (&self.world, &self.left);
        let client = Host::Client(self.client());
        let [a, b] = NodeId::BOTH.map(Host::Node);
        for (a, b) in [(a, b), (a, client), (b, client)] {
            if world.net.cut(a, b).is_some() {
                out.push(Choice::Mend(a, b));
            } else if left.cut > 0 {
                out.push(Choice::Cut(a, b));
            }
        }
        if left.reattach > 0 {
            out.push(Choice::Reattach);
        }
        if left.rot > 0 {
            out.extend((0..2).filter(|_| world.may_rot()).map(Choice::Rot));
        }
    }
}
