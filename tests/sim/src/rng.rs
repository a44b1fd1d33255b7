//! The one source of chance: a splitmix64 sequence. Same seed, same run, on every host and for ever.

/// A small random generator.
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
    /// See [`Rng::without_chance`].
    fixed: bool,
}

impl Rng {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut rng = Self { state: seed ^ 0x7477_696e_7361_6e00, fixed: false };
        rng.bits();
        rng
    }

    /// Where somebody else chooses (the explorer): every number drawn is the lowest, every coin shows heads, and what
    /// has but a chance does not happen. Only [`Rng::bits`] go on being different, as they make names.
    #[must_use]
    pub fn without_chance() -> Self {
        Self { state: 0, fixed: true }
    }

    /// Goes on from a place that only these decide; not where there is no chance.
    pub(crate) fn go_to(&mut self, seed: u64, place: [u64; 2]) {
        if !self.fixed {
            *self = Self::new(seed);
            for part in place {
                self.state ^= part.wrapping_mul(0xd6e8_feb8_6659_fd93);
                self.bits();
                self.state = self.state.rotate_left(23);
            }
        }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    ///
    /// # Panics
    /// If `n` is zero.
    pub fn below(&mut self, n: u64) -> u64 {
        assert!(n > 0, "nothing is below zero");
        if self.fixed { 0 } else { self.bits() % n }
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// An index into something of `len` elements.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("below a usize")
    }

    /// True `permille` times out of a thousand.
    pub fn chance(&mut self, permille: u64) -> bool {
        !self.fixed && self.below(1000) < permille
    }

    /// Coin.
    pub fn coin(&mut self) -> bool {
        self.fixed || self.bits() >> 63 == 1
    }

    /// Mostly close to `low`, seldom as long as `high`, and now and then ten times that.
    pub fn latency(&mut self, low: u64, high: u64) -> u64 {
        match self.below(100) {
            0..=69 => self.between(low, low + (high - low) / 4),
            70..=97 => self.between(low, high),
            _ => self.between(high, high * 10),
        }
    }
}
