//! Peers in RAM: `nbdkit memory`, and `qemu-storage-daemon`'s quorum over two of them.
//!
//! The quorum is the nearest thing to buy: two copies in RAM, a write completes when both have it, an NBD socket in front. It
//! has no disk behind it, no failover and no order between its copies.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::program::{Program, find};

/// The quorum's export.
pub const EXPORT: &str = "quorum";

/// A RAM server of `bytes` with its socket at `folder/name`. Its export is the empty name, or any other.
///
/// # Errors
/// If nbdkit is missing (the text names Debian's package), or does not come up.
pub fn memory(folder: &Path, name: &str, bytes: u64) -> Result<Program> {
    let socket = folder.join(name);
    let mut command = Command::new(find("nbdkit", "nbdkit")?);
    command.args(["--foreground", "--exit-with-parent", "--unix"]).arg(&socket);
    command.args(["memory", &format!("size={bytes}")]);
    Program::start(command, &socket, &folder.join(format!("{name}.log")))
}

/// A quorum over the two servers whose sockets these are, with its own socket at `folder/name`.
///
/// # Errors
/// If qemu-storage-daemon is missing (the text names Debian's package), or does not come up.
pub fn quorum(folder: &Path, name: &str, backs: &[PathBuf; 2]) -> Result<Program> {
    let mut front = Command::new(find("qemu-storage-daemon", "qemu-system-common")?);
    for (name, path) in ["a", "b"].into_iter().zip(backs) {
        front.args([
            "--blockdev",
            &format!("driver=nbd,node-name={name},server.type=unix,server.path={}", path.display()),
        ]);
    }
    let socket = folder.join(name);
    front.args(["--blockdev", "driver=quorum,node-name=both,vote-threshold=2,children.0=a,children.1=b"]);
    front.args(["--nbd-server", &format!("addr.type=unix,addr.path={}", socket.display())]);
    front.args(["--export", &format!("type=nbd,id=out,node-name=both,name={EXPORT},writable=on")]);
    Program::start(front, &socket, &folder.join(format!("{name}.log")))
}

/// A file exported by `qemu-nbd`, past the page cache, with its socket at `folder/name`. Its export is the empty name.
///
/// `--cache=none` opens with `O_DIRECT` and keeps FUA's word: the write is followed by `fdatasync`. `--aio=native` is what
/// qemu recommends with it.
///
/// # Errors
/// If qemu-nbd is missing (the text names Debian's package), or does not come up.
pub fn file(folder: &Path, name: &str, file: &Path) -> Result<Program> {
    let socket = folder.join(name);
    let mut command = Command::new(find("qemu-nbd", "qemu-utils")?);
    command.args(["--persistent", "--format=raw", "--cache=none", "--aio=native", "--discard=ignore", "--socket"]);
    command.arg(&socket).arg(file);
    Program::start(command, &socket, &folder.join(format!("{name}.log")))
}
