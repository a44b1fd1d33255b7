//! What came out, for programs. Field names are the JSON's; every unit is in the name or the text.

use hdrhistogram::Histogram;
use serde::Serialize;

use super::job::Job;

/// How long requests of one kind took.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// Requests.
    pub count: u64,
    /// In microseconds, as all that follow.
    pub mean_us: f64,
    /// The median.
    pub p50_us: f64,
    /// The 90th percentile.
    pub p90_us: f64,
    /// The 99th.
    pub p99_us: f64,
    /// The 99.9th.
    pub p999_us: f64,
    /// The 99.99th.
    pub p9999_us: f64,
    /// The longest.
    pub max_us: f64,
    /// About 100 points: percent of the requests, and the microseconds that they took at most. Denser towards 100.
    pub curve: Vec<(f64, f64)>,
}

/// Throughput in one step of 100 ms.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Where the step begins, in seconds; slices follow each other without a gap.
    pub second: f64,
    /// Reads and writes a second.
    pub iops: f64,
    /// Their bytes, in 10^6 a second.
    pub mb_per_s: f64,
}

/// CPU time during a measurement, all threads.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// Of every process involved, by name, in seconds; ours, which makes the load, is `load client`.
    pub by_process_s: Vec<(String, f64)>,
    /// Their sum.
    pub total_s: f64,
    /// The sum over the payload, in seconds for 10^9 bytes.
    pub s_per_gb: f64,
    /// What everybody else took, the kernel's own threads among them, as a share of all the machine's CPUs from 0 to 1. None:
    /// too little time was measured to say.
    pub others_share: Option<f64>,
}

/// One job on one target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// What was asked for.
    pub job: Job,
    /// Reads and writes that ended.
    pub requests: u64,
    /// Their bytes.
    pub bytes: u64,
    /// In which at least one request was in flight; with a rate: from begin to end.
    pub seconds: f64,
    /// Requests over seconds.
    pub iops: f64,
    /// Bytes over seconds, in 10^6.
    pub mb_per_s: f64,
    /// Of reads, if there were any.
    pub read: Option<Latency>,
    /// Of writes.
    pub write: Option<Latency>,
    /// Of flushes.
    pub flush: Option<Latency>,
    /// Throughput over time.
    pub series: Vec<Point>,
    /// What it cost.
    pub cpu: Option<Cpu>,
}

/// `twinsan-perf run`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Run {
    /// What was measured.
    pub target: String,
    /// Its size in bytes.
    pub target_bytes: u64,
    /// What of it was used.
    pub span_bytes: u64,
    /// One after the other.
    pub jobs: Vec<Measured>,
    /// Bytes read back and compared afterwards.
    pub checked_bytes: u64,
}

/// Of figures slice by slice: above 1 ours is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// Half of the rounds lie below.
    pub median: f64,
    /// The round that was worst for us.
    pub least: f64,
    /// The round that was best for us.
    pub most: f64,
    /// A quarter of the rounds lie below.
    pub lower_quartile: f64,
    /// A quarter of the rounds lie above.
    pub upper_quartile: f64,
}

/// Who takes part in a comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Contestant {
    /// By which `--only` names it.
    pub key: &'static str,
    /// What it is.
    pub name: &'static str,
    /// Where a completed write is.
    pub copies: &'static str,
}

/// One contestant in one workload.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Who.
    pub key: &'static str,
    /// Over all slices.
    pub all: Measured,
    /// Each slice's median latency in microseconds, of writes where there are any.
    pub slice_p50_us: Vec<f64>,
    /// Each slice's requests a second.
    pub slice_iops: Vec<f64>,
    /// How often the pair's members changed in its slices (ours): its pauses, and what a node alone did, are in the figures.
    pub changes: u64,
}

/// Another contestant beside ours in one workload.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Beside {
    /// Who.
    pub key: &'static str,
    /// Their median latency over ours, slice by slice.
    pub p50: Ratio,
    /// Our requests a second over theirs, slice by slice.
    pub iops: Ratio,
    /// Whether it is a result: the middle half of the rounds says the same. Of latency with one request in flight, of requests a second else.
    pub is_result: bool,
}

/// One workload.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorkloadResult {
    /// What was asked for; its count is a slice's.
    pub job: Job,
    /// In the contestants' order.
    pub rows: Vec<Row>,
    /// All but ours, if ours takes part.
    pub beside_ours: Vec<Beside>,
}

/// What it ran on.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Machine {
    /// CPUs.
    pub cpus: usize,
    /// The processor's name.
    pub processor: String,
    /// The kernel's release.
    pub kernel: String,
    /// RAM in bytes.
    pub memory_bytes: u64,
}

/// One comparison: contestants in turns.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compare {
    /// `burst`: every slice of ours fits its staging memory, and begins with an empty one. `steady`: every slice is many
    /// times what it holds, so that the disk has to keep up.
    pub load: &'static str,
    /// What it ran on.
    pub machine: Machine,
    /// Rounds; each contestant has one slice in each.
    pub rounds: usize,
    /// Each node's lane for payloads in ours, in bytes.
    pub staging_bytes: u64,
    /// On which pages each node got it: `huge`, `transparent-huge` or `small`. Empty if ours does not take part.
    pub staging_pages: Vec<String>,
    /// Each contestant's device.
    pub device_bytes: u64,
    /// Who took part.
    pub contestants: Vec<Contestant>,
    /// One after the other.
    pub workloads: Vec<WorkloadResult>,
    /// Bytes read back and compared afterwards, over all contestants and copies.
    pub checked_bytes: u64,
}

/// `twinsan-perf compare --mission`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mission {
    /// In slices that fit the staging memory, at full count together.
    pub burst: Compare,
    /// In slices that are many times the staging memory, at full count together.
    pub steady: Compare,
}

/// `twinsan-perf compare --idle`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Idle {
    /// What it ran on.
    pub machine: Machine,
    /// How long.
    pub seconds: f64,
    /// CPU time of every process, in percent of one core.
    pub percent: Vec<(String, f64)>,
    /// Their sum.
    pub total_percent: f64,
    /// What everybody else took, as a share of all CPUs.
    pub others_share: Option<f64>,
}

impl Latency {
    /// Of a histogram in nanoseconds.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let us = |q: f64| histogram.value_at_quantile(q) as f64 / 1000.0;
        Self {
            count: histogram.len(),
            mean_us: histogram.mean() / 1000.0,
            p50_us: us(0.5),
            p90_us: us(0.9),
            p99_us: us(0.99),
            p999_us: us(0.999),
            p9999_us: us(0.9999),
            max_us: histogram.max() as f64 / 1000.0,
            curve: shares().map(|share| (share * 100.0, us(share))).collect(),
        }
    }
}

/// 0, 0.02 … 0.88, then 0.9 to 0.99999 in even steps of its logarithm, and 1.
fn shares() -> impl Iterator<Item = f64> {
    let even = (0..45).map(|i| f64::from(i) * 0.02);
    let tail = (0..=54).map(|i| 1.0 - 10_f64.powf(-1.0 - 4.0 * f64::from(i) / 54.0));
    even.chain(tail).chain([1.0])
}

impl Ratio {
    /// Of `others` over `ours`, pair by pair.
    #[must_use]
    pub fn new(others: &[f64], ours: &[f64]) -> Self {
        let mut ratios: Vec<f64> = others.iter().zip(ours).map(|(other, ours)| other / ours).collect();
        ratios.sort_by(f64::total_cmp);
        let at = |share: f64| quantile(&ratios, share);
        Self { median: at(0.5), least: at(0.0), most: at(1.0), lower_quartile: at(0.25), upper_quartile: at(0.75) }
    }

    /// Whether the middle half of the rounds lies on one side of 1: else noise is larger than the difference.
    #[must_use]
    pub fn is_result(&self) -> bool {
        self.lower_quartile > 1.0 || self.upper_quartile < 1.0
    }
}

/// Of sorted figures, between the two nearest.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = share * last as f64;
    let below = place.floor() as usize;
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64)
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

    #[test]
    fn a_difference_that_is_smaller_than_the_noise_is_no_result() {
        let ones = [1.0; 5];
        assert!(Ratio::new(&[1.1, 1.2, 1.3, 1.1, 0.5], &ones).is_result(), "one round is an accident");
        assert!(Ratio::new(&[0.8, 0.9, 0.7, 0.9, 0.9], &ones).is_result());
        assert!(!Ratio::new(&[1.1, 0.9, 1.3, 1.1, 0.5], &ones).is_result());
        assert!(!Ratio::new(&[], &[]).is_result());
    }

    #[test]
    fn a_curve_rises_from_0_to_100_percent_and_ends_at_the_longest() {
        let mut histogram = Histogram::<u64>::new_with_bounds(100, 600_000_000_000, 3).unwrap();
        for us in 1..=1000 {
            histogram.record(us * 1000).unwrap();
        }
        let latency = Latency::of(&histogram);
        let near = |a: f64, b: f64| (a / b - 1.0).abs() < 0.01;
        assert!(near(latency.p50_us, 500.0) && near(latency.p99_us, 990.0) && near(latency.max_us, 1000.0));
        assert!((90..=110).contains(&latency.curve.len()), "{}", latency.curve.len());
        assert!(latency.curve.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1));
        let (first, last) = (latency.curve[0], latency.curve[latency.curve.len() - 1]);
        assert!(first.0 == 0.0 && near(last.0, 100.0) && near(last.1, latency.max_us));
    }
}
