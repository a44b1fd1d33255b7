//! Paths to the disk that are lost under load: the rows of `docs/protocol.md`, section 6.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::parts::{self, BOTH_PATHS};
use super::running::{HARDLY, PAUSE, Running, steady};
use crate::load::{Kind, SOME};
use crate::pair::{Front, VolumeStatus};
use crate::scenario::{Stage, ms};
use crate::topology::{Host, Lab, Link, PATH_LOSS};

/// A node's two disk paths.
fn disk_links(node: usize) -> [Link; 2] {
    [[Link::A1, Link::B1], [Link::A2, Link::B2]][node]
}

/// Writes complete in RAM while the disk takes none (rules 1 and 11): counts them from when the flusher stands still until
/// `enough` have completed. It stood still all the time, so nothing of that depends on how fast anything is.
fn completes_without_disk(run: &Running, lab: &Lab, enough: u64) -> Result<u64> {
    let look = || run.pair.until(lab, run.primary, "it serves", |status| status.role == "primary");
    let begin = Instant::now();
    let mut from = look()?.lane;
    loop {
        run.load.goes_on(SOME)?;
        let now = look()?.lane;
        if now.flushed != from.flushed {
            ensure!(begin.elapsed() < PATH_LOSS, "writes completed only while the disk took them");
            from = now;
        } else if now.durable >= from.durable + enough {
            return Ok(now.durable - from.durable);
        }
    }
}

/// One path of the primary is lost, shown, and comes back: registered again before anything is written through it. What is
/// under way on it hangs until the kernel gives it up; whoever writes sees nothing of that.
pub(super) fn lose_one_path(stage: &mut Stage) -> Result<()> {
    let run = Running::start_paced(stage, "64MiB")?;
    let lab = &stage.lab;
    let active = |status: &VolumeStatus| status.disk.paths.iter().filter(|path| path.state == "active").count();
    run.pair.until(lab, run.primary, "status shows two paths", |status| active(status) == 2)?;
    let link = disk_links(run.primary)[0];
    run.pair.until_dual(lab)?;
    lab.cable(link).cut();
    let meanwhile = completes_without_disk(&run, lab, 2 * SOME)?;
    let status = run.pair.until(lab, run.primary, "status shows one path", |status| active(status) == 1)?;
    let given_up = |now: &VolumeStatus| now.lane.flushed > status.lane.flushed;
    run.pair.until(lab, run.primary, "it writes to the disk by the other path", given_up)?;
    run.load.goes_on(SOME)?;
    lab.cable(link).mend();
    let begin = Instant::now();
    run.pair.until(lab, run.primary, "status shows two paths again", |status| active(status) == 2)?;
    let back = begin.elapsed();
    let registered = parts::registrations(lab, run.pair.host(run.primary))?;
    ensure!(registered == 4, "{registered} registrations, and there are 4 paths");
    ensure!(run.pair.until_dual(lab)? == run.primary, "the primary changed for one path");
    stage.note(format!("{meanwhile} writes while the disk took none, path back after {}", ms(back)));
    run.finish(stage, HARDLY)
}

/// It asks the other one, which has paths, to take over (rules 11 and 13).
pub(super) fn lose_primary_paths(stage: &mut Stage) -> Result<()> {
    let mut run = Running::start(stage)?;
    let (old, new) = (run.primary, run.secondary());
    for link in disk_links(old) {
        stage.lab.cable(link).cut();
    }
    run.pair.until(&stage.lab, new, "it has taken over", |status| status.role == "primary")?;
    run.load.goes_on(SOME)?;
    for link in disk_links(old) {
        stage.lab.cable(link).mend();
    }
    stage.lab.node(run.pair.host(old)).until("both paths are back", 2 * PATH_LOSS, BOTH_PATHS)?;
    run.primary = run.pair.until_dual(&stage.lab)?;
    run.finish(stage, PAUSE)
}

/// Shown; it stays a member.
pub(super) fn lose_secondary_paths(stage: &mut Stage) -> Result<()> {
    let run = Running::start_as(stage, steady(), Front::Ublk, Kind::Full)?;
    let secondary = run.secondary();
    let before = run.pair.until(&stage.lab, run.primary, "dual", |status| status.dual)?.epoch;
    for link in disk_links(secondary) {
        stage.lab.cable(link).cut();
    }
    let lost = |status: &VolumeStatus| status.disk.paths.iter().all(|path| path.state != "active");
    let status = run.pair.until(&stage.lab, secondary, "it says that it has no path", lost)?;
    ensure!(status.dual && status.role == "secondary", "it is {}", status.role);
    run.load.goes_on(SOME)?;
    for link in disk_links(secondary) {
        stage.lab.cable(link).mend();
    }
    stage.lab.node(run.pair.host(secondary)).until("both paths are back", 2 * PATH_LOSS, BOTH_PATHS)?;
    let after = run.pair.until(&stage.lab, run.primary, "dual", |status| status.dual)?.epoch;
    ensure!(after == before, "members or primary have changed: epoch {before}, now {after}");
    run.finish(stage, HARDLY)
}

/// Writes go on completing from RAM until the lanes are full, and wait then; none fails (rule 11).
pub(super) fn lose_all_paths(stage: &mut Stage) -> Result<()> {
    let run = Running::start_paced(stage, "16MiB")?;
    let all = [0, 1].map(disk_links).concat();
    run.pair.until_dual(&stage.lab)?;
    let begin = Instant::now();
    for &link in &all {
        stage.lab.cable(link).cut();
    }
    let meanwhile = completes_without_disk(&run, &stage.lab, 2 * SOME)?;
    wait_until_full(&stage.lab, &run)?;
    // Longer than multipath and iSCSI take to give up every path.
    stage.lab.sleep(Duration::from_secs(20).saturating_sub(begin.elapsed()));
    for &link in &all {
        stage.lab.cable(link).mend();
    }
    for host in [Host::San1, Host::San2] {
        stage.lab.node(host).until("both paths are back", 2 * PATH_LOSS, BOTH_PATHS)?;
    }
    let lost = begin.elapsed();
    stage.note(format!("{meanwhile} writes while the disk took none"));
    run.finish(stage, lost + PAUSE)
}

/// Nothing completes any more.
fn wait_until_full(lab: &Lab, run: &Running) -> Result<()> {
    let begin = Instant::now();
    let mut completed = run.load.completed();
    loop {
        lab.sleep(Duration::from_secs(1));
        let now = run.load.completed();
        if now == completed {
            return Ok(());
        }
        ensure!(begin.elapsed() < lab.scaled(2 * PATH_LOSS), "{now} requests have completed, and no disk took a byte");
        completed = now;
    }
}
