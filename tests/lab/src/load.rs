//! `lab-guest load` on the client, as the launcher sees it.

use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::agent::{Job, tail};
use crate::guest::load::{Line, Summary};
use crate::pair::PATIENCE;
use crate::topology::{Host, Lab};

/// A running load.
#[derive(Debug)]
pub struct Load {
    job: Job,
    kind: Kind,
}

/// What is sent to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Writes and reads, one after the other, as fast as they complete.
    Full,
    /// Writes only, at most 80 a second: a lane of 64 MiB and 1024 blobs holds them for over 12 s.
    Paced,
}

impl Kind {
    /// For `lab-guest load`.
    const fn arguments(self) -> &'static str {
        match self {
            Self::Full => "",
            Self::Paced => " --writes-only --rest-ms 25",
        }
    }
}

/// Reading everything back takes a while.
const VERIFY: Duration = Duration::from_secs(180);

impl Load {
    /// Begins to write to a block device of the client's.
    ///
    /// # Errors
    /// If the client is gone.
    pub fn start(lab: &Lab, device: &str) -> Result<Self> {
        Self::start_kind(lab, device, Kind::Full)
    }

    /// The same with another kind of load.
    ///
    /// # Errors
    /// The same.
    pub fn start_kind(lab: &Lab, device: &str, kind: Kind) -> Result<Self> {
        let command = format!("exec /lab/bin/lab-guest load {device}{}", kind.arguments());
        Ok(Self { job: lab.node(Host::Client).spawn("load", &command)?, kind })
    }

    /// Requests completed so far.
    #[must_use]
    pub fn completed(&self) -> u64 {
        completed(&self.job.said()).unwrap_or(0)
    }

    /// Waits for `more` further completions: the volume serves.
    ///
    /// # Errors
    /// If they don't come, or a request failed.
    pub fn goes_on(&self, more: u64) -> Result<()> {
        let goal = self.completed() + more;
        let what = format!("{goal} requests have completed");
        self.job.wait_for(&what, PATIENCE, |said| completed(said).filter(|&n| n >= goal).map(|_| ()))
    }

    /// Ends it, and checks that every completed write is there.
    ///
    /// # Errors
    /// If a request failed, or a write is lost.
    pub fn end_and_check(self) -> Result<Summary> {
        self.job.signal(libc::SIGTERM)?;
        let output = self.job.wait(VERIFY)?;
        let last = output.text.lines().rev().find_map(|line| serde_json::from_str(line).ok());
        let Some(Line::Done(summary)) = last else {
            bail!("the load ended with {}: {}", output.code, tail(&output.text));
        };
        ensure!(summary.lost_blocks == 0, "completed writes are lost: {}", tail(&output.text));
        ensure!(output.code == 0, "the load ended with {}", output.code);
        let reads = summary.reads > 0 || self.kind == Kind::Paced;
        ensure!(summary.writes > 0 && reads, "the load did nothing: {summary:?}");
        Ok(summary)
    }
}

/// The last count in what it said.
fn completed(said: &str) -> Option<u64> {
    said.lines().rev().find_map(|line| match serde_json::from_str(line) {
        Ok(Line::Progress { completed }) => Some(completed),
        _ => None,
    })
}

impl Summary {
    /// For the report: the pauses, or the longest request where there was none.
    #[must_use]
    pub fn note(&self) -> String {
        let pauses: Vec<String> = self.pauses_ms.iter().map(ToString::to_string).collect();
        let pauses = match pauses.as_slice() {
            [] => format!("no pause (longest request {} ms)", self.longest_ms),
            pauses => format!("paused {} ms", pauses.join(" + ")),
        };
        format!("{pauses}; {} writes, {} reads", self.writes, self.reads)
    }
}
