//! A node on each SAN host, fenced by SCSI-3 reservations, and whole hosts, links and paths that fail under load: the rows of
//! `docs/protocol.md`, section 6, that need real ones.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::lab_itself::FrozenClock;
use super::parts::{self, BOTH_PATHS};
use crate::load::{Kind, Load, SOME};
use crate::pair::{Front, NODES, Pair, Plan, Timing, VolumeStatus};
use crate::scenario::{Stage, ms};
use crate::topology::{Host, Lab, Link, PATH_LOSS, SERIAL};

/// A dual pair under load.
struct Running {
    pair: Pair,
    load: Load,
    primary: usize,
}

impl Running {
    fn start(stage: &Stage) -> Result<Self> {
        Self::start_with(stage, "rdma", Front::Ublk)
    }

    fn start_with(stage: &Stage, fabric: &'static str, front: Front) -> Result<Self> {
        Self::start_as(stage, Plan::two_hosts(fabric), front, Kind::Full)
    }

    /// With writes that a lane of 64 MiB holds for longer than the kernel takes to give up a path. Dropping somebody
    /// meanwhile would take the very disk that is away (rule 7).
    fn start_paced(stage: &Stage, staging: &'static str) -> Result<Self> {
        let plan = Plan { staging, ..steady() };
        Self::start_as(stage, plan, Front::Ublk, Kind::Paced)
    }

    fn start_as(stage: &Stage, plan: Plan, front: Front, kind: Kind) -> Result<Self> {
        let (pair, device) = Pair::serve(&stage.lab, plan, front)?;
        let primary = pair.until_dual(&stage.lab)?;
        let load = Load::start_kind(&stage.lab, device, kind)?;
        load.goes_on(SOME)?;
        Ok(Self { pair, load, primary })
    }

    fn secondary(&self) -> usize {
        1 - self.primary
    }

    /// `node` serves without the other one.
    fn until_solo(&self, lab: &Lab, node: usize) -> Result<VolumeStatus> {
        self.pair.until(lab, node, "it serves alone", |status| status.role == "primary" && !status.dual)
    }

    /// Everything is well again, and nothing is lost.
    fn finish(self, stage: &mut Stage) -> Result<()> {
        self.load.goes_on(SOME)?;
        self.pair.until_dual(&stage.lab)?;
        let outcome = self.load.end_and_check(&stage.lab)?;
        stage.note(outcome.note());
        Ok(())
    }
}

/// A guest that gets no CPU for half a second is not dropped: for scenarios that need the pair dual at one moment.
fn steady() -> Plan {
    Plan { timing: Timing { drop: 5000, ..Timing::DEFAULT }, ..Plan::two_hosts("rdma") }
}

/// A host comes back from the dead, and its node with it.
fn revive(lab: &mut Lab, pair: &mut Pair, node: usize) -> Result<()> {
    let host = pair.host(node);
    lab.power_cycle(&[host])?;
    pair.install(lab, host)?;
    pair.start_node(lab, node)
}

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
    run.finish(stage)
}

pub(super) fn kill_secondary_host(stage: &mut Stage) -> Result<()> {
    let mut run = Running::start(stage)?;
    let secondary = run.secondary();
    let host = run.pair.host(secondary);
    stage.lab.node_mut(host).kill();
    run.until_solo(&stage.lab, run.primary)?;
    run.load.goes_on(SOME)?;
    revive(&mut stage.lab, &mut run.pair, secondary)?;
    run.finish(stage)
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
    run.finish(stage)
}

pub(super) fn freeze_secondary(stage: &mut Stage) -> Result<()> {
    let run = Running::start(stage)?;
    let host = run.pair.host(run.secondary());
    stage.lab.node_mut(host).freeze()?;
    run.until_solo(&stage.lab, run.primary)?;
    run.load.goes_on(SOME)?;
    stage.lab.node_mut(host).thaw()?;
    run.finish(stage)
}

pub(super) fn cut_between_nodes(stage: &mut Stage) -> Result<()> {
    let run = Running::start(stage)?;
    stage.lab.cable(Link::Inter).cut();
    run.until_solo(&stage.lab, run.primary)?;
    run.load.goes_on(SOME)?;
    stage.lab.cable(Link::Inter).mend();
    run.finish(stage)
}

fn client_link(node: usize) -> Link {
    [Link::C1, Link::C2][node]
}

/// The link from the client to one node, which both nodes' link outlives.
fn cut_client_link(stage: &mut Stage, to_primary: bool) -> Result<()> {
    let run = Running::start(stage)?;
    let node = if to_primary { run.primary } else { run.secondary() };
    stage.lab.cable(client_link(node)).cut();
    run.load.goes_on(SOME)?;
    // Longer than every timeout: it does not only go on until somebody notices.
    stage.lab.sleep(Duration::from_secs(3));
    run.load.goes_on(SOME)?;
    stage.lab.cable(client_link(node)).mend();
    run.finish(stage)
}

pub(super) fn cut_client_primary(stage: &mut Stage) -> Result<()> {
    cut_client_link(stage, true)
}

pub(super) fn cut_client_secondary(stage: &mut Stage) -> Result<()> {
    cut_client_link(stage, false)
}

/// The disk stays: only the client's word tells the secondary that the primary serves nobody.
pub(super) fn cut_primary_network(stage: &mut Stage) -> Result<()> {
    let run = Running::start(stage)?;
    stage.lab.cable(Link::Inter).cut();
    stage.lab.cable(client_link(run.primary)).cut();
    run.load.goes_on(SOME)?;
    run.until_solo(&stage.lab, run.secondary())?;
    stage.lab.cable(Link::Inter).mend();
    stage.lab.cable(client_link(run.primary)).mend();
    run.finish(stage)
}

/// Requests wait, and none fails.
pub(super) fn cut_client_off(stage: &mut Stage) -> Result<()> {
    let run = Running::start(stage)?;
    for link in [Link::C1, Link::C2] {
        stage.lab.cable(link).cut();
    }
    stage.lab.sleep(Duration::from_secs(3));
    let stuck = run.load.completed();
    stage.lab.sleep(Duration::from_secs(1));
    ensure!(run.load.completed() == stuck, "requests of a client that reaches nobody complete");
    for link in [Link::C1, Link::C2] {
        stage.lab.cable(link).mend();
    }
    run.finish(stage)
}

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
    run.finish(stage)
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
    run.finish(stage)
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
    run.finish(stage)
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
    stage.note(format!("{meanwhile} writes while the disk took none"));
    run.finish(stage)
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

/// The reservation and the keys outlive it; writes wait.
pub(super) fn shelf_restart(stage: &mut Stage) -> Result<()> {
    let run = Running::start(stage)?;
    let kept = stage.lab.share().join("shelf/pr").join(format!("aptpl_{SERIAL}"));
    let text = std::fs::read_to_string(&kept)?;
    ensure!(text.contains("res_holder=1"), "the shelf keeps no reservation: {text}");
    stage.lab.power_cycle(&[Host::Shelf])?;
    run.finish(stage)
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
    let recovered = pair.twinsan(&stage.lab, pair.host(0), "recover vol1 --node san1 --accept-data-loss")?;
    ensure!(recovered.code == 0, "twinsan recover: {}", recovered.text);
    load.goes_on(SOME)?;
    pair.until_dual(&stage.lab)?;
    stage.note("both refused; served again after recover");
    Ok(())
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
    stage.note(format!("nobody was there for {}", ms(killed.elapsed())));
    run.load.goes_on(SOME)?;
    revive(&mut stage.lab, &mut run.pair, primary)?;
    run.finish(stage)
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
    run.finish(stage)
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
    run.finish(stage)
}
