//! The main job: two nodes, a client, two failovers under load, every block read back, and the race.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cluster::{Cluster, NODES, Options, Programs, VOLUME};
use crate::race::{DirectFile, corrupt};
use crate::report::Report;
use crate::workload::{Budget, Meter, Target, WORKLOADS, Workload, run};
use twinsan_witness::nbd::Client;
use twinsan_witness::pattern::{BLOCK, Model, Random, fill};

/// The volume.
const VOLUME_BYTES: u64 = 1 << 30;
/// One transfer of prefill and read-back.
const CHUNK: usize = 1 << 20;
/// Without `--full`: the most time spent writing in one workload.
const SHARE: Duration = Duration::from_secs(13);
/// The volume's data begins here on the disk (docs/disk-format.md).
const DATA_OFFSET: u64 = 1 << 20;
/// One step of the timeline.
const STEP_S: f64 = 0.1;
/// For whatever ends by itself in a moment.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the demo is asked for.
#[derive(Clone, Debug)]
pub struct Settings {
    /// All writes of the mission, however long they take.
    pub full: bool,
    /// Corrupt one completed write behind the program's back.
    pub sabotage: bool,
    /// Leave the folders.
    pub keep: bool,
    /// No progress bars.
    pub quiet: bool,
    /// Where the disk file goes.
    pub folder: PathBuf,
}

/// One demo.
#[derive(Debug)]
struct Demo {
    settings: Settings,
    cluster: Cluster,
    model: Model,
    report: Report,
    /// Counters of nodes that have been killed since.
    flushed_by_the_dead: u64,
    interrupted: Arc<AtomicBool>,
    /// Since the first workload began.
    clock: Option<Instant>,
}

/// Runs the demo.
///
/// # Errors
/// If anything but the data goes wrong; lost writes stand in the report.
pub fn demo(settings: Settings) -> Result<Report> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    let bar = spinner(settings.quiet, "building twinsand and twinsan");
    let programs = Programs::build()?;
    let begin = Instant::now();
    bar.set_message("starting two nodes and a client");
    let options = Options {
        volume_bytes: VOLUME_BYTES,
        block_bytes: 512,
        staging: "64MiB".into(),
        takeover_budget_ms: 0,
        disk_folder: settings.folder.clone(),
        keep: settings.keep,
    };
    let mut cluster = Cluster::create(programs, &options)?;
    cluster.start(PATIENCE)?;
    bar.finish_and_clear();
    let model = Model::new(VOLUME_BYTES);
    let report = Report { sabotaged: settings.sabotage, ..Report::default() };
    let mut demo = Demo { settings, cluster, model, report, flushed_by_the_dead: 0, interrupted, clock: None };
    demo.measure()?;
    demo.report.seconds = begin.elapsed().as_secs_f64();
    Ok(demo.report)
}

impl Demo {
    fn measure(&mut self) -> Result<()> {
        let mut client = Client::connect(&self.cluster.nbd_socket(), VOLUME)?;
        ensure!(client.size() == VOLUME_BYTES, "the export has {} bytes", client.size());
        self.prefill(&mut client)?;
        for (i, workload) in WORKLOADS.into_iter().enumerate() {
            self.workload(workload, &mut client, i > 0)?;
        }
        self.settle()?;
        if self.settings.sabotage {
            self.sabotage()?;
        }
        self.read_back(&mut client)?;
        self.report.bytes_flushed = self.flushed_by_the_dead;
        for node in 0..NODES.len() {
            self.report.bytes_flushed += self.flushed_by(node)?;
        }
        drop(client);
        self.race()?;
        self.report.compare();
        let folders = [self.cluster.config(), self.cluster.disk_file()];
        if self.settings.keep {
            eprintln!("kept: {} and {}", folders[0].display(), folders[1].display());
        }
        Ok(())
    }

    fn prefill(&mut self, client: &mut Client) -> Result<()> {
        let bar = bar(self.settings.quiet, "prefill", VOLUME_BYTES / CHUNK as u64);
        let mut buffer = vec![0; CHUNK];
        for offset in (0..VOLUME_BYTES).step_by(CHUNK) {
            self.check_interrupt()?;
            let stamp = self.model.next_stamp();
            fill(&mut buffer, offset / BLOCK as u64, stamp);
            client.write(offset, &buffer)?;
            self.model.completed(offset / BLOCK as u64, CHUNK / BLOCK, stamp);
            self.account(CHUNK);
            bar.inc(1);
        }
        self.settle()?;
        bar.finish_and_clear();
        Ok(())
    }

    /// Where the workloads are on their common time axis.
    fn seconds(&mut self) -> f64 {
        self.clock.get_or_insert_with(Instant::now).elapsed().as_secs_f64()
    }

    /// So many bytes have completed just now.
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    fn timeline(&mut self, bytes: usize) {
        let step = (self.seconds() / STEP_S).floor() * STEP_S;
        let rate = bytes as f64 / 1e6 / STEP_S;
        match self.report.timeline.last_mut() {
            Some((at, sum)) if *at >= step => *sum += rate,
            _ => self.report.timeline.push((step, rate)),
        }
    }

    fn event(&mut self, what: String) {
        let at = self.seconds();
        self.report.events.push((at, what));
    }

    fn account(&mut self, bytes: usize) {
        self.report.writes_completed += 1;
        self.report.bytes_written += bytes as u64;
    }

    /// Everything is on the disk and both nodes are there, so that the next measurement begins from rest.
    fn settle(&self) -> Result<()> {
        self.cluster.settle(2 * PATIENCE)
    }

    /// One workload; with a failover, the primary is killed when a third is done, and started again.
    fn workload(&mut self, workload: Workload, client: &mut Client, failover: bool) -> Result<()> {
        let bar = bar(self.settings.quiet, workload.name, workload.count);
        let mut dual = Meter::new(workload);
        let mut alone = Meter::new(workload);
        let mut stage = if failover { Stage::Before } else { Stage::Undisturbed };
        let mut random = Random::new(workload.bytes as u64);
        let mut buffer = vec![0; workload.bytes];
        let places = (VOLUME_BYTES - workload.bytes as u64) / BLOCK as u64 + 1;
        let mut spent = Duration::ZERO;
        let mut done = 0;
        while done < workload.count && (self.settings.full || spent < SHARE || !stage.is_over()) {
            self.check_interrupt()?;
            let first = random.below(places);
            let stamp = self.model.next_stamp();
            fill(&mut buffer, first, stamp);
            let part = share_done(done, workload.count, spent, self.settings.full);
            stage = self.next_stage(stage, part)?;
            let begin = Instant::now();
            client.write(first * BLOCK as u64, &buffer)?;
            let took = begin.elapsed();
            self.model.completed(first, buffer.len() / BLOCK, stamp);
            self.account(buffer.len());
            self.timeline(buffer.len());
            done += 1;
            spent += took;
            bar.inc(1);
            stage = stage.after_write(took);
            match stage {
                Stage::Pausing { .. } => {}
                Stage::Alone { .. } => alone.record(took),
                Stage::Undisturbed | Stage::Before | Stage::Again => dual.record(took),
            }
        }
        self.finish_failover(stage)?;
        bar.finish_and_clear();
        self.report.workloads.push(dual.figures());
        self.report.alone.push(alone.figures());
        Ok(())
    }

    /// Kills, restarts, looks: what is due between two writes.
    fn next_stage(&mut self, stage: Stage, part: f64) -> Result<Stage> {
        Ok(match stage {
            Stage::Before if part >= 1.0 / 3.0 => {
                let primary = self.cluster.primary().context("nobody serves")?;
                self.flushed_by_the_dead += self.flushed_by(primary)?;
                self.cluster.kill_node(primary)?;
                self.event(format!("{} killed", NODES[primary]));
                self.report.failovers += 1;
                Stage::Pausing { killed: primary, longest: Duration::ZERO, writes: 0 }
            }
            Stage::Pausing { killed, longest, writes } if writes >= PAUSE_WRITES => {
                self.report.pause_ms.push(longest.as_secs_f64() * 1000.0);
                self.cluster.start_node(killed)?;
                Stage::Alone { look_at: Instant::now() }
            }
            Stage::Alone { look_at } if Instant::now() >= look_at => {
                if self.cluster.is_dual() {
                    self.event("both again".to_owned());
                    Stage::Again
                } else {
                    Stage::Alone { look_at: Instant::now() + Duration::from_millis(100) }
                }
            }
            same => same,
        })
    }

    /// A workload that ended early must not leave a node dead.
    fn finish_failover(&mut self, stage: Stage) -> Result<()> {
        if let Stage::Pausing { killed, longest, .. } = stage {
            self.report.pause_ms.push(longest.as_secs_f64() * 1000.0);
            self.cluster.start_node(killed)?;
        }
        self.settle()
    }

    fn flushed_by(&self, node: usize) -> Result<u64> {
        let status = self.cluster.status(node)?;
        status.counters.get("flush_bytes").copied().context("the node does not count flush_bytes")
    }

    /// One bit of one completed write, on the shared disk.
    fn sabotage(&mut self) -> Result<()> {
        let block = VOLUME_BYTES / BLOCK as u64 / 3;
        corrupt(&self.cluster.disk_file(), DATA_OFFSET + block * BLOCK as u64 + 77)
    }

    fn read_back(&mut self, client: &mut Client) -> Result<()> {
        let bar = bar(self.settings.quiet, "read back", VOLUME_BYTES / CHUNK as u64);
        let mut buffer = vec![0; CHUNK];
        let mut lost = Vec::new();
        for offset in (0..VOLUME_BYTES).step_by(CHUNK) {
            self.check_interrupt()?;
            client.read(offset, &mut buffer)?;
            self.model.check(offset / BLOCK as u64, &buffer, &mut lost);
            self.report.blocks_checked += (CHUNK / BLOCK) as u64;
            bar.inc(1);
        }
        bar.finish_and_clear();
        for one in lost.iter().take(10) {
            eprintln!("block {}: write {} completed there, found {}", one.block, one.expected, one.found);
        }
        self.report.writes_lost = Model::writes_lost(&lost);
        Ok(())
    }

    /// The same writes to a plain file, after the pair has come to rest.
    fn race(&mut self) -> Result<()> {
        let path = self.cluster.disk_file().with_file_name("race.img");
        let fill_bar = bar(self.settings.quiet, "the disk: prefill", VOLUME_BYTES);
        let mut model = Model::new(VOLUME_BYTES);
        let mut file = DirectFile::create(&path, VOLUME_BYTES, &mut model, |bytes| fill_bar.set_position(bytes))?;
        fill_bar.finish_and_clear();
        for workload in WORKLOADS {
            let bar = bar(self.settings.quiet, &format!("the disk: {}", workload.name), workload.count);
            let time = (!self.settings.full).then_some(SHARE);
            let budget = Budget { count: workload.count, time };
            let interrupted = Arc::clone(&self.interrupted);
            let target: &mut dyn Target = &mut file;
            let figures = run(workload, target, VOLUME_BYTES, &mut model, budget, |done, _| {
                bar.set_position(done);
                check(&interrupted)
            })?;
            bar.finish_and_clear();
            self.report.disk.push(figures);
        }
        drop(file);
        Ok(std::fs::remove_file(path)?)
    }

    fn check_interrupt(&self) -> Result<()> {
        check(&self.interrupted)
    }
}

fn check(interrupted: &AtomicBool) -> Result<()> {
    ensure!(!interrupted.load(Ordering::Relaxed), "interrupted; everything that was started has been ended");
    Ok(())
}

/// So many writes after a kill belong to its pause: the one that was in flight, and those that waited with it.
const PAUSE_WRITES: u32 = 20;

/// Where a workload with a failover stands.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// No failover in this one.
    Undisturbed,
    /// Both nodes serve; the primary will be killed.
    Before,
    /// It has been killed.
    Pausing { killed: usize, longest: Duration, writes: u32 },
    /// One node serves; the other has been started again.
    Alone { look_at: Instant },
    /// Both again.
    Again,
}

impl Stage {
    fn is_over(self) -> bool {
        matches!(self, Self::Undisturbed | Self::Again)
    }

    fn after_write(self, took: Duration) -> Self {
        match self {
            Self::Pausing { killed, longest, writes } => {
                Self::Pausing { killed, longest: longest.max(took), writes: writes + 1 }
            }
            same => same,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share, for scheduling")]
fn share_done(done: u64, count: u64, spent: Duration, full: bool) -> f64 {
    let by_count = done as f64 / count as f64;
    if full { by_count } else { by_count.max(spent.as_secs_f64() / SHARE.as_secs_f64()) }
}

fn spinner(quiet: bool, message: &str) -> ProgressBar {
    let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
    bar.set_message(message.to_owned());
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn bar(quiet: bool, name: &str, len: u64) -> ProgressBar {
    let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(len) };
    let style = ProgressStyle::with_template("{prefix:>20} {wide_bar} {percent:>3} %  {elapsed}");
    bar.set_style(style.expect("a constant template"));
    bar.set_prefix(name.to_owned());
    bar
}
