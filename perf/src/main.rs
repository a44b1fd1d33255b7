//! `twinsan-perf`: the demo and the measurements.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde::Serialize;
use twinsan_perf::bench::args::{CompareArgs, Compared, RunArgs, compare_with, run_with};
use twinsan_perf::bench::result::Run;
use twinsan_perf::count::args::{self as count, CountArgs};
use twinsan_perf::count::report::Counts;
use twinsan_perf::demo::{Settings, demo};
use twinsan_perf::failover::report::Failover;
use twinsan_perf::failover::{self, failover};
use twinsan_perf::hops::args::{self as hops, HopsArgs};
use twinsan_perf::hops::report::Hops;
use twinsan_perf::instructions::args::{self as instructions, InstructionsArgs};
use twinsan_perf::instructions::report::Instructions;
use twinsan_perf::ladder::args::{self as ladder, LadderArgs};
use twinsan_perf::ladder::report::Ladder;
use twinsan_perf::pages;
use twinsan_perf::report::Report;
use twinsan_perf::wire::args::{self, WireArgs};
use twinsan_perf::wire::figures::Wire;

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
        /// Write a page with plots into this file too.
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
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
    /// One NBD export, block device or file: latencies, throughput and CPU, and every completed write read back.
    Run(RunArgs),
    /// A TwinSAN pair, RAM servers, qemu's quorum over two of them, a plain file, and the file by qemu-nbd: the same
    /// client, in turns.
    Compare(CompareArgs),
    /// What a failover costs: the caller's pause over many kills, how soon the pair is whole again, and how fast full
    /// lanes are drained beside what fio gets from the same disk.
    Failover {
        /// How often the primary is killed with next to nothing staged.
        #[arg(long, default_value_t = 100)]
        kills: usize,
        /// How often it is killed with full lanes, with fio's turn after each (fio).
        #[arg(long, default_value_t = 5)]
        drains: usize,
        /// One write, where the lanes are filled: up to so many bytes.
        #[arg(long, default_value_t = 262_144)]
        drain_write_bytes: usize,
        /// The configuration's `takeover_budget_ms`: then the lanes are not full, but as full as that allows. 0: full.
        #[arg(long, default_value_t = 0)]
        budget_ms: u64,
        /// The volume's size; its disk file is sparse.
        #[arg(long, default_value = "1GiB")]
        size: twinsan_control::Size,
        /// Print one JSON object instead of the table.
        #[arg(long)]
        json: bool,
        /// Where the disk file goes.
        #[arg(long, default_value_os_t = std::env::temp_dir())]
        dir: PathBuf,
    },
    /// Round trips over our own fabric: write+imm, imm, ACK, read, message, for sizes from 64 B to 1 MiB.
    Wire(WireArgs),
    /// Where the microseconds of a write go: the steps from the caller's write to its return.
    Ladder(LadderArgs),
    /// Durable writes beside the sum of their three raw hops, in turns.
    Hops(HopsArgs),
    /// User instructions of a node per blob of 4 KiB and of 1 MiB: whether payloads are copied (valgrind).
    Instructions(InstructionsArgs),
    /// User instructions of client, primary and secondary per 4 KiB write by NBD, what they are spent on, and a gate for them
    /// (valgrind).
    Count(CountArgs),
}

fn main() -> ExitCode {
    let arguments = without_second_dashes(std::env::args_os());
    match run(Arguments::parse_from(arguments).command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("twinsan-perf: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Lets `cargo demo -- --json` mean what `cargo demo --json` does: the alias ends in a `--` of its own, so cargo hands
/// the second one to us.
fn without_second_dashes(arguments: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    arguments.enumerate().filter(|(i, argument)| *i != 2 || argument != "--").map(|(_, argument)| argument)
}

/// The exit code: 0 where every completed write was there, 1 where one was not, 3 where sabotage went unnoticed.
fn run(command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Demo { full, html, json, sabotage, keep, dir } => {
            let report = demo(Settings { full, sabotage, keep, quiet: json, folder: dir })?;
            print(json, &report, Report::table)?;
            pages::write(&report, html.as_deref())?;
            Ok(match (report.writes_lost, report.sabotaged) {
                (0, false) => 0,
                (0, true) => 3,
                _ => 1,
            })
        }
        Command::Run(arguments) => {
            let run = run_with(&arguments)?;
            print(arguments.json, &run, Run::table)?;
            pages::write(&run, arguments.html.as_deref())?;
            Ok(0)
        }
        Command::Compare(arguments) => {
            let compared = compare_with(&arguments)?;
            print(arguments.json, &compared, Compared::table)?;
            pages::write(&compared, arguments.html.as_deref())?;
            Ok(0)
        }
        Command::Failover { kills, drains, drain_write_bytes, budget_ms, size, json, dir } => {
            let volume_bytes = size.bytes();
            let settings = failover::Settings {
                kills,
                drains,
                drain_write_bytes,
                budget_ms,
                volume_bytes,
                folder: dir,
                quiet: json,
            };
            print(json, &failover(&settings)?, Failover::table)?;
            Ok(0)
        }
        Command::Wire(arguments) => {
            if let Some(wire) = args::run(&arguments)? {
                print(arguments.json, &wire, Wire::table)?;
            }
            Ok(0)
        }
        Command::Ladder(arguments) => {
            let ladder = ladder::run(&arguments)?;
            print(arguments.json, &ladder, Ladder::table)?;
            pages::write(&ladder, arguments.html.as_deref())?;
            Ok(0)
        }
        Command::Hops(arguments) => {
            let result = hops::run(&arguments)?;
            print(arguments.json, &result, Hops::table)?;
            Ok(u8::from(!arguments.is_kept(&result)))
        }
        Command::Instructions(arguments) => {
            let result = instructions::run(&arguments)?;
            print(arguments.json, &result, Instructions::table)?;
            Ok(u8::from(!result.is_kept(arguments.limit)))
        }
        Command::Count(arguments) => {
            let counts = count::run(&arguments)?;
            print(arguments.json, &counts, Counts::table)?;
            Ok(u8::from(!count::judge(&arguments, &counts)?))
        }
    }
}

fn print<T: Serialize>(json: bool, result: &T, table: fn(&T) -> String) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(result)?);
    } else {
        print!("{}", table(result));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_alias_may_be_followed_by_dashes() {
        for line in [&["twinsan-perf", "demo", "--json"][..], &["twinsan-perf", "demo", "--", "--json"]] {
            let arguments = Arguments::try_parse_from(without_second_dashes(line.iter().map(OsString::from))).unwrap();
            assert!(matches!(arguments.command, Command::Demo { json: true, .. }), "{line:?}");
        }
    }
}
