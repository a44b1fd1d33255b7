//! The program as its users meet it: what it says, and how it ends.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

const CONFIG: &str = r#"
[[node]]
name = "san1"
listen = ["unix://san1.fabric"]
admin = "san1.admin"

[[node]]
name = "san2"
listen = ["unix://san2.fabric"]
admin = "san2.admin"

[[volume]]
name = "db"
disk = "db.img"
fence = "local-lock"
staging = "4 MiB"
integrity = true
"#;

fn dir() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("twinsan.toml"), CONFIG).unwrap();
    dir
}

fn twinsan(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_twinsan")).current_dir(dir).args(args).output().unwrap()
}

/// Runs it, expects it to fail with `code`, and its one line of complaint to have all of `words`.
fn refuses(dir: &Path, args: &[&str], code: i32, words: &[&str]) {
    let output = twinsan(dir, args);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{args:?} should say {word:?}: {said}");
    }
    assert!(output.stdout.is_empty(), "{args:?}: a failure says nothing on standard output");
}

#[test]
fn what_can_not_be_is_refused_by_name() {
    let dir = dir();
    let dir = dir.path();
    refuses(dir, &["--config", "no.toml", "status"], 1, &["no.toml", "No such file"]);
    refuses(dir, &["attach", "other", "--nbd", "unix:x"], 1, &["\"other\"", "\"db\""]);
    refuses(dir, &["attach", "db", "--nbd", "x"], 2, &["\"x\"", "unix:/path or tcp:host:port"]);
    refuses(dir, &["attach", "db"], 2, &["--nbd", "--nbd-device"]);
    refuses(dir, &["attach", "db", "--nbd", "unix:x", "--nbd-device", "/dev/nbd0"], 2, &["cannot be used with"]);
    refuses(dir, &["attach", "db", "--nbd-device", "/dev/sda"], 2, &["\"/dev/sda\"", "/dev/nbd0"]);
    refuses(dir, &["attach", "db", "--ublk", "--nbd", "unix:x"], 2, &["cannot be used with"]);
    refuses(dir, &["attach", "db", "--nbd", "unix:x", "--ublk-id", "0"], 2, &["cannot be used with"]);
    refuses(dir, &["attach", "db", "--ublk-id", "0"], 2, &["--ublk"]);
    if !Path::new("/dev/ublk-control").exists() {
        refuses(dir, &["attach", "db", "--ublk"], 1, &["modprobe ublk_drv"]);
    }
    refuses(dir, &["attach", "db", "--nbd", "unix:x", "--nbd-dead-timeout", "1s"], 2, &["cannot be used with"]);
    refuses(dir, &["attach", "db", "--nbd", "tcp:0.0.0.0:0"], 1, &["0.0.0.0", "--nbd-allow-remote"]);
    refuses(dir, &["attach", "db", "--nbd", "unix:no/such/dir"], 1, &["no/such/dir", "No such file"]);
    refuses(dir, &["attach", "db", "--nbd", "unix:x", "--io-timeout", "5"], 2, &["\"5\"", "30s"]);
    refuses(dir, &["recover", "db", "--node", "san1"], 2, &["--accept-data-loss"]);
    refuses(dir, &["recover", "--accept-data-loss", "db", "--node", "san3"], 1, &["\"san3\"", "\"san1\""]);
    refuses(dir, &["recover", "--accept-data-loss", "db", "--node", "san1"], 1, &["san1.admin", "twinsand running"]);
    refuses(dir, &["format", "db"], 1, &["db.img", "--size"]);
    refuses(dir, &["format", "db", "--size", "1GB"], 2, &["\"1GB\"", "GiB"]);
    refuses(dir, &["format", "db", "--size", "1MiB", "--block", "1000"], 1, &["1000", "512 or 4096"]);
    refuses(dir, &["status", "nosuch"], 1, &["\"nosuch\""]);
    refuses(dir, &["switchover", "nosuch"], 1, &["\"nosuch\""]);
    refuses(dir, &["switchover", "db"], 1, &["nobody serves", "san1.admin", "san2.admin", "twinsand running"]);
}

#[test]
fn a_socket_file_does_not_outlive_a_refusal() {
    let dir = dir();
    std::fs::write(dir.path().join("db.key"), "short").unwrap();
    let keyed = CONFIG.replace("integrity", "key_file = \"db.key\"\nintegrity");
    std::fs::write(dir.path().join("twinsan.toml"), keyed).unwrap();
    refuses(dir.path(), &["attach", "db", "--nbd", "unix:nbd.sock"], 1, &["db.key"]);
    assert!(!dir.path().join("nbd.sock").exists());
}

#[test]
fn format_makes_a_volume_once() {
    let dir = dir();
    let made = twinsan(dir.path(), &["format", "db", "--size", "8 MiB", "--block", "512"]);
    let said = String::from_utf8(made.stdout).unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    assert!(said.contains("\"db\" formatted: 8 MiB, blocks of 512 bytes"), "{said}");
    refuses(dir.path(), &["format", "db", "--size", "8 MiB"], 1, &["db.img", "--force"]);
    let forced = twinsan(dir.path(), &["format", "db", "--size", "8 MiB", "--force"]);
    assert!(forced.status.success(), "{}", String::from_utf8_lossy(&forced.stderr));
}

#[test]
fn status_shows_who_does_not_answer() {
    let dir = dir();
    let text = twinsan(dir.path(), &["status"]);
    assert_eq!(text.status.code(), Some(1));
    let said = String::from_utf8(text.stdout).unwrap();
    assert!(said.contains("node san1: no answer") && said.contains("node san2: no answer"), "{said}");
    let json = twinsan(dir.path(), &["status", "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let why = value["nodes"]["san2"]["unreachable"].as_str().unwrap();
    assert!(why.contains("san2.admin"), "{why}");
}

/// `twinsan status | head`: as other tools, it ends without a word about the pipe.
#[test]
fn a_reader_that_has_seen_enough_is_no_trouble() {
    let dir = dir();
    for args in [&["status"][..], &["status", "--json"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut twinsan = Command::new(env!("CARGO_BIN_EXE_twinsan"));
        let output = twinsan.current_dir(dir.path()).args(args).stdout(writer).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), twinsan_code(dir.path(), args), "{said}");
        assert!(!said.contains("panicked") && !said.to_lowercase().contains("pipe"), "{said}");
    }
}

/// With a reader that reads.
fn twinsan_code(dir: &Path, args: &[&str]) -> Option<i32> {
    let output = twinsan(dir, args);
    assert!(!output.stdout.is_empty(), "it has something to say");
    output.status.code()
}
