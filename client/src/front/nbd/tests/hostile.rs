//! Clients that mean harm, or are broken: an honest one beside them is served, and what they cost is bounded.

use twinsan_nbd::proto::{cmd, flag};

use super::bench::{Bench, Client, SIZE, pattern};
use super::{EINVAL, blocks};
use crate::front::limits::{MAX_CONNECTIONS, MAX_OUTPUT_BYTES, NEGOTIATION_TIMEOUT_MS, STOP_BLOCKED_MS};

/// An honest client writes and reads back.
#[track_caller]
fn is_served(bench: &mut Bench, client: &mut Client, seed: u8) {
    let bytes = pattern(seed, blocks(2));
    let write = client.write(0, &bytes);
    assert_eq!(bench.request(client, &write).error, 0);
    let read = client.read(0, u32::try_from(bytes.len()).unwrap());
    assert_eq!(bench.request(client, &read).data, bytes);
}

/// The clients' end hears that the server has closed.
fn is_closed(client: &mut Client) -> bool {
    !client.receive()
}

#[test]
fn silent_connections_keep_nobody_out() {
    let mut bench = Bench::new();
    let mut honest = bench.client(true);
    let mut silent: Vec<_> = (1..MAX_CONNECTIONS).map(|_| bench.silent().expect("there is a place")).collect();
    bench.run();
    // All places are taken. Each newcomer has the place of whoever has negotiated longest.
    for round in 0..3_u8 {
        let mut newcomer = bench.client(round == 0);
        bench.run();
        assert_eq!(bench.front.connections(), MAX_CONNECTIONS);
        is_served(&mut bench, &mut newcomer, round);
        is_served(&mut bench, &mut honest, 10 + round);
        let gone: Vec<usize> = (0..silent.len()).filter(|&at| is_closed(&mut silent[at])).collect();
        assert_eq!(gone, [0], "the oldest, and nobody else");
        silent.remove(0);
        newcomer.socket = None;
        bench.run();
        silent.push(bench.silent().expect("the newcomer has gone"));
        bench.run();
    }
    drop(silent);
    bench.run();
    assert_eq!((bench.front.connections(), bench.front.conns.len()), (1, 1));
}

#[test]
fn more_newcomers_than_places_at_once() {
    let mut bench = Bench::new();
    let mut honest = bench.client(true);
    let flood: Vec<_> = (0..3 * MAX_CONNECTIONS).filter_map(|_| bench.silent()).collect();
    bench.run();
    assert_eq!(bench.front.connections(), MAX_CONNECTIONS);
    is_served(&mut bench, &mut honest, 1);
    drop(flood);
    bench.run();
    assert_eq!((bench.front.connections(), bench.front.conns.len()), (1, 1));
}

#[test]
fn whoever_has_negotiated_keeps_its_place() {
    let mut bench = Bench::new();
    let mut clients: Vec<_> = (0..MAX_CONNECTIONS).map(|_| bench.client(true)).collect();
    assert!(bench.silent().is_none(), "turned away");
    bench.now_ms = 10 * NEGOTIATION_TIMEOUT_MS;
    bench.front.expire(bench.now_ms);
    for (seed, client) in (0..).zip(&mut clients) {
        is_served(&mut bench, client, seed);
    }
}

#[test]
fn a_negotiation_ends_in_time_or_its_connection_does() {
    let mut bench = Bench::new();
    let mut honest = bench.client(true);
    let beginnings: [&[u8]; 5] = [
        b"",
        b"\0\0",
        b"\0\0\0\x03IHAVEOPT\0\0",
        // LIST, answered, and nothing more.
        b"\0\0\0\x03IHAVEOPT\0\0\0\x03\0\0\0\0",
        // An option of 1 MiB that is read off, and never ends.
        b"\0\0\0\x03IHAVEOPT\0\0\0\x63\0\x10\0\0",
    ];
    let mut slow = beginnings.map(|bytes| {
        let mut client = bench.silent().expect("there is a place");
        client.queue(bytes);
        bench.exchange(&mut client);
        client
    });
    // A byte now and then buys no time.
    bench.now_ms = NEGOTIATION_TIMEOUT_MS - 1;
    bench.front.expire(bench.now_ms);
    for client in &mut slow[2..] {
        client.queue(&[0]);
        bench.exchange(client);
    }
    assert_eq!(bench.front.connections(), 6);
    bench.now_ms = NEGOTIATION_TIMEOUT_MS;
    bench.front.expire(bench.now_ms);
    bench.run();
    assert!(slow.iter_mut().all(is_closed));
    assert_eq!((bench.front.connections(), bench.front.conns.len()), (1, 1));
    is_served(&mut bench, &mut honest, 1);
}

#[test]
fn the_kernel_does_not_negotiate() {
    let mut bench = Bench::new();
    let mut kernel = bench.kernel();
    bench.run();
    bench.now_ms = 10 * NEGOTIATION_TIMEOUT_MS;
    bench.front.expire(bench.now_ms);
    is_served(&mut bench, &mut kernel, 1);
}

#[test]
fn nonsense_in_the_negotiation_ends_it_or_is_answered() {
    let mut bench = Bench::new();
    let mut honest = bench.client(true);
    let greeted = |bytes: &[u8]| [b"\0\0\0\x03", bytes].concat();
    let fatal = [
        b"\0\0\0\x04".to_vec(),
        b"\xff\xff\xff\xff".to_vec(),
        greeted(b"IHAVEOPS\0\0\0\x07\0\0\0\0"),
        greeted(b"GET / HTTP/1.1\r\n\r\n"),
        // EXPORT_NAME of what is not here, and one that is too long to be a name.
        greeted(b"IHAVEOPT\0\0\0\x01\0\0\0\x02no"),
        greeted(b"IHAVEOPT\0\0\0\x01\0\x10\0\0"),
        greeted(b"IHAVEOPT\0\0\0\x63\xff\xff\xff\xff"),
        greeted(&b"IHAVEOPT\0\0\0\x03\0\0\0\0".repeat(65)),
    ];
    for bytes in fatal {
        let mut client = bench.silent().expect("there is a place");
        client.queue(&bytes);
        bench.exchange(&mut client);
        assert!(is_closed(&mut client), "{:?}", bytes.escape_ascii().to_string());
        is_served(&mut bench, &mut honest, 1);
    }
    // An option that nobody knows, one with too much data, GO of what is not here: answered, and it may go on.
    let mut client = bench.silent().expect("there is a place");
    client.queue(&greeted(b"IHAVEOPT\0\0\0\x63\0\0\0\x05hello"));
    client.queue(&[b"IHAVEOPT\0\0\0\x63\0\0\x40\0".as_slice(), &[0; 16 << 10]].concat());
    client.queue(b"IHAVEOPT\0\0\0\x07\0\0\0\x08\0\0\0\x02no\0\0");
    bench.exchange(&mut client);
    let replies = client.inbox.windows(8).filter(|bytes| *bytes == b"\0\x03\xe8\x89\x04\x55\x65\xa9").count();
    assert_eq!(replies, 3);
    client.inbox.clear();
    client.queue(b"IHAVEOPT\0\0\0\x01\0\0\0\x02db");
    bench.exchange(&mut client);
    client.inbox.clear();
    is_served(&mut bench, &mut client, 2);
    assert_eq!(bench.front.conns.len(), 2);
}

#[test]
fn nonsense_among_requests_is_refused_and_the_stream_goes_on() {
    let mut bench = Bench::new();
    let mut honest = bench.client(true);
    for structured in [false, true] {
        let mut client = bench.client(structured);
        for (command, flags, offset, len) in [
            (cmd::READ, 0, 0, 0),
            (cmd::READ, 0, 0, u32::MAX),
            (cmd::READ, 0, u64::MAX, 1),
            (cmd::READ, 0, SIZE - 1, 2),
            (cmd::READ, 0x8000, 0, 1),
            (cmd::TRIM, flag::NO_HOLE, 0, 1),
            (cmd::TRIM, 0, u64::MAX, u32::MAX),
            (cmd::FLUSH, 0, 1, 0),
            (cmd::CACHE, 0, SIZE, 1),
            (4711, 0xffff, 0, 9),
        ] {
            let request = client.make(command, flags, offset, len, &[]);
            assert_eq!(bench.request(&mut client, &request).error, EINVAL, "{command} {flags} {offset} {len}");
        }
        // A refused write's payload is read off, also where it is longer than any that is taken.
        let nothing = client.make(cmd::WRITE, 0, 0, 0, &[]);
        assert_eq!(bench.request(&mut client, &nothing).error, EINVAL);
        let long = vec![7; (32 << 20) + 1];
        let long = client.make(cmd::WRITE, 0, 0, u32::try_from(long.len()).unwrap(), &long);
        assert_eq!(bench.request(&mut client, &long).error, EINVAL);
        is_served(&mut bench, &mut client, 1);
        // What is no request at all ends the connection, whatever is open.
        let write = client.write(0, &pattern(2, blocks(1)));
        client.queue(&write);
        client.queue(&[0xff; 28]);
        bench.exchange(&mut client);
        assert!(is_closed(&mut client));
        bench.complete_all();
        is_served(&mut bench, &mut honest, 3);
    }
    assert_eq!(bench.front.conns.len(), 1);
}

#[test]
fn a_request_cut_anywhere_leaves_nothing_behind() {
    let mut bench = Bench::new();
    let mut honest = bench.client(true);
    // Aligned into the ring, not aligned, in several parts.
    for (offset, len) in [(0, blocks(2)), (100, 5000), (0, blocks(20) + 1)] {
        for cut in [1, 27, 28, 29, 28 + len / 2, 28 + len - 1] {
            let mut client = bench.client(false);
            let write = client.write(offset, &pattern(9, len));
            client.queue(&write[..cut]);
            bench.exchange(&mut client);
            // While it is half-sent, and when it has gone.
            is_served(&mut bench, &mut honest, 1);
            client.socket = None;
            bench.run();
            is_served(&mut bench, &mut honest, 2);
            assert_eq!((bench.front.connections(), bench.front.conns.len()), (1, 1), "{offset} {len} {cut}");
            assert!(bench.front.is_idle() && bench.front.reservation.is_none());
        }
    }
    assert_eq!((bench.front.requests.ops.len(), bench.front.requests.jobs.len()), (0, 0));
}

#[test]
fn half_sent_writes_on_all_places_stall_nobody() {
    let mut bench = Bench::new();
    let mut honest = bench.client(true);
    let mut stuck: Vec<_> = (1..MAX_CONNECTIONS).map(|_| bench.client(true)).collect();
    for (at, client) in (0_usize..).zip(&mut stuck) {
        let write = client.write(at as u64 % 3 * 50, &pattern(5, blocks(3)));
        client.queue(&write[..28 + 13 * at]);
        bench.exchange(client);
    }
    for seed in 0..20 {
        is_served(&mut bench, &mut honest, seed);
    }
    drop(stuck);
    bench.run();
    bench.complete_all();
    assert_eq!((bench.front.connections(), bench.front.conns.len()), (1, 1));
}

/// Requests without end, and no answer is taken.
#[test]
fn answers_that_nobody_takes_are_bounded() {
    let mut bench = Bench::new();
    let mut honest = bench.client(true);
    for structured in [false, true] {
        let mut deaf = bench.client(structured);
        // Answered at once, refused, and written.
        let write = deaf.write(0, &pattern(1, blocks(1)));
        let requests =
            [deaf.make(cmd::FLUSH, 0, 0, 0, &[]), deaf.make(cmd::READ, 0, SIZE, 1, &[]), write].concat().repeat(64);
        loop {
            deaf.queue(&requests);
            deaf.send(usize::MAX);
            bench.run();
            bench.complete_all();
            if !deaf.unsent.is_empty() {
                break; // Its socket is not read any more.
            }
        }
        assert!(bench.front.conns[1].output.reply_bytes() < MAX_OUTPUT_BYTES + 4096);
        assert!(!bench.front.has_work(), "waiting costs nothing");
        is_served(&mut bench, &mut honest, 4);
        // Nor does it hold up the end for ever.
        deaf.socket = None;
        bench.run();
        bench.complete_all();
        assert_eq!((bench.front.connections(), bench.front.conns.len()), (1, 1));
    }
}

#[test]
fn an_orderly_end_does_not_wait_for_a_client_that_takes_no_answers() {
    let mut bench = Bench::new();
    let (mut deaf, mut slow) = (bench.client(true), bench.client(true));
    for client in [&mut deaf, &mut slow] {
        for _ in 0..4 {
            let read = client.read(0, 1 << 20);
            client.queue(&read);
        }
        client.send(usize::MAX);
    }
    bench.run();
    bench.complete_all();
    bench.front.stop();
    bench.now_ms = STOP_BLOCKED_MS - 1;
    bench.front.expire(bench.now_ms);
    bench.run();
    assert!(!bench.front.is_idle(), "they may still take them");
    // One takes a little: it goes on doing so.
    slow.receive();
    bench.run();
    bench.now_ms = STOP_BLOCKED_MS;
    bench.front.expire(bench.now_ms);
    bench.run();
    assert_eq!(bench.front.connections(), 1);
    assert!(!bench.front.is_idle());
    while bench.front.conns[1].output.data_bytes() > 0 {
        bench.exchange(&mut slow);
    }
    assert!(bench.front.is_idle() && slow.receive(), "it is not cut off");
    assert!(is_closed(&mut deaf));
}
