//! fio with its NBD engine (libnbd): many requests in flight, each block's checksum checked.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::live::Live;
use crate::tools::{Running, run, tool};

/// How the writes are made.
#[derive(Clone, Copy, Debug)]
struct Shape {
    jobs: u32,
    depth: u32,
    block: &'static str,
    /// Of each job, in MiB; the jobs lie side by side.
    mib: u32,
    /// Requests a second of each job and direction, where the run has to last.
    rate: Option<u32>,
}

fn fio(live: &Live, shape: Shape) -> Result<Command> {
    let Shape { jobs, depth, block, mib, rate } = shape;
    let mut command = tool("fio")?;
    command.args(["--name=verify", "--ioengine=nbd", "--rw=randrw", "--verify=crc32c", "--verify_fatal=1"]);
    command.args(["--output-format=json", "--group_reporting", "--randrepeat=1"]);
    // Besides the pass at the end: soon after they were written, when they may still be staged.
    command.args(["--verify_backlog=128", "--verify_backlog_batch=64"]);
    command.arg(format!("--uri={}", live.uri())).arg(format!("--bs={block}")).arg(format!("--iodepth={depth}"));
    command.arg(format!("--numjobs={jobs}")).arg(format!("--size={mib}M")).arg(format!("--offset_increment={mib}M"));
    if let Some(rate) = rate {
        command.arg(format!("--rate_iops={rate},{rate}"));
    }
    command.current_dir(live.pair.run(""));
    Ok(command)
}

/// The job's object, if all that was written was also read and checked.
fn check(text: &str) -> Result<()> {
    let json = &text[text.find('{').context("fio printed no JSON")?..];
    let value = serde_json::Deserializer::from_str(json).into_iter::<Value>().next();
    let value = value.context("fio printed no JSON")??;
    let job = &value["jobs"][0];
    ensure!(job["error"] == 0, "fio's error {}:\n{text}", job["error"]);
    let count = |direction: &str| job[direction]["total_ios"].as_u64().unwrap_or(0);
    ensure!(
        count("write") > 0 && count("read") >= count("write"),
        "{} writes, {} reads",
        count("write"),
        count("read")
    );
    Ok(())
}

/// Several numbers of jobs, depths and sizes.
pub(crate) fn random() -> Result<()> {
    let live = Live::start(4096)?;
    let shape = Shape { jobs: 1, depth: 1, block: "4k", mib: 16, rate: None };
    let shapes = [
        shape,
        Shape { depth: 32, mib: 32, ..shape },
        Shape { jobs: 4, depth: 16, ..shape },
        Shape { jobs: 4, depth: 8, block: "128k", mib: 64, ..shape },
        Shape { jobs: 2, depth: 32, block: "1m", mib: 128, ..shape },
    ];
    for shape in shapes {
        let text = run(&mut fio(&live, shape)?)?.success().with_context(|| format!("{shape:?}"))?;
        check(&text).with_context(|| format!("{shape:?}"))?;
    }
    Ok(())
}

/// The primary is killed in the middle, twice: once each node.
pub(crate) fn failover() -> Result<()> {
    let mut live = Live::start(4096)?;
    // About 20 s, however fast the machine: the failovers fit in.
    let shape = Shape { jobs: 4, depth: 8, block: "4k", mib: 32, rate: Some(400) };
    let mut program = Running::start(&mut fio(&live, shape)?)?;
    for _ in 0..2 {
        live.fail_over_under(&mut program, 1000)?;
    }
    check(&program.end()?.success()?)
}
