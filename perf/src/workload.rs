//! The three workloads: synchronous writes, one at a time, at random block-aligned offsets.

use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::Serialize;

use twinsan_witness::pattern::{BLOCK, Model, Random, fill};

/// One of the workloads.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// What people call it.
    pub name: &'static str,
    /// Bytes of one write.
    pub bytes: usize,
    /// Offsets are multiples of so many bytes, themselves a multiple of [`BLOCK`].
    pub align: usize,
    /// How many writes `--full` makes.
    pub count: u64,
}

/// The mission's three.
pub const WORKLOADS: [Workload; 3] = [
    Workload { name: "10 KB", bytes: 10_240, align: BLOCK, count: 100_000 },
    Workload { name: "100 KB", bytes: 102_400, align: BLOCK, count: 10_000 },
    Workload { name: "1 MiB", bytes: 1_048_576, align: BLOCK, count: 1_000 },
];

/// What can be written to synchronously: a volume, or a plain file.
pub trait Target {
    /// Returns when the bytes are durable.
    ///
    /// # Errors
    /// The target's.
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<()>;
}

impl Target for twinsan_witness::nbd::Client {
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        Ok(Self::write(self, offset, data)?)
    }
}

/// What a workload came to.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Which workload.
    pub name: &'static str,
    /// Bytes of one write.
    pub bytes: usize,
    /// Writes completed.
    pub count: u64,
    /// Median latency in microseconds.
    pub p50_us: f64,
    /// 99th percentile in microseconds.
    pub p99_us: f64,
    /// 99.9th percentile in microseconds.
    pub p999_us: f64,
    /// The longest in microseconds.
    pub max_us: f64,
    /// Payload over wall time, in 10^6 bytes a second.
    pub mb_per_s: f64,
}

/// Collects latencies.
#[derive(Debug)]
pub struct Meter {
    workload: Workload,
    histogram: Histogram<u64>,
    total: Duration,
}

impl Meter {
    /// Of a workload.
    ///
    /// # Panics
    /// Never: the histogram's bounds are constants.
    #[must_use]
    pub fn new(workload: Workload) -> Self {
        let histogram = Histogram::new_with_bounds(100, 600_000_000_000, 3).expect("constant bounds");
        Self { workload, histogram, total: Duration::ZERO }
    }

    /// One write took so long.
    pub fn record(&mut self, took: Duration) {
        self.total += took;
        self.histogram.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// The sum.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    pub fn figures(&self) -> Figures {
        let us = |q: f64| self.histogram.value_at_quantile(q) as f64 / 1000.0;
        let bytes = self.histogram.len() as f64 * self.workload.bytes as f64;
        Figures {
            name: self.workload.name,
            bytes: self.workload.bytes,
            count: self.histogram.len(),
            p50_us: us(0.5),
            p99_us: us(0.99),
            p999_us: us(0.999),
            max_us: self.histogram.max() as f64 / 1000.0,
            mb_per_s: bytes / 1e6 / self.total.as_secs_f64().max(1e-9),
        }
    }
}

/// How far a run may go: a number of writes, and a time after which it ends short.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// At most so many writes.
    pub count: u64,
    /// At most so long, in time spent writing.
    pub time: Option<Duration>,
}

/// Runs a workload; `after` is called after each write with the number done and its latency, and may do other things
/// meanwhile, whose time is not counted.
///
/// # Errors
/// The target's, or `after`'s.
pub fn run(
    workload: Workload,
    target: &mut dyn Target,
    volume_bytes: u64,
    model: &mut Model,
    budget: Budget,
    mut after: impl FnMut(u64, Duration) -> Result<()>,
) -> Result<Figures> {
    let mut meter = Meter::new(workload);
    let mut random = Random::new(workload.bytes as u64);
    let mut buffer = vec![0; workload.bytes];
    let step = workload.align as u64;
    let places = (volume_bytes - workload.bytes as u64) / step + 1;
    for done in 1..=budget.count {
        let first = random.below(places) * (step / BLOCK as u64);
        let stamp = model.next_stamp();
        fill(&mut buffer, first, stamp);
        let begin = Instant::now();
        target.write(first * BLOCK as u64, &buffer)?;
        let took = begin.elapsed();
        model.completed(first, buffer.len() / BLOCK, stamp);
        meter.record(took);
        after(done, took)?;
        if budget.time.is_some_and(|most| meter.total >= most) {
            break;
        }
    }
    Ok(meter.figures())
}
