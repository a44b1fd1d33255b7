//! What lies behind a volume's disk, where it is a SCSI disk, and the watch over its paths.

use twinsan_control::{FenceKind, Volume};
use twinsan_sas::multipath::{
    MultipathError, PathSet, Registrations, ScsiDisk, Sysfs, Watch, WatchOptions, multipathd,
};

use crate::flusher::Flusher;
use crate::paths::PathTeller;

/// Finds the disk's paths, and refuses what the configuration does not want. `None`: a disk without paths of its own.
///
/// # Errors
/// It is not what the configuration says, or could stall the node for ever.
pub(crate) fn find(volume: &Volume) -> Result<Option<ScsiDisk>, MultipathError> {
    let wanted = volume.multipath || volume.fence == FenceKind::ScsiPr;
    let disk = match Sysfs::default().find(&volume.disk) {
        Ok(disk) => disk,
        Err(error) if wanted => return Err(error),
        Err(_) => return Ok(None),
    };
    if volume.multipath {
        disk.require_map(&volume.disk)?;
    }
    if let Some(map) = disk.map() {
        ask_multipathd(volume, map)?;
    }
    // One path and a fence of one host: its I/O tells all there is to tell.
    Ok(Some(disk).filter(|disk| wanted || disk.map().is_some()))
}

fn ask_multipathd(volume: &Volume, map: &str) -> Result<(), MultipathError> {
    let name = volume.name.as_str();
    match multipathd::queues_for_ever(map) {
        Ok(Some(true)) => {
            return Err(MultipathError::Queues { path: volume.disk.clone(), map: map.to_owned() });
        }
        Ok(Some(false)) => {}
        Ok(None) => tracing::warn!(volume = name, map, "multipathd does not know the map: nobody mends its paths"),
        Err(error) => tracing::warn!(volume = name, map, %error, "multipathd does not answer: nobody mends the paths"),
    }
    if volume.fence == FenceKind::ScsiPr
        && let Ok(Some(key)) = multipathd::managed_key(map)
    {
        tracing::warn!(
            volume = name,
            map,
            key,
            "multipathd has a reservation_key for this map: take it out of multipath.conf. twinsand alone registers, and \
             a key that comes back by itself undoes a fence"
        );
    }
    Ok(())
}

/// Starts the watch: `teller` hears whether there is a usable path, the flusher when one is to be let in.
///
/// # Errors
/// No thread is to be had.
pub(crate) fn watch(
    volume: &Volume,
    disk: ScsiDisk,
    registrations: Registrations,
    flusher: &Flusher,
    teller: PathTeller,
) -> std::io::Result<Watch> {
    let errands = flusher.errands();
    let tell = move |set: &PathSet| {
        if set.wait_for_registration() {
            errands.paths_changed();
        }
        teller.tell(set.is_reachable());
    };
    Watch::start(volume.name.as_str(), disk, registrations, WatchOptions::default(), tell)
}
