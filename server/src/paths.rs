//! News of the paths to a volume's disk (rule 11), from whoever watches them to the reactor.
//!
//! Level-triggered: what counts is how it is, not how often it has changed. So there is no queue to overflow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::doorbell::Doorbell;

/// The reactor's end, one per volume.
#[derive(Debug)]
pub(crate) struct Paths {
    usable: Arc<AtomicBool>,
    heard: bool,
}

/// The watcher's end.
#[derive(Debug)]
pub(crate) struct PathTeller {
    usable: Arc<AtomicBool>,
    bell: Doorbell,
}

impl Paths {
    /// Usable until told: a disk without a watcher has one path, whose failures its I/O tells.
    pub(crate) fn new() -> Self {
        Self { usable: Arc::new(AtomicBool::new(true)), heard: true }
    }

    /// For the watcher.
    pub(crate) fn teller(&self, bell: Doorbell) -> PathTeller {
        PathTeller { usable: Arc::clone(&self.usable), bell }
    }

    /// What the machine has not heard yet.
    pub(crate) fn news(&mut self) -> Option<bool> {
        let usable = self.usable.load(Ordering::Acquire);
        (std::mem::replace(&mut self.heard, usable) != usable).then_some(usable)
    }
}

impl PathTeller {
    /// This node has a usable path to the disk, or none. From any thread; the machine hears of it at once.
    pub(crate) fn tell(&self, usable: bool) {
        self.usable.store(usable, Ordering::Release);
        self.bell.ring();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_is_how_it_is() {
        let mut paths = Paths::new();
        let teller = paths.teller(Doorbell::new().unwrap());
        assert_eq!(paths.news(), None);
        teller.tell(true);
        assert_eq!(paths.news(), None);
        teller.tell(false);
        assert_eq!(paths.news(), Some(false));
        assert_eq!(paths.news(), None);
        teller.tell(true);
        teller.tell(false);
        assert_eq!(paths.news(), None);
        teller.tell(true);
        assert_eq!(paths.news(), Some(true));
    }
}
