//! `twinsan-perf run` and `twinsan-perf compare`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde::Serialize;
use twinsan_control::Size;

use super::compare::{self, Interrupt, Load, Rounds, WORKLOADS, compare};
use super::contestants::{self, named};
use super::cpu::{Process, memory_available};
use super::idle::idle;
use super::job::{Job, PRESETS};
use super::mission::{self, MissionSettings, mission};
use super::place::Place;
use super::result::{Compare, Idle, Mission, Run};
use super::run::{self, run};

/// Without a count and a time, a job by hand takes so long.
const SECONDS: f64 = 10.0;
/// Every contestant's device.
const DEVICE_BYTES: u64 = 256 << 20;
/// A node takes twice its staging memory and a little more, the client once: all three, with room for others.
const TIMES_STAGING: u64 = 6;

/// One target.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// `nbd+unix:///NAME?socket=PATH`, `nbd://HOST:PORT/NAME`, a block device, or a file. Written over from its first byte
    pub target: Place,
    /// A job by name, or `all`; several one after the other: 10k, 100k, 1m (the mission's, at full count), 4k, 4k-qd32,
    /// read-4k, mix
    #[arg(long, value_name = "NAME")]
    pub job: Vec<String>,
    /// A job by hand: bytes of a request
    #[arg(long, value_name = "SIZE", conflicts_with = "job")]
    pub bytes: Option<Size>,
    /// Requests in flight at most
    #[arg(long)]
    pub depth: Option<usize>,
    /// Reads, in percent
    #[arg(long, value_name = "PERCENT")]
    pub read: Option<u8>,
    /// Requests
    #[arg(long)]
    pub count: Option<u64>,
    /// End after so many seconds
    #[arg(long)]
    pub seconds: Option<f64>,
    /// No FUA: a FLUSH after so many writes, when all of them have ended
    #[arg(long, value_name = "WRITES")]
    pub flush_every: Option<u64>,
    /// So many requests are due a second, and latency counts from when one is due
    #[arg(long, value_name = "PER SECOND")]
    pub rate: Option<f64>,
    /// Offsets are multiples of this
    #[arg(long, value_name = "SIZE")]
    pub align: Option<Size>,
    /// What of the target is used, from its first byte on
    #[arg(long, value_name = "SIZE", default_value = "1GiB")]
    pub span: Size,
    /// Say that you know: what is there is lost
    #[arg(long)]
    pub overwrite: bool,
    /// Make a file of this size, and remove it afterwards
    #[arg(long, value_name = "SIZE", conflicts_with = "overwrite")]
    pub create: Option<Size>,
    /// A process whose CPU time counts too, once for each: `--pid server=4711`
    #[arg(long, value_name = "NAME=PID", value_parser = process)]
    pub pid: Vec<Process>,
    /// Write a page with plots into this file too
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Print one JSON object instead of the table
    #[arg(long)]
    pub json: bool,
}

/// Contestants in turns.
#[derive(Clone, Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub struct CompareArgs {
    /// Only these: twinsan, nbdkit, nbdkit-twice, quorum, file, qemu-nbd
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Only these: 4k, 10k, 100k, 1m, 4k-qd32, read-4k, mix
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub workload: Vec<String>,
    /// Rounds of each workload; everybody has a slice in each
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..), conflicts_with = "mission")]
    pub rounds: u16,
    /// Slices that fit our staging memory, which is empty before each; what is done unless one says otherwise
    #[arg(long, conflicts_with_all = ["steady", "mission"])]
    pub burst: bool,
    /// Slices of many times what our staging memory (16 MiB then) holds, so that the disk has to keep up
    #[arg(long, conflicts_with = "mission")]
    pub steady: bool,
    /// The three workloads of the mission at full count, as bursts and in the steady state: ours, the file, the file by
    /// qemu-nbd
    #[arg(long)]
    pub mission: bool,
    /// No comparison: what a pair with its client costs in so many seconds without a request
    #[arg(long, value_name = "SECONDS", conflicts_with_all = ["only", "workload", "burst", "steady", "mission", "staging"])]
    pub idle: Option<u64>,
    /// Each node's lane for payloads in ours; all three processes together take about five times that [default: 512MiB]
    #[arg(long, value_name = "SIZE")]
    pub staging: Option<Size>,
    /// Write a page with plots into this file too
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Print one JSON object instead of the table
    #[arg(long)]
    pub json: bool,
    /// Where disk files go: 256 MiB for each contestant that has one, 1 GiB with `--mission`
    #[arg(long, value_name = "FOLDER", default_value_os_t = std::env::temp_dir())]
    pub dir: PathBuf,
}

/// Of `compare`.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Compared {
    /// One kind of load.
    One(Compare),
    /// `--mission`.
    Mission(Box<Mission>),
    /// `--idle`.
    Idle(Idle),
}

impl Compared {
    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        match self {
            Self::One(compare) => compare.table(),
            Self::Mission(mission) => mission.table(),
            Self::Idle(idle) => idle.table(),
        }
    }
}

/// One target.
///
/// # Errors
/// See [`run()`].
pub fn run_with(args: &RunArgs) -> Result<Run> {
    let settings = run::Settings {
        place: args.target.clone(),
        jobs: args.jobs()?,
        span_bytes: args.span.bytes(),
        overwrite: args.overwrite,
        create_bytes: args.create.map(Size::bytes),
        processes: args.pid.clone(),
        quiet: args.json,
    };
    run(&settings, &Interrupt::new()?)
}

impl RunArgs {
    fn jobs(&self) -> Result<Vec<Job>> {
        let names: Vec<&str> = match self.job.iter().map(String::as_str).collect::<Vec<_>>() {
            names if names.contains(&"all") => PRESETS.to_vec(),
            names => names,
        };
        let by_name = |name: &&str| {
            let names = PRESETS.join(", ");
            Job::preset(name).with_context(|| format!("no job \"{name}\": there are {names}, and all"))
        };
        let mut jobs = names.iter().map(by_name).collect::<Result<Vec<_>>>()?;
        if jobs.is_empty() {
            let bytes = usize::try_from(self.bytes.map_or(4096, Size::bytes))?;
            let align = if bytes.is_multiple_of(4096) { 4096 } else { 512 };
            let timed = self.count.is_none() && self.seconds.is_none();
            jobs.push(Job { seconds: timed.then_some(SECONDS), ..Job::writes("by hand", bytes, align, u64::MAX) });
        }
        for job in &mut jobs {
            self.change(job)?;
        }
        Ok(jobs)
    }

    /// What is said by hand holds for jobs by name too.
    fn change(&self, job: &mut Job) -> Result<()> {
        job.depth = self.depth.unwrap_or(job.depth);
        job.read_percent = self.read.unwrap_or(job.read_percent);
        job.count = match (self.count, self.seconds) {
            (Some(count), _) => count,
            (None, Some(_)) => u64::MAX,
            (None, None) => job.count,
        };
        job.seconds = self.seconds.or(job.seconds);
        job.flush_every = self.flush_every.or(job.flush_every);
        job.rate = self.rate.or(job.rate);
        if let Some(align) = self.align {
            job.align = usize::try_from(align.bytes())?;
        }
        Ok(())
    }
}

/// `NAME=PID`.
fn process(text: &str) -> Result<Process> {
    let pair = text.rsplit_once('=').and_then(|(name, pid)| Some((name.to_owned(), pid.parse().ok()?)));
    pair.with_context(|| format!("\"{text}\": write NAME=PID, like server=4711"))
}

/// Contestants in turns.
///
/// # Errors
/// See [`compare()`], [`mission()`] and [`idle()`].
pub fn compare_with(args: &CompareArgs) -> Result<Compared> {
    let interrupt = Interrupt::new()?;
    if let Some(seconds) = args.idle {
        ensure!(seconds > 0, "--idle 0: at least 1 second, please");
        return Ok(Compared::Idle(idle(Duration::from_secs(seconds), &args.dir, &interrupt)?));
    }
    if args.mission {
        let settings = MissionSettings {
            contestants: chosen(&args.only, &mission::CONTESTANTS),
            workloads: chosen(&args.workload, &mission::WORKLOADS),
            staging_bytes: args.staging_bytes(512 << 20)?,
            folder: args.dir.clone(),
            quiet: args.json,
        };
        for name in &settings.workloads {
            let known = mission::WORKLOADS;
            ensure!(
                known.contains(&name.as_str()),
                "--mission has no workload \"{name}\": it has {}",
                known.join(", ")
            );
        }
        return Ok(Compared::Mission(Box::new(mission(&settings, &interrupt)?)));
    }
    Ok(Compared::One(compare(&args.settings()?, &interrupt)?))
}

fn chosen(given: &[String], all: &[&str]) -> Vec<String> {
    if given.is_empty() { all.iter().map(|&name| name.to_owned()).collect() } else { given.to_vec() }
}

impl CompareArgs {
    fn settings(&self) -> Result<compare::Settings> {
        let load = if self.steady { Load::Steady } else { Load::Burst };
        let staging_bytes = self.staging_bytes(if self.steady { 16 << 20 } else { 512 << 20 })?;
        let keys = chosen(&self.only, &contestants::ALL.map(|c| c.key));
        let names = chosen(&self.workload, &WORKLOADS);
        Ok(compare::Settings {
            contestants: keys.iter().map(|key| named(key)).collect::<Result<_>>()?,
            jobs: names.iter().map(|name| load.job(name, staging_bytes)).collect::<Result<_>>()?,
            rounds: Rounds::Of(self.rounds.into()),
            load,
            device_bytes: DEVICE_BYTES,
            staging_bytes,
            folder: self.dir.clone(),
            quiet: self.json,
        })
    }

    fn staging_bytes(&self, default: u64) -> Result<u64> {
        let bytes = self.staging.map_or(default, Size::bytes);
        let available = memory_available();
        if bytes.saturating_mul(TIMES_STAGING) > available {
            bail!(
                "staging memory of {} MiB: a pair and its client take about five times that, and this machine has {} MiB \
                 to give; --staging {}MiB would do",
                bytes >> 20,
                available >> 20,
                ((available / TIMES_STAGING) >> 20) / 4 * 4
            );
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct RunLine {
        #[command(flatten)]
        args: RunArgs,
    }

    #[derive(Debug, Parser)]
    struct CompareLine {
        #[command(flatten)]
        args: CompareArgs,
    }

    fn run(arguments: &[&str]) -> Result<Vec<Job>, String> {
        let line = RunLine::try_parse_from([&["run", "/x"], arguments].concat()).map_err(|e| e.to_string())?;
        line.args.jobs().map_err(|e| format!("{e:#}"))
    }

    fn compared(arguments: &[&str]) -> Result<compare::Settings, String> {
        let line = CompareLine::try_parse_from([&["compare"], arguments].concat()).map_err(|e| e.to_string())?;
        line.args.settings().map_err(|e| format!("{e:#}"))
    }

    #[test]
    fn jobs_are_named_or_made_by_hand() {
        let names = |jobs: Vec<Job>| jobs.into_iter().map(|job| job.name).collect::<Vec<_>>();
        assert_eq!(names(run(&["--job", "10k", "--job", "mix"]).unwrap()), ["10k", "mix"]);
        assert_eq!(names(run(&["--job", "all"]).unwrap()), PRESETS);
        let by_hand =
            run(&["--bytes", "8KiB", "--depth", "4", "--read", "30", "--flush-every", "9"]).unwrap().remove(0);
        assert_eq!((by_hand.bytes, by_hand.align, by_hand.depth), (8192, 4096, 4));
        assert_eq!((by_hand.read_percent, by_hand.flush_every, by_hand.seconds), (30, Some(9), Some(SECONDS)));
        let counted = run(&["--count", "5", "--rate", "100"]).unwrap().remove(0);
        assert_eq!((counted.count, counted.seconds, counted.rate), (5, None, Some(100.0)));
        let timed = run(&["--job", "10k", "--seconds", "2"]).unwrap().remove(0);
        assert_eq!((timed.count, timed.seconds), (u64::MAX, Some(2.0)));
        assert!(run(&["--job", "5k"]).unwrap_err().contains("there are 10k"));
        assert!(run(&["--pid", "x"]).unwrap_err().contains("NAME=PID"));
        assert_eq!(process("a=b=7").unwrap(), ("a=b".to_owned(), 7));
    }

    #[test]
    fn contestants_and_workloads_are_chosen() {
        let all = compared(&["--staging", "4MiB"]).unwrap();
        assert_eq!((all.contestants.len(), all.jobs.len(), all.load), (6, 7, Load::Burst));
        let some = compared(&["--only", "file,twinsan", "--workload", "1m", "--steady", "--rounds", "3"]).unwrap();
        assert_eq!(some.contestants.iter().map(|c| c.key).collect::<Vec<_>>(), ["file", "twinsan"]);
        assert_eq!((some.jobs.len(), some.load, some.rounds.clone()), (1, Load::Steady, Rounds::Of(3)));
        assert!(compared(&["--only", "x"]).unwrap_err().contains("there are twinsan, nbdkit"));
        assert!(compared(&["--workload", "x"]).unwrap_err().contains("there are 4k"));
        let error = compared(&["--staging", "1000TiB"]).unwrap_err();
        assert!(error.contains("about five times") && error.contains("MiB would do"), "{error}");
        assert!(compared(&["--burst", "--steady"]).is_err());
    }
}
