//! Nodes die, freeze, end and come back while a client writes.

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use twinsan_perf::cluster::Cluster;
use twinsan_system::load::Load;
use twinsan_system::{PATIENCE, dual_cluster};

fn primary(cluster: &Cluster) -> Result<usize> {
    cluster.primary().context("nobody serves")
}

#[test]
fn primary_killed_in_mid_load_and_the_other_one_after_it() -> Result<()> {
    let mut cluster = dual_cluster()?;
    let load = Load::start(&cluster);
    for _ in 0..2 {
        load.goes_on(&cluster, 100)?;
        let old = primary(&cluster)?;
        cluster.kill_node(old)?;
        load.goes_on(&cluster, 20)?;
        ensure!(primary(&cluster)? == 1 - old, "the survivor serves");
        cluster.start_node(old)?;
        cluster.wait_until("the pair is dual again", PATIENCE, Cluster::is_dual)?;
    }
    load.goes_on(&cluster, 20)?;
    load.end_and_check(&cluster)
}

#[test]
fn secondary_killed_in_mid_load_joins_again_without_resync() -> Result<()> {
    let mut cluster = dual_cluster()?;
    let load = Load::start(&cluster);
    load.goes_on(&cluster, 100)?;
    let serving = primary(&cluster)?;
    cluster.kill_node(1 - serving)?;
    load.goes_on(&cluster, 20)?;
    ensure!(primary(&cluster)? == serving, "the primary stays");
    ensure!(!cluster.status(serving)?.dual, "and is alone");
    cluster.start_node(1 - serving)?;
    cluster.wait_until("the pair is dual again", PATIENCE, Cluster::is_dual)?;
    load.goes_on(&cluster, 20)?;
    load.end_and_check(&cluster)
}

#[test]
fn solo_node_killed_and_started_again() -> Result<()> {
    let mut cluster = dual_cluster()?;
    let load = Load::start(&cluster);
    load.goes_on(&cluster, 50)?;
    let serving = primary(&cluster)?;
    cluster.kill_node(1 - serving)?;
    cluster.wait_until("the primary is alone", PATIENCE, |c| c.status(serving).is_ok_and(|v| !v.dual))?;
    load.goes_on(&cluster, 20)?;
    cluster.kill_node(serving)?;
    cluster.start_node(serving)?;
    load.goes_on(&cluster, 20)?;
    load.end_and_check(&cluster)
}

#[test]
fn frozen_secondary_is_dropped_and_joins_when_it_thaws() -> Result<()> {
    let cluster = dual_cluster()?;
    let load = Load::start(&cluster);
    load.goes_on(&cluster, 50)?;
    let serving = primary(&cluster)?;
    cluster.signal_node(1 - serving, Signal::STOP)?;
    cluster.wait_until("the primary is alone", PATIENCE, |c| c.status(serving).is_ok_and(|v| !v.dual))?;
    load.goes_on(&cluster, 20)?;
    cluster.signal_node(1 - serving, Signal::CONT)?;
    cluster.wait_until("the pair is dual again", PATIENCE, Cluster::is_dual)?;
    load.end_and_check(&cluster)
}

#[test]
fn frozen_primary_is_fenced_and_replaced() -> Result<()> {
    let mut cluster = dual_cluster()?;
    let load = Load::start(&cluster);
    load.goes_on(&cluster, 50)?;
    let old = primary(&cluster)?;
    cluster.signal_node(old, Signal::STOP)?;
    load.goes_on(&cluster, 20)?;
    // The fence of two nodes on one host ends whoever holds it, frozen or not.
    let status = cluster.wait_node(old, PATIENCE)?;
    ensure!(!status.success(), "killed by the fence: {status}");
    cluster.start_node(old)?;
    cluster.wait_until("the pair is dual again", PATIENCE, Cluster::is_dual)?;
    load.end_and_check(&cluster)
}

#[test]
fn sigterm_on_the_secondary_leaves_in_order() -> Result<()> {
    let mut cluster = dual_cluster()?;
    let load = Load::start(&cluster);
    load.goes_on(&cluster, 50)?;
    let serving = primary(&cluster)?;
    let status = cluster.stop_node(1 - serving, PATIENCE)?;
    ensure!(status.success(), "it ends well: {status}");
    ensure!(!cluster.status(serving)?.dual, "the superblock has named one member before it ended");
    load.goes_on(&cluster, 20)?;
    load.end_and_check(&cluster)
}

#[test]
fn sigterm_on_a_dual_primary_makes_the_other_take_over() -> Result<()> {
    let mut cluster = dual_cluster()?;
    let load = Load::start(&cluster);
    load.goes_on(&cluster, 50)?;
    let old = primary(&cluster)?;
    let status = cluster.stop_node(old, PATIENCE)?;
    ensure!(status.success(), "it ends well: {status}");
    load.goes_on(&cluster, 20)?;
    ensure!(primary(&cluster)? == 1 - old, "the other one serves");
    load.end_and_check(&cluster)
}

#[test]
fn both_stopped_in_order_start_clean() -> Result<()> {
    let mut cluster = dual_cluster()?;
    let load = Load::start(&cluster);
    load.goes_on(&cluster, 50)?;
    for node in 0..2 {
        ensure!(cluster.stop_node(node, PATIENCE)?.success(), "it ends well");
    }
    // The load waits meanwhile: a node's end is a pause, never an error.
    for node in 0..2 {
        cluster.start_node(node)?;
    }
    load.goes_on(&cluster, 20)?;
    cluster.wait_until("the pair is dual again", PATIENCE, Cluster::is_dual)?;
    load.end_and_check(&cluster)
}

#[test]
fn both_killed_while_dual_refuse_until_the_operator_accepts_the_loss() -> Result<()> {
    let mut cluster = dual_cluster()?;
    // At once: who is left alone for some milliseconds takes over, and then nothing is lost.
    let serving = primary(&cluster)?;
    cluster.signal_node(1 - serving, Signal::STOP)?;
    cluster.kill_node(serving)?;
    cluster.kill_node(1 - serving)?;
    for node in 0..2 {
        cluster.start_node(node)?;
    }
    let refuses = |c: &Cluster| (0..2).all(|n| c.status(n).is_ok_and(|v| v.role == "refusing"));
    cluster.wait_until("both refuse", PATIENCE, refuses)?;
    let without = cluster.twinsan(&["recover", "vol1"]).output()?;
    ensure!(!without.status.success(), "recover wants --accept-data-loss");
    ensure!(refuses(&cluster), "and has done nothing");
    let recover = cluster.twinsan(&["recover", "--accept-data-loss", "vol1"]).output()?;
    ensure!(recover.status.success(), "recover: {}", String::from_utf8_lossy(&recover.stderr));
    cluster.wait_until("the pair is dual", PATIENCE, Cluster::is_dual)?;
    let load = Load::start(&cluster);
    load.goes_on(&cluster, 20)?;
    load.end_and_check(&cluster)
}

#[test]
fn killed_client_attaches_anew_and_finds_its_writes() -> Result<()> {
    let mut cluster = dual_cluster()?;
    let load = Load::start(&cluster);
    load.goes_on(&cluster, 50)?;
    let before = cluster.status(primary(&cluster)?)?.generation;
    load.end_and_check(&cluster)?;
    cluster.kill_client()?;
    cluster.attach(PATIENCE)?;
    ensure!(cluster.status(primary(&cluster)?)?.generation > before, "a new session");
    let load = Load::start(&cluster);
    load.goes_on(&cluster, 20)?;
    load.end_and_check(&cluster)
}

#[test]
fn second_client_is_turned_away_while_the_first_one_lives() -> Result<()> {
    let cluster = dual_cluster()?;
    let load = Load::start(&cluster);
    load.goes_on(&cluster, 20)?;
    let export = format!("unix:{}", cluster.run("second.sock").display());
    let second = cluster.twinsan(&["attach", "vol1", "--nbd", &export]).output()?;
    ensure!(!second.status.success(), "a second writer must be refused");
    let said = String::from_utf8_lossy(&second.stderr).to_lowercase();
    ensure!(said.contains("vol1") && (said.contains("busy") || said.contains("another")), "it says why: {said}");
    load.goes_on(&cluster, 20)?;
    load.end_and_check(&cluster)
}
