//! Rule 15: when to try, and what to tell whom.

use super::*;

fn connects(actions: &[Action], node: NodeId) -> usize {
    actions.iter().filter(|&&action| action == Action::Connect { node }).count()
}

fn unreachable(node: NodeId, epoch: Epoch) -> ClientMsg {
    ClientMsg::Unreachable { node, epoch, generation: OURS }
}

#[test]
fn attempts_to_connect_grow_rarer_and_never_end() {
    let mut rig = Rig::new(config());
    let mut waits = Vec::new();
    for _ in 0..9 {
        assert_eq!(rig.refuse_connection(A), []);
        let since = rig.now;
        while connects(&rig.wait(10), A) == 0 {}
        waits.push(rig.now - since);
    }
    assert_eq!(waits, [10, 20, 40, 80, 160, 320, 500, 500, 500]);
}

#[test]
fn a_connection_that_lasted_is_made_again_at_once() {
    let (mut rig, a) = Rig::open_solo(config());
    for _ in 0..6 {
        rig.wait(100);
        rig.say(a, Say::primary_a(FIRST, [A1, 0]));
    }
    assert_eq!(connects(&rig.event(Event::Closed { conn: a }), A), 1);
    rig.refuse_connection(A);
    assert_eq!(connects(&rig.wait(10), A), 1);
}

#[test]
fn heartbeats_go_to_every_connected_node() {
    let mut rig = Rig::new(config());
    let (a, _) = rig.connect(A, A1);
    let (b, _) = rig.connect(B, B1);
    let beats = rig.wait(200).iter().filter(|action| matches!(action, Action::Send { .. })).count();
    assert_eq!(beats, 8);
    let last = rig.wait(50);
    let beat = |conn| Action::Send { conn, msg: ClientMsg::Heartbeat };
    assert_eq!(last, [beat(a), beat(b)]);
}

#[test]
fn a_member_out_of_reach_is_reported_while_it_lasts() {
    let (mut rig, a, b) = Rig::open_dual(config());
    rig.event(Event::Closed { conn: b });
    rig.refuse_connection(B);
    assert_eq!(sends(&rig.wait(290)), []);
    rig.refuse_connection(B);
    let told = sends(&rig.wait(100));
    assert_eq!(told, [(a, unreachable(B, DUAL)); 2]);
    while connects(&rig.wait(10), B) == 0 && rig.phase(B) == LinkPhase::Idle {}
    let (again, _) = rig.connect(B, B1);
    rig.resumed(again, B1, 0);
    assert_eq!(sends(&rig.wait(200)), []);
}

#[test]
fn the_secondary_hears_of_a_primary_out_of_reach() {
    let (mut rig, a, b) = Rig::open_dual(config());
    rig.event(Event::Closed { conn: a });
    assert_eq!(sends(&rig.wait(300)).last(), Some(&(b, unreachable(A, DUAL))));
    // The secondary has moved on with the primary, which we can't hear: it wants its own epoch named.
    rig.say(b, Say::primary_a(DUAL.next(), [A1, B1]).hint(Role::Secondary, B1));
    assert_eq!(sends(&rig.wait(50)), [(b, unreachable(A, DUAL.next()))]);
}

/// It may be on its way there, and takes what is older than its own for void.
#[test]
fn a_secondary_that_lags_behind_is_told_the_newer_epoch() {
    let (mut rig, a, b) = Rig::open_dual(config());
    rig.say(a, Say::primary_a(DUAL.next(), [A1, B1]));
    rig.event(Event::Closed { conn: a });
    assert_eq!(sends(&rig.wait(300)).last(), Some(&(b, unreachable(A, DUAL.next()))));
}

#[test]
fn an_attach_that_reaches_only_the_secondary_says_so_and_names_no_session() {
    let mut rig = Rig::new(config());
    rig.refuse_connection(A);
    let (b, _) = rig.connect(B, B1);
    assert_eq!(sends(&rig.wait(400)), [], "nobody has said that the other one matters");
    rig.say(b, Say::primary_a(FIRST, [A1, B1]).hint(Role::Secondary, B1));
    let told = ClientMsg::Unreachable { node: A, epoch: FIRST, generation: Generation::ZERO };
    assert_eq!(sends(&rig.wait(50)), [(b, told)]);
}

/// As long as no primary has been heard, a node's word is all there is: a member is missed, and one without a part is not.
#[test]
fn before_a_primary_is_heard_only_a_member_is_missed() {
    let told = ClientMsg::Unreachable { node: B, epoch: FIRST, generation: Generation::ZERO };
    for (members, missed) in [([A1, B1], true), ([A1, 0], false)] {
        let mut rig = Rig::new(config());
        rig.refuse_connection(B);
        let (a, _) = rig.connect(A, A1);
        rig.say(a, Say::primary_a(FIRST, members).hint(Role::TakingOver, A1));
        assert_eq!(sends(&rig.wait(300)).last(), missed.then_some(&(a, told)));
    }
}

/// The one that serves alone is gone from us; the other one has no part in the session, and is told all the same.
#[test]
fn a_node_outside_hears_of_a_lone_primary_out_of_reach() {
    let (mut rig, a) = Rig::open_solo(config());
    let (b, _) = rig.connect(B, B1);
    rig.say(b, Say::primary_a(FIRST, [A1, 0]).hint(Role::Waiting, B1));
    rig.event(Event::Closed { conn: a });
    assert_eq!(sends(&rig.wait(300)).last(), Some(&(b, unreachable(A, FIRST))));
    // It has read on the disk what the primary could tell nobody.
    rig.say(b, Say::primary_a(FIRST.next(), [A1, 0]).hint(Role::Waiting, B1));
    assert_eq!(sends(&rig.wait(50)), [(b, unreachable(A, FIRST.next()))]);
}

#[test]
fn a_node_without_a_part_is_not_missed() {
    let (mut rig, _) = Rig::open_solo(config());
    rig.refuse_connection(B);
    assert_eq!(sends(&rig.wait(1000)), []);
}

#[test]
fn a_joiner_is_tried_at_once_and_given_its_time() {
    let (mut rig, a) = Rig::open_solo(config());
    for _ in 0..8 {
        rig.refuse_connection(B);
        while connects(&rig.wait(10), B) == 0 {
            rig.say(a, Say::primary_a(FIRST, [A1, 0]));
        }
    }
    rig.refuse_connection(B);
    let named = rig.say(a, Say::primary_a(FIRST, [A1, 0]).joiner(B1));
    assert_eq!(named, [Action::Connect { node: B }]);
    assert_eq!(sends(&rig.wait(290)), []);
    assert_eq!(sends(&rig.wait(50)), [(a, unreachable(B, FIRST))]);
}

#[test]
fn a_silent_connection_is_broken_off_and_counts_as_out_of_reach() {
    let (mut rig, a, b) = Rig::open_dual(config());
    let view = Say::primary_a(DUAL, [A1, B1]);
    for _ in 1..config().timing.silent_ms / 100 {
        rig.wait(100);
        rig.say(a, view);
    }
    assert_eq!(rig.phase(B), LinkPhase::Feeding);
    let actions = rig.wait(100);
    assert_eq!(closes(&actions), [b]);
    assert_eq!(connects(&actions, B), 1);
    assert!(sends(&actions).contains(&(a, unreachable(B, DUAL))), "{actions:?}");
}

#[test]
fn a_pause_of_ones_own_is_not_the_nodes_silence() {
    for pause in [config().timing.silent_ms, 60_000] {
        let (mut rig, _, b) = Rig::open_dual(config());
        rig.event(Event::Closed { conn: b });
        rig.now += pause;
        let actions = rig.event(Event::Tick);
        assert_eq!((closes(&actions), sends(&actions)), (vec![], vec![]), "after {pause} ms");
    }
}
