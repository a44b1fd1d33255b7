//! A peer to be measured against: `qemu-storage-daemon`'s quorum over two `nbdkit memory` servers.
//!
//! It is the nearest thing to buy: two copies in RAM, a write completes when both have it, an NBD socket in front. It
//! has no disk behind it, no failover and no order between its copies.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

/// The export's name.
pub const EXPORT: &str = "quorum";
/// For a program's socket to answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(10);

/// A running quorum. Ends everything when dropped.
#[derive(Debug)]
pub struct Quorum {
    // The front before the back ends.
    _programs: Vec<Program>,
    folder: TempDir,
}

/// A child that ends with us.
#[derive(Debug)]
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Quorum {
    /// Starts two RAM servers of `bytes` and the quorum over them.
    ///
    /// # Errors
    /// If a program is missing (the text names Debian's package), or does not come up.
    pub fn start(bytes: u64) -> Result<Self> {
        let nbdkit = find("nbdkit", "nbdkit")?;
        let daemon = find("qemu-storage-daemon", "qemu-system-common")?;
        let folder = tempfile::Builder::new().prefix("twinsan-quorum-").tempdir()?;
        let file = |name: &str| folder.path().join(name);
        let mut backs = Vec::new();
        for name in ["a", "b"] {
            let mut back = Command::new(&nbdkit);
            back.args(["--foreground", "--exit-with-parent", "--unix"]).arg(file(name));
            back.args(["memory", &format!("size={bytes}")]);
            backs.push(start(back, &file(name), &file(&format!("{name}.log")))?);
        }
        let mut front = Command::new(&daemon);
        for name in ["a", "b"] {
            let path = file(name);
            front.args([
                "--blockdev",
                &format!("driver=nbd,node-name={name},server.type=unix,server.path={}", path.display()),
            ]);
        }
        front.args(["--blockdev", "driver=quorum,node-name=both,vote-threshold=2,children.0=a,children.1=b"]);
        front.args(["--nbd-server", &format!("addr.type=unix,addr.path={}", file("front").display())]);
        front.args(["--export", &format!("type=nbd,id=out,node-name=both,name={EXPORT},writable=on")]);
        let mut programs = vec![start(front, &file("front"), &file("front.log"))?];
        programs.append(&mut backs);
        Ok(Self { _programs: programs, folder })
    }

    /// Where it takes NBD connections.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("front")
    }
}

/// Starts a program and waits until its socket takes connections.
fn start(mut command: Command, socket: &Path, log: &Path) -> Result<Program> {
    let words = fs::File::create(log)?;
    command.stdin(Stdio::null()).stdout(words.try_clone()?).stderr(words);
    let name = command.get_program().to_string_lossy().into_owned();
    let mut program = Program(command.spawn().with_context(|| name.clone())?);
    let begin = Instant::now();
    while UnixStream::connect(socket).is_err() {
        if let Some(status) = program.0.try_wait()? {
            bail!("{name} ended ({status}): {}", fs::read_to_string(log)?);
        }
        ensure!(begin.elapsed() < PATIENCE, "{name} takes no connections: {}", fs::read_to_string(log)?);
        std::thread::sleep(LOOK);
    }
    Ok(program)
}

/// A program on the PATH.
///
/// # Errors
/// With the Debian package that brings it.
pub(crate) fn find(program: &str, package: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(program)).find(|p| p.is_file());
    found.with_context(|| format!("{program} is missing: apt-get install {package}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_names_its_package() {
        let error = find("no-such-program", "some-package").unwrap_err().to_string();
        assert_eq!(error, "no-such-program is missing: apt-get install some-package");
    }
}
