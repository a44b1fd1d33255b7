//! What a search has seen, in words.

use twinsan_sim::explore::{Found, Outcome, Scenario};

/// The table's head.
pub(crate) fn head() {
    println!(
        "{:<28} {:>10} {:>11} {:>6} {:>9} {:>8} {:>10}  result",
        "scenario", "states", "steps", "depth", "seconds", "MiB", "served"
    );
}

/// A scenario has ended.
pub(crate) fn outcome(scenario: &Scenario, outcome: &Outcome) {
    let result = match &outcome.found {
        Found::Nothing => "every promise kept".to_owned(),
        Found::Capped => "CAPPED: nothing is shown".to_owned(),
        Found::Broken(violation, trace) => {
            trace.iter().for_each(|line| println!("{line}"));
            format!("BROKEN: {}", violation.checker)
        }
    };
    println!(
        "{:<28} {:>10} {:>11} {:>6} {:>9.1} {:>8} {:>10}  {result}",
        scenario.name,
        outcome.states,
        outcome.steps,
        outcome.depth,
        outcome.took.as_secs_f64(),
        peak_mib().map_or("?".to_owned(), |mib| mib.to_string()),
        outcome.served,
    );
    for part in &outcome.census {
        println!("    {:<26} {:>10} values; {:>9} states without it", part.name, part.values, part.without);
    }
}

/// One of the list.
pub(crate) fn scenario(scenario: &Scenario) {
    let set = if scenario.small { "small" } else { "large" };
    let order = if scenario.prompt { "prompt" } else { "all orders" };
    let members = if scenario.dual { "dual" } else { "solo" };
    let fence = format!("{:?}", scenario.fence).to_lowercase();
    let program: Vec<String> = scenario.program.iter().map(|request| format!("{request:?}")).collect();
    println!("{:<28} {set}, {order}, {members}, {fence}; {}; {}", scenario.name, program.join(" "), scenario.budget);
}

/// The most memory that this process has had, in MiB.
fn peak_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024)
}
