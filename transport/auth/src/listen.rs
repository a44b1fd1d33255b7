//! Where a volume without a key may be served.

use std::net::SocketAddr;

/// Whether only this host can reach `address`: a unix socket that stands in the filesystem (whose permissions guard
/// it), or TCP on a loopback address given in digits. What a name stands for is not known here, so `localhost` is not
/// taken either.
#[must_use]
pub fn may_listen_without_key(address: &str) -> bool {
    if let Some(path) = address.strip_prefix("unix://") {
        return path.starts_with('/') && path.len() > 1;
    }
    let Some(socket) = address.strip_prefix("tcp://") else { return false };
    socket.parse::<SocketAddr>().is_ok_and(|socket| socket.ip().to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::may_listen_without_key;

    #[test]
    fn this_host_only() {
        for address in [
            "unix:///run/twinsan/san1.sock",
            "tcp://127.0.0.1:7000",
            "tcp://127.9.9.9:0",
            "tcp://[::1]:7000",
            "tcp://[::ffff:127.0.0.1]:7000",
        ] {
            assert!(may_listen_without_key(address), "{address}");
        }
    }

    #[test]
    fn everything_else_needs_a_key() {
        for address in [
            "",
            "tcp://0.0.0.0:7000",
            "tcp://[::]:7000",
            "tcp://192.168.1.2:7000",
            "tcp://[::ffff:10.0.0.1]:7000",
            "tcp://128.0.0.1:7000",
            "tcp://localhost:7000",
            "tcp://127.0.0.1.example.com:7000",
            "tcp://127.0.0.1",
            "TCP://127.0.0.1:7000",
            "127.0.0.1:7000",
            "unix://",
            "unix:///",
            "unix://@abstract",
            "unix:/run/x.sock",
            "verbs://127.0.0.1:7000",
        ] {
            assert!(!may_listen_without_key(address), "{address}");
        }
    }
}
