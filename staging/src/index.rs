//! Which staged blob is newest for each block (rule 2).

use alloc::collections::BTreeMap;
use alloc::collections::btree_map;
use alloc::vec::Vec;

use twinsan_wire::{Lba, Seq};

/// A newest-wins map from block ranges to blobs.
///
/// Extents never overlap. One blob adds at most two of them (its own, and the rest of one that it splits), so a lane's
/// slots bound the map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Index {
    /// By first block.
    extents: BTreeMap<u64, Extent>,
    newest: Seq,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Extent {
    /// The block after the last one.
    end: u64,
    seq: Seq,
}

/// A part of a range, and the newest blob over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First block.
    pub lba: Lba,
    /// Number of blocks.
    pub blocks: u32,
    /// The blob; `None`: nothing is staged there.
    pub seq: Option<Seq>,
}

impl Index {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self { extents: BTreeMap::new(), newest: Seq::ZERO }
    }

    /// The blob `seq` covers `blocks` blocks from `lba`.
    ///
    /// # Panics
    /// If `seq` is not newer than every one inserted since [`Index::clear`]: blobs arrive in order of seq.
    pub fn insert(&mut self, lba: Lba, blocks: u32, seq: Seq) {
        assert!(seq > self.newest, "{seq} is inserted after {}", self.newest);
        self.newest = seq;
        let (start, end) = bounds(lba, blocks);
        if start < end {
            self.cut(start, end, |_, _, _| true);
            self.extents.insert(start, Extent { end, seq });
        }
    }

    /// Forgets `seq` in `blocks` blocks from `lba`, where it is still the newest: it has been released.
    pub fn remove(&mut self, lba: Lba, blocks: u32, seq: Seq) {
        let (start, end) = bounds(lba, blocks);
        if start < end {
            self.cut(start, end, |_, _, held| held == seq);
        }
    }

    /// Forgets all that is held of `blocks` blocks from `lba`, and says what it was: each part's first block, the block
    /// after its last one, and the blob. The last part comes first.
    pub fn take(&mut self, lba: Lba, blocks: u32, mut taken: impl FnMut(Lba, Lba, Seq)) {
        let (start, end) = bounds(lba, blocks);
        if start < end {
            self.cut(start, end, |first, end, seq| {
                taken(Lba(first), Lba(end), seq);
                true
            });
        }
    }

    /// What [`Index::take`] has said is held again, where nothing has come since.
    pub fn put_back(&mut self, lba: Lba, blocks: u32, seq: Seq) {
        let bare: Vec<Segment> = self.resolve(lba, blocks).filter(|part| part.seq.is_none()).collect();
        for part in bare {
            let (mut start, mut end) = bounds(part.lba, part.blocks);
            // An extent is as long as can be.
            if let Some((&first, left)) = self.extents.range(..start).next_back()
                && (left.end, left.seq) == (start, seq)
            {
                start = first;
            }
            if let Some(right) = self.extents.get(&end).copied().filter(|right| right.seq == seq) {
                self.extents.remove(&end);
                end = right.end;
            }
            self.extents.insert(start, Extent { end, seq });
        }
    }

    /// The newest blob over each part of a range: the whole range, in block order, without gaps.
    pub fn resolve(&self, lba: Lba, blocks: u32) -> Resolve<'_> {
        let (at, end) = bounds(lba, blocks);
        let from = self.extents.range(..=at).next_back().map_or(at, |(&first, _)| first);
        Resolve { extents: self.extents.range(from..end.max(from)), pending: None, at, end }
    }

    /// Whether nothing is staged.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.extents.is_empty()
    }

    /// Forgets everything; a new session may begin with seq 1.
    pub fn clear(&mut self) {
        self.extents.clear();
        self.newest = Seq::ZERO;
    }

    /// Takes the blocks `start..end`, at least one, out of every extent that `which` names: it is told what of them the
    /// extent has (first block, the block after the last), and its seq.
    fn cut(&mut self, start: u64, end: u64, mut which: impl FnMut(u64, u64, Seq) -> bool) {
        // Backwards: so the next one to look at is always the last that begins before what is done.
        let mut before = end;
        while let Some((&first, held)) = self.extents.range_mut(..before).next_back() {
            let extent = *held;
            if extent.end <= start {
                break;
            }
            if which(first.max(start), extent.end.min(end), extent.seq) {
                if first < start {
                    held.end = start;
                } else {
                    self.extents.remove(&first);
                }
                if extent.end > end {
                    self.extents.insert(end, extent);
                }
            }
            if first <= start {
                break;
            }
            before = first;
        }
    }
}

fn bounds(lba: Lba, blocks: u32) -> (u64, u64) {
    (lba.0, lba.0.checked_add(u64::from(blocks)).expect("the caller has checked the range against the volume"))
}

/// See [`Index::resolve`].
#[derive(Clone, Debug)]
pub struct Resolve<'a> {
    extents: btree_map::Range<'a, u64, Extent>,
    /// The extent after a gap that was just handed out.
    pending: Option<(u64, Extent)>,
    at: u64,
    end: u64,
}

impl Iterator for Resolve<'_> {
    type Item = Segment;

    fn next(&mut self) -> Option<Segment> {
        if self.at >= self.end {
            return None;
        }
        // The first extent may end before the range begins.
        let at = self.at;
        let next = self.pending.take().or_else(|| {
            let mut extents = self.extents.by_ref().map(|(&first, &extent)| (first, extent));
            extents.find(|(_, extent)| extent.end > at)
        });
        let (until, seq) = match next {
            Some((first, extent)) if first > at => {
                self.pending = Some((first, extent));
                (first, None)
            }
            Some((_, extent)) => (extent.end.min(self.end), Some(extent.seq)),
            None => (self.end, None),
        };
        self.at = until;
        let blocks = u32::try_from(until - at).expect("a part of a range whose length is a u32");
        Some(Segment { lba: Lba(at), blocks, seq })
    }
}

#[cfg(test)]
mod tests;
