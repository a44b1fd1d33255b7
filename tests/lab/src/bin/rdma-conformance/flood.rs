//! Credits, on the device itself: its counters say whether a receiver was ever not ready.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use twinsan_fabric::conformance::{PATIENCE, Setup};
use twinsan_fabric::parts::Queues;
use twinsan_fabric::{ConnId, Event, Fabric, Payload, PostError, RemoteAddr};
use twinsan_verbs::{RECEIVE_CREDITS, VerbsFabric, VerbsOptions};

use crate::lanes::{Ends, arena};

/// Messages and immediates each way.
const MANY: u32 = 20_000;

/// Both ends send all they can, and each polls now often, now seldom: everything comes once and in order, and no device
/// has counted a receiver that was not ready, at either end.
pub(crate) fn a_flood_meets_no_receiver_that_is_not_ready(setup: Setup) {
    let mut ends = Ends::new(setup);
    let (conn, there) = ends.connect();
    let to = RemoteAddr { key: ends.node.expose(there, ends.region, 0, 64).expect("expose"), offset: 0 };
    let back = RemoteAddr { key: ends.client.expose(conn, ends.from, 0, 64).expect("expose"), offset: 0 };
    let before = not_ready();
    assert!(!before.is_empty(), "the device has no counters of receivers that are not ready: this test is blind");
    let (mut posted, mut seen, mut turn) = ([0_u32; 2], [0_u32; 2], 0_u32);
    ends.wait("all of the flood", |ends| {
        turn += 1;
        let sides = [
            (&mut ends.client, &mut ends.client_events, conn, to),
            (&mut ends.node, &mut ends.node_events, there, back),
        ];
        for (side, (fabric, events, conn, to)) in sides.into_iter().enumerate() {
            flood(&mut **fabric, conn, to, &mut posted[side]);
            // Seldom: the other side runs out of credits, and its credit messages pile up.
            if turn % 64 < 32 || turn as usize % 2 == side {
                fabric.poll(events, None);
            }
            for event in events.drain(..) {
                assert_eq!(number(&event), Some(seen[side]), "{event:?}");
                seen[side] += 1;
            }
        }
        (seen == [MANY; 2]).then_some(())
    });
    assert_eq!(not_ready(), before, "a device has met a receiver that was not ready");
}

/// All the completions there can be at once, none of which makes an event but the last: who prepares to sleep finds that one,
/// or nothing would wake him for it.
pub(crate) fn what_makes_no_event_hides_nothing(setup: Setup) {
    let Setup { address, .. } = setup;
    let fabric = || VerbsFabric::new(VerbsOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    let (mut client, mut node, start) = (fabric(), fabric(), Instant::now());
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let address = node.listen(&address).expect("listen");
    let conn = client.connect(&address).expect("connect");
    while ours.is_empty() || theirs.is_empty() {
        client.poll(&mut ours, None);
        node.poll(&mut theirs, None);
        assert!(start.elapsed() < PATIENCE, "{ours:?}, {theirs:?}");
    }
    let Some(Event::Accepted { conn: there }) = theirs.pop() else { panic!("not accepted") };
    let region = node.register(arena()).expect("register");
    let to = RemoteAddr { key: node.expose(there, region, 0, 64).expect("expose"), offset: 0 };
    for _ in 1..RECEIVE_CREDITS {
        client.write(conn, Payload::Inline(&[]), to, None).expect("a post");
    }
    client.write_imm(conn, Payload::Inline(&[]), to, 7, Some(1)).expect("a post");
    client.submit(conn);
    // Acknowledged: all of it has come.
    while !ours.iter().any(|event| matches!(event, Event::Sent { .. })) {
        client.poll(&mut ours, None);
        assert!(start.elapsed() < PATIENCE, "{ours:?}");
    }
    assert_eq!(node.prepare_to_sleep(&mut theirs), 1, "it would sleep over what has come");
    assert!(matches!(theirs[0], Event::Immediate { imm: 7, .. }), "{theirs:?}");
}

fn flood(fabric: &mut dyn Fabric, conn: ConnId, to: RemoteAddr, posted: &mut u32) {
    while *posted < MANY {
        let bytes = posted.to_le_bytes();
        let outcome = match *posted % 3 {
            0 => fabric.send(conn, &bytes),
            1 => fabric.write_imm(conn, Payload::Inline(&bytes), to, *posted, None),
            _ => fabric.send(conn, &[bytes; 100].concat()),
        };
        match outcome {
            Ok(()) => *posted += 1,
            Err(PostError::Full) => break,
            Err(other) => panic!("{other}"),
        }
    }
    fabric.submit(conn);
}

fn number(event: &Event) -> Option<u32> {
    match event {
        Event::Message { bytes, .. } => bytes.first_chunk().copied().map(u32::from_le_bytes),
        Event::Immediate { imm, .. } => Some(*imm),
        _ => None,
    }
}

/// All counters of all devices that have to do with receivers that are not ready, by path.
fn not_ready() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut look = |directory: PathBuf| {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            // rxe: rcvd_rnr_err, send_rnr_err, retry_rnr_exceeded_err; mlx5: rnr_nak_retry_err, out_of_buffer.
            if name.contains("rnr") || name == "out_of_buffer" {
                found.push((entry.path(), fs::read_to_string(entry.path()).expect("a counter")));
            }
        }
    };
    for device in fs::read_dir("/sys/class/infiniband").into_iter().flatten().flatten() {
        for port in fs::read_dir(device.path().join("ports")).into_iter().flatten().flatten() {
            look(port.path().join("hw_counters"));
        }
        look(device.path().join("hw_counters"));
    }
    found.sort();
    found
}
