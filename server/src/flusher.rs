//! The flusher: the one thread that does a volume's disk I/O, so that the reactor never waits for a disk.
//!
//! ```text
//!  reactor ──Job──▶ channel ──▶ flusher ──▶ io_uring
//!     ▲                            │
//!     └──doorbell── Done ◀─────────┘
//! ```
//!
//! Jobs of the disk overlap each other; the machine waits for answers wherever order matters. Jobs of the fence are
//! done by themselves: what is under way is awaited first, so a claim is never let go, or taken anew, under a write.

mod health;
mod work;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use anyhow::Context;
use crossbeam_channel::{Receiver, Sender, bounded};
use twinsan_arena::Arena;
use twinsan_replica::{Event, Piece, ReadToken, WriteRange};
use twinsan_sas::disk::{QueueOptions, Waker};
use twinsan_sas::fence::{Fence, LocalLock, LocalLockTiming, ScsiPr};
use twinsan_sas::multipath::{Registrations, ScsiDisk};
use twinsan_sas::volume::VolumeDisk;
use twinsan_sas::{SharedReader, VolumeIdentity};
use twinsan_wire::{Incarnation, NodeId, Superblock};

use crate::doorbell::Doorbell;
use crate::layout::Layout;
use crate::limits::FLUSHER_QUEUE;

pub(crate) use health::Health;

/// One thing for the flusher to do; each but the last and [`Job::PathsChanged`] is answered by one [`Done`].
#[derive(Debug)]
pub(crate) enum Job {
    /// Read both slots.
    ReadSuperblock,
    /// Write both slots.
    WriteSuperblock(Superblock),
    /// Write the own heartbeat block.
    WriteHeartbeat {
        /// The counter.
        beat: u64,
    },
    /// Read the other node's.
    ReadHeartbeat,
    /// Rule 8.
    Admit,
    /// Rules 5 and 6.
    Fence,
    /// Let the claim go.
    ReleaseFence,
    /// Look whether it stands.
    CheckFence,
    /// Rule 13: write no more.
    YieldFence,
    /// Rule 13: be able to write, as nobody else does any more.
    AcceptFence,
    /// A path of the disk is there and not registered. Answered only if the own registration is gone.
    PathsChanged,
    /// Write a batch, then the disk's cache.
    Flush {
        /// Its number.
        batch: u64,
        /// What goes where.
        writes: Vec<WriteRange>,
    },
    /// Read a read's disk pieces.
    Read {
        /// The read.
        token: ReadToken,
        /// Into the arena from here on, one after the other.
        offset: u64,
        /// Which.
        pieces: Vec<Piece>,
    },
    /// From now on heartbeats and the fence name this one.
    Incarnation(Incarnation),
}

/// A job's answer, ready for the machine.
#[derive(Debug)]
pub(crate) struct Done(pub(crate) Event);

/// What the thread is made of.
pub(crate) struct Parts {
    /// The volume's name, for the log.
    pub(crate) name: String,
    /// This node.
    pub(crate) node: NodeId,
    /// The disk, as it was found at the start.
    pub(crate) reader: SharedReader,
    /// What stands on it.
    pub(crate) identity: VolumeIdentity,
    /// The volume's memory.
    pub(crate) arena: Arc<Arena>,
    /// Where what lies in it.
    pub(crate) layout: Layout,
    /// What keeps the other node's writes away.
    pub(crate) fence: FenceParts,
}

/// A fence, before it is made on the flusher's thread.
pub(crate) enum FenceParts {
    /// Both nodes on this host.
    LocalLock,
    /// Reservations on the LUN behind this disk.
    ScsiPr {
        /// The disk.
        disk: ScsiDisk,
        /// Shows which paths are registered.
        registrations: Registrations,
    },
}

/// For whoever watches the disk: a way to tell the flusher of paths from another thread.
#[derive(Debug)]
pub(crate) struct Errands {
    jobs: Sender<Job>,
    waker: Waker,
    waiting: Arc<AtomicBool>,
}

impl Errands {
    /// A path is there and not registered. Told again and again; one such job waits at a time, so that a flusher that
    /// hangs in the kernel for minutes finds room in its queue for what the machine wants.
    pub(crate) fn paths_changed(&self) {
        if self.waiting.swap(true, Ordering::AcqRel) {
            return;
        }
        if self.jobs.try_send(Job::PathsChanged).is_ok() {
            self.waker.wake();
        } else {
            self.waiting.store(false, Ordering::Release);
        }
    }
}

/// The reactor's end.
#[derive(Debug)]
pub(crate) struct Flusher {
    jobs: Sender<Job>,
    waker: Waker,
    health: Arc<Mutex<Health>>,
    /// A [`Job::PathsChanged`] waits in the queue.
    paths_wait: Arc<AtomicBool>,
}

impl Flusher {
    /// Starts the thread; returns when it has its queue. Also returned: where its answers come, each announced by
    /// `bell`, and what is known of how the disk is written.
    ///
    /// # Errors
    /// If there is no `io_uring`, or the fence can't be set up.
    pub(crate) fn start(parts: Parts, bell: Doorbell) -> anyhow::Result<(Self, Receiver<Done>, Vec<String>)> {
        let (jobs, jobs_end) = bounded(FLUSHER_QUEUE);
        let (done_end, done) = bounded(FLUSHER_QUEUE);
        let (started, outcome) = bounded(1);
        let waker = Waker::new().context("an eventfd for the flusher")?;
        let health = Arc::new(Mutex::new(Health::new(parts.name.clone())));
        let paths_wait = Arc::new(AtomicBool::new(false));
        let (its_waker, its_health, its_paths) = (waker.clone(), Arc::clone(&health), Arc::clone(&paths_wait));
        // The queue stays on the thread that makes it.
        thread::Builder::new().name(format!("flush {}", parts.name)).spawn(move || match open(parts, its_waker) {
            Ok(opened) => {
                let facts = work::disk_facts(&opened.disk);
                let _ = started.send(Ok(facts));
                work::Worker::new(opened, done_end, bell, its_health, its_paths).run(&jobs_end);
            }
            Err(error) => drop(started.send(Err(error))),
        })?;
        let facts = outcome.recv().context("the flusher thread ended as it began")??;
        Ok((Self { jobs, waker, health, paths_wait }, done, facts))
    }

    /// Gives it a job. Never waits.
    ///
    /// # Panics
    /// If the queue is full: the machine issues far fewer at once, so something is broken.
    pub(crate) fn give(&self, job: Job) {
        self.jobs.try_send(job).expect("the flusher lives, and its queue has room for all that a machine may want");
        self.waker.wake();
    }

    /// For another thread.
    pub(crate) fn errands(&self) -> Errands {
        Errands { jobs: self.jobs.clone(), waker: self.waker.clone(), waiting: Arc::clone(&self.paths_wait) }
    }

    /// How the disk is.
    pub(crate) fn health(&self) -> Health {
        lock(&self.health).clone()
    }
}

/// With `panic = "abort"` nobody sees a poisoned lock.
fn lock(health: &Mutex<Health>) -> MutexGuard<'_, Health> {
    health.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The disk and its fence, on the flusher's own thread.
struct Opened {
    disk: VolumeDisk,
    fence: Box<dyn Fence>,
    layout: Layout,
    block_bytes: u32,
}

fn open(parts: Parts, waker: Waker) -> anyhow::Result<Opened> {
    let Parts { node, reader, identity, arena, layout, fence, .. } = parts;
    let fence: Box<dyn Fence> = match fence {
        FenceParts::LocalLock => Box::new(LocalLock::new(&reader, identity.uuid, node, LocalLockTiming::default())?),
        FenceParts::ScsiPr { disk, registrations } => Box::new(ScsiPr::new(&reader, disk, registrations)?),
    };
    let options = QueueOptions::default();
    let disk = VolumeDisk::new(reader, identity, node, vec![arena], waker, &options)?;
    Ok(Opened { disk, fence, layout, block_bytes: identity.block_bytes })
}

#[cfg(test)]
mod tests;
