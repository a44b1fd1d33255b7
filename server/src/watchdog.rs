//! The service manager's side: READY, STOPPING, and the watchdog, which is petted by the reactor's own loop (sd_notify(3)).

use sd_notify::NotifyState;

/// Pets the watchdog at half its interval, if there is one.
#[derive(Debug)]
pub(crate) struct Watchdog {
    interval_ms: Option<u64>,
    next: u64,
}

impl Watchdog {
    /// What the environment asks for.
    pub(crate) fn from_environment() -> Self {
        let interval = sd_notify::watchdog_enabled();
        let half = |interval: std::time::Duration| u64::try_from(interval.as_millis() / 2).unwrap_or(u64::MAX);
        Self { interval_ms: interval.map(half), next: 0 }
    }

    /// The loop turns.
    pub(crate) fn pet(&mut self, now: u64) {
        if let Some(interval) = self.interval_ms
            && now >= self.next
        {
            self.next = now + interval;
            notify(NotifyState::Watchdog);
        }
    }

    /// Start-up is over.
    pub(crate) fn ready(&self) {
        notify(NotifyState::Ready);
    }

    /// The end has begun.
    pub(crate) fn stopping(&self) {
        notify(NotifyState::Stopping);
    }
}

fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "the service manager can't be told");
    }
}
