//! What the nodes say: each message and mailbox, checked against what may be said, and its consequence.
//!
//! A node that says what it may not say is a violation: its connection is destroyed, whatever was on its way with it,
//! and made again later. What merely does not fit (an older epoch, another generation or incarnation) is ignored
//! (section 3 of the protocol).

use alloc::vec::Vec;

use twinsan_wire::{Epoch, Generation, Incarnation, Mailbox, Member, NodeId, NodeMsg, Refusal, Role, Seq};

use crate::action::{Action, Ended, Notice};
use crate::config::Weakness;
use crate::link::{Duty, LaneMark, Up};
use crate::session::Session;
use crate::status::Phase;
use crate::view::{Known, View};

impl Up {
    /// Whether its last View says that it serves in this epoch.
    pub(crate) fn serves(&self, epoch: Epoch) -> bool {
        self.said.as_ref().is_some_and(|view| view.role == Role::Primary && view.epoch == epoch)
    }
}

impl Session {
    pub(crate) fn message(&mut self, node: NodeId, msg: NodeMsg, out: &mut Vec<Action>) {
        match msg {
            NodeMsg::View { role, from, epoch, primary, members, joiner, generation } => {
                self.viewed(node, View { role, from, epoch, primary, members, joiner, generation }, out);
            }
            NodeMsg::Attached { generation } => self.attached(node, generation, out),
            NodeMsg::Resumed { generation, from, received } => self.resumed(node, generation, from, received, out),
            NodeMsg::Refused { why } => self.refused(node, why, out),
            NodeMsg::ReadDone { id, epoch, durable } => self.read_done(node, id, epoch, durable, out),
        }
    }

    fn up(&mut self, node: NodeId) -> &mut Up {
        self.links[node.index()].up_mut().expect("only a connected node says anything")
    }

    // ---- Views.

    fn viewed(&mut self, node: NodeId, view: View, out: &mut Vec<Action>) {
        let up = self.up(node);
        if view.from != up.incarnation {
            // It has dropped its lanes. Of a connection that it was asked on, nobody knows which of the two answers.
            let Duty::Listening { .. } = up.duty else { return self.break_off(node, out) };
            up.incarnation = view.from;
        }
        let before = up.said.replace(view).map(|said| said.role);
        if view.role == Role::Refusing && before != Some(Role::Refusing) {
            out.push(Action::Notice(Notice::NeedsRecovery { node }));
        }
        if up.duty == Duty::Attaching && view.role != Role::Primary {
            // Whether it still remembers the Attach can't be known; two of them would make two sessions.
            return self.break_off(node, out);
        }
        if view.role == Role::Primary && self.known.is_none_or(|known| view.epoch >= known.epoch) {
            match self.weigh(node, &view) {
                Ok(known) => self.learn(known, out),
                Err(what) => self.violation(node, what, out),
            }
        }
    }

    /// Whether what a primary says can be. While a session is open, what is known names it: an earlier one's epoch may
    /// not follow.
    fn weigh(&self, node: NodeId, view: &View) -> Result<Known, &'static str> {
        let next = Known::told_by(node, view)?;
        if let Some(known) = &self.known {
            known.may_become(&next)?;
        }
        Ok(next)
    }

    fn learn(&mut self, next: Known, out: &mut Vec<Action>) {
        let before = self.known;
        if let Some(before) = before.filter(|before| before.primary.node != next.primary.node) {
            self.leave(before.primary.node, out);
        }
        if self.generation().is_some_and(|ours| next.generation > ours) {
            return self.end(Ended::Superseded, out);
        }
        self.known = Some(next);
        if self.config.take_over && self.phase == Phase::Attaching {
            self.over.get_or_insert(next.generation);
        }
        if before.is_none_or(|before| before.epoch < next.epoch) {
            let (epoch, primary, dual) = (next.epoch, next.primary.node, next.members.is_dual());
            out.push(Action::Notice(Notice::NewEpoch { epoch, primary, dual }));
        }
        self.evict(&next, out);
        self.mark_mirror();
        for node in NodeId::BOTH {
            let was = before.and_then(|before| before.holder(node));
            if next.holder(node).is_some_and(|holder| was != Some(holder)) {
                self.links[node.index()].hope(self.now());
            }
        }
        self.free();
    }

    /// The old primary's answers may still be on their way to the read buffers.
    fn leave(&mut self, old: NodeId, out: &mut Vec<Action>) {
        if self.links[old.index()].up().is_none() {
            return;
        }
        if self.keeps_old_primary() {
            self.reads.unsend();
            self.demote(old);
        } else {
            self.break_off(old, out);
            // It did nothing wrong: after a handover it is a member still.
            self.links[old.index()].hope(self.now());
        }
    }

    /// Who is no holder any more is not fed, by a connection on which it can write nothing either.
    fn evict(&mut self, known: &Known, out: &mut Vec<Action>) {
        for node in NodeId::BOTH {
            let Some(up) = self.links[node.index()].up() else { continue };
            let fed = matches!(up.duty, Duty::Resuming { .. } | Duty::Feeding { .. });
            if fed && !known.holds(Member { node, incarnation: up.incarnation }) {
                self.break_off(node, out);
            }
        }
    }

    fn keeps_old_primary(&self) -> bool {
        self.config.weak(Weakness::CompleteFromOlderEpoch) || self.config.weak(Weakness::ReuseReadBufferBeforeClose)
    }

    /// Only in a weakened session: the connection stays, unfed.
    fn demote(&mut self, node: NodeId) {
        let ask_at = self.now();
        let link = &mut self.links[node.index()];
        if link.up().is_some_and(|up| !matches!(up.duty, Duty::Listening { .. })) {
            link.turn(Duty::Listening { ask_at });
        }
    }

    // ---- Answers to Attach and Resume.

    fn attached(&mut self, node: NodeId, generation: Generation, out: &mut Vec<Action>) {
        let incarnation = match self.up(node) {
            Up { duty: Duty::Attaching, incarnation, .. } => *incarnation,
            _ => return self.violation(node, "Attached to a client that did not ask", out),
        };
        // The View that says so comes first: the superblock changes before the behaviour does (rule 4).
        let fits = self
            .known
            .is_some_and(|known| known.generation == generation && known.primary == Member { node, incarnation });
        if !fits || generation == Generation::ZERO {
            return self.violation(node, "Attached to a session that its View does not name", out);
        }
        assert_eq!((self.phase, self.last()), (Phase::Attaching, Seq::ZERO), "a session is opened once");
        let link = &mut self.links[node.index()];
        link.lane = Some(LaneMark::new(incarnation, Seq::ZERO));
        link.turn(Duty::Feeding { sent: Seq::ZERO });
        self.phase = Phase::Open { generation };
        self.over = None;
        self.mark_mirror();
        out.push(Action::Opened { generation });
    }

    /// A member that mirrors holds a lane whether we have ever asked for it or not: the primary feeds it where we don't
    /// (rule 14). What it has not released is kept from now on; what was forgotten before, it can't hold.
    fn mark_mirror(&mut self) {
        let (Some(known), Some(_)) = (&self.known, self.generation()) else { return };
        let node = known.primary.node.other();
        let link = &mut self.links[node.index()];
        if let Some(incarnation) = known.members.of(node)
            && link.released(incarnation).is_none()
        {
            link.lane = Some(LaneMark::new(incarnation, self.window.freed()));
        }
    }

    fn resumed(
        &mut self,
        node: NodeId,
        generation: Generation,
        from: Incarnation,
        received: Seq,
        out: &mut Vec<Action>,
    ) {
        match self.check_resumed(node, generation, from, received) {
            Ok(()) => {}
            Err(what) => return self.violation(node, what, out),
        }
        if received < self.window.freed() {
            // It was true when it was said. A relay took this connection's place after that, and has ended it.
            return self.break_off(node, out);
        }
        let last = self.last();
        let link = &mut self.links[node.index()];
        link.lower(received);
        let conn = link.conn().expect("checked");
        out.extend(self.window.iter_from(received.next()).map(|&blob| Action::Post { conn, blob }));
        link.turn(Duty::Feeding { sent: last });
        out.push(Action::Notice(Notice::NodeResumed { node, resent: last.0 - received.0 }));
    }

    fn check_resumed(
        &mut self,
        node: NodeId,
        generation: Generation,
        from: Incarnation,
        received: Seq,
    ) -> Result<(), &'static str> {
        let ours = self.generation();
        let last = self.last();
        let up = self.up(node);
        if !matches!(up.duty, Duty::Resuming { .. }) {
            return Err("Resumed to a client that did not ask");
        }
        if ours != Some(generation) || from != up.incarnation {
            return Err("Resumed another session, or by another incarnation");
        }
        if received > last {
            return Err("resumed after a blob that was never sent");
        }
        // Nothing that a holder may lack has been forgotten (invariant 3).
        let forgotten = received < self.window.freed() && !self.links[node.index()].was_relayed_past(received);
        if forgotten { Err("resumed before a blob that it does not need") } else { Ok(()) }
    }

    fn refused(&mut self, node: NodeId, why: Refusal, out: &mut Vec<Action>) {
        let (attaching, asked) = match self.up(node).duty {
            Duty::Attaching => (true, true),
            Duty::Resuming { .. } => (false, true),
            Duty::Listening { .. } | Duty::Feeding { .. } => (false, false),
        };
        match why {
            // To a session that is open this may be said unasked: a newer one is tearing it down (rule 10).
            Refusal::Superseded if asked || self.generation().is_some() => self.end(Ended::Superseded, out),
            _ if !asked => self.violation(node, "Refused what was not asked", out),
            Refusal::Busy if attaching && !self.waits_if_busy() => self.end(Ended::Refused(why), out),
            Refusal::NotReady | Refusal::Busy | Refusal::Superseded => self.ask_later(node),
            Refusal::NeedsRecovery => {
                out.push(Action::Notice(Notice::NeedsRecovery { node }));
                self.ask_later(node);
            }
        }
    }

    /// Busy may be with our own earlier Attach: the nodes opened that session, and nobody told us.
    fn waits_if_busy(&self) -> bool {
        let own = |at: u64| self.now().saturating_sub(at) < self.config.timing.busy_grace_ms;
        self.config.wait_if_busy || self.attach_cut_off_at.is_some_and(own)
    }

    fn ask_later(&mut self, node: NodeId) {
        let ask_at = self.now() + self.config.timing.refused_retry_ms;
        let mirror = self.known.is_some_and(|known| known.primary.node != node && known.members.of(node).is_some());
        self.links[node.index()].refused(ask_at, mirror);
    }

    // ---- What has completed.

    pub(crate) fn mailbox(&mut self, node: NodeId, mailbox: Mailbox, out: &mut Vec<Action>) {
        let Mailbox::Completion { epoch, from, generation, durable, released, relayed } = mailbox else {
            return self.violation(node, "a mailbox that is between nodes", out);
        };
        let (Some(ours), Some(known)) = (self.generation(), self.known) else { return };
        if generation != ours || from != self.up(node).incarnation {
            return;
        }
        let believed = epoch < known.epoch && self.config.weak(Weakness::CompleteFromOlderEpoch);
        if epoch < known.epoch && !believed {
            return;
        }
        // A newer epoch's completions count once its View has come, which precedes them on the connection. What a lane
        // has released is a fact in every epoch; it may not be said again, so it is not ignored.
        let serves = epoch == known.epoch && known.primary == Member { node, incarnation: from };
        let durable = durable.filter(|_| serves || believed);
        if released > self.last() || durable.is_some_and(|durable| durable > self.last()) {
            return self.violation(node, "released or completed a blob that was never sent", out);
        }
        self.links[node.index()].raise(from, released);
        // Of the other member as this epoch names it, or the joiner: the primary has it from its very incarnation (rule 14).
        if relayed
            && serves
            && let Some(holder) = known.holder(node.other())
        {
            self.links[node.other().index()].raise_by_relay(holder, released);
        }
        if let Some(durable) = durable {
            self.complete(durable, out);
        }
        self.free();
    }

    fn read_done(&mut self, node: NodeId, id: u64, epoch: Epoch, durable: Seq, out: &mut Vec<Action>) {
        let Some(known) = self.known.filter(|_| self.generation().is_some()) else {
            return self.violation(node, "answered a read before there was a session", out);
        };
        let believed = epoch < known.epoch && self.config.weak(Weakness::CompleteFromOlderEpoch);
        if epoch != known.epoch && !believed {
            return;
        }
        let conn = self.up(node).conn;
        if !believed && !self.reads.are_sent(conn, epoch) {
            return self.violation(node, "answered a read that it was not sent", out);
        }
        if durable > self.last() {
            return self.violation(node, "completed a blob that was never sent", out);
        }
        // An answer to a read that is not open has written into a buffer that may be another's by now: what is in
        // flight there is void, and is asked for again on a new connection.
        let Some(read) = self.reads.unanswered(id) else {
            return self.violation(node, "answered a read that is not open", out);
        };
        // A node that serves no more, and does not know it, may have read from the disk what the one that takes over has
        // just flushed of what this session has sent: of that, only what completes is there to stay.
        let uncompleted = self.window.iter_from(self.completed.next());
        let shown = uncompleted.filter(|blob| read.overlaps(blob)).map(|blob| blob.seq).next_back();
        let at_once = self.config.weak(Weakness::CountAnswersAtOnce);
        read.shows = Some(shown.filter(|_| !at_once).unwrap_or(Seq::ZERO));
        self.complete(durable, out);
        self.finish_reads(out);
        self.free();
    }

    /// Rule 1. A new primary may begin lower than the old one ended: what has completed stays so.
    fn complete(&mut self, upto: Seq, out: &mut Vec<Action>) {
        if upto > self.completed {
            self.completed = upto;
            out.push(Action::WritesCompleted { upto });
            self.finish_reads(out);
        }
    }

    /// Gives the caller the answers that count.
    fn finish_reads(&mut self, out: &mut Vec<Action>) {
        while let Some(read) = self.reads.take_done(self.completed) {
            out.push(Action::ReadCompleted { id: read.id, slot: read.slot });
        }
    }

    /// Forgets what has completed and what no holder needs, or uses, any more.
    fn free(&mut self) {
        let Some(known) = &self.known else { return };
        let mut upto = self.completed;
        for node in NodeId::BOTH {
            let needed = known.holder(node).and_then(|holder| self.links[node.index()].released(holder));
            if let Some(released) = needed.filter(|_| !self.forgets()) {
                upto = upto.min(released);
            }
        }
        self.window.free(upto);
    }
}
