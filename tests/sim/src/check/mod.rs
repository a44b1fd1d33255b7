//! The promises, each as a checker of its own name, and what they share: the history of every block.
//!
//! The checkers see everything (every memory, the disk, what clients were told), so that a broken promise shows as
//! soon as it is broken and not only when somebody reads.

pub(crate) mod a_healthy_cluster_ends_up_dual;
pub(crate) mod completed_write_is_never_lost;
pub(crate) mod epochs_never_go_back;
pub(crate) mod lane_space_is_not_reused_early;
pub(crate) mod members_never_lie;
pub(crate) mod one_authoritative_primary;
pub(crate) mod one_disk_write_per_block;
pub(crate) mod read_never_goes_back;

use std::collections::{BTreeMap, BTreeSet};

use twinsan_wire::{Generation, Incarnation, NodeId, Superblock};

use crate::client::Extent;
use crate::event::LifeIndex;
use crate::stamp::Version;
use crate::world::World;

use self::read_never_goes_back::Why;

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub checker: &'static str,
    /// How, in words.
    pub message: String,
}

/// What the checkers remember.
#[derive(Clone)]
pub(crate) struct Check {
    pub(crate) violation: Option<Violation>,
    pub(crate) blocks: Vec<History>,
    /// The newest session that has been opened.
    pub(crate) newest_session: u64,
    /// All that have been.
    pub(crate) sessions: BTreeSet<u64>,
    /// Who has served in an epoch.
    pub(crate) primaries: BTreeMap<u64, (NodeId, Incarnation)>,
    /// The highest epoch that both slots have shown.
    pub(crate) settled_epoch: u64,
    /// The last superblock whose writer has heard that it is on the disk.
    pub(crate) counted: Superblock,
    /// Both nodes were killed on purpose: what only their RAM held may be gone (rule 12).
    pub(crate) loss_allowed: bool,
    /// An operator has accepted the loss; it is taken stock of when a node serves.
    pub(crate) loss_accepted: bool,
}

/// One block's past.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct History {
    /// Everything that was ever written to it.
    pub(crate) issued: BTreeSet<Version>,
    /// The newest write that has completed.
    pub(crate) completed: Version,
    /// The newest that a read has returned.
    pub(crate) read: Version,
    /// A session has read this value of an earlier session: what that had issued later is void.
    pub(crate) settled: Option<(u64, Version)>,
}

impl History {
    /// What must not be lost.
    pub(crate) fn floor(&self) -> Version {
        self.completed.max(self.read)
    }
}

impl Check {
    pub(crate) fn new(blocks: u64) -> Self {
        Self {
            violation: None,
            blocks: vec![History::default(); usize::try_from(blocks).expect("a small volume")],
            newest_session: 0,
            sessions: BTreeSet::new(),
            primaries: BTreeMap::new(),
            settled_epoch: 0,
            counted: Superblock::default(),
            loss_allowed: false,
            loss_accepted: false,
        }
    }

    pub(crate) fn block(&mut self, lba: u64) -> &mut History {
        &mut self.blocks[usize::try_from(lba).expect("a small volume")]
    }

    /// No number is given to two sessions: (generation, seq) names one content for ever. (A client that was frozen may
    /// hear late that it was let in.)
    pub(crate) fn session_opened(&mut self, generation: Generation) -> Result<(), String> {
        self.newest_session = self.newest_session.max(generation.0);
        if self.sessions.insert(generation.0) { Ok(()) } else { Err(format!("two sessions open as {generation}")) }
    }

    pub(crate) fn write_issued(&mut self, version: Version, extent: Extent) {
        for lba in extent.lbas() {
            self.block(lba).issued.insert(version);
        }
    }

    /// For a read that begins now: what each block must not be older than.
    pub(crate) fn floors(&mut self, generation: Generation, extent: Extent) -> Vec<(Version, Why)> {
        let mine = Version { generation: generation.0, seq: 0 }..Version { generation: generation.0 + 1, seq: 0 };
        let floor = |history: &History| {
            let sent = history.issued.range(mine.clone()).next_back().copied().unwrap_or(Version::NEVER);
            [(history.completed, Why::Completed), (history.read, Why::Read), (sent, Why::Sent)]
                .into_iter()
                .reduce(|best, next| if next.0 > best.0 { next } else { best })
                .expect("three of them")
        };
        extent.lbas().map(|lba| floor(self.block(lba))).collect()
    }
}

impl World {
    /// A promise has been broken; the first one counts.
    pub(crate) fn fail(&mut self, checker: &'static str, message: String) {
        crate::trace::trace!(self, "check", "!!! {checker}: {message}");
        self.check.violation.get_or_insert(Violation { checker, message });
    }

    /// A block of a batch is on the disk.
    pub(crate) fn block_written(&mut self, node: NodeId, life: LifeIndex, lba: u64, version: Version) {
        one_authoritative_primary::check_write(self, node, life, &format_args!("block {lba}"));
        let block = &mut self.disk.blocks[usize::try_from(lba).expect("a small volume")];
        let before = std::mem::replace(block, version);
        completed_write_is_never_lost::overwritten(self, lba, before);
    }

    /// The node says that it serves now.
    pub(crate) fn serving_begins(&mut self, node: NodeId) {
        if std::mem::take(&mut self.check.loss_accepted) {
            self.take_stock();
        }
        // Nobody serves before that unless nothing is lost.
        self.check.loss_allowed = false;
        one_authoritative_primary::check_role(self, node);
        completed_write_is_never_lost::serving(self, node);
    }

    /// Rule 12: the operator has accepted that what only RAM held is gone.
    fn take_stock(&mut self) {
        for (history, &disk) in self.check.blocks.iter_mut().zip(&self.disk.blocks) {
            let lost = history.floor() > disk;
            let completed = history.completed;
            history.issued.retain(|&version| version <= disk || version > completed);
            history.completed = history.completed.min(disk);
            history.read = history.read.min(disk);
            self.counts.blocks_lost_legally += u64::from(lost);
        }
        for read in self.clients.iter_mut().flat_map(|client| client.reads.values_mut()) {
            for (lba, (floor, _)) in read.extent.lbas().zip(&mut read.floors) {
                let history = &self.check.blocks[usize::try_from(lba).expect("a small volume")];
                *floor = history.issued.range(..=*floor).next_back().copied().unwrap_or(Version::NEVER);
            }
        }
    }

    /// This life's memory has the block in this version or a newer one, and its machine has not released it.
    pub(crate) fn memory_holds(&self, life: LifeIndex, lba: u64, at_least: Version) -> bool {
        let memory = &self.lives[life];
        let ring = self.config.ring_blocks();
        let node = &self.nodes[memory.node.index()];
        let status = node.machine.as_ref().filter(|_| node.life == Some(life)).map(twinsan_replica::Replica::status);
        let released = status.map_or(Version::NEVER, |s| Version::new(s.generation, s.released));
        memory.slots.iter().flatten().any(|blob| {
            let inside = blob.lba.0 <= lba && lba < blob.end().0;
            let given_back = blob.generation.0 == released.generation && blob.seq.0 <= released.seq;
            if !inside || given_back || Version::of(blob) < at_least {
                return false;
            }
            let block = u64::from(crate::config::BLOCK_BYTES);
            let at = (blob.data_pos / block + (lba - blob.lba.0)) % ring;
            let cell = memory.ring[usize::try_from(at).expect("a small ring")];
            blob.payload_len == 0 || (cell.version == Version::of(blob) && cell.lba == lba)
        })
    }

    /// The life behind an incarnation, if its process is there (running or frozen).
    pub(crate) fn life_behind(&self, node: NodeId, incarnation: Incarnation) -> Option<LifeIndex> {
        let n = &self.nodes[node.index()];
        n.life.filter(|_| n.incarnation == incarnation)
    }
}
