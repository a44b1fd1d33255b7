//! Whole hosts that lose power or freeze under load: the rows of `docs/protocol.md`, section 6, that need real ones.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::lab_itself::FrozenClock;
use super::parts;
use super::running::{PAUSE, Running, revive, steady};
use crate::load::{Load, SOME};
use crate::pair::{Front, NODES, PATIENCE, Pair};
use crate::scenario::{Stage, ms};
use crate::topology::{Host, SERIAL};

/// The primary's host, then the host of the one that took over.
pub(super) fn kill_primary_host(stage: &mut Stage) -> Result<()> {
    let run = Running::start(stage)?;
    kill_both_in_turn(stage, run)
}

/// The same over sockets, with other people's nbd-client.
pub(super) fn kill_primary_host_tcp(stage: &mut Stage) -> Result<()> {
    let run = Running::start_with(stage, "tcp", Front::NbdClient)?;
    kill_both_in_turn(stage, run)
}

fn kill_both_in_turn(stage: &mut Stage, mut run: Running) -> Result<()> {
    for _ in 0..2 {
        let host = run.pair.host(run.primary);
        stage.lab.node_mut(host).kill();
        run.load.goes_on(SOME)?;
        run.until_solo(&stage.lab, run.secondary())?;
        revive(&mut stage.lab, &mut run.pair, run.primary)?;
        run.primary = run.pair.until_dual(&stage.lab)?;
    }
    run.finish(stage, PAUSE)
}

pub(super) fn kill_secondary_host(stage: &mut Stage) -> Result<()> {
    let mut run = Running::start(stage)?;
    let secondary = run.secondary();
    let host = run.pair.host(secondary);
    stage.lab.node_mut(host).kill();
    run.until_solo(&stage.lab, run.primary)?;
    run.load.goes_on(SOME)?;
    revive(&mut stage.lab, &mut run.pair, secondary)?;
    run.finish(stage, PAUSE)
}

/// The one that served alone comes back alone.
pub(super) fn kill_solo_host(stage: &mut Stage) -> Result<()> {
    let mut run = Running::start(stage)?;
    let (primary, secondary) = (run.primary, run.secondary());
    stage.lab.node_mut(run.pair.host(secondary)).kill();
    run.until_solo(&stage.lab, primary)?;
    run.load.goes_on(SOME)?;
    stage.lab.node_mut(run.pair.host(primary)).kill();
    let killed = Instant::now();
    // The other host, which was not a member any more, may start first: completed means on the disk.
    revive(&mut stage.lab, &mut run.pair, secondary)?;
    let nobody = killed.elapsed();
    stage.note(format!("nobody was there for {}", ms(nobody)));
    run.load.goes_on(SOME)?;
    revive(&mut stage.lab, &mut run.pair, primary)?;
    run.finish(stage, nobody + PAUSE)
}

/// Both nodes' RAM is gone while dual: nobody serves until an operator says so (rule 12).
pub(super) fn kill_both_hosts(stage: &mut Stage) -> Result<()> {
    let (mut pair, device) = Pair::serve(&stage.lab, steady(), Front::Ublk)?;
    pair.until_dual(&stage.lab)?;
    let load = Load::start(&stage.lab, device)?;
    load.goes_on(SOME)?;
    for host in [Host::San1, Host::San2] {
        stage.lab.node_mut(host).kill();
    }
    stage.lab.power_cycle(&[Host::San1, Host::San2])?;
    for node in 0..2 {
        pair.install(&stage.lab, pair.host(node))?;
        pair.start_node(&stage.lab, node)?;
    }
    for node in 0..2 {
        pair.until(&stage.lab, node, "it refuses to serve", |status| status.role == "refusing")?;
    }
    let unasked = pair.twinsan(&stage.lab, pair.host(0), "recover vol1 --node san1")?;
    ensure!(unasked.code != 0, "twinsan recover accepts the loss by itself: {}", unasked.text);
    let recovered = pair.twinsan(&stage.lab, pair.host(0), "recover vol1 --node san1 --accept-data-loss")?;
    ensure!(recovered.code == 0, "twinsan recover: {}", recovered.text);
    load.goes_on(SOME)?;
    let primary = pair.until_dual(&stage.lab)?;
    let lost = load.end_lossy(&stage.lab)?;
    stage.note(format!("both refused; served again after recover, {lost} blocks of before are lost"));
    // From here on the promise holds again.
    let load = Load::start(&stage.lab, device)?;
    load.goes_on(SOME)?;
    Running { pair, load, primary }.finish(stage, PAUSE)
}

/// The old primary's late writes are refused by the disk, and it joins again by itself.
pub(super) fn freeze_primary(stage: &mut Stage) -> Result<()> {
    let mut run = Running::start(stage)?;
    let (old, new) = (run.primary, run.secondary());
    let host = run.pair.host(old);
    let clock = FrozenClock::freeze(&mut stage.lab, host)?;
    run.load.goes_on(SOME)?;
    run.until_solo(&stage.lab, new)?;
    let before = run.pair.node_said(old).len();
    let lag = clock.thaw(&mut stage.lab)?;
    run.primary = run.pair.until_dual(&stage.lab)?;
    ensure!(run.primary == new, "the thawed node is primary again");
    let said = run.pair.node_said(old).split_off(before);
    ensure!(said.contains("reservation conflict"), "the late write of {} was not refused:\n{said}", NODES[old]);
    if let Some(lag) = lag {
        stage.note(format!("its clock stood still for {}", ms(lag)));
    }
    run.finish(stage, PAUSE)
}

pub(super) fn freeze_secondary(stage: &mut Stage) -> Result<()> {
    let run = Running::start(stage)?;
    let host = run.pair.host(run.secondary());
    stage.lab.node_mut(host).freeze()?;
    run.until_solo(&stage.lab, run.primary)?;
    run.load.goes_on(SOME)?;
    stage.lab.node_mut(host).thaw()?;
    run.finish(stage, PAUSE)
}

/// The reservation and the keys outlive it; writes wait.
pub(super) fn shelf_restart(stage: &mut Stage) -> Result<()> {
    let run = Running::start(stage)?;
    let kept = stage.lab.share().join("shelf/pr").join(format!("aptpl_{SERIAL}"));
    let text = std::fs::read_to_string(&kept)?;
    ensure!(text.contains("res_holder=1"), "the shelf keeps no reservation: {text}");
    let begin = Instant::now();
    stage.lab.power_cycle(&[Host::Shelf])?;
    run.load.goes_on(SOME)?;
    let gone = begin.elapsed();
    // LIO has a port's kept registration again when that port logs in: writes go on by the first one.
    loop {
        let registered = parts::registrations(&stage.lab, run.pair.host(run.primary))?;
        if registered == 4 {
            break;
        }
        ensure!(begin.elapsed() < PATIENCE, "{registered} registrations, and there are 4 paths");
        std::thread::sleep(Duration::from_millis(100));
    }
    run.finish(stage, gone + PAUSE)
}
