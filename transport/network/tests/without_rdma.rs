//! A host without RDMA: said clearly, and all the rest goes on.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use twinsan_fabric::conformance::PATIENCE;
use twinsan_fabric::{Event, Fabric, FabricError};
use twinsan_network::{Network, NetworkOptions};

const AGAIN: &str = "TWINSAN_TEST_WITHOUT_RDMA";

/// Whatever this machine has: in a process that finds a broken libibverbs in place of any. It is a child, as the library path
/// is read when a process starts.
#[test]
fn a_host_without_rdma_says_so_and_goes_on() {
    if std::env::var_os(AGAIN).is_some() {
        return no_rdma_here();
    }
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("libibverbs.so.1"), b"no library").expect("a file");
    let test = "a_host_without_rdma_says_so_and_goes_on";
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", test, "--nocapture"]).env(AGAIN, "1").env("LD_LIBRARY_PATH", folder.path());
    let output = command.output().expect("this program again");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

fn no_rdma_here() {
    let mut network = Network::new(NetworkOptions::default()).expect("an epoll");
    let told = |error: FabricError| {
        assert!(matches!(error, FabricError::NoTransport { .. }), "{error:?}");
        let told = error.to_string();
        for word in ["rdma://127.0.0.1:7471", "no RDMA here", "libibverbs.so.1", "use tcp://"] {
            assert!(told.contains(word), "no {word} in {told}");
        }
    };
    for _ in 0..2 {
        told(network.connect("rdma://127.0.0.1:7471").expect_err("no RDMA"));
        told(network.listen("rdma://127.0.0.1:7471").expect_err("no RDMA"));
    }
    // And sockets work, before and after.
    let address = network.listen("tcp://127.0.0.1:0").expect("listen");
    network.connect(&address).expect("connect");
    let (mut events, start) = (Vec::new(), Instant::now());
    while events.len() < 2 {
        network.poll(&mut events, Some(Duration::from_millis(10)));
        assert!(start.elapsed() < PATIENCE, "{events:?}");
    }
    assert!(events.iter().any(|event| matches!(event, Event::Connected { .. })), "{events:?}");
}

/// The scheme decides, and an unknown one is told all that there are.
#[test]
fn an_unknown_scheme_is_told_the_known_ones() {
    let mut network = Network::new(NetworkOptions::default()).expect("an epoll");
    let told = network.connect("iwarp://127.0.0.1:1").expect_err("no such scheme").to_string();
    assert!(told.contains("tcp://, unix://, rdma:// or shm://"), "{told}");
}
