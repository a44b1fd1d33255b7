//! Peers that mean harm, beside a client that does not: the node lives, says what happened, grows by no more than a
//! bound, and the honest client's writes complete and are read back all the while.

mod support;

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use support::client::{Client, Heard, refused_setup};
use support::{Cluster, NODES, PATIENCE, VOLUME};
use twinsan_auth::Key;
use twinsan_wire::{ClientMsg, Epoch, Incarnation, Lba, NodeId, NodeMsg, Purpose, Refusal, Rejection, Seq, VolumeName};

const BLOCK: usize = 4096;
/// What a node may grow by, whatever is done to it: its tables and queues are bounded, far below this.
const GROWTH: u64 = 48 << 20;

/// A lone primary and its honest client.
fn lone_primary() -> (Cluster, Honest) {
    serving(Cluster::new("staging = \"4 MiB\""), None)
}

fn serving(mut cluster: Cluster, key: Option<Key>) -> (Cluster, Honest) {
    cluster.start(0);
    cluster.wait(0, "primary", |volume| volume.role == "primary");
    let mut client = connect(&cluster, 0, key);
    client.attach();
    (cluster, Honest { client, round: 0, misses: None })
}

fn connect(cluster: &Cluster, node: usize, key: Option<Key>) -> Client {
    Client::connect(&cluster.config().nodes[node].listen[0].to_string(), VOLUME, key)
}

/// The client that the volume is there for.
struct Honest {
    client: Client,
    round: u8,
    /// The member that it does not feed, and says so.
    misses: Option<NodeId>,
}

impl Honest {
    /// Writes, waits for the completion, reads it back.
    #[track_caller]
    fn is_served(&mut self) {
        self.round = self.round.wrapping_add(1);
        let payload = [self.round; 2 * BLOCK];
        let blob = self.client.blob(u64::from(self.round % 16), &payload);
        self.client.post(&blob);
        self.client.wait_durable_missing(blob.blob.seq, self.misses);
        assert!(self.client.read(u64::from(self.round % 16), 2) == payload, "what completed is not read back");
    }
}

/// Memory of a node's process that is its own, in bytes.
fn resident(cluster: &Cluster, node: usize) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{}/statm", cluster.pid(node))).unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// The socket of a node's fabric.
fn socket(cluster: &Cluster, node: usize) -> PathBuf {
    cluster.path(&format!("{}.fabric", NODES[node]))
}

/// Does `harm` again and again, with the honest client served in between; the node stays small and serves.
#[track_caller]
fn while_served(cluster: &Cluster, honest: &mut Honest, rounds: usize, mut harm: impl FnMut(usize)) {
    honest.is_served();
    let before = resident(cluster, 0);
    let mut most = before;
    for round in 0..rounds {
        harm(round);
        honest.is_served();
        most = most.max(resident(cluster, 0));
    }
    assert!(most <= before + GROWTH, "from {before} to {most} bytes");
    let status = cluster.status(0).expect("it answers");
    assert_eq!(status.volumes[0].role, "primary");
    assert_eq!(status.volumes[0].generation, honest.client.generation.0, "the session is the honest client's");
}

#[test]
fn a_flood_of_connections_that_say_nothing_keeps_nobody_out() {
    let (cluster, mut honest) = lone_primary();
    let mut silent = Vec::new();
    while_served(&cluster, &mut honest, 5, |round| {
        for _ in 0..100 {
            // Its backlog may be full for a moment.
            if let Ok(stream) = UnixStream::connect(socket(&cluster, 0)) {
                silent.push(stream);
            }
        }
        // Whoever is honest comes through, in the thick of it.
        let mut next = connect(&cluster, 0, None);
        next.send(&ClientMsg::Attach);
        assert_eq!(next.refusal(), Refusal::Busy, "round {round}");
    });
    assert!(silent.len() > 400, "a flood of {} is none", silent.len());
}

#[test]
fn garbage_is_cut_off() {
    let (cluster, mut honest) = lone_primary();
    let mut huge = [0; 32];
    huge[0] = 3;
    huge[24..28].fill(0xff);
    huge[28..].copy_from_slice(b"TWF1");
    while_served(&cluster, &mut honest, 4, |_| {
        for garbage in [&b"GET / HTTP/1.1\r\nHost: twinsan\r\n\r\n"[..], &[0; 4096], &[0xff; 4096], &huge] {
            let mut stream = UnixStream::connect(socket(&cluster, 0)).unwrap();
            let _ = stream.write_all(garbage);
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            // Its own greeting may come first, but then the end.
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
    });
}

#[test]
fn attach_storms_by_clients_that_never_listen_are_bounded() {
    let (cluster, mut honest) = lone_primary();
    let mut storm = Vec::new();
    while_served(&cluster, &mut honest, 20, |round| {
        if round < 10 {
            storm.push(connect(&cluster, 0, None));
        }
        for deaf in &mut storm {
            for _ in 0..100 {
                // Out of credits, or cut off: either is the end of its noise.
                if !deaf.try_send(&ClientMsg::Attach) {
                    break;
                }
            }
        }
    });
}

#[test]
fn a_client_without_a_session_moves_nothing() {
    let (cluster, mut honest) = lone_primary();
    let mut liar = connect(&cluster, 0, None);
    let generation = honest.client.generation;
    while_served(&cluster, &mut honest, 5, |_| {
        for epoch in [0, 1, 2, 3, u64::MAX] {
            let epoch = Epoch(epoch);
            for node in NodeId::BOTH {
                liar.send(&ClientMsg::Unreachable { node, epoch, generation });
            }
            liar.send(&ClientMsg::Read { id: 1, epoch, after: Seq::ZERO, lba: Lba(0), blocks: 1, slot: 0 });
        }
        liar.send(&ClientMsg::Detach);
    });
}

/// Rule 10, and (generation, seq) names one content for ever.
#[test]
fn a_seq_that_comes_again_changes_nothing_that_was_completed() {
    let (cluster, mut honest) = lone_primary();
    let first = honest.client.blob(100, &[1; BLOCK]);
    honest.client.post(&first);
    honest.client.wait_durable(first.blob.seq);
    cluster.wait(0, "drained", |volume| volume.lane.staged_blobs == 0);
    // Released: it is on the disk, and stays there.
    let mut again = first;
    again.blob.lba = Lba(101);
    for blob in [first, again] {
        honest.client.post(&blob);
    }
    honest.is_served();
    assert!(honest.client.read(100, 1) == [1; BLOCK] && honest.client.read(101, 1) == [0; BLOCK]);
    assert_eq!(cluster.status(0).unwrap().volumes[0].counters["violations"], 0);
}

#[test]
fn a_descriptor_with_a_wrong_crc_is_cut_off_and_counted() {
    let (cluster, mut honest) = lone_primary();
    let blob = honest.client.blob(100, &[1; BLOCK]);
    let mut bytes = blob.encode();
    bytes[40] ^= 1;
    honest.client.post_bytes(&bytes, 1);
    honest.client.wait_closed();
    assert!(cluster.log(0).contains("CRC32C"), "{}", cluster.log(0));
    let status = cluster.wait(0, "rid of it", |volume| volume.session.is_none());
    assert_eq!(status.counters["violations"], 1);
}

#[test]
fn an_old_session_is_refused_and_its_blobs_do_not_land() {
    let (cluster, mut honest) = lone_primary();
    honest.is_served();
    let old = honest.client.generation;
    honest.client.send(&ClientMsg::Detach);
    honest.client.wait_closed();
    let mut client = connect(&cluster, 0, None);
    client.attach();
    let mut newer = Honest { client, round: 0, misses: None };
    while_served(&cluster, &mut newer, 3, |_| {
        let mut stale = connect(&cluster, 0, None);
        stale.send(&ClientMsg::Resume { generation: old, first: Seq(1) });
        assert_eq!(stale.refusal(), Refusal::Superseded);
    });
    // The right session, on its own connection, with a blob of the old one's.
    let mut blob = newer.client.blob(5, &[7; BLOCK]);
    blob.blob.generation = old;
    newer.client.post(&blob);
    newer.client.wait_closed();
    assert!(cluster.wait(0, "rid of it", |volume| volume.session.is_none()).counters["violations"] >= 1);
}

#[test]
fn who_has_no_key_another_volume_or_another_name_is_not_let_in() {
    let key = || Key::new(b"0123456789abcdef0123456789abcdef").unwrap();
    let cluster = Cluster::new("staging = \"4 MiB\"\nkey_file = \"db.key\"");
    cluster.write_key("0123456789abcdef0123456789abcdef");
    let (cluster, mut honest) = serving(cluster, Some(key()));
    let address = cluster.config().nodes[0].listen[0].to_string();
    let (db, web) = (VolumeName::new(VOLUME).unwrap(), VolumeName::new("web").unwrap());
    let incarnation = Incarnation::from_random(7);
    let peer = |node| Purpose::Peer { node, incarnation };
    let wrong = || Some(Key::new(b"another key, as long as it has to be").unwrap());
    while_served(&cluster, &mut honest, 3, |_| {
        for (purpose, volume, key, why) in [
            (Purpose::Client, db, None, Rejection::WrongKey),
            (Purpose::Client, db, wrong(), Rejection::WrongKey),
            (peer(NodeId::B), db, wrong(), Rejection::WrongKey),
            (Purpose::Client, web, Some(key()), Rejection::UnknownVolume),
            // It says that it is this very node.
            (peer(NodeId::A), db, Some(key()), Rejection::NotAPeer),
        ] {
            assert_eq!(refused_setup(&address, purpose, volume, key), Some(why), "{purpose:?}, {}", volume.as_str());
        }
    });
    assert!(cluster.log(0).contains("not let in"), "{}", cluster.log(0));
}

/// Who has the key can come as a node (section 9): that costs a pause, not data.
#[test]
fn an_impostor_with_the_key_costs_a_pause() {
    let mut cluster = Cluster::new("staging = \"4 MiB\"");
    cluster.start(1);
    cluster.start(0);
    // Node A listens for the link, so it is the one to lie to.
    if cluster.wait_dual() == 1 {
        cluster.kill(1);
        cluster.wait(0, "primary", |volume| volume.role == "primary" && !volume.dual);
        cluster.start(1);
        assert_eq!(cluster.wait_dual(), 0);
    }
    let mut client = connect(&cluster, 0, None);
    client.attach();
    let mut honest = Honest { client, round: 0, misses: Some(NodeId::B) };
    honest.is_served();
    let address = cluster.config().nodes[0].listen[0].to_string();
    for n in 1..=3 {
        let purpose = Purpose::Peer { node: NodeId::B, incarnation: Incarnation::from_random(n) };
        let link = Client::link(&address, VOLUME, purpose);
        std::thread::sleep(Duration::from_millis(300));
        honest.is_served();
        drop(link);
    }
    cluster.wait_dual();
    honest.is_served();
    let status = &cluster.status(0).unwrap().volumes[0];
    assert_eq!((status.role.as_str(), status.generation), ("primary", honest.client.generation.0));
}

/// Section 9: a word is never part of safety. The primary is well, and hears its client, which says elsewhere that it
/// can't reach it.
#[test]
fn a_client_that_lies_about_whom_it_reaches_moves_nothing() {
    let mut cluster = Cluster::new("staging = \"4 MiB\"");
    cluster.start(0);
    cluster.start(1);
    let primary = cluster.wait_dual();
    let mut client = connect(&cluster, primary, None);
    client.attach();
    let mut honest = Honest { client, round: 0, misses: Some(NodeId::BOTH[1 - primary]) };
    let mut liar = connect(&cluster, 1 - primary, None);
    let (epoch, generation) = (honest.client.epoch, honest.client.generation);
    for _ in 0..30 {
        liar.send(&ClientMsg::Unreachable { node: NodeId::BOTH[primary], epoch, generation });
        honest.is_served();
        std::thread::sleep(Duration::from_millis(50));
    }
    let status = &cluster.status(primary).unwrap().volumes[0];
    assert!(status.dual && status.epoch == epoch.0 && status.role == "primary", "{status:#?}");
}

/// It attaches, asks, and takes no answer.
#[test]
fn a_client_that_never_reads_its_answers_is_bounded_and_does_not_hold_up_the_node() {
    let (cluster, mut honest) = lone_primary();
    honest.is_served();
    let before = resident(&cluster, 0);
    let epoch = honest.client.epoch;
    let mut id = 1000;
    let deadline = Instant::now() + Duration::from_secs(20);
    // A MiB each time, until the node has had enough of it.
    let cut_off = loop {
        id += 1;
        let slot = u32::try_from(id % 64).unwrap();
        let asked =
            honest.client.try_send(&ClientMsg::Read { id, epoch, after: Seq(1), lba: Lba(0), blocks: 256, slot });
        std::thread::sleep(Duration::from_millis(1));
        let status = cluster.status(0).expect("it answers while the client does not");
        if status.volumes[0].session.is_none() {
            break true;
        }
        if !asked || Instant::now() > deadline {
            break false;
        }
    };
    assert!(resident(&cluster, 0) <= before + GROWTH, "from {before} to {} bytes", resident(&cluster, 0));
    assert!(cut_off, "nobody is waited for without end:\n{}", cluster.log(0));
    let mut next = connect(&cluster, 0, None);
    next.attach();
    Honest { client: next, round: 0, misses: None }.is_served();
}

#[test]
fn words_are_told_apart() {
    // What the tests above take for a refusal is one: a welcome is not.
    let (cluster, _honest) = lone_primary();
    let address = cluster.config().nodes[0].listen[0].to_string();
    let volume = VolumeName::new(VOLUME).unwrap();
    assert_eq!(refused_setup(&address, Purpose::Client, volume, None), None);
    let mut second = connect(&cluster, 0, None);
    assert!(matches!(second.hear(), Heard::Message(NodeMsg::View { .. })));
}
