//! The clock's work, and what the machine tells of itself.

use twinsan_wire::{Generation, Incarnation, PeerBody, Role, Seq, Superblock};

use crate::action::Action;
use crate::exposure::Drained;
use crate::handover::HandedOver;
use crate::machine::Replica;
use crate::relay::RelayPhase;
use crate::state::{Phase, State, TakeOver};

/// A snapshot for status and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// What the node is doing.
    pub role: Role,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// The superblock as it knows it.
    pub superblock: Superblock,
    /// Two members, and this node is one of them.
    pub dual: bool,
    /// The incarnation that is joining, at the primary.
    pub joiner: Option<Incarnation>,
    /// The link to the other node is up.
    pub linked: bool,
    /// What the other node last said of itself.
    pub peer_role: Option<Role>,
    /// A client is connected as the session.
    pub session: bool,
    /// The session.
    pub generation: Generation,
    /// The last blob received.
    pub received: Seq,
    /// What may be completed (at the primary).
    pub durable: Seq,
    /// What is on the disk, past its cache (at the primary).
    pub flushed: Seq,
    /// What has been given back.
    pub released: Seq,
    /// Payload bytes staged and not released.
    pub staged_bytes: u64,
    /// Bytes that the disk would take in a second, at the pace of the last batches; `None`: not measured yet.
    pub flush_bytes_per_s: Option<u64>,
    /// Writes that both nodes hold wait for the disk, as the takeover budget is used up.
    pub at_budget: bool,
    /// What the last takeover had to write before it served (rule 5).
    pub drained: Option<Drained>,
    /// Open reads.
    pub reads: usize,
    /// The disk fails.
    pub disk_trouble: bool,
    /// This node has a usable path to the disk, as far as it has been told (rule 11).
    pub paths: bool,
    /// What the other node last said of its own.
    pub peer_paths: bool,
    /// The last handover from here.
    pub handed_over: HandedOver,
    /// Rule 14: whether this node feeds the other member in the client's place.
    pub relay: RelayPhase,
}

impl Replica {
    /// A snapshot.
    #[must_use]
    pub fn status(&self) -> Status {
        let staged = |lane: &twinsan_staging::Lane| lane.iter().map(|b| u64::from(b.payload_len)).sum();
        Status {
            role: self.role(),
            incarnation: self.me,
            superblock: self.superblock,
            dual: self.superblock.members.is_dual() && self.is_member(),
            joiner: match self.state {
                State::Primary(Phase::Join(join)) => Some(join.incarnation),
                _ => None,
            },
            linked: self.peer.link.is_some(),
            peer_role: self.peer.role,
            session: self.session.is_some(),
            generation: self.superblock.generation,
            received: self.received(),
            durable: self.durable(),
            flushed: self.flusher.flushed(),
            released: self.released(),
            staged_bytes: self.lane.as_ref().map_or(0, staged),
            flush_bytes_per_s: self.pace.within(1000),
            at_budget: self.is_at_budget(),
            drained: self.drained,
            reads: self.reads.open.len(),
            disk_trouble: self.failing.any(),
            paths: self.reaches_disk(),
            peer_paths: self.peer.paths,
            handed_over: self.handed,
            relay: self.relay.phase(),
        }
    }

    pub(crate) fn tick(&mut self) {
        let now = self.now;
        if self.flusher.retry_at.is_some_and(|at| now >= at) {
            self.flusher.retry_at = None;
        }
        if self.flusher.rests_until.is_some_and(|until| now >= until) {
            self.flusher.rests_until = None;
        }
        self.gather_evidence();
        if now >= self.timers.heartbeat_at {
            self.timers.heartbeat_at = now + self.cfg.timing.heartbeat_ms;
            self.tell_status();
            self.tell_view();
            self.tell_peer_released(); // One that it heard while it fenced, in vain, counted for nothing.
            if let (State::Primary(_), Some(attach)) = (self.state, self.attach) {
                self.repeat_attach(attach.step);
            }
            match self.state {
                State::Secondary if self.leaving_since.is_some() => self.send_peer(PeerBody::Leave),
                State::Joining if self.leaving_since.is_some() => self.send_peer(PeerBody::JoinAbort),
                _ => {}
            }
        }
        let beats = match self.state {
            State::Primary(phase) => !matches!(phase, Phase::HandingOver { .. }),
            State::TakingOver(step) => matches!(step, TakeOver::Draining { .. } | TakeOver::Writing),
            _ => false,
        };
        if beats && !self.timers.writing_heartbeat && now >= self.timers.disk_heartbeat_at {
            self.timers.disk_heartbeat_at = now + self.cfg.timing.disk_heartbeat_ms;
            self.timers.disk_beat += 1;
            self.timers.writing_heartbeat = true;
            self.out(Action::WriteHeartbeat { beat: self.timers.disk_beat });
        }
    }
}
