//! The suite over sockets and shared memory, through the composite. Over RDMA it is `rdma-conformance`, in the lab.

use std::os::fd::OwnedFd;

use twinsan_fabric::conformance::Setup;
use twinsan_fabric::{Fabric, conformance_tests};
use twinsan_network::{Network, NetworkOptions};

conformance_tests!(over_tcp, tcp);
conformance_tests!(over_unix, unix);
conformance_tests!(over_shm, shm);

fn network() -> Box<dyn Fabric> {
    Box::new(Network::new(NetworkOptions::default()).expect("an epoll"))
}

fn tcp() -> Setup {
    // Bound and not listening: nobody else gets the port while the test runs, and whoever connects is refused.
    let (nobody, held) = unused_port();
    Setup { left: network(), right: network(), address: "tcp://127.0.0.1:0".into(), nobody, keep: Box::new(held) }
}

fn unix() -> Setup {
    by_path("unix")
}

fn shm() -> Setup {
    by_path("shm")
}

fn by_path(scheme: &str) -> Setup {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| format!("{scheme}://{}", folder.path().join(name).display());
    let (address, nobody) = (path("fabric.sock"), path("nobody.sock"));
    Setup { left: network(), right: network(), address, nobody, keep: Box::new(folder) }
}

/// An address that refuses connections, and what keeps it so.
fn unused_port() -> (String, OwnedFd) {
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};
    let held = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    let any: std::net::SocketAddr = ([127, 0, 0, 1], 0).into();
    bind(&held, &any).expect("a port");
    let bound = std::net::SocketAddr::try_from(getsockname(&held).expect("its name")).expect("an IP address");
    (format!("tcp://{bound}"), held)
}
