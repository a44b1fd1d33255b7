//! Peers that mean harm, against a pair of real processes over real sockets: who breaks the protocol is cut off, counted
//! and logged; an honest client beside it goes on; the pair stays dual, and keeps neither memory nor descriptors of it.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use support::VOLUME;
use support::client::{Client, Heard};
use support::raw::{Op, Raw, frame, message};
use support::site::{Honest, Site};
use twinsan_auth::{Connector, Key, fresh_nonce};
use twinsan_fabric::{Fabric, Payload, RemoteAddr, RemoteKey};
use twinsan_wire::layout::descriptor_slot;
use twinsan_wire::limits::{MAX_LANE_SLOTS, MAX_MESSAGE_BYTES, MIN_LANE_SLOTS};
use twinsan_wire::{
    Blob, BlobKind, ClientMsg, Descriptor, Epoch, Generation, Immediate, Incarnation, Lba, NodeId, NodeMsg, PeerBody,
    PeerMsg, Purpose, Refusal, Rejection, Role, Seq, SetupMsg, VolumeName,
};

const BLOCK: usize = 4096;
const NODES: [NodeId; 2] = [NodeId::A, NodeId::B];
/// Connections that a node has at once (`server/src/limits.rs`).
const MAX_CONNECTIONS: usize = 256;

/// Messages of one flooder, at least.
const ENOUGH: u64 = 5000;

/// A descriptor changed byte by byte, whatever its CRC says, in the slot where it belongs.
fn post_bytes(client: &mut Client, slot: u32, bytes: &[u8; 64]) {
    let (fabric, conn, grant) = client.raw();
    let to = RemoteAddr { key: grant.unwrap().descriptors, offset: u64::from(slot) * 64 };
    fabric.write_imm(conn, Payload::Inline(bytes), to, Immediate::Blob { slot }.encode(), None).unwrap();
    fabric.submit(conn);
}

/// A one-sided write by the session's own keys.
fn write(client: &mut Client, key: impl Fn(twinsan_wire::LaneGrant) -> RemoteKey, offset: u64, len: usize) {
    let (fabric, conn, grant) = client.raw();
    let to = RemoteAddr { key: key(grant.unwrap()), offset };
    fabric.write(conn, Payload::Inline(&vec![0x66; len]), to, None).unwrap();
    fabric.submit(conn);
}

fn immediate(client: &mut Client, imm: u32) {
    let (fabric, conn, grant) = client.raw();
    let to = RemoteAddr { key: grant.unwrap().descriptors, offset: 0 };
    fabric.write_imm(conn, Payload::Inline(&[0; 64]), to, imm, None).unwrap();
    fabric.submit(conn);
}

/// The next blob's descriptor, changed, with CRCs that are right wherever its payload of zeroes is looked for.
fn changed(client: &mut Client, change: impl FnOnce(&mut Blob)) {
    let mut descriptor = client.blob(5, &[0; BLOCK]);
    client.post_payload(&descriptor);
    change(&mut descriptor.blob);
    let len = descriptor.blob.payload_len as usize;
    descriptor.payload_crc = Some(crc32c::crc32c(&vec![0; len]));
    let slot = descriptor_slot(descriptor.blob.seq, MIN_LANE_SLOTS);
    post_bytes(client, slot, &descriptor.encode());
}

fn read(client: &mut Client, change: impl FnOnce(&mut (Seq, Lba, u32, u32))) {
    let mut read = (Seq(0), Lba(0), 1, 0);
    change(&mut read);
    let (epoch, (after, lba, blocks, slot)) = (client.epoch, read);
    client.send(&ClientMsg::Read { id: 1, epoch, after, lba, blocks, slot });
}

type Misuse = (&'static str, fn(&mut Client));

/// What the session that has the lane can do wrong.
const MISUSES: &[Misuse] = &[
    ("a write past the descriptors", |client| {
        write(client, |grant| grant.descriptors, u64::from(MIN_LANE_SLOTS) * 64, 1);
    }),
    ("a write past the data ring", |client| write(client, |grant| grant.data, (4 << 20) - 1, 2)),
    ("a write that wraps around all numbers", |client| write(client, |grant| grant.data, u64::MAX, 2)),
    ("a write by a key that is nobody's", |client| write(client, |_| RemoteKey(0x6666), 0, 1)),
    ("a seq that skips one", |client| changed(client, |blob| blob.seq = blob.seq.next())),
    ("a seq that skips all", |client| changed(client, |blob| blob.seq = Seq(u64::MAX))),
    ("a seq of zero", |client| changed(client, |blob| blob.seq = Seq(0))),
    ("a seq that was used for something else", |client| {
        let first = client.blob(5, &[1; BLOCK]);
        client.post(&first);
        // The answer comes after the blob was looked at.
        client.resume(client.generation, Seq(1)).unwrap();
        let again = Descriptor { blob: Blob { lba: Lba(6), ..first.blob }, ..first };
        client.post(&again);
    }),
    ("another session's generation", |client| changed(client, |blob| blob.generation = blob.generation.next())),
    ("an earlier session's generation", |client| changed(client, |blob| blob.generation.0 -= 1)),
    ("a block beyond the volume", |client| changed(client, |blob| blob.lba = Lba(64 << 20 >> 12))),
    ("blocks beyond all numbers", |client| changed(client, |blob| blob.lba = Lba(u64::MAX))),
    ("no block", |client| changed(client, |blob| (blob.blocks, blob.payload_len) = (0, 0))),
    ("more blocks than bytes", |client| changed(client, |blob| blob.blocks = 2)),
    ("more bytes than any payload", |client| {
        changed(client, |blob| (blob.blocks, blob.payload_len) = (257, 257 << 12));
    }),
    ("a payload over the ring's end", |client| {
        changed(client, |blob| (blob.data_pos, blob.blocks, blob.payload_len) = ((4 << 20) - 4096, 2, 8192));
    }),
    ("a payload where it is not due", |client| changed(client, |blob| blob.data_pos = 1 << 20)),
    ("a payload between blocks", |client| changed(client, |blob| blob.data_pos += 512)),
    ("zeroes with a payload", |client| changed(client, |blob| blob.kind = BlobKind::Zeroes)),
    ("a wrong payload CRC", |client| {
        let mut descriptor = client.blob(5, &[1; BLOCK]);
        descriptor.payload_crc = Some(7);
        client.post(&descriptor);
    }),
    ("no payload CRC", |client| {
        let descriptor = client.blob(5, &[1; BLOCK]);
        client.post(&Descriptor { payload_crc: None, ..descriptor });
    }),
    ("a wrong descriptor CRC", |client| {
        let mut bytes = client.blob(5, &[1; BLOCK]).encode();
        bytes[60] ^= 1;
        post_bytes(client, 2, &bytes);
    }),
    ("no descriptor at all", |client| post_bytes(client, 2, &[0; 64])),
    ("a slot that is not the seq's", |client| {
        let descriptor = client.blob(5, &[1; BLOCK]);
        client.post_at(&descriptor, 3);
    }),
    ("an immediate of no kind", |client| immediate(client, 0)),
    ("an immediate for a slot that no lane has", |client| immediate(client, 1 << 28 | MAX_LANE_SLOTS)),
    ("an immediate for a slot that this lane has not", |client| immediate(client, 1 << 28 | MIN_LANE_SLOTS)),
    ("an immediate that only a node may send", |client| {
        immediate(client, Immediate::Mailbox { slot: 1 }.encode());
    }),
    ("a read beyond the volume", |client| read(client, |read| read.1 = Lba(u64::MAX))),
    ("a read of nothing", |client| read(client, |read| read.2 = 0)),
    ("a read longer than any", |client| read(client, |read| read.2 = 257)),
    ("a read into a buffer that there is not", |client| read(client, |read| read.3 = 64)),
    ("a read after what was never written", |client| read(client, |read| read.0 = Seq(9))),
];

/// The lane's own session misuses it, at one node or the other. What it has staged otherwise stands.
#[test]
fn whoever_misuses_its_lane_is_cut_off_and_the_next_one_is_served() {
    let site = Site::new();
    let before = site.before();
    let mut last = Generation::ZERO;
    for (what, misuse) in MISUSES {
        for node in [site.primary, site.secondary] {
            // It begins as an honest one: whoever came before has left nothing that would matter to it.
            let mut attacker = Honest::attach(&site, last);
            attacker.works();
            last = attacker.generation();
            let violations = site.counter(node, "violations");
            let said = site.cluster.log(node).len();
            let client = if node == site.primary { &mut attacker.at_primary } else { &mut attacker.at_secondary };
            misuse(client);
            client.wait_closed();
            let counted = |volume: &twinsan_control::admin::VolumeStatus| volume.counters["violations"] > violations;
            site.cluster.wait(node, &format!("counting {what}"), counted);
            let log = site.cluster.log(node);
            assert!(log[said..].contains("broke the protocol"), "{what}: {}", &log[said..]);
            let volume = site.volume(site.primary);
            assert!(volume.dual && volume.role == "primary", "{what}: {volume:#?}");
        }
    }
    let mut honest = Honest::attach(&site, last);
    for _ in 0..100 {
        honest.works();
    }
    honest.reads_all_back();
    drop(honest);
    site.is_lean(&before);
}

/// Keys open memory to one connection only: another one that has them, by whatever way, is a stranger.
#[test]
fn the_keys_of_another_connection_open_nothing() {
    let site = Site::new();
    let mut honest = Honest::attach(&site, Generation::ZERO);
    honest.works();
    let before = site.before();
    for node in [site.primary, site.secondary] {
        let client = if node == site.primary { &mut honest.at_primary } else { &mut honest.at_secondary };
        let grant = client.raw().2.unwrap();
        for key in [grant.data, grant.descriptors] {
            for imm in [false, true] {
                let violations = site.counter(node, "violations");
                let mut thief = site.client(node);
                let (fabric, conn, _) = thief.raw();
                let to = RemoteAddr { key, offset: 0 };
                let bytes = Payload::Inline(&[0; 64]);
                if imm {
                    fabric.write_imm(conn, bytes, to, Immediate::Blob { slot: 0 }.encode(), None).unwrap();
                } else {
                    fabric.write(conn, bytes, to, None).unwrap();
                }
                fabric.submit(conn);
                thief.wait_closed();
                let counted =
                    |volume: &twinsan_control::admin::VolumeStatus| volume.counters["violations"] > violations;
                site.cluster.wait(node, "counting it", counted);
                honest.works();
            }
        }
    }
    honest.reads_all_back();
    site.is_whole(&before);
}

/// Frames that lie, before anybody has proven anything and after.
#[test]
fn whoever_lies_in_its_frames_is_cut_off() {
    let site = Site::new();
    let mut honest = Honest::attach(&site, Generation::ZERO);
    let before = site.before();
    let with = |at: usize, value: u8| {
        let mut bytes = frame(Op::Credits, 0, 0, &[]);
        bytes[at] = value;
        bytes
    };
    let heartbeat = message(ClientMsg::Heartbeat.encode().as_bytes());
    let lies: Vec<(&str, Vec<u8>)> = vec![
        ("another protocol", b"GET / HTTP/1.1\r\nHost: san1.example\r\n\r\n".to_vec()),
        ("no magic", with(31, b'2')),
        ("no operation", with(0, 0)),
        ("an operation that there is not", with(0, 5)),
        ("flags", with(1, 1)),
        ("a field that its operation has not", with(4, 1)),
        ("credits that it never had", frame(Op::Credits, 256, 0, &[])),
        ("all the credits of the world", frame(Op::Credits, u16::MAX, 0, &[])),
        ("a message too long", frame(Op::Message, 0, MAX_MESSAGE_BYTES + 1, &[0; MAX_MESSAGE_BYTES + 1])),
        ("a message as long as it gets", frame(Op::Message, 0, u32::MAX as usize, &[])),
        ("a write that opens nothing", frame(Op::Write { key: 1, offset: 0 }, 0, 64, &[0; 64])),
        ("an immediate that opens nothing", frame(Op::WriteImm { key: 1, offset: 0, imm: 1 << 28 }, 0, 64, &[0; 64])),
        ("more messages than credits", heartbeat.repeat(100_000)),
    ];
    for node in [site.primary, site.secondary] {
        for (what, bytes) in &lies {
            let mut stranger = site.raw(node);
            stranger.say(bytes);
            stranger.wait_closed();
            honest.works();
            let violations = site.counter(node, "violations");
            let mut proven = site.raw(node);
            proven.prove(Purpose::Client, VOLUME, site.key()).unwrap();
            proven.ready(true);
            proven.say(bytes);
            proven.wait_closed();
            let counted = |volume: &twinsan_control::admin::VolumeStatus| volume.counters["violations"] > violations;
            site.cluster.wait(node, &format!("counting {what}"), counted);
            honest.works();
        }
    }
    honest.reads_all_back();
    site.is_whole(&before);
}

/// Messages that are none, or another role's.
#[test]
fn whoever_says_what_it_may_not_is_cut_off() {
    let site = Site::new();
    let mut honest = Honest::attach(&site, Generation::ZERO);
    let before = site.before();
    let status = PeerBody::Status { role: Role::Primary, beat: 1, paths: true };
    let from = Incarnation::from_random(7);
    let of_a_node = PeerMsg { epoch: Epoch(1 << 40), from, to: None, body: status }.encode();
    let of_a_client = ClientMsg::Heartbeat.encode();
    let hello = Connector::new(Purpose::Client, VolumeName::new(VOLUME).unwrap(), site.key(), fresh_nonce().unwrap()).1;
    let attach = ClientMsg::Attach { over: Generation(1 << 60) }.encode();
    let mut wrong_crc = attach.as_bytes().to_vec();
    wrong_crc[12] ^= 1;
    let mut short = attach.as_bytes().to_vec();
    short.pop();
    let mut another_version = attach.as_bytes().to_vec();
    another_version[4] += 1;
    let words: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("zeroes", vec![0; MAX_MESSAGE_BYTES]),
        ("a wrong CRC", wrong_crc),
        ("half of a message", short),
        ("another version's", another_version),
        ("a node's word", of_a_node.as_bytes().to_vec()),
        (
            "a node's answer",
            twinsan_wire::NodeFrame {
                msg: NodeMsg::Attached { generation: Generation(1 << 40) },
                grant: Some(twinsan_wire::LaneGrant { descriptors: RemoteKey(1), data: RemoteKey(2) }),
            }
            .encode()
            .as_bytes()
            .to_vec(),
        ),
        ("a set-up that is over", hello.encode().as_bytes().to_vec()),
    ];
    for node in [site.primary, site.secondary] {
        for (what, bytes) in &words {
            let violations = site.counter(node, "violations");
            let mut attacker = site.raw(node);
            attacker.prove(Purpose::Client, VOLUME, site.key()).unwrap();
            attacker.ready(true);
            attacker.say(&message(bytes));
            attacker.wait_closed();
            let counted = |volume: &twinsan_control::admin::VolumeStatus| volume.counters["violations"] > violations;
            site.cluster.wait(node, &format!("counting {what}"), counted);
            honest.works();
        }
    }
    // One that has said that it is a node may not speak as a client.
    for purpose in [
        Purpose::Probe { node: NODES[site.secondary] },
        Purpose::Relay { node: NODES[site.secondary], incarnation: from },
    ] {
        let mut attacker = site.raw(site.primary);
        attacker.prove(purpose, VOLUME, site.key()).unwrap();
        if matches!(purpose, Purpose::Relay { .. }) {
            attacker.ready(false);
        }
        attacker.say(&message(of_a_client.as_bytes()));
        attacker.wait_closed();
        honest.works();
    }
    honest.reads_all_back();
    site.is_whole(&before);
}

/// Without the key nobody gets beyond the set-up; nothing that opens memory is said before that.
#[test]
fn without_the_key_nobody_is_let_in() {
    let site = Site::new();
    let mut honest = Honest::attach(&site, Generation::ZERO);
    let before = site.before();
    let wrong = Key::load(&site.cluster.write_key("another key, as long as it has to be")).unwrap();
    for node in [site.primary, site.secondary] {
        let other = NODES[1 - node];
        let incarnation = Incarnation::from_random(9);
        for purpose in [
            Purpose::Client,
            Purpose::Peer { node: other, incarnation },
            Purpose::Relay { node: other, incarnation },
            Purpose::Probe { node: other },
        ] {
            for key in [None, Some(wrong.clone())] {
                let rejected = site.counter(node, "setups_rejected");
                let mut stranger = site.raw(node);
                let error = stranger.prove(purpose, VOLUME, key.clone()).unwrap_err();
                assert!(error.contains("key"), "{error}");
                if key.is_some() {
                    // The node's own proof has told it. It goes on all the same.
                    stranger.say(&message(SetupMsg::Proof { proof: Some([7; 32]) }.encode().as_bytes()));
                    assert_eq!(stranger.hear_setup(), SetupMsg::Rejected { why: Rejection::WrongKey });
                }
                let counted =
                    |volume: &twinsan_control::admin::VolumeStatus| volume.counters["setups_rejected"] > rejected;
                site.cluster.wait(node, "counting who was not let in", counted);
                honest.works();
            }
        }
        // Its own proof is not known, so it sends the node's back, and zeroes.
        let (_, hello) =
            Connector::new(Purpose::Client, VolumeName::new(VOLUME).unwrap(), site.key(), fresh_nonce().unwrap());
        let mut mirror = site.raw(node);
        mirror.say(&message(hello.encode().as_bytes()));
        let challenge = mirror.hear_setup();
        let SetupMsg::Challenge { proof, .. } = challenge else { panic!("{challenge:?}") };
        mirror.say(&message(SetupMsg::Proof { proof }.encode().as_bytes()));
        assert_eq!(mirror.hear_setup(), SetupMsg::Rejected { why: Rejection::WrongKey });
        // It was told, and may not go on.
        mirror.say(&message(hello.encode().as_bytes()));
        mirror.wait_closed();
        assert!(site.cluster.log(node).contains("not let in"), "{}", site.cluster.log(node));
    }
    honest.reads_all_back();
    site.is_whole(&before);
}

/// A name that is this node's own, or a volume that is not here; and a node that nobody dials is not dialled.
#[test]
fn a_wrong_name_is_refused() {
    let site = Site::new();
    let mut honest = Honest::attach(&site, Generation::ZERO);
    let before = site.before();
    let incarnation = Incarnation::from_random(9);
    for node in [0, 1] {
        let own = NODES[node];
        for purpose in [
            Purpose::Peer { node: own, incarnation },
            Purpose::Relay { node: own, incarnation },
            Purpose::Probe { node: own },
        ] {
            let rejected = site.counter(node, "setups_rejected");
            let error = site.raw(node).prove(purpose, VOLUME, site.key()).unwrap_err();
            assert!(error.contains("refused by the other side"), "{error}");
            let counted = |volume: &twinsan_control::admin::VolumeStatus| volume.counters["setups_rejected"] > rejected;
            site.cluster.wait(node, "counting it", counted);
        }
        for volume in ["dc", "d", "DB", "a-volume-of-somebody-elses"] {
            let error = site.raw(node).prove(Purpose::Client, volume, site.key()).unwrap_err();
            assert!(error.contains("volume"), "{error}");
        }
        honest.works();
    }
    // Node A dials nobody for the link: who says that it is A to B lies.
    let error = site.raw(1).prove(Purpose::Peer { node: NodeId::A, incarnation }, VOLUME, site.key()).unwrap_err();
    assert!(error.contains("refused by the other side"), "{error}");
    honest.reads_all_back();
    site.is_whole(&before);
}

/// Whoever has the key can say that it is node B, and is believed, as the protocol's section 9 has it: it may cost the pair
/// its second member for a while, or have the true B fenced; never a completed write, and the true B comes back.
#[test]
fn a_false_node_with_the_key_costs_a_pause_and_no_write() {
    let mut site = Site::impatient();
    let before = site.before();
    let mut generation = Generation::ZERO;
    let mut contents = Vec::new();
    for round in 0..4 {
        let mut honest = Honest::attach(&site, generation);
        for (lba, bytes) in contents {
            assert!(honest.at_primary.read(lba, 1) == bytes, "block {lba}");
        }
        for _ in 0..20 {
            honest.works();
        }
        (generation, contents) = (honest.generation(), honest.contents());
        let mut impostor = site.raw(0);
        let incarnation = Incarnation::from_random(100 + round);
        let a = impostor.prove(Purpose::Peer { node: NodeId::B, incarnation }, VOLUME, site.key()).unwrap();
        impostor.ready(false);
        let epoch = Epoch(site.volume(0).epoch);
        let to = Some(a.incarnation);
        for (to, body) in [
            (None, PeerBody::Status { role: Role::Waiting, beat: 1, paths: true }),
            (to, PeerBody::JoinRequest),
            (to, PeerBody::JoinAccept { generation, first: Some(Seq(9)) }),
            (to, PeerBody::CloseSession { generation }),
            (to, PeerBody::DropLane { generation }),
        ] {
            impostor.say(&message(PeerMsg { epoch, from: incarnation, to, body }.encode().as_bytes()));
        }
        // A client that does not come to a joining node would hold it up.
        drop(honest);
        site.cluster.wait(0, "without the true B", |volume| volume.epoch > epoch.0);
        site.wait_dual_again();
        // The true one has dialled again and taken its place, or it was given up when it said nothing more.
        impostor.wait_closed();
    }
    site.is_lean(&before);
}

/// Only the session that the order names gives way; also while many ask without end.
#[test]
fn a_second_client_gets_in_only_over_the_session_that_it_names() {
    let site = Site::new();
    let mut honest = Honest::attach(&site, Generation::ZERO);
    drop(std::mem::replace(&mut honest, Honest::attach(&site, Generation(1))));
    assert_eq!(honest.generation(), Generation(2));
    honest.works();
    let mut second = site.client(site.primary);
    let mut elsewhere = site.client(site.secondary);
    let before = site.before();
    for over in [Generation::ZERO, Generation(1), Generation(3), Generation(1 << 62), Generation(u64::MAX)] {
        assert_eq!(second.try_attach(over), Err(Refusal::Busy), "over {over:?}");
        honest.works();
    }
    assert_eq!(elsewhere.try_attach(Generation(2)), Err(Refusal::NotReady), "it is not the primary");
    for generation in [Generation(1), Generation(3), Generation(1 << 62)] {
        elsewhere.resume(generation, Seq(1)).unwrap_err();
        second.resume(generation, Seq(1)).unwrap_err();
    }
    honest.works();
    honest.reads_all_back();
    site.is_whole(&before);
    second.try_attach(Generation(2)).unwrap();
    assert!(!honest.at_primary.is_connected());
}

/// As fast as credits allow, by connections that all have the key.
#[test]
fn a_flood_of_messages_stalls_nobody() {
    let site = Site::new();
    let mut honest = Honest::attach(&site, Generation::ZERO);
    let before = site.before();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let threads: Vec<_> = [site.primary, site.secondary, site.primary, site.secondary]
            .into_iter()
            .map(|node| {
                let (address, key) = (site.address(node), site.key());
                let (epoch, generation) = (Epoch(1 << 50), Generation(1 << 50));
                let over = &over;
                scope.spawn(move || {
                    let mut flooder = Client::connect(&address, VOLUME, key);
                    let mut sent = 0_u64;
                    while sent < ENOUGH || !over.load(Ordering::Relaxed) {
                        let words = [
                            ClientMsg::Attach { over: Generation::ZERO },
                            ClientMsg::Resume { generation, first: Seq(1 << 61) },
                            ClientMsg::Unreachable { node: NODES[1 - node], epoch, generation: Generation::ZERO },
                            ClientMsg::Unreachable { node: NODES[node], epoch, generation },
                            ClientMsg::Unreachable { node: NODES[1 - node], epoch: flooder.epoch, generation },
                            ClientMsg::Detach,
                            ClientMsg::Read {
                                id: sent,
                                epoch: Epoch(1),
                                after: Seq(0),
                                lba: Lba(0),
                                blocks: 256,
                                slot: 1,
                            },
                        ];
                        for word in &words {
                            sent += u64::from(flooder.offer(word));
                        }
                        assert!(flooder.is_connected(), "it has kept to the protocol");
                    }
                })
            })
            .collect();
        for _ in 0..300 {
            honest.works();
        }
        over.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().unwrap();
        }
    });
    honest.reads_all_back();
    site.is_whole(&before);
}

/// It has the lane, sends what it may, asks for what it may, and reads nothing. It costs its own session only: the next
/// one, by order, is served at once.
#[test]
fn a_session_that_never_listens_gives_way() {
    let site = Site::new();
    let mut honest = Honest::attach(&site, Generation::ZERO);
    honest.works();
    let before = site.before();
    let mut generation = honest.generation();
    drop(honest);
    for _ in 0..3 {
        let mut deaf = Honest::attach(&site, generation);
        generation = deaf.generation();
        for _ in 0..64 {
            let blob = deaf.at_primary.blob(0, &[3; 4 * BLOCK]);
            deaf.at_primary.post(&blob);
            deaf.at_secondary.mirror(&blob, &[3; 4 * BLOCK]);
        }
        for slot in 0..64 {
            let (epoch, id) = (deaf.at_primary.epoch, u64::from(slot));
            let read = ClientMsg::Read { id, epoch, after: Seq(0), lba: Lba(256), blocks: 256, slot };
            deaf.at_primary.send(&read);
        }
        site.cluster.wait(site.primary, "full of its answers", |volume| volume.lane.open_reads > 0);
        // It lives: only who has the order gets in.
        deaf.at_primary.send(&ClientMsg::Heartbeat);
        assert_eq!(site.client(site.primary).try_attach(Generation::ZERO), Err(Refusal::Busy));
        let mut honest = Honest::attach(&site, generation);
        generation = honest.generation();
        for _ in 0..10 {
            honest.works();
        }
        let volume = site.volume(site.primary);
        assert!(volume.dual && volume.role == "primary");
    }
    let honest = Honest::attach(&site, generation);
    site.is_lean(&before);
    drop(honest);
}

/// It asks and asks, and takes no answer: what waits for it is bounded, and then it is cut off.
#[test]
fn whoever_takes_no_answers_is_cut_off() {
    let site = Site::new();
    let mut honest = Honest::attach(&site, Generation::ZERO);
    let before = site.before();
    for node in [site.primary, site.secondary] {
        let mut deaf = site.raw(node);
        deaf.prove(Purpose::Client, VOLUME, site.key()).unwrap();
        deaf.ready(true);
        let asked = message(ClientMsg::Resume { generation: Generation(99), first: Seq(1) }.encode().as_bytes());
        let mut rounds = 0;
        // Never more than a half of the credits at once, each half taken before the next.
        while deaf.say(&asked.repeat(128)) {
            honest.works();
            rounds += 1;
            assert!(rounds < 1000, "{} unanswered requests, and it is still listened to", rounds * 128);
        }
        honest.works();
    }
    honest.reads_all_back();
    site.is_whole(&before);
}

/// More connections than a node has places: none says a word, or each stops half-way. Who is honest gets in, also the
/// other node.
#[test]
fn silent_connections_keep_nobody_out() {
    let mut site = Site::new();
    let mut honest = Honest::attach(&site, Generation::ZERO);
    honest.works();
    let before = site.before();
    let hello = Connector::new(Purpose::Client, VolumeName::new(VOLUME).unwrap(), site.key(), fresh_nonce().unwrap()).1;
    let mut silent = Vec::new();
    for at in 0..2 * MAX_CONNECTIONS {
        for node in [0, 1] {
            let mut raw = site.raw(node);
            match at % 3 {
                0 => {}
                1 => drop(raw.say(&[0; 7])),
                _ => drop(raw.say(&message(hello.encode().as_bytes()))),
            }
            silent.push(raw);
        }
        if at % 32 == 0 {
            honest.works();
            drop(site.client(site.primary));
        }
    }
    // A node that comes in the middle of it is let in by the other.
    let (primary, secondary) = (site.primary, site.secondary);
    site.cluster.kill(secondary);
    site.cluster.wait(primary, "alone", |volume| !volume.dual);
    for _ in 0..MAX_CONNECTIONS {
        silent.push(site.raw(primary));
    }
    drop(honest);
    site.cluster.start(secondary);
    site.cluster.wait_dual();
    // All of them are closed in the end, without anybody's doing anything.
    for mut raw in silent {
        raw.wait_closed();
    }
    site.is_lean(&before);
}

/// The same by those who have the key, and are through the set-up: no deadline is theirs.
#[test]
fn idle_clients_keep_nobody_out() {
    let mut site = Site::new();
    let mut honest = Honest::attach(&site, Generation::ZERO);
    honest.works();
    let before = site.before();
    let mut idle = Vec::new();
    for at in 0..MAX_CONNECTIONS + 20 {
        for node in [0, 1] {
            let mut raw = site.raw(node);
            raw.prove(Purpose::Client, VOLUME, site.key()).unwrap();
            if at % 4 > 0 {
                raw.ready(true);
            }
            idle.push(raw);
        }
        if at % 32 == 0 {
            honest.works();
        }
    }
    honest.works();
    let mut late = site.client(site.primary);
    assert_eq!(late.try_attach(Generation::ZERO), Err(Refusal::Busy));
    let (primary, secondary) = (site.primary, site.secondary);
    site.cluster.kill(secondary);
    site.cluster.wait(primary, "alone", |volume| !volume.dual);
    drop(honest);
    site.cluster.start(secondary);
    site.cluster.wait_dual();
    drop(idle);
    site.is_lean(&before);
}

/// Half a frame, half a message, half a payload: and the other half never.
#[test]
fn whoever_stops_in_mid_sentence_holds_nobody_up() {
    let site = Site::new();
    let mut honest = Honest::attach(&site, Generation::ZERO);
    let before = site.before();
    let heartbeat = message(ClientMsg::Heartbeat.encode().as_bytes());
    let mut halves: Vec<Raw> = Vec::new();
    for cut in [1, 31, 32, 33, heartbeat.len() - 1] {
        for node in [0, 1] {
            let mut raw = site.raw(node);
            raw.prove(Purpose::Client, VOLUME, site.key()).unwrap();
            raw.ready(true);
            raw.say(&heartbeat);
            raw.say(&heartbeat[..cut]);
            halves.push(raw);
            honest.works();
        }
    }
    drop(halves);
    honest.reads_all_back();
    site.is_whole(&before);
    // The session itself, in the middle of a payload: the next one begins with an empty lane, and what completed is there.
    let generation = honest.generation();
    let unfinished = honest.at_primary.blob(5, &[0x66; BLOCK]);
    honest.at_primary.post_part_of_payload(&unfinished, 100);
    let (fabric, conn, _) = honest.at_primary.raw();
    fabric.submit(conn);
    let mut next = Honest::attach(&site, generation);
    for (lba, bytes) in honest.contents() {
        assert!(next.at_primary.read(lba, 1) == bytes, "block {lba}");
    }
    next.works();
    while !matches!(honest.at_primary.hear(), Heard::Closed) {}
}
