//! Listening sockets in a fabric's epoll.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::{Poller, Token};
use crate::{FabricError, Interest};

/// Connections accepted from one listener in one visit.
const ACCEPTS_PER_VISIT: usize = 16;

/// After the system had no descriptor or memory for another connection, a listener rests this long: a level-triggered
/// epoll would otherwise report it for ever at full speed.
const REST: Duration = Duration::from_millis(100);

/// All that listen, by number.
#[derive(Debug)]
pub struct Listeners<L> {
    all: Vec<Listener<L>>,
    resting: Vec<Resting>,
}

#[derive(Debug)]
struct Listener<L> {
    listener: L,
    /// For messages.
    address: String,
}

#[derive(Debug)]
struct Resting {
    index: u32,
    until: Instant,
}

impl<L> Default for Listeners<L> {
    fn default() -> Self {
        Self { all: Vec::new(), resting: Vec::new() }
    }
}

impl<L: AsFd> Listeners<L> {
    /// One more, which listens at `address`.
    ///
    /// # Errors
    /// If the system refuses to watch it.
    pub fn add(&mut self, poller: &Poller, listener: L, address: String) -> Result<(), FabricError> {
        let index = u32::try_from(self.all.len()).map_err(|_| FabricError::Invalid("too many listeners"))?;
        poller
            .add(listener.as_fd(), Token::Listener(index), Interest::Readable)
            .map_err(|source| FabricError::Io { what: format!("watch the listener at {address}"), source })?;
        self.all.push(Listener { listener, address });
        Ok(())
    }

    /// Accepts what waits at the listener with this number, by the caller's `accept`, and hands each to `take`.
    pub fn accept(
        &mut self,
        poller: &Poller,
        index: u32,
        accept: impl Fn(BorrowedFd<'_>) -> io::Result<OwnedFd>,
        mut take: impl FnMut(OwnedFd),
    ) {
        let Some(Listener { listener, address }) = self.all.get(index as usize) else { return };
        for _ in 0..ACCEPTS_PER_VISIT {
            match accept(listener.as_fd()) {
                Ok(socket) => take(socket),
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::AGAIN) => return,
                    // The connection broke while it waited; the next one may be fine (accept(2), "Error handling").
                    Some(Errno::INTR | Errno::CONNABORTED | Errno::PROTO) => {}
                    _ => {
                        tracing::warn!(address, %error, "can't accept connections, trying again in a moment");
                        match poller.remove(listener.as_fd()) {
                            Ok(()) => self.resting.push(Resting { index, until: Instant::now() + REST }),
                            Err(error) => tracing::error!(%error, "epoll did not know a listener"),
                        }
                        return;
                    }
                },
            }
        }
    }

    /// When one has rested.
    pub fn next_timer(&self) -> Option<Instant> {
        self.resting.iter().map(|resting| resting.until).min()
    }

    /// Watches again those that have rested.
    pub fn timers(&mut self, poller: &Poller, now: Instant) {
        for Resting { index, until } in std::mem::take(&mut self.resting) {
            if until > now {
                self.resting.push(Resting { index, until });
            } else if let Err(error) =
                poller.add(self.all[index as usize].listener.as_fd(), Token::Listener(index), Interest::Readable)
            {
                tracing::warn!(%error, "can't watch a listener, trying again in a moment");
                self.resting.push(Resting { index, until: now + REST });
            }
        }
    }
}
