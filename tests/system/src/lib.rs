//! What the tests with real processes share: a small cluster, and a load that remembers what was completed.
#![forbid(unsafe_code)]

pub mod load;
mod turn;

use std::ops::{Deref, DerefMut};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Result, anyhow};
use twinsan_perf::cluster::{Cluster, Options, Programs};

use crate::turn::Turn;

/// For whatever ends by itself in a moment; long, because test machines are slow at times.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The tests' volume.
pub const VOLUME_BYTES: u64 = 32 << 20;

/// A cluster that has its turn on this machine.
#[derive(Debug)]
pub struct Pair {
    // Before the turn, as fields are dropped in order: the next cluster starts when this one's processes have ended.
    cluster: Cluster,
    _turn: Turn,
}

impl Deref for Pair {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl DerefMut for Pair {
    fn deref_mut(&mut self) -> &mut Cluster {
        &mut self.cluster
    }
}

/// The programs, built once per process.
///
/// # Errors
/// If they don't build.
pub fn programs() -> Result<Programs> {
    static BUILT: OnceLock<Result<Programs, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| Programs::build().map_err(|error| format!("{error:#}")));
    built.clone().map_err(|error| anyhow!(error))
}

/// A pair as wanted, not started.
///
/// # Errors
/// If it can't be made.
pub fn pair(options: &Options) -> Result<Pair> {
    let programs = programs()?;
    let turn = Turn::wait()?;
    Ok(Pair { cluster: Cluster::create(programs, options)?, _turn: turn })
}

/// A small pair, not started.
///
/// # Errors
/// If it can't be made.
pub fn cluster() -> Result<Pair> {
    pair(&Options {
        volume_bytes: VOLUME_BYTES,
        block_bytes: 512,
        staging: "8MiB".into(),
        takeover_budget_ms: 0,
        disk_folder: std::env::temp_dir(),
        keep: false,
    })
}

/// Starts both nodes and the client.
///
/// # Errors
/// If they don't come up.
pub fn start(pair: &mut Pair) -> Result<()> {
    pair.cluster.start(PATIENCE)
}

/// A small pair that serves a client, dual.
///
/// # Errors
/// If it does not come up.
pub fn dual_cluster() -> Result<Pair> {
    let mut pair = cluster()?;
    start(&mut pair)?;
    Ok(pair)
}
