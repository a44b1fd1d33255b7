//! Where NBD clients connect.

use std::fmt;
use std::io;
use std::net::{TcpListener, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, bail, ensure};

/// `unix:/path` or `tcp:host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NbdAddress {
    /// A socket file.
    Unix(PathBuf),
    /// Host and port; an IPv6 address in brackets.
    Tcp(String),
}

impl FromStr for NbdAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let right = || format!("\"{text}\" is no address for NBD clients: write unix:/path or tcp:host:port");
        if let Some(path) = text.strip_prefix("unix:") {
            // Also as the fabric's addresses are written.
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(right()) } else { Ok(Self::Unix(path.into())) };
        }
        let host = text.strip_prefix("tcp:").ok_or_else(right)?;
        let host = host.strip_prefix("//").unwrap_or(host);
        match host.rsplit_once(':') {
            Some((name, port)) if !name.is_empty() && port.parse::<u16>().is_ok() => Ok(Self::Tcp(host.into())),
            _ => Err(right()),
        }
    }
}

impl fmt::Display for NbdAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(host) => write!(f, "tcp:{host}"),
        }
    }
}

/// The listening socket, non-blocking. Its file goes when it is dropped.
#[derive(Debug)]
pub struct NbdListener {
    socket: Socket,
    /// Where it listens, a port of 0 replaced.
    pub address: NbdAddress,
}

#[derive(Debug)]
enum Socket {
    Unix { listener: UnixListener, path: PathBuf },
    Tcp(TcpListener),
}

impl NbdListener {
    /// Listens. NBD as spoken here asks nobody who they are: so a socket file opens to its owner only, and a TCP
    /// address that others can reach takes `allow_remote`.
    ///
    /// # Errors
    /// If the address is in use, does not exist here, or is not on loopback.
    pub fn bind(address: &NbdAddress, allow_remote: bool) -> anyhow::Result<Self> {
        match address {
            NbdAddress::Unix(path) => bind_unix(path).with_context(|| format!("--nbd {address}")),
            NbdAddress::Tcp(host) => bind_tcp(host, allow_remote).with_context(|| format!("--nbd {address}")),
        }
    }

    /// The next client's socket, non-blocking; `None`: there is none now.
    ///
    /// # Errors
    /// The system's.
    pub fn accept(&self) -> io::Result<Option<OwnedFd>> {
        let accepted = match &self.socket {
            Socket::Unix { listener, .. } => listener.accept().and_then(|(stream, _)| {
                stream.set_nonblocking(true)?;
                Ok(stream.into())
            }),
            Socket::Tcp(listener) => listener.accept().and_then(|(stream, _)| {
                stream.set_nonblocking(true)?;
                // Replies are small and somebody waits for each.
                stream.set_nodelay(true)?;
                Ok(stream.into())
            }),
        };
        match accepted {
            Ok(fd) => Ok(Some(fd)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for NbdListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Unix { listener, .. } => listener.as_fd(),
            Socket::Tcp(listener) => listener.as_fd(),
        }
    }
}

impl Drop for NbdListener {
    fn drop(&mut self) {
        if let Socket::Unix { path, .. } = &self.socket {
            // It may have been removed by hand already; nothing depends on it.
            drop(std::fs::remove_file(path));
        }
    }
}

fn bind_unix(path: &Path) -> anyhow::Result<NbdListener> {
    remove_stale(path)?;
    // The file is born with the mode that the mask leaves: nobody else may connect in between. The mask is the whole
    // process's, which has one thread here.
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let bound = UnixListener::bind(path);
    rustix::process::umask(mask);
    let listener = bound?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    let address = NbdAddress::Unix(path.into());
    Ok(NbdListener { socket: Socket::Unix { listener, path: path.into() }, address })
}

/// Removes the socket file of a process that is gone. One that somebody listens at, or that is no socket, stays.
fn remove_stale(path: &Path) -> anyhow::Result<()> {
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    ensure!(metadata.file_type().is_socket(), "there is a file of that name that is no socket: remove it yourself");
    match UnixStream::connect(path) {
        Ok(_) => bail!("another process listens there"),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(std::fs::remove_file(path)?),
        Err(error) => Err(error.into()),
    }
}

fn bind_tcp(host: &str, allow_remote: bool) -> anyhow::Result<NbdListener> {
    let addresses: Vec<_> = host.to_socket_addrs()?.collect();
    if !allow_remote && let Some(remote) = addresses.iter().find(|address| !address.ip().is_loopback()) {
        bail!(
            "{} can be reached from other hosts, and NBD clients are not asked for a key: use a unix socket or \
             127.0.0.1, or, on a network where everybody may read and write the volume, say --nbd-allow-remote",
            remote.ip()
        );
    }
    let listener = TcpListener::bind(&*addresses)?;
    listener.set_nonblocking(true)?;
    let address = NbdAddress::Tcp(listener.local_addr()?.to_string());
    Ok(NbdListener { socket: Socket::Tcp(listener), address })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, address) in [
            ("unix:/run/db.sock", NbdAddress::Unix("/run/db.sock".into())),
            ("unix:///run/db.sock", NbdAddress::Unix("/run/db.sock".into())),
            ("tcp:127.0.0.1:10809", NbdAddress::Tcp("127.0.0.1:10809".into())),
            ("tcp:[::1]:0", NbdAddress::Tcp("[::1]:0".into())),
        ] {
            assert_eq!(text.parse(), Ok(address), "{text}");
        }
        for text in ["", "unix:", "tcp:", "tcp:host", "tcp::10", "tcp:host:99999", "/run/db.sock", "udp:a:1"] {
            let error = text.parse::<NbdAddress>().unwrap_err();
            assert!(error.contains("write unix:/path or tcp:host:port"), "{error}");
        }
    }

    #[test]
    fn a_socket_file_is_private_replaces_a_stale_one_and_goes_with_its_listener() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nbd.sock");
        let address = NbdAddress::Unix(path.clone());
        // A std listener leaves its file behind, as a killed process does.
        drop(UnixListener::bind(&path).unwrap());
        let listener = NbdListener::bind(&address, false).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let error = NbdListener::bind(&address, false).unwrap_err();
        assert!(format!("{error:#}").contains("another process listens there"), "{error:#}");
        assert!(listener.accept().unwrap().is_some(), "the attempt above has looked whether somebody listens");
        drop(listener);
        assert!(!path.exists());
        std::fs::write(&path, "precious").unwrap();
        let error = NbdListener::bind(&address, false).unwrap_err();
        assert!(format!("{error:#}").contains("no socket"), "{error:#}");
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn tcp_beyond_loopback_takes_a_word() {
        let any = NbdAddress::Tcp("0.0.0.0:0".into());
        let error = NbdListener::bind(&any, false).unwrap_err();
        assert!(format!("{error:#}").contains("--nbd-allow-remote"), "{error:#}");
        assert!(NbdListener::bind(&any, true).is_ok());
        let listener = NbdListener::bind(&NbdAddress::Tcp("127.0.0.1:0".into()), false).unwrap();
        assert_ne!(listener.address, NbdAddress::Tcp("127.0.0.1:0".into()));
        assert!(listener.accept().unwrap().is_none());
    }
}
