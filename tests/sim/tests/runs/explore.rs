//! The search over all states, as an ordinary test: a few small scenarios; `cargo explore` runs them all.

use twinsan_sim::Weakness;
use twinsan_sim::explore::{Found, Limits, Outcome, SCENARIOS, Scenario, search};

const LIMITS: Limits = Limits { states: 500_000, verify: false, census: false };

fn run(name: &str, limits: Limits) -> Outcome {
    search(&Scenario::by_name(name).expect("a scenario"), limits)
}

fn assert_kept(outcome: &Outcome) {
    match &outcome.found {
        Found::Nothing => {}
        Found::Capped => panic!("{} states, and no end", outcome.states),
        Found::Broken(violation, trace) => panic!("{violation:?}\n{}", trace.join("\n")),
    }
}

#[test]
fn every_promise_is_kept_in_every_state() {
    for name in QUICK {
        let outcome = run(name, LIMITS);
        assert_kept(&outcome);
        assert!(outcome.served > 0, "{name}: the client never gets what it asked for");
        assert!(outcome.depth > 10, "{name}: nothing happens");
    }
}

/// Small enough for a build that is hardly optimized.
const QUICK: [&str; 5] = ["writes", "crash", "hasten", "disk-faults", "pathless"];

/// What is left out of a state by its canonical form makes no difference to what follows.
#[test]
fn states_that_are_taken_for_one_are_one() {
    for name in ["disk-faults", "rot", "freeze-path"] {
        assert_kept(&run(name, Limits { verify: true, ..LIMITS }));
    }
}

#[test]
fn a_search_that_is_capped_says_so() {
    let outcome = run("writes", Limits { states: 100, ..LIMITS });
    assert!(matches!(outcome.found, Found::Capped), "{outcome:?}");
}

#[test]
fn a_census_tells_what_states_differ_in() {
    let outcome = run("pathless", Limits { census: true, ..LIMITS });
    assert_kept(&outcome);
    let parts = &outcome.census;
    assert!(parts.iter().all(|part| part.values > 1 && part.without <= outcome.states), "{parts:?}");
    for name in ["budget", "disk", "net C0-A", "A state", "A relay.acked", "C0 window"] {
        assert!(parts.iter().any(|part| part.name == name), "no {name:?} in {parts:?}");
    }
    assert!(parts.is_sorted_by_key(|part| part.without), "{parts:?}");
    assert!(run("disk-faults", LIMITS).census.is_empty(), "nobody has asked");
}

#[test]
fn a_search_goes_the_same_way_each_time() {
    let [first, second] = [0; 2].map(|_| run("writes", LIMITS));
    assert_eq!((first.states, first.steps, first.depth), (second.states, second.steps, second.depth));
}

#[test]
fn scenarios_have_names_of_their_own() {
    for (at, scenario) in SCENARIOS.iter().enumerate() {
        assert!(SCENARIOS[..at].iter().all(|s| s.name != scenario.name), "two are called {}", scenario.name);
    }
}

/// Old wordings, the scenario that catches each, and by which promise. The way there is told to its end.
#[test]
fn wrong_wordings_are_caught() {
    for (weakness, scenario, checker) in CAUGHT {
        let weakness = Weakness::by_name(weakness).expect("a weakness");
        let scenario = Scenario::by_name(scenario).expect("a scenario");
        match search(&scenario.weakened(weakness), LIMITS).found {
            Found::Broken(violation, trace) => {
                assert_eq!(violation.checker, checker, "{}: {}", weakness.name(), violation.message);
                assert!(trace.last().is_some_and(|line| line.contains(&violation.message)), "{trace:?}");
            }
            found => panic!("{} is not caught by {}: {found:?}", weakness.name(), scenario.name),
        }
    }
}

const CAUGHT: [(&str, &str, &str); 13] = [
    ("overlapping-batches", "writes", "one_disk_write_per_block"),
    ("read-before-durable", "writes", "members_never_lie"),
    ("fence-without-abort", "crash", "one_authoritative_primary"),
    ("trust-flush-marks", "crash", "no_machine_gives_up"),
    ("silent-epoch", "crash", "a_healthy_node_can_serve"),
    ("flush-before-durable", "handover", "members_never_lie"),
    ("hand-over-in-flight", "handover", "one_authoritative_primary"),
    ("hand-over-unheard", "handover", "members_never_lie"),
    ("forget-what-completed", "join", "nobody_breaks_the_protocol"),
    ("path-added-blindly", "freeze-path", "one_authoritative_primary"),
    ("slots-in-turn", "rot", "one_authoritative_primary"),
    ("deaf-to-asking", "pathless", "a_healthy_node_can_serve"),
    ("clean-race", "clean", "completed_write_is_never_lost"),
];
