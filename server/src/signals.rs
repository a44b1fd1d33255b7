//! SIGTERM and SIGINT, as bytes that the reactor's fabric watches for.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

/// The reading end.
#[derive(Debug)]
pub(crate) struct Signals(UnixStream);

impl Signals {
    /// From now on the two signals do nothing but make this readable.
    pub(crate) fn catch() -> io::Result<Self> {
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        pipe::register(SIGINT, writer.try_clone()?)?;
        pipe::register(SIGTERM, writer)?;
        Ok(Self(reader))
    }

    /// How many have come since the last call.
    pub(crate) fn take(&mut self) -> usize {
        let mut count = 0;
        let mut bytes = [0; 16];
        while let Ok(more @ 1..) = self.0.read(&mut bytes) {
            count += more;
        }
        count
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_was_raised() {
        let mut signals = Signals::catch().unwrap();
        assert_eq!(signals.take(), 0);
        signal_hook::low_level::raise(SIGTERM).unwrap();
        signal_hook::low_level::raise(SIGINT).unwrap();
        assert_eq!(signals.take(), 2);
        assert_eq!(signals.take(), 0);
    }
}
