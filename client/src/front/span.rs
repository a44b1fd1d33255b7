//! How byte ranges lie on blocks.

use super::limits::SMALL_SPAN_BYTES;
use super::ranges::Blocks;

/// The volume as the front end sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Logical block in bytes.
    pub block_bytes: u32,
    /// Size in logical blocks.
    pub blocks: u64,
    /// The longest payload of one blob in bytes, whole blocks.
    pub max_payload: u32,
}

impl Shape {
    /// The volume's size in bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.blocks * self.block_bytes as u64
    }
}

/// A byte range and the blocks that it touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// First block touched.
    pub(crate) lba: u64,
    /// Blocks touched.
    pub(crate) blocks: u32,
    /// Bytes of the first block before the range.
    pub(crate) head: u32,
    /// Bytes of the range.
    pub(crate) len: u32,
    /// Bytes of the last block after the range.
    pub(crate) tail: u32,
}

impl Span {
    /// The blocks that `len` bytes at `offset` touch.
    pub(crate) fn of(shape: &Shape, offset: u64, len: u32) -> Self {
        let block = u64::from(shape.block_bytes);
        let end = offset + u64::from(len);
        let (lba, last) = (offset / block, end.div_ceil(block));
        let small = |n: u64| u32::try_from(n).expect("less than a block, or blocks of 4 GiB");
        Self { lba, blocks: small(last - lba), head: small(offset - lba * block), len, tail: small(last * block - end) }
    }

    /// The first part of a write of `len` bytes at `offset`: what becomes one blob.
    pub(crate) fn first_part(shape: &Shape, offset: u64, len: u32) -> Self {
        let block = shape.block_bytes;
        let all = Self::of(shape, offset, len);
        let bytes = u64::from(all.head) + u64::from(len) + u64::from(all.tail);
        if bytes <= u64::from(if all.is_whole() { shape.max_payload } else { shape.max_payload.min(SMALL_SPAN_BYTES) })
        {
            return all;
        }
        let take = match all.head {
            0 if len >= block => (len - len % block).min(shape.max_payload),
            0 => len,
            head => len.min(block - head),
        };
        Self::of(shape, offset, take)
    }

    /// Whether it begins and ends on block boundaries.
    pub(crate) const fn is_whole(&self) -> bool {
        self.head == 0 && self.tail == 0
    }

    /// The blocks touched.
    pub(crate) const fn range(&self) -> Blocks {
        self.lba..self.lba + self.blocks as u64
    }

    /// The partly covered blocks: the first, the last, or the one that is both. An empty range is none.
    pub(crate) const fn edges(&self) -> [Blocks; 2] {
        let last = self.lba + self.blocks as u64 - 1;
        let first_too = self.tail > 0 && (self.head == 0 || last != self.lba);
        [if self.head > 0 { self.lba..self.lba + 1 } else { 0..0 }, if first_too { last..last + 1 } else { 0..0 }]
    }

    /// The fully covered blocks; empty if there are none.
    pub(crate) const fn inner(&self) -> Blocks {
        let start = self.lba + (self.head > 0) as u64;
        let end = self.lba + self.blocks as u64 - (self.tail > 0) as u64;
        if end > start { start..end } else { 0..0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SHAPE: Shape = Shape { block_bytes: 4096, blocks: 1 << 20, max_payload: 1 << 20 };

    #[test]
    fn edges_and_inner_blocks() {
        let span = Span::of(&SHAPE, 4096, 8192);
        assert!(span.is_whole());
        assert_eq!((span.edges(), span.inner()), ([0..0, 0..0], 1..3));
        let span = Span::of(&SHAPE, 4097, 8192);
        assert_eq!((span.head, span.tail, span.blocks), (1, 4095, 3));
        assert_eq!((span.edges(), span.inner()), ([1..2, 3..4], 2..3));
        let span = Span::of(&SHAPE, 100, 100);
        assert_eq!((span.edges(), span.inner()), ([0..1, 0..0], 0..0));
        let span = Span::of(&SHAPE, 0, 100);
        assert_eq!((span.edges(), span.inner()), ([0..0, 0..1], 0..0));
        let span = Span::of(&SHAPE, 10240, 4096);
        assert_eq!((span.edges(), span.inner()), ([2..3, 3..4], 0..0));
    }

    #[test]
    fn a_long_write_is_cut_at_its_edges() {
        let part = Span::first_part(&SHAPE, 512, 3 << 20);
        assert_eq!((part.lba, part.blocks, part.len), (0, 1, 3584));
        let part = Span::first_part(&SHAPE, 4096, (3 << 20) - 3584);
        assert_eq!((part.lba, part.len, part.is_whole()), (1, 1 << 20, true));
        let part = Span::first_part(&SHAPE, 512, 10240);
        assert_eq!((part.lba, part.blocks, part.len), (0, 3, 10240), "a short one is one blob");
    }

    proptest! {
        #[test]
        fn parts_make_the_whole_and_fit(offset in 0..1_u64 << 30, len in 1..4_u32 << 20, small: bool) {
            let shape = if small { Shape { max_payload: 8192, ..SHAPE } } else { SHAPE };
            let (mut at, mut left) = (offset, len);
            while left > 0 {
                let part = Span::first_part(&shape, at, left);
                prop_assert!(part.len > 0 && part.len <= left);
                prop_assert!(part.blocks * shape.block_bytes <= shape.max_payload);
                prop_assert_eq!(part.lba * 4096 + u64::from(part.head), at);
                at += u64::from(part.len);
                left -= part.len;
            }
        }
    }
}
