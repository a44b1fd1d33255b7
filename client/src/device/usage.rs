//! Whether somebody uses a block device: a filesystem that is mounted, a mapping on top, swap.
//!
//! Asked by opening it exclusively. That may read its partition table and write its dirty pages back, which only the
//! very loop that asks can serve: so it is asked from a thread of its own.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use rustix::fs::{Mode, OFlags};

/// The answer.
#[derive(Debug)]
pub(crate) enum Usage {
    /// Nobody holds it, and what was dirty in the kernel's cache has been written. Nobody can begin to hold it as long as
    /// this is open. Closing it while the device lives may write pages again, which the loop that serves it must not
    /// wait for.
    Free(OwnedFd),
    /// There is none any more.
    Gone,
    /// Somebody does.
    InUse,
}

/// A question on its way; readable once it is answered.
#[derive(Debug)]
pub(crate) struct UsageCheck {
    answered: UnixStream,
    answer: Receiver<io::Result<Usage>>,
}

impl UsageCheck {
    /// Asks.
    ///
    /// # Errors
    /// If there is no thread or socket for it.
    pub(crate) fn begin(device: PathBuf) -> io::Result<Self> {
        let (answered, done) = UnixStream::pair()?;
        let (sender, answer) = channel();
        std::thread::Builder::new().name("usage".into()).spawn(move || {
            // The other end may have been given up.
            drop(sender.send(usage(&device)));
            drop(done);
        })?;
        Ok(Self { answered, answer })
    }

    /// The answer, if it is there. An error is what opening the device or writing its pages back ran into.
    pub(crate) fn answer(&self) -> Option<io::Result<Usage>> {
        match self.answer.try_recv() {
            Ok(answer) => Some(answer),
            Err(TryRecvError::Empty) => None,
            Err(error @ TryRecvError::Disconnected) => Some(Err(io::Error::other(error))),
        }
    }
}

impl AsFd for UsageCheck {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.answered.as_fd()
    }
}

fn usage(device: &Path) -> io::Result<Usage> {
    match rustix::fs::open(device, OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC, Mode::empty()) {
        Ok(fd) => rustix::fs::fsync(&fd).map(|()| Usage::Free(fd)).map_err(Into::into),
        Err(rustix::io::Errno::BUSY) => Ok(Usage::InUse),
        // It is gone already: nobody can use it.
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NXIO) => Ok(Usage::Gone),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_makes_it_readable() {
        let dir = tempfile::tempdir().unwrap();
        let check = UsageCheck::begin(dir.path().join("gone")).unwrap();
        let mut fds = [rustix::event::PollFd::new(&check, rustix::event::PollFlags::IN)];
        assert_eq!(rustix::event::poll(&mut fds, None).unwrap(), 1);
        assert!(matches!(check.answer().unwrap().unwrap(), Usage::Gone));
    }

    #[test]
    fn who_finds_it_free_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, "blocks").unwrap();
        let Usage::Free(fd) = usage(&path).unwrap() else { panic!("nobody has it") };
        let opened = std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd))).unwrap();
        assert_eq!(opened, path.canonicalize().unwrap());
    }
}
