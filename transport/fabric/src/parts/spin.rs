//! How long to poll before sleeping: longer while it pays, not at all while it does not.
//!
//! A wake-up costs tens of microseconds, a poll that finds something none. But polling an idle machine costs a core.
//! So the window is open after a sleep that polling would have spared, and halves with each that was far longer.
//!
//! On a crowded machine polling is worse than sleeping: who gives way while it polls comes back when the others' time slices
//! are over, some milliseconds later, where a sleeper would have been let in by its wake-up. So the window is shut for a while when
//! that happens again and again.

use std::time::{Duration, Instant};

/// Who was away so long while it polled has lost a time slice to somebody.
const LOST: Duration = Duration::from_millis(2);
/// Two that are no further apart belong together.
const TOGETHER: Duration = Duration::from_millis(50);
/// After so many it is a crowd, and not somebody's moment.
const CROWD: u32 = 3;
/// So long it sleeps rather than polls then.
const SHY: Duration = Duration::from_millis(200);
/// A wait of so many windows is no wait for somebody's next step, but rest.
const FAR: u32 = 10;
/// Less is not worth beginning.
const LEAST: Duration = Duration::from_micros(1);

/// The window.
#[derive(Debug)]
pub struct Spin {
    most: Duration,
    now: Duration,
    /// Time slices that were lost in a row, and when the last was.
    lost: u32,
    lost_at: Option<Instant>,
    /// Shut until then.
    shy_until: Option<Instant>,
}

impl Spin {
    /// At most so long; zero: never.
    #[must_use]
    pub const fn new(most: Duration) -> Self {
        Self { most, now: most, lost: 0, lost_at: None, shy_until: None }
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
        if now.duration_since(before) < LOST {
            return true;
        }
        let again = self.lost_at.is_some_and(|at| before.duration_since(at) < TOGETHER);
        self.lost = if again { self.lost + 1 } else { 1 };
        self.lost_at = Some(now);
        if self.lost < CROWD {
            return true;
        }
        self.shy_until = Some(now + SHY);
        false
    }

    /// Something came after so long, polling and sleep together.
    pub fn waited(&mut self, time: Duration) {
        if time <= self.most {
            self.now = self.most;
        } else if time > FAR * self.most {
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
        spin.waited(Duration::from_micros(400));
        assert_eq!(spin.window(now), most, "the next one may be nearer");
        let mut never = Spin::new(Duration::ZERO);
        never.waited(Duration::ZERO);
        assert_eq!((never.window(now), never.is_open()), (Duration::ZERO, false));
    }

    #[test]
    fn who_loses_its_core_again_and_again_while_it_polls_sleeps_for_a_while() {
        let most = Duration::from_micros(50);
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let mut spin = Spin::new(most);
        assert!(spin.looked(at(0), at(0) + Duration::from_micros(300)), "that was a look, or a neighbour's");
        for ms in [0, 100, 200, 300] {
            assert!(spin.looked(at(ms), at(ms + 4)), "now and then somebody has the core");
        }
        assert!(spin.looked(at(310), at(314)));
        assert_eq!(spin.window(at(314)), most);
        assert!(!spin.looked(at(320), at(324)), "a crowd");
        spin.waited(Duration::from_micros(10));
        assert_eq!(spin.window(at(523)), Duration::ZERO, "though polling would have paid");
        assert_eq!(spin.window(at(524)), most);
    }
}
