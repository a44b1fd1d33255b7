//! What is read from the disk, and when it counts; what the disk refuses.

use twinsan_replica::{Action, ConnId, DiskError, Event, LinkId, Probe, SlotRead};
use twinsan_wire::{ClientMsg, Epoch, Generation, Member, Members, NodeId, PeerBody, Role, Seq, Superblock};

use crate::rig::{BROKEN, Rig, a_alone, is_fence, is_flush, is_heartbeat, is_write, other, tells};

fn is_under_way(rig: &Rig, test: impl Fn(&Action) -> bool) -> bool {
    rig.pending.iter().any(test)
}

/// Whether a mirror goes that is to end, while its primary is heard, and says nothing to that.
fn goes(rig: &mut Rig, read: SlotRead) -> bool {
    rig.event(Event::Shutdown);
    rig.disk = read;
    rig.said();
    rig.wait_with(3300, 1, 1, Role::Primary);
    rig.said().contains(&Action::Exit)
}

/// What a mirror holds may be the only copy. Where its primary does not answer, it goes when the disk says that it is out.
#[test]
fn a_mirror_that_ends_goes_when_a_newer_epoch_does_not_name_it() {
    let mut rig = Rig::secondary();
    let named = rig.disk.superblock;
    let newer = Superblock { counter: 3, epoch: Epoch(3), ..named };
    let out = Superblock { members: a_alone().members, ..newer };
    assert!(goes(&mut rig, SlotRead { superblock: out, settled: true, older: None }));
    let stays = [
        ("written half-way, it may be taken back", SlotRead { superblock: out, settled: false, older: None }),
        ("it is named", SlotRead { superblock: newer, settled: true, older: None }),
        ("nothing has changed", SlotRead { superblock: named, settled: true, older: None }),
    ];
    for (why, read) in stays {
        // Each mirror has an incarnation of its own making, the same in every rig.
        let mut rig = Rig::secondary();
        assert!(!goes(&mut rig, read), "{why}");
    }
}

/// The write that makes a member of it may be under way.
#[test]
fn a_joiner_that_ends_does_not_go_because_it_is_not_named_yet() {
    let mut rig = Rig::linked(NodeId::B, a_alone());
    rig.hear_of_primary();
    rig.peer(1, 1, PeerBody::JoinAccept { generation: Generation(1), first: Some(Seq(1)) });
    assert_eq!(rig.status().role, Role::Joining);
    assert!(!goes(&mut rig, SlotRead { superblock: a_alone(), settled: true, older: None }));
}

/// Outside: the writer's word is newer than a read that was under way.
#[test]
fn a_read_from_before_the_writers_word_takes_nothing_back() {
    let mut rig = Rig::linked(NodeId::B, a_alone());
    rig.hold(|a| *a == Action::ReadSuperblock);
    rig.wait(200);
    assert!(rig.pending.contains(&Action::ReadSuperblock));
    let superblock = Superblock { counter: 2, epoch: Epoch(2), ..a_alone() };
    rig.peer(1, 1, PeerBody::Announce { superblock });
    rig.let_go();
    assert_eq!(rig.status().superblock, superblock);
}

/// Rule 8: whoever has made a newer epoch may have fenced, and removed what was registered here.
#[test]
fn who_reads_of_a_newer_epoch_asks_to_be_let_in_anew() {
    for (epoch, asks) in [(Epoch(1), false), (Epoch(2), true)] {
        let mut rig = Rig::linked(NodeId::B, a_alone());
        rig.hear_of_primary();
        assert!(rig.said().contains(&Action::Admit));
        rig.hold(|a| *a == Action::Probe);
        rig.event(Event::LinkDown { link: LinkId(1) });
        rig.disk.superblock = Superblock { counter: epoch.0, epoch, ..a_alone() };
        rig.wait(200);
        rig.link(2, 1);
        rig.wait_with(200, 2, 1, Role::Primary);
        assert_eq!(rig.said().contains(&Action::Admit), asks, "{epoch:?}");
    }
}

/// A dual primary, whose key is gone.
fn fenced() -> Rig {
    let mut rig = Rig::dual();
    rig.hold(|a| is_heartbeat(a) || matches!(a, Action::CheckFence | Action::Probe));
    rig.wait(300);
    rig.end(is_heartbeat, Event::HeartbeatWritten(Err(DiskError::Conflict)));
    rig.end(|a| *a == Action::CheckFence, Event::FenceChecked { own: false });
    assert_eq!(rig.status().role, Role::Fenced);
    rig.said();
    rig
}

/// Rule 9: it has read that it is a member still. That it looks again, and the disk hangs, is no reason to wait.
#[test]
fn a_fenced_member_tries_while_a_further_look_at_the_disk_hangs() {
    let mut rig = fenced();
    rig.hold(|a| matches!(a, Action::Probe | Action::ReadSuperblock));
    rig.wait(200);
    rig.event(Event::LinkDown { link: LinkId(1) });
    assert!(rig.pending.contains(&Action::ReadSuperblock));
    rig.end(|a| *a == Action::Probe, Event::Probed(Probe::Refused));
    rig.wait(5000);
    assert!(rig.said().contains(&Action::Fence));
}

/// Rule 9: a path that shows what stood there before does not make it drop what it holds.
#[test]
fn a_fenced_member_goes_by_nothing_older_than_what_it_wrote() {
    let mut rig = fenced();
    let me = rig.status().incarnation;
    rig.disk.superblock = Superblock { members: Members::default(), ..Superblock::default() };
    rig.wait_with(300, 1, 1, Role::TakingOver);
    assert_eq!((rig.status().role, rig.status().incarnation), (Role::Fenced, me));
}

/// Rule 9 by rule 4: a node that was fenced while it believed to hold the fence has read under it what stands there now. One
/// slot has rotted, so the disk does not tell; the primary, which has nothing to write, does.
#[test]
fn a_fenced_node_goes_by_its_primarys_word_where_the_slots_differ() {
    let mut rig = Rig::linked(NodeId::B, a_alone());
    rig.disk.settled = false;
    rig.hold(|a| is_write(a) || matches!(a, Action::CheckFence));
    rig.event(Event::LinkDown { link: LinkId(1) });
    rig.wait(100);
    rig.end(is_write, Event::SuperblockWritten(Err(DiskError::Conflict)));
    rig.end(|a| *a == Action::CheckFence, Event::FenceChecked { own: false });
    let (role, me, by_other) = (rig.status().role, rig.status().incarnation, a_alone());
    assert_eq!((role, rig.status().superblock), (Role::Fenced, by_other));
    rig.link(2, 1);
    rig.wait_with(1000, 2, 1, Role::Primary);
    assert_eq!(rig.status().role, Role::Fenced, "a slot written half-way may still rot away");
    let older = Superblock { counter: by_other.counter - 1, ..by_other };
    let of_both =
        Superblock { members: by_other.members.with(Member { node: NodeId::B, incarnation: me }), ..by_other };
    for (word, believed) in [(older, false), (of_both, false), (by_other, true)] {
        rig.said();
        rig.peer(2, 1, PeerBody::Announce { superblock: word });
        rig.wait_with(100, 2, 1, Role::Primary);
        assert_eq!(rig.said().contains(&Action::Admit), believed, "it asks to be let in: {word:?}");
    }
    assert_eq!((rig.status().role, rig.status().incarnation == me), (Role::Waiting, false));
}

/// Rule 9: it is told again as long as it does not know.
#[test]
fn a_primary_tells_one_that_is_fenced_where_it_stands() {
    let mut rig = Rig::solo(1);
    rig.link(1, 1);
    for role in [Role::Waiting, Role::Fenced, Role::Fenced] {
        rig.said();
        rig.peer_status(1, 1, role);
        let told = tells(&rig.said(), |body| matches!(body, PeerBody::Announce { .. }));
        assert_eq!(told, role == Role::Fenced, "{role:?}");
    }
}

/// Who would try again at once would do nothing else.
#[test]
fn what_the_disk_fails_is_tried_again_after_a_while() {
    let mut rig = Rig::attached();
    rig.hold(is_flush);
    rig.write(1, 1, 0);
    rig.end_batch(BROKEN);
    rig.wait(90);
    assert!(!is_under_way(&rig, is_flush));
    rig.wait(20);
    assert!(is_under_way(&rig, is_flush));
    rig.let_go();

    rig.hold(is_write);
    rig.joining(1);
    rig.ack(1, Some(Seq(1)), Seq(1));
    rig.end(is_write, Event::SuperblockWritten(BROKEN));
    rig.wait(90);
    assert!(!is_under_way(&rig, is_write));
    rig.wait(20);
    assert!(is_under_way(&rig, is_write));
}

/// Rule 9: a heartbeat that is refused again and again, with the key in place, is disk trouble; no reason to hand over, though.
#[test]
fn heartbeats_that_are_refused_are_disk_trouble_and_no_more() {
    let mut rig = Rig::dual();
    rig.hold(is_heartbeat);
    for times in 1..10 {
        rig.wait_with(250, 1, 1, Role::Secondary);
        rig.end(is_heartbeat, Event::HeartbeatWritten(Err(DiskError::Conflict)));
        assert_eq!(rig.status().disk_trouble, times >= 2, "after {times}");
        assert!(rig.status().paths);
    }
    rig.wait_with(250, 1, 1, Role::Secondary);
    rig.end(is_heartbeat, Event::HeartbeatWritten(Ok(())));
    assert!(!rig.status().disk_trouble);
}

/// Rule 11: who does not reach the disk any more says so at once, as the other one may be asked to take over.
#[test]
fn batches_that_are_refused_in_the_end_cost_the_path_and_the_other_one_hears_it_at_once() {
    let mut rig = Rig::dual();
    rig.hold(is_flush);
    rig.write(1, 1, 0);
    rig.ack(1, Some(Seq(1)), Seq(1));
    for times in 1..=6 {
        rig.said();
        rig.end_batch(Err(DiskError::Conflict));
        let told = tells(&rig.said(), |body| matches!(body, PeerBody::Status { paths: false, .. }));
        assert_eq!((told, rig.status().paths), (times == 6, times < 6), "after {times}");
        rig.wait_with(110, 1, 1, Role::Secondary);
    }
}

/// The end of a heartbeat of an earlier life is no news of this one's.
#[test]
fn a_heartbeat_that_is_refused_late_does_not_count_for_the_next_life() {
    let mut rig = Rig::attached();
    rig.hold(is_heartbeat);
    rig.wait(250);
    let taken = Superblock { counter: 9, epoch: Epoch(9), ..a_alone() };
    let by_b = Members::solo(Member { node: NodeId::B, incarnation: other(1) });
    let taken = Superblock { primary: Some(NodeId::B), members: by_b, ..taken };
    rig.disk.superblock = taken;
    rig.link(1, 1);
    rig.peer(1, 1, PeerBody::Announce { superblock: taken });
    assert_eq!(rig.status().role, Role::Waiting);
    rig.end(is_heartbeat, Event::HeartbeatWritten(Err(DiskError::Conflict)));
    rig.event(Event::LinkDown { link: LinkId(1) });
    rig.wait(500);
    assert_eq!(rig.status().role, Role::Primary);
    rig.end(is_heartbeat, Event::HeartbeatWritten(Err(DiskError::Conflict)));
    assert!(!rig.status().disk_trouble, "the first one");
}

/// Rule 15: a takeover may have a lot to write. Meanwhile its disk heartbeat shows that somebody lives; but not before it has the
/// fence, as that is a write.
#[test]
fn the_disk_heartbeat_shows_who_takes_over() {
    let beats = |rig: &mut Rig| {
        rig.said();
        rig.wait(1000);
        rig.said().iter().filter(|a| is_heartbeat(a)).count()
    };
    let mut rig = Rig::secondary();
    rig.event(Event::ClientUp { conn: ConnId(1) });
    rig.client(1, ClientMsg::Resume { generation: Generation(1), first: Seq(1) });
    rig.write(1, 1, 0);
    rig.hold(|a| is_fence(a) || is_flush(a) || is_write(a));
    rig.event(Event::LinkDown { link: LinkId(1) });
    rig.wait(100);
    assert_eq!((rig.pending.iter().any(is_fence), beats(&mut rig)), (true, 0));
    rig.end(is_fence, Event::FenceHeld(Ok(())));
    assert_eq!((is_under_way(&rig, is_flush), beats(&mut rig)), (true, 5), "it drains");
    rig.end_batch(Ok(()));
    assert_eq!((is_under_way(&rig, is_write), beats(&mut rig)), (true, 5), "it writes the superblock");
}
