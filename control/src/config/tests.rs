//! Every way to get the file wrong, and the exact words that the operator reads.

use super::*;

const NODES: &str = r#"
    [[node]]
    name = "san1"
    listen = ["tcp://127.0.0.1:7401", "unix:///run/twinsan/san1.fabric"]
    admin = "/run/twinsan/san1.sock"
    [[node]]
    name = "san2"
    listen = ["tcp://[::1]:7402"]
    admin = "san2.sock"
"#;

const VOLUME: &str = r#"
    [[volume]]
    name = "db"
    disk = "db.img"
    fence = "local-lock"
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/etc/twinsan/twinsan.toml"))
}

/// The message that `text` is refused with.
fn refusal(text: &str) -> String {
    parse(text).expect_err("this must be refused").to_string()
}

/// The good file with one piece of text replaced.
fn with(from: &str, to: &str) -> String {
    let good = format!("{NODES}{VOLUME}");
    assert!(good.contains(from), "the replacement must replace something: {from}");
    good.replacen(from, to, 1)
}

/// Checks the whole message after the file's name.
#[track_caller]
fn refused(text: &str, message: &str) {
    assert_eq!(refusal(text), format!("/etc/twinsan/twinsan.toml: {message}"));
}

/// A message of the TOML parser's own: it shows the line and ends in the reason.
#[track_caller]
fn refused_by_parser(text: &str, line: &str, reason: &str) {
    let message = refusal(text);
    assert!(message.starts_with("/etc/twinsan/twinsan.toml: TOML parse error at line "), "{message}");
    assert!(message.contains(line), "{message}");
    assert!(message.trim_end().ends_with(reason), "{message}");
}

/// Both hosts may tell theirs at the same address of their own.
#[test]
fn metrics_are_told_at_an_ip_address_and_port() {
    let admins = ["\"/run/twinsan/san1.sock\"", "\"san2.sock\""];
    let told = |text: &str| {
        let nodes = admins.iter().fold(format!("{NODES}{VOLUME}"), |file, admin| {
            file.replacen(&format!("admin = {admin}"), &format!("admin = {admin}\nmetrics = \"{text}\""), 1)
        });
        parse(&nodes)
    };
    let config = told("127.0.0.1:9466").unwrap();
    assert_eq!(config.nodes.map(|node| node.metrics), [Some("127.0.0.1:9466".parse().unwrap()); 2]);
    for wrong in ["9466", "localhost:9466", "127.0.0.1", "[::1]", "http://127.0.0.1:9466", ""] {
        let message = told(wrong).expect_err("refused").to_string();
        let expected = format!(
            "/etc/twinsan/twinsan.toml: node \"san1\": metrics = \"{wrong}\": write an IP address and a port, like \
             \"127.0.0.1:9466\" or \"[::1]:9466\""
        );
        assert_eq!(message, expected);
    }
    let message = told("127.0.0.1:7401").expect_err("refused").to_string();
    assert!(
        message.ends_with("metrics = \"127.0.0.1:7401\": the node listens there for clients; give each its own port")
    );
}

#[test]
fn each_reactor_has_volumes_and_addresses_of_its_own() {
    let volumes = format!("{VOLUME}{}", VOLUME.replace("db", "log"));
    let file = |reactors: u64, second: &str| {
        format!("reactors = {reactors}\n{}{volumes}", NODES.replace("tcp://[::1]:7402", second))
    };
    let config = parse(&file(2, "tcp://127.0.0.1:7403")).unwrap();
    let told = |node, volume: &str| {
        let addresses = config.addresses_of(node, config.volume(volume).unwrap());
        addresses.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(config.reactors, 2);
    assert_eq!(told(NodeId::A, "db"), ["tcp://127.0.0.1:7401", "unix:///run/twinsan/san1.fabric"]);
    assert_eq!(told(NodeId::A, "log"), ["tcp://127.0.0.1:7402", "unix:///run/twinsan/san1.fabric.1"]);
    assert_eq!(told(NodeId::B, "log"), ["tcp://127.0.0.1:7404"]);
    let wrong = |file: &str, message: &str| refused(file, &format!("at the top: reactors = {message}"));
    wrong(&file(0, "tcp://[::1]:7402"), "0: each serves a volume, and there are 2; write 1 to 2");
    wrong(&file(3, "tcp://[::1]:7402"), "3: each serves a volume, and there are 2; write 1 to 2");
    wrong(
        &file(2, "tcp://127.0.0.1:7402"),
        "2: reactor 0 of san2 would listen at tcp://127.0.0.1:7402, which is reactor 1's of san1; leave 2 ports (or \
         names) to each address",
    );
    let file_with_metrics =
        file(2, "tcp://[::1]:7403").replacen("listen =", "metrics = \"127.0.0.1:7402\"\nlisten =", 1);
    wrong(
        &file_with_metrics,
        "2: reactor 1 of san1 would listen at tcp://127.0.0.1:7402, which is where san1 tells its metrics; leave 2 ports (or \
         names) to each address",
    );
    wrong(
        &file(2, "tcp://[::1]:65535"),
        "2: reactor 1 of san2 would have no address beside tcp://[::1]:65535: no such port, or too long a path",
    );
}

#[test]
fn the_least_file_has_sensible_defaults() {
    let config = parse(&format!("{NODES}{VOLUME}")).unwrap();
    let [san1, san2] = &config.nodes;
    assert_eq!(san1.name, "san1");
    assert_eq!(
        san1.listen.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["tcp://127.0.0.1:7401", "unix:///run/twinsan/san1.fabric"]
    );
    assert_eq!(san2.listen[0].to_string(), "tcp://[::1]:7402");
    assert_eq!(san2.admin, Path::new("/etc/twinsan/san2.sock"));
    assert_eq!(san1.metrics, None);
    let [volume] = &config.volumes[..] else { panic!("one volume") };
    assert_eq!(volume.name.as_str(), "db");
    assert_eq!(volume.disk, Path::new("/etc/twinsan/db.img"));
    assert_eq!(volume.fence, FenceKind::LocalLock);
    assert_eq!(volume.key_file, None);
    assert_eq!(volume.staging, Size::mib(64));
    assert!(volume.integrity);
    assert_eq!(config.timing, Timing::default());
}

#[test]
fn everything_can_be_said() {
    let text = r#"
        key_file = "db.key"
        staging = "256MiB"
        integrity = false
        [timing]
        heartbeat_ms = 20
        takeover_ms = 400
        drop_ms = 200
        join_ms = 2000
        flush_rest_ms = 0
        spin_us = 50
    "#;
    let config = parse(&format!("{NODES}{VOLUME}{text}")).unwrap();
    let volume = &config.volumes[0];
    assert_eq!(volume.key_file.as_deref(), Some(Path::new("/etc/twinsan/db.key")));
    assert_eq!(volume.staging, Size::mib(256));
    assert!(!volume.integrity);
    let expected = Timing {
        heartbeat_ms: 20,
        takeover_ms: 400,
        drop_ms: 200,
        join_ms: 2000,
        flush_rest_ms: 0,
        takeover_budget_ms: 0,
        spin_us: 50,
    };
    assert_eq!(config.timing, expected);
}

#[test]
fn the_default_timing_keeps_its_own_rules() {
    parse(&format!("{NODES}{VOLUME}[timing]\n")).unwrap();
}

#[test]
fn names_are_looked_up() {
    let config = parse(&format!("{NODES}{VOLUME}")).unwrap();
    assert_eq!(config.node("san2").unwrap().0, NodeId::B);
    assert_eq!(
        config.node("san3").unwrap_err().to_string(),
        "/etc/twinsan/twinsan.toml: no node is called \"san3\"; there is \"san1\", \"san2\""
    );
    assert_eq!(config.volume("db").unwrap().name.as_str(), "db");
    assert_eq!(
        config.volume("web").unwrap_err().to_string(),
        "/etc/twinsan/twinsan.toml: no volume is called \"web\"; there is \"db\""
    );
}

#[test]
fn two_hosts_want_more_than_one_path_unless_told_otherwise() {
    let volume = |text: &str| parse(text).unwrap().volumes.remove(0);
    let scsi_pr = with("\"local-lock\"", "\"scsi-pr\"");
    assert_eq!((volume(&scsi_pr).fence, volume(&scsi_pr).multipath), (FenceKind::ScsiPr, true));
    assert_eq!(FenceKind::ScsiPr.name(), "scsi-pr");
    assert!(!volume(&format!("{scsi_pr}multipath = false")).multipath);
    assert!(!volume(&with("fence", "fence")).multipath, "one host has the paths that it has");
    assert!(volume(&format!("{NODES}{VOLUME}multipath = true")).multipath);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let message = Config::load(Path::new("/nonexistent/twinsan.toml")).unwrap_err().to_string();
    assert_eq!(message, "/nonexistent/twinsan.toml: No such file or directory (os error 2)");
}

#[test]
fn unknown_and_missing_keys_show_their_place() {
    refused_by_parser(
        &with("fence =", "fense ="),
        "fense = \"local-lock\"",
        "unknown field `fense`, expected one of `name`, `disk`, `fence`, `multipath`, `key_file`, `staging`, `integrity`",
    );
    refused_by_parser(&with("fence = \"local-lock\"", ""), "[[volume]]", "missing field `fence`");
    refused_by_parser(
        &with("\"local-lock\"", "\"prayer\""),
        "fence = \"prayer\"",
        "unknown variant `prayer`, expected `local-lock` or `scsi-pr`",
    );
    refused_by_parser(
        &format!("{NODES}{VOLUME}staging = \"64 MB\""),
        "staging = \"64 MB\"",
        "\"64 MB\" is not a size: write a whole number and a unit of B, KiB, MiB, GiB or TiB, like \"64 MiB\"",
    );
    refused_by_parser(
        &format!("{NODES}{VOLUME}[timing]\nheartbeat = 50"),
        "heartbeat = 50",
        "unknown field `heartbeat`, expected one of `heartbeat_ms`, `takeover_ms`, `drop_ms`, `join_ms`, \
         `flush_rest_ms`, `takeover_budget_ms`, `spin_us`",
    );
}

#[test]
fn two_nodes_and_a_volume_are_needed() {
    refused("", "0 [[node]] tables; write exactly two");
    let third = "[[node]]\nname = \"san3\"\nlisten = [\"tcp://127.0.0.1:7403\"]\nadmin = \"san3.sock\"\n";
    refused(&format!("{NODES}{third}{VOLUME}"), "3 [[node]] tables; write exactly two");
    refused(NODES, "no [[volume]] table; write at least one");
}

#[test]
fn nodes_are_told_apart() {
    refused(
        &with("\"san2\"", "\"san1\""),
        "node \"san1\": name = \"san1\": the other node has this name too; give each its own",
    );
    refused(
        &with("\"san2.sock\"", "\"/run/twinsan/san1.sock\""),
        "node \"san2\": admin = \"/run/twinsan/san1.sock\": node \"san1\" has this socket too; give each its own",
    );
    refused(
        &with("tcp://[::1]:7402", "tcp://127.0.0.1:7401"),
        "node \"san2\": listen = \"tcp://127.0.0.1:7401\": this address stands here twice",
    );
    refused(
        &with("tcp://[::1]:7402", "unix://san2.sock"),
        "node \"san2\": listen = \"unix:///etc/twinsan/san2.sock\": this address stands here twice",
    );
    refused(
        &with("tcp://[::1]:7402", "shm:///run/twinsan/san1.fabric"),
        "node \"san2\": listen = \"shm:///run/twinsan/san1.fabric\": this address stands here twice",
    );
    refused(&with("\"san2\"", "\"san 2\""), "node \"san 2\": name = \"san 2\": write 1 to 63 of a-z A-Z 0-9 . _ -");
}

#[test]
fn addresses_are_checked() {
    let cases = [
        ("127.0.0.1:7402", "write \"tcp://host:port\", \"rdma://host:port\", \"unix:///path\" or \"shm:///path\""),
        ("ib://10.4.0.1:7402", "write \"tcp://host:port\", \"rdma://host:port\", \"unix:///path\" or \"shm:///path\""),
        ("rdma://10.4.0.1", "write \"rdma://host:port\", an IPv6 address in brackets"),
        ("rdma://fd00::1:7402", "write \"rdma://host:port\", an IPv6 address in brackets"),
        ("rdma://10.4.0.1:0", "\"0\" is no port: write 1 to 65535"),
        ("rdma://[::]:7402", ":: is every address of this host; name the one that the other node and the clients dial"),
        ("tcp://127.0.0.1", "write \"tcp://host:port\", an IPv6 address in brackets"),
        ("tcp://::1:7402", "write \"tcp://host:port\", an IPv6 address in brackets"),
        ("tcp://:7402", "write \"tcp://host:port\", an IPv6 address in brackets"),
        ("tcp://localhost:0", "\"0\" is no port: write 1 to 65535"),
        ("tcp://localhost:http", "\"http\" is no port: write 1 to 65535"),
        ("unix://", "write \"unix:///path\""),
        ("shm://", "write \"shm:///path\""),
        (
            "tcp://0.0.0.0:7402",
            "0.0.0.0 is every address of this host; name the one that the other node and the clients dial",
        ),
    ];
    for (address, why) in cases {
        refused(&with("tcp://[::1]:7402", address), &format!("node \"san2\": listen = \"{address}\": {why}"));
    }
    refused(
        &with("[\"tcp://[::1]:7402\"]", "[]"),
        "node \"san2\": listen = []: name at least one address, like \"tcp://127.0.0.1:7401\"",
    );
    let long = format!("/{}", "x".repeat(107));
    refused(
        &with("tcp://[::1]:7402", &format!("unix://{long}")),
        &format!("node \"san2\": listen = \"unix://{long}\": {long} has 108 bytes, a socket's path has at most 107"),
    );
    refused(
        &with("san2.sock", &long),
        &format!("node \"san2\": admin = \"{long}\": 108 bytes; a socket's path has at most 107"),
    );
}

#[test]
fn beyond_this_host_every_volume_needs_a_key() {
    let why = "may reach beyond this host, and volume \"db\" has no key_file: give every volume one, or listen on \
               loopback (127.0.0.1, [::1]), unix: or shm: only";
    let beyond = [
        "tcp://192.0.2.7:7402",
        "tcp://san2.example:7402",
        "tcp://[2001:db8::7]:7402",
        "tcp://localhost:7402",
        "rdma://[2001:db8::7]:7402",
        // RDMA has no loopback of its own: it goes by a real device.
        "rdma://127.0.0.1:7402",
    ];
    for address in beyond {
        let text = with("tcp://[::1]:7402", address);
        refused(&text, &format!("node \"san2\": listen = \"{address}\": {why}"));
        parse(&format!("{text}key_file = \"db.key\"")).expect("with a key it may");
        // One volume with a key does not make up for another without.
        let open = VOLUME.replace("db", "web");
        let message = refusal(&format!("{text}key_file = \"db.key\"\n{open}"));
        assert!(message.contains("volume \"web\" has no key_file"), "{message}");
    }
    for address in ["tcp://127.8.9.10:7402", "tcp://[::ffff:127.0.0.1]:7402", "unix://san2.fabric", "shm://san2.fabric"]
    {
        parse(&with("tcp://[::1]:7402", address)).expect("this host only");
    }
}

#[test]
fn volumes_are_told_apart_and_have_room() {
    let other = VOLUME.replace("db.img", "other.img");
    refused(
        &format!("{NODES}{VOLUME}{other}"),
        "volume \"db\": name = \"db\": another volume has this name; give each its own",
    );
    let other = VOLUME.replace("\"db\"", "\"web\"");
    refused(
        &format!("{NODES}{VOLUME}{other}"),
        "volume \"web\": disk = \"/etc/twinsan/db.img\": volume \"db\" has this disk too; give each its own",
    );
    refused(&with("\"db\"", "\"a b\""), "volume \"a b\": name = \"a b\": write 1 to 63 of a-z A-Z 0-9 . _ -");
    for (staging, shown) in [("1 MiB", "1 MiB"), ("2 TiB", "2 TiB"), ("4194305", "4194305 B")] {
        refused(
            &format!("{NODES}{VOLUME}staging = \"{staging}\""),
            &format!("volume \"db\": staging = \"{shown}\": write a multiple of 4 KiB from 4 MiB to 1 TiB"),
        );
    }
}

#[test]
fn times_keep_their_relations() {
    let timing = |line: &str| format!("{NODES}{VOLUME}[timing]\n{line}");
    refused(&timing("heartbeat_ms = 5"), "[timing]: heartbeat_ms = 5: write 10 to 600000");
    refused(&timing("heartbeat_ms = 700000"), "[timing]: heartbeat_ms = 700000: write 10 to 600000");
    for key in ["takeover_ms", "drop_ms", "join_ms"] {
        refused(
            &timing(&format!("{key} = 100")),
            &format!(
                "[timing]: {key} = 100: one late heartbeat (heartbeat_ms = 50) must not look like a death; write at \
                 least 101"
            ),
        );
        refused(&timing(&format!("{key} = 600001")), &format!("[timing]: {key} = 600001: write at most 600000"));
        parse(&timing(&format!("{key} = 101"))).expect("just enough");
    }
    refused(
        &timing("takeover_budget_ms = 600001"),
        "[timing]: takeover_budget_ms = 600001: write 0 (no bound but the lane's size) to 600000",
    );
    parse(&timing("takeover_budget_ms = 2000")).expect("a bound");
    refused(
        &timing("flush_rest_ms = 1001"),
        "[timing]: flush_rest_ms = 1001: what a takeover has to write grows with it; write 0 to 1000",
    );
    refused(&timing("spin_us = 20000"), "[timing]: spin_us = 20000: write 0 to 10000");
    refused_by_parser(&timing("drop_ms = -1"), "drop_ms = -1", "expected u64");
}
