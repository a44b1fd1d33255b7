//! A window drives two lanes, against a model that knows the ring block by block.

use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;
use twinsan_wire::{BlobKind, Generation, Lba};

use super::*;
use crate::lane::{Accept, Lane};

const BLOCK: u32 = 512;
const GENERATION: Generation = Generation(1);

/// The ring, a block at a time: who uses it. Knows neither positions mod anything nor the oldest blob's position.
struct Model {
    /// The blob that uses each block of the ring. A block skipped before the wrap counts as the blob's before the skip.
    used: Vec<Option<u64>>,
    /// The next block, without wrap.
    cursor: u64,
    /// Unreleased seqs.
    live: Vec<u64>,
    slots: usize,
    last: u64,
}

impl Model {
    fn new(geometry: Geometry) -> Self {
        let blocks = geometry.ring_bytes() / u64::from(BLOCK);
        Self {
            used: vec![None; to_usize(blocks)],
            cursor: 0,
            live: vec![],
            slots: to_usize(geometry.slots().into()),
            last: 0,
        }
    }

    fn index(&self, block: u64) -> usize {
        to_usize(block) % self.used.len()
    }

    /// Walks from the cursor to the first place where `blocks` blocks follow each other in memory.
    fn place(&self, blocks: u64) -> Option<u64> {
        if self.live.len() == self.slots {
            return None;
        }
        let mut at = self.cursor;
        while self.index(at) + to_usize(blocks) > self.used.len() {
            at += 1;
        }
        let needed = if blocks == 0 { at..at } else { self.cursor..at + blocks };
        // Skipped blocks are needed too; nothing before the cursor is. An empty ring has nothing to spare.
        needed.clone().all(|block| self.used[self.index(block)].is_none()).then_some(at)
    }

    fn push(&mut self, at: u64, blocks: u64) {
        let before = self.last;
        self.last += 1;
        self.live.push(self.last);
        if blocks == 0 {
            return;
        }
        for block in self.cursor..at {
            let index = self.index(block);
            self.used[index] = self.live.contains(&before).then_some(before);
        }
        for block in at..at + blocks {
            let index = self.index(block);
            assert_eq!(self.used[index], None, "two live payloads share a block");
            self.used[index] = Some(self.last);
        }
        self.cursor = at + blocks;
    }

    fn free(&mut self, upto: u64) {
        self.live.retain(|&seq| seq > upto);
        for used in &mut self.used {
            used.take_if(|seq| *seq <= upto);
        }
    }
}

fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap()
}

#[derive(Clone, Debug)]
enum Op {
    /// Write so many blocks (at most the longest payload); 0: a blob without payload.
    Write(u32),
    /// Node `.0` receives up to `.1` blobs more.
    Receive(usize, usize),
    /// Node `.0` releases up to `.1` blobs more.
    Release(usize, usize),
    /// Node `.0` begins anew, as a joiner does, with the oldest blob that the client holds.
    Rejoin(usize),
    /// The client hears of up to so many releases more.
    Free(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0_u32..12).prop_map(Op::Write),
        6 => (0_usize..2, 1_usize..6).prop_map(|(node, count)| Op::Receive(node, count)),
        6 => (0_usize..2, 1_usize..6).prop_map(|(node, count)| Op::Release(node, count)),
        1 => (0_usize..2).prop_map(Op::Rejoin),
        6 => (1_u64..6).prop_map(Op::Free),
    ]
}

struct World {
    geometry: Geometry,
    window: Window,
    model: Model,
    nodes: [Lane; 2],
}

impl World {
    fn new(geometry: Geometry) -> Self {
        let lane = || Lane::new(geometry, GENERATION, Some(Seq(1)));
        Self { geometry, window: Window::new(geometry), model: Model::new(geometry), nodes: [lane(), lane()] }
    }

    fn step(&mut self, op: &Op) {
        match *op {
            Op::Write(blocks) => drop(self.write(blocks)),
            Op::Receive(node, count) => self.receive(node, count),
            Op::Release(node, count) => {
                let lane = &mut self.nodes[node];
                let upto = lane.received().min(Seq(lane.released().0 + count as u64));
                let released = lane.release(upto).count();
                assert!(released <= count);
            }
            Op::Rejoin(node) => {
                self.nodes[node] = Lane::new(self.geometry, GENERATION, None);
                self.nodes[node].begin(self.window.freed().next());
            }
            Op::Free(count) => {
                let released = self.nodes[0].released().min(self.nodes[1].released());
                self.free(released.min(Seq(self.window.freed().0 + count)));
            }
        }
    }

    /// Writes, if the window takes it, which it must whenever the model does.
    fn write(&mut self, blocks: u32) -> Option<Seq> {
        let blocks = blocks.min(self.geometry.max_payload_blocks());
        let place = self.window.place(blocks * BLOCK);
        let model = self.model.place(blocks.into());
        assert_eq!(place, model.map(|block| block * u64::from(BLOCK)), "{blocks} blocks");
        let seq = self.window.next_seq();
        self.model.push(model?, blocks.into());
        self.window.push(Blob {
            generation: GENERATION,
            seq,
            kind: if blocks == 0 { BlobKind::Zeroes } else { BlobKind::Write },
            lba: Lba(0),
            blocks: blocks.max(1),
            data_pos: place?,
            payload_len: blocks * BLOCK,
        });
        Some(seq)
    }

    fn receive(&mut self, node: usize, count: usize) {
        let lane = &mut self.nodes[node];
        // From the last one received, which is a duplicate if it is held: as after a resume.
        for blob in self.window.iter_from(lane.received()).take(count) {
            let expected = if blob.seq <= lane.received() { Accept::Duplicate } else { Accept::New };
            assert_eq!(lane.accept(*blob), Ok(expected), "an honest client is refused");
        }
    }

    fn free(&mut self, upto: Seq) {
        self.window.free(upto);
        self.model.free(upto.0);
        assert_eq!(self.window.freed().0, self.model.last - self.model.live.len() as u64);
    }

    /// Everything is received, released and freed; then the longest payload fits, wherever the ring stands.
    fn drain(&mut self) {
        for node in 0..2 {
            self.receive(node, usize::MAX);
            let received = self.nodes[node].received();
            assert_eq!(received.next(), self.window.next_seq());
            drop(self.nodes[node].release(received));
        }
        self.free(self.nodes[0].released());
        assert!(self.window.is_empty());
        let longest = self.geometry.max_payload_blocks();
        assert!(self.write(longest).is_some(), "an empty ring takes the longest payload");
        self.receive(0, usize::MAX);
        self.receive(1, usize::MAX);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 1500 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn window_and_lanes_agree_and_no_live_payload_is_overwritten(
        slots in prop_oneof![Just(1), Just(2), Just(4), Just(8), Just(16)],
        ring_blocks in 2_u64..24,
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let mut world = World::new(Geometry::new(slots, ring_blocks * u64::from(BLOCK), BLOCK).unwrap());
        for op in &ops {
            world.step(op);
        }
        world.drain();
    }
}

#[test]
fn the_longest_payloads_go_round_for_ever() {
    // Of an odd ring half is not a divisor: every lap skips.
    let mut world = World::new(Geometry::new(4, 7 * u64::from(BLOCK), BLOCK).unwrap());
    for _ in 0..50 {
        world.drain();
    }
    assert!(world.window.next_seq() == Seq(51));
}

#[test]
fn what_is_held_can_be_sent_again() {
    let mut world = World::new(Geometry::new(8, 16 * u64::from(BLOCK), BLOCK).unwrap());
    for blocks in [1, 0, 2, 3] {
        world.write(blocks).unwrap();
    }
    world.window.free(Seq(1));
    let from = |seq| world.window.iter_from(Seq(seq)).map(|blob| blob.seq.0).collect::<Vec<_>>();
    assert_eq!(from(0), [2, 3, 4]);
    assert_eq!(from(3), [3, 4]);
    assert!(from(5).is_empty());
    assert_eq!((world.window.len(), world.window.is_empty()), (3, false));
    assert_eq!(world.window.into_iter().count(), 3);
    assert_eq!(world.window.get(Seq(3)).map(|blob| blob.data_pos), Some(512));
    assert_eq!(world.window.get(Seq(1)), None);
    assert_eq!(world.window.range(Seq(2)..=Seq(3)).count(), 2);
}

#[test]
#[should_panic(expected = "a payload of 700 bytes: must be whole blocks of 512 bytes, at most 2048 bytes")]
fn a_payload_that_can_never_fit_is_the_callers_mistake() {
    let _ = Window::new(Geometry::new(8, 8 * 512, 512).unwrap()).place(700);
}

#[test]
#[should_panic(expected = "#1 is not where its payload belongs")]
fn a_blob_goes_where_it_was_placed() {
    let mut window = Window::new(Geometry::new(8, 8 * 512, 512).unwrap());
    window.push(Blob {
        generation: GENERATION,
        seq: Seq(1),
        kind: BlobKind::Write,
        lba: Lba(0),
        blocks: 1,
        data_pos: 512,
        payload_len: 512,
    });
}

#[test]
#[should_panic(expected = "release up to #1, but the last blob is #0")]
fn what_was_never_sent_is_not_freed() {
    Window::new(Geometry::new(8, 8 * 512, 512).unwrap()).free(Seq(1));
}
