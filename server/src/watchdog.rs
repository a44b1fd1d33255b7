//! The service manager's side: READY, STOPPING, and the watchdog, which is petted by the reactors' own loops (sd_notify(3)).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use sd_notify::NotifyState;

/// Of a reactor that has ended.
const ENDED: u64 = u64::MAX;

/// One reactor's. The first one's pets the watchdog at half its interval, if there is one, and if all the others' loops have
/// turned since.
#[derive(Debug)]
pub(crate) struct Watchdog {
    interval_ms: Option<u64>,
    next: u64,
    reactor: usize,
    /// When each reactor's loop has turned last.
    turned: Arc<[AtomicU64]>,
}

impl Watchdog {
    /// What the environment asks for, one for each of so many reactors.
    pub(crate) fn from_environment(reactors: usize) -> Vec<Self> {
        let interval = sd_notify::watchdog_enabled();
        let half = |interval: std::time::Duration| u64::try_from(interval.as_millis() / 2).unwrap_or(u64::MAX);
        Self::every(interval.map(half), reactors)
    }

    fn every(interval_ms: Option<u64>, reactors: usize) -> Vec<Self> {
        let turned: Arc<[AtomicU64]> = (0..reactors).map(|_| AtomicU64::new(0)).collect();
        (0..reactors).map(|reactor| Self { interval_ms, next: 0, reactor, turned: Arc::clone(&turned) }).collect()
    }

    /// The loop turns.
    pub(crate) fn pet(&mut self, now: u64) {
        if self.is_pet(now) {
            notify(NotifyState::Watchdog);
        }
    }

    /// Whether the watchdog is to be petted.
    fn is_pet(&mut self, now: u64) -> bool {
        let Some(interval) = self.interval_ms else { return false };
        self.turned[self.reactor].store(now, Relaxed);
        if self.reactor > 0 || now < self.next {
            return false;
        }
        let all_turn = self.turned.iter().all(|turned| turned.load(Relaxed).saturating_add(interval) >= now);
        if all_turn {
            self.next = now + interval;
        }
        all_turn
    }

    /// Start-up is over.
    pub(crate) fn ready(&self) {
        self.notify_once(NotifyState::Ready);
    }

    /// The end has begun.
    pub(crate) fn stopping(&self) {
        self.notify_once(NotifyState::Stopping);
    }

    fn notify_once(&self, state: NotifyState<'_>) {
        if self.reactor == 0 {
            notify(state);
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.turned[self.reactor].store(ENDED, Relaxed);
    }
}

fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "the service manager can't be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reactor_that_hangs_is_not_covered_up_by_the_others() {
        let mut all = Watchdog::every(Some(100), 2);
        let mut second = all.pop().unwrap();
        let mut first = all.pop().unwrap();
        assert!(first.is_pet(10) && !first.is_pet(50), "at half the interval");
        assert!(!second.is_pet(110) && first.is_pet(110));
        assert!(first.is_pet(210), "the second has turned a hundred ago");
        assert!(!first.is_pet(311) && !first.is_pet(400), "it hangs");
        assert!(!second.is_pet(401) && first.is_pet(402), "it was only slow");
        drop(second);
        assert!(first.is_pet(10_000), "it has ended");
        let mut alone = Watchdog::every(None, 1).pop().unwrap();
        assert!(!alone.is_pet(1000), "nobody watches");
    }
}
