//! The ladder's rungs: one object for programs, one table for people.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;

use super::file::Line;
use crate::wire::figures::Times;

/// One step of a write.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rung {
    /// Its name.
    pub name: &'static str,
    /// What happens in it.
    pub what: &'static str,
    /// Mean over all writes but the slowest hundredth, in microseconds: the rungs' means add up to the whole's.
    pub mean_us: f64,
    /// Median in microseconds.
    pub p50_us: f64,
    /// 99th percentile in microseconds.
    pub p99_us: f64,
}

/// One payload size.
#[derive(Clone, Debug, Serialize)]
pub struct Size {
    /// Bytes of one write.
    pub bytes: u32,
    /// From the caller's write to its return.
    pub whole: Times,
    /// The whole's mean over all writes but the slowest hundredth, in microseconds.
    pub whole_mean_us: f64,
    /// In the order in which a write goes through them.
    pub rungs: Vec<Rung>,
    /// The three raw hops of the same fabric without our protocol, one way each, in microseconds: what the links' rung can't
    /// go below.
    pub links_floor_us: f64,
    /// How long the primary waited for the ACK, from when it took the descriptor; in the links' rung already. Median in
    /// microseconds.
    pub primary_waited_p50_us: Option<f64>,
}

/// A run.
#[derive(Clone, Debug, Serialize)]
pub struct Ladder {
    /// What the pair talks by.
    pub fabric: String,
    /// Payload CRCs.
    pub integrity: bool,
    /// How long every loop polls at most before it sleeps, in microseconds.
    pub spin_us: u64,
    /// Who served.
    pub primary: String,
    /// Slices of each size.
    pub rounds: usize,
    /// Size by size.
    pub sizes: Vec<Size>,
}

const RUNGS: [(&str, &str); 7] = [
    ("NBD socket", "caller → client and back: two system calls and wake-ups each"),
    ("receive", "the request's payload, from the socket into the ring"),
    ("post", "commit, payload CRC32C, descriptors, a doorbell for each node"),
    ("links", "client → secondary → primary → client, payload copies and wake-ups included"),
    ("secondary", "descriptor taken → ACK left: payload CRC32C, index, the machine"),
    ("primary", "ACK come → completion left"),
    ("reply", "completion come → reply in the socket"),
];

impl Size {
    pub(super) fn new(
        bytes: u32,
        pairs: &[(Duration, &Line)],
        blobs: &[Duration],
        mailboxes: &[Duration],
    ) -> Result<Self> {
        ensure!(!pairs.is_empty(), "no write of {bytes} bytes was measured");
        let mut steps: Vec<(u64, [u64; 7])> = pairs.iter().map(|&(whole, line)| steps(whole, line)).collect();
        let waited: Vec<Duration> =
            pairs.iter().filter_map(|(_, line)| line.primary_ack.map(Duration::from_nanos)).collect();
        let whole: Vec<Duration> = pairs.iter().map(|&(whole, _)| whole).collect();
        // A few that met a scheduler's slice would be all of a mean.
        steps.sort_unstable();
        steps.truncate((steps.len() * 99).div_ceil(100));
        let rungs = (0..RUNGS.len()).map(|rung| {
            let (name, what) = RUNGS[rung];
            let times: Vec<u64> = steps.iter().map(|(_, parts)| parts[rung]).collect();
            let spread = Times::of(&times.iter().copied().map(Duration::from_nanos).collect::<Vec<_>>());
            Rung { name, what, mean_us: mean_us(&times), p50_us: spread.p50_us, p99_us: spread.p99_us }
        });
        let half = |times: &[Duration]| Times::of(times).p50_us / 2.0;
        Ok(Self {
            bytes,
            whole: Times::of(&whole),
            whole_mean_us: mean_us(&steps.iter().map(|&(whole, _)| whole).collect::<Vec<_>>()),
            rungs: rungs.collect(),
            links_floor_us: half(blobs) + 2.0 * half(mailboxes),
            primary_waited_p50_us: (!waited.is_empty()).then(|| Times::of(&waited).p50_us),
        })
    }
}

/// The rungs of one write; they add up to the whole.
fn steps(whole: Duration, line: &Line) -> (u64, [u64; 7]) {
    let whole = u64::try_from(whole.as_nanos()).unwrap_or(u64::MAX);
    let client = line.receive + line.post + line.flight + line.reply;
    let completion = line.primary_completion.unwrap_or(0);
    // If the ACK was there before the primary had taken the blob, nobody waited for the secondary.
    let (secondary, primary) = match (line.secondary_ack, line.primary_ack) {
        (Some(secondary), Some(ack)) => (secondary, completion.saturating_sub(ack)),
        (_, _) => (0, completion),
    };
    let (secondary, primary) = (secondary.min(line.flight), primary.min(line.flight));
    let links = line.flight.saturating_sub(secondary + primary);
    let socket = whole.saturating_sub(client);
    (whole, [socket, line.receive, line.post, links, secondary, primary, line.reply])
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn mean_us(times: &[u64]) -> f64 {
    times.iter().sum::<u64>() as f64 / times.len().max(1) as f64 / 1000.0
}

impl Ladder {
    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut t = String::new();
        let crc = if self.integrity { "with payload CRCs" } else { "without payload CRCs" };
        let _ = writeln!(
            t,
            "\n  Where the microseconds of a synchronous write go: {} {crc}, {} rounds",
            self.fabric, self.rounds
        );
        let _ =
            writeln!(t, "  one write at a time, NBD socket; {} µs of polling at most before sleeping\n", self.spin_us);
        for size in &self.sizes {
            size.table(&mut t);
        }
        t.push_str("  Means leave out the slowest hundredth of the writes, and add up; medians need not.\n");
        t
    }
}

impl Size {
    fn table(&self, t: &mut String) {
        let _ = writeln!(t, "  {} bytes, {} writes", self.bytes, self.whole.count);
        let _ = writeln!(t, "  {:12} {:>9} {:>9} {:>9}", "", "mean µs", "p50 µs", "p99 µs");
        for Rung { name, what, mean_us, p50_us, p99_us } in &self.rungs {
            let bar = bar(mean_us / self.whole_mean_us.max(f64::MIN_POSITIVE));
            let _ = writeln!(t, "  {name:12} {mean_us:>9.1} {p50_us:>9.1} {p99_us:>9.1}  {bar:20} {what}");
        }
        let Times { p50_us, p99_us, .. } = self.whole;
        let _ = writeln!(t, "  {:12} {:>9.1} {p50_us:>9.1} {p99_us:>9.1}", "whole", self.whole_mean_us);
        let _ = writeln!(
            t,
            "  {:12} {:>9} {:>9.1}            the links' raw hops, without us",
            "floor", "", self.links_floor_us
        );
        if let Some(waited) = self.primary_waited_p50_us {
            let _ = writeln!(
                t,
                "  {:12} {:>9} {waited:>9.1}            the primary for the ACK (in the links)",
                "waited", ""
            );
        }
        t.push('\n');
    }
}

/// A share, drawn.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of twenty")]
fn bar(share: f64) -> String {
    "█".repeat((share.clamp(0.0, 1.0) * 20.0).round() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: Line = Line {
        bytes: 4096,
        receive: 1000,
        post: 2000,
        flight: 20_000,
        reply: 3000,
        primary_ack: Some(12_000),
        primary_completion: Some(12_500),
        secondary_ack: Some(700),
    };

    #[test]
    fn the_rungs_add_up_to_the_whole() {
        let (whole, parts) = steps(Duration::from_nanos(31_000), &LINE);
        assert_eq!(parts, [5000, 1000, 2000, 18_800, 700, 500, 3000]);
        assert_eq!(parts.iter().sum::<u64>(), whole);
    }

    #[test]
    fn an_ack_that_was_there_first_was_not_waited_for() {
        let line = Line { primary_ack: None, ..LINE };
        let (whole, parts) = steps(Duration::from_nanos(31_000), &line);
        assert_eq!(parts, [5000, 1000, 2000, 7500, 0, 12_500, 3000]);
        assert_eq!(parts.iter().sum::<u64>(), whole);
    }

    #[test]
    fn one_slow_write_in_a_hundred_is_in_the_percentiles_only() {
        let quick = (Duration::from_micros(31), &LINE);
        let slow = (Duration::from_millis(31), &LINE);
        let mut pairs = vec![quick; 99];
        pairs.push(slow);
        let hop = [Duration::from_micros(4)];
        let size = Size::new(4096, &pairs, &hop, &hop).unwrap();
        assert!((size.whole_mean_us - 31.0).abs() < 0.01, "{}", size.whole_mean_us);
        assert!(size.whole.max_us > 30_000.0);
        assert!((size.links_floor_us - 6.0).abs() < 0.1, "{}", size.links_floor_us);
        let sum: f64 = size.rungs.iter().map(|rung| rung.mean_us).sum();
        assert!((sum - size.whole_mean_us).abs() < 0.01, "{sum}");
    }
}
