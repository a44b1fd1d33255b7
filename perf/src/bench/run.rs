//! One target, one job after the other.

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;
use twinsan_witness::pattern::Model;

use super::compare::Interrupt;
use super::cpu::{Account, Process};
use super::engine::{Budget, Engine, prefill, read_back};
use super::job::Job;
use super::place::Place;
use super::recorder::Recorder;
use super::result::{Measured, Run};

/// What is measured.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whom.
    pub place: Place,
    /// What, one after the other.
    pub jobs: Vec<Job>,
    /// The first so many bytes are used, or all there are.
    pub span_bytes: u64,
    /// What is there may be lost.
    pub overwrite: bool,
    /// A file of this size is made, and removed afterwards.
    pub create_bytes: Option<u64>,
    /// Whose CPU time counts too.
    pub processes: Vec<Process>,
    /// No progress bars.
    pub quiet: bool,
}

/// Measures.
///
/// # Errors
/// If something is there that would be lost, the target fails, or a write that was completed does not read back.
pub fn run(settings: &Settings, interrupt: &Interrupt) -> Result<Run> {
    let Settings { place, .. } = settings;
    // The processes are there, before anything is written.
    Account::new(&settings.processes).begin()?;
    let _made = place.make(settings.create_bytes)?;
    let mut target = place.open(None)?;
    let target_bytes = target.bytes();
    let span = settings.span_bytes.min(target_bytes) / 4096 * 4096;
    for job in &settings.jobs {
        job.check(span).with_context(|| format!("{place}, job {}", job.name))?;
    }
    if !settings.overwrite {
        place.check_empty(&mut *target, span)?;
    }
    let mut model = Model::new(span);
    let fill = bar(settings.quiet, "prefill", span);
    prefill(&mut *target, span, &mut model, &mut |bytes| {
        fill.set_position(bytes);
        interrupt.check()
    })?;
    fill.finish_and_clear();
    drop(target);
    let mut jobs = Vec::with_capacity(settings.jobs.len());
    for job in &settings.jobs {
        jobs.push(measure(settings, job, span, &mut model, interrupt).with_context(|| job.name.clone())?);
    }
    let back = bar(settings.quiet, "read back", span);
    let mut target = place.open(None)?;
    let checked_bytes = read_back(&mut *target, span, &model, &mut |bytes| {
        back.set_position(bytes);
        interrupt.check()
    })?;
    back.finish_and_clear();
    Ok(Run { target: place.to_string(), target_bytes, span_bytes: span, jobs, checked_bytes })
}

fn measure(settings: &Settings, job: &Job, span: u64, model: &mut Model, interrupt: &Interrupt) -> Result<Measured> {
    let mut target = settings.place.open(Some(job))?;
    let mut engine = Engine::new(job, span)?;
    let mut recorder = Recorder::new(job);
    let mut account = Account::new(&settings.processes);
    let budget = Budget { count: job.count, time: job.seconds.map(Duration::from_secs_f64) };
    let bar = if job.count == u64::MAX { ProgressBar::hidden() } else { bar(settings.quiet, &job.name, job.count) };
    account.begin()?;
    engine.slice(&mut *target, model, &mut recorder, budget, |ended| {
        // Drawing is somebody else's CPU time: seldom.
        if ended % 256 == 0 {
            bar.set_position(ended);
        }
        interrupt.check()
    })?;
    account.end()?;
    bar.finish_and_clear();
    let mut measured = recorder.finish();
    measured.cpu = Some(account.cpu(measured.bytes));
    Ok(measured)
}

fn bar(quiet: bool, name: &str, len: u64) -> ProgressBar {
    let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(len) };
    let style = ProgressStyle::with_template("{prefix:>12} {wide_bar} {percent:>3} %  {elapsed}");
    bar.set_style(style.expect("a constant template"));
    bar.set_prefix(name.to_owned());
    bar
}
