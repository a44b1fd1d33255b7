//! A connection that is being made.
//!
//! ```text
//!            ┌── the next address ◀──┐
//! Dial ──▶ trying ──▶ connected      │
//!            ├── failed ─────────────┴── none left ──▶ Closed
//!            └── a unix socket's backlog is full: again in a moment
//! ```
//!
//! An address that is silent has failed when its share of the time is over: a name may stand for several, and a
//! dead one among them (an IPv6 route that leads nowhere, say) must not use up the others' time.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use twinsan_fabric::{CloseReason, Verdict};

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
    /// When the address being tried has had its share.
    give_up_at: Instant,
    retry_at: Option<Instant>,
    /// What is reported when all have failed.
    verdict: Verdict,
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
        let deadline = now + patience;
        let mut dial = Self {
            left: endpoints.into(),
            deadline,
            patience,
            give_up_at: deadline,
            retry_at: None,
            verdict: Verdict::new(),
        };
        dial.share(now);
        dial
    }

    /// When it wants to be looked at without an event.
    pub(crate) fn wake_at(&self) -> Instant {
        self.retry_at.map_or(self.give_up_at, |at| at.min(self.give_up_at))
    }

    /// Whether it is time for another attempt: at the same address, or at the next where this one is silent.
    pub(crate) fn attempt_due(&mut self, now: Instant) -> bool {
        if now >= self.give_up_at {
            let why = format!("no answer within {} ms", self.patience.as_millis());
            self.failed(CloseReason::Unreachable(why), now);
            return true;
        }
        self.retry_at.is_some_and(|at| now >= at)
    }

    /// Begins with the next address.
    pub(crate) fn attempt(&mut self, now: Instant) -> Attempt {
        self.retry_at = None;
        while let Some(endpoint) = self.left.front() {
            let (socket, outcome) = match begin(endpoint) {
                Ok(begun) => begun,
                Err(e) => {
                    self.failed(socket::reason(&e), now);
                    continue;
                }
            };
            match outcome {
                Ok(()) => match settle(socket) {
                    Ok(socket) => return Attempt::Connected(socket),
                    Err(e) => self.failed(socket::reason(&e), now),
                },
                Err(Errno::INPROGRESS | Errno::INTR) => return Attempt::Pending(socket),
                Err(Errno::AGAIN) if matches!(endpoint, Endpoint::Unix(_)) => {
                    self.retry_at = Some(now + RETRY);
                    return Attempt::Later;
                }
                Err(e) => self.failed(socket::reason(&e.into()), now),
            }
        }
        Attempt::Failed(self.verdict.reason().cloned().unwrap_or(CloseReason::Refused))
    }

    /// A pending attempt has come to an end.
    pub(crate) fn finish(&mut self, socket: OwnedFd, now: Instant) -> Attempt {
        match socket::connect_error(socket.as_fd()).and_then(|()| settle(socket)) {
            Ok(socket) => Attempt::Connected(socket),
            Err(e) => {
                self.failed(socket::reason(&e), now);
                self.attempt(now)
            }
        }
    }

    /// The first address has failed.
    fn failed(&mut self, why: CloseReason, now: Instant) {
        self.verdict.add(why);
        self.left.pop_front();
        self.share(now);
    }

    /// Gives the first address its share of what is left of the time.
    fn share(&mut self, now: Instant) {
        let addresses = u32::try_from(self.left.len()).unwrap_or(u32::MAX).max(1);
        self.give_up_at = now + self.deadline.saturating_duration_since(now) / addresses;
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
        return Err(Errno::CONNREFUSED.into());
    }
    socket::tune(&socket)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    /// Endpoints that nothing is sent to: the tests only tell the dial how each went.
    fn dial(count: usize, now: Instant) -> Dial {
        let nowhere = Endpoint::Ip(SocketAddr::from(([192, 0, 2, 1], 7000)));
        Dial::new(vec![nowhere; count], now, Duration::from_millis(900))
    }

    fn outcome(dial: &mut Dial, now: Instant) -> CloseReason {
        match dial.attempt(now) {
            Attempt::Failed(why) => why,
            other => panic!("{other:?} with no address left"),
        }
    }

    #[test]
    fn a_silent_address_has_its_share_of_the_time() {
        let start = Instant::now();
        let mut dial = dial(3, start);
        let ms = |ms| start + Duration::from_millis(ms);
        assert_eq!(dial.wake_at(), ms(300));
        assert!(!dial.attempt_due(ms(299)));
        assert!(dial.attempt_due(ms(300)));
        assert_eq!(dial.wake_at(), ms(600));
        // One that fails at once leaves its share to the last.
        dial.failed(CloseReason::Refused, ms(300));
        assert_eq!(dial.wake_at(), ms(900));
        assert!(dial.attempt_due(ms(900)));
        assert_eq!(outcome(&mut dial, ms(900)), CloseReason::Unreachable("no answer within 900 ms".into()));
    }

    #[test]
    fn refused_is_said_only_where_nobody_is_silent() {
        let now = Instant::now();
        let told = |errors: &[Errno]| {
            let mut dial = dial(errors.len(), now);
            for &error in errors {
                dial.failed(socket::reason(&error.into()), now);
            }
            outcome(&mut dial, now)
        };
        assert_eq!(told(&[Errno::CONNREFUSED, Errno::CONNREFUSED]), CloseReason::Refused);
        assert_eq!(told(&[Errno::NETUNREACH, Errno::CONNREFUSED]), CloseReason::Refused);
        assert_eq!(told(&[Errno::CONNREFUSED, Errno::NETUNREACH]), CloseReason::Refused);
        assert!(matches!(told(&[Errno::CONNREFUSED, Errno::TIMEDOUT]), CloseReason::Unreachable(_)));
        assert!(matches!(told(&[Errno::TIMEDOUT, Errno::CONNREFUSED]), CloseReason::Unreachable(_)));
        assert!(
            matches!(told(&[Errno::CONNREFUSED, Errno::HOSTUNREACH]), CloseReason::Unreachable(_)),
            "ARP's silence"
        );
        assert!(matches!(told(&[Errno::NETUNREACH]), CloseReason::NoRoute(_)));
    }
}
