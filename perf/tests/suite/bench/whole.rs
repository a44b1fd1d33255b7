//! `run` and `compare` as a whole.

use std::path::Path;

use anyhow::Result;
use twinsan_perf::bench::compare::{Interrupt, Load, Rounds, Settings, compare};
use twinsan_perf::bench::contestants::named;
use twinsan_perf::bench::cpu::CLIENT;
use twinsan_perf::bench::job::Job;
use twinsan_perf::bench::result::Run;
use twinsan_perf::bench::run::{self, run};

use super::server::{Manner, Server};
use super::{SPAN, mix};

fn settings(target: &str) -> run::Settings {
    let log = Job { depth: 4, flush_every: Some(7), ..Job::writes("log", 4096, 4096, 40) };
    run::Settings {
        place: target.parse().unwrap(),
        jobs: vec![Job::writes("one", 10_240, 512, 50), mix(), log],
        span_bytes: SPAN,
        overwrite: false,
        create_bytes: None,
        processes: Vec::new(),
        quiet: true,
    }
}

fn measured(settings: &run::Settings) -> Result<Run> {
    run(settings, &Interrupt::default())
}

#[test]
fn a_file_is_made_measured_and_removed() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("disk");
    let wanted = run::Settings { create_bytes: Some(SPAN), ..settings(&path.display().to_string()) };
    let run = measured(&wanted).unwrap();
    assert_eq!((run.target_bytes, run.span_bytes, run.checked_bytes), (SPAN, SPAN, SPAN));
    assert_eq!(run.jobs.iter().map(|m| m.requests).collect::<Vec<_>>(), [50, 1000, 40]);
    assert_eq!(run.jobs[2].flush.as_ref().unwrap().count, 6);
    assert!(run.jobs.iter().all(|m| m.cpu.as_ref().is_some_and(|cpu| cpu.by_process_s[0].0 == CLIENT)));
    let table = run.table();
    assert!(table.contains("4 MiB read back") && table.contains("flushes"), "{table}");
    assert!(!path.exists());
}

#[test]
fn what_is_there_is_not_written_over_unless_one_says_so() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("disk");
    let mut bytes = vec![0; usize::try_from(SPAN).unwrap()];
    bytes[3_000_000] = 1;
    std::fs::write(&path, &bytes).unwrap();
    let careful = settings(&path.display().to_string());
    let error = measured(&careful).unwrap_err().to_string();
    assert!(error.contains("byte 3000000 is not zero") && error.contains("--overwrite"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "not a byte was written");
    let gone = run::Settings { processes: vec![("ghost".into(), u32::MAX >> 1)], overwrite: true, ..careful.clone() };
    assert!(format!("{:#}", measured(&gone).unwrap_err()).contains("ghost"));
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "a wrong --pid is noticed before");
    measured(&run::Settings { overwrite: true, ..careful }).unwrap();
    assert!(path.exists(), "what was there stays");
}

#[test]
fn an_export_that_keeps_nothing_has_no_figures() {
    let server = Server::start(4 << 20, Manner { forgets: true, connections: 5, ..Manner::default() });
    let uri = format!("nbd+unix:///x?socket={}", server.socket().display());
    let one = run::Settings { jobs: vec![Job::writes("one", 4096, 4096, 5)], ..settings(&uri) };
    let error = format!("{:#}", measured(&one).unwrap_err());
    assert!(error.contains("completed writes do not read back"), "{error}");
    let honest = Server::start(4 << 20, Manner { connections: 5, ..Manner::default() });
    let uri = format!("nbd+unix:///x?socket={}", honest.socket().display());
    assert_eq!(measured(&settings(&uri)).unwrap().jobs.len(), 3);
}

#[test]
fn ours_and_a_file_take_turns() {
    let jobs = vec![Job::writes("one", 10_240, 512, 40), Job { count: 60, ..mix() }];
    let contestants = ["twinsan", "file"].map(|key| named(key).unwrap());
    let settings = Settings {
        contestants: contestants.to_vec(),
        jobs,
        rounds: Rounds::Requests(vec![80, 121]),
        load: Load::Burst,
        device_bytes: 16 << 20,
        staging_bytes: 8 << 20,
        folder: Path::new(env!("CARGO_TARGET_TMPDIR")).to_owned(),
        quiet: true,
    };
    let result = compare(&settings, &Interrupt::default()).unwrap();
    assert_eq!((result.load, result.rounds, result.checked_bytes), ("burst", 3, 32 << 20));
    assert_eq!(result.staging_pages.len(), 2, "{:?}", result.staging_pages);
    for (workload, slices) in result.workloads.iter().zip([2, 3]) {
        assert_eq!(workload.rows.iter().map(|row| row.key).collect::<Vec<_>>(), ["twinsan", "file"]);
        for row in &workload.rows {
            assert_eq!(row.all.requests, workload.job.count * slices as u64, "{}", row.key);
            assert_eq!((row.slice_p50_us.len(), row.slice_iops.len()), (slices, slices));
        }
        let names = |row: usize| {
            let cpu = workload.rows[row].all.cpu.as_ref().unwrap();
            cpu.by_process_s.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(0), ["twinsand san1", "twinsand san2", "twinsan attach", CLIENT]);
        assert_eq!(names(1), [CLIENT]);
        let [file] = workload.beside_ours.as_slice() else { panic!("{:?}", workload.beside_ours) };
        assert!(file.key == "file" && file.p50.least > 0.0 && file.iops.most.is_finite(), "{file:?}");
    }
    let table = result.table();
    assert!(table.contains("TwinSAN pair") && table.contains("file, O_DIRECT|O_DSYNC"), "{table}");
    assert!(table.contains("3 rounds of 60") && table.contains("32 MiB read back"), "{table}");
}
