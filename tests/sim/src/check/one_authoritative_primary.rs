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

/// A superblock is on the disk, as its writer hears. The primary may have named the other node, which goes on without
/// a fence (rule 13); who mends a slot or takes over hands nothing over.
pub(crate) fn counts(world: &mut World, writer: LifeIndex, superblock: Superblock) {
    let before = std::mem::replace(&mut world.check.counted, superblock);
    let life_of = |world: &World, superblock: Superblock| {
        let primary = superblock.primary_member()?;
        Some((primary.node, world.life_behind(primary.node, primary.incarnation)?))
    };
    let serves = world.nodes[world.lives[writer].node.index()].role() == Some(Role::Primary);
    let was_primary = serves && life_of(world, before).is_some_and(|(_, life)| life == writer);
    let hands_over = was_primary && before.members == superblock.members;
    if let Some((node, life)) = life_of(world, superblock).filter(|_| hands_over)
        && life != writer
    {
        world.fence.entitled = Some((node, life));
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
    check_status(world, node, &status);
}

/// The same of one that has just said how it stands.
pub(crate) fn check_status(world: &mut World, node: NodeId, status: &twinsan_replica::Status) {
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
