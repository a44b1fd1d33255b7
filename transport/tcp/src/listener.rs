//! Listening sockets, and the files of unix ones.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::net::{getsockname, sockopt};
use twinsan_fabric::FabricError;

use crate::address::{Address, Endpoint};
use crate::socket;

/// Connections that the kernel keeps for us between two polls; more are refused or wait.
const BACKLOG: i32 = 128;

/// A listening socket; its file, if it has one, goes with it.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) socket: OwnedFd,
    /// As bound.
    pub(crate) address: String,
    /// Held for its drop.
    _file: Option<SocketFile>,
}

/// A unix socket's file, known by device and inode: another's of the same name is left alone.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Listener {
    /// Listens at `address`.
    ///
    /// # Errors
    /// If it is bad or taken.
    pub(crate) fn open(address: &str) -> Result<Self, FabricError> {
        let bad = |why: String| FabricError::Address { address: address.to_owned(), why };
        let endpoint = Address::parse(address)?.resolve().map_err(bad)?.swap_remove(0);
        let io = |source| FabricError::Io { what: format!("listen at {address}"), source };
        match &endpoint {
            Endpoint::Ip(_) => Self::tcp(&endpoint).map_err(io),
            Endpoint::Unix(path) => {
                let _held = lock_directory(path).map_err(io)?;
                if let Some(why) = clear_the_way(path).map_err(io)? {
                    return Err(bad(why));
                }
                Self::unix(&endpoint, path).map_err(io)
            }
        }
    }

    fn tcp(endpoint: &Endpoint) -> io::Result<Self> {
        let socket = socket::new(endpoint)?;
        // A restarted node takes its port again while old connections linger in TIME_WAIT.
        sockopt::set_socket_reuseaddr(&socket, true)?;
        socket::bind(socket.as_fd(), endpoint)?;
        rustix::net::listen(&socket, BACKLOG)?;
        let bound = SocketAddr::try_from(getsockname(&socket)?)?;
        Ok(Self { socket, address: Endpoint::Ip(bound).to_string(), _file: None })
    }

    fn unix(endpoint: &Endpoint, path: &Path) -> io::Result<Self> {
        let socket = socket::new(endpoint)?;
        socket::bind(socket.as_fd(), endpoint)?;
        let file = SocketFile { path: path.to_owned(), identity: identity(path)? };
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(Self { socket, address: endpoint.to_string(), _file: Some(file) })
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
fn clear_the_way(path: &Path) -> io::Result<Option<String>> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    if !meta.file_type().is_socket() {
        return Ok(Some("there is a file of that name that is not a socket".into()));
    }
    let endpoint = Endpoint::Unix(path.to_owned());
    let probe = socket::new(&endpoint)?;
    match socket::connect(probe.as_fd(), &endpoint) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(path = %path.display(), "removing the socket file of a dead process");
            fs::remove_file(path)?;
            Ok(None)
        }
        // A live listener whose backlog is full answers EAGAIN.
        Ok(()) => Ok(Some("a live process listens there".into())),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(Some("a live process listens there".into())),
        Err(e) => Err(e),
    }
}
