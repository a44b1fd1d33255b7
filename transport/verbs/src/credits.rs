//! Receive credits, both ways of one connection.
//!
//! With `given` the receives that a side has granted, always, for each direction:
//!
//! ```text
//! given = the sender's credits + sends under way + owed by the receiver + under way back
//! ```
//!
//! Credits go back with any message, or alone when [`OVERDUE`] are owed. Each message of the second kind that is under
//! way carries at least that many, so there are at most `given / OVERDUE` of them: [`SPARE_RECEIVES`].

/// Messages and immediates that a peer may have under way to us.
pub const RECEIVE_CREDITS: u16 = 256;

/// So many owed go back by a message of their own.
const OVERDUE: u16 = 64;

/// Receives that are posted beyond [`RECEIVE_CREDITS`], for the messages that give credits back.
pub(crate) const SPARE_RECEIVES: u16 = RECEIVE_CREDITS / OVERDUE;

const _: () = assert!(RECEIVE_CREDITS.is_multiple_of(OVERDUE));

/// The ledger of one connection.
#[derive(Debug)]
pub(crate) struct Credits {
    /// What the peer has given us at the start.
    given: u16,
    /// Messages and immediates that we may still send.
    ours: u16,
    /// Those that the peer may still send.
    theirs: u16,
    /// Those of the peer's that have been taken in and not been given back.
    owed: u16,
}

impl Credits {
    /// Before the peer has said what it gives.
    pub(crate) const fn new() -> Self {
        Self { given: 0, ours: 0, theirs: RECEIVE_CREDITS, owed: 0 }
    }

    /// The peer gives us so many to begin with.
    pub(crate) const fn begin(&mut self, given: u16) {
        self.given = given;
        self.ours = given;
    }

    /// Takes one to send with; false: there is none, what needs it waits.
    pub(crate) const fn spend(&mut self) -> bool {
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
            Some(ours) if ours <= self.given => {
                self.ours = ours;
                Ok(())
            }
            _ => Err(format!("{count} credits given back with {} of {} at hand", self.ours, self.given)),
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

    /// Whether so many are owed that they go back by a message of their own.
    pub(crate) const fn overdue(&self) -> bool {
        self.owed >= OVERDUE
    }

    /// All that are owed, for the message that leaves now. Their receives are posted.
    pub(crate) fn give_back(&mut self) -> u16 {
        let count = std::mem::take(&mut self.owed);
        self.theirs += count;
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One direction: what is under way, and the receives that it finds.
    struct Way {
        sender: Credits,
        receiver: Credits,
        /// Credit messages under way back, each with its count.
        back: Vec<u16>,
        under_way: u16,
    }

    impl Way {
        fn new() -> Self {
            let mut sender = Credits::new();
            sender.begin(RECEIVE_CREDITS);
            Self { sender, receiver: Credits::new(), back: Vec::new(), under_way: 0 }
        }

        fn check(&self) {
            let all = self.sender.ours + self.under_way + self.receiver.owed + self.back.iter().sum::<u16>();
            assert_eq!(all, RECEIVE_CREDITS, "a credit was lost or made");
            assert!(self.back.len() <= usize::from(SPARE_RECEIVES), "a credit message finds no receive");
        }
    }

    /// Whatever the order of sending, taking in and giving back: no credit is lost, no credit message finds no receive, and
    /// the sender is never stuck when all has been taken in.
    #[test]
    fn nothing_is_lost_whatever_the_order() {
        let mut way = Way::new();
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..200_000 {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            match random >> 61 {
                0..=3 if way.sender.spend() => way.under_way += 1,
                4 | 5 if way.under_way > 0 => {
                    way.under_way -= 1;
                    way.receiver.used().expect("it had a credit");
                    if way.receiver.overdue() {
                        way.back.push(way.receiver.give_back());
                    }
                }
                6 if !way.back.is_empty() => {
                    let count = way.back.remove(0);
                    way.sender.returned(count).expect("they were its own");
                }
                // With a message of the caller's: none of the spare receives.
                7 => way.sender.returned(way.receiver.give_back()).expect("they were its own"),
                _ => {}
            }
            way.check();
            let quiet = way.under_way == 0 && way.back.is_empty();
            assert!(!quiet || way.sender.ours > RECEIVE_CREDITS - OVERDUE, "stuck");
        }
    }

    #[test]
    fn a_peer_that_cheats_is_told() {
        let mut credits = Credits::new();
        credits.begin(4);
        assert!(credits.returned(1).is_err());
        assert!((0..4).all(|_| credits.spend()) && !credits.spend());
        assert!(credits.returned(5).is_err());
        credits.returned(4).expect("its own");
        assert!((0..RECEIVE_CREDITS).all(|_| credits.used().is_ok()));
        assert!(credits.used().is_err());
    }
}
