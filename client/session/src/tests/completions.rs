//! Rule 1 and section 3: whose word completes a write.

use super::*;

fn completed(upto: u64) -> [Action; 1] {
    [Action::WritesCompleted { upto: Seq(upto) }]
}

/// Both nodes are fed five writes.
fn five_writes() -> (Rig, ConnId, ConnId) {
    let (mut rig, a, b) = Rig::open_dual(config());
    for lba in 0..5 {
        rig.write(lba);
    }
    (rig, a, b)
}

#[test]
fn the_primary_completes_and_never_goes_back() {
    let (mut rig, a, _) = five_writes();
    assert_eq!(rig.mailbox(a, A1, DUAL, Some(3), 0), completed(3));
    assert_eq!(rig.mailbox(a, A1, DUAL, Some(3), 0), []);
    assert_eq!(rig.mailbox(a, A1, DUAL, Some(1), 0), []);
    assert_eq!(rig.mailbox(a, A1, DUAL, Some(5), 0), completed(5));
    assert_eq!(rig.session.completed(), Seq(5));
}

#[test]
fn the_secondary_completes_nothing() {
    let (mut rig, _, b) = five_writes();
    assert_eq!(rig.mailbox(b, B1, DUAL, Some(5), 0), []);
    assert_eq!(rig.session.completed(), Seq(0));
}

#[test]
fn what_does_not_fit_is_ignored() {
    let (mut rig, a, _) = five_writes();
    assert_eq!(rig.mailbox(a, B1, DUAL, Some(5), 5), [], "another incarnation's");
    assert_eq!(rig.mailbox(a, A1, FIRST, Some(5), 5), [], "an older epoch's");
    assert_eq!(rig.mailbox(a, A1, DUAL.next(), Some(5), 0), [], "before its View");
    let (from, durable) = (inc(A1), Some(Seq(5)));
    let mailbox =
        Mailbox::Completion { epoch: DUAL, from, generation: Generation(7), durable, released: Seq(5), relayed: false };
    assert_eq!(rig.event(Event::Mailbox { conn: a, mailbox }), [], "another session's");
    assert_eq!(rig.event(Event::Mailbox { conn: ConnId(99), mailbox }), [], "a connection that is gone");
    let status = rig.session.status();
    assert_eq!((status.completed, status.links[0].released), (Seq(0), Some(Seq(0))));
}

#[test]
fn a_late_completion_of_the_old_primary_is_ignored() {
    // Section 8, "Late completion": A alone has flushed 1 and 2 and said so; it dies; B has taken over by rule 6 and
    // is sent both again when the word arrives.
    let (mut rig, a) = Rig::open_solo(config());
    rig.write(0);
    rig.write(0);
    let (b, _) = rig.connect(B, B1);
    let takeover = rig.say(b, Say::primary_b(FIRST.next(), [0, B1]));
    assert_eq!((takeover[0], sends(&takeover)), (Action::Close { conn: a }, vec![(b, resume(1))]));
    assert_eq!(rig.mailbox(a, A1, FIRST, Some(2), 2), []);
    assert_eq!(rig.session.completed(), Seq(0));
    assert_eq!(posts(&rig.resumed(b, B1, 0)), [(b, 1), (b, 2)]);
}

#[test]
fn released_counts_in_a_newer_epoch_too() {
    // B has heard of the new epoch from A before we have; on an idle volume it will not say it again.
    let (mut rig, a, b) = five_writes();
    rig.mailbox(b, B1, DUAL.next(), None, 5);
    rig.mailbox(a, A1, DUAL, Some(5), 5);
    assert_eq!(rig.session.status().freed, Seq(5));
}

#[test]
fn completing_what_was_never_sent_is_a_violation() {
    let (mut rig, a, _) = five_writes();
    let actions = rig.mailbox(a, A1, DUAL, Some(6), 0);
    assert_violation(&actions, a);
    assert_eq!(rig.session.completed(), Seq(0));
}

#[test]
fn a_mailbox_between_nodes_is_a_violation() {
    let (mut rig, a, _) = five_writes();
    let (from, to) = (inc(A1), inc(B1));
    let mailbox = Mailbox::Released { epoch: DUAL, from, to, generation: OURS, released: Seq(1) };
    let actions = rig.event(Event::Mailbox { conn: a, mailbox });
    assert_violation(&actions, a);
}

#[test]
fn what_has_completed_stays_so_under_a_new_primary() {
    let (mut rig, a, b) = five_writes();
    rig.mailbox(a, A1, DUAL, Some(4), 0);
    let alone = DUAL.next();
    rig.say(b, Say::primary_b(alone, [0, B1]));
    assert_eq!(rig.mailbox(b, B1, alone, Some(2), 2), [], "it is still flushing");
    assert_eq!(rig.mailbox(b, B1, alone, Some(5), 5), completed(5));
}
