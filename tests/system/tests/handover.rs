//! Planned handover with real processes: `twinsan switchover` and SIGTERM while a client writes. The client must see
//! no error, and every block that was completed must be there.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use twinsan_perf::cluster::{Cluster, NODES, VOLUME};
use twinsan_system::load::Load;
use twinsan_system::{PATIENCE, dual_cluster};

/// To the other node and back, so many times.
const ROUND_TRIPS: usize = 5;

fn primary(cluster: &Cluster) -> Result<usize> {
    cluster.primary().context("nobody serves")
}

/// What no planned move may cause.
fn nobody_was_fenced(cluster: &Cluster) -> Result<()> {
    for node in NODES {
        let log = std::fs::read_to_string(cluster.run(&format!("{node}.log")))?;
        for word in ["killed the process", "rule 5", "fenced out", "(rule 6); fencing san"] {
            // The first start takes an empty volume over; nothing later does.
            let times = log.lines().filter(|line| line.contains(word)).count();
            let allowed = usize::from(word.starts_with("(rule 6)"));
            ensure!(times <= allowed, "{node} says \"{word}\" {times} times:\n{log}");
        }
    }
    Ok(())
}

fn switch_over(cluster: &Cluster) -> Result<Value> {
    let output = cluster.twinsan(&["switchover", VOLUME, "--json"]).output()?;
    ensure!(output.status.success(), "twinsan switchover: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[test]
fn switchover_to_and_fro_in_mid_load() -> Result<()> {
    let cluster = dual_cluster()?;
    let load = Load::start(&cluster);
    let first = primary(&cluster)?;
    for round in 0..2 * ROUND_TRIPS {
        load.goes_on(&cluster, 50)?;
        cluster.wait_until("the pair is dual", PATIENCE, Cluster::is_dual)?;
        let old = primary(&cluster)?;
        ensure!(old == if round % 2 == 0 { first } else { 1 - first }, "nothing moves by itself");
        let usual = load.longest_ms();
        let switched = switch_over(&cluster)?;
        ensure!(switched["from"] == NODES[old] && switched["to"] == NODES[1 - old], "{switched}");
        let pause = switched["pause_ms"].as_u64().with_context(|| format!("no pause in {switched}"))?;
        load.goes_on(&cluster, 20)?;
        let longest = load.longest_ms();
        println!(
            "{} hands over to {}: a pause of {pause} ms; the longest write took {longest} ms (before: {usual} ms)",
            NODES[old],
            NODES[1 - old]
        );
        ensure!(primary(&cluster)? == 1 - old, "the other one serves");
        ensure!(cluster.is_dual(), "both stay members");
    }
    load.end_and_check(&cluster)?;
    nobody_was_fenced(&cluster)
}

/// A rolling restart: each node is ended in order while it serves, and started again.
#[test]
fn rolling_restart_in_mid_load() -> Result<()> {
    let mut cluster = dual_cluster()?;
    let load = Load::start(&cluster);
    for _ in 0..4 {
        load.goes_on(&cluster, 50)?;
        let old = primary(&cluster)?;
        let usual = load.longest_ms();
        let status = cluster.stop_node(old, PATIENCE)?;
        ensure!(status.code() == Some(0), "{} ended with {status}\n{}", NODES[old], cluster.log_tail("san1.log"));
        load.goes_on(&cluster, 20)?;
        println!("{} ends: the longest write took {} ms (before: {usual} ms)", NODES[old], load.longest_ms());
        ensure!(primary(&cluster)? == 1 - old, "the other one serves");
        cluster.start_node(old)?;
        cluster.wait_until("the pair is dual again", PATIENCE, Cluster::is_dual)?;
    }
    load.end_and_check(&cluster)?;
    nobody_was_fenced(&cluster)
}

#[test]
fn a_switchover_that_can_not_be_says_why() -> Result<()> {
    let mut cluster = dual_cluster()?;
    let load = Load::start(&cluster);
    load.goes_on(&cluster, 20)?;
    let serving = primary(&cluster)?;
    cluster.stop_node(1 - serving, PATIENCE)?;
    cluster.wait_until("the primary is alone", PATIENCE, |c| c.status(serving).is_ok_and(|v| !v.dual))?;
    let refused = cluster.twinsan(&["switchover", VOLUME]).output()?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(refused.status.code() == Some(1), "{said}");
    ensure!(said.contains(NODES[serving]) && said.contains("alone") && said.contains(NODES[1 - serving]), "{said}");
    load.goes_on(&cluster, 20)?;
    load.end_and_check(&cluster)
}

/// One order after the other, as fast as they go: each moves the volume or says why not.
#[test]
fn switchovers_in_a_row_are_done_or_refused() -> Result<()> {
    let cluster = dual_cluster()?;
    let load = Load::start(&cluster);
    load.goes_on(&cluster, 20)?;
    let mut moved = 0;
    for _ in 0..20 {
        let output = cluster.twinsan(&["switchover", VOLUME]).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            moved += 1;
            let said = String::from_utf8_lossy(&output.stdout);
            ensure!(said.contains("is served by") && said.contains("the pause was"), "{said}");
        } else {
            ensure!(
                said.contains("not ready") || said.contains("under way") || said.contains("nobody serves"),
                "{said}"
            );
        }
    }
    ensure!(moved >= 5, "{moved} of 20 went through");
    load.goes_on(&cluster, 20)?;
    load.end_and_check(&cluster)?;
    nobody_was_fenced(&cluster)
}
