//! A member that the client does not reach and the primary feeds (rule 14): whose word frees its lane's space.

use super::*;

/// A serves, B is a member that was never reached, and five writes have completed.
fn five_relayed() -> (Rig, ConnId) {
    let (mut rig, a) = Rig::open_solo(config());
    rig.say(a, Say::primary_a(DUAL, [A1, B1]));
    for lba in 0..5 {
        rig.write(lba);
    }
    rig.mailbox(a, A1, DUAL, Some(5), 4);
    assert_eq!(rig.session.completed(), Seq(5));
    (rig, a)
}

fn relayed(rig: &mut Rig, conn: ConnId, from: u64, epoch: Epoch, released: u64) {
    let (from, released) = (inc(from), Seq(released));
    let mailbox = Mailbox::Completion { epoch, from, generation: OURS, durable: None, released, relayed: true };
    rig.event(Event::Mailbox { conn, mailbox });
}

fn freed(rig: &Rig) -> u64 {
    rig.session.status().freed.0
}

#[test]
fn what_the_primary_has_released_is_not_free_while_the_other_one_needs_it() {
    let (rig, _) = five_relayed();
    assert_eq!(freed(&rig), 0);
}

#[test]
fn the_primary_tells_what_both_have_released() {
    let (mut rig, a) = five_relayed();
    relayed(&mut rig, a, A1, DUAL, 3);
    assert_eq!(freed(&rig), 3);
    rig.mailbox(a, A1, DUAL, Some(5), 5);
    assert_eq!(freed(&rig), 3, "its own word again, for itself");
}

/// Only the primary of the known epoch speaks for the other member: nobody of the past, and not that member of the primary.
#[test]
fn nobody_else_speaks_for_another_one() {
    let (mut rig, a) = five_relayed();
    relayed(&mut rig, a, A1, FIRST, 5);
    assert_eq!(freed(&rig), 0, "an older epoch's");
    relayed(&mut rig, a, A1, DUAL.next(), 5);
    assert_eq!(freed(&rig), 0, "before its View");
    let (mut rig, _, b) = Rig::open_dual(config());
    for lba in 0..5 {
        rig.write(lba);
    }
    relayed(&mut rig, b, B1, DUAL, 5);
    let links = rig.session.status().links;
    assert_eq!(links.map(|link| link.released), [Some(Seq(0)), Some(Seq(5))]);
}

/// In the next epoch another incarnation is the member: what was said of the one before it does not count.
#[test]
fn a_new_member_is_waited_for_anew() {
    let (mut rig, a) = five_relayed();
    relayed(&mut rig, a, A1, DUAL, 4);
    assert_eq!(freed(&rig), 4);
    rig.say(a, Say::primary_a(DUAL.next(), [A1, 0]));
    rig.write(5);
    rig.mailbox(a, A1, DUAL.next(), Some(6), 5);
    assert_eq!(freed(&rig), 5);
    let third = DUAL.next().next();
    rig.say(a, Say::primary_a(third, [A1, 0xb2]));
    rig.mailbox(a, A1, third, Some(6), 6);
    assert_eq!(freed(&rig), 5, "what it has not released, it may hold");
    relayed(&mut rig, a, A1, third, 6);
    assert_eq!(freed(&rig), 6);
}

/// The link is back: B is fed from where it is, and speaks for itself.
#[test]
fn back_on_a_connection_of_its_own_it_speaks_for_itself() {
    let (mut rig, a) = five_relayed();
    relayed(&mut rig, a, A1, DUAL, 2);
    let (b, asked) = rig.connect(B, B1);
    assert_eq!(sends(&asked), [(b, resume(6))]);
    assert_eq!(posts(&rig.resumed(b, B1, 4)), [(b, 5)]);
    rig.mailbox(a, A1, DUAL, Some(5), 5);
    assert_eq!(freed(&rig), 2);
    rig.mailbox(b, B1, DUAL, None, 5);
    assert_eq!(freed(&rig), 5);
}

/// A relay that was on its way took the place of the client's new connection, whose answer is late.
#[test]
fn an_answer_that_the_relay_has_overtaken_is_no_violation() {
    let (mut rig, a) = five_relayed();
    let (b, _) = rig.connect(B, B1);
    relayed(&mut rig, a, A1, DUAL, 4);
    assert_eq!(freed(&rig), 4);
    let after = rig.resumed(b, B1, 2);
    assert_eq!((closes(&after), posts(&after)), (vec![b], vec![]));
    assert!(!after.iter().any(|action| matches!(action, Action::Notice(Notice::NodeViolation(_)))), "{after:?}");
}

/// What a node says of its own lane counts for more than what the primary says of it. (The primary flushes and releases
/// what has been ACKed, though it completes less: a takeover budget.)
#[test]
fn what_a_member_says_itself_that_it_lacks_is_kept_for_it() {
    let (mut rig, a) = Rig::open_solo(config());
    rig.say(a, Say::primary_a(DUAL, [A1, B1]));
    for lba in 0..5 {
        rig.write(lba);
    }
    rig.mailbox(a, A1, DUAL, Some(3), 4);
    let (b, _) = rig.connect(B, B1);
    relayed(&mut rig, a, A1, DUAL, 4);
    assert_eq!(posts(&rig.resumed(b, B1, 3)), [(b, 4), (b, 5)]);
    rig.mailbox(a, A1, DUAL, Some(5), 5);
    assert_eq!(freed(&rig), 3, "4 may yet have to be sent again");
    rig.mailbox(b, B1, DUAL, None, 5);
    assert_eq!(freed(&rig), 5);
}

/// A refusal from before B was a member: B's lane counts whoever feeds it, and is waited for on and on.
#[test]
fn a_late_refusal_does_not_free_what_a_member_holds() {
    let (mut rig, a) = Rig::open_solo(config());
    rig.say(a, Say::primary_a(FIRST, [A1, 0]).joiner(B1));
    let (b, _) = rig.connect(B, B1);
    rig.say(a, Say::primary_a(DUAL, [A1, B1]));
    rig.refused(b, Refusal::NotReady);
    for lba in 0..5 {
        rig.write(lba);
    }
    rig.mailbox(a, A1, DUAL, Some(5), 5);
    assert_eq!(freed(&rig), 0);
}
