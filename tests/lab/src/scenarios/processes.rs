//! Node processes that are killed, ended and told to hand over, with reservations and queue pairs that outlive them or not; and
//! a client that comes back too late.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::files;
use super::running::{HARDLY, PAUSE, Running};
use crate::load::{Kind, SOME};
use crate::pair::{Front, NODES, PATIENCE, Plan, Timing};
use crate::scenario::{Stage, ms};
use crate::topology::Host;

/// SIGKILL to the primary's process, then to the secondary's: its host, keys and kernel live on. That the process is gone is
/// known at once (rule 15): nobody waits for the end of a silence that would take longer than the caller may.
pub(super) fn kill_processes(stage: &mut Stage) -> Result<()> {
    let timing = Timing { takeover: 60_000, drop: 60_000, ..Timing::DEFAULT };
    let plan = Plan { timing, ..Plan::two_hosts("rdma") };
    let mut run = Running::start_as(stage, plan, Front::Ublk, Kind::Full)?;
    for of_primary in [true, false] {
        let node = if of_primary { run.primary } else { run.secondary() };
        run.pair.signal_node(node, libc::SIGKILL)?;
        run.pair.wait_node(node)?;
        run.load.goes_on(SOME)?;
        run.until_solo(&stage.lab, 1 - node)?;
        run.pair.start_node(&stage.lab, node)?;
        run.primary = run.pair.until_dual(&stage.lab)?;
    }
    run.finish(stage, PAUSE)
}

/// SIGTERM to each node in turn, under load: nobody sees an error, and the pair is dual again.
pub(super) fn stop_in_turn(stage: &mut Stage) -> Result<()> {
    let mut run = Running::start(stage)?;
    for _ in 0..2 {
        let primary = run.primary;
        run.pair.signal_node(primary, libc::SIGTERM)?;
        let code = run.pair.wait_node(primary)?;
        ensure!(code == 0, "{} ended with {code} on SIGTERM", NODES[primary]);
        run.load.goes_on(SOME)?;
        run.pair.start_node(&stage.lab, primary)?;
        run.primary = run.pair.until_dual(&stage.lab)?;
    }
    run.finish(stage, HARDLY)
}

/// SIGTERM to both at once. All is on the disk, so either starts alone afterwards (rule 6, clean).
pub(super) fn stop_both(stage: &mut Stage) -> Result<()> {
    let mut run = Running::start(stage)?;
    let begin = Instant::now();
    for node in 0..2 {
        run.pair.signal_node(node, libc::SIGTERM)?;
    }
    for (node, name) in NODES.iter().enumerate() {
        let code = run.pair.wait_node(node)?;
        ensure!(code == 0, "{name} ended with {code} on SIGTERM");
    }
    let stopped = begin.elapsed();
    for node in [run.primary, run.secondary()] {
        run.pair.start_node(&stage.lab, node)?;
        run.load.goes_on(SOME)?;
    }
    stage.note(format!("both had ended after {}", ms(stopped)));
    run.finish(stage, stopped + PAUSE)
}

/// `twinsan switchover` back and forth, under load.
pub(super) fn switchover(stage: &mut Stage) -> Result<()> {
    let mut run = Running::start(stage)?;
    for _ in 0..4 {
        let host = run.pair.host(run.primary);
        let output = run.pair.twinsan(&stage.lab, host, "switchover vol1")?;
        ensure!(output.code == 0, "twinsan switchover: {}", output.text);
        let new = run.pair.until_dual(&stage.lab)?;
        ensure!(new != run.primary, "the primary is the same");
        run.primary = new;
        run.load.goes_on(SOME)?;
    }
    run.finish(stage, HARDLY)
}

/// A client's host freezes, and another client attaches. When the first one thaws, its writes are refused (rule 10), with an
/// error to whoever waits for them, and nothing of them is on the volume.
pub(super) fn old_client_back(stage: &mut Stage) -> Result<()> {
    let Running { mut pair, load, .. } = Running::start(stage)?;
    stage.lab.node_mut(Host::Client).freeze()?;
    let old = pair.attach_from(&stage.lab, Host::San2, Front::Ublk, " --wait")?.context("a client before it")?;
    let device = Front::Ublk.device();
    let verified = files::fio_verify(&stage.lab, Host::San2, device)?;
    stage.lab.node_mut(Host::Client).thaw()?;
    load.until_refused()?;
    let said = old.wait(PATIENCE)?;
    ensure!(said.code != 0, "the replaced client ended without an error: {}", said.text);
    files::fio_verify_again(&stage.lab, Host::San2, device)?;
    pair.until_dual(&stage.lab)?;
    stage.note(format!("the first was refused, {verified} MiB of the second are there"));
    Ok(())
}
