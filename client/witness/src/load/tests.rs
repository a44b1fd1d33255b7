use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::device::Direct;

const UNITS: u64 = 256;
const PATIENCE: Duration = Duration::from_secs(60);
const SETTINGS: Settings = Settings { threads: 3, most_units: 8, reads_percent: 30, rest: Duration::ZERO, seed: 1 };

/// A file in the checkout's filesystem, as a temporary one may not know O_DIRECT.
fn disk() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let path = folder.path().join("disk");
    File::create(&path).unwrap().set_len(UNITS * UNIT as u64).unwrap();
    (folder, path)
}

/// A disk whose client may be killed.
struct Killable {
    inner: Direct,
    dead: Arc<AtomicBool>,
}

impl Killable {
    fn check(&self) -> Result<(), Failure> {
        if self.dead.load(Ordering::Acquire) { Err(Failure::Gone("killed".to_owned())) } else { Ok(()) }
    }
}

impl Device for Killable {
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Failure> {
        self.check()?;
        self.inner.write(offset, data)?;
        self.check()
    }

    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), Failure> {
        self.check()?;
        self.inner.read(offset, data)
    }
}

fn opens(path: PathBuf, dead: &Arc<AtomicBool>) -> Box<Open> {
    let dead = Arc::clone(dead);
    Box::new(move || Ok(Box::new(Killable { inner: Direct::open(&path)?, dead: Arc::clone(&dead) })))
}

#[test]
fn it_goes_through_the_end_of_its_client() {
    let (_folder, path) = disk();
    let ledger = Arc::new(Ledger::new(UNITS, 1));
    let mut device = Direct::open(&path).unwrap();
    fill_all(&ledger, &mut device, |_| Ok(())).unwrap();
    let dead = Arc::new(AtomicBool::new(false));
    let load = Load::start(Arc::clone(&ledger), opens(path, &dead), SETTINGS).unwrap();
    for _ in 0..5 {
        assert!(load.goes_on(100, PATIENCE));
        dead.store(true, Ordering::Release);
        assert!(load.wait_parked(PATIENCE));
        dead.store(false, Ordering::Release);
        load.next_session();
    }
    assert!(load.goes_on(100, PATIENCE));
    assert!(load.longest() > Duration::ZERO);
    let summary = load.stop();
    read_all(&ledger, &mut device, |_| Ok(())).unwrap();
    assert!(ledger.counts().all_kept(), "{:?}", ledger.evidence());
    assert_eq!(summary.failed, 0);
    assert!(summary.counts.writes > 100 && summary.counts.reads > 50, "{summary:?}");
}

#[test]
fn a_disk_that_forgets_a_write_is_caught() {
    let (_folder, path) = disk();
    let ledger = Arc::new(Ledger::new(UNITS, 1));
    let mut device = Direct::open(&path).unwrap();
    fill_all(&ledger, &mut device, |_| Ok(())).unwrap();
    let mut old = vec![0; UNIT];
    let raw = File::options().read(true).write(true).open(&path).unwrap();
    raw.read_exact_at(&mut old, 17 * UNIT as u64).unwrap();
    let alive = Arc::new(AtomicBool::new(false));
    let load = Load::start(Arc::clone(&ledger), opens(path, &alive), SETTINGS).unwrap();
    assert!(load.goes_on(2000, PATIENCE));
    drop(load.stop());
    assert!(ledger.counts().all_kept());
    raw.write_all_at(&old, 17 * UNIT as u64).unwrap();
    read_all(&ledger, &mut device, |_| Ok(())).unwrap();
    assert_eq!(ledger.counts().lost, 1);
    assert!(ledger.evidence()[0].to_string().contains("unit 17"), "{}", ledger.evidence()[0]);
}

#[test]
fn a_request_that_is_answered_with_an_error_is_counted() {
    let (_folder, path) = disk();
    let ledger = Arc::new(Ledger::new(UNITS + 64, 1));
    let alive = Arc::new(AtomicBool::new(false));
    let load =
        Load::start(Arc::clone(&ledger), opens(path, &alive), Settings { reads_percent: 100, ..SETTINGS }).unwrap();
    assert!(load.goes_on(50, PATIENCE));
    let begin = Instant::now();
    while load.failed() == 0 && begin.elapsed() < PATIENCE {
        assert!(load.goes_on(1, PATIENCE));
    }
    let summary = load.stop();
    assert!(summary.failed > 0, "reads beyond the file's end");
    assert!(summary.failures[0].contains("read at byte"), "{:?}", summary.failures);
}
