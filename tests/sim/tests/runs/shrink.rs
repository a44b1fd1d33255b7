//! A failing run is made short, and told so that a person can read it.

use twinsan_sim::{Case, SimConfig, Weakness, World, shrink};

/// The first of some seeds in which this wrong wording is caught.
fn failing(weakness: &str) -> World {
    let weakness = Weakness::by_name(weakness).expect("a weakness");
    let mut worlds = (0..200).map(|seed| {
        let mut world = World::new(SimConfig::from_seed(seed).weakened(Some(weakness)));
        world.run_guarded();
        world
    });
    worlds.find(|world| world.violation().is_some()).expect("one of them catches it")
}

/// A seed's run, and the same from its list.
fn twice(seed: u64) -> [World; 2] {
    let mut first = World::new(SimConfig::from_seed(seed));
    first.run();
    let again = Case::of(&first).run(false);
    [first, again]
}

#[test]
fn a_list_is_the_same_run() {
    for seed in [3, 8, 23] {
        let [first, again] = twice(seed);
        assert_eq!(again.deeds(), first.deeds(), "seed {seed}");
        assert_eq!(again.counts().writes_completed, first.counts().writes_completed, "seed {seed}");
        assert_eq!(again.counts().rules, first.counts().rules, "seed {seed}");
    }
}

/// Where two things fall into the same moment, another order of them may make another run: that is the exception.
#[test]
fn most_lists_are_the_same_run() {
    let is_the_same = |seed: &u64| {
        let [first, again] = twice(*seed);
        let (one, other) = (first.counts(), again.counts());
        again.deeds() == first.deeds() && one.writes_completed == other.writes_completed && one.rules == other.rules
    };
    let same = (0..30).filter(is_the_same).count();
    assert!(same >= 20, "{same} of 30");
}

#[test]
fn a_failing_run_becomes_short() {
    for weakness in ["read-before-durable", "fence-without-abort"] {
        let world = failing(weakness);
        let violation = world.violation().expect("it fails").clone();
        let short = shrink(Case::of(&world), violation.checker, 1_500, &mut |_| {});
        assert!(short.deeds.len() <= 20, "{weakness}: {} of {} are left", short.deeds.len(), world.deeds().len());
        let told = short.run(true);
        let story = told.story();
        assert_eq!(told.violation().map(|v| v.checker), Some(violation.checker), "{weakness}");
        assert!(story.len() < 250, "{weakness}: {} lines", story.len());
        assert!(story.iter().any(|line| line.starts_with("broken: ")), "{weakness}: {story:?}");
    }
}
