//! A new session over one whose client lives (rule 10).

use twinsan_replica::{Action, ConnId, Event};
use twinsan_wire::{ClientMsg, Generation, NodeMsg, PeerBody, Refusal, Seq};

use crate::rig::{Rig, answers, tells};

fn asks(rig: &mut Rig, conn: u64, over: u64) {
    rig.event(Event::ClientUp { conn: ConnId(conn) });
    rig.said();
    rig.client(conn, ClientMsg::Attach { over: Generation(over) });
}

fn is_busy(actions: &[Action]) -> bool {
    answers(actions, |msg| *msg == NodeMsg::Refused { why: Refusal::Busy })
}

fn closes(actions: &[Action], conn: u64) -> bool {
    actions.contains(&Action::CloseClient { conn: ConnId(conn) })
}

#[test]
fn a_live_session_gives_way_to_an_order_that_means_it() {
    let mut rig = Rig::attached();
    asks(&mut rig, 2, 0);
    let said = rig.said();
    assert!(is_busy(&said) && !closes(&said, 1), "{said:?}");
    asks(&mut rig, 2, 1);
    let said = rig.said();
    assert!(!is_busy(&said) && closes(&said, 1), "{said:?}");
    assert!(answers(&said, |msg| *msg == NodeMsg::Attached { generation: Generation(2) }), "{said:?}");
}

/// Session 2 has begun since whoever asks has looked.
#[test]
fn a_newer_session_does_not_give_way() {
    let mut rig = Rig::attached();
    asks(&mut rig, 2, 1);
    asks(&mut rig, 3, 1);
    let said = rig.said();
    assert!(is_busy(&said) && !closes(&said, 2), "{said:?}");
}

/// Rule 10, in order: connections, then the flush, then the mirror's lane, then the superblock. What the old client has
/// on its way counts no more, and completes nothing.
#[test]
fn the_old_session_is_torn_down_before_the_new_one_begins() {
    let mut rig = Rig::dual();
    rig.hold(|action| matches!(action, Action::Flush { .. } | Action::WriteSuperblock(_)));
    rig.write(1, 1, 1);
    asks(&mut rig, 2, 1);
    let said = rig.said();
    assert!(closes(&said, 1), "{said:?}");
    assert!(tells(&said, |body| *body == PeerBody::CloseSession { generation: Generation(1) }), "{said:?}");
    assert!(!tells(&said, |body| matches!(body, PeerBody::DropLane { .. })), "before it is on the disk: {said:?}");
    rig.write(1, 2, 2);
    rig.ack(1, Some(Seq(1)), Seq(2));
    assert_eq!(rig.status().received, Seq(1), "its connection is gone");
    assert_eq!(rig.completed(), Seq::ZERO);
    rig.hold(|action| matches!(action, Action::WriteSuperblock(_)));
    rig.settle();
    let said = rig.said();
    assert!(tells(&said, |body| *body == PeerBody::DropLane { generation: Generation(1) }), "{said:?}");
    assert!(!said.iter().any(|action| matches!(action, Action::WriteSuperblock(_))), "the mirror has not confirmed");
    rig.peer(1, 1, PeerBody::LaneDropped { generation: Generation(1) });
    assert!(!answers(&rig.said(), |msg| matches!(msg, NodeMsg::Attached { .. })), "before it is on the disk");
    rig.let_go();
    assert!(answers(&rig.said(), |msg| *msg == NodeMsg::Attached { generation: Generation(2) }));
}

/// What the mirror has not ACKed it may never ACK, as its connections are gone: it is flushed all the same.
#[test]
fn what_only_the_primary_holds_of_the_old_session_is_flushed() {
    let mut rig = Rig::dual();
    rig.write(1, 1, 1);
    assert_eq!(rig.status().flushed, Seq::ZERO, "rule 2");
    asks(&mut rig, 2, 1);
    assert_eq!(rig.status().flushed, Seq(1));
    assert!(tells(&rig.said(), |body| matches!(body, PeerBody::DropLane { .. })));
}
