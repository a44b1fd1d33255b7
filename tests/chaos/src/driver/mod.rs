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
mod finish;
mod log;
mod supervise;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use self::carry::Active;
use self::log::Log;
use self::supervise::{Client, Nodes};
use crate::fault::Fault;
use crate::guard::{Guard, Look, dual};
use crate::load::{IN_FLIGHT, Load};
use crate::memory::Series;
use crate::plan::{Plan, Round};
use crate::random::Random;
use crate::report::{Progress, Report};
use crate::verdict::Broken;
use crate::watch::Watch;
use crate::world::{Program, Sabotage, San, World};

/// So many completions show that it serves: more than were under way.
const SERVES: u64 = 2 * IN_FLIGHT;
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

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Rounds begin for so long.
    pub time: Duration,
    /// Of the faults and of the load.
    pub seed: u64,
    /// Only faults with one of these in the name of their kind; none: all.
    pub only: Vec<String>,
    /// In the end, to see whether it is noticed.
    pub sabotage: Option<Sabotage>,
}

/// One run.
struct Driver<'w, W, L> {
    world: &'w mut W,
    load: &'w mut L,
    settings: Settings,
    told: &'w AtomicBool,
    began: Instant,
    log: Log,
    /// Not the plan's: what happens by the programs' doing must not change the plan.
    random: Random,
    guard: Guard,
    watch: Watch,
    looks: [Option<Look>; 2],
    /// Who served when that was last known.
    primary: San,
    /// The newest epoch that was seen, and who served in it.
    seen: (u64, Option<String>),
    active: Vec<Active>,
    nodes: Nodes,
    client: Client,
    memory: [Series; 3],
    sampled: Instant,
    progress: Progress,
    report: Report,
}

/// Starts both nodes and the client, and waits until that has the volume.
///
/// # Errors
/// If it does not come to that.
pub fn set_up(world: &mut impl World, told: &AtomicBool) -> Result<()> {
    for program in Program::ALL {
        world.start(program)?;
    }
    let begin = Instant::now();
    while !world.is_open() {
        for program in Program::ALL {
            let ended = world.ended(program)?;
            ensure!(ended.is_none(), "{program} has ended: {ended:?}\n{}", world.log_tail(program));
        }
        ensure!(!told.load(Ordering::Relaxed), "told to end");
        ensure!(
            begin.elapsed() < RECOVERY * world.slowness(),
            "the volume did not open:\n{}",
            world.log_tail(Program::Client)
        );
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Runs on a world that is set up and has a load, and reports. `folder` gets the log of faults.
///
/// # Errors
/// If the world does not work: what of the programs breaks is in the report.
pub fn run<W: World, L: Load>(
    world: &mut W,
    load: &mut L,
    settings: Settings,
    told: &AtomicBool,
    folder: &Path,
) -> Result<Report> {
    let mut driver = Driver::new(world, load, settings, told, folder)?;
    let memories = driver.peek_some()?;
    let outcome = driver.rounds().and_then(|()| driver.end(&memories));
    driver.conclude(outcome)
}

impl<'w, W: World, L: Load> Driver<'w, W, L> {
    fn new(world: &'w mut W, load: &'w mut L, settings: Settings, told: &'w AtomicBool, folder: &Path) -> Result<Self> {
        let began = Instant::now();
        let report = Report { seed: settings.seed, sabotage: settings.sabotage, ..Report::default() };
        Ok(Self {
            random: Random::new(settings.seed ^ 0x5eed),
            watch: Watch::start(world)?,
            world,
            load,
            settings,
            told,
            began,
            log: Log::create(&folder.join("faults.log"), began)?,
            guard: Guard::default(),
            looks: [None, None],
            primary: San::One,
            seen: (0, None),
            active: Vec::new(),
            nodes: Nodes::default(),
            client: Client::Open,
            memory: Default::default(),
            sampled: began,
            progress: Progress::default(),
            report,
        })
    }

    fn rounds(&mut self) -> Result<()> {
        self.recover()?;
        self.report.pauses.saw("none", self.load.longest());
        let only = &self.settings.only;
        let named = |fault: Fault| only.is_empty() || only.iter().any(|part| fault.kind().contains(part));
        let plan = Plan::new(self.settings.seed, |fault| named(fault) && self.world.can(fault))?;
        for (number, round) in plan.enumerate() {
            if self.began.elapsed() >= self.settings.time {
                break;
            }
            self.round(&round)?;
            self.report.rounds += 1;
            if (number as u64 + 1).is_multiple_of(READ_BACK) {
                self.read_back()?;
            }
            self.rest(REST)?;
            self.report.pauses.saw("none", self.load.longest());
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
        let longest = self.load.longest();
        self.log.line(&format!("all is well; the longest request has taken {:.0} ms", longest.as_secs_f64() * 1000.0));
        self.report.pauses.saw(kind, longest);
        self.load.quench()
    }

    /// All faults are over: waits until the volume serves, with both nodes.
    fn recover(&mut self) -> Result<()> {
        let begin = Instant::now();
        let mut goal = None;
        loop {
            self.look()?;
            let well = self.client == Client::Open && self.is_dual(begin);
            if well && self.load.completed() >= *goal.get_or_insert_with(|| self.load.completed() + SERVES) {
                return Ok(());
            }
            let most = self.scaled(RECOVERY);
            if begin.elapsed() > most {
                let what = if well { "no request completes" } else { "the pair is not dual, with a client" };
                let words = format!("{what}, {} s after the last fault was over", most.as_secs());
                return Err(Broken::Stuck(words).into());
            }
            std::thread::sleep(LOOK);
        }
    }

    fn scaled(&self, time: Duration) -> Duration {
        time * self.world.slowness()
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

    /// One look at everything.
    fn look(&mut self) -> Result<()> {
        if self.told.load(Ordering::Relaxed) {
            return Err(Broken::Told.into());
        }
        self.looks = self.watch.looks();
        self.guard.looked(&self.looks);
        self.see_primary();
        self.supervise()?;
        self.load.judge()?;
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

    fn sample(&mut self) {
        let at = self.began.elapsed();
        for (program, series) in Program::ALL.into_iter().zip(&mut self.memory) {
            if let Some(bytes) = self.world.memory(program) {
                series.push(at, bytes);
            }
        }
        let memory = [0, 1, 2].map(|which: usize| self.memory[which].now());
        let longest = self.report.pauses.longest();
        self.progress.show(at, self.load.completed(), self.report.failovers, longest, memory);
    }

    fn read_back(&mut self) -> Result<()> {
        self.report.read_back += u64::from(self.load.read_back(self.told)?);
        Ok(())
    }
}
