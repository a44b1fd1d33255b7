//! Handover: the primary moves and nobody is fenced (rule 13); and what a primary does that does not reach the disk
//! (rule 11).
//!
//! ```text
//!   the old primary                                      the new one
//!   Dual ─▶ HandingOver: stops; its I/O ends             Secondary
//!             superblock {epoch+1, primary = other}
//!           Secondary: the claim is let go ──HandOver──▶ Accepting: the claim is taken
//!             ◀───────────────────────────── Announce ── Dual
//!             ACKs, and is fed by the client
//! ```
//!
//! Up to the issue of the superblock write it may be called off, and then nothing has happened. After it, only the
//! outcome counts (rule 4): the old primary serves no more, and what can't be told or taken ends in rule 5.

use twinsan_wire::{Epoch, Incarnation, Members, NodeId, PeerBody, Role, Seq, Superblock};

use crate::action::{Action, Notice};
use crate::config::Weakness;
use crate::event::{FenceError, SlotRead};
use crate::machine::Replica;
use crate::state::{Phase, Purpose, State, TakeOver};

/// A request to take over counts for so many heartbeats; it is repeated with each.
pub(crate) const ASKED_HEARTBEATS: u64 = 4;

/// Why a node can't hand over now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Obstacle {
    /// It does not serve.
    NotPrimary,
    /// It serves alone: there is no member to hand over to.
    Alone,
    /// A handover is under way.
    UnderWay,
    /// A client is attaching (rule 10).
    Attaching,
    /// It does not reach the disk: it can only ask the other one to take over (rule 11).
    NoPath,
    /// There is no link to the other node.
    NoLink,
    /// The other node ends.
    OtherLeaves,
    /// The other node has no usable path to the disk.
    OtherHasNoPath,
    /// The other node has not entered the epoch yet, or the client does not reach it.
    OtherNotReady,
    /// Its disk I/O in flight has not ended for a takeover timeout.
    Slow,
}

/// How the last handover from a node went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HandedOver {
    /// There was none.
    Never,
    /// It is under way.
    UnderWay {
        /// Since when, by the machine's clock.
        since: u64,
        /// The epoch that it began in.
        epoch: Epoch,
    },
    /// The other node serves.
    Done {
        /// Since this epoch.
        epoch: Epoch,
        /// From the stop to the other one's word that it serves.
        pause_ms: u64,
    },
    /// It was called off, and this node goes on.
    CalledOff(Obstacle),
    /// The superblock was written, or may have been, and the other one did not go on: rule 5.
    Failed,
}

impl HandedOver {
    /// This node takes over again, or has lost the fence.
    pub(crate) fn fails(&mut self) {
        if let Self::UnderWay { .. } = self {
            *self = Self::Failed;
        }
    }

    /// The other node says that it serves in `epoch`.
    pub(crate) fn announced(&mut self, epoch: Epoch, now: u64) -> Option<Notice> {
        let Self::UnderWay { since, epoch: before } = *self else { return None };
        if epoch <= before {
            return None;
        }
        let pause_ms = now.saturating_sub(since);
        *self = Self::Done { epoch, pause_ms };
        Some(Notice::HandedOver { pause_ms })
    }
}

impl Replica {
    // ---- rule 13, the old primary -----------------------------------------------------------------------------------

    /// Why a handover can't begin now; `None`: it can. One whom the client does not reach would hand back at once.
    #[must_use]
    pub fn obstacle(&self) -> Option<Obstacle> {
        let relays = self.relay.is_wanted().then_some(Obstacle::OtherNotReady);
        self.obstacle_to_leaving().or(relays)
    }

    /// The same for one that ends: there will be nobody else whom the client could reach.
    pub(crate) fn obstacle_to_leaving(&self) -> Option<Obstacle> {
        match self.state {
            State::Primary(Phase::Dual { .. }) => {}
            State::Primary(Phase::HandingOver { .. }) => return Some(Obstacle::UnderWay),
            State::Primary(_) => return Some(Obstacle::Alone),
            _ => return Some(Obstacle::NotPrimary),
        }
        let member = self.other_member();
        let its_word = self.peer.role == Some(Role::Secondary) && self.peer.epoch == self.superblock.epoch;
        if self.attach.is_some() {
            Some(Obstacle::Attaching)
        } else {
            self.obstacle_on_the_way().or_else(|| {
                let ready = its_word && self.peer.incarnation == member;
                (!ready).then_some(Obstacle::OtherNotReady)
            })
        }
    }

    /// What may also come up while the I/O in flight ends.
    fn obstacle_on_the_way(&self) -> Option<Obstacle> {
        let silent = self.peer.is_silent(self.now, self.cfg.timing.drop_ms);
        let gone = self.other_member().is_none_or(|member| self.peer.is_gone(member));
        if !self.reaches_disk() {
            Some(Obstacle::NoPath)
        } else if self.peer.link.is_none() || silent || gone {
            Some(Obstacle::NoLink)
        } else if self.peer.leaving {
            Some(Obstacle::OtherLeaves)
        } else if !self.peer.paths {
            Some(Obstacle::OtherHasNoPath)
        } else {
            None
        }
    }

    /// The operator's order. What stands in its way, [`Replica::obstacle`] has told before.
    pub(crate) fn switch_over(&mut self) {
        if self.obstacle().is_none() {
            self.begin_hand_over();
        }
    }

    pub(crate) fn begin_hand_over(&mut self) {
        let State::Primary(Phase::Dual { acked, .. }) = self.state else { unreachable!("only to a member") };
        self.notice(Notice::HandingOver);
        self.enter(State::Primary(Phase::HandingOver { acked, since: self.now }));
        self.handed = HandedOver::UnderWay { since: self.now, epoch: self.superblock.epoch };
        self.timers.hand_over_not_before = self.now + self.cfg.timing.takeover_ms;
    }

    /// Stopped to hand over, and still free to go on in this epoch.
    pub(crate) fn may_still_serve(&self) -> bool {
        matches!(self.state, State::Primary(Phase::HandingOver { .. })) && !self.is_naming_the_other()
    }

    /// The write that names the other one has been issued.
    fn is_naming_the_other(&self) -> bool {
        self.superblock_write.is_some_and(|w| w.purpose == Purpose::HandOver)
    }

    pub(crate) fn advance_hand_over(&mut self, since: u64) {
        if self.is_naming_the_other() {
            return;
        }
        // Who is to end waits: it has nothing to go on for.
        let slow = self.leaving_since.is_none() && self.now.saturating_sub(since) >= self.cfg.timing.takeover_ms;
        if let Some(obstacle) = self.obstacle_on_the_way().or(slow.then_some(Obstacle::Slow)) {
            self.call_off_hand_over(obstacle);
            return;
        }
        let quiet = self.is_quiet() || self.cfg.weak(Weakness::HandOverInFlight);
        if quiet && self.superblock_write.is_none() {
            self.cancel_reads();
            let next = Superblock { primary: Some(self.node().other()), ..self.next_epoch() };
            self.write_superblock(next, Purpose::HandOver);
        }
    }

    /// Nothing has happened: it goes on.
    pub(crate) fn call_off_hand_over(&mut self, why: Obstacle) {
        let State::Primary(Phase::HandingOver { acked, .. }) = self.state else { return };
        if self.is_naming_the_other() {
            return; // Too late: its outcome decides.
        }
        self.notice(Notice::HandOverCalledOff(why));
        self.handed = HandedOver::CalledOff(why);
        let lost_at = self.peer.link.is_none().then_some(self.now);
        self.enter(State::Primary(Phase::Dual { acked, lost_at }));
    }

    /// The superblock names the other one: from here on this node mirrors.
    pub(crate) fn handed_over(&mut self) {
        self.give_up_serving();
        self.enter(State::Secondary);
        self.may_release = self.released();
        self.completed = Seq::ZERO;
        self.timers.yielding = true;
        self.out(Action::YieldFence);
    }

    /// The claim is free: now the other one may be told.
    pub(crate) fn fence_yielded(&mut self) {
        self.timers.yielding = false;
        self.tell_handed_over();
    }

    /// Tells the other one that it serves, if this node has written so and it may not know yet.
    pub(crate) fn tell_handed_over(&mut self) {
        let HandedOver::UnderWay { epoch, .. } = self.handed else { return };
        let mine = self.state == State::Secondary && self.superblock.epoch > epoch;
        if mine && !self.timers.yielding {
            self.send_peer(PeerBody::HandOver { superblock: self.superblock });
            if self.leaving_since.is_some() {
                self.send_peer(PeerBody::Leave);
            }
        }
    }

    /// A client reaches the other node and not this one. It has given up a connection here that has been silent for so long,
    /// though it counts as attached for longer: it goes on by the other node.
    pub(crate) fn hand_over_to_clients_node(&mut self, from: Incarnation) {
        let damped = self.now < self.timers.hand_over_not_before;
        let heard = self.client_was_heard_within(self.cfg.timing.takeover_ms);
        if self.other_member() == Some(from) && !heard && !damped && self.obstacle().is_none() {
            self.begin_hand_over();
        }
    }

    // ---- rule 13, the new primary -----------------------------------------------------------------------------------

    /// The primary's word that the superblock names this node. It comes after the write has ended (rule 4).
    pub(crate) fn handed_to(&mut self, from: Incarnation, superblock: Superblock) {
        let news = superblock.epoch > self.superblock.epoch && superblock.generation == self.superblock.generation;
        let both = superblock.members.contains(self.other(from));
        let named = superblock.primary_member() == Some(self.member());
        if self.state != State::Secondary || !self.is_quiet() || !(news && both && named) {
            return; // The writer says it again as long as this node is behind.
        }
        self.notice(Notice::HandedTo);
        self.peer.hear(from, self.now);
        self.superblock = superblock;
        self.enter(State::TakingOver(TakeOver::Accepting { claimed: false }));
        self.out(Action::AcceptFence);
        self.tell_status();
    }

    pub(crate) fn fence_accepted(&mut self, result: Result<(), FenceError>) {
        if self.state != (State::TakingOver(TakeOver::Accepting { claimed: false })) {
            return;
        }
        match result {
            Ok(()) if self.cfg.weak(Weakness::AcceptUnread) => self.accepted(),
            Ok(()) => {
                self.enter(State::TakingOver(TakeOver::Accepting { claimed: true }));
                self.read_again = self.reading_superblock;
                self.read_superblock();
            }
            Err(error) => self.not_accepted(error),
        }
    }

    /// The old primary's word may have been long on its way, and its epoch be over: where the claim is what fences,
    /// nobody had to fence this node for that.
    pub(crate) fn read_under_claim(&mut self, read: SlotRead) {
        if read.settled && read.superblock == self.superblock {
            self.accepted();
        } else {
            self.not_accepted(FenceError::Lost);
        }
    }

    /// It serves, with the other one as its member. What that one flushed is not known here (rule 5): all that it has
    /// not released is flushed again.
    fn accepted(&mut self) {
        let released = self.released();
        self.flusher.forget(released);
        self.completed = released;
        self.timers.turned_away = 0;
        self.timers.fence_failed = false;
        self.timers.joins_thrown_away = 0;
        self.timers.join_not_before = self.now;
        self.timers.hand_over_not_before = self.now + self.cfg.timing.takeover_ms;
        self.peer.asked_at = None;
        let lost_at = self.peer.link.is_none().then_some(self.now);
        let heard = !self.cfg.weak(Weakness::HandOverUnheard);
        let acked = if heard { Seq::ZERO } else { self.received() };
        self.enter(State::Primary(Phase::Dual { acked, lost_at }));
        self.notice(Notice::Serving);
        self.entered_epoch();
    }

    /// Another one was quicker, or the disk is out of reach: by rule 9, as one that was fenced.
    pub(crate) fn not_accepted(&mut self, error: FenceError) {
        self.notice(Notice::NotAccepted(error));
        self.timers.fence_failed = error == FenceError::Failed;
        if self.state == (State::TakingOver(TakeOver::Accepting { claimed: true })) {
            self.timers.yielding = true;
            self.out(Action::YieldFence);
        }
        self.find_out();
        self.tell_status();
    }

    // ---- rule 11, and a client that reaches one node only -----------------------------------------------------------

    pub(crate) fn paths_told(&mut self, usable: bool) {
        if core::mem::replace(&mut self.paths, usable) == usable {
            return;
        }
        self.notice(Notice::Paths { usable });
        if usable && self.timers.fence_failed {
            self.timers.turned_away = 0;
            self.timers.try_not_before = self.now;
        }
        self.tell_status();
    }

    /// This node has a usable path, and the disk does not go on refusing what comes by it.
    pub(crate) fn reaches_disk(&self) -> bool {
        self.paths && !self.failing.refusals.are_hopeless()
    }

    /// The other one asks this node to take over, and it can.
    pub(crate) fn is_asked(&self) -> bool {
        let fresh = ASKED_HEARTBEATS * self.cfg.timing.heartbeat_ms;
        let asked = self.peer.asked_at.is_some_and(|at| self.now.saturating_sub(at) < fresh);
        asked && self.paths && !self.cfg.weak(Weakness::DeafToAsking)
    }

    /// Named to serve, by the superblock or by a write of it on its way, and not able to: the other one is to take over,
    /// by rule 5 or 6, if it reaches the disk.
    fn can_only_ask(&self) -> bool {
        match self.state {
            // One whom the client does not reach could do no more for it: here, RAM does until the lanes are full.
            State::Primary(Phase::Dual { .. }) if self.relay.is_wanted() => false,
            State::Primary(_) => !self.reaches_disk() || (self.is_naming_the_other() && self.failing.superblock),
            State::Fenced { .. } => {
                let named = self.superblock.primary_member() == Some(self.member());
                named && (!self.paths || self.timers.fence_failed)
            }
            _ => false,
        }
    }

    /// Whoever fences may kill this node. So only who can go on then is asked: the other member; or anybody, where what
    /// stands on the disk, and what may stand there when a write in flight has landed, names this node alone.
    fn could_go_on(&self, who: Option<Incarnation>) -> bool {
        let other = self.node().other();
        let written = self.superblock_write.map_or(self.superblock.members, |w| w.next.members);
        let could = |members: Members| members.of(other).is_none() || members.of(other) == who;
        (could(self.superblock.members) && could(written)) || self.cfg.weak(Weakness::AskAnybody)
    }

    pub(crate) fn advance_asking(&mut self) {
        if self.now < self.timers.ask_takeover_at || !self.can_only_ask() {
            return;
        }
        let hears = self.peer.link.is_some() && self.peer.role.is_some();
        if !hears || !self.peer.paths || !self.could_go_on(self.peer.incarnation) {
            return;
        }
        if self.now.saturating_sub(self.timers.ask_takeover_at) > self.cfg.timing.takeover_ms {
            self.notice(Notice::Asking); // Not with every repetition.
        }
        self.timers.ask_takeover_at = self.now + self.cfg.timing.heartbeat_ms;
        self.send_peer(PeerBody::TakeOver);
    }

    /// A client that is connected here says that it can't reach the primary.
    pub(crate) fn ask_to_hand_over(&mut self, unreachable: NodeId) {
        let primary = self.superblock.primary == Some(self.node().other()) && unreachable == self.node().other();
        if primary && self.state == State::Secondary {
            self.send_peer(PeerBody::AskHandOver);
        }
    }
}
