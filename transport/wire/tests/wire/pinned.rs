//! Every encoding, byte by byte. A changed byte here is another protocol version.
//!
//! The literals were packed by hand from the tables of `docs/wire-format.md`, with an independent CRC32C, not printed
//! by the code under test. Fields are set apart by blanks.

use twinsan_wire::{
    Blob, BlobKind, ClientMsg, Descriptor, Epoch, Generation, Immediate, Incarnation, LaneGrant, Lba, Mailbox, Members,
    NodeFrame, NodeId, NodeMsg, PeerBody, PeerMsg, Purpose, Refusal, Rejection, RemoteKey, Role, Seq, SetupMsg,
    Superblock, Times, VolumeName, VolumeShape,
};

const FROM: Incarnation = Incarnation::from_random(0xa1a2_a3a4_a5a6_a7a8);
const TO: Incarnation = Incarnation::from_random(0xb1b2_b3b4_b5b6_b7b8);
const EPOCH: Epoch = Epoch(0x0102_0304_0506_0708);
const GENERATION: Generation = Generation(0x1112_1314_1516_1718);
const SEQ: Seq = Seq(0x2122_2324_2526_2728);
const SECOND: Seq = Seq(0x3132_3334_3536_3738);
const LBA: Lba = Lba(0x4142_4344_4546_4748);
const KEY_1: RemoteKey = RemoteKey(0x5152_5354_5556_5758);
const KEY_2: RemoteKey = RemoteKey(0x6162_6364_6566_6768);
const ID: u64 = 0x7172_7374_7576_7778;
const BLOB: Blob = Blob {
    generation: GENERATION,
    seq: SEQ,
    kind: BlobKind::Write,
    lba: LBA,
    blocks: 3,
    data_pos: 0x8182_8384_8586_8788,
    payload_len: 3 * 4096,
};

/// A pinned value: its name, itself, its bytes.
type Pin<T> = (&'static str, T, &'static str);

pub(crate) const DESCRIPTORS: &[Pin<Descriptor>] = &[
    (
        "write",
        Descriptor { blob: BLOB, payload_crc: Some(0x9192_9394), timed: false },
        "54775364 01 01 0100 1817161514131211 2827262524232221 4847464544434241 8887868584838281 \
             03000000 00300000 94939291 0000000000000000 fd7aca2e",
    ),
    (
        "write, timed",
        Descriptor { blob: BLOB, payload_crc: Some(0x9192_9394), timed: true },
        "54775364 01 01 0300 1817161514131211 2827262524232221 4847464544434241 8887868584838281 \
             03000000 00300000 94939291 0000000000000000 af17113b",
    ),
    (
        "write without CRC",
        Descriptor { blob: BLOB, payload_crc: None, timed: false },
        "54775364 01 01 0000 1817161514131211 2827262524232221 4847464544434241 8887868584838281 \
             03000000 00300000 00000000 0000000000000000 912d8374",
    ),
    (
        "zeroes",
        Descriptor { blob: Blob { kind: BlobKind::Zeroes, payload_len: 0, ..BLOB }, payload_crc: None, timed: false },
        "54775364 01 02 0000 1817161514131211 2827262524232221 4847464544434241 8887868584838281 \
             03000000 00000000 00000000 0000000000000000 5ef5f0b3",
    ),
    (
        "discard",
        Descriptor {
            blob: Blob { kind: BlobKind::Discard, payload_len: 0, blocks: 1 << 20, ..BLOB },
            payload_crc: None,
            timed: false,
        },
        "54775364 01 03 0000 1817161514131211 2827262524232221 4847464544434241 8887868584838281 \
             00001000 00000000 00000000 0000000000000000 f54c57c6",
    ),
];

pub(crate) const MAILBOXES: &[Pin<Mailbox>] = &[
    (
        "ack",
        Mailbox::Ack {
            epoch: EPOCH,
            from: FROM,
            to: TO,
            generation: GENERATION,
            first: Some(SECOND),
            received: SEQ,
            released: Seq(SEQ.0 - 0x0203),
        },
        "5477536d 01 01 0100 0807060504030201 a8a7a6a5a4a3a2a1 b8b7b6b5b4b3b2b1 1817161514131211 \
             2827262524232221 3837363534333231 03020000 fcb6714c",
    ),
    (
        "ack, nothing known yet",
        Mailbox::Ack {
            epoch: EPOCH,
            from: FROM,
            to: TO,
            generation: Generation::ZERO,
            first: None,
            received: Seq::ZERO,
            released: Seq::ZERO,
        },
        "5477536d 01 01 0000 0807060504030201 a8a7a6a5a4a3a2a1 b8b7b6b5b4b3b2b1 0000000000000000 \
             0000000000000000 0000000000000000 00000000 ef0ef97f",
    ),
    (
        "released",
        Mailbox::Released { epoch: EPOCH, from: FROM, to: TO, generation: GENERATION, released: SEQ },
        "5477536d 01 02 0000 0807060504030201 a8a7a6a5a4a3a2a1 b8b7b6b5b4b3b2b1 1817161514131211 \
             2827262524232221 0000000000000000 00000000 f78a92bd",
    ),
    (
        "completion",
        Mailbox::Completion {
            epoch: EPOCH,
            from: FROM,
            generation: GENERATION,
            durable: Some(SECOND),
            released: SEQ,
            relayed: false,
        },
        "5477536d 01 03 0100 0807060504030201 a8a7a6a5a4a3a2a1 0000000000000000 1817161514131211 \
             2827262524232221 3837363534333231 00000000 626b32eb",
    ),
    (
        "completion, for both members",
        Mailbox::Completion {
            epoch: EPOCH,
            from: FROM,
            generation: GENERATION,
            durable: Some(SECOND),
            released: SEQ,
            relayed: true,
        },
        "5477536d 01 03 0300 0807060504030201 a8a7a6a5a4a3a2a1 0000000000000000 1817161514131211 \
             2827262524232221 3837363534333231 00000000 3006e9fe",
    ),
    (
        "completion, nothing durable yet",
        Mailbox::Completion {
            epoch: EPOCH,
            from: FROM,
            generation: GENERATION,
            durable: Some(Seq::ZERO),
            released: Seq::ZERO,
            relayed: false,
        },
        "5477536d 01 03 0100 0807060504030201 a8a7a6a5a4a3a2a1 0000000000000000 1817161514131211 \
             0000000000000000 0000000000000000 00000000 82234adf",
    ),
    (
        "completion, not from the primary",
        Mailbox::Completion {
            epoch: EPOCH,
            from: FROM,
            generation: GENERATION,
            durable: None,
            released: SEQ,
            relayed: false,
        },
        "5477536d 01 03 0000 0807060504030201 a8a7a6a5a4a3a2a1 0000000000000000 1817161514131211 \
             2827262524232221 0000000000000000 00000000 c87e645d",
    ),
];

const fn to_known(body: PeerBody) -> PeerMsg {
    PeerMsg { epoch: EPOCH, from: FROM, to: Some(TO), body }
}

const fn to_whoever(body: PeerBody) -> PeerMsg {
    PeerMsg { epoch: EPOCH, from: FROM, to: None, body }
}

const DUAL: Superblock = Superblock {
    counter: ID,
    epoch: EPOCH,
    primary: Some(NodeId::B),
    members: Members([Some(FROM), Some(TO)]),
    generation: GENERATION,
    clean: true,
};

const FRESH: Superblock = Superblock {
    counter: 1,
    epoch: Epoch::ZERO,
    primary: None,
    members: Members::NONE,
    generation: Generation::ZERO,
    clean: true,
};

const PEER_MSGS: &[Pin<PeerMsg>] = &[
    (
        "peer status",
        to_whoever(PeerBody::Status { role: Role::Primary, beat: ID, paths: true }),
        "54775367 01 20 3800 00000000 42f74dc9 0807060504030201 a8a7a6a5a4a3a2a1 0000000000000000 \
             7877767574737271 06 01 000000000000",
    ),
    (
        "peer announce",
        to_known(PeerBody::Announce { superblock: DUAL }),
        "54775367 01 21 5800 00000000 dd80ad77 0807060504030201 a8a7a6a5a4a3a2a1 b8b7b6b5b4b3b2b1 \
             7877767574737271 0807060504030201 1817161514131211 a8a7a6a5a4a3a2a1 b8b7b6b5b4b3b2b1 02 \
             01 000000000000",
    ),
    (
        "peer announce fresh",
        to_whoever(PeerBody::Announce { superblock: FRESH }),
        "54775367 01 21 5800 00000000 130bc5a9 0807060504030201 a8a7a6a5a4a3a2a1 0000000000000000 \
             0100000000000000 0000000000000000 0000000000000000 0000000000000000 0000000000000000 00 \
             01 000000000000",
    ),
    (
        "peer join request",
        to_known(PeerBody::JoinRequest),
        "54775367 01 22 2800 00000000 0a9405f7 0807060504030201 a8a7a6a5a4a3a2a1 b8b7b6b5b4b3b2b1",
    ),
    (
        "peer join accept",
        to_known(PeerBody::JoinAccept { generation: GENERATION, first: Some(SEQ) }),
        "54775367 01 23 4000 00000000 7c2a49a0 0807060504030201 a8a7a6a5a4a3a2a1 b8b7b6b5b4b3b2b1 \
             1817161514131211 2827262524232221 01 00000000000000",
    ),
    (
        "peer join accept, the client says where",
        to_known(PeerBody::JoinAccept { generation: GENERATION, first: None }),
        "54775367 01 23 4000 00000000 22a6aa79 0807060504030201 a8a7a6a5a4a3a2a1 b8b7b6b5b4b3b2b1 \
             1817161514131211 0000000000000000 00 00000000000000",
    ),
    (
        "peer join abort",
        to_known(PeerBody::JoinAbort),
        "54775367 01 24 2800 00000000 d5a13ae1 0807060504030201 a8a7a6a5a4a3a2a1 b8b7b6b5b4b3b2b1",
    ),
    (
        "peer close session",
        to_known(PeerBody::CloseSession { generation: GENERATION }),
        "54775367 01 25 3000 00000000 ad9fef39 0807060504030201 a8a7a6a5a4a3a2a1 b8b7b6b5b4b3b2b1 \
             1817161514131211",
    ),
    (
        "peer drop lane",
        to_known(PeerBody::DropLane { generation: GENERATION }),
        "54775367 01 26 3000 00000000 2f9ced58 0807060504030201 a8a7a6a5a4a3a2a1 b8b7b6b5b4b3b2b1 \
             1817161514131211",
    ),
    (
        "peer lane dropped",
        to_known(PeerBody::LaneDropped { generation: GENERATION }),
        "54775367 01 27 3000 00000000 519d1378 0807060504030201 a8a7a6a5a4a3a2a1 b8b7b6b5b4b3b2b1 \
             1817161514131211",
    ),
    (
        "peer leave",
        to_known(PeerBody::Leave),
        "54775367 01 28 2800 00000000 6bca44cd 0807060504030201 a8a7a6a5a4a3a2a1 b8b7b6b5b4b3b2b1",
    ),
    (
        "peer take over",
        to_known(PeerBody::TakeOver),
        "54775367 01 29 2800 00000000 e6aae3b5 0807060504030201 a8a7a6a5a4a3a2a1 b8b7b6b5b4b3b2b1",
    ),
    (
        "peer hand over",
        to_known(PeerBody::HandOver { superblock: DUAL }),
        "54775367 01 2a 5800 00000000 05b0d0e0 0807060504030201 a8a7a6a5a4a3a2a1 b8b7b6b5b4b3b2b1 \
             7877767574737271 0807060504030201 1817161514131211 a8a7a6a5a4a3a2a1 b8b7b6b5b4b3b2b1 02 \
             01 000000000000",
    ),
    (
        "peer ask hand over",
        to_known(PeerBody::AskHandOver),
        "54775367 01 2b 2800 00000000 fc6bad44 0807060504030201 a8a7a6a5a4a3a2a1 b8b7b6b5b4b3b2b1",
    ),
];

const CLIENT_MSGS: &[Pin<ClientMsg>] = &[
    ("client attach", ClientMsg::Attach { over: GENERATION }, "54775367 01 40 1800 00000000 beab03d8 1817161514131211"),
    (
        "client resume",
        ClientMsg::Resume { generation: GENERATION, first: SEQ },
        "54775367 01 41 2000 00000000 2d8cda5a 1817161514131211 2827262524232221",
    ),
    (
        "client read",
        ClientMsg::Read { id: ID, epoch: EPOCH, after: SEQ, lba: LBA, blocks: 0x0203, slot: 63 },
        "54775367 01 42 3800 00000000 1143e869 7877767574737271 0807060504030201 2827262524232221 \
             4847464544434241 03020000 3f000000",
    ),
    ("client heartbeat", ClientMsg::Heartbeat, "54775367 01 43 1000 00000000 fa33ccb3"),
    (
        "client unreachable",
        ClientMsg::Unreachable { node: NodeId::B, epoch: EPOCH, generation: GENERATION },
        "54775367 01 44 2800 00000000 9f38c0c4 0807060504030201 1817161514131211 02 00000000000000",
    ),
    ("client detach", ClientMsg::Detach, "54775367 01 45 1000 00000000 bbaf2ac6"),
];

const GRANT: Option<LaneGrant> = Some(LaneGrant { descriptors: KEY_1, data: KEY_2 });

const NODE_FRAMES: &[Pin<NodeFrame>] = &[
    (
        "node view",
        NodeFrame {
            msg: NodeMsg::View {
                role: Role::Joining,
                from: FROM,
                epoch: EPOCH,
                primary: Some(NodeId::A),
                members: Members([Some(TO), None]),
                joiner: Some(FROM),
                generation: GENERATION,
            },
            grant: None,
        },
        "54775367 01 60 4800 00000000 e6cddc33 a8a7a6a5a4a3a2a1 0807060504030201 1817161514131211 \
             b8b7b6b5b4b3b2b1 0000000000000000 a8a7a6a5a4a3a2a1 03 01 000000000000",
    ),
    (
        "node attached",
        NodeFrame { msg: NodeMsg::Attached { generation: GENERATION }, grant: GRANT },
        "54775367 01 61 2800 00000000 686ccd68 1817161514131211 5857565554535251 6867666564636261",
    ),
    (
        "node resumed",
        NodeFrame { msg: NodeMsg::Resumed { generation: GENERATION, from: FROM, received: SEQ }, grant: GRANT },
        "54775367 01 62 3800 00000000 39a70ca1 1817161514131211 a8a7a6a5a4a3a2a1 2827262524232221 \
             5857565554535251 6867666564636261",
    ),
    (
        "node refused",
        NodeFrame { msg: NodeMsg::Refused { why: Refusal::NeedsRecovery }, grant: None },
        "54775367 01 63 1800 00000000 8c0a0fd3 04 00000000000000",
    ),
    (
        "node read done",
        NodeFrame { msg: NodeMsg::ReadDone { id: ID, epoch: EPOCH, durable: SEQ }, grant: None },
        "54775367 01 64 2800 00000000 0fbebbf4 7877767574737271 0807060504030201 2827262524232221",
    ),
];

/// From a node's driver to a client's.
const TIMES: &[Pin<Times>] = &[
    (
        "times of one that ACKs",
        Times { generation: GENERATION, seq: SEQ, to_ack_ns: Some(0x9192_9394), to_completion_ns: None },
        "54775367 01 65 2800 00000000 53dbcf27 1817161514131211 2827262524232221 94939291 00000000",
    ),
    (
        "times of a primary",
        Times { generation: GENERATION, seq: SEQ, to_ack_ns: Some(0x9192_9394), to_completion_ns: Some(0xa1a2_a3a4) },
        "54775367 01 65 2800 00000000 806408aa 1817161514131211 2827262524232221 94939291 a4a3a2a1",
    ),
];

fn setup_msgs() -> Vec<Pin<SetupMsg>> {
    let hello = |purpose, keyed| SetupMsg::Hello {
        purpose,
        volume: VolumeName::new("vol.0_x-Y").unwrap(),
        nonce: [0x0e; 32],
        keyed,
    };
    let volume = VolumeShape {
        uuid: *b"sixteen bytes id",
        blocks: 0x0003_0405_0607_0809,
        block_bytes: 4096,
        ring_bytes: 0x0102_0304_0000,
    };
    vec![
        (
            "setup hello client",
            hello(Purpose::Client, false),
            "54775367 01 01 8000 00000000 050f8b1c \
             766f6c2e305f782d590000000000000000000000000000000000000000000000 \
             0000000000000000000000000000000000000000000000000000000000000000 \
             0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e 0000000000000000 01 00 \
             00 0000000000",
        ),
        (
            "setup hello peer",
            hello(Purpose::Peer { node: NodeId::B, incarnation: FROM }, true),
            "54775367 01 01 8000 00000000 68c15783 \
             766f6c2e305f782d590000000000000000000000000000000000000000000000 \
             0000000000000000000000000000000000000000000000000000000000000000 \
             0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e a8a7a6a5a4a3a2a1 02 02 \
             01 0000000000",
        ),
        (
            "setup hello relay",
            hello(Purpose::Relay { node: NodeId::B, incarnation: FROM }, true),
            "54775367 01 01 8000 00000000 4bb93230 \
             766f6c2e305f782d590000000000000000000000000000000000000000000000 \
             0000000000000000000000000000000000000000000000000000000000000000 \
             0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e a8a7a6a5a4a3a2a1 04 02 \
             01 0000000000",
        ),
        (
            "setup hello probe",
            hello(Purpose::Probe { node: NodeId::A }, true),
            "54775367 01 01 8000 00000000 9ab2c009 \
             766f6c2e305f782d590000000000000000000000000000000000000000000000 \
             0000000000000000000000000000000000000000000000000000000000000000 \
             0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e 0000000000000000 03 01 \
             01 0000000000",
        ),
        (
            "setup challenge",
            SetupMsg::Challenge { nonce: [0x0c; 32], proof: Some([0x0d; 32]) },
            "54775367 01 02 5800 00000000 4e418c86 \
             0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c \
             0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d 01 00000000000000",
        ),
        (
            "setup challenge, no key",
            SetupMsg::Challenge { nonce: [0x0c; 32], proof: None },
            "54775367 01 02 5800 00000000 069e46ea \
             0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c \
             0000000000000000000000000000000000000000000000000000000000000000 00 00000000000000",
        ),
        (
            "setup proof",
            SetupMsg::Proof { proof: Some([0x0d; 32]) },
            "54775367 01 03 3800 00000000 84c5779b \
             0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d 01 00000000000000",
        ),
        (
            "setup proof, no key",
            SetupMsg::Proof { proof: None },
            "54775367 01 03 3800 00000000 cc1abdf7 \
             0000000000000000000000000000000000000000000000000000000000000000 00 00000000000000",
        ),
        (
            "setup welcome",
            SetupMsg::Welcome { node: NodeId::A, incarnation: FROM, volume, mailbox: KEY_1 },
            "54775367 01 04 4800 00000000 6449f27c 7369787465656e206279746573206964 0908070605040300 \
             0000040302010000 a8a7a6a5a4a3a2a1 5857565554535251 00100000 01 000000",
        ),
        (
            "setup ready",
            SetupMsg::Ready { mailbox: KEY_1, reads: Some(KEY_2) },
            "54775367 01 05 2800 00000000 e07761a0 5857565554535251 6867666564636261 01 \
             00000000000000",
        ),
        (
            "setup ready, a node's",
            SetupMsg::Ready { mailbox: KEY_1, reads: None },
            "54775367 01 05 2800 00000000 c43e3a0c 5857565554535251 0000000000000000 00 \
             00000000000000",
        ),
        (
            "setup rejected",
            SetupMsg::Rejected { why: Rejection::NotAPeer },
            "54775367 01 06 1800 00000000 3d57ac71 04 00000000000000",
        ),
    ]
}

/// Whose a message is: its index in `hostile::decode_all`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Setup = 0,
    Peer = 1,
    Client = 2,
    Node = 3,
    Times = 4,
}

/// All messages' literal bytes.
pub(crate) fn messages() -> Vec<(&'static str, Direction, Vec<u8>)> {
    let setup = setup_msgs().into_iter().map(|(name, _, hex)| (name, Direction::Setup, unhex(hex)));
    let peer = PEER_MSGS.iter().map(|(name, _, hex)| (*name, Direction::Peer, unhex(hex)));
    let client = CLIENT_MSGS.iter().map(|(name, _, hex)| (*name, Direction::Client, unhex(hex)));
    let node = NODE_FRAMES.iter().map(|(name, _, hex)| (*name, Direction::Node, unhex(hex)));
    let times = TIMES.iter().map(|(name, _, hex)| (*name, Direction::Times, unhex(hex)));
    setup.chain(peer).chain(client).chain(node).chain(times).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn descriptors() {
    for (name, value, pinned) in DESCRIPTORS {
        assert_eq!(hex(&value.encode()), hex(&unhex(pinned)), "{name}");
        assert_eq!(Descriptor::decode(&unhex(pinned).try_into().unwrap()).as_ref(), Ok(value), "{name}");
    }
}

#[test]
fn mailboxes() {
    for (name, value, pinned) in MAILBOXES {
        assert_eq!(hex(&value.encode()), hex(&unhex(pinned)), "{name}");
        assert_eq!(Mailbox::decode(&unhex(pinned).try_into().unwrap()).as_ref(), Ok(value), "{name}");
    }
}

#[test]
fn immediates() {
    for (value, pinned) in [
        (Immediate::Blob { slot: 0 }, 0x1000_0000),
        (Immediate::Blob { slot: 131_071 }, 0x1001_ffff),
        (Immediate::Blob { slot: 1023 }, 0x1000_03ff),
        (Immediate::Mailbox { slot: 0 }, 0x2000_0000),
        (Immediate::Mailbox { slot: 1 }, 0x2000_0001),
    ] {
        assert_eq!(value.encode(), pinned);
        assert_eq!(Immediate::decode(pinned), Ok(value));
    }
}

#[test]
fn peer_msgs() {
    for (name, value, pinned) in PEER_MSGS {
        assert_eq!(hex(value.encode().as_bytes()), hex(&unhex(pinned)), "{name}");
        assert_eq!(PeerMsg::decode(&unhex(pinned)).as_ref(), Ok(value), "{name}");
    }
}

#[test]
fn client_msgs() {
    for (name, value, pinned) in CLIENT_MSGS {
        assert_eq!(hex(value.encode().as_bytes()), hex(&unhex(pinned)), "{name}");
        assert_eq!(ClientMsg::decode(&unhex(pinned)).as_ref(), Ok(value), "{name}");
    }
}

#[test]
fn node_frames() {
    for (name, value, pinned) in NODE_FRAMES {
        assert_eq!(hex(value.encode().as_bytes()), hex(&unhex(pinned)), "{name}");
        assert_eq!(NodeFrame::decode(&unhex(pinned)).as_ref(), Ok(value), "{name}");
    }
}

#[test]
fn times() {
    for (name, value, pinned) in TIMES {
        assert_eq!(hex(value.encode().as_bytes()), hex(&unhex(pinned)), "{name}");
        assert_eq!(Times::decode(&unhex(pinned)).as_ref(), Ok(value), "{name}");
        assert!(Times::is_kind_of(&unhex(pinned)), "{name}");
    }
    for (name, _, pinned) in NODE_FRAMES {
        assert!(!Times::is_kind_of(&unhex(pinned)), "{name}");
    }
    let nothing = Times { to_ack_ns: Some(0), ..TIMES[0].1 };
    assert_eq!(Times::decode(nothing.encode().as_bytes()).unwrap().to_ack_ns, Some(1), "a time is never none");
}

#[test]
fn setup_messages() {
    for (name, value, pinned) in setup_msgs() {
        assert_eq!(hex(value.encode().as_bytes()), hex(&unhex(pinned)), "{name}");
        assert_eq!(SetupMsg::decode(&unhex(pinned)), Ok(value), "{name}");
    }
}

/// Every word of the small enumerations, as the one byte that stands for it.
#[test]
fn small_words() {
    let status = |role| to_whoever(PeerBody::Status { role, beat: 0, paths: false }).encode().as_bytes()[48];
    assert_eq!(Role::ALL.map(status), [1, 2, 3, 4, 5, 6, 7, 8]);
    let refused = |why| NodeFrame { msg: NodeMsg::Refused { why }, grant: None }.encode().as_bytes()[16];
    let refusals = [Refusal::NotReady, Refusal::Busy, Refusal::Superseded, Refusal::NeedsRecovery];
    assert_eq!(refusals.map(refused), [1, 2, 3, 4]);
    let rejected = |why| SetupMsg::Rejected { why }.encode().as_bytes()[16];
    let rejections = [Rejection::UnknownVolume, Rejection::WrongKey, Rejection::Version, Rejection::NotAPeer];
    assert_eq!(rejections.map(rejected), [1, 2, 3, 4]);
    let unreachable =
        |node| ClientMsg::Unreachable { node, epoch: EPOCH, generation: GENERATION }.encode().as_bytes()[32];
    assert_eq!(NodeId::BOTH.map(unreachable), [1, 2]);
}

/// The types can't say "without a lane"; the frame refuses to.
#[test]
#[should_panic(expected = "Attached and Resumed carry one")]
fn a_lane_is_not_opened_without_its_keys() {
    let _ = NodeFrame { msg: NodeMsg::Attached { generation: GENERATION }, grant: None }.encode();
}

#[test]
#[should_panic(expected = "nothing else does")]
fn keys_do_not_travel_with_anything_else() {
    let _ = NodeFrame { msg: NodeMsg::Refused { why: Refusal::Busy }, grant: GRANT }.encode();
}
