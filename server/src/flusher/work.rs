//! The flusher thread's loop.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, TryRecvError};
use twinsan_replica::{DiskError, Event, FenceError, Piece, ReadToken, SlotRead, Source, WriteRange};
use twinsan_sas::disk::{self, DeviceKind, WriteCache};
use twinsan_sas::fence::{self, Fence};
use twinsan_sas::volume::{BlockRead, BlockWrite, VolumeCompletion, VolumeDisk, VolumeDone, VolumeOp};
use twinsan_wire::Incarnation;

use super::health::Kind;
use super::{Done, Health, Job, Opened, lock};
use crate::doorbell::Doorbell;
use crate::layout::{Layout, index};

/// The volume's arena is the only one that its disk queue knows.
const ARENA: usize = 0;

/// What an operation under way answers.
#[derive(Clone, Copy, Debug)]
enum Pending {
    ReadSuperblock,
    WriteSuperblock,
    WriteHeartbeat,
    ReadHeartbeat,
    Flush { batch: u64, since: Instant },
    Read { token: ReadToken },
}

/// The thread.
pub(super) struct Worker {
    disk: VolumeDisk,
    fence: Box<dyn Fence>,
    layout: Layout,
    block_bytes: u32,
    incarnation: Option<Incarnation>,
    pending: BTreeMap<u64, Pending>,
    next_token: u64,
    completions: Vec<VolumeCompletion>,
    done: Sender<Done>,
    bell: Doorbell,
    health: Arc<Mutex<Health>>,
    paths_wait: Arc<AtomicBool>,
}

impl Worker {
    pub(super) fn new(
        opened: Opened,
        done: Sender<Done>,
        bell: Doorbell,
        health: Arc<Mutex<Health>>,
        paths_wait: Arc<AtomicBool>,
    ) -> Self {
        let Opened { disk, fence, layout, block_bytes } = opened;
        Self {
            disk,
            fence,
            layout,
            block_bytes,
            incarnation: None,
            pending: BTreeMap::new(),
            next_token: 0,
            completions: Vec::new(),
            done,
            bell,
            health,
            paths_wait,
        }
    }

    /// Until the reactor is gone.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            loop {
                match jobs.try_recv() {
                    Ok(job) => self.begin(job),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            self.wait();
        }
    }

    /// Waits until something has ended or come, and answers what has ended.
    fn wait(&mut self) {
        let mut completions = std::mem::take(&mut self.completions);
        let mut answered = false;
        // Crash-only: without its queue this process can do nothing more on this disk, and the other node can.
        self.disk.wait(None, &mut completions).expect("io_uring works");
        for VolumeCompletion { token, result } in completions.drain(..) {
            let pending = self.pending.remove(&token).expect("a completion for no operation");
            let event = self.outcome(pending, result);
            self.answer(event);
            answered = true;
        }
        self.completions = completions;
        // Once for all of them: the bell costs a system call on both sides.
        if answered {
            self.bell.ring();
        }
    }

    fn answer(&self, event: Event) {
        // Nobody listens any more: the reactor is gone, and the process is about to be.
        let _ = self.done.send(Done(event));
    }

    fn begin(&mut self, job: Job) {
        let (op, pending) = match job {
            Job::ReadSuperblock => (VolumeOp::ReadSuperblock, Pending::ReadSuperblock),
            Job::WriteSuperblock(superblock) => (VolumeOp::WriteSuperblock(superblock), Pending::WriteSuperblock),
            Job::WriteHeartbeat { beat } => {
                (VolumeOp::WriteHeartbeat { incarnation: self.own_incarnation(), beat }, Pending::WriteHeartbeat)
            }
            Job::ReadHeartbeat => (VolumeOp::ReadHeartbeat, Pending::ReadHeartbeat),
            Job::Flush { batch, writes } => {
                let writes = writes.iter().map(|write| self.block_write(write)).collect();
                (VolumeOp::Write(writes), Pending::Flush { batch, since: Instant::now() })
            }
            Job::Read { token, offset, pieces } => {
                (VolumeOp::Read(self.block_reads(offset, &pieces)), Pending::Read { token })
            }
            Job::Admit
            | Job::Fence
            | Job::ReleaseFence
            | Job::CheckFence
            | Job::YieldFence
            | Job::AcceptFence
            | Job::PathsChanged => return self.fence_job(&job),
            Job::Incarnation(incarnation) => {
                self.incarnation = Some(incarnation);
                return;
            }
        };
        self.next_token += 1;
        self.pending.insert(self.next_token, pending);
        self.disk.start(op, self.next_token);
    }

    fn own_incarnation(&self) -> Incarnation {
        self.incarnation.expect("a machine has an incarnation before it beats or fences")
    }

    fn block_write(&self, write: &WriteRange) -> BlockWrite {
        let source = match write.source {
            Source::Staged { data_pos } => {
                disk::Source::Arena { arena: ARENA, offset: index(self.layout.staged(data_pos)) }
            }
            Source::Zeros(kind) => disk::Source::Zeros(kind),
        };
        BlockWrite { lba: write.lba, blocks: write.blocks, source }
    }

    /// The pieces one after the other, as the answer expects them.
    fn block_reads(&self, offset: u64, pieces: &[Piece]) -> Vec<BlockRead> {
        let mut next = offset;
        let read = |piece: &Piece| {
            let read = BlockRead { lba: piece.lba, blocks: u64::from(piece.blocks), arena: ARENA, offset: index(next) };
            next += u64::from(piece.blocks) * u64::from(self.block_bytes);
            read
        };
        pieces.iter().map(read).collect()
    }

    /// Jobs of the fence are done by themselves, when nothing is under way.
    fn fence_job(&mut self, job: &Job) {
        while self.disk.pending() > 0 {
            self.wait();
        }
        let event = match job {
            Job::Admit => {
                let result = self.disk.admit(self.fence.as_mut());
                Event::Admitted(self.fence_outcome(result))
            }
            Job::Fence => {
                let incarnation = self.own_incarnation();
                let result = self.disk.fence(self.fence.as_mut(), incarnation);
                Event::FenceHeld(self.fence_outcome(result))
            }
            Job::AcceptFence => {
                let incarnation = self.own_incarnation();
                let result = self.disk.accept(self.fence.as_mut(), incarnation);
                Event::FenceAccepted(self.fence_outcome(result))
            }
            Job::YieldFence => {
                self.disk.yield_claim(self.fence.as_mut());
                Event::FenceYielded
            }
            Job::ReleaseFence => {
                self.disk.release(self.fence.as_mut());
                Event::FenceReleased
            }
            Job::CheckFence => {
                let result = self.disk.check(self.fence.as_mut());
                // Nobody can tell: then nobody has told that it is gone, and what is written will.
                Event::FenceChecked { own: self.still_in(result) }
            }
            Job::PathsChanged => {
                // From here on a path may come that this look does not see.
                self.paths_wait.store(false, Ordering::Release);
                let result = self.fence.paths_changed();
                if self.still_in(result) {
                    return;
                }
                Event::FenceChecked { own: false }
            }
            _ => unreachable!("only the fence's jobs come here"),
        };
        match event {
            Event::FenceHeld(Ok(())) | Event::FenceAccepted(Ok(())) => lock(&self.health).writes(true),
            Event::FenceReleased | Event::FenceYielded | Event::Admitted(_) | Event::FenceChecked { own: false } => {
                lock(&self.health).writes(false);
            }
            _ => {}
        }
        self.answer(event);
        self.bell.ring();
    }

    fn still_in(&self, result: Result<bool, fence::FenceError>) -> bool {
        let mut health = lock(&self.health);
        match result {
            Ok(own) => {
                health.worked(Kind::Fence);
                own
            }
            Err(error) => {
                health.failed(Kind::Fence, &error);
                true
            }
        }
    }

    fn fence_outcome(&self, result: Result<(), fence::FenceError>) -> Result<(), FenceError> {
        let mut health = lock(&self.health);
        match result {
            Ok(()) => {
                health.worked(Kind::Fence);
                Ok(())
            }
            Err(error) => {
                health.failed(Kind::Fence, &error);
                Err(if error.is_lost() { FenceError::Lost } else { FenceError::Failed })
            }
        }
    }

    fn outcome(&self, pending: Pending, result: Result<VolumeDone, disk::DiskError>) -> Event {
        match pending {
            Pending::ReadSuperblock => Event::SuperblockRead(self.judged(Kind::SuperblockRead, result).map(|done| {
                let VolumeDone::Superblock(read) = done else { unreachable!("{done:?} for a superblock") };
                lock(&self.health).changed_at = Some(read.changed_at);
                SlotRead { superblock: read.superblock, settled: read.settled, older: read.older }
            })),
            Pending::WriteSuperblock => Event::SuperblockWritten(self.judged(Kind::SuperblockWrite, result).map(drop)),
            Pending::WriteHeartbeat => Event::HeartbeatWritten(self.judged(Kind::HeartbeatWrite, result).map(drop)),
            Pending::ReadHeartbeat => Event::HeartbeatRead(self.heartbeat(result)),
            Pending::Flush { batch, since } => {
                let us = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
                Event::Flushed { batch, result: self.judged(Kind::Write, result).map(drop), us }
            }
            Pending::Read { token } => Event::DiskRead { token, result: self.judged(Kind::Read, result).map(drop) },
        }
    }

    fn heartbeat(&self, result: Result<VolumeDone, disk::DiskError>) -> Result<u64, DiskError> {
        // Read while it was being written: the next look will tell, and nobody need hear of it.
        if let Err(disk::DiskError::Heartbeat(error)) = &result {
            tracing::debug!(%error, "the other node's heartbeat block tells nothing");
            return Err(DiskError::Failed);
        }
        let done = self.judged(Kind::HeartbeatRead, result)?;
        let VolumeDone::Heartbeat(heartbeat) = done else { unreachable!("{done:?} for a heartbeat") };
        Ok(heartbeat.map_or(0, |heartbeat| heartbeat.beat))
    }

    /// Keeps the health, and says it in the machine's words.
    fn judged(&self, kind: Kind, result: Result<VolumeDone, disk::DiskError>) -> Result<VolumeDone, DiskError> {
        let mut health = lock(&self.health);
        match result {
            Ok(done) => {
                health.worked(kind);
                Ok(done)
            }
            Err(error) => {
                health.failed(kind, &error);
                Err(if error.is_conflict() {
                    DiskError::Conflict
                } else if error.is_corrupt() {
                    DiskError::Corrupt
                } else {
                    DiskError::Failed
                })
            }
        }
    }
}

/// How the disk is written, for people.
pub(super) fn disk_facts(disk: &VolumeDisk) -> Vec<String> {
    let queue = disk.queue();
    let geometry = queue.geometry();
    let kind = match geometry.kind {
        DeviceKind::Block => "block device",
        DeviceKind::File => "file",
    };
    let cache = match geometry.cache {
        WriteCache::Through => "no volatile cache",
        WriteCache::Back if geometry.fua => "volatile cache, FUA",
        WriteCache::Back => "volatile cache, flushed after each batch",
        WriteCache::Unknown => "the filesystem's cache rules",
    };
    let buffers = if queue.is_registered() { "registered buffers" } else { "unregistered buffers" };
    let blocks = format!("blocks of {} / {} bytes (logical / physical)", geometry.logical, geometry.physical);
    vec![kind.to_owned(), "direct I/O".to_owned(), blocks, cache.to_owned(), buffers.to_owned()]
}
