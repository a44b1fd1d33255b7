//! A machine, a disk and a fence that answer when the script says so, and the checks of every action.

use std::collections::{BTreeMap, BTreeSet};

use twinsan_replica::{
    Action, ConnId, DiskError, Event, FenceError, LinkId, Piece, PieceSource, Probe, Replica, ReplicaConfig, SlotRead,
    Source, Status, Timing, WriteRange,
};
use twinsan_staging::Geometry;
use twinsan_wire::{Blob, ClientMsg, Generation, Incarnation, Mailbox, NodeId, NodeMsg, Seq, Superblock};

pub(super) const VOLUME_BLOCKS: u64 = 64;
pub(super) const BLOCK: u32 = 512;
pub(super) const RING: u64 = 16 * BLOCK as u64;
const SLOTS: u32 = 8;

/// An incarnation of the other node.
pub(super) fn other(n: u64) -> Incarnation {
    Incarnation::from_random(1000 + n)
}

/// What a read asked for: first block, blocks, slot.
type Span = (u64, u32, u32);

/// See the file.
pub(super) struct Bench {
    machine: Replica,
    pub(super) now: u64,
    pub(super) disk: SlotRead,
    pending: Vec<Action>,
    /// The other node's link that is up.
    pub(super) link: Option<u64>,
    /// Who is at its other end.
    pub(super) peer: u64,
    /// Clients that are connected; true: the lane has been opened to it.
    pub(super) clients: BTreeMap<u64, bool>,
    /// The relay that this node feeds.
    pub(super) relay: Option<u64>,
    /// Names that have been given.
    names: u64,
    /// What was put into the lane, whether the machine took it or not.
    blobs: BTreeMap<(Generation, Seq), BTreeSet<[u64; 4]>>,
    /// The most that each incarnation has ACKed, by session.
    acked: BTreeMap<(Incarnation, Generation), Seq>,
    /// What was asked for and not answered, by connection and number; an honest client has one of each.
    reads: BTreeMap<(u64, u64), Vec<Span>>,
    /// The most that a session was told to complete.
    pub(super) completed: BTreeMap<Generation, Seq>,
    pub(super) answered: u64,
    pub(super) attached: Option<(u64, Generation)>,
    /// The other node says what it likes: what is complete by its ACKs is no promise then.
    pub(super) hostile_peer: bool,
    pub(super) exited: bool,
}

impl Bench {
    pub(super) fn new(node: NodeId, superblock: Superblock) -> Self {
        let geometry = Geometry::new(SLOTS, RING, BLOCK).expect("legal");
        let config = ReplicaConfig::new(node, geometry, VOLUME_BLOCKS, Timing::default(), 8 * u64::from(BLOCK));
        let mut bench = Self {
            machine: Replica::new(config, 42),
            now: 1000,
            disk: SlotRead { superblock, settled: true, older: None },
            pending: Vec::new(),
            link: None,
            peer: 1,
            clients: BTreeMap::new(),
            relay: None,
            names: 0,
            blobs: BTreeMap::new(),
            acked: BTreeMap::new(),
            reads: BTreeMap::new(),
            completed: BTreeMap::new(),
            answered: 0,
            attached: None,
            hostile_peer: false,
            exited: false,
        };
        let mut out = Vec::new();
        bench.machine.start(bench.now, &mut out);
        bench.took(out);
        bench
    }

    pub(super) fn status(&self) -> Status {
        self.machine.status()
    }

    /// A name that was never given before.
    pub(super) fn name(&mut self) -> u64 {
        self.names += 1;
        self.names
    }

    pub(super) fn event(&mut self, event: Event) {
        let mut out = Vec::new();
        self.machine.handle(event, self.now, &mut out);
        self.took(out);
    }

    pub(super) fn wait(&mut self, ms: u64) {
        self.now += ms;
        self.event(Event::Tick);
    }

    pub(super) fn client(&mut self, conn: u64, msg: ClientMsg) {
        // Only what a decoder takes gets as far as here.
        let Ok(msg) = ClientMsg::decode(msg.encode().as_bytes()) else { return };
        if let ClientMsg::Read { id, lba, blocks, slot, .. } = msg {
            self.reads.entry((conn, id)).or_default().push((lba.0, blocks, slot));
        }
        self.event(Event::Client { conn: ConnId(conn), msg });
    }

    pub(super) fn blob(&mut self, conn: u64, blob: Blob) {
        // The driver takes an immediate only from who has been given the lane.
        if self.clients.get(&conn) == Some(&true) {
            let what = [blob.lba.0, blob.blocks.into(), blob.data_pos, blob.payload_len.into()];
            self.blobs.entry((blob.generation, blob.seq)).or_default().insert(what);
            self.event(Event::Blob { conn: ConnId(conn), blob });
        }
    }

    pub(super) fn mailbox(&mut self, mailbox: Mailbox) {
        let (Some(link), Ok(mailbox)) = (self.link, Mailbox::decode(&mailbox.encode())) else { return };
        if let Mailbox::Ack { from, generation, received, .. } = mailbox {
            let best = self.acked.entry((from, generation)).or_default();
            *best = (*best).max(received);
        }
        self.event(Event::PeerMailbox { link: LinkId(link), mailbox });
    }

    // ---- the disk and the fence ------------------------------------------------------------------------------------

    /// Ends one action under way, well or not.
    pub(super) fn answer(&mut self, which: usize, how: u8) {
        if self.pending.is_empty() {
            return;
        }
        let action = self.pending.remove(which % self.pending.len());
        let event = match how {
            0 => fail(&action, DiskError::Failed),
            1 => fail(&action, DiskError::Conflict),
            _ => None,
        };
        let event = event.unwrap_or_else(|| self.succeed(&action));
        self.event(event);
    }

    /// Ends all well, and what follows.
    pub(super) fn settle(&mut self) {
        for _ in 0..1000 {
            if self.pending.is_empty() {
                return;
            }
            self.answer(0, u8::MAX);
        }
        panic!("it never comes to rest: {:?}", self.pending);
    }

    fn succeed(&mut self, action: &Action) -> Event {
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
            Action::Probe if self.link.is_some() => Event::Probed(Probe::Alive(other(self.peer))),
            Action::Probe => Event::Probed(Probe::Refused),
            Action::RelayConnect { .. } if self.link.is_some() => {
                let relay = self.name();
                self.relay = Some(relay);
                Event::RelayDialled(Some(twinsan_replica::RelayId(relay)))
            }
            Action::RelayConnect { .. } => Event::RelayDialled(None),
            other => unreachable!("nobody answers {other:?}"),
        }
    }

    // ---- what it wants done ----------------------------------------------------------------------------------------

    fn took(&mut self, out: Vec<Action>) {
        for action in out {
            self.check(&action);
            if action.is_answered() {
                self.pending.push(action);
            }
        }
        let flights = self.pending.iter().filter(|action| matches!(action, Action::Flush { .. })).count();
        assert!(flights <= 1, "rule 2: two batches in flight");
        let status = self.status();
        assert!(status.received.0 - status.released.0 <= u64::from(SLOTS), "more staged than the lane has slots");
        assert!(status.staged_bytes <= RING, "more staged than the ring holds");
        assert!(status.reads <= 128, "open reads without bound");
    }

    fn check(&mut self, action: &Action) {
        match action {
            Action::WriteSuperblock(next) => self.superblock_written(next),
            Action::Flush { writes, .. } => self.flushed(writes),
            Action::AnswerRead { conn, id, slot, pieces, durable, .. } => {
                self.read_answered(conn.0, *id, *slot, pieces);
                self.completes(self.status().generation, *durable);
                self.answered += 1;
            }
            Action::ClientMailbox { conn, mailbox: Mailbox::Completion { generation, durable, .. } } => {
                assert!(self.clients.contains_key(&conn.0), "a mailbox for who is gone");
                if let Some(durable) = durable {
                    self.completes(*generation, *durable);
                }
            }
            Action::SendClient { conn, msg } => {
                let granted = self.clients.get_mut(&conn.0).expect("a word to who is gone");
                if let NodeMsg::Attached { generation } = msg {
                    self.attached = Some((conn.0, *generation));
                }
                *granted |= matches!(msg, NodeMsg::Attached { .. } | NodeMsg::Resumed { .. });
            }
            Action::CloseClient { conn } => {
                assert!(self.clients.remove(&conn.0).is_some(), "closes who is gone");
            }
            // An older one, or the one there is, which has been silent for too long.
            Action::CloseLink { link } => self.link = self.link.filter(|&open| open != link.0),
            Action::CloseRelay { relay } => self.relay = self.relay.filter(|&open| open != relay.0),
            Action::RelayPost { relay, blob } => {
                assert_eq!(self.relay, Some(relay.0), "a blob for a relay that is gone");
                assert!(self.was_sent(blob.generation, blob.seq, |sent| sent[2] == blob.data_pos), "{blob:?}");
            }
            Action::Exit => self.exited = true,
            _ => {}
        }
    }

    /// Rule 4, and whatever the peer says: the numbers on the disk only grow.
    fn superblock_written(&self, next: &Superblock) {
        let before = self.disk.superblock;
        if !self.hostile_peer {
            assert!(next.counter > before.counter && next.epoch >= before.epoch, "{next:?} over {before:?}");
            assert!(next.generation >= before.generation, "{next:?} over {before:?}");
        }
        assert!(next.primary.is_none_or(|node| next.members.of(node).is_some()), "{next:?}");
    }

    fn was_sent(&self, generation: Generation, seq: Seq, test: impl Fn(&[u64; 4]) -> bool) -> bool {
        self.blobs.get(&(generation, seq)).is_some_and(|sent| sent.iter().any(test))
    }

    /// What goes to the disk is what this session has put into the lane, at its own place, and nothing else.
    fn flushed(&self, writes: &[WriteRange]) {
        let generation = self.status().generation;
        let mut end = 0;
        for write in writes {
            let (lba, blocks) = (write.lba.0, write.blocks);
            assert!(blocks > 0 && lba >= end, "ranges overlap: {writes:?}");
            end = lba + blocks;
            assert!(end <= VOLUME_BLOCKS, "a write beyond the volume: {write:?}");
            let sent = self.was_sent(generation, write.seq, |&[first, sent, position, bytes]| {
                let inside = lba >= first && end <= first + sent;
                match write.source {
                    Source::Staged { data_pos } => {
                        let from = position + (lba.wrapping_sub(first)).wrapping_mul(u64::from(BLOCK));
                        inside && data_pos == from && bytes > 0
                    }
                    Source::Zeros(_) => inside && bytes == 0,
                }
            });
            // A peer with the key is a node, and whose session a lane is, it may tell as it likes.
            assert!(sent || self.hostile_peer, "a write that nobody sent: {write:?} of {generation}");
            if let Source::Staged { data_pos } = write.source {
                assert!(data_pos % RING + blocks * u64::from(BLOCK) <= RING, "across the ring's end: {write:?}");
            }
        }
    }

    /// An answer is to a question, of whoever asked it, to the place that it named.
    fn read_answered(&mut self, conn: u64, id: u64, slot: u32, pieces: &[Piece]) {
        assert_eq!(self.clients.get(&conn), Some(&true), "an answer to who has no session");
        let (first, last) = (pieces.first().expect("it has blocks"), pieces.last().expect("it has blocks"));
        let span = (first.lba.0, u32::try_from(last.lba.0 - first.lba.0).expect("short") + last.blocks, slot);
        assert!(first.lba.0 + u64::from(span.1) <= VOLUME_BLOCKS, "a read beyond the volume");
        let asked = self.reads.get(&(conn, id)).is_some_and(|asked| asked.contains(&span));
        assert!(asked, "an answer that nobody asked for: {pieces:?}");
        for (piece, next) in pieces.iter().zip(&pieces[1..]) {
            assert_eq!(piece.lba.0 + u64::from(piece.blocks), next.lba.0, "an answer with a gap: {pieces:?}");
        }
        let generation = self.status().generation;
        for piece in pieces {
            if let PieceSource::Staged { seq, .. } | PieceSource::Zeros { seq } = piece.source {
                assert!(self.was_sent(generation, seq, |_| true), "{piece:?} was never sent");
            }
        }
    }

    /// Rule 1.
    fn completes(&mut self, generation: Generation, upto: Seq) {
        let status = self.status();
        if generation == status.generation {
            assert!(upto <= status.received, "completes {upto}, and has received {}", status.received);
        }
        if !self.hostile_peer {
            let acked = self.acked.iter().filter(|((_, session), _)| *session == generation).map(|(_, &seq)| seq).max();
            let cover = status.flushed.max(status.released).max(acked.unwrap_or_default());
            let before = self.completed.get(&generation).copied().unwrap_or_default();
            assert!(upto <= cover.max(before), "completes {upto}, and only {cover} is flushed or ACKed");
        }
        let completed = self.completed.entry(generation).or_default();
        *completed = (*completed).max(upto);
    }
}

/// How an action fails, if it can.
fn fail(action: &Action, why: DiskError) -> Option<Event> {
    let fence = FenceError::Failed;
    Some(match action {
        Action::ReadSuperblock => Event::SuperblockRead(Err(DiskError::Failed)),
        Action::WriteSuperblock(_) => Event::SuperblockWritten(Err(why)),
        Action::WriteHeartbeat { .. } => Event::HeartbeatWritten(Err(why)),
        Action::ReadHeartbeat => Event::HeartbeatRead(Err(DiskError::Failed)),
        Action::Admit => Event::Admitted(Err(fence)),
        Action::Fence => Event::FenceHeld(Err(fence)),
        Action::AcceptFence => Event::FenceAccepted(Err(fence)),
        Action::Flush { batch, .. } => Event::Flushed { batch: *batch, result: Err(why), us: 100 },
        Action::ReadDisk { token, .. } => Event::DiskRead { token: *token, result: Err(DiskError::Failed) },
        Action::Probe => Event::Probed(Probe::Silent),
        Action::RelayConnect { .. } => Event::RelayDialled(None),
        _ => return None,
    })
}
