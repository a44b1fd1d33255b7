//! Clients: who may put blobs into the lane (rules 10, 14), and what it says.

use twinsan_staging::{Accept, Lane};
use twinsan_wire::limits::{MAX_OPEN_READS, MAX_READ_BYTES};
use twinsan_wire::{Blob, ClientMsg, Epoch, Generation, NodeId, NodeMsg, PeerBody, Refusal, Seq};

use crate::action::{Action, Notice};
use crate::config::Weakness;
use crate::handover::Obstacle;
use crate::ids::ConnId;
use crate::machine::{Client, Replica};
use crate::serve::ReadRequest;
use crate::state::{Attach, AttachStep, Phase, Purpose, State};

/// The highest seq that a client may begin with: what follows can never reach the end of the numbers.
const LAST_FIRST: Seq = Seq(1 << 62);

impl Replica {
    pub(crate) fn client_up(&mut self, conn: ConnId) {
        self.clients.insert(conn, Client { heard_at: self.now, relay: None });
        self.tell_view_to(conn);
    }

    pub(crate) fn client_down(&mut self, conn: ConnId) {
        if self.clients.remove(&conn).is_none() {
            return;
        }
        self.cancel_reads_of(conn);
        if self.session == Some(conn) {
            self.session = None;
            if self.relay.is_wanted() {
                self.throw_join_away(); // It lacks what comes next, which nobody would send; without a client it lacks nothing.
            }
            self.end_relay(); // Nobody is left for whom; who comes back says so again.
        }
    }

    /// Destroys a connection: nothing lands from it any more.
    pub(crate) fn close_client(&mut self, conn: ConnId) {
        self.client_down(conn);
        self.out(Action::CloseClient { conn });
    }

    pub(crate) fn close_session(&mut self) {
        if let Some(conn) = self.session {
            self.close_client(conn);
        }
    }

    fn violation(&mut self, conn: ConnId, what: &'static str) {
        self.notice(Notice::ClientViolation(what));
        self.close_client(conn);
    }

    pub(crate) fn client_message(&mut self, conn: ConnId, msg: ClientMsg) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        client.heard_at = self.now;
        if client.relay.is_some() && !matches!(msg, ClientMsg::Resume { .. }) {
            self.violation(conn, "a relay that says what only a client may");
            return;
        }
        match msg {
            ClientMsg::Attach { over } => self.attach_requested(conn, over),
            ClientMsg::Resume { generation, first } => self.resume(conn, generation, first),
            ClientMsg::Read { id, epoch, after, lba, blocks, slot } => {
                let bytes = u64::from(blocks) * u64::from(self.cfg.geometry.block_bytes());
                let in_volume = lba.0.checked_add(u64::from(blocks)).is_some_and(|end| end <= self.cfg.volume_blocks);
                if self.session != Some(conn) {
                    return; // Its session has gone on by another connection, or ended.
                }
                if blocks == 0 || !in_volume || bytes > u64::from(MAX_READ_BYTES) {
                    self.violation(conn, "a read outside of the volume, or too long");
                } else if slot as usize >= MAX_OPEN_READS || self.reads.open.len() >= 2 * MAX_OPEN_READS {
                    self.violation(conn, "too many open reads");
                } else if after > self.received() {
                    self.violation(conn, "a read that follows a blob which was never sent");
                } else {
                    self.read(ReadRequest { conn, id, epoch, lba, blocks, slot });
                }
            }
            ClientMsg::Heartbeat => {}
            ClientMsg::Unreachable { node, epoch, generation } => {
                if self.is_sessions_word(conn, epoch, generation) {
                    self.unreachable(node, epoch, generation);
                }
                if epoch == self.superblock.epoch {
                    self.ask_to_hand_over(node);
                }
            }
            ClientMsg::Detach => {
                if self.session == Some(conn) {
                    self.close_session();
                }
            }
        }
    }

    /// Rule 15: whether the newest session says so, as far as this node knows. A primary knows it by its connection. At any
    /// other node it may have none, as outside; and such a node may be the last to hear of an epoch, so that the client,
    /// who heard of it from its writer, may be ahead.
    fn is_sessions_word(&self, conn: ConnId, epoch: Epoch, generation: Generation) -> bool {
        let known = self.superblock;
        if let State::Primary(_) = self.state {
            return self.session == Some(conn) && (epoch, generation) == (known.epoch, known.generation);
        }
        let newest = generation > Generation::ZERO && generation >= known.generation;
        epoch >= known.epoch && (newest || self.cfg.weak(Weakness::BelieveAnyClient))
    }

    /// The client's word on the links that only it can see (rule 15).
    fn unreachable(&mut self, node: NodeId, epoch: Epoch, generation: Generation) {
        if node == self.node() {
            return;
        }
        self.client_misses_other(epoch, generation);
        match self.state {
            // Who is to end goes, whomever the client reaches: the other one is then all that there is.
            State::Primary(Phase::HandingOver { .. }) if self.leaving_since.is_none() => {
                self.call_off_hand_over(Obstacle::OtherNotReady);
            }
            State::Primary(Phase::Dual { .. } | Phase::Join(_)) => self.want_relay(),
            _ => {}
        }
    }

    // ---- rule 14 ------------------------------------------------------------------------------------------------------

    fn resume(&mut self, conn: ConnId, generation: Generation, first: Seq) {
        if first > LAST_FIRST {
            self.violation(conn, "a session that begins beyond all numbers");
            return;
        }
        if !self.believes_relay(conn) {
            self.close_client(conn);
            return;
        }
        let known = self.superblock.generation;
        let holds = self.lane.as_ref().is_some_and(|l| l.generation() == generation);
        let takes = matches!(self.state, State::Primary(_) | State::Secondary | State::Joining | State::TakingOver(_));
        if generation < known {
            self.refuse(conn, Refusal::Superseded);
            return;
        }
        if !holds || !takes || generation != known || self.attach.is_some() || self.leaving_since.is_some() {
            self.refuse(conn, Refusal::NotReady);
            return;
        }
        if self.session != Some(conn) {
            if !self.cfg.weak(Weakness::KeepEarlierFeeder) {
                self.close_session(); // One connection at a time, the earlier one destroyed before the answer.
            }
            self.session = Some(conn);
        }
        self.skip_what_has_completed(generation, first);
        let lane = self.lane.as_mut().expect("it holds the session's lane");
        if lane.first().is_none() {
            lane.begin(first);
            let begun = lane.released();
            self.flusher.forget(begun);
            self.completed = begun;
        }
        let received = self.received();
        self.out(Action::SendClient { conn, msg: NodeMsg::Resumed { generation, from: self.me, received } });
        if !self.is_relay(conn) {
            self.tell_view_to(conn);
        }
        self.tell_session();
        self.ack();
    }

    /// A joiner's lane that the primary has begun, as no client was there to say where, and that has stayed empty: what
    /// a client has sent since then may have completed, and is on the disk, before the primary heard where it began.
    fn skip_what_has_completed(&mut self, generation: Generation, first: Seq) {
        let begun = self.lane.as_ref().and_then(Lane::first);
        let empty = begun.is_some_and(|begun| begun == self.received().next());
        if self.state == State::Joining && empty && first > self.received().next() {
            self.open_lane(Lane::new(self.cfg.geometry, generation, None));
        }
    }

    pub(crate) fn blob(&mut self, conn: ConnId, blob: Blob) {
        let kept =
            self.cfg.weak(Weakness::KeepEarlierFeeder) && self.clients.contains_key(&conn) && self.lane.is_some();
        if self.session != Some(conn) && !kept {
            return;
        }
        let in_volume = blob.lba.0.checked_add(u64::from(blob.blocks)).is_some_and(|end| end <= self.cfg.volume_blocks);
        if !in_volume {
            self.violation(conn, "a blob outside of the volume");
            return;
        }
        let lane = self.lane.as_mut().expect("a session has a lane");
        match lane.accept(blob) {
            Ok(Accept::New) => {
                self.index.insert(blob.lba, blob.blocks, blob.seq);
                self.timers.staged_at = self.now;
                self.ack();
            }
            Ok(Accept::Duplicate) => {}
            Err(_) => self.violation(conn, "a blob that does not fit its lane"),
        }
    }

    // ---- rule 10 ------------------------------------------------------------------------------------------------------

    /// A session is live if its client is connected and has been heard.
    pub(crate) fn session_is_live(&self) -> bool {
        self.client_was_heard_within(self.cfg.timing.client_dead_ms)
    }

    pub(crate) fn client_was_heard_within(&self, ms: u64) -> bool {
        let heard = self.session.and_then(|conn| self.clients.get(&conn)).map(|c| c.heard_at);
        heard.is_some_and(|at| self.now.saturating_sub(at) < ms)
    }

    /// `over`: the only session that gives way although its client lives. If a newer one has begun since whoever asks has
    /// looked, maybe by the same order, two that take over from each other would go on for ever; a number that no session
    /// has had yet is made up.
    fn attach_requested(&mut self, conn: ConnId, over: Generation) {
        if self.told_refusing {
            self.refuse(conn, Refusal::NeedsRecovery);
            return;
        }
        let State::Primary(phase) = self.state else {
            self.refuse(conn, Refusal::NotReady);
            return;
        };
        let hands_over = matches!(phase, Phase::HandingOver { .. });
        if self.attach.is_some() || hands_over || self.leaving_since.is_some() {
            self.refuse(conn, Refusal::NotReady);
            return;
        }
        if self.session_is_live() && self.superblock.generation != over {
            self.refuse(conn, Refusal::Busy);
            return;
        }
        if let Phase::Join(_) = phase {
            self.throw_join_away();
        }
        self.cancel_reads();
        self.close_old_session();
        self.end_relay(); // Before anybody writes into the lane anew.
        self.attach = Some(Attach { conn, step: AttachStep::Flushing });
        self.send_peer(PeerBody::CloseSession { generation: self.superblock.generation });
    }

    /// Rule 10: nothing lands from the session that ends any more.
    pub(crate) fn close_old_session(&mut self) {
        if self.cfg.weak(Weakness::KeepOldSession) {
            self.session = None;
        } else {
            self.close_session();
        }
    }

    /// What a broken link may have swallowed.
    pub(crate) fn repeat_attach(&mut self, step: AttachStep) {
        let generation = self.superblock.generation;
        match step {
            AttachStep::Flushing => self.send_peer(PeerBody::CloseSession { generation }),
            AttachStep::Confirming => self.send_peer(PeerBody::DropLane { generation }),
            AttachStep::Writing => {}
        }
    }

    pub(crate) fn advance_attach(&mut self) {
        let (Some(attach), State::Primary(phase)) = (self.attach, self.state) else { return };
        if attach.step != AttachStep::Flushing || self.flusher.flushed() < self.received() {
            return;
        }
        match phase {
            Phase::Dual { .. } => {
                self.attach = Some(Attach { step: AttachStep::Confirming, ..attach });
                self.send_peer(PeerBody::DropLane { generation: self.superblock.generation });
            }
            Phase::Solo if self.superblock_write.is_none() => self.write_generation(attach),
            Phase::Solo | Phase::Join(_) | Phase::Dropping { .. } | Phase::HandingOver { .. } => {}
        }
    }

    /// The secondary: connections first, then the lane. The incarnation stays: what it held is on the disk.
    pub(crate) fn drop_lane_for_attach(&mut self, generation: Generation) {
        if self.state != State::Secondary || self.superblock.generation != generation {
            return;
        }
        self.close_old_session();
        self.lane = None;
        self.index.clear();
        self.flusher.forget(Seq::ZERO);
        self.send_peer(PeerBody::LaneDropped { generation });
    }

    pub(crate) fn lane_dropped(&mut self, generation: Generation) {
        let Some(attach) = self.attach.filter(|a| a.step == AttachStep::Confirming) else { return };
        let dual = matches!(self.state, State::Primary(Phase::Dual { .. }));
        if dual && generation == self.superblock.generation && self.superblock_write.is_none() {
            self.write_generation(attach);
        }
    }

    fn write_generation(&mut self, attach: Attach) {
        self.attach = Some(Attach { step: AttachStep::Writing, ..attach });
        let mut next = self.next_epoch();
        if !self.cfg.weak(Weakness::GenerationInRam) {
            next.generation = self.superblock.generation.next();
        }
        self.write_superblock(next, Purpose::Attach);
    }

    /// The generation is on the disk: the new session begins.
    pub(crate) fn attached(&mut self) {
        let Some(Attach { conn, .. }) = self.attach.take() else { return };
        if self.cfg.weak(Weakness::GenerationInRam) {
            self.superblock.generation = self.superblock.generation.next();
        }
        let generation = self.superblock.generation;
        self.open_lane(Lane::new(self.cfg.geometry, generation, Some(Seq(1))));
        if let State::Primary(Phase::Dual { acked: seq, .. } | Phase::Dropping { target: seq }) = &mut self.state {
            *seq = Seq::ZERO;
        }
        self.notice(Notice::SessionAttached);
        if self.clients.contains_key(&conn) {
            self.session = Some(conn);
            self.tell_view_to(conn);
            self.out(Action::SendClient { conn, msg: NodeMsg::Attached { generation } });
        }
    }

    /// A lane without blobs, for the session that the superblock names.
    pub(crate) fn open_lane(&mut self, lane: Lane) {
        self.index.clear();
        self.flusher.forget(lane.released());
        self.completed = lane.released();
        self.may_release = lane.released();
        self.lane = Some(lane);
    }
}
