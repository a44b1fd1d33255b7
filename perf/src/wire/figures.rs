//! What the rounds came to: one object for programs, one table for people.

use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::Row;
use super::ping::Run;

/// Microseconds, of the shortest to the longest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Times {
    /// Rounds that count.
    pub count: u64,
    /// The shortest.
    pub min_us: f64,
    /// The median.
    pub p50_us: f64,
    /// Nine in ten were as short.
    pub p90_us: f64,
    /// 99 in 100.
    pub p99_us: f64,
    /// 999 in 1000.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
}

impl Times {
    /// To three digits.
    ///
    /// # Panics
    /// Never: the histogram's bounds are constants.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    pub fn of(times: &[Duration]) -> Self {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 600_000_000_000, 3).expect("constant bounds");
        for time in times {
            histogram.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        }
        let us = |q: f64| histogram.value_at_quantile(q) as f64 / 1000.0;
        Self {
            count: histogram.len(),
            min_us: us(0.0),
            p50_us: us(0.5),
            p90_us: us(0.9),
            p99_us: us(0.99),
            p999_us: us(0.999),
            max_us: us(1.0),
        }
    }
}

/// One line.
#[derive(Clone, Debug, Serialize)]
pub struct RowFigures {
    /// [`Row::name`].
    pub row: &'static str,
    /// Payload bytes; 0 where there is none.
    pub bytes: u32,
    /// Of the whole round trip.
    #[serde(flatten)]
    pub round_trip: Times,
    /// Half of the median, where both halves are alike.
    pub one_way_us: Option<f64>,
    /// Rounds whose whole payload was compared.
    pub checked: u64,
    /// The same in bare verbs, where there are any.
    pub raw: Option<Raw>,
}

/// What the same round trip takes in bare verbs.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Raw {
    /// Of the whole round trip.
    #[serde(flatten)]
    pub round_trip: Times,
    /// Our median over its.
    pub ratio: f64,
}

impl RowFigures {
    /// Of a line's rounds.
    #[must_use]
    pub fn new(row: Row, bytes: u32, run: &Run) -> Self {
        let round_trip = Times::of(&run.times);
        let one_way_us = row.is_symmetric().then_some(round_trip.p50_us / 2.0);
        Self { row: row.name(), bytes, round_trip, one_way_us, checked: run.checked, raw: None }
    }
}

/// A run.
#[derive(Clone, Debug, Serialize)]
pub struct Wire {
    /// The address that was connected to.
    pub fabric: String,
    /// Both ends were threads of this process.
    pub both_ends_here: bool,
    /// How long both ends poll before they sleep.
    pub spin_us: u64,
    /// Line by line.
    pub rows: Vec<RowFigures>,
    /// From the connection to the last line.
    pub seconds: f64,
}

impl Wire {
    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut t = String::new();
        let here = if self.both_ends_here { ", both ends in this process" } else { "" };
        let _ = writeln!(t, "\n  Round trips over {}{here}", self.fabric);
        let _ = writeln!(t, "  {} µs of polling before sleeping; microseconds\n", self.spin_us);
        let _ = writeln!(t, "  {}", header());
        let line = "─".repeat(106);
        let mut before = "";
        for row in &self.rows {
            if row.row != before {
                let _ = writeln!(t, "  {line}");
            }
            let _ = writeln!(t, "  {}", line_of(row, before));
            if let Some(Raw { round_trip, ratio }) = &row.raw {
                let beside = format!("× {ratio:.2}");
                let _ = writeln!(t, "  {}", columns("", "raw verbs", round_trip, &beside));
            }
            before = row.row;
        }
        let checked: u64 = self.rows.iter().map(|row| row.checked).sum();
        let _ = writeln!(t, "  {line}");
        let _ = writeln!(
            t,
            "  one way: half of the median where both halves are alike. {checked} payloads compared in full; \
             {:.0} s.",
            self.seconds
        );
        t
    }
}

fn header() -> String {
    format!(
        "{:15}{:>9}{:>9}{:>10}{:>10}{:>10}{:>10}{:>10}{:>11}{:>11}",
        "round trip", "bytes", "rounds", "min", "p50", "p90", "p99", "p99.9", "max", "one way"
    )
}

fn line_of(row: &RowFigures, before: &str) -> String {
    let name = if row.row == before { "" } else { row.row };
    let bytes = if row.bytes == 0 { "-".to_owned() } else { row.bytes.to_string() };
    let one_way = row.one_way_us.map_or("-".to_owned(), |us| format!("{us:.1}"));
    columns(name, &bytes, &row.round_trip, &one_way)
}

fn columns(name: &str, bytes: &str, r: &Times, last: &str) -> String {
    format!(
        "{name:15}{bytes:>9}{:>9}{:>10.1}{:>10.1}{:>10.1}{:>10.1}{:>10.1}{:>11.1}{last:>11}",
        r.count, r.min_us, r.p50_us, r.p90_us, r.p99_us, r.p999_us, r.max_us
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(us: impl Iterator<Item = u64>) -> Run {
        Run { times: us.map(Duration::from_micros).collect(), checked: 3 }
    }

    #[test]
    fn percentiles_are_those_of_the_times() {
        let times = Times::of(&run(1..=1000).times);
        assert_eq!(times.count, 1000);
        for (found, right) in [(times.min_us, 1.0), (times.p50_us, 500.0), (times.p90_us, 900.0), (times.p99_us, 990.0)]
        {
            assert!((found - right).abs() <= right * 0.002, "{found} is not {right}");
        }
        assert!((times.max_us - 1000.0).abs() < 1.0);
    }

    #[test]
    fn only_alike_halves_are_halved() {
        let figures = |row| RowFigures::new(row, 0, &run([10, 10, 10].into_iter())).one_way_us;
        let half = figures(Row::Ack).unwrap();
        assert!((half - 5.0).abs() < 0.01, "{half}");
        assert_eq!(figures(Row::Blob), None);
        assert_eq!(figures(Row::Read), None);
    }

    #[test]
    fn the_table_has_a_line_for_each_row() {
        let row = |row, bytes| RowFigures::new(row, bytes, &run([1234].into_iter()));
        let mut with_raw = row(Row::Read, 4096);
        with_raw.raw = Some(Raw { round_trip: with_raw.round_trip, ratio: 1.25 });
        let wire = Wire {
            fabric: "tcp://san1:7".into(),
            both_ends_here: false,
            spin_us: 100,
            rows: vec![row(Row::Ack, 0), row(Row::Read, 64), with_raw],
            seconds: 1.0,
        };
        let table = wire.table();
        assert!(table.contains("tcp://san1:7") && table.contains("100 µs of polling"), "{table}");
        let of = |start: &str| table.lines().filter(|line| line.trim_start().starts_with(start)).count();
        assert_eq!((of("ack"), of("read"), of("4096")), (1, 1, 1), "{table}");
        assert!(table.contains("raw verbs") && table.contains("× 1.25"), "{table}");
        assert!(table.contains("9 payloads compared"), "{table}");
    }
}
