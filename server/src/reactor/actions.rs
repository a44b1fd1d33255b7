//! Carrying out what a machine wants done.

use std::time::Instant;

use twinsan_fabric::{ConnId, Fabric};
use twinsan_replica::{Action, Event, LinkId, Piece, ReadToken};
use twinsan_wire::message::LaneGrant;
use twinsan_wire::{Epoch, Mailbox, NodeFrame, NodeMsg, PeerBody, PeerMsg, Seq};

use super::Reactor;
use crate::conn::Stage;
use crate::dial::Errand;
use crate::flusher::{Done, Job};
use crate::notice;
use crate::outbox::Answer;

/// [`Action::AnswerRead`], in one piece.
struct ReadAnswer {
    token: ReadToken,
    conn: ConnId,
    id: u64,
    slot: u32,
    pieces: Vec<Piece>,
    epoch: Epoch,
    durable: Seq,
}

const fn client(conn: twinsan_replica::ConnId) -> ConnId {
    ConnId(conn.0)
}

const fn link(link: LinkId) -> ConnId {
    ConnId(link.0)
}

/// A heartbeat with a counter that stands still.
const fn without_beat(msg: &PeerMsg) -> Option<PeerMsg> {
    match msg.body {
        PeerBody::Status { role, paths, .. } => {
            Some(PeerMsg { body: PeerBody::Status { role, beat: 0, paths }, ..*msg })
        }
        _ => None,
    }
}

impl<F: Fabric> Reactor<F> {
    pub(super) fn act(&mut self, volume: usize, action: Action) {
        match action {
            Action::ReadSuperblock => self.job(volume, Job::ReadSuperblock),
            Action::WriteSuperblock(superblock) => self.job(volume, Job::WriteSuperblock(superblock)),
            Action::WriteHeartbeat { beat } => self.job(volume, Job::WriteHeartbeat { beat }),
            Action::ReadHeartbeat => self.job(volume, Job::ReadHeartbeat),
            Action::Admit => self.job(volume, Job::Admit),
            Action::Fence => self.job(volume, Job::Fence),
            Action::ReleaseFence => self.job(volume, Job::ReleaseFence),
            Action::CheckFence => self.job(volume, Job::CheckFence),
            Action::YieldFence => self.job(volume, Job::YieldFence),
            Action::AcceptFence => self.job(volume, Job::AcceptFence),
            Action::Flush { batch, writes } => self.flush_batch(volume, batch, writes),
            Action::ReadDisk { token, pieces } => {
                self.volumes[volume].slab.ask(token, pieces);
                self.pump_slab(volume);
            }
            Action::AnswerRead { token, conn, id, slot, pieces, epoch, durable } => {
                let answer = ReadAnswer { token, conn: client(conn), id, slot, pieces, epoch, durable };
                self.answer_read(volume, answer);
            }
            Action::DropRead { token } => {
                self.volumes[volume].slab.end(token);
                self.pump_slab(volume);
            }
            Action::Probe => self.dial(volume, Errand::Probe, None),
            Action::RelayConnect { to } => self.dial(volume, Errand::Relay, Some(to)),
            Action::SendRelay { relay, msg } => {
                if let Some(outbox) = self.conns.outbox(ConnId(relay.0)) {
                    outbox.message(msg.encode());
                }
            }
            Action::RelayPost { relay, blob } => self.relay_post(volume, ConnId(relay.0), &blob),
            Action::CloseRelay { relay } => drop(self.destroy(ConnId(relay.0))),
            Action::SendPeer { link: id, msg } => {
                if let Some(outbox) = self.conns.outbox(link(id)) {
                    match without_beat(&msg) {
                        Some(says) => outbox.heartbeat(msg.encode(), &says.encode()),
                        None => outbox.message(msg.encode()),
                    }
                }
            }
            Action::PeerMailbox { link: id, mailbox } => self.mail(volume, link(id), &mailbox),
            Action::ClientMailbox { conn, mailbox } => self.mail(volume, client(conn), &mailbox),
            Action::SendClient { conn, msg } => self.send_client(volume, client(conn), msg),
            // The barrier: the connection is destroyed before the next action. The machine has closed it itself and is
            // not told.
            Action::CloseLink { link: id } => drop(self.destroy(link(id))),
            Action::CloseClient { conn } => drop(self.destroy(client(conn))),
            Action::Incarnation(incarnation) => self.change_incarnation(volume, incarnation),
            Action::Notice(notice) => {
                self.volumes[volume].counters.note(notice);
                notice::log(&self.volumes[volume], notice);
            }
            Action::Exit => self.volumes[volume].ended = true,
        }
    }

    fn mail(&mut self, index: usize, conn: ConnId, mailbox: &Mailbox) {
        let Some(outbox) = self.conns.outbox(conn) else { return };
        outbox.mailbox(mailbox);
        let stopwatch = &mut self.volumes[index].stopwatch;
        if stopwatch.is_idle() {
            return;
        }
        let now = Instant::now();
        while let Some((conn, times)) = stopwatch.said(mailbox, now) {
            if let Some(outbox) = self.conns.outbox(conn) {
                outbox.message(times.encode());
            }
        }
    }

    fn job(&mut self, volume: usize, job: Job) {
        self.volumes[volume].flusher.give(job);
    }

    fn flush_batch(&mut self, index: usize, batch: u64, writes: Vec<twinsan_replica::WriteRange>) {
        let volume = &mut self.volumes[index];
        let blocks: u64 = writes.iter().map(|write| write.blocks).sum();
        volume.counters.flush_batches += 1;
        volume.counters.flush_ranges += writes.len() as u64;
        volume.counters.flush_bytes += blocks * u64::from(volume.facts.shape.block_bytes);
        volume.flusher.give(Job::Flush { batch, writes });
    }

    /// Reads that have a slot go to the disk.
    fn pump_slab(&mut self, index: usize) {
        let volume = &mut self.volumes[index];
        while let Some(begun) = volume.slab.next() {
            let offset = volume.layout.slab_slot(begun.slot);
            volume.flusher.give(Job::Read { token: begun.token, offset, pieces: begun.pieces });
        }
    }

    /// The flusher has done a job.
    pub(super) fn disk_done(&mut self, volume: usize, Done(event): Done) {
        if let Event::DiskRead { token, .. } = event {
            self.volumes[volume].slab.disk_ended(token);
        }
        self.feed(volume, event);
        self.pump_slab(volume);
    }

    fn answer_read(&mut self, index: usize, answer: ReadAnswer) {
        let ReadAnswer { token, conn, id, slot, pieces, epoch, durable } = answer;
        let Some(Stage::Client { reads, .. }) = self.conns.get(conn).map(|conn| &conn.stage) else {
            // It went while the machine's answer was on its way here; its answer has ended before it began.
            self.volumes[index].slab.end(token);
            self.inbox.push_back((index, Event::ReadAnswered { token }));
            return;
        };
        let reads = *reads;
        let volume = &mut self.volumes[index];
        let slices = volume.slices(token, &pieces);
        volume.counters.reads_answered += 1;
        volume.counters.read_bytes_answered += slices.iter().map(|slice| u64::from(slice.len)).sum::<u64>();
        volume.answering.insert(token, conn);
        let done = NodeFrame { msg: NodeMsg::ReadDone { id, epoch, durable }, grant: None }.encode();
        let outbox = self.conns.outbox(conn).expect("looked at just now");
        outbox.answer(Answer::new(token, reads, slot, slices, done));
    }

    /// A signalled post of an answer has left.
    pub(super) fn sent(&mut self, conn: ConnId, work: u64) {
        let Some(index) = self.conns.get(conn).and_then(|conn| conn.volume) else { return };
        let token = ReadToken(work);
        let volume = &mut self.volumes[index];
        if volume.answering.remove(&token).is_some() {
            volume.slab.end(token);
            self.feed(index, Event::ReadAnswered { token });
            self.pump_slab(index);
        }
    }

    /// Attached and Resumed open the lane's memory to this connection first.
    fn send_client(&mut self, index: usize, id: ConnId, msg: NodeMsg) {
        let opens = matches!(msg, NodeMsg::Attached { .. } | NodeMsg::Resumed { .. });
        let grant = match opens.then(|| self.open_lane(index, id)) {
            None => None,
            Some(Some(grant)) => Some(grant),
            // The connection has just gone; the fabric's Closed will tell.
            Some(None) => return,
        };
        if let Some(outbox) = self.conns.outbox(id) {
            let frame = NodeFrame { msg, grant }.encode();
            match msg {
                NodeMsg::View { .. } => outbox.heartbeat(frame, &frame),
                _ => outbox.message(frame),
            }
        }
    }

    fn open_lane(&mut self, index: usize, id: ConnId) -> Option<LaneGrant> {
        let conn = self.conns.get_mut(id)?;
        let Stage::Client { grant, .. } = &mut conn.stage else { return None };
        if grant.is_none() {
            let volume = &self.volumes[index];
            let (region, layout) = (volume.region, &volume.layout);
            let fabric = &mut self.fabric;
            let descriptors = fabric.expose(id, region, layout.descriptors, layout.descriptor_bytes()).ok()?;
            let data = fabric.expose(id, region, layout.ring, layout.ring_bytes).ok()?;
            *grant = Some(LaneGrant { descriptors, data });
        }
        *grant
    }
}
