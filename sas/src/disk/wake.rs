//! How another thread wakes the flusher, which waits for completions and for new work at once.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::EventfdFlags;
use rustix::io::Errno;

/// Wakes the thread that waits in [`super::DiskQueue::wait`]. Clones wake the same one. A wake that comes while nobody
/// waits is kept until somebody does.
#[derive(Clone, Debug)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// A fresh one, to be given to the queue.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let fd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(fd)))
    }

    /// Wakes it. Costs one system call: call it once per batch of messages, not once per message.
    pub fn wake(&self) {
        // EAGAIN: 2^64 - 2 wakes are already waiting to be seen.
        match rustix::io::write(&self.0, &1_u64.to_ne_bytes()) {
            Ok(_) | Err(Errno::AGAIN) => {}
            Err(e) => unreachable!("write to an eventfd: {e}"),
        }
    }

    /// Takes what has been woken so far.
    pub(super) fn take(&self) {
        let mut count = [0_u8; 8];
        match rustix::io::read(&self.0, &mut count[..]) {
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(e) => unreachable!("read from an eventfd: {e}"),
        }
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
