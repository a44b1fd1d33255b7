//! The load, which runs in the client's guest on its block device (`lab-guest load`).

use std::cell::Cell;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use twinsan_chaos::load::Load;
use twinsan_chaos::verdict::Broken;
use twinsan_witness::ledger::Counts;

use super::world::DEVICE;
use crate::agent::{Job, tail};
use crate::guest::load::Summary;
use crate::load::{VERIFY, counts, summary};
use crate::topology::{Host, Lab};

/// It tells its count so often.
const TOLD: Duration = Duration::from_millis(100);

/// A load in the guest.
#[derive(Debug)]
pub(super) struct GuestLoad {
    job: Job,
    seen: Cell<Seen>,
    /// In the end.
    summary: Option<Summary>,
}

/// What it has told, and when that was looked at.
#[derive(Clone, Copy, Debug)]
struct Seen {
    looked: Instant,
    completed: u64,
    /// Since when that has not changed.
    since: Instant,
    /// The longest time without a change, since somebody asked: what a pause is to all threads, and 0.1 s more.
    longest: Duration,
}

impl GuestLoad {
    /// Begins.
    ///
    /// # Errors
    /// If the client's guest is gone.
    pub(super) fn start(lab: &Lab) -> Result<Self> {
        let command = format!("exec /lab/bin/lab-guest load {DEVICE} --rest-ms 5");
        let job = lab.node(Host::Client).spawn("load", &command)?;
        let now = Instant::now();
        let seen = Seen { looked: now, completed: 0, since: now, longest: Duration::ZERO };
        Ok(Self { job, seen: Cell::new(seen), summary: None })
    }

    fn seen(&self) -> Seen {
        let mut seen = self.seen.get();
        if seen.looked.elapsed() < TOLD {
            return seen;
        }
        seen.looked = Instant::now();
        let last = counts(&self.job.said()).next_back();
        seen.longest = seen.longest.max(seen.since.elapsed());
        if last.is_some_and(|last| last > seen.completed) {
            seen.completed = last.unwrap_or_default();
            seen.since = Instant::now();
        }
        self.seen.set(seen);
        seen
    }
}

impl Load for GuestLoad {
    fn completed(&self) -> u64 {
        self.seen().completed
    }

    fn longest(&self) -> Duration {
        let seen = self.seen();
        self.seen.set(Seen { longest: Duration::ZERO, ..seen });
        seen.longest
    }

    /// It compares every read, and ends at the first request that fails.
    fn judge(&self) -> Result<(), Broken> {
        match &self.summary {
            Some(summary) if summary.lost_blocks > 0 => {
                Err(Broken::Promise(format!("{} blocks of completed writes are missing", summary.lost_blocks)))
            }
            Some(_) => Ok(()),
            None if self.job.is_running() => Ok(()),
            None => Err(Broken::Request(tail(&self.job.said()))),
        }
    }

    /// The device outlives its client.
    fn next_session(&mut self) -> Result<(), Broken> {
        Ok(())
    }

    fn has_fresh(&self) -> bool {
        false
    }

    fn thirst(&mut self) -> Result<()> {
        bail!("the lab's disk is never full")
    }

    fn thirsts(&self) -> bool {
        false
    }

    fn quench(&mut self) -> Result<()> {
        Ok(())
    }

    /// It reads everything back when it ends.
    fn read_back(&mut self, _: &AtomicBool) -> Result<bool> {
        self.judge()?;
        Ok(self.summary.is_some())
    }

    fn stop(&mut self) {
        let end = || -> Result<Summary> {
            self.job.signal(libc::SIGTERM)?;
            summary(&self.job.wait(VERIFY)?)
        };
        // Without a summary it has failed, and `judge` says so.
        self.summary = end().context("the load").ok();
    }

    fn counts(&self) -> (Counts, u64) {
        let Summary { writes, reads, lost_blocks: lost, .. } = self.summary.clone().unwrap_or_default();
        (Counts { writes, reads, lost, ..Counts::default() }, u64::from(self.summary.is_none()))
    }
}
