//! A running pair, as a Prometheus server sees it.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use support::{Cluster, NODES};

/// What the node tells at the address that it has logged.
fn scrape(cluster: &Cluster, node: usize) -> String {
    let log = cluster.log(node);
    let (_, at) = log.split_once("telling metrics at http://").unwrap_or_else(|| panic!("no address:\n{log}"));
    let (address, _) = at.split_once("/metrics").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: san\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    page
}

#[track_caller]
fn has(page: &str, line: &str) {
    assert!(page.lines().any(|there| there == line), "{line} is not in\n{page}");
}

#[test]
fn both_nodes_tell_what_they_do_and_a_takeover_is_counted() {
    let mut cluster = Cluster::new("");
    let path = cluster.path("twinsan.toml");
    let text = fs::read_to_string(&path).unwrap();
    let text = NODES.iter().fold(text, |text, name| {
        let admin = format!("admin = \"{name}.sock\"\n");
        text.replace(&admin, &format!("{admin}metrics = \"127.0.0.1:0\"\n"))
    });
    fs::write(&path, text).unwrap();
    cluster.start(0);
    cluster.wait(0, "primary", |volume| volume.role == "primary");
    cluster.start(1);
    assert_eq!(cluster.wait_dual(), 0);
    has(&scrape(&cluster, 0), "twinsan_role{volume=\"db\",role=\"primary\"} 1.0");
    has(&scrape(&cluster, 0), "twinsan_joins_total{volume=\"db\"} 1");
    let page = scrape(&cluster, 1);
    has(&page, "twinsan_role{volume=\"db\",role=\"secondary\"} 1.0");
    has(&page, "twinsan_dual{volume=\"db\"} 1.0");
    has(&page, "twinsan_staged_bytes{volume=\"db\"} 0.0");
    has(&page, "twinsan_takeovers_total{volume=\"db\"} 0");

    cluster.kill(0);
    cluster.wait(1, "primary", |volume| volume.role == "primary");
    let page = scrape(&cluster, 1);
    has(&page, "twinsan_takeovers_total{volume=\"db\"} 1");
    has(&page, "twinsan_dual{volume=\"db\"} 0.0");
    has(&page, "twinsan_last_drain_bytes{volume=\"db\"} 0.0");
}
