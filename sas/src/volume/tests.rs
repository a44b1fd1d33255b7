use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;
use twinsan_arena::Arena;
use twinsan_wire::{BlobKind, Epoch, Generation, Member, Members, NodeId};

use super::*;
use crate::fence::{LocalLock, LocalLockTiming};
use crate::testing::{PATIENCE, arena, incarnation, scratch, volume};

const BYTES: u64 = 1 << 20;

struct Bench {
    disk: VolumeDisk,
    fence: LocalLock,
    arena: Arc<Arena>,
    path: PathBuf,
    _dir: TempDir,
}

fn bench() -> Bench {
    let dir = scratch();
    let (path, report) = volume(&dir, BYTES);
    let reader = SharedReader::open(&path).expect("open");
    let timing = LocalLockTiming::default();
    let fence = LocalLock::new(&reader, report.identity.uuid, NodeId::A, timing).expect("fence");
    let (arena, waker) = (arena(1 << 16), Waker::new().expect("eventfd"));
    let options = QueueOptions::default();
    let disk = VolumeDisk::new(reader, report.identity, NodeId::A, vec![arena.clone()], waker, &options).expect("disk");
    Bench { disk, fence, arena, path, _dir: dir }
}

impl Bench {
    fn claimed(mut self) -> Self {
        self.disk.fence(&mut self.fence, incarnation(1)).expect("free");
        self
    }

    fn run(&mut self, op: VolumeOp) -> Result<VolumeDone, DiskError> {
        self.disk.start(op, 42);
        let mut out = Vec::new();
        while out.is_empty() {
            self.disk.wait(Some(PATIENCE), &mut out).expect("ring");
        }
        assert_eq!((out.len(), out[0].token, self.disk.pending()), (1, 42, 0));
        out.remove(0).result
    }

    fn slots(&mut self) -> SlotsRead {
        match self.run(VolumeOp::ReadSuperblock) {
            Ok(VolumeDone::Superblock(slots)) => slots,
            other => panic!("{other:?}"),
        }
    }

    /// Flips a byte behind everybody's back.
    fn rot(&self, offset: u64) {
        let file = std::fs::File::options().read(true).write(true).open(&self.path).expect("open");
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).expect("read");
        file.write_all_at(&[byte[0] ^ 1], offset).expect("write");
        file.sync_all().expect("sync");
    }
}

fn solo(counter: u64, epoch: u64) -> Superblock {
    let member = Member { node: NodeId::A, incarnation: incarnation(1) };
    let (epoch, generation) = (Epoch(epoch), Generation(3));
    Superblock { counter, epoch, primary: Some(NodeId::A), members: Members::solo(member), generation, clean: false }
}

#[test]
fn a_superblock_is_written_read_and_mended() {
    let mut bench = bench().claimed();
    let fresh = bench.slots();
    assert!(fresh.settled && fresh.superblock.clean && fresh.superblock.members.is_empty());
    assert_eq!(bench.run(VolumeOp::WriteSuperblock(solo(2, 1))), Ok(VolumeDone::SuperblockWritten(solo(2, 1))));
    assert_eq!((bench.slots().superblock, bench.slots().settled, bench.slots().older), (solo(2, 1), true, None));
    for slot in layout::SLOT_OFFSETS {
        bench.rot(slot + 130);
        let read = bench.slots();
        assert_eq!((read.superblock, read.settled, read.other_error), (solo(2, 1), false, Some(SlotError::Checksum)));
        assert_eq!(bench.run(VolumeOp::WriteSuperblock(solo(2, 1))), Ok(VolumeDone::SuperblockWritten(solo(2, 1))));
        assert!(bench.slots().settled, "mended");
    }
    let back = bench.run(VolumeOp::WriteSuperblock(solo(9, 0))).expect_err("backwards");
    assert_eq!(back, SuperblockError::EpochBack { new: 0, on_disk: 1 }.into());
    bench.rot(0);
    bench.rot(4096 + 130);
    let corrupt = bench.run(VolumeOp::ReadSuperblock).expect_err("both");
    assert!(corrupt.is_corrupt(), "{corrupt}");
    let refused = bench.run(VolumeOp::WriteSuperblock(solo(3, 2))).expect_err("nothing is written over a guess");
    assert!(refused.is_corrupt(), "{refused}");
}

#[test]
fn heartbeats_pass_between_the_nodes() {
    let mut bench = bench().claimed();
    assert_eq!(bench.run(VolumeOp::ReadHeartbeat), Ok(VolumeDone::Heartbeat(None)), "the other has never beaten");
    let beat = VolumeOp::WriteHeartbeat { incarnation: incarnation(5), beat: 77 };
    assert_eq!(bench.run(beat), Ok(VolumeDone::HeartbeatWritten));
    let reader = SharedReader::open(&bench.path).expect("open");
    let identity = *bench.disk.identity();
    let waker = Waker::new().expect("eventfd");
    let mut other =
        VolumeDisk::new(reader, identity, NodeId::B, Vec::new(), waker, &QueueOptions::default()).expect("disk");
    other.start(VolumeOp::ReadHeartbeat, 1);
    let mut out = Vec::new();
    while out.is_empty() {
        other.wait(Some(PATIENCE), &mut out).expect("ring");
    }
    let Ok(VolumeDone::Heartbeat(Some(seen))) = &out[0].result else { panic!("{out:?}") };
    assert_eq!((seen.node, seen.beat, seen.incarnation, seen.holder), (NodeId::A, 77, incarnation(5), true));
}

#[test]
fn blocks_are_written_zeroed_and_read() {
    let mut bench = bench().claimed();
    bench.arena.copy_in(0, &[1; 4096]);
    bench.arena.copy_in(4096, &[2; 4096]);
    let staged = |lba, blocks, offset| BlockWrite { lba: Lba(lba), blocks, source: Source::Arena { arena: 0, offset } };
    let zeros = BlockWrite { lba: Lba(4), blocks: 2, source: Source::Zeros(BlobKind::Discard) };
    assert_eq!(bench.run(VolumeOp::Write(vec![staged(3, 2, 0), staged(255, 1, 4096)])), Ok(VolumeDone::Written));
    assert_eq!(bench.run(VolumeOp::Write(vec![zeros])), Ok(VolumeDone::Written));
    let read = |lba, blocks, offset| BlockRead { lba: Lba(lba), blocks, arena: 0, offset };
    assert_eq!(bench.run(VolumeOp::Read(vec![read(3, 2, 8192), read(255, 1, 16384)])), Ok(VolumeDone::Read));
    let mut bytes = [9; 4096];
    for (offset, want) in [(8192, 1), (12288, 0), (16384, 2)] {
        bench.arena.copy_out(offset, &mut bytes);
        assert_eq!(bytes, [want; 4096]);
    }
}

#[test]
fn without_the_fence_only_reading_works() {
    let mut bench = bench();
    assert!(!bench.disk.check(&mut bench.fence).expect("it knows"));
    let before = bench.slots();
    assert_eq!(bench.run(VolumeOp::WriteSuperblock(solo(2, 1))), Err(DiskError::NotClaimed));
    let beat = VolumeOp::WriteHeartbeat { incarnation: incarnation(5), beat: 1 };
    assert_eq!(bench.run(beat), Err(DiskError::NotClaimed));
    assert_eq!(bench.slots(), before);
}

#[test]
#[should_panic(expected = "two superblock changes")]
fn two_superblock_changes_at_once_are_a_bug() {
    let mut bench = bench().claimed();
    bench.disk.start(VolumeOp::WriteSuperblock(solo(2, 1)), 1);
    bench.disk.start(VolumeOp::WriteSuperblock(solo(3, 2)), 2);
}

#[test]
#[should_panic(expected = "of a volume of 256")]
fn blocks_past_the_volume_are_a_bug() {
    let mut bench = bench().claimed();
    let source = Source::Zeros(BlobKind::Zeroes);
    bench.disk.start(VolumeOp::Write(vec![BlockWrite { lba: Lba(255), blocks: 2, source }]), 1);
}
