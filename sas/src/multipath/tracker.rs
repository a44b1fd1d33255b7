//! From what is seen of the paths to their states, and the events between.
//!
//! ```text
//!    (new) ──▶ active ◀──▶ failed        as the path answers
//!                │ ▲         │ ▲
//!                ▼ │         ▼ │
//!            unregistered   gone          it answers and the fence has not registered it / it left the map
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{PathId, PathInfo};

/// Paths that are gone are told of for so long.
const GONE_FOR_MS: u64 = 600_000;

/// How a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathState {
    /// It answers, and is registered if the fence registers.
    Active,
    /// It answers that it is not ready (ALUA: standby, in transition): another path has to be used.
    Standby,
    /// It answers, and is not registered: a write on it would be refused.
    Unregistered,
    /// It does not answer.
    Failed,
    /// The kernel or the map has it no more.
    Gone,
}

impl PathState {
    /// The word in status and log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Standby => "standby",
            Self::Unregistered => "unregistered",
            Self::Failed => "failed",
            Self::Gone => "gone",
        }
    }
}

impl fmt::Display for PathState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a path said to TEST UNIT READY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Ready.
    Ready,
    /// It answers, and is not ready.
    NotReady,
    /// Nothing, an error of the transport, or it was not asked as the kernel holds it for unreachable.
    Nothing,
}

/// One path as it was just seen.
#[derive(Clone, Debug)]
pub struct Seen {
    /// As /sys shows it.
    pub info: PathInfo,
    /// Its own word.
    pub answer: Answer,
    /// multipathd's word, if it gives one: whether dm-multipath uses it.
    pub dm: Option<String>,
}

/// One path, for people and programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathStatus {
    /// Which.
    pub id: PathId,
    /// Host, channel, target, LUN.
    pub hctl: String,
    /// How it is.
    pub state: PathState,
    /// What dm-multipath makes of it: `active`, `failed`; `None`: nobody says.
    pub dm: Option<String>,
    /// Since when, in milliseconds of the watcher's clock.
    pub since_ms: u64,
    /// How often it has stopped answering or gone.
    pub failures: u64,
}

/// All paths of a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathSet {
    /// By name.
    pub paths: Vec<PathStatus>,
    /// A write can reach the disk by at least one of them: it is active, and dm-multipath uses it.
    pub usable: bool,
}

impl PathSet {
    /// A path that only waits for its registration is there too.
    #[must_use]
    pub fn wait_for_registration(&self) -> bool {
        self.paths.iter().any(|path| path.state == PathState::Unregistered)
    }

    /// Usable, or in a moment: what waits for its registration gets it.
    #[must_use]
    pub fn is_reachable(&self) -> bool {
        self.paths.iter().any(|path| path.state == PathState::Unregistered && path.is_used()) || self.usable
    }
}

impl PathStatus {
    /// Whether dm-multipath sends anything by it. It takes a path that came back into use at its daemon's next look;
    /// without the daemon nobody knows.
    fn is_used(&self) -> bool {
        self.dm.as_deref() != Some("failed")
    }
}

/// Something has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathEvent {
    /// A path's state.
    Path {
        /// Which.
        name: String,
        /// Its address.
        hctl: String,
        /// `None`: it has not been seen before.
        from: Option<PathState>,
        /// How it is now.
        to: PathState,
    },
    /// Whether there is a usable path at all.
    Usable(bool),
}

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub struct Tracker {
    paths: BTreeMap<PathId, PathStatus>,
    usable: Option<bool>,
}

impl Tracker {
    /// Takes in what was seen at `now_ms`; `registered` are the paths that the fence has registered, while it does.
    pub fn observe(&mut self, now_ms: u64, seen: &[Seen], registered: Option<&BTreeSet<PathId>>) -> Vec<PathEvent> {
        let mut events = Vec::new();
        for Seen { info, answer, dm } in seen {
            let state = match answer {
                Answer::Nothing => PathState::Failed,
                _ if registered.is_some_and(|set| !set.contains(&info.id)) => PathState::Unregistered,
                Answer::NotReady => PathState::Standby,
                Answer::Ready => PathState::Active,
            };
            let path = self.paths.entry(info.id.clone());
            let before = match &path {
                std::collections::btree_map::Entry::Occupied(path) => Some(path.get().state),
                std::collections::btree_map::Entry::Vacant(_) => None,
            };
            let path = path.or_insert_with(|| PathStatus {
                id: info.id.clone(),
                hctl: String::new(),
                state,
                dm: None,
                since_ms: now_ms,
                failures: 0,
            });
            path.hctl.clone_from(&info.hctl);
            path.dm.clone_from(dm);
            change(path, before, state, now_ms, &mut events);
        }
        for path in self.paths.values_mut() {
            if !seen.iter().any(|seen| seen.info.id == path.id) {
                path.dm = None;
                change(path, Some(path.state), PathState::Gone, now_ms, &mut events);
            }
        }
        let forgotten =
            |path: &PathStatus| path.state == PathState::Gone && now_ms.saturating_sub(path.since_ms) >= GONE_FOR_MS;
        self.paths.retain(|_, path| !forgotten(path));
        let usable = self.paths.values().any(|path| path.state == PathState::Active && path.is_used());
        if self.usable.replace(usable) != Some(usable) {
            events.push(PathEvent::Usable(usable));
        }
        events
    }

    /// How all of them are.
    #[must_use]
    pub fn set(&self) -> PathSet {
        PathSet { paths: self.paths.values().cloned().collect(), usable: self.usable.unwrap_or(false) }
    }
}

fn change(path: &mut PathStatus, from: Option<PathState>, to: PathState, now_ms: u64, events: &mut Vec<PathEvent>) {
    if from == Some(to) {
        return;
    }
    let lost = |state| matches!(state, PathState::Failed | PathState::Gone);
    if lost(to) && !from.is_some_and(lost) {
        path.failures += 1;
    }
    path.state = to;
    path.since_ms = now_ms;
    events.push(PathEvent::Path { name: path.id.name.clone(), hctl: path.hctl.clone(), from, to });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(name: &str, serial: u64, answer: Answer) -> Seen {
        let id = PathId { name: name.to_owned(), serial };
        let info = PathInfo { id, hctl: format!("{serial}:0:0:0"), state: "running".to_owned(), device: (8, 0) };
        Seen { info, answer, dm: Some("active".to_owned()) }
    }

    fn event(name: &str, serial: u64, from: Option<PathState>, to: PathState) -> PathEvent {
        PathEvent::Path { name: name.to_owned(), hctl: format!("{serial}:0:0:0"), from, to }
    }

    #[test]
    fn a_path_goes_and_comes_back() {
        let mut tracker = Tracker::default();
        let both = [seen("sda", 1, Answer::Ready), seen("sdb", 2, Answer::Ready)];
        let first = tracker.observe(10, &both, None);
        let new = |name, serial| event(name, serial, None, PathState::Active);
        assert_eq!(first, [new("sda", 1), new("sdb", 2), PathEvent::Usable(true)]);
        assert!(tracker.observe(20, &both, None).is_empty());

        let one = [seen("sda", 1, Answer::Nothing), seen("sdb", 2, Answer::Ready)];
        assert_eq!(tracker.observe(30, &one, None), [event("sda", 1, Some(PathState::Active), PathState::Failed)]);
        let none = [seen("sda", 1, Answer::Nothing)];
        let lost = tracker.observe(40, &none, None);
        assert_eq!(lost, [event("sdb", 2, Some(PathState::Active), PathState::Gone), PathEvent::Usable(false)]);
        let set = tracker.set();
        assert!(!set.usable);
        let told: Vec<_> = set.paths.iter().map(|p| (p.state, p.since_ms, p.failures)).collect();
        assert_eq!(told, [(PathState::Failed, 30, 1), (PathState::Gone, 40, 1)]);

        // The name is given again: another path.
        let again = [seen("sda", 1, Answer::Ready), seen("sdb", 7, Answer::NotReady)];
        let back = tracker.observe(50, &again, None);
        let expected = [
            event("sda", 1, Some(PathState::Failed), PathState::Active),
            event("sdb", 7, None, PathState::Standby),
            PathEvent::Usable(true),
        ];
        assert_eq!(back, expected);
        tracker.observe(40 + GONE_FOR_MS, &again, None);
        assert_eq!(tracker.set().paths.len(), 2, "what is gone for long is forgotten");
    }

    #[test]
    fn a_path_counts_once_dm_multipath_uses_it() {
        let mut tracker = Tracker::default();
        let with = |dm: Option<&str>| [Seen { dm: dm.map(str::to_owned), ..seen("sda", 1, Answer::Ready) }];
        let events = tracker.observe(0, &with(Some("failed")), None);
        assert_eq!(events, [event("sda", 1, None, PathState::Active), PathEvent::Usable(false)]);
        assert_eq!(tracker.observe(1, &with(Some("active")), None), [PathEvent::Usable(true)]);
        assert!(tracker.observe(2, &with(None), None).is_empty(), "without the daemon our own eyes have to do");
        let unregistered = BTreeSet::new();
        tracker.observe(3, &with(Some("active")), Some(&unregistered));
        assert!(!tracker.set().usable && tracker.set().is_reachable() && tracker.set().wait_for_registration());
        tracker.observe(4, &with(Some("failed")), Some(&unregistered));
        assert!(!tracker.set().is_reachable());
    }

    #[test]
    fn a_path_counts_once_it_is_registered() {
        let mut tracker = Tracker::default();
        let both = [seen("sda", 1, Answer::Ready), seen("sdb", 2, Answer::NotReady)];
        let mut registered = BTreeSet::new();
        let events = tracker.observe(0, &both, Some(&registered));
        assert_eq!(events.last(), Some(&PathEvent::Usable(false)));
        registered.insert(both[0].info.id.clone());
        registered.insert(both[1].info.id.clone());
        let events = tracker.observe(1, &both, Some(&registered));
        let expected = [
            event("sda", 1, Some(PathState::Unregistered), PathState::Active),
            event("sdb", 2, Some(PathState::Unregistered), PathState::Standby),
            PathEvent::Usable(true),
        ];
        assert_eq!(events, expected);
        assert_eq!(tracker.set().paths[0].failures, 0);
    }
}
