//! Whose data is it? The magic numbers that libblkid knows (util-linux, `libblkid/src/superblocks` and
//! `.../partitions`), at their offsets.

use core::fmt;

use crate::disk::{ClaimedDisk, DiskError};
use crate::layout::{PAGE, PAGE_BYTES};
use crate::superblock;

/// A sign of somebody's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it is a sign of.
    pub what: &'static str,
    /// Where it stands, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u64,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at byte {})", self.what, self.offset)
    }
}

/// For an error message.
pub(super) fn list(found: &[Found]) -> String {
    found.iter().map(Found::to_string).collect::<Vec<_>>().join(", ")
}

/// Where a magic number stands.
#[derive(Clone, Copy, Debug)]
enum At {
    /// So many bytes from the start.
    Start(u64),
    /// So many bytes before the end.
    End(u64),
    /// So many bytes into the last but one 64 KiB (mdraid 0.90), or the one before if the disk ends there.
    Md0(u64),
    /// So many bytes into the 4 KiB that lie 8 to 12 KiB before the end (mdraid 1.0).
    Md1End(u64),
}

impl At {
    fn offset(self, bytes: u64) -> Option<u64> {
        match self {
            Self::Start(offset) => Some(offset),
            Self::End(before) => bytes.checked_sub(before),
            Self::Md0(into) => (bytes / MD0 * MD0).checked_sub(MD0).map(|start| start + into),
            Self::Md1End(into) => bytes.checked_sub(8192).map(|start| start / PAGE * PAGE + into),
        }
    }
}

const MD0: u64 = 64 << 10;
const MD_MAGIC: &[u8] = &0xa92b_4efc_u32.to_le_bytes();
const EXT_MAGIC: &[u8] = &0xef53_u16.to_le_bytes();

/// What, where, and the bytes.
const SIGNATURES: &[(&str, At, &[u8])] = &[
    ("a TwinSAN superblock", At::Start(0), &superblock::codec::MAGIC),
    ("a TwinSAN superblock", At::Start(4096), &superblock::codec::MAGIC),
    // Filesystems.
    ("an ext2/ext3/ext4 filesystem", At::Start(0x438), EXT_MAGIC),
    ("an XFS filesystem", At::Start(0), b"XFSB"),
    ("a btrfs filesystem", At::Start(0x1_0040), b"_BHRfS_M"),
    ("an NTFS filesystem", At::Start(3), b"NTFS    "),
    ("an exFAT filesystem", At::Start(3), b"EXFAT   "),
    ("a FAT filesystem", At::Start(54), b"FAT12   "),
    ("a FAT filesystem", At::Start(54), b"FAT16   "),
    ("a FAT filesystem", At::Start(82), b"FAT32   "),
    ("an F2FS filesystem", At::Start(1024), &0xf2f5_2010_u32.to_le_bytes()),
    ("an EROFS filesystem", At::Start(1024), &0xe0f5_e1e2_u32.to_le_bytes()),
    ("a squashfs filesystem", At::Start(0), b"hsqs"),
    ("an ISO 9660 filesystem", At::Start(0x8001), b"CD001"),
    ("a UDF filesystem", At::Start(0x8001), b"BEA01"),
    ("a UDF filesystem", At::Start(0x8001), b"NSR02"),
    ("a UDF filesystem", At::Start(0x8001), b"NSR03"),
    ("an HFS+ filesystem", At::Start(1024), b"H+\0\x04"),
    ("an HFS+ filesystem", At::Start(1024), b"HX\0\x05"),
    ("an APFS container", At::Start(32), b"NXSB"),
    ("a JFS filesystem", At::Start(0x8000), b"JFS1"),
    ("a ReiserFS filesystem", At::Start(0x1_0034), b"ReIsErFs"),
    ("a ReiserFS filesystem", At::Start(0x1_0034), b"ReIsEr2Fs"),
    ("a ReiserFS filesystem", At::Start(0x1_0034), b"ReIsEr3Fs"),
    ("a NILFS2 filesystem", At::Start(1030), &0x3434_u16.to_le_bytes()),
    ("a GFS2 filesystem", At::Start(0x1_0000), &0x0116_1970_u32.to_be_bytes()),
    ("an OCFS2 filesystem", At::Start(1024), b"OCFSV2"),
    ("an OCFS2 filesystem", At::Start(2048), b"OCFSV2"),
    ("an OCFS2 filesystem", At::Start(4096), b"OCFSV2"),
    ("an OCFS2 filesystem", At::Start(8192), b"OCFSV2"),
    ("a VMFS filesystem", At::Start(0x20_0000), &0x2fab_f15e_u32.to_le_bytes()),
    ("a VMFS volume member", At::Start(0x10_0000), &0xc001_d00d_u32.to_le_bytes()),
    // Swap, by page size of its host.
    ("swap space", At::Start((4 << 10) - 10), b"SWAPSPACE2"),
    ("swap space", At::Start((8 << 10) - 10), b"SWAPSPACE2"),
    ("swap space", At::Start((16 << 10) - 10), b"SWAPSPACE2"),
    ("swap space", At::Start((32 << 10) - 10), b"SWAPSPACE2"),
    ("swap space", At::Start((64 << 10) - 10), b"SWAPSPACE2"),
    ("swap space", At::Start((4 << 10) - 10), b"SWAP-SPACE"),
    ("a hibernation image", At::Start((4 << 10) - 10), b"S1SUSPEND"),
    ("a hibernation image", At::Start((4 << 10) - 10), b"LINHIB0001"),
    // Encryption.
    ("a LUKS container", At::Start(0), b"LUKS\xba\xbe"),
    ("a LUKS2 container (second header)", At::Start(0x4000), b"SKUL\xba\xbe"),
    ("a BitLocker volume", At::Start(3), b"-FVE-FS-"),
    // Volume managers, RAID, caches.
    ("an LVM2 physical volume", At::Start(0), b"LABELONE"),
    ("an LVM2 physical volume", At::Start(512), b"LABELONE"),
    ("an LVM2 physical volume", At::Start(1024), b"LABELONE"),
    ("an LVM2 physical volume", At::Start(1536), b"LABELONE"),
    ("a Linux RAID member (metadata 1.1)", At::Start(0), MD_MAGIC),
    ("a Linux RAID member (metadata 1.2)", At::Start(4096), MD_MAGIC),
    ("a Linux RAID member (metadata 1.0)", At::Md1End(0), MD_MAGIC),
    ("a Linux RAID member (metadata 0.90)", At::Md0(0), MD_MAGIC),
    ("a bcache device", At::Start(0x1018), b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"),
    ("a bcachefs filesystem", At::Start(0x1018), b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"),
    ("a Stratis device", At::Start(0x204), b"!Stra0tis\x86\xff\x02^\x41rh"),
    ("a Stratis device", At::Start(0x1204), b"!Stra0tis\x86\xff\x02^\x41rh"),
    ("a VDO device", At::Start(0), b"dmvdo001"),
    ("a dm-integrity device", At::Start(0), b"integrt\0"),
    ("a dm-verity device", At::Start(0), b"verity\0\0"),
    ("a Ceph OSD", At::Start(0), b"bluestore block device"),
    ("a DRBD 8 device", At::End(4096 - 60), &0x8374_026b_u32.to_be_bytes()),
    ("a DRBD 9 device", At::End(4096 - 60), &0x8374_026d_u32.to_be_bytes()),
    // Partition tables.
    ("a GPT partition table", At::Start(512), b"EFI PART"),
    ("a GPT partition table", At::Start(4096), b"EFI PART"),
    ("a GPT partition table (backup)", At::End(512), b"EFI PART"),
    ("a GPT partition table (backup)", At::End(4096), b"EFI PART"),
];

/// The ZFS uberblocks: a ring from 128 KiB to 256 KiB of each 256 KiB label, two at the start and two at the end.
const ZFS_LABEL: u64 = 256 << 10;
const ZFS_RING: u64 = 128 << 10;
const ZFS_STEP: usize = 1 << 10;
const ZFS_MAGIC: u64 = 0x00ba_b10c;

/// Searches the disk. Of what stands in several places (ZFS) the first one of each label is named.
///
/// # Errors
/// The disk's.
pub fn search(disk: &ClaimedDisk) -> Result<Vec<Found>, DiskError> {
    let mut pages = Pages { disk, at: None };
    let bytes = disk.geometry().bytes;
    let mut found = Vec::new();
    for &(what, at, magic) in SIGNATURES {
        let Some(offset) = at.offset(bytes) else { continue };
        if pages.shows(offset, magic)? {
            found.push(Found { what, offset, len: magic.len() as u64 });
        }
    }
    found.extend(boot_sector(&mut pages)?);
    for label in zfs_labels(bytes) {
        found.extend(zfs(&mut pages, label)?);
    }
    Ok(found)
}

/// A boot sector's mark: a partition table, if one of its four entries has a type; a FAT or NTFS boot sector is named
/// by its own magic too.
fn boot_sector(pages: &mut Pages<'_>) -> Result<Option<Found>, DiskError> {
    const ENTRIES: usize = 446;
    const TYPE: usize = 4;
    let Some(page) = pages.page(0)? else { return Ok(None) };
    if page[510..512] != [0x55, 0xaa] {
        return Ok(None);
    }
    let used = (0..4).any(|entry| page[ENTRIES + 16 * entry + TYPE] != 0);
    let what = if used { "an MBR partition table" } else { "a boot sector" };
    Ok(Some(Found { what, offset: 510, len: 2 }))
}

fn zfs_labels(bytes: u64) -> Vec<u64> {
    let end = bytes / ZFS_LABEL * ZFS_LABEL;
    let tail = [end.checked_sub(2 * ZFS_LABEL), end.checked_sub(ZFS_LABEL)];
    let mut labels: Vec<u64> = [Some(0), Some(ZFS_LABEL)].into_iter().chain(tail).flatten().collect();
    labels.sort_unstable();
    labels.dedup();
    labels
}

/// ZFS writes its uberblocks in its own byte order, all over the ring; erasing one does not erase the others, so the
/// whole ring is what was found.
fn zfs(pages: &mut Pages<'_>, label: u64) -> Result<Option<Found>, DiskError> {
    for offset in (label + ZFS_RING..label + ZFS_LABEL).step_by(ZFS_STEP) {
        if pages.shows(offset, &ZFS_MAGIC.to_le_bytes())? || pages.shows(offset, &ZFS_MAGIC.to_be_bytes())? {
            return Ok(Some(Found { what: "a ZFS pool member", offset: label + ZFS_RING, len: ZFS_RING }));
        }
    }
    Ok(None)
}

/// The disk, page by page, with the last one kept.
struct Pages<'a> {
    disk: &'a ClaimedDisk,
    at: Option<(u64, Box<[u8; PAGE_BYTES]>)>,
}

impl Pages<'_> {
    /// The page with byte `offset`; `None` past the end. What a disk's end leaves of the last page reads as zeros.
    fn page(&mut self, offset: u64) -> Result<Option<&[u8; PAGE_BYTES]>, DiskError> {
        let start = offset / PAGE * PAGE;
        if start >= self.disk.geometry().bytes {
            return Ok(None);
        }
        if self.at.as_ref().is_none_or(|(at, _)| *at != start) {
            self.at = Some((start, Box::new(self.disk.read_page_padded(start)?.0)));
        }
        Ok(self.at.as_ref().map(|(_, page)| &**page))
    }

    fn shows(&mut self, offset: u64, magic: &[u8]) -> Result<bool, DiskError> {
        for (offset, byte) in (offset..).zip(magic) {
            let index = usize::try_from(offset % PAGE).expect("less than a page");
            match self.page(offset)? {
                Some(page) if page[index] == *byte => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }
}
