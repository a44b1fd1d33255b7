//! When a node tries to take over, what it waits for before it does, and what it finds under the fence (rules 5, 6, 15).

use twinsan_replica::{Action, ConnId, DiskError, Event, Evidence, FenceError, LinkId, SlotRead};
use twinsan_wire::{
    ClientMsg, Epoch, Generation, Lba, Member, Members, NodeId, NodeMsg, PeerBody, Refusal, Role, Seq, Superblock,
};

use crate::rig::{BROKEN, Rig, a_alone, answers, is_fence, is_flush, is_heartbeat, is_write, other};

/// What was read, on its way to the client.
fn is_answer(action: &Action) -> bool {
    matches!(action, Action::AnswerRead { .. })
}

/// The other one ends, and nobody listens there.
fn other_ends(rig: &mut Rig) {
    rig.event(Event::LinkDown { link: LinkId(1) });
    rig.wait(100);
}

/// Node B's incarnation 1 serves alone, in a later epoch than node A knows.
fn b_alone() -> Superblock {
    let members = Members::solo(Member { node: NodeId::B, incarnation: other(1) });
    Superblock { counter: 9, epoch: Epoch(9), primary: Some(NodeId::B), members, ..a_alone() }
}

/// A primary whose key is gone. A batch or a read's answer that is in flight stays so.
fn fenced(mut rig: Rig) -> Rig {
    rig.hold(|a| is_flush(a) || is_heartbeat(a) || is_answer(a) || *a == Action::CheckFence);
    rig.wait(300);
    rig.end(is_heartbeat, Event::HeartbeatWritten(Err(DiskError::Conflict)));
    rig.end(|a| *a == Action::CheckFence, Event::FenceChecked { own: false });
    assert_eq!(rig.status().role, Role::Fenced);
    rig.said();
    rig
}

// ---- when ---------------------------------------------------------------------------------------------------------

/// After how long a node outside takes over a volume that nobody serves, while the other one says that it is `role`.
fn takes_over_from_idle(node: NodeId, role: Role, paths: bool) -> Option<u64> {
    let mut rig = Rig::linked(node, Superblock::default());
    rig.peer_paths = paths;
    let begun = rig.now;
    while rig.now < begun + 5000 {
        rig.wait_with(50, 1, 1, role);
        if rig.said().iter().any(is_fence) {
            return Some(rig.now - begun);
        }
    }
    None
}

/// Both are there and neither serves: the first node goes first, the second one when the first has done nothing for a takeover
/// timeout. One that can't serve is given as long; one that is at work is left to it.
#[test]
fn of_two_that_serve_nothing_one_goes_first() {
    for idle in [Role::Waiting, Role::Refusing, Role::Leaving] {
        assert!(takes_over_from_idle(NodeId::A, idle, true).is_some_and(|ms| ms < 200), "{idle:?}");
        assert!(takes_over_from_idle(NodeId::B, idle, true).is_some_and(|ms| (1000..1300).contains(&ms)), "{idle:?}");
    }
    for node in NodeId::BOTH {
        for (role, paths) in [(Role::Fenced, true), (Role::TakingOver, false)] {
            let after = takes_over_from_idle(node, role, paths);
            assert!(after.is_some_and(|ms| (1000..1300).contains(&ms)), "{role:?}: {after:?}");
        }
        for role in [Role::TakingOver, Role::Joining, Role::Secondary] {
            assert_eq!(takes_over_from_idle(node, role, true), None, "{role:?}");
        }
    }
}

/// Rule 12: one of its two members lives, and may hold everything.
#[test]
fn a_pair_of_which_one_lives_is_not_lost() {
    let gone = Member { node: NodeId::B, incarnation: other(9) };
    let superblock = Superblock { members: a_alone().members.with(gone), ..a_alone() };
    let mut rig = Rig::linked(NodeId::B, superblock);
    rig.wait_with(3000, 1, 1, Role::TakingOver);
    assert_eq!(rig.status().role, Role::Waiting);
    other_ends(&mut rig);
    assert_eq!(rig.status().role, Role::Refusing);
}

/// Rule 9: who has fenced this node can't go on if it does not reach the disk; else it is at work.
#[test]
fn who_was_fenced_tries_when_the_other_one_can_not_go_on() {
    for paths in [true, false] {
        let mut rig = fenced(Rig::dual());
        rig.peer_paths = paths;
        rig.wait_with(900, 1, 1, Role::TakingOver);
        assert!(!rig.said().iter().any(is_fence));
        rig.wait_with(5000, 1, 1, Role::TakingOver);
        assert_eq!(rig.said().iter().any(is_fence), !paths);
    }
}

/// Rule 9: who left the superblock written half-way has ended. Under the fence it may be read and mended.
#[test]
fn who_was_fenced_tries_though_the_superblock_is_not_settled() {
    let mut rig = Rig::attached();
    rig.disk.settled = false;
    let mut rig = fenced(rig);
    rig.wait(5000);
    assert!(rig.said().iter().any(is_fence));
}

/// Rule 9: it may be out of the members, and hold nothing that counts: as long as the disk has not answered, it waits.
#[test]
fn who_was_fenced_does_not_try_while_the_first_look_at_the_disk_hangs() {
    let mut rig = Rig::attached();
    rig.hold(|a| is_heartbeat(a) || matches!(a, Action::CheckFence | Action::ReadSuperblock));
    rig.wait(300);
    rig.end(is_heartbeat, Event::HeartbeatWritten(Err(DiskError::Conflict)));
    rig.end(|a| *a == Action::CheckFence, Event::FenceChecked { own: false });
    rig.said();
    rig.wait(5000);
    assert_eq!(rig.status().role, Role::Fenced);
    assert!(!rig.said().iter().any(is_fence));
    rig.let_go();
    rig.wait(200);
    assert!(rig.said().iter().any(is_fence));
}

/// Rule 15: who was turned away waits, and longer each time.
#[test]
fn who_is_turned_away_waits_longer_each_time() {
    let mut rig = Rig::secondary();
    rig.hold(is_fence);
    other_ends(&mut rig);
    let mut waits = Vec::new();
    for _ in 0..12 {
        let since = rig.now;
        while !rig.pending.iter().any(is_fence) {
            rig.wait(10);
        }
        waits.push(rig.now - since);
        rig.end(is_fence, Event::FenceHeld(Err(FenceError::Lost)));
    }
    let (first, last) = (waits[1..5].iter().max(), waits[8..].iter().max());
    assert!(first < last && last > Some(&1000), "{waits:?}");
}

/// One that could not fence for want of a path tries at once when it has one; one that another was quicker than waits on.
#[test]
fn a_path_that_comes_back_is_used_at_once() {
    for (error, at_once) in [(FenceError::Failed, true), (FenceError::Lost, false)] {
        let mut rig = Rig::secondary();
        rig.hold(is_fence);
        other_ends(&mut rig);
        rig.event(Event::Paths { usable: false });
        rig.end(is_fence, Event::FenceHeld(Err(error)));
        assert!(!rig.pending.iter().any(is_fence), "it waits");
        rig.event(Event::Paths { usable: true });
        assert_eq!(rig.pending.iter().any(is_fence), at_once, "{error:?}");
    }
}

/// A read that shows nothing new is made again, with a pause between.
#[test]
fn who_is_outside_looks_at_the_disk_ten_times_a_second() {
    let mut rig = Rig::linked(NodeId::B, a_alone());
    rig.said();
    for _ in 0..20 {
        rig.wait(50);
        rig.peer_status(1, 1, Role::TakingOver);
    }
    let reads = rig.said().iter().filter(|a| **a == Action::ReadSuperblock).count();
    assert!((8..=11).contains(&reads), "{reads}");
}

// ---- what it waits for --------------------------------------------------------------------------------------------

/// A batch of its own that is in flight could land after whatever it writes as another.
#[test]
fn nobody_fences_while_a_batch_of_an_earlier_life_is_in_flight() {
    let mut rig = Rig::attached();
    rig.hold(is_flush);
    rig.write(1, 1, 0);
    rig.disk.superblock = b_alone();
    rig.link(1, 1);
    rig.peer(1, 1, PeerBody::Announce { superblock: b_alone() });
    assert_eq!(rig.status().role, Role::Waiting);
    rig.said();
    other_ends(&mut rig);
    rig.wait(3000);
    assert!(!rig.said().iter().any(is_fence));
    let batch = rig.batch().0;
    rig.end(is_flush, Event::Flushed { batch, result: Ok(()), us: 100 });
    rig.wait(200);
    assert!(rig.said().iter().any(is_fence));
}

/// The same for one that was fenced, and is a member still.
#[test]
fn who_was_fenced_does_not_fence_while_a_batch_is_in_flight() {
    let mut rig = Rig::attached();
    rig.hold(is_flush);
    rig.write(1, 1, 0);
    let mut rig = fenced(rig);
    rig.wait(5000);
    assert!(!rig.said().iter().any(is_fence));
    let batch = rig.batch().0;
    rig.end(is_flush, Event::Flushed { batch, result: BROKEN, us: 100 });
    rig.wait(200);
    assert!(rig.said().iter().any(is_fence));
}

/// Whether the host may be let in is being found out: by the same key that a fence would take.
#[test]
fn nobody_fences_while_it_is_being_let_in() {
    let mut rig = Rig::linked(NodeId::B, a_alone());
    rig.hold(|a| *a == Action::Admit);
    rig.hear_of_primary();
    assert!(rig.pending.contains(&Action::Admit));
    other_ends(&mut rig);
    rig.wait(1000);
    assert!(!rig.said().iter().any(is_fence));
    rig.let_go();
    rig.wait(100);
    assert!(rig.said().iter().any(is_fence));
}

/// Rule 13: the old primary is letting its claim go, and mirrors already.
#[test]
fn a_mirror_does_not_fence_while_its_claim_is_being_let_go() {
    let mut rig = Rig::dual();
    rig.peer_status(1, 1, Role::Secondary);
    rig.hold(|a| *a == Action::YieldFence);
    rig.event(Event::Switchover);
    assert_eq!(rig.status().role, Role::Secondary);
    rig.said();
    other_ends(&mut rig);
    rig.wait(1000);
    assert!(!rig.said().iter().any(is_fence));
    rig.let_go();
    rig.wait(100);
    assert!(rig.said().iter().any(is_fence));
}

// ---- under the fence ----------------------------------------------------------------------------------------------

fn lives(rig: &mut Rig) -> usize {
    rig.said().iter().filter(|a| matches!(a, Action::Incarnation(_))).count()
}

/// Rule 6: one of which nobody can have been told goes on as it is. One that has asked to join may have been told of to a
/// client; one that has a lane does not hold what was written since. Each of these is another from then on.
#[test]
fn who_takes_over_as_no_member_is_another_if_anybody_may_know_it() {
    let mut fresh = Rig::new(NodeId::A, Superblock::default());
    assert_eq!((fresh.status().role, lives(&mut fresh)), (Role::Primary, 1));

    let mut offered = Rig::linked(NodeId::B, a_alone());
    offered.hear_of_primary();
    offered.said();
    other_ends(&mut offered);
    offered.wait(200);
    assert_eq!((offered.status().role, lives(&mut offered)), (Role::Primary, 1));

    let mut rig = Rig::attached();
    rig.write(1, 1, 0);
    rig.disk = SlotRead { superblock: b_alone(), settled: false, older: None };
    let mut with_lane = fenced(rig);
    with_lane.wait(5000);
    assert_eq!((with_lane.status().role, lives(&mut with_lane)), (Role::Primary, 1));
    assert_eq!(with_lane.status().received, Seq::ZERO);
}

/// Rule 4: the other node was killed as it let a mirror in that has died too, and one slot of two was written. It has not acted
/// on that one, so the other one counts, if that lets this node go on: nothing that has completed is in RAM only.
#[test]
fn a_superblock_that_was_written_half_way_counts_only_if_the_one_before_does_not_let_go_on() {
    let before = b_alone();
    let mirror = Member { node: NodeId::A, incarnation: other(7) };
    let joined = Superblock { counter: 10, epoch: Epoch(10), members: before.members.with(mirror), ..before };
    let by_other = Superblock { generation: Generation(2), ..joined };
    let alone_again = Superblock { counter: 11, epoch: Epoch(11), ..before };
    let cases = [
        ("the one before counts", joined, Some(before), Some(before)),
        ("the other slot has rotted", joined, None, None),
        ("neither lets it go on", joined, Some(by_other), None),
        ("the newer one counts, as it should", alone_again, Some(before), Some(alone_again)),
        ("also where the older does not", alone_again, Some(joined), Some(alone_again)),
    ];
    for (what, newer, older, counts) in cases {
        let mut rig = Rig::linked(NodeId::A, before);
        rig.wait_with(100, 1, 1, Role::Secondary);
        rig.disk = SlotRead { superblock: newer, settled: false, older };
        rig.hold(is_write);
        other_ends(&mut rig);
        rig.wait(50);
        let mended = rig.pending.iter().find_map(|action| match action {
            Action::WriteSuperblock(superblock) => Some(*superblock),
            _ => None,
        });
        let as_now = |s: Superblock| Superblock { counter: newer.counter + 1, epoch: newer.epoch, ..s };
        assert_eq!(mended, Some(as_now(counts.unwrap_or(newer))), "{what}");
        rig.let_go();
        rig.wait(50);
        let serves = rig.status().role == Role::Primary;
        assert_eq!(serves, counts.is_some(), "{what}");
        assert!(!serves || rig.status().superblock.epoch == newer.epoch.next(), "{what}");
    }
}

/// Section 7: it is mended before anything else, and not read again meanwhile.
#[test]
fn a_superblock_that_is_being_mended_is_not_read() {
    let mut rig = Rig::secondary();
    rig.disk.settled = false;
    rig.hold(is_write);
    other_ends(&mut rig);
    rig.wait(500);
    assert!(rig.pending.iter().any(is_write));
    rig.said();
    rig.wait(500);
    assert!(!rig.said().contains(&Action::ReadSuperblock));
    rig.let_go();
    assert_eq!(rig.status().role, Role::Primary);
}

#[test]
fn a_read_under_the_fence_that_fails_is_made_again_after_a_while() {
    let mut rig = Rig::secondary();
    rig.hold(|a| *a == Action::ReadSuperblock);
    other_ends(&mut rig);
    rig.wait(500);
    rig.end(|a| *a == Action::ReadSuperblock, Event::SuperblockRead(Err(DiskError::Failed)));
    rig.wait(90);
    assert!(!rig.pending.contains(&Action::ReadSuperblock));
    rig.wait(20);
    assert!(rig.pending.contains(&Action::ReadSuperblock));
}

/// Rule 5: it goes on receiving from its sessions, so that a client resends nothing that had reached it.
#[test]
fn a_member_that_takes_over_keeps_the_lane_that_it_has() {
    let mut rig = Rig::secondary();
    rig.event(Event::ClientUp { conn: ConnId(1) });
    rig.client(1, ClientMsg::Resume { generation: Generation(1), first: Seq(1) });
    rig.write(1, 1, 0);
    other_ends(&mut rig);
    rig.wait(500);
    assert_eq!(rig.status().role, Role::Primary);
    rig.write(1, 2, 1);
    assert_eq!((rig.status().received, rig.status().flushed), (Seq(2), Seq(2)));
}

/// Rule 5: whoever fenced this node may have written older bytes since over what it had flushed. What it has not released, as a
/// read still shows it, goes to the disk again.
#[test]
fn who_was_fenced_flushes_again_what_it_had_not_released() {
    let mut rig = Rig::attached();
    rig.hold(|a| is_flush(a) || is_answer(a));
    rig.write(1, 1, 0);
    let epoch = rig.status().superblock.epoch;
    rig.client(1, ClientMsg::Read { id: 1, epoch, after: Seq(1), lba: Lba(0), blocks: 1, slot: 0 });
    rig.end_batch(Ok(()));
    assert_eq!((rig.status().flushed, rig.status().released), (Seq(1), Seq::ZERO));
    let mut rig = fenced(rig);
    rig.wait(5000);
    assert_eq!(rig.status().role, Role::TakingOver);
    assert!(rig.batch().1.iter().any(|write| write.seq == Seq(1)));
    rig.let_go();
    assert_eq!((rig.status().role, rig.status().flushed), (Role::Primary, Seq(1)));
}

/// A volume that was never attached has no session to go on with.
#[test]
fn there_is_no_session_zero() {
    let mut rig = Rig::solo(0);
    rig.event(Event::ClientUp { conn: ConnId(1) });
    rig.client(1, ClientMsg::Resume { generation: Generation::ZERO, first: Seq(1) });
    assert!(answers(&rig.said(), |msg| *msg == NodeMsg::Refused { why: Refusal::NotReady }));
    assert!(!rig.status().session);
}

// ---- what is told of it -------------------------------------------------------------------------------------------

#[test]
fn what_a_takeover_goes_by_has_a_name() {
    let mut rig = Rig::secondary();
    assert_eq!(rig.machine.evidence(), Evidence::Idle);
    rig.hold(is_fence);
    rig.peer(1, 1, PeerBody::TakeOver);
    assert_eq!(rig.machine.evidence(), Evidence::Asked);
    other_ends(&mut rig);
    assert_eq!(rig.machine.evidence(), Evidence::Ended);
    let mut rig = Rig::secondary();
    rig.hold(|a| matches!(a, Action::Fence | Action::Probe));
    rig.event(Event::LinkDown { link: LinkId(1) });
    rig.wait(1500);
    assert_eq!(rig.machine.evidence(), Evidence::Silent);
}
