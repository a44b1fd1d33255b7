//! The session's half of one node: its connection and what is known of its lane.
//!
//! ```text
//!          retry_at                Connected
//!   Idle ───────────▶ Connecting ───────────▶ Listening ◀──────── Refused ───────┐
//!    ▲ ▲                  │                     │    │                            │
//!    │ └── ConnectFailed ─┘             Attach ─┘    └─ Resume                    │
//!    │                                          ▼    ▼                            │
//!    │                                  Attaching    Resuming ───────────────────┤
//!    │                                          │    │                            │
//!    │                                 Attached ▼    ▼ Resumed        (Attaching ─┘)
//!    └── Closed, silent, violation ──────────  Feeding
//!        (from every connected state)
//! ```
//!
//! | state | what holds |
//! | --- | --- |
//! | Idle, Connecting | nothing from this node can land |
//! | Listening | its Views are heard; it is asked for nothing; it may change its incarnation |
//! | Attaching | one Attach is out, to the primary of the known epoch (rule 10) |
//! | Resuming | one Resume is out, to a holder; its lane begins at `lane.released + 1` or later (rule 14) |
//! | Feeding | every blob up to `sent` has been posted or was there before, `sent` is the session's last |

use twinsan_wire::{Incarnation, Seq};

use crate::config::Timing;
use crate::event::ConnId;
use crate::view::View;

/// One node, as the session sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Link {
    pub(crate) state: State,
    /// What is known of the lane of the last incarnation that was asked to open one, or that mirrors. Kept while the
    /// node is away, and also when it is no longer a holder, so that it shows if it ever came back with a lane that was
    /// given up.
    pub(crate) lane: Option<LaneMark>,
    /// Since when the node has been out of reach; `None` while it is connected.
    pub(crate) down_since: Option<u64>,
    /// Attempts to connect since it was last connected for a while.
    pub(crate) attempts: u32,
}

/// What may still be needed by, or be in use at, an incarnation's lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LaneMark {
    pub(crate) incarnation: Incarnation,
    /// It needs nothing up to here any more: it has released it, or its lane begins later.
    pub(crate) released: Seq,
    /// As much of that was said by the primary, which feeds it by relay (rule 14).
    pub(crate) relayed: Seq,
}

impl LaneMark {
    /// Of what nobody has said anything yet.
    pub(crate) const fn new(incarnation: Incarnation, released: Seq) -> Self {
        Self { incarnation, released, relayed: Seq::ZERO }
    }
}

/// The connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum State {
    /// None, and none is being made before `retry_at`.
    Idle { retry_at: u64 },
    /// Being made.
    Connecting,
    /// There.
    Up(Up),
}

/// A connection that stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Up {
    pub(crate) conn: ConnId,
    pub(crate) incarnation: Incarnation,
    /// When it was made.
    pub(crate) since: u64,
    /// When it last brought anything.
    pub(crate) heard: u64,
    /// The last View that it brought.
    pub(crate) said: Option<View>,
    pub(crate) duty: Duty,
}

/// What the connection is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Duty {
    /// Nothing yet; not asked for anything before `ask_at`.
    Listening { ask_at: u64 },
    /// Rule 10.
    Attaching,
    /// Rule 14. `first_ask`: this incarnation had never been asked before, so if it refuses it has no lane.
    Resuming { first_ask: bool },
    /// Takes every new blob; `sent` is the last one it has.
    Feeding { sent: Seq },
}

/// A state's name: what the table of transitions is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkPhase {
    /// Not connected, waits before the next attempt.
    Idle,
    /// Being connected.
    Connecting,
    /// Connected; only its Views matter.
    Listening,
    /// Asked for a new session.
    Attaching,
    /// Asked to go on with the session.
    Resuming,
    /// Receives every blob.
    Feeding,
}

impl LinkPhase {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Idle, Self::Connecting, Self::Listening, Self::Attaching, Self::Resuming, Self::Feeding];

    /// Whether the state may follow.
    pub(crate) const fn may_become(self, next: Self) -> bool {
        use LinkPhase::{Attaching, Connecting, Feeding, Idle, Listening, Resuming};
        match self {
            Idle => matches!(next, Connecting),
            Connecting => matches!(next, Idle | Listening),
            Listening => matches!(next, Idle | Attaching | Resuming),
            Attaching | Resuming => matches!(next, Idle | Listening | Feeding),
            // A weakened session keeps the connection that it must destroy.
            Feeding => matches!(next, Idle) || (cfg!(feature = "weaken") && matches!(next, Listening)),
        }
    }
}

impl Link {
    pub(crate) const fn new() -> Self {
        Self { state: State::Idle { retry_at: 0 }, lane: None, down_since: None, attempts: 0 }
    }

    pub(crate) const fn phase(&self) -> LinkPhase {
        match &self.state {
            State::Idle { .. } => LinkPhase::Idle,
            State::Connecting => LinkPhase::Connecting,
            State::Up(up) => up.duty.phase(),
        }
    }

    pub(crate) const fn up(&self) -> Option<&Up> {
        match &self.state {
            State::Up(up) => Some(up),
            _ => None,
        }
    }

    pub(crate) const fn up_mut(&mut self) -> Option<&mut Up> {
        match &mut self.state {
            State::Up(up) => Some(up),
            _ => None,
        }
    }

    pub(crate) fn conn(&self) -> Option<ConnId> {
        self.up().map(|up| up.conn)
    }

    /// The connection, if it is fed.
    pub(crate) fn feeding(&self) -> Option<ConnId> {
        self.up().filter(|up| matches!(up.duty, Duty::Feeding { .. })).map(|up| up.conn)
    }

    /// An attempt to connect begins.
    pub(crate) fn connecting(&mut self) {
        self.attempts += 1;
        self.enter(State::Connecting);
    }

    /// The attempt has succeeded.
    pub(crate) fn connected(&mut self, conn: ConnId, incarnation: Incarnation, now: u64) {
        self.down_since = None;
        let duty = Duty::Listening { ask_at: now };
        self.enter(State::Up(Up { conn, incarnation, since: now, heard: now, said: None, duty }));
    }

    /// The attempt has failed.
    pub(crate) fn failed(&mut self, now: u64, timing: &Timing) {
        self.enter(State::Idle { retry_at: now + self.backoff(timing) });
    }

    /// There is reason to think that the node lives (it has just been named as a holder, or it was we who ended the
    /// connection): it is tried at once, and has the whole time to answer before anybody is told that it can't be reached.
    pub(crate) fn hope(&mut self, now: u64) {
        if self.up().is_some() {
            return;
        }
        self.down_since = Some(now);
        self.attempts = 0;
        if let State::Idle { retry_at } = &mut self.state {
            *retry_at = now;
        }
    }

    /// The connection is gone, or was destroyed. The next attempt is made at once, unless this one did not last.
    pub(crate) fn lost(&mut self, now: u64, timing: &Timing) {
        let up = self.up().expect("only what is up can be lost");
        let (since, heard) = (up.since, up.heard);
        if now.saturating_sub(since) >= timing.backoff_max_ms {
            self.attempts = 0;
        }
        self.down_since = Some(heard);
        self.enter(State::Idle { retry_at: now + self.backoff(timing) });
    }

    /// As [`Link::lost`], of a node that said what it may not say: it is given time.
    pub(crate) fn distrusted(&mut self, now: u64, timing: &Timing) {
        self.lost(now, timing);
        self.enter_idle_at(now + timing.backoff_max_ms);
    }

    fn enter_idle_at(&mut self, retry_at: u64) {
        assert_eq!(self.phase(), LinkPhase::Idle);
        self.state = State::Idle { retry_at };
    }

    /// The node has refused; it is asked again at `ask_at`. A lane that it has never opened needs nothing: if it did
    /// count, who says "not ready" for long would stall the caller. But one that is a `mirror` by now has one, whoever
    /// feeds it: the refusal is from before, or for another reason.
    pub(crate) fn refused(&mut self, ask_at: u64, mirror: bool) {
        if !mirror && self.up().is_some_and(|up| up.duty == Duty::Resuming { first_ask: true }) {
            self.lane = None;
        }
        self.turn(Duty::Listening { ask_at });
    }

    /// Gives the connection another use.
    pub(crate) fn turn(&mut self, duty: Duty) {
        let from = self.phase();
        let up = self.up_mut().expect("only a connection has a duty");
        assert!(from.may_become(duty.phase()), "a link may not go from {from:?} to {duty:?}");
        up.duty = duty;
    }

    fn enter(&mut self, state: State) {
        let from = self.phase();
        self.state = state;
        let to = self.phase();
        assert!(from.may_become(to), "a link may not go from {from:?} to {to:?}");
    }

    /// 0, then doubling from the first to the longest wait.
    fn backoff(&self, timing: &Timing) -> u64 {
        match self.attempts {
            0 => 0,
            n => timing.backoff_first_ms.saturating_mul(1 << (n - 1).min(16)).min(timing.backoff_max_ms),
        }
    }

    /// The released position of `incarnation`'s lane, if it was ever asked to open one.
    pub(crate) fn released(&self, incarnation: Incarnation) -> Option<Seq> {
        self.lane.filter(|lane| lane.incarnation == incarnation).map(|lane| lane.released)
    }

    /// The node begins earlier than it was thought to; all that it lacks is still there, and has to stay.
    pub(crate) fn lower(&mut self, received: Seq) {
        let lane = self.lane.as_mut().expect("set before it was asked");
        lane.released = lane.released.min(received);
    }

    /// The node says what it has released; what it said before counts on. Of a lane that was never asked for: nothing.
    pub(crate) fn raise(&mut self, incarnation: Incarnation, released: Seq) {
        if let Some(lane) = self.lane.as_mut().filter(|lane| lane.incarnation == incarnation) {
            lane.released = lane.released.max(released);
        }
    }
}

impl Link {
    /// The primary, which feeds it by relay, says what it has released.
    pub(crate) fn raise_by_relay(&mut self, incarnation: Incarnation, released: Seq) {
        self.raise(incarnation, released);
        if let Some(lane) = self.lane.as_mut().filter(|lane| lane.incarnation == incarnation) {
            lane.relayed = lane.relayed.max(released);
        }
    }

    /// It has been fed past `received` by relay, as far as that has been told.
    pub(crate) fn was_relayed_past(&self, received: Seq) -> bool {
        self.lane.is_some_and(|lane| lane.relayed > received)
    }
}

impl Duty {
    pub(crate) const fn phase(&self) -> LinkPhase {
        match self {
            Self::Listening { .. } => LinkPhase::Listening,
            Self::Attaching => LinkPhase::Attaching,
            Self::Resuming { .. } => LinkPhase::Resuming,
            Self::Feeding { .. } => LinkPhase::Feeding,
        }
    }
}
