//! What the host has decides what an arena gets; each outcome is checked against the kernel's own count. A program of
//! its own, so that nobody else takes pages in between.

use std::fs;
use std::ops::Range;
use std::sync::Mutex;

use twinsan_arena::{Arena, ArenaOptions, Downgrade, PagePolicy, Pages};

const MIB: usize = 1 << 20;

/// The tests here count what the whole process uses: one at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn arena(bytes: usize, pages: PagePolicy) -> Arena {
    Arena::new(&ArenaOptions { name: "lane".to_owned(), bytes, pages, lock: false }).expect("memory for a test")
}

/// The size of the pages under `address`, by the kernel's word, in bytes.
fn page_bytes(address: usize) -> usize {
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    let mut lines = smaps.lines().skip_while(|line| !range(line).is_some_and(|range| range.contains(&address)));
    let size = lines.find_map(|line| line.strip_prefix("KernelPageSize:")).expect("a mapping around the address");
    size.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

/// The addresses in a mapping's first line: `7f00-7fff rw-p …`.
fn range(line: &str) -> Option<Range<usize>> {
    let (start, end) = line.split_once(' ')?.0.split_once('-')?;
    Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
}

/// Whether `address` belongs to a mapping of this process.
fn is_mapped(address: usize) -> bool {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().any(|line| range(line).is_some_and(|range| range.contains(&address)))
}

/// Page faults of this thread so far.
fn faults() -> i64 {
    // SAFETY: an rusage is integers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is writable and the call fills it.
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) }, 0);
    usage.ru_minflt + usage.ru_majflt
}

#[test]
fn huge_pages_are_taken_where_there_are_some_and_missed_aloud_where_not() {
    let _alone = ALONE.lock();
    // Not a whole number of pages: rounded up to three.
    let arena = arena(5 * MIB, PagePolicy::Auto);
    let report = arena.report();
    assert_eq!((arena.len(), report.mapped), (5 * MIB, 6 * MIB), "{report:?}");
    if report.pages == Pages::Huge {
        assert!(report.locked && report.downgrades.is_empty(), "{report:?}");
        assert_eq!(page_bytes(arena.as_ptr().addr()), 2 * MIB);
    } else {
        // Enough of them and yet refused would be our mistake.
        let first = report.downgrades.first();
        assert!(matches!(first, Some(Downgrade::NoHugePages { wanted: 3, free: 0..3, .. })), "{report:?}");
        assert!(page_bytes(arena.as_ptr().addr()) < 2 * MIB);
    }
}

#[test]
fn a_small_arena_does_not_ask_for_huge_pages() {
    let _alone = ALONE.lock();
    let arena = arena(MIB - 1, PagePolicy::Auto);
    assert_eq!((arena.report().pages, arena.report().downgrades.len()), (Pages::Small, 0));
    assert!(page_bytes(arena.as_ptr().addr()) < 2 * MIB);
    assert_eq!(arena.report().mapped, MIB);
}

#[test]
fn transparent_pages_begin_on_a_huge_page_and_are_counted() {
    let _alone = ALONE.lock();
    let arena = arena(8 * MIB, PagePolicy::Transparent);
    assert_eq!(arena.as_ptr().addr() % (2 * MIB), 0);
    let report = arena.report();
    let setting = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    match report.pages {
        Pages::Transparent { huge_bytes } => {
            assert!((4 * MIB..=8 * MIB).contains(&huge_bytes), "{report:?}");
            assert!(!setting.contains("[never]") && report.downgrades.is_empty(), "{report:?}");
        }
        Pages::Small => {
            let only = report.downgrades.first();
            assert!(matches!(only, Some(Downgrade::NoTransparentPages { .. })), "{report:?}");
        }
        Pages::Huge => panic!("not asked for: {report:?}"),
    }
}

#[test]
fn no_page_is_left_to_fault_in() {
    let _alone = ALONE.lock();
    for pages in [PagePolicy::Auto, PagePolicy::Transparent, PagePolicy::Small] {
        let arena = arena(8 * MIB, pages);
        let before = faults();
        for offset in (0..arena.len()).step_by(4096) {
            arena.copy_in(offset, &[1]);
        }
        // Untouched small pages would be 2048 faults, huge ones 4.
        assert_eq!(faults() - before, 0, "{pages:?}");
    }
}

#[test]
fn a_dropped_arena_is_unmapped() {
    let _alone = ALONE.lock();
    for pages in [PagePolicy::Auto, PagePolicy::Transparent, PagePolicy::Small] {
        let arena = arena(64 * MIB, pages);
        let middle = arena.addr(32 * MIB).addr();
        assert!(is_mapped(middle), "{pages:?}");
        drop(arena);
        assert!(!is_mapped(middle), "{pages:?}");
    }
}
