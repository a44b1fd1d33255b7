//! Memory that two processes have.
//!
//! A memfd is passed from one to the other. Whoever maps what a stranger gives must not fall with it: a mapping whose file
//! gets shorter, or loses pages that can't be had again, is a SIGBUS. So only memory is taken whose size is sealed, and
//! lent memory only if nobody but its owner's first mapping can ever write it, which also keeps holes from being punched
//! into it; its pages are brought in by madvise(2), which returns an error where a touch would kill.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use memmap2::{Advice, MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, fstatfs, ftruncate, memfd_create};
use rustix::io::Errno;

/// Of a memfd on huge pages, as fstatfs(2) has it.
const HUGETLBFS_MAGIC: i64 = 0x9584_58f6;

/// Whether and how an arena is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// Private.
    No,
    /// Others may read it.
    Lent,
    /// Another may read and write it.
    Common,
}

impl Sharing {
    /// What is sealed, and asked of others' memory.
    const fn seals(self) -> SealFlags {
        let size = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);
        match self {
            Self::Lent => size.union(SealFlags::FUTURE_WRITE),
            Self::No | Self::Common => size,
        }
    }
}

/// Why another's memory is not taken.
#[derive(Debug, thiserror::Error)]
pub enum SharedError {
    /// It could change its size, or be written by others, or is no memory at all.
    #[error("the memory that was given is not sealed as it has to be ({0})")]
    NotSealed(String),
    /// Too little of it.
    #[error("{is} bytes of memory were given, {said} were said to be there")]
    Short {
        /// What there is.
        is: u64,
        /// What was said.
        said: usize,
    },
    /// The system's word.
    #[error("the memory that was given can't be used: {0}")]
    Io(#[from] io::Error),
}

/// An anonymous file of `len` bytes.
pub(crate) fn memfd(sharing: Sharing, name: &str, huge: bool, len: usize) -> io::Result<OwnedFd> {
    debug_assert!(sharing != Sharing::No, "a private mapping needs no file");
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let flags = if huge { flags | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB } else { flags };
    // What stands in /proc/PID/maps. The kernel takes up to 249 bytes.
    let name: String = format!("twinsan {name}").chars().filter(|c| *c != '\0').take(60).collect();
    let file = memfd_create(name, flags)?;
    ftruncate(&file, len as u64)?;
    Ok(file)
}

/// Seals it, once it is mapped here.
pub(crate) fn seal(sharing: Sharing, file: &OwnedFd) -> io::Result<()> {
    Ok(fcntl_add_seals(file, sharing.seals())?)
}

/// Whether a stranger's `file` is memory that can be mapped without danger. Asks for the seals first: whatever is not a
/// memfd fails there, before anything is asked that a file system of the stranger's would answer. Returns its whole size.
pub(crate) fn check(file: BorrowedFd<'_>, bytes: usize, sharing: Sharing) -> Result<usize, SharedError> {
    let seals = match fcntl_get_seals(file) {
        Ok(seals) => seals,
        Err(Errno::INVAL) => return Err(SharedError::NotSealed("it is no memfd".to_owned())),
        Err(e) => return Err(io::Error::from(e).into()),
    };
    if !seals.contains(sharing.seals()) {
        return Err(SharedError::NotSealed(format!("it has {seals:?} of {:?}", sharing.seals())));
    }
    // Common memory may be punched full of holes by the other end. Small pages come back as zeroes; huge ones might not.
    if sharing == Sharing::Common && fstatfs(file).map_err(io::Error::from)?.f_type == HUGETLBFS_MAGIC {
        return Err(SharedError::NotSealed("it has huge pages, which can be taken away".to_owned()));
    }
    let stat = fstat(file).map_err(io::Error::from)?;
    let (is, present) = (u64::try_from(stat.st_size).unwrap_or(0), u64::try_from(stat.st_blocks).unwrap_or(0) * 512);
    // Looking into a hole would fill it, at our cost.
    if sharing == Sharing::Lent && present < is {
        return Err(SharedError::NotSealed(format!("of its {is} bytes {present} are there")));
    }
    match usize::try_from(is) {
        Ok(len) if bytes > 0 && len >= bytes => Ok(len),
        _ => Err(SharedError::Short { is, said: bytes }),
    }
}

/// Bytes that are brought in at once when the first of them is wanted: some ten microseconds' work, which a reactor can
/// afford.
const PART: usize = 2 << 20;

/// Another process's memory, to be read.
///
/// It changes whenever the other process likes.
pub struct Lent {
    map: MmapRaw,
    len: usize,
    /// Which parts of [`PART`] bytes are in.
    present: Vec<bool>,
}

impl Lent {
    /// `bytes` of the memory behind `file`, which a stranger has given.
    ///
    /// # Errors
    /// If that is not memory which stays as it is, or the system refuses.
    pub fn open(file: BorrowedFd<'_>, bytes: usize) -> Result<Self, SharedError> {
        // All of it is mapped: of huge pages, a part of one can't be unmapped.
        let whole = check(file, bytes, Sharing::Lent)?;
        let map = MmapOptions::new().len(whole).map_raw_read_only(&file)?;
        // As for memory of our own.
        drop(map.advise(Advice::DontFork));
        Ok(Self { map, len: bytes, present: vec![false; bytes.div_ceil(PART)] })
    }

    /// Its size in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "an empty one can't be made")]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// The address of `offset`, with `len` bytes from there on that can be read.
    #[track_caller]
    pub(crate) fn at(&mut self, offset: usize, len: usize) -> Result<*mut u8, SharedError> {
        let end = offset.checked_add(len);
        assert!(end.is_some_and(|end| end <= self.len), "{len} bytes at {offset} of {} lent ones", self.len);
        for part in offset / PART..(offset + len).div_ceil(PART) {
            if !self.present[part] {
                let from = part * PART;
                self.map.advise_range(Advice::PopulateRead, from, PART.min(self.len - from))?;
                self.present[part] = true;
            }
        }
        Ok(self.map.as_mut_ptr().wrapping_add(offset))
    }
}

impl std::fmt::Debug for Lent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lent").field("len", &self.len).finish_non_exhaustive()
    }
}

/// Closes a stranger's descriptor that was not what it should be. That may wait for whoever gave it (a file system in user
/// space), so another thread does it.
pub fn discard(file: OwnedFd) {
    drop(std::thread::Builder::new().name("discard".into()).spawn(move || drop(file)));
}

#[cfg(test)]
mod tests;
