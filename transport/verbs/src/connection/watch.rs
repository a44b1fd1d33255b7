//! Whether the peer's device still acknowledges what it is sent.
//!
//! The device repeats a send and gives up by itself, and that is how a dead peer is usually seen. Not always in time: a device
//! may take up to four times as long as it is told (IB Architecture 9.7.6.1.3), and Linux's rxe begins its wait anew
//! with every send (`rxe_completer`, 6.12: "kick it down the road"), so that it never gives up on a peer to which
//! something is sent every 60 ms, as heartbeats are. So one send in flight is watched: when it has not completed after
//! [`SILENCE`], the peer counts as unreachable. That needs a completion now and then where nobody has asked for one; see
//! [`Watch::wants_completion`].
//!
//! Who looks late, because it was itself frozen, looks once more after [`GRACE`] before it judges.

use std::time::{Duration, Instant};

/// A send that is not acknowledged for so long: the peer is gone. More than the device's own retries take where it does as
/// it is told (0.27 s).
pub(super) const SILENCE: Duration = Duration::from_millis(500);

/// From seeing that a send is overdue to believing it.
const GRACE: Duration = Duration::from_millis(50);

/// Without a watched send, one gets a completion this long after the last that was watched: often enough for the time above,
/// and too seldom to cost anything.
const EVERY: Duration = Duration::from_millis(20);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Watch {
    watched: Option<Watched>,
    /// When a send was last watched.
    last: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Watched {
    number: u64,
    due: Instant,
    /// It was found to be overdue: believed from then on.
    believed: Option<Instant>,
}

impl Watch {
    /// Whether a send is being watched.
    pub(super) const fn is_on(&self) -> bool {
        self.watched.is_some()
    }

    /// Whether a send is to have a completion for this alone.
    pub(super) fn wants_completion(&self, now: Instant) -> bool {
        self.watched.is_none() && self.last.is_none_or(|last| now.duration_since(last) >= EVERY)
    }

    /// Send `number`, which has a completion, goes now.
    pub(super) fn begin(&mut self, number: u64, now: Instant) {
        self.last = Some(now);
        self.watched = Some(Watched { number, due: now + SILENCE, believed: None });
    }

    /// Send `number` has completed, and all before it.
    pub(super) fn completed(&mut self, number: u64) {
        self.watched.take_if(|watched| watched.number <= number);
    }

    /// When to ask [`Watch::is_dead`].
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.watched.map(|watched| watched.believed.unwrap_or(watched.due))
    }

    /// Whether the peer is to be given up.
    pub(super) fn is_dead(&mut self, now: Instant) -> bool {
        let Some(watched) = self.watched.as_mut().filter(|watched| now >= watched.due) else { return false };
        now >= *watched.believed.get_or_insert(now + GRACE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn a_peer_that_acknowledges_is_never_given_up() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        for number in 0..100 {
            let now = at(start, number * 400);
            assert!(watch.wants_completion(now));
            watch.begin(number, now);
            assert!(!watch.is_dead(at(start, number * 400 + 399)));
            watch.completed(number);
            assert_eq!((watch.wake_at(), watch.is_on()), (None, false));
        }
        assert!(!watch.is_dead(at(start, 1_000_000)), "nothing is in flight");
    }

    #[test]
    fn silence_is_believed_at_the_second_look() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        watch.begin(7, start);
        watch.completed(6);
        assert_eq!(watch.wake_at(), Some(at(start, 500)));
        assert!(!watch.is_dead(at(start, 499)));
        assert!(!watch.is_dead(at(start, 500)));
        assert_eq!(watch.wake_at(), Some(at(start, 550)));
        assert!(!watch.is_dead(at(start, 549)));
        assert!(watch.is_dead(at(start, 550)));
    }

    #[test]
    fn who_was_frozen_itself_looks_again() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        watch.begin(7, start);
        assert!(!watch.is_dead(at(start, 60_000)));
        // What had come meanwhile is taken now.
        watch.completed(7);
        assert!(!watch.is_dead(at(start, 60_100)));
    }

    #[test]
    fn completions_are_asked_for_seldom() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        watch.begin(1, start);
        assert!(!watch.wants_completion(at(start, 400)), "one is watched");
        watch.completed(1);
        assert!(!watch.wants_completion(at(start, 19)));
        assert!(watch.wants_completion(at(start, 20)));
    }
}
