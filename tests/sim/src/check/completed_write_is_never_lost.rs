//! **A completed write is durable, and so is all that a read has returned**: it is on the disk, or in the RAM of a
//! living member. A value on the disk is never replaced by an older one while a newer one has been completed.

use twinsan_wire::NodeId;

use crate::check::members_never_lie;
use crate::client::Extent;
use crate::stamp::Version;
use crate::world::World;

const NAME: &str = "completed_write_is_never_lost";

/// A client's caller has been told that a write succeeded.
pub(crate) fn completed(world: &mut World, version: Version, extent: Extent) {
    for lba in extent.lbas() {
        let history = world.check.block(lba);
        history.completed = history.completed.max(version);
        if let Some((by, value)) = history.settled
            && version.generation < by
            && version > value
        {
            let what = format!("{version} of block {lba} completes after session g{by} has read {value}");
            return world.fail(NAME, what);
        }
        held_somewhere(world, lba);
    }
    members_never_lie::check(world, extent.lbas());
}

/// A write has landed on a block of the disk, where `before` was. While members hold what has completed the disk may
/// lag, and even go back to what a newer blob is going to cover.
pub(crate) fn overwritten(world: &mut World, lba: u64, before: Version) {
    let now = world.disk.blocks[usize::try_from(lba).expect("a small volume")];
    if now < before && now < world.check.block(lba).floor() {
        held_somewhere(world, lba);
        members_never_lie::check(world, lba..lba + 1);
    }
}

/// A node begins to serve: it must have everything.
pub(crate) fn serving(world: &mut World, node: NodeId) {
    let life = world.nodes[node.index()].life.expect("it serves");
    for lba in 0..world.config.volume_blocks {
        let floor = world.check.block(lba).floor();
        let disk = world.disk.blocks[usize::try_from(lba).expect("a small volume")];
        if disk < floor && !world.memory_holds(life, lba, floor) {
            let what =
                format!("node {node} serves without {floor} of block {lba}: the disk has {disk}, its RAM nothing");
            return world.fail(NAME, what);
        }
    }
}

impl World {
    /// A process has ended: is anything gone that counts?
    pub(crate) fn check_amnesia(&mut self) {
        for lba in 0..self.config.volume_blocks {
            held_somewhere(self, lba);
        }
    }
}

fn held_somewhere(world: &mut World, lba: u64) {
    let floor = world.check.block(lba).floor();
    let disk = world.disk.blocks[usize::try_from(lba).expect("a small volume")];
    if disk >= floor || world.check.loss_allowed {
        return;
    }
    let Some(superblock) = world.disk.superblock() else { return };
    let holds = |world: &World, node: NodeId| {
        let life = superblock.members.of(node).and_then(|i| world.life_behind(node, i));
        life.is_some_and(|life| world.memory_holds(life, lba, floor))
    };
    if !NodeId::BOTH.into_iter().any(|node| holds(world, node)) {
        let what = format!("{floor} of block {lba} is nowhere: the disk has {disk}, superblock {superblock}");
        world.fail(NAME, what);
    }
}
