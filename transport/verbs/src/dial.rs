//! A connection that is being made.
//!
//! ```text
//!              ┌─────────── the next address ◀───────────┐
//! Resolving ─▶ Address ─▶ Route ─▶ Connecting ─▶ (open)  │
//!              └──────────────┴──── failed ──────────────┴── none left ──▶ Closed
//! ```
//!
//! An address that is silent has failed when its share of the time is over: a name may stand for several. Whoever was
//! silent is asked once more after all others: the connection manager sends a request that got lost again only after four
//! seconds, which is longer than anybody here waits.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use twinsan_fabric::{CloseReason, Verdict};

use crate::connection::Connection;
use crate::sys::CmId;

/// What is being done.
#[derive(Debug)]
pub(crate) enum Step {
    /// The name is being resolved, or the next address is due.
    Idle,
    /// Looking for the device and the neighbour.
    Address(CmId),
    /// Looking for the way.
    Route(CmId),
    /// The request is on its way.
    Connecting(Box<Connection>),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Dial {
    left: VecDeque<SocketAddr>,
    /// So many at the end of `left` have been asked before.
    again: usize,
    deadline: Instant,
    patience: Duration,
    /// When the address being tried has had its share.
    give_up_at: Instant,
    pub(crate) step: Step,
    verdict: Verdict,
}

impl Dial {
    /// Without addresses yet.
    pub(crate) fn new(now: Instant, patience: Duration) -> Self {
        let deadline = now + patience;
        Self {
            left: VecDeque::new(),
            again: 0,
            deadline,
            patience,
            give_up_at: deadline,
            step: Step::Idle,
            verdict: Verdict::new(),
        }
    }

    /// What the name stands for, at least one.
    pub(crate) fn set_addresses(&mut self, addresses: Vec<SocketAddr>, now: Instant) {
        self.left = addresses.into();
        self.share(now);
    }

    /// The address to be tried.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.left.front().copied()
    }

    /// When it wants to be looked at without an event.
    pub(crate) const fn wake_at(&self) -> Instant {
        self.give_up_at
    }

    /// For the connection manager, which is not to end an address before [`Dial::wake_at`] does: at least a millisecond.
    pub(crate) fn milliseconds_left(&self, now: Instant) -> i32 {
        i32::try_from(self.deadline.saturating_duration_since(now).as_millis()).unwrap_or(i32::MAX).max(1)
    }

    /// What there is to say of silence.
    pub(crate) fn silence(&self) -> CloseReason {
        CloseReason::Unreachable(format!("no answer within {} ms", self.patience.as_millis()))
    }

    /// The present address has had its share. Its attempt is destroyed.
    pub(crate) fn was_silent(&mut self, now: Instant) {
        let Some(address) = self.address() else {
            let why = CloseReason::Unreachable("its name could not be resolved in time".into());
            return self.failed(why, now);
        };
        if self.again < self.left.len() {
            self.left.push_back(address);
            self.again += 1;
        }
        self.failed(self.silence(), now);
    }

    /// The present address has failed. Its attempt is destroyed.
    pub(crate) fn failed(&mut self, why: CloseReason, now: Instant) {
        self.verdict.add(why);
        self.step = Step::Idle;
        self.left.pop_front();
        self.again = self.again.min(self.left.len());
        self.share(now);
    }

    /// What is reported when no address is left.
    pub(crate) fn verdict(&self) -> CloseReason {
        self.verdict.reason().cloned().unwrap_or_else(|| self.silence())
    }

    /// Gives the first address its share of what is left of the time, with a second one for each that has had none.
    fn share(&mut self, now: Instant) {
        let shares = 2 * self.left.len() - self.again;
        let shares = u32::try_from(shares).unwrap_or(u32::MAX).max(1);
        self.give_up_at = now + self.deadline.saturating_duration_since(now) / shares;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dial(addresses: usize, now: Instant) -> Dial {
        let mut dial = Dial::new(now, Duration::from_millis(900));
        dial.set_addresses(vec![SocketAddr::from(([192, 0, 2, 1], 7000)); addresses], now);
        dial
    }

    #[test]
    fn a_silent_address_has_its_share_of_the_time() {
        let start = Instant::now();
        let ms = |ms| start + Duration::from_millis(ms);
        let mut dial = dial(3, start);
        assert_eq!((dial.wake_at(), dial.milliseconds_left(start)), (ms(150), 900));
        dial.was_silent(ms(150));
        assert_eq!(dial.wake_at(), ms(300));
        // One that fails at once leaves its shares to the others.
        dial.failed(CloseReason::Refused, ms(150));
        assert_eq!(dial.wake_at(), ms(400));
        dial.failed(CloseReason::NoRoute("no device".into()), ms(300));
        assert_eq!((dial.wake_at(), dial.milliseconds_left(ms(2000))), (ms(900), 1));
        assert!(dial.address().is_some(), "who was silent is asked once more");
        dial.was_silent(ms(900));
        assert_eq!(
            (dial.address(), dial.verdict()),
            (None, CloseReason::Unreachable("no answer within 900 ms".into()))
        );
    }
}
