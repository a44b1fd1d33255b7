//! Less that breaks the same promise: a failing run's list of faults and requests, made as short as it gets.
//!
//! A run follows from its list and its noise (latencies, what is lost). Whatever is left out changes what the noise meets,
//! so each candidate is tried with a few; the same promise (the checker's name) must be broken, not in the same words.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::check::Violation;
use crate::config::{FenceKind, SimConfig, Span, geometry};
use crate::plan::{Deed, What};
use crate::world::World;

/// A run from a list.
#[derive(Clone, Debug)]
pub struct Case {
    /// All that is not on the list; its `noise` belongs to the case.
    pub config: SimConfig,
    /// What is done to the cluster.
    pub deeds: Vec<Deed>,
    /// Everything is mended then, at the earliest.
    pub until_us: u64,
}

/// How far it has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Runs so far.
    pub runs: u64,
    /// Faults that are left.
    pub faults: usize,
    /// Requests that are left.
    pub requests: usize,
    /// How long the case takes, in µs of simulated time.
    pub until_us: u64,
}

/// Noises that a small candidate is tried with; a large one is tried with its own only.
const NOISES: u64 = 3;
/// A list that short is small.
const SMALL: usize = 40;

impl World {
    /// As [`World::run`]; a machine that gives up (its own assertion) is a violation too, where panics unwind.
    pub fn run_guarded(&mut self) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.run())) {
            let words = panic.downcast_ref::<String>().map(String::as_str);
            let words = words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked");
            self.check.violation = Some(Violation { checker: "no_machine_gives_up", message: words.to_owned() });
        }
    }
}

impl Case {
    /// What a run has been, as a list.
    #[must_use]
    pub fn of(world: &World) -> Self {
        // Where everything was mended already, that was the time; else when the promise was broken.
        let until_us = if world.plan_ended_us > 0 { world.plan_ended_us } else { world.now_us + 1 };
        Self { config: (*world.config).clone(), deeds: world.deeds().to_vec(), until_us }
    }

    /// Runs it, with a record if one is wanted.
    #[must_use]
    pub fn run(&self, trace: bool) -> World {
        let config = SimConfig { trace, ..self.config.clone() };
        let mut world = World::from_list(config, self.deeds.clone(), self.until_us);
        world.run_guarded();
        world
    }

    fn progress(&self, runs: u64) -> Progress {
        let faults = self.deeds.iter().filter(|deed| matches!(deed.what, What::Fault { .. })).count();
        Progress { runs, faults, requests: self.deeds.len() - faults, until_us: self.until_us }
    }
}

/// Makes a case that breaks the promise `checker` as short as it gets within so many runs.
pub fn shrink(case: Case, checker: &str, most_runs: u64, tell: &mut dyn FnMut(Progress)) -> Case {
    let mut shrinker = Shrinker { best: case, checker, runs: 0, most_runs, tell };
    while shrinker.runs < shrinker.most_runs {
        let before = shrinker.size();
        shrinker.drop_deeds();
        shrinker.calm_down();
        shrinker.simplify_requests();
        shrinker.close_gaps();
        if shrinker.size() >= before {
            break;
        }
    }
    shrinker.best
}

struct Shrinker<'a> {
    best: Case,
    checker: &'a str,
    runs: u64,
    most_runs: u64,
    tell: &'a mut dyn FnMut(Progress),
}

impl Shrinker<'_> {
    fn size(&self) -> (usize, u64) {
        (self.best.deeds.len(), self.best.until_us)
    }

    /// Takes a candidate that breaks the promise, cut off where it does.
    fn try_case(&mut self, candidate: &Case) -> bool {
        let noises = if candidate.deeds.len() <= SMALL { NOISES } else { 1 };
        for more in 0..noises {
            if self.runs >= self.most_runs {
                return false;
            }
            self.runs += 1;
            let mut candidate = candidate.clone();
            candidate.config.noise = candidate.config.noise.wrapping_add(more);
            let world = candidate.run(false);
            if world.violation().is_some_and(|v| v.checker == self.checker) {
                let until_us = Case::of(&world).until_us.min(candidate.until_us);
                candidate.deeds = world.deeds().to_vec();
                candidate.until_us = until_us;
                self.best = candidate;
                (self.tell)(self.best.progress(self.runs));
                return true;
            }
        }
        false
    }

    /// Faults and requests, many at a time, then single ones.
    fn drop_deeds(&mut self) {
        let mut size = self.best.deeds.len().div_ceil(2).max(1);
        loop {
            let mut at = 0;
            while at < self.best.deeds.len() {
                let end = (at + size).min(self.best.deeds.len());
                let mut candidate = self.best.clone();
                candidate.deeds.drain(at..end);
                if !self.try_case(&candidate) {
                    at = end;
                }
            }
            if size == 1 {
                return;
            }
            size = size.div_ceil(2);
        }
    }

    /// Quick networks and disks, and what is special about this run's configuration.
    fn calm_down(&mut self) {
        let calm: [fn(&mut SimConfig); 7] = [
            |c| c.net = Span { low: 20, high: 40 },
            |c| c.disk = Span { low: 100, high: 300 },
            |c| c.timing.takeover_budget_ms = 0,
            |c| c.timing.flush_rest_ms = 0,
            |c| c.fence = FenceKind::Pr,
            |c| c.geometry = geometry(16, 32),
            |c| c.volume_blocks = c.volume_blocks.min(8),
        ];
        for change in calm {
            let mut candidate = self.best.clone();
            change(&mut candidate.config);
            let volume = candidate.config.volume_blocks;
            for deed in &mut candidate.deeds {
                if let What::Request { request, .. } = &mut deed.what {
                    request.lba = request.lba.min(volume - u64::from(request.blocks));
                }
            }
            if format!("{:?}", candidate.config) != format!("{:?}", self.best.config) {
                self.try_case(&candidate);
            }
        }
    }

    /// One block each, the same one, and plain writes.
    fn simplify_requests(&mut self) {
        for at in 0.. {
            let Some(Deed { what: What::Request { client, request }, .. }) = self.best.deeds.get(at).copied() else {
                if at < self.best.deeds.len() {
                    continue;
                }
                return;
            };
            let mut one = request;
            one.blocks = 1;
            let mut first = one;
            first.lba = 0;
            let mut plain = first;
            plain.write = plain.write.map(|_| twinsan_wire::BlobKind::Write);
            for request in [plain, first, one].into_iter().filter(|&r| r != request) {
                let mut candidate = self.best.clone();
                candidate.deeds[at].what = What::Request { client, request };
                if self.try_case(&candidate) {
                    break;
                }
            }
        }
    }

    /// Waits between deeds, and after the last one.
    fn close_gaps(&mut self) {
        for at in 0..=self.best.deeds.len() {
            if at > self.best.deeds.len() {
                return;
            }
            let time = |case: &Case, at: usize| case.deeds.get(at).map_or(case.until_us, |deed| deed.at_us);
            let before = at.checked_sub(1).map_or(0, |before| time(&self.best, before));
            let gap = time(&self.best, at).saturating_sub(before);
            for keep in [gap / 10, gap / 2].into_iter().filter(|_| gap > 2_000) {
                let less = gap - keep;
                let mut candidate = self.best.clone();
                candidate.deeds.iter_mut().skip(at).for_each(|deed| deed.at_us -= less);
                candidate.until_us -= less;
                if self.try_case(&candidate) {
                    break;
                }
            }
        }
    }
}
