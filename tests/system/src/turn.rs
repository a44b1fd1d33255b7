//! How many clusters may run at a time on this machine, whoever runs them.

use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};

/// Each cluster is three busy processes; more at a time than this gains nothing anywhere.
const MOST: usize = 8;

/// The right to run one cluster; the next one in line gets it when this is dropped.
///
/// `cargo test` starts as many tests as there are cores. Three processes and a load for each of them would measure
/// the scheduler's patience instead of ours, so a pair of cores carries one cluster. The locks are files, because
/// other test processes (another checkout's, say) live on the same cores; the kernel drops them with their process.
#[derive(Debug)]
pub(crate) struct Turn {
    _held: File,
}

impl Turn {
    /// Waits for one.
    ///
    /// # Errors
    /// If the lock file can't be made.
    pub(crate) fn wait() -> Result<Self> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let lanes = (cores / 2).clamp(1, MOST);
        let lane = NEXT.fetch_add(1, Ordering::Relaxed) % lanes;
        let path = lock_file(lane);
        let file = File::options().create(true).append(true).open(&path);
        let file = file.with_context(|| path.display().to_string())?;
        file.lock().with_context(|| path.display().to_string())?;
        Ok(Self { _held: file })
    }
}

/// Another user's file could not be opened, so each has its own.
fn lock_file(lane: usize) -> PathBuf {
    let user = rustix::process::getuid().as_raw();
    std::env::temp_dir().join(format!("twinsan-test-{user}.{lane}.lock"))
}
