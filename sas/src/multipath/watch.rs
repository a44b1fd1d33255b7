//! The thread that looks at the paths, every half second: multipathd does so every few.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::tracker::{Answer, PathEvent, PathSet, PathState, Seen, Tracker};
use super::{PathId, ScsiDisk, multipathd};
use crate::fence::scsi_pr::{Command, Couriers, Status};

/// How the paths are watched.
#[derive(Clone, Copy, Debug)]
pub struct WatchOptions {
    /// Between two looks.
    pub interval: Duration,
    /// A path that has not answered for so long has failed. A write that waits as long is no worse off.
    pub patience: Duration,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self { interval: Duration::from_millis(500), patience: Duration::from_secs(2) }
    }
}

/// Which paths the fence has registered, for whoever wants to know; `None` while it registers none.
#[derive(Clone, Debug, Default)]
pub struct Registrations(Arc<Mutex<Option<BTreeSet<PathId>>>>);

impl Registrations {
    pub(crate) fn set(&self, paths: Option<BTreeSet<PathId>>) {
        *lock(&self.0) = paths;
    }

    /// The path has been away: what was registered on it is to be looked at again before it is used.
    fn strike(&self, path: &PathId) {
        if let Some(paths) = &mut *lock(&self.0) {
            paths.remove(path);
        }
    }

    /// A copy.
    #[must_use]
    pub fn get(&self) -> Option<BTreeSet<PathId>> {
        lock(&self.0).clone()
    }
}

/// The watcher's end: the thread ends soon after this is dropped.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Mutex<PathSet>>,
    began: Instant,
}

impl Watch {
    /// Looks once, then starts the thread. `tell` hears of every change, and again and again while a path waits for its
    /// registration, on that thread; the first look counts as a change.
    ///
    /// # Errors
    /// No thread is to be had.
    pub fn start(
        volume: &str,
        disk: ScsiDisk,
        registrations: Registrations,
        options: WatchOptions,
        mut tell: impl FnMut(&PathSet) + Send + 'static,
    ) -> io::Result<Self> {
        let began = Instant::now();
        let mut watcher = Watcher {
            volume: volume.to_owned(),
            disk,
            registrations,
            options,
            couriers: Couriers::default(),
            tracker: Tracker::default(),
            began,
        };
        let shared = Arc::new(Mutex::new(PathSet::default()));
        let weak = Arc::downgrade(&shared);
        watcher.look(&weak, &mut tell);
        thread::Builder::new().name(format!("paths {volume}")).spawn(move || {
            while weak.strong_count() > 0 {
                thread::sleep(watcher.options.interval);
                watcher.look(&weak, &mut tell);
            }
        })?;
        Ok(Self { shared, began })
    }

    /// How the paths are.
    #[must_use]
    pub fn paths(&self) -> PathSet {
        lock(&self.shared).clone()
    }

    /// The clock of [`super::PathStatus::since_ms`].
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        millis(self.began.elapsed())
    }
}

struct Watcher {
    volume: String,
    disk: ScsiDisk,
    registrations: Registrations,
    options: WatchOptions,
    couriers: Couriers,
    tracker: Tracker,
    began: Instant,
}

impl Watcher {
    fn look(&mut self, shared: &Weak<Mutex<PathSet>>, tell: &mut impl FnMut(&PathSet)) {
        let seen = self.see();
        let events = self.tracker.observe(millis(self.began.elapsed()), &seen, self.registrations.get().as_ref());
        let set = self.tracker.set();
        if let Some(shared) = shared.upgrade() {
            lock(&shared).clone_from(&set);
        }
        for event in &events {
            self.log(event);
        }
        let lost = |path: &&super::PathStatus| matches!(path.state, PathState::Failed | PathState::Gone);
        set.paths.iter().filter(lost).for_each(|path| self.registrations.strike(&path.id));
        if !events.is_empty() || set.wait_for_registration() {
            tell(&set);
        }
    }

    fn see(&mut self) -> Vec<Seen> {
        let paths = self.disk.paths().unwrap_or_default();
        let answers = self.couriers.ask_all(&paths, Command::TestUnitReady, self.options.patience);
        // Without the daemon our own eyes have to do.
        let daemon = self.disk.map().and_then(|_| multipathd::paths().ok()).unwrap_or_default();
        let seen = |(info, answer): (super::PathInfo, Option<Status>)| {
            let answer = match answer {
                // It has been reset, or has something else to say, so it is there.
                Some(Status::Good(_) | Status::Conflict | Status::Again(_)) => Answer::Ready,
                Some(Status::Check(sense)) if sense.is_passing() => Answer::Ready,
                Some(Status::Check(_)) => Answer::NotReady,
                None => Answer::Nothing,
            };
            let dm = daemon.iter().find(|path| path.name == info.id.name).map(|path| path.dm.clone());
            Seen { info, answer, dm }
        };
        paths.into_iter().zip(answers).map(seen).collect()
    }

    fn log(&self, event: &PathEvent) {
        let volume = &self.volume;
        match event {
            PathEvent::Path { name, hctl, from, to } => {
                let from = from.map_or("new", PathState::name);
                match to {
                    PathState::Failed | PathState::Gone => {
                        tracing::warn!(volume, path = name, hctl, "disk path {to} (was {from})");
                    }
                    _ => tracing::info!(volume, path = name, hctl, "disk path {to} (was {from})"),
                }
            }
            PathEvent::Usable(true) => tracing::info!(volume, "the disk can be reached"),
            PathEvent::Usable(false) => tracing::error!(volume, "no usable path to the disk"),
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Whoever panicked with it is gone with the process; what it wrote is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
