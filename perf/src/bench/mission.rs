//! The mission's three workloads at full count: as bursts, and in the steady state.

use std::path::PathBuf;

use anyhow::Result;

use super::compare::{Interrupt, Load, Rounds, Settings, compare};
use super::contestants::named;
use super::job::Job;
use super::result::Mission;

/// The mission's.
pub const WORKLOADS: [&str; 3] = ["10k", "100k", "1m"];
/// Against whom, unless one says otherwise.
pub const CONTESTANTS: [&str; 3] = ["twinsan", "file", "qemu-nbd"];
/// Every contestant's device.
const DEVICE_BYTES: u64 = 1 << 30;
/// In the steady state: small, so that the disk is the limit.
const STEADY_STAGING: u64 = 64 << 20;
/// Steady slices of each workload.
const STEADY_SLICES: u64 = 4;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct MissionSettings {
    /// Who, by name.
    pub contestants: Vec<String>,
    /// Which of [`WORKLOADS`].
    pub workloads: Vec<String>,
    /// For the bursts.
    pub staging_bytes: u64,
    /// Where disk files go.
    pub folder: PathBuf,
    /// No progress.
    pub quiet: bool,
}

/// Runs it.
///
/// # Errors
/// As [`compare`].
pub fn mission(settings: &MissionSettings, interrupt: &Interrupt) -> Result<Mission> {
    let contestants = settings.contestants.iter().map(|key| named(key)).collect::<Result<Vec<_>>>()?;
    let part = |load: Load, staging_bytes| -> Result<Settings> {
        let mut jobs = Vec::new();
        let mut counts = Vec::new();
        for name in &settings.workloads {
            let mut job = load.job(name, staging_bytes)?;
            let count = Job::preset(name).map_or(0, |preset| preset.count);
            if load == Load::Steady {
                job.count = count / STEADY_SLICES;
            }
            counts.push(count);
            jobs.push(job);
        }
        Ok(Settings {
            contestants: contestants.clone(),
            jobs,
            rounds: Rounds::Requests(counts),
            load,
            device_bytes: DEVICE_BYTES,
            staging_bytes,
            folder: settings.folder.clone(),
            quiet: settings.quiet,
        })
    };
    let burst = compare(&part(Load::Burst, settings.staging_bytes)?, interrupt)?;
    let steady = compare(&part(Load::Steady, STEADY_STAGING)?, interrupt)?;
    Ok(Mission { burst, steady })
}
