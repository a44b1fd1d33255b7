//! Hosts' clocks. A machine's clock is its host's monotonic one, and that may leap (a virtual machine goes on after a
//! pause), stand still while all else goes on, or stop with its host (suspend). The wall clock is nobody's business here.

use crate::event::Host;
use crate::faults::Remedy;
use crate::trace::trace;
use crate::world::{Process, World};

/// One host's, in relation to the world's.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clock {
    /// How much further it has gone.
    pub(crate) ahead_ms: u64,
    /// How much it has lost by standing still.
    behind_ms: u64,
    /// It stands still since then, by the world's clock.
    stands_since_ms: Option<u64>,
}

impl Clock {
    fn at(self, world_ms: u64) -> u64 {
        let world_ms = self.stands_since_ms.unwrap_or(world_ms);
        world_ms + self.ahead_ms - self.behind_ms
    }
}

impl World {
    /// The host's clock.
    pub(crate) fn clock_ms(&self, host: Host) -> u64 {
        self.clock(host).at(self.now_ms())
    }

    fn clock(&self, host: Host) -> Clock {
        match host {
            Host::Node(node) => self.nodes[node.index()].clock,
            Host::Client(number) => self.clients[number].clock,
        }
    }

    fn clock_mut(&mut self, host: Host) -> &mut Clock {
        match host {
            Host::Node(node) => &mut self.nodes[node.index()].clock,
            Host::Client(number) => &mut self.clients[number].clock,
        }
    }

    /// The host's clock leaps forward.
    pub fn leap_clock(&mut self, host: Host, ms: u64) {
        trace!(self, host, "=== its clock leaps: {ms} ms");
        self.clock_mut(host).ahead_ms += ms;
    }

    /// The host's clock stands still.
    pub fn stop_clock(&mut self, host: Host) {
        trace!(self, host, "=== its clock stands still");
        let now = self.now_ms();
        self.clock_mut(host).stands_since_ms.get_or_insert(now);
    }

    /// It goes on, from where it stood.
    pub fn start_clock(&mut self, host: Host) {
        let now = self.now_ms();
        let clock = self.clock_mut(host);
        if let Some(since) = clock.stands_since_ms.take() {
            clock.behind_ms += now - since;
            trace!(self, host, "=== its clock goes on");
        }
    }

    // ---- drawn --------------------------------------------------------------------------------------------------

    pub(crate) fn some_clock_leaps(&mut self) -> bool {
        let Some(host) = self.any_host_up() else { return false };
        let ms = if self.rng.coin() { self.rng.between(20, 400) } else { self.rng.between(400, 20_000) };
        self.leap_clock(host, ms);
        true
    }

    pub(crate) fn some_clock_stands(&mut self) -> bool {
        let Some(host) = self.any_host_up().filter(|&host| self.clock(host).stands_since_ms.is_none()) else {
            return false;
        };
        self.stop_clock(host);
        self.mend_after(Remedy::Clock(host));
        true
    }

    /// Suspend: the monotonic clock does not count that time.
    pub(crate) fn some_host_is_suspended(&mut self) -> bool {
        let Some(host) = self.any_host_up() else { return false };
        self.stop_clock(host);
        self.freeze(host);
        self.mend_after(Remedy::Resume(host));
        true
    }

    fn any_host_up(&mut self) -> Option<Host> {
        let host = match (self.rng.below(5), self.live_client()) {
            (0, Some(client)) => Host::Client(client),
            _ => Host::Node(self.any_node()),
        };
        (self.process(host) == Process::Up).then_some(host)
    }

    pub(crate) fn mend_clocks(&mut self) {
        let clients = (0..self.clients.len()).map(Host::Client);
        let nodes = twinsan_wire::NodeId::BOTH.map(Host::Node);
        clients.chain(nodes).for_each(|host| self.start_clock(host));
    }
}
