//! ext4 on the volume: nbdfuse makes the export a file, a loop device makes the file a disk. Needs root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use twinsan_witness::pattern::Random;

use crate::live::{BYTES, Live};
use crate::tools::{Running, run, tool, wait_until};

/// Files of the tree that is copied.
const FILES: u64 = 160;
/// Their sizes lie below this.
const LARGEST: u64 = 512 << 10;

/// Without a failover.
pub(crate) fn quiet() -> Result<()> {
    let live = Live::start(4096)?;
    live_through(live, |_, _| Ok(()))
}

/// The primary is killed in mid-copy.
pub(crate) fn failover() -> Result<()> {
    let live = Live::start(4096)?;
    live_through(live, |live, copy| live.fail_over_under(copy, 100))
}

/// mkfs, mount, copy with `meanwhile`, unmount, fsck, mount again, compare.
fn live_through(mut live: Live, meanwhile: impl FnOnce(&mut Live, &mut Running) -> Result<()>) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "needs root, for mount and losetup");
    let source = live.pair.run("source");
    make_tree(&source)?;
    let sums = run(&mut checksums(&source, &["-b"])?)?.success()?;
    fs::write(live.pair.run("sums"), &sums)?;
    let fuse = Fuse::mount(&live)?;
    let device = LoopDevice::attach(&fuse.file())?;
    run(tool("mkfs.ext4")?.args(["-q", "-F"]).arg(&device.path))?.success()?;
    let folder = live.pair.run("mnt");
    // Synchronous, so that the copy waits for the volume and not for the page cache: the kill falls in its middle.
    let mounted = Mounted::mount(&device.path, &folder, "sync")?;
    let mut copy = Running::start(tool("cp")?.arg("-a").arg(&source).arg(folder.join("tree")))?;
    meanwhile(&mut live, &mut copy)?;
    copy.end()?.success()?;
    mounted.unmount()?;
    // -f: although it is marked clean; -n: repair nothing. 0 means that there was nothing to repair.
    run(tool("fsck.ext4")?.args(["-f", "-n"]).arg(&device.path))?.code(0)?;
    let mounted = Mounted::mount(&device.path, &folder, "ro")?;
    let list = live.pair.run("sums");
    let list = list.to_str().context("a path in UTF-8")?;
    run(&mut checksums(&folder.join("tree"), &["--check", "--strict", "--quiet", list])?)?.success()?;
    run(tool("diff")?.arg("-r").arg(&source).arg(folder.join("tree")))?.success()?;
    mounted.unmount()?;
    device.detach()?;
    fuse.unmount()
}

/// `sha256sum` inside `folder`; without a list to check, of all its files.
fn checksums(folder: &Path, arguments: &[&str]) -> Result<Command> {
    let mut command = tool("sha256sum")?;
    command.current_dir(folder).args(arguments);
    if arguments == ["-b"] {
        command.args((0..FILES).map(file_name));
    }
    Ok(command)
}

fn file_name(i: u64) -> String {
    format!("{}/file{i}", i % 8)
}

/// Files of all sizes, the same ones every time.
fn make_tree(root: &Path) -> Result<()> {
    let mut random = Random::new(4);
    for i in 0..FILES {
        let path = root.join(file_name(i));
        fs::create_dir_all(path.parent().expect("a file in a folder"))?;
        let bytes = random.below(LARGEST);
        let content: Vec<u8> = (0..bytes / 8 + 1).flat_map(|_| random.bits().to_le_bytes()).collect();
        fs::write(path, content)?;
    }
    Ok(())
}

/// The export as a file, by nbdfuse.
struct Fuse {
    folder: PathBuf,
    program: Option<Running>,
}

impl Fuse {
    fn mount(live: &Live) -> Result<Self> {
        let folder = live.pair.run("fuse");
        fs::create_dir(&folder)?;
        let program = Running::start(tool("nbdfuse")?.arg(&folder).arg(live.uri()))?;
        let mut made = Self { folder, program: Some(program) };
        let file = made.file();
        wait_until("nbdfuse has mounted", || {
            let program = made.program.as_mut().expect("just started");
            ensure!(program.runs()?, "nbdfuse ended:\n{}", program.text()?);
            Ok(fs::metadata(&file).is_ok_and(|m| m.len() == BYTES))
        })?;
        Ok(made)
    }

    fn file(&self) -> PathBuf {
        self.folder.join("nbd")
    }

    fn unmount(mut self) -> Result<()> {
        run(tool("umount")?.arg(&self.folder))?.success()?;
        let program = self.program.take().context("nbdfuse runs")?;
        program.end()?.success().map(drop)
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        if self.program.is_some() {
            // Lazily, even where something still uses it; the process is killed right after.
            let _ = tool("umount").and_then(|mut t| run(t.arg("--lazy").arg(&self.folder)));
        }
    }
}

/// A loop device over a file.
struct LoopDevice {
    path: PathBuf,
    attached: bool,
}

impl LoopDevice {
    fn attach(file: &Path) -> Result<Self> {
        let mut losetup = tool("losetup")?;
        // The volume's block: libnbd, and so nbdfuse, refuses anything smaller on the server's behalf.
        losetup.args(["--find", "--show", "--direct-io=on", "--sector-size", "4096"]).arg(file);
        let said = run(&mut losetup)?.success()?;
        let path = said.lines().find(|l| l.starts_with("/dev/")).with_context(|| format!("losetup said: {said}"))?;
        Ok(Self { path: PathBuf::from(path), attached: true })
    }

    fn detach(mut self) -> Result<()> {
        run(tool("losetup")?.arg("--detach").arg(&self.path))?.success()?;
        self.attached = false;
        Ok(())
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        if self.attached {
            let _ = tool("losetup").and_then(|mut t| run(t.arg("--detach").arg(&self.path)));
        }
    }
}

/// A mounted filesystem.
struct Mounted {
    folder: PathBuf,
    mounted: bool,
}

impl Mounted {
    fn mount(device: &Path, folder: &Path, options: &str) -> Result<Self> {
        fs::create_dir_all(folder)?;
        run(tool("mount")?.args(["-t", "ext4", "-o", options]).arg(device).arg(folder))?.success()?;
        Ok(Self { folder: folder.to_owned(), mounted: true })
    }

    fn unmount(mut self) -> Result<()> {
        run(tool("umount")?.arg(&self.folder))?.success()?;
        self.mounted = false;
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.mounted {
            // Lazily: a failed suite's volume may not answer any more.
            let _ = tool("umount").and_then(|mut t| run(t.arg("--lazy").arg(&self.folder)));
        }
    }
}
