use std::collections::BTreeMap;

use twinsan_control::admin::{DiskPathStatus, DrainStatus, NodeStatus, VolumeStatus};

use super::*;
use crate::doorbell::Doorbell;

/// A node with one volume in which everything that may be absent is there.
fn node() -> NodeStatus {
    let path =
        DiskPathStatus { name: "sda".into(), hctl: "2:0:0:0".into(), state: "active".into(), ..Default::default() };
    let mut volume = VolumeStatus {
        name: "db".into(),
        uuid: String::new(),
        size_bytes: 1 << 20,
        block_bytes: 4096,
        role: "primary".into(),
        incarnation: String::new(),
        epoch: 7,
        primary: None,
        members: Vec::new(),
        joiner: None,
        dual: true,
        clean: false,
        generation: 1,
        session: None,
        peer: twinsan_control::admin::PeerStatus::default(),
        handover: twinsan_control::admin::HandoverStatus::default(),
        lane: twinsan_control::admin::LaneStatus::default(),
        memory: twinsan_control::admin::MemoryStatus::default(),
        disk: twinsan_control::admin::DiskStatus { paths: vec![path], errors: 3, ..Default::default() },
        counters: BTreeMap::from([("takeovers".to_owned(), 2)]),
    };
    volume.lane.staged_bytes = 12_288;
    volume.lane.staged_age_ms = 1500;
    volume.lane.copies = 2;
    volume.lane.last_drain = Some(DrainStatus { blobs: 3, bytes: 12_288, ms: 250 });
    NodeStatus { node: "san1".into(), version: "0.1.0".into(), pid: 1, uptime_ms: 2000, volumes: vec![volume] }
}

#[test]
fn what_is_only_in_ram_is_told_by_volume() {
    let text = exposition::text(&node());
    for line in [
        "# TYPE twinsan_staged_bytes gauge",
        "twinsan_build_info{node=\"san1\",version=\"0.1.0\"} 1.0",
        "twinsan_uptime_seconds 2.0",
        "twinsan_staged_bytes{volume=\"db\"} 12288.0",
        "twinsan_staged_age_seconds{volume=\"db\"} 1.5",
        "twinsan_staged_copies{volume=\"db\"} 2.0",
        "twinsan_last_drain_seconds{volume=\"db\"} 0.25",
        "twinsan_role{volume=\"db\",role=\"primary\"} 1.0",
        "twinsan_role{volume=\"db\",role=\"fenced\"} 0.0",
        "twinsan_disk_errors_total{volume=\"db\"} 3",
        "twinsan_disk_path_active{volume=\"db\",path=\"sda\",hctl=\"2:0:0:0\"} 1.0",
        "twinsan_takeovers_total{volume=\"db\"} 2",
    ] {
        assert!(text.lines().any(|there| there == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("twinsan_drain_seconds{"), "what is not known is not told\n{text}");
    assert!(text.ends_with("# EOF\n"));
}

/// The page, asked of a thread that is answered `times` times.
fn running(times: usize) -> SocketAddr {
    let (asker, mut requests) = Asker::new(&[Doorbell::new().unwrap()], vec!["db".to_owned()]);
    let requests = requests.remove(0);
    let bound = start("127.0.0.1:0".parse().unwrap(), asker).unwrap();
    thread::spawn(move || {
        for _ in 0..times {
            requests.recv().unwrap().answer.send(Response::Status(Box::new(node()))).unwrap();
        }
    });
    bound
}

fn says(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn it_is_scraped_by_http() {
    let address = running(1);
    let answer = says(address, b"GET /metrics?x=y HTTP/1.1\r\nHost: san1\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
    assert!(head.contains(OPEN_METRICS), "{head}");
    // One metric's labels come in any order.
    let sorted = |text: &str| text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(sorted(body), sorted(&exposition::text(&node())));
    // The reactor is gone: said, not waited for.
    let answer = says(address, b"GET /metrics HTTP/1.1\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
}

#[test]
fn whatever_else_is_asked_is_refused_in_words() {
    let address = running(0);
    for (request, status, words) in [
        ("GET / HTTP/1.1\r\n\r\n", "404 Not Found", "the metrics are at /metrics"),
        ("POST /metrics HTTP/1.1\r\n\r\n", "405 Method Not Allowed", "GET /metrics"),
        ("NBDMAGIC\0\0\0\0\r\n\r\n", "400 Bad Request", "no HTTP request"),
    ] {
        let answer = says(address, request.as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")) && answer.contains(words), "{answer}");
    }
    let long = format!("GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(MAX_HTTP_HEAD));
    assert!(says(address, long.as_bytes()).starts_with("HTTP/1.1 431 "));
}

/// One who says nothing has his time, then the next one is served.
#[test]
fn a_silent_scrape_ends() {
    let address = running(1);
    let silent = TcpStream::connect(address).unwrap();
    let gone = TcpStream::connect(address).unwrap();
    drop(gone);
    let answer = says(address, b"GET /metrics HTTP/1.1\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    drop(silent);
}

#[test]
fn an_address_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (asker, _requests) = Asker::new(&[Doorbell::new().unwrap()], vec!["db".to_owned()]);
    let message = format!("{:#}", start(address, asker).unwrap_err());
    assert!(message.starts_with(&format!("metrics = \"{address}\": Address already in use")), "{message}");
}
