//! Registering paths while the node is in: one that came back, at a moment when others may be fencing it.

use super::error::{ReservationError, Trouble};
use super::{Answer, Lun, MAX_ROUNDS, Registrar};
use crate::fence::scsi_pr::spc::{Command, Keys, Reservation, ReservationKey};
use crate::multipath::PathId;

/// What came of adding a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Added {
    /// The key was there.
    Stood,
    /// It is now.
    Usable,
    /// The path went away before anything was changed, or others change the registrations all the time.
    NotNow,
    /// The own key is gone, or nobody can tell.
    Fenced,
}

/// What came of looking at all paths.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mended {
    /// Every path that answers had the key already.
    Unchanged,
    /// One had not.
    Changed,
    /// The own key is gone, or nobody can tell.
    Fenced,
}

impl<L: Lun> Registrar<L> {
    /// Registers the paths that answer and are not known to be registered; with `all`, looks at every one that answers.
    /// `false`: another node has fenced this one.
    pub fn mend(&mut self, all: bool) -> Result<bool, ReservationError> {
        Ok(self.mend_paths(all)? != Mended::Fenced)
    }

    pub(super) fn mend_paths(&mut self, all: bool) -> Result<Mended, ReservationError> {
        let key = self.key.ok_or(ReservationError::NotIn)?;
        let live = self.lun.live();
        if live.is_empty() {
            return Err(ReservationError::NoPath(None));
        }
        // What is down is looked at again when it is back.
        self.registered.retain(|path| live.contains(path));
        let mut outcome = Mended::Unchanged;
        for path in live {
            let known = self.registered.remove(&path);
            match if known && !all { Added::Stood } else { self.add_path(&path, key)? } {
                Added::Stood => drop(self.registered.insert(path)),
                Added::Usable => {
                    self.registered.insert(path);
                    outcome = Mended::Changed;
                }
                // It may never take a key, and need not be the one that refused.
                Added::NotNow => {}
                Added::Fenced => {
                    self.forget();
                    return Ok(Mended::Fenced);
                }
            }
        }
        Ok(outcome)
    }

    /// The same for one path, which is not registered. `false`: another node has fenced this one.
    pub(super) fn mend_one(&mut self, path: &PathId, key: ReservationKey) -> Result<bool, ReservationError> {
        match self.add_path(path, key)? {
            Added::Stood | Added::Usable => drop(self.registered.insert(path.clone())),
            Added::NotNow => {}
            Added::Fenced => {
                self.forget();
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Section 5: READ KEYS, REGISTER, READ KEYS, and nobody else in between.
    fn add_path(&mut self, path: &PathId, key: ReservationKey) -> Result<Added, ReservationError> {
        for _ in 0..MAX_ROUNDS {
            // Succeeds only where the key stands on this very path; a fence would have removed it there too.
            match self.run(path, Command::Register { old: Some(key), new: Some(key) }) {
                Ok(Answer::Good(_)) => return Ok(Added::Stood),
                Ok(Answer::Conflict) => {}
                Err(trouble) => return trouble.before_change(),
            }
            let before = match self.run_parsed(path, Command::ReadKeys, Keys::parse) {
                Ok(keys) => keys,
                Err(trouble) => return trouble.before_change(),
            };
            if !before.contains(key) {
                return Ok(Added::Fenced);
            }
            // An earlier life's key may stand here; what protects is the generation, not the old key.
            let answer = self.run(path, Command::RegisterAnyway { new: key });
            let expected = before.generation.wrapping_add(1);
            let Ok(Answer::Good(_)) = answer else { return self.resolve(before.generation, key) };
            let Ok(after) = self.run_parsed(path, Command::ReadKeys, Keys::parse) else {
                return self.resolve(before.generation, key);
            };
            if after.generation == expected {
                return Ok(Added::Usable);
            }
            tracing::warn!(
                path = path.name,
                "the LUN's registrations changed while a path was added: taking it back and looking again"
            );
            if !self.take_back(path, key) {
                return self.resolve(before.generation, key);
            }
        }
        Ok(Added::NotNow)
    }

    /// Unregisters a path whose registration can't be trusted. If the reservation hangs on the own key, it may hang on
    /// this path: then the key stays, which is sound, as a fence ends with the fencer's key on the reservation, so none
    /// has ended yet, and one under way looks at the keys again. `false`: the path went away meanwhile.
    fn take_back(&mut self, path: &PathId, key: ReservationKey) -> bool {
        let held = match self.run_parsed(path, Command::ReadReservation, Reservation::parse) {
            Ok(reservation) => reservation.is_some_and(|reservation| reservation.key == Some(key)),
            Err(_) => return false,
        };
        // A conflict: it is gone from here already.
        held || self.run(path, Command::Register { old: Some(key), new: None }).is_ok()
    }

    /// The path went away in the middle. Another one that is registered tells: where the own key stands there still, no
    /// fence has come, whatever else has been registered. If none tells, the number of changes may; if none can, nobody
    /// knows whether this node was fenced, and it has to act as if it were.
    fn resolve(&mut self, generation: u32, key: ReservationKey) -> Result<Added, ReservationError> {
        let others: Vec<PathId> = self.registered.iter().cloned().collect();
        for other in others {
            let answer = self.run(&other, Command::Register { old: Some(key), new: Some(key) });
            if let Ok(Answer::Good(_)) = answer {
                return Ok(Added::NotNow);
            }
        }
        let Ok(now) = self.read_keys() else { return Ok(Added::Fenced) };
        let undisturbed = now.generation == generation || now.generation == generation.wrapping_add(1);
        Ok(if undisturbed && now.contains(key) { Added::NotNow } else { Added::Fenced })
    }
}

impl Trouble {
    /// Nothing has been changed yet: a path that is away is none of our business.
    fn before_change(self) -> Result<Added, ReservationError> {
        match self {
            Self::Silent(_) | Self::NotReady(_) | Self::Refused(_) => Ok(Added::NotNow),
            Self::Lun(error) => Err(error),
        }
    }
}
