//! What goes wrong with the disk, beside a node's losing it altogether: some of its I/O fails, it is slow, it is full, a path
//! fails over, a slot rots or is torn.
//!
//! A write that has failed may have landed all the same, and of a batch some blocks may have: nobody knows till it is
//! written again.

use twinsan_replica::DiskError;
use twinsan_wire::NodeId;

use crate::config::FenceKind;
use crate::disk::{Part, UnitState};
use crate::event::{Ev, Host, OpId};
use crate::faults::Remedy;
use crate::stamp::Version;
use crate::trace::trace;
use crate::world::World;

/// What ails it.
#[derive(Clone, Default)]
pub(crate) struct Ills {
    /// Of a thousand operations of a node so many fail.
    flaky: [u64; 2],
    /// So many times longer than usual a node's operations take; 0: as usual.
    slow: [u64; 2],
    /// Nothing of a node's gets there before this time.
    waits_until_us: [u64; 2],
    /// A block that was never written has no place (a thin LUN's pool is used up).
    full: bool,
    /// The next slot that is written is not written to its end, and nor does its writer go on.
    tear_next: bool,
}

/// What becomes of a write that gets to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Landing {
    Lands,
    /// It lands, and is said to have failed.
    LandsAndFails,
    Fails,
}

impl World {
    // ---- for scripts, too ---------------------------------------------------------------------------------------

    /// From now on so many in a thousand of a node's operations fail; half of the failing writes land.
    pub fn fail_some_io(&mut self, node: NodeId, permille: u64) {
        trace!(self, Host::Node(node), "=== {permille} in a thousand of its disk operations fail");
        self.disk.ills.flaky[node.index()] = permille;
    }

    /// From now on a node's operations take so many times as long.
    pub fn slow_disk(&mut self, node: NodeId, times: u64) {
        trace!(self, Host::Node(node), "=== its disk is {times} times slower");
        self.disk.ills.slow[node.index()] = times;
    }

    /// From now on there is no place for a block that was never written, or there is.
    pub fn fill_disk(&mut self, full: bool) {
        trace!(self, "disk", "=== full: {full}");
        self.disk.ills.full = full;
    }

    /// The next superblock slot that is written is left half-written: its writer dies.
    pub fn tear_next_slot(&mut self) {
        trace!(self, "disk", "=== whoever writes a superblock slot next dies half-way");
        self.disk.ills.tear_next = true;
    }

    /// A path of a node is lost, and another one is there: what is under way waits for so long.
    pub fn fail_path_over(&mut self, node: NodeId, wait_us: u64) {
        trace!(self, Host::Node(node), "=== its I/O waits for another path: {} ms", wait_us / 1000);
        self.disk.ills.waits_until_us[node.index()] = self.now_us + wait_us;
    }

    // ---- drawn --------------------------------------------------------------------------------------------------

    pub(crate) fn some_io_fails(&mut self) -> bool {
        let node = self.any_node();
        if self.disk.ills.flaky[node.index()] > 0 {
            return false;
        }
        let permille = self.rng.between(50, 500);
        self.fail_some_io(node, permille);
        self.mend_after(Remedy::DiskWell(node));
        true
    }

    pub(crate) fn disk_is_slow(&mut self) -> bool {
        let node = self.any_node();
        if self.disk.ills.slow[node.index()] > 0 {
            return false;
        }
        let times = self.rng.between(5, 60);
        self.slow_disk(node, times);
        self.mend_after(Remedy::DiskWell(node));
        true
    }

    pub(crate) fn disk_is_full(&mut self) -> bool {
        if self.disk.ills.full {
            return false;
        }
        self.fill_disk(true);
        self.mend_after(Remedy::DiskHasRoom);
        true
    }

    pub(crate) fn path_fails_over(&mut self) -> bool {
        let node = self.any_node();
        let wait = self.rng.between(20_000, 800_000);
        self.fail_path_over(node, wait);
        true
    }

    pub(crate) fn slot_is_to_be_torn(&mut self) -> bool {
        if self.disk.ills.tear_next || self.config.fence != FenceKind::Pr {
            return false; // With the claim, a write that the kernel has begun ends.
        }
        self.tear_next_slot();
        true
    }

    pub(crate) fn disk_is_well(&mut self, node: NodeId) {
        self.disk.ills.flaky[node.index()] = 0;
        self.disk.ills.slow[node.index()] = 0;
    }

    pub(crate) fn mend_ills(&mut self) {
        self.disk.ills = Ills::default();
    }

    // ---- what they do -------------------------------------------------------------------------------------------

    /// How long a node's operation takes.
    pub(crate) fn disk_delay_of(&mut self, node: NodeId) -> u64 {
        self.disk_delay() * self.disk.ills.slow[node.index()].max(1)
    }

    /// What the node sends is queued above its paths.
    pub(crate) fn waits_for_path(&self, node: NodeId) -> bool {
        self.disk.ills.waits_until_us[node.index()] > self.now_us
    }

    /// The node's heartbeat on the disk may stand still though it lives.
    pub(crate) fn disk_is_late(&self, node: NodeId) -> bool {
        self.waits_for_path(node) || self.disk.ills.slow[node.index()] > 0
    }

    /// An operation that has to wait is put off.
    pub(crate) fn is_put_off(&mut self, node: NodeId, op: OpId, unit: usize) -> bool {
        let until = self.disk.ills.waits_until_us[node.index()];
        let waits = self.waits_for_path(node);
        if waits {
            let after = self.rng.between(1, 2_000);
            self.after(until - self.now_us + after, Ev::Disk { op, unit });
        }
        waits
    }

    /// Whether a write that is let through lands, and what is said of it.
    pub(crate) fn landing(&mut self, node: NodeId, part: Part) -> Landing {
        if let Part::Block { lba, .. } = part
            && self.disk.ills.full
            && self.disk.blocks[usize::try_from(lba).expect("a small volume")] == Version::NEVER
        {
            self.counts.writes_without_room += 1;
            return Landing::Fails;
        }
        if !self.fails_now(node) {
            return Landing::Lands;
        }
        if self.rng.coin() {
            self.counts.landed_and_failed += 1;
            return Landing::LandsAndFails;
        }
        Landing::Fails
    }

    pub(crate) fn read_outcome(&mut self, node: NodeId) -> Result<(), DiskError> {
        if self.fails_now(node) { Err(DiskError::Failed) } else { Ok(()) }
    }

    fn fails_now(&mut self, node: NodeId) -> bool {
        let permille = self.disk.ills.flaky[node.index()];
        let fails = permille > 0 && self.rng.chance(permille);
        self.counts.io_errors += u64::from(fails);
        fails
    }

    /// The writer of a slot dies in the middle of it; the other slot is good, and nobody's RAM is lost by it.
    pub(crate) fn dies_tearing(&mut self, id: OpId, unit: usize) -> bool {
        let op = &self.disk.ops[&id];
        let (node, life, at) = (op.node, op.life, op.units[unit]);
        let Part::Slot(slot) = at.part else { return false };
        let there = self.disk.ills.tear_next && self.is_running(node, life) && at.state == UnitState::Pending;
        let writes = self.disk.is_reached_by(node) && self.may_write(node, life);
        if !there || !writes || self.disk.slots[1 - slot].is_none() || self.would_lose_ram(node) {
            return false;
        }
        trace!(self, "disk", "slot {slot} is torn");
        self.disk.ills.tear_next = false;
        self.disk.slots[slot] = None;
        self.disk.ops.get_mut(&id).expect("it is there").units[unit].state = UnitState::Ended;
        self.counts.slots_torn += 1;
        self.crash_node(node);
        self.mend_after(Remedy::Start(node));
        true
    }
}
