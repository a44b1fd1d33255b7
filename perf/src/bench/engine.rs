//! The loop that every contestant is measured by.
//!
//! One thread. Payloads are stamped before a request's clock starts, and what a read brought is looked at after it has
//! stopped. Requests in flight never overlap, so that what has to be there at the end is known exactly. Nothing is allocated
//! for a request.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use twinsan_witness::pattern::{BLOCK, Lost, Model, Random, fill};

use super::job::Job;
use super::recorder::{Recorder, Slice};
use super::target::{Buffers, Done, Kind, Request, Target};

/// One transfer of prefill and read-back.
const CHUNK: usize = 1 << 20;

/// How far a slice goes.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Reads and writes.
    pub count: u64,
    /// No request is made after so long.
    pub time: Option<Duration>,
}

/// Makes a job's requests, slice by slice.
#[derive(Debug)]
pub struct Engine {
    job: Job,
    /// What of the target is used, from its first byte on.
    span: u64,
    random: Random,
    buffers: Buffers,
    /// By slot.
    flights: Vec<Option<Flight>>,
    free: Vec<usize>,
    /// Stamped, and not submitted yet.
    ready: Vec<usize>,
    done: Vec<Done>,
    in_flight: usize,
    /// Since the last FLUSH.
    writes: u64,
    /// Made so far in this slice, the ready ones among them.
    made: u64,
    /// Submitted so far in this slice.
    submitted: u64,
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    kind: Kind,
    /// The first block, of the model's.
    first: u64,
    stamp: u64,
    start: Instant,
}

impl Engine {
    /// For one job on one target.
    ///
    /// # Errors
    /// If the job is wrong, or does not fit.
    pub fn new(job: &Job, span: u64) -> Result<Self> {
        job.check(span)?;
        let slots = job.depth;
        Ok(Self {
            job: job.clone(),
            span,
            random: Random::new(job.bytes as u64),
            buffers: Buffers::new(slots, job.bytes),
            flights: vec![None; slots],
            free: (0..slots).rev().collect(),
            ready: Vec::with_capacity(slots),
            done: Vec::with_capacity(slots),
            in_flight: 0,
            writes: 0,
            made: 0,
            submitted: 0,
        })
    }

    /// One slice. `tick` hears of progress: requests that have ended so far.
    ///
    /// # Errors
    /// The target's, `tick`'s, or if a read brings something else than what was completed.
    pub fn slice(
        &mut self,
        target: &mut dyn Target,
        model: &mut Model,
        recorder: &mut Recorder,
        budget: Budget,
        mut tick: impl FnMut(u64) -> Result<()>,
    ) -> Result<Slice> {
        target.prepare(self.job.depth)?;
        (self.made, self.submitted) = (0, 0);
        let mut ended = 0;
        let begin = target.now();
        recorder.begin(begin);
        loop {
            let until = self.send(target, model, recorder, begin, budget);
            if self.in_flight == 0 && until.is_none() {
                break;
            }
            target.wait(&mut self.buffers, until, &mut self.done)?;
            for i in 0..self.done.len() {
                let done = self.done[i];
                ended += u64::from(self.end(done, model, recorder)?);
            }
            if !self.done.is_empty() {
                self.done.clear();
                tick(ended)?;
            }
        }
        Ok(recorder.end(target.now()))
    }

    /// Submits what may go now. When the next one is due, if that is later.
    fn send(
        &mut self,
        target: &mut dyn Target,
        model: &mut Model,
        recorder: &mut Recorder,
        begin: Instant,
        budget: Budget,
    ) -> Option<Instant> {
        let over = |now: Instant| budget.time.is_some_and(|most| now.saturating_duration_since(begin) >= most);
        let Some(rate) = self.job.rate else {
            if !over(target.now()) {
                while self.may_make(budget) {
                    self.make(model);
                }
            }
            // All were stamped before the clock of any starts.
            let now = target.now();
            for i in 0..self.ready.len() {
                self.submit(target, recorder, self.ready[i], now, now);
            }
            self.ready.clear();
            self.flush_if_due(target, recorder, budget, over(now));
            return None;
        };
        loop {
            let due = begin + Duration::from_secs_f64(self.due(rate));
            if self.ready.is_empty() && !over(due) && self.may_make(budget) {
                self.make(model);
            }
            let now = target.now();
            let Some(&slot) = self.ready.first() else {
                self.flush_if_due(target, recorder, budget, over(due));
                return None;
            };
            if due > now {
                return Some(due);
            }
            self.ready.clear();
            self.submit(target, recorder, slot, due, now);
        }
    }

    /// When the next request is due, in seconds from the slice's begin.
    #[expect(clippy::cast_precision_loss, reason = "a slice has fewer requests than a float has digits")]
    fn due(&self, rate: f64) -> f64 {
        self.submitted as f64 / rate
    }

    fn may_make(&self, budget: Budget) -> bool {
        self.made < budget.count && !self.free.is_empty() && !self.is_flush_due()
    }

    fn is_flush_due(&self) -> bool {
        self.job.flush_every.is_some_and(|every| self.writes >= every)
    }

    /// A FLUSH waits for all that is in flight. The last writes of a slice get one too.
    fn flush_if_due(&mut self, target: &mut dyn Target, recorder: &mut Recorder, budget: Budget, over: bool) {
        let is_last = self.job.flush_every.is_some() && self.writes > 0 && (over || self.made >= budget.count);
        if self.in_flight > 0 || !(self.is_flush_due() || is_last) {
            return;
        }
        let Some(slot) = self.free.pop() else { return };
        self.writes = 0;
        let now = target.now();
        self.flights[slot] = Some(Flight { kind: Kind::Flush, first: 0, stamp: 0, start: now });
        self.in_flight += 1;
        recorder.started(now);
        target.submit(Request { slot, kind: Kind::Flush, offset: 0, len: 0, fua: false, copy: 0 });
    }

    /// Chooses a place and stamps the payload.
    fn make(&mut self, model: &mut Model) {
        let Some(slot) = self.free.pop() else { return };
        let kind = if self.random.below(100) < u64::from(self.job.read_percent) { Kind::Read } else { Kind::Write };
        let first = self.place();
        let mut flight = Flight { kind, first, stamp: 0, start: Instant::now() };
        if kind == Kind::Write {
            flight.stamp = model.next_stamp();
            fill(&mut self.buffers.of(slot)[..self.job.bytes], first, flight.stamp);
            self.writes += 1;
        }
        self.flights[slot] = Some(flight);
        self.made += 1;
        self.ready.push(slot);
    }

    /// The first block of a place that nothing in flight touches.
    fn place(&mut self) -> u64 {
        let (bytes, align) = (self.job.bytes as u64, self.job.align as u64);
        let (blocks, step) = (bytes / BLOCK as u64, align / BLOCK as u64);
        let places = (self.span - bytes) / align + 1;
        loop {
            let first = self.random.below(places) * step;
            let apart = |flight: &Flight| first + blocks <= flight.first || flight.first + blocks <= first;
            if self.flights.iter().flatten().all(|f| f.kind == Kind::Flush || apart(f)) {
                return first;
            }
        }
    }

    fn submit(&mut self, target: &mut dyn Target, recorder: &mut Recorder, slot: usize, start: Instant, now: Instant) {
        let flight = self.flights[slot].as_mut().expect("it was made");
        flight.start = start;
        let request = Request {
            slot,
            kind: flight.kind,
            offset: flight.first * BLOCK as u64,
            len: self.job.bytes,
            fua: flight.kind == Kind::Write && self.job.flush_every.is_none(),
            copy: 0,
        };
        self.submitted += 1;
        self.in_flight += 1;
        recorder.started(now);
        target.submit(request);
    }

    /// Whether a read or a write has ended.
    fn end(&mut self, done: Done, model: &mut Model, recorder: &mut Recorder) -> Result<bool> {
        let Done { slot, began, at } = done;
        let flight = self.flights[slot].take().context("the end of a request that nobody made")?;
        // Closed loop: the call's own time, where a thread made the call.
        let start = if self.job.rate.is_some() { flight.start } else { began.unwrap_or(flight.start) };
        recorder.ended(flight.kind, start, at);
        self.in_flight -= 1;
        self.free.push(slot);
        let bytes = self.job.bytes;
        match flight.kind {
            Kind::Write => model.completed(flight.first, bytes / BLOCK, flight.stamp),
            Kind::Read => {
                let wrong = model.glance(flight.first, &self.buffers.get(slot)[..bytes]);
                ensure!(wrong.is_none(), "a read brings something else than what was completed: {}", words(wrong));
            }
            Kind::Flush => {}
        }
        Ok(flight.kind != Kind::Flush)
    }
}

fn words(lost: Option<Lost>) -> String {
    lost.map(|l| format!("block {}: write {} completed there, found {}", l.block, l.expected, l.found))
        .unwrap_or_default()
}

/// Writes all of the span, so that no write allocates and every read brings something.
///
/// # Errors
/// The target's, or `tick`'s, which hears of the bytes written.
pub fn prefill(
    target: &mut dyn Target,
    span: u64,
    model: &mut Model,
    tick: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<()> {
    let mut buffers = Buffers::new(1, CHUNK);
    target.prepare(1)?;
    let stamp = model.next_stamp();
    for (offset, len) in chunks(span) {
        let first = offset / BLOCK as u64;
        fill(&mut buffers.of(0)[..len], first, stamp);
        one(target, &mut buffers, Request { slot: 0, kind: Kind::Write, offset, len, fua: true, copy: 0 })?;
        model.completed(first, len / BLOCK, stamp);
        tick(offset + len as u64)?;
    }
    Ok(())
}

/// Reads all that was completed, of every copy, and compares every byte: an answer that meant nothing would win every race.
/// The bytes compared.
///
/// # Errors
/// The target's, `tick`'s, or if something is not there.
pub fn read_back(
    target: &mut dyn Target,
    span: u64,
    model: &Model,
    tick: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<u64> {
    let mut buffers = Buffers::new(1, CHUNK);
    target.prepare(1)?;
    let (mut checked, mut lost) = (0, Vec::new());
    for copy in 0..target.copies() {
        for (offset, len) in chunks(span) {
            let first = offset / BLOCK as u64;
            if !model.knows(first, len / BLOCK) {
                continue;
            }
            one(target, &mut buffers, Request { slot: 0, kind: Kind::Read, offset, len, fua: false, copy })?;
            model.check(first, &buffers.get(0)[..len], &mut lost);
            checked += len as u64;
            tick(checked)?;
        }
    }
    ensure!(
        lost.is_empty(),
        "{} completed writes do not read back; {}",
        Model::writes_lost(&lost),
        words(lost.first().copied())
    );
    Ok(checked)
}

fn chunks(span: u64) -> impl Iterator<Item = (u64, usize)> {
    let len = move |offset: u64| usize::try_from((span - offset).min(CHUNK as u64)).expect("at most a chunk");
    (0..span).step_by(CHUNK).map(move |offset| (offset, len(offset)))
}

/// One request by itself.
///
/// # Errors
/// The target's.
pub fn one(target: &mut dyn Target, buffers: &mut Buffers, request: Request) -> Result<()> {
    let mut done = Vec::with_capacity(1);
    target.submit(request);
    while done.is_empty() {
        target.wait(buffers, None, &mut done)?;
    }
    Ok(())
}
