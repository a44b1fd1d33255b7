use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use twinsan_arena::Arena;
use twinsan_wire::BlobKind;

use crate::disk::batch::{self, Durability};
use crate::disk::buffers::{Ask, MAX_PIECES, Memory};
use crate::disk::fault::Fault;
use crate::disk::*;
use crate::layout::{DATA_OFFSET, PAGE};
use crate::page::Page;
use crate::testing::{PATIENCE, arena, scratch};

const BLOCK: u64 = 4096;
const BLOCKS: u64 = 1024;
const ARENA_BLOCKS: usize = 512;

/// A disk in a file, its queue and one arena of which block i is filled with i + 1.
struct Bench {
    path: PathBuf,
    queue: DiskQueue,
    arena: Arc<Arena>,
    waker: Waker,
    next: u64,
    _dir: TempDir,
}

fn bench_with(claimed: bool, options: &QueueOptions) -> Bench {
    let dir = scratch();
    let path = dir.path().join("disk");
    File::create(&path).and_then(|file| file.set_len(DATA_OFFSET + BLOCKS * BLOCK)).expect("file");
    let arena = arena(ARENA_BLOCKS * 4096);
    for block in 0..ARENA_BLOCKS {
        arena.copy_in(block * 4096, &[fill(block); 4096]);
    }
    let waker = Waker::new().expect("eventfd");
    let reader = SharedReader::open(&path).expect("open");
    let data = DATA_OFFSET..DATA_OFFSET + BLOCKS * BLOCK;
    let mut queue = DiskQueue::new(reader, data, vec![arena.clone()], waker.clone(), options).expect("queue");
    if claimed {
        queue.adopt(ClaimedDisk::try_claim(&path).expect("open").expect("free")).expect("the same disk");
    }
    Bench { path, queue, arena, waker, next: 0, _dir: dir }
}

fn bench() -> Bench {
    bench_with(true, &QueueOptions::default())
}

/// What the arena's block is filled with; never 0.
fn fill(block: usize) -> u8 {
    u8::try_from(block % 251).expect("less than 251") + 1
}

fn write(block: u64, blocks: u64, from: usize) -> WriteRange {
    let source = Source::Arena { arena: 0, offset: from * 4096 };
    WriteRange { offset: DATA_OFFSET + block * BLOCK, len: blocks * BLOCK, source }
}

fn zeros(block: u64, blocks: u64, kind: BlobKind) -> WriteRange {
    WriteRange { offset: DATA_OFFSET + block * BLOCK, len: blocks * BLOCK, source: Source::Zeros(kind) }
}

fn read(block: u64, blocks: u64, to: usize) -> ReadRange {
    ReadRange { offset: DATA_OFFSET + block * BLOCK, len: blocks * BLOCK, arena: 0, arena_offset: to * 4096 }
}

impl Bench {
    fn start(&mut self, op: DiskOp) -> u64 {
        self.next += 1;
        self.queue.start(op, self.next);
        self.next
    }

    /// Waits for `count` completions; gives them by token.
    fn completions(&mut self, count: usize) -> Vec<(u64, Result<Done, DiskError>)> {
        let mut out = Vec::new();
        while out.len() < count {
            self.queue.wait(Some(PATIENCE), &mut out).expect("ring");
        }
        assert_eq!(out.len(), count, "more completions than operations");
        let mut out: Vec<_> = out.into_iter().map(|done| (done.token, done.result)).collect();
        out.sort_by_key(|(token, _)| *token);
        out
    }

    fn run(&mut self, op: DiskOp) -> Result<Done, DiskError> {
        let token = self.start(op);
        let (done, result) = self.completions(1).remove(0);
        assert_eq!(done, token);
        result
    }

    /// What the file says of these blocks: the fill of each, if it is one.
    fn on_disk(&self, block: u64, blocks: u64) -> Vec<u8> {
        let file = File::open(&self.path).expect("open");
        let mut bytes = vec![0; usize::try_from(blocks * BLOCK).expect("small")];
        file.read_exact_at(&mut bytes, DATA_OFFSET + block * BLOCK).expect("read");
        bytes.chunks(4096).map(|block| if block.iter().all(|&b| b == block[0]) { block[0] } else { 0xff }).collect()
    }

    fn fault(&mut self, op: Op, nth: u32, fault: Fault) {
        self.queue.ring.faults.plan(op, nth, fault);
    }
}

fn failed(op: Op, block: u64, blocks: u64, errno: i32) -> DiskError {
    DiskError::Failed { op, offset: DATA_OFFSET + block * BLOCK, len: blocks * BLOCK, errno }
}

#[test]
fn writes_come_back_registered_or_not() {
    for register_buffers in [true, false] {
        let mut bench = bench_with(true, &QueueOptions { register_buffers, ..QueueOptions::default() });
        if !register_buffers {
            assert!(!bench.queue.is_registered());
        }
        // One alone, adjacent ones from all over the arena, one with a gap before it.
        let batch = vec![write(0, 1, 7), write(1, 2, 100), write(3, 1, 5), write(10, 3, 200)];
        assert_eq!(bench.run(DiskOp::Write(batch)), Ok(Done::Written));
        let want = [7, 100, 101, 5].map(fill);
        assert_eq!(bench.on_disk(0, 5), [want[0], want[1], want[2], want[3], 0]);
        assert_eq!(bench.on_disk(10, 3), [200, 201, 202].map(fill));
        assert_eq!(bench.run(DiskOp::Write(vec![write(20, 1, 33)])), Ok(Done::Written), "a lone one");
        assert_eq!(bench.run(DiskOp::Read(vec![read(0, 4, 300), read(20, 1, 310)])), Ok(Done::Read));
        let mut back = vec![0; 4096];
        for (at, from) in [(300, 7), (301, 100), (302, 101), (303, 5), (310, 33)] {
            bench.arena.copy_out(at * 4096, &mut back);
            assert_eq!(back, vec![fill(from); 4096], "arena block {at}");
        }
    }
}

#[test]
fn adjacent_ranges_become_one_write() {
    let bench = bench();
    let geometry = bench.queue.geometry();
    let data = DATA_OFFSET..DATA_OFFSET + BLOCKS * BLOCK;
    let batch = [write(0, 1, 0), write(1, 1, 1), write(2, 1, 50), write(4, 1, 51), zeros(5, 2, BlobKind::Discard)];
    let (plan, durability) = batch::plan_writes(&batch, geometry, &data, 9);
    let shape: Vec<_> = plan.iter().map(|t| (t.offset / BLOCK - DATA_OFFSET / BLOCK, t.len / BLOCK, t.ask)).collect();
    let plain = Ask::Write { dsync: false };
    assert_eq!(shape, [(0, 3, plain), (4, 1, plain), (5, 2, Ask::PunchHole)]);
    assert_eq!(durability, Durability::FlushAfter { data: false });
    // Adjacent on the disk and in memory: one piece; adjacent on the disk only: two.
    let Memory::Arenas(pieces) = &plan[0].memory else { panic!("no memory") };
    assert_eq!(pieces.iter().map(|p| (p.offset, p.len)).collect::<Vec<_>>(), [(0, 8192), (50 * 4096, 4096)]);

    let scattered: Vec<_> = (0..300).map(|i| write(i, 1, usize::try_from(i * 2 % 512).expect("small"))).collect();
    let (plan, _) = batch::plan_writes(&scattered, geometry, &data, 0);
    assert!(plan.len() == 2 && plan.iter().all(|t| matches!(&t.memory, Memory::Arenas(p) if p.len() <= MAX_PIECES)));
    let large: Vec<_> = (0..8).map(|i| write(i * 128, 128, 0)).collect();
    let (plan, _) = batch::plan_writes(&large, geometry, &data, 0);
    assert!(plan.iter().all(|t| t.len <= 4 << 20), "a request has a limit");
}

#[test]
fn the_way_past_the_cache_follows_the_batch_and_the_disk() {
    let bench = bench();
    let data = DATA_OFFSET..DATA_OFFSET + BLOCKS * BLOCK;
    let with = |cache| Geometry { cache, ..*bench.queue.geometry() };
    let plan = |batch: &[WriteRange], cache| batch::plan_writes(batch, &with(cache), &data, 0);
    let (lone, many) = ([write(0, 1, 0)], [write(0, 1, 0), write(2, 1, 0)]);
    let flush = Durability::FlushAfter { data: true };
    assert_eq!(plan(&lone, WriteCache::Back).1, Durability::EachWrite);
    assert_eq!(plan(&many, WriteCache::Back).1, flush);
    assert_eq!(plan(&[write(0, 512, 0)], WriteCache::Back).1, flush, "2 MiB");
    assert_eq!((plan(&lone, WriteCache::Unknown).1, plan(&many, WriteCache::Unknown).1), (flush, flush), "a file");
    // Without a volatile cache RWF_DSYNC costs nothing.
    let (transfers, durability) = plan(&many, WriteCache::Through);
    assert_eq!(durability, Durability::EachWrite);
    assert!(transfers.iter().all(|t| t.ask == Ask::Write { dsync: true }));
    let zero = plan(&[zeros(0, 1, BlobKind::Zeroes)], WriteCache::Through);
    assert_eq!(zero.1, Durability::FlushAfter { data: false }, "fallocate has no RWF_DSYNC");
}

#[test]
fn zeros_read_as_zeros_whatever_the_disk_can() {
    for refused in 0..3 {
        let mut bench = bench();
        for nth in 0..refused {
            bench.fault(Op::Zero, nth, Fault::Errno(libc::EOPNOTSUPP));
        }
        assert_eq!(bench.run(DiskOp::Write(vec![write(0, 40, 0)])), Ok(Done::Written));
        let batch = vec![zeros(2, 3, BlobKind::Discard), write(5, 1, 9), zeros(6, 20, BlobKind::Zeroes)];
        assert_eq!(bench.run(DiskOp::Write(batch)), Ok(Done::Written), "{refused} refused");
        let mut want: Vec<u8> = (0..40).map(fill).collect();
        want[2..5].fill(0);
        want[5] = fill(9);
        want[6..26].fill(0);
        assert_eq!(bench.on_disk(0, 40), want, "{refused} refused");
    }
}

#[test]
fn zeros_longer_than_a_request_are_written_in_steps() {
    let mut bench = bench();
    bench.queue.no_punch = true;
    bench.queue.no_zero_range = true;
    let all = (0..BLOCKS).step_by(128).map(|block| write(block, 128, 0)).collect();
    assert_eq!(bench.run(DiskOp::Write(all)), Ok(Done::Written));
    bench.fault(Op::Zero, 0, Fault::Limit(1 << 20));
    assert_eq!(bench.run(DiskOp::Write(vec![zeros(1, BLOCKS - 2, BlobKind::Discard)])), Ok(Done::Written));
    let mut want = vec![0; usize::try_from(BLOCKS).expect("small")];
    (want[0], want[1023]) = (fill(0), fill(127));
    assert_eq!(bench.on_disk(0, BLOCKS), want);
}

#[test]
fn discard_gives_space_back_and_zeroes_keeps_it() {
    let mut bench = bench();
    let blocks = |bench: &Bench| std::fs::metadata(&bench.path).expect("stat").blocks();
    assert_eq!(bench.run(DiskOp::Write(vec![write(0, 256, 0)])), Ok(Done::Written));
    let full = blocks(&bench);
    assert_eq!(bench.run(DiskOp::Write(vec![zeros(0, 128, BlobKind::Zeroes)])), Ok(Done::Written));
    let zeroed = blocks(&bench);
    assert_eq!(bench.run(DiskOp::Write(vec![zeros(128, 128, BlobKind::Discard)])), Ok(Done::Written));
    let discarded = blocks(&bench);
    assert!(zeroed >= full, "{full} sectors, {zeroed} after zeroing");
    if !(bench.queue.no_punch || bench.queue.no_zero_range) {
        assert!(discarded + 128 * 8 <= zeroed, "{zeroed} sectors, {discarded} after discarding 1024");
    }
}

#[test]
fn what_the_kernel_does_in_part_is_continued() {
    for limit in [4096, 8192, 12288, 4096 * 60] {
        let mut bench = bench();
        for nth in 0..3 {
            bench.fault(Op::Write, nth, Fault::Limit(limit));
            bench.fault(Op::Read, nth, Fault::Limit(limit));
        }
        let batch = (0..64).map(|i| write(i, 1, usize::try_from(i * 3).expect("small"))).collect();
        assert_eq!(bench.run(DiskOp::Write(batch)), Ok(Done::Written));
        assert_eq!(bench.on_disk(0, 64), (0..64).map(|i| fill(i * 3)).collect::<Vec<_>>(), "limit {limit}");
        assert_eq!(bench.run(DiskOp::Read(vec![read(0, 64, 256)])), Ok(Done::Read));
        let mut back = [0; 4096];
        for i in 0..64 {
            bench.arena.copy_out((256 + i) * 4096, &mut back);
            assert_eq!(back, [fill(i * 3); 4096], "limit {limit}, block {i}");
        }
    }
}

#[test]
fn a_request_that_moves_nothing_is_an_error_not_a_loop() {
    let mut bench = bench();
    bench.fault(Op::Write, 0, Fault::Nothing);
    let short = bench.run(DiskOp::Write(vec![write(3, 2, 0)]));
    let (offset, len) = (DATA_OFFSET + 3 * BLOCK, 2 * BLOCK);
    assert_eq!(short, Err(DiskError::Short { op: Op::Write, offset, len, missing: len }));
}

#[test]
fn a_disk_that_ends_early_is_an_error() {
    let mut bench = bench();
    File::options().write(true).open(&bench.path).and_then(|f| f.set_len(DATA_OFFSET + 10 * BLOCK)).expect("shrink");
    let short = bench.run(DiskOp::Read(vec![read(8, 4, 0)]));
    let (offset, len) = (DATA_OFFSET + 8 * BLOCK, 4 * BLOCK);
    assert_eq!(short, Err(DiskError::Short { op: Op::Read, offset, len, missing: 2 * BLOCK }));
}

#[test]
fn errors_are_told_apart() {
    let mut bench = bench();
    for errno in [libc::EIO, libc::ENOSPC, libc::ENODEV] {
        bench.fault(Op::Write, 0, Fault::Errno(errno));
        let error = bench.run(DiskOp::Write(vec![write(4, 2, 0)])).expect_err("injected");
        assert_eq!(error, failed(Op::Write, 4, 2, errno));
        assert!(!error.is_conflict());
    }
    bench.fault(Op::Write, 0, Fault::Errno(libc::EBADE));
    let error = bench.run(DiskOp::Write(vec![write(4, 2, 0)])).expect_err("injected");
    assert!(error.is_conflict(), "{error}");
    bench.fault(Op::Read, 0, Fault::Errno(libc::EIO));
    assert_eq!(bench.run(DiskOp::Read(vec![read(1, 1, 0)])), Err(failed(Op::Read, 1, 1, libc::EIO)));
    bench.fault(Op::Write, 0, Fault::Errno(libc::EINTR));
    bench.fault(Op::Write, 0, Fault::Errno(libc::EAGAIN));
    assert_eq!(bench.run(DiskOp::Write(vec![write(4, 2, 8)])), Ok(Done::Written), "tried again");
    assert_eq!(bench.on_disk(4, 2), [8, 9].map(fill));
}

#[test]
fn a_failed_batch_ends_when_nothing_of_it_is_in_flight() {
    let options = QueueOptions { depth: 8, write_depth: 4, register_buffers: true };
    let mut bench = bench_with(true, &options);
    bench.fault(Op::Write, 1, Fault::Errno(libc::EIO));
    let batch: Vec<_> = (0..100).map(|i| write(2 * i, 1, 1)).collect();
    let error = bench.run(DiskOp::Write(batch.clone())).expect_err("injected");
    assert_eq!(error, failed(Op::Write, 2, 1, libc::EIO));
    assert_eq!((bench.queue.ring.in_flight(), bench.queue.changes_in_flight, bench.queue.pending()), (0, 0, 0));
    let written = bench.on_disk(0, 200).iter().filter(|&&b| b != 0).count();
    assert!(written < 100, "no more is started after an error; {written} were written");
    assert_eq!(bench.run(DiskOp::Write(batch)), Ok(Done::Written), "the retry");
    assert_eq!(bench.on_disk(0, 200).iter().filter(|&&b| b == fill(1)).count(), 100);
    assert!(bench.queue.surrender().is_some());
}

#[test]
fn a_failed_flush_fails_every_batch_that_it_may_have_hurt() {
    let mut bench = bench();
    bench.fault(Op::Sync, 0, Fault::Errno(libc::EIO));
    // Both batches are larger than one write, so each ends with a flush; the first to get there fails.
    let one = bench.start(DiskOp::Write((0..10).map(|i| write(2 * i, 1, 1)).collect()));
    let two = bench.start(DiskOp::Write((50..200).map(|i| write(2 * i, 1, 1)).collect()));
    let page = bench.start(DiskOp::WritePages(vec![(0, Page::ZERO)]));
    let done = bench.completions(3);
    let flush = DiskError::Failed { op: Op::Sync, offset: 0, len: 0, errno: libc::EIO };
    assert_eq!(done, [(one, Err(flush.clone())), (two, Err(flush)), (page, Ok(Done::PagesWritten))]);
    assert_eq!(bench.queue.pending(), 0);
}

#[test]
fn pages_are_written_in_order_and_an_error_stops_them() {
    let mut bench = bench();
    let page = |fill| Page([fill; 4096]);
    let both = |a, b| DiskOp::WritePages(vec![(PAGE, page(a)), (0, page(b))]);
    assert_eq!(bench.run(both(1, 2)), Ok(Done::PagesWritten));
    let pages = |bench: &mut Bench| bench.run(DiskOp::ReadPages(vec![0, PAGE, 2 * PAGE]));
    assert_eq!(pages(&mut bench), Ok(Done::Pages(vec![page(2), page(1), Page::ZERO])));
    bench.fault(Op::Write, 0, Fault::Errno(libc::EIO));
    assert!(bench.run(both(3, 4)).is_err());
    assert_eq!(pages(&mut bench), Ok(Done::Pages(vec![page(2), page(1), Page::ZERO])), "the second was not begun");
    bench.fault(Op::Write, 1, Fault::Errno(libc::EIO));
    assert!(bench.run(both(5, 6)).is_err());
    assert_eq!(pages(&mut bench), Ok(Done::Pages(vec![page(2), page(5), Page::ZERO])), "the first stays");
    assert_eq!(bench.run(DiskOp::WritePageLazily(2 * PAGE, Box::new(page(7)))), Ok(Done::PagesWritten));
    assert_eq!(pages(&mut bench), Ok(Done::Pages(vec![page(2), page(5), page(7)])));
}

#[test]
fn reads_heartbeats_and_batches_go_on_together() {
    let options = QueueOptions { depth: 16, write_depth: 4, register_buffers: true };
    let mut bench = bench_with(true, &options);
    let mut wanted = Vec::new();
    for round in 0..20 {
        wanted.push(bench.start(DiskOp::Write((0..16).map(|i| write(round * 16 + i, 1, 2)).collect())));
        wanted.push(bench.start(DiskOp::Read(vec![read(1000, 8, 400), read(1010, 1, 410)])));
        wanted.push(bench.start(DiskOp::WritePageLazily(2 * PAGE, Box::new(Page::ZERO))));
        wanted.push(bench.start(DiskOp::ReadPages(vec![3 * PAGE])));
    }
    let done = bench.completions(wanted.len());
    assert_eq!(done.iter().map(|(token, _)| *token).collect::<Vec<_>>(), wanted);
    assert!(done.iter().all(|(_, result)| result.is_ok()), "{done:?}");
    assert_eq!(bench.on_disk(0, 320), vec![fill(2); 320]);
}

#[test]
fn without_a_claim_nothing_is_written() {
    let mut bench = bench_with(false, &QueueOptions::default());
    assert_eq!(bench.run(DiskOp::Write(vec![write(0, 1, 1)])), Err(DiskError::NotClaimed));
    assert_eq!(bench.run(DiskOp::WritePages(vec![(0, Page([1; 4096]))])), Err(DiskError::NotClaimed));
    assert_eq!(bench.run(DiskOp::Read(vec![read(0, 1, 9)])), Ok(Done::Read));
    assert_eq!(bench.run(DiskOp::Write(Vec::new())), Ok(Done::Written), "nothing to write");
    bench.queue.adopt(ClaimedDisk::try_claim(&bench.path).expect("open").expect("free")).expect("the same");
    assert_eq!(bench.run(DiskOp::Write(vec![write(0, 1, 1)])), Ok(Done::Written));
    drop(bench.queue.surrender());
    let error = bench.run(DiskOp::Write(vec![write(0, 1, 2)])).expect_err("given back");
    assert!(error.is_conflict());
    assert_eq!(bench.on_disk(0, 1), [fill(1)]);
}

#[test]
fn a_claim_on_another_disk_is_refused() {
    let mut bench = bench_with(false, &QueueOptions::default());
    std::fs::rename(&bench.path, bench.path.with_extension("old")).expect("rename");
    File::create(&bench.path).and_then(|file| file.set_len(DATA_OFFSET)).expect("another");
    let claim = ClaimedDisk::try_claim(&bench.path).expect("open").expect("free");
    assert!(matches!(bench.queue.adopt(claim), Err(OpenError::Replaced { .. })));
}

#[test]
fn a_wake_from_another_thread_ends_the_wait() {
    let mut bench = bench();
    for _ in 0..100 {
        let waker = bench.waker.clone();
        let thread = std::thread::spawn(move || waker.wake());
        let mut out = Vec::new();
        // No timeout: without the wake this hangs.
        bench.queue.wait(None, &mut out).expect("ring");
        assert!(out.is_empty());
        thread.join().expect("the waker's thread");
    }
    bench.queue.wait(Some(Duration::from_millis(1)), &mut Vec::new()).expect("a timeout is no error");
}

#[test]
fn a_dropped_queue_waits_for_what_is_in_flight() {
    let mut bench = bench_with(true, &QueueOptions { depth: 64, write_depth: 32, ..QueueOptions::default() });
    bench.start(DiskOp::Write((0..32).map(|i| write(2 * i, 1, 3)).collect()));
    bench.queue.wait(Some(Duration::ZERO), &mut Vec::new()).expect("submit");
    let Bench { queue, path, _dir, .. } = bench;
    drop(queue);
    let claim = ClaimedDisk::try_claim(&path).expect("open");
    assert!(claim.is_some(), "the description is gone with its last request");
    let file = File::open(&path).expect("open");
    let mut byte = [0];
    for i in 0..32 {
        file.read_exact_at(&mut byte, DATA_OFFSET + 2 * i * BLOCK).expect("read");
        assert_eq!(byte, [fill(3)], "block {}", 2 * i);
    }
}

#[test]
#[should_panic(expected = "overlapping")]
fn overlapping_writes_of_a_batch_are_a_bug() {
    bench().start(DiskOp::Write(vec![write(0, 2, 0), write(1, 1, 0)]));
}

#[test]
#[should_panic(expected = "outside the volume")]
fn a_write_over_the_superblock_is_a_bug() {
    let source = Source::Zeros(BlobKind::Zeroes);
    bench().start(DiskOp::Write(vec![WriteRange { offset: 0, len: 4096, source }]));
}

#[test]
#[should_panic(expected = "outside the volume")]
fn a_read_past_the_volume_is_a_bug() {
    bench().start(DiskOp::Read(vec![read(BLOCKS - 1, 2, 0)]));
}

#[test]
#[should_panic(expected = "offset")]
fn memory_past_the_arena_is_a_bug() {
    bench().start(DiskOp::Write(vec![write(0, 2, ARENA_BLOCKS - 1)]));
}

#[test]
#[should_panic(expected = "writes are under way")]
fn a_claim_can_not_go_before_its_writes() {
    let mut bench = bench();
    bench.start(DiskOp::Write(vec![write(0, 2, 0)]));
    bench.queue.surrender();
}

#[test]
fn disks_that_can_not_serve_are_named() {
    let dir = scratch();
    let directory = SharedReader::open(dir.path()).expect_err("a directory").to_string();
    assert!(directory.contains("directory") || directory.contains("direct I/O"), "{directory}");
    let null = SharedReader::open(std::path::Path::new("/dev/null")).expect_err("no disk");
    assert!(matches!(null, OpenError::WrongKind { .. } | OpenError::NoDirectIo { .. }), "{null}");
    let missing = SharedReader::open(&dir.path().join("none")).expect_err("missing").to_string();
    assert!(missing.contains("none") && missing.contains("No such file"), "{missing}");
    let bench = bench();
    let geometry = Geometry { logical: 4096, ..*bench.queue.geometry() };
    let small = geometry.check_block(&bench.path, 512).expect_err("512 on 4096").to_string();
    assert!(small.contains("4096 bytes") && small.contains("512 bytes"), "{small}");
    assert!(geometry.check_block(&bench.path, 4096).is_ok());
}

/// How long a batch of `count` scattered 4 KiB writes takes, median of many, with a flush of its own each or one after
/// all: the figures beside `LONE_WRITE_BYTES`. Says them, asserts nothing.
#[test]
#[ignore = "a measurement: cargo test --release -p twinsan-sas -- --ignored --nocapture measure"]
fn measure_ways_past_the_cache() {
    let mut bench = bench();
    let all = (0..BLOCKS).step_by(128).map(|block| write(block, 128, 0)).collect();
    assert_eq!(bench.run(DiskOp::Write(all)), Ok(Done::Written), "allocate");
    for (count, blocks) in [(1, 1), (1, 16), (1, 256), (2, 1), (4, 1), (16, 1), (64, 1)] {
        for cache in [WriteCache::Through, WriteCache::Unknown] {
            // "Through" makes every write RWF_DSYNC, "Unknown" puts a flush after all.
            bench.queue.geometry.cache = cache;
            let mut times: Vec<_> = (0..1000)
                .map(|round| {
                    let batch = (0..count).map(|i| write((round * 7 + i * 16) % 700, blocks, 0));
                    let mut batch: Vec<_> = batch.collect();
                    batch.sort_by_key(|range| range.offset);
                    batch.dedup_by_key(|range| range.offset);
                    let start = std::time::Instant::now();
                    assert!(bench.run(DiskOp::Write(batch)).is_ok());
                    start.elapsed()
                })
                .collect();
            times.sort();
            println!("{count} writes of {blocks} blocks, {cache:?}: p50 {:?}", times[500]);
        }
    }
}
