//! Events and actions in a few words each, for the story of a run ([`crate::story`]).
//!
//! Incarnations are called by their node and a number: A1 is the first that A has had. A `quiet` word is one that is said
//! again and again and tells nothing by itself.

use twinsan_replica::{self as replica, DiskError, FenceError, Notice, PieceSource, Probe, Source};
use twinsan_session as session;
use twinsan_wire::{Blob, ClientMsg, Incarnation, Mailbox, Members, NodeId, NodeMsg, PeerBody, Role, Superblock};

use crate::event::Host;
use crate::world::World;

/// Some words, and whether they tell nothing.
#[derive(Clone)]
pub(crate) struct Said {
    pub(crate) words: String,
    pub(crate) quiet: bool,
}

fn said(words: impl Into<String>) -> Said {
    Said { words: words.into(), quiet: false }
}

fn quiet(words: impl Into<String>) -> Said {
    Said { words: words.into(), quiet: true }
}

impl World {
    /// What has happened to a node.
    pub(crate) fn say_event(&self, node: NodeId, event: &replica::Event) -> Said {
        use replica::Event;
        match event {
            Event::Tick => quiet("time"),
            Event::Shutdown => said("told to end"),
            Event::Recover => said("told to accept the loss"),
            Event::Switchover => said("told to hand over"),
            Event::Paths { usable: true } => said("it has paths"),
            Event::Paths { usable: false } => said("it has no path"),
            Event::SuperblockRead(Ok(read)) => {
                let settled = if read.settled { "" } else { ", and the slots differ" };
                quiet(format!("reads {}{settled}", self.say_superblock(&read.superblock)))
            }
            Event::SuperblockRead(Err(error)) => quiet(format!("the superblock can't be read: {}", say_error(*error))),
            Event::SuperblockWritten(result) => said(format!("the superblock {}", say_written(*result))),
            Event::HeartbeatWritten(Ok(())) | Event::HeartbeatRead(_) => quiet("disk heartbeat"),
            Event::HeartbeatWritten(Err(error)) => quiet(format!("its disk heartbeat fails: {}", say_error(*error))),
            Event::Flushed { batch, result, .. } => said(format!("batch {batch} {}", say_written(*result))),
            Event::DiskRead { result: Ok(()), .. } => said("has read"),
            Event::DiskRead { result: Err(error), .. } => said(format!("can't read: {}", say_error(*error))),
            Event::Admitted(result) => said(say_fence(*result, "is let in")),
            Event::FenceHeld(result) => said(say_fence(*result, "holds the fence")),
            Event::FenceChecked { own: true } => said("its own key is in place"),
            Event::FenceChecked { own: false } => said("its own key is gone"),
            Event::FenceReleased => said("has let the claim go"),
            Event::FenceYielded => said("has given the claim up"),
            Event::FenceAccepted(result) => said(say_fence(*result, "has the claim")),
            Event::LinkUp { peer, .. } => said(format!("linked to {}", self.say_incarnation(*peer))),
            Event::LinkDown { .. } => said("the link is gone"),
            Event::Probed(Probe::Refused) => quiet(format!("nobody runs at {}", node.other())),
            Event::Probed(Probe::Alive(who)) => quiet(format!("{} is there", self.say_incarnation(*who))),
            Event::Probed(Probe::Silent) => quiet(format!("{} does not answer", node.other())),
            Event::Peer { msg, .. } => {
                let (from, epoch) = (self.say_incarnation(msg.from), msg.epoch);
                let body = self.say_peer(&msg.body);
                Said { words: format!("{from} in {epoch}: {}", body.words), quiet: body.quiet }
            }
            Event::PeerMailbox { mailbox, .. } => self.say_mailbox(mailbox),
            Event::ClientUp { conn } => quiet(format!("{} connects", self.say_sender(conn.0))),
            Event::ClientDown { conn } => said(format!("the connection of {} is gone", self.say_sender(conn.0))),
            Event::Client { conn, msg } => {
                let message = say_client(msg);
                Said { words: format!("{}: {}", self.say_sender(conn.0), message.words), quiet: message.quiet }
            }
            Event::Blob { conn, blob } => said(format!("{}: {}", self.say_sender(conn.0), say_blob(blob))),
            Event::ReadAnswered { .. } => quiet("an answer has left"),
            other => said(format!("{other:?}")),
        }
    }

    /// What a node wants done.
    pub(crate) fn say_action(&self, action: &replica::Action) -> Said {
        use replica::Action;
        match action {
            Action::ReadSuperblock => quiet("reads the superblock"),
            Action::WriteSuperblock(next) => said(format!("writes {}", self.say_superblock(next))),
            Action::WriteHeartbeat { .. } | Action::ReadHeartbeat => quiet("disk heartbeat"),
            Action::Admit => said("asks to be let in"),
            Action::Fence => said("fences"),
            Action::ReleaseFence => said("lets the claim go"),
            Action::CheckFence => said("looks at its key"),
            Action::YieldFence => said("gives the claim up"),
            Action::AcceptFence => said("takes the claim"),
            Action::Flush { batch, writes } => {
                let say = |w: &replica::WriteRange| {
                    let zeros = if matches!(w.source, Source::Zeros(_)) { "zeros " } else { "" };
                    format!("{zeros}{} to {}", w.seq, say_blocks(w.lba.0, w.blocks))
                };
                said(format!("flushes batch {batch}: {}", list(writes.iter().map(say))))
            }
            Action::ReadDisk { pieces, .. } => {
                said(format!("reads {}", list(pieces.iter().map(|p| say_blocks(p.lba.0, p.blocks.into())))))
            }
            Action::AnswerRead { id, pieces, durable, .. } => {
                let say = |p: &replica::Piece| match p.source {
                    PieceSource::Disk => format!("{} from the disk", say_blocks(p.lba.0, p.blocks.into())),
                    PieceSource::Staged { seq, .. } | PieceSource::Zeros { seq } => {
                        format!("{seq} at {}", say_blocks(p.lba.0, p.blocks.into()))
                    }
                };
                said(format!("answers read {id}: {}; {durable} is durable", list(pieces.iter().map(say))))
            }
            Action::DropRead { .. } => quiet("a read is void"),
            Action::Probe => quiet("looks who is there"),
            Action::SendPeer { msg, .. } => {
                let body = self.say_peer(&msg.body);
                Said { words: format!("tells the other: {}", body.words), quiet: body.quiet }
            }
            Action::PeerMailbox { mailbox, .. } | Action::ClientMailbox { mailbox, .. } => self.say_mailbox(mailbox),
            Action::CloseLink { .. } => said("destroys the link"),
            Action::RelayConnect { to } => said(format!("relays to {}", self.say_incarnation(*to))),
            Action::RelayPost { blob, .. } => said(format!("relays {}", blob.seq)),
            Action::SendClient { conn, msg } => {
                let message = self.say_node_msg(msg);
                Said { words: format!("tells {}: {}", self.say_sender(conn.0), message.words), quiet: message.quiet }
            }
            Action::CloseClient { conn } => said(format!("destroys the connection of {}", self.say_sender(conn.0))),
            Action::Incarnation(who) => said(format!("is {} now", self.say_incarnation(*who))),
            Action::Notice(notice) => self.say_notice(notice),
            Action::Exit => said("ends"),
            other => said(format!("{other:?}")),
        }
    }

    fn say_notice(&self, notice: &Notice) -> Said {
        match notice {
            Notice::EpochEntered(superblock) => said(format!("ENTERS {}", self.say_superblock(superblock))),
            Notice::TakingOver { member: true } => said("TAKES OVER by rule 5"),
            Notice::TakingOver { member: false } => said("TAKES OVER by rule 6"),
            Notice::Serving => said("SERVES"),
            Notice::DroppingSecondary => said("DROPS the other (rule 7)"),
            Notice::Joined => said("the other HAS JOINED"),
            Notice::JoinThrownAway => said("throws the join away"),
            Notice::Fenced => said("IS FENCED"),
            Notice::HandingOver => said("HANDS OVER (rule 13)"),
            Notice::HandedTo => said("IS HANDED the volume"),
            Notice::Asking => said("asks the other to take over"),
            other => said(format!("{other:?}")),
        }
    }

    fn say_peer(&self, body: &PeerBody) -> Said {
        match body {
            PeerBody::Status { role, .. } => quiet(say_role(*role)),
            PeerBody::Announce { superblock } => said(format!("it is {}", self.say_superblock(superblock))),
            PeerBody::JoinRequest => said("let me join"),
            PeerBody::JoinAccept { first: None, .. } => said("join"),
            PeerBody::JoinAccept { first: Some(first), .. } => said(format!("join, from {first} on")),
            PeerBody::JoinAbort => said("the join is off"),
            PeerBody::CloseSession { generation } => said(format!("end session {generation}")),
            PeerBody::DropLane { generation } => said(format!("drop the lane of {generation}")),
            PeerBody::LaneDropped { generation } => said(format!("the lane of {generation} is dropped")),
            PeerBody::Leave => said("I leave"),
            PeerBody::TakeOver => said("take over"),
            PeerBody::HandOver { superblock } => said(format!("you serve: {}", self.say_superblock(superblock))),
            PeerBody::AskHandOver => said("the client reaches only me"),
        }
    }

    fn say_mailbox(&self, mailbox: &Mailbox) -> Said {
        match mailbox {
            Mailbox::Ack { from, received, .. } => said(format!("{} ACKs {received}", self.say_incarnation(*from))),
            Mailbox::Completion { from, epoch, durable: Some(durable), .. } => {
                said(format!("{} in {epoch}: {durable} is durable", self.say_incarnation(*from)))
            }
            Mailbox::Completion { from, released, .. } | Mailbox::Released { from, released, .. } => {
                quiet(format!("{}: {released} is released", self.say_incarnation(*from)))
            }
        }
    }

    fn say_node_msg(&self, msg: &NodeMsg) -> Said {
        match msg {
            NodeMsg::View { role, from, epoch, members, .. } => {
                let (from, members) = (self.say_incarnation(*from), self.say_members(*members));
                quiet(format!("{from} is {} in {epoch} of {members}", say_role(*role)))
            }
            NodeMsg::Attached { generation } => said(format!("attached as {generation}")),
            NodeMsg::Resumed { from, received, .. } => {
                said(format!("{} has all up to {received}", self.say_incarnation(*from)))
            }
            NodeMsg::Refused { why } => quiet(format!("refused: {why:?}")),
            NodeMsg::ReadDone { id, durable, .. } => said(format!("read {id} is done, {durable} is durable")),
        }
    }

    /// What has happened to a client.
    pub(crate) fn say_client_event(&self, event: &session::Event) -> Said {
        use session::Event;
        match event {
            Event::Tick => quiet("time"),
            Event::Connected { incarnation, .. } => {
                said(format!("connected to {}", self.say_incarnation(*incarnation)))
            }
            Event::ConnectFailed { node, why } => quiet(format!("can't connect to {node}: {why:?}")),
            Event::Closed { conn } => said(format!("the connection to {} is gone", self.say_receiver(conn.0))),
            Event::Message { conn, msg } => {
                let message = self.say_node_msg(msg);
                Said { words: format!("{}: {}", self.say_receiver(conn.0), message.words), quiet: message.quiet }
            }
            Event::Mailbox { mailbox, .. } => quiet(self.say_mailbox(mailbox).words),
            Event::Detach => said("told to detach"),
        }
    }

    /// What a client wants done.
    pub(crate) fn say_client_action(&self, action: &session::Action) -> Said {
        use session::Action;
        match action {
            Action::Connect { .. } => quiet("connects"),
            Action::Close { conn } => said(format!("destroys the connection to {}", self.say_receiver(conn.0))),
            Action::Send { conn, msg } => {
                let message = say_client(msg);
                Said { words: format!("tells {}: {}", self.say_receiver(conn.0), message.words), quiet: message.quiet }
            }
            Action::Post { conn, blob } => said(format!("sends {} to {}", blob.seq, self.say_receiver(conn.0))),
            Action::WritesCompleted { upto } => said(format!("COMPLETED up to {upto}")),
            Action::ReadCompleted { id, .. } => said(format!("read {id} COMPLETED")),
            Action::Opened { generation } => said(format!("the session is open: {generation}")),
            Action::Ended(why) => said(format!("ends: {why:?}")),
            Action::Notice(session::Notice::NewEpoch { epoch, primary, dual }) => {
                let how = if *dual { "both hold" } else { "alone" };
                said(format!("knows: in {epoch} {primary} serves, {how}"))
            }
            Action::Notice(notice) => said(format!("{notice:?}")),
        }
    }

    pub(crate) fn say_superblock(&self, superblock: &Superblock) -> String {
        let members = self.say_members(superblock.members);
        let serves = superblock.primary.map_or("nobody".into(), |node| node.to_string());
        let clean = if superblock.clean { ", clean" } else { "" };
        format!("{} {}: {members}, {serves} serves{clean}", superblock.epoch, superblock.generation)
    }

    fn say_members(&self, members: Members) -> String {
        let names = NodeId::BOTH.into_iter().filter_map(|node| members.of(node));
        let names: Vec<String> = names.map(|who| self.say_incarnation(who)).collect();
        if names.is_empty() { "no member".into() } else { names.join("+") }
    }

    fn say_incarnation(&self, who: Incarnation) -> String {
        self.trace.name(who)
    }

    fn say_sender(&self, conn: u64) -> String {
        self.say_end(conn, 0)
    }

    fn say_receiver(&self, conn: u64) -> String {
        self.say_end(conn, 1)
    }

    fn say_end(&self, conn: u64, end: usize) -> String {
        let conn = usize::try_from(conn).ok().and_then(|at| self.net.conns.get(at));
        match conn.map(|c| (c.ends[end], c.relay)) {
            Some((host @ Host::Node(_), true)) => format!("{host}, relaying"),
            Some((host, _)) => host.to_string(),
            None => "somebody".into(),
        }
    }
}

fn say_client(msg: &ClientMsg) -> Said {
    match msg {
        ClientMsg::Attach { .. } => said("attach"),
        ClientMsg::Resume { generation, first } => said(format!("resume {generation} from {first} on")),
        ClientMsg::Read { id, epoch, lba, blocks, .. } => {
            said(format!("read {id} in {epoch}: {}", say_blocks(lba.0, (*blocks).into())))
        }
        ClientMsg::Heartbeat => quiet("heartbeat"),
        ClientMsg::Unreachable { node, .. } => quiet(format!("I can't reach {node}")),
        ClientMsg::Detach => said("detach"),
    }
}

fn say_blob(blob: &Blob) -> String {
    format!("{} {:?} {}", blob.seq, blob.kind, say_blocks(blob.lba.0, blob.blocks.into()))
}

pub(crate) fn say_blocks(lba: u64, blocks: u64) -> String {
    if blocks == 1 { format!("block {lba}") } else { format!("blocks {lba}-{}", lba + blocks - 1) }
}

fn say_role(role: Role) -> String {
    format!("{role:?}").to_lowercase()
}

fn say_error(error: DiskError) -> &'static str {
    match error {
        DiskError::Conflict => "a reservation conflict",
        DiskError::Failed => "I/O error",
        DiskError::Corrupt => "neither slot is good",
    }
}

fn say_written(result: Result<(), DiskError>) -> String {
    result.map_or_else(|error| format!("is not written: {}", say_error(error)), |()| "is on the disk".into())
}

fn say_fence(result: Result<(), FenceError>, done: &str) -> String {
    match result {
        Ok(()) => done.into(),
        Err(FenceError::Lost) => "another one was quicker".into(),
        Err(FenceError::Failed) => "the fence does not reach the disk".into(),
    }
}

fn list(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}
