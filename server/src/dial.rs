//! Asking the other node who is there (rule 15): each of its addresses in turn, until one answers.

use twinsan_fabric::{CloseReason, ConnId};
use twinsan_replica::Probe;

/// One probe on its way.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Dial {
    /// Index of the address being tried.
    pub(crate) address: usize,
    /// By this connection; none between two.
    pub(crate) conn: Option<ConnId>,
    /// When the next address is tried.
    pub(crate) deadline: u64,
    /// An address was tried that did not refuse: the process may live.
    unclear: bool,
}

impl Dial {
    /// At the first address, not begun.
    pub(crate) const fn new(deadline: u64) -> Self {
        Self { address: 0, conn: None, deadline, unclear: false }
    }

    /// The present address has not answered: `refused` says that nobody listens there.
    pub(crate) fn failed(&mut self, refused: bool, deadline: u64) {
        self.unclear |= !refused;
        self.address += 1;
        self.conn = None;
        self.deadline = deadline;
    }

    /// What it came to when no address has answered. Only if every one was refused is the process known not to run.
    pub(crate) const fn verdict(&self) -> Probe {
        if self.unclear { Probe::Silent } else { Probe::Refused }
    }
}

/// Whether a connection that ended this way shows that nobody listens.
pub(crate) fn is_refusal(why: &CloseReason) -> bool {
    *why == CloseReason::Refused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_only_if_all_addresses_refuse() {
        let mut dial = Dial::new(10);
        dial.failed(true, 20);
        dial.failed(true, 30);
        assert_eq!((dial.address, dial.deadline, dial.verdict()), (2, 30, Probe::Refused));
        let mut dial = Dial::new(10);
        dial.failed(false, 20);
        dial.failed(true, 30);
        assert_eq!(dial.verdict(), Probe::Silent);
    }

    #[test]
    fn a_connection_that_broke_off_is_no_refusal() {
        assert!(is_refusal(&CloseReason::Refused));
        assert!(!is_refusal(&CloseReason::Ended));
        assert!(!is_refusal(&CloseReason::Unreachable("no route".to_owned())));
    }
}
