//! The two fence providers of section 5, as the disk and the kernel keep them.
//!
//! `Pr`: a host may write while it is registered. A fence removes every other registration, and aborts or waits for
//! what its victims have in flight. `Lock`: a host may write while it holds the claim; a fence kills the holder and
//! waits until the kernel lets the claim go, which it does after the holder's last write.

use twinsan_replica::{Event, FenceError};
use twinsan_wire::NodeId;

use crate::config::FenceKind;
use crate::coverage::Firing;
use crate::event::{Ev, Host, Inbound, LifeIndex};
use crate::trace::trace;
use crate::weak::DriverWeakness;
use crate::world::{Process, World};

/// The provider's state.
#[derive(Clone)]
pub(crate) struct Fence {
    kind: FenceKind,
    /// `Pr`: the host's key is there, and which life put it there. It outlives its process.
    pub(crate) registered: [Option<LifeIndex>; 2],
    /// `Pr`: counts every change of the keys.
    pub(crate) pr_generation: u64,
    /// `Lock`: who holds the claim.
    pub(crate) holder: Option<(NodeId, LifeIndex)>,
    /// Who may write by the superblock and the last fence: the checker's view.
    pub(crate) entitled: Option<(NodeId, LifeIndex)>,
    pub(crate) requests: Vec<Request>,
    next_request: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) number: u64,
    pub(crate) node: NodeId,
    pub(crate) life: LifeIndex,
    pub(crate) what: Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// Waits until nothing of the host's is in flight, then registers.
    Admit,
    /// `Pr`: registers first, where it is not, as `Admit` does. `Lock`: on its way.
    Fence,
    /// Rule 13: the claim without fencing.
    Accept,
    /// `Pr`: registered; PREEMPT AND ABORT is on its way.
    Preempt,
    /// `Lock`: the holder has been killed; its last write is waited for.
    Claim,
    /// A path that came back: the keys have been read, at this generation.
    AddPath { seen: Option<u64> },
}

impl Fence {
    pub(crate) fn new(kind: FenceKind) -> Self {
        Self {
            kind,
            registered: [None; 2],
            pr_generation: 0,
            holder: None,
            entitled: None,
            requests: Vec::new(),
            next_request: 0,
        }
    }

    /// READ KEYS: the generation, if the own key is there.
    pub(crate) fn read_keys(&self, node: NodeId) -> Option<u64> {
        self.registered[node.index()].map(|_| self.pr_generation)
    }
}

impl World {
    /// Whether a write of this life that reaches the disk now may land.
    pub(crate) fn may_write(&self, node: NodeId, life: LifeIndex) -> bool {
        match self.fence.kind {
            FenceKind::Pr => self.fence.registered[node.index()].is_some(),
            // Issued under the claim, which is not let go before it has ended.
            FenceKind::Lock => self.fence.holder == Some((node, life)),
        }
    }

    /// Action `Admit`.
    pub(crate) fn admit(&mut self, node: NodeId) {
        self.request(node, Step::Admit);
    }

    /// Action `Fence`.
    pub(crate) fn fence(&mut self, node: NodeId) {
        self.request(node, Step::Fence);
    }

    /// Action `CheckFence`.
    pub(crate) fn check_fence(&mut self, node: NodeId) {
        let life = self.nodes[node.index()].life.expect("it asks");
        let own = self.may_write(node, life);
        self.tell(node, life, Event::FenceChecked { own });
    }

    /// Action `YieldFence`: the key stays, the claim goes.
    pub(crate) fn yield_fence(&mut self, node: NodeId) {
        let life = self.let_go(node);
        self.tell(node, life, Event::FenceYielded);
        self.poll_fence();
    }

    /// Action `AcceptFence`.
    pub(crate) fn accept_fence(&mut self, node: NodeId) {
        self.request(node, Step::Accept);
    }

    /// Action `ReleaseFence`.
    pub(crate) fn release_fence(&mut self, node: NodeId) {
        let life = self.let_go(node);
        self.tell(node, life, Event::FenceReleased);
        self.poll_fence();
    }

    /// Nothing of this process is in flight, and it gives the claim back.
    fn let_go(&mut self, node: NodeId) -> LifeIndex {
        let life = self.nodes[node.index()].life.expect("it asks");
        if self.disk.writes_in_flight(|op| op.life == life) {
            let what = format!("node {node} lets its claim go with writes in flight");
            self.fail("one_authoritative_primary", what);
        }
        if self.fence.holder == Some((node, life)) {
            self.fence.holder = None;
        }
        life
    }

    fn tell(&mut self, node: NodeId, life: LifeIndex, event: Event) {
        let delay = self.disk_delay();
        self.hand_after(delay, Host::Node(node), life, Inbound::Replica(event));
    }

    fn request(&mut self, node: NodeId, what: Step) {
        let life = self.nodes[node.index()].life.expect("it asks");
        self.fence.next_request += 1;
        let number = self.fence.next_request;
        self.fence.requests.push(Request { number, node, life, what });
        let delay = self.disk_delay_of(node);
        self.after(delay, Ev::FenceStep(number));
    }

    /// A host's writes have ended, or a claim was let go: who waited for that goes on.
    pub(crate) fn poll_fence(&mut self) {
        let waiting: Vec<u64> = self
            .fence
            .requests
            .iter()
            .filter(|r| matches!(r.what, Step::Admit | Step::Fence | Step::Claim))
            .map(|r| r.number)
            .collect();
        for number in waiting {
            self.after(1, Ev::FenceStep(number));
        }
    }

    pub(crate) fn fence_step(&mut self, number: u64) {
        let Some(at) = self.fence.requests.iter().position(|r| r.number == number) else { return };
        let request = self.fence.requests[at];
        let alive = self.is_running(request.node, request.life);
        if !alive {
            self.fence.requests.remove(at);
            return;
        }
        let result = match (request.what, self.fence.kind) {
            _ if !self.disk.is_reached_by(request.node) => Some(Err(FenceError::Failed)),
            (Step::Admit, FenceKind::Pr) => self.pr_admit(request.node, request.life),
            (Step::Admit, FenceKind::Lock) => Some(Ok(())),
            (Step::Fence, FenceKind::Pr) => self.pr_register(at),
            (Step::Accept, FenceKind::Pr) => Some(self.pr_accept(request.node, request.life)),
            (Step::Accept, FenceKind::Lock) => Some(self.lock_accept(request.node, request.life)),
            (Step::Preempt, _) => Some(self.pr_preempt(request.node, request.life)),
            (Step::Fence | Step::Claim, FenceKind::Lock) => self.lock_fence(at),
            (Step::AddPath { seen }, _) => self.add_path_step(at, seen),
            (Step::Claim, FenceKind::Pr) => unreachable!("only the lock is waited for"),
        };
        let Some(result) = result else { return };
        self.fence.requests.retain(|r| r.number != number);
        let event = match request.what {
            Step::Admit => Event::Admitted(result),
            Step::Accept => Event::FenceAccepted(result),
            Step::Fence | Step::Preempt | Step::Claim => Event::FenceHeld(result),
            Step::AddPath { .. } => return,
        };
        trace!(self, Host::Node(request.node), "fence: {event:?}");
        self.tell(request.node, request.life, event);
    }

    fn pr_admit(&mut self, node: NodeId, life: LifeIndex) -> Option<Result<(), FenceError>> {
        let early = self.config.driver_weak(DriverWeakness::AdmitTooEarly);
        if !early && self.disk.writes_in_flight(|op| op.node == node) {
            self.fired(Firing::AdmitWaits);
            return None;
        }
        self.fence.registered[node.index()] = Some(life);
        self.fence.pr_generation += 1;
        Some(Ok(()))
    }

    fn pr_register(&mut self, at: usize) -> Option<Result<(), FenceError>> {
        let request = self.fence.requests[at];
        if self.fence.registered[request.node.index()] != Some(request.life) {
            self.pr_admit(request.node, request.life)?.ok()?;
        }
        self.fence.requests[at].what = Step::Preempt;
        let delay = self.disk_delay_of(request.node);
        self.after(delay, Ev::FenceStep(request.number));
        None
    }

    /// PREEMPT AND ABORT: what victims have in flight lands before this or never.
    fn pr_preempt(&mut self, node: NodeId, life: LifeIndex) -> Result<(), FenceError> {
        if self.fence.registered[node.index()] != Some(life) {
            return Err(FenceError::Lost);
        }
        let victim = node.other();
        if self.fence.registered[victim.index()].is_some() {
            self.settle_victims_writes(victim);
        }
        self.fence.registered[victim.index()] = None;
        self.fence.pr_generation += 1;
        self.entitle(node, life);
        Ok(())
    }

    fn settle_victims_writes(&mut self, victim: NodeId) {
        use crate::disk::UnitState;
        let without_abort = self.config.driver_weak(DriverWeakness::FenceWithoutAbort);
        let ops: Vec<u64> = self.disk.ops.iter().filter(|(_, op)| op.node == victim).map(|(&id, _)| id).collect();
        for id in ops {
            for unit in 0..self.disk.ops.get(&id).map_or(0, |op| op.units.len()) {
                let lands = self.rng.chance(300);
                let Some(op) = self.disk.ops.get(&id) else { break };
                let at = &op.units[unit];
                if !at.is_write() || at.state != UnitState::Pending {
                    continue;
                }
                // What is queued above the disk is neither there to be aborted nor past its check.
                let queued =
                    self.disk.queues(victim) || self.waits_for_path(victim) || self.holds.holds_disk(self, id, unit);
                if queued && !without_abort {
                    continue;
                }
                let at = &mut self.disk.ops.get_mut(&id).expect("it is there").units[unit];
                at.state = if without_abort || lands { UnitState::Unstoppable } else { UnitState::Aborted };
                if lands && !without_abort {
                    self.disk_lands(id, unit);
                }
            }
        }
    }

    /// The key has been there since the node was let in. Whether it still is the first write shows; a look is cheaper.
    fn pr_accept(&self, node: NodeId, life: LifeIndex) -> Result<(), FenceError> {
        if self.fence.registered[node.index()] == Some(life) { Ok(()) } else { Err(FenceError::Lost) }
    }

    fn lock_accept(&mut self, node: NodeId, life: LifeIndex) -> Result<(), FenceError> {
        match self.fence.holder {
            None => {
                self.fence.holder = Some((node, life));
                Ok(())
            }
            Some(holder) if holder == (node, life) => Ok(()),
            Some(_) => Err(FenceError::Lost),
        }
    }

    fn lock_fence(&mut self, at: usize) -> Option<Result<(), FenceError>> {
        let request = self.fence.requests[at];
        let me = (request.node, request.life);
        match self.fence.holder {
            Some(holder) if holder == me => {}
            Some((holder, life)) => {
                if request.what == Step::Fence && self.is_running(holder, life) {
                    trace!(self, Host::Node(request.node), "=== kills {holder}, who holds the claim");
                    self.counts.fence_kills += 1;
                    self.crash_node(holder);
                }
                if let Some(r) = self.fence.requests.iter_mut().find(|r| r.number == request.number) {
                    r.what = Step::Claim;
                }
                // Another one may have come before us, or the holder's last write is still to come.
                if self.is_running(holder, life) && request.what == Step::Claim {
                    return Some(Err(FenceError::Lost));
                }
                if self.is_running(holder, life) || self.disk.writes_in_flight(|op| op.life == life) {
                    return None;
                }
            }
            None => {}
        }
        self.fence.holder = Some(me);
        self.entitle(me.0, me.1);
        Some(Ok(()))
    }

    fn entitle(&mut self, node: NodeId, life: LifeIndex) {
        self.fence.entitled = Some((node, life));
    }

    /// Fault: one of the host's paths came back and is registered again (section 5, the last part of `scsi-pr`).
    pub(crate) fn add_path(&mut self, node: NodeId) -> bool {
        let up = self.nodes[node.index()].process == Process::Up;
        if self.fence.kind != FenceKind::Pr || !up || self.fence.registered[node.index()].is_none() {
            return false;
        }
        trace!(self, Host::Node(node), "=== a path came back");
        self.request(node, Step::AddPath { seen: None });
        true
    }

    fn add_path_step(&mut self, at: usize, seen: Option<u64>) -> Option<Result<(), FenceError>> {
        let node = self.fence.requests[at].node;
        let Some(seen) = seen else {
            let seen = self.fence.read_keys(node);
            if seen.is_none() {
                return Some(Err(FenceError::Lost));
            }
            let number = self.fence.requests[at].number;
            self.fence.requests[at].what = Step::AddPath { seen };
            let delay = self.disk_delay() * 4;
            self.after(delay, Ev::FenceStep(number));
            return None;
        };
        self.register_path(node, seen);
        Some(Ok(()))
    }

    /// Registering raises the generation by one; more than that means that the keys changed meanwhile.
    pub(crate) fn register_path(&mut self, node: NodeId, seen: u64) {
        let alone = self.fence.pr_generation == seen;
        if alone || self.config.driver_weak(DriverWeakness::PathAddedBlindly) {
            self.fence.registered[node.index()] = self.nodes[node.index()].life;
        }
        self.fence.pr_generation += 1;
    }
}
