//! Where a node is reached.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// A path longer than this does not fit a `sockaddr_un` with its final zero (unix(7)).
pub(super) const MAX_UNIX_PATH: usize = 107;

/// One address; `Display` gives the fabric's form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// `tcp://host:port`, `tcp://[v6]:port`.
    Tcp {
        /// A name or a literal; IPv6 without its brackets.
        host: String,
        /// 1 to 65535.
        port: u16,
    },
    /// `unix:///absolute/path`.
    Unix(PathBuf),
    /// `shm:///absolute/path`: a socket too, by which two processes come to share memory.
    Shm(PathBuf),
    /// `rdma://host:port`, `rdma://[v6]:port`.
    Rdma {
        /// A name or a literal of an RDMA device; IPv6 without its brackets.
        host: String,
        /// 1 to 65535, of a port space of RDMA's own.
        port: u16,
    },
}

/// Why a text is no [`Address`]: what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AddressError(pub(super) String);

impl Address {
    /// From its text; a relative path counts from `base`.
    ///
    /// # Errors
    /// [`AddressError`] says what would be right.
    pub fn parse(text: &str, base: &Path) -> Result<Self, AddressError> {
        if let Some(rest) = text.strip_prefix("tcp://") {
            let (host, port) = parse_host("tcp", rest)?;
            return Ok(Self::Tcp { host, port });
        }
        if let Some(rest) = text.strip_prefix("rdma://") {
            let (host, port) = parse_host("rdma", rest)?;
            return Ok(Self::Rdma { host, port });
        }
        if let Some(rest) = text.strip_prefix("unix://") {
            return Ok(Self::Unix(parse_path("unix", rest, base)?));
        }
        if let Some(rest) = text.strip_prefix("shm://") {
            return Ok(Self::Shm(parse_path("shm", rest, base)?));
        }
        let right = "write \"tcp://host:port\", \"rdma://host:port\", \"unix:///path\" or \"shm:///path\"";
        Err(AddressError(right.to_owned()))
    }

    /// That of a node's reactor, where this is the first one's; `None`: there is no such port, or the path is too long.
    #[must_use]
    pub fn of_reactor(&self, reactor: usize) -> Option<Self> {
        let port = |port: u16| port.checked_add(u16::try_from(reactor).ok()?);
        let path = |path: &Path| {
            let mut path = path.as_os_str().to_owned();
            if reactor > 0 {
                path.push(format!(".{reactor}"));
            }
            (path.len() <= MAX_UNIX_PATH).then(|| PathBuf::from(path))
        };
        Some(match self {
            Self::Tcp { host, port: first } => Self::Tcp { host: host.clone(), port: port(*first)? },
            Self::Rdma { host, port: first } => Self::Rdma { host: host.clone(), port: port(*first)? },
            Self::Unix(first) => Self::Unix(path(first)?),
            Self::Shm(first) => Self::Shm(path(first)?),
        })
    }

    /// Of a TCP socket.
    #[must_use]
    pub fn of_tcp(at: SocketAddr) -> Self {
        Self::Tcp { host: at.ip().to_string(), port: at.port() }
    }

    /// Whether who listens at the one is in the way of who listens at the other.
    #[must_use]
    pub fn is_in_the_way_of(&self, other: &Self) -> bool {
        self == other || (self.path().is_some() && self.path() == other.path())
    }

    /// The socket's file, if it has one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Unix(path) | Self::Shm(path) => Some(path),
            Self::Tcp { .. } | Self::Rdma { .. } => None,
        }
    }

    /// Whether only this host can reach it. What a name stands for is not known here, so `localhost` does not count.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) | Self::Shm(_) => true,
            Self::Tcp { host, .. } => host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback()),
            // The connection manager binds a loopback address to the first real device.
            Self::Rdma { .. } => false,
        }
    }
}

/// The path of an address with `scheme`.
fn parse_path(scheme: &str, rest: &str, base: &Path) -> Result<PathBuf, AddressError> {
    if rest.is_empty() {
        return Err(AddressError(format!("write \"{scheme}:///path\"")));
    }
    let path = base.join(rest);
    let len = path.as_os_str().len();
    if len > MAX_UNIX_PATH {
        let path = path.display();
        return Err(AddressError(format!("{path} has {len} bytes, a socket's path has at most {MAX_UNIX_PATH}")));
    }
    Ok(path)
}

/// `host:port` of an address with `scheme`.
fn parse_host(scheme: &str, rest: &str) -> Result<(String, u16), AddressError> {
    let wrong = || AddressError(format!("write \"{scheme}://host:port\", an IPv6 address in brackets"));
    let (host, port) = rest.rsplit_once(':').ok_or_else(wrong)?;
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => v6,
        None if host.contains(':') => return Err(wrong()),
        None => host,
    };
    if host.is_empty() || host.contains(['/', '[', ']']) || host.contains(char::is_whitespace) {
        return Err(wrong());
    }
    let port = match port.parse::<u16>() {
        Ok(0) | Err(_) => return Err(AddressError(format!("\"{port}\" is no port: write 1 to 65535"))),
        Ok(port) => port,
    };
    if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified()) {
        return Err(AddressError(format!(
            "{host} is every address of this host; name the one that the other node and the clients dial"
        )));
    }
    Ok((host.to_owned(), port))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, host, port) = match self {
            Self::Tcp { host, port } => ("tcp", host, port),
            Self::Rdma { host, port } => ("rdma", host, port),
            Self::Unix(path) => return write!(f, "unix://{}", path.display()),
            Self::Shm(path) => return write!(f, "shm://{}", path.display()),
        };
        if host.contains(':') { write!(f, "{scheme}://[{host}]:{port}") } else { write!(f, "{scheme}://{host}:{port}") }
    }
}
