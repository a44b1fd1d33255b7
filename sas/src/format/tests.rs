use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use super::*;
use crate::disk::SharedReader;
use crate::layout::PAGE_BYTES;
use crate::superblock::slots::SlotPair;
use crate::testing::{format_options, scratch};

const MIB: u64 = 1 << 20;

fn file(path: &Path, bytes: u64) -> File {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path).expect("create");
    file.set_len(bytes).expect("size");
    file
}

fn slots(path: &Path) -> SlotPair {
    SharedReader::open(path).expect("open").read_slots(&Expected::default()).expect("a volume")
}

/// What format finds on a disk of 8 MiB with `bytes` at `offset`.
fn found_with(offset: u64, bytes: &[u8]) -> Vec<&'static str> {
    let dir = scratch();
    let path = dir.path().join("disk");
    file(&path, 8 * MIB).write_all_at(bytes, offset).expect("write");
    match format(&format_options(path, None)) {
        Err(FormatError::Occupied { found, .. }) => found.into_iter().map(|found| found.what).collect(),
        Ok(_) => Vec::new(),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_new_file_becomes_a_volume() {
    let dir = scratch();
    let path = dir.path().join("disk");
    let report = format(&format_options(path.clone(), Some(4 * MIB))).expect("format");
    assert!(report.created && report.erased.is_empty() && report.data == DataState::Fresh);
    assert_eq!((report.geometry.bytes, report.identity.blocks), (5 * MIB, 1024));
    let pair = slots(&path);
    assert_eq!(pair.best.identity, report.identity);
    let fresh = Superblock { counter: 1, clean: true, ..Superblock::default() };
    assert_eq!((pair.best.superblock, pair.settled), (fresh, true));
    let mut bytes = vec![1; 6 << 20];
    let len = File::open(&path).expect("open").read_at(&mut bytes, 0).expect("read");
    assert_eq!(len, 5 << 20);
    assert!(bytes[2 * PAGE_BYTES..len].iter().all(|&b| b == 0), "heartbeats, reserved space and data are zero");
}

#[test]
fn two_volumes_are_never_the_same() {
    let dir = scratch();
    let uuid = |name: &str| format(&format_options(dir.path().join(name), Some(MIB))).expect("format").identity.uuid;
    let (one, two) = (uuid("one"), uuid("two"));
    assert_ne!(one, two);
    assert_eq!((one.0[6] >> 4, one.0[8] >> 6), (4, 2), "RFC 9562, version 4");
}

#[test]
fn a_file_keeps_its_data_unless_zeroing_is_asked_for() {
    for (zero, bytes, want) in [
        (false, None, DataState::Kept { bytes: 3 * MIB }),
        (true, None, DataState::Zeroed),
        (false, Some(7 * MIB), DataState::Kept { bytes: 3 * MIB }),
        (false, Some(MIB), DataState::Kept { bytes: MIB }),
    ] {
        let dir = scratch();
        let path = dir.path().join("disk");
        let disk = file(&path, 4 * MIB);
        disk.write_all_at(&vec![0x5a; 4 << 20], 0).expect("write");
        let options = FormatOptions { zero, bytes, ..format_options(path.clone(), None) };
        let report = format(&options).expect("format");
        assert_eq!((report.data, report.created), (want, false));
        assert_eq!(report.identity.bytes(), bytes.unwrap_or(3 * MIB));
        assert_eq!(report.geometry.bytes, (report.identity.end()).max(4 * MIB));
        let mut byte = [0];
        disk.read_exact_at(&mut byte, MIB).expect("read");
        assert_eq!(byte, [if zero { 0 } else { 0x5a }]);
        disk.read_exact_at(&mut byte, MIB - 1).expect("read");
        assert_eq!(byte, [0], "what is before the data is always zeroed");
    }
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_touched() {
    let dir = scratch();
    let path = dir.path().join("disk");
    let refused = |change: &dyn Fn(&mut FormatOptions)| {
        let mut options = format_options(path.clone(), Some(MIB));
        change(&mut options);
        let error = format(&options).expect_err("refused").to_string();
        assert!(!path.exists(), "nothing is left behind: {error}");
        error
    };
    assert!(refused(&|o| o.block_bytes = Some(1024)).contains("1024 bytes: it is 512 or 4096"));
    assert!(refused(&|o| o.bytes = Some(0)).contains("a volume of 0 bytes"));
    assert!(refused(&|o| o.bytes = Some(4097)).contains("4097 bytes"));
    assert!(refused(&|o| o.bytes = Some(u64::MAX / 4096 * 4096)).contains("positive multiple"));
    assert!(refused(&|o| o.nodes[1] = o.nodes[0]).contains("\"san1\""));
    assert!(refused(&|o| o.bytes = None).contains("does not exist; a size is needed"));
    assert!(refused(&|o| o.path = path.join("below")).contains("No such file"));
    drop(file(&path, MIB));
    let error = format(&format_options(path.clone(), None)).expect_err("no room");
    assert!(matches!(error, FormatError::TooSmall { needed, found, .. } if needed == MIB + 4096 && found == MIB));
    assert!(format(&format_options(dir.path().to_owned(), None)).is_err(), "a directory");
}

#[test]
fn a_volume_is_not_made_twice_unless_forced() {
    let dir = scratch();
    let path = dir.path().join("disk");
    let first = format(&format_options(path.clone(), Some(MIB))).expect("format");
    let options = FormatOptions { force: true, ..format_options(path.clone(), None) };
    let error = format(&format_options(path.clone(), None)).expect_err("occupied").to_string();
    assert!(error.contains("a TwinSAN superblock (at byte 0), a TwinSAN superblock (at byte 4096)"), "{error}");
    assert_eq!(slots(&path).best.identity, first.identity, "untouched");
    let second = format(&options).expect("forced");
    assert_eq!(second.erased.len(), 2);
    assert_ne!(second.identity.uuid, first.identity.uuid);
    assert_eq!(slots(&path).best.identity, second.identity);
}

#[test]
fn a_disk_in_use_is_refused() {
    let dir = scratch();
    let path = dir.path().join("disk");
    format(&format_options(path.clone(), Some(MIB))).expect("format");
    let claim = ClaimedDisk::try_claim(&path).expect("open").expect("free");
    let options = FormatOptions { force: true, ..format_options(path.clone(), None) };
    assert!(matches!(format(&options), Err(FormatError::InUse { .. })));
    drop(claim);
    format(&options).expect("free again");
}

#[test]
fn signatures_are_found_where_their_owners_put_them() {
    let end = 8 * MIB;
    let md = 0xa92b_4efc_u32.to_le_bytes();
    let cases: &[(u64, &[u8], &str)] = &[
        (0x438, &[0x53, 0xef], "an ext2/ext3/ext4 filesystem"),
        (0, b"XFSB", "an XFS filesystem"),
        (65536 + 64, b"_BHRfS_M", "a btrfs filesystem"),
        (3, b"NTFS    ", "an NTFS filesystem"),
        (82, b"FAT32   ", "a FAT filesystem"),
        (32769, b"CD001", "an ISO 9660 filesystem"),
        (4086, b"SWAPSPACE2", "swap space"),
        (65526, b"SWAPSPACE2", "swap space"),
        (0, b"LUKS\xba\xbe", "a LUKS container"),
        (512, b"LABELONE", "an LVM2 physical volume"),
        (4096, &md, "a Linux RAID member (metadata 1.2)"),
        (0, &md, "a Linux RAID member (metadata 1.1)"),
        (end - 8192, &md, "a Linux RAID member (metadata 1.0)"),
        (end - 65536, &md, "a Linux RAID member (metadata 0.90)"),
        (131_072 + 5 * 1024, &[0x0c, 0xb1, 0xba, 0, 0, 0, 0, 0], "a ZFS pool member"),
        (end - 262_144 + 131_072, &[0, 0, 0, 0, 0, 0xba, 0xb1, 0x0c], "a ZFS pool member"),
        (512, b"EFI PART", "a GPT partition table"),
        (end - 512, b"EFI PART", "a GPT partition table (backup)"),
        (4096, b"TWSANSB\0", "a TwinSAN superblock"),
        (510, &[0x55, 0xaa], "a boot sector"),
    ];
    for (offset, magic, what) in cases {
        assert_eq!(found_with(*offset, magic), [*what], "{magic:02x?} at {offset}");
        assert_eq!(found_with(offset + 1, &magic[..magic.len() - 1]), [""; 0], "not quite {what}");
    }
    let mut mbr = [0; 66];
    mbr[4] = 0x83;
    mbr[64..].copy_from_slice(&[0x55, 0xaa]);
    assert_eq!(found_with(446, &mbr), ["an MBR partition table"]);
}

#[test]
fn a_forced_format_leaves_no_signature_behind_not_even_at_the_end() {
    let dir = scratch();
    let path = dir.path().join("disk");
    let disk = file(&path, 8 * MIB + 512);
    let end = 8 * MIB + 512;
    disk.write_all_at(b"EFI PART", 512).expect("write");
    disk.write_all_at(b"EFI PART", end - 512).expect("write");
    disk.write_all_at(&0xa92b_4efc_u32.to_le_bytes(), 8 * MIB - 65536).expect("write");
    disk.write_all_at(&[7; 4096], 4 * MIB).expect("somebody's data");
    let options = FormatOptions { force: true, block_bytes: Some(4096), ..format_options(path.clone(), None) };
    let report = format(&options).expect("forced");
    assert_eq!(report.erased.len(), 3, "{:?}", report.erased);
    let mut byte = [0];
    disk.read_exact_at(&mut byte, 4 * MIB).expect("read");
    assert_eq!(byte, [7], "the data stays");
    let again = FormatOptions { force: false, ..options };
    match format(&again) {
        Err(FormatError::Occupied { found, .. }) => {
            assert!(found.iter().all(|found| found.what == "a TwinSAN superblock"), "{found:?}");
        }
        other => panic!("{other:?}"),
    }
}

/// A filesystem made by its own program, where that is installed.
#[test]
fn real_filesystems_are_refused() {
    for (program, arguments, what) in [
        ("mkfs.ext4", &["-q", "-F"][..], "an ext2/ext3/ext4 filesystem"),
        ("mkswap", &[], "swap space"),
        ("mkfs.xfs", &["-q", "-f"], "an XFS filesystem"),
        ("mkfs.vfat", &[], "a FAT filesystem"),
        ("mkfs.btrfs", &["-q", "-f"], "a btrfs filesystem"),
    ] {
        let dir = scratch();
        let path = dir.path().join("disk");
        let disk = file(&path, 400 * MIB);
        let path_with_sbin = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        let made = Command::new(program).args(arguments).arg(&path).env("PATH", path_with_sbin).output();
        match made {
            Ok(output) if output.status.success() => {}
            Ok(output) => panic!("{program}: {}", String::from_utf8_lossy(&output.stderr)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                eprintln!("{program} is not installed: left out");
                continue;
            }
            Err(e) => panic!("{program}: {e}"),
        }
        drop(disk);
        match format(&format_options(path, None)) {
            Err(FormatError::Occupied { found, .. }) => {
                assert!(found.iter().any(|found| found.what == what), "{program}: {found:?}");
            }
            other => panic!("{program}: {other:?}"),
        }
    }
}
