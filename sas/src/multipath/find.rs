//! From a device path to the SCSI disks behind it, by /sys.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use super::{MultipathError, PathId};

/// How multipathd's maps begin in `dm/uuid`.
const MAP_UUID: &str = "mpath-";

/// Where sysfs is mounted.
#[derive(Clone, Debug)]
pub struct Sysfs(PathBuf);

impl Default for Sysfs {
    fn default() -> Self {
        Self(PathBuf::from("/sys"))
    }
}

/// What lies behind the configured disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScsiDisk {
    /// A dm-multipath map.
    Map {
        /// Its name: `mpatha`.
        name: String,
        /// The LUN's world-wide id, as multipathd tells it.
        wwid: String,
        /// Its folder in /sys.
        dir: PathBuf,
    },
    /// One SCSI disk.
    Single {
        /// Its folder in /sys.
        dir: PathBuf,
    },
}

/// One path, as /sys shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathInfo {
    /// Which.
    pub id: PathId,
    /// Host, channel, target, LUN: `2:0:0:0`.
    pub hctl: String,
    /// The SCSI device's state: `running`, `blocked`, `transport-offline`, `offline`, …
    pub state: String,
    /// Major and minor number.
    pub device: (u32, u32),
}

impl PathInfo {
    /// Commands to it reach the transport. To any other path they would wait for it.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.state == "running"
    }
}

impl Sysfs {
    /// For tests: another tree.
    #[must_use]
    pub const fn at(root: PathBuf) -> Self {
        Self(root)
    }

    /// What lies behind `path`, with any names and links for it.
    ///
    /// # Errors
    /// It is not there, or neither a dm-multipath map nor a whole SCSI disk.
    pub fn find(&self, path: &Path) -> Result<ScsiDisk, MultipathError> {
        let stat = rustix::fs::stat(path)
            .map_err(|source| MultipathError::Io { path: path.to_owned(), source: source.into() })?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::BlockDevice {
            return Err(MultipathError::NotScsi { path: path.to_owned(), what: "no block device".to_owned() });
        }
        self.find_device(path, (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)))
    }

    pub(super) fn find_device(&self, path: &Path, device: (u32, u32)) -> Result<ScsiDisk, MultipathError> {
        let link = self.0.join(format!("dev/block/{}:{}", device.0, device.1));
        let dir = fs::canonicalize(&link).map_err(|source| MultipathError::Io { path: link, source })?;
        let not = |what: String| Err(MultipathError::NotScsi { path: path.to_owned(), what });
        if let Ok(uuid) = text(&dir.join("dm/uuid")) {
            let name = text(&dir.join("dm/name")).unwrap_or_default();
            return match uuid.strip_prefix(MAP_UUID) {
                Some(wwid) => Ok(ScsiDisk::Map { name, wwid: wwid.to_owned(), dir }),
                None if uuid.contains(MAP_UUID) => not(format!("\"{name}\" is a partition of a dm-multipath map")),
                None => not(format!("\"{name}\" is a device-mapper device of another kind ({uuid})")),
            };
        }
        if dir.join("partition").exists() {
            return not("a partition".to_owned());
        }
        if hctl(&dir).is_none() {
            return not("no SCSI disk".to_owned());
        }
        Ok(ScsiDisk::Single { dir })
    }
}

impl ScsiDisk {
    /// The map's name; `None` without one.
    #[must_use]
    pub fn map(&self) -> Option<&str> {
        match self {
            Self::Map { name, .. } => Some(name),
            Self::Single { .. } => None,
        }
    }

    /// Refuses a single path.
    ///
    /// # Errors
    /// [`MultipathError::SinglePath`].
    pub fn require_map(&self, path: &Path) -> Result<(), MultipathError> {
        match self {
            Self::Map { .. } => Ok(()),
            Self::Single { dir } => Err(MultipathError::SinglePath { path: path.to_owned(), name: file_name(dir) }),
        }
    }

    /// Its paths now, by name. One that goes away while it is looked at is left out.
    ///
    /// # Errors
    /// The disk is gone from /sys.
    pub fn paths(&self) -> io::Result<Vec<PathInfo>> {
        let mut paths = match self {
            Self::Single { dir } => path_info(dir).into_iter().collect(),
            Self::Map { dir, .. } => {
                let mut paths = Vec::new();
                for slave in fs::read_dir(dir.join("slaves"))? {
                    if let Ok(dir) = fs::canonicalize(slave?.path()) {
                        paths.extend(path_info(&dir));
                    }
                }
                paths
            }
        };
        paths.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(paths)
    }
}

fn path_info(dir: &Path) -> Option<PathInfo> {
    let (major, minor) = text(&dir.join("dev")).ok()?.split_once(':').map(|(a, b)| (a.parse(), b.parse()))?;
    Some(PathInfo {
        id: PathId {
            name: file_name(dir),
            // Since Linux 5.15; older ones have to do with the name.
            serial: text(&dir.join("diskseq")).ok().and_then(|seq| seq.parse().ok()).unwrap_or(0),
        },
        hctl: hctl(dir)?,
        state: text(&dir.join("device/state")).ok()?,
        device: (major.ok()?, minor.ok()?),
    })
}

/// Of a SCSI disk's folder: `device` leads to its SCSI device, whose folder is called by its address.
fn hctl(dir: &Path) -> Option<String> {
    let device = fs::canonicalize(dir.join("device")).ok()?;
    let name = file_name(&device);
    let numbers: Vec<_> = name.split(':').collect();
    (numbers.len() == 4 && numbers.iter().all(|number| number.parse::<u64>().is_ok())).then_some(name)
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

fn text(path: &Path) -> io::Result<String> {
    Ok(fs::read_to_string(path)?.trim_end().to_owned())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A sysfs with a map of two paths, a partition of it, a volume on LVM, a loop device, a lone SCSI disk with a
    /// partition.
    pub(crate) fn tree() -> (tempfile::TempDir, Sysfs) {
        let dir = tempfile::tempdir().expect("scratch");
        let root = fs::canonicalize(dir.path()).expect("it is there");
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("below the root")).expect("folder");
            fs::write(path, format!("{text}\n")).expect("write");
        };
        let link = |to: &str, from: &str| {
            let from = root.join(from);
            fs::create_dir_all(from.parent().expect("below the root")).expect("folder");
            symlink(root.join(to), from).expect("link");
        };
        for (name, hctl, minor, state) in [
            ("sda", "0:0:0:0", 0, "running"),
            ("sdb", "1:0:0:0", 16, "transport-offline"),
            ("sdc", "2:0:0:5", 32, "running"),
        ] {
            let device = format!("devices/platform/host/{hctl}");
            write(&format!("{device}/state"), state);
            write(&format!("{device}/block/{name}/dev"), &format!("8:{minor}"));
            write(&format!("{device}/block/{name}/diskseq"), &format!("{}", minor + 3));
            link(&device, &format!("{device}/block/{name}/device"));
            link(&format!("{device}/block/{name}"), &format!("dev/block/8:{minor}"));
        }
        write("devices/platform/host/2:0:0:5/block/sdc/sdc1/partition", "1");
        link("devices/platform/host/2:0:0:5/block/sdc/sdc1", "dev/block/8:33");
        for (minor, name, uuid) in [
            (0, "mpatha", "mpath-36001405shelf0001"),
            (1, "mpatha1", "part1-mpath-36001405shelf0001"),
            (2, "vg-lv", "LVM-0123"),
        ] {
            let device = format!("devices/virtual/block/dm-{minor}");
            write(&format!("{device}/dm/name"), name);
            write(&format!("{device}/dm/uuid"), uuid);
            fs::create_dir_all(root.join(&device).join("slaves")).expect("folder");
            link(&device, &format!("dev/block/254:{minor}"));
        }
        link("devices/platform/host/0:0:0:0/block/sda", "devices/virtual/block/dm-0/slaves/sda");
        link("devices/platform/host/1:0:0:0/block/sdb", "devices/virtual/block/dm-0/slaves/sdb");
        write("devices/virtual/block/loop0/dev", "7:0");
        link("devices/virtual/block/loop0", "dev/block/7:0");
        let sysfs = Sysfs::at(root);
        (dir, sysfs)
    }

    #[test]
    fn a_map_and_its_paths() {
        let (_dir, sysfs) = tree();
        let disk = sysfs.find_device(Path::new("/dev/mapper/mpatha"), (254, 0)).expect("a map");
        assert_eq!(disk.map(), Some("mpatha"));
        assert!(matches!(&disk, ScsiDisk::Map { wwid, .. } if wwid == "36001405shelf0001"));
        disk.require_map(Path::new("/dev/mapper/mpatha")).expect("it is one");
        let paths = disk.paths().expect("readable");
        let told: Vec<_> = paths.iter().map(|p| (p.id.name.as_str(), p.id.serial, p.hctl.as_str(), p.device)).collect();
        assert_eq!(told, [("sda", 3, "0:0:0:0", (8, 0)), ("sdb", 19, "1:0:0:0", (8, 16))]);
        assert_eq!(paths.iter().map(PathInfo::is_running).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn a_single_path_is_refused_where_a_map_is_wanted() {
        let (_dir, sysfs) = tree();
        let path = Path::new("/dev/sdc");
        let disk = sysfs.find_device(path, (8, 32)).expect("a SCSI disk");
        assert_eq!(disk.map(), None);
        assert_eq!(disk.paths().expect("readable").len(), 1);
        let error = disk.require_map(path).expect_err("one path").to_string();
        assert!(error.contains("/dev/sdc: one path (sdc), not a dm-multipath map"), "{error}");
        assert!(error.contains("multipath = false"), "{error}");
    }

    #[test]
    fn what_is_no_scsi_disk_is_named() {
        let (dir, sysfs) = tree();
        let refused = |device| sysfs.find_device(Path::new("/dev/x"), device).expect_err("refused").to_string();
        let ending = "; reservations need a SCSI disk or a dm-multipath map of one";
        for (device, what) in [
            ((254, 1), "\"mpatha1\" is a partition of a dm-multipath map"),
            ((254, 2), "\"vg-lv\" is a device-mapper device of another kind (LVM-0123)"),
            ((8, 33), "a partition"),
            ((7, 0), "no SCSI disk"),
        ] {
            assert_eq!(refused(device), format!("/dev/x: {what}{ending}"));
        }
        let error = sysfs.find(dir.path()).expect_err("a folder").to_string();
        assert!(error.contains("no block device"), "{error}");
        assert!(matches!(sysfs.find(Path::new("/nowhere")), Err(MultipathError::Io { .. })));
    }
}
