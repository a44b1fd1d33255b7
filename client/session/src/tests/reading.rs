//! Rule 1: reads, and where their answers may come from.

use twinsan_wire::limits::MAX_READ_BYTES;

use super::*;

fn read(id: u64, epoch: Epoch, after: u64, slot: u32) -> ClientMsg {
    ClientMsg::Read { id, epoch, after: Seq(after), lba: Lba(0), blocks: 1, slot }
}

#[test]
fn a_read_goes_to_the_primary_and_names_what_was_written_before() {
    let (mut rig, a, _) = Rig::open_dual(config());
    rig.write(0);
    rig.write(1);
    let (id, actions) = rig.read(3);
    assert_eq!(actions, [Action::Send { conn: a, msg: read(id, DUAL, 2, 3) }]);
    assert_eq!(sends(&rig.wait(200)), [], "once");
}

#[test]
fn an_answer_completes_writes_first() {
    let (mut rig, a, _) = Rig::open_dual(config());
    rig.write(0);
    let (id, _) = rig.read(3);
    let expected = [Action::WritesCompleted { upto: Seq(1) }, Action::ReadCompleted { id, slot: 3 }];
    assert_eq!(rig.read_done(a, id, DUAL, 1), expected);
    assert_eq!(rig.session.status().open_reads, 0);
    assert_eq!(rig.read(3).0, id + 1, "the buffer is free again, the number is not");
}

#[test]
fn reads_wait_for_a_primary_that_is_fed() {
    let (mut rig, a) = Rig::open_solo(config());
    rig.write(0);
    rig.event(Event::Closed { conn: a });
    let (first, actions) = rig.read(0);
    assert_eq!(actions, []);
    rig.wait(10);
    let (again, asked) = rig.connect(A, A1);
    assert_eq!(sends(&asked), [(again, resume(1))]);
    let (second, actions) = rig.read(1);
    assert_eq!(actions, []);
    assert_eq!(sends(&rig.say(again, Say::primary_a(FIRST, [A1, 0]))), []);
    let actions = rig.resumed(again, A1, 0);
    assert_eq!(posts(&actions[..1]), [(again, 1)], "the blobs first");
    let expected = [(again, read(first, FIRST, 1, 0)), (again, read(second, FIRST, 1, 1))];
    assert_eq!(sends(&actions), expected);
}

#[test]
fn reads_wait_for_the_primary_to_say_that_it_serves() {
    let (mut rig, a) = Rig::open_solo(config());
    rig.read(0);
    rig.event(Event::Closed { conn: a });
    rig.wait(10);
    let (again, _) = rig.connect(A, A1);
    rig.say(again, Say::primary_a(FIRST, [A1, 0]).hint(Role::TakingOver, A1));
    assert_eq!(sends(&rig.resumed(again, A1, 0)), []);
    let next = FIRST.next();
    let actions = rig.say(again, Say::primary_a(next, [A1, 0]));
    assert_eq!(sends(&actions), [(again, read(1, next, 0, 0))]);
}

#[test]
fn a_new_epoch_of_the_same_primary_is_asked_again() {
    let (mut rig, a, _) = Rig::open_dual(config());
    let (id, _) = rig.read(0);
    let solo = Say::primary_a(DUAL.next(), [A1, 0]);
    assert_eq!(sends(&rig.say(a, solo)), [(a, read(id, DUAL.next(), 0, 0))]);
    assert_eq!(sends(&rig.say(a, solo)), [], "once an epoch");
    assert_eq!(rig.read_done(a, id, DUAL, 0), [], "the answer of the older epoch");
    assert_eq!(rig.read_done(a, id, DUAL.next(), 0), [Action::ReadCompleted { id, slot: 0 }]);
}

#[test]
fn an_answer_that_was_not_asked_for_is_a_violation_and_voids_the_rest() {
    let (mut rig, a, b) = Rig::open_dual(config());
    let (first, _) = rig.read(0);
    let (second, _) = rig.read(1);
    rig.read_done(a, first, DUAL, 0);
    let actions = rig.read_done(a, first, DUAL, 0);
    assert_violation(&actions, a);
    // What else was under way there is asked for again.
    rig.wait(500);
    let (again, _) = rig.connect(A, A1);
    rig.say(again, Say::primary_a(DUAL, [A1, B1]));
    assert_eq!(sends(&rig.resumed(again, A1, 0)), [(again, read(second, DUAL, 0, 1))]);

    let actions = rig.read_done(b, second, DUAL, 0);
    assert_violation(&actions, b);
    let actions = rig.read_done(again, second, DUAL, 1);
    assert_violation(&actions, again);
}

#[test]
fn an_answer_of_an_epoch_that_is_not_known_yet_is_ignored() {
    let (mut rig, a, _) = Rig::open_dual(config());
    let (id, _) = rig.read(0);
    assert_eq!(rig.read_done(a, id, DUAL.next(), 0), []);
    assert_eq!(rig.session.status().open_reads, 1);
}

#[test]
#[should_panic(expected = "read buffer 0 is in use")]
fn one_buffer_for_two_reads_is_the_callers_mistake() {
    let (mut rig, _) = Rig::open_solo(config());
    rig.read(0);
    rig.read(0);
}

#[test]
#[should_panic(expected = "read buffer 64: there are 64")]
fn a_buffer_that_is_none_is_the_callers_mistake() {
    let (mut rig, _) = Rig::open_solo(config());
    rig.read(64);
}

#[test]
#[should_panic(expected = "a buffer has")]
fn a_read_that_no_buffer_takes_is_the_callers_mistake() {
    let most = MAX_READ_BYTES / BLOCK;
    let mut large = config();
    large.volume_blocks = 2 * u64::from(most);
    let (mut rig, _) = Rig::open_solo(large);
    rig.session.read(Lba(0), most, 0, rig.now, &mut rig.out);
    rig.session.read(Lba(0), most + 1, 1, rig.now, &mut rig.out);
}

#[test]
fn an_answer_counts_when_what_it_may_show_has_completed() {
    let (mut rig, a, _) = Rig::open_dual(config());
    let (id, _) = rig.read(0);
    rig.write(0);
    rig.write(1);
    rig.write(0);
    rig.write(1);
    assert_eq!(rig.read_done(a, id, DUAL, 0), [], "it may show #3");
    assert_eq!(rig.session.status().open_reads, 1, "its buffer is in use");
    let two = rig.mailbox(a, A1, DUAL, Some(2), 0);
    assert_eq!(two, [Action::WritesCompleted { upto: Seq(2) }]);
    let three = rig.mailbox(a, A1, DUAL, Some(3), 0);
    let expected = [Action::WritesCompleted { upto: Seq(3) }, Action::ReadCompleted { id, slot: 0 }];
    assert_eq!(three, expected, "and not #4, of another block");
}

#[test]
fn an_answer_waits_for_nothing_beside_it() {
    let (mut rig, a, _) = Rig::open_dual(config());
    let (id, _) = rig.read_of(1, 0);
    rig.write(0);
    rig.write(2);
    assert_eq!(rig.read_done(a, id, DUAL, 0), [Action::ReadCompleted { id, slot: 0 }]);
}

#[test]
fn an_answer_that_does_not_count_yet_waits_for_nothing_that_comes_later() {
    let (mut rig, a, _) = Rig::open_dual(config());
    let (id, _) = rig.read(0);
    rig.write(0);
    assert_eq!(rig.read_done(a, id, DUAL, 0), []);
    rig.write(0);
    let expected = [Action::WritesCompleted { upto: Seq(1) }, Action::ReadCompleted { id, slot: 0 }];
    assert_eq!(rig.mailbox(a, A1, DUAL, Some(1), 0), expected);
}

#[test]
fn an_answer_that_does_not_count_yet_is_void_in_a_new_epoch() {
    let (mut rig, a, b) = Rig::open_dual(config());
    let (id, _) = rig.read(0);
    rig.write(0);
    assert_eq!(rig.read_done(a, id, DUAL, 0), []);
    let takeover = rig.say(b, Say::primary_b(DUAL.next(), [0, B1]));
    assert_eq!(sends(&takeover), [(b, read(id, DUAL.next(), 1, 0))], "asked again");
    let completed = rig.mailbox(b, B1, DUAL.next(), Some(1), 0);
    assert_eq!(completed, [Action::WritesCompleted { upto: Seq(1) }]);
    assert_eq!(rig.read_done(b, id, DUAL.next(), 1), [Action::ReadCompleted { id, slot: 0 }]);
}

#[test]
fn a_second_answer_is_a_violation_also_before_the_first_counts() {
    let (mut rig, a, _) = Rig::open_dual(config());
    let (id, _) = rig.read(0);
    rig.write(0);
    assert_eq!(rig.read_done(a, id, DUAL, 0), []);
    assert_eq!(closes(&rig.read_done(a, id, DUAL, 0)), [a]);
}
