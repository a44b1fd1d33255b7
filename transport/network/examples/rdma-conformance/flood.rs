//! Credits, on the device itself: its counters say whether a receiver was ever not ready.

use std::fs;
use std::path::PathBuf;

use twinsan_fabric::conformance::Setup;
use twinsan_fabric::{ConnId, Event, Fabric, Payload, PostError, RemoteAddr};

use crate::lanes::Ends;

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
