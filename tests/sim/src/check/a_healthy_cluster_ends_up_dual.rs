//! **When every fault has been mended and time has passed, the volume is served by two members, every request of the
//! living client has completed, what it reads is what was written, and so is the disk.**

use twinsan_replica::Event;
use twinsan_wire::{NodeId, Role};

use crate::event::Host;
use crate::trace::trace;
use crate::world::{Process, World};

const NAME: &str = "a_healthy_cluster_ends_up_dual";

/// The longest that a mended cluster may take for anything, in ms.
const PATIENCE_MS: u64 = 15_000;

impl World {
    /// Both nodes run, the superblock names them both, and one of them serves.
    #[must_use]
    pub fn is_dual(&self) -> bool {
        let Some(superblock) = self.disk.superblock() else { return false };
        let alive = |node: NodeId| {
            let n = &self.nodes[node.index()];
            let role = if superblock.primary == Some(node) { Role::Primary } else { Role::Secondary };
            n.process == Process::Up && superblock.members.of(node) == Some(n.incarnation) && n.role() == Some(role)
        };
        NodeId::BOTH.into_iter().all(alive)
    }

    /// Mends everything, lets the cluster settle, and looks at what is there. A broken promise is in
    /// [`World::violation`].
    pub fn finish(&mut self) {
        trace!(self, "check", "=== everything is mended");
        self.plan.end();
        self.mend_everything();
        if self.settles() {
            self.read_back();
        }
        if self.violation().is_none() {
            self.compare_disk();
        }
    }

    fn settles(&mut self) -> bool {
        let end = self.now_ms() + PATIENCE_MS;
        while self.now_ms() < end && self.violation().is_none() {
            if self.run_until(200, World::is_settled) {
                return true;
            }
            self.recover_if_needed();
            // An orderly stop may have ended only now.
            self.ensure_nodes();
            self.ensure_client();
        }
        let roles = NodeId::BOTH.map(|n| self.nodes[n.index()].role());
        let (superblock, client) = (self.disk.superblock(), self.live_client().map(|c| &self.clients[c]));
        let open = client.map(|c| (c.is_open(), c.writes.len(), c.reads.len()));
        let superblock = superblock.map(|s| s.to_string());
        self.fail(NAME, format!("roles {roles:?}, superblock {superblock:?}, client (open, writes, reads) {open:?}"));
        false
    }

    fn is_settled(&self) -> bool {
        let Some(number) = self.live_client() else { return false };
        self.is_dual() && self.client_is_open(number) && self.client_is_idle(number)
    }

    /// Rule 12: the operator accepts the loss, where both nodes were killed and one of them refuses.
    pub(crate) fn recover_if_needed(&mut self) {
        if !self.check.loss_allowed {
            return;
        }
        let refusing = |n: &NodeId| self.nodes[n.index()].role() == Some(Role::Refusing);
        if let Some(node) = NodeId::BOTH.into_iter().find(refusing) {
            self.counts.recoveries += 1;
            self.check.loss_accepted = true;
            self.order(node, Event::Recover);
        }
    }

    fn read_back(&mut self) {
        let mut lba = 0;
        while lba < self.config.volume_blocks {
            let Some(number) = self.live_client() else { return };
            if self.read(number, lba, 1).is_none() {
                return self.fail(NAME, "the final read is not taken".into());
            }
            let done = |w: &Self| w.client_is_idle(number) || w.live_client() != Some(number);
            if !self.run_until(PATIENCE_MS, done) {
                if self.violation().is_none() {
                    self.fail(NAME, format!("the final read of block {lba} is not answered"));
                }
                return;
            }
            if self.client_is_idle(number) {
                lba += 1;
            } else if !self.settles() {
                return; // A client that had waited has taken over only now.
            }
        }
    }

    /// Everything has been read, so that the newest read value of each block is what the disk must come to hold.
    fn compare_disk(&mut self) {
        let equal =
            |w: &World| w.disk.blocks.iter().zip(&w.check.blocks).all(|(disk, history)| *disk == history.floor());
        if self.run_until(PATIENCE_MS, equal) || self.violation().is_some() {
            return;
        }
        let differs = self.disk.blocks.iter().zip(&self.check.blocks).position(|(d, h)| *d != h.floor());
        if let Some(lba) = differs {
            let (disk, read) = (self.disk.blocks[lba], self.check.blocks[lba].floor());
            self.fail(NAME, format!("block {lba} on the disk is {disk} and stays so, read was {read}"));
        }
    }

    /// The client whose session is to work: the newest that is open, else the newest that tries.
    pub(crate) fn live_client(&self) -> Option<usize> {
        let alive = |number: &usize| {
            self.clients[*number].ended.is_none() && self.process(Host::Client(*number)) != Process::Down
        };
        (0..self.clients.len()).filter(alive).max_by_key(|&number| (self.clients[number].generation, number))
    }
}
