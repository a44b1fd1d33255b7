//! What may happen next, drawn at random: half of it plausible, so that deep states are reached, half of it noise.

use proptest::prelude::*;
use twinsan_wire::{BlobKind, Role};

/// One thing that happens.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// So many milliseconds pass, with one tick.
    Wait(u64),
    /// One action under way ends: which (mod their number), and how (0: it fails).
    Answer(usize, u8),
    /// All actions under way end well.
    AnswerAll,
    Shutdown,
    Recover,
    Switchover,
    Paths(bool),
    /// The other node dies; the next one is another incarnation.
    PeerDies,
    LinkUp,
    LinkDown,
    PeerStatus(Role),
    PeerPaths(bool),
    PeerAsksToJoin,
    /// It ACKs what this node's session has sent, less so many; with the lane's beginning or without.
    PeerAcks(u64, bool),
    PeerAccepts(bool),
    PeerAborts,
    PeerLeaves,
    PeerAsksToTakeOver,
    PeerAsksToHandOver,
    /// It hands over to this node, and says so; or only says so again.
    PeerHandsOver(bool),
    PeerDropsLane,
    PeerHasDroppedLane,
    PeerReleases(u64),
    /// It fences this node, and serves alone; with a new session or without.
    PeerFences(bool),
    /// It lets this node in.
    PeerLetsIn,
    /// It drops this node.
    PeerDrops,
    PeerAnnounces,
    /// The other node answers a relay's Resume: it has so many less than this node.
    RelayResumed(u64),
    RelayDown,
    /// The other node connects as a relay, by the name that it has, or another.
    PeerRelays(bool),
    ClientUp,
    Client(usize, Said),
}

/// What a client says.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    Down,
    /// Also over a live session, or not.
    Attach(bool),
    /// In the session of the superblock, from so many after what this node has.
    Resume(u64),
    ResumeNoise(u64, u64),
    /// The next blob, over this block.
    Write(u64),
    BlobNoise {
        generation: u64,
        seq: u64,
        kind: BlobKind,
        lba: u64,
        blocks: u32,
        data_pos: u64,
        payload_len: u32,
    },
    Read(u64),
    ReadNoise {
        epoch: u64,
        after: u64,
        lba: u64,
        blocks: u32,
        slot: u32,
    },
    /// This node or the other, by a session so many before the superblock's.
    Unreachable(bool, u64),
    Heartbeat,
    Detach,
}

/// A number that is small, or as large as they come, or near a power of two.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..12u64, 1 => (0..4u64).prop_map(|n| u64::MAX - n), 1 => (0..64u32).prop_map(|n| 1 << n), 1 => any::<u64>()]
}

fn short() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0..12u32, 1 => (0..4u32).prop_map(|n| u32::MAX - n), 1 => any::<u32>()]
}

fn kind() -> impl Strategy<Value = BlobKind> {
    prop_oneof![Just(BlobKind::Write), Just(BlobKind::Zeroes), Just(BlobKind::Discard)]
}

fn blob_noise() -> impl Strategy<Value = Said> {
    (0..4u64, number(), kind(), number(), short(), number(), short()).prop_map(
        |(generation, seq, kind, lba, blocks, data_pos, payload_len)| Said::BlobNoise {
            generation,
            seq,
            kind,
            lba,
            blocks,
            data_pos,
            payload_len,
        },
    )
}

/// What a client may say.
pub(crate) fn said() -> impl Strategy<Value = Said> {
    prop_oneof![
        1 => Just(Said::Down),
        3 => any::<bool>().prop_map(Said::Attach),
        4 => (0..2u64).prop_map(Said::Resume),
        1 => (0..4u64, number()).prop_map(|(generation, first)| Said::ResumeNoise(generation, first)),
        12 => (0..6u64).prop_map(Said::Write),
        2 => blob_noise(),
        6 => (0..6u64).prop_map(Said::Read),
        1 => (number(), number(), number(), short(), short()).prop_map(|(epoch, after, lba, blocks, slot)| {
            Said::ReadNoise { epoch, after, lba, blocks, slot }
        }),
        2 => (any::<bool>(), 0..2u64).prop_map(|(own, behind)| Said::Unreachable(own, behind)),
        1 => Just(Said::Heartbeat),
        1 => Just(Said::Detach),
    ]
}

/// What may happen at all.
pub(crate) fn step() -> impl Strategy<Value = Step> {
    let client = || (0..3usize, said()).prop_map(|(which, said)| Step::Client(which, said));
    let disk = prop_oneof![
        10 => (any::<usize>(), 0..6u8).prop_map(|(which, how)| Step::Answer(which, how)),
        4 => Just(Step::AnswerAll),
    ];
    let time = prop_oneof![
        4 => Just(Step::Wait(10)), 3 => Just(Step::Wait(60)), 2 => Just(Step::Wait(600)), 1 => Just(Step::Wait(3000)),
    ];
    let link = prop_oneof![
        1 => Just(Step::PeerDies),
        3 => Just(Step::LinkUp),
        1 => Just(Step::LinkDown),
        6 => prop::sample::select(&Role::ALL[..]).prop_map(Step::PeerStatus),
        3 => Just(Step::PeerStatus(Role::Secondary)),
        1 => any::<bool>().prop_map(Step::PeerPaths),
    ];
    let peer = prop_oneof![
        3 => Just(Step::PeerAsksToJoin),
        5 => (0..3u64, any::<bool>()).prop_map(|(less, first)| Step::PeerAcks(less, first)),
        2 => any::<bool>().prop_map(Step::PeerAccepts),
        1 => Just(Step::PeerAborts),
        1 => Just(Step::PeerLeaves),
        1 => Just(Step::PeerAsksToTakeOver),
        1 => Just(Step::PeerAsksToHandOver),
        2 => any::<bool>().prop_map(Step::PeerHandsOver),
        1 => Just(Step::PeerDropsLane),
        2 => Just(Step::PeerHasDroppedLane),
        2 => (0..3u64).prop_map(Step::PeerReleases),
        1 => any::<bool>().prop_map(Step::PeerFences),
        2 => Just(Step::PeerLetsIn),
        1 => Just(Step::PeerDrops),
        3 => Just(Step::PeerAnnounces),
        4 => (0..3u64).prop_map(Step::RelayResumed),
        1 => Just(Step::RelayDown),
        1 => any::<bool>().prop_map(Step::PeerRelays),
    ];
    let order = prop_oneof![
        1 => Just(Step::Shutdown), 4 => Just(Step::Recover), 8 => Just(Step::Switchover),
        4 => any::<bool>().prop_map(Step::Paths),
    ];
    prop_oneof![
        60 => client(), 15 => Just(Step::ClientUp), 50 => disk, 25 => time, 25 => link, 40 => peer, 4 => order,
    ]
}
