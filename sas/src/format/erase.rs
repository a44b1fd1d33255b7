//! What format takes off a disk.

use super::signatures::Found;
use crate::disk::{ClaimedDisk, DeviceKind, DiskError};
use crate::layout::{DATA_OFFSET, PAGE};
use crate::superblock::VolumeIdentity;

/// What a reader of the fresh volume finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataState {
    /// Zeros: a new file.
    Fresh,
    /// Zeros: it was asked for.
    Zeroed,
    /// What the disk held before, up to this byte of the volume; zeros after it.
    Kept {
        /// Bytes.
        bytes: u64,
    },
}

/// Zeroes all before the data, by writing: the superblock's and the heartbeats' blocks are then allocated for good.
pub(super) fn first_mebibyte(claim: &ClaimedDisk) -> Result<(), DiskError> {
    let bytes = DATA_OFFSET.min(claim.geometry().bytes);
    claim.write_zeros(0, bytes)?;
    claim.sync()
}

/// Zeroes the pages that carry signatures, behind the first MiB.
pub(super) fn signatures(claim: &ClaimedDisk, found: &[Found]) -> Result<(), DiskError> {
    for signature in found {
        let end = signature.offset + signature.len;
        let mut page = signature.offset / PAGE * PAGE;
        while page < end {
            // A disk of 512-byte blocks need not end at a whole page.
            claim.zero(page, PAGE.min(claim.geometry().bytes - page))?;
            page += PAGE;
        }
    }
    claim.sync()
}

/// Zeroes the data if asked, and says what stands there. `before` is what the disk had before it was extended.
pub(super) fn data(
    claim: &ClaimedDisk,
    identity: &VolumeIdentity,
    zero: bool,
    before: u64,
) -> Result<DataState, DiskError> {
    let old = before.min(identity.end()).saturating_sub(identity.data_offset);
    if old == 0 && claim.geometry().kind == DeviceKind::File {
        return Ok(DataState::Fresh);
    }
    if !zero {
        return Ok(DataState::Kept { bytes: old });
    }
    claim.zero(identity.data_offset, identity.bytes())?;
    claim.sync()?;
    Ok(DataState::Zeroed)
}
