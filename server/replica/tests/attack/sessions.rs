//! What a client may ask for, and which connection is the session's (rules 10, 14).

use twinsan_replica::{Action, ConnId, DiskError, Event, HandedOver, Notice, Obstacle, ReplicaConfig};
use twinsan_wire::limits::{MAX_OPEN_READS, MAX_READ_BYTES};
use twinsan_wire::{ClientMsg, Generation, Lba, NodeId, NodeMsg, PeerBody, Refusal, Role, Seq};

use crate::rig::{BLOCK, Rig, a_alone, answers, config, other, tells};

const MOST_BLOCKS: u32 = MAX_READ_BYTES / BLOCK;
const VOLUME_BLOCKS: u64 = 4 * MOST_BLOCKS as u64;

/// A volume on which the longest read has room; one blob is here.
fn large() -> Rig {
    let mut rig = Rig::dual_with(ReplicaConfig { volume_blocks: VOLUME_BLOCKS, ..config(NodeId::A) });
    rig.write(1, 1, 0);
    rig.said();
    rig
}

fn is_violation(rig: &mut Rig) -> bool {
    let said = rig.said();
    let closed = said.contains(&Action::CloseClient { conn: ConnId(1) });
    assert_eq!(closed, said.iter().any(|a| matches!(a, Action::Notice(Notice::ClientViolation(_)))));
    closed
}

fn read(rig: &mut Rig, (lba, blocks, slot, after): (u64, u32, usize, u64)) {
    let epoch = rig.status().superblock.epoch;
    let slot = u32::try_from(slot).expect("small");
    rig.client(1, ClientMsg::Read { id: 1, epoch, after: Seq(after), lba: Lba(lba), blocks, slot });
}

#[test]
fn a_read_must_be_one() {
    let right = [
        (0, 1, 0, 0),
        (VOLUME_BLOCKS - 1, 1, 0, 0),
        (0, MOST_BLOCKS, 0, 0),
        (0, 1, MAX_OPEN_READS - 1, 0),
        (0, 1, 0, 1),
    ];
    let wrong = [
        (0, 0, 0, 0),
        (VOLUME_BLOCKS, 1, 0, 0),
        (u64::MAX, 1, 0, 0),
        (0, MOST_BLOCKS + 1, 0, 0),
        (0, 1, MAX_OPEN_READS, 0),
        (0, 1, 0, 2),
    ];
    for (asked, violates) in right.map(|r| (r, false)).into_iter().chain(wrong.map(|w| (w, true))) {
        let mut rig = large();
        read(&mut rig, asked);
        assert_eq!(is_violation(&mut rig), violates, "{asked:?}");
    }
}

/// Those of an epoch before may still be open, as the client sends all of them again: twice as many, and no more.
#[test]
fn only_so_many_reads_are_open() {
    let mut rig = large();
    rig.hold(|a| matches!(a, Action::ReadDisk { .. }));
    for n in 0..2 * MAX_OPEN_READS {
        read(&mut rig, (8, 1, n % MAX_OPEN_READS, 0));
        assert!(!is_violation(&mut rig), "{n} are open");
    }
    read(&mut rig, (8, 1, 0, 0));
    assert!(is_violation(&mut rig));
}

/// What is refused, and how: an older session's client is told so; whoever may come back later is told to.
#[test]
fn a_resume_is_refused_by_its_session() {
    let answer = |rig: &mut Rig, generation| {
        rig.event(Event::ClientUp { conn: ConnId(2) });
        rig.said();
        rig.client(2, ClientMsg::Resume { generation: Generation(generation), first: Seq(1) });
        let said = rig.said();
        let refused = |why| answers(&said, |msg| *msg == NodeMsg::Refused { why });
        (
            answers(&said, |msg| matches!(msg, NodeMsg::Resumed { .. })),
            refused(Refusal::Superseded),
            refused(Refusal::NotReady),
        )
    };
    assert_eq!(answer(&mut Rig::attached(), 1), (true, false, false));
    assert_eq!(answer(&mut Rig::attached(), 0), (false, true, false), "an older session");
    assert_eq!(answer(&mut Rig::attached(), 2), (false, false, true), "one that it has not heard of");
    assert_eq!(answer(&mut Rig::linked(NodeId::B, a_alone()), 1), (false, false, true), "it has no lane");
    let mut leaving = Rig::secondary();
    leaving.event(Event::Shutdown);
    assert_eq!(answer(&mut leaving, 1), (false, false, true), "it ends");
    let mut fenced = Rig::attached();
    fenced.hold(|a| matches!(a, Action::WriteHeartbeat { .. } | Action::CheckFence));
    fenced.wait(300);
    let refused = Event::HeartbeatWritten(Err(DiskError::Conflict));
    fenced.end(|a| matches!(a, Action::WriteHeartbeat { .. }), refused);
    fenced.end(|a| *a == Action::CheckFence, Event::FenceChecked { own: false });
    assert_eq!(answer(&mut fenced, 1), (false, false, true), "its key is gone");
    let mut attaching = Rig::dual();
    attaching.event(Event::ClientUp { conn: ConnId(3) });
    attaching.client(3, ClientMsg::Attach { over: Generation(1) });
    assert_eq!(answer(&mut attaching, 1), (false, false, true), "another session begins");
}

/// An Attach takes a primary that stays one, and has no other Attach under way.
#[test]
fn an_attach_is_refused_while_it_can_not_be_done() {
    let refused = |rig: &mut Rig| {
        rig.event(Event::ClientUp { conn: ConnId(2) });
        rig.said();
        rig.client(2, ClientMsg::Attach { over: Generation(1) });
        answers(&rig.said(), |msg| *msg == NodeMsg::Refused { why: Refusal::NotReady })
    };
    assert!(!refused(&mut Rig::dual()));
    assert!(refused(&mut Rig::secondary()));
    let mut attaching = Rig::dual();
    attaching.event(Event::ClientUp { conn: ConnId(3) });
    attaching.client(3, ClientMsg::Attach { over: Generation(1) });
    assert!(refused(&mut attaching));
    let mut leaving = Rig::dual();
    leaving.event(Event::Shutdown);
    assert!(refused(&mut leaving));
    let mut handing_over = Rig::dual();
    handing_over.peer_status(1, 1, Role::Secondary);
    handing_over.hold(|a| matches!(a, Action::WriteHeartbeat { .. }));
    handing_over.wait_with(300, 1, 1, Role::Secondary);
    handing_over.event(Event::Switchover);
    assert!(refused(&mut handing_over));
}

/// Rule 10: what a broken link may have swallowed is said again, with every heartbeat.
#[test]
fn an_attach_repeats_what_the_mirror_is_to_do() {
    let mut rig = Rig::dual();
    rig.hold(|a| matches!(a, Action::Flush { .. }));
    rig.write(1, 1, 1);
    rig.event(Event::ClientUp { conn: ConnId(2) });
    rig.client(2, ClientMsg::Attach { over: Generation(1) });
    rig.said();
    let generation = Generation(1);
    rig.wait(60);
    assert!(tells(&rig.said(), |body| *body == PeerBody::CloseSession { generation }));
    rig.let_go();
    rig.said();
    rig.wait(60);
    assert!(tells(&rig.said(), |body| *body == PeerBody::DropLane { generation }));
    rig.hold(|a| matches!(a, Action::WriteSuperblock(_)));
    rig.peer(1, 1, PeerBody::LaneDropped { generation });
    rig.said();
    rig.wait(60);
    assert!(!tells(&rig.said(), |body| *body == PeerBody::DropLane { generation }), "it has confirmed");
}

/// Rule 4: one superblock write at a time. The clean mark is being written when somebody attaches.
#[test]
fn an_attach_waits_for_another_superblock_write() {
    let mut rig = Rig::attached();
    rig.hold(|a| matches!(a, Action::WriteSuperblock(_)));
    rig.wait(61_000);
    assert!(rig.pending.iter().any(|a| matches!(a, Action::WriteSuperblock(s) if s.clean)));
    rig.event(Event::ClientUp { conn: ConnId(2) });
    rig.client(2, ClientMsg::Attach { over: Generation(1) });
    assert_eq!(rig.status().generation, Generation(1));
    rig.let_go();
    assert_eq!(rig.status().generation, Generation(2));
}

/// The mirror drops the lane of the session that it is told of, and no other one's; and says so.
#[test]
fn a_mirror_drops_the_lane_that_it_is_told_to() {
    for (generation, drops) in [(Generation(0), false), (Generation(2), false), (Generation(1), true)] {
        let mut rig = Rig::secondary();
        rig.event(Event::ClientUp { conn: ConnId(1) });
        rig.client(1, ClientMsg::Resume { generation: Generation(1), first: Seq(1) });
        rig.write(1, 1, 0);
        rig.said();
        rig.peer(1, 1, PeerBody::DropLane { generation });
        assert_eq!(rig.status().received == Seq::ZERO, drops, "{generation:?}");
        assert_eq!(tells(&rig.said(), |body| matches!(body, PeerBody::LaneDropped { .. })), drops);
    }
}

/// The mirror's word begins the write that it is for: of this session, and while it is waited for.
#[test]
fn a_confirmation_counts_for_the_lane_that_is_meant() {
    let mut rig = Rig::dual();
    let confirmed = |rig: &mut Rig, generation| {
        rig.peer(1, 1, PeerBody::LaneDropped { generation });
        rig.status().generation == Generation(2)
    };
    assert!(!confirmed(&mut rig, Generation(1)), "nobody attaches");
    rig.event(Event::ClientUp { conn: ConnId(2) });
    rig.client(2, ClientMsg::Attach { over: Generation(1) });
    assert!(!confirmed(&mut rig, Generation(2)), "another session's");
    assert!(confirmed(&mut rig, Generation(1)));
}

/// A client hears who joins, as it is to feed it.
#[test]
fn a_view_names_the_joiner() {
    let mut rig = Rig::attached();
    rig.joining(1);
    rig.said();
    rig.wait(60);
    let named = |msg: &NodeMsg| matches!(msg, NodeMsg::View { joiner, .. } if *joiner == Some(other(1)));
    assert!(answers(&rig.said(), named));
}

/// The session's own connection ends it, so that the volume is free at once; it tells its client who serves when it begins.
#[test]
fn a_session_ends_by_its_own_word() {
    let mut rig = Rig::attached();
    rig.event(Event::ClientUp { conn: ConnId(2) });
    rig.client(2, ClientMsg::Detach);
    assert!(rig.status().session);
    rig.client(1, ClientMsg::Detach);
    assert!(!rig.status().session);
    rig.said();
    rig.client(2, ClientMsg::Resume { generation: Generation(1), first: Seq(1) });
    assert!(rig.status().session && answers(&rig.said(), |msg| matches!(msg, NodeMsg::View { .. })));
}

/// Rule 13: a client that does not reach the other one keeps the volume here; but who is to end goes all the same.
#[test]
fn a_handover_is_called_off_by_the_clients_word() {
    for leaves in [false, true] {
        let mut rig = Rig::dual();
        rig.hold(|a| matches!(a, Action::WriteHeartbeat { .. }));
        rig.wait_with(300, 1, 1, Role::Secondary);
        rig.event(if leaves { Event::Shutdown } else { Event::Switchover });
        assert!(matches!(rig.status().handed_over, HandedOver::UnderWay { .. }));
        let (epoch, generation) = (rig.status().superblock.epoch, rig.status().generation);
        rig.said();
        rig.client(1, ClientMsg::Unreachable { node: NodeId::B, epoch, generation });
        let called_off = Action::Notice(Notice::HandOverCalledOff(Obstacle::OtherNotReady));
        assert_eq!(rig.said().contains(&called_off), !leaves);
    }
}

/// Where the primary has begun a joiner's lane, as no client was there, what its client has sent since then may have completed.
#[test]
fn a_joiners_empty_lane_begins_where_the_client_does() {
    let begun = |blobs: u64, first: u64| {
        let mut rig = Rig::linked(NodeId::B, a_alone());
        rig.hear_of_primary();
        rig.peer(1, 1, PeerBody::JoinAccept { generation: Generation(1), first: Some(Seq(5)) });
        rig.event(Event::ClientUp { conn: ConnId(1) });
        rig.client(1, ClientMsg::Resume { generation: Generation(1), first: Seq(5) });
        for seq in 5..5 + blobs {
            rig.write(1, seq, seq);
        }
        rig.event(Event::ClientUp { conn: ConnId(2) });
        rig.client(2, ClientMsg::Resume { generation: Generation(1), first: Seq(first) });
        rig.status().received
    };
    assert_eq!(begun(0, 8), Seq(7));
    assert_eq!(begun(0, 5), Seq(4));
    assert_eq!(begun(0, 3), Seq(4), "what is asked for again has begun later");
    assert_eq!(begun(1, 8), Seq(5), "it holds something");
}
