//! `twinsan prove` with real processes: it says that a pair keeps its promise, and catches one that does not.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use twinsan_perf::cluster::{Cluster, NODES, VOLUME};
use twinsan_system::{PATIENCE, Pair, cluster, programs};

/// Kills who serves.
const KILL: &str = "kill -9 $(cat \"$PIDS/$TWINSAN_PRIMARY.pid\")";
/// Starts the other one than who serves now.
const RESTART: &str = "\"$TWINSAND\" --node \"$TWINSAN_SECONDARY\" >> \"$PIDS/$TWINSAN_SECONDARY.log\" 2>&1 & \
                       echo $! > \"$PIDS/$TWINSAN_SECONDARY.pid\"";

/// Ends the nodes that a restart command has started.
struct Orphans<'a>(&'a Path);

impl Drop for Orphans<'_> {
    fn drop(&mut self) {
        for node in NODES {
            let pid = fs::read_to_string(self.0.join(format!("{node}.pid"))).ok().and_then(|s| s.trim().parse().ok());
            if let Some(pid) = pid.and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

/// Two nodes that hold everything, and no client.
fn nodes() -> Result<Pair> {
    let mut pair = cluster()?;
    for (node, name) in NODES.iter().enumerate() {
        pair.start_node(node)?;
        let pid = pair.node_pid(node).context("just started")?;
        fs::write(pair.run(&format!("{name}.pid")), pid.to_string())?;
    }
    pair.wait_until("the pair is dual", PATIENCE, Cluster::is_dual)?;
    Ok(pair)
}

fn prove(pair: &Pair, arguments: &[&str]) -> Result<Output> {
    let mut command: Command = pair.twinsan(&["prove", VOLUME, "--span", "8MiB", "--json"]);
    let run = pair.config().parent().context("a folder")?.to_owned();
    command.args(arguments).env("PIDS", run).env("TWINSAND", programs()?.twinsand).env("TWINSAN_CONFIG", pair.config());
    Ok(command.output()?)
}

fn result(output: &Output) -> Result<Value> {
    serde_json::from_slice(&output.stdout).with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_pair_whose_primary_is_killed_three_times_keeps_its_promise() -> Result<()> {
    let pair = nodes()?;
    let run = pair.config().parent().context("a folder")?.to_owned();
    let _orphans = Orphans(&run);
    let output = prove(&pair, &["--rounds", "3", "--kill-command", KILL, "--restart-command", RESTART])?;
    let proof = result(&output)?;
    ensure!(output.status.success() && proof["verdict"] == "kept", "{proof:#}");
    ensure!(proof["blocks_lost"] == 0 && proof["failed"] == 0 && proof["unknown"] == 0, "{proof:#}");
    let rounds = proof["rounds"].as_array().context("rounds")?;
    ensure!(rounds.len() == 3, "{proof:#}");
    for round in rounds {
        let served = ["primary_before", "primary_after"].map(|key| round[key].as_str().unwrap_or_default().to_owned());
        ensure!(served[0] != served[1] && served.iter().all(|name| NODES.contains(&name.as_str())), "{round:#}");
        ensure!(round["dual_after_ms"].is_number() && round["longest_ms"].as_f64() > Some(0.0), "{round:#}");
    }
    ensure!(proof["writes_completed"].as_u64() > Some(100) && proof["reads_compared"].as_u64() > Some(50), "{proof:#}");
    // Again on what it has left there, without --overwrite; and this time it is the client that is killed.
    let kill = "pkill -9 -f \"$TWINSAN_CONFIG attach $TWINSAN_VOLUME\"";
    let output = prove(&pair, &["--rounds", "1", "--kill-command", kill])?;
    let proof = result(&output)?;
    ensure!(output.status.success() && proof["verdict"] == "kept", "{proof:#}");
    ensure!(proof["rounds"][0]["client_ended"] == true, "{proof:#}");
    Ok(())
}

#[test]
fn a_disk_that_forgets_is_caught() -> Result<()> {
    let pair = nodes()?;
    let disk = pair.disk_file();
    // What is flushed and not written again before it is read is gone.
    let forget =
        format!("sleep 1; dd if=/dev/zero of='{}' bs=1M seek=1 count=8 conv=notrunc status=none", disk.display());
    let output = prove(&pair, &["--rounds", "1", "--depth", "1", "--kill-command", &forget])?;
    let proof = result(&output)?;
    ensure!(output.status.code() == Some(1) && proof["verdict"] == "broken", "{proof:#}");
    ensure!(proof["blocks_lost"].as_u64() > Some(0), "{proof:#}");
    let evidence = proof["evidence"][0].as_str().context("evidence")?;
    ensure!(evidence.contains("had completed, a read found what was there at first"), "{evidence}");
    Ok(())
}

#[test]
fn a_volume_that_holds_something_is_not_overwritten_unasked() -> Result<()> {
    let mut pair = nodes()?;
    pair.attach(PATIENCE)?;
    twinsan_witness::nbd::Client::connect(&pair.nbd_socket(), VOLUME)?.write(4 << 20, &[7; 4096])?;
    pair.detach(PATIENCE)?;
    let output = prove(&pair, &["--kill-command", "true"])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1) && said.contains("holds something at byte 4194304"), "{said}");
    let output = prove(&pair, &["--rounds", "1"])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1) && said.contains("give --kill-command"), "{said}");
    Ok(())
}
