//! What a failover costs: the caller's pause when the primary is killed, how soon the pair is whole again, and how fast full
//! lanes are drained beside what fio gets from the same disk.

pub mod drain;
pub mod report;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use twinsan_witness::device::Device;
use twinsan_witness::ledger::{Ledger, UNIT};
use twinsan_witness::load::{Load, Open, Settings as LoadSettings, fill_all, read_all};
use twinsan_witness::nbd::Client;

use self::report::{Failover, Spread};
use crate::cluster::{Cluster, NODES, Options, Programs, VOLUME};

/// What is measured.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How often the primary is killed with nearly nothing staged.
    pub kills: usize,
    /// How often it is killed with full lanes.
    pub drains: usize,
    /// One write, where lanes are filled.
    pub drain_write_bytes: usize,
    /// `takeover_budget_ms`; 0: lanes are filled.
    pub budget_ms: u64,
    /// The volume's size; the disk file is sparse.
    pub volume_bytes: u64,
    /// Where the disk file goes.
    pub folder: PathBuf,
    /// No progress.
    pub quiet: bool,
}

/// The part of the volume that is used.
const SPAN_BYTES: u64 = 256 << 20;
/// The lanes' data ring.
const STAGING: &str = "64MiB";
/// The same in bytes.
const STAGING_BYTES: u64 = 64 << 20;
/// The volume's block.
const BLOCK_BYTES: u32 = 4096;
/// For whatever ends by itself.
const PATIENCE: Duration = Duration::from_secs(60);
/// So many requests after a kill belong to its pause.
const SOME: u64 = 20;
/// Between two looks at the nodes.
const LOOK: Duration = Duration::from_millis(2);
/// The writer rests so long after each write, so that next to nothing is staged when the primary dies.
const REST: Duration = Duration::from_millis(1);

/// Runs it.
///
/// # Errors
/// If a program fails, or a completed write is missing.
pub fn failover(settings: &Settings) -> Result<Failover> {
    ensure!(settings.volume_bytes >= SPAN_BYTES, "a volume of {} bytes: at least {SPAN_BYTES}", settings.volume_bytes);
    let mut bench = Bench::start(settings)?;
    let mut result =
        Failover { volume_bytes: settings.volume_bytes, budget_ms: settings.budget_ms, ..Failover::default() };
    result.pages = bench.pages()?;
    if settings.kills > 0 {
        let (pauses, whole) = bench.kills(settings.kills)?;
        result.kills = settings.kills;
        result.pause_ms = Some(Spread::of(pauses));
        result.whole_again_ms = Some(Spread::of(whole));
    }
    if settings.drains > 0 {
        result.drains = bench.drains(settings)?;
    }
    bench.check()?;
    Ok(result)
}

/// A pair, and all that was written to it.
struct Bench {
    cluster: Cluster,
    ledger: Arc<Ledger>,
    quiet: bool,
}

impl Bench {
    fn start(settings: &Settings) -> Result<Self> {
        let options = Options {
            volume_bytes: settings.volume_bytes,
            block_bytes: BLOCK_BYTES,
            staging: STAGING.into(),
            takeover_budget_ms: settings.budget_ms,
            disk_folder: settings.folder.clone(),
            keep: false,
        };
        let mut cluster = Cluster::create(Programs::build()?, &options)?;
        cluster.start(PATIENCE)?;
        let ledger = Arc::new(Ledger::new(SPAN_BYTES / UNIT as u64, std::process::id()));
        let mut device = Client::connect(&cluster.nbd_socket(), VOLUME)?;
        // The disk file has all its blocks then, and the filesystem allocates none in the middle of a drain.
        fill_all(&ledger, &mut device, |_| Ok(()))?;
        Ok(Self { cluster, ledger, quiet: settings.quiet })
    }

    fn pages(&self) -> Result<[String; 2]> {
        let pages = |node| self.cluster.status(node).map(|v| v.memory.pages);
        Ok([pages(0)?, pages(1)?])
    }

    /// The pauses, and the times from a restart until both are members, in ms.
    fn kills(&mut self, count: usize) -> Result<(Vec<f64>, Vec<f64>)> {
        let load = self.load(LoadSettings { threads: 1, most_units: 1, reads_percent: 0, rest: REST, seed: 1 })?;
        let bar = self.bar("kills", count);
        let (mut pauses, mut whole) = (Vec::new(), Vec::new());
        for _ in 0..count {
            self.settle()?;
            ensure!(load.goes_on(SOME, PATIENCE), "writes do not complete");
            let _ = load.longest();
            let killed = self.kill_primary()?;
            ensure!(load.goes_on(SOME, PATIENCE), "writes do not complete after the kill of {}", NODES[killed]);
            pauses.push(ms(load.longest()));
            whole.push(ms(self.restart(killed)?));
            bar.inc(1);
        }
        bar.finish_and_clear();
        ended_well(load)?;
        Ok((pauses, whole))
    }

    /// Kills who serves.
    fn kill_primary(&mut self) -> Result<usize> {
        let primary = self.cluster.primary().context("nobody serves")?;
        self.cluster.kill_node(primary)?;
        Ok(primary)
    }

    /// From the start of its process until both nodes say that both are members.
    fn restart(&mut self, node: usize) -> Result<Duration> {
        let begin = Instant::now();
        self.cluster.start_node(node)?;
        while !self.cluster.is_dual() {
            ensure!(begin.elapsed() < PATIENCE, "{} does not come back: {}", NODES[node], self.log(node));
            std::thread::sleep(LOOK);
        }
        Ok(begin.elapsed())
    }

    fn log(&self, node: usize) -> String {
        self.cluster.log_tail(&format!("{}.log", NODES[node]))
    }

    /// Both are members, and next to nothing is staged.
    fn settle(&self) -> Result<()> {
        let rests = |c: &Cluster| {
            let staged = c.primary().and_then(|node| c.status(node).ok()).map(|v| v.lane.staged_bytes);
            c.is_dual() && staged.is_some_and(|bytes| bytes < STAGING_BYTES / 16)
        };
        self.cluster.wait_until("both nodes are members and nearly all is flushed", PATIENCE, rests)
    }

    fn load(&self, settings: LoadSettings) -> Result<Load> {
        let socket = self.cluster.nbd_socket();
        let open: Box<Open> = Box::new(move || {
            let device: Box<dyn Device> = Box::new(Client::connect(&socket, VOLUME)?);
            Ok(device)
        });
        Load::start(Arc::clone(&self.ledger), open, settings)
    }

    fn bar(&self, name: &'static str, len: usize) -> ProgressBar {
        let bar = if self.quiet { ProgressBar::hidden() } else { ProgressBar::new(len as u64) };
        let style = ProgressStyle::with_template("{prefix:>10} {wide_bar} {pos}/{len}  {elapsed}");
        bar.set_style(style.expect("a constant template"));
        bar.set_prefix(name);
        bar
    }

    /// Every completed write is there.
    fn check(&self) -> Result<()> {
        let mut device = Client::connect(&self.cluster.nbd_socket(), VOLUME)?;
        read_all(&self.ledger, &mut device, |_| Ok(()))?;
        let first = self.ledger.evidence().first().map(ToString::to_string).unwrap_or_default();
        ensure!(self.ledger.counts().all_kept(), "completed writes are lost: {first}");
        Ok(())
    }
}

fn ended_well(load: Load) -> Result<()> {
    let summary = load.stop();
    ensure!(summary.failed == 0, "{} requests failed: {:?}", summary.failed, summary.failures);
    Ok(())
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
