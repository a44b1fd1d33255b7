//! What is written, and what must be there: every block carries the number of the write that it came from.

/// The block that the model keeps account of; the least that any workload writes in.
pub const BLOCK: usize = 512;

/// A small generator, the same numbers on every run (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.bits() % n
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Fills whole blocks from block `first` on with the content of write `stamp`.
pub fn fill(buffer: &mut [u8], first: u64, stamp: u64) {
    for (block, at) in buffer.chunks_exact_mut(BLOCK).zip(first..) {
        fill_block(block, at, stamp);
    }
}

/// The words of a block follow from each other: times this, and
const TIMES: u64 = 0x5851_f42d_4c95_7f2d;
/// plus this.
const PLUS: u64 = 0x1405_7b7e_f767_814f;
/// The same, four words on.
const TIMES_4: u64 = TIMES.wrapping_mul(TIMES).wrapping_mul(TIMES).wrapping_mul(TIMES);
const PLUS_4: u64 = next(next(next(PLUS)));

const fn next(word: u64) -> u64 {
    word.wrapping_mul(TIMES).wrapping_add(PLUS)
}

/// Four words at a time, which the processor computes side by side: whoever measures with this must not be the slowest.
fn fill_block(block: &mut [u8], at: u64, stamp: u64) {
    let first = mix(at ^ stamp.rotate_left(32));
    let mut words = [first, next(first), next(next(first)), next(next(next(first)))];
    for four in block.chunks_exact_mut(32) {
        for (bytes, word) in four.chunks_exact_mut(8).zip(&mut words) {
            bytes.copy_from_slice(&word.to_le_bytes());
            *word = word.wrapping_mul(TIMES_4).wrapping_add(PLUS_4);
        }
    }
    block[..8].copy_from_slice(&stamp.to_le_bytes());
    block[8..16].copy_from_slice(&at.to_le_bytes());
}

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Zeros throughout.
    Zeros,
    /// What the write of this number put there, every byte of it.
    Write(u64),
    /// Something else.
    Other,
}

/// What block `at` holds.
#[must_use]
pub fn content(block: &[u8], at: u64) -> Content {
    let stamp = u64::from_le_bytes(block[..8].try_into().expect("8 bytes"));
    let mut whole = [0; BLOCK];
    if block == whole {
        return Content::Zeros;
    }
    fill_block(&mut whole, at, stamp);
    if block == whole { Content::Write(stamp) } else { Content::Other }
}

/// Which write every block came from, by the word of completions.
#[derive(Debug)]
pub struct Model {
    stamps: Vec<u64>,
    next: u64,
}

/// A block that does not hold what was completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The block's number.
    pub block: u64,
    /// The write that completed there last.
    pub expected: u64,
    /// The write whose number the block carries; its bytes may be anybody's.
    pub found: u64,
}

impl Model {
    /// A volume of `bytes`, nothing written.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let blocks = usize::try_from(bytes).expect("a volume that fits this machine") / BLOCK;
        Self { stamps: vec![0; blocks], next: 1 }
    }

    /// The number for the next write.
    pub fn next_stamp(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// A write has completed.
    pub fn completed(&mut self, first: u64, blocks: usize, stamp: u64) {
        let first = usize::try_from(first).expect("a block of this volume");
        self.stamps[first..first + blocks].fill(stamp);
    }

    /// Checks what was read from block `first` on. Blocks never written are not judged.
    pub fn check(&self, first: u64, data: &[u8], lost: &mut Vec<Lost>) {
        let mut expected_bytes = [0; BLOCK];
        let start = usize::try_from(first).expect("a block of this volume");
        for ((block, at), &expected) in data.chunks_exact(BLOCK).zip(first..).zip(&self.stamps[start..]) {
            if expected == 0 {
                continue;
            }
            fill_block(&mut expected_bytes, at, expected);
            if block != expected_bytes {
                let found = u64::from_le_bytes(block[..8].try_into().expect("8 bytes"));
                lost.push(Lost { block: at, expected, found });
            }
        }
    }

    /// Looks at what was read from block `first` on, at each block's number and its write's only: cheap enough to be done
    /// with every read of a measurement. The first block that is not what was completed.
    #[must_use]
    pub fn glance(&self, first: u64, data: &[u8]) -> Option<Lost> {
        let start = usize::try_from(first).expect("a block of this volume");
        let mut blocks = data.chunks_exact(BLOCK).zip(first..).zip(&self.stamps[start..]);
        blocks.find_map(|((block, at), &expected)| {
            let word = |i: usize| u64::from_le_bytes(block[i..i + 8].try_into().expect("8 bytes"));
            let is_it = expected == 0 || (word(0) == expected && word(8) == at);
            (!is_it).then(|| Lost { block: at, expected, found: word(0) })
        })
    }

    /// Whether anything was completed from block `first` on.
    #[must_use]
    pub fn knows(&self, first: u64, blocks: usize) -> bool {
        let first = usize::try_from(first).expect("a block of this volume");
        self.stamps[first..first + blocks].iter().any(|&stamp| stamp != 0)
    }

    /// How many different completed writes the lost blocks stand for.
    #[must_use]
    pub fn writes_lost(lost: &[Lost]) -> u64 {
        let mut stamps: Vec<u64> = lost.iter().map(|l| l.expected).collect();
        stamps.sort_unstable();
        stamps.dedup();
        stamps.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_completed_is_found_and_anything_else_is_lost() {
        let mut model = Model::new(64 * BLOCK as u64);
        let mut volume = vec![0; 64 * BLOCK];
        for (first, blocks) in [(0_u64, 8_usize), (4, 8), (60, 4)] {
            let stamp = model.next_stamp();
            let at = usize::try_from(first).unwrap() * BLOCK;
            fill(&mut volume[at..at + blocks * BLOCK], first, stamp);
            model.completed(first, blocks, stamp);
        }
        let mut lost = Vec::new();
        model.check(0, &volume, &mut lost);
        assert_eq!(lost, []);
        volume[5 * BLOCK + 100] ^= 1;
        model.check(4, &volume[4 * BLOCK..], &mut lost);
        assert_eq!(lost, [Lost { block: 5, expected: 2, found: 2 }]);
        assert_eq!(Model::writes_lost(&lost), 1);
    }

    #[test]
    fn a_glance_sees_a_block_of_another_write_and_a_block_from_elsewhere() {
        let mut model = Model::new(8 * BLOCK as u64);
        let mut data = vec![0; 2 * BLOCK];
        assert_eq!(model.glance(2, &data), None, "nothing was written there");
        let stamp = model.next_stamp();
        model.completed(2, 2, stamp);
        assert!(model.knows(1, 2) && !model.knows(4, 4));
        assert_eq!(model.glance(2, &data), Some(Lost { block: 2, expected: 1, found: 0 }));
        fill(&mut data, 2, stamp);
        assert_eq!(model.glance(2, &data), None);
        fill(&mut data[BLOCK..], 3, 9);
        assert_eq!(model.glance(2, &data), Some(Lost { block: 3, expected: 1, found: 9 }));
        fill(&mut data, 1, stamp);
        assert_eq!(model.glance(2, &data), Some(Lost { block: 2, expected: 1, found: 1 }));
    }

    #[test]
    fn the_words_of_a_block_follow_from_each_other() {
        // Volumes that were written by an earlier version are still read.
        let (at, stamp) = (7_u64, 3_u64);
        let mut block = [0; BLOCK];
        fill(&mut block, at, stamp);
        let mut word = mix(at ^ stamp.rotate_left(32));
        for (i, bytes) in block.chunks_exact(8).enumerate() {
            let expected = [stamp, at].get(i).copied().unwrap_or(word);
            assert_eq!(u64::from_le_bytes(bytes.try_into().unwrap()), expected, "word {i}");
            word = next(word);
        }
    }

    #[test]
    fn blocks_of_one_write_differ_from_each_other_and_from_another_write() {
        let mut a = vec![0; 2 * BLOCK];
        let mut b = vec![0; 2 * BLOCK];
        fill(&mut a, 7, 1);
        fill(&mut b, 7, 2);
        assert_ne!(a[..BLOCK], a[BLOCK..]);
        assert_ne!(a, b);
    }
}
