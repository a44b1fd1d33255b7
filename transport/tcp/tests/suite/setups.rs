//! Pairs of fabrics for the conformance suite.

use std::sync::atomic::{AtomicU64, Ordering};

use twinsan_fabric::Fabric;
use twinsan_fabric::conformance::Setup;
use twinsan_fabric::faulty::{Faults, FaultyFabric};
use twinsan_tcp::{TcpFabric, TcpOptions};

/// A fabric with default options.
pub(crate) fn fabric() -> TcpFabric {
    TcpFabric::new(TcpOptions::default()).expect("an epoll")
}

/// Over TCP, through 127.0.0.1.
pub(crate) fn tcp() -> Setup {
    // Bound and not listening: nobody else gets the port while the test runs, and whoever connects is refused.
    let (nobody, held) = unused_port();
    setup(fabric(), fabric(), "tcp://127.0.0.1:0".into(), nobody, held)
}

/// Over TCP, through ::1.
pub(crate) fn tcp6() -> Setup {
    Setup { address: "tcp://[::1]:0".into(), ..tcp() }
}

/// Over unix sockets.
pub(crate) fn unix() -> Setup {
    unix_of(fabric(), fabric())
}

/// Over TCP with the fault injector on both ends; a seed of its own each time.
pub(crate) fn faulty() -> Setup {
    let (left, right) = faulty_fabrics();
    let (nobody, held) = unused_port();
    setup(left, right, "tcp://127.0.0.1:0".into(), nobody, held)
}

/// Over unix sockets with the fault injector on both ends.
pub(crate) fn faulty_unix() -> Setup {
    let (left, right) = faulty_fabrics();
    unix_of(left, right)
}

fn faulty_fabrics() -> (FaultyFabric<TcpFabric>, FaultyFabric<TcpFabric>) {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let seed = NEXT.fetch_add(2, Ordering::Relaxed);
    let wrap = |seed| FaultyFabric::new(fabric(), Faults::with_seed(seed));
    (wrap(seed), wrap(seed + 1))
}

fn unix_of(left: impl Fabric + 'static, right: impl Fabric + 'static) -> Setup {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| format!("unix://{}", directory.path().join(name).display());
    let (address, nobody) = (path("fabric.sock"), path("nobody.sock"));
    setup(left, right, address, nobody, directory)
}

fn setup(
    left: impl Fabric + 'static,
    right: impl Fabric + 'static,
    address: String,
    nobody: String,
    keep: impl std::any::Any,
) -> Setup {
    Setup { left: Box::new(left), right: Box::new(right), address, nobody, keep: Box::new(keep) }
}

/// An address that refuses connections, and what keeps it so.
fn unused_port() -> (String, impl std::any::Any) {
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};
    let held = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    let any: std::net::SocketAddr = ([127, 0, 0, 1], 0).into();
    bind(&held, &any).expect("a port");
    let bound = std::net::SocketAddr::try_from(getsockname(&held).expect("its name")).expect("an IP address");
    (format!("tcp://{bound}"), held)
}
