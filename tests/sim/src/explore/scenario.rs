//! What a search is made of: where it begins, what the client asks for, and which faults may strike.

use core::fmt;

use twinsan_replica::Timing;

use crate::config::{FenceKind, SimConfig, geometry};
use crate::weak::Weakness;

/// One request of the client's program, by block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// A write of one block.
    Write(u64),
    /// A read of one block.
    Read(u64),
}

macro_rules! budget {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// How often each fault may strike, at any moment and in any order.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub struct Budget {
            $($(#[$doc])* pub $name: u8,)*
        }

        impl Budget {
            /// Without faults.
            pub const NONE: Self = Self { $($name: 0),* };

            /// The number of that name.
            pub fn by_name(&mut self, name: &str) -> Option<&mut u8> {
                match name {
                    $(stringify!($name) => Some(&mut self.$name),)*
                    _ => None,
                }
            }

            /// All names.
            pub const NAMES: &[&str] = &[$(stringify!($name)),*];
        }

        impl fmt::Display for Budget {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let all = [$((stringify!($name), self.$name)),*];
                let there = all.into_iter().filter(|(_, n)| *n > 0);
                let words: Vec<String> = there.map(|(name, n)| if n == 1 { name.into() } else { format!("{n} {name}") }).collect();
                f.pad(&words.join(", "))
            }
        }
    };
}

budget! {
    /// A node's process is killed; never one whose RAM is the last copy (rule 12).
    crash,
    /// A dead node's process starts again, and joins.
    restart,
    /// A node's process is stopped, and may go on at any later moment.
    freeze,
    /// The path between two hosts is cut, and may be whole again at any later moment.
    cut,
    /// The client is killed, and another one attaches.
    reattach,
    /// A handover is ordered.
    handover,
    /// A disk write lands only after time has passed; in prompt order it waits for as long as one likes.
    late,
    /// In prompt order: what travels one way by a connection waits, or a disk write does, for as long as one likes.
    hold,
    /// All timeouts of a node come early.
    hasten,
    /// A node loses all its paths to the disk, and may have them back at any later moment.
    pathless,
    /// A path of a node comes back and is registered (section 5).
    path,
    /// A superblock slot rots.
    rot,
    /// A write is answered with a conflict though the key is there.
    conflict,
}

/// One search.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// What it is called.
    pub name: &'static str,
    /// The fence provider.
    pub fence: FenceKind,
    /// It begins with two members; else with A alone, and B not running.
    pub dual: bool,
    /// What the client asks for, in order.
    pub program: &'static [Request],
    /// The faults.
    pub budget: Budget,
    /// Not every interleaving, but one order (answers first, then messages, then the disk), in which faults may strike at
    /// any moment, and [`Budget::hold`] holds.
    pub prompt: bool,
    /// The most blocks of a flush batch.
    pub batch_blocks: u64,
    /// The clean mark comes when nothing has happened for a while; else never.
    pub clean: bool,
    /// In the small set, which CI runs.
    pub small: bool,
    /// A rule switched to its old wording.
    pub weakness: Option<Weakness>,
}

/// How far the clocks go on when time passes. Heartbeats and retries are due each time, timeouts each second time.
pub(crate) const TIME_MS: u64 = 10;

impl Scenario {
    /// The same with one rule switched to its old wording.
    #[must_use]
    pub fn weakened(self, weakness: Weakness) -> Self {
        Self { weakness: Some(weakness), ..self }
    }

    /// By its name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        SCENARIOS.iter().find(|scenario| scenario.name == name).copied()
    }

    pub(crate) fn config(&self) -> SimConfig {
        SimConfig {
            volume_blocks: 2,
            geometry: geometry(4, 4),
            max_blocks: 1,
            max_batch_blocks: self.batch_blocks,
            timing: timing(self.clean),
            client_timing: client_timing(),
            weakness: self.weakness,
            trace: false,
            ..SimConfig::scripted(self.fence)
        }
    }
}

fn timing(clean: bool) -> Timing {
    Timing {
        tick_ms: TIME_MS,
        heartbeat_ms: TIME_MS,
        disk_heartbeat_ms: TIME_MS,
        takeover_ms: 2 * TIME_MS,
        drop_ms: 2 * TIME_MS,
        join_ms: 2 * TIME_MS,
        client_dead_ms: 2 * TIME_MS,
        leave_ms: 2 * TIME_MS,
        clean_ms: if clean { 2 * TIME_MS } else { 1 << 40 },
        flush_rest_ms: 0,
        takeover_budget_ms: 0,
        // Who was fenced or turned away tries again when time has passed. At once, two nodes could take over from each other
        // in turn for ever; a random while would only make one state into several.
        retry_ms: 2,
        backoff_max_ms: 1,
    }
}

fn client_timing() -> twinsan_session::Timing {
    twinsan_session::Timing {
        heartbeat_ms: TIME_MS,
        unreachable_ms: 2 * TIME_MS,
        silent_ms: 2 * TIME_MS,
        backoff_first_ms: 1,
        backoff_max_ms: 1,
        refused_retry_ms: 1,
        busy_grace_ms: 0,
    }
}

// ---- the sets ---------------------------------------------------------------------------------------------------------

use Request::{Read, Write};

const NONE: Budget = Budget::NONE;
const ONE: &[Request] = &[Write(0)];
const TWO: &[Request] = &[Write(0), Write(0)];
const THREE: &[Request] = &[Write(0), Write(0), Write(1)];
const READS: &[Request] = &[Write(0), Read(0), Read(0)];

/// Every interleaving, two members, in the small set.
const fn full(name: &'static str, program: &'static [Request], budget: Budget) -> Scenario {
    Scenario {
        name,
        fence: FenceKind::Pr,
        dual: true,
        program,
        budget,
        prompt: false,
        batch_blocks: 8,
        clean: false,
        small: true,
        weakness: None,
    }
}

/// One order beside the faults.
const fn prompt(name: &'static str, program: &'static [Request], budget: Budget) -> Scenario {
    Scenario { prompt: true, ..full(name, program, budget) }
}

/// Of the large set only.
const fn large(scenario: Scenario) -> Scenario {
    Scenario { small: false, ..scenario }
}

/// Node A alone, and B to be started (as `restart`).
const fn solo(scenario: Scenario) -> Scenario {
    Scenario { dual: false, ..scenario }
}

/// The fence `local-lock`.
const fn lock(scenario: Scenario) -> Scenario {
    Scenario { fence: FenceKind::Lock, ..scenario }
}

/// Each write is a flush batch of its own.
const fn one_by_one(scenario: Scenario) -> Scenario {
    Scenario { batch_blocks: 1, ..scenario }
}

/// With clean marks.
const fn clean(scenario: Scenario) -> Scenario {
    Scenario { clean: true, ..scenario }
}

/// All of them.
pub const SCENARIOS: &[Scenario] = &[
    full("writes", &[Write(0), Write(0), Write(1), Read(0)], NONE),
    full("crash", TWO, Budget { crash: 1, ..NONE }),
    prompt("freeze", TWO, Budget { freeze: 1, hold: 1, ..NONE }),
    full("cut", ONE, Budget { cut: 1, ..NONE }),
    full("hasten", ONE, Budget { hasten: 1, ..NONE }),
    full("handover", TWO, Budget { handover: 1, ..NONE }),
    full("reattach", TWO, Budget { reattach: 1, ..NONE }),
    solo(full("join", TWO, Budget { restart: 1, ..NONE })),
    full("disk-faults", ONE, Budget { path: 1, rot: 1, conflict: 1, ..NONE }),
    lock(full("lock-crash", TWO, Budget { crash: 1, ..NONE })),
    lock(prompt("lock-handover-freeze", ONE, Budget { handover: 1, freeze: 1, crash: 1, ..NONE })),
    prompt("crash-rejoin", THREE, Budget { crash: 1, restart: 1, ..NONE }),
    prompt("crash-handover", THREE, Budget { crash: 1, handover: 1, ..NONE }),
    prompt("crash-reattach", THREE, Budget { crash: 1, reattach: 1, ..NONE }),
    prompt("crash-hold", TWO, Budget { crash: 1, hold: 1, ..NONE }),
    prompt("freeze-handover", TWO, Budget { freeze: 1, handover: 1, ..NONE }),
    prompt("freeze-reads", READS, Budget { freeze: 1, ..NONE }),
    prompt("freeze-path", ONE, Budget { freeze: 1, path: 1, ..NONE }),
    prompt("cut-off", TWO, Budget { cut: 1, ..NONE }),
    prompt("pathless", &[Write(0), Read(1)], Budget { pathless: 1, ..NONE }),
    prompt("rot", &[], Budget { hasten: 1, crash: 1, rot: 1, ..NONE }),
    clean(prompt("clean", ONE, Budget { crash: 2, hold: 1, ..NONE })),
    one_by_one(prompt("one-by-one", TWO, Budget { hasten: 1, crash: 1, ..NONE })),
    solo(prompt("join-crash", TWO, Budget { restart: 1, crash: 1, ..NONE })),
    solo(prompt("join-cut", ONE, Budget { restart: 1, cut: 1, ..NONE })),
    prompt("cut-apart", &[], Budget { cut: 2, ..NONE }),
    // The large set.
    large(solo(prompt("join-crash-hold", TWO, Budget { restart: 1, crash: 1, hold: 1, ..NONE }))),
    large(full("freeze-all", ONE, Budget { freeze: 1, ..NONE })),
    large(full("crash-three", THREE, Budget { crash: 1, ..NONE })),
    large(full("handover-three", THREE, Budget { handover: 1, ..NONE })),
    large(full("cut-two", TWO, Budget { cut: 1, ..NONE })),
    large(solo(full("join-three", THREE, Budget { restart: 1, ..NONE }))),
    large(full("crash-rejoin-all", ONE, Budget { crash: 1, restart: 1, ..NONE })),
    large(full("cut-late-all", ONE, Budget { cut: 1, late: 2, ..NONE })),
    large(full("crash-late-all", THREE, Budget { crash: 1, late: 2, ..NONE })),
    large(prompt("crash-rejoin-hold", TWO, Budget { crash: 1, restart: 1, hold: 1, ..NONE })),
    large(prompt("crash-rejoin-freeze", TWO, Budget { crash: 1, restart: 1, freeze: 1, ..NONE })),
    large(prompt("crash-rejoin-reattach", THREE, Budget { crash: 1, restart: 1, reattach: 1, ..NONE })),
    large(prompt("crash-rejoin-handover", THREE, Budget { crash: 1, restart: 1, handover: 1, ..NONE })),
    large(prompt("freeze-hold", THREE, Budget { freeze: 1, hold: 1, ..NONE })),
    large(prompt("freeze-late", THREE, Budget { freeze: 1, late: 2, ..NONE })),
    large(prompt("cut-late", THREE, Budget { cut: 1, late: 2, ..NONE })),
    large(prompt("crash-rejoin-late", THREE, Budget { crash: 1, restart: 1, late: 2, ..NONE })),
    large(prompt("crash-handover-reattach", THREE, Budget { crash: 1, handover: 1, reattach: 1, ..NONE })),
    large(prompt("reattach-handover-late", THREE, Budget { reattach: 1, handover: 1, late: 2, ..NONE })),
    large(one_by_one(prompt("one-by-one-hold", TWO, Budget { freeze: 1, hold: 1, ..NONE }))),
    large(prompt("freeze-reads-hold", READS, Budget { freeze: 1, hold: 1, ..NONE })),
    large(prompt("hasten-crash-hold", TWO, Budget { hasten: 1, crash: 1, hold: 1, ..NONE })),
    large(solo(prompt("join-freeze", THREE, Budget { restart: 1, freeze: 1, ..NONE }))),
    large(solo(prompt("join-freeze-late", ONE, Budget { restart: 1, freeze: 1, late: 1, ..NONE }))),
    large(solo(full("join-crash-all", TWO, Budget { restart: 1, crash: 1, ..NONE }))),
    large(solo(prompt("join-cut-crash", ONE, Budget { restart: 1, cut: 1, crash: 1, ..NONE }))),
    large(prompt("cut-handover", THREE, Budget { cut: 1, handover: 1, ..NONE })),
];
