//! What the tests with real processes share: a small cluster, and a load that remembers what was completed.
#![forbid(unsafe_code)]

pub mod load;

use std::time::Duration;

use anyhow::Result;
use twinsan_perf::cluster::{Cluster, NODES, Options, Programs};

/// For whatever ends by itself in a moment; long, because test machines are slow at times.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The tests' volume.
pub const VOLUME_BYTES: u64 = 32 << 20;

/// A small pair, not started.
///
/// # Errors
/// If it can't be made.
pub fn cluster() -> Result<Cluster> {
    let options = Options {
        volume_bytes: VOLUME_BYTES,
        block_bytes: 512,
        staging: "8MiB",
        disk_folder: std::env::temp_dir(),
        keep: false,
    };
    Cluster::create(Programs::build()?, &options)
}

/// A small pair that serves a client, dual.
///
/// # Errors
/// If it does not come up.
pub fn dual_cluster() -> Result<Cluster> {
    let mut cluster = cluster()?;
    for node in 0..NODES.len() {
        cluster.start_node(node)?;
    }
    cluster.attach(PATIENCE)?;
    cluster.wait_until("the pair is dual", PATIENCE, Cluster::is_dual)?;
    Ok(cluster)
}
