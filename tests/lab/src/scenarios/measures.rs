//! What the path over rxe costs, by `twinsan-perf` on real nodes: compared with its own raw hops, and counted in instructions.
//! No times of a laptop's guests are judged, only ratios of what was measured in one run.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use twinsan_perf::instructions::counted::compile_shim;

use crate::agent::{Job, tail};
use crate::pair::{CONFIG, PATIENCE, Pair, Plan, Timing, VOLUME};
use crate::scenario::Stage;
use crate::topology::{Host, Lab};

/// A durable 4 KiB write takes at most so many times what its three raw hops take together.
const MOST_OVER_HOPS: &str = "1.5";
/// A node executes at most so many times as much for 1 MiB as for 4 KiB.
const MOST_FOR_1_MIB: &str = "1.1";
/// Many rounds on one CPU a guest.
const TIME: Duration = Duration::from_secs(300);

/// Round trips between client and node over our fabric, and in bare verbs.
pub(super) fn wire(stage: &mut Stage) -> Result<()> {
    let lab = &stage.lab;
    let url = "rdma://10.3.1.1:7500";
    let _listener = listen(lab, Host::San1, url)?;
    let command = format!("/lab/bin/twinsan-perf wire --fabric {url} --sizes 4KiB,1MiB --rounds 1000 --json");
    let (_, result) = measured(lab, Host::Client, &command)?;
    let mut words = Vec::new();
    for row in result["rows"].as_array().context("rows")? {
        let p50 = row["p50_us"].as_f64().context("a median")?;
        ensure!(p50 > 0.0 && row["checked"].as_u64() > Some(0), "{row}");
        if let Some(ratio) = row["raw"]["ratio"].as_f64() {
            let name = row["row"].as_str().context("a name")?;
            words.push(format!("{name} {}: {p50:.0} µs (× {ratio:.2})", row["bytes"]));
        }
    }
    ensure!(words.len() == 5, "bare verbs beside {words:?} only");
    stage.note(format!("round trips p50, and over bare verbs: {}", words.join(", ")));
    Ok(())
}

/// A durable write beside the sum of its hops.
pub(super) fn hops(stage: &mut Stage) -> Result<()> {
    let lab = &stage.lab;
    // A host that stands still for a moment is no failure here.
    let timing = Timing { takeover: 5000, drop: 5000, join: 10_000, ..Timing::DEFAULT };
    let mut pair = Pair::deploy(lab, Plan { timing, ..Plan::two_hosts("rdma") })?;
    pair.start_node(lab, 0)?;
    pair.start_node(lab, 1)?;
    pair.until_dual(lab)?;
    let ways = ["rdma://10.3.1.1:7500,rdma://10.4.0.1:7500", "rdma://10.3.2.1:7500,rdma://10.4.0.2:7500"];
    let _listeners = [listen(lab, Host::San1, ways[0])?, listen(lab, Host::San2, ways[1])?];
    let command = format!(
        "/lab/bin/twinsan-perf hops {VOLUME} --config {CONFIG} --overwrite --wire san1={} --wire san2={} \
         --sizes 4KiB,64KiB --rounds 20 --writes 100 --limit {MOST_OVER_HOPS} --json",
        ways[0], ways[1]
    );
    let (kept, result) = measured(lab, Host::Client, &command)?;
    let first = &result["sizes"][0];
    let us = |value: &Value| value.as_f64().map(|us| format!("{us:.0}")).context("a figure");
    let hops = first["hops"].as_array().context("three hops")?;
    let hops: Vec<String> = hops.iter().map(|hop| us(&hop["one_way_us"])).collect::<Result<_>>()?;
    let ratio = first["ratio"].as_f64().context("a ratio")?;
    let durable = us(&first["durable"]["p50_us"])?;
    let words = format!("4 KiB: durable p50 {durable} µs, hops {} µs, ratio {ratio:.2}", hops.join(" + "));
    // A figure of one run on a shared machine: shown, never a reason to fail (docs/performance.md says what it means).
    stage.note(if kept { words } else { format!("{words}: more than {MOST_OVER_HOPS}") });
    Ok(())
}

fn listen(lab: &Lab, host: Host, urls: &str) -> Result<Job> {
    let job = lab.node(host).spawn("wire", &format!("exec /lab/bin/twinsan-perf wire --listen --fabric {urls}"))?;
    let lines = urls.split(',').count();
    let ready = |said: &str| (said.matches("listening at ").count() == lines).then_some(());
    job.wait_for("its listener is up", PATIENCE, ready)?;
    Ok(job)
}

/// Both nodes and a client on one host, under callgrind.
pub(super) fn instructions(stage: &mut Stage) -> Result<()> {
    let lab = &stage.lab;
    compile_shim(&lab.share().join("bin"))?;
    let dumps = lab.share().join("dumps");
    fs::create_dir(&dumps)?;
    let command = format!(
        "/lab/bin/twinsan-perf instructions --fabric rdma://10.3.1.1 --shim /lab/bin/uring_wait.so --pace-ms 10 --blobs 40 --rounds 20 \
         --keep /lab/dumps --limit {MOST_FOR_1_MIB} --json"
    );
    let (kept, result) = measured(lab, Host::San1, &command)?;
    // For whoever asks what is executed; gone with the logs if all is well.
    for dump in fs::read_dir(&dumps)? {
        let dump = dump?;
        fs::copy(dump.path(), stage.logs.join(dump.file_name()))?;
    }
    let mut words = Vec::new();
    for node in result["nodes"].as_array().context("nodes")? {
        let role = node["role"].as_str().context("a role")?;
        let of = |size: &str| node[size]["median"].as_f64().context("instructions");
        let (small, large) = (of("per_4kib_blob")?, of("per_1mib_blob")?);
        words.push(format!("{role} {small:.0} and {large:.0} (× {:.3})", large / small));
    }
    let words = format!("4 KiB and 1 MiB blobs: {}", words.join(", "));
    ensure!(kept, "more than {MOST_FOR_1_MIB} times as much: {words}");
    stage.note(words);
    Ok(())
}

/// Runs a measurement: whether it kept its limit, and what it found. The object is in the host's log too.
pub(super) fn measured(lab: &Lab, host: Host, command: &str) -> Result<(bool, Value)> {
    let output = lab.node(host).spawn("measured", &format!("exec {command}"))?.wait(TIME)?;
    let begin = output.text.find("\n{").map(|at| at + 1).or(output.text.starts_with('{').then_some(0));
    ensure!(matches!(output.code, 0 | 1), "{command} ended with {}: {}", output.code, tail(&output.text));
    let object = begin.map(|at| &output.text[at..]).with_context(|| tail(&output.text).to_owned())?;
    let value = serde_json::Deserializer::from_str(object).into_iter::<Value>().next();
    Ok((output.code == 0, value.context("no object")??))
}
