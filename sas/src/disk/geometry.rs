//! What kind of disk it is: its blocks, its size, its cache.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, StatxFlags};

use super::OpenError;
use crate::page::Page;

/// A block device or a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// A block device.
    Block,
    /// A regular file.
    File,
}

/// What is known of the disk's volatile cache.
///
/// It decides how a write gets past the cache, never whether: even on a disk that says that it has none, every write is
/// followed by what would flush it, which the kernel then makes free of charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteCache {
    /// None: a finished write is durable (queue/write_cache: "write through").
    Through,
    /// A volatile one.
    Back,
    /// A file: whatever lies below, the filesystem deals with it.
    Unknown,
}

/// A disk's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// What it is.
    pub kind: DeviceKind,
    /// Its size in bytes.
    pub bytes: u64,
    /// The smallest write, in bytes: offsets and lengths are multiples of it.
    pub logical: u32,
    /// What the disk writes without reading first, in bytes.
    pub physical: u32,
    /// What addresses in memory are multiples of.
    pub mem_align: u32,
    /// Its cache.
    pub cache: WriteCache,
    /// The disk can write past its cache in one step.
    pub fua: bool,
}

/// Tells one disk from another, whatever path leads to it: of a block device its number, of a file its filesystem and
/// inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DiskKey(u64, u64);

/// Looks at an open description.
pub(crate) fn probe(fd: BorrowedFd<'_>, path: &Path) -> Result<(Geometry, DiskKey), OpenError> {
    let failed = |what| move |e: rustix::io::Errno| OpenError::Io { path: path.to_owned(), what, source: e.into() };
    let stat = rustix::fs::fstat(fd).map_err(failed("stat"))?;
    let bytes = rustix::fs::seek(fd, rustix::fs::SeekFrom::End(0)).map_err(failed("size"))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::BlockDevice => {
            let logical = rustix::fs::ioctl_blksszget(fd).map_err(failed("BLKSSZGET"))?;
            let physical = rustix::fs::ioctl_blkpbszget(fd).map_err(failed("BLKPBSZGET"))?;
            let queue = QueueDir::of(stat.st_rdev);
            let geometry = Geometry {
                kind: DeviceKind::Block,
                bytes,
                logical,
                physical,
                // What the queue may ask for is at most the logical block, and our memory is aligned to that anyway.
                mem_align: logical,
                cache: queue.cache(),
                fua: queue.flag("fua"),
            };
            Ok((geometry, DiskKey(u64::MAX, stat.st_rdev)))
        }
        FileType::RegularFile => {
            let (logical, mem_align) = file_alignment(fd, path)?;
            let physical = QueueDir::of(stat.st_dev).number("physical_block_size").unwrap_or(logical).max(logical);
            let kind = DeviceKind::File;
            let geometry =
                Geometry { kind, bytes, logical, physical, mem_align, cache: WriteCache::Unknown, fua: false };
            Ok((geometry, DiskKey(stat.st_dev, stat.st_ino)))
        }
        other => Err(OpenError::WrongKind { path: path.to_owned(), found: kind_name(other) }),
    }
}

const fn kind_name(kind: FileType) -> &'static str {
    match kind {
        FileType::Directory => "directory",
        FileType::CharacterDevice => "character device",
        FileType::Fifo => "pipe",
        FileType::Socket => "socket",
        _ => "file of another kind",
    }
}

/// Offset and memory alignment of O_DIRECT on a file: what the filesystem says (statx(2), Linux 6.1), else what a read
/// shows.
fn file_alignment(fd: BorrowedFd<'_>, path: &Path) -> Result<(u32, u32), OpenError> {
    let statx = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN);
    if let Ok(statx) = statx
        && StatxFlags::from_bits_retain(statx.stx_mask).contains(StatxFlags::DIOALIGN)
    {
        let (offset, memory) = (statx.stx_dio_offset_align, statx.stx_dio_mem_align);
        if offset == 0 || memory == 0 {
            return Err(OpenError::NoDirectIo { path: path.to_owned() });
        }
        return Ok((offset, memory));
    }
    let mut page = Page::ZERO;
    match rustix::io::pread(fd, &mut page.0[..512], 0) {
        Ok(_) => Ok((512, 512)),
        Err(rustix::io::Errno::INVAL) => Ok((4096, 4096)),
        Err(e) => Err(OpenError::Io { path: path.to_owned(), what: "probing direct I/O", source: e.into() }),
    }
}

/// A device's queue attributes, see Documentation/ABI/stable/sysfs-block.
struct QueueDir(Option<PathBuf>);

impl QueueDir {
    /// Of the device with this number, or of the whole disk if it is a partition.
    fn of(device: u64) -> Self {
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let dir = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
        Self([dir.join("queue"), dir.join("../queue")].into_iter().find(|dir| dir.is_dir()))
    }

    fn text(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.0.as_ref()?.join(name)).ok()
    }

    fn number(&self, name: &str) -> Option<u32> {
        self.text(name)?.trim().parse().ok()
    }

    fn flag(&self, name: &str) -> bool {
        self.number(name) == Some(1)
    }

    /// Unreadable counts as volatile: the safe side.
    fn cache(&self) -> WriteCache {
        match self.text("write_cache") {
            Some(text) if text.trim() == "write through" => WriteCache::Through,
            _ => WriteCache::Back,
        }
    }
}

impl Geometry {
    /// Refuses a volume block that the disk can't write by itself.
    ///
    /// # Errors
    /// Naming both sizes.
    pub fn check_block(&self, path: &Path, wanted: u32) -> Result<(), OpenError> {
        if wanted < self.logical || !wanted.is_multiple_of(self.logical) {
            return Err(OpenError::BlockTooSmall { path: path.to_owned(), device: self.logical, wanted });
        }
        Ok(())
    }
}

/// Opens with O_DIRECT; says so if the filesystem has none.
pub(crate) fn open_direct(path: &Path, flags: rustix::fs::OFlags) -> Result<std::os::fd::OwnedFd, rustix::io::Errno> {
    let flags = flags | rustix::fs::OFlags::DIRECT | rustix::fs::OFlags::CLOEXEC;
    rustix::fs::open(path, flags, rustix::fs::Mode::empty())
}

/// Words for an error of [`open_direct`].
pub(crate) fn open_error(path: &Path, error: rustix::io::Errno) -> OpenError {
    if error == rustix::io::Errno::INVAL {
        return OpenError::NoDirectIo { path: path.to_owned() };
    }
    OpenError::Io { path: path.to_owned(), what: "open", source: io::Error::from(error) }
}

/// [`probe`] for anything that has a descriptor.
pub(crate) fn probe_fd(fd: &impl AsFd, path: &Path) -> Result<(Geometry, DiskKey), OpenError> {
    probe(fd.as_fd(), path)
}
