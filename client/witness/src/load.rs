//! Threads that write to a volume and read it, through whatever is done to it, until they are told to stop.
//!
//! Where the client is a process that may be killed, its end is theirs too: each thread tells the ledger that it will
//! never know, and waits. Whoever killed the client waits for that ([`Load::wait_parked`]), starts the next one, and lets
//! them go on ([`Load::next_session`]). A kernel device outlives its client, and they notice no more than a pause.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::device::{Aligned, Device, Failure};
use crate::ledger::{Counts, Ledger, UNIT};
use crate::pattern::{BLOCK, Random, fill};

/// How a device is opened: by each thread, and again for each session.
pub type Open = dyn Fn() -> Result<Box<dyn Device>> + Send + Sync;

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Requests in flight.
    pub threads: u32,
    /// The largest request, in units of [`UNIT`].
    pub most_units: u64,
    /// So many of a hundred requests are reads.
    pub reads_percent: u8,
    /// Each thread rests so long after a request.
    pub rest: Duration,
    /// Of the offsets and sizes.
    pub seed: u64,
}

/// A running load.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What the threads and their owner share.
struct Shared {
    ledger: Arc<Ledger>,
    open: Box<Open>,
    settings: Settings,
    stop: AtomicBool,
    completed: AtomicU64,
    /// The longest that a request has taken since somebody asked, in ns.
    longest: AtomicU64,
    /// When the request of each thread began, in ns of the ledger; 0: none is under way.
    under_way: Vec<AtomicU64>,
    turn: Mutex<Turn>,
    change: Condvar,
}

#[derive(Debug, Default)]
struct Turn {
    session: u64,
    parked: usize,
    /// Requests that were answered with an error, in words: the first few.
    failed: Vec<String>,
    failed_count: u64,
}

/// What it came to.
#[derive(Clone, Debug)]
pub struct Summary {
    /// What was promised and kept.
    pub counts: Counts,
    /// Requests that were answered with an error.
    pub failed: u64,
    /// The first few of them.
    pub failures: Vec<String>,
}

/// So many failures are told of in full.
const TOLD: usize = 5;
/// After a failure, so that a device that fails everything is not asked a million times.
const BREATH: Duration = Duration::from_millis(20);
/// One request of [`fill_all`] and [`read_all`].
const CHUNK_UNITS: u64 = 128;

impl Load {
    /// Begins, on a device that is there.
    ///
    /// # Errors
    /// If there is no thread for it.
    pub fn start(ledger: Arc<Ledger>, open: Box<Open>, settings: Settings) -> Result<Self> {
        ensure!(
            settings.threads > 0
                && (1..=ledger.units()).contains(&settings.most_units)
                && settings.reads_percent <= 100,
            "no such load: {settings:?} on {} units",
            ledger.units()
        );
        let shared = Arc::new(Shared {
            ledger,
            open,
            settings,
            stop: AtomicBool::new(false),
            completed: AtomicU64::new(0),
            longest: AtomicU64::new(0),
            under_way: (0..settings.threads).map(|_| AtomicU64::new(0)).collect(),
            turn: Mutex::default(),
            change: Condvar::new(),
        });
        let start = |number| {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name(format!("load {number}")).spawn(move || Worker::new(&shared, number).run())
        };
        let threads = (0..settings.threads as usize).map(start).collect::<std::io::Result<_>>()?;
        Ok(Self { shared, threads })
    }

    /// Requests completed so far.
    #[must_use]
    pub fn completed(&self) -> u64 {
        self.shared.completed.load(Ordering::Acquire)
    }

    /// The longest that a request has taken since the last call, those that are still under way among them: what a
    /// pause is to the caller.
    #[must_use]
    pub fn longest(&self) -> Duration {
        let now = self.shared.ledger.now();
        let waits = self.shared.under_way.iter().map(|at| at.load(Ordering::Acquire));
        let waiting = waits.filter(|&at| at > 0).map(|at| now.saturating_sub(at)).max().unwrap_or(0);
        Duration::from_nanos(self.shared.longest.swap(0, Ordering::AcqRel).max(waiting))
    }

    /// Waits until `more` further requests have completed: the volume serves. False: they have not in time.
    #[must_use]
    pub fn goes_on(&self, more: u64, within: Duration) -> bool {
        let (goal, begin) = (self.completed() + more, Instant::now());
        while self.completed() < goal && begin.elapsed() < within {
            std::thread::sleep(Duration::from_millis(2));
        }
        self.completed() >= goal
    }

    /// Requests that were answered with an error, so far.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.shared.turn().failed_count
    }

    /// Waits until every thread has lost the device. False: they have not in time.
    #[must_use]
    pub fn wait_parked(&self, within: Duration) -> bool {
        let all = self.threads.len();
        let turn = self.shared.turn();
        let (turn, _) = self
            .shared
            .change
            .wait_timeout_while(turn, within, |turn| turn.parked < all)
            .unwrap_or_else(PoisonError::into_inner);
        turn.parked == all
    }

    /// The device is there again, in a new session: what nobody knows of is settled, and the threads go on.
    ///
    /// # Panics
    /// If a thread is not parked: it could have a request of the old session under way.
    pub fn next_session(&self) {
        let mut turn = self.shared.turn();
        assert_eq!(turn.parked, self.threads.len(), "all threads are parked");
        self.shared.ledger.settle();
        turn.session += 1;
        turn.parked = 0;
        self.shared.change.notify_all();
    }

    /// Ends it; requests under way are waited for.
    ///
    /// # Panics
    /// If a thread did.
    #[must_use]
    pub fn stop(self) -> Summary {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.change.notify_all();
        for thread in self.threads {
            thread.join().expect("a load thread");
        }
        let counts = self.shared.ledger.counts();
        let turn = self.shared.turn();
        Summary { counts, failed: turn.failed_count, failures: turn.failed.clone() }
    }
}

impl Shared {
    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the session after `session`.
    fn park(&self, session: u64) {
        let mut turn = self.turn();
        turn.parked += 1;
        self.change.notify_all();
        let waits = |turn: &mut Turn| turn.session == session && !self.stop.load(Ordering::Acquire);
        // Whoever stops the load does not hold the lock, so its word may come between look and sleep.
        while waits(&mut turn) {
            turn = self.change.wait_timeout(turn, BREATH).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("settings", &self.settings).field("turn", &self.turn).finish_non_exhaustive()
    }
}

/// A thread.
struct Worker<'a> {
    shared: &'a Shared,
    number: usize,
    random: Random,
    buffer: Aligned,
}

impl<'a> Worker<'a> {
    fn new(shared: &'a Shared, number: usize) -> Self {
        let units = usize::try_from(shared.settings.most_units).expect("a request");
        let random = Random::new(shared.settings.seed.wrapping_mul(1009).wrapping_add(number as u64));
        Self { shared, number, random, buffer: Aligned::new(units * UNIT) }
    }

    fn run(mut self) {
        let mut session = 0;
        while !self.shared.stop.load(Ordering::Acquire) {
            match (self.shared.open)() {
                Ok(device) => self.requests(device),
                Err(error) => self.fails(format!("{error:#}")),
            }
            if !self.shared.stop.load(Ordering::Acquire) {
                self.shared.park(session);
                session += 1;
            }
        }
    }

    /// Until the device is gone, or it is enough.
    fn requests(&mut self, mut device: Box<dyn Device>) {
        while !self.shared.stop.load(Ordering::Acquire) {
            let settings = self.shared.settings;
            let len = self.random.below(settings.most_units) + 1;
            let first = self.random.below(self.shared.ledger.units() - len + 1);
            let reads = self.random.below(100) < u64::from(settings.reads_percent);
            let (shared, number) = (self.shared, self.number);
            let begun = shared.ledger.now().max(1);
            shared.under_way[number].store(begun, Ordering::Release);
            let data = part(&mut self.buffer, len);
            let outcome = request(&shared.ledger, device.as_mut(), first..first + len, reads, data);
            shared.under_way[number].store(0, Ordering::Release);
            match outcome {
                Ok(()) => {
                    shared.longest.fetch_max(shared.ledger.now() - begun, Ordering::AcqRel);
                    shared.completed.fetch_add(1, Ordering::Release);
                }
                Err(Failure::Gone(_)) => return,
                Err(Failure::Answered(why)) => self.fails(why),
            }
            if !settings.rest.is_zero() {
                std::thread::sleep(settings.rest);
            }
        }
    }

    fn fails(&self, why: String) {
        let mut turn = self.shared.turn();
        turn.failed_count += 1;
        if turn.failed.len() < TOLD {
            turn.failed.push(why);
        }
        drop(turn);
        std::thread::sleep(BREATH);
    }
}

/// One request, with the ledger told of it.
fn request(
    ledger: &Ledger,
    device: &mut dyn Device,
    units: Range<u64>,
    reads: bool,
    data: &mut [u8],
) -> Result<(), Failure> {
    let offset = units.start * UNIT as u64;
    let first_block = units.start * (UNIT / BLOCK) as u64;
    if reads {
        let open = ledger.read_begins(units);
        match device.read(offset, data) {
            Ok(()) => ledger.read_completes(open, data, ledger.now()),
            Err(failure) => {
                ledger.read_fails(open);
                return Err(failure);
            }
        }
    } else {
        let open = ledger.write_begins(units);
        fill(data, first_block, open.stamp());
        match device.write(offset, data) {
            Ok(()) => ledger.write_completes(open, ledger.now()),
            Err(failure) => {
                ledger.write_is_unknown(open);
                return Err(failure);
            }
        }
    }
    Ok(())
}

/// So much of the buffer as a request takes.
fn part(buffer: &mut Aligned, units: u64) -> &mut [u8] {
    &mut buffer.bytes()[..usize::try_from(units).expect("a request") * UNIT]
}

/// Writes every unit once, so that every read can be judged.
///
/// # Errors
/// The device's, or `progress`'s, which gets the bytes done and may end it.
pub fn fill_all(ledger: &Ledger, device: &mut dyn Device, progress: impl FnMut(u64) -> Result<()>) -> Result<()> {
    all(ledger, device, false, progress)
}

/// Reads every unit once.
///
/// # Errors
/// As [`fill_all`]; what is wrong with the data the ledger knows.
pub fn read_all(ledger: &Ledger, device: &mut dyn Device, progress: impl FnMut(u64) -> Result<()>) -> Result<()> {
    all(ledger, device, true, progress)
}

fn all(
    ledger: &Ledger,
    device: &mut dyn Device,
    reads: bool,
    mut progress: impl FnMut(u64) -> Result<()>,
) -> Result<()> {
    let mut buffer = Aligned::new(usize::try_from(CHUNK_UNITS)? * UNIT);
    let mut at = 0;
    while at < ledger.units() {
        let len = CHUNK_UNITS.min(ledger.units() - at);
        request(ledger, device, at..at + len, reads, part(&mut buffer, len))?;
        at += len;
        progress(at * UNIT as u64)?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "load/tests.rs"]
mod tests;
