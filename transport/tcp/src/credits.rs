//! Receive credits, both ways of one connection (see [`crate::frame`]).

use crate::frame::RECEIVE_CREDITS;

/// At this many owed, they go back by a frame of their own.
const OVERDUE: u16 = RECEIVE_CREDITS / 2;

/// The ledger of one connection. `theirs + owed` plus what is on its way to the peer is [`RECEIVE_CREDITS`], always.
#[derive(Debug)]
pub(crate) struct Credits {
    /// Messages and immediates that we may still send.
    ours: u16,
    /// Those that the peer may still send.
    theirs: u16,
    /// Those of the peer's that have been handed to our caller and not been given back.
    owed: u16,
}

impl Credits {
    /// At the start of a connection.
    pub(crate) const fn new() -> Self {
        Self { ours: RECEIVE_CREDITS, theirs: RECEIVE_CREDITS, owed: 0 }
    }

    /// Takes one to send with; false: there is none, what needs it waits.
    pub(crate) fn spend(&mut self) -> bool {
        let any = self.ours > 0;
        self.ours = self.ours.saturating_sub(1);
        any
    }

    /// The peer gives `count` back.
    ///
    /// # Errors
    /// If it never had them.
    pub(crate) fn returned(&mut self, count: u16) -> Result<(), String> {
        match self.ours.checked_add(count) {
            Some(ours) if ours <= RECEIVE_CREDITS => {
                self.ours = ours;
                Ok(())
            }
            _ => Err(format!("{count} credits given back with {} of {RECEIVE_CREDITS} at hand", self.ours)),
        }
    }

    /// The peer has sent something that takes one.
    ///
    /// # Errors
    /// If it had none left.
    pub(crate) fn used(&mut self) -> Result<(), String> {
        self.theirs = self
            .theirs
            .checked_sub(1)
            .ok_or_else(|| format!("more than {RECEIVE_CREDITS} messages and immediates without a credit"))?;
        self.owed += 1;
        Ok(())
    }

    /// All that are owed, for the frame that goes out now.
    pub(crate) fn give_back(&mut self) -> u16 {
        let count = std::mem::take(&mut self.owed);
        self.theirs += count;
        count
    }

    /// Whether they can't wait for a frame that goes anyway.
    pub(crate) const fn overdue(&self) -> bool {
        self.owed >= OVERDUE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_without_credits_waits_for_them() {
        let mut credits = Credits::new();
        for _ in 0..RECEIVE_CREDITS {
            assert!(credits.spend());
        }
        assert!(!credits.spend());
        credits.returned(2).expect("two of those spent");
        assert!(credits.spend());
        assert!(credits.spend());
        assert!(!credits.spend());
    }

    #[test]
    fn a_peer_that_sends_without_credit_is_told_off() {
        let mut credits = Credits::new();
        for _ in 0..RECEIVE_CREDITS {
            credits.used().expect("within its credits");
        }
        assert!(credits.used().is_err());
        assert_eq!(credits.give_back(), RECEIVE_CREDITS);
        credits.used().expect("it has them back");
    }

    #[test]
    fn a_peer_that_makes_credits_up_is_told_off() {
        let mut credits = Credits::new();
        assert!(credits.returned(1).is_err());
        assert!(credits.spend());
        assert!(credits.returned(u16::MAX).is_err());
        credits.returned(1).expect("the one spent");
    }

    #[test]
    fn half_owed_is_overdue() {
        let mut credits = Credits::new();
        for _ in 0..RECEIVE_CREDITS / 2 {
            assert!(!credits.overdue());
            credits.used().expect("within its credits");
        }
        assert!(credits.overdue());
        credits.give_back();
        assert!(!credits.overdue());
    }
}
