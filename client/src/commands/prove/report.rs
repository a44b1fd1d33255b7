//! What it came to.

use std::fmt;

use serde::Serialize;
use twinsan_control::Size;
use twinsan_witness::ledger::Counts;

/// The result. Field names are the JSON's.
#[derive(Clone, Debug, Serialize)]
pub struct Proof {
    /// The volume's name.
    pub volume: String,
    /// What it says, in one word.
    pub verdict: Verdict,
    /// How much of the volume was used.
    pub span_bytes: u64,
    /// How long the test ran.
    pub seconds: f64,
    /// Writes that completed.
    pub writes_completed: u64,
    /// Reads that completed, each compared; the last reading of everything is among them.
    pub reads_compared: u64,
    /// Requests that ended without an answer, as their client was killed: they may have happened or not.
    pub unknown: u64,
    /// Requests that were answered with an error.
    pub failed: u64,
    /// The first few of them.
    pub failures: Vec<String>,
    /// Blocks of 4096 bytes of which a completed write is missing.
    pub blocks_lost: u64,
    /// Blocks that a read found older than a read before it.
    pub blocks_gone_back: u64,
    /// Blocks that hold what nobody wrote.
    pub blocks_corrupt: u64,
    /// The longest that any request took.
    pub longest_ms: f64,
    /// What was done.
    pub rounds: Vec<RoundReport>,
    /// How the test ended, where it did not end by itself.
    pub why: Option<String>,
    /// The first few broken promises, with the last operations of each block.
    pub evidence: Vec<String>,
}

/// One kill.
#[derive(Clone, Debug, Serialize)]
pub struct RoundReport {
    /// From 1.
    pub round: u32,
    /// Who served before; `None`: no admin socket could be reached from here.
    pub primary_before: Option<String>,
    /// Who served after.
    pub primary_after: Option<String>,
    /// The client was killed too, or instead.
    pub client_ended: bool,
    /// The longest that a request took between the beginning of this round and the next one.
    pub longest_ms: f64,
    /// From when the volume went on until both nodes held everything again; `None`: nobody said.
    pub dual_after_ms: Option<f64>,
}

/// In one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// All rounds were gone through, and every promise was kept.
    Kept,
    /// A completed write is missing, a read went back, or a request failed.
    Broken,
    /// The volume stood still, or the pair did not come back.
    Stuck,
    /// It ended before its last round; until then every promise was kept.
    Interrupted,
}

impl Proof {
    /// What the ledger knows goes in.
    pub(super) fn count(&mut self, counts: Counts) {
        self.writes_completed = counts.writes;
        self.reads_compared = counts.reads;
        self.unknown = counts.unknown;
        self.blocks_lost = counts.lost;
        self.blocks_gone_back = counts.gone_back;
        self.blocks_corrupt = counts.corrupt;
        if !counts.all_kept() || self.failed > 0 {
            self.verdict = Verdict::Broken;
        }
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unknown = |name: &Option<String>| name.clone().unwrap_or_else(|| "?".to_owned());
        writeln!(f, "round  served by             client   longest request   both members again after")?;
        for r in &self.rounds {
            let served = format!("{} -> {}", unknown(&r.primary_before), unknown(&r.primary_after));
            let client = if r.client_ended { "killed" } else { "-" };
            let dual = r.dual_after_ms.map_or_else(|| "?".to_owned(), |ms| format!("{ms:.0} ms"));
            writeln!(f, "{:>5}  {served:<20}  {client:<6}  {:>13.0} ms   {dual:>24}", r.round, r.longest_ms)?;
        }
        writeln!(
            f,
            "\n{} writes completed, {} reads compared, in {:.0} s on {} of \"{}\"",
            self.writes_completed,
            self.reads_compared,
            self.seconds,
            Size(self.span_bytes),
            self.volume
        )?;
        if self.unknown > 0 {
            writeln!(f, "{} requests ended without an answer, as their client was killed", self.unknown)?;
        }
        writeln!(f, "longest request: {:.0} ms", self.longest_ms)?;
        for failure in &self.failures {
            writeln!(f, "failed: {failure}")?;
        }
        for evidence in &self.evidence {
            writeln!(f, "{evidence}")?;
        }
        if let Some(why) = &self.why {
            writeln!(f, "ended early: {why}")?;
        }
        match self.verdict {
            Verdict::Kept => write!(f, "KEPT: every completed write is there, no read went back, no request failed"),
            Verdict::Broken => write!(
                f,
                "BROKEN: {} blocks lost, {} gone back, {} corrupt; {} requests failed",
                self.blocks_lost, self.blocks_gone_back, self.blocks_corrupt, self.failed
            ),
            Verdict::Stuck => {
                write!(f, "STUCK: nothing that was read is wrong, but the volume or the pair did not go on")
            }
            Verdict::Interrupted => write!(f, "INTERRUPTED: until then every promise was kept"),
        }
    }
}
