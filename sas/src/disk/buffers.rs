//! What one request to the kernel moves, and the memory that it moves it from or to.

use std::sync::Arc;

use libc::iovec;
use twinsan_arena::Arena;

use super::Op;
use crate::layout::PAGE_BYTES;
use crate::page::Page;

/// The most bytes of one request: past a few MiB a disk gains nothing, and a read behind it waits.
pub(super) const MAX_TRANSFER_BYTES: u64 = 4 << 20;
/// The most pieces of one request. The kernel takes 1024 (`IOV_MAX`).
pub(super) const MAX_PIECES: usize = 256;

/// A contiguous piece of one of the queue's arenas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Which arena, by its index in the queue's options.
    pub(super) arena: usize,
    /// Byte in it.
    pub(super) offset: usize,
    /// Bytes.
    pub(super) len: usize,
}

/// Pieces, one after the other; most transfers have one, which costs no memory of its own.
#[derive(Debug)]
pub(super) struct Pieces {
    first: Piece,
    more: Vec<Piece>,
}

impl Pieces {
    pub(super) const fn one(piece: Piece) -> Self {
        Self { first: piece, more: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        1 + self.more.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Piece> {
        std::iter::once(&self.first).chain(&self.more)
    }

    /// Adds what comes next: one that is adjacent in memory too makes the last one longer.
    pub(super) fn push(&mut self, piece: Piece) {
        let last = self.more.last_mut().unwrap_or(&mut self.first);
        if last.arena == piece.arena && last.offset + last.len == piece.offset {
            last.len += piece.len;
        } else {
            self.more.push(piece);
        }
    }
}

/// Where a transfer's bytes are.
#[derive(Debug)]
pub(super) enum Memory {
    /// It has none (zeroing, flushing).
    None,
    /// In the arenas.
    Arenas(Pieces),
    /// In a page of its own.
    Page(Box<Page>),
    /// Zeros without end.
    Zeros,
}

/// What a transfer asks of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// Read `len` bytes.
    Read,
    /// Write `len` bytes; past the disk's cache by the request itself, if `dsync`.
    Write {
        /// `RWF_DSYNC`.
        dsync: bool,
    },
    /// Make `len` bytes read as zeros and keep their space: `FALLOC_FL_ZERO_RANGE`.
    ZeroRange,
    /// Make `len` bytes read as zeros and give their space back: `FALLOC_FL_PUNCH_HOLE`.
    PunchHole,
    /// Flush the disk's cache: fsync, of the data alone if `data`.
    Sync {
        /// fdatasync.
        data: bool,
    },
}

/// One request, and how far it has come: a short one is continued.
#[derive(Debug)]
pub(super) struct Transfer {
    /// The queue's job that it belongs to.
    pub(super) job: usize,
    /// What is asked.
    pub(super) ask: Ask,
    /// Byte on the disk.
    pub(super) offset: u64,
    /// Bytes.
    pub(super) len: u64,
    /// How many of them are done.
    pub(super) done: u64,
    /// Where the bytes are.
    pub(super) memory: Memory,
}

impl Transfer {
    /// For an error.
    pub(super) const fn op(&self) -> Op {
        match self.ask {
            Ask::Read => Op::Read,
            Ask::Write { .. } if matches!(self.memory, Memory::Zeros) => Op::Zero,
            Ask::Write { .. } => Op::Write,
            Ask::ZeroRange | Ask::PunchHole => Op::Zero,
            Ask::Sync { .. } => Op::Sync,
        }
    }

    /// Whether it changes the disk (so needs the claim).
    pub(super) const fn is_change(&self) -> bool {
        !matches!(self.ask, Ask::Read)
    }

    /// Bytes not done yet.
    pub(super) const fn rest(&self) -> u64 {
        self.len - self.done
    }
}

/// All memory that requests may point into. It lives until the last of them has ended.
pub(super) struct Buffers {
    arenas: Vec<Arc<Arena>>,
    zeros: Box<[Page; ZERO_PAGES]>,
}

/// Zeros are written from a buffer of this many pages, over and over.
const ZERO_PAGES: usize = 64;
const ZERO_BYTES: usize = ZERO_PAGES * PAGE_BYTES;

impl Buffers {
    pub(super) fn new(arenas: Vec<Arc<Arena>>) -> Self {
        Self { arenas, zeros: Box::new([Page::ZERO; ZERO_PAGES]) }
    }

    pub(super) fn arenas(&self) -> &[Arc<Arena>] {
        &self.arenas
    }

    /// Never frees the arenas: for a ring that can't be waited for any more.
    pub(super) fn leak(&mut self) {
        self.arenas.drain(..).for_each(core::mem::forget);
        core::mem::forget(core::mem::replace(&mut self.zeros, Box::new([Page::ZERO; ZERO_PAGES])));
    }

    /// Puts the next bytes of `transfer` into `iov`, at most `limit` bytes and as many pieces as one request takes.
    ///
    /// # Panics
    /// If a piece leads beyond its arena.
    pub(super) fn gather(&self, transfer: &mut Transfer, limit: u64, iov: &mut Vec<iovec>) {
        iov.clear();
        let mut room = to_usize(transfer.rest().min(limit));
        let mut skip = to_usize(transfer.done);
        let mut push = |base: *mut u8, len: usize, room: &mut usize| {
            let len = len.min(*room);
            if len > 0 && iov.len() < MAX_PIECES {
                iov.push(iovec { iov_base: base.cast(), iov_len: len });
                *room -= len;
            }
        };
        match &mut transfer.memory {
            Memory::None => {}
            Memory::Arenas(pieces) => {
                for piece in pieces.iter() {
                    let hidden = skip.min(piece.len);
                    skip -= hidden;
                    push(self.address(piece, hidden), piece.len - hidden, &mut room);
                }
            }
            Memory::Page(page) => push(page.0[skip..].as_mut_ptr(), PAGE_BYTES - skip, &mut room),
            Memory::Zeros => {
                // Only ever read by the kernel: gather() for a write is the only use of Memory::Zeros.
                let base = self.zeros.as_ptr().cast::<u8>().cast_mut();
                for _ in 0..MAX_PIECES {
                    push(base, ZERO_BYTES, &mut room);
                }
            }
        }
    }

    fn address(&self, piece: &Piece, skip: usize) -> *mut u8 {
        let arena = &self.arenas[piece.arena];
        // Panics where the piece's end is not in the arena.
        let end = piece.offset.checked_add(piece.len).expect("a piece past the end of memory");
        let _: *mut u8 = arena.addr(end);
        arena.addr(piece.offset + skip)
    }
}

/// Lengths of transfers are bounded by what fits in memory or by [`MAX_TRANSFER_BYTES`]; a zero range may be longer,
/// and is then written in steps.
fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
