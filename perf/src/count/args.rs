//! `twinsan-perf count`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use super::baseline::Baseline;
use super::report::Counts;
use super::{Settings, count};
use crate::local::Kind;

/// A pair and a client of our own under valgrind.
#[derive(Clone, Debug, Args)]
pub struct CountArgs {
    /// What pair and client talk by: shm, unix, tcp, or a scheme and an address of this host, like rdma://10.0.0.1
    #[arg(long, value_name = "FABRIC", default_value = "shm")]
    pub fabric: Kind,
    /// Rounds; each has a slice of each case
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    pub rounds: u16,
    /// Volumes of the pair in the case `volumes`, 140 MiB of memory for each; 1 leaves the case out
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub volumes: u16,
    /// Where the disk files go
    #[arg(long, value_name = "FOLDER", default_value_os_t = std::env::temp_dir())]
    pub dir: PathBuf,
    /// Keep callgrind's dumps, one for each slice and process, in this folder: for callgrind_annotate
    #[arg(long, value_name = "FOLDER")]
    pub keep: Option<PathBuf>,
    /// End with status 1 if a write costs more than this file allows
    #[arg(long, value_name = "FILE")]
    pub gate: Option<PathBuf>,
    /// Write what was counted into this file, whose limits stay
    #[arg(long, value_name = "FILE", conflicts_with = "gate")]
    pub renew: Option<PathBuf>,
    /// Print one JSON object instead of the table
    #[arg(long)]
    pub json: bool,
}

/// Counts.
///
/// # Errors
/// See [`count`]; or if a file of figures is not right, before anything is begun.
pub fn run(args: &CountArgs) -> Result<Counts> {
    if let Some(file) = args.gate.as_ref().or(args.renew.as_ref()) {
        Baseline::load(file)?;
    }
    count(&Settings {
        kind: args.fabric.clone(),
        rounds: args.rounds.into(),
        volumes: args.volumes.into(),
        folder: args.dir.clone(),
        keep: args.keep.clone(),
        quiet: args.json,
    })
}

/// Whether all is kept that the file of `--gate` asks for; says on standard error what is not. Renews the file of `--renew`.
///
/// # Errors
/// If a file can't be read or written.
pub fn judge(args: &CountArgs, counts: &Counts) -> Result<bool> {
    if let Some(file) = &args.renew {
        let text = Baseline::load(file)?.renewed(counts);
        fs::write(file, text).with_context(|| file.display().to_string())?;
    }
    let Some(file) = &args.gate else { return Ok(true) };
    let baseline = Baseline::load(file)?;
    let broken = baseline.broken(counts);
    for line in &broken {
        eprintln!("{line}");
    }
    if !broken.is_empty() {
        eprintln!("If it has to be so, and the commit says why: twinsan-perf count --renew {}", file.display());
    } else if baseline.outdated(counts) {
        eprintln!("Cheaper than before. To hold on to it: twinsan-perf count --renew {}", file.display());
    }
    Ok(broken.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: CountArgs,
    }

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory;
        Line::command().debug_assert();
        assert!(Line::try_parse_from(["count", "--fabric", "tcp", "--gate", "x"]).is_ok());
        assert!(Line::try_parse_from(["count", "--gate", "x", "--renew", "x"]).is_err(), "compare or renew?");
        assert!(Line::try_parse_from(["count", "--volumes", "0"]).is_err());
    }
}
