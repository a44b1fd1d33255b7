//! A small formatted disk and a volume on it, for this crate's own tests.

use std::path::PathBuf;
use std::sync::Arc;

use twinsan_arena::{Arena, ArenaOptions, PagePolicy};
use twinsan_control::Address;
use twinsan_fabric::RegionId;
use twinsan_replica::{Replica, ReplicaConfig, Timing};
use twinsan_sas::format::{FormatOptions, format};
use twinsan_sas::{NodeName, SharedReader};
use twinsan_staging::Geometry;
use twinsan_wire::{NodeId, VolumeName, VolumeShape};

use crate::doorbell::Doorbell;
use crate::flusher::{FenceParts, Flusher, Parts};
use crate::layout::{Layout, index};
use crate::limits::MAX_BATCH_BYTES;
use crate::start::new_volume;
use crate::volume::{Facts, Volume};

/// The smallest data ring.
pub(crate) const LAYOUT: Layout = Layout::new(4 << 20);

/// Goes with its files.
pub(crate) struct Testbed(tempfile::TempDir);

impl Testbed {
    pub(crate) fn disk(&self) -> PathBuf {
        self.0.path().join("disk.img")
    }
}

/// A flusher's parts, on a new disk of 1 MiB with blocks of 4096 bytes.
pub(crate) fn parts(node: NodeId) -> (Testbed, Parts) {
    // Beside the test's own binary: `/tmp` may have no direct I/O.
    let beside = std::env::current_exe().unwrap();
    let bed = Testbed(tempfile::tempdir_in(beside.parent().unwrap()).unwrap());
    let options = FormatOptions {
        path: bed.disk(),
        name: VolumeName::new("db").unwrap(),
        bytes: Some(1 << 20),
        block_bytes: Some(4096),
        nodes: ["san1", "san2"].map(|name| NodeName::new(name).unwrap()),
        force: false,
        zero: false,
    };
    let identity = format(&options).unwrap().identity;
    let options =
        ArenaOptions { name: "test".into(), bytes: index(LAYOUT.bytes()), pages: PagePolicy::Small, lock: false };
    let arena = Arc::new(Arena::new(&options).unwrap());
    let reader = SharedReader::open(&bed.disk()).unwrap();
    let (name, fence) = ("db".to_owned(), FenceParts::LocalLock);
    let parts = Parts { name, node, reader, identity, arena, layout: LAYOUT, fence };
    (bed, parts)
}

/// A volume of `node` whose other node has two addresses.
pub(crate) fn volume(node: NodeId, bell: &Doorbell) -> (Testbed, Volume) {
    let (bed, parts) = parts(node);
    let (identity, arena) = (parts.identity, Arc::clone(&parts.arena));
    let geometry = Geometry::for_volume(LAYOUT.ring_bytes, identity.block_bytes).unwrap();
    let timing = Timing::default();
    let config = ReplicaConfig::new(node, geometry, identity.blocks, timing, MAX_BATCH_BYTES);
    let facts = Facts {
        name: identity.name,
        node,
        nodes: ["san1", "san2"].map(str::to_owned),
        other: ["/first.fabric", "/second.fabric"].map(|path| Address::Unix(path.into())).to_vec(),
        relay_dial_ms: 100,
        shape: VolumeShape {
            uuid: identity.uuid.0,
            blocks: identity.blocks,
            block_bytes: identity.block_bytes,
            ring_bytes: LAYOUT.ring_bytes,
        },
        integrity: true,
        disk: bed.disk(),
        map: None,
        disk_facts: Vec::new(),
    };
    let (flusher, done, _) = Flusher::start(parts, bell.clone()).unwrap();
    (bed, new_volume(facts, Replica::new(config, 1), LAYOUT, arena, RegionId(0), flusher, done))
}
