//! What a session is told at its birth.

use twinsan_staging::Geometry;

/// One client's session with one volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionConfig {
    /// The lane's shape, as both nodes have it.
    pub geometry: Geometry,
    /// The volume's size in logical blocks.
    pub volume_blocks: u64,
    /// When to try.
    pub timing: Timing,
    /// Another session is live: wait until it has ended, instead of giving up.
    pub wait_if_busy: bool,
    /// Another session is live when the first primary is heard: take the volume over from it. Not from a session that
    /// begins after that.
    pub take_over: bool,
    /// See [`Weakness`]. There in every build, as cargo may switch the feature on for all crates of a build, which must
    /// not change what it takes to make a configuration; but only the feature can set it.
    weakness: Option<Weakness>,
}

impl SessionConfig {
    /// With the default timing, and giving up where the volume is busy; the public fields may be set after that.
    #[must_use]
    pub fn new(geometry: Geometry, volume_blocks: u64) -> Self {
        Self {
            geometry,
            volume_blocks,
            timing: Timing::default(),
            wait_if_busy: false,
            take_over: false,
            weakness: None,
        }
    }

    /// With a wrong wording switched on.
    #[cfg(feature = "weaken")]
    #[must_use]
    pub fn weakened(self, weakness: Option<Weakness>) -> Self {
        Self { weakness, ..self }
    }

    /// Whether a wrong wording is switched on; never in a build without the test-only feature.
    pub(crate) fn weak(&self, weakness: Weakness) -> bool {
        self.weakness == Some(weakness)
    }
}

/// When to try, in milliseconds. Never part of safety.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timing {
    /// Between two heartbeats to each connected node.
    pub heartbeat_ms: u64,
    /// A node that has been out of reach this long is reported to the other one (rule 15).
    pub unreachable_ms: u64,
    /// A connection that has brought nothing for so long counts as broken. Nodes say their View at every heartbeat.
    pub silent_ms: u64,
    /// The wait before the second attempt to connect; the first is made at once, each further wait is twice as long.
    pub backoff_first_ms: u64,
    /// The longest wait between two attempts to connect.
    pub backoff_max_ms: u64,
    /// Between a refusal and asking again on the same connection.
    pub refused_retry_ms: u64,
    /// After an Attach whose answer was cut off: how long "busy" may mean that very session, which the nodes take for
    /// live until its client has been silent for long enough.
    pub busy_grace_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat_ms: 50,
            unreachable_ms: 300,
            silent_ms: 1000,
            backoff_first_ms: 10,
            backoff_max_ms: 500,
            refused_retry_ms: 20,
            busy_grace_ms: 5000,
        }
    }
}

/// Earlier, simpler wordings that lose or mix up data; each is named for what goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Weakness {
    /// Section 3 †: the connection to the old primary stays, and its completions and answers are believed although a
    /// newer epoch is known.
    CompleteFromOlderEpoch,
    /// Section 3 †: the old primary's words are ignored, but its connection stays, so that its answers still land in
    /// read buffers that the new primary fills.
    ReuseReadBufferBeforeClose,
    /// Rules 8 and 14: a joiner that has not been asked before is taken to need nothing that has completed.
    TrustFirstAsk,
    /// Rules 8 and 14: a blob is forgotten once it has completed, though a holder of the lane has not released it.
    ForgetWhatCompleted,
    /// Rule 1 †: the answer to a read counts when it comes, though a blob that it may show has not completed.
    CountAnswersAtOnce,
}

impl Weakness {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::CompleteFromOlderEpoch,
        Self::ReuseReadBufferBeforeClose,
        Self::TrustFirstAsk,
        Self::ForgetWhatCompleted,
        Self::CountAnswersAtOnce,
    ];
}
