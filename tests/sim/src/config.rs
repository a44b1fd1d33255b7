//! What one run is made of: everything that its seed decides before it begins.

use twinsan_replica::Timing;
use twinsan_staging::Geometry;

use crate::boundaries::Boundary;
use crate::rng::Rng;
use crate::weak::{DriverWeakness, Weakness};

/// A logical block; its size means nothing here, as no bytes are moved.
pub(crate) const BLOCK_BYTES: u32 = 512;

/// Which fence provider of section 5 the disk has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FenceKind {
    /// Persistent reservations: registered keys may write; a fence removes all others'.
    Pr,
    /// The host's exclusive claim: a fence kills its holder and waits for its last write.
    Lock,
}

/// The shortest and the usual longest of a random time, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The shortest.
    pub low: u64,
    /// The usual longest.
    pub high: u64,
}

/// One run.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// Where the plan comes from.
    pub seed: u64,
    /// Where all other chance comes from: latencies, what is lost. The seed, unless somebody looks for less.
    pub noise: u64,
    /// The fence provider.
    pub fence: FenceKind,
    /// The volume's size in blocks.
    pub volume_blocks: u64,
    /// The lane's shape: a few slots and blocks, so that it wraps all the time.
    pub geometry: Geometry,
    /// The longest request in blocks.
    pub max_blocks: u32,
    /// The most blocks of a flush batch.
    pub max_batch_blocks: u64,
    /// The machines' timing.
    pub timing: Timing,
    /// The client machine's.
    pub client_timing: twinsan_session::Timing,
    /// A message's way.
    pub net: Span,
    /// A disk operation.
    pub disk: Span,
    /// Between two requests of the client.
    pub think: Span,
    /// Writes that the client issues; zero: a script drives it.
    pub writes: u64,
    /// Faults that strike meanwhile, at least; zero: a script chooses them.
    pub faults: u64,
    /// Kill both nodes at some time (rule 12).
    pub kill_both: bool,
    /// A node is killed and started again in the middle of what it does.
    pub boundary: Option<Boundary>,
    /// A rule switched to its old wording.
    pub weakness: Option<Weakness>,
    /// Keep a readable record.
    pub trace: bool,
}

impl SimConfig {
    /// What a seed stands for.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let volume_blocks = rng.between(8, 40);
        let slots = 8 << rng.below(2);
        let ring_blocks = rng.between(12, 32);
        let mut config = Self {
            seed,
            noise: seed,
            fence: if rng.chance(600) { FenceKind::Pr } else { FenceKind::Lock },
            volume_blocks,
            geometry: geometry(slots, ring_blocks),
            max_blocks: 5,
            max_batch_blocks: 8,
            timing: Timing { flush_rest_ms: 10 * rng.below(4), ..timing() },
            client_timing: client_timing(),
            net: Span { low: 20, high: rng.between(100, 3000) },
            disk: Span { low: 100, high: rng.between(500, 12_000) },
            think: Span { low: 10, high: rng.between(500, 16_000) },
            writes: rng.between(200, 260),
            faults: rng.between(4, 12),
            kill_both: rng.chance(40),
            boundary: None,
            weakness: None,
            trace: false,
        };
        // Drawn last, so that a seed is otherwise what it was without it.
        config.timing.takeover_budget_ms = [0, 0, 2, 20][usize::try_from(rng.below(4)).expect("few")];
        config
    }

    /// A quiet cluster for a script: nothing happens by itself, and everything that does is quick.
    #[must_use]
    pub fn scripted(fence: FenceKind) -> Self {
        Self {
            seed: 1,
            noise: 1,
            fence,
            volume_blocks: 16,
            geometry: geometry(16, 32),
            max_blocks: 4,
            max_batch_blocks: 8,
            timing: timing(),
            client_timing: client_timing(),
            net: Span { low: 20, high: 40 },
            disk: Span { low: 100, high: 300 },
            think: Span { low: 10, high: 20 },
            writes: 0,
            faults: 0,
            kill_both: false,
            boundary: None,
            weakness: None,
            trace: true,
        }
    }

    /// The same with one rule switched to its old wording.
    #[must_use]
    pub fn weakened(mut self, weakness: Option<Weakness>) -> Self {
        self.weakness = weakness;
        self
    }

    pub(crate) fn driver_weak(&self, weakness: DriverWeakness) -> bool {
        self.weakness == Some(Weakness::Driver(weakness))
    }

    pub(crate) fn ring_blocks(&self) -> u64 {
        self.geometry.ring_bytes() / u64::from(BLOCK_BYTES)
    }
}

pub(crate) fn geometry(slots: u32, ring_blocks: u64) -> Geometry {
    Geometry::new(slots, ring_blocks * u64::from(BLOCK_BYTES), BLOCK_BYTES).expect("a small but possible lane")
}

/// A third of the real times: a run is the same, and over sooner.
fn timing() -> Timing {
    Timing {
        tick_ms: 10,
        heartbeat_ms: 20,
        disk_heartbeat_ms: 60,
        takeover_ms: 300,
        drop_ms: 150,
        join_ms: 600,
        client_dead_ms: 600,
        leave_ms: 900,
        clean_ms: 400,
        flush_rest_ms: 0,
        takeover_budget_ms: 0,
        retry_ms: 40,
        backoff_max_ms: 800,
    }
}

fn client_timing() -> twinsan_session::Timing {
    twinsan_session::Timing {
        heartbeat_ms: 20,
        unreachable_ms: 100,
        silent_ms: 600,
        backoff_first_ms: 5,
        backoff_max_ms: 100,
        refused_retry_ms: 20,
        busy_grace_ms: 300,
    }
}
