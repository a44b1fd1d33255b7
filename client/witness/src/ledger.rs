//! All blocks of a volume: what was begun, completed and read, by many threads, and what of it can't have happened.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::pattern::{self, BLOCK, Content};
use crate::register::{Register, Time, Wrong};

/// What the ledger keeps account of: no volume has a larger logical block, so every write covers whole ones.
pub const UNIT: usize = 4096;
/// Blocks of the pattern in a unit.
const BLOCKS: u64 = (UNIT / BLOCK) as u64;
/// So many operations of a unit are kept for the evidence.
const KEPT: usize = 12;
/// So many broken promises are told of in full.
const TOLD: usize = 5;

/// Bits of a stamp that number the write; those above name the ledger, so that what an earlier run wrote is not taken for
/// this one's.
const NUMBER_BITS: u32 = 40;

/// The account of one volume, or of the first part of one.
#[derive(Debug)]
pub struct Ledger {
    began: Instant,
    run: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    units: Vec<Unit>,
    last_write: u64,
    counts: Counts,
    evidence: Vec<Evidence>,
}

#[derive(Clone, Debug, Default)]
struct Unit {
    register: Register,
    past: VecDeque<Event>,
    /// One broken promise a unit: what follows from it is no second one.
    broken: bool,
}

/// What it came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Completed.
    pub writes: u64,
    /// Completed and judged.
    pub reads: u64,
    /// Ended without an answer, so that they may have happened or not.
    pub unknown: u64,
    /// Units of which a completed write is missing.
    pub lost: u64,
    /// Units of which a read found something older than a read before it.
    pub gone_back: u64,
    /// Units that held neither a write of ours nor what they held at first.
    pub corrupt: u64,
}

/// What happened to a unit.
#[derive(Clone, Copy, Debug)]
struct Event {
    write: bool,
    /// 0: what was there at first.
    number: u64,
    begun: Time,
    ended: Option<Time>,
}

/// A broken promise.
#[derive(Clone, Debug)]
pub struct Evidence {
    unit: u64,
    wrong: Found,
    at: Time,
    past: Vec<Event>,
}

/// What a read found wrong.
#[derive(Clone, Copy, Debug)]
enum Found {
    Register(Wrong),
    /// The bytes are no write's of this unit.
    Bytes,
    /// Parts of it are of different writes.
    Torn,
}

/// An operation under way. It has to be ended by the ledger, and is worth nothing else.
#[derive(Debug)]
#[must_use]
pub struct Open {
    units: Range<u64>,
    stamp: u64,
    begun: Time,
}

impl Open {
    /// What the write has to carry ([`pattern::fill`]).
    #[must_use]
    pub fn stamp(&self) -> u64 {
        self.stamp
    }
}

impl Ledger {
    /// For the first `units` of a volume; `run` tells this one from earlier ones on the same volume.
    #[must_use]
    pub fn new(units: u64, run: u32) -> Self {
        let count = usize::try_from(units).expect("a volume that fits this machine");
        let state = State {
            units: vec![Unit::default(); count],
            last_write: 0,
            counts: Counts::default(),
            evidence: Vec::new(),
        };
        let run = u64::from(run % (1 << (64 - NUMBER_BITS)));
        Self { began: Instant::now(), run: run << NUMBER_BITS, state: Mutex::new(state) }
    }

    /// How many units it keeps account of.
    #[must_use]
    pub fn units(&self) -> u64 {
        self.state().units.len() as u64
    }

    /// Now, as the evidence tells it.
    #[must_use]
    pub fn now(&self) -> Time {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// A write is about to be sent.
    pub fn write_begins(&self, units: Range<u64>) -> Open {
        let mut state = self.state();
        state.last_write += 1;
        let stamp = self.run | state.last_write;
        // Taken here, and not before the lock: whatever ended earlier is on record already.
        let begun = self.now();
        for unit in state.slice(&units) {
            unit.register.write_begins(stamp, begun);
        }
        Open { units, stamp, begun }
    }

    /// It has completed, at `at`.
    pub fn write_completes(&self, open: Open, at: Time) {
        let mut state = self.state();
        state.counts.writes += 1;
        let event = Event { write: true, number: number(open.stamp), begun: open.begun, ended: Some(at) };
        for at_unit in open.units {
            let unit = state.unit(at_unit);
            unit.remember(event);
            let outcome = unit.register.write_completes(open.stamp, open.begun, at);
            state.judge(at_unit, outcome.map_err(Found::Register), at);
        }
    }

    /// It has ended, and nobody knows how.
    #[expect(clippy::needless_pass_by_value, reason = "an operation ends once")]
    pub fn write_is_unknown(&self, open: Open) {
        let mut state = self.state();
        state.counts.unknown += 1;
        let event = Event { write: true, number: number(open.stamp), begun: open.begun, ended: None };
        for unit in state.slice(&open.units) {
            unit.remember(event);
            unit.register.write_is_unknown(open.begun);
        }
    }

    /// A read is about to be sent.
    pub fn read_begins(&self, units: Range<u64>) -> Open {
        let mut state = self.state();
        let begun = self.now();
        for unit in state.slice(&units) {
            unit.register.read_begins(begun);
        }
        Open { units, stamp: 0, begun }
    }

    /// It has completed, at `at`, with `data`.
    pub fn read_completes(&self, open: Open, data: &[u8], at: Time) {
        let mut state = self.state();
        state.counts.reads += 1;
        for (at_unit, bytes) in open.units.zip(data.chunks_exact(UNIT)) {
            let outcome = self.found(at_unit, bytes);
            let unit = state.unit(at_unit);
            let outcome = match outcome {
                Ok(stamp) => {
                    unit.remember(Event { write: false, number: number(stamp), begun: open.begun, ended: Some(at) });
                    unit.register.read_finds(stamp, open.begun, at).map_err(Found::Register)
                }
                Err(bytes) => {
                    unit.register.read_fails(open.begun);
                    Err(bytes)
                }
            };
            state.judge(at_unit, outcome, at);
        }
    }

    /// It has failed.
    #[expect(clippy::needless_pass_by_value, reason = "an operation ends once")]
    pub fn read_fails(&self, open: Open) {
        for unit in self.state().slice(&open.units) {
            unit.register.read_fails(open.begun);
        }
    }

    /// A new session serves: what ended without an answer has happened, or never will.
    pub fn settle(&self) {
        let mut state = self.state();
        let now = self.now();
        for unit in &mut state.units {
            unit.register.settle(now);
        }
    }

    /// What it came to so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    /// The first few broken promises.
    #[must_use]
    pub fn evidence(&self) -> Vec<Evidence> {
        self.state().evidence.clone()
    }

    fn found(&self, unit: u64, bytes: &[u8]) -> Result<u64, Found> {
        let mut stamps = bytes.chunks_exact(BLOCK).zip(unit * BLOCKS..).map(|(block, at)| pattern::content(block, at));
        let first = stamps.next().expect("a unit is several blocks");
        if stamps.any(|other| other != first) {
            return Err(Found::Torn);
        }
        match first {
            Content::Zeros => Ok(crate::register::FIRST),
            Content::Write(stamp) if stamp & !((1 << NUMBER_BITS) - 1) == self.run => Ok(stamp),
            Content::Write(_) | Content::Other => Err(Found::Bytes),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn unit(&mut self, at: u64) -> &mut Unit {
        &mut self.units[usize::try_from(at).expect("a unit of this volume")]
    }

    fn slice(&mut self, units: &Range<u64>) -> &mut [Unit] {
        let at = |unit| usize::try_from(unit).expect("a unit of this volume");
        &mut self.units[at(units.start)..at(units.end)]
    }

    fn judge(&mut self, at_unit: u64, outcome: Result<(), Found>, at: Time) {
        let Err(wrong) = outcome else { return };
        let unit = self.unit(at_unit);
        if std::mem::replace(&mut unit.broken, true) {
            return;
        }
        let past = unit.past.iter().copied().collect();
        match wrong {
            Found::Register(Wrong::WentBack { .. }) => self.counts.gone_back += 1,
            Found::Register(_) => self.counts.lost += 1,
            Found::Bytes | Found::Torn => self.counts.corrupt += 1,
        }
        if self.evidence.len() < TOLD {
            self.evidence.push(Evidence { unit: at_unit, wrong, at, past });
        }
    }
}

impl Unit {
    fn remember(&mut self, event: Event) {
        if self.past.len() == KEPT {
            self.past.pop_front();
        }
        self.past.push_back(event);
    }
}

impl Counts {
    /// No promise was broken.
    #[must_use]
    pub fn all_kept(&self) -> bool {
        self.lost == 0 && self.gone_back == 0 && self.corrupt == 0
    }
}

fn number(stamp: u64) -> u64 {
    stamp & ((1 << NUMBER_BITS) - 1)
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds, for people")]
fn ms(time: Time) -> f64 {
    time as f64 / 1e6
}

/// A write by its number.
struct Write(u64);

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match number(self.0) {
            0 => write!(f, "what was there at first"),
            n => write!(f, "write {n}"),
        }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.unit * UNIT as u64;
        write!(f, "byte {at} (unit {} of {UNIT} bytes), at {:.3} ms: ", self.unit, ms(self.at))?;
        match self.wrong {
            Found::Register(Wrong::Lost { completed, found }) => {
                write!(f, "{} had completed, a read found {}", Write(completed), Write(found))?;
            }
            Found::Register(Wrong::WentBack { before, found }) => {
                write!(f, "a read had found {}, a later one found {}", Write(before), Write(found))?;
            }
            Found::Bytes => write!(f, "a read found bytes that nobody wrote here")?,
            Found::Torn => write!(f, "a read found parts of different writes")?,
        }
        for event in &self.past {
            let what = if event.write { "write" } else { "read of" };
            write!(f, "\n    {:>12.3} ms .. ", ms(event.begun))?;
            match event.ended {
                Some(ended) => write!(f, "{:>12.3} ms", ms(ended))?,
                None => write!(f, "{:>15}", "unknown")?,
            }
            write!(f, "  {what} {}", event.number)?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "ledger/tests.rs"]
mod tests;
