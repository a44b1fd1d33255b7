//! What a pair and its client cost while nothing is asked of them.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::compare::Interrupt;
use super::contestants::{Lane, OURS, Setup, named};
use super::cpu::{Account, CLIENT, machine};
use super::result::Idle;

const DEVICE_BYTES: u64 = 256 << 20;
const STAGING_BYTES: u64 = 64 << 20;
/// Between two looks for a signal.
const LOOK: Duration = Duration::from_millis(100);

/// Starts a pair, leaves it alone for so long, and looks what it has spent.
///
/// # Errors
/// If it does not start, or ends meanwhile.
pub fn idle(time: Duration, folder: &Path, interrupt: &Interrupt) -> Result<Idle> {
    let setup = Setup { device_bytes: DEVICE_BYTES, staging_bytes: STAGING_BYTES, folder: folder.to_owned() };
    let lane = Lane::start(&named(OURS)?, &setup)?;
    lane.settle()?;
    let mut account = Account::new(&lane.processes);
    let begin = Instant::now();
    account.begin()?;
    while begin.elapsed() < time {
        interrupt.check()?;
        std::thread::sleep(LOOK.min(time.saturating_sub(begin.elapsed())));
    }
    account.end()?;
    let seconds = begin.elapsed().as_secs_f64();
    let cpu = account.cpu(0);
    let of_a_core = |s: f64| s / seconds * 100.0;
    let ours = cpu.by_process_s.iter().filter(|(name, _)| name != CLIENT);
    let percent: Vec<(String, f64)> = ours.map(|(name, s)| (name.clone(), of_a_core(*s))).collect();
    Ok(Idle {
        machine: machine(),
        seconds,
        total_percent: percent.iter().map(|(_, percent)| percent).sum(),
        percent,
        others_share: cpu.others_share,
    })
}
