//! A live pair for one suite.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use twinsan_perf::cluster::{Cluster, Options, VOLUME};
use twinsan_system::{PATIENCE, Pair};
use twinsan_witness::pattern::Random;

use crate::tools::{Running, wait_until};

/// The volume's size.
pub(crate) const BYTES: u64 = 256 << 20;

/// A pair that serves, dual.
#[derive(Debug)]
pub(crate) struct Live {
    /// Its processes.
    pub(crate) pair: Pair,
}

impl Live {
    /// Starts one whose volume has logical blocks of `block_bytes`.
    pub(crate) fn start(block_bytes: u32) -> Result<Self> {
        let options = Options {
            volume_bytes: BYTES,
            block_bytes,
            staging: "16MiB".into(),
            takeover_budget_ms: 0,
            disk_folder: std::env::temp_dir(),
            keep: false,
        };
        let mut pair = twinsan_system::pair(&options)?;
        twinsan_system::start(&mut pair)?;
        Ok(Self { pair })
    }

    /// The NBD URI of an export of this name.
    pub(crate) fn uri_of(&self, export: &str) -> String {
        format!("nbd+unix:///{export}?socket={}", self.pair.nbd_socket().display())
    }

    /// The NBD URI of the volume.
    pub(crate) fn uri(&self) -> String {
        self.uri_of(VOLUME)
    }

    /// Writes received by the primary since its session began.
    fn received(&self) -> Result<u64> {
        let primary = self.pair.primary().context("nobody serves")?;
        Ok(self.pair.status(primary)?.lane.received)
    }

    /// Waits until `more` writes have arrived while `program` runs: it is in the middle of its work.
    pub(crate) fn in_mid_work(&self, program: &mut Running, more: u64) -> Result<()> {
        let begin = self.received()?;
        wait_until("the program writes", || {
            ensure!(program.runs()?, "it ended before it was in the middle:\n{}", program.text()?);
            // A primary that is just changing has no answer; the next look will.
            Ok(self.received().is_ok_and(|now| now >= begin + more))
        })
    }

    /// SIGKILLs the primary in the middle of `program`'s work, sees the other node serve it, starts the killed one
    /// again, and sees both hold every write, all before the program ends.
    pub(crate) fn fail_over_under(&mut self, program: &mut Running, writes: u64) -> Result<()> {
        self.in_mid_work(program, writes)?;
        let old = self.pair.primary().context("nobody serves")?;
        self.pair.kill_node(old)?;
        let survivor = |c: &Cluster| c.primary() == Some(1 - old);
        self.pair.wait_until("the other node serves", PATIENCE, survivor)?;
        self.in_mid_work(program, writes / 4)?;
        self.pair.start_node(old)?;
        self.pair.wait_until("the pair is dual again", PATIENCE, Cluster::is_dual)?;
        self.in_mid_work(program, writes / 4)
    }

    /// A file of random bytes (the same ones every time), in the pair's folder.
    pub(crate) fn random_file(&self, name: &str, bytes: u64) -> Result<PathBuf> {
        let path = self.pair.run(name);
        let mut random = Random::new(bytes);
        let words = (0..bytes / 8).flat_map(|_| random.bits().to_le_bytes());
        fs::write(&path, words.collect::<Vec<u8>>())?;
        Ok(path)
    }
}
