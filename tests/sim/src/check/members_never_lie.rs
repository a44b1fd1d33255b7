//! **Every incarnation in the superblock's members that is alive holds every completed blob that is not on the
//! disk.** Not by anybody's word: its memory is looked into.

use twinsan_wire::NodeId;

use crate::world::World;

const NAME: &str = "members_never_lie";

/// Looks at these blocks, under what the disk says now.
pub(crate) fn check(world: &mut World, lbas: core::ops::Range<u64>) {
    let Some(superblock) = world.disk.superblock() else { return };
    if world.check.loss_allowed {
        return;
    }
    for node in NodeId::BOTH {
        let Some(life) = superblock.members.of(node).and_then(|i| world.life_behind(node, i)) else { continue };
        for lba in lbas.clone() {
            let floor = world.check.block(lba).floor();
            let disk = world.disk.blocks[usize::try_from(lba).expect("a small volume")];
            if disk < floor && !world.memory_holds(life, lba, floor) {
                let what = format!("member {node} lacks {floor} of block {lba}, the disk has {disk}; {superblock}");
                return world.fail(NAME, what);
            }
        }
    }
}
