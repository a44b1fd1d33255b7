//! `twinsan-perf instructions`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::report::Instructions;
use super::{Settings, instructions};
use crate::fabric::open;
use crate::local::{Kind, Setup};

/// A pair of our own under valgrind.
#[derive(Clone, Debug, Args)]
pub struct InstructionsArgs {
    /// What the pair talks by: shm, unix, tcp, or a scheme and an address of this host, like rdma://10.0.0.1
    #[arg(long, value_name = "FABRIC", default_value = "unix")]
    pub fabric: Kind,
    /// Blobs in a slice
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub blobs: u64,
    /// From one blob to the next, at least; each waits until the one before is flushed and released
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub pace_ms: u64,
    /// Rounds; each has a slice without blobs, one of 4 KiB and one of 1 MiB
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    pub rounds: u16,
    /// Where the disk file (256 MiB) goes
    #[arg(long, value_name = "FOLDER", default_value_os_t = std::env::temp_dir())]
    pub dir: PathBuf,
    /// perf/src/instructions/uring_wait.c as a shared object, on hosts without a C compiler
    #[arg(long, value_name = "FILE")]
    pub shim: Option<PathBuf>,
    /// Keep callgrind's dumps, one for each slice and node, in this folder: for callgrind_annotate
    #[arg(long, value_name = "FOLDER")]
    pub keep: Option<PathBuf>,
    /// End with status 1 if a node executes more than so many times as much for 1 MiB as for 4 KiB
    #[arg(long, value_name = "RATIO")]
    pub limit: Option<f64>,
    /// Print one JSON object instead of the table
    #[arg(long)]
    pub json: bool,
}

/// Counts.
///
/// # Errors
/// See [`instructions`].
pub fn run(args: &InstructionsArgs) -> Result<Instructions> {
    let settings = Settings {
        setup: Setup { kind: args.fabric.clone(), integrity: false, spin_us: 0, patient: true },
        blobs: args.blobs,
        pace: Duration::from_millis(args.pace_ms),
        rounds: args.rounds.into(),
        folder: args.dir.clone(),
        shim: args.shim.clone(),
        keep: args.keep.clone(),
        quiet: args.json,
    };
    instructions(&open, &settings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: InstructionsArgs,
    }

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory;
        Line::command().debug_assert();
        assert!(Line::try_parse_from(["instructions", "--fabric", "rdma://10.0.0.1", "--limit", "1.1"]).is_ok());
        assert!(Line::try_parse_from(["instructions", "--fabric", "rdma"]).is_err(), "of which address?");
        assert!(Line::try_parse_from(["instructions", "--blobs", "0"]).is_err());
    }
}
