//! The old wordings, switched on: what the right ones keep from happening, happens.

use super::*;
use crate::Weakness;

fn weakened(weakness: Weakness) -> SessionConfig {
    config().weakened(Some(weakness))
}

#[test]
fn late_completion() {
    let (mut rig, a) = Rig::open_solo(weakened(Weakness::CompleteFromOlderEpoch));
    rig.write(0);
    rig.write(0);
    let (b, _) = rig.connect(B, B1);
    let takeover = rig.say(b, Say::primary_b(FIRST.next(), [0, B1]));
    assert_eq!(closes(&takeover), []);
    let late = rig.mailbox(a, A1, FIRST, Some(2), 2);
    assert_eq!(late, [Action::WritesCompleted { upto: Seq(2) }], "B holds neither, nor has it flushed them");
}

#[test]
fn late_answer() {
    let (mut rig, a, b) = Rig::open_dual(weakened(Weakness::CompleteFromOlderEpoch));
    let (id, _) = rig.read(0);
    rig.say(b, Say::primary_b(DUAL.next(), [0, B1]));
    assert_eq!(rig.read_done(a, id, DUAL, 0), [Action::ReadCompleted { id, slot: 0 }], "what B has overwritten");
}

#[test]
fn a_buffer_that_two_nodes_write() {
    let (mut rig, a, b) = Rig::open_dual(weakened(Weakness::ReuseReadBufferBeforeClose));
    let (id, _) = rig.read(0);
    let takeover = rig.say(b, Say::primary_b(DUAL.next(), [0, B1]));
    assert_eq!(closes(&takeover), [], "A's answer may land at any time");
    assert_eq!(sends(&takeover).len(), 1, "and B is asked for the same buffer");
    assert_eq!(rig.read_done(a, id, DUAL, 0), [], "the word is ignored, the bytes are not");
}

#[test]
fn a_holder_that_can_not_be_fed_again() {
    let (mut rig, a, b) = Rig::open_dual(weakened(Weakness::ForgetWhatCompleted));
    rig.write(0);
    rig.write(1);
    rig.mailbox(a, A1, DUAL, Some(2), 2);
    assert_eq!(rig.session.status().freed, Seq(2), "B has released neither");
    rig.event(Event::Closed { conn: b });
    let (again, _) = rig.connect(B, B1);
    assert_eq!(posts(&rig.resumed(again, B1, 0)), [], "B lacks both for ever");
}

#[test]
fn an_answer_that_shows_what_may_go_again() {
    let (mut rig, a, _) = Rig::open_dual(weakened(Weakness::CountAnswersAtOnce));
    let (id, _) = rig.read(0);
    rig.write(0);
    assert_eq!(rig.read_done(a, id, DUAL, 0), [Action::ReadCompleted { id, slot: 0 }], "#1 is nowhere yet");
}
