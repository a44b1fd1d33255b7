//! A volume in RAM whose every step the test decides.

use std::cell::RefCell;

use twinsan_arena::PagePolicy;
use twinsan_staging::{Geometry, Window};
use twinsan_wire::{Blob, BlobKind, Generation, Lba, Seq};

use super::{Backend, Shape};
use crate::memory::Memory;

pub(super) const BLOCK: u32 = 4096;
pub(super) const BLOCKS: u64 = 512;
pub(super) const SIZE: u64 = BLOCKS * BLOCK as u64;
pub(super) const RING: u64 = 128 << 10;
const SLOTS: u32 = 16;

thread_local! {
    // Prefaulting the read buffers takes longer than a test does.
    static MEMORY: RefCell<Option<Memory>> = const { RefCell::new(None) };
}

/// The client's memory, one for all tests of a thread.
pub(super) fn memory() -> Memory {
    MEMORY.with_borrow_mut(|memory| {
        memory.get_or_insert_with(|| Memory::new("test", RING, PagePolicy::Small, false).expect("memory")).clone()
    })
}

fn geometry() -> Geometry {
    Geometry::new(SLOTS, RING, BLOCK).unwrap()
}

/// The volume's.
pub(super) fn shape() -> Shape {
    Shape { block_bytes: BLOCK, blocks: BLOCKS, max_payload: geometry().max_payload() }
}

/// A volume in RAM.
pub(super) struct Model {
    memory: Memory,
    pub(super) window: Window,
    /// What has been committed, in the order of the seqs.
    pub(super) disk: Vec<u8>,
    /// Reads that have not been answered: what they will say was fixed when they were asked.
    pub(super) reads: Vec<(u32, Vec<u8>)>,
    /// Every commit.
    pub(super) log: Vec<(BlobKind, u64, u32)>,
    /// Every commit's first byte, and its bytes.
    pub(super) blobs: Vec<(usize, Vec<u8>)>,
    pub(super) written: Seq,
}

impl Model {
    pub(super) fn new() -> Self {
        Self::with_disk(vec![0; usize::try_from(SIZE).unwrap()])
    }

    /// A new session with a volume that holds this.
    pub(super) fn with_disk(disk: Vec<u8>) -> Self {
        Self {
            memory: memory(),
            window: Window::new(geometry()),
            disk,
            reads: Vec::new(),
            log: Vec::new(),
            blobs: Vec::new(),
            written: Seq::ZERO,
        }
    }

    /// Puts the answer of the read at `at` into its buffer, which is returned.
    pub(super) fn answer_read(&mut self, at: usize) -> u32 {
        let (slot, bytes) = self.reads.swap_remove(at);
        self.memory.arena().copy_in(Memory::read_slot(slot), &bytes);
        slot
    }
}

impl Backend for Model {
    fn place(&mut self, payload_len: u32) -> Option<u64> {
        self.window.place(payload_len)
    }

    fn write(&mut self, kind: BlobKind, lba: Lba, blocks: u32) -> Seq {
        let payload_len = if kind == BlobKind::Write { blocks * BLOCK } else { 0 };
        let data_pos = self.window.place(payload_len).expect("place said so");
        let seq = self.window.next_seq();
        self.window.push(Blob { generation: Generation(1), seq, kind, lba, blocks, data_pos, payload_len });
        let at = usize::try_from(lba.0 * u64::from(BLOCK)).unwrap();
        let to = &mut self.disk[at..at + blocks as usize * BLOCK as usize];
        match kind {
            BlobKind::Write => self.memory.arena().copy_out(self.memory.staged(data_pos), to),
            BlobKind::Zeroes | BlobKind::Discard => to.fill(0),
        }
        self.blobs.push((at, to.to_vec()));
        self.log.push((kind, lba.0, blocks));
        self.written = seq;
        seq
    }

    fn read(&mut self, lba: Lba, blocks: u32, slot: u32) {
        let at = usize::try_from(lba.0 * u64::from(BLOCK)).unwrap();
        self.reads.push((slot, self.disk[at..at + blocks as usize * BLOCK as usize].to_vec()));
    }
}

/// Bytes that tell where they came from.
pub(super) fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| seed.wrapping_mul(31).wrapping_add(u8::try_from(at % 251).unwrap()) | 1).collect()
}
