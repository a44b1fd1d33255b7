//! What is in RAM only, and how much of that may complete: a takeover writes all of it before it serves (rule 5).
//!
//! With a takeover budget, a dual primary completes only as much as the disk, at the pace at which it took the last
//! batches, would write within it. What is received beyond waits for older blobs to be flushed, and for nothing else.
//! Completing later than one may is never wrong, so no rule of the protocol knows of this. Where the disk takes nothing at all
//! the budget does not count, as rule 11 wants it.

use alloc::collections::VecDeque;

use twinsan_staging::Lane;
use twinsan_wire::Seq;

use crate::machine::Replica;
use crate::state::{Phase, State};

/// Of more than this time of the disk's, the pace remembers the newer part.
const MEMORY_US: u64 = 4_000_000;
/// In less time than this nothing has been measured.
const LEAST_US: u64 = 20_000;

/// How fast the disk takes what is flushed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Pace {
    bytes: u64,
    us: u64,
}

impl Pace {
    /// A batch has ended: what was written, and how long it took.
    pub(crate) fn took(&mut self, bytes: u64, us: u64) {
        self.bytes += bytes;
        self.us += us;
        if self.us > MEMORY_US {
            self.bytes /= 2;
            self.us /= 2;
        }
    }

    /// Bytes that it takes in so many milliseconds; `None` as long as that is not known.
    pub(crate) fn within(self, ms: u64) -> Option<u64> {
        if self.us < LEAST_US {
            return None;
        }
        let bytes = u128::from(self.bytes) * u128::from(ms) * 1000 / u128::from(self.us);
        Some(u64::try_from(bytes).unwrap_or(u64::MAX))
    }
}

/// Which blobs fit into the budget: those of (`flushed`, `upto`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Exposure {
    flushed: Seq,
    upto: Seq,
    /// What each of them covers, in blocks.
    blocks: VecDeque<u32>,
    /// All of them together.
    total_blocks: u64,
}

impl Exposure {
    /// None of those after `flushed`, which are in `lane`.
    pub(crate) fn restart(&mut self, flushed: Seq) {
        *self = Self { flushed, upto: flushed, ..Self::default() };
    }

    /// Blobs up to here may complete.
    pub(crate) fn upto(&self) -> Seq {
        self.upto
    }

    /// Moves on: blobs up to `flushed` are on the disk, those up to the lane's last one are here, and `bound` bytes may be
    /// in RAM only; a blob that is alone may be larger.
    pub(crate) fn follow(&mut self, lane: &Lane, flushed: Seq, bound: u64) {
        if flushed < self.flushed || flushed > self.upto {
            self.restart(flushed);
        }
        while self.flushed < flushed {
            self.total_blocks -= u64::from(self.blocks.pop_front().expect("one for each blob up to `upto`"));
            self.flushed = self.flushed.next();
        }
        let block_bytes = u64::from(lane.geometry().block_bytes());
        for blob in lane.range(self.upto.next()..=lane.received()) {
            let total = self.total_blocks + u64::from(blob.blocks);
            if self.total_blocks > 0 && total.saturating_mul(block_bytes) > bound {
                break;
            }
            self.total_blocks = total;
            self.blocks.push_back(blob.blocks);
            self.upto = blob.seq;
        }
    }
}

impl Replica {
    /// The last blob that may complete within the takeover budget.
    pub(crate) fn within_budget(&self) -> Seq {
        if self.has_budget() { self.exposure.upto() } else { self.received() }
    }

    /// Where the disk takes nothing, writes go on in RAM until the lanes are full (rule 11), budget or not.
    fn has_budget(&self) -> bool {
        self.cfg.timing.takeover_budget_ms > 0 && self.reaches_disk() && !self.failing.flush
    }

    /// A write that both nodes hold waits for older ones to be on the disk: the takeover budget is used up.
    #[must_use]
    pub fn is_at_budget(&self) -> bool {
        let State::Primary(Phase::Dual { acked, .. }) = self.state else { return false };
        self.within_budget() < self.received().min(acked)
    }

    pub(crate) fn follow_exposure(&mut self) {
        if self.cfg.timing.takeover_budget_ms == 0 {
            return;
        }
        let flushed = self.flusher.flushed();
        let (State::Primary(Phase::Dual { .. }), Some(lane)) = (self.state, &self.lane) else {
            self.exposure.restart(flushed);
            return;
        };
        self.exposure.follow(lane, flushed, self.budget_bytes());
    }

    /// What may be in RAM only. Less than a batch would only make batches small.
    fn budget_bytes(&self) -> u64 {
        let paced = self.pace.within(self.cfg.timing.takeover_budget_ms);
        paced.map_or(u64::MAX, |bytes| bytes.max(self.cfg.max_batch_bytes))
    }

    /// Half of the takeover budget is used up: a flusher that went on resting would begin when a write waits for it.
    pub(crate) fn is_half_exposed(&self) -> bool {
        let exposed = self.exposure.total_blocks * u64::from(self.cfg.geometry.block_bytes());
        self.has_budget() && exposed >= self.budget_bytes() / 2
    }

    /// Rule 5: all up to `target` is on the disk.
    pub(crate) fn note_drained(&mut self, target: Seq) {
        let block_bytes = u64::from(self.cfg.geometry.block_bytes());
        let staged = self.lane.iter().flat_map(|lane| lane.range(lane.released().next()..=target));
        let (blobs, blocks) = staged.fold((0, 0), |(n, blocks), blob| (n + 1, blocks + u64::from(blob.blocks)));
        let ms = self.now - self.timers.drain_began;
        self.drained = Some(Drained { blobs, bytes: blocks * block_bytes, ms });
    }
}

/// What a takeover had to write before it served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Drained {
    /// So many blobs.
    pub blobs: u64,
    /// So many bytes of the disk are covered by them; those covered twice are written once.
    pub bytes: u64,
    /// So long it took, until they were past the disk's cache.
    pub ms: u64,
}
