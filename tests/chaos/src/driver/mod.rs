//! Carries a plan out on a world, under load, and looks each time whether the volume comes back.
//!
//! ```text
//!   all is well ──▶ a round: faults begin and end, each in its time ──▶ all are over ──▶ does it serve, dual? ──▶ all is well
//!                     │                                                                       │
//!                     └ every look: is a promise broken, has a program died by itself? ◀──────┘ not in time: stuck
//! ```
//!
//! A fault that is the only one of its round, and that the protocol says is survived, does not end before the volume has
//! served in spite of it: what is tested is not that mending helps.

mod carry;
mod log;
mod supervise;
mod verdict;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use twinsan_witness::device::{Device, Failure};
use twinsan_witness::ledger::{Ledger, UNIT};
use twinsan_witness::load::{Load, Settings as LoadSettings, fill_all, read_all};

use self::carry::Active;
use self::log::Log;
use self::supervise::{Client, Nodes};
pub use self::verdict::Broken;
use crate::guard::{Guard, Look, dual};
use crate::memory::Series;
use crate::plan::{Plan, Round};
use crate::random::Random;
use crate::report::{Progress, Report};
use crate::watch::Watch;
use crate::world::{Program, Sabotage, San, World};

/// The part of the volume that the load writes to.
pub const LOAD_BYTES: u64 = 64 << 20;
/// Behind it, as many parts again that are written to for the first time when the disk is full.
const FRESH_PARTS: u64 = 32;
/// The volume.
pub const VOLUME_BYTES: u64 = LOAD_BYTES * (1 + FRESH_PARTS);
/// The load.
const LOAD: LoadSettings =
    LoadSettings { threads: 4, most_units: 32, reads_percent: 40, rest: Duration::from_millis(1), seed: 0 };
/// What a full disk gets, where it has no blocks.
const THIRST: LoadSettings =
    LoadSettings { threads: 2, most_units: 16, reads_percent: 10, rest: Duration::from_millis(1), seed: 0 };
/// So many completions show that it serves: more than were under way.
const SERVES: u64 = LOAD.threads as u64 + 8;
/// Between two looks at everything.
const LOOK: Duration = Duration::from_millis(5);
/// How long it may take, all faults over, until the volume serves with both nodes.
const RECOVERY: Duration = Duration::from_secs(60);
/// Between two rounds.
const REST: Duration = Duration::from_millis(300);
/// All is read back after so many rounds.
const READ_BACK: u64 = 5;
/// Samples of memory.
const SAMPLE: Duration = Duration::from_secs(1);

/// Opens the volume, once for each thread and session.
pub type Opener = Arc<dyn Fn() -> Result<Box<dyn Device>> + Send + Sync>;

/// What is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Rounds begin for so long.
    pub time: Duration,
    /// Of the faults and of the load.
    pub seed: u64,
    /// In the end, to see whether it is noticed.
    pub sabotage: Option<Sabotage>,
}

/// One run.
struct Driver<'w, W> {
    world: &'w mut W,
    open: Opener,
    settings: Settings,
    told: &'w AtomicBool,
    began: Instant,
    log: Log,
    random: Random,
    guard: Guard,
    watch: Watch,
    looks: [Option<Look>; 2],
    /// Who served when that was last known.
    primary: San,
    /// The newest epoch that was seen, and who served in it.
    seen: (u64, Option<String>),
    ledger: Arc<Ledger>,
    /// Until the end.
    load: Option<Load>,
    /// For the disk when it is full.
    thirst: Option<Thirst>,
    fills: u64,
    active: Vec<Active>,
    nodes: Nodes,
    client: Client,
    memory: [Series; 3],
    sampled: Instant,
    progress: Progress,
    report: Report,
}

/// The load on blocks that the disk does not have.
struct Thirst {
    load: Load,
    ledger: Arc<Ledger>,
    base: u64,
}

/// Runs, and reports. `folder` gets the log of faults.
///
/// # Errors
/// If the world does not work, or a volume can't be set up on it: what breaks later is in the report.
pub fn run<W: World>(
    world: &mut W,
    open: Opener,
    settings: Settings,
    told: &AtomicBool,
    folder: &Path,
) -> Result<Report> {
    let mut driver = Driver::begin(world, open, settings, told, folder)?;
    let memories = driver.peek_some()?;
    let outcome = driver.rounds().and_then(|()| driver.end(&memories));
    driver.conclude(outcome)
}

impl<'w, W: World> Driver<'w, W> {
    fn begin(world: &'w mut W, open: Opener, settings: Settings, told: &'w AtomicBool, folder: &Path) -> Result<Self> {
        let began = Instant::now();
        let log = Log::create(&folder.join("faults.log"), began)?;
        for program in Program::ALL {
            world.start(program)?;
        }
        wait_open(world, told)?;
        let run = u32::try_from(settings.seed & 0xffff).unwrap_or(0) + 1;
        let ledger = Arc::new(Ledger::new(LOAD_BYTES / UNIT as u64, run));
        let mut device = open()?;
        fill_all(&ledger, device.as_mut(), |_| Ok(())).context("writing every block once")?;
        drop(device);
        let load_settings = LoadSettings { seed: settings.seed, ..LOAD };
        let load = Load::start(Arc::clone(&ledger), boxed(&open, 0), load_settings)?;
        let watch = Watch::start(world)?;
        Ok(Self {
            world,
            open,
            settings,
            told,
            began,
            log,
            // Not the plan's: what happens by the programs' doing must not change the plan.
            random: Random::new(settings.seed ^ 0x5eed),
            guard: Guard::default(),
            watch,
            looks: [None, None],
            primary: San::One,
            seen: (0, None),
            ledger,
            load: Some(load),
            thirst: None,
            fills: 0,
            active: Vec::new(),
            nodes: Nodes::default(),
            client: Client::Open,
            memory: Default::default(),
            sampled: began,
            progress: Progress::default(),
            report: Report { seed: settings.seed, sabotage: settings.sabotage, ..Report::default() },
        })
    }

    fn rounds(&mut self) -> Result<()> {
        self.recover()?;
        self.report.pauses.saw("none", self.load().longest());
        for (number, round) in Plan::new(self.settings.seed).enumerate() {
            if self.began.elapsed() >= self.settings.time {
                break;
            }
            self.round(&round)?;
            self.report.rounds += 1;
            if (number as u64 + 1).is_multiple_of(READ_BACK) {
                self.read_back()?;
            }
            self.rest(REST)?;
            self.report.pauses.saw("none", self.load().longest());
        }
        Ok(())
    }

    fn round(&mut self, round: &Round) -> Result<()> {
        let begin = Instant::now();
        let mut waiting = round.faults.iter().peekable();
        let single = round.single().is_some();
        while waiting.peek().is_some() || !self.active.is_empty() {
            self.look()?;
            while let Some(&(_, fault)) = waiting.next_if(|(after, _)| begin.elapsed() >= *after) {
                self.begin_fault(fault, single)?;
            }
            self.carry_on()?;
            std::thread::sleep(LOOK);
        }
        self.recover()?;
        let kind = round.single().map_or("several at once", |fault| fault.kind());
        self.report.pauses.saw(kind, self.load().longest());
        self.quench()
    }

    /// All faults are over: waits until the volume serves, with both nodes.
    fn recover(&mut self) -> Result<()> {
        let begin = Instant::now();
        let mut goal = None;
        loop {
            self.look()?;
            let well = self.client == Client::Open && self.is_dual(begin);
            if well && self.load().completed() >= *goal.get_or_insert_with(|| self.load().completed() + SERVES) {
                return Ok(());
            }
            if begin.elapsed() > RECOVERY {
                let what = if well { "no request completes" } else { "the pair is not dual, with a client" };
                let words = format!("{what}, {} s after the last fault was over", RECOVERY.as_secs());
                return Err(Broken::Stuck(words).into());
            }
            std::thread::sleep(LOOK);
        }
    }

    fn is_dual(&mut self, since: Instant) -> bool {
        let fresh = self.looks.iter().all(|look| look.as_ref().is_some_and(|look| look.asked > since));
        fresh && dual(&self.looks).is_some()
    }

    fn rest(&mut self, time: Duration) -> Result<()> {
        let begin = Instant::now();
        while begin.elapsed() < time {
            self.look()?;
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    fn load(&self) -> &Load {
        self.load.as_ref().expect("it runs until the end")
    }

    /// One look at everything.
    fn look(&mut self) -> Result<()> {
        if self.told.load(Ordering::Relaxed) {
            return Err(Broken::Told.into());
        }
        self.looks = self.watch.looks();
        self.guard.looked(&self.looks);
        self.see_primary();
        self.supervise()?;
        self.judge()?;
        if self.sampled.elapsed() >= SAMPLE {
            self.sampled = Instant::now();
            self.sample();
        }
        Ok(())
    }

    fn see_primary(&mut self) {
        for san in San::BOTH {
            let Some(look) = &self.looks[san.index()] else { continue };
            if look.status.role == "primary" {
                self.primary = san;
            }
            if look.status.epoch <= self.seen.0 {
                continue;
            }
            let now = (look.status.epoch, look.status.primary.clone());
            let moved = self.seen.1.is_some() && now.1.is_some() && now.1 != self.seen.1;
            self.report.failovers += u64::from(moved);
            let members: Vec<&str> = look.status.members.iter().map(|member| member.node.as_str()).collect();
            let primary = now.1.as_deref().unwrap_or("nobody");
            self.log.line(&format!("epoch {}: {primary} of {}", now.0, members.join(" and ")));
            self.seen = now;
        }
    }

    /// Broken promises end everything.
    fn judge(&self) -> Result<()> {
        let thirst = self.thirst.as_ref();
        for ledger in [&self.ledger].into_iter().chain(thirst.map(|thirst| &thirst.ledger)) {
            if !ledger.counts().all_kept() {
                return Err(Broken::promise(ledger).into());
            }
        }
        let failed = self.load.as_ref().map_or(0, Load::failed) + thirst.map_or(0, |thirst| thirst.load.failed());
        if failed > 0 { Err(Broken::Failed(failed).into()) } else { Ok(()) }
    }

    fn sample(&mut self) {
        let at = self.began.elapsed();
        for (program, series) in Program::ALL.into_iter().zip(&mut self.memory) {
            if let Some(bytes) = self.world.memory(program) {
                series.push(at, bytes);
            }
        }
        let memory = [0, 1, 2].map(|which: usize| self.memory[which].now());
        let longest = self.report.pauses.longest();
        let completed = self.load.as_ref().map_or(0, Load::completed);
        self.progress.show(at, completed, self.report.failovers, longest, memory);
    }

    /// Reads everything, beside the load.
    fn read_back(&mut self) -> Result<()> {
        let mut device = (self.open)()?;
        read_all(&self.ledger, device.as_mut(), |_| self.look_shortly()).map_err(|error| self.failure(error))?;
        self.report.read_back += 1;
        self.judge()
    }

    fn look_shortly(&self) -> Result<()> {
        if self.told.load(Ordering::Relaxed) { Err(Broken::Told.into()) } else { Ok(()) }
    }

    /// What a request that failed outside of the load means.
    fn failure(&self, error: anyhow::Error) -> anyhow::Error {
        let words = error.to_string();
        if error.is::<Broken>() { error } else { Broken::Request(words).into() }
    }

    /// Ends the load on the full disk's blocks, and reads them back.
    fn quench(&mut self) -> Result<()> {
        let Some(Thirst { load, ledger, base }) = self.thirst.take() else { return Ok(()) };
        let summary = load.stop();
        self.report.count_more(&summary);
        let mut device = Part { device: (self.open)()?, base };
        read_all(&ledger, &mut device, |_| Ok(())).map_err(|error| self.failure(error))?;
        if ledger.counts().all_kept() { Ok(()) } else { Err(Broken::promise(&ledger).into()) }
    }
}

/// A part of a volume.
struct Part {
    device: Box<dyn Device>,
    base: u64,
}

impl Device for Part {
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Failure> {
        self.device.write(self.base + offset, data)
    }

    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), Failure> {
        self.device.read(self.base + offset, data)
    }
}

/// A client that has been killed again before anybody could connect to it.
struct Absent(String);

impl Device for Absent {
    fn write(&mut self, _: u64, _: &[u8]) -> Result<(), Failure> {
        Err(Failure::Gone(self.0.clone()))
    }

    fn read(&mut self, _: u64, _: &mut [u8]) -> Result<(), Failure> {
        Err(Failure::Gone(self.0.clone()))
    }
}

fn boxed(open: &Opener, base: u64) -> Box<twinsan_witness::load::Open> {
    let open = Arc::clone(open);
    Box::new(move || {
        let device = open().unwrap_or_else(|error| Box::new(Absent(format!("{error:#}"))));
        Ok(Box::new(Part { device, base }))
    })
}

fn wait_open(world: &mut impl World, told: &AtomicBool) -> Result<()> {
    let begin = Instant::now();
    while !world.is_open() {
        for program in Program::ALL {
            let ended = world.ended(program)?;
            ensure!(ended.is_none(), "{program} has ended: {ended:?}\n{}", world.log_tail(program));
        }
        ensure!(!told.load(Ordering::Relaxed), "told to end");
        ensure!(begin.elapsed() < RECOVERY, "the volume did not open:\n{}", world.log_tail(Program::Client));
        std::thread::sleep(LOOK);
    }
    Ok(())
}
