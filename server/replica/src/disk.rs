//! The disk's side: superblock, heartbeats, batches, and being fenced (rules 2, 4, 9).

use twinsan_wire::{Seq, Superblock};

use crate::action::{Action, Notice};
use crate::config::Weakness;
use crate::event::{DiskError, FenceError, SlotRead};
use crate::flush::{Batching, Ended, MAX_WRITES};
use crate::machine::{Failing, Refusals, Refused, Replica};
use crate::state::{Admission, Leaving, Phase, Purpose, State, SuperblockWrite, TakeOver};

impl Replica {
    pub(crate) fn read_superblock(&mut self) {
        if !self.reading_superblock {
            self.reading_superblock = true;
            self.superblock_read_at = self.now;
            self.out(Action::ReadSuperblock);
        }
    }

    pub(crate) fn superblock_read(&mut self, result: Result<SlotRead, DiskError>) {
        self.reading_superblock = false;
        if core::mem::take(&mut self.read_again) {
            self.read_superblock();
            return;
        }
        self.timers.reread_at = self.now + self.cfg.timing.retry_ms;
        let read = match result {
            Ok(read) => read,
            Err(error) => {
                if error == DiskError::Corrupt {
                    self.notice(Notice::SuperblockCorrupt);
                } else {
                    self.disk_result(Err(error), |failing| &mut failing.superblock);
                }
                if self.state == (State::TakingOver(TakeOver::Accepting { claimed: true })) {
                    self.not_accepted(FenceError::Failed);
                }
                return;
            }
        };
        self.disk_result(Ok(()), |failing| &mut failing.superblock);
        match self.state {
            State::Inspecting => {
                self.learn_from_disk(read.superblock);
                self.enter(State::Waiting(Admission::None));
            }
            State::Waiting(_) if read.superblock.counter >= self.superblock.counter => {
                if read.superblock.epoch > self.superblock.epoch {
                    self.admission_is_void();
                }
                self.learn_from_disk(read.superblock);
            }
            State::TakingOver(TakeOver::Reading) => self.read_under_fence(read),
            State::TakingOver(TakeOver::Accepting { claimed: true }) => self.read_under_claim(read),
            State::Joining | State::Secondary => self.read_when_leaving(read),
            State::Fenced { .. } => self.read_when_fenced(read),
            _ => {}
        }
    }

    /// What nobody has told: a hint, as long as there is no fence.
    fn learn_from_disk(&mut self, superblock: Superblock) {
        self.superblock_as_of = self.superblock_read_at;
        let (before, counter) = (self.other_member(), self.superblock.counter);
        self.superblock = superblock;
        if superblock.counter != counter {
            self.peer.disk_moved_at = self.now; // Who writes it lives, as with a heartbeat.
        }
        if self.other_member().is_some_and(|named| before != Some(named)) {
            self.peer.refused = false; // Somebody has run there since; the next probe tells whether he still does.
        }
    }

    /// Rule 9. Without the fence only a settled superblock counts: a slot written half-way may still be taken back by
    /// its rotting, and would then name us.
    fn read_when_fenced(&mut self, read: SlotRead) {
        let settled = read.settled || self.cfg.weak(Weakness::ActUnfenced);
        if !settled || read.superblock.counter < self.superblock.counter {
            return;
        }
        if read.superblock.members.contains(self.member()) {
            self.learn_from_disk(read.superblock);
            self.enter(State::Fenced { member: true });
        } else {
            self.learn_from_disk(read.superblock);
            self.stand_outside();
        }
    }

    /// An orderly end whose answer does not come: out of the members, it may go.
    fn read_when_leaving(&mut self, read: SlotRead) {
        let newer = read.settled && read.superblock.epoch > self.superblock.epoch;
        if newer && self.leaving_since.is_some() && !read.superblock.members.contains(self.member()) {
            self.stop();
        }
    }

    /// Issues a superblock write (rule 4).
    pub(crate) fn write_superblock(&mut self, mut next: Superblock, purpose: Purpose) {
        assert!(self.holds_fence(), "I1: superblock write without the fence");
        assert!(self.superblock_write.is_none(), "I2: two superblock writes");
        next.counter = self.superblock.counter + 1;
        self.superblock_write = Some(SuperblockWrite { next, purpose, retry_at: None });
        self.out(Action::WriteSuperblock(next));
    }

    /// The superblock with the epoch after this one, not clean.
    pub(crate) fn next_epoch(&self) -> Superblock {
        Superblock { epoch: self.superblock.epoch.next(), clean: false, ..self.superblock }
    }

    pub(crate) fn superblock_written(&mut self, result: Result<(), DiskError>) {
        let write = self.superblock_write.as_mut().expect("a superblock write ends once");
        if let Err(error) = result {
            if write.purpose == Purpose::Void {
                self.superblock_write = None;
                return;
            }
            write.retry_at = Some(self.now + self.cfg.timing.retry_ms);
            self.refusal(result, |refusals| &mut refusals.superblock);
            self.disk_result(Err(error), |failing| &mut failing.superblock);
            return;
        }
        let SuperblockWrite { next, purpose, .. } = *write;
        self.superblock_write = None;
        if purpose == Purpose::Void {
            return;
        }
        self.refusal(Ok(()), |refusals| &mut refusals.superblock);
        self.disk_result(Ok(()), |failing| &mut failing.superblock);
        let entered = next.epoch != self.superblock.epoch;
        self.superblock = next;
        match purpose {
            Purpose::TakeOver => self.taken_over(),
            Purpose::Drop => self.dropped(),
            Purpose::Join => self.joined(),
            Purpose::HandOver => self.handed_over(),
            Purpose::Attach => self.attached(),
            Purpose::Mend => self.act_under_fence(),
            Purpose::Clean => {}
            Purpose::End => self.ended(),
            Purpose::Void => unreachable!("handled above"),
        }
        if entered {
            self.entered_epoch();
        }
    }

    pub(crate) fn batch_ended(&mut self, batch: u64, result: Result<(), DiskError>, us: u64) {
        if let (Ok(()), Some(blocks)) = (result, self.flusher.blocks_of(batch)) {
            self.pace.took(blocks * u64::from(self.cfg.geometry.block_bytes()), us);
        }
        match self.flusher.ended(batch, result.is_ok()) {
            // From before: it would tell of a disk trouble that no later batch may ever clear.
            Ended::Void => return,
            Ended::Failed => self.flusher.retry_at = Some(self.now + self.cfg.timing.retry_ms),
            Ended::Flushed { is_cut: true } => self.flusher.rests_until = None,
            Ended::Flushed { is_cut: false } => {
                self.flusher.rests_until = Some(self.now + self.cfg.timing.flush_rest_ms);
            }
        }
        self.refusal(result, |refusals| &mut refusals.flush);
        self.disk_result(result, |failing| &mut failing.flush);
    }

    pub(crate) fn heartbeat_written(&mut self, result: Result<(), DiskError>) {
        if self.holds_fence() && result != Err(DiskError::Failed) {
            self.refusal(result, |refusals| &mut refusals.heartbeat);
        }
        if result == Err(DiskError::Conflict) {
            self.conflict();
        }
    }

    /// Keeps account of what fails: it is tried again. Meanwhile completes what needs no disk (rule 11).
    pub(crate) fn disk_result(&mut self, result: Result<(), DiskError>, kind: fn(&mut Failing) -> &mut bool) {
        if result == Err(DiskError::Conflict) {
            self.conflict();
            return;
        }
        self.account(|failing| *kind(failing) = result.is_err());
    }

    /// A write that this node may do has been refused, or has not.
    fn refusal(&mut self, result: Result<(), DiskError>, kind: fn(&mut Refusals) -> &mut Refused) {
        match result {
            Ok(()) => self.account(|failing| *kind(&mut failing.refusals) = Refused::default()),
            Err(DiskError::Conflict) => kind(&mut self.failing.refusals).asking = true,
            Err(DiskError::Failed | DiskError::Corrupt) => {}
        }
    }

    /// Something about what fails has changed: an operator hears of it, and the other node (rule 11).
    fn account(&mut self, change: impl FnOnce(&mut Failing)) {
        let (before, reached) = (self.failing.any(), self.reaches_disk());
        change(&mut self.failing);
        let after = self.failing.any();
        if before != after {
            self.notice(if after { Notice::DiskTrouble } else { Notice::DiskWell });
        }
        if reached != self.reaches_disk() {
            self.tell_status();
        }
    }

    /// A reservation conflict counts only if the own key is gone (rule 9).
    pub(crate) fn conflict(&mut self) {
        if self.cfg.weak(Weakness::ConflictMeansFenced) && self.holds_fence() {
            self.fenced();
        } else if !self.timers.checking_fence {
            self.timers.checking_fence = true;
            self.out(Action::CheckFence);
        }
    }

    pub(crate) fn fence_checked(&mut self, own: bool) {
        self.timers.checking_fence = false;
        if !own && (self.holds_fence() || self.state == State::Leaving(Leaving::Quieting)) {
            self.fenced();
        } else if own {
            self.account(|failing| failing.refusals.not_fenced());
        }
    }

    /// Rule 9: stop at once, keep the lanes, find out what the superblock says.
    fn fenced(&mut self) {
        self.notice(Notice::Fenced);
        self.find_out();
    }

    /// What the superblock says is to be found out, and whether to try (rule 9).
    pub(crate) fn find_out(&mut self) {
        self.handed.fails();
        self.give_up_serving();
        self.enter(State::Fenced { member: false });
        self.timers.fenced_at = self.now;
        // Whatever was seen of the other one is from before: somebody has fenced us.
        self.peer.disk_beat = None;
        self.peer.refused = false;
        self.turned_away();
        self.read_superblock();
    }

    /// Whatever only a primary does ends here; the lane stays.
    pub(crate) fn give_up_serving(&mut self) {
        self.cancel_reads();
        self.attach = None;
        self.failing = Failing::default();
        match &mut self.superblock_write {
            Some(write) if write.retry_at.is_none() => write.purpose = Purpose::Void,
            write => *write = None,
        }
        self.flusher.retry_at = None;
    }

    /// Issues what is due (rules 2, 3).
    pub(crate) fn pump_flush(&mut self) {
        let Some(limit) = self.flush_limit() else {
            self.flusher.forget_what_is_due();
            return;
        };
        let how = Batching {
            max_bytes: self.cfg.max_batch_bytes,
            max_writes: MAX_WRITES,
            block_bytes: self.cfg.geometry.block_bytes(),
            overlapping: self.cfg.weak(Weakness::OverlappingBatches),
            oldest_first: self.cfg.weak(Weakness::OldestFirst),
        };
        while let Some(lane) = &self.lane {
            if self.gathers() && self.flusher.goes_on_resting(lane, limit) {
                return;
            }
            let Some((batch, writes)) = self.flusher.next_batch(lane, limit, how) else { return };
            assert!(self.holds_fence(), "I1: data write without the fence");
            self.out(Action::Flush { batch, writes });
        }
    }

    /// Both nodes hold what completes, so that nobody waits for the disk: what is due may gather for a moment.
    fn gathers(&self) -> bool {
        if self.is_at_budget() || self.is_half_exposed() {
            return false;
        }
        let dual = matches!(self.state, State::Primary(Phase::Dual { .. })) && self.attach.is_none();
        dual && self.flusher.rests_until.is_some_and(|until| self.now < until)
    }

    /// Up to where the disk may be written; `None`: not at all.
    fn flush_limit(&self) -> Option<Seq> {
        let received = self.received();
        match self.state {
            State::TakingOver(TakeOver::Draining { .. }) => Some(received),
            State::Primary(phase) => match phase {
                Phase::Solo | Phase::Dropping { .. } => Some(received),
                Phase::Join(join) => {
                    let gated = self.join_gate(join);
                    Some(if gated { received.min(join.acked.unwrap_or(Seq::ZERO)) } else { received })
                }
                Phase::Dual { .. } if self.attach.is_some() => Some(received),
                Phase::Dual { .. } if self.cfg.weak(Weakness::FlushBeforeDurable) => Some(received),
                Phase::Dual { acked, .. } => Some(received.min(acked).max(self.completed)),
                Phase::HandingOver { .. } => None,
            },
            _ => None,
        }
    }
}
