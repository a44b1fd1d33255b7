//! When a loop wakes up by itself: often while there is traffic, once a heartbeat at rest.
//!
//! Every wake-up costs an idle host some tens of microseconds, and a pair with its client has three loops.

use std::time::Duration;

/// So long after the last traffic a loop is at rest, in milliseconds.
const REST_AFTER_MS: u64 = 1000;
/// At rest, at least this often in milliseconds, however seldom heartbeats are.
const LONGEST_MS: u64 = 50;

/// A loop's next tick.
#[derive(Debug)]
pub struct Ticks {
    busy_ms: u64,
    rest_ms: u64,
    rest_from: u64,
    next: u64,
}

impl Ticks {
    /// The first is due at once. With traffic, every `busy_ms`; at rest, with each heartbeat.
    #[must_use]
    pub fn new(busy_ms: u64, heartbeat_ms: u64, now_ms: u64) -> Self {
        let rest_ms = heartbeat_ms.min(LONGEST_MS).max(busy_ms);
        Self { busy_ms, rest_ms, rest_from: now_ms + REST_AFTER_MS, next: now_ms }
    }

    /// Until the next.
    #[must_use]
    pub fn left(&self, now_ms: u64) -> Duration {
        Duration::from_millis(self.next.saturating_sub(now_ms))
    }

    /// Whether one is due: then the next is some time away.
    pub fn take(&mut self, now_ms: u64) -> bool {
        if now_ms < self.next {
            return false;
        }
        self.next = now_ms + if now_ms < self.rest_from { self.busy_ms } else { self.rest_ms };
        true
    }

    /// There is traffic.
    pub fn stir(&mut self, now_ms: u64) {
        self.rest_from = now_ms + REST_AFTER_MS;
        self.next = self.next.min(now_ms + self.busy_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When ticks are taken up to `end`, by a loop that sleeps as long as it may.
    fn run(ticks: &mut Ticks, from: u64, end: u64) -> Vec<u64> {
        let mut now = from;
        let mut taken = Vec::new();
        while now < end {
            if ticks.take(now) {
                taken.push(now);
            }
            now += u64::try_from(ticks.left(now).as_millis()).unwrap();
        }
        taken
    }

    #[test]
    fn ticks_are_rare_at_rest_and_frequent_again_with_the_first_traffic() {
        let mut ticks = Ticks::new(10, 50, 100);
        assert_eq!(run(&mut ticks, 100, 1100).len(), 100);
        assert_eq!(run(&mut ticks, 1100, 1400), [1100, 1150, 1200, 1250, 1300, 1350]);
        ticks.stir(1391);
        assert_eq!(run(&mut ticks, 1391, 1425), [1400, 1410, 1420]);
        ticks.stir(3000);
        assert_eq!(ticks.left(3000), Duration::ZERO, "one that is overdue stays so");
    }

    #[test]
    fn a_slow_heartbeat_makes_no_slow_clock() {
        let mut ticks = Ticks::new(10, 1000, 0);
        assert_eq!(run(&mut ticks, 5000, 5151), [5000, 5050, 5100, 5150]);
        let mut ticks = Ticks::new(10, 5, 0);
        assert_eq!(run(&mut ticks, 5000, 5021), [5000, 5010, 5020], "nor a fast one a fast clock");
    }
}
