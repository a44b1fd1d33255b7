//! Links that are cut under load, and the disk stays: the rows of `docs/protocol.md`, section 6.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use twinsan_control::admin::VolumeStatus;

use super::running::{PAUSE, Running};
use crate::load::SOME;
use crate::scenario::Stage;
use crate::topology::Link;

pub(super) fn cut_between_nodes(stage: &mut Stage) -> Result<()> {
    let run = Running::start(stage)?;
    stage.lab.cable(Link::Inter).cut();
    run.until_solo(&stage.lab, run.primary)?;
    run.load.goes_on(SOME)?;
    stage.lab.cable(Link::Inter).mend();
    run.finish(stage, PAUSE)
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
    // Whoever the client reaches serves, and feeds the other one: both stay members while the link is cut.
    let reached = 1 - node;
    let feeds = |status: &VolumeStatus| status.role == "primary" && status.dual && status.counters["blobs_relayed"] > 0;
    run.pair.until(&stage.lab, reached, "it serves, and feeds the other one", feeds)?;
    run.load.goes_on(SOME)?;
    let other = run.pair.until(&stage.lab, node, "it mirrors", |status| status.role == "secondary" && status.dual)?;
    ensure!(other.counters["blobs_received"] > 0, "a mirror that has received nothing");
    stage.lab.cable(client_link(node)).mend();
    run.finish(stage, PAUSE)
}

pub(super) fn cut_client_primary(stage: &mut Stage) -> Result<()> {
    cut_client_link(stage, true)
}

pub(super) fn cut_client_secondary(stage: &mut Stage) -> Result<()> {
    cut_client_link(stage, false)
}

fn cut_network(stage: &mut Stage, of_primary: bool) -> Result<()> {
    let run = Running::start(stage)?;
    let node = if of_primary { run.primary } else { run.secondary() };
    let links = [Link::Inter, client_link(node)];
    for link in links {
        stage.lab.cable(link).cut();
    }
    run.load.goes_on(SOME)?;
    run.until_solo(&stage.lab, 1 - node)?;
    run.load.goes_on(SOME)?;
    for link in links {
        stage.lab.cable(link).mend();
    }
    ensure!(run.pair.until_dual(&stage.lab)? == 1 - node, "the primary is another one now");
    run.finish(stage, PAUSE)
}

/// The disk stays: only the client's word tells the secondary that the primary serves nobody.
pub(super) fn cut_primary_network(stage: &mut Stage) -> Result<()> {
    cut_network(stage, true)
}

/// Dropped; it has a path to the disk, and does not take over though it hears nobody.
pub(super) fn cut_secondary_network(stage: &mut Stage) -> Result<()> {
    cut_network(stage, false)
}

/// One after the other: the nodes lose each other, then the client the one that serves alone. Its word moves the other one, which
/// is outside, and to which everything completed is on the disk (rules 15 and 6).
pub(super) fn cut_solo_network(stage: &mut Stage) -> Result<()> {
    let run = Running::start(stage)?;
    let (old, new) = (run.primary, run.secondary());
    stage.lab.cable(Link::Inter).cut();
    run.until_solo(&stage.lab, old)?;
    run.load.goes_on(SOME)?;
    stage.lab.cable(client_link(old)).cut();
    run.until_solo(&stage.lab, new)?;
    run.load.goes_on(SOME)?;
    for link in [Link::Inter, client_link(old)] {
        stage.lab.cable(link).mend();
    }
    ensure!(run.pair.until_dual(&stage.lab)? == new, "the primary is another one now");
    run.finish(stage, PAUSE)
}

/// Requests wait, and none fails.
pub(super) fn cut_client_off(stage: &mut Stage) -> Result<()> {
    let run = Running::start(stage)?;
    let begin = Instant::now();
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
    let cut = begin.elapsed();
    run.finish(stage, cut + PAUSE)
}
