//! Who may be struck without breaking the promise's one condition: the RAM of both members is never lost (protocol,
//! section 2).
//!
//! A *strike* is whatever may end a process, or throw away what it holds: SIGKILL, SIGTERM, and SIGSTOP too, as a frozen
//! node is fenced or dropped, and where both nodes run on one kernel the fence kills. Cuts are none by themselves, but the
//! takeover that follows one may fence, and then a node is dead whom nobody here has struck.
//!
//! The superblock names the members, and only two of its states matter to a node X that is to be struck:
//!
//! * X is a member together with a life of the other node's, Y's, that is over. Then X is the only one that has what was
//!   completed and is not on the disk yet. It is **owed**, and must not be struck: neither while it takes over, however
//!   long its drain takes, nor while it has not dropped Y yet.
//! * Anything else. X alone: what was completed is on the disk. X and a living Y: Y has everything. X no member: nobody
//!   needs it.
//!
//! So X becomes owed when Y is struck or is found dead, and is so until a status that was *asked for afterwards* shows
//!
//! * X primary, and the only member: the others' lives are over for the superblock too; or
//! * one primary and one secondary, both members by their present incarnations, in one epoch, and no strike under way:
//!   superblocks only go forward, so no dead life comes back into one.
//!
//! What a node says is the superblock as it knows it to be on the disk. It may be old, but not in a way that matters: with
//! Y dead, X alone writes superblocks, and says no newer one than it has written; where X says an older one, in which it was
//! alone, it would have to have lost that place to Y first, and then it is no primary any more, or (local-lock) dead.
//!
//! Between the look at the statuses and the strike, Y may be killed by X's own fence. So whoever strikes freezes X first,
//! then looks whether Y is about to die, and lets X go on if it is ([`crate::strike`]).

use std::time::Instant;

use twinsan_control::admin::VolumeStatus;

use crate::world::San;

/// A status, and when it was asked for.
#[derive(Clone, Debug)]
pub struct Look {
    /// Before this moment nothing of it is from.
    pub asked: Instant,
    /// What the node said.
    pub status: VolumeStatus,
}

impl Look {
    /// Primary, and nobody else is a member.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        let status = &self.status;
        status.role == "primary" && !status.dual && self.names(status) && status.members.len() == 1
    }

    /// Whether it names this incarnation of a node as a member.
    fn names(&self, node: &VolumeStatus) -> bool {
        self.status.members.iter().any(|member| member.incarnation == node.incarnation)
    }
}

/// One primary and one secondary, of one epoch, who both name both. Gives the primary.
#[must_use]
pub fn dual(looks: &[Option<Look>; 2]) -> Option<San> {
    let [Some(one), Some(two)] = looks else { return None };
    let whole = |a: &Look, b: &Look| a.status.dual && a.names(&a.status) && a.names(&b.status);
    if one.status.epoch != two.status.epoch || !whole(one, two) || !whole(two, one) {
        return None;
    }
    match (one.status.role.as_str(), two.status.role.as_str()) {
        ("primary", "secondary") => Some(San::One),
        ("secondary", "primary") => Some(San::Two),
        _ => None,
    }
}

/// What is known about whom the volume needs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Guard {
    nodes: [Node; 2],
}

#[derive(Clone, Copy, Debug, Default)]
struct Node {
    /// It is struck, and has not come back from that.
    under: bool,
    /// Since when it may be the only one that has what was completed.
    owed: Option<Instant>,
}

impl Guard {
    /// Whether the promise allows it.
    #[must_use]
    pub fn may_strike(&self, san: San) -> bool {
        self.nodes[san.index()].owed.is_none()
    }

    /// Whether it is struck, and has not come back from that.
    #[must_use]
    pub fn is_struck(&self, san: San) -> bool {
        self.nodes[san.index()].under
    }

    /// A node is struck, at `now` or before.
    ///
    /// # Panics
    /// If it was owed: then this driver has broken what it must not break, and all that follows is worth nothing.
    pub fn struck(&mut self, san: San, now: Instant) {
        assert!(self.may_strike(san), "{san} was struck though {} has lost its RAM", san.other());
        self.died(san, now);
    }

    /// A node is dead by itself: fenced by the other one, which knew the superblock when it did that, and may be owed
    /// from then on.
    pub fn died(&mut self, san: San, now: Instant) {
        self.nodes[san.index()] = Node { under: true, owed: None };
        self.nodes[san.other().index()].owed = Some(now);
    }

    /// A node runs, and nothing that was done to it goes on: it was started again, or has thawed.
    pub fn back(&mut self, san: San) {
        self.nodes[san.index()].under = false;
    }

    /// What the nodes say by now.
    pub fn looked(&mut self, looks: &[Option<Look>; 2]) {
        for san in San::BOTH {
            let Some(since) = self.nodes[san.index()].owed else { continue };
            let fresh = |san: San| looks[san.index()].as_ref().is_some_and(|look| look.asked > since);
            let alone = fresh(san) && looks[san.index()].as_ref().is_some_and(Look::is_alone);
            let both = San::BOTH.into_iter().all(|san| fresh(san) && !self.nodes[san.index()].under);
            if alone || both && dual(looks).is_some() {
                self.nodes[san.index()].owed = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use twinsan_control::admin::MemberStatus;

    use super::*;

    fn status(san: San, life: u32, role: &str, epoch: u64, members: &[(San, u32)]) -> VolumeStatus {
        let incarnation = |san: San, life: u32| format!("{:08x}{life:08x}", san.index());
        let member =
            |&(san, life): &(San, u32)| MemberStatus { node: san.name().into(), incarnation: incarnation(san, life) };
        VolumeStatus {
            role: role.into(),
            incarnation: incarnation(san, life),
            epoch,
            members: members.iter().map(member).collect(),
            dual: members.len() == 2,
            ..blank()
        }
    }

    fn blank() -> VolumeStatus {
        serde_json::from_value(serde_json::json!({
            "name": "vol1", "uuid": "", "size_bytes": 0, "block_bytes": 4096, "role": "", "incarnation": "", "epoch": 0,
            "primary": null, "members": [], "joiner": null, "dual": false, "clean": false, "generation": 0,
            "session": null,
            "peer": { "node": "", "connected": false, "connected_ms": null, "role": null, "path_state": null, "trouble": null },
            "handover": { "state": "never", "epoch": null, "pause_ms": null, "why": null },
            "lane": { "ring_bytes": 0, "slots": 0, "received": 0, "durable": 0, "flushed": 0, "released": 0,
                      "staged_blobs": 0, "staged_bytes": 0, "staged_age_ms": 0, "open_reads": 0 },
            "memory": { "bytes": 0, "pages": "", "locked": false, "advice": [] },
            "disk": { "path": "", "facts": [], "well": true, "path_state": "usable", "last_error": null, "errors": 0 },
            "counters": {}
        }))
        .unwrap()
    }

    /// Moments, in order.
    fn at(ms: u64) -> Instant {
        static BEGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *BEGIN.get_or_init(Instant::now) + Duration::from_millis(ms)
    }

    fn look(ms: u64, status: VolumeStatus) -> Option<Look> {
        Some(Look { asked: at(ms), status })
    }

    const ONE: San = San::One;
    const TWO: San = San::Two;

    #[test]
    fn who_has_survived_is_not_struck_before_it_says_that_it_is_alone() {
        let mut guard = Guard::default();
        guard.struck(ONE, at(10));
        assert!(!guard.may_strike(TWO));
        let before = status(TWO, 1, "secondary", 5, &[(ONE, 1), (TWO, 1)]);
        guard.looked(&[None, look(11, before)]);
        let draining = status(TWO, 1, "taking-over", 5, &[(ONE, 1), (TWO, 1)]);
        guard.looked(&[None, look(20, draining)]);
        assert!(!guard.may_strike(TWO));
        guard.looked(&[None, look(30, status(TWO, 1, "primary", 6, &[(TWO, 1)]))]);
        assert!(guard.may_strike(TWO));
    }

    #[test]
    fn what_was_asked_for_before_the_strike_says_nothing() {
        let mut guard = Guard::default();
        guard.struck(ONE, at(10));
        guard.looked(&[None, look(9, status(TWO, 1, "primary", 6, &[(TWO, 1)]))]);
        assert!(!guard.may_strike(TWO));
    }

    #[test]
    fn a_dead_life_in_the_superblock_keeps_the_survivor_owed_though_the_node_is_back() {
        let mut guard = Guard::default();
        guard.struck(ONE, at(10));
        guard.back(ONE);
        let waits = status(ONE, 2, "waiting", 5, &[(ONE, 1), (TWO, 1)]);
        let primary = status(TWO, 1, "primary", 5, &[(ONE, 1), (TWO, 1)]);
        guard.looked(&[look(20, waits), look(20, primary)]);
        assert!(!guard.may_strike(TWO));
        assert!(guard.may_strike(ONE), "it has nothing");
        let both = [(TWO, 1), (ONE, 2)];
        let again = [status(ONE, 2, "secondary", 7, &both), status(TWO, 1, "primary", 7, &both)];
        guard.looked(&again.map(|status| look(30, status)));
        assert!(guard.may_strike(TWO));
    }

    #[test]
    fn two_that_look_whole_while_one_is_frozen_or_leaving_release_nobody() {
        let mut guard = Guard::default();
        guard.struck(ONE, at(10));
        let both = [(TWO, 1), (ONE, 1)];
        let looks = [status(ONE, 1, "secondary", 5, &both), status(TWO, 1, "primary", 5, &both)].map(|s| look(20, s));
        guard.looked(&looks);
        assert!(!guard.may_strike(TWO));
        guard.back(ONE);
        guard.looked(&looks);
        assert!(guard.may_strike(TWO));
    }

    #[test]
    #[should_panic(expected = "san2 was struck though san1 has lost its RAM")]
    fn a_strike_at_the_survivor_ends_everything() {
        let mut guard = Guard::default();
        guard.struck(ONE, at(10));
        guard.struck(TWO, at(11));
    }
}
