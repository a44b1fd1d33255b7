//! The other node: the link, its words, and what a primary does with it (rules 7, 8).

use twinsan_staging::Lane;
use twinsan_wire::Superblock;
use twinsan_wire::{Epoch, Generation, Incarnation, Mailbox, Member, Members, NodeMsg, PeerBody, PeerMsg, Role, Seq};

use crate::action::{Action, Notice};
use crate::config::Weakness;
use crate::ids::LinkId;
use crate::machine::Replica;
use crate::state::{Admission, AttachStep, Join, Phase, Purpose, Standing, State, TakeOver};

impl Replica {
    // ---- link -----------------------------------------------------------------------------------------------------

    pub(crate) fn link_up(&mut self, link: LinkId, peer: Incarnation) {
        if let Some(old) = self.peer.link.replace(link) {
            self.out(Action::CloseLink { link: old });
        }
        self.peer.beat = 0;
        self.peer.role = None;
        self.peer.thrown_away = None;
        self.peer.hear(peer, self.now);
        if let State::Primary(Phase::Dual { lost_at, .. }) = &mut self.state {
            *lost_at = None;
        }
        self.tell_status();
        self.greet();
    }

    pub(crate) fn link_down(&mut self, link: LinkId) {
        if self.peer.link != Some(link) {
            return;
        }
        self.peer.link = None;
        self.peer.role = None;
        self.peer.asked_at = None;
        self.probe();
        match &mut self.state {
            State::Primary(Phase::Dual { lost_at, .. }) => *lost_at = Some(self.now),
            State::Primary(Phase::Join(_)) => self.throw_join_away(),
            _ => {}
        }
    }

    pub(crate) fn send_peer(&mut self, body: PeerBody) {
        let Some(link) = self.peer.link else { return };
        let to = self.peer.incarnation;
        let msg = PeerMsg { epoch: self.superblock.epoch, from: self.me, to, body };
        self.out(Action::SendPeer { link, msg });
    }

    pub(crate) fn tell_status(&mut self) {
        self.timers.beat += 1;
        self.send_peer(PeerBody::Status { role: self.role(), beat: self.timers.beat, paths: self.reaches_disk() });
    }

    /// Says where this node stands: to one that has just connected, or that is behind.
    fn greet(&mut self) {
        match self.state {
            State::Primary(_) => {
                // Rule 4: the old epoch would send the joiner away, whom the new one may name already.
                if !self.is_letting_in() {
                    self.send_peer(PeerBody::Announce { superblock: self.superblock });
                }
                self.tell_peer_released();
                if let Some(attach) = self.attach {
                    self.repeat_attach(attach.step);
                }
            }
            State::Secondary | State::Joining => {
                self.tell_handed_over();
                self.ack();
            }
            _ => {}
        }
    }

    // ---- words ----------------------------------------------------------------------------------------------------

    pub(crate) fn peer_message(&mut self, link: LinkId, msg: PeerMsg) {
        if self.peer.link != Some(link) {
            return;
        }
        match msg.body {
            PeerBody::Status { role, beat, paths } => self.peer_status(msg, role, beat, paths),
            PeerBody::Announce { superblock } => self.announced(msg.from, superblock),
            PeerBody::HandOver { superblock } if msg.to == Some(self.me) => self.handed_to(msg.from, superblock),
            body if self.fits(msg.epoch, msg.from, msg.to) => self.peer_says(msg.from, body),
            _ => {}
        }
    }

    /// A message or mailbox fits if it names this epoch and both present incarnations.
    fn fits(&self, epoch: Epoch, from: Incarnation, to: Option<Incarnation>) -> bool {
        let fits = epoch == self.superblock.epoch && Some(from) == self.peer.incarnation && to == Some(self.me);
        fits || self.cfg.weak(Weakness::BelieveEveryEpoch)
    }

    fn peer_status(&mut self, msg: PeerMsg, role: Role, beat: u64, paths: bool) {
        if beat <= self.peer.beat {
            return;
        }
        self.peer.beat = beat;
        self.peer.hear(msg.from, self.now);
        self.peer.epoch = msg.epoch;
        if self.peer.paths != paths {
            self.peer.paths = paths;
            self.notice(Notice::OtherPaths { usable: paths });
        }
        if self.peer.role != Some(role) {
            self.peer.role = Some(role);
            self.peer.role_since = self.now;
        }
        let behind = msg.epoch < self.superblock.epoch;
        // Who was fenced goes by what its writer says, where the disk does not tell.
        let asks = behind || role == Role::Fenced;
        if asks && matches!(self.state, State::Primary(_)) && !self.cfg.weak(Weakness::SilentEpoch) {
            self.send_peer(PeerBody::Announce { superblock: self.superblock });
        }
        if behind && self.state == State::Secondary {
            self.tell_handed_over();
        }
        if role == Role::Joining && self.has_no_join_of(msg.from) {
            self.send_peer(PeerBody::JoinAbort);
        }
    }

    fn peer_says(&mut self, from: Incarnation, body: PeerBody) {
        match body {
            PeerBody::JoinRequest => self.join_requested(from),
            PeerBody::JoinAccept { generation, first } => self.join_accepted(generation, first),
            PeerBody::JoinAbort => match self.state {
                State::Joining | State::Waiting(Admission::Granted) => self.stand_outside(),
                State::Primary(Phase::Join(join)) if join.incarnation == from => self.throw_join_away(),
                _ => {}
            },
            PeerBody::CloseSession { generation } => {
                if self.state == State::Secondary && self.lane_is(generation) {
                    self.close_old_session();
                }
            }
            PeerBody::DropLane { generation } => self.drop_lane_for_attach(generation),
            PeerBody::LaneDropped { generation } => self.lane_dropped(generation),
            PeerBody::Leave => self.peer.leaving = true,
            PeerBody::TakeOver => {
                if self.superblock.primary_member() == Some(self.other(from)) {
                    self.peer.asked_at = Some(self.now);
                }
            }
            PeerBody::AskHandOver => self.hand_over_to_clients_node(from),
            PeerBody::HandOver { .. } => {} // To an earlier incarnation.
            PeerBody::Status { .. } | PeerBody::Announce { .. } => unreachable!("sorted out before"),
        }
    }

    pub(crate) fn other(&self, incarnation: Incarnation) -> Member {
        Member { node: self.node().other(), incarnation }
    }

    fn lane_is(&self, generation: Generation) -> bool {
        self.lane.as_ref().is_some_and(|l| l.generation() == generation)
    }

    pub(crate) fn peer_mailbox(&mut self, link: LinkId, mailbox: Mailbox) {
        if self.peer.link != Some(link) {
            return;
        }
        match mailbox {
            Mailbox::Ack { epoch, from, to, generation, first, received, released } => {
                let lane = self.lane_is(generation) || (self.lane.is_none() && first.is_none());
                if self.fits(epoch, from, Some(to)) && lane {
                    self.acked(from, first, received);
                    if self.fed_one() == Some(from) {
                        self.relay_released(released);
                    }
                }
            }
            Mailbox::Released { epoch, from, to, generation, released } => {
                let mirrors = matches!(self.state, State::Secondary | State::Joining);
                if mirrors && self.fits(epoch, from, Some(to)) && self.lane_is(generation) {
                    self.may_release = self.may_release.max(released);
                }
            }
            Mailbox::Completion { .. } => {}
        }
    }

    /// The announcement of a newer epoch by its writer always fits (section 3).
    fn announced(&mut self, from: Incarnation, superblock: Superblock) {
        if superblock.primary_member() != Some(self.other(from)) {
            return;
        }
        self.handed.announced(superblock.epoch, self.now).into_iter().for_each(|notice| self.notice(notice));
        let same = superblock.epoch == self.superblock.epoch;
        let joins_no_more = same && self.state == State::Joining;
        // Rule 4: its writer's word is as good as two slots that agree, and one of those may have rotted.
        let finds_out = same
            && matches!(self.state, State::Fenced { .. })
            && superblock.counter >= self.superblock.counter
            && !superblock.members.contains(self.member());
        if superblock.epoch <= self.superblock.epoch && !joins_no_more && !finds_out {
            if same {
                // One read half-written, whose slot then rotted away: its epoch has been given to another.
                if matches!(self.state, State::Waiting(_)) && superblock.counter > self.superblock.counter {
                    self.superblock = superblock;
                }
                self.ack();
            }
            return;
        }
        if matches!(self.state, State::TakingOver(_) | State::Inspecting) {
            return; // What the superblock says under the fence counts; the writer says it again if that fails.
        }
        let enters = superblock.members.contains(self.member());
        if enters && !self.state.step().may_become(State::Secondary.step()) {
            return; // Nobody makes a member of one that has not asked to join, nor handed over; whoever says so has not written it.
        }
        self.peer.hear(from, self.now);
        let generation_before = self.superblock.generation;
        self.superblock = superblock;
        self.told_refusing = false;
        if enters {
            self.enter_as_secondary(generation_before);
        } else if matches!(self.state, State::Waiting(_)) {
            self.admission_is_void();
            self.tell_view();
        } else if self.leaving_since.is_some() {
            self.stop();
        } else {
            self.stand_outside();
        }
    }

    fn enter_as_secondary(&mut self, generation_before: Generation) {
        self.give_up_serving();
        self.timers.turned_away = 0;
        self.enter(State::Secondary);
        self.completed = Seq::ZERO;
        let generation = self.superblock.generation;
        if generation != generation_before {
            self.close_old_session();
            self.open_lane(Lane::new(self.cfg.geometry, generation, Some(Seq(1))));
        }
        self.entered_epoch();
        if self.leaving_since.is_some() {
            self.send_peer(PeerBody::Leave);
        }
    }

    /// Who enters an epoch says so, and writes its mailboxes again (section 3).
    pub(crate) fn entered_epoch(&mut self) {
        self.notice(Notice::EpochEntered(self.superblock));
        self.cancel_reads();
        self.close_void_relays();
        self.tell_status();
        if matches!(self.state, State::Primary(_)) {
            self.send_peer(PeerBody::Announce { superblock: self.superblock });
        }
        self.tell_view();
        if self.cfg.weak(Weakness::SilentEpoch) {
            return;
        }
        self.ack();
        self.tell_session();
        if matches!(self.state, State::Primary(_)) {
            self.tell_peer_released();
        }
    }

    /// The mirror's word to the primary: what it holds.
    pub(crate) fn ack(&mut self) {
        // Rule 5: a member stops only under the fence. Until then the primary may be well, and the fence fail, after seconds
        // where no path answers (both nodes have lost the disk, and one of them notices first).
        let fencing = State::TakingOver(TakeOver::Fencing(Standing::Member));
        if !matches!(self.state, State::Secondary | State::Joining) && self.state != fencing {
            return;
        }
        let (Some(link), Some(to)) = (self.peer.link, self.other_member()) else { return };
        let mailbox = Mailbox::Ack {
            epoch: self.superblock.epoch,
            from: self.me,
            to,
            generation: self.lane.as_ref().map_or(self.superblock.generation, Lane::generation),
            first: self.lane.as_ref().and_then(Lane::first),
            received: self.received(),
            released: self.released(),
        };
        self.out(Action::PeerMailbox { link, mailbox });
    }

    /// The primary's word to the mirror: what it may forget.
    pub(crate) fn tell_peer_released(&mut self) {
        let to = match self.state {
            State::Primary(Phase::Dual { .. }) => self.other_member(),
            State::Primary(Phase::Join(join)) => Some(join.incarnation),
            _ => None,
        };
        let (Some(link), Some(to), Some(lane)) = (self.peer.link, to, &self.lane) else { return };
        let mailbox = Mailbox::Released {
            epoch: self.superblock.epoch,
            from: self.me,
            to,
            generation: lane.generation(),
            released: lane.released(),
        };
        self.out(Action::PeerMailbox { link, mailbox });
    }

    fn acked(&mut self, from: Incarnation, first: Option<Seq>, received: Seq) {
        let member = self.other_member();
        match &mut self.state {
            State::Primary(Phase::Dual { acked, .. } | Phase::HandingOver { acked, .. }) if member == Some(from) => {
                *acked = (*acked).max(received);
            }
            State::Primary(Phase::Join(join)) if join.incarnation == from => {
                if join.acked.is_none_or(|a| received > a) || join.first != first {
                    join.progress_at = self.now;
                }
                join.first = first;
                join.acked = Some(received);
            }
            _ => {}
        }
    }

    // ---- rule 7 -----------------------------------------------------------------------------------------------------

    pub(crate) fn start_drop(&mut self) {
        self.notice(Notice::DroppingSecondary);
        self.cancel_reads();
        let target = self.received();
        self.enter(State::Primary(Phase::Dropping { target }));
        if let Some(attach) = self.attach.as_mut().filter(|a| a.step == AttachStep::Confirming) {
            attach.step = AttachStep::Flushing;
        }
    }

    /// The superblock names this node alone.
    pub(crate) fn dropped(&mut self) {
        self.enter(State::Primary(Phase::Solo));
        let wait = self.backoff(self.timers.joins_thrown_away);
        self.timers.join_not_before = self.now + wait;
    }

    // ---- rule 8, the primary's side -----------------------------------------------------------------------------------

    fn join_requested(&mut self, from: Incarnation) {
        let free = self.attach.is_none() && self.superblock_write.is_none() && self.leaving_since.is_none();
        let free = free && self.reaches_disk(); // It takes a superblock write.
        if self.state != State::Primary(Phase::Solo) || !free || self.now < self.timers.join_not_before {
            return;
        }
        if self.peer.thrown_away == Some(from) {
            self.send_peer(PeerBody::JoinAbort); // Its earlier words may still be on their way here.
            return;
        }
        let join = Join { incarnation: from, first: None, acked: None, progress_at: self.now, relayed: false };
        self.relay.released = None; // Another one's.
        self.enter(State::Primary(Phase::Join(join)));
        let client = self.session.is_some();
        let lane = self.lane.as_ref().filter(|l| l.first().is_some());
        let first = if client { None } else { lane.map(|l| l.received().next()) };
        self.send_peer(PeerBody::JoinAccept { generation: self.superblock.generation, first });
        self.tell_peer_released();
        self.tell_view();
    }

    /// Rule 8: everything below the joiner's first is on the disk, or the write that makes it a member has been issued:
    /// so nothing that it has not ACKed is flushed or completed.
    pub(crate) fn join_gate(&self, join: Join) -> bool {
        let first_known = join.first.is_some_and(|n| self.flusher.flushed() >= n.prev());
        (first_known || self.is_letting_in()) && !self.cfg.weak(Weakness::JoinTooEarly)
    }

    /// The write that makes the joiner a member has been issued.
    fn is_letting_in(&self) -> bool {
        self.superblock_write.is_some_and(|w| w.purpose == Purpose::Join)
    }

    /// The joiner holds all that counts.
    fn join_covers(&self, join: Join) -> bool {
        let Some(acked) = join.acked else { return false };
        let Some(lane) = self.lane.as_ref().filter(|l| l.first().is_some()) else { return join.first.is_none() };
        let Some(first) = join.first else { return false };
        if self.cfg.weak(Weakness::JoinTooEarly) {
            return acked >= first.prev();
        }
        let floor = first.prev().max(self.flusher.issued()).max(self.completed).max(lane.released());
        self.join_gate(join) && acked >= floor
    }

    /// The other one believes that it joins, and was thrown away: it was told so while it tried to take over.
    fn has_no_join_of(&self, from: Incarnation) -> bool {
        match self.state {
            State::Primary(Phase::Join(join)) => join.incarnation != from,
            State::Primary(_) => self.other_member() != Some(from),
            _ => false,
        }
    }

    /// A frozen joiner must not stall the service.
    pub(crate) fn throw_join_away(&mut self) {
        let State::Primary(Phase::Join(join)) = self.state else { return };
        if self.is_letting_in() {
            return; // Too late: its outcome decides.
        }
        self.notice(Notice::JoinThrownAway);
        self.peer.thrown_away = Some(join.incarnation);
        self.send_peer(PeerBody::JoinAbort);
        let wait = self.backoff(self.timers.joins_thrown_away);
        self.timers.joins_thrown_away += 1;
        self.timers.join_not_before = self.now + wait;
        self.enter(State::Primary(Phase::Solo));
        self.tell_view();
    }

    pub(crate) fn joined(&mut self) {
        let State::Primary(Phase::Join(join)) = self.state else {
            unreachable!("a join is thrown away before its write")
        };
        let lost_at = self.peer.link.is_none().then_some(self.now);
        self.timers.joins_thrown_away = 0;
        self.timers.turned_away = 0; // And not when it took over: two that fence each other in turn would never wait longer.
        self.enter(State::Primary(Phase::Dual { acked: join.acked.unwrap_or(Seq::ZERO), lost_at }));
        self.relay_goes_on();
        self.notice(Notice::Joined);
    }

    /// Moves what a primary has begun with the other node.
    pub(crate) fn advance_primary(&mut self) {
        let State::Primary(phase) = self.state else { return };
        let timing = self.cfg.timing;
        match phase {
            Phase::Solo => {}
            Phase::Join(join) => {
                let writing = self.superblock_write.is_some();
                let gone = self.peer.incarnation != Some(join.incarnation);
                let stuck = self.now.saturating_sub(join.progress_at) >= timing.join_ms;
                if !writing && (gone || stuck || self.peer.link.is_none()) {
                    self.throw_join_away();
                } else if !writing && self.join_covers(join) {
                    let other = self.other(join.incarnation);
                    let members = Members::solo(self.member()).with(other);
                    self.write_superblock(Superblock { members, ..self.next_epoch() }, Purpose::Join);
                }
            }
            Phase::Dual { lost_at, .. } => {
                let member = self.other_member().expect("dual");
                let lost = lost_at.is_some_and(|at| self.now.saturating_sub(at) >= timing.drop_ms);
                let leaves = self.peer.leaving && self.peer.incarnation == Some(member);
                if lost || leaves || self.peer.is_gone(member) || self.peer.is_silent(self.now, timing.drop_ms) {
                    self.start_drop();
                }
            }
            Phase::HandingOver { since, .. } => self.advance_hand_over(since),
            Phase::Dropping { target } => {
                if self.flusher.flushed() >= target && self.superblock_write.is_none() {
                    let members = Members::solo(self.member());
                    self.write_superblock(Superblock { members, ..self.next_epoch() }, Purpose::Drop);
                }
            }
        }
    }

    // ---- rule 8, the joiner's side --------------------------------------------------------------------------------------

    fn join_accepted(&mut self, generation: Generation, first: Option<Seq>) {
        if !matches!(self.state, State::Waiting(Admission::Granted)) || self.leaving_since.is_some() {
            return;
        }
        self.enter(State::Joining);
        if generation.0 > 0 {
            self.open_lane(Lane::new(self.cfg.geometry, generation, first));
        }
        self.tell_status();
        self.tell_view();
        self.ack();
    }

    /// Shows a client why it must try elsewhere.
    pub(crate) fn refuse(&mut self, conn: crate::ids::ConnId, why: twinsan_wire::Refusal) {
        self.out(Action::SendClient { conn, msg: NodeMsg::Refused { why } });
    }
}
