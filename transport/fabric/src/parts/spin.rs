//! How long to poll before sleeping: longer while it pays, not at all while it does not.
//!
//! A wake-up costs tens of microseconds, a poll that finds something none. But polling an idle machine costs a core.
//! So the window is open after a sleep that polling would have spared, and halves with each that it would not have.
//!
//! On a crowded machine polling is worse than sleeping: who gives way while it polls comes back when the others' time slices
//! are over, some milliseconds later, where a sleeper would have been let in by its wake-up. So the window is shut for a while when
//! that has happened.

use std::time::{Duration, Instant};

/// Who was away so long while it polled has lost a time slice to somebody.
const LOST: Duration = Duration::from_millis(1);
/// So long it sleeps rather than polls then; with each time that it happens again twice as long, up to the second.
const SHY: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(3200)];
/// After so many waits that polling has shortened, and nothing lost, all is as before.
const GOOD_WAITS: u32 = 10_000;
/// Less is not worth beginning.
const LEAST: Duration = Duration::from_micros(1);

/// The window.
#[derive(Debug)]
pub struct Spin {
    most: Duration,
    now: Duration,
    /// Shut until then.
    shy_until: Option<Instant>,
    /// For how long the next time.
    shy: Duration,
    /// Waits that polling has shortened since.
    good: u32,
}

impl Spin {
    /// At most so long; zero: never.
    #[must_use]
    pub const fn new(most: Duration) -> Self {
        Self { most, now: most, shy_until: None, shy: SHY[0], good: 0 }
    }

    /// Whether polling pays.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        !self.now.is_zero()
    }

    /// How long to poll this time.
    #[must_use]
    pub fn window(&self, now: Instant) -> Duration {
        if self.shy_until.is_some_and(|until| now < until) { Duration::ZERO } else { self.now }
    }

    /// From one look to the next, while polling. Returns whether to go on.
    pub fn looked(&mut self, before: Instant, now: Instant) -> bool {
        let lost = now.duration_since(before) >= LOST;
        if lost {
            self.shy_until = Some(now + self.shy);
            self.shy = (2 * self.shy).min(SHY[1]);
            self.good = 0;
        }
        !lost
    }

    /// Something came after so long, polling and sleep together.
    pub fn waited(&mut self, time: Duration) {
        if time <= self.most {
            self.now = self.most;
            self.good = self.good.saturating_add(1);
            if self.good == GOOD_WAITS {
                self.shy = SHY[0];
            }
        } else {
            self.now /= 2;
            if self.now < LEAST {
                self.now = Duration::ZERO;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closes_when_idle_and_opens_when_it_pays() {
        let most = Duration::from_micros(50);
        let now = Instant::now();
        let mut spin = Spin::new(most);
        for _ in 0..20 {
            spin.waited(Duration::from_millis(10));
        }
        assert_eq!((spin.window(now), spin.is_open()), (Duration::ZERO, false));
        spin.waited(Duration::from_micros(40));
        assert_eq!((spin.window(now), spin.is_open()), (most, true));
        let mut never = Spin::new(Duration::ZERO);
        never.waited(Duration::ZERO);
        assert_eq!((never.window(now), never.is_open()), (Duration::ZERO, false));
    }

    #[test]
    fn who_loses_its_core_while_it_polls_sleeps_for_a_while() {
        let most = Duration::from_micros(50);
        let now = Instant::now();
        let mut spin = Spin::new(most);
        assert!(spin.looked(now, now + Duration::from_micros(3)), "that was a look, or a neighbour's");
        assert_eq!(spin.window(now), most);
        let back = now + Duration::from_millis(4);
        assert!(!spin.looked(now, back));
        spin.waited(Duration::from_micros(10));
        assert_eq!(spin.window(back + Duration::from_millis(49)), Duration::ZERO, "though polling would have paid");
        let open = back + Duration::from_millis(50);
        assert_eq!(spin.window(open), most);
        let again = open + Duration::from_millis(4);
        assert!(!spin.looked(open, again), "and once more");
        assert_eq!(spin.window(again + Duration::from_millis(99)), Duration::ZERO);
        assert_eq!(spin.window(again + Duration::from_millis(100)), most);
        for _ in 0..GOOD_WAITS {
            spin.waited(Duration::from_micros(10));
        }
        assert!(!spin.looked(now, again));
        assert_eq!(spin.window(again + Duration::from_millis(50)), most, "it has been quiet meanwhile");
    }
}
