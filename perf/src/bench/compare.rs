//! Contestants in turns, by the same client.
//!
//! All run from the beginning to the end. For each workload there are rounds; in each, every contestant has one short slice,
//! and another one begins, so that nobody always follows the same neighbour. What ours does behind its answers is awaited
//! after its slice. So whatever else the machine does falls on all of them, and ratios are taken round by round.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use indicatif::ProgressBar;

use super::contestants::{Lane, OURS, Setup, check_programs};
use super::cpu::{Account, machine};
use super::engine::{Budget, Engine, prefill, read_back};
use super::job::Job;
use super::recorder::{Recorder, Slice};
use super::result::{Beside, Compare, Contestant, Ratio, Row, WorkloadResult};
use crate::wire::progress;

/// How much is written in a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// What our staging memory holds, and nothing in it before.
    Burst,
    /// Many times that.
    Steady,
}

/// Writes that a lane of ours holds, whatever their size.
const LANE_WRITES: u64 = 1024;
/// A slice that is steady writes so many times what a lane holds.
const TIMES_STAGING: u64 = 8;
/// A slice ends after so long, whatever is left of it.
const SLICE: Duration = Duration::from_secs(10);
/// The workloads, in order.
pub const WORKLOADS: [&str; 7] = ["4k", "10k", "100k", "1m", "4k-qd32", "read-4k", "mix"];

/// What is compared.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who.
    pub contestants: Vec<Contestant>,
    /// With a slice's count each.
    pub jobs: Vec<Job>,
    /// Rounds of each; or else as many slices as make this many requests, by job.
    pub rounds: Rounds,
    /// What `jobs` are.
    pub load: Load,
    /// Each contestant's device.
    pub device_bytes: u64,
    /// Each node's lane for payloads in ours.
    pub staging_bytes: u64,
    /// Where disk files go.
    pub folder: PathBuf,
    /// No progress.
    pub quiet: bool,
}

/// How often all take turns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rounds {
    /// So often.
    Of(usize),
    /// Until each has made so many requests, by job.
    Requests(Vec<u64>),
}

impl Load {
    /// Its word in results.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Burst => "burst",
            Self::Steady => "steady",
        }
    }

    /// A workload with the count of one slice.
    ///
    /// # Errors
    /// If there is no such workload; with the names that there are.
    pub fn job(self, name: &str, staging_bytes: u64) -> Result<Job> {
        let Some(mut job) = Job::preset(name) else {
            bail!("no workload \"{name}\": there are {}", WORKLOADS.join(", "));
        };
        // In requests, of which only some are writes.
        let held = LANE_WRITES.min(staging_bytes / job.bytes as u64).max(1);
        let writes = match self {
            // The flusher does not begin at once while less than a quarter is staged.
            Self::Burst => (LANE_WRITES - 24).min((staging_bytes / 4 / job.bytes as u64).max(1)),
            Self::Steady => held * TIMES_STAGING,
        };
        job.count = writes * 100 / u64::from(100 - job.read_percent.min(50));
        Ok(job)
    }
}

/// A signal ends it in order: nothing that was started stays.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// By SIGINT and SIGTERM.
    ///
    /// # Errors
    /// The system's.
    pub fn new() -> Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
        }
        Ok(Self(interrupted))
    }

    /// # Errors
    /// If there was one.
    pub fn check(&self) -> Result<()> {
        ensure!(!self.0.load(Ordering::Relaxed), "interrupted; everything that was started has been ended");
        Ok(())
    }
}

/// Runs a comparison.
///
/// # Errors
/// If a program is missing or fails, or if a write that was completed does not read back.
pub fn compare(settings: &Settings, interrupt: &Interrupt) -> Result<Compare> {
    let setup = Setup {
        device_bytes: settings.device_bytes,
        staging_bytes: settings.staging_bytes,
        folder: settings.folder.clone(),
    };
    for job in &settings.jobs {
        job.check(settings.device_bytes)?;
    }
    check_programs(&settings.contestants)?;
    let mut lanes = start(settings, &setup, interrupt)?;
    let staging_pages = lanes.iter().map(Lane::pages).collect::<Result<Vec<_>>>()?.concat();
    let slices: u64 = (0..settings.jobs.len()).map(|i| settings.slices(i) as u64).sum();
    let bar = progress(settings.quiet, slices * lanes.len() as u64);
    let mut workloads = Vec::with_capacity(settings.jobs.len());
    for (i, job) in settings.jobs.iter().enumerate() {
        bar.set_message(job.name.clone());
        workloads.push(workload(job, settings.slices(i), &mut lanes, &bar, interrupt)?);
    }
    bar.set_message("reading back");
    let mut checked_bytes = 0;
    for lane in &mut lanes {
        let who = lane.who.name;
        let back = read_back(&mut *lane.target, settings.device_bytes, &lane.model, &mut |_| interrupt.check());
        checked_bytes += back.context(who)?;
    }
    bar.finish_and_clear();
    Ok(Compare {
        load: settings.load.word(),
        machine: machine(),
        rounds: (0..settings.jobs.len()).map(|i| settings.slices(i)).max().unwrap_or(0),
        staging_bytes: settings.staging_bytes,
        staging_pages,
        device_bytes: settings.device_bytes,
        contestants: settings.contestants.clone(),
        workloads,
        checked_bytes,
    })
}

impl Settings {
    fn slices(&self, job: usize) -> usize {
        match &self.rounds {
            Rounds::Of(rounds) => *rounds,
            Rounds::Requests(counts) => {
                usize::try_from(counts[job].div_ceil(self.jobs[job].count)).expect("a count of slices")
            }
        }
    }
}

fn start(settings: &Settings, setup: &Setup, interrupt: &Interrupt) -> Result<Vec<Lane>> {
    let bar = progress(settings.quiet, settings.contestants.len() as u64);
    let mut lanes = Vec::with_capacity(settings.contestants.len());
    for who in &settings.contestants {
        bar.set_message(format!("starting {}", who.key));
        let mut lane = Lane::start(who, setup).context(who.name)?;
        prefill(&mut *lane.target, setup.device_bytes, &mut lane.model, &mut |_| interrupt.check())
            .context(who.name)?;
        lane.settle()?;
        lanes.push(lane);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(lanes)
}

/// What measures one lane in one workload.
struct Seat {
    engine: Engine,
    recorder: Recorder,
    account: Account,
    changes: u64,
}

fn workload(
    job: &Job,
    rounds: usize,
    lanes: &mut [Lane],
    bar: &ProgressBar,
    interrupt: &Interrupt,
) -> Result<WorkloadResult> {
    let seat = |lane: &Lane| {
        let engine = Engine::new(job, lane.target.bytes())?;
        Ok(Seat { engine, recorder: Recorder::new(job), account: Account::new(&lane.processes), changes: 0 })
    };
    let mut seats = lanes.iter().map(seat).collect::<Result<Vec<_>>>()?;
    let budget = Budget { count: job.count, time: Some(SLICE) };
    for round in 0..rounds {
        for turn in 0..lanes.len() {
            interrupt.check()?;
            let i = (round + turn) % lanes.len();
            let (lane, seat) = (&mut lanes[i], &mut seats[i]);
            let epoch = lane.epoch()?;
            seat.account.begin()?;
            let slice = seat.engine.slice(&mut *lane.target, &mut lane.model, &mut seat.recorder, budget, |_| Ok(()));
            slice.context(lane.who.name)?;
            seat.account.end()?;
            // Our flusher must not work into a neighbour's slice.
            lane.settle()?;
            let changes = lane.epoch()?.saturating_sub(epoch);
            if changes > 0 {
                seat.changes += changes;
                bar.suspend(|| {
                    // Once is enough of that.
                    let words = if seat.changes == changes { lane.words() } else { String::new() };
                    let (who, name) = (lane.who.name, &job.name);
                    eprintln!("{who}: members changed {changes} times in round {} of {name}\n{words}", round + 1);
                });
            }
            bar.inc(1);
        }
    }
    let rows: Vec<Row> = lanes.iter().zip(&seats).map(|(lane, seat)| seat.row(lane.who.key)).collect();
    let beside_ours = beside_ours(job, &rows);
    Ok(WorkloadResult { job: job.clone(), rows, beside_ours })
}

impl Seat {
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    fn row(&self, key: &'static str) -> Row {
        let mut all = self.recorder.finish();
        all.cpu = Some(self.account.cpu(all.bytes));
        let iops = |slice: &Slice| slice.requests as f64 / slice.seconds.max(1e-9);
        let slices = self.recorder.slices();
        Row {
            key,
            all,
            slice_p50_us: slices.iter().map(|slice| slice.p50_us).collect(),
            slice_iops: slices.iter().map(iops).collect(),
            changes: self.changes,
        }
    }
}

fn beside_ours(job: &Job, rows: &[Row]) -> Vec<Beside> {
    let Some(ours) = rows.iter().find(|row| row.key == OURS) else { return Vec::new() };
    let beside = |row: &Row| {
        let p50 = Ratio::new(&row.slice_p50_us, &ours.slice_p50_us);
        let iops = Ratio::new(&ours.slice_iops, &row.slice_iops);
        let is_result = if job.depth == 1 { p50 } else { iops }.is_result();
        Beside { key: row.key, p50, iops, is_result }
    };
    rows.iter().filter(|row| row.key != OURS).map(beside).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_fits_the_staging_memory_and_a_steady_slice_is_many_times_that() {
        let staging = 512 << 20;
        for name in WORKLOADS {
            let (burst, steady) = (Load::Burst.job(name, staging).unwrap(), Load::Steady.job(name, 16 << 20).unwrap());
            let writes = |job: &Job| job.count * u64::from(100 - job.read_percent) / 100;
            assert!(writes(&burst) < LANE_WRITES, "{name}: {}", burst.count);
            assert!(writes(&burst) * burst.bytes as u64 <= staging / 4, "{name}: {}", burst.count);
            let held = LANE_WRITES.min((16 << 20) / steady.bytes as u64);
            assert!(writes(&steady) >= 4 * held || name == "read-4k", "{name}: {}", steady.count);
            assert!(burst.count > 0);
        }
        let error = Load::Burst.job("5k", staging).unwrap_err().to_string();
        assert!(error.contains("\"5k\"") && error.contains("read-4k"), "{error}");
    }

    #[test]
    fn ratios_are_ours_to_win() {
        let row = |key, p50: [f64; 3], iops: [f64; 3]| {
            let all = Recorder::new(&Job::writes("x", 512, 512, 1)).finish();
            Row { key, all, slice_p50_us: p50.into(), slice_iops: iops.into(), changes: 0 }
        };
        let rows = [
            row("file", [200.0, 400.0, 180.0], [5.0, 2.5, 5.5]),
            row(OURS, [100.0, 200.0, 100.0], [10.0, 5.0, 10.0]),
            row("floor", [50.0, 300.0, 90.0], [20.0, 3.0, 11.0]),
        ];
        let beside = beside_ours(&Job::writes("x", 512, 512, 1), &rows);
        assert_eq!(beside.iter().map(|b| (b.key, b.is_result)).collect::<Vec<_>>(), [("file", true), ("floor", false)]);
        assert!((beside[0].p50.median - 2.0).abs() < 1e-9 && (beside[0].iops.median - 2.0).abs() < 1e-9);
        assert_eq!(beside_ours(&Job::writes("x", 512, 512, 1), &rows[..1]), []);
    }
}
