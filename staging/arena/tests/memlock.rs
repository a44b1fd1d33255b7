//! With a small `RLIMIT_MEMLOCK` the arena is unlocked, says so, and works. A program of its own, because the limit is
//! the whole process's.

use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use twinsan_arena::{Arena, ArenaOptions, Downgrade, PagePolicy};

const LIMIT: u64 = 64 << 10;

fn arena(bytes: usize, pages: PagePolicy) -> Arena {
    Arena::new(&ArenaOptions { name: "lane".to_owned(), bytes, pages, lock: true }).expect("memory for a test")
}

/// What the kernel counts as locked in this process, in bytes.
fn locked_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).expect("a line of VmLck");
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

/// Root ignores the limit unless it gives the privilege up; for others that changes nothing.
fn obey_limit() {
    let mut sets = capabilities(None).unwrap();
    sets.effective.remove(CapabilitySet::IPC_LOCK);
    set_capabilities(None, sets).unwrap();
    setrlimit(Resource::Memlock, Rlimit { current: Some(LIMIT), maximum: Some(LIMIT) }).unwrap();
}

#[test]
fn a_small_limit_means_unlocked_and_is_said() {
    obey_limit();

    // Within the limit.
    let within = arena(32 << 10, PagePolicy::Small);
    assert!(within.report().locked && within.report().downgrades.is_empty(), "{:?}", within.report());
    assert_eq!(locked_bytes(), 32 << 10);
    drop(within);
    assert_eq!(locked_bytes(), 0);

    // Beyond it.
    for pages in [PagePolicy::Small, PagePolicy::Transparent] {
        let beyond = arena(4 << 20, pages);
        let report = beyond.report();
        assert!(!report.locked, "{report}");
        let last = report.downgrades.last().expect("a downgrade");
        assert!(
            matches!(last, Downgrade::NotLocked { bytes, limit: Some(LIMIT), .. } if *bytes == 4 << 20),
            "{last:?}"
        );
        assert_eq!(locked_bytes(), 0);
        beyond.copy_in((4 << 20) - 1, &[1]);
        assert!(!beyond.is_zero(0, 4 << 20), "it works all the same");
    }

    // Whoever does not ask for it is not told.
    let options = ArenaOptions { name: "free".to_owned(), bytes: 4 << 20, pages: PagePolicy::Small, lock: false };
    assert!(Arena::new(&options).unwrap().report().downgrades.is_empty());
}
