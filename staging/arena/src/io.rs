//! Moving bytes between descriptors and arenas without a copy in between.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::Arena;

/// A piece of a gathered write.
#[derive(Clone, Copy, Debug)]
pub enum IoPart<'a> {
    /// Ordinary bytes.
    Bytes(&'a [u8]),
    /// Bytes of an arena.
    Arena {
        /// Which.
        arena: &'a Arena,
        /// First byte.
        offset: usize,
        /// Number of bytes.
        len: usize,
    },
}

impl IoPart<'_> {
    /// Its number of bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Arena { len, .. } => *len,
        }
    }

    /// Whether it has no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn as_iovec(&self) -> libc::iovec {
        let base = match *self {
            // The kernel only reads from it: the cast to *mut is the structure's, which serves both directions.
            Self::Bytes(bytes) => bytes.as_ptr().cast_mut(),
            Self::Arena { arena, offset, len } => arena.at(offset, len),
        };
        libc::iovec { iov_base: base.cast(), iov_len: self.len() }
    }
}

/// Pieces that one system call takes; the rest waits for the next, like the rest of any short write.
pub(crate) const MAX_PARTS: usize = 64;

impl Arena {
    /// One `read` of up to `len` bytes straight to `offset`: the number of bytes, 0 at the end of the stream.
    ///
    /// # Errors
    /// The system's; `WouldBlock` where a non-blocking descriptor has nothing. A signal is not an error.
    pub fn recv_into(&self, fd: BorrowedFd<'_>, offset: usize, len: usize) -> io::Result<usize> {
        let to = self.at(offset, len);
        retry(|| {
            // SAFETY: `at` has checked that `len` bytes from there belong to the mapping, which outlives the call.
            unsafe { libc::read(fd.as_raw_fd(), to.cast(), len) }
        })
    }

    /// Reads `len` bytes at `position` of a file straight to `offset`.
    ///
    /// # Errors
    /// The system's; `UnexpectedEof` if the file has fewer. A signal is not an error.
    pub fn read_exact_at(&self, fd: BorrowedFd<'_>, position: u64, offset: usize, len: usize) -> io::Result<()> {
        let to = self.at(offset, len);
        all(len, position, io::ErrorKind::UnexpectedEof, |done, position| {
            // SAFETY: `at` has checked that `len` bytes from there belong to the mapping, which outlives the call, and
            // `done` is less than `len`.
            unsafe { libc::pread(fd.as_raw_fd(), to.wrapping_add(done).cast(), len - done, position) }
        })
    }

    /// Writes `len` bytes at `offset` straight to `position` of a file.
    ///
    /// # Errors
    /// The system's; `WriteZero` if the file takes fewer. A signal is not an error.
    pub fn write_all_at(&self, fd: BorrowedFd<'_>, position: u64, offset: usize, len: usize) -> io::Result<()> {
        let from = self.at(offset, len);
        all(len, position, io::ErrorKind::WriteZero, |done, position| {
            // SAFETY: `at` has checked that `len` bytes from there belong to the mapping, which outlives the call, and
            // `done` is less than `len`; the kernel only reads them.
            unsafe { libc::pwrite(fd.as_raw_fd(), from.wrapping_add(done).cast(), len - done, position) }
        })
    }
}

/// Calls, with the bytes done and the position of the next, until `len` bytes are done; `short` if a call does none.
fn all(
    len: usize,
    position: u64,
    short: io::ErrorKind,
    mut call: impl FnMut(usize, libc::off_t) -> libc::ssize_t,
) -> io::Result<()> {
    let mut done = 0;
    while done < len {
        let at = libc::off_t::try_from(position + done as u64).map_err(io::Error::other)?;
        match retry(|| call(done, at))? {
            0 => return Err(short.into()),
            n => done += n,
        }
    }
    Ok(())
}

/// One gathered write of `parts`, in order: the number of bytes written, which may be fewer than given. A socket whose
/// peer is gone answers `BrokenPipe`, without a signal.
///
/// # Errors
/// The system's; `WouldBlock` where a non-blocking descriptor takes nothing. A signal is not an error.
///
/// # Panics
/// If a part lies outside of its arena.
pub fn writev(fd: BorrowedFd<'_>, parts: &[IoPart<'_>]) -> io::Result<usize> {
    let mut iovecs = [const { MaybeUninit::<libc::iovec>::uninit() }; MAX_PARTS];
    let mut count = 0;
    for (iovec, part) in iovecs.iter_mut().zip(parts.iter().filter(|part| !part.is_empty())) {
        iovec.write(part.as_iovec());
        count += 1;
    }
    if count == 0 {
        return Ok(0);
    }
    match send(fd, iovecs.as_ptr().cast(), count) {
        Err(error) if error.raw_os_error() == Some(libc::ENOTSOCK) => {
            let count = libc::c_int::try_from(count).expect("at most MAX_PARTS");
            retry(|| {
                // SAFETY: the first `count` entries are written and name memory that `parts` keeps borrowed; the kernel
                // only reads it.
                unsafe { libc::writev(fd.as_raw_fd(), iovecs.as_ptr().cast(), count) }
            })
        }
        done => done,
    }
}

/// `sendmsg`, because plain `writev` to a socket whose peer is gone raises SIGPIPE.
fn send(fd: BorrowedFd<'_>, iovecs: *const libc::iovec, count: usize) -> io::Result<usize> {
    // SAFETY: a msghdr is integers and pointers, for all of which zero is a value.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = iovecs.cast_mut();
    message.msg_iovlen = count;
    retry(|| {
        // SAFETY: the message names `count` written entries, whose memory the caller keeps borrowed; the kernel only
        // reads it.
        unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) }
    })
}

/// Calls until it was not a signal that ended the call.
fn retry(mut call: impl FnMut() -> libc::ssize_t) -> io::Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(bytes) => return Ok(bytes),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
