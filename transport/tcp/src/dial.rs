//! A connection that is being made.
//!
//! ```text
//!            ┌── the next address ◀──┐
//! Dial ──▶ trying ──▶ connected      │
//!            ├── failed ─────────────┴── none left ──▶ Closed
//!            ├── a unix socket's backlog is full: again in a moment
//!            └── deadline ──▶ Closed, Unreachable
//! ```

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use twinsan_fabric::CloseReason;

use crate::address::Endpoint;
use crate::socket;

/// A unix socket with a full backlog gives no sign when there is room again (unix(7)): it is asked this often.
const RETRY: Duration = Duration::from_millis(5);

/// See the module.
#[derive(Debug)]
pub(crate) struct Dial {
    left: VecDeque<Endpoint>,
    deadline: Instant,
    patience: Duration,
    retry_at: Option<Instant>,
    /// Whoever refuses is more than whoever is silent: the reason that is reported when all have failed.
    refused: Option<CloseReason>,
}

/// How an attempt went.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// There it is.
    Connected(OwnedFd),
    /// Watch it for room to write, then [`Dial::finish`].
    Pending(OwnedFd),
    /// Try again at [`Dial::wake_at`].
    Later,
    /// No address is left.
    Failed(CloseReason),
}

impl Dial {
    /// To one of `endpoints`, within `patience`.
    pub(crate) fn new(endpoints: Vec<Endpoint>, now: Instant, patience: Duration) -> Self {
        Self { left: endpoints.into(), deadline: now + patience, patience, retry_at: None, refused: None }
    }

    /// When it wants to be looked at without an event.
    pub(crate) fn wake_at(&self) -> Instant {
        self.retry_at.map_or(self.deadline, |at| at.min(self.deadline))
    }

    /// Whether the time is over.
    pub(crate) fn expired(&self, now: Instant) -> Option<CloseReason> {
        let late = now >= self.deadline;
        late.then(|| CloseReason::Unreachable(format!("no answer within {} ms", self.patience.as_millis())))
    }

    /// Whether it is time for another attempt.
    pub(crate) fn retry_due(&self, now: Instant) -> bool {
        self.retry_at.is_some_and(|at| now >= at)
    }

    /// Begins with the next address.
    pub(crate) fn attempt(&mut self, now: Instant) -> Attempt {
        self.retry_at = None;
        while let Some(endpoint) = self.left.front() {
            let (socket, outcome) = match begin(endpoint) {
                Ok(begun) => begun,
                Err(e) => {
                    self.failed(&e);
                    continue;
                }
            };
            match outcome {
                Ok(()) => match settle(socket) {
                    Ok(socket) => return Attempt::Connected(socket),
                    Err(e) => self.failed(&e),
                },
                Err(Errno::INPROGRESS | Errno::INTR) => return Attempt::Pending(socket),
                Err(Errno::AGAIN) if matches!(endpoint, Endpoint::Unix(_)) => {
                    self.retry_at = Some(now + RETRY);
                    return Attempt::Later;
                }
                Err(e) => self.failed(&e.into()),
            }
        }
        Attempt::Failed(self.refused.take().unwrap_or(CloseReason::Refused))
    }

    /// A pending attempt has come to an end.
    pub(crate) fn finish(&mut self, socket: OwnedFd, now: Instant) -> Attempt {
        match socket::connect_error(socket.as_fd()).and_then(|()| settle(socket)) {
            Ok(socket) => Attempt::Connected(socket),
            Err(e) => {
                self.failed(&e);
                self.attempt(now)
            }
        }
    }

    fn failed(&mut self, error: &io::Error) {
        let reason = socket::reason(error);
        if self.refused != Some(CloseReason::Refused) {
            self.refused = Some(reason);
        }
        self.left.pop_front();
    }
}

/// A socket on its way to `endpoint`, and what connect(2) said.
fn begin(endpoint: &Endpoint) -> io::Result<(OwnedFd, Result<(), Errno>)> {
    let socket = socket::new(endpoint)?;
    let outcome = match socket::connect(socket.as_fd(), endpoint) {
        Ok(()) => Ok(()),
        Err(e) => Err(Errno::from_io_error(&e).ok_or(e)?),
    };
    Ok((socket, outcome))
}

/// The last checks on a connected socket.
fn settle(socket: OwnedFd) -> io::Result<OwnedFd> {
    if socket::is_own_peer(socket.as_fd())? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    socket::tune(&socket)?;
    Ok(socket)
}
