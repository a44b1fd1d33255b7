//! What an arena got, and what it did not.

use std::fmt;

use crate::backing::HUGE_PAGE_BYTES;
use crate::host::HugePool;

/// The pages that an arena lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// 2 MiB pages of the kernel's pool. They are never swapped out.
    Huge,
    /// Transparent huge pages, as far as the kernel had them.
    Transparent {
        /// Bytes on 2 MiB pages right after prefaulting; the rest lies on small ones.
        huge_bytes: usize,
    },
    /// The host's ordinary pages.
    Small,
}

/// What an arena got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The arena's name.
    pub name: String,
    /// Its size in bytes.
    pub bytes: usize,
    /// Bytes that the mapping takes, rounded up to its pages.
    pub mapped: usize,
    /// Its pages.
    pub pages: Pages,
    /// Whether it can't be swapped out.
    pub locked: bool,
    /// What was asked for and not to be had, in the order of the attempts.
    pub downgrades: Vec<Downgrade>,
}

/// Something that was not to be had. Its `Display` says what happened, what that costs and how to get the better one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Downgrade {
    /// No 2 MiB pages from the pool.
    NoHugePages {
        /// Pages that the arena takes.
        wanted: usize,
        /// Pages in the pool; `None`: this kernel has no such pool.
        pool: Option<usize>,
        /// Pages of them that were to be had.
        free: usize,
        /// The kernel's word.
        why: String,
    },
    /// No transparent huge pages either, or not for most of it.
    NoTransparentPages {
        /// Bytes on 2 MiB pages all the same.
        huge_bytes: usize,
        /// The arena's size.
        bytes: usize,
        /// The host's setting: `always`, `madvise`, `never`; `None`: this kernel has none.
        setting: Option<String>,
        /// Whether it is shared memory, which has a setting of its own.
        shared: bool,
    },
    /// It may be swapped out.
    NotLocked {
        /// Bytes to lock.
        bytes: usize,
        /// The process's `RLIMIT_MEMLOCK`; `None`: unlimited.
        limit: Option<u64>,
        /// The kernel's word.
        why: String,
    },
}

impl Downgrade {
    pub(crate) fn no_huge_pages(wanted: usize, pool: Option<HugePool>, why: &std::io::Error) -> Self {
        Self::NoHugePages {
            wanted,
            pool: pool.map(|pool| pool.total),
            free: pool.map_or(0, |pool| pool.free),
            why: why.to_string(),
        }
    }
}

impl fmt::Display for Downgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHugePages { wanted, pool: None, why, .. } => write!(
                f,
                "no huge pages: wanted {wanted} of 2 MiB, this kernel has no pool of them ({why}). Cost: more address \
                 translation misses at every copy and every registration. Remedy: a kernel with CONFIG_HUGETLBFS"
            ),
            Self::NoHugePages { wanted, pool: Some(total), free, why } => write!(
                f,
                "no huge pages: wanted {wanted} of 2 MiB, the pool has {free} free of {total} ({why}). Cost: more \
                 address translation misses at every copy and every registration. Remedy: sysctl vm.nr_hugepages={}, \
                 and the same in /etc/sysctl.d for the next boot",
                total + wanted.saturating_sub(*free).max(1)
            ),
            Self::NoTransparentPages { huge_bytes, bytes, setting, shared } => {
                write!(
                    f,
                    "no transparent huge pages: {} of {} got. Cost: one page fault and one translation for every \
                     small page. Remedy: ",
                    Size(*huge_bytes),
                    Size(*bytes)
                )?;
                match setting.as_deref() {
                    None => f.write_str("a kernel with CONFIG_TRANSPARENT_HUGEPAGE"),
                    Some("never") if *shared => {
                        f.write_str("echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled")
                    }
                    Some("never") => f.write_str("echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"),
                    Some(_) => {
                        f.write_str("echo 1 > /proc/sys/vm/compact_memory and start again (memory is in pieces)")
                    }
                }
            }
            Self::NotLocked { bytes, limit, why } => {
                write!(f, "not locked: {} to lock, RLIMIT_MEMLOCK is ", Size(*bytes))?;
                match limit {
                    Some(limit) => write!(f, "{limit} bytes")?,
                    None => f.write_str("unlimited")?,
                }
                write!(
                    f,
                    " ({why}). Cost: the host may swap it out, and then a write waits for the swap device. Remedy: \
                     LimitMEMLOCK=infinity in the systemd unit, or ulimit -l unlimited"
                )
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "arena \"{}\": {} on ", self.name, Size(self.bytes))?;
        match self.pages {
            Pages::Huge => write!(f, "{} huge pages", self.mapped / HUGE_PAGE_BYTES)?,
            Pages::Transparent { huge_bytes } => write!(f, "transparent huge pages ({})", Size(huge_bytes))?,
            Pages::Small => f.write_str("small pages")?,
        }
        f.write_str(if self.locked { ", locked" } else { ", not locked" })
    }
}

/// Bytes in the largest unit that leaves a whole number.
struct Size(usize);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match units.into_iter().find(|&(unit, _)| self.0 >= unit && self.0.is_multiple_of(unit)) {
            Some((unit, name)) => write!(f, "{} {name}", self.0 / unit),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

#[cfg(test)]
mod tests;
