//! Files, past the page cache.

use std::path::Path;

use twinsan_perf::bench::file::DirectIo;
use twinsan_perf::bench::job::Job;

use super::{SPAN, all, measured, mix};

#[test]
fn a_file_is_written_by_one_thread_and_by_many() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("disk");
    std::fs::File::create(&path).unwrap().set_len(SPAN).unwrap();
    let jobs = [
        (Job::writes("one", 10_240, 512, 50), true),
        (mix(), true),
        (Job { depth: 4, flush_every: Some(7), ..Job::writes("log", 4096, 4096, 40) }, false),
        (Job { rate: Some(2000.0), depth: 2, ..Job::writes("paced", 4096, 4096, 40) }, true),
        (Job { rate: Some(2000.0), ..Job::writes("paced by one", 4096, 4096, 40) }, true),
    ];
    for (job, synchronous) in jobs {
        let mut target = DirectIo::open(&path, synchronous).unwrap();
        assert_eq!(measured(&job, &mut target, all(&job)).unwrap().requests, job.count, "{}", job.name);
    }
}

#[test]
fn what_is_no_file_is_refused() {
    let error = DirectIo::open(Path::new("/dev/null"), true).unwrap_err();
    assert_eq!(error.to_string(), "/dev/null is neither a file nor a block device");
}
