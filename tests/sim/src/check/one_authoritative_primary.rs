//! **In one epoch at most one node serves, and nobody writes the disk but who holds the fence**: after a fence the
//! winner, after a handover the node that the superblock names.

use core::fmt;

use twinsan_wire::{Incarnation, Mailbox, NodeId, Role, Superblock};

use crate::event::LifeIndex;
use crate::world::World;

const NAME: &str = "one_authoritative_primary";

/// Data or a superblock of this life reach the disk.
pub(crate) fn check_write(world: &mut World, node: NodeId, life: LifeIndex, what: &dyn fmt::Display) {
    if world.fence.entitled != Some((node, life)) {
        let entitled = world.fence.entitled.map_or("nobody".into(), |(n, l)| format!("node {n} (life {l})"));
        let message = format!("node {node} (life {life}) writes {what}; {entitled} may");
        world.fail(NAME, message);
    }
}

/// A new epoch is on the disk: it may name the other node, which goes on without a fence (rule 13).
pub(crate) fn handed_over(world: &mut World, superblock: &Superblock) {
    if superblock.epoch.0 <= std::mem::replace(&mut world.check.counted_epoch, superblock.epoch.0) {
        return; // The mending of a slot, or the clean flag.
    }
    let Some(primary) = superblock.primary_member() else { return };
    let entitled_node = world.fence.entitled.map(|(node, _)| node);
    if entitled_node != Some(primary.node)
        && let Some(life) = world.life_behind(primary.node, primary.incarnation)
    {
        world.fence.entitled = Some((primary.node, life));
    }
}

/// A node tells its client what may be completed.
pub(crate) fn check_completion(world: &mut World, node: NodeId, mailbox: &Mailbox) {
    if let Mailbox::Completion { epoch, from, durable: Some(_), .. } = mailbox {
        serves(world, node, epoch.0, *from);
    }
}

/// A node may have begun to serve.
pub(crate) fn check_role(world: &mut World, node: NodeId) {
    let Some(machine) = &world.nodes[node.index()].machine else { return };
    let status = machine.status();
    if status.role == Role::Primary {
        serves(world, node, status.superblock.epoch.0, status.incarnation);
    }
}

fn serves(world: &mut World, node: NodeId, epoch: u64, incarnation: Incarnation) {
    let first = *world.check.primaries.entry(epoch).or_insert((node, incarnation));
    if first != (node, incarnation) {
        let message = format!("{node} {incarnation} serves in epoch e{epoch}, as {} {} did", first.0, first.1);
        world.fail(NAME, message);
    }
}
