//! A thousand seeds as an ordinary test; `cargo sim -- --seeds 10000` runs more.

use twinsan_sim::{Counts, SimConfig, World};

/// Each change of a machine makes them another draw: with fewer, a count of chance may be below its floor by chance.
const SEEDS: u64 = 1000;

#[test]
fn every_promise_is_kept() {
    let mut sums = Counts::default();
    for seed in 0..SEEDS {
        let mut world = World::new(SimConfig::from_seed(seed));
        world.run();
        assert_eq!(world.violation(), None, "replay: cargo sim -- --seed {seed} --trace");
        assert!(world.counts().writes >= 200, "seed {seed}: {} writes", world.counts().writes);
        assert!(world.counts().faults_total() >= 3, "seed {seed}: {} faults", world.counts().faults_total());
        sums.add(world.counts());
    }
    assert_eq!(sums.below_floor(SEEDS), Vec::<String>::new());
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = |seed| {
        let mut config = SimConfig::from_seed(seed);
        config.trace = true;
        let mut world = World::new(config);
        world.run();
        world.trace_lines().to_vec()
    };
    for seed in [1, 7] {
        let (first, second) = (run(seed), run(seed));
        assert!(first.len() > 1000, "a run leaves a record");
        assert!(first == second, "seed {seed} ran in two ways");
    }
}
