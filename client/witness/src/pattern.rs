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

fn fill_block(block: &mut [u8], at: u64, stamp: u64) {
    let mut word = mix(at ^ stamp.rotate_left(32));
    for (i, bytes) in block.chunks_exact_mut(8).enumerate() {
        let value = match i {
            0 => stamp,
            1 => at,
            _ => word,
        };
        bytes.copy_from_slice(&value.to_le_bytes());
        word = word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
    }
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
    fn blocks_of_one_write_differ_from_each_other_and_from_another_write() {
        let mut a = vec![0; 2 * BLOCK];
        let mut b = vec![0; 2 * BLOCK];
        fill(&mut a, 7, 1);
        fill(&mut b, 7, 2);
        assert_ne!(a[..BLOCK], a[BLOCK..]);
        assert_ne!(a, b);
    }
}
