//! SIGTERM and SIGINT, as bytes that the reactor's fabric watches for.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

/// The reading end.
#[derive(Debug)]
pub(crate) struct Signals(UnixStream);

impl Signals {
    /// From now on the two signals do nothing but make all of these readable.
    pub(crate) fn catch(count: usize) -> io::Result<Vec<Self>> {
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            let (reader, writer) = UnixStream::pair()?;
            reader.set_nonblocking(true)?;
            pipe::register(SIGINT, writer.try_clone()?)?;
            pipe::register(SIGTERM, writer.try_clone()?)?;
            all.push((Self(reader), writer));
        }
        Self::even_out(&mut all)?;
        Ok(all.into_iter().map(|(signals, _)| signals).collect())
    }

    /// One that came meanwhile was not heard by those that were not there yet.
    fn even_out(all: &mut [(Self, UnixStream)]) -> io::Result<()> {
        let most = all.iter_mut().map(|(signals, _)| signals.take()).max().unwrap_or(0);
        all.iter_mut().try_for_each(|(_, writer)| writer.write_all(&vec![0; most]))
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
        let mut all = Signals::catch(2).unwrap();
        let mut take = || all.iter_mut().map(Signals::take).collect::<Vec<_>>();
        assert_eq!(take(), [0, 0]);
        signal_hook::low_level::raise(SIGTERM).unwrap();
        signal_hook::low_level::raise(SIGINT).unwrap();
        assert_eq!(take(), [2, 2]);
        assert_eq!(take(), [0, 0]);
    }

    #[test]
    fn what_only_the_first_has_heard_all_hear() {
        let mut all: Vec<_> = (0..3).map(|_| UnixStream::pair().unwrap()).map(|(r, w)| (Signals(r), w)).collect();
        all.iter().for_each(|(signals, _)| signals.0.set_nonblocking(true).unwrap());
        all[0].1.write_all(b"x").unwrap();
        Signals::even_out(&mut all).unwrap();
        assert_eq!(all.iter_mut().map(|(signals, _)| signals.take()).collect::<Vec<_>>(), [1, 1, 1]);
    }
}
