//! Memory for the data path: prefaulted, locked, on huge pages where there are some.
//!
//! One [`Arena`] is one mapping: private, or shared with processes that it is given to ([`Arena::lendable`],
//! [`Arena::common`]). It is what a fabric registers and lets peers write into, what
//! `io_uring` registers, and what sockets are read into. So its bytes may change at any moment, by a peer's write or
//! by the kernel, and no `&[u8]` over it is ever made: [`Arena::copy_out`] takes bytes out once, then they are checked
//! and used.
//!
//! Huge pages are tried first, then transparent huge pages, then small ones; what was not to be had, what that costs
//! and how to get it stands in [`Arena::report`] and in the log.
//!
//! This crate is one of the few that may be unsafe. Its invariant, which every SAFETY note leans on: **an arena's
//! `len` bytes from its base stay mapped, readable and writable at the same address until it is dropped**, and
//! `Arena::at` is the only way from an offset to an address.
#![warn(clippy::multiple_unsafe_ops_per_block)]

mod backing;
mod core;
mod error;
mod host;
mod io;
mod racy;
mod report;
mod shared;

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU64;

pub use self::core::current_core;
pub use crate::error::ArenaError;
pub use crate::io::{IoPart, writev};
pub use crate::report::{Downgrade, Pages, Report};
pub use crate::shared::{Lent, SharedError, discard};

use crc_fast::{CrcAlgorithm, Digest};

use crate::backing::Backing;
use crate::racy::CHUNK_BYTES;
use crate::shared::Sharing;

/// What kind of pages to ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PagePolicy {
    /// 2 MiB huge pages, else transparent ones, else small. Less than half a huge page gets small ones at once: there
    /// is nothing to gain.
    #[default]
    Auto,
    /// Transparent huge pages, else small.
    Transparent,
    /// Small pages.
    Small,
}

/// What to make.
#[derive(Clone, Debug)]
pub struct ArenaOptions {
    /// For the log and the report: `vol0 lane data`.
    pub name: String,
    /// Size in bytes; more than that may be mapped, see [`Report::mapped`], but is not used.
    pub bytes: usize,
    /// Which pages.
    pub pages: PagePolicy,
    /// Keep it from being swapped out.
    pub lock: bool,
}

/// One mapping, zeroed at first. See the crate's text for why it is never a slice.
///
/// Accesses through `&self` from several threads, and with peers' writes, may interleave byte by byte: whoever needs
/// a whole value must know from elsewhere (a receive completion, a CRC) that nobody is writing it.
///
/// # Panics
/// Every method that takes an offset, if it or its length leads beyond [`Arena::len`].
pub struct Arena {
    backing: Backing,
    len: usize,
    report: Report,
}

// What the fabrics' and the disk's threads rely on.
const _: () = {
    const fn shared_between_threads<T: Send + Sync>() {}
    shared_between_threads::<Arena>();
};

impl Arena {
    /// Maps, prefaults and locks.
    ///
    /// # Errors
    /// If there is not even enough ordinary memory.
    pub fn new(options: &ArenaOptions) -> Result<Self, ArenaError> {
        Self::map(options, Sharing::No)
    }

    /// The same, as memory that other processes can be given to read ([`Lent`]), and no more than read.
    ///
    /// # Errors
    /// If there is not even enough ordinary memory.
    pub fn lendable(options: &ArenaOptions) -> Result<Self, ArenaError> {
        Self::map(options, Sharing::Lent)
    }

    /// The same, as memory that another process can be given to read and write, by [`Arena::join`].
    ///
    /// # Errors
    /// If there is not even enough ordinary memory.
    pub fn common(options: &ArenaOptions) -> Result<Self, ArenaError> {
        Self::map(options, Sharing::Common)
    }

    /// The other end of [`Arena::common`]: `bytes` of the memory behind `file`, which another process has made.
    ///
    /// # Errors
    /// If that is something else, which might fail or block whoever touches it; or if the system refuses.
    pub fn join(name: &str, file: OwnedFd, bytes: usize) -> Result<Self, SharedError> {
        if let Err(error) = shared::check(file.as_fd(), bytes, Sharing::Common) {
            discard(file);
            return Err(error);
        }
        let report = Report {
            name: name.to_owned(),
            bytes,
            mapped: bytes,
            pages: Pages::Small,
            locked: false,
            downgrades: vec![],
        };
        Ok(Self { backing: Backing::join(file, bytes)?, len: bytes, report })
    }

    fn map(options: &ArenaOptions, sharing: Sharing) -> Result<Self, ArenaError> {
        let (backing, report) = backing::map(options, sharing)?;
        for downgrade in &report.downgrades {
            tracing::warn!(arena = report.name, "{downgrade}");
        }
        tracing::debug!("{report}");
        Ok(Self { backing, len: options.bytes, report })
    }

    /// Its size in bytes, as asked for.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "an empty arena can't be made")]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// What it got.
    #[must_use]
    pub const fn report(&self) -> &Report {
        &self.report
    }

    /// What others get it by, if it is made to be shared.
    #[must_use]
    pub fn file(&self) -> Option<BorrowedFd<'_>> {
        self.backing.file().map(AsFd::as_fd)
    }

    /// The word at `offset`, for what two processes tell each other.
    ///
    /// # Panics
    /// If `offset` is not a multiple of eight.
    #[must_use]
    pub fn word(&self, offset: usize) -> &AtomicU64 {
        let at = self.at(offset, size_of::<u64>());
        assert!(offset.is_multiple_of(align_of::<AtomicU64>()), "the word at {offset} is not aligned");
        // SAFETY: `at` has checked that the bytes are the mapping's, which lives as long as the borrow; the base is
        // aligned to a page. Elsewhere they are accessed as atomics too, or by the string move.
        unsafe { racy::word(at) }
    }

    /// Its first byte, for registration of `len` bytes. Valid as long as the arena lives; never make a reference of it.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.at(0, 0)
    }

    /// The byte at `offset` (or the end), for registration and for work requests. As [`Arena::as_ptr`].
    #[must_use]
    pub fn addr(&self, offset: usize) -> *mut u8 {
        self.at(offset, 0)
    }

    /// Copies `src` to `offset`.
    pub fn copy_in(&self, offset: usize, src: &[u8]) {
        let to = self.at(offset, src.len());
        // SAFETY: `at` has checked that `src.len()` bytes from there belong to the mapping.
        unsafe { racy::copy_in(to, src) }
    }

    /// Copies the bytes at `offset` to `dst`.
    pub fn copy_out(&self, offset: usize, dst: &mut [u8]) {
        let from = self.at(offset, dst.len());
        // SAFETY: `at` has checked that `dst.len()` bytes from there belong to the mapping.
        unsafe { racy::copy_out(from, dst) }
    }

    /// Zeroes `len` bytes at `offset`.
    pub fn fill_zero(&self, offset: usize, len: usize) {
        let to = self.at(offset, len);
        // SAFETY: `at` has checked that `len` bytes from there belong to the mapping.
        unsafe { racy::fill_zero(to, len) }
    }

    /// Copies `len` bytes at `src_offset` of `src` to `offset` here.
    ///
    /// # Panics
    /// Also if `src` is this arena and the ranges overlap.
    pub fn copy_from(&self, offset: usize, src: &Self, src_offset: usize, len: usize) {
        // Both ends are checked before the first byte moves.
        let (to, from) = (self.at(offset, len), src.at(src_offset, len));
        let apart = to.addr().abs_diff(from.addr()) >= len;
        assert!(apart, "{len} bytes are copied from {src_offset} to {offset}, over themselves");
        // SAFETY: `at` has checked both; they are apart.
        unsafe { racy::copy(from, to, len) }
    }

    /// Copies `len` bytes at `src_offset` of another process's memory to `offset` here.
    ///
    /// # Errors
    /// If the other process has not got the memory that it has lent.
    ///
    /// # Panics
    /// If either range leads outside.
    pub fn copy_from_lent(
        &self,
        offset: usize,
        src: &mut Lent,
        src_offset: usize,
        len: usize,
    ) -> Result<(), SharedError> {
        let to = self.at(offset, len);
        let from = src.at(src_offset, len)?;
        // SAFETY: both have been checked, and are mappings of different processes' memory, or of this one's twice: then
        // it reads what it writes, as if that were another's doing.
        unsafe { racy::copy(from, to, len) }
        Ok(())
    }

    /// Whether `len` bytes at `offset` are all zero.
    #[must_use]
    pub fn is_zero(&self, offset: usize, len: usize) -> bool {
        let from = self.at(offset, len);
        // SAFETY: `at` has checked that `len` bytes from there belong to the mapping.
        unsafe { racy::is_zero(from, len) }
    }

    /// CRC32C of `len` bytes at `offset`.
    #[must_use]
    pub fn crc32c(&self, offset: usize, len: usize) -> u32 {
        let mut crc = Digest::new(CrcAlgorithm::Crc32Iscsi);
        self.for_each_chunk(offset, len, |_, chunk| crc.update(chunk));
        u32::try_from(crc.finalize()).expect("a CRC of 32 bits")
    }

    /// Hands `len` bytes at `offset` to `each`, copied out piece by piece, with each piece's place among them.
    fn for_each_chunk(&self, offset: usize, len: usize, mut each: impl FnMut(usize, &[u8])) {
        let from = self.at(offset, len);
        for at in (0..len).step_by(CHUNK_BYTES) {
            let piece = CHUNK_BYTES.min(len - at);
            // SAFETY: `at` has checked that `len` bytes from there belong to the mapping, the piece among them.
            unsafe { racy::with_copy(from.wrapping_add(at), piece, |chunk| each(at, chunk)) }
        }
    }

    /// The address of `offset`, with `len` bytes of the arena from there on.
    #[track_caller]
    pub(crate) fn at(&self, offset: usize, len: usize) -> *mut u8 {
        let end = offset.checked_add(len);
        assert!(
            end.is_some_and(|end| end <= self.len),
            "{len} bytes at offset {offset} of arena \"{}\", which has {}",
            self.report.name,
            self.len,
        );
        // SAFETY: `offset` is at most `len`, the number of bytes that the backing has mapped from its base.
        unsafe { self.backing.base().add(offset) }
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena").field("name", &self.report.name).field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
