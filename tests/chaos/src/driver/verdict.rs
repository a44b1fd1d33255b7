//! How a run ends: what was broken, whether sabotage was noticed, and the evidence.

use std::fmt::Write as _;
use std::process::ExitStatus;
use std::time::Instant;

use anyhow::{Context, Result};
use thiserror::Error;
use twinsan_witness::ledger::{Ledger, UNIT};
use twinsan_witness::load::{Load, read_all};

use super::{Driver, LOAD_BYTES, RECOVERY};
use crate::random::Random;
use crate::report::Verdict;
use crate::world::{Program, Sabotage, San, World};

/// What ends a run before its time.
#[derive(Debug, Error)]
pub enum Broken {
    /// A completed write is missing, or a read went back.
    #[error("{0}")]
    Promise(String),
    /// The load was told of an error.
    #[error("{0} requests were answered with an error")]
    Failed(u64),
    /// A request of the driver's own was.
    #[error("a request has failed: {0}")]
    Request(String),
    /// A program ended as nobody wanted it.
    #[error("{0} has ended by itself ({1})")]
    Died(Program, ExitStatus),
    /// The volume does not come back.
    #[error("stuck: {0}")]
    Stuck(String),
    /// Somebody wants to end it.
    #[error("told to end")]
    Told,
}

impl Broken {
    /// With the histories of the units concerned.
    pub(super) fn promise(ledger: &Ledger) -> Self {
        let told: Vec<String> = ledger.evidence().iter().map(ToString::to_string).collect();
        Self::Promise(told.join("\n"))
    }
}

/// So many units are remembered as they were at first, to be made so again.
const REMEMBERED: usize = 256;

/// A unit of the disk.
pub(super) struct Memory {
    offset: u64,
    bytes: Vec<u8>,
}

impl<W: World> Driver<'_, W> {
    /// Some units as they are now that each was written once.
    pub(super) fn peek_some(&mut self) -> Result<Vec<Memory>> {
        if self.settings.sabotage.is_none() {
            return Ok(Vec::new());
        }
        let mut random = Random::new(self.settings.seed);
        let units = usize::try_from(LOAD_BYTES)? / UNIT;
        let peek = |_| {
            let offset = (random.below(units) * UNIT) as u64;
            let mut bytes = vec![0; UNIT];
            self.world.peek(offset, &mut bytes)?;
            Ok(Memory { offset, bytes })
        };
        (0..REMEMBERED).map(peek).collect()
    }

    /// Everything once more, with nothing else going on.
    pub(super) fn end(&mut self, memories: &[Memory]) -> Result<()> {
        let load = self.load.take().context("the load runs until the end")?;
        let summary = load.stop();
        self.report.failed += summary.failed;
        if summary.failed > 0 {
            return Err(Broken::Failed(summary.failed).into());
        }
        if let Some(sabotage) = self.settings.sabotage {
            self.wait_flushed()?;
            self.sabotage(sabotage, memories)?;
        }
        let mut device = (self.open)()?;
        read_all(&self.ledger, device.as_mut(), |_| Ok(())).map_err(|error| self.failure(error))?;
        self.report.read_back += 1;
        self.judge()
    }

    fn wait_flushed(&mut self) -> Result<()> {
        let begin = Instant::now();
        loop {
            self.look()?;
            let empty = |san: San| {
                let look = self.looks[san.index()].as_ref();
                look.is_some_and(|look| look.asked > begin && look.status.lane.staged_blobs == 0)
            };
            if San::BOTH.into_iter().all(empty) {
                return Ok(());
            }
            if begin.elapsed() > RECOVERY {
                return Err(Broken::Stuck("what is staged is not flushed".into()).into());
            }
            std::thread::sleep(super::LOOK);
        }
    }

    fn sabotage(&mut self, how: Sabotage, memories: &[Memory]) -> Result<()> {
        let mut now = vec![0; UNIT];
        for memory in memories {
            self.world.peek(memory.offset, &mut now)?;
            if now == memory.bytes {
                continue;
            }
            let bytes = match how {
                Sabotage::Undo => memory.bytes.clone(),
                Sabotage::Corrupt => now.iter().map(|byte| byte ^ 0x55).collect(),
            };
            self.log.line(&format!("sabotage ({how:?}) at byte {}", memory.offset));
            return self.world.poke(memory.offset, &bytes);
        }
        anyhow::bail!("none of {REMEMBERED} blocks was written a second time: the run was too short for sabotage")
    }

    /// Makes the report of what it came to.
    pub(super) fn conclude(mut self, outcome: Result<()>) -> Result<crate::report::Report> {
        self.progress.end();
        let mut report = std::mem::take(&mut self.report);
        report.seconds = self.began.elapsed().as_secs_f64();
        report.count(self.ledger.counts(), self.load.as_ref().map_or(0, Load::failed));
        for (program, series) in Program::ALL.into_iter().zip(&self.memory) {
            if let Some(memory) = series.summary() {
                report.memory.insert(program.to_string(), memory);
            }
        }
        let Err(error) = outcome else {
            report.verdict = Verdict::Kept;
            return Ok(report);
        };
        let broken = error.downcast::<Broken>().context("chaos itself has failed")?;
        report.verdict = Verdict::of(&broken);
        report.words = broken.to_string();
        if !matches!(broken, Broken::Told) {
            report.evidence = self.evidence(&broken);
        }
        Ok(report)
    }

    /// All that may help to find out why.
    fn evidence(&mut self, broken: &Broken) -> String {
        self.looks = self.watch.looks();
        let mut text = format!("{broken}\n\nWhat happened\n\n{}\n", self.log.tail());
        for san in San::BOTH {
            let said = self.looks[san.index()].as_ref().map_or("it does not answer".into(), |look| {
                serde_json::to_string_pretty(&look.status).unwrap_or_else(|error| error.to_string())
            });
            let _ = write!(text, "\n{san} says\n\n{said}\n");
        }
        for program in Program::ALL {
            let _ = write!(text, "\n{program}'s log ends with\n\n{}", self.world.log_tail(program));
        }
        text
    }
}
