//! Properties against a byte array.

use proptest::prelude::*;
use twinsan_nbd::proto::{cmd, flag};

use super::bench::{Bench, Client, SIZE, pattern};

/// A part of the volume that is small enough for requests to meet.
const ARENA: u64 = 96 << 10;

#[derive(Clone, Debug)]
enum Op {
    Read,
    Write(u8),
    Zeroes { no_hole: bool },
    Trim,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => Just(Op::Read),
        4 => any::<u8>().prop_map(Op::Write),
        1 => any::<bool>().prop_map(|no_hole| Op::Zeroes { no_hole }),
        1 => Just(Op::Trim),
    ]
}

/// Aligned or not, short or long.
fn range() -> impl Strategy<Value = (u64, u32)> {
    let offset =
        prop_oneof![0..ARENA, (0..ARENA / 4096).prop_map(|n| n * 4096), (0..ARENA / 512).prop_map(|n| n * 512)];
    let len = prop_oneof![1..300_u32, 1..100_000_u32, (1..20_u32).prop_map(|n| n * 4096)];
    (offset, len).prop_map(|(offset, len)| (offset, len.min(u32::try_from(SIZE - offset).unwrap())))
}

fn request(client: &mut Client, op: &Op, (offset, len): (u64, u32)) -> Vec<u8> {
    match *op {
        Op::Read => client.read(offset, len),
        Op::Write(seed) => client.write(offset, &pattern(seed, len as usize)),
        Op::Zeroes { no_hole } => {
            let flags = if no_hole { flag::NO_HOLE } else { 0 };
            client.make(cmd::WRITE_ZEROES, flags, offset, len, &[])
        }
        Op::Trim => client.make(cmd::TRIM, 0, offset, len, &[]),
    }
}

fn apply(expected: &mut [u8], op: &Op, (offset, len): (u64, u32)) {
    let (from, to) = (usize::try_from(offset).unwrap(), usize::try_from(offset).unwrap() + len as usize);
    match *op {
        Op::Read => {}
        Op::Write(seed) => expected[from..to].copy_from_slice(&pattern(seed, len as usize)),
        Op::Zeroes { .. } => expected[from..to].fill(0),
        Op::Trim => {
            let (from, to) = (from.next_multiple_of(4096), to / 4096 * 4096);
            if from < to {
                expected[from..to].fill(0);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn one_request_at_a_time_is_a_byte_array(
        script in prop::collection::vec((0..3_usize, op(), range()), 1..30),
    ) {
        let mut bench = Bench::new();
        let mut clients = [bench.client(false), bench.client(true), bench.client(true)];
        let mut expected = vec![0; usize::try_from(SIZE).unwrap()];
        for (who, op, range) in script {
            let bytes = request(&mut clients[who], &op, range);
            let reply = bench.request(&mut clients[who], &bytes);
            prop_assert_eq!(reply.error, 0);
            apply(&mut expected, &op, range);
            if matches!(op, Op::Read) {
                let at = usize::try_from(range.0).unwrap();
                prop_assert!(reply.data == expected[at..at + range.1 as usize], "{range:?}");
            }
        }
        prop_assert!(bench.model.disk == expected);
        prop_assert!(bench.front.is_idle());
    }

    /// Every client writes its own bytes only, one request after another, but they share blocks and everything runs at
    /// once: payloads come in pieces, reads and writes complete late and in any order. No client may undo another's.
    #[test]
    fn clients_that_share_blocks_do_not_undo_each_other(
        scripts in prop::collection::vec(prop::collection::vec((op(), range()), 1..8), 2..5),
        steps in prop::collection::vec((any::<u8>(), any::<u16>()), 50..400),
    ) {
        let mut run = Concurrent::new(scripts);
        for (what, how) in steps {
            run.step(what, usize::from(how))?;
        }
        run.finish()?;
    }
}

/// Several clients at once.
struct Concurrent {
    bench: Bench,
    clients: Vec<One>,
    stripes: u64,
}

/// One of them.
struct One {
    client: Client,
    script: Vec<(Op, (u64, u32))>,
    next: usize,
    /// The request that has not been answered.
    open: Option<Vec<u8>>,
    /// Its own bytes as they have to be.
    expected: Vec<u8>,
}

/// Bytes that belong to one client in turn with the others.
const STRIPE: u64 = 700;

impl Concurrent {
    fn new(scripts: Vec<Vec<(Op, (u64, u32))>>) -> Self {
        let mut bench = Bench::new();
        let stripes = scripts.len() as u64;
        let clients = scripts
            .into_iter()
            .enumerate()
            .map(|(at, script)| {
                let script = script.into_iter().map(|(op, range)| (op, own(range, at as u64, stripes))).collect();
                let expected = vec![0; usize::try_from(SIZE).unwrap()];
                One { client: bench.client(at % 2 == 0), script, next: 0, open: None, expected }
            })
            .collect();
        Self { bench, clients, stripes }
    }

    fn step(&mut self, what: u8, how: usize) -> Result<(), TestCaseError> {
        let count = self.clients.len();
        match what % 5 {
            0 | 1 => {
                let one = &mut self.clients[how % count];
                one.begin();
                one.client.send(how % 9000 + 1);
            }
            2 if self.bench.open_reads() > 0 => self.bench.complete_read(how % self.bench.open_reads()),
            3 => {
                let written = self.bench.model.written;
                self.bench.front.writes_completed(written);
                self.bench.release(written);
            }
            _ => {}
        }
        self.bench.run();
        self.clients.iter_mut().try_for_each(One::take)
    }

    fn finish(mut self) -> Result<(), TestCaseError> {
        while self.clients.iter().any(|one| one.open.is_some() || one.next < one.script.len()) {
            for at in 0..self.clients.len() {
                self.clients[at].begin();
                self.bench.exchange(&mut self.clients[at].client);
            }
            self.bench.complete_all();
            self.clients.iter_mut().try_for_each(One::take)?;
        }
        prop_assert!(self.bench.front.is_idle());
        for (at, byte) in self.bench.model.disk.iter().enumerate() {
            let owner = usize::try_from(at as u64 / STRIPE % self.stripes).unwrap();
            prop_assert_eq!(*byte, self.clients[owner].expected[at], "byte {} of client {}", at, owner);
        }
        Ok(())
    }
}

impl One {
    /// Its next request, if it has no open one.
    fn begin(&mut self) {
        if self.open.is_none()
            && let Some((op, range)) = self.script.get(self.next)
        {
            self.next += 1;
            let bytes = request(&mut self.client, op, *range);
            self.client.queue(&bytes);
            self.open = Some(bytes);
        }
    }

    /// Its answer, if it is there.
    fn take(&mut self) -> Result<(), TestCaseError> {
        self.client.receive();
        let Some(reply) = self.open.as_ref().and_then(|request| self.client.reply(request)) else { return Ok(()) };
        self.open = None;
        let (op, range) = &self.script[self.next - 1];
        prop_assert_eq!(reply.error, 0);
        apply(&mut self.expected, op, *range);
        if matches!(op, Op::Read) {
            let at = usize::try_from(range.0).unwrap();
            prop_assert!(reply.data == self.expected[at..at + range.1 as usize], "its own bytes at {:?}", range);
        }
        Ok(())
    }
}

/// Moves and cuts a range so that all of it belongs to client `who` of `count`.
fn own((offset, len): (u64, u32), who: u64, count: u64) -> (u64, u32) {
    let stripe = offset / STRIPE / count * count + who;
    let within = offset % STRIPE;
    (stripe * STRIPE + within, len.min(u32::try_from(STRIPE - within).unwrap()))
}
