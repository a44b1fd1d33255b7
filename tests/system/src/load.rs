//! Writes all the time, on its own thread and connection, and remembers what was completed.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Result, ensure};
use twinsan_perf::cluster::{Cluster, VOLUME};
use twinsan_witness::nbd::Client;
use twinsan_witness::pattern::{BLOCK, Model, Random, fill};

use crate::{PATIENCE, VOLUME_BYTES};

/// A running load.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    completed: Arc<AtomicU64>,
    longest_us: Arc<AtomicU64>,
    thread: JoinHandle<Result<Model>>,
}

/// Up to so many blocks in one write.
const MOST_BLOCKS: u64 = 200;

impl Load {
    /// Begins to write to the cluster's volume.
    #[must_use]
    pub fn start(cluster: &Cluster) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let completed = Arc::new(AtomicU64::new(0));
        let longest_us = Arc::new(AtomicU64::new(0));
        let (socket, ends) = (cluster.nbd_socket(), Arc::clone(&stop));
        let (counter, longest) = (Arc::clone(&completed), Arc::clone(&longest_us));
        let thread = std::thread::spawn(move || write_until(&socket, &ends, &counter, &longest));
        Self { stop, completed, longest_us, thread }
    }

    /// The longest that one write has taken since the last call, in milliseconds: what a pause is to the caller.
    #[must_use]
    pub fn longest_ms(&self) -> u64 {
        self.longest_us.swap(0, Ordering::AcqRel) / 1000
    }

    /// Writes completed so far.
    #[must_use]
    pub fn completed(&self) -> u64 {
        self.completed.load(Ordering::Acquire)
    }

    /// Waits for `more` further completions: the volume serves.
    ///
    /// # Errors
    /// If they don't come.
    pub fn goes_on(&self, cluster: &Cluster, more: u64) -> Result<()> {
        let goal = self.completed() + more;
        cluster.wait_until("writes complete", PATIENCE, |_| self.completed() >= goal || self.thread.is_finished())?;
        ensure!(self.completed() >= goal, "the load ended: a request has failed");
        Ok(())
    }

    /// Ends the load, and checks every block that was completed.
    ///
    /// # Errors
    /// If a write failed, or one that was completed is not there.
    ///
    /// # Panics
    /// If the load did.
    pub fn end_and_check(self, cluster: &Cluster) -> Result<()> {
        self.stop.store(true, Ordering::Release);
        let model = self.thread.join().expect("the load's thread")?;
        check(cluster, &model)
    }
}

/// Checks every block of the volume.
///
/// # Errors
/// If a completed write is not there.
pub fn check(cluster: &Cluster, model: &Model) -> Result<()> {
    let mut client = Client::connect(&cluster.nbd_socket(), VOLUME)?;
    let mut buffer = vec![0; 1 << 20];
    let mut lost = Vec::new();
    for offset in (0..VOLUME_BYTES).step_by(buffer.len()) {
        client.read(offset, &mut buffer)?;
        model.check(offset / BLOCK as u64, &buffer, &mut lost);
    }
    ensure!(lost.is_empty(), "{} completed writes are lost, first {:?}", Model::writes_lost(&lost), lost[0]);
    Ok(())
}

fn write_until(socket: &Path, stop: &AtomicBool, completed: &AtomicU64, longest_us: &AtomicU64) -> Result<Model> {
    let mut client = Client::connect(socket, VOLUME)?;
    let mut model = Model::new(VOLUME_BYTES);
    let mut random = Random::new(1);
    let mut buffer = Vec::new();
    while !stop.load(Ordering::Acquire) {
        let blocks = random.below(MOST_BLOCKS) + 1;
        let first = random.below(VOLUME_BYTES / BLOCK as u64 - blocks);
        let stamp = model.next_stamp();
        buffer.resize(usize::try_from(blocks)? * BLOCK, 0);
        fill(&mut buffer, first, stamp);
        let begun = Instant::now();
        client.write(first * BLOCK as u64, &buffer)?;
        longest_us.fetch_max(u64::try_from(begun.elapsed().as_micros())?, Ordering::AcqRel);
        model.completed(first, usize::try_from(blocks)?, stamp);
        completed.fetch_add(1, Ordering::Release);
    }
    Ok(model)
}
