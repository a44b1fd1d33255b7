//! What is particular to sockets: addresses, socket files, names, reasons.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket, socket_with};
use twinsan_fabric::conformance::PATIENCE;
use twinsan_fabric::{CloseReason, ConnId, Event, Fabric, FabricError, WaitPolicy};
use twinsan_tcp::{TcpFabric, TcpOptions};

use crate::setups::fabric;

/// Polls until `fabric` says how `conn` went.
fn outcome(fabric: &mut TcpFabric, conn: ConnId) -> Result<(), CloseReason> {
    let (start, mut events) = (Instant::now(), Vec::new());
    loop {
        fabric.poll(&mut events, Some(PATIENCE));
        for event in events.drain(..) {
            match event {
                Event::Connected { conn: on } if on == conn => return Ok(()),
                Event::Closed { conn: on, why } if on == conn => return Err(why),
                _ => {}
            }
        }
        assert!(start.elapsed() < PATIENCE, "neither connected nor closed");
    }
}

fn unix_address(path: &Path) -> String {
    format!("unix://{}", path.display())
}

fn bound_unix_socket(path: &Path) -> OwnedFd {
    let bound = socket(AddressFamily::UNIX, SocketType::STREAM, None).expect("a socket");
    bind(&bound, &SocketAddrUnix::new(path).expect("a short path")).expect("bind");
    bound
}

#[test]
fn a_dead_process_socket_file_is_replaced() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("s");
    // A socket that was closed without its file being removed, as by SIGKILL.
    drop(bound_unix_socket(&path));
    assert!(path.exists());
    let mut server = fabric();
    let address = server.listen(&unix_address(&path)).expect("the way is clear");
    let mut client = fabric();
    let conn = client.connect(&address).expect("connect");
    assert_eq!(outcome(&mut client, conn), Ok(()));
}

#[test]
fn a_live_listener_is_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("s");
    let _first = {
        let mut first = fabric();
        first.listen(&unix_address(&path)).expect("listen");
        first
    };
    let error = fabric().listen(&unix_address(&path)).expect_err("taken");
    assert!(error.to_string().contains("live process"), "{error}");
    // Also one whose backlog is full.
    let full = directory.path().join("full");
    let _held = fill_backlog(&full);
    let error = fabric().listen(&unix_address(&full)).expect_err("taken");
    assert!(error.to_string().contains("live process"), "{error}");
}

#[test]
fn another_kind_of_file_is_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("notes.txt");
    fs::write(&path, "mine").expect("a file");
    let error = fabric().listen(&unix_address(&path)).expect_err("a file");
    assert!(error.to_string().contains("not a socket"), "{error}");
    assert_eq!(fs::read_to_string(&path).expect("still there"), "mine");
}

#[test]
fn the_socket_file_goes_with_its_fabric_and_another_of_its_name_stays() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("s");
    let mut first = fabric();
    first.listen(&unix_address(&path)).expect("listen");
    drop(first);
    assert!(!path.exists());
    let mut second = fabric();
    second.listen(&unix_address(&path)).expect("listen");
    fs::remove_file(&path).expect("somebody removes it");
    let _other = bound_unix_socket(&path);
    drop(second);
    assert!(path.exists(), "another's socket was removed");
}

#[test]
fn listening_where_nothing_can_be_is_an_error() {
    let directory = tempfile::tempdir().expect("a directory");
    let nowhere = unix_address(&directory.path().join("no/such/directory/s"));
    assert!(matches!(fabric().listen(&nowhere), Err(FabricError::Io { .. })));
    // TEST-NET-1 (RFC 5737) is no address of this host.
    assert!(matches!(fabric().listen("tcp://192.0.2.1:7000"), Err(FabricError::Io { .. })));
}

/// A listener that never accepts, and the connections that fill its backlog.
fn fill_backlog(path: &Path) -> Vec<OwnedFd> {
    let listener = bound_unix_socket(path);
    listen(&listener, 0).expect("listen");
    let address = SocketAddrUnix::new(path).expect("a short path");
    let mut held = vec![listener];
    loop {
        let next = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None).expect("a socket");
        match connect(&next, &address) {
            Ok(()) => held.push(next),
            Err(rustix::io::Errno::AGAIN) => return held,
            Err(e) => panic!("{e}"),
        }
    }
}

fn impatient() -> TcpFabric {
    TcpFabric::new(TcpOptions { connect_timeout: Duration::from_millis(50), ..TcpOptions::default() })
        .expect("an epoll")
}

#[test]
fn silence_is_unreachable() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("full");
    let _held = fill_backlog(&path);
    let mut client = impatient();
    let conn = client.connect(&unix_address(&path)).expect("connect");
    let why = outcome(&mut client, conn).expect_err("nobody accepts");
    assert_eq!(why, CloseReason::Unreachable("no answer within 50 ms".into()));
}

#[test]
fn a_full_backlog_is_waited_out() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("full");
    let held = fill_backlog(&path);
    let mut client = fabric();
    let conn = client.connect(&unix_address(&path)).expect("connect");
    let mut events = Vec::new();
    client.poll(&mut events, None);
    assert!(events.is_empty(), "{events:?}");
    let _accepted = rustix::net::accept(held[0].as_fd()).expect("one of those that wait");
    assert_eq!(outcome(&mut client, conn), Ok(()));
}

#[test]
fn a_missing_socket_file_is_refused() {
    let mut client = fabric();
    let conn = client.connect("unix:///nonexistent/s").expect("connect");
    assert_eq!(outcome(&mut client, conn), Err(CloseReason::Refused));
}

#[test]
fn a_name_is_resolved_and_all_its_addresses_are_tried() {
    // Bound to IPv4 only: where the name also means ::1, that one refuses.
    let mut server = fabric();
    let address = server.listen("tcp://127.0.0.1:0").expect("listen");
    let port = address.strip_prefix("tcp://127.0.0.1:").expect("as asked");
    let mut client = fabric();
    let conn = client.connect(&format!("tcp://localhost:{port}")).expect("connect");
    assert_eq!(outcome(&mut client, conn), Ok(()));
}

#[test]
fn a_name_that_means_nothing_is_unreachable() {
    let mut client = fabric();
    // More than are resolved at once; none may be forgotten. RFC 6761: .invalid never resolves.
    let conns: Vec<_> = (0..20).map(|_| client.connect("tcp://twinsan.invalid:7000").expect("connect")).collect();
    let (mut closed, mut events) = (Vec::new(), Vec::new());
    let start = Instant::now();
    while closed.len() < conns.len() {
        client.poll(&mut events, Some(PATIENCE));
        for event in events.drain(..) {
            match event {
                Event::Closed { conn, why: CloseReason::Unreachable(_) } => closed.push(conn),
                other => panic!("{other:?}"),
            }
        }
        assert!(start.elapsed() < PATIENCE, "forgotten");
    }
    closed.sort_unstable();
    assert_eq!(closed, conns);
}

#[test]
fn a_port_that_is_only_bound_refuses() {
    let held = socket(AddressFamily::INET6, SocketType::STREAM, None).expect("a socket");
    bind(&held, &SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 0))).expect("a port");
    let port = SocketAddr::try_from(rustix::net::getsockname(&held).expect("name")).expect("an IP address").port();
    let mut client = fabric();
    let conn = client.connect(&format!("tcp://[::1]:{port}")).expect("connect");
    assert_eq!(outcome(&mut client, conn), Err(CloseReason::Refused));
}

/// Spinning finds the same events, and ends.
#[test]
fn a_spinning_fabric_works_the_same() {
    let spin = WaitPolicy { spin: Duration::from_micros(200) };
    let spinning = || TcpFabric::new(TcpOptions { wait: spin, ..TcpOptions::default() }).expect("an epoll");
    let (mut server, mut client) = (spinning(), spinning());
    let address = server.listen("tcp://127.0.0.1:0").expect("listen");
    let conn = client.connect(&address).expect("connect");
    assert_eq!(outcome(&mut client, conn), Ok(()));
    let mut events = Vec::new();
    assert_eq!(server.poll(&mut events, Some(PATIENCE)), 1);
    assert_eq!(server.poll(&mut events, Some(Duration::from_millis(1))), 0);
    client.send(conn, b"hello").expect("a post");
    client.submit(conn);
    assert_eq!(server.poll(&mut events, Some(PATIENCE)), 1);
    assert!(matches!(&events[..], [Event::Accepted { .. }, Event::Message { bytes, .. }] if **bytes == *b"hello"));
}
