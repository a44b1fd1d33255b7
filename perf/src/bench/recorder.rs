//! Latencies and throughput, slice by slice and over all.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::job::Job;
use super::result::{Latency, Measured, Point};
use super::target::Kind;

/// Throughput over time is counted in steps of this.
pub const STEP: Duration = Duration::from_millis(100);
/// So many steps have their memory before anything is measured.
const STEPS: usize = 6000;

/// What one slice came to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Slice {
    /// Reads and writes.
    pub requests: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// While at least one request was in flight; with a rate: from begin to end.
    pub seconds: f64,
    /// The median of the job's main kind: writes, if there are any.
    pub p50_us: f64,
}

/// Collects one job on one target, over any number of slices.
#[derive(Debug)]
pub struct Recorder {
    job: Job,
    /// By [`Kind`]: this slice's.
    slice: [Histogram<u64>; 3],
    /// By [`Kind`]: all slices'.
    all: [Histogram<u64>; 3],
    steps: Vec<(u64, u64)>,
    /// What earlier slices took, from begin to end.
    before: Duration,
    begin: Option<Instant>,
    in_flight: usize,
    busy_from: Option<Instant>,
    busy: Duration,
    requests: u64,
    bytes: u64,
    slices: Vec<Slice>,
    seconds: f64,
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(100, 600_000_000_000, 3).expect("constant bounds")
}

fn place(kind: Kind) -> usize {
    match kind {
        Kind::Read => 0,
        Kind::Write => 1,
        Kind::Flush => 2,
    }
}

impl Recorder {
    /// Of nothing yet.
    #[must_use]
    pub fn new(job: &Job) -> Self {
        Self {
            job: job.clone(),
            slice: [(); 3].map(|()| histogram()),
            all: [(); 3].map(|()| histogram()),
            steps: Vec::with_capacity(STEPS),
            before: Duration::ZERO,
            begin: None,
            in_flight: 0,
            busy_from: None,
            busy: Duration::ZERO,
            requests: 0,
            bytes: 0,
            slices: Vec::new(),
            seconds: 0.0,
        }
    }

    /// A slice begins.
    pub fn begin(&mut self, now: Instant) {
        self.begin = Some(now);
        self.in_flight = 0;
        self.busy = Duration::ZERO;
        self.busy_from = None;
        (self.requests, self.bytes) = (0, 0);
        for histogram in &mut self.slice {
            histogram.reset();
        }
    }

    /// A request is in flight.
    pub fn started(&mut self, now: Instant) {
        if self.in_flight == 0 {
            self.busy_from = Some(now);
        }
        self.in_flight += 1;
    }

    /// It has ended. Latency counts from `start`, which may lie before [`Recorder::started`].
    pub fn ended(&mut self, kind: Kind, start: Instant, at: Instant) {
        let took = u64::try_from(at.saturating_duration_since(start).as_nanos()).unwrap_or(u64::MAX);
        self.slice[place(kind)].saturating_record(took);
        self.in_flight -= 1;
        if self.in_flight == 0
            && let Some(from) = self.busy_from.take()
        {
            self.busy += at.saturating_duration_since(from);
        }
        if kind == Kind::Flush {
            return;
        }
        self.requests += 1;
        self.bytes += self.job.bytes as u64;
        let since = self.before + self.begin.map_or(Duration::ZERO, |begin| at.saturating_duration_since(begin));
        let step = usize::try_from(since.as_nanos() / STEP.as_nanos()).unwrap_or(usize::MAX);
        if step >= self.steps.len() {
            self.steps.resize(step + 1, (0, 0));
        }
        self.steps[step].0 += 1;
        self.steps[step].1 += self.job.bytes as u64;
    }

    /// A slice ends.
    pub fn end(&mut self, now: Instant) -> Slice {
        let whole = self.begin.take().map_or(Duration::ZERO, |begin| now.saturating_duration_since(begin));
        self.before += whole;
        let seconds = if self.job.rate.is_some() { whole } else { self.busy }.as_secs_f64();
        let main = &self.slice[place(if self.job.writes_something() { Kind::Write } else { Kind::Read })];
        let p50_us = us(main.value_at_quantile(0.5));
        for (all, slice) in self.all.iter_mut().zip(&self.slice) {
            all.add(slice).expect("the same bounds");
        }
        let slice = Slice { requests: self.requests, bytes: self.bytes, seconds, p50_us };
        self.seconds += seconds;
        self.slices.push(slice);
        slice
    }

    /// Slices so far.
    #[must_use]
    pub fn slices(&self) -> &[Slice] {
        &self.slices
    }

    /// All of it. CPU is somebody else's to add.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    pub fn finish(&self) -> Measured {
        let requests: u64 = self.slices.iter().map(|s| s.requests).sum();
        let bytes: u64 = self.slices.iter().map(|s| s.bytes).sum();
        let seconds = self.seconds.max(1e-9);
        let latency = |kind| {
            let histogram = &self.all[place(kind)];
            (!histogram.is_empty()).then(|| Latency::of(histogram))
        };
        Measured {
            job: self.job.clone(),
            requests,
            bytes,
            seconds,
            iops: requests as f64 / seconds,
            mb_per_s: bytes as f64 / 1e6 / seconds,
            read: latency(Kind::Read),
            write: latency(Kind::Write),
            flush: latency(Kind::Flush),
            series: self.series(),
            cpu: None,
        }
    }

    /// The last step is as long as it was measured; the others are whole.
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    fn series(&self) -> Vec<Point> {
        let step = STEP.as_secs_f64();
        let end = self.before.as_secs_f64();
        let point = |(i, &(requests, bytes)): (usize, &(u64, u64))| {
            let second = i as f64 * step;
            let long = (end - second).clamp(1e-3, step);
            Point { second, iops: requests as f64 / long, mb_per_s: bytes as f64 / 1e6 / long }
        };
        self.steps.iter().enumerate().map(point).collect()
    }
}

/// From nanoseconds.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn us(ns: u64) -> f64 {
    ns as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_counts_while_something_is_in_flight() {
        let mut recorder = Recorder::new(&Job::writes("x", 1000, 512, 1));
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        recorder.begin(at(0));
        recorder.started(at(10));
        recorder.started(at(20));
        recorder.ended(Kind::Write, at(10), at(30));
        recorder.ended(Kind::Write, at(20), at(50));
        recorder.started(at(140));
        recorder.ended(Kind::Flush, at(140), at(150));
        recorder.started(at(150));
        recorder.ended(Kind::Write, at(150), at(160));
        let slice = recorder.end(at(200));
        assert_eq!((slice.requests, slice.bytes), (3, 3000));
        assert!((slice.seconds - 0.060).abs() < 1e-9, "{slice:?}");
        // The second slice's time follows the first one's, whatever lay between.
        recorder.begin(at(1000));
        recorder.started(at(1000));
        recorder.ended(Kind::Write, at(1000), at(1050));
        recorder.end(at(1050));
        let measured = recorder.finish();
        assert_eq!(measured.write.as_ref().unwrap().count, 4);
        assert_eq!(measured.flush.as_ref().unwrap().count, 1);
        assert!(measured.read.is_none());
        let steps: Vec<f64> = measured.series.iter().map(|p| p.iops).collect();
        assert_eq!(steps.len(), 3);
        assert!((steps[0] - 20.0).abs() < 1e-6 && (steps[1] - 10.0).abs() < 1e-6, "{steps:?}");
        // The last 50 ms are half a step.
        assert!((steps[2] - 20.0).abs() < 1e-6, "{steps:?}");
        assert!((measured.seconds - 0.110).abs() < 1e-9);
    }
}
