//! Which rule of the protocol's section 4 has fired how often. What does not happen in a run is not tested by it.
//!
//! Seen from outside, at the machines' boundary: from what a machine is told and what it wants done, from what stands on
//! the disk, and from the notices that it gives to operators anyway. Only why a node takes over it must be asked
//! ([`twinsan_replica::Evidence`]).

use twinsan_replica::{
    Action, DiskError, Event, Evidence, FenceError, Notice, PieceSource, RelayPhase, Status, WriteRange,
};
use twinsan_session as session;
use twinsan_wire::{ClientMsg, Generation, Mailbox, NodeId, NodeMsg, PeerBody, Refusal, Role, Seq, Superblock};

use crate::world::World;

macro_rules! firings {
    ($($name:ident, $rule:literal, $words:literal;)*) => {
        /// A rule at work, in one of the ways that it has.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Firing {
            $($name,)*
        }

        /// Number of the rule, and the way in words.
        const WAYS: &[(u8, &str)] = &[$(($rule, $words),)*];
    };
}

firings! {
    CompletedDual, 1, "completed: in both nodes' RAM";
    CompletedSolo, 1, "completed: on the disk";
    CompletedJoining, 1, "completed: while one joins";
    ReadFromRam, 1, "read: shows staged blobs";
    ReadFromDisk, 1, "read: shows the disk";
    ReadWaited, 1, "read: waits till what it shows is durable";
    ReadAgain, 1, "read: sent again in a new epoch";
    NewestWins, 2, "a blob skips the disk where newer ones cover it";
    DataWritten, 3, "data written under the fence";
    WriteRefused, 3, "a write of who has lost the fence is refused";
    WrittenFirst, 4, "acts when the superblock is on the disk";
    SuperblockFails, 4, "the superblock write fails, and is tried again";
    SlotMended, 4, "a slot is mended under the fence";
    FiveEnded, 5, "by a member: the other process has ended";
    FiveSilent, 5, "by a member: both heartbeats stand still";
    FiveWord, 5, "by a member: the client's word";
    FiveAsked, 5, "by a member: asked";
    FiveDrains, 5, "flushes all that it holds";
    FiveServes, 5, "serves";
    SixEnded, 6, "by another: the other process has ended";
    SixSilent, 6, "by another: both heartbeats stand still";
    SixWord, 6, "by another: the client's word";
    SixAsked, 6, "by another: asked";
    SixIdle, 6, "by another: nobody serves";
    SixClean, 6, "of a volume marked clean that had two members";
    SixNamed, 6, "finds itself a member: by rule 5";
    SixStandsDown, 6, "stands down under the fence";
    SixServes, 6, "serves";
    DropBegun, 7, "the secondary is being dropped";
    DropDone, 7, "dropped";
    DropCutShort, 7, "cut short: the primary is gone";
    AdmitWaits, 8, "an earlier life's write is waited for";
    Joined, 8, "joined";
    JoinedWithoutClient, 8, "joined while no client is there";
    JoinedByRelay, 8, "joined, fed by relay";
    JoinThrownAway, 8, "thrown away";
    JoinCutShort, 8, "cut short: the primary is gone";
    FencedMember, 9, "fenced, a member still: tries again";
    FencedOutside, 9, "fenced, no member any more: drops its lanes";
    NotFenced, 9, "a conflict with the own key in place";
    Attached, 10, "a session attaches";
    LaneDropped, 10, "the secondary confirms that it has dropped the old lane";
    AttachEndsJoin, 10, "an attach throws a join away";
    Superseded, 10, "an old session is refused";
    Busy, 10, "refused, as another session is live";
    TakenOver, 10, "a session that is connected gives way by order";
    FlushFails, 11, "a batch fails, and is tried again";
    Asks, 11, "asks the other node to take over";
    RamOnly, 11, "completed while neither node reaches the disk";
    SecondaryPathless, 11, "the secondary says that it has no path";
    Refuses, 12, "refuses to serve";
    Recovered, 12, "recovered by an operator's order";
    CleanSet, 12, "marked clean";
    CleanGone, 12, "marked clean no more";
    HandOverBegun, 13, "begun";
    HandOverDone, 13, "done";
    HandOverCalledOff, 13, "called off";
    HandOverTaken, 13, "told";
    HandOverNotTaken, 13, "told, and can't be taken: by rule 9";
    TellingLost, 13, "the telling is lost: by rule 5";
    HandOverForClient, 13, "as the client reaches the other node only";
    HandOverCutShort, 13, "cut short: the primary is gone";
    Resumed, 14, "resumed, nothing was missing";
    ResumedAgain, 14, "resumed, blobs are sent again";
    Ignored, 14, "a blob that is there already is ignored";
    EarlierEnded, 14, "the earlier connection is destroyed first";
    Relayed, 14, "a relay feeds";
    RelayReleases, 14, "a relay carries the released position back";
    RelayEnded, 14, "a relay ends";
    CorruptBlob, 14, "a corrupt blob: the connection is destroyed";
    OneThrough, 15, "both try, and the fence lets one through";
    SilentLink, 15, "a silent link is given up";
}

/// What seeds can't be asked for, and why.
const NOT_BY_SEEDS: &[(Firing, &str)] = &[
    (Firing::SixStandsDown, "one interleaving in millions; the test storage::a_volume_that_is_clean_no_more"),
    (Firing::OneThrough, "both must try within the time of one fence; the test fabric::both_try"),
    (Firing::Ignored, "who feeds begins after what the node has, by one connection at a time"),
];

/// How often each has fired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage([u64; WAYS.len()]);

impl Default for Coverage {
    fn default() -> Self {
        Self([0; WAYS.len()])
    }
}

impl Coverage {
    pub(crate) fn fired(&mut self, what: Firing) {
        self.0[what as usize] += 1;
    }

    /// What has never fired, though seeds can make it.
    pub fn silent(&self) -> impl Iterator<Item = (u8, &'static str)> + '_ {
        let seldom = |at: usize| NOT_BY_SEEDS.iter().any(|(what, _)| *what as usize == at);
        let silent = self.0.iter().enumerate().filter(move |&(at, &n)| n == 0 && !seldom(at));
        silent.map(|(at, _)| WAYS[at])
    }

    /// What seeds can't be asked for: the rule's number, the way in words, why.
    pub fn not_by_seeds() -> impl Iterator<Item = (u8, &'static str, &'static str)> {
        NOT_BY_SEEDS.iter().map(|&(what, why)| (WAYS[what as usize].0, WAYS[what as usize].1, why))
    }

    /// The rule's number, the way in words, how often.
    pub fn entries(&self) -> impl Iterator<Item = (u8, &'static str, u64)> + '_ {
        WAYS.iter().zip(&self.0).map(|(&(rule, words), &n)| (rule, words, n))
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(sum, n)| *sum += n);
    }
}

/// What is remembered of a process, to tell what it does.
#[derive(Clone, Default)]
pub(crate) struct Watch {
    /// The last epoch that it entered.
    superblock: Superblock,
    completed: Seq,
    received: Seq,
    /// The takeover under way is one by rule 6.
    by_rule_6: bool,
    fenced: bool,
    dropping: bool,
    joining: bool,
    handing_over: bool,
}

impl World {
    pub(crate) fn fired(&mut self, what: Firing) {
        self.counts.rules.fired(what);
    }

    fn watch(&mut self, node: NodeId) -> &mut Watch {
        &mut self.nodes[node.index()].watch
    }

    /// A node does this because of `event`, after which it stands as `status` says.
    pub(crate) fn cover(&mut self, node: NodeId, event: &Event, action: &Action, status: &Status) {
        match action {
            Action::Notice(notice) => self.cover_notice(node, event, notice, status),
            Action::ClientMailbox { mailbox: Mailbox::Completion { durable: Some(durable), relayed, .. }, .. } => {
                self.cover_completion(node, *durable, *relayed, status);
            }
            Action::AnswerRead { pieces, .. } => {
                let staged = pieces.iter().any(|p| p.source != PieceSource::Disk);
                let disk = pieces.iter().any(|p| p.source == PieceSource::Disk);
                let at_once =
                    matches!(event, Event::Client { msg: ClientMsg::Read { .. }, .. } | Event::DiskRead { .. });
                self.fired_if(staged, Firing::ReadFromRam);
                self.fired_if(disk, Firing::ReadFromDisk);
                self.fired_if(!at_once, Firing::ReadWaited);
            }
            Action::Flush { writes, .. } => {
                self.fired(Firing::DataWritten);
                self.fired_if(status.role == Role::TakingOver, Firing::FiveDrains);
                if self.leaves_something_out(node, writes, status.flushed) {
                    self.fired(Firing::NewestWins);
                }
            }
            Action::WriteSuperblock(next) => self.cover_superblock(node, event, next, status),
            Action::ReleaseFence if status.role == Role::Waiting => {
                let read = matches!(event, Event::SuperblockRead(_) | Event::SuperblockWritten(_));
                self.fired_if(read, Firing::SixStandsDown);
            }
            Action::Incarnation(_) if std::mem::take(&mut self.watch(node).fenced) => {
                self.fired(Firing::FencedOutside);
            }
            Action::SendClient { msg: NodeMsg::Refused { why }, .. } => {
                self.fired_if(*why == Refusal::Superseded, Firing::Superseded);
                self.fired_if(*why == Refusal::Busy, Firing::Busy);
            }
            Action::CloseClient { .. } => match event {
                Event::Client { msg: ClientMsg::Resume { .. }, .. } => self.fired(Firing::EarlierEnded),
                Event::Client { msg: ClientMsg::Attach { over }, .. } => {
                    self.fired_if(*over > Generation::ZERO, Firing::TakenOver);
                }
                _ => {}
            },
            Action::SendPeer { msg, .. } if msg.body == PeerBody::TakeOver => self.fired(Firing::Asks),
            Action::CloseLink { .. } if matches!(event, Event::Tick) => self.fired(Firing::SilentLink),
            _ => {}
        }
    }

    fn fired_if(&mut self, so: bool, what: Firing) {
        if so {
            self.fired(what);
        }
    }

    fn cover_completion(&mut self, node: NodeId, durable: Seq, relayed: bool, status: &Status) {
        self.fired_if(relayed, Firing::RelayReleases);
        if std::mem::replace(&mut self.watch(node).completed, durable) >= durable {
            return;
        }
        let out_of_reach = NodeId::BOTH.into_iter().all(|n| !self.disk.is_reached_by(n));
        self.fired_if(out_of_reach && status.dual, Firing::RamOnly);
        self.fired(match (status.dual, status.joiner) {
            (true, _) => Firing::CompletedDual,
            (false, None) => Firing::CompletedSolo,
            (false, Some(_)) => Firing::CompletedJoining,
        });
    }

    fn cover_superblock(&mut self, node: NodeId, event: &Event, next: &Superblock, status: &Status) {
        let now = status.superblock;
        if let Event::SuperblockRead(Ok(read)) = event
            && !read.settled
        {
            self.fired_if(status.role == Role::TakingOver, Firing::SlotMended);
        }
        let taking = status.role == Role::TakingOver && next.epoch > now.epoch;
        let named = now.members.of(node) == Some(status.incarnation);
        self.fired_if(taking && named && self.nodes[node.index()].watch.by_rule_6, Firing::SixNamed);
        self.fired_if(next.clean && !now.clean, Firing::CleanSet);
        self.fired_if(!next.clean && now.clean && next.epoch == now.epoch, Firing::CleanGone);
    }

    fn cover_notice(&mut self, node: NodeId, event: &Event, notice: &Notice, status: &Status) {
        match notice {
            Notice::TakingOver { member } => self.cover_takeover(node, *member),
            Notice::Serving if matches!(event, Event::SuperblockWritten(_)) => {
                let by_rule_6 = self.watch(node).by_rule_6;
                self.fired(if by_rule_6 { Firing::SixServes } else { Firing::FiveServes });
            }
            Notice::EpochEntered(superblock) => {
                self.fired_if(matches!(event, Event::SuperblockWritten(_)), Firing::WrittenFirst);
                let before = std::mem::replace(&mut self.watch(node).superblock, *superblock);
                let watch = self.watch(node);
                let dropped = std::mem::take(&mut watch.dropping);
                (watch.joining, watch.handing_over, watch.fenced) = (false, false, false);
                watch.completed = Seq::ZERO;
                self.fired_if(dropped && before.members.is_dual(), Firing::DropDone);
            }
            Notice::DroppingSecondary => {
                self.watch(node).dropping = true;
                self.fired(Firing::DropBegun);
            }
            Notice::Joined => {
                self.fired(Firing::Joined);
                self.fired_if(!status.session, Firing::JoinedWithoutClient);
                self.fired_if(status.relay == RelayPhase::Feeding, Firing::JoinedByRelay);
            }
            Notice::JoinThrownAway => {
                self.watch(node).joining = false;
                self.fired(Firing::JoinThrownAway);
                let attaches = matches!(event, Event::Client { msg: ClientMsg::Attach { .. }, .. });
                self.fired_if(attaches, Firing::AttachEndsJoin);
            }
            Notice::Fenced => {
                self.cover_end(node);
                self.watch(node).fenced = true;
            }
            Notice::SessionAttached => self.fired(Firing::Attached),
            Notice::OtherPaths { usable: false } if status.role == Role::Primary => {
                self.fired(Firing::SecondaryPathless);
            }
            Notice::NeedsRecovery(_) => self.fired(Firing::Refuses),
            Notice::HandingOver => {
                self.watch(node).handing_over = true;
                self.fired(Firing::HandOverBegun);
                let asked = matches!(event, Event::Peer { msg, .. } if msg.body == PeerBody::AskHandOver);
                self.fired_if(asked, Firing::HandOverForClient);
            }
            Notice::HandOverCalledOff(_) => {
                self.watch(node).handing_over = false;
                self.fired(Firing::HandOverCalledOff);
            }
            Notice::HandedOver { .. } => self.fired(Firing::HandOverDone),
            Notice::HandedTo => self.fired(Firing::HandOverTaken),
            Notice::NotAccepted(_) => self.fired(Firing::HandOverNotTaken),
            Notice::Relaying => self.fired(Firing::Relayed),
            Notice::RelayEnded => self.fired(Firing::RelayEnded),
            _ => {}
        }
    }

    fn cover_takeover(&mut self, node: NodeId, member: bool) {
        let machine = self.nodes[node.index()].machine.as_ref().expect("it runs");
        let evidence = machine.evidence();
        let known = machine.status().superblock;
        self.watch(node).by_rule_6 = !member;
        if member && std::mem::take(&mut self.watch(node).fenced) {
            self.fired(Firing::FencedMember);
        }
        let named = self.disk.settled().is_some_and(|s| s.primary == Some(node) && s.epoch > known.epoch);
        self.fired_if(member && named, Firing::TellingLost);
        self.fired_if(!member && known.clean && known.members.is_dual(), Firing::SixClean);
        match (member, evidence) {
            (true, Evidence::Ended) => self.fired(Firing::FiveEnded),
            (true, Evidence::Silent) => self.fired(Firing::FiveSilent),
            (true, Evidence::ClientsWord) => self.fired(Firing::FiveWord),
            (true, Evidence::Asked) => self.fired(Firing::FiveAsked),
            (true, Evidence::Idle) => {} // One that was fenced, and whom nobody relieves: FencedMember.
            (false, Evidence::Ended) => self.fired(Firing::SixEnded),
            (false, Evidence::Silent) => self.fired(Firing::SixSilent),
            (false, Evidence::ClientsWord) => self.fired(Firing::SixWord),
            (false, Evidence::Asked) => self.fired(Firing::SixAsked),
            (false, Evidence::Idle) => self.fired(Firing::SixIdle),
        }
    }

    /// What a node has been told, before it acts on it.
    pub(crate) fn cover_event(&mut self, event: &Event) {
        match event {
            Event::SuperblockWritten(Err(DiskError::Failed)) => self.fired(Firing::SuperblockFails),
            Event::Flushed { result: Err(DiskError::Failed), .. } => self.fired(Firing::FlushFails),
            Event::FenceChecked { own: true } => self.fired(Firing::NotFenced),
            Event::FenceHeld(Err(FenceError::Lost)) => self.fired(Firing::OneThrough),
            Event::Peer { msg, .. } if matches!(msg.body, PeerBody::LaneDropped { .. }) => {
                self.fired(Firing::LaneDropped);
            }
            Event::Recover => self.fired(Firing::Recovered),
            _ => {}
        }
    }

    /// How a node stands now.
    pub(crate) fn cover_status(&mut self, node: NodeId, event: &Event, status: &Status) {
        let watch = self.watch(node);
        watch.joining = status.joiner.is_some();
        let before = std::mem::replace(&mut watch.received, status.received);
        if let Event::Blob { blob, .. } = event
            && before == status.received
            && blob.seq <= before
        {
            self.fired(Firing::Ignored);
        }
    }

    /// A node's process ends, or it finds itself fenced.
    pub(crate) fn cover_end(&mut self, node: NodeId) {
        let watch = std::mem::take(self.watch(node));
        self.fired_if(watch.dropping, Firing::DropCutShort);
        self.fired_if(watch.joining, Firing::JoinCutShort);
        self.fired_if(watch.handing_over, Firing::HandOverCutShort);
    }

    /// A client does this.
    pub(crate) fn cover_client(&mut self, number: usize, action: &session::Action) {
        match action {
            session::Action::Send { msg: ClientMsg::Read { id, .. }, .. } => {
                let client = &mut self.clients[number];
                let again = *id < client.next_read;
                client.next_read = client.next_read.max(id + 1);
                self.fired_if(again, Firing::ReadAgain);
            }
            session::Action::Notice(session::Notice::NodeResumed { resent, .. }) => {
                self.fired(if *resent == 0 { Firing::Resumed } else { Firing::ResumedAgain });
            }
            _ => {}
        }
    }

    /// Rule 2: a batch writes something over a blob that is not flushed, and so skips the disk there.
    fn leaves_something_out(&self, node: NodeId, writes: &[WriteRange], flushed: Seq) -> bool {
        let Some(life) = self.nodes[node.index()].life else { return false };
        let covers = |write: &WriteRange, seq: u64| {
            let slot = self.config.geometry.slot(Seq(seq)) as usize;
            let blob = self.lives[life].slots[slot].filter(|blob| blob.seq.0 == seq);
            let end = write.lba.0 + write.blocks;
            blob.is_some_and(|blob| blob.lba.0 < end && write.lba.0 < blob.end().0)
        };
        writes.iter().any(|write| (flushed.0 + 1..write.seq.0).any(|seq| covers(write, seq)))
    }
}
