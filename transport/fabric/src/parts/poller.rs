//! One epoll for connections, listeners and the caller's own descriptors.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;
use std::{fmt, io};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::time::Timespec;

use crate::{ConnId, Interest};

/// Descriptors reported by one epoll_wait(2); with more ready, the kernel goes round.
const BATCH: usize = 64;

/// Whose descriptor it is. The upper two bits of the epoll's 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// A connection, made or in the making.
    Conn(ConnId),
    /// A listener's index, or whatever else brings connections.
    Listener(u32),
    /// A descriptor of the caller's.
    Watch(RawFd),
    /// The resolver.
    Resolver,
}

const KIND: u32 = 62;
const CONN: u64 = 0;
const LISTENER: u64 = 1;
const WATCH: u64 = 2;
const RESOLVER: u64 = 3;

impl Token {
    fn encode(self) -> EventData {
        EventData::new_u64(match self {
            Self::Conn(ConnId(id)) => CONN << KIND | id,
            Self::Listener(index) => LISTENER << KIND | u64::from(index),
            Self::Watch(fd) => WATCH << KIND | u64::from(fd.unsigned_abs()),
            Self::Resolver => RESOLVER << KIND,
        })
    }

    fn decode(data: EventData) -> Option<Self> {
        let (kind, rest) = (data.u64() >> KIND, data.u64() & ((1 << KIND) - 1));
        match kind {
            CONN => Some(Self::Conn(ConnId(rest))),
            LISTENER => u32::try_from(rest).ok().map(Self::Listener),
            WATCH => RawFd::try_from(rest).ok().map(Self::Watch),
            RESOLVER => Some(Self::Resolver),
            _ => None,
        }
    }
}

/// What a descriptor is ready for. A broken one is ready for both: reading or writing tells how it is broken.
#[derive(Clone, Copy, Debug)]
pub struct Readiness {
    /// Whose.
    pub token: Token,
    /// Bytes to read, or broken.
    pub readable: bool,
    /// Room to write, or broken.
    pub writable: bool,
}

/// How long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Only look.
    Not,
    /// At most so long.
    For(Duration),
    /// For ever.
    Forever,
}

/// See the module. Level-triggered: a connection whose bytes were not all taken is simply reported again.
pub struct Poller {
    epoll: OwnedFd,
    batch: Vec<Event>,
}

impl Poller {
    /// An empty one.
    ///
    /// # Errors
    /// The system's.
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)?, batch: Vec::with_capacity(BATCH) })
    }

    /// Begins to watch.
    ///
    /// # Errors
    /// The system's.
    pub fn add(&self, fd: BorrowedFd<'_>, token: Token, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, token.encode(), flags(interest))?)
    }

    /// Changes what is watched for.
    ///
    /// # Errors
    /// The system's.
    pub fn modify(&self, fd: BorrowedFd<'_>, token: Token, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, token.encode(), flags(interest))?)
    }

    /// Watches no longer.
    ///
    /// # Errors
    /// The system's.
    pub fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, fd)?)
    }

    /// Waits for as long as `wait` says; returns the number of descriptors that are ready.
    ///
    /// # Panics
    /// If epoll_wait(2) fails other than by a signal: then its arguments are wrong.
    pub fn wait(&mut self, wait: Wait) -> usize {
        let timeout = match wait {
            Wait::Not => Some(Timespec::default()),
            Wait::For(time) => Some(time.try_into().unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 })),
            Wait::Forever => None,
        };
        self.batch.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.batch), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => self.batch.len(),
            Err(e) => panic!("epoll_wait: {e}"),
        }
    }

    /// The `index`th of the last wait.
    #[must_use]
    pub fn ready(&self, index: usize) -> Option<Readiness> {
        let Event { flags, data, .. } = *self.batch.get(index)?;
        let broken = EventFlags::ERR | EventFlags::HUP;
        Some(Readiness {
            token: Token::decode(data)?,
            readable: flags.intersects(EventFlags::IN | broken),
            writable: flags.intersects(EventFlags::OUT | broken),
        })
    }
}

impl AsFd for Poller {
    /// Readable when something is ready: an epoll can be watched by another (epoll(7)).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").field("epoll", &self.epoll).finish_non_exhaustive()
    }
}

fn flags(interest: Interest) -> EventFlags {
    match interest {
        Interest::Readable => EventFlags::IN,
        Interest::Writable => EventFlags::OUT,
        Interest::ReadableWritable => EventFlags::IN | EventFlags::OUT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back() {
        let tokens = [
            Token::Conn(ConnId(0)),
            Token::Conn(ConnId((1 << KIND) - 1)),
            Token::Listener(0),
            Token::Listener(u32::MAX),
            Token::Watch(0),
            Token::Watch(RawFd::MAX),
            Token::Resolver,
        ];
        for token in tokens {
            assert_eq!(Token::decode(token.encode()), Some(token));
        }
    }
}
