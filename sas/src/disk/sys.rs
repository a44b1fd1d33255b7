//! The system calls that rustix has no safe form of.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Takes the open-file-description write lock over the whole file (fcntl(2), "Open file description locks"). `false`:
/// another description holds one. Taking it again on the description that has it succeeds.
///
/// Unlike a process's lock (F_SETLK), it belongs to the description: it ends when the description does, which is after
/// the last I/O in flight, and another description of the same process does not share or drop it.
#[expect(clippy::cast_possible_truncation, reason = "F_WRLCK and SEEK_SET are 1 and 0; `struct flock` has shorts")]
pub(super) fn try_lock_description(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0, // to the end, wherever that is
        l_pid: 0, // must be 0 for F_OFD_*
    };
    loop {
        // SAFETY: F_OFD_SETLK reads one `struct flock` through the pointer during the call and keeps nothing; `lock` is
        // a live, initialised one. The descriptor is borrowed, so it is open.
        let result = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
        if result == 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EACCES) => return Ok(false),
            Some(libc::EINTR) => {}
            _ => return Err(error),
        }
    }
}
