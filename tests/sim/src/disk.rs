//! The shared disk: blocks, two superblock slots, two heartbeat blocks.
//!
//! - Every block of a batch lands by itself at a random later time; its bytes are taken from the lane at that moment,
//!   as a controller's DMA may.
//! - A write is answered after it has landed; a process may die or freeze meanwhile, and the write lands all the same.
//! - Whether a write may land is asked when it reaches the disk ([`crate::fence`]).
//! - A slot lands whole, except that the death of its writer may tear it.

use std::collections::BTreeMap;

use twinsan_replica::{self as replica, DiskError, Piece, PieceSource, ReadToken, SlotRead, Source, WriteRange};
use twinsan_wire::{NodeId, Superblock};

use crate::check::{lane_space_is_not_reused_early, one_disk_write_per_block};
use crate::config::{BLOCK_BYTES, FenceKind};
use crate::coverage::Firing;
use crate::event::{Ev, Host, Inbound, LifeIndex, OpId};
use crate::shared::Shared;
use crate::stamp::{Cell, Version};
use crate::storage::{Ills, Landing};
use crate::trace::{trace, trace_block};
use crate::weak::DriverWeakness;
use crate::world::{Process, World};

/// What stands on the disk, and what is on its way there.
#[derive(Clone)]
pub(crate) struct Disk {
    pub(crate) blocks: Vec<Version>,
    /// `None`: its CRC does not fit.
    pub(crate) slots: [Option<Superblock>; 2],
    pub(crate) beats: [u64; 2],
    pub(crate) ops: BTreeMap<OpId, Shared<Op>>,
    next_op: OpId,
    /// The node's I/O fails, and nobody says why.
    pub(crate) failing: [bool; 2],
    /// The node has no usable path, and what becomes of its I/O meanwhile; its process is told.
    pub(crate) pathless: [Option<Pathless>; 2],
    /// The node's next write is answered with a conflict though its key is there.
    pub(crate) false_conflict: [bool; 2],
    /// `Pr`: the node's writes are refused again and again, though its key is there.
    pub(crate) refusing: [bool; 2],
    /// What else ails it.
    pub(crate) ills: Ills,
}

/// What a host does with I/O for which it has no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pathless {
    /// It fails at once.
    Fails,
    /// It is queued above the paths (dm-multipath's `queue_if_no_path`) till one is back.
    Queues,
}

/// An operation of one driver.
#[derive(Clone)]
pub(crate) struct Op {
    pub(crate) life: LifeIndex,
    pub(crate) node: NodeId,
    pub(crate) what: What,
    /// The parts that have not ended.
    pub(crate) units: Vec<Unit>,
    pub(crate) since_us: u64,
    pub(crate) failed: Option<DiskError>,
}

#[derive(Clone)]
pub(crate) enum What {
    Flush { batch: u64 },
    Superblock { superblock: Superblock },
    Beat { beat: u64 },
    ReadSuperblock { seen: [Option<Superblock>; 2] },
    ReadBeat,
    Read { token: ReadToken, cells: Vec<Cell> },
}

/// A part that lands by itself.
#[derive(Clone, Copy, Debug, Hash)]
pub(crate) struct Unit {
    pub(crate) part: Part,
    pub(crate) state: UnitState,
}

#[derive(Clone, Copy, Debug, Hash)]
pub(crate) enum Part {
    /// A block, from the lane or zeros.
    Block {
        lba: u64,
        seq: u64,
        source: BlockSource,
    },
    Slot(usize),
    Beat,
    ReadSlot(usize),
    ReadBeat,
    ReadBlock {
        lba: u64,
        index: usize,
    },
}

#[derive(Clone, Copy, Debug, Hash)]
pub(crate) enum BlockSource {
    /// The cell of the data ring.
    Ring(u64),
    /// The slot of the descriptor ring that says so.
    Zeros(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum UnitState {
    Pending,
    /// The fence has let it through already, or will not stop it any more.
    Unstoppable,
    /// The fence has aborted it.
    Aborted,
    Ended,
}

impl Disk {
    pub(crate) fn formatted(blocks: u64) -> Self {
        let superblock = Superblock { counter: 1, clean: true, ..Superblock::default() };
        Self {
            blocks: vec![Version::NEVER; usize::try_from(blocks).expect("a small volume")],
            slots: [Some(superblock); 2],
            beats: [0; 2],
            ops: BTreeMap::new(),
            next_op: 0,
            failing: [false; 2],
            pathless: [None; 2],
            false_conflict: [false; 2],
            refusing: [false; 2],
            ills: Ills::default(),
        }
    }

    /// What the node sends to the disk gets there.
    pub(crate) fn is_reached_by(&self, node: NodeId) -> bool {
        !self.failing[node.index()] && self.pathless[node.index()].is_none()
    }

    /// What the node sends to the disk waits.
    pub(crate) fn queues(&self, node: NodeId) -> bool {
        self.pathless[node.index()] == Some(Pathless::Queues)
    }

    /// What a reader of the whole would act on.
    pub(crate) fn superblock(&self) -> Option<Superblock> {
        let [a, b] = self.slots;
        [a, b].into_iter().flatten().max_by_key(|s| s.counter)
    }

    /// Both slots say the same.
    pub(crate) fn settled(&self) -> Option<Superblock> {
        self.slots[0].filter(|_| self.slots[0] == self.slots[1])
    }

    /// The slot that is written first: a bad one, else the one with the lower counter.
    fn older_slot(&self) -> usize {
        usize::from(self.slots[1].map_or(0, |s| s.counter) < self.slots[0].map_or(0, |s| s.counter))
    }

    /// Every superblock that the disk says or may say when all that is in flight has landed.
    pub(crate) fn possible_superblocks(&self) -> Vec<Superblock> {
        let in_flight = self.ops.values().filter_map(|op| match op.what {
            What::Superblock { superblock } => Some(superblock),
            _ => None,
        });
        self.superblock().into_iter().chain(in_flight).collect()
    }

    /// Writes that this life's host has under way.
    pub(crate) fn writes_in_flight(&self, of: impl Fn(&Op) -> bool) -> bool {
        self.ops.values().any(|op| of(op) && op.units.iter().any(|u| u.is_write() && u.state != UnitState::Ended))
    }
}

impl Unit {
    fn new(part: Part) -> Self {
        Self { part, state: UnitState::Pending }
    }

    pub(crate) fn is_write(&self) -> bool {
        matches!(self.part, Part::Block { .. } | Part::Slot(_) | Part::Beat)
    }
}

impl World {
    pub(crate) fn disk_delay(&mut self) -> u64 {
        let span = self.config.disk;
        self.rng.latency(span.low, span.high)
    }

    fn begin(&mut self, node: NodeId, what: What, parts: Vec<Part>) {
        let life = self.nodes[node.index()].life.expect("a process that writes is there");
        self.disk.next_op += 1;
        let op = self.disk.next_op;
        let units: Vec<Unit> = parts.into_iter().map(Unit::new).collect();
        let count = units.len();
        let begun = Op { life, node, what, units, since_us: self.now_us, failed: None };
        self.disk.ops.insert(op, Shared::new(begun));
        for unit in 0..count {
            let delay = self.disk_delay_of(node);
            self.after(delay, Ev::Disk { op, unit });
        }
    }

    /// Action `Flush`.
    pub(crate) fn begin_flush(&mut self, node: NodeId, batch: u64, writes: &[WriteRange]) {
        let ring = self.config.ring_blocks();
        let mut parts = Vec::new();
        for write in writes {
            for i in 0..write.blocks {
                let source = match write.source {
                    Source::Staged { data_pos } => BlockSource::Ring((data_pos / u64::from(BLOCK_BYTES) + i) % ring),
                    Source::Zeros(_) => BlockSource::Zeros(self.config.geometry.slot(write.seq) as usize),
                };
                parts.push(Part::Block { lba: write.lba.0 + i, seq: write.seq.0, source });
            }
        }
        one_disk_write_per_block::check(self, node, &parts);
        if parts.is_empty() {
            self.fail("a_flush_writes_something", format!("node {node}: batch {batch} is empty"));
            return;
        }
        self.counts.batches += 1;
        self.begin(node, What::Flush { batch }, parts);
    }

    /// Action `ReadDisk`.
    pub(crate) fn begin_read(&mut self, node: NodeId, token: ReadToken, pieces: &[Piece]) {
        let blocks = pieces.iter().filter(|p| p.source == PieceSource::Disk);
        let lbas = blocks.flat_map(|p| (0..u64::from(p.blocks)).map(move |i| p.lba.0 + i));
        let parts: Vec<Part> = lbas.enumerate().map(|(index, lba)| Part::ReadBlock { lba, index }).collect();
        let cells = vec![Cell::default(); parts.len()];
        self.begin(node, What::Read { token, cells }, parts);
    }

    pub(crate) fn begin_superblock(&mut self, node: NodeId, superblock: Superblock) {
        let first = self.disk.older_slot();
        self.begin(node, What::Superblock { superblock }, vec![Part::Slot(first)]);
    }

    pub(crate) fn begin_beat(&mut self, node: NodeId, beat: u64) {
        self.begin(node, What::Beat { beat }, vec![Part::Beat]);
    }

    pub(crate) fn begin_read_superblock(&mut self, node: NodeId) {
        self.begin(node, What::ReadSuperblock { seen: [None; 2] }, vec![Part::ReadSlot(0), Part::ReadSlot(1)]);
    }

    pub(crate) fn begin_read_beat(&mut self, node: NodeId) {
        self.begin(node, What::ReadBeat, vec![Part::ReadBeat]);
    }

    /// The first slot is on the disk; the driver goes on with the second.
    pub(crate) fn write_second_slot(&mut self, id: OpId) {
        let op = self.disk.ops.get_mut(&id).expect("it waits for its second slot");
        let Part::Slot(first) = op.units[0].part else { unreachable!("a superblock write begins with a slot") };
        op.units.push(Unit::new(Part::Slot(1 - first)));
        let node = op.node;
        let delay = self.disk_delay_of(node);
        self.after(delay, Ev::Disk { op: id, unit: 1 });
    }

    /// A part reaches the disk.
    pub(crate) fn disk_lands(&mut self, id: OpId, unit: usize) {
        let Some(op) = self.disk.ops.get(&id) else { return };
        let (node, life, at) = (op.node, op.life, op.units[unit]);
        if at.state == UnitState::Ended || self.disk.queues(node) || self.holds.holds_disk(self, id, unit) {
            return;
        }
        if self.is_put_off(node, id, unit) || self.dies_tearing(id, unit) {
            return;
        }
        let result = if at.is_write() { self.land_write(id, unit) } else { self.land_read(id, unit) };
        let op = self.disk.ops.get_mut(&id).expect("it is there");
        op.units[unit].state = UnitState::Ended;
        if let Err(error) = result {
            op.failed = Some(error);
        }
        let first_slot = matches!(op.what, What::Superblock { .. }) && op.units.len() == 1;
        let in_turn = self.config.driver_weak(DriverWeakness::SlotsInTurn);
        if first_slot && op.failed.is_none() && !in_turn && self.nodes[node.index()].life == Some(life) {
            self.hand(Host::Node(node), life, Inbound::SecondSlot(id));
        } else if op.units.iter().all(|u| u.state == UnitState::Ended) {
            self.op_ended(id);
        }
        if at.is_write() {
            self.poll_fence();
        }
    }

    fn land_write(&mut self, id: OpId, unit: usize) -> Result<(), DiskError> {
        let op = &self.disk.ops[&id];
        let (node, life, at) = (op.node, op.life, op.units[unit]);
        if !self.disk.is_reached_by(node) {
            return Err(DiskError::Failed);
        }
        if at.state == UnitState::Aborted || (at.state != UnitState::Unstoppable && !self.may_write(node, life)) {
            self.fired(Firing::WriteRefused);
            return Err(DiskError::Conflict);
        }
        if self.disk.refusing[node.index()] || std::mem::take(&mut self.disk.false_conflict[node.index()]) {
            trace!(self, Host::Node(node), "a conflict though the key is there");
            return Err(DiskError::Conflict);
        }
        let landing = self.landing(node, at.part);
        if landing == Landing::Fails {
            return Err(DiskError::Failed);
        }
        match (at.part, &self.disk.ops[&id].what) {
            (Part::Block { lba, seq, source }, _) => self.block_lands(node, life, lba, seq, source),
            (Part::Slot(slot), What::Superblock { superblock }) => {
                let superblock = *superblock;
                self.slot_lands(node, life, slot, superblock);
            }
            (Part::Beat, What::Beat { beat }) => self.disk.beats[node.index()] = *beat,
            _ => unreachable!("a write of another kind"),
        }
        if landing == Landing::LandsAndFails { Err(DiskError::Failed) } else { Ok(()) }
    }

    fn block_lands(&mut self, node: NodeId, life: LifeIndex, lba: u64, seq: u64, source: BlockSource) {
        let memory = &self.lives[life];
        let version = match source {
            BlockSource::Ring(cell) => {
                let cell = memory.ring[usize::try_from(cell).expect("a small ring")];
                lane_space_is_not_reused_early::check(self, Host::Node(node), "a disk write", lba, seq, cell);
                cell.version
            }
            BlockSource::Zeros(slot) => match memory.slots[slot] {
                Some(blob) if blob.seq.0 == seq => Version::of(&blob),
                other => {
                    let is = other.map_or(Version::NEVER, |b| Version::of(&b));
                    lane_space_is_not_reused_early::broken(self, Host::Node(node), "a disk write", lba, seq, is);
                    return;
                }
            },
        };
        trace!(self, Host::Node(node), "disk: block {lba} = {version}");
        trace_block!(self, lba, "the disk holds {version}, by {node}");
        self.block_written(node, life, lba, version);
    }

    fn land_read(&mut self, id: OpId, unit: usize) -> Result<(), DiskError> {
        let node = self.disk.ops[&id].node;
        if !self.disk.is_reached_by(node) {
            return Err(DiskError::Failed);
        }
        self.read_outcome(node)?;
        let Disk { ops, slots, blocks, .. } = &mut *self.disk;
        let op = ops.get_mut(&id).expect("it is there");
        match (op.units[unit].part, &mut op.what) {
            (Part::ReadSlot(slot), What::ReadSuperblock { seen }) => seen[slot] = slots[slot],
            (Part::ReadBlock { lba, index }, What::Read { cells, .. }) => {
                let version = blocks[usize::try_from(lba).expect("a small volume")];
                cells[index] = Cell { version, lba };
            }
            (Part::ReadBeat, _) => {}
            _ => unreachable!("a read of another kind"),
        }
        Ok(())
    }

    /// All parts have ended: the driver hears of it.
    fn op_ended(&mut self, id: OpId) {
        let op = self.disk.ops.remove(&id).expect("it is there").into_inner();
        let host = Host::Node(op.node);
        let result = op.failed.map_or(Ok(()), Err);
        let event = match op.what {
            What::Flush { batch } => replica::Event::Flushed { batch, result, us: self.now_us - op.since_us },
            What::Superblock { superblock } => {
                if result.is_ok() {
                    self.superblock_settled(op.life, superblock);
                }
                replica::Event::SuperblockWritten(result)
            }
            What::Beat { .. } => replica::Event::HeartbeatWritten(result),
            What::ReadBeat => {
                let beat = self.disk.beats[op.node.other().index()];
                replica::Event::HeartbeatRead(result.map(|()| beat))
            }
            What::ReadSuperblock { seen } => replica::Event::SuperblockRead(
                result.and_then(|()| slots_say(seen, self.config.driver_weak(DriverWeakness::SlotsInTurn))),
            ),
            What::Read { token, cells } => {
                if result.is_ok() && self.nodes[op.node.index()].life == Some(op.life) {
                    self.nodes[op.node.index()].buffers.insert(token, cells);
                }
                replica::Event::DiskRead { token, result }
            }
        };
        let delay = self.rng.below(200);
        self.hand_after(delay, host, op.life, Inbound::Replica(event));
    }

    /// A process has died: of its writes, some never left the host and some land late.
    pub(crate) fn orphan_writes(&mut self, life: LifeIndex) {
        let ids: Vec<OpId> = self.disk.ops.iter().filter(|(_, op)| op.life == life).map(|(&id, _)| id).collect();
        for id in ids {
            for unit in 0..self.disk.ops[&id].units.len() {
                let at = self.disk.ops[&id].units[unit];
                if at.state == UnitState::Ended {
                    continue;
                }
                // A script decides by itself what lands.
                if !at.is_write() || (self.config.writes > 0 && self.rng.chance(400)) {
                    if let (Part::Slot(slot), true) = (at.part, self.rng.chance(100)) {
                        self.tear(slot);
                    }
                    self.disk.ops.get_mut(&id).expect("it is there").units[unit].state = UnitState::Ended;
                } else {
                    let late = self.rng.between(1_000, 600_000);
                    self.after(late, Ev::Disk { op: id, unit });
                }
            }
            if self.disk.ops[&id].units.iter().all(|u| u.state == UnitState::Ended) {
                self.disk.ops.remove(&id);
            }
        }
        self.poll_fence();
    }

    /// A slot's write was broken off in the middle; never the only good one.
    fn tear(&mut self, slot: usize) {
        if self.disk.slots[1 - slot].is_some() && self.config.fence == FenceKind::Pr {
            trace!(self, "disk", "slot {slot} is torn");
            self.disk.slots[slot] = None;
        }
    }

    /// A slot rots, where that is a single failure.
    pub(crate) fn rot(&mut self, slot: usize) -> bool {
        if !self.may_rot() {
            return false;
        }
        trace!(self, "disk", "=== slot {slot} rots");
        self.disk.slots[slot] = None;
        true
    }

    pub(crate) fn may_rot(&self) -> bool {
        let writing = self.disk.ops.values().any(|op| matches!(op.what, What::Superblock { .. }));
        // Written in turn (the weakness), the two never say the same.
        let whole = self.disk.settled().is_some()
            || (self.config.driver_weak(DriverWeakness::SlotsInTurn) && !self.disk.slots.contains(&None));
        whole && !writing
    }

    /// After a script has let go: everything that is held lands.
    pub(crate) fn land_all_due(&mut self) {
        let pending: Vec<(OpId, usize)> =
            self.disk.ops.iter().flat_map(|(&id, op)| (0..op.units.len()).map(move |unit| (id, unit))).collect();
        for (op, unit) in pending {
            let delay = self.rng.between(1, 50);
            self.after(delay, Ev::Disk { op, unit });
        }
    }

    /// Whether this life's process is there to be told.
    pub(crate) fn is_running(&self, node: NodeId, life: LifeIndex) -> bool {
        let n = &self.nodes[node.index()];
        n.life == Some(life) && n.process != Process::Down
    }
}

/// What the two slots say together; with slots written in turn, the higher one alone.
fn slots_say(seen: [Option<Superblock>; 2], in_turn: bool) -> Result<SlotRead, DiskError> {
    let superblock = seen.into_iter().flatten().max_by_key(|s| s.counter).ok_or(DiskError::Corrupt)?;
    let settled = in_turn || seen[0] == seen[1];
    let older = seen.into_iter().flatten().min_by_key(|s| s.counter).filter(|older| !settled && *older != superblock);
    Ok(SlotRead { superblock, settled, older })
}
