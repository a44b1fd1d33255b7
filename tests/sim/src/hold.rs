//! Exact interleavings for scripts: messages and disk accesses that match are held until they are let go.

use std::sync::Arc;

use twinsan_wire::{NodeId, Superblock};

use crate::disk::{Part, What};
use crate::event::{Host, Item, OpId};
use crate::world::World;

/// A hold, to let go of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldId(u64);

/// An access that reaches the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskAccess {
    /// A block's write.
    Block {
        /// Which.
        lba: u64,
        /// By which blob.
        seq: u64,
    },
    /// A superblock slot's write.
    Slot {
        /// 0 for the one that is written first, 1 for the other.
        turn: usize,
        /// Its contents.
        superblock: Superblock,
    },
    /// The heartbeat's.
    Beat,
    /// Any read.
    Read,
}

type ItemTest = Arc<dyn Fn(Host, Host, &Item) -> bool + Send + Sync>;
type DiskTest = Arc<dyn Fn(NodeId, DiskAccess) -> bool + Send + Sync>;

/// What is held.
#[derive(Clone, Default)]
pub(crate) struct Holds {
    items: Vec<(HoldId, ItemTest)>,
    disk: Vec<(HoldId, DiskTest)>,
    next: u64,
}

impl Holds {
    pub(crate) fn ids(&self) -> impl Iterator<Item = HoldId> + '_ {
        self.items.iter().map(|(id, _)| *id).chain(self.disk.iter().map(|(id, _)| *id))
    }

    pub(crate) fn holds_item(&self, from: Host, to: Host, item: &Item) -> bool {
        self.items.iter().any(|(_, test)| test(from, to, item))
    }

    pub(crate) fn holds_disk(&self, world: &World, op: OpId, unit: usize) -> bool {
        if self.disk.is_empty() {
            return false;
        }
        let op = &world.disk.ops[&op];
        let access = match (op.units[unit].part, &op.what) {
            (Part::Block { lba, seq, .. }, _) => DiskAccess::Block { lba, seq },
            (Part::Slot(_), What::Superblock { superblock }) => {
                DiskAccess::Slot { turn: unit, superblock: *superblock }
            }
            (Part::Beat, _) => DiskAccess::Beat,
            _ => DiskAccess::Read,
        };
        self.disk.iter().any(|(_, test)| test(op.node, access))
    }
}

impl World {
    /// Holds what travels from one host to another and matches; what comes after it on its connection waits too.
    pub fn hold_messages(&mut self, test: impl Fn(Host, Host, &Item) -> bool + Send + Sync + 'static) -> HoldId {
        let id = self.next_hold();
        self.holds.items.push((id, Arc::new(test)));
        id
    }

    /// Holds accesses that reach the disk and match.
    pub fn hold_disk(&mut self, test: impl Fn(NodeId, DiskAccess) -> bool + Send + Sync + 'static) -> HoldId {
        let id = self.next_hold();
        self.holds.disk.push((id, Arc::new(test)));
        id
    }

    /// Lets go.
    pub fn release(&mut self, id: HoldId) {
        self.holds.items.retain(|(hold, _)| *hold != id);
        self.holds.disk.retain(|(hold, _)| *hold != id);
        self.deliver_all();
        self.land_all_due();
    }

    fn next_hold(&mut self) -> HoldId {
        self.holds.next += 1;
        HoldId(self.holds.next)
    }
}
