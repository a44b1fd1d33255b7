//! Event orders that broke a rule or left nobody to go on, each with what must hold instead.

use twinsan_replica::{Action, ConnId, DiskError, Event, FenceError, LinkId, Probe, SlotRead};
use twinsan_wire::{
    Blob, BlobKind, ClientMsg, Epoch, Generation, Lba, Mailbox, Member, Members, NodeId, NodeMsg, PeerBody, Role, Seq,
    Superblock,
};

use crate::rig::{BLOCK, BROKEN, Rig, a_alone, answers, config, other, tells, with_long_lane};

/// Rules 5 and 6: a read that was under way when the fence was taken shows what stood before it. The other one may
/// have dropped us, or let a new session in, in between.
#[test]
fn a_superblock_read_from_before_the_fence_does_not_count() {
    let mut rig = Rig::secondary();
    // The primary ends, and it shows; this one has a read under way, as it is to end as well.
    rig.event(Event::Shutdown);
    rig.hold(|a| matches!(a, Action::ReadSuperblock | Action::Fence | Action::Probe));
    rig.wait_with(3100, 1, 1, Role::Primary);
    assert!(rig.pending.contains(&Action::ReadSuperblock));
    rig.event(Event::LinkDown { link: LinkId(1) });
    rig.end(|a| *a == Action::Probe, Event::Probed(Probe::Refused));
    assert!(rig.pending.contains(&Action::Fence));
    let before = rig.disk;
    // Meanwhile it was dropped, and the other one went on alone.
    let alone = Members::solo(Member { node: NodeId::A, incarnation: other(1) });
    let dropped = Superblock { counter: 3, epoch: Epoch(3), members: alone, ..before.superblock };
    rig.disk = SlotRead { superblock: dropped, settled: true, older: None };
    rig.said();
    let me = rig.status().incarnation;
    rig.end(|a| *a == Action::Fence, Event::FenceHeld(Ok(())));
    rig.end(|a| *a == Action::ReadSuperblock, Event::SuperblockRead(Ok(before)));
    rig.let_go();
    assert_ne!(rig.status().incarnation, me, "no member: by rule 6, with nothing of what it held");
    assert!(!rig.said().iter().any(|a| matches!(a, Action::WriteSuperblock(s) if s.epoch <= Epoch(3))));
}

/// An orderly end while the write that lets the joiner in is under way: it becomes a dual primary's.
#[test]
fn an_end_that_meets_the_write_of_a_join_goes_on() {
    let mut rig = Rig::attached();
    rig.joining(1);
    rig.hold(|a| matches!(a, Action::WriteSuperblock(_)));
    rig.ack(1, Some(Seq(1)), Seq(0));
    rig.event(Event::Shutdown);
    rig.let_go();
    rig.wait_with(200, 1, 1, Role::Secondary);
    assert_eq!(rig.status().role, Role::Secondary);
    assert_eq!(rig.disk.superblock.primary, Some(NodeId::B), "it has handed over");
    assert!(tells(&rig.said(), |body| *body == PeerBody::Leave), "and goes");
}

/// Rule 8: from the issue of the join's write a blob completes only when flushed and ACKed, also where no client had
/// said yet where the lanes begin.
#[test]
fn a_client_that_returns_during_the_write_of_a_join_completes_nothing_unacked() {
    let mut rig = Rig::solo(1);
    rig.joining(1);
    rig.hold(|a| matches!(a, Action::WriteSuperblock(_)));
    rig.ack(1, None, Seq(0));
    assert!(rig.pending.iter().any(|a| matches!(a, Action::WriteSuperblock(s) if s.members.is_dual())));
    rig.event(Event::ClientUp { conn: ConnId(1) });
    rig.client(1, ClientMsg::Resume { generation: Generation(1), first: Seq(5) });
    rig.said();
    rig.write(1, 5, 0);
    rig.write(1, 6, 0);
    assert!(rig.completed() < Seq(5), "completed {} with nothing ACKed", rig.completed());
    assert!(!rig.said().iter().any(|a| matches!(a, Action::Flush { .. })), "nor is it flushed");
    rig.let_go();
    rig.ack(1, Some(Seq(5)), Seq(6));
    assert_eq!(rig.completed(), Seq(6));
}

/// Rule 4: while the join's write is under way the old epoch is not announced again: it would make the joiner drop
/// what the new one says it holds.
#[test]
fn a_link_that_returns_during_the_write_of_a_join_does_not_send_the_joiner_away() {
    let mut rig = Rig::attached();
    rig.joining(1);
    rig.hold(|a| matches!(a, Action::WriteSuperblock(_) | Action::Probe));
    rig.ack(1, Some(Seq(1)), Seq(0));
    rig.event(Event::LinkDown { link: LinkId(1) });
    rig.said();
    rig.link(2, 1);
    assert!(!tells(&rig.said(), |body| matches!(body, PeerBody::Announce { .. })));
    rig.let_go();
    assert!(tells(
        &rig.said(),
        |body| matches!(body, PeerBody::Announce { superblock } if superblock.members.is_dual())
    ));
}

/// Section 8, same incarnation, empty lanes: a join was thrown away, and what its joiner had said before it heard so
/// arrives late. It may not count for a second join of the same incarnation.
#[test]
fn late_words_of_a_joiner_that_was_thrown_away_begin_no_join() {
    let mut rig = Rig::attached();
    rig.joining(1);
    rig.write(1, 1, 0);
    for _ in 0..50 {
        rig.wait_with(50, 1, 1, Role::Joining);
        rig.client(1, ClientMsg::Heartbeat);
    }
    assert_eq!(rig.status().joiner, None, "it says nothing for so long that it is thrown away");
    rig.said();
    // It drops its lane on hearing that; these were on their way.
    rig.wait_with(400, 1, 1, Role::Joining);
    rig.peer(1, 1, PeerBody::JoinRequest);
    rig.ack(1, Some(Seq(1)), Seq(1));
    assert!(!rig.status().dual && rig.status().joiner.is_none());
    // One that never joined, and asks again, is told to become another.
    assert!(tells(&rig.said(), |body| *body == PeerBody::JoinAbort));
    rig.wait_with(5000, 1, 2, Role::Waiting);
    rig.peer(1, 2, PeerBody::JoinRequest);
    assert_eq!(rig.status().joiner, Some(other(2)));
}

/// A batch of an earlier life ends badly; nothing of it is left to be tried again, and reads must not wait for that.
#[test]
fn the_end_of_a_void_batch_is_no_disk_trouble() {
    let mut rig = Rig::attached();
    rig.hold(|a| matches!(a, Action::Flush { .. }));
    rig.write(1, 1, 0);
    let Some(&Action::Flush { batch, .. }) = rig.pending.first() else { panic!("it is being flushed") };
    // The other one has fenced us and says so; what was in flight was aborted.
    let taken = Members::solo(Member { node: NodeId::B, incarnation: other(1) });
    let before = rig.disk.superblock;
    let theirs = Superblock {
        counter: before.counter + 1,
        epoch: before.epoch.next(),
        primary: Some(NodeId::B),
        members: taken,
        ..before
    };
    rig.disk.superblock = theirs;
    rig.link(1, 1);
    rig.peer(1, 1, PeerBody::Announce { superblock: theirs });
    assert_eq!(rig.status().role, Role::Waiting);
    rig.end(|a| matches!(a, Action::Flush { .. }), Event::Flushed { batch, result: BROKEN, us: 100 });
    rig.let_go();
    // And dies.
    rig.event(Event::LinkDown { link: LinkId(1) });
    rig.wait(500);
    assert_eq!(rig.status().role, Role::Primary);
    rig.event(Event::ClientUp { conn: ConnId(2) });
    rig.client(2, ClientMsg::Resume { generation: Generation(1), first: Seq(1) });
    let epoch = rig.status().superblock.epoch;
    rig.client(2, ClientMsg::Read { id: 1, epoch, after: Seq(0), lba: Lba(0), blocks: 1, slot: 0 });
    assert!(rig.said().iter().any(|a| matches!(a, Action::AnswerRead { .. })));
}

/// A client that begins at the end of all numbers is no reason to end.
#[test]
fn a_session_that_begins_at_the_last_number_is_refused() {
    let mut rig = Rig::solo(1);
    rig.event(Event::ClientUp { conn: ConnId(1) });
    rig.client(1, ClientMsg::Resume { generation: Generation(1), first: Seq(u64::MAX) });
    rig.write(1, u64::MAX, 0);
    assert!(!rig.status().session);
    assert!(!answers(&rig.said(), |msg| matches!(msg, NodeMsg::Resumed { .. })));
}

/// Rule 12: an order to accept a loss is for the loss that was there. It does not lie in wait for the next one.
#[test]
fn an_order_to_recover_ends_when_the_node_joins() {
    let gone = Member { node: NodeId::B, incarnation: other(8) };
    let primary = Member { node: NodeId::A, incarnation: other(1) };
    let both = Superblock {
        counter: 5,
        epoch: Epoch(5),
        primary: Some(NodeId::A),
        members: Members::solo(primary).with(gone),
        generation: Generation(1),
        clean: false,
    };
    let mut rig = Rig::linked(NodeId::B, both);
    rig.peer_status(1, 1, Role::Primary);
    rig.event(Event::Recover);
    // The primary drops what is gone, lets us in, and drops us again; then the pair is another one.
    let alone = Superblock { counter: 6, epoch: Epoch(6), members: Members::solo(primary), ..both };
    rig.disk.superblock = alone;
    rig.peer(1, 1, PeerBody::Announce { superblock: alone });
    rig.wait_with(200, 1, 1, Role::Primary);
    rig.peer(1, 1, PeerBody::JoinAccept { generation: Generation(1), first: Some(Seq(1)) });
    let me = Member { node: NodeId::B, incarnation: rig.status().incarnation };
    let pair = Superblock { counter: 7, epoch: Epoch(7), members: alone.members.with(me), ..alone };
    rig.disk.superblock = pair;
    rig.peer(1, 1, PeerBody::Announce { superblock: pair });
    assert_eq!(rig.status().role, Role::Secondary);
    let lost = Superblock { counter: 9, epoch: Epoch(9), members: alone.members.with(gone), ..alone };
    rig.disk.superblock = lost;
    rig.peer(1, 1, PeerBody::Announce { superblock: lost });
    rig.let_go();
    rig.event(Event::LinkDown { link: LinkId(1) });
    rig.wait(3000);
    assert_eq!(rig.status().role, Role::Refusing);
}

/// Rule 12: an order that is given twice is still an order.
#[test]
fn a_second_order_to_recover_does_not_undo_the_first() {
    let gone = |n, node| Member { node, incarnation: other(n) };
    let both = Superblock {
        counter: 5,
        epoch: Epoch(5),
        primary: Some(NodeId::B),
        members: Members::solo(gone(8, NodeId::A)).with(gone(9, NodeId::B)),
        generation: Generation(1),
        clean: false,
    };
    let mut rig = Rig::new(NodeId::A, both);
    rig.wait(100);
    assert_eq!(rig.status().role, Role::Refusing);
    rig.hold(|a| matches!(a, Action::Fence));
    rig.event(Event::Recover);
    rig.event(Event::Recover);
    rig.let_go();
    assert_eq!(rig.status().role, Role::Primary);
}

/// Rule 15: an answer that was under way when the link came up says what was there before it.
#[test]
fn a_probe_that_is_older_than_the_link_says_nothing() {
    let mut rig = Rig::dual();
    rig.hold(|a| matches!(a, Action::Probe));
    rig.event(Event::LinkDown { link: LinkId(1) });
    rig.link(2, 1);
    rig.end(|a| *a == Action::Probe, Event::Probed(Probe::Alive(other(7))));
    rig.wait_with(200, 2, 1, Role::Secondary);
    assert!(rig.status().dual, "its member is there");
}

/// Rule 12: the order also counts when the member that is gone had been heard by this very process.
#[test]
fn a_recovery_does_not_wait_for_one_that_was_heard_and_has_died() {
    let both = Superblock {
        counter: 5,
        epoch: Epoch(5),
        primary: Some(NodeId::A),
        members: Members::solo(Member { node: NodeId::A, incarnation: other(1) })
            .with(Member { node: NodeId::B, incarnation: other(9) }),
        generation: Generation(1),
        clean: false,
    };
    let mut rig = Rig::linked(NodeId::B, both);
    rig.wait_with(100, 1, 1, Role::Primary);
    rig.event(Event::LinkDown { link: LinkId(1) });
    rig.wait(200);
    assert_eq!(rig.status().role, Role::Refusing);
    rig.event(Event::Recover);
    rig.wait(5000);
    assert_eq!(rig.status().role, Role::Primary);
}

/// Rule 1: a batch that failed may have put bytes before a reader's eyes that the disk does not have to keep.
#[test]
fn a_read_that_met_a_failing_batch_is_answered_when_that_has_been_written() {
    let mut rig = Rig::attached();
    rig.hold(|a| matches!(a, Action::Flush { .. } | Action::ReadDisk { .. } | Action::WriteHeartbeat { .. }));
    let epoch = rig.status().superblock.epoch;
    rig.client(1, ClientMsg::Read { id: 1, epoch, after: Seq(0), lba: Lba(0), blocks: 1, slot: 0 });
    rig.write(1, 1, 0);
    let batch_of = |rig: &Rig| {
        rig.pending.iter().find_map(|a| match a {
            Action::Flush { batch, .. } => Some(*batch),
            _ => None,
        })
    };
    let token = rig.pending.iter().find_map(|a| match a {
        Action::ReadDisk { token, .. } => Some(*token),
        _ => None,
    });
    let (batch, token) = (batch_of(&rig).unwrap(), token.unwrap());
    let answered = |rig: &mut Rig| rig.said().iter().any(|a| matches!(a, Action::AnswerRead { .. }));
    rig.end(|a| matches!(a, Action::ReadDisk { .. }), Event::DiskRead { token, result: Ok(()) });
    rig.end(|a| matches!(a, Action::Flush { .. }), Event::Flushed { batch, result: BROKEN, us: 100 });
    assert!(!answered(&mut rig));
    rig.wait(200);
    let batch = batch_of(&rig).expect("it is tried again");
    rig.end(|a| matches!(a, Action::Flush { .. }), Event::Flushed { batch, result: Ok(()), us: 100 });
    assert!(answered(&mut rig));
}

/// The flusher rests while nobody waits for the disk, and no longer: not for a lane that fills, not for ever, and not
/// once the other one is lost.
#[test]
fn the_flusher_rests_only_while_nobody_waits_for_it() {
    let mut rig = Rig::dual();
    let mut seq = 0;
    let mut durable = |rig: &mut Rig| {
        seq += 1;
        rig.write(1, seq, seq);
        rig.ack(1, None, Seq(seq));
        assert_eq!(rig.status().durable, Seq(seq));
        rig.status().flushed
    };
    assert_eq!(durable(&mut rig), Seq(1), "the first batch begins at once");
    assert_eq!(durable(&mut rig), Seq(1), "the next one waits for more");
    assert_eq!(durable(&mut rig), Seq(3), "two blobs are a quarter of this lane");
    assert_eq!(durable(&mut rig), Seq(3));
    rig.wait(90);
    assert_eq!(rig.status().flushed, Seq(3), "it rests for so long");
    rig.wait(250);
    assert_eq!(rig.status().flushed, Seq(4), "it does not wait for ever");
    assert_eq!(durable(&mut rig), Seq(5), "it has rested");
    rig.event(Event::LinkDown { link: LinkId(1) });
    rig.wait(1000);
    assert!(!rig.status().dual);
    for seq in 6..9 {
        rig.write(1, seq, seq);
        assert_eq!(rig.status().flushed, Seq(seq), "alone, the client waits for the disk");
    }
}

/// A burst of several batches' size gathers too, as long as the lane has room; then it is flushed as a whole, not a batch a rest.
#[test]
fn a_burst_is_not_flushed_beside_its_writes() {
    let mut rig = Rig::dual_with(with_long_lane(config(NodeId::A)));
    for seq in 1..=8 {
        rig.write(1, seq, seq);
        rig.ack(1, None, Seq(seq));
    }
    assert_eq!((rig.status().durable, rig.status().flushed), (Seq(8), Seq(1)));
    rig.wait(90);
    assert_eq!(rig.status().flushed, Seq(1), "it rests");
    rig.wait(20);
    assert_eq!(rig.status().flushed, Seq(8), "four batches, one after the other");
}

/// The data ring fills as the slots do: a quarter of it is not left to rest, though it is one blob.
#[test]
fn a_quarter_of_the_ring_does_not_rest() {
    for (blocks, flushed) in [(3, Seq(1)), (4, Seq(2))] {
        let mut rig = Rig::dual();
        rig.write(1, 1, 1);
        rig.ack(1, None, Seq(1));
        let blob = Blob {
            generation: Generation(1),
            seq: Seq(2),
            kind: BlobKind::Write,
            lba: Lba(8),
            blocks,
            data_pos: u64::from(BLOCK),
            payload_len: blocks * BLOCK,
        };
        rig.event(Event::Blob { conn: ConnId(1), blob });
        rig.ack(1, None, Seq(2));
        assert_eq!(rig.status().flushed, flushed, "{blocks} blocks");
    }
}

/// Rules 9 and 15: a primary that went on alone, and was fenced, is named by the superblock until the other one has written
/// it. That one is alive: it is given the time to be seen on the disk, or the two fence each other in turn.
#[test]
fn who_was_fenced_waits_for_the_one_that_fenced_it() {
    let mut rig = Rig::dual();
    rig.hold(|a| matches!(a, Action::Probe | Action::WriteHeartbeat { .. } | Action::CheckFence));
    rig.event(Event::LinkDown { link: LinkId(1) });
    rig.wait(2000);
    assert!(rig.status().role == Role::Primary && !rig.status().dual, "it has dropped the other one");
    rig.end(|a| matches!(a, Action::WriteHeartbeat { .. }), Event::HeartbeatWritten(Err(DiskError::Conflict)));
    rig.end(|a| *a == Action::CheckFence, Event::FenceChecked { own: false });
    assert_eq!(rig.status().role, Role::Fenced);
    rig.said();
    rig.wait(900);
    assert!(rig.status().role == Role::Fenced && !rig.said().contains(&Action::Fence), "the other one is at work");
    rig.wait(900);
    assert!(rig.said().contains(&Action::Fence), "it has done nothing for a takeover timeout");
}

/// A released position that the other one heard while it fenced, in vain, counted for nothing there: it is told again, or that
/// one's lane stays full, and with it the client's.
#[test]
fn a_released_position_is_told_again() {
    let mut rig = Rig::dual();
    rig.write(1, 1, 0);
    rig.ack(1, None, Seq(1));
    let told = |rig: &mut Rig| {
        rig.said().iter().any(|a| {
            matches!(a, Action::PeerMailbox { mailbox: Mailbox::Released { released, .. }, .. } if *released == Seq(1))
        })
    };
    assert!(told(&mut rig), "it is on the disk");
    rig.wait(100);
    assert!(told(&mut rig));
}

/// A host that can't be let in, without a path to the disk, asks again after a while, and not at once and without end.
#[test]
fn who_is_not_let_in_asks_after_a_while() {
    let mut rig = Rig::linked(NodeId::B, a_alone());
    rig.hold(|a| *a == Action::Admit);
    rig.hear_of_primary();
    let asks = |rig: &Rig| rig.pending.iter().filter(|a| **a == Action::Admit).count();
    assert_eq!(asks(&rig), 1);
    rig.end(|a| *a == Action::Admit, Event::Admitted(Err(FenceError::Failed)));
    assert_eq!(asks(&rig), 0, "at once");
    rig.wait(90);
    assert_eq!(asks(&rig), 0);
    rig.wait(20);
    assert_eq!(asks(&rig), 1);
}
