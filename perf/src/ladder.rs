//! Where the microseconds of a synchronous write go, from the caller's `write` to its return.
//!
//! A pair of our own and its client with `--ladder`; one NBD connection writes, one write at a time. The client's file has
//! what each write cost at each step, and the nodes' own times in between; the caller's own stopwatch has the whole. What
//! neither accounts for is the socket between caller and client, and the links between client and nodes. Beside the
//! links stands their floor: the raw round trips of the same fabric, in turns with the writes.

pub mod args;
mod file;
pub mod report;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use twinsan_witness::nbd::Client;
use twinsan_witness::pattern::{BLOCK, Model, Random, fill};

use self::file::Line;
use self::report::{Ladder, Size};
use crate::cluster::{NODES, VOLUME};
use crate::fabric::open;
use crate::local::{Local, Setup, VOLUME_BYTES};
use crate::wire::{Budget, Pinger, Row, progress};

/// Writes of each size before those that count.
const WARM_UP: u64 = 100;
/// For whatever ends by itself in a moment.
const PATIENCE: Duration = Duration::from_secs(30);
/// A slice of raw rounds ends after so long.
const SLICE: Duration = Duration::from_millis(200);

/// What is measured.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The pair.
    pub setup: Setup,
    /// Bytes of one write.
    pub sizes: Vec<u32>,
    /// Slices of each size, in turns with raw rounds.
    pub rounds: usize,
    /// Writes in a slice.
    pub writes: u64,
    /// Where the disk file goes.
    pub folder: PathBuf,
    /// No progress bar.
    pub quiet: bool,
}

/// One size, while it is being measured.
#[derive(Debug, Default)]
struct Slices {
    /// By the caller's stopwatch, in order.
    whole: Vec<Duration>,
    /// Client → node with payload, both ways.
    blobs: Vec<Duration>,
    /// A mailbox, both ways.
    mailboxes: Vec<Duration>,
}

/// Measures.
///
/// # Errors
/// If something does not start, a write fails or does not read back, or the client's file is not what it should be.
pub fn ladder(settings: &Settings) -> Result<Ladder> {
    let Settings { setup, sizes, rounds, writes, .. } = settings;
    let mut local = Local::start(setup, &settings.folder)?;
    let file = local.cluster.run("ladder.csv");
    local.cluster.attach_with(&["--ladder", &file.display().to_string()], PATIENCE)?;
    local.cluster.wait_until("the pair is dual", PATIENCE, crate::cluster::Cluster::is_dual)?;
    let primary = local.cluster.primary().context("nobody serves")?;
    let spin = Duration::from_micros(setup.spin_us);
    let mut pinger = Pinger::connect(&open, &local.wire[1 - primary].client, spin)?;
    let mut client = Client::connect(&local.cluster.nbd_socket(), VOLUME)?;
    let mut writer = Writer { model: Model::new(VOLUME_BYTES), random: Random::new(1), buffer: Vec::new() };
    let mut slices: Vec<Slices> = sizes.iter().map(|_| Slices::default()).collect();
    let bar = progress(settings.quiet, (rounds * sizes.len()) as u64);
    for round in 0..=*rounds {
        for (&bytes, slices) in sizes.iter().zip(&mut slices) {
            bar.set_message(format!("{bytes} bytes"));
            // The first round warms up, and what is left of it is in no figure.
            let warms = round == 0;
            for _ in 0..if warms { WARM_UP } else { *writes } {
                slices.whole.push(writer.write(&mut client, bytes)?);
            }
            local.cluster.settle(PATIENCE)?;
            if !warms {
                let budget = Budget { count: *writes, time: SLICE };
                slices.blobs.extend(pinger.run(Row::BlobBothWays, bytes, budget)?.times);
                slices.mailboxes.extend(pinger.run(Row::Ack, 0, budget)?.times);
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    writer.check(&mut client)?;
    drop(client);
    ensure!(
        local.cluster.detach(PATIENCE)?.success(),
        "twinsan attach failed: {}",
        local.cluster.log_tail("client.log")
    );
    let lines = file::read(&file)?;
    let figures = sizes.iter().zip(slices).map(|(&bytes, slices)| slices.figures(bytes, &lines));
    Ok(Ladder {
        fabric: setup.kind.to_string(),
        integrity: setup.integrity,
        spin_us: setup.spin_us,
        primary: NODES[primary].to_owned(),
        rounds: *rounds,
        sizes: figures.collect::<Result<_>>()?,
    })
}

/// Writes stamped blocks at random places.
struct Writer {
    model: Model,
    random: Random,
    buffer: Vec<u8>,
}

impl Writer {
    fn write(&mut self, client: &mut Client, bytes: u32) -> Result<Duration> {
        self.buffer.resize(bytes as usize, 0);
        let block = u64::from(crate::local::BLOCK_BYTES);
        let places = (VOLUME_BYTES - u64::from(bytes)) / block;
        let offset = self.random.below(places) * block;
        let (first, stamp) = (offset / BLOCK as u64, self.model.next_stamp());
        fill(&mut self.buffer, first, stamp);
        let begin = Instant::now();
        client.write(offset, &self.buffer)?;
        let took = begin.elapsed();
        self.model.completed(first, self.buffer.len() / BLOCK, stamp);
        Ok(took)
    }

    /// A completion that did not mean anything would be the fastest.
    fn check(&self, client: &mut Client) -> Result<()> {
        let mut lost = Vec::new();
        let mut buffer = vec![0; 1 << 20];
        for offset in (0..VOLUME_BYTES).step_by(buffer.len()) {
            client.read(offset, &mut buffer)?;
            self.model.check(offset / BLOCK as u64, &buffer, &mut lost);
        }
        ensure!(lost.is_empty(), "{} completed writes do not read back", Model::writes_lost(&lost));
        Ok(())
    }
}

impl Slices {
    /// The caller's writes and the client's lines belong to each other by their order.
    fn figures(self, bytes: u32, lines: &[Line]) -> Result<Size> {
        let lines: Vec<&Line> = lines.iter().filter(|line| line.bytes == u64::from(bytes)).collect();
        // The client keeps the last of many.
        let skipped = self.whole.len().saturating_sub(lines.len());
        ensure!(
            lines.len() + skipped == self.whole.len(),
            "the client's file has {} writes of {bytes} bytes, {} were made",
            lines.len(),
            self.whole.len()
        );
        let from = usize::try_from(WARM_UP)?.saturating_sub(skipped);
        let whole = self.whole.into_iter().skip(skipped).skip(from);
        let pairs: Vec<(Duration, &Line)> = whole.zip(lines.into_iter().skip(from)).collect();
        Size::new(bytes, &pairs, &self.blobs, &self.mailboxes)
    }
}
