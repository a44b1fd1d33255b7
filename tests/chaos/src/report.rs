//! What a run came to: one object for programs, one table for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::{Duration, Instant};

use serde::Serialize;
use twinsan_witness::ledger::Counts;

use crate::memory::Memory;
use crate::verdict::Verdict;
use crate::world::{Program, Sabotage};

/// Everything that was found out.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Of the faults.
    pub seed: u64,
    /// From the first process to the verdict.
    pub seconds: f64,
    /// Rounds that began and ended with all well.
    pub rounds: u64,
    /// Writes that completed.
    pub writes: u64,
    /// Reads that completed and were judged.
    pub reads: u64,
    /// Writes whose end nobody knows, as their client was killed.
    pub unknown: u64,
    /// Requests that were answered with an error.
    pub failed: u64,
    /// Blocks (4 KiB) of which a completed write is missing.
    pub lost: u64,
    /// Blocks of which a read found something older than a read before it.
    pub gone_back: u64,
    /// Blocks that held nobody's write.
    pub corrupt: u64,
    /// How often all was read back.
    pub read_back: u64,
    /// Faults that happened, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Faults that did not happen: they would have cost both members' RAM, or had nobody to strike.
    pub skipped: u64,
    /// How often another node became the primary.
    pub failovers: u64,
    /// Nodes that were killed by the other one's fence.
    pub fenced: u64,
    /// Starts of a node that failed, and were tried again.
    pub start_failures: u64,
    /// The longest request, in ms: where a fault was alone in its round by its kind, else "several at once"; "none": between
    /// the rounds.
    pub pauses: Pauses,
    /// Of each program.
    pub memory: BTreeMap<String, Memory>,
    /// What was done to the disk on purpose.
    pub sabotage: Option<Sabotage>,
    /// How it ended.
    pub verdict: Verdict,
    /// In words, unless all was kept.
    pub words: String,
    /// Everything that may help to find out why.
    #[serde(skip)]
    pub evidence: String,
    /// The folder with the evidence and all logs.
    pub kept: Option<std::path::PathBuf>,
}

/// The longest request by what went on, in ms.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Pauses(BTreeMap<&'static str, f64>);

impl Pauses {
    /// A round is over.
    pub fn saw(&mut self, kind: &'static str, pause: Duration) {
        let ms = pause.as_secs_f64() * 1000.0;
        let longest = self.0.entry(kind).or_default();
        *longest = longest.max(ms);
    }

    /// Of all, in ms.
    #[must_use]
    pub fn longest(&self) -> f64 {
        self.worst().1
    }

    /// What went on in the longest of all, and its ms.
    #[must_use]
    pub fn worst(&self) -> (&'static str, f64) {
        self.0.iter().map(|(&kind, &ms)| (kind, ms)).max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or(("none", 0.0))
    }
}

impl Report {
    /// The load's account, and the requests that were answered with an error.
    pub fn count(&mut self, (counts, failed): (Counts, u64)) {
        let Counts { writes, reads, unknown, lost, gone_back, corrupt } = counts;
        *self = Self { writes, reads, unknown, lost, gone_back, corrupt, failed, ..std::mem::take(self) };
    }

    /// All is as it has to be: sabotage was noticed where there was one, and nothing is wrong where there was none.
    #[must_use]
    pub fn is_well(&self) -> bool {
        match self.sabotage {
            None => self.verdict == Verdict::Kept,
            Some(_) => false,
        }
    }

    /// Sabotage, and it alone, was noticed.
    #[must_use]
    pub fn is_caught(&self) -> bool {
        self.sabotage.is_some() && self.verdict == Verdict::Broken && self.lost + self.gone_back + self.corrupt == 1
    }

    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut t = String::new();
        let line = "─".repeat(64);
        let _ = writeln!(t, "\n  {:34} {:>8} {:>18}\n  {line}", "fault", "times", "longest request");
        for (kind, count) in &self.faults {
            let _ = writeln!(t, "  {kind:34} {count:>8} {:>18}", pause(self.pauses.0.get(kind)));
        }
        for (kind, name) in [("several at once", "several at once"), ("none", "none, between the rounds")] {
            let _ = writeln!(t, "  {name:34} {:>8} {:>18}", "", pause(self.pauses.0.get(kind)));
        }
        let _ = writeln!(t, "  {line}");
        let _ = writeln!(t, "  {:12} {:>10} {:>10} {:>10} {:>10}", "MiB", "first", "last", "most", "growth");
        for (program, memory) in &self.memory {
            let Memory { first, last, most, growth, flat } = *memory;
            let [first, last, most, growth] = [first, last, most, growth].map(mib);
            let flat = if flat { "flat" } else { "GROWS" };
            let _ = writeln!(t, "  {program:12} {first:>10.1} {last:>10.1} {most:>10.1} {growth:>10.1}  {flat}");
        }
        let _ = writeln!(t, "  {line}");
        self.tail(&mut t);
        t
    }

    fn tail(&self, t: &mut String) {
        let mut row = |name: &str, value: String| {
            let _ = writeln!(t, "  {name:34} {value:>8}");
        };
        row("seed", self.seed.to_string());
        row("rounds", format!("{} in {:.0} s", self.rounds, self.seconds));
        row("failovers", self.failovers.to_string());
        row("killed by a fence", self.fenced.to_string());
        row("faults not allowed then", self.skipped.to_string());
        row("writes completed", self.writes.to_string());
        row("reads judged", self.reads.to_string());
        row("writes of unknown end", self.unknown.to_string());
        row("all read back, times", self.read_back.to_string());
        row("requests failed", self.failed.to_string());
        row("blocks lost", self.lost.to_string());
        row("blocks gone back", self.gone_back.to_string());
        row("blocks with nobody's bytes", self.corrupt.to_string());
        let _ = writeln!(t, "\n  {}", self.said());
        if let Some(kept) = &self.kept {
            let _ = writeln!(t, "  The evidence is in {}", kept.display());
        }
    }

    fn said(&self) -> String {
        if self.sabotage.is_some() {
            return match (self.is_caught(), self.verdict) {
                (true, _) => format!("Sabotage was caught: {}", self.words),
                (false, Verdict::Kept) => "ONE BLOCK WAS CHANGED ON PURPOSE AND NOT NOTICED.".into(),
                (false, _) => format!("It went wrong beyond what was done on purpose: {}", self.words),
            };
        }
        match self.verdict {
            Verdict::Kept => "Every completed write was there, and no read went back.".into(),
            Verdict::Ended => "Ended before its time; until then every completed write was there.".into(),
            Verdict::Broken => format!("A PROMISE WAS BROKEN: {}", self.words),
            Verdict::Failed | Verdict::Died | Verdict::Stuck => format!("FAILED: {}", self.words),
        }
    }
}

fn pause(ms: Option<&f64>) -> String {
    ms.map_or("only among others".into(), |ms| format!("{ms:.0} ms"))
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// A line that is written anew again and again on a terminal, and once in a while elsewhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    last: Option<Instant>,
}

/// Between two lines where there is no terminal.
const SELDOM: Duration = Duration::from_secs(30);

impl Progress {
    /// Shows where it is.
    pub fn show(&mut self, at: Duration, completed: u64, failovers: u64, longest_ms: f64, memory: [Option<u64>; 3]) {
        let terminal = std::io::stderr().is_terminal();
        if !terminal && self.last.is_some_and(|last| last.elapsed() < SELDOM) {
            return;
        }
        self.last = Some(Instant::now());
        let mut line = format!(
            "{:5.0} s  {completed} requests  {failovers} failovers  longest {longest_ms:.0} ms ",
            at.as_secs_f64()
        );
        for (program, bytes) in Program::ALL.into_iter().zip(memory) {
            if let Some(bytes) = bytes {
                let _ = write!(line, " {program} {:.0} MiB", mib(bytes));
            }
        }
        let _ = if terminal { write!(std::io::stderr(), "\r{line} ") } else { writeln!(std::io::stderr(), "{line}") };
    }

    /// The line stays.
    pub fn end(&self) {
        if self.last.is_some() && std::io::stderr().is_terminal() {
            let _ = writeln!(std::io::stderr());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(sabotage: Option<Sabotage>, verdict: Verdict, lost: u64) -> Report {
        Report { sabotage, verdict, lost, ..Report::default() }
    }

    #[test]
    fn only_a_kept_promise_without_sabotage_is_well() {
        assert!(report(None, Verdict::Kept, 0).is_well());
        for verdict in [Verdict::Broken, Verdict::Failed, Verdict::Died, Verdict::Stuck, Verdict::Ended] {
            assert!(!report(None, verdict, 0).is_well(), "{verdict:?}");
        }
        assert!(!report(Some(Sabotage::Undo), Verdict::Kept, 0).is_well());
    }

    #[test]
    fn sabotage_is_caught_if_it_alone_was_noticed() {
        assert!(report(Some(Sabotage::Undo), Verdict::Broken, 1).is_caught());
        assert!(!report(Some(Sabotage::Undo), Verdict::Broken, 2).is_caught());
        let unnoticed = report(Some(Sabotage::Corrupt), Verdict::Kept, 0);
        assert!(!unnoticed.is_caught() && unnoticed.table().contains("NOT NOTICED"));
        assert!(!report(None, Verdict::Broken, 1).is_caught());
    }
}
