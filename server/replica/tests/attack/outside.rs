//! What waits outside: its looks at the disk, how often it asks to be let in, and what an operator hears of it (rules 6, 8, 12).

use twinsan_replica::{Action, DiskError, Event, Notice};
use twinsan_wire::{Member, NodeId, PeerBody, Role, Superblock};

use crate::rig::{Rig, a_alone, config, is_fence, other};

fn is_look(action: &Action) -> bool {
    *action == Action::ReadSuperblock
}

/// How often an operator was told that a loss has to be accepted.
fn told(rig: &mut Rig) -> usize {
    rig.said().iter().filter(|a| matches!(a, Action::Notice(Notice::NeedsRecovery(_)))).count()
}

/// Both members are an earlier life's.
fn pair_of_before() -> Superblock {
    Superblock { members: a_alone().members.with(Member { node: NodeId::B, incarnation: other(9) }), ..a_alone() }
}

/// What the superblock says has to be known before anything is done, and a disk that fails is not asked without end.
#[test]
fn a_first_look_at_the_disk_that_fails_is_made_again_after_a_while() {
    let mut rig = Rig::starting(config(NodeId::A), a_alone());
    rig.hold(is_look);
    rig.settle();
    for _ in 0..3 {
        rig.end(is_look, Event::SuperblockRead(Err(DiskError::Failed)));
        rig.wait(90);
        assert!(!rig.pending.iter().any(is_look));
        rig.wait(20);
        assert!(rig.pending.iter().any(is_look));
    }
    assert!(!rig.said().iter().any(is_fence));
    rig.let_go();
    assert_eq!(rig.status().role, Role::Primary);
}

/// Rule 8: a primary that can't let it in yet hears it again, with a pause between.
#[test]
fn who_waits_asks_to_join_ten_times_a_second() {
    let mut rig = Rig::linked(NodeId::B, a_alone());
    rig.hear_of_primary();
    rig.said();
    rig.wait_with(1000, 1, 1, Role::Primary);
    let asks = |a: &&Action| matches!(a, Action::SendPeer { msg, .. } if msg.body == PeerBody::JoinRequest);
    let asked = rig.said().iter().filter(asks).count();
    assert!((8..=11).contains(&asked), "{asked}");
}

/// Rule 12: of a loss, once; of what is not lost, or has been given up already, not at all.
#[test]
fn an_operator_is_told_once_of_a_loss() {
    let mut rig = Rig::new(NodeId::B, pair_of_before());
    rig.wait(1000);
    assert_eq!((rig.status().role, told(&mut rig)), (Role::Refusing, 1));
    rig.wait(1000);
    assert_eq!(told(&mut rig), 0);

    let mut rig = Rig::linked(NodeId::B, pair_of_before());
    rig.wait_with(1000, 1, 1, Role::TakingOver);
    assert_eq!((rig.status().role, told(&mut rig)), (Role::Waiting, 0), "one of them lives");
    rig.event(Event::Recover);
    rig.hold(is_fence);
    rig.event(Event::LinkDown { link: twinsan_replica::LinkId(1) });
    rig.wait(200);
    assert!(rig.pending.iter().any(is_fence));
    assert_eq!(told(&mut rig), 0, "the order is there");
}
