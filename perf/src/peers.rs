//! Small synchronous writes through an NBD socket: TwinSAN, a quorum of two RAM servers, and a plain file, in one run.
//!
//! The runners take turns in short slices, so that whatever else the machine does meanwhile falls on all of them. Each
//! slice has its median; the ratio is taken between slices of one round and reported as their median with its range.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::cluster::{Cluster, Options, Programs, VOLUME};
use crate::quorum::{EXPORT, Quorum};
use crate::race::DirectFile;
use crate::workload::{Budget, Figures, Meter, Target, Workload, run};
use twinsan_witness::nbd::Client;
use twinsan_witness::pattern::{BLOCK, Model, fill};

/// Each runner's device.
const BYTES: u64 = 256 << 20;
/// The volume's block. All offsets are multiples of it: nobody has to read before it writes.
const BLOCK_BYTES: u32 = 4096;
/// One transfer of prefill and read-back.
const CHUNK: usize = 1 << 20;
/// For whatever ends by itself in a moment.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is measured.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bytes of one write, a multiple of the block.
    pub write_bytes: usize,
    /// Rounds; each runner has one slice in each.
    pub rounds: usize,
    /// Writes in a slice.
    pub writes: u64,
    /// Where the disk files go.
    pub folder: PathBuf,
}

/// One runner's result.
#[derive(Clone, Debug, Serialize)]
pub struct Runner {
    /// What it is.
    pub name: &'static str,
    /// Where a completed write is.
    pub copies: &'static str,
    /// Over all slices.
    pub all: Figures,
    /// Each slice's median in microseconds.
    pub slice_p50_us: Vec<f64>,
}

/// What came out.
#[derive(Clone, Debug, Serialize)]
pub struct Peers {
    /// Bytes of one write.
    pub write_bytes: usize,
    /// Rounds measured.
    pub rounds: usize,
    /// TwinSAN, the quorum, the file.
    pub runners: Vec<Runner>,
    /// The quorum's p50 over ours: above 1 we are faster.
    pub quorum_over_twinsan: Ratio,
    /// The file's p50 over ours.
    pub file_over_twinsan: Ratio,
}

/// Of medians, slice by slice: somebody else's over ours.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ratio {
    /// Half of the rounds lie below.
    pub median: f64,
    /// The round that was worst for us.
    pub least: f64,
    /// The round that was best for us.
    pub most: f64,
}

/// A target in mid-measurement.
struct Lane<'a> {
    runner: Runner,
    target: &'a mut dyn Target,
    model: &'a mut Model,
    meter: Meter,
}

/// Runs the comparison.
///
/// # Errors
/// If a program is missing or fails, or a write that was completed does not read back.
pub fn peers(settings: &Settings) -> Result<Peers> {
    let Settings { write_bytes, .. } = *settings;
    ensure!(
        write_bytes > 0 && write_bytes <= CHUNK && write_bytes.is_multiple_of(BLOCK_BYTES as usize),
        "writes of {write_bytes} bytes: a multiple of {BLOCK_BYTES} up to {CHUNK}, please"
    );
    let quorum = Quorum::start(BYTES)?;
    let cluster = start_cluster(settings)?;
    let mut models = [(); 3].map(|()| Model::new(BYTES));
    let [ours, theirs, files] = &mut models;
    let mut client = Client::connect(&cluster.nbd_socket(), VOLUME)?;
    prefill(&mut client, ours)?;
    let mut peer = Client::connect(&quorum.socket(), EXPORT)?;
    prefill(&mut peer, theirs)?;
    let path = cluster.disk_file().with_file_name("peer.img");
    let mut file = DirectFile::create(&path, BYTES, files, |_| ())?;
    let workload =
        Workload { name: "synchronous write", bytes: write_bytes, align: BLOCK_BYTES as usize, count: settings.writes };
    let lane = |name, copies, target, model| Lane::new(workload, name, copies, target, model);
    let mut lanes = [
        lane("TwinSAN pair", "two in RAM, one disk behind", &mut client as &mut dyn Target, ours),
        lane("qemu quorum, 2 nodes", "two in RAM", &mut peer, theirs),
        lane("file, O_DIRECT|O_DSYNC", "one on disk", &mut file, files),
    ];
    for round in 0..settings.rounds {
        for turn in 0..lanes.len() {
            // Another one begins each round, so that nobody always follows the same neighbour.
            lanes[(round + turn) % 3].slice(workload)?;
            // Our flusher must not work into a neighbour's slice.
            cluster.settle(PATIENCE)?;
        }
    }
    let runners = lanes.map(Lane::finish);
    check(&mut client, &models[0], "TwinSAN")?;
    check(&mut peer, &models[1], "the quorum")?;
    drop(file);
    std::fs::remove_file(&path)?;
    Ok(Peers::new(settings, runners))
}

fn start_cluster(settings: &Settings) -> Result<Cluster> {
    let options = Options {
        volume_bytes: BYTES,
        block_bytes: BLOCK_BYTES,
        staging: "64MiB",
        takeover_budget_ms: 0,
        disk_folder: settings.folder.clone(),
        keep: false,
    };
    let mut cluster = Cluster::create(Programs::build()?, &options)?;
    cluster.start(PATIENCE)?;
    Ok(cluster)
}

fn prefill(target: &mut dyn Target, model: &mut Model) -> Result<()> {
    let mut buffer = vec![0; CHUNK];
    let stamp = model.next_stamp();
    for offset in (0..BYTES).step_by(CHUNK) {
        let first = offset / BLOCK as u64;
        fill(&mut buffer, first, stamp);
        target.write(offset, &buffer)?;
        model.completed(first, CHUNK / BLOCK, stamp);
    }
    Ok(())
}

/// A fast answer that wrote nothing would win every race.
fn check(client: &mut Client, model: &Model, name: &str) -> Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut lost = Vec::new();
    for offset in (0..BYTES).step_by(CHUNK) {
        client.read(offset, &mut buffer)?;
        model.check(offset / BLOCK as u64, &buffer, &mut lost);
    }
    ensure!(lost.is_empty(), "{} writes completed by {name} are lost, first {:?}", Model::writes_lost(&lost), lost[0]);
    Ok(())
}

impl<'a> Lane<'a> {
    fn new(
        workload: Workload,
        name: &'static str,
        copies: &'static str,
        target: &'a mut dyn Target,
        model: &'a mut Model,
    ) -> Self {
        let meter = Meter::new(workload);
        let runner = Runner { name, copies, all: meter.figures(), slice_p50_us: Vec::new() };
        Self { runner, target, model, meter }
    }

    fn slice(&mut self, workload: Workload) -> Result<()> {
        let budget = Budget { count: workload.count, time: None };
        let meter = &mut self.meter;
        let figures = run(workload, self.target, BYTES, self.model, budget, |_, took| {
            meter.record(took);
            Ok(())
        })?;
        self.runner.slice_p50_us.push(figures.p50_us);
        Ok(())
    }

    fn finish(mut self) -> Runner {
        self.runner.all = self.meter.figures();
        self.runner
    }
}

impl Ratio {
    /// Of `other` over `ours`, pair by pair.
    pub(crate) fn new(other: &[f64], ours: &[f64]) -> Self {
        let mut ratios: Vec<f64> = other.iter().zip(ours).map(|(other, ours)| other / ours).collect();
        ratios.sort_by(f64::total_cmp);
        let at = |i: usize| ratios.get(i).copied().unwrap_or(f64::NAN);
        let half = ratios.len() / 2;
        let median = if ratios.len() % 2 == 1 { at(half) } else { f64::midpoint(at(half.wrapping_sub(1)), at(half)) };
        Self { median, least: at(0), most: at(ratios.len().wrapping_sub(1)) }
    }
}

impl Peers {
    fn new(settings: &Settings, runners: [Runner; 3]) -> Self {
        let [ours, quorum, file] = [0, 1, 2].map(|i: usize| &runners[i].slice_p50_us);
        let quorum_over_twinsan = Ratio::new(quorum, ours);
        let file_over_twinsan = Ratio::new(file, ours);
        let Settings { write_bytes, rounds, .. } = *settings;
        Self { write_bytes, rounds, runners: runners.into(), quorum_over_twinsan, file_over_twinsan }
    }

    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut t = String::new();
        let _ = writeln!(
            t,
            "\n  {} bytes a write, one at a time, FUA on each (the file: O_DSYNC), {} rounds in turns\n",
            self.write_bytes, self.rounds
        );
        let columns = ["writes", "p50 µs", "p99 µs", "p99.9 µs"];
        let _ = write!(t, "  {:24} {:28}", "on", "a completed write is");
        for column in columns {
            let _ = write!(t, " {column:>9}");
        }
        let _ = writeln!(t);
        for Runner { name, copies, all, .. } in &self.runners {
            let Figures { count, p50_us, p99_us, p999_us, .. } = all;
            let _ = writeln!(t, "  {name:24} {copies:28} {count:>9} {p50_us:>9.0} {p99_us:>9.0} {p999_us:>9.0}");
        }
        let _ = writeln!(t);
        for (who, ratio) in [("quorum", self.quorum_over_twinsan), ("file", self.file_over_twinsan)] {
            let Ratio { median, least, most } = ratio;
            let _ = writeln!(t, "  p50 of the {who:6} / ours: {median:.2} (by round {least:.2} to {most:.2})");
        }
        t
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_round_by_round() {
        // A slow moment of the machine falls on both, and leaves their ratio alone.
        let odd = Ratio::new(&[20.0, 200.0, 60.0], &[10.0, 100.0, 20.0]);
        assert_eq!((odd.median, odd.least, odd.most), (2.0, 2.0, 3.0));
        let even = Ratio::new(&[10.0, 40.0], &[10.0, 10.0]);
        assert_eq!((even.median, even.least, even.most), (2.5, 1.0, 4.0));
        assert!(Ratio::new(&[], &[]).median.is_nan(), "nothing was measured");
    }
}
