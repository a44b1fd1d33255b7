//! Rule 15: whose word that the other node can't be reached counts, and where; at a node outside above all.

use twinsan_replica::{Action, ConnId, DiskError, Event, Evidence, FenceError, LinkId, Probe, RelayPhase, SlotRead};
use twinsan_wire::{ClientMsg, Epoch, Generation, Member, Members, NodeId, Role, Seq, Superblock};

use crate::rig::{Rig, is_fence, is_heartbeat, is_write, other};

const EPOCH: Epoch = Epoch(5);
const SESSION: Generation = Generation(3);

/// Node A's incarnation `n` serves alone.
fn alone(n: u64) -> Superblock {
    Superblock {
        counter: 9,
        epoch: EPOCH,
        primary: Some(NodeId::A),
        members: Members::solo(Member { node: NodeId::A, incarnation: other(n) }),
        generation: SESSION,
        clean: false,
    }
}

/// The other node lives: it is heard no more, nothing answers there, and its disk heartbeat moves.
fn wait_unheard(rig: &mut Rig, ms: u64, mut meanwhile: impl FnMut(&mut Rig)) {
    for _ in 0..ms / 50 {
        rig.wait(50);
        meanwhile(rig);
        while let Some(at) = rig.pending.iter().position(|a| matches!(a, Action::Probe | Action::ReadHeartbeat)) {
            let event = match rig.pending.remove(at) {
                Action::Probe => Event::Probed(Probe::Silent),
                _ => Event::HeartbeatRead(Ok(rig.now)),
            };
            rig.event(event);
        }
    }
}

/// Node B outside of what `superblock` names, with a client on connection 1; the link to A is there, and nobody says anything.
fn outside(superblock: Superblock) -> Rig {
    let mut rig = Rig::linked(NodeId::B, superblock);
    rig.hold(|a| matches!(a, Action::Probe | Action::ReadHeartbeat));
    rig.event(Event::ClientUp { conn: ConnId(1) });
    rig
}

/// The same, with the link gone.
fn cut_off(superblock: Superblock) -> Rig {
    let mut rig = outside(superblock);
    rig.event(Event::LinkDown { link: LinkId(1) });
    rig
}

/// B, cut off from A for long; what it reads of the superblock from now on, the test answers.
fn reads_that_hang() -> Rig {
    let mut rig = cut_off(alone(1));
    wait_unheard(&mut rig, 2000, |_| {});
    rig.hold(|a| matches!(a, Action::Probe | Action::ReadHeartbeat | Action::ReadSuperblock));
    rig.wait(10);
    rig
}

fn unreachable(epoch: Epoch, generation: Generation) -> ClientMsg {
    ClientMsg::Unreachable { node: NodeId::A, epoch, generation }
}

/// Whether B, cut off from A, takes over while a client goes on saying `msg`.
fn moves(superblock: Superblock, msg: ClientMsg) -> bool {
    let mut rig = cut_off(superblock);
    wait_unheard(&mut rig, 5000, |rig| rig.client(1, msg));
    let fenced = rig.said().iter().any(is_fence);
    assert_eq!(fenced, rig.status().role == Role::Primary);
    fenced
}

#[test]
fn outside_only_the_newest_sessions_word_of_this_epoch_counts() {
    assert!(!moves(alone(1), ClientMsg::Heartbeat), "nobody has said anything");
    assert!(moves(alone(1), unreachable(EPOCH, SESSION)));
    for generation in [Generation::ZERO, Generation(2), Generation(4), Generation(u64::MAX)] {
        assert!(!moves(alone(1), unreachable(EPOCH, generation)), "{generation:?}");
    }
    for epoch in [Epoch::ZERO, Epoch(4), Epoch(6), Epoch(u64::MAX)] {
        assert!(!moves(alone(1), unreachable(epoch, SESSION)), "{epoch:?}");
    }
    let own = ClientMsg::Unreachable { node: NodeId::B, epoch: EPOCH, generation: SESSION };
    assert!(!moves(alone(1), own), "it reaches itself");
}

#[test]
fn no_session_is_not_the_session_of_a_volume_that_was_never_attached() {
    let superblock = Superblock { generation: Generation::ZERO, ..alone(1) };
    assert!(!moves(superblock, unreachable(EPOCH, Generation::ZERO)));
}

/// A living primary drops a member that is gone, and is alone soon. Until then it may be about to mark as in use what is
/// marked clean, and hold what nobody else does.
#[test]
fn a_word_against_one_of_two_moves_nothing() {
    let members = alone(1).members.with(Member { node: NodeId::B, incarnation: other(7) });
    for clean in [true, false] {
        assert!(!moves(Superblock { members, clean, ..alone(1) }, unreachable(EPOCH, SESSION)), "clean {clean}");
    }
}

/// Its heartbeat block stands still, and its superblock does not: it lives.
#[test]
fn who_writes_superblocks_lives() {
    let mut rig = cut_off(alone(1));
    rig.hold(|a| *a == Action::Probe);
    rig.settle();
    for _ in 0..10 {
        rig.wait(500);
        rig.disk.superblock.counter += 1;
        rig.disk.superblock.clean ^= true;
    }
    assert!(!rig.said().iter().any(is_fence));
    rig.wait(2000);
    assert_eq!(rig.status().role, Role::Primary);
}

/// The link between the nodes is well, and so is the primary, as far as this node knows.
#[test]
fn a_word_against_one_that_is_heard_moves_nothing() {
    let mut rig = outside(alone(1));
    for _ in 0..100 {
        rig.wait(50);
        rig.client(1, unreachable(EPOCH, SESSION));
        rig.peer_status(1, 1, Role::Primary);
    }
    assert!(!rig.said().iter().any(is_fence));
}

/// Said once, and never again: it has lost its weight before the fabric has been silent for long enough.
#[test]
fn a_word_ages() {
    let mut rig = cut_off(alone(1));
    rig.client(1, unreachable(EPOCH, SESSION));
    wait_unheard(&mut rig, 5000, |_| {});
    assert!(!rig.said().iter().any(is_fence));
}

/// As long as a primary is there nobody reads the disk: what is known outside may be old when it falls silent, and another
/// session may have begun. The word is weighed against a superblock that was read after it.
#[test]
fn a_word_that_fits_what_was_known_before_the_silence() {
    let mut rig = outside(alone(1));
    rig.peer_status(1, 1, Role::Primary);
    rig.hold(|a| matches!(a, Action::Probe | Action::ReadHeartbeat | Action::ReadSuperblock));
    let next = Superblock { counter: 10, epoch: EPOCH.next(), generation: SESSION.next(), ..alone(1) };
    wait_unheard(&mut rig, 5000, |rig| rig.client(1, unreachable(EPOCH, SESSION)));
    assert!(!rig.said().iter().any(is_fence), "nothing has been read since");
    rig.disk = SlotRead { superblock: next, settled: true, older: None };
    rig.hold(|a| matches!(a, Action::Probe | Action::ReadHeartbeat));
    rig.settle();
    for generation in [SESSION, Generation::ZERO] {
        wait_unheard(&mut rig, 2000, |rig| {
            rig.client(1, unreachable(EPOCH, generation));
            rig.client(1, unreachable(EPOCH.next(), generation));
        });
    }
    assert!(!rig.said().iter().any(is_fence), "the old session has ended");
    wait_unheard(&mut rig, 2000, |rig| rig.client(1, unreachable(EPOCH.next(), SESSION.next())));
    assert_eq!(rig.status().role, Role::Primary);
}

/// A read that takes a while is outrun by the next time that the word is said. It was issued after the first.
#[test]
fn a_word_that_is_said_again_is_as_old_as_it_was() {
    let mut rig = reads_that_hang();
    rig.client(1, unreachable(EPOCH, SESSION));
    wait_unheard(&mut rig, 150, |rig| rig.client(1, unreachable(EPOCH, SESSION)));
    assert!(!rig.said().iter().any(is_fence));
    rig.end(|a| *a == Action::ReadSuperblock, Event::SuperblockRead(Ok(rig.disk)));
    assert!(rig.said().iter().any(is_fence));
}

/// ... and one of another session is another word: what was read before it says nothing of it.
#[test]
fn a_word_of_another_session_is_weighed_anew() {
    let mut rig = reads_that_hang();
    rig.client(1, unreachable(EPOCH, SESSION.next()));
    wait_unheard(&mut rig, 150, |_| {});
    rig.client(1, unreachable(EPOCH, SESSION));
    rig.end(|a| *a == Action::ReadSuperblock, Event::SuperblockRead(Ok(rig.disk)));
    assert!(!rig.said().iter().any(is_fence));
    rig.hold(|a| matches!(a, Action::Probe | Action::ReadHeartbeat));
    wait_unheard(&mut rig, 200, |rig| rig.client(1, unreachable(EPOCH, SESSION)));
    assert!(rig.said().iter().any(is_fence));
}

/// Under the fence it turns out that a session has begun since: it is that one which goes on.
#[test]
fn a_session_that_began_as_the_fence_was_taken_goes_on() {
    let mut rig = cut_off(alone(1));
    rig.hold(|a| matches!(a, Action::Probe | Action::ReadHeartbeat | Action::Fence));
    wait_unheard(&mut rig, 3000, |rig| rig.client(1, unreachable(EPOCH, SESSION)));
    let next = Superblock { counter: 10, epoch: EPOCH.next(), generation: SESSION.next(), ..alone(1) };
    rig.disk = SlotRead { superblock: next, settled: true, older: None };
    rig.end(is_fence, Event::FenceHeld(Ok(())));
    let now = rig.status().superblock;
    assert_eq!((now.primary, now.epoch, now.generation), (Some(NodeId::B), Epoch(7), SESSION.next()));
}

/// ... and if it turns out that two hold the volume in RAM, nobody outside may go on.
#[test]
fn a_pair_found_under_the_fence_is_left_alone() {
    let mut rig = cut_off(alone(1));
    rig.hold(|a| matches!(a, Action::Probe | Action::ReadHeartbeat | Action::Fence));
    wait_unheard(&mut rig, 3000, |rig| rig.client(1, unreachable(EPOCH, SESSION)));
    let both = alone(1).members.with(Member { node: NodeId::B, incarnation: other(7) });
    rig.disk.superblock = Superblock { counter: 10, epoch: EPOCH.next(), members: both, ..alone(1) };
    rig.said();
    rig.end(is_fence, Event::FenceHeld(Ok(())));
    assert_eq!(rig.status().role, Role::Waiting);
    assert!(!rig.said().iter().any(|a| matches!(a, Action::WriteSuperblock(_))));
}

/// Rule 12: what an operator gives up is what nobody holds. That a client can't reach the other node does not say that its
/// RAM is gone.
#[test]
fn an_order_to_recover_takes_no_clients_word() {
    let both = alone(1).members.with(Member { node: NodeId::B, incarnation: other(7) });
    let mut rig = cut_off(Superblock { members: both, ..alone(1) });
    rig.event(Event::Recover);
    wait_unheard(&mut rig, 5000, |rig| rig.client(1, unreachable(EPOCH, SESSION)));
    assert!(!rig.said().iter().any(is_fence));
    rig.hold(|a| *a == Action::Probe);
    rig.settle();
    rig.wait(2000);
    assert_eq!(rig.status().role, Role::Primary, "its disk heartbeat stands still");
}

/// The secondary is fed by relay at the word of the session's own connection; another one of the same client's is late, or
/// new. No relay comes up here, so it is dropped.
#[test]
fn a_primary_hears_the_sessions_connection_only() {
    let mut rig = Rig::dual();
    let superblock = rig.status().superblock;
    let msg = ClientMsg::Unreachable { node: NodeId::B, epoch: superblock.epoch, generation: superblock.generation };
    rig.event(Event::ClientUp { conn: ConnId(2) });
    rig.client(2, msg);
    assert_eq!(rig.status().relay, RelayPhase::Off);
    rig.client(1, msg);
    assert_eq!(rig.status().relay, RelayPhase::Connecting);
    rig.wait_with(600, 1, 1, Role::Waiting);
    assert!(!rig.status().dual, "{:?}", rig.status());
}

/// A member in epoch 2 and session 1 that no connection has the session at: the client has not heard yet that it is one, or
/// has heard of more from the primary than that could tell the member.
#[test]
fn a_member_hears_a_client_that_knows_as_much_or_more() {
    let told = [(2, 1, true), (3, 1, true), (3, 2, true), (1, 1, false), (3, 0, false), (2, 0, false)];
    for (epoch, session, moved) in told {
        let mut rig = Rig::secondary();
        rig.hold(|a| matches!(a, Action::Probe | Action::ReadHeartbeat));
        rig.event(Event::ClientUp { conn: ConnId(1) });
        rig.event(Event::LinkDown { link: LinkId(1) });
        wait_unheard(&mut rig, 3000, |rig| rig.client(1, unreachable(Epoch(epoch), Generation(session))));
        assert_eq!(rig.status().role == Role::Primary, moved, "epoch {epoch}, session {session}");
    }
}

/// A word counts for nothing as long as the one that it is about is heard; then it is what the takeover goes by.
#[test]
fn a_takeover_by_a_clients_word_is_told_as_one() {
    let mut rig = Rig::secondary();
    rig.hold(|a| matches!(a, Action::Probe | Action::ReadHeartbeat | Action::Fence));
    rig.event(Event::ClientUp { conn: ConnId(1) });
    rig.client(1, unreachable(Epoch(2), Generation(1)));
    assert_eq!(rig.machine.evidence(), Evidence::Idle);
    rig.event(Event::LinkDown { link: LinkId(1) });
    wait_unheard(&mut rig, 3000, |rig| rig.client(1, unreachable(Epoch(2), Generation(1))));
    assert!(rig.pending.iter().any(is_fence));
    assert_eq!(rig.machine.evidence(), Evidence::ClientsWord);
}

/// Node A served alone, and nobody ran at the other end when the path to it was cut. Then it was fenced from there;
/// `written`: the members since then, if the other one has got so far.
fn fenced_with_a_refusal(written: Option<Members>) -> Rig {
    let mut rig = Rig::solo(SESSION.0);
    rig.hold(|a| {
        matches!(a, Action::Probe | Action::ReadHeartbeat | Action::WriteHeartbeat { .. } | Action::CheckFence)
    });
    rig.wait(500);
    if let Some(members) = written {
        let Superblock { counter, epoch, .. } = rig.disk.superblock;
        rig.disk.superblock =
            Superblock { counter: counter + 1, epoch: epoch.next(), primary: Some(NodeId::B), members, ..alone(1) };
    }
    rig.end(|a| matches!(a, Action::WriteHeartbeat { .. }), Event::HeartbeatWritten(Err(DiskError::Conflict)));
    rig.end(|a| *a == Action::CheckFence, Event::FenceChecked { own: false });
    rig
}

/// Ping-pong: whoever took over was started when the path was cut already, so that nothing would ever take the refusal back.
#[test]
fn a_refusal_from_before_the_fence_does_not_fence_back() {
    let theirs = Members::solo(Member { node: NodeId::B, incarnation: other(1) });
    for (written, role) in [(Some(theirs), Role::Waiting), (None, Role::Fenced)] {
        let mut rig = fenced_with_a_refusal(written);
        wait_unheard(&mut rig, 5000, |_| {});
        assert_eq!(rig.status().role, role);
        assert!(!rig.said().iter().rev().take_while(|a| **a != Action::CheckFence).any(is_fence));
    }
}

/// The same for one that is outside already when it reads that somebody has served since.
#[test]
fn a_refusal_from_before_the_superblock_says_nothing_of_whom_it_names() {
    let before = Superblock { members: Members::default(), primary: None, ..alone(1) };
    let mut rig = cut_off(before);
    rig.hold(|a| matches!(a, Action::Probe | Action::ReadHeartbeat | Action::Fence));
    rig.end(|a| *a == Action::Probe, Event::Probed(Probe::Refused));
    rig.end(is_fence, Event::FenceHeld(Err(FenceError::Lost)));
    let (counter, epoch) = (before.counter + 1, before.epoch.next());
    rig.disk.superblock = Superblock { counter, epoch, ..alone(2) };
    rig.said();
    wait_unheard(&mut rig, 5000, |_| {});
    assert_eq!((rig.status().superblock.epoch, rig.status().role), (epoch, Role::Waiting));
    assert!(!rig.said().iter().any(is_fence));
}

/// Whoever fenced has ended before it wrote; its next life, which has fenced nobody, was accepted as a joiner by one that did
/// not know yet. It waits for that one, and so must not be waited for.
#[test]
fn a_joiner_does_not_keep_one_that_was_fenced_from_going_on() {
    let mut rig = Rig::attached();
    rig.joining(1);
    rig.hold(|a| matches!(a, Action::WriteHeartbeat { .. } | Action::CheckFence));
    rig.wait(300);
    rig.end(|a| matches!(a, Action::WriteHeartbeat { .. }), Event::HeartbeatWritten(Err(DiskError::Conflict)));
    rig.end(|a| *a == Action::CheckFence, Event::FenceChecked { own: false });
    assert_eq!(rig.status().role, Role::Fenced);
    rig.wait_with(500, 1, 1, Role::Joining);
    assert_eq!(rig.status().role, Role::Fenced, "it may be that one which has fenced");
    rig.wait_with(5000, 1, 1, Role::Joining);
    assert_eq!(rig.status().role, Role::Primary);
}

/// Rule 9: it was the primary, and its last write has made a member of a joiner that nobody hears. The client said so in the
/// epoch before, and has heard of the new one since; what it says in that one counts.
#[test]
fn a_word_of_the_epoch_before_ones_own_last_write_is_void() {
    let mut rig = Rig::attached();
    rig.joining(1);
    rig.hold(|a| {
        is_write(a) || is_heartbeat(a) || matches!(a, Action::Probe | Action::ReadHeartbeat | Action::CheckFence)
    });
    rig.ack(1, Some(Seq(1)), Seq::ZERO);
    let words = |epoch| ClientMsg::Unreachable { node: NodeId::B, epoch, generation: Generation(1) };
    let before = rig.status().superblock.epoch;
    wait_unheard(&mut rig, 1500, |rig| rig.client(1, words(before)));
    let superblock = written(&rig);
    assert!(superblock.members.is_dual() && superblock.epoch == before.next());
    rig.disk.superblock = superblock;
    rig.end(is_heartbeat, Event::HeartbeatWritten(Err(DiskError::Conflict)));
    rig.end(|a| *a == Action::CheckFence, Event::FenceChecked { own: false });
    rig.end(is_write, Event::SuperblockWritten(Ok(())));
    assert_eq!((rig.status().role, rig.status().superblock), (Role::Fenced, superblock));
    rig.said();
    wait_unheard(&mut rig, 900, |_| {});
    assert!(!rig.said().iter().any(is_fence));
    wait_unheard(&mut rig, 200, |rig| rig.client(1, words(before.next())));
    assert!(rig.said().iter().any(is_fence));
}

/// The superblock that is on its way to the disk.
fn written(rig: &Rig) -> Superblock {
    let found = rig.pending.iter().find_map(|a| if let Action::WriteSuperblock(next) = a { Some(*next) } else { None });
    found.expect("it is under way")
}
