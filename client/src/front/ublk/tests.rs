//! The ublk front against a volume in RAM and a kernel in RAM.

mod recovery;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;

use twinsan_arena::Arena;
use twinsan_ublk::{Command, Happened, Request};
use twinsan_wire::{BlobKind, Lba, Seq};

use super::{EINVAL, EIO, EOPNOTSUPP, RequestQueue, UblkFront};
use crate::front::Shape;
use crate::front::backend::Backend;
use crate::front::testing::{BLOCK, BLOCKS, Model, RING, SIZE, memory, pattern, shape};

/// More than there are read buffers.
const TAGS: u16 = 80;

/// A request and its pages, while it is open.
type Slot = Option<(Request, Vec<u8>)>;

/// The kernel's side: requests, their pages, and what was said of them.
pub(super) struct Kernel {
    tags: RefCell<Vec<Slot>>,
    queued: VecDeque<u16>,
    committed: Vec<(u16, Result<u32, i32>)>,
    /// What the driver has been told.
    done: Vec<(u16, Result<u32, i32>)>,
    refuses_payloads: bool,
    aborts: Vec<(u16, i32)>,
}

impl Kernel {
    fn new() -> Self {
        Self {
            tags: RefCell::new(vec![None; usize::from(TAGS)]),
            queued: VecDeque::new(),
            committed: Vec::new(),
            done: Vec::new(),
            refuses_payloads: false,
            aborts: Vec::new(),
        }
    }

    fn ask(&mut self, tag: u16, command: Command, offset: u64, pages: Vec<u8>) {
        let len = u32::try_from(pages.len()).unwrap();
        self.ask_len(tag, Request { command, offset, len }, pages);
    }

    fn ask_len(&mut self, tag: u16, request: Request, pages: Vec<u8>) {
        let before = self.tags.borrow_mut()[usize::from(tag)].replace((request, pages));
        assert!(before.is_none(), "a tag has one request at a time");
        self.queued.push_back(tag);
    }
}

impl RequestQueue for Kernel {
    fn depth(&self) -> u16 {
        TAGS
    }

    fn poll(&mut self, happened: &mut Vec<Happened>) -> io::Result<()> {
        happened.extend(self.queued.drain(..).map(|tag| Happened::Request { tag }));
        let aborts = self.aborts.drain(..);
        happened
            .extend(aborts.map(|(tag, errno)| Happened::Aborted { tag, error: io::Error::from_raw_os_error(errno) }));
        Ok(())
    }

    fn request(&self, tag: u16) -> Option<Request> {
        self.tags.borrow()[usize::from(tag)].as_ref().map(|(request, _)| *request)
    }

    fn take_payload(&self, tag: u16, arena: &Arena, at: usize, len: usize) -> io::Result<()> {
        if self.refuses_payloads {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let tags = self.tags.borrow();
        let (request, pages) = tags[usize::from(tag)].as_ref().expect("an open request");
        assert_eq!((request.command, pages.len()), (Command::Write, len));
        arena.copy_in(at, pages);
        Ok(())
    }

    fn give_payload(&self, tag: u16, from: u32, arena: &Arena, at: usize, len: usize) -> io::Result<()> {
        let mut tags = self.tags.borrow_mut();
        let (request, pages) = tags[usize::from(tag)].as_mut().expect("an open request");
        assert_eq!(request.command, Command::Read);
        arena.copy_out(at, &mut pages[from as usize..from as usize + len]);
        Ok(())
    }

    fn commit(&mut self, tag: u16, result: Result<u32, i32>) {
        // The driver is told bytes in a signed number; only what moves bytes has any.
        let moved = i32::try_from(result.unwrap_or(0)).expect("a result that the driver can be told");
        let command = self.request(tag).expect("an open request").command;
        assert!(moved == 0 || matches!(command, Command::Read | Command::Write), "{command:?} moves {moved} bytes");
        self.committed.push((tag, result));
    }

    fn submit(&mut self) -> io::Result<()> {
        for (tag, result) in self.committed.drain(..) {
            assert!(self.tags.borrow()[usize::from(tag)].is_some(), "tag {tag} was completed twice");
            // Its request is over, but for its pages, which the test looks at.
            self.done.push((tag, result));
        }
        Ok(())
    }
}

struct Bench {
    front: UblkFront<Kernel>,
    model: Model,
    now_ms: u64,
}

impl Bench {
    fn new(io_timeout_ms: Option<u64>) -> Self {
        let mut front = UblkFront::new(shape(), io_timeout_ms, memory());
        front.attach(Kernel::new());
        Self { front, model: Model::new(), now_ms: 0 }
    }

    fn kernel(&mut self) -> &mut Kernel {
        self.front.queue().unwrap()
    }

    fn run(&mut self) {
        self.front.poll(|happened| panic!("{happened:?}"));
        for _ in 0..1000 {
            self.front.work(&mut self.model, self.now_ms);
            self.front.send();
            if !self.front.has_work() {
                return;
            }
        }
        panic!("the front spins");
    }

    /// What has been completed since the last call; the pages of reads come with it.
    fn done(&mut self) -> Vec<(u16, Result<u32, i32>, Vec<u8>)> {
        let kernel = self.kernel();
        let done = std::mem::take(&mut kernel.done);
        let mut tags = kernel.tags.borrow_mut();
        done.into_iter().map(|(tag, result)| (tag, result, tags[usize::from(tag)].take().unwrap().1)).collect()
    }

    fn results(&mut self) -> Vec<(u16, Result<u32, i32>)> {
        self.done().into_iter().map(|(tag, result, _)| (tag, result)).collect()
    }

    fn durable(&mut self, upto: Seq) {
        self.model.window.free(upto);
        self.front.writes_completed(upto);
        self.run();
    }

    fn answer_read(&mut self, at: usize) {
        let slot = self.model.answer_read(at);
        self.front.read_completed(slot);
        self.run();
    }
}

fn block(n: u64) -> u64 {
    n * u64::from(BLOCK)
}

fn blocks(n: usize) -> usize {
    n * BLOCK as usize
}

#[test]
fn a_write_is_completed_when_it_is_durable_and_flush_at_once() {
    let mut bench = Bench::new(None);
    bench.kernel().ask(3, Command::Write, block(5), pattern(1, blocks(2)));
    bench.kernel().ask(4, Command::Flush, 0, Vec::new());
    bench.run();
    assert_eq!(bench.model.log, [(BlobKind::Write, 5, 2)]);
    assert_eq!(bench.results(), [(4, Ok(0))]);
    bench.durable(Seq(1));
    assert_eq!(bench.results(), [(3, Ok(2 * BLOCK))]);
    bench.kernel().ask(3, Command::Read, block(4), vec![9; blocks(3)]);
    bench.run();
    assert!(bench.done().is_empty());
    bench.answer_read(0);
    let [(3, Ok(len), pages)] = &bench.done()[..] else { panic!("one answer") };
    assert_eq!(*len, 3 * BLOCK);
    assert!(pages[..blocks(1)].iter().all(|byte| *byte == 0));
    assert_eq!(pages[blocks(1)..], pattern(1, blocks(2)));
    assert!(bench.front.is_idle());
}

#[test]
fn a_full_window_leaves_payloads_in_their_pages_and_serves_in_order() {
    let mut bench = Bench::new(None);
    let most = usize::try_from(RING / 2).unwrap();
    for tag in 0..5 {
        bench.kernel().ask(tag, Command::Write, 0, pattern(u8::try_from(tag).unwrap(), most));
    }
    bench.kernel().ask(5, Command::Discard, block(100), vec![0; blocks(3)]);
    bench.run();
    assert_eq!((bench.model.log.len(), bench.front.requests.line.len()), (2, 4));
    assert!(!bench.front.has_work(), "waiting costs nothing");
    for seq in 1..=6 {
        bench.durable(Seq(seq));
        let tag = u16::try_from(seq).unwrap() - 1;
        let len = if tag == 5 { 0 } else { most };
        assert_eq!(bench.results(), [(tag, Ok(u32::try_from(len).unwrap()))]);
    }
    assert_eq!(bench.model.disk[..most], pattern(4, most), "the last one");
}

#[test]
fn more_reads_than_buffers_are_answered_all() {
    let mut bench = Bench::new(None);
    bench.model.disk = pattern(7, usize::try_from(SIZE).unwrap());
    for round in 0..6 {
        for tag in 0..TAGS {
            let offset = block(u64::from(tag) + round);
            bench.kernel().ask(tag, Command::Read, offset, vec![0; blocks(2)]);
        }
        bench.run();
        assert_eq!(bench.model.reads.len(), 64, "the others wait");
        while !bench.model.reads.is_empty() {
            bench.answer_read(bench.model.reads.len() / 2);
        }
        let done = bench.done();
        assert_eq!(done.len(), usize::from(TAGS));
        for (tag, result, pages) in done {
            let at = usize::try_from(block(u64::from(tag) + round)).unwrap();
            assert_eq!(result, Ok(2 * BLOCK));
            assert_eq!(pages, bench.model.disk[at..at + blocks(2)]);
        }
    }
    assert_eq!(bench.front.requests.buffers.free.len(), 64);
}

#[test]
fn zeroes_and_discards_are_blobs_without_payload() {
    let mut bench = Bench::new(None);
    let len = 3 * BLOCK;
    for (tag, command) in [
        (0, Command::Discard),
        (1, Command::WriteZeroes { no_hole: true }),
        (2, Command::WriteZeroes { no_hole: false }),
    ] {
        bench.kernel().ask_len(tag, Request { command, offset: block(10), len }, Vec::new());
    }
    bench.run();
    let blob = |kind| (kind, 10, 3);
    assert_eq!(bench.model.log, [BlobKind::Discard, BlobKind::Zeroes, BlobKind::Discard].map(blob));
    bench.durable(Seq(3));
    assert_eq!(bench.results(), [(0, Ok(0)), (1, Ok(0)), (2, Ok(0))]);
}

/// A volume that is larger than memory: everything fits, and nothing is kept.
#[derive(Default)]
struct Void {
    written: u64,
    blocks: u64,
}

impl Backend for Void {
    fn place(&mut self, _: u32) -> Option<u64> {
        Some(0)
    }

    fn write(&mut self, kind: BlobKind, _: Lba, blocks: u32) -> Seq {
        assert_ne!(kind, BlobKind::Write);
        self.blocks += u64::from(blocks);
        self.written += 1;
        Seq(self.written)
    }

    fn read(&mut self, _: Lba, _: u32, _: u32) {
        panic!("nobody reads");
    }
}

/// A device that an older process has made may still be said to take so much at once.
#[test]
fn discards_of_gigabytes_are_completed() {
    const MOST: u32 = u32::MAX / BLOCK * BLOCK;
    let mut front = UblkFront::new(Shape { blocks: 1 << 21, ..shape() }, None, memory());
    front.attach(Kernel::new());
    let mut void = Void::default();
    for (command, len) in [
        (Command::Discard, 1 << 31),
        (Command::Discard, MOST),
        (Command::WriteZeroes { no_hole: true }, 1 << 31),
        (Command::WriteZeroes { no_hole: false }, MOST),
    ] {
        let before = void.blocks;
        front.queue().unwrap().ask_len(0, Request { command, offset: 0, len }, Vec::new());
        front.poll(|happened| panic!("{happened:?}"));
        while front.has_work() {
            front.work(&mut void, 0);
        }
        assert_eq!(void.blocks - before, u64::from(len / BLOCK));
        front.writes_completed(Seq(void.written));
        front.send();
        let kernel = front.queue().unwrap();
        assert_eq!(std::mem::take(&mut kernel.done), [(0, Ok(0))], "{command:?} of {len}");
        kernel.tags.borrow_mut()[0] = None;
    }
}

#[test]
fn what_goes_beyond_the_limits_is_refused_and_harms_nothing() {
    let mut bench = Bench::new(None);
    let most = u32::try_from(RING / 2).unwrap();
    let requests = [
        (Command::Write, SIZE, BLOCK, EINVAL),
        (Command::Write, SIZE - block(1), 2 * BLOCK, EINVAL),
        (Command::Write, 512, BLOCK, EINVAL),
        (Command::Read, 0, 512, EINVAL),
        (Command::Write, 0, most + BLOCK, EINVAL),
        (Command::Discard, u64::MAX - 4095, BLOCK, EINVAL),
        (Command::Read, 0, 0, EINVAL),
        (Command::Unknown(15), 0, 0, EOPNOTSUPP),
    ];
    for (command, offset, len, errno) in requests {
        bench.kernel().ask_len(0, Request { command, offset, len }, Vec::new());
        bench.run();
        assert_eq!(bench.results(), [(0, Err(errno))], "{command:?} {offset} {len}");
    }
    bench.kernel().ask(0, Command::Write, block(BLOCKS - 1), pattern(1, blocks(1)));
    bench.run();
    assert_eq!(bench.model.log.len(), 1);
    bench.kernel().refuses_payloads = true;
    bench.kernel().ask(1, Command::Write, 0, pattern(1, blocks(1)));
    bench.run();
    assert_eq!(bench.results(), [(1, Err(EIO))]);
    bench.durable(Seq(1));
    assert_eq!(bench.results(), [(0, Ok(BLOCK))]);
    assert!(bench.front.is_idle());
}

#[test]
fn without_an_answer_in_time_eio_and_its_tag_is_another_requests() {
    let mut bench = Bench::new(Some(1000));
    let most = usize::try_from(RING / 2).unwrap();
    for tag in 0..3 {
        bench.kernel().ask(tag, Command::Write, 0, pattern(1, most));
    }
    bench.kernel().ask(3, Command::Read, 0, vec![0; blocks(1)]);
    bench.run();
    bench.front.expire(999);
    bench.run();
    assert!(bench.done().is_empty());
    bench.front.expire(1000);
    bench.run();
    let mut results = bench.results();
    results.sort_unstable();
    assert_eq!(results, [0, 1, 2, 3].map(|tag| (tag, Err(EIO))));
    assert!(bench.front.requests.line.is_empty(), "what waited is not written");
    // Committed before, answered, and durable now: nobody is told, least of all the tags' next requests.
    for tag in 0..4 {
        bench.kernel().ask(tag, Command::Read, 0, vec![0; blocks(1)]);
    }
    bench.run();
    bench.answer_read(0);
    bench.durable(Seq(2));
    assert!(bench.done().is_empty());
    while !bench.model.reads.is_empty() {
        bench.answer_read(0);
    }
    assert_eq!(bench.results().len(), 4);
    assert_eq!(bench.model.log.len(), 2);
    assert!(bench.front.is_idle());
}

#[test]
fn when_the_volume_is_gone_everything_fails() {
    let mut bench = Bench::new(None);
    bench.kernel().ask(0, Command::Write, 0, pattern(1, blocks(1)));
    bench.kernel().ask(1, Command::Read, 0, vec![0; blocks(1)]);
    bench.run();
    bench.front.fail("superseded");
    bench.run();
    let mut results = bench.results();
    results.sort_unstable();
    assert_eq!(results, [(0, Err(EIO)), (1, Err(EIO))]);
    bench.kernel().ask(2, Command::Write, 0, pattern(1, blocks(1)));
    bench.front.poll(|_| {});
    bench.front.send();
    assert_eq!(bench.results(), [(2, Err(EIO))], "also without the volume's being asked");
}

#[test]
fn a_tag_that_the_kernel_refuses_is_news_and_one_that_goes_with_its_device_is_not() {
    let mut bench = Bench::new(None);
    bench.kernel().aborts = vec![(0, 19), (1, 125)];
    bench.front.poll(|happened| panic!("{happened:?}"));
    bench.kernel().aborts = vec![(2, EINVAL)];
    let mut heard = Vec::new();
    bench.front.poll(|happened| heard.push(happened));
    let [Happened::Aborted { tag: 2, error }] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!(error.raw_os_error(), Some(EINVAL));
}

#[test]
fn stopping_lets_open_requests_end_and_begins_no_more() {
    let mut bench = Bench::new(None);
    bench.kernel().ask(0, Command::Write, 0, pattern(1, blocks(1)));
    bench.run();
    bench.front.stop();
    bench.kernel().ask(1, Command::Write, 0, pattern(2, blocks(1)));
    bench.run();
    assert!(!bench.front.is_idle() && !bench.front.has_work());
    bench.durable(Seq(1));
    assert_eq!(bench.results(), [(0, Ok(BLOCK))]);
    assert!(bench.front.is_idle());
    assert_eq!(bench.model.log.len(), 1, "the other waits for the next process");
}
