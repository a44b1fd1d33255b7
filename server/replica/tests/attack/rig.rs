//! One machine at a bench: its disk and fence answer at once unless a test holds them back; the other node and the
//! clients say what the test makes them say.

use twinsan_replica::{
    Action, ConnId, DiskError, Event, LinkId, Probe, Replica, ReplicaConfig, SlotRead, Status, Timing, WriteRange,
};
use twinsan_staging::Geometry;
use twinsan_wire::{
    Blob, BlobKind, ClientMsg, Epoch, Generation, Incarnation, Lba, Mailbox, Member, Members, NodeId, NodeMsg,
    PeerBody, PeerMsg, Role, Seq, Superblock,
};

/// Logical blocks of the volume.
pub(crate) const VOLUME_BLOCKS: u64 = 64;
/// Bytes of one.
pub(crate) const BLOCK: u32 = 512;

/// Node A's incarnation 1 serves alone, session 1.
pub(crate) fn a_alone() -> Superblock {
    Superblock {
        counter: 1,
        epoch: Epoch(1),
        primary: Some(NodeId::A),
        members: Members::solo(Member { node: NodeId::A, incarnation: other(1) }),
        generation: Generation(1),
        clean: false,
    }
}

/// A small lane, and the product's times.
pub(crate) fn config(node: NodeId) -> ReplicaConfig {
    let geometry = Geometry::new(8, 16 * u64::from(BLOCK), BLOCK).unwrap();
    ReplicaConfig::new(node, geometry, VOLUME_BLOCKS, Timing::default(), 1 << 20)
}

/// A lane with room for many batches, of at most two blocks each.
pub(crate) fn with_long_lane(config: ReplicaConfig) -> ReplicaConfig {
    let geometry = Geometry::new(64, 128 * u64::from(BLOCK), BLOCK).unwrap();
    ReplicaConfig { geometry, max_batch_bytes: 2 * u64::from(BLOCK), ..config }
}

type Test = fn(&Action) -> bool;

/// The bench.
pub(crate) struct Rig {
    /// The machine.
    pub(crate) machine: Replica,
    /// Its clock.
    pub(crate) now: u64,
    /// What stands on the disk; `settled` in both slots.
    pub(crate) disk: SlotRead,
    /// What has not been answered.
    pub(crate) pending: Vec<Action>,
    /// All that it wanted done since the last [`Rig::said`].
    log: Vec<Action>,
    hold: Test,
    beat: u64,
    /// What the other node says of its paths.
    pub(crate) peer_paths: bool,
}

/// An incarnation of the other node.
pub(crate) fn other(n: u64) -> Incarnation {
    Incarnation::from_random(1000 + n)
}

impl Rig {
    /// A process that starts while `superblock` stands on the disk.
    pub(crate) fn new(node: NodeId, superblock: Superblock) -> Self {
        let mut rig = Self::starting(config(node), superblock);
        rig.settle();
        rig
    }

    /// The same, with nothing answered yet.
    pub(crate) fn starting(cfg: ReplicaConfig, superblock: Superblock) -> Self {
        let mut rig = Self {
            machine: Replica::new(cfg, 42),
            now: 1000,
            disk: SlotRead { superblock, settled: true, older: None },
            pending: Vec::new(),
            log: Vec::new(),
            hold: |_| false,
            beat: 0,
            peer_paths: true,
        };
        let mut out = Vec::new();
        rig.machine.start(rig.now, &mut out);
        rig.took(out);
        rig
    }

    /// As [`Rig::new`], with node A's or B's incarnation 1 at the other end of link 1.
    pub(crate) fn linked(node: NodeId, superblock: Superblock) -> Self {
        let mut rig = Self::starting(config(node), superblock);
        rig.pending.retain(|a| *a != Action::Probe);
        rig.bare(Event::Probed(Probe::Alive(other(1))));
        rig.link(1, 1);
        rig
    }

    /// Alone: the other node does not run, and the session of `generation` has no client.
    pub(crate) fn solo(generation: u64) -> Self {
        let superblock = Superblock { generation: Generation(generation), ..Superblock::default() };
        let rig = Self::new(NodeId::A, superblock);
        assert_eq!(rig.status().role, Role::Primary);
        rig
    }

    /// Alone, with a client on connection 1 in session 1.
    pub(crate) fn attached() -> Self {
        let mut rig = Self::solo(0);
        rig.attach();
        rig
    }

    fn attach(&mut self) {
        self.event(Event::ClientUp { conn: ConnId(1) });
        self.client(1, ClientMsg::Attach { over: Generation::ZERO });
        assert!(self.status().session);
    }

    /// Two members: node B's incarnation 1 has joined, by link 1; the client is there.
    pub(crate) fn dual() -> Self {
        let mut rig = Self::attached();
        rig.become_dual();
        rig
    }

    /// The same, with the times and batches of `cfg`.
    pub(crate) fn dual_with(cfg: ReplicaConfig) -> Self {
        let mut rig = Self::starting(cfg, Superblock::default());
        rig.settle();
        rig.attach();
        rig.become_dual();
        rig
    }

    fn become_dual(&mut self) {
        self.joining(1);
        self.ack(1, Some(Seq(1)), Seq(0));
        assert!(self.status().dual, "{:?}", self.status());
    }

    /// Node B's incarnation `n` has been accepted as a joiner, by link `n`.
    pub(crate) fn joining(&mut self, n: u64) {
        self.link(n, n);
        self.wait_with(5000, n, n, Role::Waiting);
        self.peer(n, n, PeerBody::JoinRequest);
        assert_eq!(self.status().joiner, Some(other(n)));
    }

    /// Node B hears that node A's incarnation 1 serves alone, and asks to be let in. Gives what it has heard.
    pub(crate) fn hear_of_primary(&mut self) -> Superblock {
        let superblock = a_alone();
        self.peer_status(1, 1, Role::Primary);
        self.peer(1, 1, PeerBody::Announce { superblock });
        self.wait(200);
        superblock
    }

    /// A mirror: node B, member with node A's incarnation 1 as its primary, by link 1; session 1.
    pub(crate) fn secondary() -> Self {
        let mut rig = Self::linked(NodeId::B, a_alone());
        let alone = rig.hear_of_primary();
        rig.peer(1, 1, PeerBody::JoinAccept { generation: Generation(1), first: Some(Seq(1)) });
        assert_eq!(rig.status().role, Role::Joining);
        let me = Member { node: NodeId::B, incarnation: rig.status().incarnation };
        let both = Superblock { counter: 2, epoch: Epoch(2), members: alone.members.with(me), ..alone };
        rig.disk.superblock = both;
        rig.peer(1, 1, PeerBody::Announce { superblock: both });
        assert_eq!(rig.status().role, Role::Secondary);
        rig
    }

    /// What the machine says of itself.
    pub(crate) fn status(&self) -> Status {
        self.machine.status()
    }

    /// From now on what `test` names is not answered.
    pub(crate) fn hold(&mut self, test: Test) {
        self.hold = test;
    }

    /// Everything is answered again.
    pub(crate) fn let_go(&mut self) {
        self.hold = |_| false;
        self.settle();
    }

    /// Takes what was wanted since the last time.
    pub(crate) fn said(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.log)
    }

    /// Something happens; what follows from it is answered.
    pub(crate) fn event(&mut self, event: Event) {
        self.bare(event);
        self.settle();
    }

    /// Something happens; nothing is answered.
    pub(crate) fn bare(&mut self, event: Event) {
        let mut out = Vec::new();
        self.machine.handle(event, self.now, &mut out);
        self.took(out);
    }

    fn took(&mut self, out: Vec<Action>) {
        self.pending.extend(out.iter().filter(|a| a.is_answered()).cloned());
        self.log.extend(out);
    }

    /// Time passes, a tick at a time.
    pub(crate) fn wait(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(10) {
            self.now += 10;
            self.event(Event::Tick);
        }
    }

    /// The same, and the other node goes on saying what it is.
    pub(crate) fn wait_with(&mut self, ms: u64, link: u64, from: u64, role: Role) {
        for _ in 0..ms.div_ceil(50) {
            self.wait(50);
            self.peer_status(link, from, role);
        }
    }

    /// Answers whatever is not held.
    pub(crate) fn settle(&mut self) {
        let mut steps = 0;
        while let Some(at) = self.pending.iter().position(|a| !(self.hold)(a)) {
            let action = self.pending.remove(at);
            let answer = self.answer(&action);
            self.bare(answer);
            steps += 1;
            assert!(steps < 10_000, "it never comes to rest: {action:?}");
        }
    }

    /// Ends one held action as `event`, and answers what follows.
    pub(crate) fn end(&mut self, test: impl Fn(&Action) -> bool, event: Event) {
        let at = self.pending.iter().position(test).expect("it is under way");
        self.pending.remove(at);
        self.event(event);
    }

    /// The batch that is under way: its number, and what it writes.
    pub(crate) fn batch(&self) -> (u64, Vec<WriteRange>) {
        let found = self.pending.iter().find_map(|action| match action {
            Action::Flush { batch, writes, .. } => Some((*batch, writes.clone())),
            _ => None,
        });
        found.expect("a batch is under way")
    }

    /// It ends.
    pub(crate) fn end_batch(&mut self, result: Result<(), DiskError>) {
        let (batch, _) = self.batch();
        self.end(is_flush, Event::Flushed { batch, result, us: 100 });
    }

    /// How the disk and the fence answer when all is well; the other node does not run.
    pub(crate) fn answer(&mut self, action: &Action) -> Event {
        match action {
            Action::ReadSuperblock => Event::SuperblockRead(Ok(self.disk)),
            Action::WriteSuperblock(superblock) => {
                self.disk = SlotRead { superblock: *superblock, settled: true, older: None };
                Event::SuperblockWritten(Ok(()))
            }
            Action::WriteHeartbeat { .. } => Event::HeartbeatWritten(Ok(())),
            Action::ReadHeartbeat => Event::HeartbeatRead(Ok(1)),
            Action::Admit => Event::Admitted(Ok(())),
            Action::Fence => Event::FenceHeld(Ok(())),
            Action::ReleaseFence => Event::FenceReleased,
            Action::CheckFence => Event::FenceChecked { own: true },
            Action::YieldFence => Event::FenceYielded,
            Action::AcceptFence => Event::FenceAccepted(Ok(())),
            Action::Flush { batch, .. } => Event::Flushed { batch: *batch, result: Ok(()), us: 100 },
            Action::ReadDisk { token, .. } => Event::DiskRead { token: *token, result: Ok(()) },
            Action::AnswerRead { token, .. } => Event::ReadAnswered { token: *token },
            Action::Probe => Event::Probed(Probe::Refused),
            Action::RelayConnect { .. } => Event::RelayDialled(None),
            other => unreachable!("nobody answers {other:?}"),
        }
    }

    /// The other node's incarnation `n` is connected by `link`.
    pub(crate) fn link(&mut self, link: u64, n: u64) {
        self.event(Event::LinkUp { link: LinkId(link), peer: other(n) });
    }

    /// It says what it is.
    pub(crate) fn peer_status(&mut self, link: u64, n: u64, role: Role) {
        self.beat += 1;
        let beat = self.beat;
        self.peer(link, n, PeerBody::Status { role, beat, paths: self.peer_paths });
    }

    /// It says `body`, in the machine's own epoch.
    pub(crate) fn peer(&mut self, link: u64, n: u64, body: PeerBody) {
        let status = self.status();
        let (epoch, to) = (status.superblock.epoch, Some(status.incarnation));
        self.event(Event::Peer { link: LinkId(link), msg: PeerMsg { epoch, from: other(n), to, body } });
    }

    /// It ACKs, in the machine's own epoch, and has released nothing.
    pub(crate) fn ack(&mut self, n: u64, first: Option<Seq>, received: Seq) {
        self.ack_and_release(n, first, received, Seq::ZERO);
    }

    /// It ACKs, and says what it has released.
    pub(crate) fn ack_and_release(&mut self, n: u64, first: Option<Seq>, received: Seq, released: Seq) {
        let status = self.status();
        let mailbox = Mailbox::Ack {
            epoch: status.superblock.epoch,
            from: other(n),
            to: status.incarnation,
            generation: status.generation,
            first,
            received,
            released,
        };
        self.event(Event::PeerMailbox { link: LinkId(n), mailbox });
    }

    /// A client says something.
    pub(crate) fn client(&mut self, conn: u64, msg: ClientMsg) {
        self.event(Event::Client { conn: ConnId(conn), msg });
    }

    /// A client writes block `lba` as `seq`, in the session of the superblock.
    pub(crate) fn write(&mut self, conn: u64, seq: u64, lba: u64) {
        self.write_at(conn, seq, lba..lba + 1, seq.wrapping_sub(1) % 16);
    }

    /// The same for several blocks, the first of them at block `place` of the data ring.
    pub(crate) fn write_at(&mut self, conn: u64, seq: u64, blocks: core::ops::Range<u64>, place: u64) {
        let count = u32::try_from(blocks.end - blocks.start).expect("a few blocks");
        let blob = Blob {
            generation: self.status().generation,
            seq: Seq(seq),
            kind: BlobKind::Write,
            lba: Lba(blocks.start),
            blocks: count,
            data_pos: place * u64::from(BLOCK),
            payload_len: count * BLOCK,
        };
        self.event(Event::Blob { conn: ConnId(conn), blob });
    }

    /// The last that the client was told to complete.
    pub(crate) fn completed(&self) -> Seq {
        let told = self.log.iter().filter_map(|action| match action {
            Action::ClientMailbox { mailbox: Mailbox::Completion { durable, .. }, .. } => *durable,
            Action::AnswerRead { durable, .. } => Some(*durable),
            _ => None,
        });
        told.max().unwrap_or(Seq::ZERO)
    }
}

/// Data on its way to the disk.
pub(crate) fn is_flush(action: &Action) -> bool {
    matches!(action, Action::Flush { .. })
}

/// A superblock on its way there.
pub(crate) fn is_write(action: &Action) -> bool {
    matches!(action, Action::WriteSuperblock(_))
}

/// The disk heartbeat on its way there.
pub(crate) fn is_heartbeat(action: &Action) -> bool {
    matches!(action, Action::WriteHeartbeat { .. })
}

/// Blocks on their way from it.
pub(crate) fn is_read(action: &Action) -> bool {
    matches!(action, Action::ReadDisk { .. })
}

/// The disk is to be this node's alone.
pub(crate) fn is_fence(action: &Action) -> bool {
    *action == Action::Fence
}

/// Sent to the other node.
pub(crate) fn tells(actions: &[Action], test: impl Fn(&PeerBody) -> bool) -> bool {
    actions.iter().any(|a| matches!(a, Action::SendPeer { msg, .. } if test(&msg.body)))
}

/// Sent to a client.
pub(crate) fn answers(actions: &[Action], test: impl Fn(&NodeMsg) -> bool) -> bool {
    actions.iter().any(|a| matches!(a, Action::SendClient { msg, .. } if test(msg)))
}

/// A disk that does not work.
pub(crate) const BROKEN: Result<(), DiskError> = Err(DiskError::Failed);
