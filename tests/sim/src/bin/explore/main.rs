//! Searches all states of scenarios: `cargo explore`, `cargo explore -- --large`; or of one's own:
//! `cargo explore -- --program "w0 w0 r1" --faults crash=1,freeze=1`.
#![forbid(unsafe_code)]

mod own;
mod report;

use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use clap::Parser;
use twinsan_sim::Weakness;
use twinsan_sim::explore::{Found, Limits, SCENARIOS, Scenario, search};

/// Every state of the real machines within bounds.
#[derive(Parser)]
#[command(version, about)]
struct Args {
    /// The large set too; it takes 20 minutes.
    #[arg(long)]
    large: bool,
    /// Only scenarios with this in their name, of either set.
    #[arg(long, value_name = "WORD")]
    only: Option<String>,
    /// Only the scenario of exactly this name.
    #[arg(long, value_name = "NAME", conflicts_with = "only")]
    just: Option<String>,
    /// Lists the scenarios.
    #[arg(long)]
    list: bool,
    /// The most states of one scenario: with more it is CAPPED, and that is a failure.
    #[arg(long, default_value_t = 30_000_000)]
    states: usize,
    /// Scenarios at a time; default: one per core.
    #[arg(long)]
    jobs: Option<usize>,
    /// Looks whether states that are taken for one are followed by the same states. Takes several times as long.
    #[arg(long)]
    verify: bool,
    /// Tells what the states differ in: for each part how many values it takes, and how many states there would be
    /// without it. With a cap of --states.
    #[arg(long)]
    census: bool,
    /// Switches one rule to its old, wrong wording.
    #[arg(long, value_name = "NAME", value_parser = weakness)]
    weak: Option<Weakness>,
    /// Runs every wrong wording, and says which of the scenarios catches it.
    #[arg(long, conflicts_with = "weak")]
    weak_all: bool,
    #[command(flatten)]
    own: own::Own,
}

fn weakness(name: &str) -> Result<Weakness, String> {
    Weakness::by_name(name).ok_or_else(|| {
        let names: Vec<String> = Weakness::all().into_iter().map(Weakness::name).collect();
        format!("no wrong wording is called {name:?}; there are {}", names.join(", "))
    })
}

fn main() -> ExitCode {
    let args = Args::parse();
    // A machine that gives up is a violation like others, and told as one.
    std::panic::set_hook(Box::new(|_| {}));
    let scenarios = args.scenarios();
    if scenarios.is_empty() {
        let name = args.only.or(args.just).unwrap_or_default();
        eprintln!("no scenario is called {name:?}; --list lists them");
        return ExitCode::FAILURE;
    }
    if args.list {
        scenarios.iter().for_each(report::scenario);
        return ExitCode::SUCCESS;
    }
    let limits = Limits { states: args.states, verify: args.verify, census: args.census };
    let jobs = args.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let kept = if args.weak_all { weak_all(&scenarios, limits) } else { run_all(&scenarios, args.weak, limits, jobs) };
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Args {
    fn scenarios(&self) -> Vec<Scenario> {
        if let Some(own) = self.own.scenario() {
            return vec![own];
        }
        let named = |s: &&Scenario| match (&self.just, &self.only) {
            (Some(name), _) => s.name == name,
            (_, Some(word)) => s.name.contains(word.as_str()),
            (None, None) => s.small || self.large || self.list,
        };
        SCENARIOS.iter().filter(named).copied().collect()
    }
}

/// True if every scenario has come to its end, and every promise is kept.
fn run_all(scenarios: &[Scenario], weak: Option<Weakness>, limits: Limits, jobs: usize) -> bool {
    if let [scenario] = scenarios {
        let scenario = Scenario { weakness: weak, ..*scenario };
        let outcome = search(&scenario, limits);
        report::outcome(&scenario, &outcome);
        return matches!(outcome.found, Found::Nothing);
    }
    report::head();
    let begun = Instant::now();
    let (next, clean) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        while let Some(scenario) = scenarios.get(next.fetch_add(1, Ordering::Relaxed)) {
            clean.fetch_add(usize::from(run_apart(scenario, weak, limits)), Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| (0..jobs).for_each(|_| drop(scope.spawn(work))));
    let (clean, all) = (clean.into_inner(), scenarios.len());
    println!("{clean} of {all} scenarios kept every promise; {:.0} s", begun.elapsed().as_secs_f64());
    clean == all
}

/// In a process of its own, so that its peak of memory is its own.
fn run_apart(scenario: &Scenario, weak: Option<Weakness>, limits: Limits) -> bool {
    let myself = std::env::current_exe().expect("Linux tells which program runs");
    let mut command = Command::new(myself);
    command.args(["--just", scenario.name, "--states", &limits.states.to_string()]);
    command.args(limits.verify.then_some("--verify"));
    command.args(limits.census.then_some("--census"));
    if let Some(weak) = weak {
        command.args(["--weak", &weak.name()]);
    }
    match command.output() {
        Ok(output) => {
            print!("{}", String::from_utf8_lossy(&output.stdout));
            output.status.success()
        }
        Err(error) => {
            eprintln!("{}: it can't be started: {error}", scenario.name);
            false
        }
    }
}

/// True always: it tells, and `tests/explore.rs` asserts.
fn weak_all(scenarios: &[Scenario], limits: Limits) -> bool {
    for weakness in Weakness::all() {
        let caught = scenarios.iter().find_map(|scenario| match search(&scenario.weakened(weakness), limits).found {
            Found::Broken(violation, trace) => Some((scenario.name, violation.checker, trace.len())),
            _ => None,
        });
        match caught {
            Some((name, checker, lines)) => {
                println!("{:<32} {name}: {checker}, told in {lines} lines", weakness.name());
            }
            None => println!("{:<32} not caught", weakness.name()),
        }
    }
    true
}
