//! Registering anew where the LUN refuses writes although the own key stands on every path (protocol section 5).
//!
//! LIO keeps a note "this one is registered" for each host and LUN of a target port, beside the registrations, which belong
//! to initiator ports. A host that comes back from another initiator port (iSCSI: another ISID) has both its earlier
//! life's registration there and the new one; the removal of the former clears the note (`__core_scsi3_free_registration`),
//! and from then on every write is refused, though READ KEYS shows the key. Only a new registration sets it again.
//!
//! Two things must not happen meanwhile. **The reservation must not go**: of this type it goes with its holder, not with
//! the last registration. **The own key must stay on the LUN throughout, on one path at least**: a fence that looks while
//! it is not there finds nobody to remove, and what is registered after that undoes it.

use super::error::ReservationError;
use super::mend::Mended;
use super::{Answer, Lun, Registrar};
use crate::fence::scsi_pr::spc::{Command, Reservation, ReservationKey, ReservationType};
use crate::multipath::PathId;

impl<L: Lun> Registrar<L> {
    /// A write was refused. `false`: as the own key is gone. Else a path that is without it gets it; and where none is,
    /// for the second time, every path is registered anew.
    pub fn refused(&mut self) -> Result<bool, ReservationError> {
        let Some(key) = self.key else { return Ok(false) };
        match self.mend_paths(true)? {
            Mended::Fenced => return Ok(false),
            Mended::Changed => {
                self.puzzled = false;
                return Ok(true);
            }
            Mended::Unchanged => {}
        }
        // The path may have been mended between the write and this look.
        if !std::mem::replace(&mut self.puzzled, true) {
            return Ok(true);
        }
        self.puzzled = false;
        match self.read_reservation()? {
            Some(Reservation { key: Some(holder), kind: ReservationType::REGISTRANTS_ONLY }) if holder == key => {
                self.gather(key)
            }
            Some(Reservation { kind: ReservationType::REGISTRANTS_ONLY, .. }) => self.renew_each(key),
            // Another program's reservation: who may write under it is not ours to say.
            Some(_) | None => Ok(true),
        }
    }

    /// The reservation hangs on the own key, on which path nobody says: it goes to one, which keeps its key, and the
    /// others lose theirs, in one step. Then they are paths that came back.
    fn gather(&mut self, key: ReservationKey) -> Result<bool, ReservationError> {
        let Some(path) = self.registered.first().cloned() else { return Ok(true) };
        tracing::warn!(path = path.name, "the LUN refuses writes on registered paths: registering the others anew");
        let answer = self.run(&path, Command::PreemptOwn { key });
        self.registered.clear();
        if let Ok(Answer::Good(_)) = answer {
            self.registered.insert(path);
        }
        // If its end is unknown, or it was refused, each path tells.
        self.mend(false)
    }

    /// The reservation is another's (who serves by a handover does not hold it), so no path of ours keeps it.
    fn renew_each(&mut self, key: ReservationKey) -> Result<bool, ReservationError> {
        let paths: Vec<PathId> = self.registered.iter().cloned().collect();
        for path in paths {
            if self.registered.len() < 2 {
                tracing::warn!(path = path.name, "the LUN refuses writes on the one path that is registered");
                break;
            }
            tracing::warn!(path = path.name, "the LUN refuses writes on registered paths: registering this one anew");
            self.registered.remove(&path);
            // Whatever it answers, the path is added as one that came back, which begins with a look at it.
            let _ = self.run(&path, Command::Register { old: Some(key), new: None });
            if !self.mend_one(&path, key)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
