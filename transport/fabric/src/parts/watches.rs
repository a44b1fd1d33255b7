//! The caller's own descriptors in a fabric's epoll.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use super::{Poller, Token};
use crate::{Event, FabricError, Interest};

/// Which token each of them is reported with.
#[derive(Debug, Default)]
pub struct Watches(BTreeMap<RawFd, u64>);

impl Watches {
    /// [`crate::Fabric::watch`].
    ///
    /// # Errors
    /// If the system refuses.
    pub fn watch(
        &mut self,
        poller: &Poller,
        fd: BorrowedFd<'_>,
        token: u64,
        interest: Interest,
    ) -> Result<(), FabricError> {
        let own = Token::Watch(fd.as_raw_fd());
        let known = self.0.contains_key(&fd.as_raw_fd());
        let outcome = if known { poller.modify(fd, own, interest) } else { poller.add(fd, own, interest) };
        outcome.map_err(|source| FabricError::Io { what: format!("watch descriptor {}", fd.as_raw_fd()), source })?;
        self.0.insert(fd.as_raw_fd(), token);
        Ok(())
    }

    /// [`crate::Fabric::unwatch`].
    pub fn unwatch(&mut self, poller: &Poller, fd: BorrowedFd<'_>) {
        if self.0.remove(&fd.as_raw_fd()).is_some()
            && let Err(error) = poller.remove(fd)
        {
            tracing::warn!(fd = fd.as_raw_fd(), %error, "unwatched a descriptor that epoll did not know");
        }
    }

    /// What there is to report of one that is ready.
    #[must_use]
    pub fn ready(&self, fd: RawFd) -> Option<Event> {
        self.0.get(&fd).map(|&token| Event::Ready { token })
    }
}
