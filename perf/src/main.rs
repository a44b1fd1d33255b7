//! `twinsan-perf`: the demo and the measurements.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use twinsan_perf::demo::{Settings, demo};

/// TwinSAN's workloads, comparisons and demo.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Two nodes, a client, three workloads, two failovers, every block read back, and the race against the disk.
    Demo {
        /// All 100,000 + 10,000 + 1,000 writes, however long they take.
        #[arg(long)]
        full: bool,
        /// Print one JSON object instead of the table.
        #[arg(long)]
        json: bool,
        /// Corrupt one completed write behind the program's back: it must be noticed, and end non-zero.
        #[arg(long)]
        sabotage: bool,
        /// Leave configuration, logs and disk file where they are.
        #[arg(long)]
        keep: bool,
        /// Where the disk file (1 GiB) and the race's file (1 GiB) go.
        #[arg(long, default_value_os_t = std::env::temp_dir())]
        dir: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("twinsan-perf: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// The exit code: 0 where every completed write was there, 1 where one was not, 3 where sabotage went unnoticed.
fn run(command: Command) -> anyhow::Result<u8> {
    let Command::Demo { full, json, sabotage, keep, dir } = command;
    let report = demo(Settings { full, sabotage, keep, quiet: json, folder: dir })?;
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", report.table());
    }
    Ok(match (report.writes_lost, report.sabotaged) {
        (0, false) => 0,
        (0, true) => 3,
        _ => 1,
    })
}
