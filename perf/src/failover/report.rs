//! What a failover costs, for people and for programs.

use std::fmt::Write as _;

use serde::Serialize;

/// All of it. Field names are the JSON's.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Failover {
    /// The volume's size.
    pub volume_bytes: u64,
    /// What pages each node's staging memory got.
    pub pages: [String; 2],
    /// How often the primary was killed with next to nothing staged.
    pub kills: usize,
    /// The longest that a write took around each of them.
    pub pause_ms: Option<Spread>,
    /// From the start of the killed node's process until both nodes were members.
    pub whole_again_ms: Option<Spread>,
    /// `takeover_budget_ms`: what is staged is bounded by what the disk takes in so long; 0: by the lane.
    pub budget_ms: u64,
    /// With full lanes, or as full as the budget allows.
    pub drains: Vec<Drain>,
}

/// Of many figures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Half are lower.
    pub p50: f64,
    /// 95 of 100 are no higher.
    pub p95: f64,
    /// The highest.
    pub max: f64,
}

/// One takeover with full lanes, and fio's turn after it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Drain {
    /// What the lanes held when the primary was killed.
    pub staged_bytes: u64,
    /// What of the disk was written: of blobs over the same blocks only the newest is.
    pub bytes: u64,
    /// From the first write to the flush of the disk's cache.
    pub ms: u64,
    /// The one over the other.
    pub mb_per_s: f64,
    /// fio's, with writes of the same size.
    pub fio_mb_per_s: f64,
}

impl Spread {
    /// Of at least one figure.
    ///
    /// # Panics
    /// Without any.
    #[must_use]
    pub fn of(mut figures: Vec<f64>) -> Self {
        figures.sort_by(f64::total_cmp);
        // The nearest rank: a figure that was measured, never one in between.
        let rank = |percent: usize| figures[(figures.len() * percent).div_ceil(100).max(1) - 1];
        Self { p50: rank(50), p95: rank(95), max: rank(100) }
    }
}

impl Drain {
    /// From what was measured.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    pub fn new(staged_bytes: u64, bytes: u64, ms: u64, fio_mb_per_s: f64) -> Self {
        Self { staged_bytes, bytes, ms, mb_per_s: bytes as f64 / 1e3 / ms.max(1) as f64, fio_mb_per_s }
    }

    /// Ours over fio's.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.mb_per_s / self.fio_mb_per_s
    }
}

impl Failover {
    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = String::new();
        let gib = self.volume_bytes >> 30;
        let _ = writeln!(out, "a volume of {gib} GiB; staging in pages: {} and {}", self.pages[0], self.pages[1]);
        if let (Some(pause), Some(whole)) = (self.pause_ms, self.whole_again_ms) {
            let _ = writeln!(
                out,
                "\n{} kills of the primary, next to nothing staged{:>15}{:>9}{:>9}",
                self.kills, "p50", "p95", "max"
            );
            for (name, spread) in [("the caller's pause, ms", pause), ("from restart to both members, ms", whole)] {
                let _ = writeln!(out, "  {name:<52}{:>9.1}{:>9.1}{:>9.1}", spread.p50, spread.p95, spread.max);
            }
        }
        if !self.drains.is_empty() {
            let lanes = match self.budget_ms {
                0 => "full lanes".to_owned(),
                ms => format!("a budget of {ms} ms"),
            };
            let _ = writeln!(out, "\n{lanes}: staged MiB   written MB    took ms   MB/s   fio's MB/s   ratio");
            for d in &self.drains {
                let (staged, written) = (d.staged_bytes >> 20, d.bytes / 1_000_000);
                let _ = writeln!(
                    out,
                    "{staged:>22}{written:>13}{:>11}{:>7.0}{:>13.0}{:>8.2}",
                    d.ms,
                    d.mb_per_s,
                    d.fio_mb_per_s,
                    d.ratio()
                );
            }
            let median = Spread::of(self.drains.iter().map(Drain::ratio).collect()).p50;
            let _ = writeln!(out, "median ratio {median:.2}");
            #[expect(clippy::cast_precision_loss, reason = "milliseconds")]
            let took = Spread::of(self.drains.iter().map(|drain| drain.ms as f64).collect());
            let _ = writeln!(out, "a drain took {:.0} ms (p50), {:.0} ms at most", took.p50, took.max);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_is_a_figure_that_was_measured() {
        let spread = Spread::of((1..=100).rev().map(f64::from).collect());
        assert_eq!(spread, Spread { p50: 50.0, p95: 95.0, max: 100.0 });
        assert_eq!(Spread::of(vec![7.0]), Spread { p50: 7.0, p95: 7.0, max: 7.0 });
    }

    #[test]
    fn the_table_says_what_was_measured() {
        let drain = Drain::new(64 << 20, 60_000_000, 200, 400.0);
        let spread = Some(Spread::of(vec![12.0, 14.0]));
        let result =
            Failover { kills: 2, pause_ms: spread, whole_again_ms: spread, drains: vec![drain], ..Failover::default() };
        let table = result.table();
        assert!(table.contains("2 kills") && table.contains("12.0") && table.contains("0.75"), "{table}");
        assert!(table.contains("full lanes") && table.contains("200 ms at most"), "{table}");
        let bounded = Failover { budget_ms: 300, ..result }.table();
        assert!(bounded.contains("a budget of 300 ms"), "{bounded}");
    }
}
