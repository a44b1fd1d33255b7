//! What a machine is told at its birth.

use twinsan_staging::Geometry;
use twinsan_wire::NodeId;

/// One volume on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReplicaConfig {
    /// Which node this is.
    pub node: NodeId,
    /// The lane's shape.
    pub geometry: Geometry,
    /// The volume's size in logical blocks.
    pub volume_blocks: u64,
    /// When to try.
    pub timing: Timing,
    /// The most payload bytes that one flush batch writes; at least one blob.
    pub max_batch_bytes: u64,
    /// An old, wrong wording of a rule, switched on to show that the tests catch it.
    #[cfg(feature = "weaken")]
    pub weakness: Option<Weakness>,
}

/// When to try, in milliseconds. Never part of safety.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timing {
    /// The longest time between two ticks.
    pub tick_ms: u64,
    /// Between two fabric heartbeats.
    pub heartbeat_ms: u64,
    /// Between two disk heartbeats.
    pub disk_heartbeat_ms: u64,
    /// Both heartbeats have stood still this long: take over (rule 15).
    pub takeover_ms: u64,
    /// The secondary has been lost this long: drop it (rule 7).
    pub drop_ms: u64,
    /// A join makes no progress for so long: throw it away (rule 8).
    pub join_ms: u64,
    /// A client has been silent this long: its session is not live (rule 10).
    pub client_dead_ms: u64,
    /// The longest that an orderly end waits for the other node.
    pub leave_ms: u64,
    /// Nothing has been staged for so long: mark the volume clean (rule 12).
    pub clean_ms: u64,
    /// While dual, from when all that was due is flushed until more is, unless a quarter of the lane fills meanwhile:
    /// the disk's work then does not run into the next write's way, and blocks written again meanwhile are written once.
    pub flush_rest_ms: u64,
    /// While dual, no more may be in RAM only than the disk takes in so long. 0: as much as the lane holds.
    pub takeover_budget_ms: u64,
    /// Between two tries of a disk operation that failed, or of a request to join.
    pub retry_ms: u64,
    /// The longest random wait of who was fenced or turned away (rule 15).
    pub backoff_max_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            tick_ms: 10,
            heartbeat_ms: 50,
            disk_heartbeat_ms: 200,
            takeover_ms: 1000,
            drop_ms: 500,
            join_ms: 2000,
            client_dead_ms: 2000,
            leave_ms: 3000,
            clean_ms: 60_000,
            flush_rest_ms: 100,
            takeover_budget_ms: 0,
            retry_ms: 100,
            backoff_max_ms: 4000,
        }
    }
}

/// The earlier, simpler wordings that lost data. Each is named for what goes wrong; the number is the rule's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Weakness {
    /// Section 1: a node keeps its incarnation when it drops its lanes.
    KeepIncarnation,
    /// Rule 6: an incarnation that clients may have been told of as of a joiner takes over as it is.
    KeepOffered,
    /// Section 3: a primary goes on releasing inside rules 5 and 7.
    ReleaseWhileDropping,
    /// Section 3: mailboxes and messages are believed whatever epoch and incarnations they name.
    BelieveEveryEpoch,
    /// Section 3: who enters an epoch does not write its mailboxes again.
    SilentEpoch,
    /// Rule 1: a read is answered before the staged blobs that it overlaps are durable.
    ReadBeforeDurable,
    /// Rule 1: a read waits for every blob that overlaps it, those that come later too.
    StarvedRead,
    /// Rule 2: batches overlap each other at the disk.
    OverlappingBatches,
    /// Rule 2: a batch writes each blob of its own part, though newer ones over it may be flushed.
    OldestFirst,
    /// Rule 2: while dual, blobs that are not durable are flushed.
    FlushBeforeDurable,
    /// Rule 4: a superblock that was merely read is acted on without fencing.
    ActUnfenced,
    /// Rule 5: what was flushed before a takeover stays flushed.
    TrustFlushMarks,
    /// Rule 8: what the joiner has not ACKed is flushed and completed while it joins.
    JoinTooEarly,
    /// Rule 9: every reservation conflict counts as being fenced.
    ConflictMeansFenced,
    /// Rule 10: the generation lives in the primary's RAM only.
    GenerationInRam,
    /// Rule 10: the old session's connections stay while a new one is let in.
    KeepOldSession,
    /// Rule 12: clean counts as set only when its write has ended, and as gone when that of its removal begins.
    CleanRace,
    /// Rule 11: whoever is there is asked to take over, whether it could go on or not.
    AskAnybody,
    /// Rule 13: the primary does not wait for its own disk I/O in flight.
    HandOverInFlight,
    /// Rule 13: the new primary does not read the superblock again.
    AcceptUnread,
    /// Rule 13: the new primary takes for granted that the old one holds what it holds itself.
    HandOverUnheard,
    /// Rule 13: a primary that does not reach the disk waits for it; nobody is asked.
    DeafToAsking,
    /// Rule 15: only both heartbeats count, not the client's word.
    DeafToClients,
    /// Rule 15: any client's word counts, whatever its session, and if it has none.
    BelieveAnyClient,
    /// Rule 14: the connection that fed a session before stays when another one takes it over.
    KeepEarlierFeeder,
    /// Rule 14: a relay is believed whoever feeds it.
    BelieveAnyRelay,
    /// Rule 14: what a relay carries back is what the primary has released, not who is fed.
    ReleasedByGuess,
}

impl Weakness {
    /// All of them.
    pub const ALL: [Self; 27] = [
        Self::KeepIncarnation,
        Self::KeepOffered,
        Self::ReleaseWhileDropping,
        Self::BelieveEveryEpoch,
        Self::SilentEpoch,
        Self::ReadBeforeDurable,
        Self::StarvedRead,
        Self::OverlappingBatches,
        Self::OldestFirst,
        Self::FlushBeforeDurable,
        Self::ActUnfenced,
        Self::TrustFlushMarks,
        Self::JoinTooEarly,
        Self::ConflictMeansFenced,
        Self::GenerationInRam,
        Self::KeepOldSession,
        Self::CleanRace,
        Self::AskAnybody,
        Self::HandOverInFlight,
        Self::AcceptUnread,
        Self::HandOverUnheard,
        Self::DeafToAsking,
        Self::DeafToClients,
        Self::BelieveAnyClient,
        Self::KeepEarlierFeeder,
        Self::BelieveAnyRelay,
        Self::ReleasedByGuess,
    ];
}

impl ReplicaConfig {
    /// All that a node's driver says: the same in a build with the test-only feature, where nothing is weakened.
    #[must_use]
    pub const fn new(
        node: NodeId,
        geometry: Geometry,
        volume_blocks: u64,
        timing: Timing,
        max_batch_bytes: u64,
    ) -> Self {
        Self {
            node,
            geometry,
            volume_blocks,
            timing,
            max_batch_bytes,
            #[cfg(feature = "weaken")]
            weakness: None,
        }
    }

    /// Whether a wrong wording is switched on; never in a build without the test-only feature.
    #[cfg(feature = "weaken")]
    pub(crate) fn weak(&self, weakness: Weakness) -> bool {
        self.weakness == Some(weakness)
    }

    /// Whether a wrong wording is switched on; never in a build without the test-only feature.
    #[cfg(not(feature = "weaken"))]
    #[expect(clippy::unused_self, reason = "the same call in both builds")]
    pub(crate) fn weak(&self, _: Weakness) -> bool {
        false
    }
}
