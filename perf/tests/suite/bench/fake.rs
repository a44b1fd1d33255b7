//! A target in memory, with a clock of its own that only requests move.

use std::time::{Duration, Instant};

use anyhow::Result;
use twinsan_perf::bench::target::{Buffers, Done, Kind, Request, Target};

/// What it does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lie {
    None,
    StoresNothing,
    /// The tenth write.
    ForgetsOne,
    /// The end of the tenth write.
    TearsOne,
    ReadsZeros,
}

/// One request, and how many were in flight when it came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) request: Request,
    pub(super) beside: usize,
}

/// One request after the other, 100 µs each.
pub(super) struct Fake {
    data: Vec<u8>,
    lie: Lie,
    now: Instant,
    free_at: Instant,
    queue: Vec<(Request, Instant)>,
    /// That request takes so long.
    pub(super) slow: Option<(usize, Duration)>,
    pub(super) asked: Vec<Asked>,
    pub(super) most_in_flight: usize,
    pub(super) overlaps: usize,
    writes: usize,
}

impl Fake {
    pub(super) fn new(bytes: u64, lie: Lie) -> Self {
        let now = Instant::now();
        Self {
            data: vec![0; usize::try_from(bytes).unwrap()],
            lie,
            now,
            free_at: now,
            queue: Vec::new(),
            slow: None,
            asked: Vec::new(),
            most_in_flight: 0,
            overlaps: 0,
            writes: 0,
        }
    }

    /// Writes without FUA.
    pub(super) fn unsafe_writes(&self) -> Vec<Request> {
        let requests = self.asked.iter().map(|a| a.request);
        requests.filter(|r| r.kind == Kind::Write && !r.fua).collect()
    }

    fn carry_out(&mut self, request: Request, memory: &mut [u8]) {
        let at = usize::try_from(request.offset).unwrap();
        let range = at..at + request.len;
        match request.kind {
            Kind::Write => {
                self.writes += 1;
                let tenth = self.writes == 10;
                let len = match self.lie {
                    Lie::StoresNothing => 0,
                    Lie::ForgetsOne if tenth => 0,
                    Lie::TearsOne if tenth => request.len - 512,
                    _ => request.len,
                };
                self.data[at..at + len].copy_from_slice(&memory[..len]);
            }
            Kind::Read if self.lie == Lie::ReadsZeros => memory[..request.len].fill(0),
            Kind::Read => memory[..request.len].copy_from_slice(&self.data[range]),
            Kind::Flush => {}
        }
    }
}

impl Target for Fake {
    fn bytes(&self) -> u64 {
        self.data.len() as u64
    }

    fn prepare(&mut self, _depth: usize) -> Result<()> {
        Ok(())
    }

    fn submit(&mut self, request: Request) {
        let end = |r: &Request| r.offset + r.len as u64;
        let touches = |other: &Request| request.offset < end(other) && other.offset < end(&request);
        self.overlaps += self.queue.iter().filter(|(other, _)| touches(other)).count();
        let took = match self.slow {
            Some((number, long)) if number == self.asked.len() => long,
            _ => Duration::from_micros(100),
        };
        self.free_at = self.free_at.max(self.now) + took;
        self.asked.push(Asked { request, beside: self.queue.len() });
        self.queue.push((request, self.free_at));
        self.most_in_flight = self.most_in_flight.max(self.queue.len());
    }

    fn wait(&mut self, buffers: &mut Buffers, until: Option<Instant>, done: &mut Vec<Done>) -> Result<()> {
        match self.queue.first().copied() {
            Some((request, at)) if until.is_none_or(|until| at <= until) => {
                self.queue.remove(0);
                self.now = self.now.max(at);
                self.carry_out(request, buffers.of(request.slot));
                done.push(Done { slot: request.slot, began: None, at: self.now });
            }
            _ => self.now = until.expect("something in flight, or something due"),
        }
        Ok(())
    }

    fn now(&self) -> Instant {
        self.now
    }
}
