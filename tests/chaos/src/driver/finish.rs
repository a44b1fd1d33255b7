//! How a run ends: the last look at everything, sabotage, and the evidence.

use std::fmt::Write as _;
use std::time::Instant;

use anyhow::{Context, Result};
use twinsan_witness::ledger::UNIT;

use super::{Driver, RECOVERY};
use crate::load::{LOAD_BYTES, Load};
use crate::random::Random;
use crate::report::Report;
use crate::verdict::{Broken, Verdict};
use crate::world::{Program, Sabotage, San, World};

/// So many units are remembered as they were at first, to be made so again.
const REMEMBERED: usize = 256;

/// A unit of the disk.
pub(super) struct Memory {
    offset: u64,
    bytes: Vec<u8>,
}

impl<W: World, L: Load> Driver<'_, W, L> {
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
        self.load.stop();
        if let Some(sabotage) = self.settings.sabotage {
            self.wait_flushed()?;
            self.sabotage(sabotage, memories)?;
        }
        self.read_back()
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
            if begin.elapsed() > self.scaled(RECOVERY) {
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
    pub(super) fn conclude(mut self, outcome: Result<()>) -> Result<Report> {
        self.progress.end();
        let mut report = std::mem::take(&mut self.report);
        report.seconds = self.began.elapsed().as_secs_f64();
        report.count(self.load.counts());
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
