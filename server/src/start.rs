//! From a configuration to a running node: everything is checked before anything is begun.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use twinsan_arena::Arena;
use twinsan_auth::{Key, KeyError, Keyring};
use twinsan_control::{Config, ConfigError, FenceKind};
use twinsan_fabric::{Fabric, WaitPolicy};
use twinsan_network::{Network, NetworkOptions};
use twinsan_replica::{Replica, ReplicaConfig, Timing};
use twinsan_sas::multipath::{MultipathError, Registrations, ScsiDisk};
use twinsan_sas::superblock::slots::Expected;
use twinsan_sas::{DiskError, OpenError, SharedReader, VolumeIdentity};
use twinsan_staging::Geometry;
use twinsan_wire::message::VolumeShape;
use twinsan_wire::{Incarnation, NodeId};

use crate::clock::Clock;
use crate::control::{self, Asker};
use crate::counters::Counters;
use crate::doorbell::Doorbell;
use crate::flusher::{FenceParts, Flusher, Parts};
use crate::layout::Layout;
use crate::limits::{DIAL_TIMEOUT_MS, MAX_BATCH_BYTES, TICK_MS};
use crate::memory;
use crate::metrics;
use crate::node::Node;
use crate::paths::Paths;
use crate::reactor::{Ears, Identity, Reactor};
use crate::scsi;
use crate::signals::Signals;
use crate::slab::Slab;
use crate::stopwatch::Stopwatch;
use crate::volume::{Facts, Volume};
use crate::watchdog::Watchdog;

/// What a person has to put right; starting again as it is won't help.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The configuration file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A key file.
    #[error("volume \"{volume}\": {source}")]
    Key {
        /// Whose.
        volume: String,
        /// Why.
        source: KeyError,
    },
    /// The disk is not this volume's, or can't be.
    #[error("volume \"{volume}\", disk {disk}: {source}")]
    Disk {
        /// Which.
        volume: String,
        /// Where.
        disk: String,
        /// Why.
        source: DiskError,
    },
    /// The path leads to no disk that can be used.
    #[error("volume \"{volume}\": {source}")]
    Open {
        /// Which.
        volume: String,
        /// Why.
        source: OpenError,
    },
    /// The disk's paths are not what the configuration says.
    #[error("volume \"{volume}\": {source}")]
    Paths {
        /// Which.
        volume: String,
        /// Why.
        source: MultipathError,
    },
    /// The disk was formatted for other nodes.
    #[error(
        "volume \"{volume}\", disk {disk}: it was formatted for the nodes \"{found}\" and \"{found_b}\", the \
         configuration has \"{expected}\" and \"{expected_b}\"; names and order must be the same",
        found = found[0], found_b = found[1], expected = expected[0], expected_b = expected[1]
    )]
    Nodes {
        /// Which.
        volume: String,
        /// Where.
        disk: String,
        /// In the superblock.
        found: [String; 2],
        /// In the configuration.
        expected: [String; 2],
    },
}

/// Checks everything, takes memory, addresses and threads, and is ready to run.
///
/// # Errors
/// [`StartError`] where a person is needed, anything else where it may pass.
pub(crate) fn start(config: &Path, node: &str) -> anyhow::Result<Node> {
    let clock = Clock::start();
    let config = Config::load(config).map_err(StartError::Config)?;
    let (node, _) = config.node(node).map_err(StartError::Config)?;
    let reactors = config.reactors;
    let keyrings = (0..reactors).map(|reactor| keyring(&config, reactor)).collect::<anyhow::Result<Vec<_>>>()?;
    let disks = config.volumes.iter().map(|volume| find_disk(&config, volume)).collect::<anyhow::Result<Vec<_>>>()?;
    // Caught before the first thread begins, so that every thread has the signals' handlers.
    let signals = Signals::catch(reactors).context("catching signals")?;
    let bells = (0..reactors)
        .map(|_| Doorbell::new().context("an eventfd for a reactor"))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let names = config.volumes.iter().map(|volume| volume.name.as_str().to_owned()).collect();
    let (asker, requests) = Asker::new(&bells, names);
    let watchdogs = Watchdog::from_environment(reactors);
    let ears = bells.into_iter().zip(signals).zip(requests).zip(watchdogs);
    let ears = ears.map(|(((bell, signals), requests), watchdog)| Ears { bell, signals, requests, watchdog });
    let its = keyrings.into_iter().zip(ears);
    let mut its: Vec<Its> = its.map(|(keyring, ears)| Its { node, keyring, clock, ears, disks: Vec::new() }).collect();
    for (place, disk) in disks.into_iter().enumerate() {
        its[config.reactor_of(place)].disks.push((place, disk));
    }
    let config = Arc::new(config);
    let its = its.into_iter().enumerate().map(|(reactor, its)| {
        let config = Arc::clone(&config);
        let addresses = config.addresses(node, reactor).iter().map(ToString::to_string).collect();
        (addresses, move || its.reactor(&config))
    });
    let mut running = Node::build(its)?;
    let own = &config.nodes[node.index()];
    control::start(&own.admin, asker.clone())?;
    if let Some(address) = own.metrics {
        let bound = metrics::start(address, asker)?;
        tracing::info!(node = own.name, "telling metrics at http://{bound}/metrics");
    }
    for bound in running.listen()? {
        tracing::info!(node = own.name, "listening at {bound}");
    }
    Ok(running)
}

/// What one reactor is made of.
struct Its {
    node: NodeId,
    keyring: Keyring,
    clock: Clock,
    ears: Ears,
    /// The disks of its volumes, with the volumes' places in the configuration.
    disks: Vec<(usize, Found)>,
}

impl Its {
    /// On the thread that it is to run on.
    fn reactor(self, config: &Config) -> anyhow::Result<Reactor<Network>> {
        let Self { node, keyring, clock, ears, disks } = self;
        let mut fabric = fabric(config)?;
        let mut volumes = Vec::with_capacity(disks.len());
        for (place, disk) in disks {
            volumes.push(open_volume(config, node, &config.volumes[place], disk, &mut fabric, &ears.bell)?);
        }
        let identity = Identity { node, name: config.nodes[node.index()].name.clone(), keyring };
        Reactor::new(fabric, volumes, identity, ears, clock, config.timing.heartbeat_ms)
    }
}

/// The keys of a reactor's volumes; it lets nobody in for another.
fn keyring(config: &Config, reactor: usize) -> anyhow::Result<Keyring> {
    let mut keyring = Keyring::default();
    for (_, volume) in config.volumes.iter().enumerate().filter(|&(place, _)| config.reactor_of(place) == reactor) {
        let key = match &volume.key_file {
            None => None,
            Some(file) => Some(
                Key::load(file)
                    .map_err(|source| StartError::Key { volume: volume.name.as_str().to_owned(), source })?,
            ),
        };
        keyring.insert(volume.name, key);
    }
    Ok(keyring)
}

/// A volume's disk, as it was found.
struct Found {
    reader: SharedReader,
    identity: VolumeIdentity,
    scsi: Option<ScsiDisk>,
}

/// Opens a volume's disk for reading and checks that it is the volume's.
fn find_disk(config: &Config, volume: &twinsan_control::Volume) -> anyhow::Result<Found> {
    let name = || volume.name.as_str().to_owned();
    let path = || volume.disk.display().to_string();
    let reader = SharedReader::open(&volume.disk).map_err(|source| match source {
        // It may be a path that comes back.
        OpenError::Io { .. } => anyhow::Error::new(source).context(format!("volume \"{}\"", name())),
        source => StartError::Open { volume: name(), source }.into(),
    })?;
    let expected = Expected { name: Some(volume.name), uuid: None };
    let pair = reader.read_slots(&expected).map_err(|source| match source {
        DiskError::Superblock(_) => StartError::Disk { volume: name(), disk: path(), source }.into(),
        source => anyhow::Error::new(source).context(format!("volume \"{}\", disk {}", name(), path())),
    })?;
    let identity = pair.best.identity;
    let found = identity.nodes.map(|node| node.as_str().to_owned());
    let expected = node_names(config);
    if found != expected {
        return Err(StartError::Nodes { volume: name(), disk: path(), found, expected }.into());
    }
    reader
        .geometry()
        .check_block(&volume.disk, identity.block_bytes)
        .map_err(|source| StartError::Open { volume: name(), source })?;
    let scsi = scsi::find(volume).map_err(|source| match source {
        MultipathError::Io { .. } => anyhow::Error::new(source).context(format!("volume \"{}\"", name())),
        source => StartError::Paths { volume: name(), source }.into(),
    })?;
    Ok(Found { reader, identity, scsi })
}

fn node_names(config: &Config) -> [String; 2] {
    NodeId::BOTH.map(|node| config.nodes[node.index()].name.clone())
}

fn fabric(config: &Config) -> anyhow::Result<Network> {
    let options = NetworkOptions {
        wait: WaitPolicy { spin: std::time::Duration::from_micros(config.timing.spin_us) },
        connect_timeout: std::time::Duration::from_millis(DIAL_TIMEOUT_MS),
    };
    Ok(Network::new(options)?)
}

fn open_volume(
    config: &Config,
    node: NodeId,
    volume: &twinsan_control::Volume,
    Found { reader, identity, scsi }: Found,
    fabric: &mut Network,
    bell: &Doorbell,
) -> anyhow::Result<Volume> {
    let name = volume.name.as_str();
    let registrations = Registrations::default();
    let fence = match (volume.fence, &scsi) {
        (FenceKind::LocalLock, _) => FenceParts::LocalLock,
        (FenceKind::ScsiPr, Some(disk)) => {
            FenceParts::ScsiPr { disk: disk.clone(), registrations: registrations.clone() }
        }
        (FenceKind::ScsiPr, None) => unreachable!("scsi::find has refused it"),
    };
    let geometry = Geometry::for_volume(volume.staging.bytes(), identity.block_bytes)
        .with_context(|| format!("volume \"{name}\""))?;
    let layout = Layout::new(geometry.ring_bytes());
    let arena = memory::arena(name, &layout, config.shares_memory());
    let arena = arena.with_context(|| format!("volume \"{name}\": staging memory"))?;
    let region = fabric.register(Arc::clone(&arena))?;
    let (its_name, its_arena) = (name.to_owned(), Arc::clone(&arena));
    let parts = Parts { name: its_name, node, reader, identity, arena: its_arena, layout, fence };
    let (flusher, done, disk_facts) =
        Flusher::start(parts, bell.clone()).with_context(|| format!("volume \"{name}\""))?;
    let seed = random_u64().context("random bits for an incarnation")?;
    let replica = Replica::new(replica_config(config, node, geometry, &identity), seed);
    tracing::info!(
        volume = name,
        uuid = %identity.uuid,
        mib = identity.bytes() >> 20,
        block = identity.block_bytes,
        "disk {} ({})",
        volume.disk.display(),
        disk_facts.join(", ")
    );
    let mut facts = facts(config, node, volume, &identity, geometry, disk_facts);
    facts.map = scsi.as_ref().and_then(ScsiDisk::map).map(str::to_owned);
    let mut opened = new_volume(facts, replica, layout, arena, region, flusher, done);
    if let Some(disk) = scsi {
        let teller = opened.paths.teller(bell.clone());
        opened.watch = Some(scsi::watch(volume, disk, registrations, &opened.flusher, teller)?);
    }
    Ok(opened)
}

fn facts(
    config: &Config,
    node: NodeId,
    volume: &twinsan_control::Volume,
    identity: &VolumeIdentity,
    geometry: Geometry,
    disk_facts: Vec<String>,
) -> Facts {
    let mut other = config.addresses_of(node.other(), volume);
    // Its first reactor's too: a node that was started with another `reactors` is not taken for one that is gone, but says
    // whether it serves the volume.
    for address in config.addresses(node.other(), 0) {
        if !other.contains(&address) {
            other.push(address);
        }
    }
    Facts {
        name: volume.name,
        node,
        nodes: node_names(config),
        relay_dial_ms: relay_dial_ms(config.timing.drop_ms, other.len()),
        other,
        shape: VolumeShape {
            uuid: identity.uuid.0,
            blocks: identity.blocks,
            block_bytes: identity.block_bytes,
            ring_bytes: geometry.ring_bytes(),
        },
        integrity: volume.integrity,
        disk: volume.disk.clone(),
        map: None,
        disk_facts,
    }
}

/// One address' share of the time after which who is not fed is dropped, so that the last of them is reached in time.
fn relay_dial_ms(drop_ms: u64, addresses: usize) -> u64 {
    let shares = u64::try_from(addresses).unwrap_or(u64::MAX).saturating_add(1);
    (drop_ms / shares).clamp(1, DIAL_TIMEOUT_MS)
}

/// Nothing has happened yet.
pub(crate) fn new_volume(
    facts: Facts,
    replica: Replica,
    layout: Layout,
    arena: Arc<Arena>,
    region: twinsan_fabric::RegionId,
    flusher: Flusher,
    done: crossbeam_channel::Receiver<crate::flusher::Done>,
) -> Volume {
    let arrivals = vec![0; layout.slots as usize].into();
    Volume {
        facts,
        // Until the machine's first action says which.
        incarnation: Incarnation::from_random(0),
        replica,
        layout,
        arena,
        region,
        flusher,
        done,
        watch: None,
        paths: Paths::new(),
        slab: Slab::new(),
        answering: BTreeMap::new(),
        dials: [None, None],
        answered: 0,
        dial_trouble: None,
        arrivals,
        stopwatch: Stopwatch::default(),
        counters: Counters::default(),
        ended: false,
    }
}

fn replica_config(config: &Config, node: NodeId, geometry: Geometry, identity: &VolumeIdentity) -> ReplicaConfig {
    let timing = Timing {
        tick_ms: TICK_MS,
        heartbeat_ms: config.timing.heartbeat_ms,
        takeover_ms: config.timing.takeover_ms,
        drop_ms: config.timing.drop_ms,
        join_ms: config.timing.join_ms,
        flush_rest_ms: config.timing.flush_rest_ms,
        takeover_budget_ms: config.timing.takeover_budget_ms,
        ..Timing::default()
    };
    let config = ReplicaConfig::new(node, geometry, identity.blocks, timing, MAX_BATCH_BYTES);
    #[cfg(feature = "weaken")]
    let config = ReplicaConfig { weakness: weakness(), ..config };
    config
}

/// The wrong wording that a test wants, by its name ([`twinsan_replica::Weakness`]).
#[cfg(feature = "weaken")]
fn weakness() -> Option<twinsan_replica::Weakness> {
    let wanted = std::env::var("TWINSAN_WEAKNESS").ok()?;
    let found = twinsan_replica::Weakness::ALL.into_iter().find(|weakness| format!("{weakness:?}") == wanted);
    let found =
        found.unwrap_or_else(|| panic!("TWINSAN_WEAKNESS={wanted}: one of {:?}", twinsan_replica::Weakness::ALL));
    tracing::warn!(?found, "WEAKENED: this program is made to break its promise");
    Some(found)
}

fn random_u64() -> std::io::Result<u64> {
    let nonce = twinsan_auth::fresh_nonce()?;
    let (bytes, _) = nonce.split_first_chunk().expect("32 bytes");
    Ok(u64::from_le_bytes(*bytes))
}
