//! The fence for two hosts with a shared LUN (protocol section 5, `scsi-pr`): SCSI-3 persistent reservations.
//!
//! - `spc`: the bytes. Pure.
//! - `registrar`: what is registered and in which order it is changed, over any [`Lun`]. No I/O.
//! - `sg`, `device`: SG_IO, and the real LUN ([`DeviceLun`]).
//!
//! **The host's claim** (rule 8) is taken before anything is registered and is held from then on: by this object while
//! the node only mirrors, by the disk queue while it serves. [`Fence::fence`] hands it out, [`Fence::release`] ends it.
//! What the claim is let go of stays registered on the LUN, see [`Registrar::forget`]; but nobody on this host can write under
//! it without the claim, and who takes the claim registers with a new key.

mod device;
#[cfg(test)]
mod fake;
mod registrar;
mod sg;
mod spc;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use twinsan_wire::Incarnation;

pub(crate) use device::Couriers;
pub use device::DeviceLun;
pub use registrar::{Fenced, Lun, PathError, Registrar, ReservationError};
pub use spc::{Capabilities, Command, Keys, Malformed, Reservation, ReservationKey, ReservationType, Sense, Status};

use super::{Fence, FenceError};
use crate::disk::{ClaimedDisk, OpenError, SharedReader};
use crate::multipath::{Registrations, ScsiDisk};

/// An earlier process's last write, or its threads in the kernel, may take a moment to end.
const CLAIM_PATIENCE: Duration = Duration::from_secs(1);
const CLAIM_POLL: Duration = Duration::from_millis(5);

/// See the module's text.
#[derive(Debug)]
pub struct ScsiPr {
    path: PathBuf,
    reader: SharedReader,
    registrar: Registrar<DeviceLun>,
    registrations: Registrations,
    claim: Option<ClaimedDisk>,
}

impl ScsiPr {
    /// The fence for the volume on `reader`'s disk, which is `disk`; `registrations` shows what it has registered.
    ///
    /// # Errors
    /// The disk can't be opened.
    pub fn new(reader: &SharedReader, disk: ScsiDisk, registrations: Registrations) -> Result<Self, FenceError> {
        let path = reader.path().to_owned();
        let own = SharedReader::open(&path)?;
        if own.key() != reader.key() {
            return Err(OpenError::Replaced { path }.into());
        }
        let registrar = Registrar::new(DeviceLun::new(disk));
        Ok(Self { path, reader: own, registrar, registrations, claim: None })
    }

    /// Takes the claim, unless it is held already.
    fn hold_claim(&mut self) -> Result<(), FenceError> {
        let since = Instant::now();
        while self.claim.is_none() {
            self.claim = ClaimedDisk::try_claim(&self.path)?;
            if self.claim.is_none() {
                let waited = since.elapsed();
                if waited >= CLAIM_PATIENCE {
                    return Err(FenceError::Claimed { path: self.path.clone(), waited });
                }
                std::thread::sleep(CLAIM_POLL);
            }
        }
        if self.claim.as_ref().is_some_and(|claim| claim.key() != self.reader.key()) {
            self.claim = None;
            return Err(OpenError::Replaced { path: self.path.clone() }.into());
        }
        Ok(())
    }

    fn let_in(&mut self) -> Result<(), FenceError> {
        self.hold_claim()?;
        let mut trouble = None;
        let outcome = self.registrar.let_in(&mut || fresh_key(&mut trouble));
        self.show();
        if let Some(source) = trouble {
            self.forget();
            return Err(FenceError::System { what: "random bits for a reservation key", source });
        }
        outcome?;
        let key = self.registrar.key().map_or_else(String::new, |key| key.to_string());
        let paths = self.registrar.registered().len();
        tracing::info!(disk = %self.path.display(), key, paths, "registered with the LUN");
        Ok(())
    }

    fn forget(&mut self) {
        self.registrar.forget();
        self.show();
    }

    /// Others see which paths are registered.
    fn show(&self) {
        let registered = self.registrar.key().map(|_| self.registrar.registered().clone());
        self.registrations.set(registered);
    }

    fn hand_out(&mut self) -> Result<ClaimedDisk, FenceError> {
        self.claim.take().ok_or(FenceError::OwnProcess)
    }
}

/// A key that nobody has had before: 64 random bits, not zero. `trouble`: the kernel has none.
fn fresh_key(trouble: &mut Option<std::io::Error>) -> ReservationKey {
    loop {
        let mut bits = [0; 8];
        if let Err(error) = rustix::rand::getrandom(&mut bits, rustix::rand::GetRandomFlags::empty()) {
            trouble.get_or_insert(error.into());
            bits = [0xff; 8];
        }
        if let Some(key) = ReservationKey::new(u64::from_ne_bytes(bits)) {
            return key;
        }
    }
}

/// Whether a LUN is reserved by whom we are not: `twinsan format` asks before it writes.
///
/// # Errors
/// No path answers.
pub fn reservation_of(disk: ScsiDisk) -> Result<Option<(Reservation, usize)>, ReservationError> {
    let mut registrar = Registrar::new(DeviceLun::new(disk));
    let Some(reservation) = registrar.read_reservation()? else { return Ok(None) };
    Ok(Some((reservation, registrar.read_keys()?.keys.len())))
}

impl Fence for ScsiPr {
    fn admit(&mut self) -> Result<(), FenceError> {
        self.let_in()
    }

    fn fence(&mut self, _: Incarnation) -> Result<ClaimedDisk, FenceError> {
        self.hold_claim()?;
        if !self.registrar.stands()? {
            self.let_in()?;
        }
        let outcome = self.registrar.fence();
        self.show();
        let Fenced { victims } = outcome?;
        tracing::warn!(disk = %self.path.display(), ?victims, "the disk is this node's alone");
        self.hand_out()
    }

    /// Key, reservation and claim stay: as a member that mirrors it is registered like any other.
    fn yield_claim(&mut self, claim: ClaimedDisk) {
        self.claim = Some(claim);
    }

    fn accept(&mut self, _: Incarnation) -> Result<ClaimedDisk, FenceError> {
        let outcome = self.registrar.accept();
        self.show();
        outcome?;
        self.hand_out()
    }

    fn check(&mut self, _: Option<&ClaimedDisk>) -> Result<bool, FenceError> {
        // A conflict with the key in place is a path without it, or one that the LUN takes for such a one.
        let stands = self.registrar.stands()? && self.registrar.refused()?;
        if !stands {
            self.forget();
        }
        self.show();
        Ok(stands)
    }

    fn paths_changed(&mut self) -> Result<bool, FenceError> {
        if self.registrar.key().is_none() {
            return Ok(true);
        }
        // A path that was away is looked at, whatever was known of it.
        self.registrar.doubt(&self.registrations.get().unwrap_or_default());
        let stands = self.registrar.mend(false);
        self.show();
        Ok(stands?)
    }

    fn release(&mut self, claim: Option<ClaimedDisk>) {
        self.forget();
        self.claim = None;
        drop(claim);
    }
}

/// For tools: the registrar of the LUN behind `path`, without a claim. It can fence, so whoever uses it has to know what
/// the nodes do.
///
/// # Errors
/// `path` leads to no SCSI disk.
pub fn registrar_of(path: &Path) -> Result<Registrar<DeviceLun>, crate::multipath::MultipathError> {
    Ok(Registrar::new(DeviceLun::new(crate::multipath::Sysfs::default().find(path)?)))
}
