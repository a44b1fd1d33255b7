//! Moves that somebody wants, on a cluster that is otherwise healthy, by seed: each ends, and soon.

use crate::common::*;
use twinsan_replica::{Event, HandedOver};
use twinsan_sim::{Pathless, Rng};

const SEEDS: u64 = 300;
const MOVES: u64 = 6;

/// Longer than any of the machines' timeouts, and the slowest disk's way through a full lane.
const PATIENCE_MS: u64 = 3_000;

/// Works all the time, and nothing breaks by itself.
fn world(seed: u64) -> World {
    // One to come, as the client works until all have struck; it never does.
    let config = SimConfig { writes: u64::MAX, faults: 1, kill_both: false, ..SimConfig::from_seed(seed) };
    let mut world = World::new(config);
    world.boot();
    world
}

fn primary(w: &World) -> Option<NodeId> {
    NodeId::BOTH.into_iter().find(|&node| w.role(node) == Some(Role::Primary))
}

fn must(w: &mut World, seed: u64, what: &str, done: impl FnMut(&World) -> bool) {
    let reached = w.run_until(PATIENCE_MS, done);
    let roles = NodeId::BOTH.map(|node| w.role(node));
    assert!(reached, "seed {seed}: {what} within {PATIENCE_MS} ms; {roles:?} {:?} {:?}", w.superblock(), w.violation());
}

#[test]
fn every_move_ends() {
    let mut moved = 0;
    for seed in 0..SEEDS {
        let mut rng = Rng::new(seed);
        let mut w = world(seed);
        for _ in 0..MOVES {
            must(&mut w, seed, "dual", World::is_dual);
            let pause = rng.below(300);
            w.run_for(pause);
            let Some(from) = primary(&w).filter(|_| w.is_dual()) else { continue };
            let done = w.counts().writes_completed;
            match rng.below(3) {
                0 => switch_over(&mut w, seed, from),
                1 => stop(&mut w, seed, from),
                _ => lose_paths(&mut w, seed, from),
            }
            must(&mut w, seed, "writes go on", |w| w.counts().writes_completed > done + 20);
            moved += 1;
        }
        w.finish();
        assert_eq!(w.violation(), None, "seed {seed}");
    }
    assert!(moved > SEEDS * MOVES / 2, "{moved} moves");
}

/// Rule 15: who serves alone is cut off from everything but its disk, for good; the other one, started about then and no
/// member, is all that the client reaches. What waits goes on there, and who was cut off joins when it is back.
#[test]
fn a_lone_primary_that_is_cut_off_is_replaced() {
    for seed in 0..SEEDS {
        let mut rng = Rng::new(seed);
        let mut w = world(seed);
        for _ in 0..3 {
            // One that attaches has no word yet: it waits until the network is back.
            must(&mut w, seed, "dual, and a session", |w| w.is_dual() && w.client_is_open(0));
            let Some(from) = primary(&w) else { continue };
            w.crash_node(from.other());
            let pauses = [0, 1].map(|_| rng.below(500) * rng.below(2));
            w.run_for(pauses[0]);
            if rng.coin() {
                w.start_node(from.other());
                w.run_for(pauses[1]);
            }
            let Some(from) = primary(&w) else { continue };
            w.cut_off(from);
            w.start_node(from.other());
            let done = w.counts().writes_completed;
            must(&mut w, seed, "the other one serves", |w| primary(w) == Some(from.other()));
            must(&mut w, seed, "writes go on", |w| w.counts().writes_completed > done + 20);
            let pause = rng.below(1_000);
            w.run_for(pause);
            assert_eq!(w.role(from.other()), Some(Role::Primary), "seed {seed}: it stays there");
            w.mend_all();
            w.start_node(from); // `local-lock` has killed it.
        }
        w.finish();
        assert_eq!(w.violation(), None, "seed {seed}");
    }
}

fn switch_over(w: &mut World, seed: u64, from: NodeId) {
    let fenced = w.counts().takeovers_rule_5;
    must(w, seed, "nothing is in the way", |w| w.obstacle(from).is_none());
    w.order(from, Event::Switchover);
    must(w, seed, "the order has ended", |w| {
        !matches!(w.handed_over(from), None | Some(HandedOver::UnderWay { .. } | HandedOver::Failed))
    });
    // A disk that is slower than a takeover timeout is a reason to go on; nothing else is.
    if matches!(w.handed_over(from), Some(HandedOver::Done { .. })) {
        assert_eq!(primary(w), Some(from.other()), "seed {seed}");
    }
    assert_eq!(w.counts().takeovers_rule_5, fenced, "seed {seed}: nobody is fenced");
}

fn stop(w: &mut World, seed: u64, from: NodeId) {
    let before = w.counts().clone();
    w.order(from, Event::Shutdown);
    must(w, seed, "it has ended", |w| w.role(from).is_none());
    must(w, seed, "the other one serves", |w| primary(w) == Some(from.other()));
    assert_eq!(w.counts().takeovers_rule_5, before.takeovers_rule_5, "seed {seed}: nobody is fenced");
    w.start_node(from);
}

fn lose_paths(w: &mut World, seed: u64, from: NodeId) {
    w.lose_paths(from, Pathless::Fails);
    must(w, seed, "who reaches the disk serves", |w| primary(w) == Some(from.other()));
    w.run_for(500);
    assert_eq!(primary(w), Some(from.other()), "seed {seed}: nothing moves to a node without paths");
    w.paths_return(from);
    w.start_node(from); // `local-lock` has killed it.
}
