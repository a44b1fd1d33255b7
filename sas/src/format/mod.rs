//! Makes a volume of a disk, and refuses to make one of somebody else's data.
//!
//! What happens, in this order, each step past the disk's cache before the next:
//!
//! 1. The claim is taken: a disk that a node serves, that is mounted, or that anything else has claimed, is refused.
//! 2. The disk is searched for [`signatures`] of filesystems, partition tables, RAID, LVM, other volumes. What is found
//!    is refused, unless forced: then the blocks that carry it are erased, wherever they are, as their finder
//!    (udev, blkid, mdadm) would go on believing in it.
//! 3. The first MiB is zeroed. A crash from here on leaves no volume, never half of the old and half of the new one.
//! 4. The data is zeroed if asked ([`FormatOptions::zero`]).
//! 5. Both superblock slots are written and read back.
//!
//! **Old data.** A new file, and what a file was extended by, reads as zeros. On a device, or in a file that was there
//! before, the volume's blocks keep what they held (but for the erased signatures) unless zeroing is asked for: on a
//! large LUN that can take hours, and nothing depends on it, as a client sees only a volume that it has written itself
//! or that its owner has chosen to keep. A LUN that is handed from one tenant to another is to be zeroed.
//! [`FormatReport::data`] says which it was.

mod erase;
pub mod signatures;

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use twinsan_wire::Superblock;
use twinsan_wire::message::VolumeName;

use crate::disk::{ClaimedDisk, DeviceKind, DiskError, Geometry, OpenError};
use crate::layout::{BLOCK_SIZES, DATA_OFFSET};
use crate::superblock::slots::{Expected, SlotIndex};
use crate::superblock::{NodeName, Slot, SlotError, SuperblockError, Uuid, VolumeIdentity, codec};

pub use erase::DataState;
pub use signatures::Found;

/// What to make.
#[derive(Clone, Debug)]
pub struct FormatOptions {
    /// A block device or a regular file. A file that does not exist is made, if `bytes` is given.
    pub path: PathBuf,
    /// The volume's name.
    pub name: VolumeName,
    /// The volume's size in bytes, a multiple of `block_bytes`; the disk needs [`DATA_OFFSET`] more. `None`: as much as
    /// the disk has.
    pub bytes: Option<u64>,
    /// The logical block: 512 or 4096. `None`: 4096.
    pub block_bytes: Option<u32>,
    /// Node A and node B.
    pub nodes: [NodeName; 2],
    /// Format even what carries a signature; see the module's text for what becomes of it.
    pub force: bool,
    /// Zero all of the volume's blocks.
    pub zero: bool,
}

/// What was made.
#[derive(Clone, Debug)]
pub struct FormatReport {
    /// The volume.
    pub identity: VolumeIdentity,
    /// The disk, after it was made or extended.
    pub geometry: Geometry,
    /// The file did not exist before.
    pub created: bool,
    /// Signatures that were found and, being forced, erased.
    pub erased: Vec<Found>,
    /// What a reader of the volume finds.
    pub data: DataState,
}

/// Why nothing was made. Unless it says so, the disk is as it was.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// Not 512 or 4096.
    #[error("a logical block of {found} bytes: it is 512 or 4096")]
    BlockSize {
        /// What was asked for.
        found: u32,
    },
    /// Not a whole number of blocks, or none.
    #[error("a volume of {bytes} bytes: it is a positive multiple of its logical block, {block} bytes")]
    Size {
        /// What was asked for.
        bytes: u64,
        /// The logical block.
        block: u32,
    },
    /// The two nodes have one name.
    #[error("both nodes are called \"{name}\": a volume has two")]
    SameNodes {
        /// The name.
        name: NodeName,
    },
    /// There is no file, and how large it is to be was not said.
    #[error("{}: does not exist; a size is needed to make it", path.display())]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// The disk has no room.
    #[error("{}: {found} bytes, and {needed} are needed: the volume and {DATA_OFFSET} bytes before it", path.display())]
    TooSmall {
        /// The disk.
        path: PathBuf,
        /// With the first MiB.
        needed: u64,
        /// The disk's size.
        found: u64,
    },
    /// A node serves it, or it is mounted, or part of something else.
    #[error("{}: in use (mounted, part of a RAID or LVM, or served by a node)", path.display())]
    InUse {
        /// The disk.
        path: PathBuf,
    },
    /// It carries somebody's data.
    #[error("{}: carries {}; formatting destroys it and must be forced", path.display(), signatures::list(found))]
    Occupied {
        /// The disk.
        path: PathBuf,
        /// What was found, and where.
        found: Vec<Found>,
    },
    /// What was written is not what is read. The disk carries no usable volume.
    #[error("{}: the new superblock reads back wrong: {source}", path.display())]
    ReadBack {
        /// The disk.
        path: PathBuf,
        /// What is wrong.
        source: SuperblockError,
    },
    /// The disk can't be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The disk can't be read or written. From the first write on it carries no usable volume.
    #[error("{}: {source}", path.display())]
    Disk {
        /// The disk.
        path: PathBuf,
        /// What failed.
        source: DiskError,
    },
    /// A system call failed.
    #[error("{}: {what}: {source}", path.display())]
    Io {
        /// The disk.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Makes a volume; see the module's text.
///
/// # Errors
/// What is in the way. A file that was made for it is removed again.
pub fn format(options: &FormatOptions) -> Result<FormatReport, FormatError> {
    let block_bytes = check(options)?;
    let created = create(options)?;
    let result = format_existing(options, block_bytes, created);
    if result.is_err() && created {
        // Made by this very call with O_EXCL, so nobody's data.
        drop(std::fs::remove_file(&options.path));
    }
    result
}

/// What can be refused without looking at the disk.
fn check(options: &FormatOptions) -> Result<u32, FormatError> {
    let block = options.block_bytes.unwrap_or(4096);
    if !BLOCK_SIZES.contains(&block) {
        return Err(FormatError::BlockSize { found: block });
    }
    if let Some(bytes) = options.bytes {
        let fits = bytes.checked_add(DATA_OFFSET).is_some_and(|end| i64::try_from(end).is_ok());
        if bytes == 0 || !bytes.is_multiple_of(u64::from(block)) || !fits {
            return Err(FormatError::Size { bytes, block });
        }
    }
    if options.nodes[0] == options.nodes[1] {
        return Err(FormatError::SameNodes { name: options.nodes[0] });
    }
    Ok(block)
}

/// Makes the file, empty, if there is none; `true`: it was made.
fn create(options: &FormatOptions) -> Result<bool, FormatError> {
    let path = &options.path;
    let failed = |what| move |e: Errno| FormatError::Io { path: path.clone(), what, source: e.into() };
    match rustix::fs::stat(path) {
        Ok(_) => return Ok(false),
        Err(Errno::NOENT) if options.bytes.is_some() => {}
        Err(Errno::NOENT) => return Err(FormatError::Missing { path: path.clone() }),
        Err(e) => return Err(failed("stat")(e)),
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::open(path, flags, mode).map_err(failed("create"))?;
    Ok(true)
}

fn format_existing(options: &FormatOptions, block_bytes: u32, created: bool) -> Result<FormatReport, FormatError> {
    let path = options.path.clone();
    let disk = |source| FormatError::Disk { path: path.clone(), source };
    let claim = claim(&path)?;
    claim.geometry().check_block(&path, block_bytes)?;
    let found = signatures::search(&claim).map_err(disk)?;
    if !found.is_empty() && !options.force {
        return Err(FormatError::Occupied { path, found });
    }
    let before = claim.geometry().bytes;
    let (claim, identity) = shape(claim, options, block_bytes)?;
    erase::first_mebibyte(&claim).map_err(disk)?;
    erase::signatures(&claim, &found).map_err(disk)?;
    let data = erase::data(&claim, &identity, options.zero, before).map_err(disk)?;
    write_slots(&claim, &identity).map_err(disk)?;
    let expected = Expected { name: Some(identity.name), uuid: Some(identity.uuid) };
    match claim.read_slots(&expected) {
        Ok(pair) if pair.settled => {}
        Ok(pair) => {
            let wrong = pair.other_error.unwrap_or(SlotError::Checksum);
            let source = SuperblockError::Corrupt { first: wrong, second: wrong };
            return Err(FormatError::ReadBack { path, source });
        }
        Err(DiskError::Superblock(source)) => return Err(FormatError::ReadBack { path, source }),
        Err(source) => return Err(disk(source)),
    }
    Ok(FormatReport { identity, geometry: *claim.geometry(), created, erased: found, data })
}

fn claim(path: &Path) -> Result<ClaimedDisk, FormatError> {
    ClaimedDisk::try_claim(path)?.ok_or_else(|| FormatError::InUse { path: path.to_owned() })
}

/// Decides the volume's size, and extends a file to it.
fn shape(
    claim: ClaimedDisk,
    options: &FormatOptions,
    block_bytes: u32,
) -> Result<(ClaimedDisk, VolumeIdentity), FormatError> {
    let path = &options.path;
    let block = u64::from(block_bytes);
    let has = claim.geometry().bytes;
    let bytes = options.bytes.unwrap_or_else(|| has.saturating_sub(DATA_OFFSET) / block * block);
    let needed = DATA_OFFSET + bytes.max(block);
    let claim = if needed <= has {
        claim
    } else if options.bytes.is_some() && claim.geometry().kind == DeviceKind::File {
        claim.extend(needed).map_err(|source| FormatError::Io { path: path.clone(), what: "extend", source })?
    } else {
        return Err(FormatError::TooSmall { path: path.clone(), needed, found: has });
    };
    let mut random = [0; 16];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).map_err(|e| FormatError::Io {
        path: path.clone(),
        what: "random numbers",
        source: e.into(),
    })?;
    let identity = VolumeIdentity {
        uuid: Uuid::from_random(random),
        name: options.name,
        blocks: bytes / block,
        block_bytes,
        data_offset: DATA_OFFSET,
        nodes: options.nodes,
    };
    Ok((claim, identity))
}

/// A fresh superblock: no member, no session, clean. Whoever comes first takes over by rule 6.
fn write_slots(claim: &ClaimedDisk, identity: &VolumeIdentity) -> Result<(), DiskError> {
    let superblock = Superblock { counter: 1, clean: true, ..Superblock::default() };
    let page = codec::encode(&Slot { identity: *identity, superblock, changed_at: crate::now_unix() });
    claim.write_page(SlotIndex::Second.offset(), &page)?;
    claim.write_page(SlotIndex::First.offset(), &page)
}

#[cfg(test)]
mod tests;
