//! What scripts see and do beside the faults of ordinary runs: exact interleavings need exact hands.

use twinsan_replica::{HandedOver, Obstacle, RelayPhase, Replica};
use twinsan_wire::{NodeId, Role, Seq, Superblock};

use crate::hold::HoldId;
use crate::stamp::Version;
use crate::trace::trace;
use crate::world::World;

impl World {
    /// What a node says that it does; `None`: nothing runs there.
    #[must_use]
    pub fn role(&self, node: NodeId) -> Option<Role> {
        self.nodes[node.index()].role()
    }

    /// Why a node can't hand over now.
    #[must_use]
    pub fn obstacle(&self, node: NodeId) -> Option<Obstacle> {
        self.nodes[node.index()].machine.as_ref().map_or(Some(Obstacle::NotPrimary), Replica::obstacle)
    }

    /// How the last handover from a node went.
    #[must_use]
    pub fn handed_over(&self, node: NodeId) -> Option<HandedOver> {
        self.nodes[node.index()].machine.as_ref().map(|m| m.status().handed_over)
    }

    /// Whether a node feeds the other one in the client's place.
    #[must_use]
    pub fn relay(&self, node: NodeId) -> Option<RelayPhase> {
        self.nodes[node.index()].machine.as_ref().map(|m| m.status().relay)
    }

    /// How often a client has begun to feed a node, or gone on with it after a break.
    #[must_use]
    pub fn resumes(&self, client: usize) -> u64 {
        self.clients[client].resumes
    }

    /// A client has been told that a newer session has replaced its own.
    #[must_use]
    pub fn is_superseded(&self, client: usize) -> bool {
        self.clients[client].ended == Some(twinsan_session::Ended::Superseded)
    }

    /// What a node has received of the session.
    #[must_use]
    pub fn received(&self, node: NodeId) -> Seq {
        self.nodes[node.index()].machine.as_ref().map_or(Seq::ZERO, |m| m.status().received)
    }

    /// What a node has released of the session.
    #[must_use]
    pub fn released(&self, node: NodeId) -> Seq {
        self.nodes[node.index()].machine.as_ref().map_or(Seq::ZERO, |m| m.status().released)
    }

    /// What a client's callers have been told to be done.
    #[must_use]
    pub fn completed(&self, client: usize) -> Seq {
        self.clients[client].completed()
    }

    /// What a block of the disk holds.
    ///
    /// # Panics
    /// If it is not on the volume.
    #[must_use]
    pub fn on_disk(&self, lba: u64) -> Version {
        self.disk.blocks[usize::try_from(lba).expect("a small volume")]
    }

    /// The valid slot with the highest counter.
    #[must_use]
    pub fn superblock(&self) -> Option<Superblock> {
        self.disk.superblock()
    }

    /// How often a rule has fired in this way; the words are those that `cargo sim` prints.
    ///
    /// # Panics
    /// If there is no such way.
    #[must_use]
    pub fn fired_so_far(&self, rule: u8, way: &str) -> u64 {
        let mut entries = self.counts.rules.entries();
        entries.find(|&(r, words, _)| (r, words) == (rule, way)).map(|(_, _, n)| n).expect("a rule and its way")
    }

    /// Both slots rot.
    pub fn rot_both_slots(&mut self) {
        trace!(self, "disk", "=== both slots rot");
        self.disk.slots = [None; 2];
    }

    /// The slot that was written last rots.
    pub fn rot_newest_slot(&mut self) {
        self.rot_slot(self.newest_slot());
    }

    /// The slot that was written before it rots.
    pub fn rot_older_slot(&mut self) {
        self.rot_slot(1 - self.newest_slot());
    }

    fn newest_slot(&self) -> usize {
        let [a, b] = self.disk.slots.map(|slot| slot.map_or(0, |s| s.counter));
        usize::from(b > a)
    }

    fn rot_slot(&mut self, slot: usize) {
        trace!(self, "disk", "=== slot {slot} rots");
        self.disk.slots[slot] = None;
    }

    /// The node's process is killed, and none of its writes in flight ever left the host.
    pub fn crash_and_lose_writes(&mut self, node: NodeId) {
        let life = self.nodes[node.index()].life;
        self.crash_node(node);
        self.disk.ops.retain(|_, op| Some(op.life) != life);
    }

    /// A node's next write is answered with a reservation conflict, though its key is there.
    pub fn conflict_once(&mut self, node: NodeId) {
        self.disk.false_conflict[node.index()] = true;
    }

    /// A path of the node came back, and the keys are read: the first half of its registration.
    #[must_use]
    pub fn path_reads_keys(&mut self, node: NodeId) -> Option<u64> {
        self.fence.read_keys(node)
    }

    /// The second half: it is registered, unless the keys have changed since then.
    pub fn path_registers(&mut self, node: NodeId, seen: u64) {
        self.register_path(node, seen);
    }

    /// Both nodes' RAM is about to be lost: only what is on the disk is promised from here on (rule 12).
    pub fn allow_loss(&mut self) {
        self.check.loss_allowed = true;
    }

    /// Lets go of everything that is held.
    pub fn release_all(&mut self) {
        for hold in self.holds.all() {
            self.release(hold);
        }
    }

    /// A promise that only the script can judge has been broken.
    pub fn broken(&mut self, what: &str) {
        self.fail("script", what.to_owned());
    }
}

impl crate::hold::Holds {
    fn all(&self) -> Vec<HoldId> {
        self.ids().collect()
    }
}
