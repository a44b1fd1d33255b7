//! NBD connections, against a server of our own.

use std::time::{Duration, Instant};

use twinsan_perf::bench::job::Job;
use twinsan_perf::bench::nbd::{Address, Nbd};
use twinsan_perf::bench::target::{Buffers, Kind, Request, Target};

use super::server::{Manner, Server, gate};
use super::{all, measured, mix};

const BYTES: usize = 4 << 20;

fn connect(servers: &[&Server]) -> anyhow::Result<Nbd> {
    let addresses: Vec<Address> = servers.iter().map(|s| Address::Unix(s.socket())).collect();
    Nbd::connect(&addresses, "x")
}

#[test]
fn every_kind_of_job_reads_back() {
    let jobs = [
        Job::writes("one", 10_240, 512, 500),
        mix(),
        Job { depth: 4, flush_every: Some(7), ..Job::writes("log", 4096, 4096, 100) },
        Job { depth: 200, ..Job::writes("deep", 512, 512, 2000) },
        Job { rate: Some(2000.0), depth: 2, ..Job::writes("paced", 4096, 4096, 100) },
        Job { read_percent: 50, ..Job::writes("long", 1 << 20, 4096, 40) },
    ];
    for job in jobs {
        let server = Server::start(BYTES, Manner::default());
        let measured = measured(&job, &mut connect(&[&server]).unwrap(), all(&job)).unwrap();
        assert_eq!(measured.requests, job.count, "{}", job.name);
    }
}

#[test]
fn full_sockets_both_ways_are_no_deadlock() {
    // Four of 256 KiB fill both directions of a unix socket; this server reads nothing while it answers.
    let job = Job { depth: 4, read_percent: 50, ..Job::writes("long", 256 << 10, 4096, 300) };
    let servers = [(); 2].map(|()| Server::start(BYTES, Manner::default()));
    measured(&job, &mut connect(&[&servers[0]]).unwrap(), all(&job)).unwrap();
    let servers = [(); 2].map(|()| Server::start(BYTES, Manner::default()));
    measured(&job, &mut connect(&[&servers[0], &servers[1]]).unwrap(), all(&job)).unwrap();
}

#[test]
fn answers_may_come_in_any_order() {
    // The server answers each eight the other way round. Prefill and read-back have one request in flight: not from here.
    let server = Server::start(BYTES, Manner { batch: 8, ..Manner::default() });
    let mut target = connect(&[&server]).unwrap();
    target.prepare(8).unwrap();
    let mut buffers = Buffers::new(8, 4096);
    for kind in [Kind::Write, Kind::Read] {
        for slot in 0..8 {
            let byte = u8::try_from(slot).unwrap() + 1;
            buffers.of(slot).fill(if kind == Kind::Write { byte } else { 0 });
            let offset = slot as u64 * 4096;
            target.submit(Request { slot, kind, offset, len: 4096, fua: true, copy: 0 });
        }
        let mut done = Vec::new();
        while done.len() < 8 {
            target.wait(&mut buffers, None, &mut done).unwrap();
        }
        let order: Vec<usize> = done.iter().map(|d| d.slot).collect();
        assert_eq!(order, [7, 6, 5, 4, 3, 2, 1, 0]);
    }
    for slot in 0..8 {
        assert!(buffers.get(slot).iter().all(|&b| usize::from(b) == slot + 1), "slot {slot}");
    }
}

#[test]
fn a_server_that_stores_nothing_is_caught_also_if_it_is_the_second_one() {
    let job = Job::writes("one", 4096, 4096, 20);
    let liar = || Server::start(BYTES, Manner { forgets: true, ..Manner::default() });
    let honest = || Server::start(BYTES, Manner::default());
    for servers in [vec![liar()], vec![liar(), honest()], vec![honest(), liar()]] {
        let mut target = connect(&servers.iter().collect::<Vec<_>>()).unwrap();
        let error = measured(&job, &mut target, all(&job)).unwrap_err().to_string();
        assert!(error.contains("do not read back"), "{error}");
    }
}

#[test]
fn a_write_to_two_has_ended_when_both_have_answered() {
    let (told_a, heard_a) = gate();
    let (told_b, heard_b) = gate();
    let (open, closed) = gate();
    let a = Server::start(BYTES, Manner { answered: Some(told_a), ..Manner::default() });
    let b = Server::start(BYTES, Manner { answered: Some(told_b), gate: Some(closed), ..Manner::default() });
    let mut target = connect(&[&a, &b]).unwrap();
    target.prepare(2).unwrap();
    let mut buffers = Buffers::new(2, 512);
    buffers.of(0).fill(7);
    target.submit(Request { slot: 0, kind: Kind::Write, offset: 0, len: 512, fua: true, copy: 0 });
    // A moment that has passed: it sends, looks and returns.
    let mut done = Vec::new();
    target.wait(&mut buffers, Some(Instant::now()), &mut done).unwrap();
    heard_a.recv().unwrap();
    for _ in 0..3 {
        target.wait(&mut buffers, Some(Instant::now()), &mut done).unwrap();
    }
    assert!(done.is_empty(), "the first one has answered, the second one has not: {done:?}");
    open.send(()).unwrap();
    heard_b.recv().unwrap();
    target.wait(&mut buffers, None, &mut done).unwrap();
    assert_eq!(done.iter().map(|d| d.slot).collect::<Vec<_>>(), [0]);
    assert_eq!((a.data.lock().unwrap()[511], b.data.lock().unwrap()[511]), (7, 7));
    // A read is answered by the copy that was asked.
    b.data.lock().unwrap()[0] = 8;
    for copy in 0..2 {
        done.clear();
        target.submit(Request { slot: 1, kind: Kind::Read, offset: 0, len: 512, fua: false, copy });
        target.wait(&mut buffers, None, &mut done).unwrap();
        assert_eq!(usize::from(buffers.get(1)[0]), 7 + copy);
    }
}

#[test]
fn waiting_for_nothing_ends_at_its_time() {
    let server = Server::start(BYTES, Manner::default());
    let mut target = connect(&[&server]).unwrap();
    target.prepare(1).unwrap();
    let until = Instant::now() + Duration::from_millis(3);
    let mut done = Vec::new();
    target.wait(&mut Buffers::new(1, 512), Some(until), &mut done).unwrap();
    assert!(Instant::now() >= until && done.is_empty());
}

#[test]
fn what_goes_wrong_is_named() {
    let job = Job::writes("one", 4096, 4096, 20);
    let words = |manner| {
        let server = Server::start(BYTES, manner);
        assert!(server.folder().is_dir());
        let measured = connect(&[&server]).and_then(|mut target| measured(&job, &mut target, all(&job)));
        format!("{:#}", measured.unwrap_err())
    };
    let error = words(Manner { fails: Some(10), ..Manner::default() });
    assert!(error.contains("Write of 4096 bytes at byte") && error.contains("NBD error 5"), "{error}");
    let error = words(Manner { ends: Some(10), ..Manner::default() });
    assert!(error.contains("ended the NBD connection") || error.contains("NBD connection: "), "{error}");
    let error = words(Manner { flags: 1, ..Manner::default() });
    assert!(error.contains("does not know FUA"), "{error}");
    let (small, large) = (Server::start(4096, Manner::default()), Server::start(BYTES, Manner::default()));
    let error = connect(&[&small, &large]).unwrap_err().to_string();
    assert!(error.contains("sizes differ: [4096, 4194304]"), "{error}");
}
