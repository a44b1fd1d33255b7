//! Rule 10: a new session, asked of the primary.

use super::*;
use crate::{Ended, Phase};

const OLD: Generation = Generation(7);

fn serving(epoch: u64) -> Say {
    Say::primary_a(Epoch(epoch), [A1, B1]).generation(OLD)
}

#[test]
fn only_the_primary_is_asked_and_only_once_a_connection() {
    let mut rig = Rig::new(config());
    let (a, _) = rig.connect(A, A1);
    let (b, _) = rig.connect(B, B1);
    assert_eq!(sends(&rig.say(b, serving(5).hint(Role::Secondary, B1))), []);
    assert_eq!(sends(&rig.say(a, serving(5).hint(Role::TakingOver, A1))), []);
    assert_eq!(sends(&rig.say(a, serving(5))), [(a, ClientMsg::Attach { over: Generation::ZERO })]);
    assert_eq!(sends(&rig.say(a, serving(5))), []);
    assert_eq!(sends(&rig.wait(500)), []);
}

#[test]
fn opened_at_the_primary_then_resumed_at_the_secondary() {
    let mut rig = Rig::new(config());
    let (a, _) = rig.connect(A, A1);
    let (b, _) = rig.connect(B, B1);
    rig.say(a, serving(5));
    assert_eq!(sends(&rig.say(a, serving(6).generation(OURS))), [], "the View alone opens nothing");
    assert_eq!(rig.session.place(BLOCK), None);
    let opened = rig.message(a, NodeMsg::Attached { generation: OURS });
    assert_eq!(opened, [Action::Opened { generation: OURS }, Action::Send { conn: b, msg: resume(1) }]);
    assert!(rig.session.is_open());
    assert_eq!(rig.session.generation(), Some(OURS));
    assert_eq!(posts(&rig.write(3)), [(a, 1)], "the first seq is 1");
}

#[test]
fn not_ready_is_asked_again_on_the_same_connection() {
    let mut rig = Rig::new(config());
    let (a, _) = rig.connect(A, A1);
    rig.say(a, serving(5));
    assert_eq!(rig.refused(a, Refusal::NotReady), []);
    assert_eq!(sends(&rig.wait(10)), []);
    assert_eq!(sends(&rig.wait(10)), [(a, ClientMsg::Attach { over: Generation::ZERO })]);
}

#[test]
fn busy_is_final_unless_the_caller_waits() {
    let mut rig = Rig::new(config());
    let (a, _) = rig.connect(A, A1);
    rig.say(a, serving(5));
    let ended = Ended::Refused(Refusal::Busy);
    assert_eq!(rig.refused(a, Refusal::Busy), [Action::Close { conn: a }, Action::Ended(ended)]);
    assert_eq!(rig.session.status().phase, Phase::Ended(ended));
    assert_eq!(rig.wait(1000), [], "nothing happens after the end");
    let (late, actions) = rig.connect(B, B1);
    assert_eq!(actions, [Action::Close { conn: late }]);

    let mut waiting = config();
    waiting.wait_if_busy = true;
    let mut rig = Rig::new(waiting);
    let (a, _) = rig.connect(A, A1);
    rig.say(a, serving(5));
    assert_eq!(rig.refused(a, Refusal::Busy), []);
    assert_eq!(sends(&rig.wait(20)), [(a, ClientMsg::Attach { over: Generation::ZERO })]);
}

/// The order is for the session that was there when the first primary was heard, however often it is asked.
#[test]
fn an_order_to_take_over_names_the_session_that_it_is_meant_for() {
    let mut ordered = config();
    ordered.take_over = true;
    let mut rig = Rig::new(ordered);
    let (a, _) = rig.connect(A, A1);
    assert_eq!(sends(&rig.say(a, serving(5))), [(a, ClientMsg::Attach { over: OLD })]);
    rig.refused(a, Refusal::NotReady);
    rig.say(a, serving(6).generation(OURS));
    assert_eq!(sends(&rig.wait(20)), [(a, ClientMsg::Attach { over: OLD })]);
    let ended = Ended::Refused(Refusal::Busy);
    assert_eq!(rig.refused(a, Refusal::Busy), [Action::Close { conn: a }, Action::Ended(ended)]);
}

#[test]
fn busy_with_our_own_lost_attach_is_waited_out() {
    let mut rig = Rig::new(config());
    let (a, _) = rig.connect(A, A1);
    rig.say(a, serving(5));
    rig.event(Event::Closed { conn: a });
    rig.wait(10);
    let (again, _) = rig.connect(A, A1);
    assert_eq!(
        sends(&rig.say(again, serving(6).generation(OURS))),
        [(again, ClientMsg::Attach { over: Generation::ZERO })],
        "attached anew"
    );
    assert_eq!(rig.refused(again, Refusal::Busy), []);
    // The node goes on saying who serves, so the connection is not silent.
    for _ in 0..60 {
        rig.wait(100);
        let asked = rig.say(again, serving(6).generation(OURS));
        let ended = rig.refused(again, Refusal::Busy).contains(&Action::Ended(Ended::Refused(Refusal::Busy)));
        if ended {
            assert!(rig.now >= 6000, "ended at {}", rig.now);
            return;
        }
        assert_eq!(sends(&asked), []);
    }
    panic!("another one's session is waited for without end");
}

#[test]
fn a_primary_that_steps_down_with_an_attach_is_connected_anew() {
    let mut rig = Rig::new(config());
    let (a, _) = rig.connect(A, A1);
    rig.say(a, serving(5));
    assert_eq!(rig.say(a, serving(5).hint(Role::Fenced, A1)), [Action::Close { conn: a }]);
    assert_eq!(rig.wait(10)[0], Action::Connect { node: A });
}

#[test]
fn the_other_node_takes_over_before_the_answer() {
    let mut rig = Rig::new(config());
    let (a, _) = rig.connect(A, A1);
    let (b, _) = rig.connect(B, B1);
    rig.say(a, serving(5));
    let actions = rig.say(b, Say::primary_b(Epoch(6), [0, B1]).generation(OLD));
    assert_eq!(actions[0], Action::Close { conn: a });
    assert_eq!(sends(&actions), [(b, ClientMsg::Attach { over: Generation::ZERO })]);
    assert_eq!(rig.message(a, NodeMsg::Attached { generation: OURS }), [], "it is gone");
    assert!(!rig.session.is_open());
}

#[test]
fn attached_must_fit_what_was_asked_and_the_view() {
    let mut rig = Rig::new(config());
    let (a, _) = rig.connect(A, A1);
    let unasked = rig.message(a, NodeMsg::Attached { generation: OURS });
    assert_violation(&unasked, a);

    let mut rig = Rig::new(config());
    let (a, _) = rig.connect(A, A1);
    rig.say(a, serving(5));
    let without_view = rig.message(a, NodeMsg::Attached { generation: OURS });
    assert_violation(&without_view, a);
}

#[test]
fn an_operator_is_told_once_that_a_node_waits_for_him() {
    let mut rig = Rig::new(config());
    let (b, _) = rig.connect(B, B1);
    let refusing = serving(5).hint(Role::Refusing, B1);
    assert_eq!(rig.say(b, refusing), [Action::Notice(Notice::NeedsRecovery { node: B })]);
    assert_eq!(rig.say(b, refusing), []);

    let (a, _) = rig.connect(A, A1);
    rig.say(a, serving(5));
    assert_eq!(rig.refused(a, Refusal::NeedsRecovery), [Action::Notice(Notice::NeedsRecovery { node: A })]);
    assert_eq!(sends(&rig.wait(20)), [(a, ClientMsg::Attach { over: Generation::ZERO })], "it is asked on and on");
}

#[test]
fn a_newer_session_ends_this_one() {
    let (mut rig, a, b) = Rig::open_dual(config());
    let ended = [Action::Close { conn: a }, Action::Close { conn: b }, Action::Ended(Ended::Superseded)];
    let mut other = Rig { session: rig.session.clone(), now: rig.now, out: Vec::new(), conns: rig.conns };
    assert_eq!(rig.refused(b, Refusal::Superseded), ended);
    assert_eq!(rig.session.place(BLOCK), None);
    assert_eq!(rig.session.generation(), None);

    let newer = Say::primary_a(DUAL.next(), [A1, B1]).generation(OURS.next());
    assert_eq!(other.say(b, newer.hint(Role::Secondary, B1)), [], "a hint");
    assert_eq!(other.say(a, newer), ended);
}

#[test]
fn who_has_no_session_and_asked_for_none_can_not_be_superseded() {
    let mut rig = Rig::new(config());
    let (a, _) = rig.connect(A, A1);
    let actions = rig.refused(a, Refusal::Superseded);
    assert_violation(&actions, a);
}

#[test]
fn detach_waits_for_writes_and_reads_and_tells_the_primary() {
    let (mut rig, a, b) = Rig::open_dual(config());
    rig.write(0);
    let (id, _) = rig.read(0);
    assert_eq!(rig.event(Event::Detach), []);
    assert!(!rig.session.is_open());
    assert_eq!(rig.session.place(BLOCK), None);
    assert_eq!(rig.mailbox(a, A1, DUAL, Some(1), 0), [Action::WritesCompleted { upto: Seq(1) }]);
    let done = rig.read_done(a, id, DUAL, 1);
    let expected = [
        Action::ReadCompleted { id, slot: 0 },
        Action::Send { conn: a, msg: ClientMsg::Detach },
        Action::Ended(Ended::Detached),
    ];
    assert_eq!(done, expected);
    assert_eq!(rig.event(Event::Closed { conn: b }), []);
}

#[test]
fn detach_without_a_primary_waits_for_one_and_without_a_session_does_not() {
    let (mut rig, a) = Rig::open_solo(config());
    rig.event(Event::Closed { conn: a });
    assert!(!rig.event(Event::Detach).contains(&Action::Ended(Ended::Detached)));
    rig.wait(10);
    let (again, asked) = rig.connect(A, A1);
    assert_eq!(sends(&asked), [(again, resume(1))]);
    assert_eq!(sends(&rig.resumed(again, A1, 0)), [(again, ClientMsg::Detach)]);

    let mut rig = Rig::new(config());
    assert_eq!(rig.event(Event::Detach), [Action::Ended(Ended::Detached)]);
}
