//! User instructions of a node per blob: is a payload copied?
//!
//! Both nodes of a pair of our own run under `valgrind --tool=callgrind`, without payload CRCs and without spinning. A
//! client writes one blob at a time, each when both nodes have flushed and released the one before; what the nodes
//! execute meanwhile, less what they execute in as much time without blobs (ticks, heartbeats), is the blobs'.
//! Instructions, not time: a copy of 1 MiB is at least 32 thousand of them with the widest registers that valgrind
//! knows, whatever the machine and whoever else is on it.
//!
//! What the kernel does is not in it: over sockets it copies payloads, and over rxe it plays the card.

pub mod args;
pub mod counted;
pub mod report;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use twinsan::attach::Direct;
use twinsan_fabric::{Fabric, WaitPolicy};
use twinsan_wire::Lba;

use self::counted::Counted;
use self::report::{Instructions, Node, Spread};
use crate::cluster::{Cluster, NODES, Programs, VOLUME};
use crate::fabric::Maker;
use crate::local::Setup;
use crate::wire::progress;

/// The two payloads that are compared.
pub const SIZES: [usize; 2] = [4 << 10, 1 << 20];
/// Blobs lie so far apart, whatever their size, so that both sizes make the same work for the index.
const APART: u64 = 1 << 20;
/// On so many places; then again from the first.
const PLACES: u64 = 16;
/// Blobs of each size before the first count.
const WARM_UP: u64 = 8;
/// After a slice, for what the last blob leaves behind.
const REST: Duration = Duration::from_millis(100);
/// Under valgrind everything takes its time.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is measured.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The pair; its `integrity`, `spin_us` and `patient` are ours to set.
    pub setup: Setup,
    /// Blobs in a slice.
    pub blobs: u64,
    /// From one blob to the next.
    pub pace: Duration,
    /// Slices of each size, and as many without blobs.
    pub rounds: usize,
    /// Where the disk file goes.
    pub folder: PathBuf,
    /// What makes io_uring waits known to valgrind, compiled; `None`: it is compiled now.
    pub shim: Option<PathBuf>,
    /// Keep callgrind's dumps in this folder.
    pub keep: Option<PathBuf>,
    /// No progress bar.
    pub quiet: bool,
}

/// What a slice has: blobs of a size, or none.
type Load = Option<usize>;

struct Bench<'a, F: Fabric> {
    settings: &'a Settings,
    direct: Direct<F>,
    cluster: Cluster,
    counted: Counted,
    payload: Vec<u8>,
    next: u64,
}

/// Instructions of both nodes, per second or per blob.
type Both = [f64; 2];

/// What a slice came to.
#[derive(Clone, Copy)]
struct Slice {
    per_second: Both,
    seconds: f64,
}

/// Runs the pair and counts.
///
/// # Errors
/// If valgrind or a compiler is missing, or the pair does not come up under it or changes meanwhile.
pub fn instructions<F: Fabric>(maker: Maker<'_, F>, settings: &Settings) -> Result<Instructions> {
    let bar = progress(settings.quiet, (settings.rounds * (SIZES.len() + 1)) as u64);
    bar.set_message("starting under valgrind");
    let mut bench = Bench::start(maker, settings)?;
    let before = bench.direct.status();
    let primary = before.primary.context("nobody serves")?;
    for bytes in SIZES {
        bench.blobs(bytes, WARM_UP)?;
    }
    let (mut idle, mut busy) = (Vec::new(), [Vec::new(), Vec::new()]);
    for _ in 0..settings.rounds {
        bar.set_message("nothing");
        idle.push(bench.slice(None)?.per_second);
        bar.inc(1);
        for (bytes, slices) in SIZES.into_iter().zip(&mut busy) {
            bar.set_message(format!("{bytes} bytes"));
            slices.push(bench.slice(Some(bytes))?);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let after = bench.direct.status();
    ensure!((before.epoch, after.dual) == (after.epoch, true), "the pair changed meanwhile; was a node too slow?");
    let at_rest = |node: usize| -> Vec<f64> { idle.iter().map(|both: &Both| both[node]).collect() };
    let nodes = [primary, primary.other()].map(|id| {
        let node = id.index();
        let role = if id == primary { "primary" } else { "secondary" };
        let idle = at_rest(node);
        let [small, large] = [0, 1].map(|size: usize| per_blob(&busy[size], node, &idle, settings.blobs));
        Node::new(NODES[node], role, &idle, &small, &large)
    });
    let fabric = settings.setup.kind.to_string();
    bench.direct.detach()?;
    let pace_ms = u64::try_from(settings.pace.as_millis())?;
    Ok(Instructions { fabric, blobs: settings.blobs, pace_ms, rounds: settings.rounds, nodes: nodes.into() })
}

impl<'a, F: Fabric> Bench<'a, F> {
    fn start(maker: Maker<'_, F>, settings: &'a Settings) -> Result<Self> {
        let setup = Setup { integrity: false, spin_us: 0, patient: true, ..settings.setup.clone() };
        let mut cluster = setup.create(Programs::build()?, &settings.folder)?;
        let counted = Counted::start(&mut cluster, settings.shim.as_deref(), settings.keep.as_deref())?;
        cluster.wait_until("the pair is dual under valgrind", PATIENCE, Cluster::is_dual)?;
        let config = twinsan_control::Config::load(&cluster.config())?;
        let mut direct = Direct::open(&config, VOLUME, maker(WaitPolicy::default())?)?;
        direct.settle()?;
        Ok(Self { settings, direct, cluster, counted, payload: vec![0x5a; SIZES[1]], next: 0 })
    }

    /// What both nodes execute under a load.
    fn slice(&mut self, load: Load) -> Result<Slice> {
        let length = self.settings.pace * u32::try_from(self.settings.blobs)? + REST;
        let begin = self.counted.restart(&self.cluster)?;
        if let Some(bytes) = load {
            self.blobs(bytes, self.settings.blobs)?;
        }
        self.direct.idle(length.saturating_sub(begin.elapsed()))?;
        let name = load.map_or("idle".to_owned(), |bytes| bytes.to_string());
        let dumps = self.counted.dump(&self.cluster, &name)?;
        let seconds = begin.elapsed().as_secs_f64();
        Ok(Slice { per_second: [0, 1].map(|node: usize| dumps[node].instructions / seconds), seconds })
    }

    /// Writes blobs at the pace.
    fn blobs(&mut self, bytes: usize, count: u64) -> Result<()> {
        let block = u64::from(self.direct.shape().block_bytes);
        for _ in 0..count {
            let begin = Instant::now();
            let lba = Lba(self.next % PLACES * APART / block);
            self.next += 1;
            self.direct.write(lba, &self.payload[..bytes])?;
            self.direct.settle()?;
            self.direct.idle(self.settings.pace.saturating_sub(begin.elapsed()))?;
        }
        Ok(())
    }
}

/// What of each slice's instructions is a blob's: less what is executed at rest, as the median of all rounds has it.
#[expect(clippy::cast_precision_loss, reason = "a few hundred blobs")]
fn per_blob(busy: &[Slice], node: usize, idle: &[f64], blobs: u64) -> Vec<f64> {
    let at_rest = Spread::of(idle).median;
    busy.iter().map(|slice| (slice.per_second[node] - at_rest) * slice.seconds / blobs as f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_taken_off() {
        let slice = |per_second| Slice { per_second: [per_second, 0.0], seconds: 2.0 };
        let found = per_blob(&[slice(1500.0), slice(1000.0)], 0, &[500.0, 900.0, 400.0], 10);
        assert_eq!(found, [200.0, 100.0]);
    }
}
