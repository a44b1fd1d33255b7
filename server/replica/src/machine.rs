//! The machine: its state, and the one door by which events come in.
//!
//! Invariants (rule numbers of `docs/protocol.md`), asserted in release builds:
//! - I1 (3): flush batches and superblock writes are issued only while the fence is held.
//! - I2 (4): at most one superblock write is in flight; `superblock` changes only when one has ended or its writer
//!   has told us.
//! - I3 (1): `completed` never goes back and never passes what `durable` allows.
//! - I4 (2): no blob is released that a read answer or a disk write in flight still uses.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use twinsan_staging::Index;
use twinsan_staging::Lane;
use twinsan_wire::{Incarnation, Member, NodeId, Role, Seq, Superblock};

use crate::action::{Action, Notice};
use crate::config::ReplicaConfig;
use crate::event::Event;
use crate::exposure::{Drained, Exposure, Pace};
use crate::flush::Flusher;
use crate::handover::HandedOver;
use crate::ids::ConnId;
use crate::peer::Peer;
use crate::random::Random;
use crate::reads::Reads;
use crate::relay::Relay;
use crate::state::{Attach, State, SuperblockWrite, TakeOver};

/// One volume on one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Replica {
    pub(crate) cfg: ReplicaConfig,
    pub(crate) random: Random,
    pub(crate) now: u64,
    pub(crate) me: Incarnation,
    pub(crate) state: State,
    /// The last that was read, written or told; what it means depends on the state.
    pub(crate) superblock: Superblock,
    pub(crate) superblock_write: Option<SuperblockWrite>,
    pub(crate) reading_superblock: bool,
    /// When that read was issued.
    pub(crate) superblock_read_at: u64,
    /// Outside, or fenced: when the read that `superblock` is from was issued.
    pub(crate) superblock_as_of: u64,
    /// The read under way was issued before the fence was held: it does not count, and another one follows.
    pub(crate) read_again: bool,
    pub(crate) peer: Peer,
    /// The session's blobs; none where no session's blobs count here.
    pub(crate) lane: Option<Lane>,
    pub(crate) index: Index,
    pub(crate) flusher: Flusher,
    pub(crate) pace: Pace,
    /// While dual, with a takeover budget.
    pub(crate) exposure: Exposure,
    pub(crate) drained: Option<Drained>,
    pub(crate) reads: Reads,
    /// All clients' connections.
    pub(crate) clients: BTreeMap<ConnId, Client>,
    /// The one that may put blobs into the lane (rule 14): a client's connection, or at a mirror its primary's relay.
    pub(crate) session: Option<ConnId>,
    /// The session's blobs on their way from here to the other member (rule 14).
    pub(crate) relay: Relay,
    /// A mirror: what its primary has released; blobs that come later than that word are released at once.
    pub(crate) may_release: Seq,
    /// What the client has been told to complete.
    pub(crate) completed: Seq,
    pub(crate) attach: Option<Attach>,
    /// What of the disk fails, and is tried again.
    pub(crate) failing: Failing,
    /// This node has a usable path to the disk, as far as it has been told (rule 11).
    pub(crate) paths: bool,
    /// The last handover from here, and how it ended.
    pub(crate) handed: HandedOver,
    /// Orders from the operator.
    pub(crate) leaving_since: Option<u64>,
    pub(crate) recover: bool,
    /// This incarnation has asked to join, so that a primary may have told clients of it as of a joiner.
    pub(crate) offered: bool,
    /// The unrecoverable state has been told.
    pub(crate) told_refusing: bool,
    pub(crate) timers: Timers,
    pub(crate) out: Vec<Action>,
}

/// A client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Client {
    pub(crate) heard_at: u64,
    /// It is none, but a relay: who feeds it.
    pub(crate) relay: Option<Incarnation>,
}

/// The kinds of disk work of which the last try failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Failing {
    pub(crate) superblock: bool,
    pub(crate) flush: bool,
    pub(crate) read: bool,
    /// The same for refusals, which are no failures as long as they may pass.
    pub(crate) refusals: Refusals,
}

impl Failing {
    pub(crate) fn any(self) -> bool {
        self.superblock || self.flush || self.read || self.refusals.most() >= Refusals::TROUBLE
    }
}

/// How often in a row the disk has refused each kind of write with a reservation conflict, and the own key turned out to
/// be in place: a path without it, which the fence mends, or one that can't be mended. Each kind by itself, as the paths
/// take turns, and what goes by a good one says nothing about another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Refusals {
    pub(crate) superblock: Refused,
    pub(crate) flush: Refused,
    pub(crate) heartbeat: Refused,
}

/// One kind's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Refused {
    /// The last one's reason is not known yet.
    pub(crate) asking: bool,
    /// Those before.
    pub(crate) times: u32,
}

impl Refusals {
    /// A path that came back may refuse once, before it is registered.
    const TROUBLE: u32 = 2;
    /// The fence has had its chances: this node does not reach the disk (rule 11).
    pub(crate) const HOPELESS: u32 = 6;

    fn most(self) -> u32 {
        self.superblock.times.max(self.flush.times).max(self.heartbeat.times)
    }

    /// No use is to be had of the paths: what has to reach the disk does not. A heartbeat alone is no reason to hand over.
    pub(crate) fn are_hopeless(self) -> bool {
        self.superblock.times.max(self.flush.times) >= Self::HOPELESS
    }

    /// The own key stands.
    pub(crate) fn not_fenced(&mut self) {
        for refused in [&mut self.superblock, &mut self.flush, &mut self.heartbeat] {
            refused.times = refused.times.saturating_add(u32::from(core::mem::take(&mut refused.asking)));
        }
    }
}

/// When what is due next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Timers {
    pub(crate) heartbeat_at: u64,
    pub(crate) beat: u64,
    pub(crate) disk_heartbeat_at: u64,
    pub(crate) disk_beat: u64,
    pub(crate) writing_heartbeat: bool,
    pub(crate) checking_fence: bool,
    /// Rule 13: the claim is being let go.
    pub(crate) yielding: bool,
    /// The last try to take the fence failed for want of the disk, not for another's being quicker.
    pub(crate) fence_failed: bool,
    /// Rules 11 and 13: when to ask the other one again to take over.
    pub(crate) ask_takeover_at: u64,
    /// Damps handovers that nobody has ordered.
    pub(crate) hand_over_not_before: u64,
    /// When this node last found itself fenced.
    pub(crate) fenced_at: u64,
    /// The superblock is read again at this time, where that helps.
    pub(crate) reread_at: u64,
    /// Rule 15: who was fenced or turned away waits.
    pub(crate) try_not_before: u64,
    pub(crate) turned_away: u32,
    pub(crate) join_not_before: u64,
    pub(crate) joins_thrown_away: u32,
    /// A new epoch has begun since the host asked to be let in: the answer may be from before a fence.
    pub(crate) admit_again: bool,
    /// When the joiner asks again.
    pub(crate) ask_at: u64,
    /// When something was last staged.
    pub(crate) staged_at: u64,
    /// Rule 5: when the drain began.
    pub(crate) drain_began: u64,
}

impl Replica {
    /// A node's machine for one volume, as its process starts. `seed`: fresh random bits.
    #[must_use]
    pub fn new(cfg: ReplicaConfig, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let me = Incarnation::from_random(random.next());
        Self {
            cfg,
            random,
            now: 0,
            me,
            state: State::Inspecting,
            superblock: Superblock::default(),
            superblock_write: None,
            reading_superblock: false,
            superblock_read_at: 0,
            superblock_as_of: 0,
            read_again: false,
            peer: Peer::new(0),
            lane: None,
            index: Index::new(),
            flusher: Flusher::new(Seq::ZERO),
            pace: Pace::default(),
            exposure: Exposure::default(),
            drained: None,
            reads: Reads::default(),
            clients: BTreeMap::new(),
            session: None,
            relay: Relay::default(),
            may_release: Seq::ZERO,
            completed: Seq::ZERO,
            attach: None,
            failing: Failing::default(),
            paths: true,
            handed: HandedOver::Never,
            leaving_since: None,
            recover: false,
            offered: false,
            told_refusing: false,
            timers: Timers::default(),
            out: Vec::new(),
        }
    }

    /// Begins. Times are milliseconds of a clock that only grows.
    pub fn start(&mut self, now: u64, out: &mut Vec<Action>) {
        self.now = now;
        self.peer = Peer::new(now);
        self.timers.staged_at = now;
        self.out(Action::Incarnation(self.me));
        self.read_superblock();
        self.probe();
        self.advance();
        out.append(&mut self.out);
    }

    /// Takes in one event; adds what is to be done to `out`, in order.
    pub fn handle(&mut self, event: Event, now: u64, out: &mut Vec<Action>) {
        self.now = self.now.max(now);
        if self.state != State::Stopped {
            self.dispatch(event);
            self.advance();
        }
        out.append(&mut self.out);
    }

    fn dispatch(&mut self, event: Event) {
        match event {
            Event::Tick => self.tick(),
            Event::Shutdown => self.shutdown(),
            Event::Recover => self.recover |= matches!(self.state, State::Waiting(_)),
            Event::Switchover => self.switch_over(),
            Event::Paths { usable } => self.paths_told(usable),
            Event::SuperblockRead(result) => self.superblock_read(result),
            Event::SuperblockWritten(result) => self.superblock_written(result),
            Event::HeartbeatWritten(result) => {
                self.timers.writing_heartbeat = false;
                self.heartbeat_written(result);
            }
            Event::HeartbeatRead(result) => self.heartbeat_read(result),
            Event::Flushed { batch, result, us } => self.batch_ended(batch, result, us),
            Event::DiskRead { token, result } => self.disk_read(token, result),
            Event::Admitted(result) => self.admitted(result),
            Event::FenceHeld(result) => self.fence_held(result),
            Event::FenceChecked { own } => self.fence_checked(own),
            Event::FenceReleased => self.fence_released(),
            Event::FenceYielded => self.fence_yielded(),
            Event::FenceAccepted(result) => self.fence_accepted(result),
            Event::LinkUp { link, peer } => self.link_up(link, peer),
            Event::LinkDown { link } => self.link_down(link),
            Event::Probed(probe) => self.probed(probe),
            Event::Peer { link, msg } => self.peer_message(link, msg),
            Event::PeerMailbox { link, mailbox } => self.peer_mailbox(link, mailbox),
            Event::ClientUp { conn } => self.client_up(conn),
            Event::RelayAccepted { conn, from } => self.relay_accepted(conn, from),
            Event::RelayDialled(relay) => self.relay_dialled(relay),
            Event::RelayDown { relay } => self.relay_down(relay),
            Event::Relay { relay, msg } => self.relay_message(relay, msg),
            Event::ClientDown { conn } => self.client_down(conn),
            Event::Client { conn, msg } => self.client_message(conn, msg),
            Event::Blob { conn, blob } => self.blob(conn, blob),
            Event::ReadAnswered { token } => {
                self.reads.open.remove(&token);
            }
        }
    }

    /// What follows from where things stand, whatever the event was.
    fn advance(&mut self) {
        self.advance_waiting();
        self.advance_takeover();
        self.advance_primary();
        self.advance_relay();
        self.advance_attach();
        self.advance_clean();
        self.advance_leaving();
        self.advance_asking();
        self.follow_exposure();
        self.pump_reads();
        self.pump_release();
        self.pump_completion();
        self.pump_flush();
    }

    /// The only way from one state to another: each step is one that the diagram of `state.rs` allows.
    pub(crate) fn enter(&mut self, state: State) {
        let (from, to) = (self.state.step(), state.step());
        assert!(from.may_become(to), "from {from:?} to {to:?}: no such step");
        self.state = state;
    }

    pub(crate) fn out(&mut self, action: Action) {
        self.out.push(action);
    }

    pub(crate) fn notice(&mut self, notice: Notice) {
        self.out(Action::Notice(notice));
    }

    pub(crate) fn node(&self) -> NodeId {
        self.cfg.node
    }

    pub(crate) fn member(&self) -> Member {
        Member { node: self.cfg.node, incarnation: self.me }
    }

    pub(crate) fn is_member(&self) -> bool {
        self.superblock.members.contains(self.member())
    }

    /// The other node's incarnation in the superblock.
    pub(crate) fn other_member(&self) -> Option<Incarnation> {
        self.superblock.members.of(self.node().other())
    }

    pub(crate) fn received(&self) -> Seq {
        self.lane.as_ref().map_or(Seq::ZERO, Lane::received)
    }

    pub(crate) fn released(&self) -> Seq {
        self.lane.as_ref().map_or(Seq::ZERO, Lane::released)
    }

    /// The one word for what this node does.
    pub(crate) fn role(&self) -> Role {
        match self.state {
            State::Waiting(_) if self.told_refusing => Role::Refusing,
            State::Inspecting | State::Waiting(_) => Role::Waiting,
            State::Joining => Role::Joining,
            State::Secondary => Role::Secondary,
            State::TakingOver(_) => Role::TakingOver,
            State::Primary(_) => Role::Primary,
            State::Fenced { .. } => Role::Fenced,
            State::Leaving(_) | State::Stopped => Role::Leaving,
        }
    }

    /// No I/O of ours that could change the disk is in flight, and no question about the fence: its answer would be
    /// taken for one about the next.
    pub(crate) fn is_quiet(&self) -> bool {
        let writing = self.superblock_write.is_some_and(|w| w.retry_at.is_none());
        let fence_asked = self.timers.checking_fence || self.timers.yielding;
        self.flusher.is_quiet() && !writing && !self.timers.writing_heartbeat && !fence_asked
    }

    /// The fence is held, as far as is known (I1).
    pub(crate) fn holds_fence(&self) -> bool {
        matches!(
            self.state,
            State::Primary(_) | State::TakingOver(TakeOver::Reading | TakeOver::Draining { .. } | TakeOver::Writing)
        )
    }

    /// A random wait that grows with every time (rule 15).
    pub(crate) fn backoff(&mut self, times: u32) -> u64 {
        let timing = self.cfg.timing;
        let ceiling = (timing.retry_ms << times.min(10)).min(timing.backoff_max_ms).max(1);
        timing.retry_ms / 2 + self.random.below(ceiling)
    }
}
