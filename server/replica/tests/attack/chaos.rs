//! One machine among events of every kind, each of which could come: what was asked is answered at most once, what the
//! disk says was written there, and what the other node announces it has written under its own fence.
//!
//! Nothing may panic (the machine asserts its invariants in release builds as well), no write may reach the disk that
//! goes back behind what stands there, nothing completes without cover, and at the end, when the other node is gone
//! and the disk works, this one must serve, or say that it may not.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::Config;
use twinsan_replica::{Action, ConnId, DiskError, Event, FenceError, LinkId, Probe, RelayId, Timing};
use twinsan_wire::{
    Blob, BlobKind, ClientMsg, Epoch, Generation, Lba, Mailbox, Member, Members, NodeId, NodeMsg, PeerBody, Role, Seq,
    Superblock,
};

use crate::chaos_steps::{Said, Step, said, step};
use crate::rig::{BLOCK, Rig, other};

const ME: NodeId = NodeId::A;

struct Chaos {
    rig: Rig,
    /// The other node's incarnation, and the link.
    peer: u64,
    link: u64,
    linked: bool,
    /// When it came up.
    linked_at: u64,
    /// The other node has fenced this one: none of its writes lands.
    fenced: bool,
    clients: Vec<u64>,
    granted: BTreeSet<u64>,
    next_conn: u64,
    /// The relay that was dialled last.
    relay: u64,
    /// What the client was told to complete, by session.
    completed: BTreeMap<Generation, Seq>,
    /// What each incarnation of the other node has ACKed, by session.
    acked: BTreeMap<(u64, Generation), Seq>,
    /// The most that was ever flushed, by session.
    flushed: BTreeMap<Generation, Seq>,
    exited: bool,
}

impl Chaos {
    fn new(rig: Rig, clients: Vec<u64>) -> Self {
        let mut chaos = Self {
            rig,
            peer: 1,
            link: 10,
            linked: false,
            linked_at: 0,
            fenced: false,
            granted: clients.iter().copied().collect(),
            clients,
            next_conn: 100,
            relay: 0,
            completed: BTreeMap::new(),
            acked: BTreeMap::new(),
            flushed: BTreeMap::new(),
            exited: false,
        };
        chaos.rig.hold(|_| true);
        chaos
    }

    fn event(&mut self, event: Event) {
        self.rig.event(event);
        for action in self.rig.said() {
            self.look_at(&action);
        }
        let flights = self.rig.pending.iter().filter(|a| matches!(a, Action::Flush { .. })).count();
        assert!(flights <= 1, "rule 2: two batches in flight");
        assert!(self.rig.status().reads <= 128);
    }

    fn look_at(&mut self, action: &Action) {
        match action {
            Action::CloseClient { conn } => {
                self.clients.retain(|&c| c != conn.0);
                self.granted.remove(&conn.0);
            }
            Action::SendClient { conn, msg: NodeMsg::Attached { .. } | NodeMsg::Resumed { .. } } => {
                self.granted.insert(conn.0);
            }
            // One over which nothing comes may be given up.
            Action::CloseLink { link } if link.0 == self.link => {
                let silent = self.rig.now - self.linked_at >= Timing::default().takeover_ms;
                assert!(silent, "the link that has just come up");
                self.linked = false;
            }
            Action::ClientMailbox {
                mailbox: Mailbox::Completion { generation, durable: Some(durable), .. }, ..
            } => {
                self.completes(*generation, *durable);
            }
            Action::AnswerRead { durable, .. } => self.completes(self.rig.status().generation, *durable),
            Action::Exit => self.exited = true,
            _ => {}
        }
    }

    /// Rule 1.
    fn completes(&mut self, generation: Generation, upto: Seq) {
        let status = self.rig.status();
        let flushed = self.flushed.entry(generation).or_default();
        *flushed = (*flushed).max(status.flushed);
        let acked = (1..=self.peer).filter_map(|n| self.acked.get(&(n, generation))).max();
        let cover = (*flushed).max(acked.copied().unwrap_or_default()).max(status.released);
        assert!(upto <= cover, "completes {upto} of {generation}, and only {cover} is flushed or ACKed");
        self.completed.insert(generation, upto);
    }

    /// An action under way ends.
    fn answer(&mut self, which: usize, fails: bool) {
        if self.rig.pending.is_empty() {
            return;
        }
        let action = self.rig.pending.remove(which % self.rig.pending.len());
        let refused = self.fenced && !fails;
        let result = if fails { Err(DiskError::Failed) } else { Err(DiskError::Conflict) };
        let event = match &action {
            Action::WriteSuperblock(_) if fails || refused => Event::SuperblockWritten(result),
            Action::WriteHeartbeat { .. } if fails || refused => Event::HeartbeatWritten(result),
            Action::Flush { batch, .. } if fails || refused => Event::Flushed { batch: *batch, result, us: 100 },
            Action::CheckFence => Event::FenceChecked { own: !self.fenced },
            Action::ReadSuperblock if fails => Event::SuperblockRead(Err(DiskError::Failed)),
            Action::ReadDisk { token, .. } if fails => Event::DiskRead { token: *token, result },
            Action::Fence if fails => Event::FenceHeld(Err(FenceError::Lost)),
            Action::Admit if fails => Event::Admitted(Err(FenceError::Failed)),
            Action::Probe if self.linked || !fails => Event::Probed(Probe::Alive(other(self.peer))),
            Action::Probe => Event::Probed(Probe::Silent),
            Action::RelayConnect { .. } if fails => Event::RelayDialled(None),
            Action::RelayConnect { .. } => {
                self.relay += 1;
                Event::RelayDialled(Some(RelayId(self.relay)))
            }
            Action::ReleaseFence => {
                self.fenced = true;
                Event::FenceReleased
            }
            Action::YieldFence => {
                self.fenced = true;
                Event::FenceYielded
            }
            Action::AcceptFence if fails => Event::FenceAccepted(Err(FenceError::Failed)),
            Action::AcceptFence => {
                let me = self.rig.status().incarnation;
                let ours = self.rig.disk.superblock.primary_member() == Some(Member { node: ME, incarnation: me });
                self.fenced &= !ours;
                Event::FenceAccepted(if ours { Ok(()) } else { Err(FenceError::Lost) })
            }
            Action::Fence => {
                self.fenced = false;
                Event::FenceHeld(Ok(()))
            }
            Action::WriteSuperblock(next) => {
                let before = self.rig.disk.superblock;
                assert!(next.counter > before.counter && next.epoch >= before.epoch, "{next:?} over {before:?}");
                assert!(next.generation >= before.generation, "{next:?} over {before:?}");
                assert!(next.epoch > before.epoch || next.members == before.members, "{next:?} over {before:?}");
                self.rig.answer(&action)
            }
            _ => self.rig.answer(&action),
        };
        self.event(event);
    }

    fn answer_all(&mut self) {
        for _ in 0..200 {
            if self.rig.pending.is_empty() {
                return;
            }
            self.answer(0, false);
        }
    }

    fn wait(&mut self, ms: u64) {
        self.rig.now += ms;
        self.event(Event::Tick);
    }

    fn peer_says(&mut self, body: PeerBody) {
        if self.linked {
            self.rig.peer(self.link, self.peer, body);
            self.event(Event::Client { conn: ConnId(0), msg: ClientMsg::Heartbeat }); // Nobody: looks at what was said.
        }
    }

    /// The other node is the primary by what stands on the disk.
    fn peer_serves(&self) -> bool {
        let theirs = Member { node: ME.other(), incarnation: other(self.peer) };
        self.fenced && self.rig.disk.superblock.primary_member() == Some(theirs)
    }

    fn peer_writes(&mut self, change: impl Fn(&mut Superblock)) {
        let disk = &mut self.rig.disk.superblock;
        disk.counter += 1;
        disk.epoch = disk.epoch.next();
        change(disk);
    }

    fn generation(&self) -> Generation {
        self.rig.status().generation
    }

    fn step(&mut self, step: &Step) {
        let me = Member { node: ME, incarnation: self.rig.status().incarnation };
        let theirs = Member { node: ME.other(), incarnation: other(self.peer) };
        match *step {
            Step::Wait(ms) => self.wait(ms),
            Step::Answer(which, how) => self.answer(which, how == 0),
            Step::AnswerAll => self.answer_all(),
            Step::Shutdown => self.event(Event::Shutdown),
            Step::Recover => self.event(Event::Recover),
            Step::Switchover => self.event(Event::Switchover),
            Step::Paths(usable) => self.event(Event::Paths { usable }),
            Step::PeerDies => {
                self.peer_goes();
                self.peer += 1;
            }
            Step::LinkUp => {
                self.link += 1;
                self.linked = true;
                self.linked_at = self.rig.now;
                self.event(Event::LinkUp { link: LinkId(self.link), peer: other(self.peer) });
            }
            Step::LinkDown => self.peer_goes(),
            Step::PeerStatus(role) if self.linked => self.rig.peer_status(self.link, self.peer, role),
            Step::PeerPaths(usable) => self.rig.peer_paths = usable,
            Step::PeerAsksToJoin if !self.rig.disk.superblock.members.contains(theirs) => {
                self.peer_says(PeerBody::JoinRequest);
            }
            Step::PeerAcks(less, first) => self.peer_acks(less, first),
            Step::PeerAccepts(first) if self.peer_serves() => {
                let first = first.then_some(Seq(1));
                self.peer_says(PeerBody::JoinAccept { generation: self.rig.disk.superblock.generation, first });
            }
            Step::PeerAborts => self.peer_says(PeerBody::JoinAbort),
            Step::PeerLeaves => self.peer_says(PeerBody::Leave),
            Step::PeerAsksToTakeOver => self.peer_says(PeerBody::TakeOver),
            Step::PeerAsksToHandOver => self.peer_says(PeerBody::AskHandOver),
            Step::PeerHandsOver(anew) if self.rig.disk.superblock.members == Members::solo(me).with(theirs) => {
                if anew && self.peer_serves() {
                    self.peer_writes(|disk| disk.primary = Some(ME));
                }
                self.peer_says(PeerBody::HandOver { superblock: self.rig.disk.superblock });
            }
            Step::PeerDropsLane if self.peer_serves() => {
                self.peer_says(PeerBody::DropLane { generation: self.generation() });
            }
            Step::PeerHasDroppedLane => self.peer_says(PeerBody::LaneDropped { generation: self.generation() }),
            Step::PeerReleases(less) if self.peer_serves() && self.linked => {
                let status = self.rig.status();
                let mailbox = Mailbox::Released {
                    epoch: status.superblock.epoch,
                    from: other(self.peer),
                    to: status.incarnation,
                    generation: status.generation,
                    released: Seq(status.received.0.saturating_sub(less)),
                };
                self.event(Event::PeerMailbox { link: LinkId(self.link), mailbox });
            }
            Step::PeerFences(anew) if !self.peer_serves() => {
                self.fenced = true;
                self.peer_writes(|disk| {
                    disk.generation.0 += u64::from(anew);
                    disk.primary = Some(theirs.node);
                    disk.members = Members::solo(theirs);
                    disk.clean = false;
                });
            }
            Step::PeerLetsIn if self.peer_serves() && self.rig.status().role == Role::Joining => {
                self.peer_writes(|disk| disk.members = disk.members.with(me));
            }
            Step::PeerDrops if self.peer_serves() => self.peer_writes(|disk| disk.members = Members::solo(theirs)),
            Step::PeerAnnounces if self.peer_serves() => {
                self.peer_says(PeerBody::Announce { superblock: self.rig.disk.superblock });
            }
            Step::ClientUp if self.clients.len() < 3 => {
                self.next_conn += 1;
                self.clients.push(self.next_conn);
                self.event(Event::ClientUp { conn: ConnId(self.next_conn) });
            }
            Step::RelayResumed(less) => {
                let received = Seq(self.rig.status().received.0.saturating_sub(less));
                let msg = NodeMsg::Resumed { generation: self.generation(), from: other(self.peer), received };
                self.event(Event::Relay { relay: RelayId(self.relay), msg });
            }
            Step::RelayDown => self.event(Event::RelayDown { relay: RelayId(self.relay) }),
            Step::PeerRelays(ours) if self.clients.len() < 3 => {
                self.next_conn += 1;
                self.clients.push(self.next_conn);
                let from = other(if ours { self.peer } else { self.peer + 1 });
                self.event(Event::RelayAccepted { conn: ConnId(self.next_conn), from });
            }
            Step::Client(which, ref said) if !self.clients.is_empty() => {
                let conn = self.clients[which % self.clients.len()];
                self.client(conn, said);
            }
            _ => {}
        }
    }

    fn peer_goes(&mut self) {
        if std::mem::take(&mut self.linked) {
            self.event(Event::LinkDown { link: LinkId(self.link) });
        }
    }

    fn peer_acks(&mut self, less: u64, first: bool) {
        if !self.linked {
            return;
        }
        let status = self.rig.status();
        let received = Seq(status.received.0.saturating_sub(less));
        let best = self.acked.entry((self.peer, status.generation)).or_default();
        *best = (*best).max(received);
        let mailbox = Mailbox::Ack {
            epoch: status.superblock.epoch,
            from: other(self.peer),
            to: status.incarnation,
            generation: status.generation,
            first: first.then_some(Seq(1)),
            received,
            released: Seq(received.0.saturating_sub(4)),
        };
        self.event(Event::PeerMailbox { link: LinkId(self.link), mailbox });
    }

    fn client(&mut self, conn: u64, said: &Said) {
        let status = self.rig.status();
        let epoch = status.superblock.epoch;
        let msg = match *said {
            Said::Down => {
                self.clients.retain(|&c| c != conn);
                self.granted.remove(&conn);
                return self.event(Event::ClientDown { conn: ConnId(conn) });
            }
            Said::Write(lba) => return self.blob(conn, next_blob(status.generation, status.received.next(), lba)),
            Said::BlobNoise { generation, seq, kind, lba, blocks, data_pos, payload_len } => {
                let (seq, lba, generation) = (Seq(seq), Lba(lba), Generation(generation));
                return self.blob(conn, Blob { generation, seq, kind, lba, blocks, data_pos, payload_len });
            }
            Said::Attach(over) => ClientMsg::Attach { over: if over { status.generation } else { Generation::ZERO } },
            Said::Resume(more) => {
                ClientMsg::Resume { generation: status.generation, first: Seq(status.received.0 + 1 + more) }
            }
            Said::ResumeNoise(generation, first) => {
                ClientMsg::Resume { generation: Generation(generation), first: Seq(first) }
            }
            Said::Read(lba) => {
                let (after, slot) = (status.received, u32::try_from(lba).unwrap());
                ClientMsg::Read { id: 1, epoch, after, lba: Lba(lba), blocks: 2, slot }
            }
            Said::ReadNoise { epoch, after, lba, blocks, slot } => {
                ClientMsg::Read { id: 2, epoch: Epoch(epoch), after: Seq(after), lba: Lba(lba), blocks, slot }
            }
            Said::Unreachable(own, behind) => {
                let generation = Generation(status.superblock.generation.0.saturating_sub(behind));
                ClientMsg::Unreachable { node: if own { ME } else { ME.other() }, epoch, generation }
            }
            Said::Heartbeat => ClientMsg::Heartbeat,
            Said::Detach => ClientMsg::Detach,
        };
        self.event(Event::Client { conn: ConnId(conn), msg });
    }

    /// The driver hands on blobs from those only that a lane was opened to.
    fn blob(&mut self, conn: u64, blob: Blob) {
        if self.granted.contains(&conn) {
            self.event(Event::Blob { conn: ConnId(conn), blob });
        }
    }

    /// The other node is gone for good, the disk works, and a new client comes.
    fn ends_well(&mut self) {
        self.peer_goes();
        self.peer += 1;
        self.event(Event::Paths { usable: true });
        for _ in 0..1500 {
            while let Some(at) = self.rig.pending.iter().position(|a| *a == Action::Probe) {
                self.rig.pending.remove(at);
                self.event(Event::Probed(Probe::Refused));
            }
            self.answer_all();
            self.wait(10);
        }
        if self.exited {
            return;
        }
        let status = self.rig.status();
        if status.role == Role::Refusing {
            let disk = self.rig.disk.superblock;
            let me = Member { node: ME, incarnation: status.incarnation };
            assert!(disk.members.is_dual() && !disk.members.contains(me) && !disk.clean, "{status:?}");
            return;
        }
        assert_eq!(status.role, Role::Primary, "nobody serves: {status:?}");
        assert!(!status.disk_trouble, "{status:?}");
        self.serves_a_new_client();
    }

    fn serves_a_new_client(&mut self) {
        self.event(Event::ClientUp { conn: ConnId(9) });
        self.clients.push(9);
        for _ in 0..300 {
            if !self.granted.contains(&9) {
                self.event(Event::Client { conn: ConnId(9), msg: ClientMsg::Attach { over: Generation::ZERO } });
            }
            self.answer_all();
            self.wait(10);
        }
        assert!(self.granted.contains(&9), "no new session: {:?}", self.rig.status());
        let generation = self.generation();
        self.blob(9, next_blob(generation, Seq(1), 0));
        self.answer_all();
        assert_eq!(self.completed.get(&generation), Some(&Seq(1)), "{:?}", self.rig.status());
        self.client(9, &Said::Read(0));
        self.answer_all();
        assert_eq!(self.rig.status().reads, 0, "a read has been answered");
    }
}

fn next_blob(generation: Generation, seq: Seq, lba: u64) -> Blob {
    let data_pos = seq.0.wrapping_sub(1).wrapping_mul(u64::from(BLOCK));
    Blob { generation, seq, kind: BlobKind::Write, lba: Lba(lba), blocks: 1, data_pos, payload_len: BLOCK }
}

fn cases(cases: u32) -> Config {
    Config { cases, failure_persistence: None, ..Config::default() }
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn nothing_legal_breaks_the_machine(start in 0..4u8, steps in prop::collection::vec(step(), 0..150)) {
        let mut chaos = match start {
            0 => Chaos::new(Rig::solo(1), Vec::new()),
            1 => Chaos::new(Rig::attached(), vec![1]),
            2 => Chaos { linked: true, link: 1, ..Chaos::new(Rig::dual(), vec![1]) },
            _ => Chaos::new(Rig::solo(0), Vec::new()),
        };
        for step in &steps {
            chaos.step(step);
        }
        chaos.ends_well();
    }

    #[test]
    fn no_client_breaks_a_node(dual in any::<bool>(), steps in prop::collection::vec((0..3usize, said()), 0..200)) {
        let mut chaos = if dual {
            Chaos { linked: true, link: 1, ..Chaos::new(Rig::dual(), vec![1]) }
        } else {
            Chaos::new(Rig::solo(1), Vec::new())
        };
        for (n, (which, said)) in steps.iter().enumerate() {
            chaos.step(&Step::ClientUp);
            chaos.step(&Step::Client(*which, said.clone()));
            if n % 3 == 0 {
                chaos.step(&Step::PeerStatus(Role::Secondary));
                chaos.step(&Step::PeerAcks(0, true));
                chaos.step(&Step::AnswerAll);
            }
        }
        let status = chaos.rig.status();
        prop_assert!(status.role == Role::Primary, "{:?}", status);
        chaos.ends_well();
    }
}
