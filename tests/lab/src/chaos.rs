//! Chaos on the lab's hosts: the same driver, plan and guard as `cargo chaos`, over rxe, with scsi-pr, on dm-multipath.
//!
//! What is different here: a frozen node that is fenced is not killed, and finds out when it thaws; the disk's paths are
//! iSCSI's, and the fence is a persistent reservation; the client's device is the kernel's, and outlives it. What is not
//! possible here: a cut in one direction, a full disk, and a client that leaves (its device would go with it).

mod load;
mod world;

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use twinsan_chaos::driver::{Settings, run, set_up};
use twinsan_chaos::verdict::Verdict;

use self::load::GuestLoad;
use self::world::Hosts;
use crate::scenario::Stage;

/// How many minutes, instead of [`MINUTES`].
const MINUTES_VARIABLE: &str = "TWINSAN_LAB_CHAOS_MINUTES";
/// Which faults, and when, instead of by chance.
const SEED_VARIABLE: &str = "TWINSAN_LAB_CHAOS_SEED";
/// For a lab that runs everything.
const MINUTES: f64 = 1.0;

/// The scenario.
pub(crate) fn chaos(stage: &mut Stage) -> Result<()> {
    let minutes = variable(MINUTES_VARIABLE)?;
    let (by_hand, minutes) = (minutes.is_some(), minutes.unwrap_or(MINUTES));
    let seed = variable(SEED_VARIABLE)?.unwrap_or_else(by_chance);
    stage.note(format!("seed {seed}"));
    let settings = Settings { time: Duration::from_secs_f64(minutes * 60.0), seed, only: Vec::new(), sabotage: None };
    let told = AtomicBool::new(false);
    let mut hosts = Hosts::deploy(&stage.lab)?;
    set_up(&mut hosts, &told)?;
    let mut load = GuestLoad::start(&stage.lab)?;
    let report = run(&mut hosts, &mut load, settings, &told, &stage.logs)?;
    std::fs::write(stage.logs.join("chaos-report.json"), serde_json::to_string_pretty(&report)?)?;
    std::fs::write(stage.logs.join("chaos-evidence.txt"), &report.evidence)?;
    ensure!(report.verdict == Verdict::Kept, "{:?}: {}", report.verdict, report.words);
    let (kind, longest) = report.pauses.worst();
    stage.note(format!(
        "{} rounds, {} failovers, longest pause {longest:.0} ms ({kind}); {} writes, {} reads",
        report.rounds, report.failovers, report.writes, report.reads
    ));
    if by_hand {
        eprint!("{}", report.table());
    }
    Ok(())
}

fn variable<T: std::str::FromStr>(name: &str) -> Result<Option<T>> {
    let Ok(text) = std::env::var(name) else { return Ok(None) };
    text.parse().map(Some).ok().with_context(|| format!("{name}={text} is no number"))
}

fn by_chance() -> u64 {
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::from(time.subsec_nanos()) % 1_000_000
}
