//! What a durable write and its hops came to.

use std::fmt::Write as _;

use serde::Serialize;

use super::Way;
use crate::bench::result::Ratio;
use crate::wire::figures::Times;

/// One raw hop.
#[derive(Clone, Debug, Serialize)]
pub struct Hop {
    /// What goes.
    pub name: &'static str,
    /// From whom to whom.
    pub way: String,
    /// The kind of round trip that was measured.
    pub row: &'static str,
    /// Half of its median.
    pub one_way_us: f64,
    /// All of it.
    pub round_trip: Times,
}

/// One payload size.
#[derive(Clone, Debug, Serialize)]
pub struct Size {
    /// Payload bytes.
    pub bytes: u32,
    /// Writes through the whole path.
    pub durable: Times,
    /// The three.
    pub hops: Vec<Hop>,
    /// Of their one-way medians.
    pub sum_us: f64,
    /// The durable median over that sum.
    pub ratio: f64,
    /// The same by round: of the slices' own medians.
    pub by_round: Ratio,
}

/// A run.
#[derive(Clone, Debug, Serialize)]
pub struct Hops {
    /// The volume.
    pub volume: String,
    /// The listeners, by node.
    pub wire: [Way; 2],
    /// Who served.
    pub primary: String,
    /// Who mirrored.
    pub secondary: String,
    /// How long every loop polls before it sleeps.
    pub spin_us: u64,
    /// Payloads of durable writes carry CRCs, which raw hops never do.
    pub integrity: bool,
    /// Slices of each kind.
    pub rounds: usize,
    /// Slices of raw hops that were made again, as their connection broke.
    pub broken: u32,
    /// Size by size.
    pub sizes: Vec<Size>,
}

impl Hops {
    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut t = String::new();
        let crc = if self.integrity { "with payload CRCs" } else { "without payload CRCs" };
        let _ =
            writeln!(t, "\n  Durable writes and their raw hops: volume {}, {crc}, {} rounds", self.volume, self.rounds);
        let _ = writeln!(
            t,
            "  primary {}, secondary {}; {} µs of polling before sleeping, everywhere; microseconds\n",
            self.primary, self.secondary, self.spin_us
        );
        let columns = ["one way", "p50", "p90", "p99", "p99.9", "max"].map(|column| format!("{column:>10}")).concat();
        let _ = writeln!(t, "  {:>8}  {:22}{:22}{:>8}{columns}", "bytes", "", "", "rounds");
        let line = "─".repeat(122);
        for size in &self.sizes {
            let _ = writeln!(t, "  {line}");
            let _ = writeln!(t, "  {:>8}  {:44}{}", size.bytes, "durable write", columns_of(None, &size.durable));
            for hop in &size.hops {
                let way = format!("  {:22}{:20}", hop.name, hop.way);
                let _ = writeln!(t, "  {:>8}  {way}{}", "", columns_of(Some(hop.one_way_us), &hop.round_trip));
            }
            let _ = writeln!(t, "  {:>8}  {:44}{:>8}{:>10.1}", "", "  sum of the hops", "", size.sum_us);
            let Ratio { median, least, most, .. } = size.by_round;
            let _ = writeln!(
                t,
                "  {:>8}  ▶ durable p50 / sum: {:.2} (by round: median {median:.2}, {least:.2} to {most:.2})",
                "", size.ratio
            );
        }
        let _ = writeln!(t, "  {line}");
        let _ = writeln!(t, "  hops: round trips, and half of their median. Every durable write was read back.");
        if self.broken > 0 {
            let _ = writeln!(t, "  connections of raw hops that broke: {}; their slices were made again.", self.broken);
        }
        t
    }
}

fn columns_of(one_way: Option<f64>, times: &Times) -> String {
    let one_way = one_way.map_or(String::new(), |us| format!("{us:.1}"));
    let Times { count, p50_us, p90_us, p99_us, p999_us, max_us, .. } = times;
    format!("{count:>8}{one_way:>10}{p50_us:>10.1}{p90_us:>10.1}{p99_us:>10.1}{p999_us:>10.1}{max_us:>10.1}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_table_prints_hops_sum_and_ratio() {
        let times = |us: u64| Times::of(&[Duration::from_micros(us); 5]);
        let hop = |name, us: u64| Hop {
            name,
            way: "a → b".into(),
            row: "ack",
            one_way_us: f64::from(u32::try_from(us).unwrap()) / 2.0,
            round_trip: times(us),
        };
        let size = Size {
            bytes: 4096,
            durable: times(90),
            hops: vec![hop("payload + descriptor", 40), hop("ACK", 20), hop("completion", 20)],
            sum_us: 40.0,
            ratio: 2.25,
            by_round: Ratio::new(&[2.0, 2.2, 2.5], &[1.0; 3]),
        };
        let hops = Hops {
            volume: "db".into(),
            wire: ["x", "y"].map(|url| Way { client: url.into(), node: url.into() }),
            primary: "san1".into(),
            secondary: "san2".into(),
            spin_us: 100,
            integrity: false,
            rounds: 3,
            broken: 2,
            sizes: vec![size],
        };
        let table = hops.table();
        for word in [
            "durable p50 / sum: 2.25",
            "2.00 to 2.50",
            "without payload CRCs",
            "sum of the hops",
            "completion",
            "broke: 2",
        ] {
            assert!(table.contains(word), "{word}: {table}");
        }
    }
}
