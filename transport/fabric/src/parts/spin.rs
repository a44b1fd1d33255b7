//! How long to poll before sleeping: longer while it pays, not at all while it does not.
//!
//! A wake-up costs tens of microseconds, a poll that finds something none. But polling an idle machine costs a core.
//! So the window is open after a sleep that polling would have spared, and halves with each that it would not have.

use std::time::Duration;

/// Less is not worth beginning.
const LEAST: Duration = Duration::from_micros(1);

/// The window.
#[derive(Debug)]
pub struct Spin {
    most: Duration,
    now: Duration,
}

impl Spin {
    /// At most so long; zero: never.
    #[must_use]
    pub const fn new(most: Duration) -> Self {
        Self { most, now: most }
    }

    /// How long to poll this time.
    #[must_use]
    pub const fn window(&self) -> Duration {
        self.now
    }

    /// Something came after so long, polling and sleep together.
    pub fn waited(&mut self, time: Duration) {
        if time <= self.most {
            self.now = self.most;
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
        let mut spin = Spin::new(most);
        for _ in 0..20 {
            spin.waited(Duration::from_millis(10));
        }
        assert_eq!(spin.window(), Duration::ZERO);
        spin.waited(Duration::from_micros(40));
        assert_eq!(spin.window(), most);
        let mut never = Spin::new(Duration::ZERO);
        never.waited(Duration::ZERO);
        assert_eq!(never.window(), Duration::ZERO);
    }
}
