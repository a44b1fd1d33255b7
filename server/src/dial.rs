//! Dialling the other node, to ask who is there (rule 15) or for a relay (rule 14): each of its addresses in turn, until
//! one answers; first the one that answered last.

use twinsan_fabric::{CloseReason, ConnId, Verdict};
use twinsan_replica::Probe;
use twinsan_wire::Incarnation;

/// What the other node is dialled for; once at a time each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Errand {
    /// To see who is there, or for the link.
    Probe,
    /// To feed it.
    Relay,
}

/// One dial on its way.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Dial {
    /// The only one that is wanted; none: whoever is there.
    pub(crate) to: Option<Incarnation>,
    /// The address to begin with.
    first: usize,
    /// How many addresses have been given up.
    given_up: usize,
    /// How long each may take.
    timeout_ms: u64,
    /// By this connection; none between two.
    pub(crate) conn: Option<ConnId>,
    /// When the next address is tried.
    pub(crate) deadline: u64,
    /// What the addresses so far have come to.
    heard: Verdict,
    /// How often a connection to the present address has broken off.
    broken_off: u8,
}

/// A process that is just dying lets connections into its backlog and breaks them off, and refuses a moment later:
/// worth another look at once, as a takeover waits for it.
const TRIES_AFTER_BREAK: u8 = 3;

impl Dial {
    /// At the address with index `first`, not begun. Each may take `timeout_ms`.
    pub(crate) const fn new(to: Option<Incarnation>, first: usize, timeout_ms: u64, now: u64) -> Self {
        let deadline = now + timeout_ms;
        Self { to, first, given_up: 0, timeout_ms, conn: None, deadline, heard: Verdict::new(), broken_off: 0 }
    }

    /// Index of the address being tried; past the last one when all have been given up.
    pub(crate) const fn address(&self) -> usize {
        match self.given_up {
            0 => self.first,
            n if n <= self.first => n - 1,
            n => n,
        }
    }

    /// How long an address may take, in ms.
    pub(crate) const fn timeout_ms(&self) -> u64 {
        self.timeout_ms
    }

    /// The present address is tried from now on.
    pub(crate) const fn begun(&mut self, conn: Option<ConnId>, now: u64) {
        self.conn = conn;
        self.deadline = now + self.timeout_ms;
    }

    /// The present address has not answered. The next one is due.
    pub(crate) fn failed(&mut self, why: CloseReason, now: u64) {
        self.heard.add(why);
        self.given_up += 1;
        self.broken_off = 0;
        self.begun(None, now);
    }

    /// The connection has ended by itself: the same address is due again, or the next one.
    pub(crate) fn ended(&mut self, why: CloseReason, now: u64) {
        if why == CloseReason::Ended && self.broken_off < TRIES_AFTER_BREAK {
            self.broken_off += 1;
            self.begun(None, now);
        } else {
            self.failed(why, now);
        }
    }

    /// What it came to when no address has answered.
    pub(crate) fn verdict(&self) -> Probe {
        if self.heard.is_refused() { Probe::Refused } else { Probe::Silent }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The node's address in the clients' network, to which the other node has no way, is no sign of life.
    #[test]
    fn refused_if_all_addresses_refuse_to_which_there_is_a_way() {
        let silent = || CloseReason::Unreachable("no answer".into());
        let no_route = || CloseReason::NoRoute("network is unreachable".into());
        let mut dial = Dial::new(None, 0, 10, 0);
        dial.failed(CloseReason::Refused, 20);
        dial.failed(no_route(), 30);
        assert_eq!((dial.address(), dial.deadline, dial.verdict()), (2, 40, Probe::Refused));
        for other in [silent(), CloseReason::Violation("wrong key".into())] {
            let mut dial = Dial::new(None, 0, 10, 0);
            dial.failed(other, 20);
            dial.failed(CloseReason::Refused, 30);
            assert_eq!(dial.verdict(), Probe::Silent);
        }
        let mut dial = Dial::new(None, 0, 10, 0);
        dial.failed(no_route(), 20);
        assert_eq!(dial.verdict(), Probe::Silent);
    }

    #[test]
    fn the_address_that_answered_last_comes_first_and_none_is_left_out() {
        for first in 0..4 {
            let mut dial = Dial::new(None, first, 10, 0);
            let mut order = vec![dial.address()];
            for _ in 0..3 {
                dial.failed(CloseReason::Refused, 20);
                order.push(dial.address());
            }
            assert_eq!(order[0], first);
            dial.failed(CloseReason::Refused, 20);
            assert_eq!(dial.address(), 4, "there is none any more");
            order.sort_unstable();
            assert_eq!(order, [0, 1, 2, 3]);
        }
    }

    #[test]
    fn a_connection_that_broke_off_is_tried_again_and_is_no_refusal() {
        let mut dial = Dial::new(None, 0, 10, 0);
        for _ in 0..TRIES_AFTER_BREAK {
            dial.ended(CloseReason::Ended, 20);
            assert_eq!(dial.address(), 0);
        }
        dial.ended(CloseReason::Ended, 20);
        assert_eq!((dial.address(), dial.verdict()), (1, Probe::Silent));
        let mut dial = Dial::new(None, 0, 10, 0);
        dial.ended(CloseReason::Ended, 20);
        dial.ended(CloseReason::Refused, 30);
        assert_eq!((dial.address(), dial.verdict()), (1, Probe::Refused), "it was dying, and is dead now");
        let mut dial = Dial::new(None, 0, 10, 0);
        dial.ended(CloseReason::Unreachable("no route".to_owned()), 20);
        assert_eq!((dial.address(), dial.verdict()), (1, Probe::Silent));
    }
}
