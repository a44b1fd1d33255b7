//! `rdma://host:port`.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use twinsan_fabric::FabricError;

/// What an address says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// A literal IP address.
    Ip(SocketAddr),
    /// A host name, to be resolved.
    Name { host: String, port: u16 },
}

impl Address {
    /// Reads `text`.
    ///
    /// # Errors
    /// [`FabricError::Address`], which says what would be right.
    pub(crate) fn parse(text: &str) -> Result<Self, FabricError> {
        let bad = |why: &str| FabricError::Address { address: text.to_owned(), why: why.to_owned() };
        let rest = text.strip_prefix("rdma://").ok_or_else(|| bad("it begins with rdma://"))?;
        if let Ok(ip) = rest.parse::<SocketAddr>() {
            return Ok(Self::Ip(ip));
        }
        let (host, port) = rest.rsplit_once(':').ok_or_else(|| bad("the port is missing: rdma://host:port"))?;
        let port = port.parse().map_err(|_| bad("the port is a number from 0 to 65535: rdma://host:port"))?;
        if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) {
            return Err(bad("an IPv6 address stands in brackets: rdma://[fd00::1]:7000"));
        }
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if host.is_empty() || !host.chars().all(legal) {
            return Err(bad("the host is a name, an IPv4 address or an IPv6 address in brackets: rdma://host:port"));
        }
        Ok(Self::Name { host: host.to_owned(), port })
    }

    /// The addresses that it stands for, at least one. Asks the system's resolver for a name, which may block.
    ///
    /// # Errors
    /// A text that says why there is none.
    pub(crate) fn resolve(&self) -> Result<Vec<SocketAddr>, String> {
        match self {
            Self::Ip(ip) => Ok(vec![*ip]),
            Self::Name { host, port } => {
                let found = (host.as_str(), *port).to_socket_addrs().map_err(|e| format!("host {host}: {e}"))?;
                let found: Vec<_> = found.collect();
                if found.is_empty() { Err(format!("host {host} has no address")) } else { Ok(found) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_ones() {
        let ip = |text: &str| Address::Ip(text.parse().expect("a socket address"));
        assert_eq!(Address::parse("rdma://10.4.0.1:0").expect("IPv4"), ip("10.4.0.1:0"));
        assert_eq!(Address::parse("rdma://[fd00::1]:7000").expect("IPv6"), ip("[fd00::1]:7000"));
        let name = Address::Name { host: "san1.example".into(), port: 7000 };
        assert_eq!(Address::parse("rdma://san1.example:7000").expect("name"), name);
    }

    #[test]
    fn bad_ones_say_what_would_be_right() {
        let refused = |text: &str, word: &str| {
            let error = Address::parse(text).expect_err(text).to_string();
            assert!(error.contains(word) && error.contains(text), "{error}");
        };
        refused("10.4.0.1:7000", "begins with rdma://");
        refused("tcp://h:1", "begins with rdma://");
        refused("rdma://host", "port is missing");
        refused("rdma://host:http", "port is a number");
        refused("rdma://host:65536", "port is a number");
        refused("rdma://::1:7000", "brackets");
        refused("rdma://:7000", "host is a name");
        refused("rdma://a b:7000", "host is a name");
    }
}
