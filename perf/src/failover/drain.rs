//! Full lanes, or as full as the takeover budget allows: how fast a takeover writes them, beside fio on the same disk.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use twinsan_witness::ledger::UNIT;
use twinsan_witness::load::Settings as LoadSettings;

use super::report::Drain;
use super::{Bench, PATIENCE, SOME, SPAN_BYTES, STAGING_BYTES, Settings, ended_well};
use crate::cluster::NODES;

/// Requests in flight while lanes are filled. Few and large: what fills a lane is bytes.
const DEPTH: u32 = 16;
/// A lane as full as this is called full: what is being released is never there.
const FULL: u64 = STAGING_BYTES / 4 * 3;
/// A lane that is bounded by a budget is as full as it gets after that.
const SETTLED: Duration = Duration::from_secs(3);
/// A disk that is as fast as the client may not let them fill.
const FILLING: Duration = Duration::from_secs(30);
/// fio's requests in flight.
const FIO_DEPTH: u32 = 32;

impl Bench {
    /// Fills the lanes, kills the primary, and runs fio, in turns.
    pub(super) fn drains(&mut self, settings: &Settings) -> Result<Vec<Drain>> {
        let bar = self.bar("drains", settings.drains);
        let mut drains = Vec::new();
        for _ in 0..settings.drains {
            self.cluster.settle(PATIENCE)?;
            let (staged, takeover) = self.drain(settings.drain_write_bytes, settings.budget_ms > 0)?;
            self.cluster.settle(PATIENCE)?;
            let path = self.cluster.disk_file().with_file_name("fio.img");
            let fio_mb_per_s = fio(&path, settings.drain_write_bytes, takeover.0)?;
            std::fs::remove_file(&path)?;
            drains.push(Drain::new(staged, takeover.0, takeover.1, fio_mb_per_s));
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(drains)
    }

    /// What was staged, and the bytes and ms that the new primary says its drain took.
    fn drain(&mut self, write_bytes: usize, bounded: bool) -> Result<(u64, (u64, u64))> {
        let most_units = (write_bytes / UNIT) as u64;
        ensure!(
            most_units > 0 && write_bytes.is_multiple_of(UNIT) && most_units <= 256,
            "writes of {write_bytes} bytes: a multiple of {UNIT} up to 1 MiB, please"
        );
        let shape = LoadSettings { threads: DEPTH, most_units, reads_percent: 0, rest: Duration::ZERO, seed: 7 };
        let load = self.load(shape)?;
        let begin = Instant::now();
        let staged = loop {
            let primary = self.cluster.primary().context("nobody serves")?;
            let lane = self.cluster.status(primary)?.lane;
            let staged = lane.staged_bytes;
            if staged >= FULL || (bounded && lane.at_budget && begin.elapsed() >= SETTLED) {
                break staged;
            }
            ensure!(begin.elapsed() < FILLING, "the disk is as fast as the writer: {staged} bytes staged at most");
        };
        let killed = self.kill_primary()?;
        ensure!(load.goes_on(SOME, PATIENCE), "writes do not complete after the kill of {}", NODES[killed]);
        let drain = self.cluster.status(1 - killed)?.lane.last_drain.context("the new primary tells of no drain")?;
        ended_well(load)?;
        self.restart(killed)?;
        Ok((staged, (drain.bytes, drain.ms)))
    }
}

/// Random writes of the same size to a file of the same size on the same disk, and one flush of its cache at the end, in
/// MB/s.
fn fio(path: &Path, write_bytes: usize, bytes: u64) -> Result<f64> {
    let file = path.display();
    let shape = |name: &str, rest: &[String]| {
        let mut fio = Command::new("fio");
        fio.args([format!("--name={name}"), format!("--filename={file}"), format!("--size={SPAN_BYTES}")]);
        fio.args(["--direct=1", "--ioengine=io_uring", "--output-format=json", "--end_fsync=1"]).args(rest);
        fio.stdin(Stdio::null()).stderr(Stdio::inherit());
        fio
    };
    let fill = shape("fill", &["--rw=write".to_owned(), "--bs=1m".to_owned(), "--iodepth=8".to_owned()]).output()?;
    ensure!(fill.status.success(), "fio: {}", String::from_utf8_lossy(&fill.stdout));
    let rest = [
        "--rw=randwrite".to_owned(),
        format!("--bs={write_bytes}"),
        format!("--io_size={bytes}"),
        format!("--iodepth={FIO_DEPTH}"),
    ];
    let output = shape("drain", &rest).output().context("fio (Debian: apt-get install fio)")?;
    ensure!(output.status.success(), "fio: {}", String::from_utf8_lossy(&output.stdout));
    let said: Value = serde_json::from_slice(&output.stdout).context("fio's JSON")?;
    let job = &said["jobs"][0];
    let written = job["write"]["io_bytes"].as_f64().context("fio's io_bytes")?;
    // The whole job, its last flush among it, as the drain ends with one too.
    let took = job["job_runtime"].as_f64().context("fio's job_runtime")?;
    Ok(written / 1e6 / (took / 1000.0).max(1e-3))
}
