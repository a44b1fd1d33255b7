//! The files of listening unix sockets.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with};

/// The longest path of a unix socket: `sun_path` less its terminating zero (unix(7)).
const MAX_PATH: usize = 107;

/// Connections that the kernel keeps for us between two polls; more wait.
const BACKLOG: i32 = 128;

/// The path of the address `scheme` + `path`.
///
/// # Errors
/// A text that says what would be right.
pub fn socket_path(scheme: &str, path: &str) -> Result<PathBuf, String> {
    if !Path::new(path).is_absolute() || path.contains('\0') {
        return Err(format!("the path of a unix socket is absolute: {scheme}/run/twinsan/san1.sock"));
    }
    if path.len() > MAX_PATH {
        return Err(format!("the path has {} bytes, a unix socket's has at most {MAX_PATH}", path.len()));
    }
    Ok(path.into())
}

/// A listening socket's file, which goes with it. It is known by device and inode: another's of the same name is left
/// alone.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    /// A socket of this `kind` that listens at `path`, without blocking. What a dead process has left there is removed.
    ///
    /// # Errors
    /// The outer one is the system's; the inner one says why the place is taken.
    pub fn listen(path: &Path, kind: SocketType) -> io::Result<Result<(OwnedFd, Self), String>> {
        let _held = lock_directory(path)?;
        if let Some(why) = clear_the_way(path, kind)? {
            return Ok(Err(why));
        }
        let socket = new_socket(kind)?;
        bind(&socket, &SocketAddrUnix::new(path)?)?;
        let file = Self { path: path.to_owned(), identity: identity(path)? };
        listen(&socket, BACKLOG)?;
        Ok(Ok((socket, file)))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity)
            && let Err(e) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), error = %e, "could not remove our socket file");
        }
    }
}

fn new_socket(kind: SocketType) -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, kind, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?)
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let meta = fs::symlink_metadata(path)?;
    Ok((meta.dev(), meta.ino()))
}

/// Locks the directory of `path` until the file is dropped. Between bind and listen a socket refuses connections like
/// a dead one: two processes that start together must not remove each other's.
fn lock_directory(path: &Path) -> io::Result<File> {
    let directory = File::open(path.parent().unwrap_or(Path::new("/")))?;
    flock(&directory, FlockOperation::LockExclusive)?;
    Ok(directory)
}

/// Removes the socket file that a dead process left at `path`; says why not, if it must stay.
fn clear_the_way(path: &Path, kind: SocketType) -> io::Result<Option<String>> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    if !meta.file_type().is_socket() {
        return Ok(Some("there is a file of that name that is not a socket".into()));
    }
    match connect(new_socket(kind)?, &SocketAddrUnix::new(path)?) {
        Err(Errno::CONNREFUSED) => {
            tracing::info!(path = %path.display(), "removing the socket file of a dead process");
            fs::remove_file(path)?;
            Ok(None)
        }
        // A live listener whose backlog is full answers EAGAIN, one of another kind EPROTOTYPE.
        Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE) => Ok(Some("a live process listens there".into())),
        Err(e) => Err(e.into()),
    }
}
