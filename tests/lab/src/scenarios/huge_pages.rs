//! Staging on huge pages, as both nodes want it: seen in the kernel's own books, not in what the programs say.

use anyhow::{Context, Result, ensure};

use super::device::over_rdma;
use super::running::HARDLY;
use crate::load::{Load, SOME};
use crate::pair::{Front, NODES, Pair, Plan};
use crate::scenario::Stage;
use crate::topology::{Host, Lab, SANS};

/// More than a node takes: the staging, and what RDMA's queues need.
const POOL_PAGES: u64 = 64;
const HUGE_PAGE_KIB: u64 = 2048;
/// A lane's data ring, by [`Plan::two_hosts`].
const RING_KIB: u64 = 16 << 10;

/// Pages reserved, a pair that takes them, a load that is verified, and what the kernel says of both processes meanwhile.
pub(super) fn staging(stage: &mut Stage) -> Result<()> {
    for host in SANS {
        let reserve = format!("sysctl -q vm.nr_hugepages={POOL_PAGES}; sysctl -n vm.nr_hugepages");
        let reserved = stage.lab.node(host).sh(&reserve)?;
        ensure!(reserved.trim() == POOL_PAGES.to_string(), "{} reserves {} pages", host.name(), reserved.trim());
    }
    let (pair, device) = Pair::serve(&stage.lab, Plan::two_hosts("rdma"), Front::Ublk)?;
    over_rdma(&stage.lab)?;
    let load = Load::start(&stage.lab, device)?;
    load.goes_on(SOME)?;
    let mut words = Vec::new();
    for (node, name) in NODES.into_iter().enumerate() {
        words.push(format!("{name} {}", on_huge_pages(&stage.lab, &pair, node)?));
    }
    load.goes_on(SOME)?;
    pair.until_dual(&stage.lab)?;
    let outcome = load.end_and_check(&stage.lab, HARDLY)?;
    stage.note(words.join("; "));
    stage.note(outcome.note());
    Ok(())
}

/// What a node says of its memory, and then what the kernel says: the pages, that the pool is short of them, and that the RDMA
/// device has pinned and registered them.
fn on_huge_pages(lab: &Lab, pair: &Pair, node: usize) -> Result<String> {
    let memory = pair.status(lab, node)?.with_context(|| format!("{} does not answer", NODES[node]))?.memory;
    ensure!(memory.pages == "huge" && memory.locked && memory.advice.is_empty(), "{}: {memory:?}", NODES[node]);
    let host = pair.host(node);
    let pages = arena_pages(lab, host, memory.bytes >> 10)?;
    let free: u64 = lab.node(host).sh("awk '/^HugePages_Free/ { print $2 }' /proc/meminfo")?.trim().parse()?;
    ensure!(free + pages <= POOL_PAGES, "{free} of {POOL_PAGES} huge pages are free, and {pages} are said to be taken");
    let registered_kib = registered_kib(lab, host)?;
    ensure!(registered_kib >= RING_KIB, "the largest memory region of {} has {registered_kib} KiB", host.name());
    let pinned_kib = pinned_kib(&lab.node(host).sh("cat /proc/$(pidof -s twinsand)/status")?)?;
    ensure!(pinned_kib >= RING_KIB, "{} has {pinned_kib} KiB pinned", host.name());
    Ok(format!("{pages} huge pages, {} MiB pinned", pinned_kib >> 10))
}

/// The huge pages of a node's process, at least as many as the arena takes. Nothing else of it is large enough for a ring, so
/// a memory region of that size lies on them.
fn arena_pages(lab: &Lab, host: Host, arena_kib: u64) -> Result<u64> {
    let mappings = mappings(&lab.node(host).sh("cat /proc/$(pidof -s twinsand)/smaps")?)?;
    let huge_kib: u64 = mappings.iter().filter(|m| m.page_kib == HUGE_PAGE_KIB).map(|m| m.hugetlb_kib).sum();
    ensure!(huge_kib >= arena_kib, "{huge_kib} KiB on huge pages, and the staging has {arena_kib} KiB");
    let small = mappings.iter().find(|m| m.page_kib != HUGE_PAGE_KIB && m.resident_kib >= RING_KIB);
    ensure!(small.is_none(), "{}: large enough for a ring, and on small pages: {small:?}", host.name());
    Ok(huge_kib / HUGE_PAGE_KIB)
}

/// The largest memory region of the node's process on the device that the client writes through.
fn registered_kib(lab: &Lab, host: Host) -> Result<u64> {
    let shown = lab.node(host).sh("rdma resource show mr")?;
    let ours = shown.lines().filter(|line| line.contains("rxe_eth3") && line.contains("comm twinsand"));
    let lengths = ours.filter_map(|line| line.split_once("mrlen ")?.1.split_whitespace().next()?.parse::<u64>().ok());
    Ok(lengths.max().with_context(|| format!("no memory region of ours on {}: {shown}", host.name()))? >> 10)
}

/// `VmPin`: what RDMA devices hold of the process.
fn pinned_kib(status: &str) -> Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmPin:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
    kib.with_context(|| format!("no VmPin in {status}"))
}

/// A mapping of a process, by `/proc/PID/smaps` (proc(5)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mapping {
    page_kib: u64,
    resident_kib: u64,
    hugetlb_kib: u64,
}

fn mappings(smaps: &str) -> Result<Vec<Mapping>> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let (Some(first), Some(number)) = (words.next(), words.next()) else { continue };
        // `ADDRESS-ADDRESS PERMISSIONS …` begins one, and `Name: VALUE kB` follow.
        let Some(name) = first.strip_suffix(':').filter(|_| !first.contains('-')) else {
            mappings.push(Mapping::default());
            continue;
        };
        let Some(mapping) = mappings.last_mut() else { continue };
        let kib = || number.parse::<u64>().with_context(|| line.to_owned());
        match name {
            "KernelPageSize" => mapping.page_kib = kib()?,
            "Rss" => mapping.resident_kib = kib()?,
            // They are in no Rss.
            "Private_Hugetlb" | "Shared_Hugetlb" => mapping.hugetlb_kib += kib()?,
            _ => {}
        }
    }
    Ok(mappings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_of_each_mapping_are_told_apart() {
        let smaps = "7f0000000000-7f0002400000 rw-p 00000000 00:10 3  /anon_hugepage (deleted)\n\
                     Size:              36864 kB\nKernelPageSize:     2048 kB\nRss:                   0 kB\n\
                     Shared_Hugetlb:        0 kB\nPrivate_Hugetlb:   36864 kB\nTHPeligible:    0\n\
                     VmFlags: rd wr mr mw me dc de ht\n\
                     7f0002400000-7f0002500000 rw-p 00000000 00:00 0 \n\
                     KernelPageSize:        4 kB\nRss:                1024 kB\nPrivate_Hugetlb:       0 kB\n";
        let expected = [
            Mapping { page_kib: 2048, resident_kib: 0, hugetlb_kib: 36864 },
            Mapping { page_kib: 4, resident_kib: 1024, hugetlb_kib: 0 },
        ];
        assert_eq!(mappings(smaps).unwrap(), expected);
        assert_eq!(pinned_kib("VmLck:\t 4 kB\nVmPin:\t   17000 kB\n").unwrap(), 17000);
        assert!(pinned_kib("VmLck:\t 4 kB\n").is_err());
    }
}
