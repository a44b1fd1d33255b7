//! **Two disk writes over one block are never in flight together** (rule 2): the disk may land them in any order.

use std::collections::BTreeSet;

use twinsan_wire::NodeId;

use crate::disk::{Part, UnitState};
use crate::world::World;

const NAME: &str = "one_disk_write_per_block";

/// A node issues these.
pub(crate) fn check(world: &mut World, node: NodeId, parts: &[Part]) {
    let life = world.nodes[node.index()].life;
    let own = world.disk.ops.values().filter(|op| Some(op.life) == life).flat_map(|op| &op.units);
    let in_flight: Vec<Part> = own.filter(|u| u.state != UnitState::Ended).map(|u| u.part).collect();
    let mut seen = BTreeSet::new();
    for part in in_flight.iter().chain(parts) {
        if let Part::Block { lba, .. } = part
            && !seen.insert(*lba)
        {
            return world.fail(NAME, format!("node {node} has two writes over block {lba} in flight"));
        }
    }
}
