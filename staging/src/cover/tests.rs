use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;

const BLOCKS: usize = 64;

fn range() -> impl Strategy<Value = (usize, usize)> {
    (0..BLOCKS, 0_usize..24).prop_map(|(start, len)| (start, (start + len).min(BLOCKS)))
}

fn lba(block: usize) -> Lba {
    Lba(block as u64)
}

fn painted(cover: &mut Cover, start: u64, end: u64, owner: u64) -> Vec<(u64, u64)> {
    let mut parts = vec![];
    cover.paint(Lba(start), Lba(end), Seq(owner), |from, to| parts.push((from.0, to.0)));
    parts
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 1500 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_agrees_with_a_map_of_single_blocks(
        batches in prop::collection::vec(prop::collection::vec((range(), range()), 0..30), 1..4),
    ) {
        let mut cover = Cover::new();
        for batch in batches {
            cover.clear();
            let mut model = [None::<Seq>; BLOCKS];
            for (owner, ((start, end), (from, to))) in (1..).zip(batch).map(|(n, ranges)| (Seq(1000 - n), ranges)) {
                let mut free = vec![];
                cover.paint(lba(start), lba(end), owner, |from, to| free.push((from.0, to.0)));
                // In order, none empty, as long as can be.
                prop_assert!(free.iter().all(|(from, to)| from < to));
                prop_assert!(free.windows(2).all(|pair| pair[0].1 < pair[1].0));
                let mut expected = vec![];
                for (block, cell) in model.iter_mut().enumerate().take(end).skip(start) {
                    if cell.is_none() {
                        expected.push(block as u64);
                        *cell = Some(owner);
                    }
                }
                prop_assert_eq!(free.iter().flat_map(|&(from, to)| from..to).collect::<Vec<_>>(), expected);

                let over = model.get(from..to).unwrap_or_default();
                prop_assert_eq!(cover.covered_by(lba(from), lba(to)), over.iter().flatten().max().copied());
                prop_assert_eq!(cover.is_empty(), model.iter().all(Option::is_none));
            }
        }
    }
}

#[test]
fn an_older_blob_gets_what_newer_ones_left() {
    let mut cover = Cover::new();
    assert_eq!(painted(&mut cover, 10, 20, 9), [(10, 20)]);
    assert_eq!(painted(&mut cover, 30, 40, 8), [(30, 40)]);
    assert_eq!(painted(&mut cover, 5, 45, 7), [(5, 10), (20, 30), (40, 45)]);
    assert_eq!(painted(&mut cover, 5, 45, 6), []);
    assert_eq!(cover.covered_by(Lba(5), Lba(10)), Some(Seq(7)));
    assert_eq!(cover.covered_by(Lba(5), Lba(11)), Some(Seq(9)));
    assert_eq!(cover.covered_by(Lba(20), Lba(31)), Some(Seq(8)));
    assert_eq!(cover.covered_by(Lba(45), Lba(60)), None);
    assert_eq!(cover.covered_by(Lba(0), Lba(5)), None);
}

#[test]
fn a_cleared_one_keeps_its_memory() {
    let mut cover = Cover::with_capacity(16);
    for round in 0..3 {
        for n in 0..8 {
            assert_eq!(painted(&mut cover, n * 10, n * 10 + 5, 100 - n).len(), 1, "round {round}");
        }
        assert_eq!(cover.parts.capacity(), 16);
        cover.clear();
        assert!(cover.is_empty());
    }
}
