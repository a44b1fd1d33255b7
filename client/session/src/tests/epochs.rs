//! Section 3: what a session knows, and when it changes.

use super::*;

/// B takes over by rule 5.
fn b_alone(epoch: Epoch) -> Say {
    Say::primary_b(epoch, [0, B1])
}

#[test]
fn hints_and_older_epochs_change_nothing() {
    let (mut rig, a, b) = Rig::open_dual(config());
    let before = rig.session.status();
    assert_eq!(rig.say(b, b_alone(DUAL.next()).hint(Role::TakingOver, B1)), []);
    assert_eq!(rig.say(b, Say::primary_b(FIRST, [0, B1])), [], "it thaws and still believes that it serves");
    assert_eq!(rig.say(a, Say::primary_a(FIRST, [A1, 0])), []);
    assert_eq!(rig.session.status(), before);
}

#[test]
fn a_new_primary_costs_the_old_one_its_connection_before_anything_else() {
    let (mut rig, a, b) = Rig::open_dual(config());
    rig.write(0);
    let (id, _) = rig.read(7);
    let actions = rig.say(b, b_alone(DUAL.next()));
    assert_eq!(actions[0], Action::Close { conn: a });
    let notice = Notice::NewEpoch { epoch: DUAL.next(), primary: B, dual: false };
    assert!(actions.contains(&Action::Notice(notice)));
    let again = ClientMsg::Read { id, epoch: DUAL.next(), after: Seq(1), lba: Lba(0), blocks: 1, slot: 7 };
    assert_eq!(sends(&actions), [(b, again)], "B is fed and goes on from what it has; the read is sent again");
    assert_eq!(posts(&actions), []);
    // The old one is connected again, to hear it, and is asked for nothing.
    assert!(actions.contains(&Action::Connect { node: A }), "{actions:?}");
    let (old, asked) = rig.connect(A, A1);
    assert_eq!(asked, []);
    assert_eq!(sends(&rig.say(old, Say::primary_a(DUAL, [A1, B1]))), [], "frozen, thawed: it serves an older epoch");
    assert_eq!(posts(&rig.write(1)), [(b, 2)]);
}

#[test]
fn after_a_handover_the_old_primary_is_resumed_as_a_member() {
    let (mut rig, a, b) = Rig::open_dual(config());
    rig.write(0);
    let actions = rig.say(b, Say::primary_b(DUAL.next(), [A1, B1]));
    assert_eq!(actions[0], Action::Close { conn: a });
    assert!(actions.contains(&Action::Connect { node: A }), "a holder is connected at once");
    let (again, asked) = rig.connect(A, A1);
    assert_eq!(sends(&asked), [(again, resume(1))]);
    rig.resumed(again, A1, 1);
    assert_eq!(posts(&rig.write(1)), [(again, 2), (b, 2)], "the secondary first");
}

#[test]
fn one_epoch_has_one_content() {
    let contents = [
        Say::primary_a(DUAL, [A1, 0]),
        Say::primary_a(DUAL, [A1, 0xb2]),
        Say::primary_a(DUAL, [A1, B1]).generation(OURS.next()),
    ];
    for content in contents {
        let (mut rig, a, _) = Rig::open_dual(config());
        let actions = rig.say(a, content);
        assert_violation(&actions, a);
    }
    let (mut rig, _, b) = Rig::open_dual(config());
    let actions = rig.say(b, Say::primary_b(DUAL, [A1, B1]));
    assert_violation(&actions, b);
}

#[test]
fn a_primary_must_be_a_member_and_name_itself() {
    let next = DUAL.next();
    let wrong = [
        Say { primary: Some(B), ..Say::primary_a(next, [A1, B1]) },
        Say { primary: None, ..Say::primary_a(next, [A1, B1]) },
        Say { members: [0, B1], ..Say::primary_a(next, [A1, B1]) },
        Say::primary_a(next, [A1, B1]).generation(Generation(3)),
    ];
    for view in wrong {
        let (mut rig, a, _) = Rig::open_dual(config());
        let actions = rig.say(a, view);
        assert_violation(&actions, a);
        assert_eq!(rig.session.status().epoch, DUAL);
    }
}

#[test]
fn a_node_that_is_dropped_is_fed_no_more() {
    let (mut rig, a, b) = Rig::open_dual(config());
    let actions = rig.say(a, Say::primary_a(DUAL.next(), [A1, 0]));
    assert_eq!(closes(&actions), [b]);
    assert_eq!(posts(&rig.write(0)), [(a, 1)]);
    rig.wait(10);
    let (_, asked) = rig.connect(B, B1);
    assert_eq!(asked, [], "heard, and asked for nothing");
}

#[test]
fn a_listening_node_may_be_born_again_and_a_fed_one_may_not() {
    let (mut rig, a) = Rig::open_solo(config());
    let (b, _) = rig.connect(B, B1);
    rig.say(b, Say::primary_a(FIRST, [A1, 0]).hint(Role::Waiting, 0xb2));
    let asked = rig.say(a, Say::primary_a(FIRST, [A1, 0]).joiner(0xb2));
    assert_eq!(sends(&asked), [(b, resume(1))]);
    // Which of its lives will answer is not known.
    let actions = rig.say(b, Say::primary_a(FIRST, [A1, 0]).hint(Role::Waiting, 0xb3));
    assert_eq!(actions[0], Action::Close { conn: b });
    assert!(!actions.iter().any(|action| matches!(action, Action::Notice(Notice::NodeViolation(_)))));
}

#[test]
fn a_joiner_that_has_become_a_member_stays_fed() {
    let (mut rig, a) = Rig::open_solo(config());
    let (b, _) = rig.connect(B, B1);
    rig.say(a, Say::primary_a(FIRST, [A1, 0]).joiner(B1));
    rig.resumed(b, B1, 0);
    let actions = rig.say(a, Say::primary_a(DUAL, [A1, B1]).joiner(B1));
    assert_eq!(actions, [Action::Notice(Notice::NewEpoch { epoch: DUAL, primary: A, dual: true })]);
    assert_eq!(posts(&rig.write(0)), [(b, 1), (a, 1)]);
}
