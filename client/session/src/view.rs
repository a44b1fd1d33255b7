//! Who serves, as the nodes tell it: hints from anybody, knowledge from a primary.

use twinsan_wire::{Epoch, Generation, Incarnation, Member, Members, NodeId, Role};

/// What a node's View message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct View {
    pub(crate) role: Role,
    pub(crate) from: Incarnation,
    pub(crate) epoch: Epoch,
    pub(crate) primary: Option<NodeId>,
    pub(crate) members: Members,
    pub(crate) joiner: Option<Incarnation>,
    pub(crate) generation: Generation,
}

impl View {
    /// Whether `node` has a part in the data path as this View has it. Who serves is a member. A joiner is named by its primary
    /// alone, whose Views become what is known.
    pub(crate) fn concerns(&self, node: NodeId) -> bool {
        self.members.of(node).is_some()
    }
}

/// The newest epoch that its own primary has told: the only one that the session acts under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Known {
    pub(crate) epoch: Epoch,
    pub(crate) primary: Member,
    pub(crate) members: Members,
    pub(crate) joiner: Option<Incarnation>,
    pub(crate) generation: Generation,
}

impl Known {
    /// From the View of a node that says it is the primary. The error says how it contradicts itself.
    pub(crate) fn told_by(node: NodeId, view: &View) -> Result<Self, &'static str> {
        if view.primary != Some(node) {
            return Err("a primary whose View names another primary");
        }
        let primary = Member { node, incarnation: view.from };
        if !view.members.contains(primary) {
            return Err("a primary that is not among the members");
        }
        // Two members leave no place for a joiner: it has just become the second one.
        let joiner = view.joiner.filter(|_| !view.members.is_dual());
        Ok(Self { epoch: view.epoch, primary, members: view.members, joiner, generation: view.generation })
    }

    /// Whether `next` may follow. Within one epoch only the joiner may change: primary, members and generation each
    /// make a new one.
    pub(crate) fn may_become(&self, next: &Self) -> Result<(), &'static str> {
        assert!(next.epoch >= self.epoch, "an older epoch is a hint");
        if next.generation < self.generation {
            return Err("a newer epoch with an older generation");
        }
        let same = next.primary == self.primary && next.members == self.members && next.generation == self.generation;
        if next.epoch == self.epoch && !same { Err("one epoch, two contents") } else { Ok(()) }
    }

    /// The incarnation of `node` whose lane counts, or is about to: a member or the joiner. It is fed, and what it has
    /// not released is kept.
    pub(crate) fn holder(&self, node: NodeId) -> Option<Incarnation> {
        if let Some(member) = self.members.of(node) {
            return Some(member);
        }
        if node == self.primary.node { None } else { self.joiner }
    }

    /// Whether this very incarnation is a holder.
    pub(crate) fn holds(&self, member: Member) -> bool {
        self.holder(member.node) == Some(member.incarnation)
    }
}
