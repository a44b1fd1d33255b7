//! Which fabric a URL means.

use anyhow::Result;
use twinsan_fabric::WaitPolicy;
use twinsan_network::{Network, NetworkOptions};

/// What nodes and clients run on.
pub type Product = Network;

/// Makes fabrics of one kind.
pub type Maker<'a, F> = &'a dyn Fn(WaitPolicy) -> Result<F>;

/// A fabric as the product opens it.
///
/// # Errors
/// If the system has none to give.
pub fn open(wait: WaitPolicy) -> Result<Product> {
    Ok(Network::new(NetworkOptions { wait, ..NetworkOptions::default() })?)
}

/// Whether what is sent by `url` has to lie in memory that can be lent.
#[must_use]
pub fn shares_memory(url: &str) -> bool {
    url.starts_with("shm://")
}

/// Whether both ends of a connection to `url` are on this host.
#[must_use]
pub fn is_local(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    if matches!(scheme, "unix" | "shm") {
        return true;
    }
    let host = rest.rsplit_once(':').map_or(rest, |(host, _)| host);
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || literal.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_unix_are_here() {
        for url in [
            "unix:///tmp/x",
            "shm:///tmp/x",
            "tcp://127.0.0.1:0",
            "tcp://[::1]:7",
            "tcp://localhost:1",
            "rdma://127.0.0.1:9",
        ] {
            assert!(is_local(url), "{url}");
        }
        for url in ["tcp://10.0.0.1:7", "tcp://san1:7", "tcp://[2001:db8::1]:7", "rdma://10.0.0.1:9", "nonsense"] {
            assert!(!is_local(url), "{url}");
        }
    }
}
