//! What a flush batch has already got.
//!
//! A batch is composed from the newest blob backwards: each blob gives the blocks that no newer one of the batch has
//! covered. So no two writes of a batch overlap, and the newest wins (rule 2).

use alloc::vec::Vec;

use twinsan_wire::{Lba, Seq};

/// A set of block ranges, each with the blob that covered it first.
///
/// Sorted in a vector: [`Cover::clear`] keeps its memory, so a steady flusher allocates nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cover {
    /// By first block; none overlap.
    parts: Vec<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Part {
    start: u64,
    end: u64,
    owner: Seq,
}

impl Cover {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self { parts: Vec::new() }
    }

    /// An empty one with memory for `parts` ranges. A blob adds no more parts than there are gaps in its range, so
    /// twice the lane's slots is enough for any batch.
    #[must_use]
    pub fn with_capacity(parts: usize) -> Self {
        Self { parts: Vec::with_capacity(parts) }
    }

    /// Covers the blocks `start..end` for `owner`. `free` is called for each part that nobody had covered, in block
    /// order; the others stay with whom they have.
    pub fn paint(&mut self, start: Lba, end: Lba, owner: Seq, mut free: impl FnMut(Lba, Lba)) {
        let (mut at, end) = (start.0, end.0);
        let mut index = self.first_after(at);
        while at < end {
            let next = self.parts.get(index).filter(|part| part.start < end).copied();
            let gap_end = next.map_or(end, |part| part.start);
            if at < gap_end {
                free(Lba(at), Lba(gap_end));
                self.parts.insert(index, Part { start: at, end: gap_end, owner });
                index += 1;
            }
            at = next.map_or(end, |part| part.end);
            index += 1;
        }
    }

    /// The newest of the blobs that cover any of the blocks `start..end`; `None`: all of them are free.
    #[must_use]
    pub fn covered_by(&self, start: Lba, end: Lba) -> Option<Seq> {
        if start >= end {
            return None;
        }
        let from = self.first_after(start.0);
        let over = self.parts[from..].iter().take_while(|part| part.start < end.0);
        over.map(|part| part.owner).max()
    }

    /// Whether nothing is covered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Uncovers everything and keeps the memory.
    pub fn clear(&mut self) {
        self.parts.clear();
    }

    /// The index of the first part that ends after block `at`.
    fn first_after(&self, at: u64) -> usize {
        self.parts.partition_point(|part| part.end <= at)
    }
}

#[cfg(test)]
mod tests;
