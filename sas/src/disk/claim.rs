//! The two kinds of open disk.
//!
//! [`SharedReader`]: read-only, without a claim; both nodes of a host have one, always. [`ClaimedDisk`]: the one
//! description that may write (rules 3 and 8). Its claim lies on the very description that does the I/O, O_EXCL on a
//! block device, an open-file-description lock on a file, so the kernel lets it go only after the last write through
//! it has ended: whoever gets the claim next knows that nothing of the one before can land any more.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, FileType, OFlags};
use rustix::io::{Errno, ReadWriteFlags};

use super::geometry::{DeviceKind, DiskKey, Geometry, open_direct, open_error, probe_fd};
use super::{DiskError, Op, OpenError, sys};
use crate::layout::{self, PAGE, PAGE_BYTES};
use crate::page::Page;
use crate::superblock::slots::Expected;
use crate::superblock::{Heartbeat, SlotPair, SuperblockError, Uuid, VolumeIdentity};
use twinsan_wire::NodeId;

/// What both kinds have.
#[derive(Debug)]
struct Description {
    fd: OwnedFd,
    path: PathBuf,
    geometry: Geometry,
    key: DiskKey,
}

impl Description {
    fn new(fd: OwnedFd, path: &Path) -> Result<Self, OpenError> {
        let (geometry, key) = probe_fd(&fd, path)?;
        Ok(Self { fd, path: path.to_owned(), geometry, key })
    }

    fn read_page(&self, offset: u64) -> Result<Page, DiskError> {
        match self.read_page_padded(offset)? {
            (page, PAGE_BYTES) => Ok(page),
            (_, done) => {
                let missing = (PAGE_BYTES - done) as u64;
                Err(DiskError::Short { op: Op::Read, offset, len: PAGE, missing })
            }
        }
    }

    /// A page of which the disk may have only the beginning, and how many bytes that are.
    fn read_page_padded(&self, offset: u64) -> Result<(Page, usize), DiskError> {
        let mut page = Page::ZERO;
        let mut done = 0;
        while done < PAGE_BYTES {
            match rustix::io::pread(&self.fd, &mut page.0[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => {
                    done += n;
                    if !n.is_multiple_of(self.geometry.logical as usize) {
                        // A file that ends inside a block: O_DIRECT can't go on from here, and there is nothing.
                        break;
                    }
                }
                Err(Errno::INTR) => {}
                Err(e) => return Err(DiskError::from_errno(e.raw_os_error(), Op::Read, offset, PAGE)),
            }
        }
        Ok((page, done))
    }

    fn read_slots(&self, expected: &Expected) -> Result<SlotPair, DiskError> {
        let pages = [self.read_page(layout::SLOT_OFFSETS[0])?, self.read_page(layout::SLOT_OFFSETS[1])?];
        let pair = SlotPair::judge(&pages, expected)?;
        fits(&self.geometry, &pair.best.identity)?;
        Ok(pair)
    }
}

/// Whether a disk of this shape can be the volume's.
pub(crate) fn fits(geometry: &Geometry, identity: &VolumeIdentity) -> Result<(), SuperblockError> {
    if identity.end() > geometry.bytes {
        return Err(SuperblockError::TooSmall { needed: identity.end(), found: geometry.bytes });
    }
    if identity.block_bytes < geometry.logical {
        return Err(SuperblockError::BlockTooSmall { volume: identity.block_bytes, device: geometry.logical });
    }
    Ok(())
}

/// The disk, read-only and without a claim.
#[derive(Debug)]
pub struct SharedReader(Description);

impl SharedReader {
    /// Opens the disk.
    ///
    /// # Errors
    /// It is not there, not a disk, or has no direct I/O.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let fd = open_direct(path, OFlags::RDONLY).map_err(|e| open_error(path, e))?;
        Ok(Self(Description::new(fd, path)?))
    }

    /// Its shape.
    #[must_use]
    pub const fn geometry(&self) -> &Geometry {
        &self.0.geometry
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Reads both superblock slots and judges them.
    ///
    /// # Errors
    /// The disk's, or what is wrong with the slots; also if the volume doesn't fit on the disk.
    pub fn read_slots(&self, expected: &Expected) -> Result<SlotPair, DiskError> {
        self.0.read_slots(expected)
    }

    /// Reads `node`'s heartbeat block; `Ok(None)`: never written.
    ///
    /// # Errors
    /// The disk's, or the block is torn: the next beat mends that.
    pub fn read_heartbeat(&self, node: NodeId, volume: Uuid) -> Result<Option<Heartbeat>, DiskError> {
        let page = self.0.read_page(layout::heartbeat_offset(node))?;
        Ok(Heartbeat::decode(&page, node, volume)?)
    }

    /// Reads 4 KiB at `offset` bytes, a multiple of 4096.
    ///
    /// # Errors
    /// The disk's, also if it ends earlier.
    pub fn read_page(&self, offset: u64) -> Result<Page, DiskError> {
        self.0.read_page(offset)
    }

    pub(crate) fn key(&self) -> DiskKey {
        self.0.key
    }
}

impl AsFd for SharedReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}

/// The disk, writable, with the host's exclusive claim on it. Dropping it lets the claim go, as soon as no I/O through
/// it is in flight.
///
/// The descriptor is close-on-exec and is never duplicated: a second one would keep the claim alive.
#[derive(Debug)]
pub struct ClaimedDisk(Description);

impl ClaimedDisk {
    /// Takes the claim; `Ok(None)`: another description has it.
    ///
    /// Only fences and format call this: whoever else wants to write asks a [`crate::fence::Fence`].
    ///
    /// # Errors
    /// The disk can't be opened at all.
    pub(crate) fn try_claim(path: &Path) -> Result<Option<Self>, OpenError> {
        let io = |what| move |source| OpenError::Io { path: path.to_owned(), what, source };
        let mode = rustix::fs::stat(path).map_err(|e| io("stat")(e.into()))?.st_mode;
        let excl = if FileType::from_raw_mode(mode) == FileType::BlockDevice { OFlags::EXCL } else { OFlags::empty() };
        let fd = match open_direct(path, OFlags::RDWR | excl) {
            Ok(fd) => fd,
            Err(Errno::BUSY) if !excl.is_empty() => return Ok(None),
            Err(e) => return Err(open_error(path, e)),
        };
        let description = Description::new(fd, path)?;
        if description.geometry.kind == DeviceKind::File {
            // O_EXCL without O_CREAT means nothing on a file.
            if !sys::try_lock_description(description.fd.as_fd()).map_err(io("lock"))? {
                return Ok(None);
            }
        }
        Ok(Some(Self(description)))
    }

    /// Its shape.
    #[must_use]
    pub const fn geometry(&self) -> &Geometry {
        &self.0.geometry
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Reads both superblock slots and judges them.
    ///
    /// # Errors
    /// As [`SharedReader::read_slots`].
    pub fn read_slots(&self, expected: &Expected) -> Result<SlotPair, DiskError> {
        self.0.read_slots(expected)
    }

    /// Reads 4 KiB at `offset` bytes, a multiple of 4096.
    ///
    /// # Errors
    /// The disk's, also if it ends earlier.
    pub fn read_page(&self, offset: u64) -> Result<Page, DiskError> {
        self.0.read_page(offset)
    }

    /// As [`ClaimedDisk::read_page`]; what is past the disk's end reads as zeros.
    pub(crate) fn read_page_padded(&self, offset: u64) -> Result<Page, DiskError> {
        Ok(self.0.read_page_padded(offset)?.0)
    }

    /// Writes 4 KiB at `offset` bytes, a multiple of 4096, past the disk's cache.
    ///
    /// # Errors
    /// The disk's.
    pub fn write_page(&self, offset: u64, page: &Page) -> Result<(), DiskError> {
        let mut done = 0;
        while done < PAGE_BYTES {
            let rest = [io::IoSlice::new(&page.0[done..])];
            match rustix::io::pwritev2(&self.0.fd, &rest, offset + done as u64, ReadWriteFlags::DSYNC) {
                Ok(0) => {
                    let missing = (PAGE_BYTES - done) as u64;
                    return Err(DiskError::Short { op: Op::Write, offset, len: PAGE, missing });
                }
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                Err(e) => return Err(DiskError::from_errno(e.raw_os_error(), Op::Write, offset, PAGE)),
            }
        }
        Ok(())
    }

    /// Makes a file larger; what is new reads as zeros.
    pub(crate) fn extend(mut self, bytes: u64) -> io::Result<Self> {
        assert!(self.0.geometry.kind == DeviceKind::File && bytes >= self.0.geometry.bytes);
        rustix::fs::ftruncate(&self.0.fd, bytes)?;
        rustix::fs::fsync(&self.0.fd)?;
        self.0.geometry.bytes = bytes;
        Ok(self)
    }

    /// Makes bytes `offset..offset + len`, whole blocks, read as zeros: by the disk itself where it can
    /// (`FALLOC_FL_ZERO_RANGE` keeps the space), else by writing zeros. Past its cache only after [`ClaimedDisk::sync`].
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn zero(&self, offset: u64, len: u64) -> Result<(), DiskError> {
        let mode = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.0.fd, mode, offset, len) {
            Ok(()) => return Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
            Err(e) => return Err(DiskError::from_errno(e.raw_os_error(), Op::Zero, offset, len)),
        }
        self.write_zeros(offset, len)
    }

    /// As [`ClaimedDisk::zero`], by writing zeros: the blocks are then allocated, and later writes over them change no
    /// metadata of a filesystem below.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn write_zeros(&self, offset: u64, len: u64) -> Result<(), DiskError> {
        let zeros = Page::ZERO;
        let pages = [io::IoSlice::new(&zeros.0); 256];
        let mut done = 0;
        while done < len {
            // Whole pages, and at last what is less than one (a disk of 512-byte blocks).
            let rest = usize::try_from(len - done).unwrap_or(usize::MAX);
            let tail = [io::IoSlice::new(&zeros.0[..rest.min(PAGE_BYTES)])];
            let next = if rest < PAGE_BYTES { &tail[..] } else { &pages[..(rest / PAGE_BYTES).min(pages.len())] };
            match rustix::io::pwritev(&self.0.fd, next, offset + done) {
                Ok(n) if n == rest => return Ok(()),
                // A short write is continued at a whole page.
                Ok(n) if n >= PAGE_BYTES => done += n as u64 / PAGE * PAGE,
                Ok(_) => return Err(DiskError::Short { op: Op::Zero, offset, len, missing: len - done }),
                Err(Errno::INTR) => {}
                Err(e) => return Err(DiskError::from_errno(e.raw_os_error(), Op::Zero, offset + done, len - done)),
            }
        }
        Ok(())
    }

    /// Brings all that was written past the disk's cache.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn sync(&self) -> Result<(), DiskError> {
        rustix::fs::fsync(&self.0.fd).map_err(|e| DiskError::from_errno(e.raw_os_error(), Op::Sync, 0, 0))
    }

    pub(crate) fn key(&self) -> DiskKey {
        self.0.key
    }
}

impl AsFd for ClaimedDisk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}
