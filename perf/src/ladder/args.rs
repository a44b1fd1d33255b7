//! `twinsan-perf ladder`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::report::Ladder;
use super::{Settings, ladder};
use crate::local::{Kind, Setup};
use crate::wire::args::payload;

/// What is measured.
#[derive(Clone, Debug, Args)]
pub struct LadderArgs {
    /// What the pair talks by: shm, unix, tcp, or a scheme and an address of this host, like rdma://10.0.0.1
    #[arg(long, value_name = "FABRIC", default_value = "shm")]
    pub fabric: Kind,
    /// Without payload CRCs
    #[arg(long)]
    pub no_integrity: bool,
    /// All loops poll so many microseconds at most before sleeping
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(0..=100_000))]
    pub spin_us: u64,
    /// Bytes of one write, like 4KiB,1MiB; multiples of 512
    #[arg(long, value_name = "SIZES", value_delimiter = ',', value_parser = payload, default_value = "4096,10240,102400,1048576")]
    pub sizes: Vec<u32>,
    /// Rounds; in each, the writes of every size and the raw round trips have a slice
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    pub rounds: u16,
    /// Writes in a slice
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub writes: u64,
    /// Where the disk file (256 MiB) goes
    #[arg(long, value_name = "FOLDER", default_value_os_t = std::env::temp_dir())]
    pub dir: PathBuf,
    /// Write a page with plots into this file too
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Print one JSON object instead of the table
    #[arg(long)]
    pub json: bool,
}

/// Measures.
///
/// # Errors
/// See [`ladder`].
pub fn run(args: &LadderArgs) -> Result<Ladder> {
    let setup =
        Setup { kind: args.fabric.clone(), integrity: !args.no_integrity, spin_us: args.spin_us, patient: false };
    ladder(&Settings {
        setup,
        sizes: args.sizes.clone(),
        rounds: args.rounds.into(),
        writes: args.writes,
        folder: args.dir.clone(),
        quiet: args.json,
    })
}
