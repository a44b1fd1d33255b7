//! The relay (rule 14): where the session's client does not reach the other member, or a joiner, the primary feeds it from
//! its own lane. To who is fed it is one more connection of the session: it takes the place of the client's, and the client's
//! takes its place.
//!
//! ```text
//!   Off ──the client's word──▶ Wanted ──it is in this epoch──▶ Connecting ──▶ Resuming ──Resumed──▶ Feeding
//!    ▲                           │                                 │              │                    │
//!    └── the connection is gone; neither dual nor a join, or attaching; rule 7 ───┴────────────────────┘
//! ```
//!
//! What holds while one feeds: every blob that the other one lacks is in the own lane, as only what it has ACKed is
//! released; and every blob that is in the own lane has been posted. The client hears of no position as released that the
//! other one has not released too. For a joiner both hold from the moment that its lane may begin where this one's does,
//! to the end of the join, whoever feeds it by then (`Join::relayed`).

use twinsan_wire::{ClientMsg, Epoch, Generation, Incarnation, NodeMsg, Role, Seq};

use crate::action::{Action, Notice};
use crate::config::Weakness;
use crate::ids::{ConnId, RelayId};
use crate::machine::{Client, Replica};
use crate::state::{Phase, State};

/// The relay from here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Relay {
    pub(crate) feed: Feed,
    /// The epoch that it is for.
    pub(crate) epoch: Epoch,
    /// A dial has not been answered; also one that is not wanted any more.
    pub(crate) dialling: bool,
    /// What the other member has released, by its ACK in this epoch.
    pub(crate) released: Option<(Epoch, Seq)>,
    /// The last ACK seen, and when it last moved, or covered all.
    pub(crate) acked: Seq,
    pub(crate) progress_at: u64,
    /// When the client's word found the other member in progress: from then on it has the drop timeout to go on.
    pub(crate) patient_since: u64,
    /// When the client last said that it does not reach the other one.
    pub(crate) wanted_at: u64,
}

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Feed {
    #[default]
    Off,
    Wanted {
        since: u64,
    },
    Connecting {
        since: u64,
    },
    Resuming {
        since: u64,
        relay: RelayId,
    },
    Feeding {
        relay: RelayId,
        /// The last blob that has been posted, or was there before.
        sent: Seq,
    },
}

/// Whether this node feeds the other member in the client's place (rule 14).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RelayPhase {
    /// The client feeds it itself.
    Off,
    /// It is to be fed from here.
    Connecting,
    /// It is.
    Feeding,
}

impl Relay {
    /// There is one, or is to be.
    pub(crate) fn is_wanted(&self) -> bool {
        self.feed != Feed::Off
    }

    pub(crate) fn phase(&self) -> RelayPhase {
        match self.feed {
            Feed::Off => RelayPhase::Off,
            Feed::Wanted { .. } | Feed::Connecting { .. } | Feed::Resuming { .. } => RelayPhase::Connecting,
            Feed::Feeding { .. } => RelayPhase::Feeding,
        }
    }

    fn conn(&self) -> Option<RelayId> {
        match self.feed {
            Feed::Resuming { relay, .. } | Feed::Feeding { relay, .. } => Some(relay),
            Feed::Off | Feed::Wanted { .. } | Feed::Connecting { .. } => None,
        }
    }

    /// It has not come up in time, or nothing that is `owed` arrives.
    fn is_stuck(&self, owed: bool, now: u64, timeout: u64) -> bool {
        let waited = |since: u64| now.saturating_sub(since) >= timeout;
        let starves = owed && waited(self.progress_at.max(self.patient_since));
        match self.feed {
            Feed::Off => false,
            Feed::Wanted { since } | Feed::Connecting { since } | Feed::Resuming { since, .. } => {
                starves || waited(since)
            }
            Feed::Feeding { .. } => starves,
        }
    }
}

impl Replica {
    // ---- who feeds --------------------------------------------------------------------------------------------------

    /// Who may be fed: the other member, or the joiner.
    pub(crate) fn fed_one(&self) -> Option<Incarnation> {
        match self.state {
            State::Primary(Phase::Join(join)) => Some(join.incarnation),
            _ => self.other_member(),
        }
    }

    /// What a joiner has ACKed that is, or was, fed from here.
    pub(crate) fn relayed_join(&self) -> Option<Seq> {
        match self.state {
            State::Primary(Phase::Join(join)) if join.relayed => Some(join.acked.unwrap_or(Seq::ZERO)),
            _ => None,
        }
    }

    /// The session's client says that it does not reach the other one; it says so with every heartbeat.
    pub(crate) fn want_relay(&mut self) {
        self.relay.wanted_at = self.now;
        if self.relay.is_wanted() || self.attach.is_some() {
            return;
        }
        if self.relay.progress_at >= self.relay.patient_since {
            self.relay.patient_since = self.now; // One that comes and goes, and brings nothing, is given no more time.
        }
        self.relay.epoch = self.superblock.epoch;
        self.relay.feed = Feed::Wanted { since: self.now };
    }

    /// Moves it on; rule 7 where it leads nowhere.
    pub(crate) fn advance_relay(&mut self) {
        let (dual, acked) = match self.state {
            State::Primary(Phase::Dual { acked, .. }) => (true, acked),
            State::Primary(Phase::HandingOver { acked, .. }) => (false, acked),
            State::Primary(Phase::Join(join)) => (false, join.acked.unwrap_or(Seq::ZERO)), // It has a timeout of its own.
            _ => return self.end_relay(),
        };
        let owed = acked < self.received();
        if acked != self.relay.acked || !owed {
            self.relay.acked = acked;
            self.relay.progress_at = self.now;
        }
        if self.attach.is_some() || self.relay.epoch != self.superblock.epoch {
            return self.end_relay();
        }
        if dual && self.relay.is_stuck(owed, self.now, self.cfg.timing.drop_ms) {
            // A rejoin could not be fed either, so it waits longer.
            self.timers.joins_thrown_away += 1;
            self.end_relay();
            return self.start_drop();
        }
        if !owed && self.client_feeds_again() {
            return self.end_relay();
        }
        match self.relay.feed {
            Feed::Wanted { since } if !self.relay.dialling => self.connect_relay(since),
            Feed::Feeding { relay, sent } => self.feed(relay, sent),
            _ => {}
        }
    }

    /// The client is heard, and has not said for long that it misses the other one. That one has closed our connection then,
    /// and we may never hear of it: the client would wait for ever for what comes back by it. If it does not feed after all,
    /// it says so again.
    fn client_feeds_again(&self) -> bool {
        let lapsed = self.now.saturating_sub(self.relay.wanted_at) >= self.cfg.timing.takeover_ms;
        matches!(self.relay.feed, Feed::Feeding { .. }) && self.session_is_live() && lapsed
    }

    /// Once the other one has said that it is in this epoch, or that it joins: before, it would not believe us.
    fn connect_relay(&mut self, since: u64) {
        let role = if let State::Primary(Phase::Join(_)) = self.state { Role::Joining } else { Role::Secondary };
        let its_word = self.peer.role == Some(role) && self.peer.epoch == self.superblock.epoch;
        let Some(to) = self.fed_one().filter(|&to| self.peer.incarnation == Some(to)) else { return };
        if self.peer.link.is_some() && its_word {
            self.relay.dialling = true;
            self.relay.feed = Feed::Connecting { since };
            self.out(Action::RelayConnect { to });
        }
    }

    /// The one that is fed is a member from now on; what it has said of itself, it says again in the new epoch.
    pub(crate) fn relay_goes_on(&mut self) {
        if self.relay.is_wanted() {
            self.relay.epoch = self.superblock.epoch;
        }
    }

    pub(crate) fn relay_dialled(&mut self, relay: Option<RelayId>) {
        self.relay.dialling = false;
        match (self.relay.feed, relay, &self.lane) {
            (Feed::Connecting { since }, Some(relay), Some(lane)) => {
                let msg = ClientMsg::Resume { generation: lane.generation(), first: lane.released().next() };
                self.relay.feed = Feed::Resuming { since, relay };
                if let State::Primary(Phase::Join(join)) = &mut self.state {
                    join.relayed = true;
                }
                self.out(Action::SendRelay { relay, msg });
            }
            (_, Some(relay), _) => self.out(Action::CloseRelay { relay }), // Overtaken by events.
            // The client says it again if it is still so.
            (Feed::Connecting { .. }, None, _) => self.relay.feed = Feed::Off,
            (_, None, _) => {}
        }
    }

    pub(crate) fn relay_message(&mut self, relay: RelayId, msg: NodeMsg) {
        if !matches!(self.relay.feed, Feed::Resuming { relay: ours, .. } if ours == relay) {
            return;
        }
        match msg {
            NodeMsg::Resumed { generation, from, received } if self.may_feed(generation, from, received) => {
                self.relay.feed = Feed::Feeding { relay, sent: received };
                self.notice(Notice::Relaying);
                self.tell_session();
            }
            _ => self.end_relay(),
        }
    }

    /// What is missing there is here. If it is not, the client itself has fed it meanwhile.
    fn may_feed(&self, generation: Generation, from: Incarnation, received: Seq) -> bool {
        let ours =
            self.lane.as_ref().is_some_and(|lane| lane.generation() == generation && received >= lane.released());
        ours && self.fed_one() == Some(from)
    }

    fn feed(&mut self, relay: RelayId, mut sent: Seq) {
        while sent < self.received() {
            sent = sent.next();
            let blob = self.lane.as_ref().and_then(|lane| lane.get(sent)).copied();
            let blob = blob.expect("what has not been posted has not been released");
            self.out(Action::RelayPost { relay, blob });
        }
        self.relay.feed = Feed::Feeding { relay, sent };
    }

    pub(crate) fn relay_down(&mut self, relay: RelayId) {
        if self.relay.conn() == Some(relay) {
            self.forget_relay();
        }
    }

    /// Nothing is taken from the lane any more.
    pub(crate) fn end_relay(&mut self) {
        if let Some(relay) = self.relay.conn() {
            self.out(Action::CloseRelay { relay });
        }
        self.forget_relay();
    }

    fn forget_relay(&mut self) {
        let fed = matches!(core::mem::take(&mut self.relay.feed), Feed::Feeding { .. });
        if fed {
            self.notice(Notice::RelayEnded);
        }
        if fed && matches!(self.state, State::Primary(_)) {
            self.tell_session(); // Its own position, of which the client has heard no more than what both have released.
        }
    }

    /// The other one's released position, by its ACK, which fits.
    pub(crate) fn relay_released(&mut self, released: Seq) {
        let before = self.released_by_both();
        let epoch = self.superblock.epoch;
        let known = self.relay.released.filter(|(of, _)| *of == epoch).map_or(Seq::ZERO, |(_, known)| known);
        self.relay.released = Some((epoch, known.max(released)));
        if self.released_by_both() != before {
            self.tell_session();
        }
    }

    /// While this node feeds the other one, or where that one's join has been by relay: what both have released, as far as
    /// that is known here.
    pub(crate) fn released_by_both(&self) -> Option<Seq> {
        if !matches!(self.relay.feed, Feed::Feeding { .. }) && self.relayed_join().is_none() {
            return None;
        }
        let (epoch, theirs) = self.relay.released?;
        let ours = self.released();
        let guess = self.cfg.weak(Weakness::ReleasedByGuess);
        (epoch == self.superblock.epoch).then_some(if guess { ours } else { ours.min(theirs) })
    }

    // ---- who is fed -------------------------------------------------------------------------------------------------

    pub(crate) fn relay_accepted(&mut self, conn: ConnId, from: Incarnation) {
        self.clients.insert(conn, Client { heard_at: self.now, relay: Some(from) });
    }

    pub(crate) fn is_relay(&self, conn: ConnId) -> bool {
        self.clients.get(&conn).is_some_and(|client| client.relay.is_some())
    }

    /// A mirror, or a joiner, takes the session's blobs from its primary, as this epoch names it, and from no other node: what another
    /// one holds may be of the past, and would take the place of the client.
    pub(crate) fn believes_relay(&self, conn: ConnId) -> bool {
        let Some(from) = self.clients.get(&conn).and_then(|client| client.relay) else { return true };
        let primary = self.superblock.primary_member() == Some(self.other(from));
        let mirrors = matches!(self.state, State::Secondary | State::Joining);
        (mirrors && primary) || self.cfg.weak(Weakness::BelieveAnyRelay)
    }

    /// In a new epoch another node may serve: what its predecessor sends counts no more.
    pub(crate) fn close_void_relays(&mut self) {
        let conns: alloc::vec::Vec<ConnId> = self.clients.keys().copied().collect();
        for conn in conns {
            if !self.believes_relay(conn) {
                self.close_client(conn);
            }
        }
    }
}
