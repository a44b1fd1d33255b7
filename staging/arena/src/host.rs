//! What the host says about its memory: small reads of `/proc` and `/sys`. Each is for a message or an early "no", so a
//! file that can't be read or understood is `None`, and the attempt itself decides.

use std::fs;
use std::ops::Range;

use crate::shared::Sharing;

/// The kernel's pool of 2 MiB pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HugePool {
    /// Pages in the pool.
    pub(crate) total: usize,
    /// Pages that a new mapping may have: free, and not promised to an earlier one.
    pub(crate) free: usize,
}

/// The pool of 2 MiB pages; `None` where the kernel has none.
pub(crate) fn huge_pool() -> Option<HugePool> {
    let number = |file| {
        let path = format!("/sys/kernel/mm/hugepages/hugepages-2048kB/{file}");
        fs::read_to_string(path).ok()?.trim().parse::<usize>().ok()
    };
    let free = number("free_hugepages")?.saturating_sub(number("resv_hugepages")?);
    Some(HugePool { total: number("nr_hugepages")?, free })
}

/// The setting of transparent huge pages: `always`, `madvise` or `never`, and for shared memory some more.
pub(crate) fn transparent_setting(sharing: Sharing) -> Option<String> {
    let file = if sharing == Sharing::No { "enabled" } else { "shmem_enabled" };
    let all = fs::read_to_string(format!("/sys/kernel/mm/transparent_hugepage/{file}")).ok()?;
    chosen(&all).map(str::to_owned)
}

/// The word in brackets of `always [madvise] never`.
fn chosen(all: &str) -> Option<&str> {
    let (_, rest) = all.split_once('[')?;
    rest.split_once(']').map(|(word, _)| word)
}

/// Bytes that new mappings may take before the host swaps or kills.
pub(crate) fn available_bytes() -> Option<usize> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    meminfo.lines().find_map(|line| kilobytes(line, "MemAvailable:"))
}

/// Bytes of the addresses `range` that lie on transparent huge pages.
pub(crate) fn transparent_bytes(range: &Range<usize>) -> Option<usize> {
    Some(transparent_bytes_in(&fs::read_to_string("/proc/self/smaps").ok()?, range))
}

/// Sums `AnonHugePages` and `ShmemPmdMapped` of the mappings that lie in `range` or around it; neighbours may have been merged with it by
/// the kernel, so at most the range's own size counts.
fn transparent_bytes_in(smaps: &str, range: &Range<usize>) -> usize {
    let mut inside = false;
    let mut bytes = 0;
    for line in smaps.lines() {
        if let Some(mapping) = mapping(line) {
            inside = mapping.start < range.end && range.start < mapping.end;
        } else if inside {
            let huge = ["AnonHugePages:", "ShmemPmdMapped:"].iter().find_map(|label| kilobytes(line, label));
            bytes += huge.unwrap_or(0);
        }
    }
    bytes.min(range.len())
}

/// The addresses in a mapping's first line: `7f00-7fff rw-p …`.
fn mapping(line: &str) -> Option<Range<usize>> {
    let (start, end) = line.split_once(' ')?.0.split_once('-')?;
    Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
}

/// The value of `label   12 kB`, in bytes.
fn kilobytes(line: &str, label: &str) -> Option<usize> {
    let value = line.strip_prefix(label)?.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?;
    value.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chosen_setting_stands_in_brackets() {
        assert_eq!(chosen("always [madvise] never\n"), Some("madvise"));
        assert_eq!(chosen("[always] madvise never\n"), Some("always"));
        assert_eq!(chosen("always madvise never\n"), None);
    }

    #[test]
    fn meminfo_is_in_kilobytes() {
        assert_eq!(kilobytes("MemAvailable:   24300000 kB", "MemAvailable:"), Some(24_300_000 * 1024));
        assert_eq!(kilobytes("MemFree:   1 kB", "MemAvailable:"), None);
        assert_eq!(kilobytes("MemAvailable:   many kB", "MemAvailable:"), None);
        assert!(available_bytes().is_some_and(|bytes| bytes > 0), "Linux has said this since 3.14");
    }

    const SMAPS: &str = "\
7f0000000000-7f0000400000 rw-p 00000000 00:00 0 \n\
Size:               4096 kB\n\
AnonHugePages:      4096 kB\n\
7f0000400000-7f0000800000 rw-p 00000000 00:00 0                          [anon: x]\n\
AnonHugePages:      2048 kB\n\
ShmemPmdMapped:        0 kB\n\
VmFlags: rd wr mr mw me ac hg\n\
7f0000800000-7f0000900000 r--p 00000000 fe:00 12   /usr/lib/libc.so.6\n\
AnonHugePages:         0 kB\n";

    #[test]
    fn smaps_is_summed_over_the_range_alone() {
        let base = 0x7f00_0000_0000;
        let mib = 1 << 20;
        assert_eq!(transparent_bytes_in(SMAPS, &(base..base + 4 * mib)), 4 * mib);
        assert_eq!(transparent_bytes_in(SMAPS, &(base + 4 * mib..base + 8 * mib)), 2 * mib);
        assert_eq!(transparent_bytes_in(SMAPS, &(base..base + 8 * mib)), 6 * mib);
        assert_eq!(transparent_bytes_in(SMAPS, &(base + 8 * mib..base + 9 * mib)), 0);
        // A merged neighbour does not make it more than it is.
        assert_eq!(transparent_bytes_in(SMAPS, &(base..base + 2 * mib)), 2 * mib);
    }
}
