//! A primary at work: what may be completed, answered, released (rules 1, 2), and the clean flag (rule 12).

use twinsan_wire::{Epoch, Lba, Mailbox, NodeMsg, Seq, Superblock};

use crate::action::{Action, Piece, PieceSource};
use crate::config::Weakness;
use crate::event::DiskError;
use crate::ids::{ConnId, ReadToken};
use crate::machine::Replica;
use crate::reads::{OpenRead, ReadStep, needs_and_pins, resolve};
use crate::state::{Phase, Purpose, State};

/// A client's request, checked.
#[derive(Clone, Copy)]
pub(crate) struct ReadRequest {
    pub(crate) conn: ConnId,
    pub(crate) id: u64,
    pub(crate) epoch: Epoch,
    pub(crate) lba: Lba,
    pub(crate) blocks: u32,
    pub(crate) slot: u32,
}

impl Replica {
    /// Rule 1: what may be completed now. Never less than what was.
    pub(crate) fn durable(&self) -> Seq {
        let State::Primary(phase) = self.state else { return self.completed };
        let allowed = match phase {
            _ if self.attach.is_some() => self.completed,
            Phase::Join(join) if self.join_gate(join) => self.flusher.flushed().min(join.acked.unwrap_or(Seq::ZERO)),
            Phase::Solo | Phase::Join(_) => self.flusher.flushed(),
            Phase::Dual { .. } if self.may_be_clean() => self.completed,
            Phase::Dual { acked, .. } => self.received().min(acked).min(self.within_budget()),
            Phase::Dropping { .. } | Phase::HandingOver { .. } => self.completed,
        };
        allowed.max(self.completed)
    }

    /// Rule 12: clean counts as set from the issue of its write, and as gone when the write that removes it has ended.
    fn may_be_clean(&self) -> bool {
        let issued = self.superblock_write.map(|w| w.next.clean);
        if self.cfg.weak(Weakness::CleanRace) {
            return self.superblock.clean && issued != Some(false);
        }
        self.superblock.clean || issued == Some(true)
    }

    /// Reads are answered and blobs released now.
    fn is_serving(&self) -> bool {
        let phase_serves = matches!(self.state, State::Primary(Phase::Solo | Phase::Join(_) | Phase::Dual { .. }));
        phase_serves && self.attach.is_none()
    }

    /// Tells the client what has become durable.
    pub(crate) fn pump_completion(&mut self) {
        let State::Primary(_) = self.state else { return };
        let durable = self.durable();
        if durable > self.completed {
            self.completed = durable;
            self.tell_session();
        }
    }

    /// Writes the session's mailbox: released, and from a primary what may be completed.
    pub(crate) fn tell_session(&mut self) {
        let (Some(conn), Some(lane)) = (self.session, &self.lane) else { return };
        if self.is_relay(conn) {
            return; // Its feeder has it with the ACK.
        }
        let (released, relayed) = match self.released_by_both() {
            Some(both) => (both, true),
            None => (lane.released(), false),
        };
        let durable = matches!(self.state, State::Primary(_)).then_some(self.completed);
        let mailbox = Mailbox::Completion {
            epoch: self.superblock.epoch,
            from: self.me,
            generation: lane.generation(),
            durable,
            released,
            relayed,
        };
        self.out(Action::ClientMailbox { conn, mailbox });
    }

    /// Gives lane space back: only while it serves, never inside rules 5, 7, 10 and 13 (I4). A mirror follows its
    /// primary, as far as no answer from before a handover still uses the space.
    pub(crate) fn pump_release(&mut self) {
        if matches!(self.state, State::Secondary | State::Joining) {
            self.release(self.may_release);
            return;
        }
        let weak = self.cfg.weak(Weakness::ReleaseWhileDropping)
            && matches!(self.state, State::Primary(Phase::Dropping { .. }));
        if !self.is_serving() && !weak {
            return;
        }
        let flushed = self.flusher.flushed();
        self.release(self.relayed_join().map_or(flushed, |acked| flushed.min(acked)));
    }

    /// Releases up to `upto`, short of what an open read still shows.
    pub(crate) fn release(&mut self, upto: Seq) {
        let pinned = self.reads.oldest_pin();
        let Some(lane) = &mut self.lane else { return };
        let upto = pinned.map_or(upto, |pin| upto.min(pin.prev())).min(lane.received());
        if upto <= lane.released() {
            return;
        }
        let index = &mut self.index;
        for blob in lane.release(upto) {
            index.remove(blob.lba, blob.blocks, blob.seq);
        }
        if matches!(self.state, State::Primary(_)) {
            self.tell_peer_released();
        }
        self.tell_session();
        if self.session.is_some_and(|conn| self.is_relay(conn)) {
            self.ack(); // It carries the released position back to the client.
        }
    }

    /// Rule 1: resolves a read once, and pins what it shows.
    pub(crate) fn read(&mut self, request: ReadRequest) {
        let stale = request.epoch != self.superblock.epoch;
        if stale || !(self.is_serving() || self.may_still_serve()) {
            return; // The client sends it again when it knows the epoch in which it will be answered.
        }
        let block_bytes = self.cfg.geometry.block_bytes();
        let pieces = resolve(&self.index, self.lane.as_ref(), request.lba, request.blocks, block_bytes);
        let (needs, pins) = needs_and_pins(&pieces);
        let ReadRequest { conn, id, slot, .. } = request;
        self.reads.insert(OpenRead { conn, id, slot, pieces, needs, pins, step: ReadStep::Waiting });
    }

    /// Moves every read as far as it may go.
    pub(crate) fn pump_reads(&mut self) {
        if self.reads.open.is_empty() || !self.is_serving() {
            return;
        }
        let tokens: alloc::vec::Vec<ReadToken> = self.reads.open.keys().copied().collect();
        for token in tokens {
            self.pump_read(token);
        }
    }

    fn pump_read(&mut self, token: ReadToken) {
        let durable = self.durable();
        let read = self.reads.open.get_mut(&token).expect("listed just now");
        let mut needs = read.needs;
        if self.cfg.weak(Weakness::StarvedRead) {
            let now = read.pieces.iter().flat_map(|p| self.index.resolve(p.lba, p.blocks));
            needs = now.filter_map(|part| part.seq).max().unwrap_or(needs);
        }
        let durable_enough = needs <= durable || self.cfg.weak(Weakness::ReadBeforeDurable);
        let retry = matches!(read.step, ReadStep::Retry(at) if at <= self.now);
        if retry || (read.step == ReadStep::Waiting && durable_enough) {
            let from_disk = |p: &&Piece| p.source == PieceSource::Disk;
            let pieces: alloc::vec::Vec<Piece> = read.pieces.iter().filter(from_disk).copied().collect();
            if pieces.is_empty() {
                read.step = ReadStep::Settling;
            } else {
                read.step = ReadStep::OnDisk;
                self.out.push(Action::ReadDisk { token, pieces });
            }
        }
        let read = self.reads.open.get_mut(&token).expect("listed just now");
        if read.step == ReadStep::Settling && durable_enough {
            read.step = ReadStep::Answering;
            let (conn, id, slot) = (read.conn, read.id, read.slot);
            let pieces = read.pieces.clone();
            self.completed = durable;
            let epoch = self.superblock.epoch;
            self.out.push(Action::AnswerRead { token, conn, id, slot, pieces, epoch, durable });
        }
    }

    pub(crate) fn disk_read(&mut self, token: ReadToken, result: Result<(), DiskError>) {
        let retry_at = self.now + self.cfg.timing.retry_ms;
        let Some(read) = self.reads.open.get_mut(&token) else { return };
        if read.step != ReadStep::OnDisk {
            return;
        }
        if result.is_ok() {
            // It may have seen what has been staged there since it was resolved, of batches that are in flight or have failed
            // half-way: that must be durable too.
            let from_disk = read.pieces.iter().filter(|piece| piece.source == PieceSource::Disk);
            let staged_since = from_disk.flat_map(|piece| self.index.resolve(piece.lba, piece.blocks));
            let newest = staged_since.filter_map(|part| part.seq).max();
            read.needs = newest.map_or(read.needs, |seq| read.needs.max(seq.min(self.flusher.issued())));
            read.step = ReadStep::Settling;
        } else {
            read.step = ReadStep::Retry(retry_at);
        }
        self.disk_result(result, |failing| &mut failing.read);
    }

    /// Voids every read that is not being answered yet: the client sends it again in the next epoch.
    pub(crate) fn cancel_reads(&mut self) {
        self.cancel_reads_where(|_| true);
    }

    /// Voids the reads of one connection; those being answered end by themselves.
    pub(crate) fn cancel_reads_of(&mut self, conn: ConnId) {
        self.cancel_reads_where(|read| read.conn == conn);
    }

    fn cancel_reads_where(&mut self, void: impl Fn(&OpenRead) -> bool) {
        let out = &mut self.out;
        self.reads.open.retain(|&token, read| {
            let keep = read.step == ReadStep::Answering || !void(read);
            if !keep {
                out.push(Action::DropRead { token });
            }
            keep
        });
        // No read is left that would find out that the disk works again.
        let at_the_disk = |read: &OpenRead| matches!(read.step, ReadStep::OnDisk | ReadStep::Retry(_));
        if self.failing.read && !self.reads.open.values().any(at_the_disk) {
            self.disk_result(Ok(()), |failing| &mut failing.read);
        }
    }

    /// Rule 12: the clean flag comes when nothing has been staged for long, and goes before anything completes that
    /// needs it gone.
    pub(crate) fn advance_clean(&mut self) {
        let idle_phase = matches!(self.state, State::Primary(Phase::Solo | Phase::Dual { .. }));
        if !idle_phase || self.attach.is_some() || self.superblock_write.is_some() || self.leaving_since.is_some() {
            return;
        }
        // Also what is on the disk already, and not completed because the flag is set.
        let settled = self.flusher.flushed().min(self.completed);
        let staged = self.lane.as_ref().is_some_and(|l| settled < l.received());
        let idle = self.now.saturating_sub(self.timers.staged_at) >= self.cfg.timing.clean_ms;
        let clean = !staged && idle && self.flusher.is_quiet();
        let set = clean && !self.superblock.clean;
        let unset = staged && self.superblock.clean && matches!(self.state, State::Primary(Phase::Dual { .. }));
        if set || unset {
            self.write_superblock(Superblock { clean: set, ..self.superblock }, Purpose::Clean);
        }
    }

    /// Tells every client who serves.
    pub(crate) fn tell_view(&mut self) {
        let conns: alloc::vec::Vec<ConnId> = self.clients.keys().copied().collect();
        for conn in conns {
            if !self.is_relay(conn) {
                self.tell_view_to(conn);
            }
        }
    }

    pub(crate) fn tell_view_to(&mut self, conn: ConnId) {
        let joiner = match self.state {
            State::Primary(Phase::Join(join)) => Some(join.incarnation),
            _ => None,
        };
        let msg = NodeMsg::View {
            role: self.role(),
            from: self.me,
            epoch: self.superblock.epoch,
            primary: self.superblock.primary,
            members: self.superblock.members,
            joiner,
            generation: self.superblock.generation,
        };
        self.out(Action::SendClient { conn, msg });
    }
}
