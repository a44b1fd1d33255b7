//! The volume as a block device of the client's kernel, over rxe, with a node on each SAN host: files on it, and a client
//! that dies.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::files;
use super::running::PAUSE;
use crate::load::{Load, SOME};
use crate::machine::Kind;
use crate::pair::{Front, PATIENCE, Pair, Plan};
use crate::scenario::{Stage, ms};
use crate::topology::{Host, Lab};

/// Written, verified, and a filesystem with a database on it, which loses the primary's host in the middle.
pub(super) fn files_on_ublk(stage: &mut Stage) -> Result<()> {
    files_on(stage, Front::Ublk)
}

/// The same on the kernel's nbd.
pub(super) fn files_on_nbd(stage: &mut Stage) -> Result<()> {
    files_on(stage, Front::NbdDevice)
}

fn files_on(stage: &mut Stage, front: Front) -> Result<()> {
    let (mut pair, device) = Pair::serve(&stage.lab, Plan::two_hosts("rdma"), front)?;
    over_rdma(&stage.lab)?;
    fallback_pages(&stage.lab, &pair)?;
    let verified = files::fio_verify(&stage.lab, Host::Client, device)?;
    let rows = files::ext4_and_sqlite(&mut stage.lab, device, |lab| {
        let primary = pair.until_dual(lab)?;
        let host = pair.host(primary);
        lab.power_cycle(&[host])?;
        pair.install(lab, host)?;
        pair.start_node(lab, primary)
    })?;
    stage.note(format!("fio verified {verified} MiB, sqlite kept {rows} rows"));
    Ok(())
}

/// The programs have queue pairs on every data link: nothing has fallen back to sockets.
pub(super) fn over_rdma(lab: &Lab) -> Result<()> {
    for (host, links) in
        [(Host::San1, &["eth2", "eth3"]), (Host::San2, &["eth2", "eth3"]), (Host::Client, &["eth0", "eth1"])]
    {
        let shown = lab.node(host).sh("rdma resource show qp")?;
        for link in links {
            let ours = |line: &&str| line.contains(&format!("rxe_{link}/")) && line.contains("comm twinsan");
            let count = shown.lines().filter(ours).count();
            ensure!(count > 0, "no queue pair of ours on {link} of {}: {shown}", host.name());
        }
    }
    Ok(())
}

/// No huge pages are reserved here, and User-Mode Linux has none at all: what runs is the fall-back, and it says so. The stock
/// kernel may give transparent ones.
fn fallback_pages(lab: &Lab, pair: &Pair) -> Result<()> {
    let memory = pair.status(lab, 0)?.context("san1 does not answer")?.memory;
    let small = memory.pages == "small" || (lab.kind() == Kind::Qemu && memory.pages == "transparent-huge");
    ensure!(small && memory.locked && !memory.advice.is_empty(), "{memory:?}");
    Ok(())
}

/// SIGKILL under load, and the same command again: no request fails.
pub(super) fn client_killed_ublk(stage: &mut Stage) -> Result<()> {
    client_killed(stage, Front::Ublk, PAUSE)
}

/// The same for the kernel's nbd.
pub(super) fn client_killed_nbd(stage: &mut Stage) -> Result<()> {
    client_killed(stage, Front::NbdDevice, NBD_TIMEOUT + PAUSE)
}

/// The kernel's nbd asks the next process again for what the last one took with it only after so long.
const NBD_TIMEOUT: Duration = Duration::from_secs(10);

fn client_killed(stage: &mut Stage, front: Front, most: Duration) -> Result<()> {
    let (mut pair, device) = Pair::serve(&stage.lab, Plan::two_hosts("rdma"), front)?;
    let load = Load::start(&stage.lab, device)?;
    for _ in 0..3 {
        load.goes_on(SOME)?;
        pair.client()?.signal(libc::SIGKILL)?;
        pair.client()?.wait(PATIENCE)?;
        stage.lab.sleep(Duration::from_millis(500));
        pair.attach(&stage.lab, front)?;
        load.goes_on(SOME)?;
    }
    pair.until_dual(&stage.lab)?;
    let outcome = load.end_and_check(&stage.lab, most)?;
    stage.note(format!("3 kills, {}", outcome.note()));
    Ok(())
}

/// The whole client host loses power: what had completed is there when it is back.
pub(super) fn client_host_killed(stage: &mut Stage) -> Result<()> {
    let (mut pair, device) = Pair::serve(&stage.lab, Plan::two_hosts("rdma"), Front::Ublk)?;
    let committed = files::commits_until_power_cut(&mut stage.lab, device)?;
    stage.lab.power_cycle(&[Host::Client])?;
    pair.install(&stage.lab, Host::Client)?;
    let begin = Instant::now();
    let device = pair.attach_waiting(&stage.lab, Front::Ublk)?;
    let attached = begin.elapsed();
    let rows = files::committed_rows(&stage.lab, device, committed)?;
    stage.note(format!("attached again after {}, {committed} commits reported, {rows} rows", ms(attached)));
    Ok(())
}
