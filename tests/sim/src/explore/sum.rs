//! Fingerprints of 128 bits: two independent sums, each by a folded multiplication for every word.
//!
//! Two states with one fingerprint would be taken for one. With 10 million states that has a chance of 10^-25.

use std::hash::Hasher;

/// Two independent sums over all that is put in.
#[derive(Clone, Copy)]
pub(crate) struct Sum(u64, u64);

impl Sum {
    pub(crate) fn new() -> Self {
        Self(0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344)
    }

    pub(crate) fn end(self) -> u128 {
        u128::from(fold(self.0, 0x9e37_79b9_7f4a_7c15)) << 64 | u128::from(fold(self.1, 0xbf58_476d_1ce4_e5b9))
    }
}

/// Both halves of the product, one over the other.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    let [low, high] = halves(product);
    low ^ high
}

impl Hasher for Sum {
    fn finish(&self) -> u64 {
        self.0 ^ self.1
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, n: u8) {
        self.write_u64(n.into());
    }

    fn write_u32(&mut self, n: u32) {
        self.write_u64(n.into());
    }

    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }

    fn write_isize(&mut self, n: isize) {
        self.write_u64(n.cast_unsigned() as u64);
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = fold(self.0 ^ n, 0xa076_1d64_78bd_642f).wrapping_add(0xe703_7ed1_a0b4_28db);
        self.1 = fold(self.1.rotate_left(23) ^ n, 0x8ebc_6af0_9c88_c6e3).wrapping_add(0x5899_65cc_7537_4cc3);
    }
}

/// The lower and the upper half.
pub(crate) fn halves(n: u128) -> [u64; 2] {
    let low = n & u128::from(u64::MAX);
    [low, n >> 64].map(|half| u64::try_from(half).expect("64 bits"))
}
