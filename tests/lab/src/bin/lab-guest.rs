//! `lab-guest`: what the lab runs inside its guests.
#![forbid(unsafe_code)]

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};
use signal_hook::consts::{SIGINT, SIGTERM};
use twinsan_lab::guest::{agent, load};

/// The lab's hand inside a guest.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the launcher on a serial line
    Agent {
        /// The line
        line: PathBuf,
        /// The guest's name
        name: String,
    },
    /// Write and read all the time, until SIGTERM; then read everything back
    Load {
        /// A block device, or a file
        device: PathBuf,
        /// Requests in flight
        #[arg(long, default_value_t = 2)]
        threads: u64,
        /// MiB from the device's beginning
        #[arg(long, default_value_t = 32)]
        span: u64,
        /// Read nothing before the end
        #[arg(long)]
        writes_only: bool,
        /// How long each thread rests after a request
        #[arg(long, default_value_t = 0)]
        rest_ms: u64,
    },
}

fn main() -> ExitCode {
    match command() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lab-guest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn command() -> Result<ExitCode> {
    match Cli::parse().command {
        Command::Agent { line, name } => agent::serve(&line, &name)?,
        Command::Load { device, threads, span, writes_only, rest_ms } => {
            let stop = Arc::new(AtomicBool::new(false));
            for signal in [SIGTERM, SIGINT] {
                signal_hook::flag::register(signal, Arc::clone(&stop))?;
            }
            let rest = Duration::from_millis(rest_ms);
            let options = load::Options { device, threads, span_bytes: span << 20, writes_only, rest };
            let summary = load::run(&options, &stop, print)?;
            let lost = summary.lost_blocks;
            print(&load::Line::Done(summary));
            if lost > 0 {
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(line: &load::Line) {
    let text = serde_json::to_string(line).expect("a line of numbers");
    // Nobody to read it: the launcher is gone, and the guest with it.
    let _ = writeln!(std::io::stdout(), "{text}");
}
