//! The data path of one node, seen from a client's connection: what is written is durable and read back, and what breaks
//! the protocol is cut off, counted, and harmless.

mod support;

use support::client::{Client, Heard};
use support::{Cluster, VOLUME, on_disk};
use twinsan_fabric::{Fabric, Payload, RemoteAddr};
use twinsan_wire::{ClientMsg, Generation, Immediate, Lba, NodeId, NodeMsg, Refusal, Seq};

const BLOCK: usize = 4096;

/// A lone primary, and a client's connection to it.
fn lone_primary(volume_lines: &str) -> (Cluster, Client) {
    let mut cluster = Cluster::new(&format!("staging = \"4 MiB\"\n{volume_lines}"));
    cluster.start(0);
    cluster.wait(0, "primary", |volume| volume.role == "primary");
    let client = connect(&cluster, 0);
    (cluster, client)
}

fn connect(cluster: &Cluster, node: usize) -> Client {
    let address = cluster.config().nodes[node].listen[0].to_string();
    Client::connect(&address, VOLUME, None)
}

/// Blocks that tell where they belong.
fn pattern(tag: u8, blocks: usize) -> Vec<u8> {
    (0..blocks * BLOCK).map(|at| tag ^ u8::try_from(at % 251).unwrap() ^ u8::try_from(at / BLOCK).unwrap()).collect()
}

#[test]
fn a_completed_write_is_on_the_disk_of_a_lone_node_and_is_read_back() {
    let (cluster, mut client) = lone_primary("");
    client.attach();
    let (old, new) = (pattern(1, 8), pattern(2, 2));
    for (lba, payload) in [(100, &old), (103, &new)] {
        let blob = client.blob(lba, payload);
        client.post(&blob);
    }
    client.wait_durable(Seq(2));
    let mut expected = old;
    expected[3 * BLOCK..5 * BLOCK].copy_from_slice(&new);
    assert_eq!(on_disk(&cluster.disk(), 100 * BLOCK as u64, expected.len()), expected);
    assert_eq!(client.read(100, 8), expected);
    assert_eq!(client.read(98, 2), vec![0; 2 * BLOCK], "never written");
    let volume = cluster.wait(0, "drained", |volume| volume.lane.staged_blobs == 0);
    assert_eq!((volume.lane.received, volume.lane.released), (2, 2));
    assert_eq!(volume.counters["blobs_received"], 2);
    assert_eq!(volume.counters["reads_answered"], 2);
    assert_eq!(volume.session.unwrap().generation, client.generation.0);
}

#[test]
fn a_lane_that_wraps_many_times_keeps_everything() {
    let (cluster, mut client) = lone_primary("");
    client.attach();
    // 24 writes of 1 MiB through a ring of 4.
    for round in 0..24_u8 {
        let payload = pattern(round, 256);
        let blob = client.blob(u64::from(round % 8) * 256, &payload);
        client.post(&blob);
        client.wait_durable(blob.blob.seq);
        let drained = u64::from(round) + 1;
        cluster.wait(0, "drained", |volume| volume.lane.released == drained);
    }
    for round in 16..24_u8 {
        assert_eq!(client.read(u64::from(round % 8) * 256, 256), pattern(round, 256));
    }
}

#[test]
fn a_second_client_is_turned_away_while_the_first_lives_and_let_in_when_it_has_gone() {
    let (_cluster, mut first) = lone_primary("");
    first.attach();
    let blob = first.blob(7, &pattern(9, 1));
    first.post(&blob);
    first.wait_durable(Seq(1));
    let mut second = connect(&_cluster, 0);
    second.send(&ClientMsg::Attach { over: Generation::ZERO });
    loop {
        match second.hear() {
            Heard::Message(NodeMsg::Refused { why }) => {
                assert_eq!(why, Refusal::Busy);
                break;
            }
            Heard::Closed => panic!("closed"),
            _ => {}
        }
    }
    let generation = first.generation;
    first.send(&ClientMsg::Detach);
    first.wait_closed();
    second.attach();
    assert!(second.generation > generation);
    assert_eq!(second.read(7, 1), pattern(9, 1));
}

/// The node must survive `misuse`, cut its author off, and count it.
#[track_caller]
fn is_cut_off(volume_lines: &str, misuse: impl FnOnce(&mut Client)) {
    let (cluster, mut client) = lone_primary(volume_lines);
    client.attach();
    misuse(&mut client);
    client.wait_closed();
    let volume = cluster.wait(0, "rid of it", |volume| volume.session.is_none());
    assert_eq!(volume.role, "primary");
    assert_eq!(volume.lane.received, 0, "nothing of it was taken");
    assert!(cluster.log(0).contains("broke the protocol"), "{}", cluster.log(0));
    // Whoever comes next is served.
    let mut next = connect(&cluster, 0);
    next.attach();
    let blob = next.blob(0, &pattern(3, 1));
    next.post(&blob);
    next.wait_durable(Seq(1));
}

#[test]
fn a_payload_changed_on_the_way_is_cut_off() {
    is_cut_off("", |client| {
        let mut blob = client.blob(5, &pattern(1, 1));
        blob.payload_crc = blob.payload_crc.map(|crc| crc ^ 1);
        client.post(&blob);
    });
}

#[test]
fn a_payload_without_a_crc_is_cut_off_where_integrity_is_on() {
    is_cut_off("", |client| {
        let mut blob = client.blob(5, &pattern(1, 1));
        blob.payload_crc = None;
        client.post(&blob);
    });
}

#[test]
fn a_descriptor_in_the_wrong_slot_is_cut_off() {
    is_cut_off("", |client| {
        let blob = client.blob(5, &pattern(1, 1));
        client.post_at(&blob, 2);
    });
}

#[test]
fn a_blob_off_the_volume_is_cut_off() {
    is_cut_off("", |client| {
        let blob = client.blob(client.shape.blocks, &pattern(1, 1));
        client.post(&blob);
    });
}

#[test]
fn a_gap_in_the_sequence_is_cut_off() {
    is_cut_off("", |client| {
        let _lost = client.blob(5, &pattern(1, 1));
        let blob = client.blob(6, &pattern(1, 1));
        client.post(&blob);
    });
}

#[test]
fn a_read_off_the_volume_is_cut_off() {
    is_cut_off("", |client| {
        let (epoch, lba) = (client.epoch, Lba(client.shape.blocks));
        client.send(&ClientMsg::Read { id: 1, epoch, after: Seq(0), lba, blocks: 1, slot: 0 });
    });
}

#[test]
fn an_immediate_that_only_a_node_may_send_is_cut_off() {
    is_cut_off("", |client| {
        let (fabric, conn, grant) = client.raw();
        let to = RemoteAddr { key: grant.unwrap().descriptors, offset: 0 };
        fabric.write_imm(conn, Payload::Inline(&[0; 64]), to, Immediate::Mailbox { slot: 0 }.encode(), None).unwrap();
        fabric.submit(conn);
    });
}

#[test]
fn a_write_outside_of_the_lane_is_cut_off_by_the_fabric() {
    let (cluster, mut client) = lone_primary("");
    client.attach();
    let (fabric, conn, grant) = client.raw();
    let to = RemoteAddr { key: grant.unwrap().descriptors, offset: 1024 * 64 };
    fabric.write(conn, Payload::Inline(&[0; 64]), to, None).unwrap();
    fabric.submit(conn);
    client.wait_closed();
    cluster.wait(0, "rid of it", |volume| volume.session.is_none() && volume.role == "primary");
}

#[test]
fn without_integrity_nobody_asks_for_a_crc() {
    let (_cluster, mut client) = lone_primary("integrity = false");
    client.attach();
    let mut blob = client.blob(5, &pattern(1, 1));
    blob.payload_crc = None;
    client.post(&blob);
    client.wait_durable(Seq(1));
    assert_eq!(client.read(5, 1), pattern(1, 1));
}

/// Rule 14: the client reaches the primary only. Both stay members, what completes is in both RAMs, and the other one has
/// it on the disk when it has taken over.
#[test]
fn a_client_that_reaches_the_primary_only_is_relayed_for() {
    let mut cluster = Cluster::new("staging = \"4 MiB\"");
    cluster.start(0);
    cluster.start(1);
    let primary = cluster.wait_dual();
    let secondary = 1 - primary;
    let mut client = connect(&cluster, primary);
    client.attach();
    let epoch = client.epoch;
    let unreachable =
        ClientMsg::Unreachable { node: [NodeId::A, NodeId::B][secondary], epoch, generation: client.generation };
    // Through the ring several times over: its space comes back by the relay.
    let mut last = Vec::new();
    for round in 0..24_u8 {
        client.send(&unreachable);
        last = pattern(round, 64);
        let blob = client.blob(64 * u64::from(round % 4), &last);
        client.post(&blob);
        client.wait_durable(blob.blob.seq);
        client.wait_released_by_both(Seq(blob.blob.seq.0.saturating_sub(8)));
    }
    let status = cluster.wait(primary, "a primary that relays", |volume| volume.counters["blobs_relayed"] >= 24);
    assert!(status.dual && status.epoch == epoch.0, "nobody was dropped: {status:#?}");
    cluster.wait(secondary, "fed", |volume| volume.lane.received == 24 && volume.counters["violations"] == 0);
    cluster.kill(primary);
    cluster.wait(secondary, "primary", |volume| volume.role == "primary");
    assert!(on_disk(&cluster.disk(), 64 * 3 * BLOCK as u64, last.len()) == last, "what completed last");
}
