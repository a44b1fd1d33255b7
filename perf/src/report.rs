//! The demo's result: one object for programs, one table for people.

use std::fmt::Write as _;

use serde::Serialize;

use crate::workload::Figures;

/// Everything that the demo found out.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Writes whose completion the program was told of, prefill included.
    pub writes_completed: u64,
    /// Of those, the ones that were not there at the end.
    pub writes_lost: u64,
    /// Primaries killed.
    pub failovers: u64,
    /// For each, the longest write around it, in milliseconds.
    pub pause_ms: Vec<f64>,
    /// Over the NBD socket while both nodes held every write.
    pub workloads: Vec<Figures>,
    /// The same after a failover, while one node was alone: every write waits for the disk.
    pub alone: Vec<Figures>,
    /// A plain file on the same filesystem, `O_DIRECT | O_DSYNC`.
    pub disk: Vec<Figures>,
    /// Disk p50 over ours, per workload: above 1 we are faster.
    pub speedup_p50: Vec<f64>,
    /// Payload bytes that the program wrote.
    pub bytes_written: u64,
    /// Bytes that the nodes wrote to the shared disk for it.
    pub bytes_flushed: u64,
    /// Blocks read back and compared.
    pub blocks_checked: u64,
    /// A completed write was corrupted on purpose.
    pub sabotaged: bool,
    /// Payload over time while the workloads ran: seconds from the first of them, and 10^6 bytes a second in steps of 100 ms.
    pub timeline: Vec<(f64, f64)>,
    /// What happened to the pair meanwhile, on the same axis.
    pub events: Vec<(f64, String)>,
    /// From the first process to the verdict.
    pub seconds: f64,
}

impl Report {
    /// What the figures say of the disk.
    pub fn compare(&mut self) {
        self.speedup_p50 = self.workloads.iter().zip(&self.disk).map(|(w, d)| d.p50_us / w.p50_us).collect();
    }

    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut t = String::new();
        let line = "─".repeat(86);
        let _ = writeln!(t, "\n  Synchronous writes, one at a time (NBD socket, FUA on each)\n");
        let _ = writeln!(
            t,
            "  {:8} {:26} {:>8} {:>9} {:>9} {:>9} {:>8}",
            "write", "on", "writes", "p50 µs", "p99 µs", "p99.9 µs", "MB/s"
        );
        let _ = writeln!(t, "  {line}");
        for (i, ours) in self.workloads.iter().enumerate() {
            row(&mut t, ours.name, "TwinSAN, two copies in RAM", ours);
            if let Some(alone) = self.alone.iter().find(|a| a.bytes == ours.bytes && a.count > 0) {
                row(&mut t, "", "TwinSAN, one node alone", alone);
            }
            if let (Some(disk), Some(ratio)) = (self.disk.get(i), self.speedup_p50.get(i)) {
                row(&mut t, "", "the disk, O_DIRECT|O_DSYNC", disk);
                let _ = writeln!(t, "  {:8} {}", "", verdict(*ratio));
            }
            let _ = writeln!(t, "  {line}");
        }
        self.tail(&mut t);
        t
    }

    fn tail(&self, t: &mut String) {
        let pauses: Vec<String> = self.pause_ms.iter().map(|p| format!("{p:.0} ms")).collect();
        let _ = writeln!(t, "  failovers          {} (SIGKILL of the primary in mid-load)", self.failovers);
        let _ = writeln!(t, "  pause at each      {}", pauses.join(", "));
        let _ = writeln!(t, "  writes completed   {}", self.writes_completed);
        let _ = writeln!(t, "  writes lost        {}", self.writes_lost);
        let _ = writeln!(t, "  blocks read back   {}", self.blocks_checked);
        let _ = writeln!(t, "  bytes written      {}", mib(self.bytes_written));
        let _ = writeln!(t, "  bytes flushed      {} to the shared disk", mib(self.bytes_flushed));
        let _ = writeln!(t, "  took               {:.0} s", self.seconds);
        let verdict = match (self.sabotaged, self.writes_lost) {
            (false, 0) => "Every completed write was there.".to_owned(),
            (false, n) => format!("{n} COMPLETED WRITES WERE LOST."),
            (true, 0) => "ONE BLOCK WAS CORRUPTED ON PURPOSE AND NOT NOTICED.".to_owned(),
            (true, n) => format!("Sabotage was caught: {n} completed write(s) did not read back."),
        };
        let _ = writeln!(t, "\n  {verdict}");
    }
}

fn row(t: &mut String, name: &str, on: &str, f: &Figures) {
    let _ = writeln!(
        t,
        "  {name:8} {on:26} {:>8} {:>9.0} {:>9.0} {:>9.0} {:>8.1}",
        f.count, f.p50_us, f.p99_us, f.p999_us, f.mb_per_s
    );
}

fn verdict(ratio: f64) -> String {
    if ratio >= 1.05 {
        format!("▶ at the median {ratio:.1} times as fast as this disk")
    } else if ratio > 0.95 {
        "▶ at the median as fast as this disk".to_owned()
    } else {
        format!("▶ this disk wins: at the median it is {:.1} times as fast", 1.0 / ratio)
    }
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(bytes: usize, p50_us: f64) -> Figures {
        Figures { name: "x", bytes, count: 9, p50_us, p99_us: 1.0, p999_us: 1.0, max_us: 1.0, mb_per_s: 1.0 }
    }

    #[test]
    fn says_who_wins() {
        let mut report = Report {
            workloads: vec![figures(1, 100.0), figures(2, 100.0)],
            disk: vec![figures(1, 250.0), figures(2, 50.0)],
            ..Report::default()
        };
        report.compare();
        let table = report.table();
        assert!(table.contains("2.5 times as fast as this disk"), "{table}");
        assert!(table.contains("this disk wins: at the median it is 2.0 times"), "{table}");
    }

    #[test]
    fn unnoticed_sabotage_is_no_success() {
        let report = Report { sabotaged: true, ..Report::default() };
        assert!(report.table().contains("NOT NOTICED"));
    }
}
