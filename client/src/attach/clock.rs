//! The machine's clock: milliseconds since the process began, which never go back.

use std::time::Instant;

/// Started once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// Zero is now.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Milliseconds since.
    pub(crate) fn now_ms(self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
