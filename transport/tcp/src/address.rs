//! `tcp://host:port` and `unix:///path`.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use twinsan_fabric::FabricError;
use twinsan_fabric::parts::socket_path;

/// What an address says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// A literal IP address.
    Ip(SocketAddr),
    /// A host name, to be resolved.
    Name { host: String, port: u16 },
    /// A unix socket.
    Unix(PathBuf),
}

/// Something to bind or connect a socket to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// TCP.
    Ip(SocketAddr),
    /// Unix stream.
    Unix(PathBuf),
}

impl Address {
    /// Reads `text`.
    ///
    /// # Errors
    /// [`FabricError::Address`], which says what would be right.
    pub(crate) fn parse(text: &str) -> Result<Self, FabricError> {
        let bad = |why: &str| FabricError::Address { address: text.to_owned(), why: why.to_owned() };
        if let Some(path) = text.strip_prefix("unix://") {
            return socket_path("unix://", path).map(Self::Unix).map_err(|why| bad(&why));
        }
        let rest = text.strip_prefix("tcp://").ok_or_else(|| bad("it begins with tcp:// or unix://"))?;
        if let Ok(ip) = rest.parse::<SocketAddr>() {
            return Ok(Self::Ip(ip));
        }
        let (host, port) = rest.rsplit_once(':').ok_or_else(|| bad("the port is missing: tcp://host:port"))?;
        let port = port.parse().map_err(|_| bad("the port is a number from 0 to 65535: tcp://host:port"))?;
        if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) {
            return Err(bad("an IPv6 address stands in brackets: tcp://[::1]:7000"));
        }
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if host.is_empty() || !host.chars().all(legal) {
            return Err(bad("the host is a name, an IPv4 address or an IPv6 address in brackets: tcp://host:port"));
        }
        Ok(Self::Name { host: host.to_owned(), port })
    }

    /// The endpoints that it stands for, at least one. Asks the system's resolver for a name, which may block.
    ///
    /// # Errors
    /// A text that says why there is none.
    pub(crate) fn resolve(&self) -> Result<Vec<Endpoint>, String> {
        match self {
            Self::Ip(ip) => Ok(vec![Endpoint::Ip(*ip)]),
            Self::Unix(path) => Ok(vec![Endpoint::Unix(path.clone())]),
            Self::Name { host, port } => {
                let found = (host.as_str(), *port).to_socket_addrs().map_err(|e| format!("host {host}: {e}"))?;
                let endpoints: Vec<_> = found.map(Endpoint::Ip).collect();
                if endpoints.is_empty() { Err(format!("host {host} has no address")) } else { Ok(endpoints) }
            }
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => write!(f, "tcp://{ip}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_ones() {
        let ip = |text: &str| Address::Ip(text.parse().expect("a socket address"));
        assert_eq!(Address::parse("tcp://127.0.0.1:0").expect("IPv4"), ip("127.0.0.1:0"));
        assert_eq!(Address::parse("tcp://[::1]:7000").expect("IPv6"), ip("[::1]:7000"));
        let name = Address::Name { host: "san1.example".into(), port: 7000 };
        assert_eq!(Address::parse("tcp://san1.example:7000").expect("name"), name);
        assert_eq!(Address::parse("unix:///run/x.sock").expect("path"), Address::Unix("/run/x.sock".into()));
    }

    #[test]
    fn bad_ones_say_what_would_be_right() {
        let refused = |text: &str, word: &str| {
            let error = Address::parse(text).expect_err(text).to_string();
            assert!(error.contains(word) && error.contains(text), "{error}");
        };
        refused("127.0.0.1:7000", "begins with tcp://");
        refused("rdma://h:1", "begins with tcp://");
        refused("tcp://host", "port is missing");
        refused("tcp://host:http", "port is a number");
        refused("tcp://host:65536", "port is a number");
        refused("tcp://::1:7000", "brackets");
        refused("tcp://:7000", "host is a name");
        refused("tcp://a b:7000", "host is a name");
        refused("unix://run/x.sock", "absolute");
        refused("unix:x.sock", "begins with tcp://");
        refused(&format!("unix:///{}", "x".repeat(107)), "108 bytes");
    }

    #[test]
    fn endpoints_print_as_addresses() {
        for text in ["tcp://127.0.0.1:7000", "tcp://[::1]:7000", "unix:///run/x.sock"] {
            let found = Address::parse(text).expect("good").resolve().expect("literal");
            assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), [text]);
        }
    }
}
