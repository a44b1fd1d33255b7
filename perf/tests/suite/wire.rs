//! `twinsan-perf wire`: every line is there and makes sense, and a fabric that moves no data wins nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use crate::support::{LIARS, Lie, Lying};
use anyhow::Result;
use twinsan_fabric::faulty::{Faults, FaultyFabric};
use twinsan_fabric::{Fabric, WaitPolicy};
use twinsan_perf::fabric::open;
use twinsan_perf::wire::figures::{Times, Wire};
use twinsan_perf::wire::{Budget, Listener, Pinger, Row, Settings, both_ends, measure};

const SPIN: Duration = Duration::from_micros(20);
const SIZES: [u32; 4] = [64, 100, 4096, 1 << 20];
const ROUNDS: u64 = 70;
const BUDGET: Budget = Budget { count: ROUNDS, time: Duration::from_secs(4) };

fn settings(url: &str) -> Settings {
    let budget = Budget { count: ROUNDS, time: Duration::from_secs(60) };
    Settings { url: url.into(), sizes: SIZES.into(), budget, spin: SPIN, quiet: true }
}

fn in_order(times: &Times) -> bool {
    let row = [times.min_us, times.p50_us, times.p90_us, times.p99_us, times.p999_us, times.max_us];
    times.min_us > 0.0 && row.is_sorted()
}

fn whole(wire: &Wire) {
    let lines: Vec<(&str, u32)> = wire.rows.iter().map(|row| (row.row, row.bytes)).collect();
    let with = |name| SIZES.map(|bytes| (name, bytes));
    let expected =
        [&[("imm", 0), ("ack", 0), ("message", 0)][..], &with("write+imm"), &with("write+imm, ack"), &with("read")];
    assert_eq!(lines, expected.concat());
    for row in &wire.rows {
        assert_eq!(row.round_trip.count, ROUNDS, "{row:?}");
        assert!(row.checked >= 2, "{row:?}");
        assert!(in_order(&row.round_trip), "{row:?}");
    }
}

#[test]
fn both_ends_over_every_socket() {
    let folder = tempfile::tempdir().unwrap();
    let unix = format!("unix://{}", folder.path().join("wire").display());
    for url in [unix.as_str(), "tcp://127.0.0.1:0"] {
        let wire = both_ends(&settings(url)).unwrap();
        assert!(wire.both_ends_here && !wire.fabric.ends_with(":0"));
        whole(&wire);
    }
}

/// Runs `with` against a listener whose fabric `maker` makes.
fn against<F, T>(maker: fn(WaitPolicy) -> Result<F>, with: impl FnOnce(&str) -> T) -> T
where
    F: Fabric + 'static,
{
    let over = Arc::new(AtomicBool::new(false));
    let (tell, told) = channel();
    let stop = Arc::clone(&over);
    let served = thread::spawn(move || {
        let mut listener = Listener::new(&maker, SPIN, true).unwrap();
        tell.send(listener.listen("tcp://127.0.0.1:0").unwrap()).unwrap();
        listener.serve(&stop);
    });
    let outcome = with(&told.recv().unwrap());
    over.store(true, Ordering::Relaxed);
    served.join().unwrap();
    outcome
}

fn run(url: &str, maker: fn(WaitPolicy) -> Result<Lying>, row: Row) -> Result<()> {
    let mut pinger = Pinger::connect(&maker, url, SPIN)?;
    pinger.run(row, 4096, Budget { count: ROUNDS, time: Duration::from_secs(60) }).map(drop)
}

#[test]
fn a_fabric_that_moves_nothing_is_caught() {
    let moved = |row| against(|wait| Lying::open(wait, Lie::None), |url| run(url, |w| Lying::open(w, Lie::None), row));
    for row in [Row::Blob, Row::BlobBothWays, Row::Read] {
        moved(row).unwrap();
    }
    for lie in [Lie::NoPayload, Lie::OldPayload, Lie::HalfPayload] {
        let asks = |row| against(open, |url| run(url, LIARS[lie as usize], row));
        for row in [Row::Blob, Row::BlobBothWays] {
            let error = format!("{:#}", asks(row).unwrap_err());
            assert!(error.contains("the payload that we sent is not what arrived"), "{lie:?}, {row:?}: {error}");
        }
        let answers = |row| against(LIARS[lie as usize], |url| run(url, |w| Lying::open(w, Lie::None), row));
        for row in [Row::BlobBothWays, Row::Read] {
            let error = format!("{:#}", answers(row).unwrap_err());
            assert!(error.contains("the payload that we got is not what arrived"), "{lie:?}, {row:?}: {error}");
        }
    }
}

#[test]
fn the_worst_fabric_that_is_right_passes() {
    // A payload that was answered has left, whatever its post's completion says: as with the product's (its outbox).
    let faults = Faults { guard_memory: false, ..Faults::with_seed(7) };
    let maker = |wait| -> Result<_> { Ok(FaultyFabric::new(open(wait)?, faults)) };
    whole(&against(open, |url| measure(&maker, &settings(url))).unwrap());
}

#[test]
fn one_end_learns_what_lies_between_two_others() {
    against(open, |far| {
        against(open, |near| {
            let mut pinger = Pinger::connect(&open, near, SPIN).unwrap();
            for row in [Row::Ack, Row::BlobBothWays] {
                let bytes = if row.has_payload() { 4096 } else { 0 };
                let run = pinger.ask(far, row, bytes, BUDGET, SPIN).unwrap();
                assert_eq!(run.times.len() as u64, ROUNDS);
                assert!(run.checked >= 2 && in_order(&Times::of(&run.times)), "{run:?}");
            }
            let error = pinger.ask("tcp://127.0.0.1:1", Row::Ack, 0, BUDGET, SPIN).unwrap_err().to_string();
            assert!(error.contains("tcp://127.0.0.1:1") && error.contains("refused"), "{error}");
            // And goes on after that.
            pinger.ask(far, Row::Ack, 0, BUDGET, SPIN).unwrap();
        });
    });
}

#[test]
fn a_stranger_is_cut_off_and_the_next_one_served() {
    against(open, |url| {
        let mut stranger = open(WaitPolicy::default()).unwrap();
        let conn = stranger.connect(url).unwrap();
        let mut events = Vec::new();
        while events.is_empty() {
            stranger.poll(&mut events, Some(Duration::from_secs(10)));
        }
        stranger.send(conn, b"GET / HTTP/1.1").unwrap();
        stranger.submit(conn);
        while !events.iter().any(|event| matches!(event, twinsan_fabric::Event::Closed { .. })) {
            stranger.poll(&mut events, Some(Duration::from_secs(10)));
        }
        let mut pinger = Pinger::connect(&open, url, SPIN).unwrap();
        pinger.run(Row::Ack, 0, Budget { count: 3, time: Duration::from_secs(60) }).unwrap();
    });
}
