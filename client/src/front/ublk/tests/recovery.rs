//! Processes that die at any moment, and their successors: no request is lost, fails, or is undone.

use proptest::prelude::*;
use twinsan_ublk::Command;
use twinsan_wire::Seq;

use super::{BLOCK, Bench, Kernel, SIZE, blocks};
use crate::front::testing::{Model, memory, pattern, shape};
use crate::front::ublk::UblkFront;

/// Callers, each with a tag of its own.
const CALLERS: u16 = 16;
/// Blocks that belong to one tag's caller, who has one request at a time.
const OWN: u64 = 8;

#[derive(Clone, Debug)]
enum Step {
    /// A caller without an open request writes or zeroes some of its blocks.
    Ask { tag: u16, at: u64, count: u64, seed: u8 },
    /// The front does what it can.
    Run,
    /// Everything written so far is durable.
    Durable,
    /// Everything that is open becomes durable, up to so many per cent of it, and the process dies before or after the
    /// kernel hears of that.
    Die { survives: u64, heard: bool },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..CALLERS, 0..OWN, 1..OWN, any::<u8>())
            .prop_map(|(tag, at, count, seed)| Step::Ask { tag, at, count: count.min(OWN - at), seed }),
        3 => Just(Step::Run),
        2 => Just(Step::Durable),
        1 => (0..=100_u64, any::<bool>()).prop_map(|(survives, heard)| Step::Die { survives, heard }),
    ]
}

struct World {
    bench: Bench,
    /// The volume as its callers have been told that it is, each for its own blocks.
    expected: Vec<u8>,
    /// By tag: what the open request will have made of the volume.
    open: Vec<Option<(usize, Vec<u8>)>>,
    /// The volume when this session began.
    began: Vec<u8>,
}

impl World {
    fn new() -> Self {
        let bench = Bench::new(None);
        let expected = bench.model.disk.clone();
        Self { bench, began: expected.clone(), expected, open: vec![None; usize::from(CALLERS)] }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Ask { tag, at, count, seed } => self.ask(tag, at, count, seed),
            Step::Run => self.run(),
            Step::Durable => {
                self.bench.durable(self.bench.model.written);
                self.told();
            }
            Step::Die { survives, heard } => self.die(survives, heard),
        }
    }

    fn ask(&mut self, tag: u16, at: u64, count: u64, seed: u8) {
        if self.open[usize::from(tag)].is_some() {
            return;
        }
        let offset = (u64::from(tag) * OWN + at) * u64::from(BLOCK);
        let len = blocks(usize::try_from(count).unwrap());
        let (command, bytes) = if seed == 0 {
            (Command::WriteZeroes { no_hole: true }, vec![0; len])
        } else {
            (Command::Write, pattern(seed, len))
        };
        self.bench.kernel().ask(tag, command, offset, bytes.clone());
        self.open[usize::from(tag)] = Some((usize::try_from(offset).unwrap(), bytes));
    }

    fn run(&mut self) {
        self.bench.run();
        self.told();
    }

    fn told(&mut self) {
        for (tag, result, _) in self.bench.done() {
            assert!(result.is_ok(), "no request fails");
            let (at, bytes) = self.open[usize::from(tag)].take().expect("only what is open is completed");
            self.expected[at..at + bytes.len()].copy_from_slice(&bytes);
        }
    }

    /// The nodes flush what they hold of the dead session: at least all that was completed, maybe more of it.
    fn die(&mut self, survives: u64, heard: bool) {
        let (durable, written) = (self.bench.front.requests.completed, self.bench.model.written);
        let upto = Seq(durable.0 + (written.0 - durable.0) * survives / 100);
        let mut disk = self.began.clone();
        for (at, bytes) in &self.bench.model.blobs[..usize::try_from(upto.0).unwrap()] {
            disk[*at..*at + bytes.len()].copy_from_slice(bytes);
        }
        if heard {
            self.bench.front.writes_completed(upto);
            self.bench.front.send();
            self.told();
        }
        // What the driver was not told comes again.
        let old = self.bench.front.detach().expect("the kernel is there");
        let tags = old.tags.into_inner();
        let mut kernel = Kernel::new();
        for (tag, request) in (0..).zip(tags) {
            if let Some((request, pages)) = request {
                kernel.ask_len(tag, request, pages);
            }
        }
        let mut front = UblkFront::new(shape(), None, memory());
        front.attach(kernel);
        self.began = disk.clone();
        self.bench = Bench { front, model: Model::with_disk(disk), now_ms: 0 };
    }

    fn finish(mut self) -> Result<(), TestCaseError> {
        for _ in 0..1000 {
            self.run();
            self.bench.durable(self.bench.model.written);
            self.told();
            if self.open.iter().all(Option::is_none) {
                prop_assert!(self.bench.front.is_idle());
                prop_assert!(self.bench.model.disk == self.expected, "what was completed is there, and nothing else");
                prop_assert_eq!(self.expected.len() as u64, SIZE);
                return Ok(());
            }
        }
        Err(TestCaseError::fail("requests that never end"))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn requests_survive_every_death_of_their_server(steps in prop::collection::vec(step(), 1..80)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.finish()?;
    }
}
