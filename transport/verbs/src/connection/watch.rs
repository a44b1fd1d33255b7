//! Whether the peer's device still acknowledges what it is sent.
//!
//! The device repeats a send and gives up by itself, and that is how a dead peer is usually seen. Not always in time: a device
//! may take up to four times as long as it is told (IB Architecture 9.7.6.1.3), and Linux's rxe begins its wait anew
//! with every send (`rxe_completer`, 6.12: "kick it down the road"), so that it never gives up on a peer to which
//! something is sent every 60 ms, as heartbeats are. So as long as a send with a completion is in flight, completions
//! must keep coming: when none has come for [`SILENCE`], the peer counts as unreachable. It is silence that is judged and
//! not how long one send takes: what is queued ahead of it may take as long as the path needs, as each completion of it is a
//! sign of life.
//!
//! That needs completions where nobody has asked for any: [`Signals`] sees to them while much is sent,
//! [`Watch::wants_completion`] while little is.
//!
//! Who looks late, because it was itself frozen, looks once more after [`GRACE`] before it judges.

use std::time::{Duration, Instant};

/// No completion for so long, and some are due: the peer is gone. More than the device's own retries take where it does as
/// it is told (0.27 s).
pub(super) const SILENCE: Duration = Duration::from_millis(500);

/// From seeing that completions are overdue to believing it.
const GRACE: Duration = Duration::from_millis(50);

/// Without a send to watch, one gets a completion this long after the last such beginning: often enough for the time above,
/// and too seldom to cost anything.
const EVERY: Duration = Duration::from_millis(20);

/// So many sends at most from one with a completion to the next.
const SIGNAL_EVERY: usize = 32;

/// And so many bytes, or the one send that exceeds them: a path that carries them within [`SILENCE`], 8 MiB/s, is never
/// taken for a dead one.
const SIGNAL_BYTES: usize = 4 << 20;

/// Which sends get a completion.
#[derive(Debug)]
pub(super) struct Signals {
    most: usize,
    /// Sends since the last one with a completion, and their bytes.
    sends: usize,
    bytes: usize,
}

impl Signals {
    /// For a send queue that holds so many of the caller's posts.
    pub(super) fn new(depth: usize) -> Self {
        Self { most: SIGNAL_EVERY.min(depth), sends: 0, bytes: 0 }
    }

    /// Whether the next send, of so many bytes, gets one; it does if it is `wanted`.
    pub(super) const fn next(&mut self, bytes: usize, wanted: bool) -> bool {
        self.sends += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        let signalled = wanted || self.sends >= self.most || self.bytes >= SIGNAL_BYTES;
        if signalled {
            self.given();
        }
        signalled
    }

    /// The newest send gets one for another reason.
    pub(super) const fn given(&mut self) {
        self.sends = 0;
        self.bytes = 0;
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Watch {
    watched: Option<Watched>,
    /// When there last began to be one.
    last: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Watched {
    /// The newest send with a completion.
    newest: u64,
    /// No completion until then is too long.
    due: Instant,
    /// They were found to be overdue: believed from then on.
    believed: Option<Instant>,
}

impl Watch {
    /// Whether a send is to have a completion for this alone. The clock, here and below, is asked where it matters.
    pub(super) fn wants_completion(&self, now: impl FnOnce() -> Instant) -> bool {
        self.watched.is_none() && self.last.is_none_or(|last| now().duration_since(last) >= EVERY)
    }

    /// Send `number`, which has a completion, goes now. If others are in flight, theirs are due first.
    pub(super) fn sent(&mut self, number: u64, now: impl FnOnce() -> Instant) {
        match &mut self.watched {
            Some(watched) => watched.newest = number,
            None => {
                let now = now();
                self.last = Some(now);
                self.watched = Some(Watched { newest: number, due: now + SILENCE, believed: None });
            }
        }
    }

    /// A completion has come: every send before `next` has been acknowledged. If more are due, they have their time anew.
    pub(super) fn completed(&mut self, next: u64, now: impl FnOnce() -> Instant) {
        self.watched = self.watched.filter(|watched| watched.newest >= next);
        if let Some(watched) = &mut self.watched {
            watched.due = now() + SILENCE;
            watched.believed = None;
        }
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
            let begin = number * 400;
            assert!(watch.wants_completion(|| at(start, begin)));
            watch.sent(number, || at(start, begin));
            assert!(!watch.is_dead(at(start, begin + 399)));
            watch.completed(number + 1, || at(start, begin + 399));
            assert_eq!(watch.wake_at(), None);
        }
        assert!(!watch.is_dead(at(start, 1_000_000)), "nothing is in flight");
    }

    /// A full queue of megabytes through a path of 10 MiB/s: the last of them takes 51 s, and the peer is alive.
    #[test]
    fn a_slow_drain_is_no_silence() {
        let (mut watch, mut signals, start) = (Watch::default(), Signals::new(512), Instant::now());
        let signalled: Vec<u64> = (0..512).filter(|_| signals.next(1 << 20, false)).collect();
        for &number in &signalled {
            watch.sent(number, || start);
        }
        let mut due = signalled.into_iter().peekable();
        for number in 0..512 {
            let now = at(start, (number + 1) * 100);
            if due.next_if_eq(&number).is_some() {
                watch.completed(number + 1, || now);
            }
            assert!(!watch.is_dead(now), "given up with send {number} of a slow but live drain");
        }
        assert_eq!(watch.wake_at(), None, "all have come");
    }

    /// As above, and the path breaks on the way: seen as soon as if nothing else were queued.
    #[test]
    fn a_peer_that_dies_within_a_backlog_is_given_up() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        for number in 0..100 {
            watch.sent(number, || start);
        }
        for number in 0..50 {
            watch.completed(number + 1, || at(start, number * 400));
            assert!(!watch.is_dead(at(start, number * 400 + 399)));
        }
        let end = 49 * 400;
        // What is sent after its death does not make it live longer.
        watch.sent(100, || at(start, end + 400));
        assert!(!watch.is_dead(at(start, end + 500)));
        assert_eq!(watch.wake_at(), Some(at(start, end + 550)));
        assert!(watch.is_dead(at(start, end + 550)));
    }

    #[test]
    fn silence_is_believed_at_the_second_look() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        watch.sent(7, || start);
        assert_eq!(watch.wake_at(), Some(at(start, 500)));
        assert!(!watch.is_dead(at(start, 499)));
        assert!(!watch.is_dead(at(start, 500)));
        assert_eq!(watch.wake_at(), Some(at(start, 550)));
        assert!(!watch.is_dead(at(start, 549)));
        assert!(watch.is_dead(at(start, 550)));
    }

    #[test]
    fn any_completion_clears_the_suspicion() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        watch.sent(7, || start);
        assert!(!watch.is_dead(at(start, 510)));
        watch.completed(7, || at(start, 520));
        assert!(!watch.is_dead(at(start, 560)), "send 6 has completed");
        assert_eq!(watch.wake_at(), Some(at(start, 1020)));
    }

    #[test]
    fn who_was_frozen_itself_looks_again() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        watch.sent(7, || start);
        assert!(!watch.is_dead(at(start, 60_000)));
        // What had come meanwhile is taken now.
        watch.completed(8, || at(start, 60_001));
        assert!(!watch.is_dead(at(start, 60_100)));
    }

    #[test]
    fn completions_are_asked_for_seldom() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        watch.sent(1, || start);
        assert!(!watch.wants_completion(|| at(start, 400)), "one is in flight");
        watch.completed(2, || at(start, 1));
        assert!(!watch.wants_completion(|| at(start, 19)));
        assert!(watch.wants_completion(|| at(start, 20)));
    }

    #[test]
    fn signals_by_number_bytes_and_wish() {
        let gaps = |depth: usize, bytes: usize| {
            let mut signals = Signals::new(depth);
            let signalled: Vec<usize> = (1..=192).filter(|_| signals.next(bytes, false)).collect();
            assert!(signalled.iter().zip(1..).all(|(&at, count)| at == signalled[0] * count), "{signalled:?}");
            signalled[0]
        };
        assert_eq!((gaps(512, 64), gaps(8, 64), gaps(1, 0)), (32, 8, 1));
        assert_eq!((gaps(512, 1 << 20), gaps(512, 256 << 10), gaps(512, usize::MAX)), (4, 16, 1));
        let mut signals = Signals::new(4);
        assert!(!signals.next(1, false) && !signals.next(1, false) && signals.next(1, true));
        assert!((0..3).all(|_| !signals.next(1, false)) && signals.next(1, false));
    }
}
