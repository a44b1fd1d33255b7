//! When to try (rule 15), and how to become the primary (rules 5, 6, 12); what waits outside (rule 8, the joiner's
//! side, rule 9).

use twinsan_staging::Lane;
use twinsan_wire::{Epoch, Generation, Incarnation, Members, NodeId, PeerBody, Role, Seq, Superblock};

use crate::action::{Action, Notice};
use crate::config::Weakness;
use crate::event::{DiskError, FenceError, Probe, SlotRead};
use crate::machine::Replica;
use crate::peer::Missed;
use crate::state::{Admission, Phase, Purpose, Standing, State, TakeOver};

/// Why a node tries (rule 15).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Evidence {
    /// The other process has ended.
    Ended,
    /// Both its heartbeats stand still.
    Silent,
    /// Its fabric heartbeat stands still, and the client can't reach it.
    ClientsWord,
    /// It asks (rule 13).
    Asked,
    /// It is there, and serves nothing.
    Idle,
}

impl Replica {
    // ---- evidence -----------------------------------------------------------------------------------------------

    pub(crate) fn probe(&mut self) {
        if !self.peer.probing {
            self.peer.probing = true;
            self.peer.probe_at = self.now + self.cfg.timing.heartbeat_ms;
            self.out(Action::Probe);
        }
    }

    pub(crate) fn probed(&mut self, probe: Probe) {
        self.peer.probing = false;
        match probe {
            Probe::Refused => self.peer.refused = self.peer.link.is_none(),
            // What a link says is newer.
            Probe::Alive(incarnation) if self.peer.link.is_none() => self.peer.hear(incarnation, self.now),
            Probe::Alive(_) | Probe::Silent => {}
        }
    }

    pub(crate) fn heartbeat_read(&mut self, result: Result<u64, DiskError>) {
        self.peer.reading_beat = false;
        self.peer.read_beat_at = self.now + self.cfg.timing.disk_heartbeat_ms / 2;
        let Ok(beat) = result else { return };
        if self.peer.disk_beat != Some(beat) {
            self.peer.disk_beat = Some(beat);
            self.peer.disk_moved_at = self.now;
        }
    }

    /// Keeps the evidence fresh: probes while there is no link, watches the disk heartbeat while the fabric is silent.
    pub(crate) fn gather_evidence(&mut self) {
        let timing = self.cfg.timing;
        self.give_silent_link_up();
        if self.peer.link.is_none() && self.now >= self.peer.probe_at {
            self.probe();
        }
        let silent = self.peer.is_silent(self.now, timing.heartbeat_ms * 2);
        if !silent {
            self.peer.disk_beat = None;
        } else if !self.holds_fence() && !self.peer.reading_beat && self.now >= self.peer.read_beat_at {
            self.peer.reading_beat = true;
            self.out(Action::ReadHeartbeat);
        }
    }

    /// The other end may have gone without a word, and nobody dials as long as a link is there.
    fn give_silent_link_up(&mut self) {
        let silent = self.peer.is_silent(self.now, self.cfg.timing.takeover_ms);
        if let Some(link) = self.peer.link.filter(|_| silent) {
            self.out(Action::CloseLink { link });
            self.link_down(link);
        }
    }

    /// A client that counts says that it can't reach the other node.
    pub(crate) fn client_misses_other(&mut self, epoch: Epoch, generation: Generation) {
        let at = self.now;
        let same = |m: &Missed| (m.epoch, m.generation) == (epoch, generation) && self.is_fresh(m.at);
        let since = self.peer.missed.filter(same).map_or(at, |m| m.since);
        self.peer.missed = Some(Missed { since, at, epoch, generation });
    }

    fn is_fresh(&self, word_at: u64) -> bool {
        self.now.saturating_sub(word_at) < self.cfg.timing.takeover_ms
    }

    /// Whether it still counts, as things stand. A node outside hears of no epoch that its primary, silent, has begun: it
    /// looks at the disk once more first, lest a client be believed whose session has ended, and then knows exactly. It
    /// waits until that primary is alone: one that lives drops a member that is gone, and may be about to mark as in use
    /// what is marked clean.
    fn is_missed_by_client(&self) -> bool {
        let Some(word) = self.peer.missed.filter(|m| self.is_fresh(m.at)) else { return false };
        let known = self.superblock;
        let counts = if let State::Waiting(_) = self.state {
            let newest = word.generation == known.generation || self.cfg.weak(Weakness::BelieveAnyClient);
            self.superblock_as_of >= word.since && word.epoch == known.epoch && newest && !known.members.is_dual()
        } else {
            word.epoch >= known.epoch && word.generation >= known.generation
        };
        counts && !self.cfg.weak(Weakness::DeafToClients)
    }

    /// Rule 15: whether `incarnation` on the other node has ceased to serve, as far as that can be told from here.
    pub(crate) fn should_take_over_from(&self, incarnation: Incarnation) -> bool {
        let timeout = self.cfg.timing.takeover_ms;
        let fabric_still = self.peer.is_silent(self.now, timeout);
        self.peer.is_gone(incarnation)
            || self.is_asked()
            || (fabric_still && (self.is_missed_by_client() || self.peer.disk_stands_still(self.now, timeout)))
    }

    /// What a takeover that begins now goes by. Where several things say so, the first of them.
    #[must_use]
    pub fn evidence(&self) -> Evidence {
        let timeout = self.cfg.timing.takeover_ms;
        let other = self.other_member();
        if other.map_or(self.peer.refused, |other| self.peer.is_gone(other)) {
            Evidence::Ended
        } else if self.is_asked() {
            Evidence::Asked
        } else if self.peer.is_silent(self.now, timeout) && self.peer.disk_stands_still(self.now, timeout) {
            Evidence::Silent
        } else if self.peer.is_silent(self.now, timeout) && self.is_missed_by_client() {
            Evidence::ClientsWord
        } else {
            Evidence::Idle
        }
    }

    /// Rule 12: whether that incarnation's RAM is gone. A client's word does not say so.
    fn has_no_life(&self, incarnation: Incarnation) -> bool {
        self.peer.is_gone(incarnation) || self.peer.shows_no_life(self.now, self.cfg.timing.takeover_ms)
    }

    /// Rule 15 for a node without a lane: nobody who could serve, or who has the better right to try, is alive.
    fn should_take_over_as_outsider(&self) -> bool {
        let timeout = self.cfg.timing.takeover_ms;
        if let Some(serving) = self.other_member() {
            // It counts as long as it lives; if it has ended, so has its claim.
            if !self.should_take_over_from(serving) {
                return false;
            }
            if self.is_asked() {
                return true; // It lives, and does not reach the disk.
            }
        }
        // The other node is alive and a member of nothing, as we are: A goes first, B when A does nothing.
        let alive = !self.peer.refused && !self.peer.is_silent(self.now, timeout);
        if !alive {
            return self.is_missed_by_client() || self.peer.shows_no_life(self.now, timeout);
        }
        match self.peer.role {
            Some(Role::Waiting | Role::Refusing | Role::Leaving) if self.peer.link.is_some() => {
                self.node() == NodeId::A || self.now.saturating_sub(self.peer.role_since) >= timeout
            }
            // It may wait for a settled superblock, which nobody writes. Rule 6 asks under the fence whether it counts.
            Some(Role::Fenced) if self.peer.link.is_some() => self.now.saturating_sub(self.peer.role_since) >= timeout,
            // It does not reach the disk, and has not got so far that it could ask.
            Some(Role::TakingOver) if self.peer.link.is_some() && !self.peer.paths => {
                self.now.saturating_sub(self.peer.role_since) >= timeout
            }
            _ => false,
        }
    }

    /// Rules 6 and 12: whether one that is not a member may take over, as `superblock` stands.
    pub(crate) fn may_take_without_members(&self, superblock: Superblock) -> bool {
        superblock.clean || !superblock.members.is_dual()
    }

    /// A dual volume's members are gone with their RAM (rule 12).
    fn members_are_lost(&self) -> bool {
        let gone = |node: NodeId| match self.superblock.members.of(node) {
            None => true,
            Some(incarnation) if node == self.node() => incarnation != self.me,
            Some(incarnation) => self.peer.is_gone(incarnation),
        };
        !self.may_take_without_members(self.superblock) && NodeId::BOTH.into_iter().all(gone)
    }

    // ---- outside ------------------------------------------------------------------------------------------------

    /// What one outside does: join a primary, take over what nobody serves, or say that it can't.
    pub(crate) fn advance_waiting(&mut self) {
        match self.state {
            State::Inspecting if !self.reading_superblock && self.now >= self.timers.reread_at => {
                self.read_superblock();
            }
            State::Waiting(admission) => self.advance_outside(admission),
            State::Joining | State::Secondary => self.advance_mirror(),
            State::Fenced { member } => self.advance_fenced(member),
            _ => {}
        }
    }

    fn advance_outside(&mut self, admission: Admission) {
        if self.leaving_since.is_some() {
            return;
        }
        let primary_there = self.peer.link.is_some()
            && self.peer.role == Some(Role::Primary)
            && !self.peer.is_silent(self.now, self.cfg.timing.takeover_ms);
        if primary_there && !self.is_asked() {
            self.told_refusing = false;
            self.recover = false; // Nothing is lost: the order was for something else.
            self.ask_to_join(admission);
            return;
        }
        if !self.reading_superblock && self.now >= self.timers.reread_at {
            self.timers.reread_at = self.now + self.cfg.timing.retry_ms;
            self.read_superblock();
        }
        if self.now < self.timers.try_not_before || !self.is_quiet() || admission == Admission::Asked {
            return;
        }
        let lost = self.members_are_lost();
        if lost && !self.recover && !self.told_refusing {
            self.told_refusing = true;
            self.notice(Notice::NeedsRecovery(self.superblock));
        }
        if !lost {
            self.told_refusing = false;
        }
        let by_right = self.may_take_without_members(self.superblock) && self.should_take_over_as_outsider();
        let by_order = self.recover && self.other_member().is_none_or(|m| self.has_no_life(m));
        if by_right || by_order {
            self.begin_takeover(Standing::Outside);
        }
    }

    fn ask_to_join(&mut self, admission: Admission) {
        match admission {
            Admission::None if self.is_quiet() && self.now >= self.timers.ask_at => {
                self.enter(State::Waiting(Admission::Asked));
                self.out(Action::Admit);
            }
            Admission::Granted if self.now >= self.timers.ask_at => {
                self.timers.ask_at = self.now + self.cfg.timing.retry_ms;
                self.offered = true;
                self.send_peer(PeerBody::JoinRequest);
            }
            _ => {}
        }
    }

    /// An epoch is newer than the admission: whoever made it may have fenced, and removed what was registered here.
    pub(crate) fn admission_is_void(&mut self) {
        match self.state {
            State::Waiting(Admission::Granted) => {
                self.timers.ask_at = self.now;
                self.enter(State::Waiting(Admission::None));
            }
            State::Waiting(Admission::Asked) => self.timers.admit_again = true,
            _ => {}
        }
    }

    pub(crate) fn admitted(&mut self, result: Result<(), FenceError>) {
        let counts = !core::mem::take(&mut self.timers.admit_again) && result.is_ok();
        if result.is_err() {
            self.timers.ask_at = self.now + self.cfg.timing.retry_ms; // A host without paths would ask without end.
        }
        if self.state == State::Waiting(Admission::Asked) {
            self.enter(State::Waiting(if counts { Admission::Granted } else { Admission::None }));
        }
    }

    /// A joiner or a secondary watches its primary.
    fn advance_mirror(&mut self) {
        let Some(primary) = self.other_member() else { return };
        let ready = self.now >= self.timers.try_not_before && self.is_quiet();
        // A member that is to end does so too: its RAM may be the only copy, to be drained first.
        if ready && self.should_take_over_from(primary) {
            let joining = self.state == State::Joining;
            self.begin_takeover(if joining { Standing::Joiner } else { Standing::Member });
        }
    }

    /// Rule 9: finds out; then, still a member, tries when rule 15 says so. As it does where that can't be found out:
    /// who left the superblock written half-way has ended, and under the fence it may be read and mended. And where the
    /// other one, alive, has for long done nothing with the fence that it took. Whoever has fenced us is no member until it
    /// has written so; it was alive a moment ago, and its disk heartbeat tells whether it still is where the fabric can't.
    fn advance_fenced(&mut self, member: bool) {
        if !self.reading_superblock && self.now >= self.timers.reread_at {
            self.read_superblock();
        }
        let ready = self.now >= self.timers.try_not_before && self.is_quiet();
        let other_gone = match self.other_member() {
            Some(other) => self.should_take_over_from(other),
            None => self.peer.shows_no_life(self.now, self.cfg.timing.takeover_ms),
        };
        let idle = match self.peer.role {
            // A joiner waits for one that can't let it in any more.
            Some(Role::Waiting | Role::Refusing | Role::Joining | Role::Secondary | Role::Leaving | Role::Fenced) => {
                true
            }
            // It can't go on, and has not got so far that it could ask (rule 11).
            Some(Role::TakingOver) => !self.peer.paths,
            _ => false,
        };
        let since = self.peer.role_since.max(self.timers.fenced_at);
        let other_idle = idle && self.now.saturating_sub(since) >= self.cfg.timing.takeover_ms;
        if (member || !self.reading_superblock) && ready && (other_gone || other_idle) {
            self.begin_takeover(Standing::Fenced);
        }
    }

    /// Out of `members`, and nothing held here counts: drop the lanes and wait (rules 8, 9).
    pub(crate) fn stand_outside(&mut self) {
        self.drop_lanes();
        self.enter(State::Waiting(Admission::None));
        self.timers.ask_at = self.now;
        self.tell_status();
    }

    /// Drops lanes other than by rule 10: connections first, then the blobs; then it is another incarnation. All
    /// clients' connections: a Resume on its way on any of them means the incarnation that ends, and would let the
    /// next one's lane begin where the client no longer can.
    pub(crate) fn drop_lanes(&mut self) {
        self.handed.fails();
        self.offered = false;
        self.give_up_serving();
        while let Some((&conn, _)) = self.clients.first_key_value() {
            self.close_client(conn);
        }
        self.lane = None;
        self.index.clear();
        self.flusher.forget(Seq::ZERO);
        self.completed = Seq::ZERO;
        if !self.cfg.weak(Weakness::KeepIncarnation) {
            self.me = Incarnation::from_random(self.random.next());
            self.out(Action::Incarnation(self.me));
        }
    }

    /// Rule 15: who was fenced or turned away waits a random while, growing.
    pub(crate) fn turned_away(&mut self) {
        let wait = self.backoff(self.timers.turned_away);
        self.timers.turned_away += 1;
        self.timers.try_not_before = self.now + wait;
    }

    // ---- the takeover -------------------------------------------------------------------------------------------

    fn begin_takeover(&mut self, standing: Standing) {
        self.notice(Notice::TakingOver { member: matches!(standing, Standing::Member | Standing::Fenced) });
        self.enter(State::TakingOver(TakeOver::Fencing(standing)));
        self.out(Action::Fence);
        self.tell_status();
    }

    pub(crate) fn fence_held(&mut self, result: Result<(), FenceError>) {
        let State::TakingOver(TakeOver::Fencing(standing)) = self.state else {
            if result.is_ok() && !self.holds_fence() {
                self.out(Action::ReleaseFence); // Overtaken by events.
            }
            return;
        };
        self.timers.fence_failed = result == Err(FenceError::Failed);
        if result.is_ok() {
            self.enter(State::TakingOver(TakeOver::Reading));
            self.read_again = self.reading_superblock; // Rules 5 and 6: what was read before the fence is void.
            self.read_superblock();
            return;
        }
        self.turned_away();
        self.enter(match standing {
            Standing::Outside => State::Waiting(Admission::None),
            Standing::Joiner => State::Joining,
            Standing::Member => State::Secondary,
            Standing::Fenced => State::Fenced { member: true },
        });
        self.ack(); // What came meanwhile.
    }

    /// The superblock under the fence: now it counts, whatever was believed before. A slot that does not say the same
    /// is mended before anything else (section 7).
    pub(crate) fn read_under_fence(&mut self, read: SlotRead) {
        self.superblock = read.superblock;
        if read.settled {
            self.act_under_fence();
            return;
        }
        // Rule 4: whoever has written one slot only has not acted on what it says, and never will. What the other one says is
        // as true, and may be what lets this node go on.
        let goes_on = |s: Superblock| s.members.contains(self.member()) || self.may_take_without_members(s);
        let older = read.older.filter(|&older| goes_on(older) && !goes_on(read.superblock));
        let counts = older.map_or(read.superblock, |older| Superblock { epoch: read.superblock.epoch, ..older });
        self.write_superblock(counts, Purpose::Mend);
    }

    /// Rules 5 and 6, or stand down.
    pub(crate) fn act_under_fence(&mut self) {
        let superblock = self.superblock;
        if self.is_member() {
            self.drain(); // Rule 5.
        } else if self.may_take_without_members(superblock) || self.recover {
            // Also where the answer to a request to join never came: the client may have been told of this incarnation,
            // and its Resume, of the epoch before, would let the lane begin below what it then hears to be complete.
            if self.lane.is_some() || (self.offered && !self.cfg.weak(Weakness::KeepOffered)) {
                self.drop_lanes();
            }
            self.take_over(); // Rule 6.
        } else {
            self.out(Action::ReleaseFence);
            self.turned_away();
            self.stand_outside();
        }
    }

    /// Rule 5: all knowledge of what was flushed is void, everything unreleased goes to the disk.
    fn drain(&mut self) {
        if !self.cfg.weak(Weakness::TrustFlushMarks) {
            self.flusher.forget(self.released());
        }
        let target = self.received();
        self.timers.drain_began = self.now;
        self.enter(State::TakingOver(TakeOver::Draining { target }));
    }

    pub(crate) fn advance_takeover(&mut self) {
        match self.state {
            State::TakingOver(TakeOver::Draining { target }) if self.flusher.flushed() >= target => {
                self.note_drained(target);
                self.take_over();
            }
            State::TakingOver(TakeOver::Reading)
                if !self.reading_superblock && self.superblock_write.is_none() && self.now >= self.timers.reread_at =>
            {
                self.read_superblock();
            }
            _ => {}
        }
        self.retry_superblock_write();
    }

    fn retry_superblock_write(&mut self) {
        let now = self.now;
        let Some(write) = &mut self.superblock_write else { return };
        if write.retry_at.is_some_and(|at| now >= at) {
            write.retry_at = None;
            let next = write.next;
            self.out(Action::WriteSuperblock(next));
        }
    }

    fn take_over(&mut self) {
        self.enter(State::TakingOver(TakeOver::Writing));
        let members = Members::solo(self.member());
        let next = Superblock { primary: Some(self.node()), members, ..self.next_epoch() };
        self.write_superblock(next, Purpose::TakeOver);
    }

    /// The superblock names this node: it serves.
    pub(crate) fn taken_over(&mut self) {
        self.handed.fails();
        self.recover = false;
        self.told_refusing = false;
        self.timers.joins_thrown_away = 0;
        self.timers.join_not_before = self.now;
        self.peer.asked_at = None;
        self.enter(State::Primary(Phase::Solo));
        if self.lane.is_none() && self.superblock.generation.0 > 0 {
            self.open_lane(Lane::new(self.cfg.geometry, self.superblock.generation, None));
        }
        self.completed = self.released();
        self.notice(Notice::Serving);
    }
}
