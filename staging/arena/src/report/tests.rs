use super::*;

#[test]
fn a_missing_pool_page_is_counted_into_the_remedy() {
    let why = std::io::Error::from_raw_os_error(libc::ENOMEM);
    let text = |wanted, pool| Downgrade::no_huge_pages(wanted, pool, &why).to_string();
    let some = text(33, Some(HugePool { total: 64, free: 30 }));
    assert!(some.contains("wanted 33 of 2 MiB, the pool has 30 free of 64 (Cannot allocate memory"), "{some}");
    assert!(some.contains("sysctl vm.nr_hugepages=67,"), "{some}");
    // Free by the count and refused all the same (another node's share): one more at least.
    let refused = text(2, Some(HugePool { total: 4, free: 4 }));
    assert!(refused.contains("sysctl vm.nr_hugepages=5,"), "{refused}");
    let none = text(2, None);
    assert!(none.contains("no pool") && !none.contains("sysctl"), "{none}");
}

#[test]
fn each_step_down_says_what_it_costs_and_how_to_get_the_better_one() {
    let why = || "Cannot allocate memory".to_owned();
    let transparent = |shared, setting: Option<&str>| Downgrade::NoTransparentPages {
        shared,
        huge_bytes: 0,
        bytes: 4 << 20,
        setting: setting.map(str::to_owned),
    };
    let cases = [
        (Downgrade::NoHugePages { wanted: 1, pool: Some(0), free: 0, why: why() }, "sysctl vm.nr_hugepages=1"),
        (transparent(false, Some("never")), "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"),
        (transparent(false, Some("madvise")), "echo 1 > /proc/sys/vm/compact_memory"),
        (transparent(false, None), "CONFIG_TRANSPARENT_HUGEPAGE"),
        (transparent(true, Some("never")), "echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled"),
        (Downgrade::NotLocked { bytes: 4096, limit: Some(65_536), why: why() }, "LimitMEMLOCK=infinity"),
        (Downgrade::NotLocked { bytes: 4096, limit: None, why: why() }, "ulimit -l unlimited"),
    ];
    for (downgrade, remedy) in cases {
        let text = downgrade.to_string();
        let (_, after_cost) = text.split_once(" Cost: ").expect("a cost");
        let (_, said) = after_cost.split_once(" Remedy: ").expect("a remedy");
        assert!(said.contains(remedy), "{text}");
    }
    let limited = Downgrade::NotLocked { bytes: 1 << 20, limit: Some(65_536), why: why() }.to_string();
    assert!(limited.starts_with("not locked: 1 MiB to lock, RLIMIT_MEMLOCK is 65536 bytes (Cannot"), "{limited}");
}

#[test]
fn a_report_is_one_readable_line() {
    let report = |pages, locked| Report {
        name: "vol0 lane".to_owned(),
        bytes: 3 << 20,
        mapped: 4 << 20,
        pages,
        locked,
        downgrades: vec![],
    };
    let cases = [
        (report(Pages::Huge, true), "arena \"vol0 lane\": 3 MiB on 2 huge pages, locked"),
        (
            report(Pages::Transparent { huge_bytes: 4 << 20 }, true),
            "arena \"vol0 lane\": 3 MiB on transparent huge pages (4 MiB), locked",
        ),
        (report(Pages::Small, false), "arena \"vol0 lane\": 3 MiB on small pages, not locked"),
    ];
    for (report, expected) in cases {
        assert_eq!(report.to_string(), expected);
    }
    assert_eq!([0, 1023, 1024, 5 << 30].map(|n| Size(n).to_string()), ["0 bytes", "1023 bytes", "1 KiB", "5 GiB"]);
}
