//! The thread, on a real file.

use std::os::unix::fs::FileExt;
use std::time::Duration;

use twinsan_replica::{DiskError, PieceSource, Source};
use twinsan_sas::layout::DATA_OFFSET;
use twinsan_wire::{BlobKind, Epoch, Lba, Member, Members, Seq};

use super::*;
use crate::testbed::{self, LAYOUT, Testbed};

const BLOCK: usize = 4096;
const PATIENCE: Duration = Duration::from_secs(30);

struct Bench {
    bed: Testbed,
    arena: Arc<Arena>,
    flusher: Flusher,
    done: Receiver<Done>,
}

impl Bench {
    fn new() -> Self {
        let (bed, parts) = testbed::parts(NodeId::A);
        let arena = Arc::clone(&parts.arena);
        let (flusher, done, _) = Flusher::start(parts, Doorbell::new().unwrap()).unwrap();
        flusher.give(Job::Incarnation(incarnation()));
        Self { bed, arena, flusher, done }
    }

    /// A job's answer.
    fn ask(&self, job: Job) -> Event {
        self.flusher.give(job);
        self.done.recv_timeout(PATIENCE).unwrap().0
    }

    fn on_disk(&self, lba: u64, blocks: usize) -> Vec<u8> {
        let mut bytes = vec![0; blocks * BLOCK];
        let file = std::fs::File::open(self.bed.disk()).unwrap();
        file.read_exact_at(&mut bytes, DATA_OFFSET + lba * BLOCK as u64).unwrap();
        bytes
    }

    fn stage(&self, data_pos: u64, bytes: &[u8]) {
        self.arena.copy_in(crate::layout::index(LAYOUT.staged(data_pos)), bytes);
    }
}

fn incarnation() -> Incarnation {
    Incarnation::from_random(5)
}

fn staged(lba: u64, blocks: u64, data_pos: u64) -> WriteRange {
    WriteRange { lba: Lba(lba), blocks, seq: Seq(1), source: Source::Staged { data_pos } }
}

/// Which batch, and how it went.
fn flushed(event: &Event) -> (u64, Result<(), DiskError>) {
    let Event::Flushed { batch, result, .. } = event else { panic!("{event:?} for a batch") };
    (*batch, *result)
}

#[test]
fn nothing_is_written_without_the_fence() {
    let bench = Bench::new();
    bench.stage(0, &[7; BLOCK]);
    let event = bench.ask(Job::Flush { batch: 1, writes: vec![staged(0, 1, 0)] });
    assert_eq!(flushed(&event), (1, Err(DiskError::Conflict)));
    assert_eq!(bench.on_disk(0, 1), vec![0; BLOCK]);
    let health = bench.flusher.health();
    assert!(!health.well);
    assert!(health.last_error.unwrap().contains("claim"));
}

#[test]
fn what_is_staged_lands_and_is_read_back_packed() {
    let bench = Bench::new();
    assert_eq!(bench.ask(Job::Fence), Event::FenceHeld(Ok(())));
    // The second payload begins after the ring's wrap.
    let (first, second) = (vec![1; 2 * BLOCK], vec![2; BLOCK]);
    bench.stage(8192, &first);
    bench.stage(4 << 20, &second);
    let zeroes = WriteRange { source: Source::Zeros(BlobKind::Zeroes), ..staged(40, 4, 0) };
    let writes = vec![staged(10, 2, 8192), staged(20, 1, 4 << 20), zeroes];
    assert_eq!(flushed(&bench.ask(Job::Flush { batch: 1, writes })), (1, Ok(())));
    assert_eq!(bench.on_disk(10, 2), first);
    assert_eq!(bench.on_disk(20, 1), second);
    assert_eq!(bench.on_disk(40, 4), vec![0; 4 * BLOCK]);

    let piece = |lba, blocks| Piece { lba: Lba(lba), blocks, source: PieceSource::Disk };
    let (token, offset) = (ReadToken(3), LAYOUT.slab_slot(1));
    let event = bench.ask(Job::Read { token, offset, pieces: vec![piece(11, 1), piece(20, 1)] });
    assert_eq!(event, Event::DiskRead { token, result: Ok(()) });
    let mut bytes = vec![0; 2 * BLOCK];
    bench.arena.copy_out(crate::layout::index(offset), &mut bytes);
    assert_eq!(bytes, [&first[BLOCK..], &second].concat());
}

#[test]
fn a_superblock_is_written_and_read_and_beats_are_seen() {
    let bench = Bench::new();
    let Event::SuperblockRead(Ok(read)) = bench.ask(Job::ReadSuperblock) else { panic!("formatted") };
    assert!(read.settled);
    assert!(bench.flusher.health().changed_at.is_some());
    assert_eq!(bench.ask(Job::Fence), Event::FenceHeld(Ok(())));
    let next = Superblock {
        counter: read.superblock.counter + 1,
        epoch: Epoch(1),
        primary: Some(NodeId::A),
        members: Members::solo(Member { node: NodeId::A, incarnation: incarnation() }),
        ..read.superblock
    };
    assert_eq!(bench.ask(Job::WriteSuperblock(next)), Event::SuperblockWritten(Ok(())));
    let Event::SuperblockRead(Ok(read)) = bench.ask(Job::ReadSuperblock) else { panic!("just written") };
    assert_eq!((read.superblock, read.settled), (next, true));
    assert_eq!(bench.ask(Job::WriteHeartbeat { beat: 9 }), Event::HeartbeatWritten(Ok(())));
    assert_eq!(bench.ask(Job::ReadHeartbeat), Event::HeartbeatRead(Ok(0)), "the other node has never beaten");
}

#[test]
fn the_claim_comes_and_goes() {
    let bench = Bench::new();
    assert_eq!(bench.ask(Job::Admit), Event::Admitted(Ok(())));
    assert_eq!(bench.ask(Job::Fence), Event::FenceHeld(Ok(())));
    assert_eq!(bench.ask(Job::CheckFence), Event::FenceChecked { own: true });
    assert_eq!(bench.ask(Job::ReleaseFence), Event::FenceReleased);
    let event = bench.ask(Job::Flush { batch: 2, writes: vec![staged(0, 1, 0)] });
    assert_eq!(flushed(&event), (2, Err(DiskError::Conflict)));
    assert_eq!(bench.ask(Job::Fence), Event::FenceHeld(Ok(())), "taken again");
    assert_eq!(bench.ask(Job::YieldFence), Event::FenceYielded);
    let event = bench.ask(Job::Flush { batch: 3, writes: vec![staged(0, 1, 0)] });
    assert_eq!(flushed(&event), (3, Err(DiskError::Conflict)));
    assert_eq!(bench.ask(Job::CheckFence), Event::FenceChecked { own: true }, "it is still let in");
    assert_eq!(bench.ask(Job::AcceptFence), Event::FenceAccepted(Ok(())), "handed back");
}

/// A flusher that hangs for minutes is told of a path twice a second: that may not fill its queue.
#[test]
fn what_is_told_again_and_again_waits_once() {
    let (jobs, queue) = bounded(4);
    let waiting = Arc::new(AtomicBool::new(false));
    let errands = Errands { jobs, waker: Waker::new().unwrap(), waiting: Arc::clone(&waiting) };
    (0..1000).for_each(|_| errands.paths_changed());
    assert_eq!(queue.len(), 1);
    // The flusher takes it up: what is told from then on is news again.
    waiting.store(false, Ordering::Release);
    errands.paths_changed();
    assert_eq!(queue.len(), 2);

    let bench = Bench::new();
    let errands = bench.flusher.errands();
    for _ in 0..3 {
        errands.paths_changed();
        assert_eq!(bench.ask(Job::ReadHeartbeat), Event::HeartbeatRead(Ok(0)));
        assert!(!errands.waiting.load(Ordering::Acquire), "taken up");
    }
}
