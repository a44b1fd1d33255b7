//! Wakes the reactor: an eventfd that its fabric watches.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Errno, read, write};

/// Rung by any thread; heard by the one that watches [`Doorbell::as_fd`].
#[derive(Clone, Debug)]
pub(crate) struct Doorbell(Arc<OwnedFd>);

impl Doorbell {
    /// A silent one.
    pub(crate) fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(fd)))
    }

    /// Makes the descriptor readable. What was put into a channel before is seen by who hears it.
    pub(crate) fn ring(&self) {
        match write(&self.0, &1u64.to_ne_bytes()) {
            // AGAIN: 2^64 - 2 rings unheard; it is readable, which is all that counts.
            Ok(_) | Err(Errno::AGAIN) => {}
            Err(error) => panic!("an eventfd takes eight bytes: {error}"),
        }
    }

    /// Makes it silent again; to be called before the channel is emptied, so that a later ring is not lost.
    pub(crate) fn hush(&self) {
        match read(&self.0, &mut [0u8; 8]) {
            Ok(_) | Err(Errno::AGAIN) => {}
            Err(error) => panic!("an eventfd gives eight bytes: {error}"),
        }
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn is_ringing(bell: &Doorbell) -> bool {
        let mut fds = [PollFd::new(bell, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    }

    #[test]
    fn rings_until_hushed_however_often_it_was_rung() {
        let bell = Doorbell::new().unwrap();
        assert!(!is_ringing(&bell));
        bell.ring();
        bell.clone().ring();
        assert!(is_ringing(&bell));
        bell.hush();
        assert!(!is_ringing(&bell));
        bell.hush();
        bell.ring();
        assert!(is_ringing(&bell));
    }
}
