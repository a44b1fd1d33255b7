//! Runs seeds of the simulated cluster: `cargo sim -- --seeds 10000`, and replays one: `--seed N --trace`.
#![forbid(unsafe_code)]

mod boundaries;
mod report;

use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use twinsan_sim::{Case, Counts, SimConfig, Violation, Weakness, World, shrink};

/// The whole cluster in one deterministic process, under faults.
#[derive(Parser)]
#[command(version, about)]
struct Args {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Threads; default: one per core.
    #[arg(long)]
    jobs: Option<usize>,
    /// Runs this seed only.
    #[arg(long, conflicts_with_all = ["seeds", "from", "weak_all"])]
    seed: Option<u64>,
    /// Prints the record of the run.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Switches one rule to its old, wrong wording.
    #[arg(long, value_name = "NAME", value_parser = weakness)]
    weak: Option<Weakness>,
    /// Runs every wrong wording and says which are caught by these seeds.
    #[arg(long, conflicts_with = "weak")]
    weak_all: bool,
    /// Goes through some short runs, or through that of a seed, as often as their nodes have actions: each time one is
    /// killed after the next of them, and started again.
    #[arg(long, conflicts_with_all = ["seeds", "from", "weak_all", "trace", "json"])]
    boundaries: bool,
    /// Prints the result as one JSON object.
    #[arg(long)]
    json: bool,
    /// Runs that may be spent on making a failing run short; 0: it is only named.
    #[arg(long, default_value_t = 6000)]
    shrink: u64,
    /// Goes on after a failing seed, and lists all.
    #[arg(long)]
    keep_going: bool,
}

impl Args {
    fn jobs(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.jobs.unwrap_or(cores).max(1)
    }
}

fn weakness(name: &str) -> Result<Weakness, String> {
    Weakness::by_name(name).ok_or_else(|| {
        let names: Vec<String> = Weakness::all().into_iter().map(Weakness::name).collect();
        format!("no wrong wording is called {name:?}; there are {}", names.join(", "))
    })
}

/// A failing seed.
struct Failure {
    seed: u64,
    violation: Violation,
    case: Case,
}

fn main() -> ExitCode {
    let args = Args::parse();
    tell_panics_once();
    if args.weak_all {
        return weak_all(&args);
    }
    if args.boundaries {
        return boundaries::run(&args);
    }
    if let Some(seed) = args.seed {
        return replay(seed, &args);
    }
    let begun = Instant::now();
    let (counts, failures) = run_all(&args);
    let took = begun.elapsed();
    let short = if args.weak.is_none() && failures.is_empty() { counts.below_floor(args.seeds) } else { Vec::new() };
    if args.json {
        report::json(&args, &counts, &failures, &short, took);
    } else {
        report::words(&args, &counts, &failures, &short, took);
        if let Some(first) = failures.first() {
            tell_short(first, args.shrink);
        }
    }
    if failures.is_empty() && short.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_one(seed: u64, args: &Args, trace: bool) -> World {
    let mut config = SimConfig::from_seed(seed).weakened(args.weak);
    config.trace = trace;
    let mut world = World::new(config);
    world.run_guarded();
    world
}

/// The shortest story that breaks the same promise.
fn tell_short(failure: &Failure, most_runs: u64) {
    if most_runs == 0 {
        return;
    }
    let (checker, case) = (failure.violation.checker, failure.case.clone());
    SHRINKING.store(true, Ordering::Relaxed);
    let mut last = Instant::now();
    let short = shrink(case, checker, most_runs, &mut |p| {
        if last.elapsed().as_millis() > 200 {
            last = Instant::now();
            let ms = p.until_us / 1000;
            eprintln!("shrinking: {} runs; {} faults, {} requests, {ms} ms", p.runs, p.faults, p.requests);
        }
    });
    report::list(&short);
    report::story(&short.run(true));
}

fn run_all(args: &Args) -> (Counts, Vec<Failure>) {
    let next = AtomicU64::new(args.from);
    let end = args.from + args.seeds;
    let stop = AtomicBool::new(false);
    let sums = Mutex::new((Counts::default(), Vec::new()));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..args.jobs() {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        break;
                    }
                    let world = run_one(seed, args, false);
                    let mut sums = sums.lock().expect("no thread panics while it holds this");
                    sums.0.add(world.counts());
                    if let Some(violation) = world.violation() {
                        sums.1.push(Failure { seed, violation: violation.clone(), case: Case::of(&world) });
                        stop.fetch_or(!args.keep_going, Ordering::Relaxed);
                    }
                    drop(sums);
                    let done = seed + 1 - args.from;
                    if done.is_multiple_of(1000) {
                        eprintln!("{done} of {} seeds, {:.1} s", args.seeds, begun.elapsed().as_secs_f64());
                    }
                }
            });
        }
    });
    let (counts, mut failures) = sums.into_inner().expect("no thread panicked");
    failures.sort_by_key(|f| f.seed);
    (counts, failures)
}

/// A machine's own assertion is told where it happens, but not each time that a case is shrunk.
fn tell_panics_once() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !SHRINKING.load(Ordering::Relaxed) {
            usual(info);
        }
    }));
}

static SHRINKING: AtomicBool = AtomicBool::new(false);

fn replay(seed: u64, args: &Args) -> ExitCode {
    let world = run_one(seed, args, args.trace);
    if args.trace {
        report::story(&world);
    }
    match world.violation().cloned() {
        None => {
            println!("seed {seed}: every promise was kept");
            ExitCode::SUCCESS
        }
        Some(violation) => {
            println!("seed {seed}: {}: {}", violation.checker, violation.message);
            if !args.trace {
                tell_short(&Failure { seed, violation, case: Case::of(&world) }, args.shrink);
            }
            ExitCode::FAILURE
        }
    }
}

/// The wrong wordings that need an exact interleaving, which seeds hardly ever hit, and the scripted test that has it.
const SCRIPTED: [(&str, &str); 21] = [
    ("admit-too-early", "section8::revived_write"),
    ("join-too-early", "section8::join_too_early"),
    ("keep-offered", "section8::resumed_too_low"),
    ("path-added-blindly", "section8::path_against_fence"),
    ("release-while-dropping", "section8::released_while_dropping"),
    ("believe-torn-mailboxes", "daggers::a_mailbox_seen_while_it_is_written_over"),
    ("believe-every-epoch", "daggers::a_word_of_another_epoch"),
    ("flush-before-durable", "section8::read_going_back"),
    ("starved-read", "section8::starved_read"),
    ("clean-race", "section8::clean_race"),
    ("conflict-means-fenced", "section8::conflict_misread"),
    ("act-unfenced", "daggers::a_superblock_that_was_merely_read"),
    ("ask-anybody", "paths::asked_the_wrong_one"),
    ("deaf-to-asking", "paths::a_primary_without_paths_asks"),
    ("deaf-to-clients", "daggers::the_clients_word"),
    ("believe-any-client", "word::an_old_client_takes_the_volume_from_nobody"),
    ("keep-earlier-feeder", "relay::the_relays_last_blobs_are_late"),
    ("believe-any-relay", "relay::a_relay_from_the_past"),
    ("released-by-guess", "relay::what_the_fed_one_has_not_released"),
    ("count-answers-at-once", "section8::seen_too_early"),
    ("trust-first-ask", "join_by_relay::a_joiner_that_was_fed_by_relay_is_asked_for_the_first_time"),
];

/// Each wrong wording in a run of its own.
fn weak_all(args: &Args) -> ExitCode {
    let program = std::env::current_exe().expect("this program has a path");
    let mut missed = 0;
    for weakness in Weakness::all() {
        let name = weakness.name();
        let seeds = args.seeds.to_string();
        let from = args.from.to_string();
        let output = Command::new(&program)
            .args(["--weak", &name, "--seeds", &seeds, "--from", &from, "--shrink", "0"])
            .output()
            .expect("this program starts again");
        let said = String::from_utf8_lossy(&output.stdout);
        let first = said.lines().find(|line| line.starts_with("seed "));
        let scripted = SCRIPTED.iter().find(|(n, _)| *n == name).map(|(_, test)| *test);
        let verdict = match (output.status.success(), scripted) {
            (false, _) => first.unwrap_or("caught").to_owned(),
            (true, Some(test)) => format!("not by these seeds; by the test {test}"),
            (true, None) => {
                missed += 1;
                "NOT CAUGHT".to_owned()
            }
        };
        println!("{name:<32} {verdict}");
    }
    println!("{missed} caught neither by {} seeds nor by a scripted test", args.seeds);
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
