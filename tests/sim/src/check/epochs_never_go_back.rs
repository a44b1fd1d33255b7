//! **The superblock's epoch never goes back**, and its counter tells the newer slot.

use twinsan_wire::{NodeId, Superblock};

use crate::check::{members_never_lie, one_authoritative_primary};
use crate::event::LifeIndex;
use crate::trace::trace;
use crate::world::World;

const NAME: &str = "epochs_never_go_back";

impl World {
    /// A superblock slot is on the disk.
    pub(crate) fn slot_lands(&mut self, node: NodeId, life: LifeIndex, slot: usize, superblock: Superblock) {
        if self.trace.on {
            let says = self.say_superblock(&superblock);
            trace!(self, crate::event::Host::Node(node), "disk: slot {slot} = {says} (counter {})", superblock.counter);
        }
        one_authoritative_primary::check_write(self, node, life, &"the superblock");
        if superblock.epoch.0 < self.check.settled_epoch {
            let what = format!("node {node} writes {superblock}, epoch e{} was settled", self.check.settled_epoch);
            self.fail(NAME, what);
        }
        let same = self.disk.slots.into_iter().flatten().find(|s| s.counter == superblock.counter);
        if same.is_some_and(|s| s != superblock) {
            self.fail(NAME, format!("node {node} writes another superblock with counter {}", superblock.counter));
        }
        self.disk.slots[slot] = Some(superblock);
        if self.disk.settled().is_some() {
            self.check.settled_epoch = self.check.settled_epoch.max(superblock.epoch.0);
            self.counts.epochs += 1;
            members_never_lie::check(self, 0..self.config.volume_blocks);
        }
    }

    /// The writer hears that its superblock is on the disk: from now on it counts.
    pub(crate) fn superblock_settled(&mut self, writer: LifeIndex, superblock: Superblock) {
        one_authoritative_primary::counts(self, writer, superblock);
    }
}
