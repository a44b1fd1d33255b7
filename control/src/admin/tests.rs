//! The language, over a real socket, and its bytes.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use super::*;

const TIMEOUT: Duration = Duration::from_secs(10);

fn sample() -> NodeStatus {
    NodeStatus {
        node: "san1".into(),
        version: "0.1.0".into(),
        pid: 7,
        uptime_ms: 12,
        volumes: vec![VolumeStatus {
            name: "db".into(),
            uuid: "00112233-4455-6677-8899-aabbccddeeff".into(),
            size_bytes: 1 << 30,
            block_bytes: 4096,
            role: twinsan_wire::Role::Primary.name().into(),
            incarnation: "00000000000000a1".into(),
            epoch: 3,
            primary: Some("san1".into()),
            members: vec![MemberStatus { node: "san1".into(), incarnation: "00000000000000a1".into() }],
            joiner: None,
            dual: false,
            clean: false,
            generation: 2,
            session: Some(SessionStatus { generation: 2, connected_ms: 5 }),
            peer: PeerStatus { node: "san2".into(), path_state: Some(PathState::None), ..PeerStatus::default() },
            handover: HandoverStatus { state: HandoverState::UnderWay, ..HandoverStatus::default() },
            lane: LaneStatus { received: 9, released: 4, ..LaneStatus::default() },
            memory: MemoryStatus { pages: "small".into(), ..MemoryStatus::default() },
            disk: DiskStatus { path: "db.img".into(), well: true, ..DiskStatus::default() },
            counters: [("blobs".to_owned(), 9)].into(),
        }],
    }
}

#[test]
fn requests_have_the_documented_bytes() {
    let recover = Request::Recover { volume: "db".into(), accept_data_loss: true };
    for (request, json) in [
        (Request::Status, r#"{"request":"status"}"#),
        (recover, r#"{"request":"recover","volume":"db","accept_data_loss":true}"#),
        (Request::Switchover { volume: "db".into() }, r#"{"request":"switchover","volume":"db"}"#),
    ] {
        assert_eq!(serde_json::to_string(&request).unwrap(), json);
        assert_eq!(serde_json::from_str::<Request>(json).unwrap(), request);
    }
}

#[test]
fn a_misspelt_request_is_refused() {
    for json in [
        r#"{"request":"statsu"}"#,
        r#"{"request":"recover","volume":"db"}"#,
        r#"{"request":"recover","volume":"db","accept_data_loss":true,"really":true}"#,
        "{}",
        "",
    ] {
        assert!(serde_json::from_str::<Request>(json).is_err(), "{json}");
    }
}

#[test]
fn a_question_and_its_answer_cross_a_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let node = std::thread::spawn(move || {
        for _ in 0..2 {
            let (stream, _) = listener.accept().unwrap();
            let response = match read_line::<Request>(&stream).unwrap() {
                Request::Status => Response::Status(Box::new(sample())),
                Request::Recover { volume, .. } | Request::Switchover { volume } => {
                    Response::Failed { message: format!("{volume} serves already") }
                }
            };
            write_line(&stream, &response).unwrap();
        }
    });
    assert_eq!(ask(&path, &Request::Status, TIMEOUT).unwrap(), Response::Status(Box::new(sample())));
    let recover = Request::Recover { volume: "db".into(), accept_data_loss: true };
    let expected = Response::Failed { message: "db serves already".into() };
    assert_eq!(ask(&path, &recover, TIMEOUT).unwrap(), expected);
    node.join().unwrap();
}

#[test]
fn nobody_there_is_said_with_the_socket() {
    let message = ask(std::path::Path::new("/nonexistent.sock"), &Request::Status, TIMEOUT).unwrap_err().to_string();
    let expected =
        "/nonexistent.sock: No such file or directory (os error 2); is twinsand running, and is this its user?";
    assert_eq!(message, expected);
}

#[test]
fn a_node_that_closes_early_or_says_nothing_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let node = std::thread::spawn(move || {
        let (mut first, _) = listener.accept().unwrap();
        let _request: Request = read_line(&first).unwrap();
        first.write_all(b"{\"response\":").unwrap();
        drop(first);
        // The second one is held open, silent, until the asker has given up and closed.
        let (second, _) = listener.accept().unwrap();
        let _request: Request = read_line(&second).unwrap();
        (&second).read_to_end(&mut Vec::new()).unwrap();
    });
    let early = ask(&path, &Request::Status, TIMEOUT).unwrap_err();
    assert!(matches!(&early, AdminError::Io { source, .. } if source.kind() == std::io::ErrorKind::UnexpectedEof));
    let silent = ask(&path, &Request::Status, Duration::from_millis(20)).unwrap_err();
    assert!(matches!(&silent, AdminError::Io { source, .. } if source.kind() == std::io::ErrorKind::WouldBlock));
    node.join().unwrap();
}

#[test]
fn a_line_has_an_end() {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let writer = std::thread::spawn(move || {
        // The reader stops at its limit; what does not fit the socket then fails, which is as it should be.
        let _ = ours.write_all(&vec![b' '; MAX_LINE_BYTES + 1]);
    });
    let error = read_line::<Request>(&theirs).unwrap_err();
    assert_eq!(error.to_string(), format!("the line is longer than {MAX_LINE_BYTES} bytes"));
    drop(theirs);
    writer.join().unwrap();
}
