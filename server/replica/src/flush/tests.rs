extern crate std;

use alloc::vec;
use core::ops::Range;

use proptest::prelude::*;
use twinsan_staging::Geometry;
use twinsan_wire::Generation;

use super::*;

const BLOCK: u32 = 512;
/// Blocks of the volume.
const BLOCKS: u64 = 12;

/// A lane and its flusher, and what the disk has: for each block the blob that it was written from.
struct Bench {
    lane: Lane,
    flusher: Flusher,
    how: Batching,
    cursor: u64,
    disk: Vec<Seq>,
}

impl Bench {
    /// Batches of at most so many blocks.
    fn new(batch_blocks: u64) -> Self {
        let geometry = Geometry::new(64, 1024 * u64::from(BLOCK), BLOCK).unwrap();
        let max_bytes = batch_blocks * u64::from(BLOCK);
        Self {
            lane: Lane::new(geometry, Generation(1), Some(Seq(1))),
            flusher: Flusher::new(Seq::ZERO),
            how: Batching { max_bytes, max_writes: 64, block_bytes: BLOCK, overlapping: false, oldest_first: false },
            cursor: 0,
            disk: vec![Seq::ZERO; usize::try_from(BLOCKS).unwrap()],
        }
    }

    fn put(&mut self, kind: BlobKind, lbas: Range<u64>) -> Seq {
        let blocks = u32::try_from(lbas.end - lbas.start).unwrap();
        let payload_len = if kind == BlobKind::Write { blocks * BLOCK } else { 0 };
        let ring = self.lane.geometry().ring_bytes();
        let left = ring - self.cursor % ring;
        let data_pos = if left < u64::from(payload_len) { self.cursor + left } else { self.cursor };
        let seq = self.lane.received().next();
        self.lane
            .accept(Blob { generation: Generation(1), seq, kind, lba: Lba(lbas.start), blocks, data_pos, payload_len })
            .unwrap();
        self.cursor = data_pos + u64::from(payload_len);
        seq
    }

    fn write(&mut self, lbas: Range<u64>) -> Seq {
        self.put(BlobKind::Write, lbas)
    }

    fn batch_upto(&mut self, limit: Seq) -> Option<(u64, Vec<WriteRange>)> {
        self.flusher.next_batch(&self.lane, limit, self.how)
    }

    /// The next batch of all that is there: its number, and what it writes as (blocks, blob).
    fn batch(&mut self) -> (u64, Vec<(Range<u64>, u64)>) {
        let (number, writes) = self.batch_upto(self.lane.received()).expect("a batch is due");
        (number, writes.iter().map(|w| (w.lba.0..w.lba.0 + w.blocks, w.seq.0)).collect())
    }

    fn land(&mut self, write: &WriteRange) {
        for lba in write.lba.0..write.lba.0 + write.blocks {
            self.disk[usize::try_from(lba).unwrap()] = write.seq;
        }
    }
}

/// Writers that go over the same blocks again and again keep nothing in the lane for longer than a batch takes.
#[test]
fn whatever_comes_meanwhile_a_batch_that_has_ended_frees_its_blobs() {
    let mut bench = Bench::new(2);
    for lba in 0..8 {
        bench.write(lba % 4..lba % 4 + 1);
    }
    for round in 1..=10 {
        let (number, _) = bench.batch();
        for lba in 0..2 {
            bench.write(lba..lba + 1);
        }
        bench.flusher.ended(number, true);
        assert!(bench.flusher.flushed() >= Seq(2 * round), "round {round}: {}", bench.flusher.flushed());
        bench.lane.release(bench.flusher.flushed());
    }
}

#[test]
fn a_batch_writes_the_newest_bytes_there_are_and_not_twice() {
    let mut bench = Bench::new(2);
    bench.write(0..2);
    bench.write(7..8);
    bench.write(1..5);
    let (number, writes) = bench.batch_upto(Seq(3)).unwrap();
    let place = |n: u64| Source::Staged { data_pos: n * u64::from(BLOCK) };
    let range = |lba, seq, n| WriteRange { lba: Lba(lba), blocks: 1, seq: Seq(seq), source: place(n) };
    assert_eq!(writes, [range(0, 1, 0), range(1, 3, 3)]);
    assert_eq!(bench.flusher.issued(), Seq(3), "the disk may hold bytes of the third");
    bench.flusher.ended(number, true);
    assert_eq!(bench.flusher.flushed(), Seq(1));
    let (number, writes) = bench.batch();
    assert_eq!(writes, [(7..8, 2)]);
    bench.flusher.ended(number, true);
    bench.how.max_bytes *= 10;
    let (number, writes) = bench.batch();
    assert_eq!(writes, [(2..5, 3)], "the second block of it is on the disk");
    bench.flusher.ended(number, true);
    assert_eq!(bench.flusher.flushed(), Seq(3));
}

#[test]
fn what_comes_over_a_block_in_flight_is_written_after_it() {
    let mut bench = Bench::new(8);
    bench.write(0..4);
    let (first, _) = bench.batch();
    bench.write(1..2);
    assert_eq!(bench.batch_upto(Seq(2)), None, "one at a time");
    bench.flusher.ended(first, true);
    assert_eq!(bench.flusher.flushed(), Seq(1));
    assert_eq!(bench.batch().1, [(1..2, 2)]);
}

/// What has nothing left to write goes with the batch that wrote it.
#[test]
fn there_is_no_batch_without_writes() {
    let mut bench = Bench::new(1);
    bench.write(0..1);
    bench.write(0..1);
    bench.write(0..1);
    bench.write(0..2);
    bench.write(0..1);
    let (number, writes) = bench.batch();
    assert_eq!(writes, [(0..1, 5)]);
    bench.flusher.ended(number, true);
    assert_eq!(bench.flusher.flushed(), Seq(3));
    let (number, writes) = bench.batch();
    assert_eq!(writes, [(1..2, 4)]);
    bench.flusher.ended(number, true);
    assert_eq!((bench.flusher.flushed(), bench.batch_upto(Seq(5))), (Seq(5), None));
}

/// Who waits for room waits for the end of a batch, and small writes all over the disk take long.
#[test]
fn a_batch_has_so_many_writes() {
    let mut bench = Bench::new(64);
    bench.how.max_writes = 2;
    bench.write(0..1);
    bench.write(2..5);
    bench.write(3..4);
    bench.write(0..1);
    bench.write(6..7);
    let (number, writes) = bench.batch();
    assert_eq!(writes, [(0..1, 4), (2..3, 2), (3..4, 3), (4..5, 2)], "a blob is written as a whole");
    bench.flusher.ended(number, true);
    assert_eq!(bench.flusher.flushed(), Seq(4), "and what has nothing left goes with it");
    assert_eq!(bench.batch().1, [(6..7, 5)]);
}

#[test]
fn a_quarter_of_the_lane_is_much() {
    let is_much = |bench: &Bench| bench.flusher.much_is_due(&bench.lane, bench.lane.received());
    let mut of_slots = Bench::new(64);
    for _ in 1..16 {
        of_slots.write(0..1);
    }
    assert!(!is_much(&of_slots));
    of_slots.write(0..1);
    assert!(is_much(&of_slots), "16 of 64 slots");
    of_slots.flusher.forget(Seq(1));
    assert!(!is_much(&of_slots));

    let mut of_bytes = Bench::new(64);
    of_bytes.write(0..255);
    assert!(!is_much(&of_bytes));
    of_bytes.write(0..1);
    assert!(is_much(&of_bytes), "256 of 1024 blocks");
}

/// A quarter of a lane of small writes, all at once, would be milliseconds without a heartbeat.
#[test]
fn what_comes_in_a_rest_is_known_at_its_end() {
    let mut bench = Bench::new(64);
    bench.write(0..1);
    let (number, _) = bench.batch();
    bench.flusher.ended(number, true);
    for seq in 2..10 {
        bench.write(0..1);
        assert!(bench.flusher.goes_on_resting(&bench.lane, Seq(seq)));
        assert_eq!(bench.flusher.known_upto, Some(Seq(seq)));
    }
    assert_eq!(bench.batch().1, [(0..1, 9)]);
}

/// Else what one batch leaves would wait for a rest to end.
#[test]
fn a_batch_that_was_cut_off_says_so() {
    let mut bench = Bench::new(2);
    bench.write(0..1);
    bench.write(4..6);
    let (first, _) = bench.batch();
    assert_eq!(bench.flusher.ended(first, true), Ended::Flushed { is_cut: true });
    let (second, _) = bench.batch();
    bench.write(0..1);
    assert_eq!(bench.flusher.ended(second, true), Ended::Flushed { is_cut: false }, "what comes later may gather");
}

/// Also where the batch is larger than it may be, by its first blob.
#[test]
fn what_has_nothing_left_goes_with_a_blob_that_is_large_by_itself() {
    let mut bench = Bench::new(1);
    bench.write(0..3);
    bench.write(1..2);
    bench.write(2..4);
    let (number, writes) = bench.batch();
    assert_eq!(writes, [(0..1, 1), (1..2, 2), (2..3, 3)]);
    bench.flusher.ended(number, true);
    assert_eq!(bench.flusher.flushed(), Seq(2));
    assert_eq!(bench.batch().1, [(3..4, 3)]);
}

#[test]
fn zeros_are_the_newest_bytes_too() {
    let mut bench = Bench::new(8);
    bench.write(0..4);
    bench.put(BlobKind::Discard, 1..3);
    bench.put(BlobKind::Zeroes, 2..4);
    let (number, writes) = bench.batch_upto(Seq(3)).unwrap();
    let of = |w: &WriteRange| (w.lba.0, w.blocks, w.source);
    let zeros = Source::Zeros;
    let expected =
        [(0, 1, Source::Staged { data_pos: 0 }), (1, 1, zeros(BlobKind::Discard)), (2, 2, zeros(BlobKind::Zeroes))];
    assert_eq!(writes.iter().map(of).collect::<Vec<_>>(), expected);
    assert_eq!(bench.flusher.blocks_of(number), None, "zeros tell nothing of how fast the disk is");
}

/// What a failed batch has left on the disk is not known; what earlier ones have is.
#[test]
fn after_a_failure_its_writes_are_due_again() {
    let mut bench = Bench::new(1);
    bench.write(0..1);
    bench.write(5..6);
    bench.write(0..2);
    let (number, writes) = bench.batch();
    assert_eq!(writes, [(0..1, 3)]);
    assert_eq!(bench.flusher.ended(number, false), Ended::Failed);
    assert_eq!((bench.flusher.flushed(), bench.flusher.issued()), (Seq::ZERO, Seq(3)));
    let (number, writes) = bench.batch();
    assert_eq!(writes, [(0..1, 3)]);
    bench.flusher.ended(number, true);
    assert_eq!(bench.flusher.flushed(), Seq(1));
    let (number, writes) = bench.batch();
    assert_eq!(writes, [(5..6, 2)]);
    bench.write(5..6);
    bench.flusher.ended(number, false);
    bench.how.max_bytes *= 10;
    assert_eq!(bench.batch().1, [(1..2, 3), (5..6, 4)], "block 0 has the third's bytes, and a newer one wins");
}

/// Rules 5, 6 and 9: what was written of newer blobs counts no more than what was flushed.
#[test]
fn what_is_forgotten_is_written_again() {
    let mut bench = Bench::new(1);
    bench.write(0..1);
    bench.write(5..6);
    bench.write(0..1);
    let (number, _) = bench.batch();
    bench.flusher.ended(number, true);
    let (late, _) = bench.batch();
    bench.flusher.forget(Seq::ZERO);
    assert_eq!(bench.batch_upto(Seq(3)), None, "one is in flight still");
    assert_eq!(bench.flusher.ended(late, true), Ended::Void);
    assert_eq!(bench.flusher.flushed(), Seq::ZERO);
    bench.how.max_bytes *= 10;
    assert_eq!(bench.batch().1, [(0..1, 3), (5..6, 2)]);
}

/// Rule 8: from now on nothing is flushed that the joiner has not ACKed, whatever was written before.
#[test]
fn a_limit_that_goes_back_takes_back_what_newer_blobs_have_covered() {
    let mut bench = Bench::new(1);
    bench.write(0..1);
    bench.write(3..4);
    bench.write(0..1);
    bench.write(0..1);
    let (number, writes) = bench.batch();
    assert_eq!(writes, [(0..1, 4)]);
    bench.flusher.ended(number, true);
    bench.how.max_bytes *= 10;
    let (number, writes) = bench.batch_upto(Seq(3)).unwrap();
    let seqs: Vec<u64> = writes.iter().map(|w| w.seq.0).collect();
    assert_eq!(seqs, [3, 2], "the fourth may not be written, and the third may have to count");
    assert_eq!(bench.flusher.issued(), Seq(4), "what the disk may hold is as it was");
    bench.flusher.ended(number, true);
    assert_eq!((bench.flusher.flushed(), bench.batch_upto(Seq(3))), (Seq(3), None));
    assert_eq!(bench.batch().1, [(0..1, 4)]);
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Put(BlobKind, u64, u64),
    /// The limit follows what is there up to so many blobs behind.
    Lag(u64),
    /// The next batch, if one is due.
    Batch,
    /// The one in flight ends. After a failure those of its writes are on the disk that the mask names.
    End {
        ok: bool,
        mask: u64,
    },
    /// As where a node takes over.
    Forget,
    ForgetWhatIsDue,
}

fn op() -> impl Strategy<Value = Op> {
    let kind = prop_oneof![4 => Just(BlobKind::Write), 1 => Just(BlobKind::Zeroes), 1 => Just(BlobKind::Discard)];
    prop_oneof![
        10 => (kind, 0..BLOCKS, 1..6_u64).prop_map(|(kind, lba, blocks)| Op::Put(kind, lba, blocks)),
        2 => (0..6_u64).prop_map(Op::Lag),
        6 => Just(Op::Batch),
        6 => Just(Op::End { ok: true, mask: 0 }),
        1 => any::<u64>().prop_map(|mask| Op::End { ok: false, mask }),
        1 => Just(Op::Forget),
        1 => Just(Op::ForgetWhatIsDue),
    ]
}

/// The bench, and what must hold.
struct Model {
    bench: Bench,
    lag: u64,
    limit: Seq,
    flight: Option<(u64, Vec<WriteRange>)>,
    /// What has been written of each block since the last time that knowledge was lost.
    written: Vec<Vec<Seq>>,
    issued: Seq,
}

impl Model {
    fn new(batch_blocks: u64) -> Self {
        let bench = Bench::new(batch_blocks);
        let written = vec![vec![]; bench.disk.len()];
        Self { bench, lag: 0, limit: Seq::ZERO, flight: None, written, issued: Seq::ZERO }
    }

    fn knows_nothing(&mut self) {
        self.written.iter_mut().for_each(Vec::clear);
    }

    /// The newest blob over a block among `released + 1 ..= upto`.
    fn newest(&self, lba: u64, upto: Seq) -> Option<Seq> {
        let covers = |blob: &&Blob| blob.lba.0 <= lba && lba < blob.end().0;
        self.bench.lane.range(Seq::ZERO..=upto).filter(covers).map(|blob| blob.seq).max()
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Put(kind, lba, blocks) if self.bench.lane.len() < 64 => {
                self.bench.put(kind, lba..(lba + blocks).min(BLOCKS));
            }
            Op::Put(..) => {}
            Op::Lag(lag) => self.lag = lag,
            Op::Batch => self.batch(),
            Op::End { ok, mask } => self.end(ok, mask),
            Op::Forget => {
                let released = self.bench.lane.released();
                self.bench.flusher.forget(released);
                self.issued = released;
                // Another one has written what it had received.
                self.bench.disk.iter_mut().for_each(|on_disk| *on_disk = (*on_disk).min(released));
                self.knows_nothing();
            }
            Op::ForgetWhatIsDue => {
                self.bench.flusher.forget_what_is_due();
                self.knows_nothing();
            }
        }
        self.check();
    }

    fn batch(&mut self) {
        let limit = Seq(self.bench.lane.received().0.saturating_sub(self.lag));
        if limit < self.limit {
            self.knows_nothing();
        }
        self.limit = limit;
        let from = self.bench.flusher.flushed().next();
        let Some((number, writes)) = self.bench.batch_upto(limit) else { return };
        let upto = self.bench.flusher.taken;
        // Of zeros at the head it may have taken a part only.
        assert!(self.flight.is_none() && upto.next() >= from && upto <= limit);
        let asked_upto = upto.max(from);
        assert!(writes.is_sorted_by(|a, b| a.lba.0 + a.blocks <= b.lba.0), "{writes:?}");
        let total: u64 = writes.iter().map(|w| w.blocks).sum();
        let first = u64::from(self.bench.lane.get(from).unwrap().blocks);
        assert!(total * u64::from(BLOCK) <= self.bench.how.max_bytes.max(first * u64::from(BLOCK)), "{writes:?}");
        for write in &writes {
            let blob = *self.bench.lane.get(write.seq).unwrap();
            assert_eq!(write.source, source(&blob, write.lba, BLOCK));
            self.issued = self.issued.max(write.seq);
            for lba in write.lba.0..write.lba.0 + write.blocks {
                assert_eq!(self.newest(lba, limit), Some(write.seq), "block {lba}");
                let asked = self.bench.lane.range(from..=asked_upto).any(|b| b.lba.0 <= lba && lba < b.end().0);
                assert!(asked, "block {lba} is of no blob of the batch");
                let written = &mut self.written[usize::try_from(lba).unwrap()];
                assert!(!written.contains(&write.seq), "block {lba} is written twice");
                written.push(write.seq);
            }
        }
        assert_eq!(self.bench.flusher.issued(), self.issued);
        assert!(!writes.is_empty());
        self.flight = Some((number, writes));
    }

    fn end(&mut self, ok: bool, mask: u64) {
        let Some((number, writes)) = self.flight.take() else { return };
        for (at, write) in writes.iter().enumerate() {
            if ok || mask >> (at % 64) & 1 == 1 {
                self.bench.land(write);
            }
        }
        if self.bench.flusher.ended(number, ok) == Ended::Failed {
            // Of this batch's writes only: what earlier ones have written is still there.
            for write in &writes {
                for lba in write.lba.0..write.lba.0 + write.blocks {
                    self.written[usize::try_from(lba).unwrap()].retain(|&seq| seq != write.seq);
                }
            }
        }
    }

    /// What counts as flushed is on the disk, or something newer is. Then it is released.
    fn check(&mut self) {
        let flushed = self.bench.flusher.flushed();
        for lba in 0..BLOCKS {
            let on_disk = self.bench.disk[usize::try_from(lba).unwrap()];
            assert!(self.newest(lba, flushed).is_none_or(|seq| seq <= on_disk), "block {lba}");
        }
        self.bench.lane.release(flushed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 1500 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_flushed_is_on_the_disk(
        batch_blocks in 1..12_u64,
        max_writes in 1..8_usize,
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let mut model = Model::new(batch_blocks);
        model.bench.how.max_writes = max_writes;
        for op in ops {
            model.step(op);
        }
        model.lag = 0;
        while model.bench.flusher.flushed() < model.bench.lane.received() {
            model.step(Op::Batch);
            model.step(Op::End { ok: true, mask: 0 });
        }
        prop_assert!(model.bench.lane.is_empty());
    }
}

/// A DISCARD may cover 4 GiB, and a whole lane of writes may lie over it: that is no one batch.
#[test]
fn zeros_at_the_head_take_no_more_with_them_than_a_batch_may() {
    let mut bench = Bench::new(2);
    bench.put(BlobKind::Discard, 0..12);
    for lba in 0..11 {
        bench.write(lba..lba + 1);
    }
    bench.how.max_writes = 3;
    let mut covered = Vec::new();
    for _ in 0..12 {
        if bench.lane.is_empty() {
            break;
        }
        let (number, writes) = bench.batch();
        assert!(
            writes.len() <= 3 && writes.iter().map(|(lbas, _)| lbas.end - lbas.start).sum::<u64>() <= 2,
            "{writes:?}"
        );
        covered.extend(writes.iter().flat_map(|(lbas, _)| lbas.clone()));
        bench.flusher.ended(number, true);
        bench.lane.release(bench.flusher.flushed());
    }
    assert!(bench.lane.is_empty(), "{}", bench.flusher.flushed());
    covered.sort_unstable();
    assert_eq!(covered, (0..12).collect::<Vec<_>>(), "each block once");
}
