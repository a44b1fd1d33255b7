//! Rules 11 and 13 at the bench: in what order things are done, and what ends a handover that can't go on.

use twinsan_replica::{Action, ConnId, DiskError, Event, FenceError, HandedOver, LinkId, Notice, Obstacle, SlotRead};
use twinsan_wire::{
    ClientMsg, Epoch, Generation, Lba, Mailbox, Member, Members, NodeId, NodeMsg, PeerBody, Refusal, Role, Seq,
    Superblock,
};

use crate::rig::{BROKEN, Rig, answers, is_flush, other, tells};

/// A dual primary whose secondary has said so, and to which nothing stands in the way.
fn ready() -> Rig {
    let mut rig = Rig::dual();
    rig.peer_status(1, 1, Role::Secondary);
    assert_eq!(rig.machine.obstacle(), None);
    rig.said();
    rig
}

fn names_b(action: &Action) -> bool {
    matches!(action, Action::WriteSuperblock(s) if s.primary == Some(NodeId::B))
}

fn hands_over(body: &PeerBody) -> bool {
    matches!(body, PeerBody::HandOver { .. })
}

/// A secondary to which its primary hands over: what stands on the disk then, and the telling of it.
fn handed(rig: &mut Rig) -> Superblock {
    let before = rig.disk.superblock;
    let superblock = Superblock {
        counter: before.counter + 1,
        epoch: before.epoch.next(),
        primary: Some(NodeId::B),
        clean: false,
        ..before
    };
    rig.disk = SlotRead { superblock, settled: true, older: None };
    rig.peer(1, 1, PeerBody::HandOver { superblock });
    superblock
}

/// Stop; the I/O in flight ends, the heartbeat's too; the superblock; the claim; the telling. In that order.
#[test]
fn each_step_waits_for_the_one_before() {
    let mut rig = ready();
    rig.hold(|a| !matches!(a, Action::ReadDisk { .. }));
    rig.write(1, 1, 0);
    rig.ack(1, Some(Seq(1)), Seq(1));
    rig.wait(300);
    let beating = |rig: &Rig| rig.pending.iter().any(|a| matches!(a, Action::WriteHeartbeat { .. }));
    assert!(beating(&rig), "a heartbeat and a batch are in flight");
    rig.peer_status(1, 1, Role::Secondary);
    rig.event(Event::Switchover);
    rig.said();
    // Nothing new is completed, answered or flushed.
    rig.write(1, 2, 1);
    rig.ack(1, Some(Seq(1)), Seq(2));
    let epoch = rig.status().superblock.epoch;
    rig.client(1, ClientMsg::Read { id: 1, epoch, after: Seq(2), lba: Lba(1), blocks: 1, slot: 0 });
    rig.wait_with(200, 1, 1, Role::Secondary);
    let said = rig.said();
    assert!(!said.iter().any(|a| matches!(a, Action::AnswerRead { .. } | Action::Flush { .. })), "{said:?}");
    assert!(!said.iter().any(|a| matches!(a, Action::ClientMailbox { .. })), "{said:?}");
    // Each of the two keeps the superblock from being written.
    rig.end_batch(Ok(()));
    assert!(!rig.pending.iter().any(names_b), "a heartbeat is in flight");
    rig.end(|a| matches!(a, Action::WriteHeartbeat { .. }), Event::HeartbeatWritten(Ok(())));
    assert!(rig.pending.iter().any(names_b));
    rig.wait_with(100, 1, 1, Role::Secondary);
    assert!(!beating(&rig), "no heartbeat follows");
    let said = rig.said();
    assert!(!said.contains(&Action::YieldFence) && !tells(&said, hands_over), "not before it is on the disk");
    let Some(&Action::WriteSuperblock(next)) = rig.pending.iter().find(|a| names_b(a)) else { unreachable!() };
    rig.disk = SlotRead { superblock: next, settled: true, older: None };
    rig.end(names_b, Event::SuperblockWritten(Ok(())));
    let said = rig.said();
    assert!(said.contains(&Action::YieldFence) && !tells(&said, hands_over), "nor before the claim is let go");
    assert_eq!(rig.status().role, Role::Secondary);
    rig.end(|a| *a == Action::YieldFence, Event::FenceYielded);
    assert!(tells(&rig.said(), |body| *body == PeerBody::HandOver { superblock: next }));
    assert!(next.members.is_dual() && next.epoch == epoch.next(), "{next:?}");
    assert!(!rig.pending.iter().any(|a| matches!(a, Action::Fence | Action::ReleaseFence)));
}

/// The other one says that it serves: the pause is known, and what is held here is ACKed to it.
#[test]
fn the_old_primary_mirrors_the_new_one() {
    let mut rig = ready();
    rig.write(1, 1, 0);
    rig.event(Event::Switchover);
    let superblock = rig.disk.superblock;
    rig.now += 30;
    rig.said();
    rig.peer(1, 1, PeerBody::Announce { superblock });
    assert_eq!(rig.status().handed_over, HandedOver::Done { epoch: superblock.epoch, pause_ms: 30 });
    let acks = |a: &Action| {
        matches!(a, Action::PeerMailbox { mailbox: Mailbox::Ack { epoch, received, .. }, .. }
            if *epoch == superblock.epoch && *received == Seq(1))
    };
    assert!(rig.said().iter().any(acks), "an idle volume would wait for ever");
}

/// The telling is repeated as long as the other one is in the epoch before.
#[test]
fn a_telling_is_repeated_until_it_is_heard() {
    let mut rig = ready();
    let epoch = rig.status().superblock.epoch;
    rig.event(Event::Switchover);
    rig.hold(|a| matches!(a, Action::Probe));
    rig.event(Event::LinkDown { link: LinkId(1) });
    rig.said();
    rig.link(2, 1);
    assert!(tells(&rig.said(), hands_over), "on a new link");
    for beat in 0..3 {
        let msg = twinsan_wire::PeerMsg {
            epoch,
            from: other(1),
            to: None,
            body: PeerBody::Status { role: Role::Secondary, beat: 1000 + beat, paths: true },
        };
        rig.event(Event::Peer { link: LinkId(2), msg });
        assert!(tells(&rig.said(), hands_over));
    }
    let epoch = rig.status().superblock.epoch;
    let body = PeerBody::Status { role: Role::TakingOver, beat: 2000, paths: true };
    let msg = twinsan_wire::PeerMsg { epoch, from: other(1), to: None, body };
    rig.event(Event::Peer { link: LinkId(2), msg });
    assert_eq!(rig.status().peer_role, Some(Role::TakingOver));
    assert!(!tells(&rig.said(), hands_over), "it knows");
}

/// A read that came while the I/O in flight ended is answered when the handover is called off: its epoch goes on, and
/// the client does not send it again.
#[test]
fn reads_survive_a_handover_that_is_called_off() {
    let mut rig = ready();
    rig.hold(|a| matches!(a, Action::WriteHeartbeat { .. } | Action::ReadDisk { .. }));
    rig.wait(300);
    rig.peer_status(1, 1, Role::Secondary);
    let epoch = rig.status().superblock.epoch;
    let read = |id, slot| ClientMsg::Read { id, epoch, after: Seq(0), lba: Lba(id), blocks: 1, slot };
    rig.client(1, read(1, 0));
    rig.event(Event::Switchover);
    rig.client(1, read(2, 1));
    rig.said();
    rig.wait_with(900, 1, 1, Role::Secondary);
    assert!(!rig.said().iter().any(|a| matches!(a, Action::AnswerRead { .. })));
    rig.wait_with(200, 1, 1, Role::Secondary);
    assert_eq!(rig.status().handed_over, HandedOver::CalledOff(Obstacle::Slow));
    rig.let_go();
    let answered = rig.said().iter().filter(|a| matches!(a, Action::AnswerRead { .. })).count();
    assert_eq!(answered, 2);
    assert!(rig.status().dual);
}

/// The superblock write fails: what stands on the disk is not known, so nothing goes on here, and the other one is
/// asked until it takes over.
#[test]
fn a_naming_that_fails_ends_in_asking() {
    let mut rig = ready();
    rig.hold(names_b);
    rig.event(Event::Switchover);
    rig.end(names_b, Event::SuperblockWritten(BROKEN));
    rig.said();
    rig.write(1, 1, 0);
    rig.ack(1, Some(Seq(1)), Seq(1));
    rig.wait_with(150, 1, 1, Role::Secondary);
    let said = rig.said();
    assert!(said.iter().filter(|a| tells(std::slice::from_ref(a), |b| *b == PeerBody::TakeOver)).count() >= 2);
    assert_eq!(rig.completed(), Seq(0), "it completes nothing");
    assert!(!said.iter().any(|a| matches!(a, Action::Flush { .. })), "nor flushes");
}

/// The new primary: the claim, the superblock, and only then it serves; what the old one flushed it does not know.
#[test]
fn the_new_primary_reads_the_superblock_before_it_serves() {
    let mut rig = Rig::secondary();
    rig.event(Event::ClientUp { conn: ConnId(1) });
    let generation = rig.status().generation;
    rig.client(1, ClientMsg::Resume { generation, first: Seq(1) });
    rig.write(1, 1, 0);
    rig.write(1, 2, 1);
    rig.hold(|a| matches!(a, Action::AcceptFence | Action::ReadSuperblock));
    rig.said();
    let superblock = handed(&mut rig);
    assert_eq!(rig.pending, [Action::AcceptFence]);
    assert_eq!(rig.status().role, Role::TakingOver);
    rig.end(|a| *a == Action::AcceptFence, Event::FenceAccepted(Ok(())));
    assert_eq!(rig.pending, [Action::ReadSuperblock]);
    rig.let_go();
    assert_eq!(rig.status().role, Role::Primary);
    assert!(rig.status().dual && rig.status().superblock == superblock);
    let said = rig.said();
    assert!(tells(&said, |body| *body == PeerBody::Announce { superblock }));
    assert!(!said.iter().any(|a| matches!(a, Action::Flush { .. } | Action::WriteSuperblock(_) | Action::Fence)));
    // Nothing completes by what was ACKed to another; then all that was not released is flushed.
    assert_eq!(rig.completed(), Seq(0));
    rig.ack(1, Some(Seq(1)), Seq(2));
    assert_eq!(rig.completed(), Seq(2));
    assert_eq!(rig.status().flushed, Seq(2));
}

/// † Its epoch had gone by when it heard: it lets the claim go again, and finds out.
#[test]
fn a_word_of_an_epoch_that_has_gone_by_is_found_out() {
    let mut rig = Rig::secondary();
    rig.hold(|a| matches!(a, Action::AcceptFence | Action::Probe));
    let superblock = handed(&mut rig);
    let alone = Members::solo(Member { node: NodeId::A, incarnation: other(1) });
    let later = Superblock {
        counter: superblock.counter + 2,
        epoch: superblock.epoch.next(),
        primary: Some(NodeId::A),
        members: alone,
        clean: true,
        ..superblock
    };
    rig.disk = SlotRead { superblock: later, settled: true, older: None };
    rig.said();
    rig.end(|a| *a == Action::AcceptFence, Event::FenceAccepted(Ok(())));
    let said = rig.said();
    assert!(said.contains(&Action::YieldFence));
    assert!(!said.iter().any(|a| matches!(a, Action::Flush { .. } | Action::WriteSuperblock(_))), "{said:?}");
    assert_eq!(rig.status().role, Role::Waiting, "no member any more");
}

/// The claim is not to be had, or the disk is out of reach: by rule 9, and the second one asks the old primary back.
#[test]
fn what_can_not_be_accepted_is_found_out() {
    for (error, asks) in [(FenceError::Lost, false), (FenceError::Failed, true)] {
        let mut rig = Rig::secondary();
        rig.hold(|a| matches!(a, Action::AcceptFence | Action::ReadSuperblock));
        handed(&mut rig);
        rig.said();
        rig.end(|a| *a == Action::AcceptFence, Event::FenceAccepted(Err(error)));
        assert_eq!(rig.status().role, Role::Fenced);
        rig.peer_status(1, 1, Role::Secondary);
        rig.wait(60);
        let said = rig.said();
        assert_eq!(tells(&said, |body| *body == PeerBody::TakeOver), asks, "{error:?}");
        assert!(!said.contains(&Action::Fence), "not before it has found out, and waited");
    }
}

/// Only the very epoch's secondary is handed to, and only what the writer can have written is believed.
#[test]
fn a_telling_that_does_not_fit_is_ignored() {
    let base = Rig::secondary().disk.superblock;
    let next = Superblock { counter: 9, epoch: base.epoch.next(), primary: Some(NodeId::B), ..base };
    let stranger = Member { node: NodeId::A, incarnation: other(7) };
    for wrong in [
        Superblock { epoch: base.epoch, ..next },
        Superblock { primary: Some(NodeId::A), ..next },
        Superblock { members: next.members.with(stranger), ..next },
        Superblock { generation: base.generation.next(), ..next },
    ] {
        let mut rig = Rig::secondary();
        rig.said();
        rig.peer(1, 1, PeerBody::HandOver { superblock: wrong });
        assert_eq!(rig.status().role, Role::Secondary, "{wrong}");
        assert!(!rig.said().contains(&Action::AcceptFence), "{wrong}");
    }
    // To a node that is no member.
    let mut rig = Rig::linked(NodeId::B, base);
    rig.said();
    rig.peer(1, 1, PeerBody::HandOver { superblock: next });
    assert!(!rig.said().contains(&Action::AcceptFence));
}

/// Whatever stands in the way is named, and an order does nothing then.
#[test]
fn obstacles_are_named() {
    let refused = |rig: &mut Rig, why| {
        assert_eq!(rig.machine.obstacle(), Some(why));
        rig.said();
        rig.event(Event::Switchover);
        assert!(!rig.said().iter().any(names_b), "{why:?}");
        assert_eq!(rig.status().handed_over, HandedOver::Never);
    };
    refused(&mut Rig::secondary(), Obstacle::NotPrimary);
    refused(&mut Rig::attached(), Obstacle::Alone);
    refused(&mut Rig::dual(), Obstacle::OtherNotReady);
    let mut rig = ready();
    rig.event(Event::Paths { usable: false });
    refused(&mut rig, Obstacle::NoPath);
    let mut rig = ready();
    rig.peer_paths = false;
    rig.peer_status(1, 1, Role::Secondary);
    refused(&mut rig, Obstacle::OtherHasNoPath);
    let mut rig = ready();
    rig.hold(|a| matches!(a, Action::Probe));
    rig.event(Event::LinkDown { link: LinkId(1) });
    refused(&mut rig, Obstacle::NoLink);
    let mut rig = ready();
    rig.event(Event::ClientDown { conn: ConnId(1) });
    rig.event(Event::ClientUp { conn: ConnId(2) });
    rig.client(2, ClientMsg::Attach { over: Generation::ZERO });
    refused(&mut rig, Obstacle::Attaching);
    let mut rig = ready();
    rig.hold(names_b);
    rig.event(Event::Switchover);
    assert_eq!(rig.machine.obstacle(), Some(Obstacle::UnderWay));
    rig.event(Event::ClientUp { conn: ConnId(2) });
    rig.client(2, ClientMsg::Attach { over: Generation::ZERO });
    assert!(answers(&rig.said(), |m| matches!(m, NodeMsg::Refused { why: Refusal::NotReady })));
}

/// A handover leaves the clean mark behind: the new primary completes at once.
#[test]
fn a_clean_volume_is_handed_over_unmarked() {
    let mut rig = ready();
    rig.wait_with(61_000, 1, 1, Role::Secondary);
    assert!(rig.disk.superblock.clean);
    rig.event(Event::Switchover);
    assert_eq!((rig.disk.superblock.primary, rig.disk.superblock.clean), (Some(NodeId::B), false));
}

/// An answer from before the handover still uses the lane's space; when it has ended the space is given back, though
/// nobody says anything more.
#[test]
fn an_answer_under_way_keeps_its_space_and_no_longer() {
    let mut rig = ready();
    rig.hold(|a| matches!(a, Action::AnswerRead { .. }));
    rig.write(1, 1, 0);
    rig.ack(1, Some(Seq(1)), Seq(0));
    let epoch = rig.status().superblock.epoch;
    rig.client(1, ClientMsg::Read { id: 1, epoch, after: Seq(1), lba: Lba(0), blocks: 1, slot: 0 });
    rig.ack(1, Some(Seq(1)), Seq(1));
    let token = rig.pending.iter().find_map(|a| match a {
        Action::AnswerRead { token, .. } => Some(*token),
        _ => None,
    });
    let token = token.expect("it is being answered");
    rig.event(Event::Switchover);
    assert_eq!(rig.status().role, Role::Secondary);
    let status = rig.status();
    let mailbox = Mailbox::Released {
        epoch: status.superblock.epoch,
        from: other(1),
        to: status.incarnation,
        generation: status.generation,
        released: Seq(1),
    };
    rig.event(Event::PeerMailbox { link: LinkId(1), mailbox });
    assert_eq!(rig.status().released, Seq(0));
    rig.end(|a| matches!(a, Action::AnswerRead { .. }), Event::ReadAnswered { token });
    assert_eq!(rig.status().released, Seq(1));
}

/// Rule 11: a dual primary goes on in RAM while the disk fails, and answers what it has there.
#[test]
fn ram_goes_on_while_the_disk_fails() {
    let mut rig = ready();
    rig.hold(|a| matches!(a, Action::Flush { .. }));
    rig.write(1, 1, 0);
    rig.ack(1, Some(Seq(1)), Seq(1));
    rig.end_batch(BROKEN);
    assert!(rig.status().disk_trouble);
    rig.write(1, 2, 1);
    rig.ack(1, Some(Seq(1)), Seq(2));
    assert_eq!(rig.completed(), Seq(2));
    let epoch = rig.status().superblock.epoch;
    rig.client(1, ClientMsg::Read { id: 1, epoch, after: Seq(2), lba: Lba(0), blocks: 2, slot: 0 });
    assert!(rig.said().iter().any(|a| matches!(a, Action::AnswerRead { .. })));
    assert_eq!(rig.status().released, Seq(0), "nothing is dropped");
}

/// Rule 11: a primary without a path asks who has one, with every heartbeat, and stops when it has one again.
#[test]
fn who_has_no_path_asks() {
    let asks = |rig: &mut Rig| tells(&rig.said(), |body| *body == PeerBody::TakeOver);
    let mut rig = ready();
    rig.event(Event::Paths { usable: false });
    assert!(asks(&mut rig), "at once");
    rig.wait_with(500, 1, 1, Role::Secondary);
    let again =
        rig.said().iter().filter(|a| tells(std::slice::from_ref(a), |body| *body == PeerBody::TakeOver)).count();
    assert_eq!(again, 10, "and with every heartbeat");
    rig.peer_paths = false;
    rig.peer_status(1, 1, Role::Secondary);
    rig.said();
    rig.wait_with(200, 1, 1, Role::Secondary);
    assert!(!asks(&mut rig), "not one that can't do better");
    rig.peer_paths = true;
    rig.peer_status(1, 1, Role::Secondary);
    rig.event(Event::Paths { usable: true });
    rig.said();
    rig.wait_with(200, 1, 1, Role::Secondary);
    assert!(!asks(&mut rig));
}

/// Rule 11: a primary that may have let another one in, and can't find out, asks nobody else: who fences may kill it,
/// and then no member would be left (found by the simulator, with `local-lock`).
#[test]
fn nobody_is_asked_who_could_not_go_on() {
    let mut rig = Rig::attached();
    rig.joining(1);
    rig.hold(|a| matches!(a, Action::WriteSuperblock(_) | Action::Probe));
    rig.ack(1, Some(Seq(1)), Seq(0));
    assert!(rig.pending.iter().any(|a| matches!(a, Action::WriteSuperblock(s) if s.members.is_dual())));
    rig.event(Event::Paths { usable: false });
    rig.said();
    rig.wait_with(100, 1, 1, Role::Joining);
    assert!(
        tells(&rig.said(), |body| *body == PeerBody::TakeOver),
        "the joiner is in, or may take over from one alone"
    );
    // It dies, and comes back as another.
    rig.event(Event::LinkDown { link: LinkId(1) });
    rig.link(2, 2);
    rig.wait_with(200, 2, 2, Role::Waiting);
    assert!(!tells(&rig.said(), |body| *body == PeerBody::TakeOver));
}

/// Rule 11: who is asked goes by rule 5 at once, if it has a path; a request that is not repeated is forgotten.
#[test]
fn who_is_asked_takes_over_if_it_can() {
    let mut rig = Rig::secondary();
    rig.hold(|a| matches!(a, Action::Fence));
    rig.event(Event::Paths { usable: false });
    rig.peer(1, 1, PeerBody::TakeOver);
    assert_eq!(rig.status().role, Role::Secondary, "it has no path itself");
    rig.wait_with(200, 1, 1, Role::Primary);
    rig.event(Event::Paths { usable: true });
    assert_eq!(rig.status().role, Role::Secondary, "four heartbeats later it is forgotten");
    rig.peer(1, 1, PeerBody::TakeOver);
    assert!(rig.pending.contains(&Action::Fence));

    let mut rig = Rig::secondary();
    rig.hold(|a| matches!(a, Action::Fence));
    rig.event(Event::Paths { usable: false });
    rig.peer(1, 1, PeerBody::TakeOver);
    rig.wait_with(150, 1, 1, Role::Primary);
    rig.event(Event::Paths { usable: true });
    assert!(rig.pending.contains(&Action::Fence), "before that it counts");
}

/// Rules 5 and 11: both nodes lose the disk, one notices first and asks the other, whose fence hangs. Meanwhile the primary
/// goes on in RAM: the member goes on with its ACKs. Under the fence it stops (the drain would not cover them).
#[test]
fn a_member_acks_until_it_has_the_fence() {
    let acks = |rig: &mut Rig, seq: u64| {
        let said = rig.said();
        said.iter().any(|a| {
            let Action::PeerMailbox { mailbox: Mailbox::Ack { received, .. }, .. } = a else { return false };
            *received == Seq(seq)
        })
    };
    let mut rig = Rig::secondary();
    rig.hold(|a| matches!(a, Action::Fence | Action::ReadSuperblock));
    rig.event(Event::ClientUp { conn: ConnId(1) });
    rig.client(1, ClientMsg::Resume { generation: Generation(1), first: Seq(1) });
    rig.peer(1, 1, PeerBody::TakeOver);
    assert!(rig.pending.contains(&Action::Fence));
    rig.said();
    rig.write(1, 1, 0);
    assert!(acks(&mut rig, 1), "the fence hangs");
    rig.end(|a| matches!(a, Action::Fence), Event::FenceHeld(Ok(())));
    rig.write(1, 2, 0);
    assert!(!acks(&mut rig, 2), "what comes now may miss the drain");
}

/// Rule 13: a client that reaches the other node only moves the volume, unless one is attached here.
#[test]
fn a_client_at_the_other_node_moves_the_volume() {
    let mut rig = ready();
    rig.hold(names_b);
    rig.client(1, ClientMsg::Heartbeat);
    rig.peer(1, 1, PeerBody::AskHandOver);
    assert_eq!(rig.status().handed_over, HandedOver::Never, "a client is here");
    rig.event(Event::ClientDown { conn: ConnId(1) });
    rig.peer(1, 1, PeerBody::AskHandOver);
    assert!(rig.pending.iter().any(names_b));

    // One whose path is cut ends no connection. It has given it up itself by then, and goes by the other node.
    let mut rig = ready();
    rig.hold(names_b);
    rig.client(1, ClientMsg::Heartbeat);
    rig.wait_with(950, 1, 1, Role::Secondary);
    rig.peer(1, 1, PeerBody::AskHandOver);
    assert_eq!(rig.status().handed_over, HandedOver::Never, "it may only be slow");
    rig.wait_with(50, 1, 1, Role::Secondary);
    rig.peer(1, 1, PeerBody::AskHandOver);
    assert!(rig.pending.iter().any(names_b), "a silence of takeover_ms");

    let mut rig = Rig::secondary();
    rig.event(Event::ClientUp { conn: ConnId(1) });
    rig.said();
    let unreachable = |epoch| ClientMsg::Unreachable { node: NodeId::A, epoch, generation: Generation::ZERO };
    rig.client(1, unreachable(Epoch(1)));
    assert!(!tells(&rig.said(), |body| *body == PeerBody::AskHandOver), "of an epoch that has gone by");
    rig.client(1, unreachable(Epoch(2)));
    assert!(tells(&rig.said(), |body| *body == PeerBody::AskHandOver), "whether attached or not");
}

/// Refuses what is flushed, with a conflict; the own key turns out to be in place. As often as the machine tries again in
/// `ms`; returns how often that was, and what it said.
fn refuse(rig: &mut Rig, ms: u64) -> (usize, Vec<Action>) {
    let (mut times, mut said) = (0, Vec::new());
    for _ in 0..ms / 50 {
        rig.wait_with(50, 1, 1, Role::Secondary);
        while rig.pending.iter().any(is_flush) {
            rig.end_batch(Err(DiskError::Conflict));
            times += 1;
        }
        said.extend(rig.said());
    }
    (times, said)
}

/// A primary with a durable write on its way to the disk.
fn flushing() -> Rig {
    let mut rig = ready();
    rig.hold(|a| matches!(a, Action::Flush { .. }));
    rig.write(1, 1, 0);
    rig.ack(1, None, Seq(1));
    rig
}

/// Rules 9 and 11: a path without the own key refuses once. What goes on refusing is disk trouble, and at last as bad as
/// no path; but nobody has fenced this node.
#[test]
fn writes_that_are_refused_for_ever_are_disk_trouble_and_not_a_fence() {
    let mut rig = flushing();
    let (times, said) = refuse(&mut rig, 50);
    assert_eq!(times, 1);
    assert!(said.contains(&Action::CheckFence) && !rig.status().disk_trouble, "it may be a path that came back");
    let (_, said) = refuse(&mut rig, 150);
    assert!(said.contains(&Action::Notice(Notice::DiskTrouble)) && rig.status().disk_trouble);
    assert!(rig.status().paths && !tells(&said, |body| *body == PeerBody::TakeOver), "the fence still mends");
    let (_, said) = refuse(&mut rig, 1000);
    assert!(tells(&said, |body| *body == PeerBody::TakeOver), "the other one is asked");
    assert!(tells(&said, |body| matches!(body, PeerBody::Status { paths: false, .. })));
    assert_eq!((rig.status().role, rig.status().paths), (Role::Primary, false), "nobody has fenced it");
    assert!(!said.contains(&Action::Notice(Notice::Fenced)));
    // It was mended after all.
    rig.let_go();
    rig.wait_with(500, 1, 1, Role::Secondary);
    assert!(rig.said().contains(&Action::Notice(Notice::DiskWell)));
    assert!(rig.status().paths && !rig.status().disk_trouble);
}

/// The paths take turns: the heartbeat by a good one says nothing about the batch by another.
#[test]
fn a_heartbeat_that_lands_does_not_excuse_a_batch_that_is_refused() {
    let mut rig = flushing();
    let (_, said) = refuse(&mut rig, 2000);
    assert!(said.iter().filter(|a| matches!(a, Action::WriteHeartbeat { .. })).count() > 5);
    assert!(tells(&said, |body| *body == PeerBody::TakeOver));
}

/// Rule 8: who waits with its registration, and hears of a new epoch, may have lost the one in the fence of the other.
#[test]
fn who_waits_registers_again_in_a_new_epoch() {
    let theirs = |epoch| Superblock {
        counter: epoch,
        epoch: Epoch(epoch),
        primary: Some(NodeId::A),
        members: Members::solo(Member { node: NodeId::A, incarnation: other(1) }),
        ..Superblock::default()
    };
    for answered_late in [false, true] {
        let mut rig = Rig::linked(NodeId::B, theirs(3));
        if answered_late {
            rig.hold(|a| *a == Action::Admit);
        }
        rig.wait_with(300, 1, 1, Role::Primary);
        assert!(rig.said().contains(&Action::Admit));
        rig.peer(1, 1, PeerBody::Announce { superblock: theirs(4) });
        rig.let_go();
        rig.wait_with(300, 1, 1, Role::Primary);
        let said = rig.said();
        assert!(said.contains(&Action::Admit), "answered late: {answered_late}");
        assert!(tells(&said, |body| *body == PeerBody::JoinRequest));
        rig.wait_with(300, 1, 1, Role::Primary);
        assert!(!rig.said().contains(&Action::Admit), "once");
    }
}

/// Rule 13: who has just been handed the volume, or has just tried in vain to hand it over, does not do so at a client's
/// next word: two nodes would pass it to and fro. After takeover_ms it does.
#[test]
fn a_clients_word_moves_the_volume_only_every_now_and_then() {
    let mut rig = Rig::secondary();
    handed(&mut rig);
    rig.peer_status(1, 1, Role::Secondary);
    assert_eq!((rig.status().role, rig.machine.obstacle()), (Role::Primary, None));
    for _ in 0..19 {
        rig.peer(1, 1, PeerBody::AskHandOver);
        assert_eq!(rig.status().handed_over, HandedOver::Never);
        rig.wait_with(50, 1, 1, Role::Secondary);
    }
    rig.wait_with(50, 1, 1, Role::Secondary);
    rig.peer(1, 1, PeerBody::AskHandOver);
    assert!(matches!(rig.status().handed_over, HandedOver::UnderWay { .. }), "a second later");

    let mut rig = ready();
    rig.event(Event::ClientDown { conn: ConnId(1) });
    rig.hold(|a| matches!(a, Action::WriteHeartbeat { .. }));
    rig.wait_with(300, 1, 1, Role::Secondary);
    rig.peer(1, 1, PeerBody::AskHandOver);
    rig.peer_paths = false;
    rig.peer_status(1, 1, Role::Secondary);
    let called_off = HandedOver::CalledOff(Obstacle::OtherHasNoPath);
    assert_eq!(rig.status().handed_over, called_off);
    rig.peer_paths = true;
    for _ in 0..19 {
        rig.peer_status(1, 1, Role::Secondary);
        rig.peer(1, 1, PeerBody::AskHandOver);
        assert_eq!(rig.status().handed_over, called_off);
        rig.wait_with(50, 1, 1, Role::Secondary);
    }
    rig.wait_with(50, 1, 1, Role::Secondary);
    rig.peer(1, 1, PeerBody::AskHandOver);
    assert!(matches!(rig.status().handed_over, HandedOver::UnderWay { .. }), "a second later");
}

/// The other one never hears of it, and is gone: this node takes the volume back, and says that the handover failed.
#[test]
fn a_handover_that_nobody_heard_of_has_failed() {
    let mut rig = ready();
    rig.hold(|a| matches!(a, Action::YieldFence | Action::Fence));
    rig.event(Event::Switchover);
    assert!(matches!(rig.status().handed_over, HandedOver::UnderWay { .. }));
    rig.event(Event::LinkDown { link: LinkId(1) });
    rig.end(|a| *a == Action::YieldFence, Event::FenceYielded);
    rig.event(Event::Probed(twinsan_replica::Probe::Refused));
    rig.wait(1000);
    assert_eq!(rig.status().role, Role::TakingOver, "by rule 5");
    rig.let_go();
    assert_eq!((rig.status().role, rig.status().handed_over), (Role::Primary, HandedOver::Failed));
}

/// Rule 13: only the word that the primary is out of reach is passed on, and only by the member that could serve.
#[test]
fn whom_a_client_misses_matters() {
    let asks = |rig: &mut Rig, node: NodeId| {
        rig.said();
        let epoch = rig.status().superblock.epoch;
        rig.client(1, ClientMsg::Unreachable { node, epoch, generation: Generation::ZERO });
        tells(&rig.said(), |body| *body == PeerBody::AskHandOver)
    };
    let mut rig = Rig::secondary();
    rig.event(Event::ClientUp { conn: ConnId(1) });
    assert!(!asks(&mut rig, NodeId::B), "this node: it hears that");
    assert!(asks(&mut rig, NodeId::A));

    let mut rig = ready();
    assert!(!asks(&mut rig, NodeId::B), "a primary asks nobody for that");
    let mut rig = Rig::linked(NodeId::B, crate::rig::a_alone());
    rig.hear_of_primary();
    rig.event(Event::ClientUp { conn: ConnId(1) });
    assert!(!asks(&mut rig, NodeId::A), "who is no member could take nothing over");
}

/// Rule 11: an operator hears once that the other node is asked, and again when it happens anew, not at each repetition.
#[test]
fn an_operator_is_told_once_that_the_other_node_is_asked() {
    let told = |rig: &mut Rig| rig.said().iter().filter(|a| matches!(a, Action::Notice(Notice::Asking))).count();
    let mut rig = ready();
    rig.wait_with(2000, 1, 1, Role::Secondary);
    rig.said();
    rig.event(Event::Paths { usable: false });
    rig.wait_with(3000, 1, 1, Role::Secondary);
    assert_eq!(told(&mut rig), 1);
    rig.event(Event::Paths { usable: true });
    rig.wait_with(2000, 1, 1, Role::Secondary);
    rig.event(Event::Paths { usable: false });
    rig.wait_with(500, 1, 1, Role::Secondary);
    assert_eq!(told(&mut rig), 1);
}

/// Who was well when the order was given may not be when the I/O in flight has ended: it would never take the volume.
#[test]
fn who_falls_silent_or_dies_meanwhile_is_not_handed_to() {
    let begun = || {
        let mut rig = ready();
        rig.hold(|a| matches!(a, Action::WriteHeartbeat { .. }));
        rig.wait_with(300, 1, 1, Role::Secondary);
        rig.event(Event::Switchover);
        assert!(matches!(rig.status().handed_over, HandedOver::UnderWay { .. }));
        rig
    };
    let mut rig = begun();
    rig.wait(450);
    assert!(matches!(rig.status().handed_over, HandedOver::UnderWay { .. }));
    rig.wait(100);
    assert_eq!(rig.status().handed_over, HandedOver::CalledOff(Obstacle::NoLink), "silent for `drop_ms`");
    let mut rig = begun();
    rig.link(2, 2);
    assert_eq!(rig.status().handed_over, HandedOver::CalledOff(Obstacle::NoLink), "another life of it");
}

/// Rule 13: the claim is let go before the other one is told, whatever else tells that it does not know yet.
#[test]
fn nobody_is_told_before_the_claim_is_free() {
    let mut rig = ready();
    let epoch = rig.status().superblock.epoch;
    rig.hold(|a| matches!(a, Action::YieldFence | Action::Probe));
    rig.event(Event::Switchover);
    rig.event(Event::LinkDown { link: LinkId(1) });
    rig.link(2, 1);
    let body = PeerBody::Status { role: Role::Secondary, beat: 1000, paths: true };
    let msg = twinsan_wire::PeerMsg { epoch, from: other(1), to: None, body };
    rig.event(Event::Peer { link: LinkId(2), msg });
    assert!(!tells(&rig.said(), hands_over));
    rig.end(|a| *a == Action::YieldFence, Event::FenceYielded);
    assert!(tells(&rig.said(), hands_over));
}

/// Rule 11: what it had before its link was gone it may have lost since. Who fences and can't go on has done harm only.
#[test]
fn who_has_said_nothing_on_a_new_link_is_not_asked() {
    let mut rig = ready();
    rig.hold(|a| matches!(a, Action::Probe));
    rig.event(Event::LinkDown { link: LinkId(1) });
    rig.event(Event::Paths { usable: false });
    rig.said();
    rig.link(2, 1);
    rig.wait(100);
    assert!(!tells(&rig.said(), |body| *body == PeerBody::TakeOver));
    rig.peer_status(2, 1, Role::Secondary);
    assert!(tells(&rig.said(), |body| *body == PeerBody::TakeOver));
}
