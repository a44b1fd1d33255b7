//! The load engine: what it says was written is there, what it times is what was asked for, and a target that only
//! pretends is caught.

mod connections;
mod fake;
mod files;
mod server;
mod whole;

use std::time::Duration;

use anyhow::Result;
use twinsan_perf::bench::engine::{Budget, Engine, prefill, read_back};
use twinsan_perf::bench::job::Job;
use twinsan_perf::bench::recorder::Recorder;
use twinsan_perf::bench::result::Measured;
use twinsan_perf::bench::target::{Kind, Target};
use twinsan_witness::pattern::Model;

use self::fake::{Fake, Lie};

const SPAN: u64 = 4 << 20;

/// Prefill, one slice, and everything read back.
fn measured(job: &Job, target: &mut dyn Target, budget: Budget) -> Result<Measured> {
    let mut model = Model::new(SPAN);
    prefill(target, SPAN, &mut model, &mut |_| Ok(()))?;
    let mut recorder = Recorder::new(job);
    Engine::new(job, SPAN)?.slice(target, &mut model, &mut recorder, budget, |_| Ok(()))?;
    assert_eq!(read_back(target, SPAN, &model, &mut |_| Ok(()))?, SPAN * target.copies() as u64);
    Ok(recorder.finish())
}

fn all(job: &Job) -> Budget {
    Budget { count: job.count, time: None }
}

fn mix() -> Job {
    Job { depth: 8, read_percent: 70, ..Job::writes("mix", 4096, 512, 1000) }
}

#[test]
fn what_was_completed_is_there_and_counted() {
    for job in [Job::writes("one", 10_240, 512, 300), mix(), Job { read_percent: 100, ..mix() }] {
        let mut fake = Fake::new(SPAN, Lie::None);
        let measured = measured(&job, &mut fake, all(&job)).unwrap();
        let count =
            |latency: &Option<_>| latency.as_ref().map_or(0, |l: &twinsan_perf::bench::result::Latency| l.count);
        let (reads, writes) = (count(&measured.read), count(&measured.write));
        assert_eq!((reads + writes, measured.requests), (job.count, job.count));
        assert_eq!(measured.bytes, job.count * job.bytes as u64);
        let share = reads * 100 / job.count;
        let wanted = u64::from(job.read_percent);
        assert!(share.abs_diff(wanted) <= if wanted % 100 == 0 { 0 } else { 5 }, "{share} % reads");
        assert_eq!(fake.most_in_flight, job.depth);
        assert!(fake.unsafe_writes().is_empty(), "FUA on every write");
    }
}

#[test]
fn a_target_that_acknowledges_and_stores_nothing_is_caught() {
    let job = Job::writes("one", 4096, 4096, 20);
    let words = |job: &Job, lie| measured(job, &mut Fake::new(SPAN, lie), all(job)).unwrap_err().to_string();
    let error = words(&job, Lie::StoresNothing);
    assert!(error.contains("completed writes do not read back"), "{error}");
    let error = words(&job, Lie::ForgetsOne);
    assert!(error.starts_with("1 completed writes do not read back"), "{error}");
    // Its last 512 bytes only.
    let error = words(&job, Lie::TearsOne);
    assert!(error.starts_with("1 completed writes do not read back"), "{error}");
}

#[test]
fn a_read_that_brings_something_else_is_caught_at_once() {
    let error = measured(&mix(), &mut Fake::new(SPAN, Lie::ReadsZeros), all(&mix())).unwrap_err().to_string();
    assert!(error.contains("a read brings something else than what was completed"), "{error}");
}

#[test]
fn a_flush_follows_so_many_writes_and_waits_for_all_of_them() {
    let job = Job { depth: 4, flush_every: Some(10), ..Job::writes("log", 4096, 4096, 25) };
    let mut fake = Fake::new(SPAN, Lie::None);
    let measured = measured(&job, &mut fake, all(&job)).unwrap();
    assert_eq!(measured.flush.unwrap().count, 3, "after 10, after 20, and for the last five");
    // Behind the prefill, which has FUA: what the fake was asked for, and how much was in flight with it.
    let kinds: Vec<(Kind, bool)> = fake.asked.iter().map(|a| (a.request.kind, a.request.fua)).collect();
    let prefill = kinds.iter().position(|&(_, fua)| !fua).unwrap();
    let job_part: Vec<Kind> = kinds[prefill..].iter().map(|&(kind, _)| kind).filter(|&k| k != Kind::Read).collect();
    let expected: Vec<Kind> =
        [10, 10, 5].iter().flat_map(|&n| std::iter::repeat_n(Kind::Write, n).chain([Kind::Flush])).collect();
    assert_eq!(job_part, expected);
    let flushes = fake.asked.iter().filter(|a| a.request.kind == Kind::Flush);
    assert!(flushes.map(|a| a.beside).all(|beside| beside == 0));
}

#[test]
fn requests_in_flight_never_overlap() {
    // 16 of 10 KB in 4 MiB at any 512 bytes: by chance many would. The fake looks.
    let job = Job { depth: 100, read_percent: 50, ..Job::writes("tight", 10_240, 512, 2000) };
    let mut fake = Fake::new(SPAN, Lie::None);
    measured(&job, &mut fake, all(&job)).unwrap();
    assert_eq!((fake.overlaps, fake.most_in_flight), (0, 100));
}

/// Every request takes 100 µs, but one takes 50 ms.
fn one_is_slow() -> Fake {
    let mut fake = Fake::new(SPAN, Lie::None);
    fake.slow = Some((200, Duration::from_millis(50)));
    fake
}

#[test]
fn with_a_rate_latency_counts_from_when_a_request_was_due() {
    let closed = Job::writes("closed", 4096, 4096, 1000);
    let open = Job { rate: Some(1000.0), ..closed.clone() };
    let latency = |job: &Job| measured(job, &mut one_is_slow(), all(job)).unwrap().write.unwrap();
    let (closed, open) = (latency(&closed), latency(&open));
    // Who waits for each answer meets the pause once. Who has one due every millisecond meets it with all that were due.
    let slow =
        |l: &twinsan_perf::bench::result::Latency| l.curve.iter().filter(|&&(p, us)| p <= 98.0 && us > 1000.0).count();
    assert_eq!(slow(&closed), 0, "{closed:?}");
    assert!(open.p50_us < 110.0 && open.p90_us < 110.0, "{open:?}");
    let share = open.curve.iter().find(|&&(_, us)| us > 1000.0).unwrap().0;
    // 50 ms, less 0.1 ms of each that is made good: about 55 of 1000.
    assert!((93.0..96.0).contains(&share), "{share}");
    assert!((49_000.0..51_000.0).contains(&open.max_us) && (49_000.0..51_000.0).contains(&closed.max_us));
}

#[test]
fn a_rate_is_kept_and_time_ends_a_slice() {
    let job = Job { rate: Some(500.0), ..Job::writes("paced", 4096, 4096, 1_000_000) };
    let budget = Budget { count: job.count, time: Some(Duration::from_secs(2)) };
    let paced = measured(&job, &mut Fake::new(SPAN, Lie::None), budget).unwrap();
    assert_eq!(paced.requests, 1000);
    assert!((499.0..=501.0).contains(&paced.iops), "{}", paced.iops);
    assert_eq!(paced.series.len(), 20);
    assert!(paced.series.iter().all(|p| (480.0..=520.0).contains(&p.iops)), "{:?}", paced.series);
    let flat_out = Job { rate: None, ..job };
    let done = measured(&flat_out, &mut Fake::new(SPAN, Lie::None), budget).unwrap();
    assert_eq!(done.requests, 20_000, "2 s of 100 µs each");
}
