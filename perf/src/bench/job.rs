//! What a measurement asks for.

use anyhow::{Result, ensure};
use serde::Serialize;
use twinsan_witness::pattern::BLOCK;

/// One workload. Offsets are random.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Job {
    /// What people call it.
    pub name: String,
    /// Bytes of one request, a multiple of 512.
    pub bytes: usize,
    /// Offsets are multiples of so many bytes, itself a multiple of 512.
    pub align: usize,
    /// Requests in flight at most.
    pub depth: usize,
    /// Reads among the requests, in percent.
    pub read_percent: u8,
    /// Requests, flushes not counted. `u64::MAX`: only time ends it, and there is none in the JSON.
    #[serde(skip_serializing_if = "is_endless")]
    pub count: u64,
    /// Ends after so many seconds, even if `count` are not made.
    pub seconds: Option<f64>,
    /// None: FUA on every write. Else no FUA, and after so many writes all in flight are awaited and a FLUSH is made.
    pub flush_every: Option<u64>,
    /// None: the next request is sent when one has ended. Else so many a second are due, and latency counts from when
    /// one was due, whenever it was sent.
    pub rate: Option<f64>,
}

/// Requests in flight at most, whatever a job says.
pub const MOST_DEPTH: usize = 1024;
/// Bytes of a request at most: what every NBD server takes.
pub const MOST_BYTES: usize = 32 << 20;

/// The jobs that have a name, and the mission's count of each of its three.
pub const PRESETS: [&str; 7] = ["10k", "100k", "1m", "4k", "4k-qd32", "read-4k", "mix"];

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_endless(count: &u64) -> bool {
    *count == u64::MAX
}

impl Job {
    /// Synchronous writes, one at a time.
    #[must_use]
    pub fn writes(name: &str, bytes: usize, align: usize, count: u64) -> Self {
        Self {
            name: name.to_owned(),
            bytes,
            align,
            depth: 1,
            read_percent: 0,
            count,
            seconds: None,
            flush_every: None,
            rate: None,
        }
    }

    /// One of [`PRESETS`].
    #[must_use]
    pub fn preset(name: &str) -> Option<Self> {
        let job = |bytes, align, count| Self::writes(name, bytes, align, count);
        Some(match name {
            "10k" => job(10_240, BLOCK, 100_000),
            "100k" => job(102_400, BLOCK, 10_000),
            "1m" => job(1 << 20, BLOCK, 1_000),
            "4k" => job(4096, 4096, 50_000),
            "4k-qd32" => Self { depth: 32, ..job(4096, 4096, 200_000) },
            "read-4k" => Self { read_percent: 100, ..job(4096, 4096, 50_000) },
            "mix" => Self { depth: 8, read_percent: 70, ..job(4096, 4096, 100_000) },
            _ => return None,
        })
    }

    /// Whether there are writes in it.
    #[must_use]
    pub fn writes_something(&self) -> bool {
        self.read_percent < 100
    }

    /// Whether it can be done on a device of `span` bytes.
    ///
    /// # Errors
    /// With the value, and what would be right.
    pub fn check(&self, span: u64) -> Result<()> {
        let Self { bytes, align, depth, read_percent, flush_every, rate, seconds, .. } = self;
        let unit = |n: usize| n > 0 && n.is_multiple_of(BLOCK);
        ensure!(
            unit(*bytes) && *bytes <= MOST_BYTES,
            "requests of {bytes} bytes: a multiple of 512 up to {MOST_BYTES}"
        );
        ensure!(unit(*align), "offsets that are multiples of {align}: of a multiple of 512, please");
        ensure!((1..=MOST_DEPTH).contains(depth), "{depth} requests in flight: from 1 to {MOST_DEPTH}, please");
        ensure!(*read_percent <= 100, "{read_percent} % reads: from 0 to 100, please");
        ensure!(*flush_every != Some(0), "a FLUSH after 0 writes: after 1 or more, please");
        ensure!(rate.is_none_or(|r| r.is_finite() && r > 0.0), "{rate:?} requests a second: more than 0, please");
        ensure!(seconds.is_none_or(|s| s.is_finite() && s > 0.0), "{seconds:?} seconds: more than 0, please");
        // Requests in flight must not overlap, and have to find room by chance.
        let least = 4 * *depth as u64 * (*bytes as u64).next_multiple_of(*align as u64);
        ensure!(span >= least, "{span} bytes are used, too few for {depth} requests of {bytes} in flight: {least}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_sound_and_the_missions_are_at_full_count() {
        for name in PRESETS {
            Job::preset(name).unwrap().check(256 << 20).unwrap();
        }
        let mission: Vec<(usize, u64)> =
            ["10k", "100k", "1m"].iter().map(|n| Job::preset(n).unwrap()).map(|j| (j.bytes, j.count)).collect();
        assert_eq!(mission, [(10_240, 100_000), (102_400, 10_000), (1_048_576, 1_000)]);
        assert_eq!(Job::preset("5k"), None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let good = Job::writes("x", 4096, 512, 1);
        let words = |job: Job| job.check(1 << 20).unwrap_err().to_string();
        assert!(words(Job { bytes: 1000, ..good.clone() }).contains("requests of 1000 bytes"));
        assert!(words(Job { depth: 0, ..good.clone() }).contains("0 requests in flight"));
        assert!(words(Job { depth: 65, ..good.clone() }).contains("too few for 65 requests"));
        assert!(words(Job { rate: Some(0.0), ..good.clone() }).contains("requests a second"));
        assert!(words(Job { flush_every: Some(0), ..good }).contains("after 1 or more"));
    }
}
