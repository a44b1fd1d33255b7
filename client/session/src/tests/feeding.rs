//! Rules 8 and 14: who is fed, from where on, and what is kept for it.

use super::*;

#[test]
fn every_write_goes_to_both_nodes_the_secondary_first() {
    let (mut rig, a, b) = Rig::open_dual(config());
    assert_eq!(posts(&rig.write(9)), [(b, 1), (a, 1)]);
    assert_eq!(posts(&rig.write(9)), [(b, 2), (a, 2)]);
}

#[test]
fn blobs_lie_where_place_says_and_never_across_the_wrap() {
    let (mut rig, a) = Rig::open_solo(config());
    let mut positions = Vec::new();
    for (blocks, free) in [(8, 0), (7, 1), (3, 2)] {
        rig.mailbox(a, A1, FIRST, Some(free), free);
        let place = rig.session.place(blocks * BLOCK).expect("room");
        rig.session.write(BlobKind::Write, Lba(0), blocks, rig.now, &mut rig.out);
        let posted = rig.take();
        let [Action::Post { blob: Blob { data_pos, payload_len, .. }, .. }] = posted[..] else { panic!("{posted:?}") };
        assert_eq!((data_pos, payload_len), (place, blocks * BLOCK));
        positions.push(data_pos / u64::from(BLOCK));
    }
    assert_eq!(positions, [0, 8, 16], "one block is skipped at the wrap");
}

#[test]
fn a_full_window_has_no_place_until_something_is_released() {
    let (mut rig, a) = Rig::open_solo(config());
    for lba in 0..8 {
        assert!(rig.session.place(BLOCK).is_some());
        rig.write(lba);
    }
    assert_eq!(rig.session.place(BLOCK), None);
    assert_eq!(rig.session.place(0), None, "there are only so many slots");
    rig.mailbox(a, A1, FIRST, Some(8), 0);
    assert_eq!(rig.session.place(BLOCK), None, "completed is not released");
    rig.mailbox(a, A1, FIRST, Some(8), 3);
    assert!(rig.session.place(BLOCK).is_some());
    assert_eq!(rig.session.status().freed, Seq(3));
}

#[test]
fn a_connection_that_comes_back_is_sent_what_it_lacks() {
    let (mut rig, _, b) = Rig::open_dual(config());
    for lba in 0..4 {
        rig.write(lba);
    }
    let lost = rig.event(Event::Closed { conn: b });
    assert_eq!(lost, [Action::Notice(Notice::NodeLost { node: B }), Action::Connect { node: B }]);
    rig.write(4);
    let (again, asked) = rig.connect(B, B1);
    assert_eq!(sends(&asked), [(again, resume(1))]);
    rig.write(5);
    let sent = rig.resumed(again, B1, 3);
    assert_eq!(posts(&sent), [(again, 4), (again, 5), (again, 6)]);
    assert_eq!(sent.last(), Some(&Action::Notice(Notice::NodeResumed { node: B, resent: 3 })));
    assert_eq!(posts(&rig.write(6))[0], (again, 7));
}

#[test]
fn resumed_must_fit() {
    type Step = fn(&mut Rig, ConnId) -> Vec<Action>;
    let wrong: [(&str, Step); 5] = [
        ("after what was sent", |rig, b| rig.resumed(b, B1, 4)),
        ("before what it had no need of any more", |rig, b| rig.resumed(b, B1, 1)),
        ("another incarnation", |rig, b| rig.resumed(b, 0xb2, 3)),
        ("another session", |rig, b| {
            let (generation, from) = (OURS.next(), inc(B1));
            rig.message(b, NodeMsg::Resumed { generation, from, received: Seq(3) })
        }),
        ("twice", |rig, b| {
            rig.resumed(b, B1, 3);
            rig.resumed(b, B1, 3)
        }),
    ];
    for (what, step) in wrong {
        let (mut rig, a, b) = Rig::open_dual(config());
        for lba in 0..3 {
            rig.write(lba);
        }
        rig.mailbox(a, A1, DUAL, Some(3), 2);
        rig.mailbox(b, B1, DUAL, None, 2);
        rig.event(Event::Closed { conn: b });
        rig.wait(10);
        let (again, asked) = rig.connect(B, B1);
        assert_eq!(sends(&asked), [(again, resume(4))], "from the lowest that has not completed");
        let actions = step(&mut rig, again);
        assert_violation(&actions, again);
        assert_eq!(rig.phase(B), LinkPhase::Idle, "{what}");
    }
}

#[test]
fn who_is_not_ready_is_asked_again() {
    let (mut rig, a) = Rig::open_solo(config());
    let (b, asked) = rig.connect(B, B1);
    assert_eq!(sends(&asked), [], "it has no part yet");
    assert_eq!(sends(&rig.say(a, Say::primary_a(FIRST, [A1, 0]).joiner(B1))), [(b, resume(1))]);
    assert_eq!(rig.refused(b, Refusal::NotReady), []);
    assert_eq!(sends(&rig.wait(20)), [(b, resume(1))]);
    rig.resumed(b, B1, 0);
    assert_eq!(posts(&rig.write(0)), [(b, 1), (a, 1)], "a joiner is fed too");
}

#[test]
fn a_refusal_that_was_not_asked_for_is_a_violation() {
    let (mut rig, _, b) = Rig::open_dual(config());
    let actions = rig.refused(b, Refusal::NotReady);
    assert_violation(&actions, b);
}

#[test]
fn space_is_given_back_when_every_holder_has_released_it() {
    let (mut rig, a, b) = Rig::open_dual(config());
    for lba in 0..5 {
        rig.write(lba);
    }
    rig.mailbox(a, A1, DUAL, Some(4), 3);
    assert_eq!(rig.session.status().freed, Seq(0));
    rig.mailbox(b, B1, DUAL, None, 5);
    assert_eq!(rig.session.status().freed, Seq(3), "the primary needs 4 yet");
    rig.mailbox(a, A1, DUAL, Some(4), 5);
    assert_eq!(rig.session.status().freed, Seq(4), "5 has not completed");
    rig.mailbox(a, A1, DUAL, Some(5), 1);
    assert_eq!(rig.session.status().freed, Seq(5), "what was released stays released");
}

/// It may not be said again.
#[test]
fn what_was_released_stays_released_on_a_new_connection() {
    let (mut rig, a, b) = Rig::open_dual(config());
    for lba in 0..5 {
        rig.write(lba);
    }
    rig.mailbox(b, B1, DUAL, None, 4);
    rig.event(Event::Closed { conn: b });
    let (again, _) = rig.connect(B, B1);
    rig.resumed(again, B1, 5);
    rig.mailbox(a, A1, DUAL, Some(5), 5);
    assert_eq!(rig.session.status().freed, Seq(4));
}

#[test]
fn what_a_holder_has_not_released_is_kept_while_it_is_away() {
    let (mut rig, a, b) = Rig::open_dual(config());
    rig.write(0);
    rig.write(1);
    rig.event(Event::Closed { conn: b });
    rig.mailbox(a, A1, DUAL, Some(2), 2);
    assert_eq!(rig.session.status().freed, Seq(0));
    // Rule 7: it is a member no more.
    rig.say(a, Say::primary_a(DUAL.next(), [A1, 0]));
    assert_eq!(rig.session.status().freed, Seq(2));
}

#[test]
fn a_joiner_begins_after_what_has_completed_and_holds_from_there() {
    let (mut rig, a) = Rig::open_solo(config());
    for lba in 0..3 {
        rig.write(lba);
    }
    rig.mailbox(a, A1, FIRST, Some(2), 2);
    let (b, _) = rig.connect(B, B1);
    assert_eq!(sends(&rig.say(a, Say::primary_a(FIRST, [A1, 0]).joiner(B1))), [(b, resume(3))]);
    // The primary finishes 3 before it learns where the joiner begins (rule 8).
    rig.mailbox(a, A1, FIRST, Some(3), 3);
    assert_eq!(rig.session.status().freed, Seq(2), "the joiner may have begun at 3");
    assert_eq!(posts(&rig.resumed(b, B1, 2)), [(b, 3)]);
    // The connection breaks before anything arrives; the lane that it opened begins at 3 still.
    rig.event(Event::Closed { conn: b });
    rig.wait(10);
    let (again, asked) = rig.connect(B, B1);
    assert_eq!(sends(&asked), [(again, resume(4))]);
    assert_eq!(posts(&rig.resumed(again, B1, 2)), [(again, 3)]);
    rig.mailbox(again, B1, FIRST, None, 3);
    assert_eq!(rig.session.status().freed, Seq(3));
}

#[test]
fn a_joiner_that_refuses_holds_nothing_back() {
    let (mut rig, a) = Rig::open_solo(config());
    let (b, _) = rig.connect(B, B1);
    rig.say(a, Say::primary_a(FIRST, [A1, 0]).joiner(B1));
    rig.refused(b, Refusal::NotReady);
    rig.write(0);
    rig.mailbox(a, A1, FIRST, Some(1), 1);
    assert_eq!(rig.session.status().freed, Seq(1), "it has no lane");
    assert_eq!(sends(&rig.wait(20)), [(b, resume(2))]);
}

#[test]
fn a_joiner_that_is_thrown_away_is_fed_no_more() {
    let (mut rig, a) = Rig::open_solo(config());
    let (b, _) = rig.connect(B, B1);
    rig.say(a, Say::primary_a(FIRST, [A1, 0]).joiner(B1));
    rig.resumed(b, B1, 0);
    rig.write(0);
    rig.mailbox(a, A1, FIRST, Some(1), 1);
    assert_eq!(rig.session.status().freed, Seq(0));
    let actions = rig.say(a, Say::primary_a(FIRST, [A1, 0]));
    assert_eq!(closes(&actions), [b]);
    assert_eq!(rig.session.status().freed, Seq(1));
    // Its Views are heard on a new connection, on which it is asked for nothing.
    rig.wait(10);
    let (again, asked) = rig.connect(B, B1);
    assert_eq!(asked, []);
    assert_eq!(posts(&rig.write(1)), [(a, 2)]);
    // The same incarnation can't come back with that lane: it lacks what has been forgotten, and its answer shows it.
    let actions = rig.say(a, Say::primary_a(FIRST, [A1, 0]).joiner(B1));
    assert_eq!(sends(&actions), [(again, resume(2))]);
    let actions = rig.resumed(again, B1, 0);
    assert_violation(&actions, again);
}

#[test]
fn a_joiner_that_never_answered_may_be_named_again() {
    let (mut rig, a) = Rig::open_solo(config());
    let (b, _) = rig.connect(B, B1);
    // It refuses, but the connection ends before that is heard.
    assert_eq!(sends(&rig.say(a, Say::primary_a(FIRST, [A1, 0]).joiner(B1))), [(b, resume(1))]);
    rig.say(a, Say::primary_a(FIRST, [A1, 0]));
    rig.write(0);
    rig.mailbox(a, A1, FIRST, Some(1), 1);
    assert_eq!(rig.session.status().freed, Seq(1));
    rig.wait(10);
    let (again, _) = rig.connect(B, B1);
    let actions = rig.say(a, Say::primary_a(FIRST, [A1, 0]).joiner(B1));
    assert_eq!(sends(&actions), [(again, resume(2))]);
    rig.write(1);
    assert_eq!(posts(&rig.resumed(again, B1, 1)), [(again, 2)]);
}

#[test]
fn a_fresh_primary_is_sent_what_has_not_completed() {
    let (mut rig, a) = Rig::open_solo(config());
    for lba in 0..4 {
        rig.write(lba);
    }
    rig.mailbox(a, A1, FIRST, Some(2), 1);
    rig.event(Event::Closed { conn: a });
    // Rule 6.
    let (b, _) = rig.connect(B, B1);
    let asked = rig.say(b, Say::primary_b(FIRST.next(), [0, B1]));
    assert_eq!(sends(&asked), [(b, resume(3))]);
    assert_eq!(posts(&rig.resumed(b, B1, 2)), [(b, 3), (b, 4)]);
    assert_eq!(rig.session.status().freed, Seq(2), "nobody needs what has completed");
}

#[test]
fn a_holder_that_begins_earlier_than_asked_is_fed_from_there_if_that_is_possible() {
    let (mut rig, a) = Rig::open_solo(config());
    rig.write(0);
    rig.write(1);
    rig.mailbox(a, A1, FIRST, Some(2), 1);
    let (b, _) = rig.connect(B, B1);
    assert_eq!(sends(&rig.say(a, Say::primary_a(FIRST, [A1, 0]).joiner(B1))), [(b, resume(3))]);
    assert_eq!(posts(&rig.resumed(b, B1, 1)), [(b, 2)]);
    rig.mailbox(a, A1, FIRST, Some(2), 2);
    assert_eq!(rig.session.status().freed, Seq(1), "2 is kept for it");
}

#[test]
fn a_released_position_that_was_never_sent_is_a_violation() {
    let (mut rig, _, b) = Rig::open_dual(config());
    rig.write(0);
    let actions = rig.mailbox(b, B1, DUAL, None, 2);
    assert_violation(&actions, b);
}

#[test]
#[should_panic(expected = "a write without room")]
fn a_write_without_room_is_the_callers_mistake() {
    let (mut rig, _) = Rig::open_solo(config());
    for lba in 0..9 {
        rig.write(lba);
    }
}

#[test]
#[should_panic(expected = "the volume has 64 blocks")]
fn a_write_past_the_end_is_the_callers_mistake() {
    let (mut rig, _) = Rig::open_solo(config());
    rig.write(64);
}
