//! `cargo lab`: see `docs/lab.md`.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use twinsan_lab::ahead::Ahead;
use twinsan_lab::cache::{self, Parts};
use twinsan_lab::machine::{Kind, Pace};
use twinsan_lab::report::{self, Row};
use twinsan_lab::scenario::{Need, Scenario, matches, switch_on};
use twinsan_lab::scenarios;
use twinsan_lab::topology::{Host, Lab};
use twinsan_lab::{machine, programs, shell, topology};
use twinsan_witness::pattern::Random;

/// Scenarios with the kernel's own RDMA, iSCSI, dm-multipath, nbd and ublk, on four guests
///
/// Exit status: 0 if scenarios passed and none failed, else 1.
#[derive(Debug, Parser)]
#[command(name = "lab", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Only scenarios with this in their names, or that are this with `*` for anything; may be given again
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Run everything so many times
    #[arg(long, value_name = "N", default_value_t = 1)]
    repeat: u32,
    /// In another order, which this number decides
    #[arg(long, value_name = "SEED")]
    shuffle: Option<u64>,
    /// Hosts by QEMU without KVM, with Debian's stock kernel, instead of User-Mode Linux: huge pages, a clock that stops; slow
    #[arg(long, global = true)]
    qemu: bool,
    /// Print the scenarios' names
    #[arg(long)]
    list: bool,
    /// After the last scenario, or the first that fails, leave its hosts on until Ctrl-C, and keep all logs
    #[arg(long)]
    keep: bool,
    /// A shell in a host of a lab that is kept, or of a new one: shelf, san1, san2 or client
    #[arg(long, value_name = "HOST")]
    shell: Option<String>,
    /// Print one JSON object at the end instead of the table
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Only build the guests' kernel and root, where they are not there yet
    Build,
}

fn main() -> ExitCode {
    let end = run(&Cli::parse());
    // Of what was booted ahead and never used.
    machine::kill_all();
    topology::remove_folders();
    match end {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<bool> {
    if cli.list {
        for (_, scenario) in scenarios::all() {
            println!("{:<28} {}", scenario.name, scenario.about);
        }
        return Ok(true);
    }
    if let Some(Command::Build) = cli.command {
        let (kernel, root) = match cache::parts(kind(cli))? {
            Parts::Uml { kernel, root } => (kernel, root),
            Parts::Qemu(boot) => (boot.kernel, boot.root),
        };
        println!("{}\n{}", kernel.display(), root.display());
        return Ok(true);
    }
    end_in_order()?;
    if let Some(host) = &cli.shell {
        open_shell(host, kind(cli))?;
        return Ok(true);
    }
    run_scenarios(cli)
}

const fn kind(cli: &Cli) -> Kind {
    if cli.qemu { Kind::Qemu } else { Kind::Uml }
}

/// On a signal: every host ends, and nothing is left but the logs.
fn end_in_order() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            machine::kill_all();
            topology::remove_folders();
            if let Some(logs) = LOGS.get().filter(|logs| logs.exists()) {
                eprintln!("lab: interrupted; logs: {}", logs.display());
            }
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

fn run_scenarios(cli: &Cli) -> Result<bool> {
    let wanted = selected(&cli.only)?;
    let parts = cache::parts(kind(cli))?;
    programs::build()?;
    let logs = logs_folder()?;
    let begin = Instant::now();
    let mut rows = Vec::new();
    if !cli.json {
        println!("{}", report::head());
    }
    let turns = turns(cli, &wanted, parts.kind());
    let last = turns.iter().rposition(|turn| turn.lacking.is_none());
    let mut ahead = ahead(cli, &parts, &turns)?;
    for (i, turn) in turns.iter().enumerate() {
        let row = match turn.lacking {
            Some(lacking) => not_here(cli, turn.scenario.name, turn.round, lacking),
            None => {
                let next = turns[i + 1..].iter().find(|turn| turn.lacking.is_none());
                one(cli, turn, next, ahead.as_mut(), &parts, &logs, last == Some(i))?
            }
        };
        rows.push(row);
    }
    let passed = rows.iter().filter(|row| row.passed()).count();
    let failed = rows.iter().filter(|row| row.failed()).count();
    let not_run = rows.len() - passed - failed;
    let seconds = begin.elapsed().as_secs_f64();
    if cli.json {
        let rows: Vec<_> = rows.iter().map(Row::json).collect();
        let machines = if cli.qemu { "qemu" } else { "uml" };
        println!(
            "{}",
            serde_json::json!({ "machines": machines, "scenarios": rows, "seconds": seconds, "failed": failed, "not_run": not_run })
        );
    } else {
        let not_run = if not_run == 0 { String::new() } else { format!(", {not_run} not on these machines") };
        println!("{passed} passed, {failed} failed{not_run}, {seconds:.0} s");
    }
    if failed == 0 && !cli.keep {
        std::fs::remove_dir_all(&logs)?;
    }
    Ok(failed == 0 && passed > 0)
}

fn not_here(cli: &Cli, name: &'static str, round: u32, lacking: &'static str) -> Row {
    let row = Row { name, round, lacking: Some(lacking), ..Row::default() };
    if !cli.json {
        println!("{}", row.line());
    }
    row
}

/// A scenario, and which of the repetitions it is.
struct Turn {
    scenario: Scenario,
    round: u32,
    /// What these machines lack for it.
    lacking: Option<&'static str>,
}

impl Turn {
    fn logs(&self, logs: &Path) -> PathBuf {
        logs.join(format!("{}-{}", self.scenario.name, self.round))
    }
}

/// All that is to be run, in order.
fn turns(cli: &Cli, wanted: &[(Option<Need>, Scenario)], kind: Kind) -> Vec<Turn> {
    let mut random = cli.shuffle.map(Random::new);
    let mut turns = Vec::new();
    for round in 1..=cli.repeat {
        let mut left: Vec<_> = wanted.iter().rev().collect();
        while let Some(most) = left.len().checked_sub(1) {
            let next = random.as_mut().map_or(most, |random| index(random, left.len()));
            let &(need, scenario) = left.swap_remove(next);
            turns.push(Turn { scenario, round, lacking: need.and_then(|need| need.lacking(kind)) });
        }
    }
    turns
}

fn index(random: &mut Random, len: usize) -> usize {
    usize::try_from(random.below(len as u64)).expect("less than a usize")
}

/// Whoever keeps hosts wants the machine for these alone.
fn ahead(cli: &Cli, parts: &Parts, turns: &[Turn]) -> Result<Option<Ahead>> {
    if cli.keep || turns.iter().filter(|turn| turn.lacking.is_none()).count() < 2 {
        return Ok(None);
    }
    if let Some(lacking) = Ahead::lacking(parts.kind()) {
        eprintln!("lab: no hosts are booted ahead, and it takes longer: {lacking}");
        return Ok(None);
    }
    Ahead::new().map(Some)
}

fn one(
    cli: &Cli,
    turn: &Turn,
    next: Option<&Turn>,
    mut ahead: Option<&mut Ahead>,
    parts: &Parts,
    logs: &Path,
    last: bool,
) -> Result<Row> {
    let begin = Instant::now();
    let own = turn.logs(logs);
    let ready = ahead.as_mut().and_then(|ahead| ahead.take());
    let lab = ready.unwrap_or_else(|| switch_on(parts, &own, &Pace::default()));
    if let (Some(ahead), Some(next)) = (ahead, next)
        && !scenarios::ALONE.contains(&turn.scenario.name)
    {
        ahead.order(parts, &next.logs(logs))?;
    }
    let logs = own;
    let (row, lab) = turn.scenario.perform(lab, begin, &logs, turn.round);
    if !cli.json {
        println!("{}", row.line());
    }
    if let Some(lab) = lab
        && cli.keep
        && (last || !row.passed())
    {
        keep(&lab, &logs)?;
    }
    if row.passed() && !cli.keep {
        std::fs::remove_dir_all(&logs)?;
    }
    Ok(row)
}

fn selected(only: &[String]) -> Result<Vec<(Option<Need>, Scenario)>> {
    let mut wanted: Vec<(Option<Need>, Scenario)> = Vec::new();
    for pattern in only {
        let found: Vec<_> = scenarios::all().filter(|(_, s)| matches(pattern, s.name)).collect();
        ensure!(!found.is_empty(), "no scenario has \"{pattern}\" in its name; --list shows them");
        wanted.extend(
            found.into_iter().filter(|(_, f)| wanted.iter().all(|(_, w)| w.name != f.name)).collect::<Vec<_>>(),
        );
    }
    Ok(if only.is_empty() { scenarios::usual().collect() } else { wanted })
}

/// The run's logs, once it has any.
static LOGS: OnceLock<PathBuf> = OnceLock::new();

/// Beside our own program, as cargo's target folder is nobody's but the build's.
fn logs_folder() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().context("a program has a folder")?.join("lab-logs");
    let run = folder.join(std::process::id().to_string());
    std::fs::create_dir_all(&run).with_context(|| run.display().to_string())?;
    Ok(LOGS.get_or_init(|| run).clone())
}

fn keep(lab: &Lab, logs: &Path) -> Result<()> {
    shell::listen(lab)?;
    eprintln!("\nlab: the hosts stay on until Ctrl-C. Logs: {}", logs.display());
    eprintln!("lab: from another terminal: cargo lab -- --shell san1 (or shelf, san2, client)");
    loop {
        // The thread of end_in_order ends the process.
        std::thread::park();
    }
}

fn open_shell(host: &str, kind: Kind) -> Result<()> {
    ensure!(Host::named(host).is_some(), "\"{host}\" is no host of the lab: shelf, san1, san2, client");
    match shell::open_labs().as_slice() {
        [] => {}
        [socket] => return shell::enter(socket, host),
        many => bail!("{} labs are kept; end all but one", many.len()),
    }
    let parts = cache::parts(kind)?;
    programs::build()?;
    let logs = logs_folder()?;
    let mut lab = Lab::create(&parts, &logs)?;
    eprintln!("lab: booting a new one; `exit` ends it");
    lab.boot(&Pace::default())?;
    shell::listen(&lab)?;
    let end = shell::enter(&shell::socket(&lab), host);
    drop(lab);
    std::fs::remove_dir_all(&logs)?;
    end
}
