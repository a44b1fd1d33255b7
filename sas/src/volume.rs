//! The disk queue in the protocol's words: blocks, the superblock, heartbeats.
//!
//! What the flusher thread carries out, one [`VolumeOp`] per disk action of the machine, and gets back, one
//! [`VolumeDone`] for each. Any number may be under way at once; of superblock changes, one.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use twinsan_arena::Arena;
use twinsan_wire::{Incarnation, Lba, NodeId, Superblock};

use crate::disk::{
    Completion, DiskError, DiskOp, DiskQueue, Done, OpenError, QueueOptions, ReadRange, SharedReader, Source, Waker,
    WriteRange,
};
use crate::fence::{Fence, FenceError};
use crate::layout;
use crate::page::Page;
use crate::superblock::slots::Expected;
use crate::superblock::{
    Heartbeat, HeartbeatError, ProcessStamp, SlotError, SlotPair, SuperblockError, VolumeIdentity,
};

/// One contiguous write, in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockWrite {
    /// First block.
    pub lba: Lba,
    /// Number of blocks, not 0.
    pub blocks: u64,
    /// With what.
    pub source: Source,
}

/// One contiguous read, in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRead {
    /// First block.
    pub lba: Lba,
    /// Number of blocks, not 0.
    pub blocks: u64,
    /// Into which arena, by its index.
    pub arena: usize,
    /// Byte in it.
    pub offset: usize,
}

/// One thing to do with the volume.
#[derive(Clone, Debug)]
pub enum VolumeOp {
    /// Read both slots.
    ReadSuperblock,
    /// Write both slots, the older first, each past the disk's cache; that also mends what differs.
    WriteSuperblock(Superblock),
    /// Write the own heartbeat block.
    WriteHeartbeat {
        /// Which life this is.
        incarnation: Incarnation,
        /// The counter.
        beat: u64,
    },
    /// Read the other node's heartbeat block.
    ReadHeartbeat,
    /// Write these ranges, sorted by block and not overlapping, then the disk's cache.
    Write(Vec<BlockWrite>),
    /// Read these ranges.
    Read(Vec<BlockRead>),
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeDone {
    /// What the slots say.
    Superblock(SlotsRead),
    /// Both slots say this, past the disk's cache; its counter is the one on the disk, which may be higher than asked
    /// for, see [`SlotPair::plan`].
    SuperblockWritten(Superblock),
    /// The beat can be seen.
    HeartbeatWritten,
    /// The other node's block; `None`: it has never beaten.
    Heartbeat(Option<Heartbeat>),
    /// All ranges are on the disk, past its cache.
    Written,
    /// All ranges are in the arenas.
    Read,
}

/// What the two slots say, but for the volume's identity, which [`VolumeDisk::identity`] has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotsRead {
    /// The valid slot with the highest counter.
    pub superblock: Superblock,
    /// When that was written, by its writer's clock: seconds since 1970.
    pub changed_at: u64,
    /// The other slot says the same; else it is to be mended, under the fence, by writing the superblock again.
    pub settled: bool,
    /// What the other slot says, where it is valid and says something older.
    pub older: Option<Superblock>,
    /// Why the other slot is not valid; `None` if it is.
    pub other_error: Option<SlotError>,
}

impl From<SlotPair> for SlotsRead {
    fn from(pair: SlotPair) -> Self {
        let SlotPair { best, settled, older, other_error, .. } = pair;
        let older = older.map(|slot| slot.superblock);
        Self { superblock: best.superblock, changed_at: best.changed_at, settled, older, other_error }
    }
}

/// How an operation has ended: every write of it has, whatever the outcome.
#[derive(Clone, Debug)]
pub struct VolumeCompletion {
    /// As given to [`VolumeDisk::start`].
    pub token: u64,
    /// The outcome.
    pub result: Result<VolumeDone, DiskError>,
}

/// What an operation under way waits for.
enum Step {
    Slots,
    SlotsBeforeWrite(Superblock),
    SlotsWritten(Superblock),
    HeartbeatWritten,
    Heartbeat,
    Data,
}

/// See the module's text.
pub struct VolumeDisk {
    queue: DiskQueue,
    identity: VolumeIdentity,
    node: NodeId,
    process: ProcessStamp,
    steps: Vec<(u64, Step)>,
    completions: Vec<Completion>,
}

impl VolumeDisk {
    /// The volume of `identity`, as [`SharedReader::read_slots`] has found it on `reader`'s disk, for `node`. It stays
    /// on the thread that makes it.
    ///
    /// # Errors
    /// The kernel has no usable `io_uring`, /proc is missing, or the disk's block is larger than the volume's.
    pub fn new(
        reader: SharedReader,
        identity: VolumeIdentity,
        node: NodeId,
        arenas: Vec<Arc<Arena>>,
        waker: Waker,
        options: &QueueOptions,
    ) -> Result<Self, OpenError> {
        let path = reader.path().to_owned();
        reader.geometry().check_block(&path, identity.block_bytes)?;
        let process = ProcessStamp::current().map_err(|source| OpenError::Io { path, what: "/proc", source })?;
        let queue = DiskQueue::new(reader, identity.data_offset..identity.end(), arenas, waker, options)?;
        Ok(Self { queue, identity, node, process, steps: Vec::new(), completions: Vec::new() })
    }

    /// What never changes of the volume.
    #[must_use]
    pub const fn identity(&self) -> &VolumeIdentity {
        &self.identity
    }

    /// The queue below.
    #[must_use]
    pub const fn queue(&self) -> &DiskQueue {
        &self.queue
    }

    /// Fences ([`Fence::fence`]) and can write from now on. Where the claim is held already and stands, that is all
    /// that is asked for.
    ///
    /// # Errors
    /// The fence's.
    pub fn fence(&mut self, fence: &mut dyn Fence, incarnation: Incarnation) -> Result<(), FenceError> {
        if self.queue.claim().is_some() {
            if fence.check(self.queue.claim())? {
                return Ok(());
            }
            self.release(fence);
        }
        let claim = fence.fence(incarnation)?;
        Ok(self.queue.adopt(claim)?)
    }

    /// Rule 13, the old primary ([`Fence::yield_claim`]): from now on this host only reads.
    ///
    /// # Panics
    /// While writes are under way.
    pub fn yield_claim(&mut self, fence: &mut dyn Fence) {
        if let Some(claim) = self.queue.surrender() {
            fence.yield_claim(claim);
        }
    }

    /// Rule 13, the new primary ([`Fence::accept`]): can write from now on. Where the claim is held already and stands,
    /// that is all that is asked for.
    ///
    /// # Errors
    /// The fence's.
    pub fn accept(&mut self, fence: &mut dyn Fence, incarnation: Incarnation) -> Result<(), FenceError> {
        if self.queue.claim().is_some() {
            if fence.check(self.queue.claim())? {
                return Ok(());
            }
            self.release(fence);
        }
        let claim = fence.accept(incarnation)?;
        Ok(self.queue.adopt(claim)?)
    }

    /// Lets the claim go ([`Fence::release`]).
    ///
    /// # Panics
    /// While writes are under way.
    pub fn release(&mut self, fence: &mut dyn Fence) {
        fence.release(self.queue.surrender());
    }

    /// Rule 8 ([`Fence::admit`]); who asks to be let in does not write, so a claim that it still has is let go first.
    ///
    /// # Errors
    /// The fence's.
    ///
    /// # Panics
    /// While writes are under way.
    pub fn admit(&mut self, fence: &mut dyn Fence) -> Result<(), FenceError> {
        if self.queue.claim().is_some() {
            self.release(fence);
        }
        fence.admit()
    }

    /// Whether the registration stands ([`Fence::check`]).
    ///
    /// # Errors
    /// The fence's: nobody can tell.
    pub fn check(&self, fence: &mut dyn Fence) -> Result<bool, FenceError> {
        fence.check(self.queue.claim())
    }

    /// Operations that have not completed.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.steps.len()
    }

    /// Starts an operation; [`VolumeDisk::wait`] brings its completion, with `token`, which no other operation under
    /// way may have.
    ///
    /// # Panics
    /// On a range outside the volume, unsorted or overlapping ranges of a batch, a second superblock change under way.
    pub fn start(&mut self, op: VolumeOp, token: u64) {
        assert!(self.steps.iter().all(|(other, _)| *other != token), "token {token} is in use");
        let slots = || DiskOp::ReadPages(layout::SLOT_OFFSETS.to_vec());
        let (step, op) = match op {
            VolumeOp::ReadSuperblock => (Step::Slots, slots()),
            VolumeOp::WriteSuperblock(superblock) => {
                let busy = |step: &Step| matches!(step, Step::SlotsBeforeWrite(_) | Step::SlotsWritten(_));
                assert!(!self.steps.iter().any(|(_, step)| busy(step)), "two superblock changes at once (rule 4)");
                (Step::SlotsBeforeWrite(superblock), slots())
            }
            VolumeOp::WriteHeartbeat { incarnation, beat } => {
                (Step::HeartbeatWritten, self.heartbeat(incarnation, beat))
            }
            VolumeOp::ReadHeartbeat => {
                (Step::Heartbeat, DiskOp::ReadPages(vec![layout::heartbeat_offset(self.node.other())]))
            }
            VolumeOp::Write(writes) => {
                (Step::Data, DiskOp::Write(writes.iter().map(|write| self.write_range(write)).collect()))
            }
            VolumeOp::Read(reads) => {
                (Step::Data, DiskOp::Read(reads.iter().map(|read| self.read_range(read)).collect()))
            }
        };
        self.steps.push((token, step));
        self.queue.start(op, token);
    }

    /// Waits for a completion, a wake or the timeout (`None`: for ever), and adds what has completed to `out`. It may
    /// come back with nothing.
    ///
    /// # Errors
    /// `io_uring` itself fails: this process can do nothing more on this disk.
    pub fn wait(&mut self, timeout: Option<Duration>, out: &mut Vec<VolumeCompletion>) -> io::Result<()> {
        let mut completions = core::mem::take(&mut self.completions);
        self.queue.wait(timeout, &mut completions)?;
        for Completion { token, result } in completions.drain(..) {
            let at = self.steps.iter().position(|(other, _)| *other == token).expect("a completion for no operation");
            let (_, step) = self.steps.swap_remove(at);
            match result.and_then(|done| self.go_on(token, step, done)) {
                Ok(Some(done)) => out.push(VolumeCompletion { token, result: Ok(done) }),
                Ok(None) => {}
                Err(error) => out.push(VolumeCompletion { token, result: Err(error) }),
            }
        }
        self.completions = completions;
        Ok(())
    }

    /// The step has ended well: what has come of it, or `None` if the operation goes on.
    fn go_on(&mut self, token: u64, step: Step, done: Done) -> Result<Option<VolumeDone>, DiskError> {
        Ok(Some(match (step, done) {
            (Step::Slots, Done::Pages(pages)) => VolumeDone::Superblock(self.judge(pages)?.into()),
            (Step::SlotsBeforeWrite(superblock), Done::Pages(pages)) => {
                let plan = self.judge(pages)?.plan(&superblock, crate::now_unix())?;
                self.steps.push((token, Step::SlotsWritten(plan.slot.superblock)));
                self.queue.start(DiskOp::WritePages(plan.steps().into()), token);
                return Ok(None);
            }
            (Step::SlotsWritten(superblock), Done::PagesWritten) => VolumeDone::SuperblockWritten(superblock),
            (Step::HeartbeatWritten, Done::PagesWritten) => VolumeDone::HeartbeatWritten,
            (Step::Heartbeat, Done::Pages(pages)) => {
                let node = self.node.other();
                let page = pages.first().ok_or(HeartbeatError::Torn { node })?;
                VolumeDone::Heartbeat(Heartbeat::decode(page, node, self.identity.uuid)?)
            }
            (Step::Data, Done::Written) => VolumeDone::Written,
            (Step::Data, Done::Read) => VolumeDone::Read,
            (_, done) => unreachable!("the queue answers with another operation's {done:?}"),
        }))
    }

    fn judge(&self, pages: Vec<Page>) -> Result<SlotPair, SuperblockError> {
        let pages: [Page; 2] = pages.try_into().expect("two were asked for");
        let expected = Expected { name: Some(self.identity.name), uuid: Some(self.identity.uuid) };
        SlotPair::judge(&pages, &expected)
    }

    fn heartbeat(&self, incarnation: Incarnation, beat: u64) -> DiskOp {
        let (volume, node, process) = (self.identity.uuid, self.node, self.process);
        // Written through the claim, so who writes it holds it.
        let beat = Heartbeat { volume, node, incarnation, beat, process, holder: true };
        DiskOp::WritePageLazily(layout::heartbeat_offset(node), Box::new(beat.encode()))
    }

    fn write_range(&self, write: &BlockWrite) -> WriteRange {
        let (offset, len) = self.bytes(write.lba, write.blocks);
        WriteRange { offset, len, source: write.source }
    }

    fn read_range(&self, read: &BlockRead) -> ReadRange {
        let (offset, len) = self.bytes(read.lba, read.blocks);
        ReadRange { offset, len, arena: read.arena, arena_offset: read.offset }
    }

    fn bytes(&self, lba: Lba, blocks: u64) -> (u64, u64) {
        let end = lba.0.checked_add(blocks).expect("a range past 2^64 blocks");
        assert!(
            blocks > 0 && end <= self.identity.blocks,
            "{blocks} blocks from {lba} of a volume of {}",
            self.identity.blocks
        );
        (layout::data_byte(lba, self.identity.block_bytes), blocks * u64::from(self.identity.block_bytes))
    }
}

#[cfg(test)]
mod tests;
