//! Other people's tools against a live pair: their view of NBD, block devices and filesystems, not ours.
//!
//! `suites` runs all, `suites --only fio` those whose name contains "fio", `suites --list` names them. Each suite makes
//! a pair of its own. A tool that is missing, and a suite that needs root without having it, is a failure: what has
//! not run proves nothing.
#![forbid(unsafe_code)]

mod ext4;
mod fio;
mod libnbd;
mod live;
mod qemu;
mod tools;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Parser;

/// Runs other people's tools against a live TwinSAN pair.
#[derive(Debug, Parser)]
struct Arguments {
    /// Only the suites whose name contains this
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Name the suites, run none
    #[arg(long)]
    list: bool,
}

/// One suite.
struct Suite {
    name: &'static str,
    what: &'static str,
    run: fn() -> Result<()>,
}

static SUITES: [Suite; 10] = [
    Suite { name: "nbdinfo", what: "the export's flags, sizes and list", run: libnbd::info },
    Suite { name: "nbdcopy", what: "in and out over several connections, compared", run: libnbd::copy },
    Suite {
        name: "nbdsh",
        what: "structured replies, unaligned, out of range, oversize, no such export",
        run: libnbd::shell,
    },
    Suite { name: "qemu-io", what: "aligned, unaligned, FUA, zeroes, discard, patterns", run: qemu::io },
    Suite { name: "qemu-io-512", what: "the same on a volume with 512-byte blocks", run: qemu::io_512 },
    Suite { name: "qemu-img", what: "convert in, compare, and compare notices a difference", run: qemu::image },
    Suite { name: "fio", what: "random reads and writes, crc32c, jobs and depths", run: fio::random },
    Suite {
        name: "fio-failover",
        what: "the same across a SIGKILL of the primary and its restart",
        run: fio::failover,
    },
    Suite { name: "ext4", what: "mkfs, copy, fsck, checksums (nbdfuse + loop)", run: ext4::quiet },
    Suite { name: "ext4-failover", what: "the same, the primary killed in mid-copy", run: ext4::failover },
];

/// How one suite went.
struct Outcome {
    suite: &'static Suite,
    took: Duration,
    error: Option<anyhow::Error>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("suites: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether all went well.
fn run(arguments: &Arguments) -> Result<bool> {
    let only = arguments.only.as_deref().unwrap_or("");
    let chosen: Vec<&'static Suite> = SUITES.iter().filter(|s| s.name.contains(only)).collect();
    let names: Vec<&str> = SUITES.iter().map(|s| s.name).collect();
    ensure!(!chosen.is_empty(), "no suite is called \"{only}\"; there are: {}", names.join(", "));
    if arguments.list {
        for suite in chosen {
            println!("{:14} {}", suite.name, suite.what);
        }
        return Ok(true);
    }
    tools::heed_signals()?;
    let mut outcomes = Vec::new();
    for suite in chosen {
        eprintln!("suite {}: {}", suite.name, suite.what);
        let begin = Instant::now();
        let error = (suite.run)().err();
        if let Some(error) = &error {
            eprintln!("suite {} FAILED: {error:#}", suite.name);
        }
        outcomes.push(Outcome { suite, took: begin.elapsed(), error });
        if tools::interrupted() {
            break;
        }
    }
    table(&outcomes);
    Ok(outcomes.iter().all(|o| o.error.is_none()))
}

fn table(outcomes: &[Outcome]) {
    println!("{:14} {:72} {:>7}  result", "suite", "what", "seconds");
    for Outcome { suite, took, error } in outcomes {
        let result = if error.is_none() { "passed" } else { "FAILED" };
        println!("{:14} {:72} {:>7.1}  {result}", suite.name, suite.what, took.as_secs_f64());
    }
    let failed = outcomes.iter().filter(|o| o.error.is_some()).count();
    println!("{} suites passed, {failed} failed", outcomes.len() - failed);
}
