//! A durable write beside the sum of its three raw hops, in one run.
//!
//! ```text
//!     client ──(1) payload + descriptor──▶ secondary        raw: half of `write+imm`, client ⇄ secondary
//!       │                                     │
//!       └─(1) payload + descriptor─▶ primary ◀┘ (2) ACK     raw: half of `ack`, secondary ⇄ primary
//!                                      │
//!       ◀──(3) completion──────────────┘                    raw: half of `ack`, primary ⇄ client
//! ```
//!
//! A *durable write* is one through the whole path, from the call of the client's session until the session says that it
//! has completed ([`twinsan::attach::Direct`]): the real nodes, without a block device's front end. The raw hops are the
//! same posts by the same fabric, waited for in the same way, between the same hosts: on each node's host runs a
//! [`crate::wire::Listener`] beside the node. What the ratio says is what the protocol costs: two machines and a
//! session, CRCs, and what the hosts do meanwhile (the flusher works behind every durable write).
//!
//! All take turns in short slices, so that whatever else the machines do falls on all of them.

pub mod args;
pub mod report;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use twinsan::attach::Direct;
use twinsan_control::Config;
use twinsan_fabric::{Fabric, WaitPolicy};
use twinsan_wire::{Lba, NodeId};

use self::report::{Hop, Hops, Size};
use crate::bench::result::Ratio;
use crate::fabric::Maker;
use crate::wire::figures::Times;
use crate::wire::{Broken, Budget, Pinger, Row, progress};
use twinsan_witness::pattern::{BLOCK, Model, Random, fill};

/// Durable writes go to the volume's first so many bytes.
const SPAN: u64 = 64 << 20;
/// A raw hop's connection may break (a host that stands still for a moment); so often in a run its slice is made again.
const MOST_BROKEN: u32 = 5;
/// A slice ends after so long: the session must not fall silent meanwhile.
const SLICE: Duration = Duration::from_millis(200);

/// What is measured.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The volume.
    pub volume: String,
    /// Where the listeners are, by node.
    pub wire: [Way; 2],
    /// Payload sizes, each a multiple of the volume's block.
    pub sizes: Vec<u32>,
    /// Each size has so many slices of each kind.
    pub rounds: usize,
    /// Writes, or round trips, in a slice.
    pub writes: u64,
    /// No progress bar.
    pub quiet: bool,
}

/// Where a node's listener is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Way {
    /// For the client.
    pub client: String,
    /// For the other node's host; nodes and clients may have links of their own.
    pub node: String,
}

/// The client's ends of everything.
struct Bench<'a, F: Fabric> {
    maker: Maker<'a, F>,
    settings: &'a Settings,
    direct: Direct<F>,
    /// By node.
    pingers: [Pinger<F>; 2],
    spin: Duration,
    primary: NodeId,
    model: Model,
    random: Random,
    span: u64,
    /// Raw hops' connections that broke.
    broken: u32,
}

/// What one size has come to so far.
#[derive(Default)]
struct Slices {
    /// Durable writes, then each hop's round trips.
    times: [Vec<Duration>; 4],
    /// Their medians, slice by slice.
    medians: [Vec<f64>; 4],
}

/// Measures a pair that runs as `config` says. Writes over the beginning of the volume.
///
/// # Errors
/// If anything is not there or fails, if the pair changes meanwhile, or if a completed write does not read back.
pub fn hops<F: Fabric>(maker: Maker<'_, F>, config: &Config, settings: &Settings) -> Result<Hops> {
    let spin = Duration::from_micros(config.timing.spin_us);
    let bar = progress(settings.quiet, (settings.sizes.len() * settings.rounds) as u64);
    bar.set_message("attaching");
    let mut bench = Bench::open(maker, config, settings, spin)?;
    let before = bench.direct.status();
    let mut sizes = Vec::with_capacity(settings.sizes.len());
    for &bytes in &settings.sizes {
        bar.set_message(format!("{bytes} bytes"));
        let mut slices = Slices::default();
        for round in 0..settings.rounds {
            for turn in 0..4 {
                // Another one begins each round, so that nobody always follows the same neighbour.
                bench.slice(bytes, (round + turn) % 4, &mut slices)?;
            }
            bar.inc(1);
        }
        sizes.push(slices.finish(bytes, &bench.ways(config)));
    }
    bar.finish_and_clear();
    let after = bench.direct.status();
    ensure!(
        (before.epoch, before.dual) == (after.epoch, true),
        "the pair changed meanwhile: epoch {} with two members at first, then epoch {}, two members: {}",
        before.epoch.0,
        after.epoch.0,
        after.dual
    );
    bench.read_back()?;
    let integrity = config.volume(&settings.volume)?.integrity;
    let name = |node: NodeId| config.nodes[node.index()].name.clone();
    let (primary, secondary) = (name(bench.primary), name(bench.primary.other()));
    let broken = bench.broken;
    bench.direct.detach()?;
    Ok(Hops {
        volume: settings.volume.clone(),
        wire: settings.wire.clone(),
        primary,
        secondary,
        spin_us: config.timing.spin_us,
        integrity,
        rounds: settings.rounds,
        broken,
        sizes,
    })
}

impl<'a, F: Fabric> Bench<'a, F> {
    fn open(maker: Maker<'a, F>, config: &Config, settings: &'a Settings, spin: Duration) -> Result<Self> {
        let pingers = [connect(maker, &settings.wire[0], spin)?, connect(maker, &settings.wire[1], spin)?];
        let fabric = maker(WaitPolicy { spin })?;
        let mut direct = Direct::open(config, &settings.volume, fabric)?;
        direct.settle().context("the pair before the first write")?;
        let shape = direct.shape();
        for &bytes in &settings.sizes {
            let block = shape.block_bytes;
            ensure!(bytes.is_multiple_of(block), "writes of {bytes} bytes: this volume's block has {block}");
        }
        let span = SPAN.min(shape.blocks * u64::from(shape.block_bytes));
        let most = settings.sizes.iter().copied().max().map_or(0, u64::from);
        ensure!(span >= most, "the volume has {span} bytes, too few for writes of {most}");
        let primary = direct.status().primary.context("nobody serves")?;
        let (model, random) = (Model::new(span), Random::new(1));
        Ok(Self { maker, settings, direct, pingers, spin, primary, model, random, span, broken: 0 })
    }

    /// The three hops: their names, and between whom.
    fn ways(&self, config: &Config) -> [(&'static str, String); 3] {
        let name = |node: NodeId| config.nodes[node.index()].name.as_str();
        let (primary, secondary) = (name(self.primary), name(self.primary.other()));
        [
            ("payload + descriptor", format!("client → {secondary}")),
            ("ACK", format!("{secondary} → {primary}")),
            ("completion", format!("{primary} → client")),
        ]
    }

    /// One slice of one kind: 0 durable writes, 1 to 3 the hops.
    fn slice(&mut self, bytes: u32, kind: usize, slices: &mut Slices) -> Result<()> {
        let times = loop {
            match self.times(bytes, kind) {
                Err(error) if error.is::<Broken>() && self.broken < MOST_BROKEN => {
                    self.broken += 1;
                    for (pinger, way) in self.pingers.iter_mut().zip(&self.settings.wire) {
                        *pinger = connect(self.maker, way, self.spin)?;
                    }
                    self.direct.settle()?;
                }
                times => break times?,
            }
        };
        slices.medians[kind].push(Times::of(&times).p50_us);
        slices.times[kind].extend(times);
        // Heartbeats, and the flusher's end: it must not work into a neighbour's slice.
        self.direct.settle()
    }

    fn times(&mut self, bytes: u32, kind: usize) -> Result<Vec<Duration>> {
        let budget = Budget { count: self.settings.writes, time: SLICE };
        let (primary, secondary) = (self.primary.index(), self.primary.other().index());
        Ok(match kind {
            0 => self.durable(bytes, budget)?,
            1 => self.pingers[secondary].run(Row::BlobBothWays, bytes, budget)?.times,
            2 => {
                let to = self.settings.wire[primary].node.as_str();
                self.pingers[secondary].ask(to, Row::Ack, 0, budget, self.spin)?.times
            }
            _ => self.pingers[primary].run(Row::Ack, 0, budget)?.times,
        })
    }

    fn durable(&mut self, bytes: u32, budget: Budget) -> Result<Vec<Duration>> {
        let len = usize::try_from(bytes)?;
        let mut buffer = vec![0; len];
        let block_bytes = u64::from(self.direct.shape().block_bytes);
        let places = self.span / u64::from(bytes);
        let mut times = Vec::new();
        let mut total = Duration::ZERO;
        // A few to open the polling window again, as every slice's first rounds do.
        let warm = budget.count / 10;
        for made in 0..budget.count + warm {
            let offset = self.random.below(places) * u64::from(bytes);
            let first = offset / BLOCK as u64;
            let stamp = self.model.next_stamp();
            fill(&mut buffer, first, stamp);
            let took = self.direct.write(Lba(offset / block_bytes), &buffer)?;
            self.model.completed(first, len / BLOCK, stamp);
            total += took;
            if made >= warm {
                times.push(took);
                if total >= budget.time {
                    break;
                }
            }
        }
        Ok(times)
    }

    /// A completion that did not mean anything would be the fastest.
    fn read_back(&mut self) -> Result<()> {
        let block_bytes = u64::from(self.direct.shape().block_bytes);
        let mut lost = Vec::new();
        let mut offset = 0;
        while offset < self.span {
            let len = usize::try_from((self.span - offset).min(1 << 20))?;
            let mut buffer = vec![0; len];
            self.direct.read(Lba(offset / block_bytes), &mut buffer)?;
            self.model.check(offset / BLOCK as u64, &buffer, &mut lost);
            offset += len as u64;
        }
        ensure!(
            lost.is_empty(),
            "{} completed writes do not read back, first {:?}",
            Model::writes_lost(&lost),
            lost[0]
        );
        Ok(())
    }
}

/// To a node's listener, which has to wait as the node does.
fn connect<F: Fabric>(maker: Maker<'_, F>, way: &Way, spin: Duration) -> Result<Pinger<F>> {
    let url = &way.client;
    let pinger = Pinger::connect(maker, url, spin)?;
    ensure!(
        pinger.peer_spin() == spin,
        "the listener at {url} polls {} µs before it sleeps, the node {} (spin_us): start it with --spin-us {}",
        pinger.peer_spin().as_micros(),
        spin.as_micros(),
        spin.as_micros()
    );
    Ok(pinger)
}

impl Slices {
    fn finish(self, bytes: u32, ways: &[(&'static str, String); 3]) -> Size {
        let [durable, hops @ ..] = self.times;
        let [durable_medians, hop_medians @ ..] = self.medians;
        let rows = [Row::BlobBothWays, Row::Ack, Row::Ack];
        let hops = hops.iter().zip(ways).zip(rows).map(|((times, (name, way)), row)| {
            let round_trip = Times::of(times);
            Hop { name, way: way.clone(), row: row.name(), one_way_us: round_trip.p50_us / 2.0, round_trip }
        });
        let hops: Vec<Hop> = hops.collect();
        let sum_us = hops.iter().map(|hop| hop.one_way_us).sum();
        let sums: Vec<f64> = (0..durable_medians.len()).map(|i| hop_medians.iter().map(|m| m[i] / 2.0).sum()).collect();
        let durable = Times::of(&durable);
        Size {
            bytes,
            ratio: durable.p50_us / sum_us,
            by_round: Ratio::new(&durable_medians, &sums),
            durable,
            hops,
            sum_us,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hop_is_half_of_its_round_trip_and_the_ratio_is_over_their_sum() {
        let us = |us: u64| vec![Duration::from_micros(us); 3];
        let slices = Slices {
            times: [us(90), us(40), us(20), us(60)],
            medians: [vec![90.0, 180.0], vec![40.0, 40.0], vec![20.0, 20.0], vec![60.0, 60.0]],
        };
        let ways = [("a", "x".into()), ("b", "y".into()), ("c", "z".into())];
        let size = slices.finish(4096, &ways);
        let near = |a: f64, b: f64| (a - b).abs() < 0.2;
        assert!(near(size.sum_us, 60.0) && near(size.ratio, 1.5), "{size:?}");
        assert!(near(size.by_round.least, 1.5) && near(size.by_round.most, 3.0), "{size:?}");
        assert_eq!(size.hops.iter().map(|hop| hop.row).collect::<Vec<_>>(), ["write+imm", "ack", "ack"]);
    }
}
