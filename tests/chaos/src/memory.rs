//! Whether the programs grow. A process that is killed and started again begins anew, so what counts is the most that its
//! successive lives have had: the most of the first third of the time against the most of the last.

use std::time::Duration;

use serde::Serialize;

/// The memory of one program over time.
#[derive(Clone, Debug, Default)]
pub struct Series {
    samples: Vec<(Duration, u64)>,
}

/// What it came to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Memory {
    /// Bytes at the first look.
    pub first: u64,
    /// At the last.
    pub last: u64,
    /// The most.
    pub most: u64,
    /// By how much the most of the last third of the time is more than the most of the first third; less counts as 0.
    pub growth: u64,
    /// That is nothing that an hour would make much of.
    pub flat: bool,
}

/// Growth below that is noise: an allocator's arenas, a thread more.
const NOISE_BYTES: u64 = 2 << 20;
/// And below one in so many of what there was.
const NOISE_PART: u64 = 20;

impl Series {
    /// One look, in order of time.
    pub fn push(&mut self, at: Duration, bytes: u64) {
        self.samples.push((at, bytes));
    }

    /// The last look.
    #[must_use]
    pub fn now(&self) -> Option<u64> {
        self.samples.last().map(|&(_, bytes)| bytes)
    }

    /// What it came to; `None` without a look.
    #[must_use]
    pub fn summary(&self) -> Option<Memory> {
        let (&(begin, first), &(end, last)) = (self.samples.first()?, self.samples.last()?);
        let third = (end - begin) / 3;
        let most = |part: &dyn Fn(Duration) -> bool| {
            self.samples.iter().filter(|&&(at, _)| part(at)).map(|&(_, bytes)| bytes).max()
        };
        let before = most(&|at| at <= begin + third)?;
        let growth = most(&|at| at >= end - third)?.saturating_sub(before);
        let flat = growth <= NOISE_BYTES.max(before / NOISE_PART);
        Some(Memory { first, last, most: most(&|_| true)?, growth, flat })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(of: impl Fn(u64) -> u64) -> Memory {
        let mut series = Series::default();
        for second in 0..90 {
            series.push(Duration::from_secs(second), of(second));
        }
        series.summary().unwrap()
    }

    #[test]
    fn lives_that_begin_anew_are_flat_and_a_leak_is_not() {
        let lives = series(|second| (40 << 20) + (second % 10) * 4096);
        assert!(lives.flat && lives.growth == 0, "{lives:?}");
        assert_eq!((lives.first, lives.most), (40 << 20, (40 << 20) + 9 * 4096));
        let leak = series(|second| (40 << 20) + second * (256 << 10));
        assert!(!leak.flat && leak.growth > 10 << 20, "{leak:?}");
    }

    #[test]
    fn nothing_seen_is_no_summary() {
        assert_eq!(Series::default().summary(), None);
    }
}
