//! User instructions of client, primary and secondary for a 4 KiB write by NBD, and a gate for them.
//!
//! All three processes run under `valgrind --tool=callgrind`, with payload CRCs, as they are by default, and without
//! spinning: what spinning executes depends on the time, and nothing else here does. What they execute while so many
//! writes are made, less what they execute in as much time without any, is the writes'.
//!
//! | case | one volume's writes |
//! | --- | --- |
//! | `one` | one at a time |
//! | `batch` | 32 at a time: what comes together shares wake-ups and looks |
//! | `empty`, `full` | one at a time, while nothing is flushed, into a lane that has nothing and into one that has next to no room |
//! | `volumes` | one at a time, on a pair with several volumes of which one is written |
//!
//! `full` against `empty`, and `volumes` against `one`, say whether the cost of a write grows with what is staged or configured.

pub mod args;
pub mod baseline;
pub mod kinds;
mod load;
pub mod report;

use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use twinsan_control::admin::{Request, Response, ask};
use twinsan_wire::limits::lane_slots;

use self::kinds::Kinds;
use self::load::Load;
use self::report::{Case, Counts, Process};
use crate::cluster::{Cluster, NODES, Options, Programs, VOLUME};
use crate::instructions::counted::{Counted, Dump, Hung};
use crate::instructions::report::Spread;
use crate::local::Kind;
use crate::wire::progress;

/// One write.
const WRITE_BYTES: u32 = 4096;
/// The written volume, and its lane's data ring.
const VOLUME_BYTES: u64 = 64 << 20;
const STAGING: &str = "64MiB";
const STAGING_BYTES: u64 = 64 << 20;
/// The other volumes of the case `volumes`.
const OTHER_SIZE: &str = "16MiB";
const OTHER_STAGING: &str = "4MiB";
/// Few heartbeats, and nobody is taken for dead because valgrind is slow, or the disk is held.
const TIMING: &str = "spin_us = 0\nheartbeat_ms = 1000\ntakeover_ms = 30000\ndrop_ms = 30000\njoin_ms = 60000\n";
/// Writes at a time in the case `batch`.
const BATCH: u64 = 32;
/// Writes of a slice: one at a time, in batches, into an empty or full lane.
const ONE_WRITES: u64 = 400;
const BATCH_WRITES: u64 = 800;
const FILL_WRITES: u64 = 100;
/// Slots that stay free: the lane is not full, or the last write would wait for the disk.
const MARGIN: u64 = 16;
/// A slice without writes.
const IDLE: Duration = Duration::from_millis(500);
/// What the last writes leave behind is done by then: the flusher rests for 100 ms.
const REST: Duration = Duration::from_millis(300);
/// Under valgrind everything takes its time.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is counted.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What the pair and the client talk by.
    pub kind: Kind,
    /// Slices of each case.
    pub rounds: usize,
    /// Volumes in the case `volumes`; 1: the case is left out.
    pub volumes: usize,
    /// Where the disk files go.
    pub folder: PathBuf,
    /// Keep callgrind's dumps in this folder.
    pub keep: Option<PathBuf>,
    /// No progress bar.
    pub quiet: bool,
}

/// A pair with its client.
struct Bench {
    cluster: Cluster,
    counted: Counted,
    load: Load,
    /// Indices of the processes in a dump: client, primary, secondary.
    order: [usize; 3],
}

/// A slice of each process: client, primary, secondary.
type Slice = [Dump; 3];

/// Runs everything; once more from the beginning, if a vgdb hangs.
///
/// # Errors
/// If valgrind or a compiler is missing, or a pair does not come up under it or changes meanwhile.
pub fn count(settings: &Settings) -> Result<Counts> {
    match attempt(settings) {
        Err(error) if error.is::<Hung>() => {
            eprintln!("{error:#}; beginning again");
            attempt(settings)
        }
        result => result,
    }
}

fn attempt(settings: &Settings) -> Result<Counts> {
    let steps = if settings.volumes > 1 { 5 } else { 3 };
    let bar = progress(settings.quiet, (settings.rounds * steps) as u64);
    bar.set_message("starting under valgrind");
    let mut bench = Bench::start(settings, 0)?;
    let mut slices: [Vec<Slice>; 5] = Default::default();
    for _ in 0..settings.rounds {
        bar.set_message("no writes");
        slices[0].push(bench.idle(IDLE)?);
        bar.inc(1);
        bar.set_message("one write at a time");
        slices[1].push(bench.slice("one", ONE_WRITES, 1)?);
        slices[2].push(bench.slice("batch", BATCH_WRITES, BATCH)?);
        bar.inc(1);
        bar.set_message("an empty and a full lane");
        let [empty, full] = bench.fill()?;
        slices[3].push(empty);
        slices[4].push(full);
        bar.inc(1);
    }
    bench.end()?;
    let [idle, one, batch, empty, full] = slices;
    let mut cases = vec![
        case("one", &one, &idle, ONE_WRITES),
        case("batch", &batch, &idle, BATCH_WRITES),
        case("empty", &empty, &idle, FILL_WRITES),
        case("full", &full, &idle, FILL_WRITES),
    ];
    if settings.volumes > 1 {
        bar.set_message(format!("starting {} volumes", settings.volumes));
        let mut bench = Bench::start(settings, settings.volumes - 1)?;
        let (mut idle, mut one) = (Vec::new(), Vec::new());
        for _ in 0..settings.rounds {
            bar.set_message("no writes, several volumes");
            idle.push(bench.idle(IDLE)?);
            bar.inc(1);
            bar.set_message("one write at a time, several volumes");
            one.push(bench.slice("volumes", ONE_WRITES, 1)?);
            bar.inc(1);
        }
        bench.end()?;
        cases.push(case("volumes", &one, &idle, ONE_WRITES));
    }
    bar.finish_and_clear();
    let Settings { rounds, volumes, .. } = *settings;
    Ok(Counts { fabric: settings.kind.to_string(), rounds, volumes, cases })
}

impl Bench {
    fn start(settings: &Settings, others: usize) -> Result<Self> {
        let mut cluster = create(settings, others)?;
        let mut counted = Counted::start(&mut cluster, None, settings.keep.as_deref())?;
        cluster.wait_until("both nodes hold every volume under valgrind", PATIENCE, |c| is_dual(c, others + 1))?;
        counted.attach(&mut cluster)?;
        let mut load = None;
        cluster
            .wait_until("the volume opens under valgrind", PATIENCE, |c| {
                load = Load::connect(&c.nbd_socket(), VOLUME, WRITE_BYTES).ok();
                load.is_some()
            })
            .with_context(|| cluster.log_tail("client.log"))?;
        let primary = cluster.primary().context("nobody serves")?;
        let order = [NODES.len(), primary, 1 - primary];
        let mut bench = Self { cluster, counted, load: load.context("just connected")?, order };
        // Pages, tables and rings are made at their first use.
        bench.load.write(ONE_WRITES, 1)?;
        bench.load.write(BATCH_WRITES, BATCH)?;
        sleep(REST);
        Ok(bench)
    }

    /// Nothing but ticks and heartbeats.
    fn idle(&mut self, time: Duration) -> Result<Slice> {
        self.counted.restart(&self.cluster)?;
        sleep(time);
        self.dump("idle")
    }

    /// Writes, and what they leave behind.
    fn slice(&mut self, name: &str, writes: u64, at_a_time: u64) -> Result<Slice> {
        self.counted.restart(&self.cluster)?;
        self.load.write(writes, at_a_time)?;
        sleep(REST);
        self.dump(name)
    }

    /// The first and the last writes that a lane takes, of which none is flushed.
    fn fill(&mut self) -> Result<[Slice; 2]> {
        self.cluster.settle(PATIENCE)?;
        self.counted.hold_disk(&self.cluster, true)?;
        self.counted.restart(&self.cluster)?;
        self.load.write(FILL_WRITES, 1)?;
        let empty = self.dump("empty")?;
        self.load.write(capacity() - MARGIN - 2 * FILL_WRITES, BATCH)?;
        self.counted.restart(&self.cluster)?;
        self.load.write(FILL_WRITES, 1)?;
        let full = self.dump("full")?;
        let staged = self.cluster.status(self.order[1])?.lane.staged_blobs;
        let wanted = capacity() - MARGIN;
        ensure!(staged == wanted, "{staged} blobs are staged, {wanted} should be: the disk was not held");
        self.counted.hold_disk(&self.cluster, false)?;
        self.cluster.settle(PATIENCE)?;
        Ok([empty, full])
    }

    fn dump(&mut self, name: &str) -> Result<Slice> {
        let dumps = self.counted.dump(&self.cluster, name)?;
        Ok(self.order.map(|i| dumps[i].clone()))
    }

    /// It has to be the pair that it was.
    fn end(&mut self) -> Result<()> {
        let same = self.cluster.primary() == Some(self.order[1]) && self.cluster.is_dual();
        ensure!(same, "the pair changed meanwhile; was a node too slow?");
        Ok(())
    }
}

/// Blobs of one write each that a lane holds.
fn capacity() -> u64 {
    u64::from(lane_slots(STAGING_BYTES)).min(STAGING_BYTES / u64::from(WRITE_BYTES))
}

/// A pair with the volume that is written, and others.
fn create(settings: &Settings, others: usize) -> Result<Cluster> {
    let options = Options {
        volume_bytes: VOLUME_BYTES,
        block_bytes: WRITE_BYTES,
        staging: STAGING.to_owned(),
        takeover_budget_ms: 0,
        disk_folder: settings.folder.clone(),
        keep: false,
    };
    let listen = |cluster: &Cluster, name: &str| Ok(vec![settings.kind.address(cluster, name)?]);
    let cluster = Cluster::create_at(Programs::build()?, &options, listen)?;
    let mut text = fs::read_to_string(cluster.config())?;
    let names: Vec<String> = (0..others).map(|i| format!("other{i}")).collect();
    for name in &names {
        let disk = cluster.disk_file().with_file_name(format!("{name}.img"));
        let (disk, key) = (disk.display().to_string(), cluster.run("key").display().to_string());
        text.push_str(&format!(
            "\n[[volume]]\nname = {name:?}\ndisk = {disk:?}\nfence = \"local-lock\"\nkey_file = {key:?}\nstaging = {OTHER_STAGING:?}\n"
        ));
    }
    text.push_str(&format!("\n[timing]\n{TIMING}"));
    fs::write(cluster.config(), text)?;
    for name in &names {
        let arguments = ["format", name, "--size", OTHER_SIZE, "--block", "4096"];
        let output = cluster.twinsan(&arguments).output()?;
        ensure!(output.status.success(), "format {name}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(cluster)
}

/// Whether both nodes are members of so many volumes.
fn is_dual(cluster: &Cluster, volumes: usize) -> bool {
    NODES.into_iter().all(|name| {
        let asked = ask(&cluster.run(&format!("{name}.admin")), &Request::Status, Duration::from_secs(10));
        let Ok(Response::Status(status)) = asked else { return false };
        status.volumes.len() == volumes && status.volumes.iter().all(|volume| volume.dual)
    })
}

/// What is a write's: less what is executed at rest, as the median of all rounds has it.
#[expect(clippy::cast_precision_loss, reason = "a few hundred writes")]
fn case(name: &'static str, slices: &[Slice], idle: &[Slice], writes: u64) -> Case {
    let process = |i: usize| {
        let rates: Vec<f64> = idle.iter().map(|slice| slice[i].instructions / slice[i].seconds).collect();
        let at_rest = Spread::of(&rates).median;
        let of = |dump: &Dump| (dump.instructions - at_rest * dump.seconds) / writes as f64;
        let per_write: Vec<f64> = slices.iter().map(|slice| of(&slice[i])).collect();
        let kinds = Kinds::of(slices.iter().map(|slice| slice[i].text.as_str()));
        let spent = kinds.per(slices.len() as f64 * writes as f64);
        Process { per_write: Spread::of(&per_write), idle_per_second: at_rest, spent }
    };
    Case { name, client: process(0), primary: process(1), secondary: process(2) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_without_writes_is_taken_off_by_process() {
        let dump = |instructions, seconds| Dump { text: String::new(), instructions, seconds };
        let idle = [dump(500.0, 0.5), dump(50.0, 0.5), dump(0.0, 0.5)];
        let busy = [dump(3000.0, 1.0), dump(3000.0, 2.0), dump(100.0, 1.0)];
        let case = case("one", &[busy], &[idle], 10);
        let found = [&case.client, &case.primary, &case.secondary].map(|process| process.per_write.median);
        assert_eq!(found, [200.0, 280.0, 10.0]);
    }
}
