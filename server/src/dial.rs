//! Dialling the other node, to ask who is there (rule 15) or for a relay (rule 14): each of its addresses in turn, until
//! one answers.

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
    /// Index of the address being tried.
    pub(crate) address: usize,
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
    /// At the first address, not begun.
    pub(crate) const fn new(to: Option<Incarnation>, deadline: u64) -> Self {
        Self { to, address: 0, conn: None, deadline, heard: Verdict::new(), broken_off: 0 }
    }

    /// The present address has not answered. The next one is due.
    pub(crate) fn failed(&mut self, why: CloseReason, deadline: u64) {
        self.heard.add(why);
        self.address += 1;
        self.broken_off = 0;
        self.conn = None;
        self.deadline = deadline;
    }

    /// The connection has ended by itself: the same address is due again, or the next one.
    pub(crate) fn ended(&mut self, why: CloseReason, deadline: u64) {
        if why == CloseReason::Ended && self.broken_off < TRIES_AFTER_BREAK {
            self.broken_off += 1;
            self.conn = None;
            self.deadline = deadline;
        } else {
            self.failed(why, deadline);
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
        let mut dial = Dial::new(None, 10);
        dial.failed(CloseReason::Refused, 20);
        dial.failed(no_route(), 30);
        assert_eq!((dial.address, dial.deadline, dial.verdict()), (2, 30, Probe::Refused));
        for other in [silent(), CloseReason::Violation("wrong key".into())] {
            let mut dial = Dial::new(None, 10);
            dial.failed(other, 20);
            dial.failed(CloseReason::Refused, 30);
            assert_eq!(dial.verdict(), Probe::Silent);
        }
        let mut dial = Dial::new(None, 10);
        dial.failed(no_route(), 20);
        assert_eq!(dial.verdict(), Probe::Silent);
    }

    #[test]
    fn a_connection_that_broke_off_is_tried_again_and_is_no_refusal() {
        let mut dial = Dial::new(None, 10);
        for _ in 0..TRIES_AFTER_BREAK {
            dial.ended(CloseReason::Ended, 20);
            assert_eq!(dial.address, 0);
        }
        dial.ended(CloseReason::Ended, 20);
        assert_eq!((dial.address, dial.verdict()), (1, Probe::Silent));
        let mut dial = Dial::new(None, 10);
        dial.ended(CloseReason::Ended, 20);
        dial.ended(CloseReason::Refused, 30);
        assert_eq!((dial.address, dial.verdict()), (1, Probe::Refused), "it was dying, and is dead now");
        let mut dial = Dial::new(None, 10);
        dial.ended(CloseReason::Unreachable("no route".to_owned()), 20);
        assert_eq!((dial.address, dial.verdict()), (1, Probe::Silent));
    }
}
