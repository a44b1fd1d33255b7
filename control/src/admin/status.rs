//! What a node tells about itself. Field names are the JSON's: `twinsan status --json` prints them as they are, so a
//! rename is a change that users see.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A whole node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name in the configuration.
    pub node: String,
    /// The program's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Since it started.
    pub uptime_ms: u64,
    /// In configuration order.
    pub volumes: Vec<VolumeStatus>,
}

/// One volume on one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VolumeStatus {
    /// Its name.
    pub name: String,
    /// Its UUID, from `twinsan format`.
    pub uuid: String,
    /// Its size.
    pub size_bytes: u64,
    /// Its logical block.
    pub block_bytes: u32,
    /// What this node does for it: one of [`twinsan_wire::Role::name`].
    pub role: String,
    /// This node's incarnation for it, as 16 hex digits.
    pub incarnation: String,
    /// The superblock as this node last knew it to be on the disk: the epoch.
    pub epoch: u64,
    /// Who serves.
    pub primary: Option<String>,
    /// Whose RAM counts.
    pub members: Vec<MemberStatus>,
    /// The incarnation that is joining, as 16 hex digits; known at the primary only.
    pub joiner: Option<String>,
    /// Two members: a completed write is in two RAMs.
    pub dual: bool,
    /// Nothing is staged anywhere (rule 12).
    pub clean: bool,
    /// The session in the superblock; zero: never attached.
    pub generation: u64,
    /// The client connected here.
    pub session: Option<SessionStatus>,
    /// The link to the other node.
    pub peer: PeerStatus,
    /// The last handover from this node.
    pub handover: HandoverStatus,
    /// What is staged here.
    pub lane: LaneStatus,
    /// The staging memory.
    pub memory: MemoryStatus,
    /// The shared disk.
    pub disk: DiskStatus,
    /// What has happened since the start, by name; they only grow.
    pub counters: BTreeMap<String, u64>,
}

/// One of the volume's members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its node's name.
    pub node: String,
    /// Its incarnation, as 16 hex digits.
    pub incarnation: String,
}

/// The client that is connected to this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// Its generation.
    pub generation: u64,
    /// Since it connected to this node.
    pub connected_ms: u64,
}

/// The link to the other node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// The other node's name.
    pub node: String,
    /// Whether the link is up.
    pub connected: bool,
    /// Since the link came up.
    pub connected_ms: Option<u64>,
    /// What the other node last said that it does: one of [`twinsan_wire::Role::name`].
    pub role: Option<String>,
    /// Whether the other node has a usable path to the disk, as it last said; `None`: it has said nothing.
    pub path_state: Option<PathState>,
    /// Why this node could not connect to it, until it can again.
    pub trouble: Option<String>,
}

/// Whether a node has a usable path to the shared disk (rule 11).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathState {
    /// At least one, as far as is known.
    #[default]
    Usable,
    /// None.
    None,
}

/// How far the last handover from a node has come (rule 13).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HandoverState {
    /// There was none since the process started.
    #[default]
    Never,
    /// It is under way.
    UnderWay,
    /// The other node serves.
    Done,
    /// It was called off before anything had happened; this node goes on.
    CalledOff,
    /// The other node did not go on; somebody took over by rule 5.
    Failed,
}

/// The last handover from a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandoverStatus {
    /// How far it is.
    pub state: HandoverState,
    /// Done: since which epoch the other node serves.
    pub epoch: Option<u64>,
    /// Done: from the stop here to the other node's word that it serves.
    pub pause_ms: Option<u64>,
    /// Called off: why.
    pub why: Option<String>,
}

/// What a node has staged for a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneStatus {
    /// The data ring.
    pub ring_bytes: u64,
    /// The descriptor ring.
    pub slots: u32,
    /// The last blob received.
    pub received: u64,
    /// The last blob that may be completed (rule 1).
    pub durable: u64,
    /// Every blob up to here is on the disk.
    pub flushed: u64,
    /// Every blob up to here has given its space back.
    pub released: u64,
    /// Blobs received and not yet released.
    pub staged_blobs: u64,
    /// Their payload bytes: what a takeover would have to flush.
    pub staged_bytes: u64,
    /// Since the oldest of them has been there; zero without any.
    pub staged_age_ms: u64,
    /// In how many nodes' RAM a completed write of them is, and nowhere else; zero: each is on the disk.
    #[serde(default)]
    pub copies: u8,
    /// Bytes that the disk takes in a second, measured over the last batches; `None`: not measured yet.
    #[serde(default)]
    pub flush_bytes_per_s: Option<u64>,
    /// How long a takeover would have to write, at that rate.
    #[serde(default)]
    pub drain_ms: Option<u64>,
    /// Writes that both nodes hold wait for the disk, as `takeover_budget_ms` is used up.
    #[serde(default)]
    pub at_budget: bool,
    /// What this node's last takeover had to write before it served.
    #[serde(default)]
    pub last_drain: Option<DrainStatus>,
    /// Reads that have not been answered.
    pub open_reads: u64,
}

/// What a takeover had to write before it served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainStatus {
    /// Blobs that were staged.
    pub blobs: u64,
    /// Bytes of the disk that they cover.
    pub bytes: u64,
    /// Until they were past the disk's cache.
    pub ms: u64,
}

/// The staging memory of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryStatus {
    /// How much.
    pub bytes: u64,
    /// In what pages: `huge`, `transparent-huge` or `small`.
    pub pages: String,
    /// Whether the kernel can't swap it out.
    pub locked: bool,
    /// What was not to be had, what that costs, and how to get it.
    pub advice: Vec<String>,
}

/// The shared disk as this node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStatus {
    /// Its path.
    pub path: String,
    /// What is known about how it is written: caches, direct I/O, registered buffers.
    pub facts: Vec<String>,
    /// Whether its last operation worked.
    pub well: bool,
    /// Whether this node has a usable path to it.
    pub path_state: PathState,
    /// The last error, with the system's words; it stays after the disk is well again.
    pub last_error: Option<String>,
    /// Operations that failed.
    pub errors: u64,
    /// The dm-multipath map, if it is one.
    #[serde(default)]
    pub map: Option<String>,
    /// Its paths; none where it has none of its own (a file, a disk that is not SCSI).
    #[serde(default)]
    pub paths: Vec<DiskPathStatus>,
}

/// One path to the shared disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskPathStatus {
    /// The kernel's name: `sda`. It changes from boot to boot.
    pub name: String,
    /// Host, channel, target, LUN: `2:0:0:0`.
    pub hctl: String,
    /// `active`; `standby`: not ready by ALUA; `unregistered`: not let in by the fence yet; `failed`; `gone`.
    pub state: String,
    /// What dm-multipath makes of it, as multipathd tells: `active` or `failed`.
    pub dm: Option<String>,
    /// For how long it has been so.
    pub for_ms: u64,
    /// How often it was lost since the start.
    pub failures: u64,
}
