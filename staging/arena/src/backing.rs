//! Getting the memory: the best pages first, one step down at a time, prefaulted, and locked if asked.

use std::io;
use std::os::fd::OwnedFd;

use memmap2::{Advice, MmapOptions, MmapRaw};
use rustix::process::{Resource, getrlimit};

use crate::report::{Downgrade, Pages, Report};
use crate::shared::{self, Sharing};
use crate::{ArenaError, ArenaOptions, PagePolicy, host, racy};

/// The huge page that we ask for; every x86-64 and most arm64 hosts have it.
pub(crate) const HUGE_PAGE_BYTES: usize = 1 << HUGE_PAGE_BITS;
const HUGE_PAGE_BITS: u8 = 21;
/// Touching every so many bytes touches every page of any host.
const LEAST_PAGE_BYTES: usize = 4096;

/// A mapping, and the part of it that is used: transparent huge pages need an aligned start.
pub(crate) struct Backing {
    map: MmapRaw,
    /// Bytes before the base.
    skip: usize,
    /// Bytes from the base on.
    len: usize,
    /// What it is known by to others, if it is shared.
    file: Option<OwnedFd>,
}

/// What is tried: pages of one kind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Huge,
    Ordinary,
}

impl Backing {
    /// What `sharing` says, with at least `len` bytes from a start that is aligned to `align`.
    fn new(sharing: Sharing, name: &str, kind: Kind, len: usize, align: usize) -> io::Result<Self> {
        match sharing {
            Sharing::No if kind == Kind::Huge => {
                Self::anonymous(MmapOptions::new().huge(Some(HUGE_PAGE_BITS)), len, align)
            }
            Sharing::No => Self::anonymous(&mut MmapOptions::new(), len, align),
            // A memfd's start is the kernel's choice, which aligns it where large pages are to be had.
            _ => {
                let file = shared::memfd(sharing, name, kind == Kind::Huge, len)?;
                let map = MmapOptions::new().len(len).map_raw(&file)?;
                shared::seal(sharing, &file)?;
                Ok(Self { map, skip: 0, len, file: Some(file) })
            }
        }
    }

    /// The other end of memory that another process has made for both.
    pub(crate) fn join(file: OwnedFd, len: usize) -> io::Result<Self> {
        let map = MmapOptions::new().len(len).map_raw(&file)?;
        Ok(Self { map, skip: 0, len, file: Some(file) })
    }

    fn anonymous(options: &mut MmapOptions, len: usize, align: usize) -> io::Result<Self> {
        // `align` may be 1 (any page will do); else as much more is mapped as the worst start wastes.
        let total = len.checked_add(align - 1).ok_or(io::ErrorKind::OutOfMemory)?;
        let map = MmapRaw::from(options.len(total).map_anon()?);
        let skip = map.as_ptr().addr().next_multiple_of(align) - map.as_ptr().addr();
        let backing = Self { map, skip, len, file: None };
        // A child between fork and exec would share the pages copy-on-write, and the next write here would then leave
        // the copy that a NIC or the kernel has pinned. What was not inherited can't be copied. Best effort: an old
        // kernel's refusal costs nothing, as this program does not fork on its own.
        drop(backing.map.advise(Advice::DontFork));
        Ok(backing)
    }

    /// The first used byte; `len` bytes from here on are mapped until this is dropped.
    pub(crate) fn base(&self) -> *mut u8 {
        // SAFETY: `skip + len` is at most the mapping's length, by `anonymous`; elsewhere `skip` is nothing.
        unsafe { self.map.as_mut_ptr().add(self.skip) }
    }

    /// What it is known by to others, if it is shared.
    pub(crate) const fn file(&self) -> Option<&OwnedFd> {
        self.file.as_ref()
    }

    fn advise(&self, advice: Advice) -> io::Result<()> {
        self.map.advise_range(advice, self.skip, self.len)
    }

    /// Has the kernel find every page now, so that no fault waits in the data path, and a lack of memory is an error
    /// here rather than a SIGBUS later.
    fn prefault(&self) -> io::Result<()> {
        match self.advise(Advice::PopulateWrite) {
            // Linux before 5.14 knows no such advice.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                self.touch();
                Ok(())
            }
            done => done,
        }
    }

    /// Writes to every page: the zeros that it has as long as nobody knows of it.
    fn touch(&self) {
        for offset in (0..self.len).step_by(LEAST_PAGE_BYTES) {
            // SAFETY: `offset` is less than `len`, so the byte is mapped.
            let byte = unsafe { self.base().add(offset) };
            // SAFETY: the byte is mapped.
            unsafe { racy::fill_zero(byte, 1) }
        }
    }

    fn lock(&self) -> io::Result<()> {
        // SAFETY: `len` bytes from the base are mapped; locking changes no byte of them.
        let locked = unsafe { libc::mlock(self.base().cast(), self.len) };
        if locked == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// Maps what `options` asks for.
pub(crate) fn map(options: &ArenaOptions, sharing: Sharing) -> Result<(Backing, Report), ArenaError> {
    if options.bytes == 0 {
        return Err(ArenaError::Empty { name: options.name.clone() });
    }
    let mut downgrades = Vec::new();
    let (backing, pages) = map_best(options, sharing, &mut downgrades)?;
    let locked = options.lock && (pages == Pages::Huge || lock(&backing, &mut downgrades));
    let report = Report {
        name: options.name.clone(),
        bytes: options.bytes,
        mapped: backing.len,
        pages,
        locked: locked || pages == Pages::Huge,
        downgrades,
    };
    Ok((backing, report))
}

fn map_best(
    options: &ArenaOptions,
    sharing: Sharing,
    downgrades: &mut Vec<Downgrade>,
) -> Result<(Backing, Pages), ArenaError> {
    let worth_it = options.bytes >= HUGE_PAGE_BYTES / 2;
    if options.pages == PagePolicy::Auto && worth_it {
        match map_huge(options, sharing) {
            Ok(backing) => return Ok((backing, Pages::Huge)),
            Err(downgrade) => downgrades.push(downgrade),
        }
    }
    if options.pages != PagePolicy::Small && worth_it {
        return map_transparent(options, sharing, downgrades);
    }
    let backing = map_ordinary(options, sharing, 1, None)?;
    Ok((backing, Pages::Small))
}

fn map_huge(options: &ArenaOptions, sharing: Sharing) -> Result<Backing, Downgrade> {
    let pool = host::huge_pool();
    let wanted = options.bytes.div_ceil(HUGE_PAGE_BYTES);
    let map = || {
        let len = wanted.checked_mul(HUGE_PAGE_BYTES).ok_or(io::ErrorKind::OutOfMemory)?;
        let backing = Backing::new(sharing, &options.name, Kind::Huge, len, 1)?;
        // Not MAP_POPULATE, which keeps quiet where a cgroup's limit leaves the pages out.
        backing.prefault()?;
        Ok(backing)
    };
    map().map_err(|why| Downgrade::no_huge_pages(wanted, pool, &why))
}

fn map_transparent(
    options: &ArenaOptions,
    sharing: Sharing,
    downgrades: &mut Vec<Downgrade>,
) -> Result<(Backing, Pages), ArenaError> {
    let backing = map_ordinary(options, sharing, HUGE_PAGE_BYTES, Some(Advice::HugePage))?;
    let base = backing.base().addr();
    let huge_bytes = host::transparent_bytes(&(base..base + backing.len)).unwrap_or(0);
    if huge_bytes >= backing.len / 2 {
        return Ok((backing, Pages::Transparent { huge_bytes }));
    }
    downgrades.push(Downgrade::NoTransparentPages {
        huge_bytes,
        bytes: backing.len,
        setting: host::transparent_setting(sharing),
        shared: sharing != Sharing::No,
    });
    Ok((backing, Pages::Small))
}

/// Ordinary memory from a start aligned to `align`, with advice that may be refused.
fn map_ordinary(
    options: &ArenaOptions,
    sharing: Sharing,
    align: usize,
    advice: Option<Advice>,
) -> Result<Backing, ArenaError> {
    let name = || options.name.clone();
    let bytes = options.bytes;
    // Prefaulting more than there is would have the kernel kill somebody, most likely us.
    if let Some(available) = host::available_bytes()
        && bytes > available
    {
        return Err(ArenaError::NoMemory { name: name(), bytes, available });
    }
    let failed = |what| move |source| ArenaError::System { name: name(), bytes, what, source };
    let len = bytes.checked_next_multiple_of(align.max(LEAST_PAGE_BYTES)).unwrap_or(usize::MAX);
    let backing = Backing::new(sharing, &options.name, Kind::Ordinary, len, align).map_err(failed("mapping it"))?;
    if let Some(advice) = advice {
        // A refusal shows in what was got.
        drop(backing.advise(advice));
    }
    backing.prefault().map_err(failed("prefaulting"))?;
    Ok(backing)
}

fn lock(backing: &Backing, downgrades: &mut Vec<Downgrade>) -> bool {
    let Err(why) = backing.lock() else { return true };
    downgrades.push(Downgrade::NotLocked {
        bytes: backing.len,
        limit: getrlimit(Resource::Memlock).current,
        why: why.to_string(),
    });
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of this mapping that have pages, by the kernel's count.
    fn resident_bytes(backing: &Backing) -> usize {
        let mut pages = vec![0_u8; backing.len.div_ceil(LEAST_PAGE_BYTES)];
        // SAFETY: the range is mapped, and `pages` has a byte for each page of it.
        let done = unsafe { libc::mincore(backing.base().cast(), backing.len, pages.as_mut_ptr()) };
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
        pages.iter().filter(|&page| page & 1 == 1).count() * LEAST_PAGE_BYTES
    }

    #[test]
    fn both_ways_of_prefaulting_bring_every_page() {
        let ways: [fn(&Backing); 2] = [Backing::touch, |backing| backing.prefault().expect("memory for a test")];
        for prefault in ways {
            // Small pages, so that one touched page does not bring its neighbours.
            let backing = Backing::anonymous(&mut MmapOptions::new(), 1 << 20, LEAST_PAGE_BYTES).unwrap();
            // Refused by a kernel that has no large ones, where it is not needed.
            drop(backing.advise(Advice::NoHugePage));
            assert_eq!(resident_bytes(&backing), 0);
            prefault(&backing);
            assert_eq!(resident_bytes(&backing), 1 << 20);
        }
    }

    #[test]
    fn the_base_is_aligned_as_asked() {
        for _ in 0..4 {
            let backing = Backing::anonymous(&mut MmapOptions::new(), 3 << 20, HUGE_PAGE_BYTES).unwrap();
            assert_eq!(backing.base().addr() % HUGE_PAGE_BYTES, 0);
            assert!(backing.skip + backing.len <= backing.map.len());
        }
    }
}
