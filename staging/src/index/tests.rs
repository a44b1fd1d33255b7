use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;

/// Blocks of the model's volume.
const BLOCKS: u64 = 48;

/// The same map, a block at a time.
#[derive(Default)]
struct Model {
    newest: Vec<Option<Seq>>,
}

impl Model {
    fn of(&mut self, lba: u64, blocks: u32) -> &mut [Option<Seq>] {
        self.newest.resize(usize::try_from(BLOCKS).unwrap(), None);
        let start = usize::try_from(lba).unwrap();
        &mut self.newest[start..start + usize::try_from(blocks).unwrap()]
    }

    /// The range in segments, each as long as can be.
    fn resolve(&mut self, lba: u64, blocks: u32) -> Vec<Segment> {
        let mut segments: Vec<Segment> = vec![];
        for (block, &seq) in (lba..).zip(self.of(lba, blocks).iter()) {
            match segments.last_mut() {
                Some(last) if last.seq == seq => last.blocks += 1,
                _ => segments.push(Segment { lba: Lba(block), blocks: 1, seq }),
            }
        }
        segments
    }
}

#[derive(Clone, Debug)]
enum Op {
    /// The next blob.
    Insert(u64, u32),
    /// The oldest blob has been released.
    ReleaseOldest,
    /// A part of a blob, or of none at all, is forgotten.
    Remove(u64, u32, u64),
    /// All of a range is taken out.
    Take(u64, u32),
    /// What was taken out and not put back yet comes back.
    PutBack,
    Clear,
}

fn range() -> impl Strategy<Value = (u64, u32)> {
    (0..BLOCKS).prop_flat_map(|lba| {
        let most = u32::try_from(BLOCKS - lba).unwrap();
        (Just(lba), 0..=most.min(20))
    })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        10 => range().prop_map(|(lba, blocks)| Op::Insert(lba, blocks)),
        6 => Just(Op::ReleaseOldest),
        3 => (range(), 1_u64..40).prop_map(|((lba, blocks), seq)| Op::Remove(lba, blocks, seq)),
        3 => range().prop_map(|(lba, blocks)| Op::Take(lba, blocks)),
        2 => Just(Op::PutBack),
        1 => Just(Op::Clear),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 1500 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_agrees_with_a_map_of_single_blocks(
        ops in prop::collection::vec(op(), 1..60),
        reads in prop::collection::vec(range(), 1..4),
    ) {
        let (mut index, mut model) = (Index::new(), Model::default());
        let mut blobs: Vec<(u64, u32, Seq)> = vec![];
        let mut last = Seq::ZERO;
        let mut out: Vec<Segment> = vec![];
        for op in ops {
            match op {
                Op::Insert(lba, blocks) => {
                    last = last.next();
                    index.insert(Lba(lba), blocks, last);
                    model.of(lba, blocks).fill(Some(last));
                    blobs.push((lba, blocks, last));
                }
                Op::ReleaseOldest if blobs.is_empty() => {}
                Op::ReleaseOldest => {
                    let (lba, blocks, seq) = blobs.remove(0);
                    index.remove(Lba(lba), blocks, seq);
                    for newest in model.of(lba, blocks) {
                        newest.take_if(|newest| *newest == seq);
                    }
                    prop_assert!(index.extents.values().all(|extent| extent.seq > seq), "{} is left", seq);
                    out.retain(|part| part.seq > Some(seq));
                }
                Op::Remove(lba, blocks, seq) => {
                    index.remove(Lba(lba), blocks, Seq(seq));
                    for newest in model.of(lba, blocks) {
                        newest.take_if(|newest| *newest == Seq(seq));
                    }
                }
                Op::Take(lba, blocks) => {
                    let mut taken = vec![];
                    index.take(Lba(lba), blocks, |start, end, seq| {
                        taken.push(Segment { lba: start, blocks: u32::try_from(end.0 - start.0).unwrap(), seq: Some(seq) });
                    });
                    taken.reverse();
                    let mut held = model.resolve(lba, blocks);
                    held.retain(|segment| segment.seq.is_some());
                    prop_assert_eq!(&taken, &held);
                    model.of(lba, blocks).fill(None);
                    out.extend(taken);
                }
                Op::PutBack => {
                    // Of one block the newest first, as whatever comes later finds it held.
                    out.sort_by_key(|part| core::cmp::Reverse(part.seq));
                    for Segment { lba, blocks, seq } in out.drain(..) {
                        let seq = seq.unwrap();
                        index.put_back(lba, blocks, seq);
                        for newest in model.of(lba.0, blocks) {
                            newest.get_or_insert(seq);
                        }
                    }
                }
                Op::Clear => {
                    index.clear();
                    out.clear();
                    model.newest.clear();
                    blobs.clear();
                    last = Seq::ZERO;
                }
            }
            prop_assert_eq!(index.is_empty(), model.newest.iter().all(Option::is_none));
            for &(lba, blocks) in reads.iter().chain(&[(0, u32::try_from(BLOCKS).unwrap())]) {
                let segments: Vec<Segment> = index.resolve(Lba(lba), blocks).collect();
                prop_assert_eq!(segments, model.resolve(lba, blocks));
            }
        }
    }
}

fn segment(lba: u64, blocks: u32, seq: u64) -> Segment {
    Segment { lba: Lba(lba), blocks, seq: (seq > 0).then_some(Seq(seq)) }
}

#[test]
fn the_newest_wins_and_leaves_the_older_its_sides() {
    let mut index = Index::new();
    index.insert(Lba(10), 10, Seq(1));
    index.insert(Lba(14), 2, Seq(2));
    let all: Vec<Segment> = index.resolve(Lba(8), 14).collect();
    assert_eq!(all, [segment(8, 2, 0), segment(10, 4, 1), segment(14, 2, 2), segment(16, 4, 1), segment(20, 2, 0)],);
    index.remove(Lba(10), 10, Seq(1));
    let all: Vec<Segment> = index.resolve(Lba(8), 14).collect();
    assert_eq!(all, [segment(8, 6, 0), segment(14, 2, 2), segment(16, 6, 0)]);
}

#[test]
fn two_extents_a_blob_bound_the_map() {
    let mut index = Index::new();
    index.insert(Lba(0), 1000, Seq(1));
    for seq in 2..=100 {
        index.insert(Lba(seq * 7), 3, Seq(seq));
        assert!(index.extents.len() <= 2 * usize::try_from(seq).unwrap());
    }
}

#[test]
fn the_volumes_last_block_is_a_block() {
    let mut index = Index::new();
    index.insert(Lba(u64::MAX - 4), 4, Seq(1));
    let all: Vec<Segment> = index.resolve(Lba(u64::MAX - 6), 6).collect();
    assert_eq!(all, [segment(u64::MAX - 6, 2, 0), segment(u64::MAX - 4, 4, 1)]);
}

#[test]
#[should_panic(expected = "#4 is inserted after #5")]
fn blobs_come_in_order() {
    let mut index = Index::new();
    index.insert(Lba(0), 1, Seq(5));
    index.insert(Lba(9), 1, Seq(4));
}
