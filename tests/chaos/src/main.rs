//! `cargo chaos`: two nodes and a client on hosts of their own, and everything that may happen to them, by seed.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use twinsan_chaos::driver::{Settings, run, set_up};
use twinsan_chaos::enclosure;
use twinsan_chaos::load::{Opener, VOLUME_BYTES, Witness};
use twinsan_chaos::namespaces::Namespaces;
use twinsan_chaos::report::Report;
use twinsan_chaos::verdict::Verdict;
use twinsan_chaos::world::{Sabotage, World};
use twinsan_perf::cluster::{Programs, VOLUME};
use twinsan_witness::nbd;

/// Two nodes and a client, each in a network namespace of its own; processes are killed, frozen and stopped, links cut and
/// made slow, the disk filled, clients replaced, while a load remembers what it was promised. Ends with 1 and the evidence
/// if one completed write is missing, one read went back, one request failed, a program died, or the volume did not come
/// back. Needs root.
#[derive(Clone, Debug, Parser)]
#[command(name = "chaos", version, args_override_self = true)]
struct Arguments {
    /// How long.
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Which faults, and when [default: by chance; it is printed].
    #[arg(long)]
    seed: Option<u64>,
    /// Only faults with this in their names; may be given again.
    #[arg(long, value_name = "KIND")]
    only: Vec<String>,
    /// In the end, change one completed block on the disk, behind everybody's back: it must be noticed, and end non-zero.
    #[arg(long, value_enum)]
    sabotage: Option<Foul>,
    /// Print one JSON object instead of the table.
    #[arg(long)]
    json: bool,
    /// Where a folder with the evidence and all logs goes if something is wrong.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    evidence: PathBuf,
    /// Leave that folder in any case.
    #[arg(long)]
    keep: bool,
}

/// [`Sabotage`], as the command line has it.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Foul {
    /// Bytes that nobody wrote.
    Corrupt,
    /// What was there before the last write: as if that had never been.
    Undo,
}

fn main() -> Result<ExitCode> {
    let own: Vec<OsString> = std::env::args_os().collect();
    if let Some((folder, arguments)) = enclosure::inside(own.iter().skip(1).cloned()) {
        let arguments = Arguments::parse_from(own.first().cloned().into_iter().chain(arguments));
        return inside(&folder, &arguments);
    }
    let arguments = Arguments::parse();
    let mut passed: Vec<OsString> = own.into_iter().skip(1).collect();
    if arguments.seed.is_none() {
        passed.extend(["--seed".into(), (rand_seed()? % 1_000_000).to_string().into()]);
    }
    // The enclosure has another temporary folder, which is gone in the end.
    passed.extend(["--evidence".into(), arguments.evidence.into()]);
    enclosure::run(passed)
}

fn rand_seed() -> Result<u64> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u64::from_le_bytes(bytes))
}

fn inside(folder: &Path, arguments: &Arguments) -> Result<ExitCode> {
    let told = enclosure::told()?;
    let seed = arguments.seed.context("the outer program gives a seed")?;
    eprintln!("seed {seed}");
    let disk = folder.join("disk");
    fs::create_dir(&disk)?;
    let mut world = Namespaces::new(Programs::build()?, &disk, VOLUME_BYTES)?;
    let settings = Settings {
        time: Duration::from_secs_f64(arguments.minutes * 60.0),
        seed,
        only: arguments.only.clone(),
        sabotage: arguments.sabotage.map(|foul| match foul {
            Foul::Corrupt => Sabotage::Corrupt,
            Foul::Undo => Sabotage::Undo,
        }),
    };
    let socket = world.nbd_socket();
    let open: Opener = Arc::new(move || Ok(Box::new(nbd::Client::connect(&socket, VOLUME)?)));
    set_up(&mut world, &told)?;
    let mut load = Witness::start(open, seed).context("writing every block once")?;
    let mut report = run(&mut world, &mut load, settings, &told, folder)?;
    let wrong = !report.is_well() && !report.is_caught() && report.verdict != Verdict::Ended;
    if wrong || arguments.keep {
        report.kept = Some(keep(&world, &report, folder, &arguments.evidence)?);
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{}", report.table());
    }
    Ok(if report.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn keep(world: &impl World, report: &Report, from: &Path, into: &Path) -> Result<PathBuf> {
    let folder = tempfile::Builder::new().prefix(&format!("twinsan-chaos-{}-", report.seed)).tempdir_in(into)?.keep();
    world.keep(&folder)?;
    fs::copy(from.join("faults.log"), folder.join("faults.log"))?;
    fs::write(folder.join("report.json"), serde_json::to_string_pretty(report)?)?;
    fs::write(folder.join("evidence.txt"), &report.evidence)?;
    Ok(folder)
}
