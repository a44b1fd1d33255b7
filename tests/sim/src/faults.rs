//! What goes wrong, and when it is mended: by a fault's dice alone.
//!
//! Which and when, the plan says ([`crate::plan`]). No fault of the ordinary kinds is a second failure that loses RAM: while the superblock names two members, the
//! last one that is alive is not killed. The plan that kills both is the exception, and only after it may a node
//! refuse to serve (rule 12).

use twinsan_replica::Event;
use twinsan_wire::{NodeId, Role};

use crate::config::FenceKind;
use crate::disk::Pathless;
use crate::event::{Ev, Host};
use crate::plan::Fault;
use crate::trace::trace;
use crate::world::{Process, World};

/// What mends a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    Start(NodeId),
    Thaw(Host),
    Mend(Host, Host),
    DiskWell(NodeId),
    DiskHasRoom,
    Clock(Host),
    /// A suspended host goes on.
    Resume(Host),
    PathsBack(NodeId),
    /// The watcher of the node's paths looks.
    PathsSeen(NodeId),
    Client,
    /// Somebody looks at a volume that refuses to serve.
    Operator,
}

impl World {
    pub(crate) fn primary_node(&self) -> Option<NodeId> {
        NodeId::BOTH.into_iter().find(|n| self.nodes[n.index()].role() == Some(Role::Primary))
    }

    fn other_node(&self) -> Option<NodeId> {
        self.primary_node().map(NodeId::other)
    }

    pub(crate) fn any_node(&mut self) -> NodeId {
        if self.rng.coin() { NodeId::A } else { NodeId::B }
    }

    /// A third of the time soon, else later than any timeout.
    pub(crate) fn mend_after(&mut self, remedy: Remedy) {
        let delay = if self.rng.below(3) == 0 {
            self.rng.between(1_000, 100_000)
        } else {
            self.rng.between(100_000, 1_500_000)
        };
        self.after(delay, Ev::Heal(remedy));
    }

    pub(crate) fn apply(&mut self, fault: Fault) -> bool {
        match fault {
            Fault::CrashPrimary => self.primary_node().is_some_and(|n| self.crash_unless_last(n)),
            Fault::CrashOther => self.other_node().is_some_and(|n| self.crash_unless_last(n)),
            Fault::FreezePrimary => self.primary_node().is_some_and(|n| self.freeze_for_a_while(Host::Node(n))),
            Fault::FreezeOther => self.other_node().is_some_and(|n| self.freeze_for_a_while(Host::Node(n))),
            Fault::CutNodes => self.cut_for_a_while(Host::Node(NodeId::A), Host::Node(NodeId::B)),
            Fault::CutClient => {
                let node = self.any_node();
                self.live_client().is_some_and(|c| self.cut_for_a_while(Host::Client(c), Host::Node(node)))
            }
            Fault::Isolate => self.isolate(),
            Fault::CutOffAlone => self.cut_off_alone(),
            Fault::DiskFails => {
                let node = self.any_node();
                self.fail_disk(node)
            }
            Fault::PrimaryLosesPaths => self.primary_node().is_some_and(|n| self.lose_paths_for_a_while(n)),
            Fault::OtherLosesPaths => self.other_node().is_some_and(|n| self.lose_paths_for_a_while(n)),
            Fault::BothLosePaths => self.lose_paths_for_a_while(NodeId::A) | self.lose_paths_for_a_while(NodeId::B),
            Fault::Switchover => self.switch_over(),
            Fault::StopPrimary => self.primary_node().is_some_and(|n| self.stop(n)),
            Fault::DiskFailsForBoth => self.fail_disk(NodeId::A) | self.fail_disk(NodeId::B),
            Fault::CrashClient => self.live_client().is_some_and(|c| {
                self.crash_client(c);
                self.mend_after(Remedy::Client);
                true
            }),
            Fault::FreezeClient => self.live_client().is_some_and(|c| self.freeze_for_a_while(Host::Client(c))),
            Fault::Usurp => self.usurp(),
            Fault::Stop => {
                let node = self.any_node();
                self.stop(node)
            }
            Fault::StopBoth => self.stop(NodeId::A) | self.stop(NodeId::B),
            Fault::SlotRots => {
                let slot = self.rng.index(2);
                self.rot(slot)
            }
            Fault::PathReturns => self.primary_node().is_some_and(|n| self.add_path(n)),
            Fault::FalseConflict => self.false_conflict(),
            Fault::KillBoth => self.kill_both(),
            Fault::HostDies => self.host_dies(),
            Fault::ClockLeaps => self.some_clock_leaps(),
            Fault::ClockStands => self.some_clock_stands(),
            Fault::Suspended => self.some_host_is_suspended(),
            Fault::Stalls => self.some_direction_stalls(),
            Fault::HalfOpen => self.some_connection_is_half_open(),
            Fault::CorruptBlob => self.some_blob_is_corrupted(),
            Fault::CorruptMessage => self.some_message_is_corrupted(),
            Fault::SomeIoFails => self.some_io_fails(),
            Fault::DiskSlow => self.disk_is_slow(),
            Fault::DiskFull => self.disk_is_full(),
            Fault::PathFailsOver => self.path_fails_over(),
            Fault::SlotTorn => self.slot_is_to_be_torn(),
        }
    }

    fn crash_unless_last(&mut self, node: NodeId) -> bool {
        if self.process(Host::Node(node)) == Process::Down || self.would_lose_ram(node) {
            return false;
        }
        self.crash_node(node);
        self.mend_after(Remedy::Start(node));
        true
    }

    /// Nothing comes from it any more, no end of a connection either, till it has started again.
    fn host_dies(&mut self) -> bool {
        let node = self.any_node();
        let down = self.process(Host::Node(node)) == Process::Down;
        if down || self.plan.fence != FenceKind::Pr || self.would_lose_ram(node) {
            return false;
        }
        let hosts = self.cut_off(node);
        self.crash_node(node);
        let back = self.rng.between(100_000, 1_500_000);
        self.after(back, Ev::Heal(Remedy::Start(node)));
        for host in hosts {
            self.after(back, Ev::Heal(Remedy::Mend(Host::Node(node), host)));
        }
        true
    }

    /// The superblock names two members, or may when a write in flight lands, and only this one is alive.
    pub(crate) fn would_lose_ram(&self, node: NodeId) -> bool {
        self.disk.possible_superblocks().iter().any(|superblock| {
            let alive = |n: NodeId| superblock.members.of(n).and_then(|i| self.life_behind(n, i)).is_some();
            superblock.members.is_dual() && !superblock.clean && alive(node) && !alive(node.other())
        })
    }

    fn freeze_for_a_while(&mut self, host: Host) -> bool {
        if self.process(host) != Process::Up {
            return false;
        }
        self.freeze(host);
        // Long enough, half of the time, for others to take it for dead and go on without it.
        if self.rng.coin() {
            let delay = self.rng.between(400_000, 1_200_000);
            self.after(delay, Ev::Heal(Remedy::Thaw(host)));
        } else {
            self.mend_after(Remedy::Thaw(host));
        }
        true
    }

    fn fail_disk(&mut self, node: NodeId) -> bool {
        if std::mem::replace(&mut self.disk.failing[node.index()], true) {
            return false;
        }
        trace!(self, Host::Node(node), "=== its disk fails");
        self.mend_after(Remedy::DiskWell(node));
        true
    }

    fn lose_paths_for_a_while(&mut self, node: NodeId) -> bool {
        if self.disk.pathless[node.index()].is_some() {
            return false;
        }
        let how = if self.rng.coin() { Pathless::Fails } else { Pathless::Queues };
        self.lose_paths(node, how);
        self.mend_after(Remedy::PathsBack(node));
        true
    }

    /// All paths of the node are gone; the watcher sees it soon.
    pub fn lose_paths(&mut self, node: NodeId, how: Pathless) {
        trace!(self, Host::Node(node), "=== no path is left: its I/O {how:?}");
        self.disk.pathless[node.index()] = Some(how);
        self.watch_paths(node);
    }

    /// A path of the node is back, and what was queued goes on.
    pub fn paths_return(&mut self, node: NodeId) {
        if self.disk.pathless[node.index()].take().is_some() {
            trace!(self, Host::Node(node), "=== a path is there again");
            self.watch_paths(node);
            self.land_all_due();
            self.poll_fence();
        }
    }

    /// From now on the disk refuses the node's writes with conflicts, whatever its key; or no more.
    pub fn refuse_writes(&mut self, node: NodeId, refuse: bool) {
        trace!(self, Host::Node(node), "=== its writes are refused, though its key is there: {refuse}");
        self.disk.refusing[node.index()] = refuse;
    }

    /// The watcher looks before long.
    pub(crate) fn watch_paths(&mut self, node: NodeId) {
        let delay = self.rng.between(100, 40_000);
        self.after(delay, Ev::Heal(Remedy::PathsSeen(node)));
    }

    fn switch_over(&mut self) -> bool {
        let Some(node) = self.primary_node() else { return false };
        let able = self.obstacle(node).is_none();
        if able {
            self.order(node, Event::Switchover);
        }
        able
    }

    fn false_conflict(&mut self) -> bool {
        let Some(node) = self.primary_node() else { return false };
        if self.plan.fence != FenceKind::Pr {
            return false;
        }
        if self.rng.chance(300) && !self.disk.refusing[node.index()] {
            self.refuse_writes(node, true);
            self.mend_after(Remedy::DiskWell(node));
            return true;
        }
        !std::mem::replace(&mut self.disk.false_conflict[node.index()], true)
    }

    /// The old client falls silent, a new one attaches, and the old one comes back; or the new one takes the volume over,
    /// whatever the old one does.
    fn usurp(&mut self) -> bool {
        let Some(old) = self.live_client() else { return false };
        let host = Host::Client(old);
        let over = self.rng.coin();
        let silence = self.rng.between(100_000, 2_000_000);
        if self.rng.coin() {
            self.freeze(host);
            self.after(silence, Ev::Heal(Remedy::Thaw(host)));
        }
        if self.rng.coin() {
            for node in NodeId::BOTH {
                self.cut(host, Host::Node(node));
                self.after(silence, Ev::Heal(Remedy::Mend(host, Host::Node(node))));
            }
        }
        if over {
            self.counts.fault("a live client is taken over");
            self.start_client_over();
        } else {
            self.start_client();
        }
        true
    }

    fn stop(&mut self, node: NodeId) -> bool {
        if self.process(Host::Node(node)) != Process::Up {
            return false;
        }
        self.order(node, Event::Shutdown);
        self.plan.ending[node.index()] = true;
        self.mend_after(Remedy::Start(node));
        true
    }

    fn kill_both(&mut self) -> bool {
        let only_in_ram = |s: &twinsan_wire::Superblock| s.members.is_dual() && !s.clean;
        self.check.loss_allowed = self.disk.possible_superblocks().iter().any(only_in_ram);
        for node in NodeId::BOTH {
            self.crash_node(node);
            self.mend_after(Remedy::Start(node));
        }
        self.after(2_000_000, Ev::Heal(Remedy::Operator));
        true
    }

    pub(crate) fn remedy(&mut self, remedy: Remedy) {
        match remedy {
            Remedy::Start(node)
                if self.plan.ending[node.index()] && self.process(Host::Node(node)) != Process::Down =>
            {
                self.after(100_000, Ev::Heal(remedy));
            }
            Remedy::Start(node) => {
                self.plan.ending[node.index()] = false;
                self.start_node(node);
            }
            Remedy::Thaw(host) => self.thaw(host),
            Remedy::Mend(a, b) => self.mend(a, b),
            Remedy::DiskWell(node) => {
                trace!(self, Host::Node(node), "=== its disk is well again");
                self.disk.failing[node.index()] = false;
                self.disk.refusing[node.index()] = false;
                self.disk_is_well(node);
                self.poll_fence();
            }
            Remedy::DiskHasRoom => self.fill_disk(false),
            Remedy::Clock(host) => self.start_clock(host),
            Remedy::Resume(host) => {
                self.start_clock(host);
                self.thaw(host);
            }
            Remedy::PathsBack(node) => self.paths_return(node),
            Remedy::PathsSeen(node) => {
                let usable = self.disk.pathless[node.index()].is_none();
                self.order(node, Event::Paths { usable });
            }
            Remedy::Client => self.ensure_client(),
            Remedy::Operator => {
                self.recover_if_needed();
                if self.check.loss_allowed {
                    self.after(500_000, Ev::Heal(Remedy::Operator));
                }
            }
        }
    }

    pub(crate) fn mend_everything(&mut self) {
        self.mend_all();
        self.disk.false_conflict = [false; 2];
        self.mend_ills();
        self.mend_fabric();
        self.mend_clocks();
        for node in NodeId::BOTH {
            self.remedy(Remedy::DiskWell(node));
            self.paths_return(node);
            self.thaw(Host::Node(node));
            self.start_node(node);
        }
        for client in 0..self.clients.len() {
            self.thaw(Host::Client(client));
        }
        self.ensure_client();
    }

    /// Both nodes run.
    pub(crate) fn ensure_nodes(&mut self) {
        NodeId::BOTH.into_iter().for_each(|node| self.start_node(node));
    }

    /// There is a client whose session lives.
    pub(crate) fn ensure_client(&mut self) {
        if self.live_client().is_none() {
            self.start_client();
        }
    }
}
