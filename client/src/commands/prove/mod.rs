//! `twinsan prove`: a kill test on the user's own pair.
//!
//! The volume is attached by a process of its own. A load writes and reads it and keeps account (`twinsan-witness`);
//! somebody kills things; and whatever comes back is held against the account.

mod attached;
mod report;
mod site;
mod trigger;

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use twinsan_control::Config;
use twinsan_witness::device::{Aligned, Device};
use twinsan_witness::ledger::{Ledger, UNIT};
use twinsan_witness::load::{Load, Settings, fill_all, read_all};
use twinsan_witness::nbd;
use twinsan_witness::pattern::{BLOCK, Content, content};

use self::attached::Attached;
pub use self::report::{Proof, RoundReport, Verdict};
use self::site::Sight;
use self::trigger::{Pending, Progress, Round, Trigger, tell};
use crate::cli::ProveArgs;

/// Between two looks at what is awaited.
const LOOK: Duration = Duration::from_millis(50);
/// Between two progress lines where nobody sits at a terminal.
const SELDOM: Duration = Duration::from_secs(10);
/// So many requests prove that the volume serves.
const SOME: u64 = 50;
/// The largest request.
const MOST_UNITS: u64 = 32;
/// Of a hundred requests, so many are reads.
const READS_PERCENT: u8 = 30;

/// Runs the test. `path` is where `config` was read from.
///
/// # Errors
/// If the test can't be made: the volume is not configured, does not attach, is too small or holds something; a command
/// failed. What the test finds is the result.
pub fn prove(config: &Config, path: &Path, args: &ProveArgs) -> Result<Proof> {
    config.volume(&args.volume)?;
    let trigger = Trigger::new(args)?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let mut attached = Attached::new(path, &args.volume)?;
    let ready = attached.attach(args.patience, || !stop.load(Ordering::Acquire))?;
    ensure!(ready, "volume \"{}\" does not serve: {}", args.volume, attached.last_words());
    let mut device = nbd::Client::connect(&attached.socket(), &args.volume)?;
    let units = args.span.bytes().min(device.size()) / UNIT as u64;
    ensure!(
        units >= 4 * MOST_UNITS,
        "--span {} of a volume of {} bytes is too little: at least {} KiB",
        args.span,
        device.size(),
        4 * MOST_UNITS * UNIT as u64 / 1024
    );
    if !args.overwrite {
        holds_nothing(&mut device, units, &args.volume)?;
    }
    let ledger = Arc::new(Ledger::new(units, run_number()?));
    fill_all(&ledger, &mut device, |bytes| progress_of("writing everything once", bytes, units, &stop))?;
    drop(device);
    let load = start_load(&ledger, &attached, args)?;
    let begun = Instant::now();
    let proof = empty(args, units);
    Test { config, args, trigger, stop, attached, ledger, load, begun, proof, client_ended: false, told: begun }.run()
}

/// A test under way.
struct Test<'a> {
    config: &'a Config,
    args: &'a ProveArgs,
    trigger: Trigger,
    stop: Arc<AtomicBool>,
    attached: Attached,
    ledger: Arc<Ledger>,
    load: Load,
    begun: Instant,
    proof: Proof,
    /// In this round.
    client_ended: bool,
    /// When progress was last told.
    told: Instant,
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waited {
    Done,
    InVain,
    /// Somebody wants no more, or a promise was broken: either way there is nothing to wait for.
    Enough,
}

impl Test<'_> {
    fn run(mut self) -> Result<Proof> {
        for number in 1..=self.args.rounds {
            match self.round(number)? {
                Waited::Done => {}
                Waited::InVain => {
                    self.proof.verdict = Verdict::Stuck;
                    break;
                }
                Waited::Enough => {
                    self.proof.verdict = Verdict::Interrupted;
                    self.proof.why = Some("somebody wanted no more, or a promise was broken".to_owned());
                    break;
                }
            }
        }
        self.end()
    }

    /// One kill, from a whole pair to a whole pair.
    fn round(&mut self, number: u32) -> Result<Waited> {
        let whole = self.until("both nodes are members", Self::is_whole)?;
        if whole != Waited::Done {
            return Ok(whole);
        }
        self.keep_longest();
        self.client_ended = false;
        let before = site::look(self.config, &self.args.volume);
        let round = |sight| Round { number, volume: &self.args.volume, sight };
        let pending = self.trigger.kill(round(&before))?;
        let killed = self.pending(pending)?;
        if killed != Waited::Done {
            return Ok(killed);
        }
        let goal = self.load.completed() + SOME;
        let serves = self.until("the volume goes on", |test| test.load.completed() >= goal)?;
        if serves != Waited::Done {
            return Ok(serves);
        }
        let went_on = Instant::now();
        let after = site::look(self.config, &self.args.volume);
        if let Some(pending) = self.trigger.restart(round(&after))? {
            let restarted = self.pending(pending)?;
            if restarted != Waited::Done {
                return Ok(restarted);
            }
        }
        let whole = self.until("both nodes are members again", Self::is_whole)?;
        let sight = site::look(self.config, &self.args.volume);
        let longest = self.keep_longest();
        self.proof.rounds.push(RoundReport {
            round: number,
            primary_before: before.primary,
            primary_after: after.primary.or(sight.primary),
            client_ended: self.client_ended,
            longest_ms: longest.as_secs_f64() * 1000.0,
            dual_after_ms: sight.dual.then(|| went_on.elapsed().as_secs_f64() * 1000.0),
        });
        tell(&format!("round {number}: the longest request took {:.0} ms", longest.as_secs_f64() * 1000.0));
        Ok(whole)
    }

    /// Where no node's admin socket can be reached, whoever kills has to know.
    fn is_whole(&mut self) -> bool {
        let Sight { dual, answers, .. } = site::look(self.config, &self.args.volume);
        dual || answers == 0
    }

    fn keep_longest(&mut self) -> Duration {
        let longest = self.load.longest();
        self.proof.longest_ms = self.proof.longest_ms.max(longest.as_secs_f64() * 1000.0);
        longest
    }

    /// Waits for whoever was asked to do something, as long as it takes.
    fn pending(&mut self, mut pending: Pending) -> Result<Waited> {
        loop {
            match self.trigger.progress(&mut pending)? {
                Progress::Done => return Ok(Waited::Done),
                Progress::Enough => return Ok(Waited::Enough),
                Progress::UnderWay if self.is_over() => return Ok(Waited::Enough),
                Progress::UnderWay => self.look_after("waiting")?,
            }
        }
    }

    fn until(&mut self, what: &str, holds: impl Fn(&mut Self) -> bool) -> Result<Waited> {
        let begin = Instant::now();
        while !holds(self) {
            if self.is_over() {
                return Ok(Waited::Enough);
            }
            if begin.elapsed() > self.args.patience {
                let why = format!("waited {} s in vain until {what}", begin.elapsed().as_secs());
                self.proof.why = Some(format!("{why}; the client's last words: {}", self.attached.last_words()));
                return Ok(Waited::InVain);
            }
            self.look_after(what)?;
        }
        Ok(Waited::Done)
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Acquire) || !self.ledger.counts().all_kept() || self.load.failed() > 0
    }

    /// A moment passes. A client that was killed is replaced.
    fn look_after(&mut self, what: &str) -> Result<()> {
        if self.attached.has_ended() {
            self.client_ended = true;
            ensure!(self.load.wait_parked(self.args.patience), "requests of a client that has ended do not end");
            let stop = Arc::clone(&self.stop);
            if self.attached.attach(self.args.patience, || !stop.load(Ordering::Acquire))? {
                self.load.next_session();
            } else if !stop.load(Ordering::Acquire) {
                bail!("the next client could not attach: {}", self.attached.last_words());
            }
        }
        let terminal = std::io::stderr().is_terminal();
        if terminal || self.told.elapsed() > SELDOM {
            self.told = Instant::now();
            let seconds = self.begun.elapsed().as_secs();
            let line = format!("{seconds:>5} s  {} requests completed  [{what}]", self.load.completed());
            if terminal {
                eprint!("\r\x1b[K{line}");
            } else {
                eprintln!("{line}");
            }
            std::io::stderr().flush().ok();
        }
        std::thread::sleep(LOOK);
        Ok(())
    }

    /// Everything is read once more, if the volume still serves.
    fn end(mut self) -> Result<Proof> {
        let serves = self.proof.verdict != Verdict::Stuck && !self.attached.has_ended();
        if !serves {
            // What is under way would never end.
            self.attached.kill();
        }
        self.keep_longest();
        let summary = self.load.stop();
        self.proof.failed = summary.failed;
        self.proof.failures = summary.failures;
        if serves {
            let units = self.ledger.units();
            let mut device = nbd::Client::connect(&self.attached.socket(), &self.args.volume)?;
            let never = AtomicBool::new(false);
            read_all(&self.ledger, &mut device, |bytes| progress_of("reading everything", bytes, units, &never))?;
        }
        self.proof.count(self.ledger.counts());
        self.proof.evidence = self.ledger.evidence().iter().map(ToString::to_string).collect();
        self.proof.seconds = self.begun.elapsed().as_secs_f64();
        tell("");
        Ok(self.proof)
    }
}

fn start_load(ledger: &Arc<Ledger>, attached: &Attached, args: &ProveArgs) -> Result<Load> {
    let (socket, volume) = (attached.socket(), args.volume.clone());
    let open = Box::new(move || {
        let device: Box<dyn Device> = Box::new(nbd::Client::connect(&socket, &volume)?);
        Ok(device)
    });
    let settings = Settings {
        threads: args.depth,
        most_units: MOST_UNITS,
        reads_percent: READS_PERCENT,
        rest: Duration::ZERO,
        seed: u64::from(run_number()?),
    };
    Load::start(Arc::clone(ledger), open, settings)
}

fn empty(args: &ProveArgs, units: u64) -> Proof {
    Proof {
        volume: args.volume.clone(),
        verdict: Verdict::Kept,
        span_bytes: units * UNIT as u64,
        seconds: 0.0,
        writes_completed: 0,
        reads_compared: 0,
        unknown: 0,
        failed: 0,
        failures: Vec::new(),
        blocks_lost: 0,
        blocks_gone_back: 0,
        blocks_corrupt: 0,
        longest_ms: 0.0,
        rounds: Vec::new(),
        why: None,
        evidence: Vec::new(),
    }
}

/// A volume that was made for this, or used for it before.
fn holds_nothing(device: &mut nbd::Client, units: u64, volume: &str) -> Result<()> {
    let mut buffer = Aligned::new(128 * UNIT);
    let mut unit = 0;
    while unit < units {
        let len = usize::try_from((units - unit).min(128))? * UNIT;
        let data = &mut buffer.bytes()[..len];
        device.read(unit * UNIT as u64, data)?;
        let first = unit * (UNIT / BLOCK) as u64;
        let foreign = data.chunks_exact(BLOCK).zip(first..).find(|(block, at)| content(block, *at) == Content::Other);
        if let Some((_, at)) = foreign {
            bail!(
                "volume \"{volume}\" holds something at byte {}, and this test overwrites it: make a volume for it \
                 (twinsan format --zero), or say --overwrite",
                at * BLOCK as u64
            );
        }
        unit += len as u64 / UNIT as u64;
    }
    Ok(())
}

fn run_number() -> Result<u32> {
    let mut bytes = [0; 4];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).context("getrandom")?;
    Ok(u32::from_le_bytes(bytes))
}

fn progress_of(what: &str, bytes: u64, units: u64, stop: &AtomicBool) -> Result<()> {
    ensure!(!stop.load(Ordering::Acquire), "interrupted");
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{what}: {} %", bytes * 100 / (units * UNIT as u64));
    }
    Ok(())
}
