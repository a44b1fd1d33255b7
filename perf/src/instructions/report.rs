//! What the nodes executed.

use std::fmt::Write as _;

use serde::Serialize;

/// A figure by round.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Half of the rounds lie below.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
}

impl Spread {
    /// Of at least one round.
    #[must_use]
    pub fn of(rounds: &[f64]) -> Self {
        let mut sorted = rounds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |i: usize| sorted.get(i).copied().unwrap_or(f64::NAN);
        Self { median: at(sorted.len() / 2), least: at(0), most: at(sorted.len().wrapping_sub(1)) }
    }
}

/// One node.
#[derive(Clone, Debug, Serialize)]
pub struct Node {
    /// Its name.
    pub name: &'static str,
    /// What it did.
    pub role: &'static str,
    /// User instructions a second without blobs.
    pub idle_per_second: Spread,
    /// User instructions for a blob of 4 KiB.
    pub per_4kib_blob: Spread,
    /// User instructions for a blob of 1 MiB.
    pub per_1mib_blob: Spread,
    /// The one median over the other.
    pub ratio: f64,
}

impl Node {
    /// From each round's figures.
    #[must_use]
    pub fn new(name: &'static str, role: &'static str, idle: &[f64], small: &[f64], large: &[f64]) -> Self {
        let (per_4kib_blob, per_1mib_blob) = (Spread::of(small), Spread::of(large));
        let ratio = per_1mib_blob.median / per_4kib_blob.median;
        Self { name, role, idle_per_second: Spread::of(idle), per_4kib_blob, per_1mib_blob, ratio }
    }
}

/// A run.
#[derive(Clone, Debug, Serialize)]
pub struct Instructions {
    /// What the pair talked by.
    pub fabric: String,
    /// Blobs in a slice.
    pub blobs: u64,
    /// From one to the next, in milliseconds.
    pub pace_ms: u64,
    /// Slices of each size.
    pub rounds: usize,
    /// The primary, the secondary.
    pub nodes: Vec<Node>,
}

impl Instructions {
    /// Whether no node's ratio is above the limit. What was not measured is above every limit.
    #[must_use]
    pub fn is_kept(&self, limit: Option<f64>) -> bool {
        limit.is_none_or(|limit| !self.nodes.is_empty() && self.nodes.iter().all(|node| node.ratio <= limit))
    }

    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut t = String::new();
        let _ = writeln!(
            t,
            "\n  User instructions of a node per blob over {}, without payload CRCs (callgrind)",
            self.fabric
        );
        let _ = writeln!(
            t,
            "  {} rounds of {} blobs, one every {} ms; median (least to most), idle time taken off\n",
            self.rounds, self.blobs, self.pace_ms
        );
        let _ = writeln!(t, "  {:20}{:>30}{:>30}{:>9}", "node", "per 4 KiB blob", "per 1 MiB blob", "ratio");
        let line = "─".repeat(89);
        let _ = writeln!(t, "  {line}");
        let words = |s: Spread| format!("{:.0} ({:.0} to {:.0})", s.median, s.least, s.most);
        for node in &self.nodes {
            let who = format!("{} {}", node.role, node.name);
            let (small, large) = (words(node.per_4kib_blob), words(node.per_1mib_blob));
            let _ = writeln!(t, "  {who:20}{small:>30}{large:>30}{:>9.3}", node.ratio);
            let _ = writeln!(t, "  {:20}{:.0} a second without blobs", "", node.idle_per_second.median);
        }
        let _ = writeln!(t, "  {line}");
        t
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(large: f64) -> Instructions {
        let node = |role| Node::new("san1", role, &[100.0], &[10.0, 30.0, 20.0], &[large]);
        let nodes = vec![node("primary"), node("secondary")];
        Instructions { fabric: "tcp".into(), blobs: 5, pace_ms: 20, rounds: 3, nodes }
    }

    #[test]
    fn the_ratio_is_of_medians() {
        let node = &result(22.0).nodes[0];
        assert_eq!(node.per_4kib_blob, Spread { median: 20.0, least: 10.0, most: 30.0 });
        assert!((node.ratio - 1.1).abs() < 1e-9);
        let table = result(22.0).table();
        for words in ["20 (10 to 30)", "1.100", "secondary san1", "over tcp"] {
            assert!(table.contains(words), "{words}: {table}");
        }
    }

    #[test]
    fn a_limit_is_kept_by_both_or_by_none() {
        assert!(result(22.0).is_kept(Some(1.1 + 1e-9)) && result(1000.0).is_kept(None));
        assert!(!result(23.0).is_kept(Some(1.1)));
        assert!(!result(f64::NAN).is_kept(Some(1.1)), "nothing measured");
        assert!(!Instructions { nodes: Vec::new(), ..result(1.0) }.is_kept(Some(1.1)));
    }
}
