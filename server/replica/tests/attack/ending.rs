//! Ending in order (SIGTERM): who is told, what is waited for, and in what order.

use twinsan_replica::{Action, Event};
use twinsan_wire::{Generation, NodeId, PeerBody, Role, Seq};

use crate::rig::{BROKEN, Rig, a_alone, is_flush, tells};

fn ends(action: &Action) -> bool {
    matches!(action, Action::WriteSuperblock(superblock) if superblock.clean)
}

/// The primary goes on alone at once, and does not wait for a heartbeat. With the heartbeats it is said again, as a link may
/// have swallowed it.
#[test]
fn a_mirror_says_at_once_that_it_leaves() {
    let mirror = Rig::secondary();
    let mut joiner = Rig::linked(NodeId::B, a_alone());
    joiner.hear_of_primary();
    joiner.peer(1, 1, PeerBody::JoinAccept { generation: Generation(1), first: Some(Seq(1)) });
    for (mut rig, word) in [(mirror, PeerBody::Leave), (joiner, PeerBody::JoinAbort)] {
        rig.said();
        rig.event(Event::Shutdown);
        assert!(tells(&rig.said(), |body| *body == word), "{word:?}");
        rig.wait_with(200, 1, 1, Role::Primary);
        assert!(tells(&rig.said(), |body| *body == word), "{word:?} again");
    }
}

/// The primary's word may come at any time: the disk is asked only when it has not come for long.
#[test]
fn a_mirror_that_leaves_asks_the_disk_last() {
    let mut rig = Rig::secondary();
    rig.event(Event::Shutdown);
    rig.said();
    rig.wait_with(2900, 1, 1, Role::Primary);
    assert!(!rig.said().contains(&Action::ReadSuperblock));
    rig.wait_with(300, 1, 1, Role::Primary);
    assert!(rig.said().contains(&Action::ReadSuperblock));
}

/// Who is alone writes everything out, marks the volume clean, and lets the claim go when nothing of its own is in flight.
#[test]
fn a_lone_primary_ends_with_all_on_the_disk_and_the_volume_clean() {
    let mut rig = Rig::attached();
    rig.hold(|a| is_flush(a) || matches!(a, Action::WriteHeartbeat { .. }));
    rig.wait(250);
    rig.write(1, 1, 0);
    rig.event(Event::Shutdown);
    let batch = rig.pending.iter().find_map(|a| if let Action::Flush { batch, .. } = a { Some(*batch) } else { None });
    let batch = batch.expect("it is being flushed");
    rig.end(is_flush, Event::Flushed { batch, result: BROKEN, us: 100 });
    rig.wait(50);
    assert!(!rig.said().iter().any(ends), "a blob is not on the disk");
    rig.hold(|a| matches!(a, Action::WriteHeartbeat { .. }));
    rig.wait(200);
    assert!(rig.disk.superblock.clean && rig.status().flushed == Seq(1));
    assert!(!rig.said().contains(&Action::ReleaseFence), "a heartbeat is on its way");
    rig.let_go();
    let said = rig.said();
    assert!(said.contains(&Action::ReleaseFence) && said.last() == Some(&Action::Exit), "{said:?}");
}

#[test]
fn a_primary_that_ends_lets_nobody_in() {
    let mut rig = Rig::attached();
    rig.joining(1);
    rig.said();
    rig.event(Event::Shutdown);
    assert!(tells(&rig.said(), |body| *body == PeerBody::JoinAbort));
    rig.wait_with(200, 1, 1, Role::Waiting);
    assert!(rig.said().contains(&Action::Exit));
}

/// It has just joined, and is about to say so; but not for ever.
#[test]
fn a_primary_that_ends_waits_so_long_for_the_other_ones_word() {
    let mut rig = Rig::dual();
    rig.peer_status(1, 1, Role::Joining);
    rig.event(Event::Shutdown);
    rig.wait_with(2900, 1, 1, Role::Joining);
    assert!(rig.status().dual);
    rig.wait_with(300, 1, 1, Role::Joining);
    assert!(!rig.disk.superblock.members.is_dual(), "rule 7");
    assert!(rig.said().contains(&Action::Exit));
}
