//! Any value that the protocol allows.

use proptest::option;
use proptest::prelude::*;
use twinsan_wire::limits::{
    MAX_COUNT, MAX_LANE_SLOTS, MAX_OPEN_READS, MAX_PAYLOAD_BYTES, MAX_READ_BYTES, MAX_ZERO_BLOCKS, MIN_BLOCK_BYTES,
    MIN_RING_BYTES,
};
use twinsan_wire::{
    Blob, BlobKind, ClientMsg, Descriptor, Epoch, Generation, Immediate, Incarnation, LaneGrant, Lba, Mailbox, Member,
    Members, NodeFrame, NodeId, NodeMsg, PeerBody, PeerMsg, Purpose, Refusal, Rejection, RemoteKey, Role, Seq,
    SetupMsg, Superblock, Times, VolumeName, VolumeShape,
};

pub(crate) fn descriptor() -> impl Strategy<Value = Descriptor> {
    let blocks = prop_oneof![
        (1..=MAX_PAYLOAD_BYTES / 512).prop_map(|n| (BlobKind::Write, n, n * 512)),
        (1..=MAX_PAYLOAD_BYTES / 4096).prop_map(|n| (BlobKind::Write, n, n * 4096)),
        (1..=MAX_ZERO_BLOCKS).prop_map(|n| (BlobKind::Zeroes, n, 0)),
        (1..=MAX_ZERO_BLOCKS).prop_map(|n| (BlobKind::Discard, n, 0)),
    ];
    let position = 0..=u64::MAX - u64::from(MAX_PAYLOAD_BYTES);
    let span = 0..=u64::MAX - u64::from(MAX_ZERO_BLOCKS);
    (blocks, generation(), seq_from_one(), span, position, any::<Option<u32>>(), any::<bool>()).prop_map(
        |((kind, blocks, payload_len), generation, seq, lba, data_pos, crc, timed)| Descriptor {
            blob: Blob { generation, seq, kind, lba: Lba(lba), blocks, data_pos, payload_len },
            payload_crc: crc.filter(|_| kind == BlobKind::Write),
            timed,
        },
    )
}

pub(crate) fn mailbox() -> impl Strategy<Value = Mailbox> {
    let head = (epoch(), incarnation(), incarnation(), any_generation(), seq());
    let rest = (option::of(seq_from_one()), option::of(seq()), 0..=u64::from(MAX_LANE_SLOTS), any::<bool>());
    (head, 0..3, rest).prop_map(|((epoch, from, to, generation, position), kind, (first, durable, behind, relayed))| {
        match kind {
            0 => {
                let released = Seq(position.0.saturating_sub(behind));
                Mailbox::Ack { epoch, from, to, generation, first, received: position, released }
            }
            1 => Mailbox::Released { epoch, from, to, generation, released: position },
            _ => Mailbox::Completion { epoch, from, generation, durable, released: position, relayed },
        }
    })
}

pub(crate) fn immediate() -> impl Strategy<Value = Immediate> {
    prop_oneof![
        (0..MAX_LANE_SLOTS).prop_map(|slot| Immediate::Blob { slot }),
        (0..2u32).prop_map(|slot| Immediate::Mailbox { slot }),
    ]
}

pub(crate) fn peer_msg() -> impl Strategy<Value = PeerMsg> {
    let any_to = prop_oneof![
        (role(), any::<u64>(), any::<bool>()).prop_map(|(role, beat, paths)| PeerBody::Status { role, beat, paths }),
        superblock().prop_map(|superblock| PeerBody::Announce { superblock }),
    ];
    let named = prop_oneof![
        Just(PeerBody::JoinRequest),
        (any_generation(), option::of(seq_from_one()))
            .prop_map(|(generation, first)| PeerBody::JoinAccept { generation, first }),
        Just(PeerBody::JoinAbort),
        any_generation().prop_map(|generation| PeerBody::CloseSession { generation }),
        any_generation().prop_map(|generation| PeerBody::DropLane { generation }),
        any_generation().prop_map(|generation| PeerBody::LaneDropped { generation }),
        Just(PeerBody::Leave),
        Just(PeerBody::TakeOver),
        superblock().prop_map(|superblock| PeerBody::HandOver { superblock }),
        Just(PeerBody::AskHandOver),
    ];
    let addressed = prop_oneof![(option::of(incarnation()), any_to), (incarnation().prop_map(Some), named),];
    (epoch(), incarnation(), addressed).prop_map(|(epoch, from, (to, body))| PeerMsg { epoch, from, to, body })
}

pub(crate) fn client_msg() -> impl Strategy<Value = ClientMsg> {
    let blocks = 1..=MAX_READ_BYTES / MIN_BLOCK_BYTES;
    let slot = 0..u32::try_from(MAX_OPEN_READS).unwrap();
    let span = 0..=u64::MAX - u64::from(MAX_READ_BYTES);
    prop_oneof![
        any_generation().prop_map(|over| ClientMsg::Attach { over }),
        (generation(), seq_from_one()).prop_map(|(generation, first)| ClientMsg::Resume { generation, first }),
        (any::<u64>(), epoch(), seq(), span, blocks, slot).prop_map(|(id, epoch, after, lba, blocks, slot)| {
            ClientMsg::Read { id, epoch, after, lba: Lba(lba), blocks, slot }
        }),
        Just(ClientMsg::Heartbeat),
        (node(), epoch(), any::<u64>()).prop_map(|(node, epoch, generation)| {
            ClientMsg::Unreachable { node, epoch, generation: Generation(generation) }
        }),
        Just(ClientMsg::Detach),
    ]
}

pub(crate) fn times() -> impl Strategy<Value = Times> {
    let time = || option::of(1..=u32::MAX);
    (any_generation(), seq_from_one(), time(), time()).prop_map(|(generation, seq, to_ack_ns, to_completion_ns)| {
        Times { generation: Generation(generation.0.max(1)), seq, to_ack_ns, to_completion_ns }
    })
}

pub(crate) fn node_frame() -> impl Strategy<Value = NodeFrame> {
    let view = (role(), incarnation(), epoch(), option::of(node()), members(), option::of(incarnation()), any::<u64>())
        .prop_map(|(role, from, epoch, primary, members, joiner, generation)| NodeMsg::View {
            role,
            from,
            epoch,
            primary,
            members,
            joiner,
            generation: Generation(generation),
        });
    let refusal =
        prop::sample::select(vec![Refusal::NotReady, Refusal::Busy, Refusal::Superseded, Refusal::NeedsRecovery]);
    let msg = prop_oneof![
        view,
        generation().prop_map(|generation| NodeMsg::Attached { generation }),
        (generation(), incarnation(), seq()).prop_map(|(generation, from, received)| NodeMsg::Resumed {
            generation,
            from,
            received
        }),
        refusal.prop_map(|why| NodeMsg::Refused { why }),
        (any::<u64>(), epoch(), seq()).prop_map(|(id, epoch, durable)| NodeMsg::ReadDone { id, epoch, durable }),
    ];
    let grant = (remote_key(), remote_key()).prop_map(|(descriptors, data)| LaneGrant { descriptors, data });
    (msg, grant).prop_map(|(msg, grant)| NodeFrame { msg, grant: msg.opens_lane().then_some(grant) })
}

pub(crate) fn setup_msg() -> impl Strategy<Value = SetupMsg> {
    let purpose = prop_oneof![
        Just(Purpose::Client),
        (node(), incarnation()).prop_map(|(node, incarnation)| Purpose::Peer { node, incarnation }),
        (node(), incarnation()).prop_map(|(node, incarnation)| Purpose::Relay { node, incarnation }),
        node().prop_map(|node| Purpose::Probe { node }),
    ];
    let rejection = prop::sample::select(vec![
        Rejection::UnknownVolume,
        Rejection::WrongKey,
        Rejection::Version,
        Rejection::NotAPeer,
    ]);
    let proof = || option::of(any::<[u8; 32]>());
    prop_oneof![
        (purpose, volume_name(), any::<[u8; 32]>(), any::<bool>())
            .prop_map(|(purpose, volume, nonce, keyed)| SetupMsg::Hello { purpose, volume, nonce, keyed }),
        (any::<[u8; 32]>(), proof()).prop_map(|(nonce, proof)| SetupMsg::Challenge { nonce, proof }),
        proof().prop_map(|proof| SetupMsg::Proof { proof }),
        (node(), incarnation(), volume_shape(), remote_key()).prop_map(|(node, incarnation, volume, mailbox)| {
            SetupMsg::Welcome { node, incarnation, volume, mailbox }
        }),
        (remote_key(), option::of(remote_key())).prop_map(|(mailbox, reads)| SetupMsg::Ready { mailbox, reads }),
        rejection.prop_map(|why| SetupMsg::Rejected { why }),
    ]
}

pub(crate) fn volume_shape() -> impl Strategy<Value = VolumeShape> {
    let ring = (MIN_RING_BYTES / 4096..1 << 30).prop_map(|units| units * 4096);
    (any::<[u8; 16]>(), 1..=u64::MAX / 4096, prop_oneof![Just(512), Just(4096)], ring)
        .prop_map(|(uuid, blocks, block_bytes, ring_bytes)| VolumeShape { uuid, blocks, block_bytes, ring_bytes })
}

fn volume_name() -> impl Strategy<Value = VolumeName> {
    "[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}".prop_map(|name| VolumeName::new(&name).unwrap())
}

fn superblock() -> impl Strategy<Value = Superblock> {
    let members = prop_oneof![
        Just((None, Members::NONE)),
        members().prop_map(|members| (None, members)),
        (node(), incarnation(), option::of(incarnation())).prop_map(|(node, own, other)| {
            let solo = Members::solo(Member { node, incarnation: own });
            let other = other.map(|incarnation| Member { node: node.other(), incarnation });
            (Some(node), other.map_or(solo, |other| solo.with(other)))
        }),
    ];
    let count = || 0..=MAX_COUNT;
    (count(), count(), members, count(), any::<bool>()).prop_map(
        |(counter, epoch, (primary, members), generation, clean)| Superblock {
            counter,
            epoch: Epoch(epoch),
            primary,
            members,
            generation: Generation(generation),
            clean,
        },
    )
}

fn members() -> impl Strategy<Value = Members> {
    (option::of(incarnation()), option::of(incarnation())).prop_map(|(a, b)| Members([a, b]))
}

fn incarnation() -> impl Strategy<Value = Incarnation> {
    (1..=u64::MAX).prop_map(Incarnation::from_random)
}

fn generation() -> impl Strategy<Value = Generation> {
    (1..=u64::MAX).prop_map(Generation)
}

fn any_generation() -> impl Strategy<Value = Generation> {
    prop_oneof![Just(Generation::ZERO), generation()]
}

fn seq_from_one() -> impl Strategy<Value = Seq> {
    (1..=u64::MAX).prop_map(Seq)
}

fn seq() -> impl Strategy<Value = Seq> {
    any::<u64>().prop_map(Seq)
}

fn epoch() -> impl Strategy<Value = Epoch> {
    any::<u64>().prop_map(Epoch)
}

fn remote_key() -> impl Strategy<Value = RemoteKey> {
    any::<u64>().prop_map(RemoteKey)
}

fn node() -> impl Strategy<Value = NodeId> {
    prop::sample::select(NodeId::BOTH.to_vec())
}

fn role() -> impl Strategy<Value = Role> {
    prop::sample::select(Role::ALL.to_vec())
}
