//! From the ranges of a batch to requests: adjacent ranges become one vectored write.

use std::ops::Range;

use twinsan_wire::BlobKind;

use super::buffers::{Ask, MAX_PIECES, MAX_TRANSFER_BYTES, Memory, Piece, Pieces, Transfer};
use super::geometry::{Geometry, WriteCache};

/// One contiguous write of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteRange {
    /// Byte on the disk, a multiple of the disk's logical block.
    pub offset: u64,
    /// Bytes, a multiple of the disk's logical block, not 0.
    pub len: u64,
    /// With what.
    pub source: Source,
}

/// Where a write's bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// From one of the queue's arenas.
    Arena {
        /// Its index in the queue's options.
        arena: usize,
        /// Byte in it, a multiple of the disk's memory alignment.
        offset: usize,
    },
    /// Zeros: [`BlobKind::Discard`] may give the space back, anything else keeps it. Reads as zeros in any case.
    Zeros(BlobKind),
}

/// One contiguous read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadRange {
    /// Byte on the disk, a multiple of the disk's logical block.
    pub offset: u64,
    /// Bytes, a multiple of the disk's logical block, not 0.
    pub len: u64,
    /// Into which arena, by its index in the queue's options.
    pub arena: usize,
    /// Byte in it, a multiple of the disk's memory alignment.
    pub arena_offset: usize,
}

/// How a batch gets past the disk's cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durability {
    /// Every write by itself (`RWF_DSYNC`).
    EachWrite,
    /// One flush after the last write, of data alone (fdatasync) if `data`.
    FlushAfter {
        /// No extents were zeroed.
        data: bool,
    },
}

/// On a block device with a volatile cache, a lone write up to this size goes past the cache by itself: the kernel makes
/// `RWF_DSYNC` a FUA write, or one write and one flush where the disk has no FUA, without a second trip through the
/// ring. With two or more writes each would pay for a flush of its own, so there is one flush after all of them.
///
/// On a file a flush of its own is always the better one: the filesystem finishes an asynchronous `RWF_DSYNC` write in a
/// work queue. Measured (ext4 on virtio, volatile cache, no FUA, busy machine; the test `measure_ways_past_the_cache`):
/// lone 4 KiB write 1.1 ms, write and then fdatasync 0.10 ms; 16 writes 0.29 ms and 0.20 ms.
const LONE_WRITE_BYTES: u64 = 1 << 20;

/// The requests of a batch.
///
/// # Panics
/// If the ranges are not sorted, overlap (two writes over one block in flight together, rule 2), are empty, unaligned,
/// or outside `data`.
pub(super) fn plan_writes(
    ranges: &[WriteRange],
    geometry: &Geometry,
    data: &Range<u64>,
    job: usize,
) -> (Vec<Transfer>, Durability) {
    let mut transfers: Vec<Transfer> = Vec::with_capacity(ranges.len());
    let mut end = data.start;
    let mut zeros = false;
    for range in ranges {
        check_range(range.offset, range.len, end..data.end, geometry);
        end = range.offset + range.len;
        let (ask, memory) = match range.source {
            Source::Arena { arena, offset } => {
                check_memory(offset, geometry);
                let piece =
                    Piece { arena, offset, len: usize::try_from(range.len).expect("a write larger than memory") };
                (Ask::Write { dsync: false }, Memory::Arenas(Pieces::one(piece)))
            }
            Source::Zeros(BlobKind::Discard) => (Ask::PunchHole, Memory::None),
            Source::Zeros(_) => (Ask::ZeroRange, Memory::None),
        };
        zeros |= matches!(memory, Memory::None);
        let next = Transfer { job, ask, offset: range.offset, len: range.len, done: 0, memory };
        match transfers.last_mut() {
            Some(last) if joins(last, &next) => join(last, next),
            _ => transfers.push(next),
        }
    }
    let lone = transfers.len() == 1 && transfers[0].len <= LONE_WRITE_BYTES;
    let each = match geometry.cache {
        // RWF_DSYNC costs nothing where there is no cache.
        WriteCache::Through => true,
        WriteCache::Back => lone,
        WriteCache::Unknown => false,
    };
    if each && !zeros {
        for transfer in &mut transfers {
            transfer.ask = Ask::Write { dsync: true };
        }
        return (transfers, Durability::EachWrite);
    }
    (transfers, Durability::FlushAfter { data: !zeros })
}

/// The requests of a read.
///
/// # Panics
/// If a range is empty, unaligned or outside `data`.
pub(super) fn plan_reads(ranges: &[ReadRange], geometry: &Geometry, data: &Range<u64>, job: usize) -> Vec<Transfer> {
    let transfer = |range: &ReadRange| {
        check_range(range.offset, range.len, data.clone(), geometry);
        check_memory(range.arena_offset, geometry);
        let len = usize::try_from(range.len).expect("a read larger than memory");
        let piece = Piece { arena: range.arena, offset: range.arena_offset, len };
        let memory = Memory::Arenas(Pieces::one(piece));
        Transfer { job, ask: Ask::Read, offset: range.offset, len: range.len, done: 0, memory }
    };
    ranges.iter().map(transfer).collect()
}

fn check_range(offset: u64, len: u64, within: Range<u64>, geometry: &Geometry) {
    let end = offset.checked_add(len).expect("a range past 2^64");
    let block = u64::from(geometry.logical);
    assert!(
        len > 0 && within.start <= offset && end <= within.end,
        "bytes {offset}..{end} are not inside {within:?}: outside the volume, unsorted, or overlapping"
    );
    assert!(
        offset.is_multiple_of(block) && len.is_multiple_of(block),
        "bytes {offset}..{end} are not whole blocks of {block}"
    );
}

fn check_memory(offset: usize, geometry: &Geometry) {
    let align = geometry.mem_align as usize;
    assert!(offset.is_multiple_of(align), "memory at {offset} is not aligned to {align}");
}

fn joins(last: &Transfer, next: &Transfer) -> bool {
    if last.ask != next.ask || last.offset + last.len != next.offset {
        return false;
    }
    match &last.memory {
        Memory::Arenas(pieces) => pieces.len() < MAX_PIECES && last.len + next.len <= MAX_TRANSFER_BYTES,
        _ => true,
    }
}

fn join(last: &mut Transfer, next: Transfer) {
    last.len += next.len;
    if let (Memory::Arenas(pieces), Memory::Arenas(more)) = (&mut last.memory, next.memory) {
        // Blobs that were staged one after the other are adjacent in memory too.
        more.iter().for_each(|piece| pieces.push(*piece));
    }
}
