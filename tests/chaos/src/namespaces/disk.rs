//! The disk's filesystem: a tmpfs that can be made as small as what is in it. Then the disk's file, which is sparse, gets
//! no new blocks: ENOSPC, as from a thin-provisioned LUN. What was written before can be written again.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};
use rustix::fs::statvfs;

use super::host::run;

/// A limit that nobody comes to.
const ROOM: u64 = 4 << 30;
/// While it shrinks, more may be written.
const TRIES: u32 = 50;

/// A mounted tmpfs. It goes with the enclosure's mount namespace, and with this.
#[derive(Debug)]
pub(super) struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// Mounts it on a folder.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn mount(folder: &Path) -> Result<Self> {
        let size = format!("size={ROOM},mode=0700");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "chaos-disk"]).arg(folder))?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Where the disk's file belongs.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Takes away all room that is not in use.
    ///
    /// # Errors
    /// If it can't.
    pub(super) fn fill(&self) -> Result<()> {
        let mut last = None;
        for _ in 0..TRIES {
            let now = statvfs(&self.folder)?;
            match self.resize((now.f_blocks - now.f_bfree) * now.f_frsize) {
                Ok(()) => return Ok(()),
                // Something was written since.
                Err(error) => last = Some(error),
            }
        }
        bail!("{} can't be filled: {last:?}", self.folder.display())
    }

    /// Gives the room back.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn free(&self) -> Result<()> {
        self.resize(ROOM)
    }

    fn resize(&self, bytes: u64) -> Result<()> {
        run(Command::new("mount").args(["-o", &format!("remount,size={bytes}")]).arg(&self.folder))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.folder).status();
    }
}
