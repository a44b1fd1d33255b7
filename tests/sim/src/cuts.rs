//! Faults of the network: who is cut off from whom, and for how long.

use twinsan_wire::NodeId;

use crate::event::{Ev, Host};
use crate::faults::Remedy;
use crate::world::{Process, World};

impl World {
    pub(crate) fn cut_for_a_while(&mut self, a: Host, b: Host) -> bool {
        if self.net.cut(a, b).is_some() {
            return false;
        }
        self.cut(a, b);
        self.mend_after(Remedy::Mend(a, b));
        true
    }

    /// A node loses all its links at once, or the client does.
    pub(crate) fn isolate(&mut self) -> bool {
        let Some(client) = self.live_client() else { return false };
        let client = Host::Client(client);
        let node = self.any_node();
        let (a, b) = (Host::Node(node), Host::Node(node.other()));
        if self.rng.below(3) == 0 {
            self.cut_for_a_while(client, a) | self.cut_for_a_while(client, b)
        } else {
            self.cut_for_a_while(a, b) | self.cut_for_a_while(client, a)
        }
    }

    /// The primary is left alone, and is cut off from everything but its disk, which it reaches. The other one is started
    /// again about then, and is all that the client reaches.
    pub(crate) fn cut_off_alone(&mut self) -> bool {
        let Some(node) = self.primary_node() else { return false };
        let other = node.other();
        let well = self.process(Host::Node(node)) == Process::Up
            && self.disk.pathless[node.index()].is_none()
            && !self.disk.failing[node.index()]
            && !self.disk_is_late(node);
        let cut = self.net.cut(Host::Node(node), Host::Node(other)).is_some();
        if !well || cut || self.would_lose_ram(other) {
            return false;
        }
        self.crash_node(other);
        let started = self.rng.between(1_000, 400_000);
        self.after(started, Ev::Heal(Remedy::Start(other)));
        for host in self.cut_off(node) {
            let mended = self.rng.between(800_000, 2_500_000);
            self.after(mended, Ev::Heal(Remedy::Mend(Host::Node(node), host)));
        }
        true
    }

    /// Nobody hears a node any more, and it hears nobody; returns whom it was cut off from.
    pub fn cut_off(&mut self, node: NodeId) -> Vec<Host> {
        let clients = (0..self.clients.len()).map(Host::Client).filter(|&c| self.process(c) != Process::Down);
        let hosts: Vec<Host> = clients.chain([Host::Node(node.other())]).collect();
        hosts.iter().for_each(|&host| self.cut(Host::Node(node), host));
        hosts
    }
}
