//! Both nodes on one SAN host, fenced by `local-lock`, on a disk behind dm-multipath; the client on its own host, over tcp,
//! with the kernel's nbd.

use anyhow::{Result, ensure};

use super::running::PAUSE;
use super::{files, parts};
use crate::load::{Load, SOME};
use crate::pair::{Front, Pair, Plan};
use crate::scenario::{Stage, ms};
use crate::topology::{Host, Link, PATH_LOSS};

pub(super) fn kill(stage: &mut Stage) -> Result<()> {
    let (mut pair, device) = Pair::serve(&stage.lab, Plan::one_host(), Front::NbdClient)?;
    let load = Load::start(&stage.lab, device)?;
    for _ in 0..2 {
        load.goes_on(SOME)?;
        let primary = pair.until_dual(&stage.lab)?;
        pair.signal_node(primary, libc::SIGKILL)?;
        pair.wait_node(primary)?;
        load.goes_on(SOME)?;
        let alone = pair.until(&stage.lab, 1 - primary, "it serves alone", |status| status.role == "primary")?;
        ensure!(!alone.dual, "dual with a dead node");
        pair.start_node(&stage.lab, primary)?;
        pair.until_dual(&stage.lab)?;
    }
    load.goes_on(SOME)?;
    let outcome = load.end_and_check(&stage.lab, PAUSE)?;
    stage.note(format!("2 kills, {}", outcome.note()));
    Ok(())
}

pub(super) fn path(stage: &mut Stage) -> Result<()> {
    let (_pair, device) = Pair::serve(&stage.lab, Plan::one_host(), Front::NbdClient)?;
    let lab = &stage.lab;
    let load = Load::start(lab, device)?;
    load.goes_on(SOME)?;
    lab.cable(Link::A1).cut();
    lab.node(Host::San1).until("the path counts as lost", PATH_LOSS, ONE_PATH)?;
    load.goes_on(SOME)?;
    lab.cable(Link::A1).mend();
    let back = lab.node(Host::San1).until("both paths are back", 2 * PATH_LOSS, parts::BOTH_PATHS)?;
    load.goes_on(SOME)?;
    let outcome = load.end_and_check(&stage.lab, PATH_LOSS)?;
    stage.note(format!("path back after {}, {}", ms(back), outcome.note()));
    Ok(())
}

/// Succeeds once a SAN host has lost one of its paths.
const ONE_PATH: &str = "[ $(multipathd show paths format '%t %T' | grep -c 'active ready') = 1 ]";

pub(super) fn ext4(stage: &mut Stage) -> Result<()> {
    let (mut pair, device) = Pair::serve(&stage.lab, Plan::one_host(), Front::NbdClient)?;
    let verified = files::fio_verify(&stage.lab, Host::Client, device)?;
    let rows = files::ext4_and_sqlite(&mut stage.lab, device, |lab| {
        let primary = pair.until_dual(lab)?;
        pair.signal_node(primary, libc::SIGKILL)?;
        pair.wait_node(primary)?;
        pair.start_node(lab, primary)
    })?;
    stage.note(format!("fio verified {verified} MiB, sqlite kept {rows} rows"));
    Ok(())
}
