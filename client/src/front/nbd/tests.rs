//! The front end against a volume in RAM.

mod bench;
mod hostile;
mod model;

use bench::{BLOCK, Bench, RING, SIZE, pattern};
use twinsan_nbd::proto::{cmd, flag};
use twinsan_wire::{BlobKind, Seq};

const EIO: u32 = 5;
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;
const ESHUTDOWN: u32 = 108;

fn block(n: u64) -> u64 {
    n * u64::from(BLOCK)
}

fn blocks(n: usize) -> usize {
    n * BLOCK as usize
}

#[test]
fn a_write_is_answered_when_it_is_durable_and_flush_at_once() {
    let mut bench = Bench::new();
    let mut client = bench.client(true);
    let write = client.write(block(3), &pattern(1, blocks(2)));
    let flush = client.make(cmd::FLUSH, 0, 0, 0, &[]);
    client.queue(&write);
    client.queue(&flush);
    bench.exchange(&mut client);
    assert_eq!(bench.model.log, [(BlobKind::Write, 3, 2)]);
    // FLUSH covers what was replied to before it: this write was not.
    assert_eq!(client.reply(&flush).unwrap().cookie, 2);
    assert_eq!(client.reply(&write), None);
    bench.front.writes_completed(Seq(1));
    bench.exchange(&mut client);
    assert_eq!(client.reply(&write).unwrap().cookie, 1);
    assert_eq!(bench.model.disk[blocks(3)..blocks(5)], pattern(1, blocks(2)));
}

#[test]
fn reads_come_in_parts_and_leave_as_one_answer() {
    for structured in [false, true] {
        let mut bench = Bench::new();
        let mut client = bench.client(structured);
        let size = usize::try_from(SIZE).unwrap();
        bench.model.disk = pattern(9, size);
        // All of it but one byte at each end: unaligned, and more than one buffer.
        let read = client.read(1, u32::try_from(SIZE - 2).unwrap());
        client.queue(&read);
        bench.exchange(&mut client);
        assert_eq!(bench.open_reads(), 2);
        bench.complete_read(1);
        bench.exchange(&mut client);
        assert!(client.inbox.is_empty());
        bench.complete_read(0);
        let reply = loop {
            bench.exchange(&mut client);
            if let Some(reply) = client.reply(&read) {
                break reply;
            }
        };
        assert!(reply.data == bench.model.disk[1..size - 1], "the bytes of the volume");
        assert!(bench.front.is_idle());
    }
}

#[test]
fn a_client_that_stalls_in_a_payload_stalls_nobody() {
    let mut bench = Bench::new();
    let (mut slow, mut fast) = (bench.client(true), bench.client(true));
    let first = slow.write(0, &pattern(1, blocks(8)));
    slow.queue(&first);
    slow.send(28 + blocks(5) + 17);
    bench.run();
    assert!(bench.front.reservation.is_some(), "it receives into the ring");
    let second = fast.write(block(4), &pattern(2, blocks(8)));
    assert_eq!(bench.request(&mut fast, &second).error, 0);
    assert!(bench.front.reservation.is_none(), "it was moved out of the ring");
    assert_eq!(bench.model.disk[blocks(4)..blocks(12)], pattern(2, blocks(8)));
    assert!(slow.reply(&first).is_none());
    // It comes to itself: its bytes are all there, and the newer write.
    bench.exchange(&mut slow);
    bench.complete_all();
    bench.exchange(&mut slow);
    assert_eq!(slow.reply(&first).unwrap().error, 0);
    assert_eq!(bench.model.disk[..blocks(8)], pattern(1, blocks(8)));
    assert_eq!(bench.model.log, [(BlobKind::Write, 4, 8), (BlobKind::Write, 0, 8)]);
}

#[test]
fn a_client_that_goes_in_the_middle_of_a_payload_leaves_nothing_behind() {
    let mut bench = Bench::new();
    for at in [10, 28, 29, 28 + blocks(1), 28 + blocks(4) - 1] {
        let mut client = bench.client(false);
        let write = client.write(0, &pattern(1, blocks(4)));
        client.queue(&write[..at]);
        bench.exchange(&mut client);
        client.socket = None;
        bench.run();
        assert_eq!((bench.front.connections(), bench.front.requests.ops.len(), bench.front.conns.len()), (0, 0, 0));
        assert!(bench.front.is_idle() && bench.front.reservation.is_none());
    }
    assert!(bench.model.log.is_empty());
}

#[test]
fn an_accepted_write_goes_on_without_its_client() {
    let mut bench = Bench::new();
    let mut client = bench.client(false);
    // Not aligned: it is still reading its edges when the client goes.
    let write = client.write(100, &pattern(1, 5000));
    client.queue(&write);
    bench.exchange(&mut client);
    assert_eq!(bench.open_reads(), 2);
    client.socket = None;
    bench.run();
    assert_eq!(bench.front.connections(), 0);
    bench.complete_all();
    assert_eq!(bench.model.disk[100..5100], pattern(1, 5000));
    assert_eq!((bench.front.requests.ops.len(), bench.front.conns.len(), bench.front.requests.jobs.len()), (0, 0, 0));
}

#[test]
fn a_full_window_holds_back_and_is_served_in_order() {
    let mut bench = Bench::new();
    let mut clients = [bench.client(true), bench.client(true), bench.client(true)];
    let most = usize::try_from(RING / 2).unwrap();
    let fill = clients[0].write(0, &pattern(1, 2 * most));
    clients[0].queue(&fill);
    bench.exchange(&mut clients[0]);
    assert_eq!(bench.model.written, Seq(2), "the ring is full");
    for (at, client) in (1..).zip(&mut clients) {
        let write = client.write(block(at * 16), &pattern(2, blocks(9)));
        client.queue(&write);
        bench.exchange(client);
    }
    assert_eq!(bench.front.requests.line.len(), 3);
    assert!(!bench.front.has_work(), "waiting costs nothing");
    // Room for one: the first in line has it, although all three were there.
    for turn in 1..=3 {
        bench.release(Seq(turn));
        bench.run();
        for client in &mut clients {
            bench.exchange(client);
        }
    }
    let order: Vec<u64> = bench.model.log[2..].iter().map(|(_, lba, _)| *lba).collect();
    assert_eq!(order, [16, 32, 48]);
    bench.complete_all();
    assert!(bench.front.is_idle());
}

#[test]
fn a_client_that_takes_no_answers_keeps_no_read_buffer_from_others() {
    let mut bench = Bench::new();
    let (mut deaf, mut other) = (bench.client(true), bench.client(true));
    let mut reads = Vec::new();
    for _ in 0..64 {
        let read = deaf.read(0, 1 << 20);
        deaf.queue(&read);
        reads.push(read);
    }
    deaf.send(usize::MAX);
    bench.run();
    for _ in 0..64 {
        bench.complete_read(0);
    }
    bench.run();
    assert!(bench.front.requests.buffers.free.is_empty(), "all wait to be sent");
    let read = other.read(0, 4096);
    assert_eq!(bench.request(&mut other, &read).data.len(), 4096);
    // At its bound its requests are not even looked at: one more has room, as the socket has taken a little.
    for _ in 0..3 {
        let read = deaf.read(0, 1 << 20);
        deaf.queue(&read);
        reads.push(read);
    }
    deaf.send(usize::MAX);
    bench.run();
    assert_eq!(bench.open_reads(), 1);
    assert!(!bench.front.has_work());
    // Once it listens, it gets everything.
    for read in &reads {
        while deaf.reply(read).is_none() {
            bench.exchange(&mut deaf);
            bench.complete_all();
        }
    }
    assert!(bench.front.is_idle());
    assert_eq!(bench.front.requests.buffers.free.len(), 64);
}

#[test]
fn trim_drops_its_edges_and_zeroes_keep_theirs() {
    let mut bench = Bench::new();
    let mut client = bench.client(true);
    let before = pattern(5, usize::try_from(SIZE).unwrap());
    bench.model.disk.clone_from(&before);
    let trim = client.make(cmd::TRIM, 0, 100, BLOCK * 3, &[]);
    assert_eq!(bench.request(&mut client, &trim).error, 0);
    assert_eq!(bench.model.log, [(BlobKind::Discard, 1, 2)]);
    let nothing = client.make(cmd::TRIM, flag::FUA, 1, BLOCK, &[]);
    assert_eq!(bench.request(&mut client, &nothing).error, 0);
    assert_eq!(bench.model.log.len(), 1);

    let zeroes = client.make(cmd::WRITE_ZEROES, flag::NO_HOLE | flag::FAST_ZERO, block(10) + 7, BLOCK * 2, &[]);
    assert_eq!(bench.request(&mut client, &zeroes).error, 0);
    let mut log = bench.model.log[1..].to_vec();
    log.sort_by_key(|entry| entry.1);
    assert_eq!(log, [(BlobKind::Write, 10, 1), (BlobKind::Zeroes, 11, 1), (BlobKind::Write, 12, 1)]);
    let hole = client.make(cmd::WRITE_ZEROES, 0, block(20), BLOCK, &[]);
    assert_eq!(bench.request(&mut client, &hole).error, 0);
    assert_eq!(bench.model.log.last(), Some(&(BlobKind::Discard, 20, 1)));
    let within = client.make(cmd::WRITE_ZEROES, 0, block(30) + 5, 10, &[]);
    assert_eq!(bench.request(&mut client, &within).error, 0);

    let mut expected = before;
    for (from, to) in [
        (blocks(1), blocks(3)),
        (blocks(10) + 7, blocks(12) + 7),
        (blocks(20), blocks(21)),
        (blocks(30) + 5, blocks(30) + 15),
    ] {
        expected[from..to].fill(0);
    }
    assert!(bench.model.disk == expected);
}

#[test]
fn overlapping_unaligned_writes_do_not_lose_each_other() {
    let mut bench = Bench::new();
    let mut clients: Vec<_> = (0..4).map(|_| bench.client(true)).collect();
    // Four writers of one block, all there before any of them has read it; and one who writes all of it.
    for (at, client) in (0_u8..).zip(&mut clients) {
        let write = client.write(u64::from(at) * 1000 + 50, &pattern(at + 1, 1000));
        client.queue(&write);
        client.send(usize::MAX);
    }
    bench.run();
    assert_eq!(bench.open_reads(), 1, "one at a time");
    let mut whole = bench.client(true);
    let under = whole.write(0, &pattern(99, blocks(1)));
    whole.queue(&under);
    bench.exchange(&mut whole);
    assert!(bench.model.log.is_empty(), "an aligned write over the block queues too");
    bench.complete_all();
    assert_eq!(bench.model.log.len(), 5);
    assert_eq!(bench.model.disk[..blocks(1)], pattern(99, blocks(1)), "it came last");

    let again = clients[0].write(50, &pattern(7, 1000));
    assert_eq!(bench.request(&mut clients[0], &again).error, 0);
    assert_eq!(bench.model.disk[50..1050], pattern(7, 1000));
    assert_eq!(bench.model.disk[..50], pattern(99, 50));
}

#[test]
fn refusals_reach_the_client_and_the_stream_goes_on() {
    let mut bench = Bench::new();
    for structured in [false, true] {
        let mut client = bench.client(structured);
        let past = client.write(SIZE - 1, &[1, 2]);
        assert_eq!(bench.request(&mut client, &past).error, ENOSPC);
        let past = client.read(SIZE, 1);
        assert_eq!(bench.request(&mut client, &past).error, EINVAL);
        let unknown = client.make(77, 0, 0, 0, &[]);
        assert_eq!(bench.request(&mut client, &unknown).error, EINVAL);
        let cache = client.make(cmd::CACHE, 0, 0, 4096, &[]);
        assert_eq!(bench.request(&mut client, &cache).error, 0);
        let fine = client.read(SIZE - 1, 1);
        assert_eq!(bench.request(&mut client, &fine).data, [0]);
    }
}

#[test]
fn without_an_answer_in_time_eio_if_so_asked() {
    let mut bench = Bench::with_io_timeout(Some(1000));
    let mut client = bench.client(true);
    let most = usize::try_from(RING / 2).unwrap();
    // Committed and not durable; waiting for the window, its payload still in the socket; a read without an answer.
    let stuck = client.write(0, &pattern(1, 2 * most));
    let read = client.read(0, 1);
    let waits = client.write(0, &pattern(2, most));
    for request in [&stuck, &read, &waits] {
        client.queue(request);
    }
    bench.exchange(&mut client);
    bench.now_ms = 999;
    bench.front.expire(999);
    bench.exchange(&mut client);
    assert!(client.inbox.is_empty());
    bench.now_ms = 1000;
    bench.front.expire(1000);
    bench.exchange(&mut client);
    let mut failed: Vec<_> = [&stuck, &read, &waits].map(|request| client.reply(request).unwrap()).into();
    failed.sort_by_key(|reply| reply.cookie);
    assert_eq!(
        failed.iter().map(|reply| (reply.cookie, reply.error)).collect::<Vec<_>>(),
        [(1, EIO), (2, EIO), (3, EIO)]
    );
    // The stream is still in step, and the volume's late answers find nobody.
    bench.complete_all();
    let fine = client.read(0, 4);
    assert_eq!(bench.request(&mut client, &fine).data, pattern(1, 4));
    assert_eq!(bench.model.log.len(), 2, "what waited was not written");
    assert!(bench.front.is_idle());
}

#[test]
fn when_the_volume_is_gone_everything_is_answered_so() {
    let mut bench = Bench::new();
    let mut client = bench.client(true);
    let write = client.write(0, &pattern(1, blocks(1)));
    let read = client.read(0, 1);
    client.queue(&write);
    client.queue(&read);
    bench.exchange(&mut client);
    bench.front.fail("superseded");
    bench.exchange(&mut client);
    assert_eq!(client.reply(&write).unwrap().error, ESHUTDOWN);
    assert_eq!(client.reply(&read).unwrap().error, ESHUTDOWN);
    let later = client.write(0, &pattern(1, blocks(1)));
    client.queue(&later);
    bench.exchange(&mut client);
    assert_eq!(client.reply(&later).unwrap().error, ESHUTDOWN);
}

#[test]
fn disc_is_the_last_word_and_open_requests_are_answered_first() {
    let mut bench = Bench::new();
    let mut client = bench.client(false);
    let write = client.write(0, &pattern(1, blocks(1)));
    let disc = client.make(cmd::DISC, 0, 0, 0, &[]);
    client.queue(&write);
    client.queue(&disc);
    bench.exchange(&mut client);
    assert!(client.receive(), "still open");
    bench.complete_all();
    assert!(!client.receive(), "closed by the server");
    assert_eq!(client.reply(&write).unwrap().error, 0);
    assert!(client.inbox.is_empty());
    assert_eq!(bench.front.conns.len(), 0);
}

#[test]
fn stopping_lets_open_requests_end_and_begins_no_more() {
    let mut bench = Bench::new();
    let mut client = bench.client(true);
    let (write, later) = (client.write(0, &pattern(1, blocks(1))), client.read(0, 1));
    client.queue(&write);
    bench.exchange(&mut client);
    bench.front.stop();
    client.queue(&later);
    bench.exchange(&mut client);
    assert!(!bench.front.is_idle());
    bench.complete_all();
    client.receive();
    assert_eq!(client.reply(&write).unwrap().error, 0);
    assert!(bench.front.is_idle() && client.reply(&later).is_none());
    let (_, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    assert!(!bench.front.accept(theirs.into()));
}

#[test]
fn the_kernel_sends_again_on_a_new_socket_and_the_newest_wins() {
    let mut bench = Bench::new();
    let mut kernel = bench.kernel();
    let most = usize::try_from(RING / 2).unwrap();
    // The window is full, so the third is not received; then the kernel loses patience with all three.
    let writes = [1, 2, 3].map(|seed| kernel.write(0, &pattern(seed, most)));
    for write in &writes {
        kernel.queue(write);
    }
    bench.exchange(&mut kernel);
    assert_eq!(bench.model.log.len(), 2);
    bench.close_hung_up();
    assert_eq!(bench.front.connections(), 1, "it has not hung up");
    kernel.socket = None;
    bench.close_hung_up();
    assert_eq!((bench.front.connections(), bench.front.requests.line.len()), (0, 0));
    let mut kernel = bench.kernel();
    for (write, at) in writes.iter().zip([0, 1, 2]) {
        kernel.queue(write);
        bench.exchange(&mut kernel);
        assert_eq!(bench.front.requests.line.len(), 1, "write {at} waits for the window");
    }
    let last = kernel.read(0, u32::try_from(most).unwrap());
    kernel.queue(&last);
    let mut cookies = Vec::new();
    while cookies.len() < 4 {
        bench.complete_all();
        bench.exchange(&mut kernel);
        while let Some(reply) = kernel.reply(if cookies.len() < 3 { &writes[0] } else { &last }) {
            assert_eq!(reply.error, 0);
            cookies.push(reply.cookie);
        }
    }
    assert_eq!(cookies, [1, 2, 3, 1], "the last is the read, whose client begins to count anew");
    assert_eq!(bench.model.log.len(), 5, "what was committed twice was written twice");
    assert_eq!(bench.model.disk[..most], pattern(3, most));
    assert!(bench.front.is_idle());
}
