//! What the flusher thread drives: operations in, completions out, many at once.
//!
//! An operation is a *job* of one or more requests. A job goes through
//!
//! ```text
//!   waiting ──▶ running ──▶ (flushing) ──▶ completed
//! ```
//!
//! - waiting: some of its requests have not been started. Jobs of pages (superblock, heartbeat) go first, then reads,
//!   then writes, of which a limited number is in flight, so that a large batch does not hold up the rest.
//! - running: all have been started, some are in flight. A short one is continued. After the first error no more of the
//!   job's requests are started.
//! - flushing: a batch of writes that all succeeded waits for the disk's cache.
//! - completed: **nothing of it is in flight any more**, whatever the outcome (rules 2 and 11 rest on that).

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use twinsan_arena::Arena;

use super::batch::{self, Durability, ReadRange, WriteRange};
use super::buffers::{Ask, Buffers, Memory, Transfer};
use super::geometry::Geometry;
use super::ring::Ring;
use super::{ClaimedDisk, DiskError, Op, OpenError, SharedReader, Waker};
use crate::layout::PAGE;
use crate::page::Page;

/// How the queue is made.
#[derive(Clone, Debug)]
pub struct QueueOptions {
    /// Requests in flight at most.
    pub depth: u32,
    /// Of these, writes and zeroings of batches at most; fewer than `depth`.
    pub write_depth: u32,
    /// Register the arenas with io_uring (it falls back, with a warning).
    pub register_buffers: bool,
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self { depth: 128, write_depth: 32, register_buffers: true }
    }
}

/// One thing to do with the disk.
#[derive(Clone, Debug)]
pub enum DiskOp {
    /// Write these ranges, sorted and not overlapping, then the disk's cache. Ends as a whole.
    Write(Vec<WriteRange>),
    /// Read these ranges. Ends as a whole.
    Read(Vec<ReadRange>),
    /// Read a 4 KiB page at each of these byte offsets.
    ReadPages(Vec<u64>),
    /// Write these pages to these byte offsets, in order: each is past the disk's cache before the next is begun.
    WritePages(Vec<(u64, Page)>),
    /// Write a page; who reads the disk sees it, but it need not have left the disk's cache (heartbeats).
    WritePageLazily(u64, Box<Page>),
}

/// How an operation has ended.
#[derive(Clone, Debug)]
pub struct Completion {
    /// As given to [`DiskQueue::start`].
    pub token: u64,
    /// The outcome of all of it. Nothing of it is in flight any more.
    pub result: Result<Done, DiskError>,
}

/// What an operation has brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// The ranges are written, and past the disk's cache.
    Written,
    /// The ranges are in the arenas.
    Read,
    /// The pages, in the order asked for.
    Pages(Vec<Page>),
    /// The pages are written.
    PagesWritten,
}

/// What kind of job, and so which of the waiting lines it stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Pages,
    Read,
    Write(Durability),
}

struct Job {
    token: u64,
    kind: Kind,
    /// One request after the other, in order.
    ordered: bool,
    /// What it brings when it succeeds.
    done: Done,
    /// Not started yet.
    waiting: VecDeque<Transfer>,
    in_flight: usize,
    /// Pages read so far, with their place.
    pages: Vec<(u64, Page)>,
    /// The first one.
    error: Option<DiskError>,
    flushing: bool,
}

/// See the module's text. It stays on the thread that made it.
pub struct DiskQueue {
    ring: Ring,
    reader: SharedReader,
    claim: Option<ClaimedDisk>,
    geometry: Geometry,
    data: Range<u64>,
    write_depth: usize,
    writes_in_flight: usize,
    changes_in_flight: usize,
    jobs: Vec<Option<Job>>,
    /// Jobs that have requests to start: pages, reads, writes.
    lines: [VecDeque<usize>; 3],
    ready: Vec<Completion>,
    /// What the disk has refused to do, so that it is not asked again.
    no_punch: bool,
    no_zero_range: bool,
}

impl DiskQueue {
    /// A queue over `reader`'s disk, whose data lies in the bytes `data`. It can only read until it
    /// [adopts](Self::adopt) a claim.
    ///
    /// The ranges of operations point into `arenas` by index. `waker` wakes [`DiskQueue::wait`].
    ///
    /// # Errors
    /// The kernel has no (usable) `io_uring`.
    ///
    /// # Panics
    /// If `data` reaches into the first MiB's pages, or the options make no sense.
    pub fn new(
        reader: SharedReader,
        data: Range<u64>,
        arenas: Vec<Arc<Arena>>,
        waker: Waker,
        options: &QueueOptions,
    ) -> Result<Self, OpenError> {
        assert!(data.start >= crate::layout::DATA_OFFSET, "data from byte {}: over the superblock", data.start);
        assert!(0 < options.write_depth && options.write_depth < options.depth, "no room for reads beside writes");
        let geometry = *reader.geometry();
        let ring = Ring::new(options.depth, options.register_buffers, Buffers::new(arenas), waker)
            .map_err(|e| OpenError::Ring { path: reader.path().to_owned(), what: e.what, source: e.source })?;
        Ok(Self {
            ring,
            reader,
            claim: None,
            geometry,
            data,
            write_depth: options.write_depth as usize,
            writes_in_flight: 0,
            changes_in_flight: 0,
            jobs: Vec::new(),
            lines: Default::default(),
            ready: Vec::new(),
            no_punch: false,
            no_zero_range: false,
        })
    }

    /// The disk's shape.
    #[must_use]
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The description without a claim.
    #[must_use]
    pub const fn reader(&self) -> &SharedReader {
        &self.reader
    }

    /// Whether the arenas are registered with `io_uring`.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        self.ring.is_registered()
    }

    /// Whether it holds a claim, so can write.
    #[must_use]
    pub const fn claim(&self) -> Option<&ClaimedDisk> {
        self.claim.as_ref()
    }

    /// From now on it can write, by this claim.
    ///
    /// # Errors
    /// The claim is on another disk than the one that is being read: the path leads elsewhere now.
    ///
    /// # Panics
    /// If it has a claim already.
    pub fn adopt(&mut self, claim: ClaimedDisk) -> Result<(), OpenError> {
        assert!(self.claim.is_none(), "a second claim on one disk");
        if claim.key() != self.reader.key() {
            return Err(OpenError::Replaced { path: claim.path().to_owned() });
        }
        self.geometry = *claim.geometry();
        self.claim = Some(claim);
        Ok(())
    }

    /// Gives the claim back, to be released. From now on it can only read.
    ///
    /// # Panics
    /// While a write is in flight or waiting: its completion comes first.
    pub fn surrender(&mut self) -> Option<ClaimedDisk> {
        let writing = |job: &&Job| matches!(job.kind, Kind::Write(_)) || job.done == Done::PagesWritten;
        let waiting = self.jobs.iter().flatten().filter(writing).count();
        assert!(self.changes_in_flight == 0 && waiting == 0, "the claim goes while {waiting} writes are under way");
        self.claim.take()
    }

    /// Operations that have not completed.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.jobs.iter().flatten().count() + self.ready.len()
    }

    /// Starts an operation; [`DiskQueue::wait`] brings its completion, with `token`.
    ///
    /// # Panics
    /// If a range is out of the volume's data or unaligned, or ranges of a batch overlap.
    pub fn start(&mut self, op: DiskOp, token: u64) {
        let index = self.jobs.iter().position(Option::is_none).unwrap_or_else(|| {
            self.jobs.push(None);
            self.jobs.len() - 1
        });
        let job = self.job(op, token, index);
        let result = match job.waiting.front() {
            Some(first) if first.is_change() && self.claim.is_none() => Err(DiskError::NotClaimed),
            Some(_) => {
                self.lines[job.kind.line()].push_back(index);
                self.jobs[index] = Some(job);
                self.pump();
                return;
            }
            None => Ok(job.done),
        };
        self.ready.push(Completion { token, result });
    }

    fn job(&self, op: DiskOp, token: u64, index: usize) -> Job {
        let page = |offset: u64, ask, page: Box<Page>| {
            assert!(offset.is_multiple_of(PAGE) && offset + PAGE <= self.data.start, "no page at byte {offset}");
            Transfer { job: index, ask, offset, len: PAGE, done: 0, memory: Memory::Page(page) }
        };
        let write = |dsync| Ask::Write { dsync };
        let (kind, ordered, done, waiting) = match op {
            DiskOp::Write(ranges) => {
                let (plan, durability) = batch::plan_writes(&ranges, &self.geometry, &self.data, index);
                (Kind::Write(durability), false, Done::Written, plan.into())
            }
            DiskOp::Read(ranges) => {
                let plan = batch::plan_reads(&ranges, &self.geometry, &self.data, index);
                (Kind::Read, false, Done::Read, plan.into())
            }
            DiskOp::ReadPages(offsets) => {
                let plan = offsets.into_iter().map(|offset| page(offset, Ask::Read, Box::new(Page::ZERO))).collect();
                (Kind::Pages, true, Done::Pages(Vec::new()), plan)
            }
            DiskOp::WritePages(pages) => {
                let plan =
                    pages.into_iter().map(|(offset, bytes)| page(offset, write(true), Box::new(bytes))).collect();
                (Kind::Pages, true, Done::PagesWritten, plan)
            }
            DiskOp::WritePageLazily(offset, bytes) => {
                let plan = VecDeque::from([page(offset, write(false), bytes)]);
                (Kind::Pages, true, Done::PagesWritten, plan)
            }
        };
        Job { token, kind, ordered, done, waiting, in_flight: 0, pages: Vec::new(), error: None, flushing: false }
    }

    /// Submits what there is, waits for a completion, a wake or the timeout (`None`: for ever), and adds what has
    /// completed to `out`. It may come back with nothing.
    ///
    /// # Errors
    /// `io_uring` itself fails: nothing more can be done on this disk by this process.
    pub fn wait(&mut self, timeout: Option<Duration>, out: &mut Vec<Completion>) -> io::Result<()> {
        self.pump();
        let timeout = if self.ready.is_empty() { timeout } else { Some(Duration::ZERO) };
        self.ring.wait(timeout)?;
        while let Some((transfer, result)) = self.ring.next_ended() {
            self.ended(transfer, result);
        }
        self.pump();
        self.ring.submit()?;
        out.append(&mut self.ready);
        Ok(())
    }

    /// Starts as many waiting requests as there is room for.
    fn pump(&mut self) {
        for line in 0..self.lines.len() {
            for _ in 0..self.lines[line].len() {
                let Some(index) = self.lines[line].pop_front() else { break };
                if !self.pump_job(index) {
                    self.lines[line].push_back(index);
                }
            }
        }
    }

    /// Starts what may be started of one job; `true`: nothing of it waits any more.
    fn pump_job(&mut self, index: usize) -> bool {
        loop {
            let job = self.jobs[index].as_mut().expect("a job in a line");
            let batch = matches!(job.kind, Kind::Write(_));
            let held = (job.ordered && job.in_flight > 0) || (batch && self.writes_in_flight >= self.write_depth);
            if job.waiting.is_empty() {
                return true;
            }
            if held || !self.ring.has_room() {
                return false;
            }
            let transfer = job.waiting.pop_front().expect("not empty");
            job.in_flight += 1;
            self.begin(transfer, batch);
        }
    }

    fn begin(&mut self, mut transfer: Transfer, batch: bool) {
        self.writes_in_flight += usize::from(batch);
        if transfer.is_change() {
            self.changes_in_flight += 1;
            self.avoid_refused(&mut transfer);
            let claim = self.claim.as_ref().expect("checked at start, and surrender waits for writes");
            self.ring.start(claim.as_fd(), transfer);
        } else {
            self.ring.start(self.reader.as_fd(), transfer);
        }
    }

    /// Zeroes a range in a way that the disk has not refused yet: by giving its space back, by zeroing it in place, at
    /// last by writing zeros. Each of them reads as zeros: on block devices `fallocate` never discards without that
    /// guarantee, see `blkdev_fallocate` in the kernel.
    fn avoid_refused(&self, transfer: &mut Transfer) {
        if transfer.ask == Ask::PunchHole && self.no_punch {
            transfer.ask = Ask::ZeroRange;
        }
        if transfer.ask == Ask::ZeroRange && self.no_zero_range {
            transfer.ask = Ask::Write { dsync: false };
            transfer.memory = Memory::Zeros;
        }
    }

    fn ended(&mut self, mut transfer: Transfer, result: i32) {
        let index = transfer.job;
        let job = self.jobs[index].as_mut().expect("a request without a job");
        let batch = matches!(job.kind, Kind::Write(_));
        job.in_flight -= 1;
        self.writes_in_flight -= usize::from(batch);
        self.changes_in_flight -= usize::from(transfer.is_change());
        match outcome(&mut transfer, result, self.geometry.logical) {
            Outcome::Done => {
                if let (Done::Pages(_), Memory::Page(page)) = (&job.done, transfer.memory) {
                    job.pages.push((transfer.offset, *page));
                }
            }
            Outcome::Refused(ask) => {
                let refused = if ask == Ask::PunchHole { &mut self.no_punch } else { &mut self.no_zero_range };
                *refused = true;
                self.again(transfer);
            }
            Outcome::Again => self.again(transfer),
            Outcome::Failed(error) => self.failed(index, transfer.ask, &error),
        }
        self.settle(index);
    }

    /// Puts what is left of a request back to the front of its job's line.
    fn again(&mut self, transfer: Transfer) {
        let index = transfer.job;
        let job = self.jobs[index].as_mut().expect("a request without a job");
        if job.error.is_some() {
            return;
        }
        job.waiting.push_front(transfer);
        let line = &mut self.lines[job.kind.line()];
        if !line.contains(&index) {
            line.push_front(index);
        }
    }

    fn failed(&mut self, index: usize, ask: Ask, error: &DiskError) {
        let job = self.jobs[index].as_mut().expect("a request without a job");
        job.error.get_or_insert_with(|| error.clone());
        if !matches!(ask, Ask::Sync { .. }) {
            return;
        }
        // A disk that could not empty its cache may have dropped what other batches had written into it, and may then
        // well say yes to their flush: they fail with it and are written again.
        for other in (0..self.jobs.len()).filter(|&other| other != index) {
            if let Some(job) = &mut self.jobs[other]
                && matches!(job.kind, Kind::Write(Durability::FlushAfter { .. }))
            {
                job.error.get_or_insert_with(|| error.clone());
                self.settle(other);
            }
        }
    }

    /// Completes the job if nothing of it is in flight or waits any more.
    fn settle(&mut self, index: usize) {
        let job = self.jobs[index].as_mut().expect("settled by its last request only");
        if job.error.is_some() {
            job.waiting.clear();
        }
        if job.in_flight > 0 || !job.waiting.is_empty() {
            return;
        }
        if let (Kind::Write(Durability::FlushAfter { data }), None, false) = (job.kind, &job.error, job.flushing) {
            job.flushing = true;
            let sync =
                Transfer { job: index, ask: Ask::Sync { data }, offset: 0, len: 0, done: 0, memory: Memory::None };
            self.again(sync);
            return;
        }
        let job = self.jobs[index].take().expect("seen above");
        self.lines[job.kind.line()].retain(|&other| other != index);
        let token = job.token;
        self.ready.push(Completion { token, result: job.finish() });
    }
}

impl Kind {
    const fn line(self) -> usize {
        match self {
            Self::Pages => 0,
            Self::Read => 1,
            Self::Write(_) => 2,
        }
    }
}

impl Job {
    fn finish(self) -> Result<Done, DiskError> {
        match (self.error, self.done) {
            (Some(error), _) => Err(error),
            // Read one after the other, so in the order asked for.
            (None, Done::Pages(_)) => Ok(Done::Pages(self.pages.into_iter().map(|(_, page)| page).collect())),
            (None, done) => Ok(done),
        }
    }
}

/// What a request's end means.
enum Outcome {
    Done,
    /// Continue it, or try it once more.
    Again,
    /// The disk has no such way of zeroing: try another.
    Refused(Ask),
    Failed(DiskError),
}

/// Judges the kernel's `result`, and moves `transfer` on by what it did.
fn outcome(transfer: &mut Transfer, result: i32, block: u32) -> Outcome {
    let (op, offset, len) = (transfer.op(), transfer.offset, transfer.len);
    let moves = matches!(transfer.ask, Ask::Read | Ask::Write { .. });
    match u64::try_from(result) {
        Ok(_) if !moves => Outcome::Done,
        Ok(bytes) => {
            assert!(bytes <= transfer.rest(), "the kernel did {bytes} bytes of {}", transfer.rest());
            transfer.done += bytes;
            if transfer.rest() == 0 {
                return Outcome::Done;
            }
            // O_DIRECT goes on at whole blocks only: what was done of the last one is done again.
            let back = transfer.done % u64::from(block);
            transfer.done -= back;
            if bytes <= back {
                return Outcome::Failed(DiskError::Short { op, offset, len, missing: transfer.rest() });
            }
            Outcome::Again
        }
        Err(_) => match -result {
            // EAGAIN: the kernel was out of requests or memory for a moment.
            libc::EINTR | libc::EAGAIN => Outcome::Again,
            libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL if op == Op::Zero && !moves => {
                Outcome::Refused(transfer.ask)
            }
            errno => Outcome::Failed(DiskError::from_errno(errno, op, offset, len)),
        },
    }
}

#[cfg(test)]
mod tests;
