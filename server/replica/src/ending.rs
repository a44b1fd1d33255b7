//! Ending in order (SIGTERM, and rule 12's clean mark): a primary hands over and leaves, a mirror leaves, one that is
//! alone writes everything out.

use twinsan_wire::{PeerBody, Superblock};

use crate::action::Action;
use crate::handover::Obstacle;
use crate::machine::Replica;
use crate::state::{Leaving, Phase, Purpose, State};

impl Replica {
    pub(crate) fn shutdown(&mut self) {
        if self.leaving_since.is_some() {
            return;
        }
        self.leaving_since = Some(self.now);
        match self.state {
            State::Secondary => self.send_peer(PeerBody::Leave),
            State::Joining => self.send_peer(PeerBody::JoinAbort),
            _ => {} // `advance_leaving` does the rest, now or when it has come that far.
        }
    }

    /// Moves an orderly end on.
    pub(crate) fn advance_leaving(&mut self) {
        let Some(since) = self.leaving_since else { return };
        let late = self.now.saturating_sub(since) >= self.cfg.timing.leave_ms;
        match self.state {
            State::Inspecting | State::Waiting(_) => self.stop(),
            // What it holds may be the only copy: it goes when the primary, or a settled superblock, says that it is
            // out, and takes over if the primary is gone.
            State::Joining | State::Secondary
                if late && !self.reading_superblock && self.now >= self.timers.reread_at =>
            {
                self.read_superblock();
            }
            State::Primary(Phase::Solo) => self.end_solo(),
            State::Primary(Phase::Join(_)) => self.throw_join_away(),
            State::Primary(Phase::Dual { .. }) => self.leave_dual(late),
            State::Leaving(Leaving::Quieting) if self.is_quiet() => {
                self.enter(State::Leaving(Leaving::Releasing));
                self.out(Action::ReleaseFence);
            }
            _ => {}
        }
    }

    /// Hands over (rule 13); where that can't be, goes on alone (7) and ends so.
    fn leave_dual(&mut self, late: bool) {
        match self.obstacle_to_leaving() {
            None => self.begin_hand_over(),
            // Without a path the other one takes over by rule 11, or neither can do anything.
            Some(Obstacle::Attaching | Obstacle::NoPath) => {}
            // It has just joined, and is about to say so.
            Some(Obstacle::OtherNotReady) if !late => {}
            Some(_) => self.start_drop(),
        }
    }

    /// Drains, marks the volume clean.
    fn end_solo(&mut self) {
        self.attach = None;
        if self.session.is_some() {
            self.cancel_reads();
            self.close_session();
        }
        let drained = self.flusher.flushed() >= self.received() && self.flusher.is_quiet();
        if drained && self.superblock_write.is_none() {
            self.write_superblock(Superblock { clean: true, ..self.superblock }, Purpose::End);
        }
    }

    /// The clean mark is on the disk; a heartbeat may still be on its way there.
    pub(crate) fn ended(&mut self) {
        self.enter(State::Leaving(Leaving::Quieting));
    }

    pub(crate) fn fence_released(&mut self) {
        if self.state == State::Leaving(Leaving::Releasing) {
            self.stop();
        }
    }

    pub(crate) fn stop(&mut self) {
        self.enter(State::Stopped);
        self.out(Action::Exit);
    }
}
