//! What waits to leave by one connection.
//!
//! Everything that the machine sends is put here first and posted when the reactor has fed all that a poll brought, so
//! that many actions cost one doorbell, and so that a full send queue holds nobody up. Order is kept, with one licence:
//! a mailbox that has not been posted is replaced by a newer one of its kind, as long as nothing was sent in between.
//!
//! What says again what the peer was told last, as heartbeats at rest do, leaves unsolicited: the peer sees it when it wakes up
//! anyway, with its own tick at the latest.

use std::collections::VecDeque;

use twinsan_fabric::{ConnId, Fabric, LocalSlice, Payload, PostError, RemoteAddr, RemoteKey, WorkId};
use twinsan_replica::ReadToken;
use twinsan_wire::imm::Immediate;
use twinsan_wire::layout::{PEER_MAILBOX_SLOTS, descriptor_offset, mailbox_offset, read_offset};
use twinsan_wire::limits::MAILBOX_BYTES;
use twinsan_wire::message::LaneGrant;
use twinsan_wire::{Descriptor, Encoded, Mailbox};

use crate::limits::{MAX_OUTBOX, SIGNAL_EVERY};

/// The work id of posts whose end concerns nobody. Tokens count from one.
pub(crate) const NO_READ: WorkId = 0;

/// A read's answer: its pieces into the client's buffer, then the message that says so.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The read; its number is the work id of the last piece.
    pub(crate) token: ReadToken,
    /// The client's read buffers.
    pub(crate) reads: RemoteKey,
    /// Which of them.
    pub(crate) slot: u32,
    /// Its bytes, in order.
    pub(crate) pieces: Vec<LocalSlice>,
    /// ReadDone.
    pub(crate) done: Encoded,
    posted: usize,
    landed: u64,
}

impl Answer {
    /// Nothing of it posted yet.
    pub(crate) fn new(token: ReadToken, reads: RemoteKey, slot: u32, pieces: Vec<LocalSlice>, done: Encoded) -> Self {
        Self { token, reads, slot, pieces, done, posted: 0, landed: 0 }
    }
}

/// A blob of the own lane for the other node's (rule 14). The payload leaves from where it lies: nobody writes over it
/// before the other node has ACKed it, which it does when all of this has landed, or has destroyed the connection.
#[derive(Debug)]
pub(crate) struct Relayed {
    /// The other node's lane.
    pub(crate) grant: LaneGrant,
    /// Descriptor, with the client's own CRC.
    pub(crate) descriptor: Descriptor,
    /// Its slot in either lane.
    pub(crate) slot: u32,
    /// The payload; of no bytes where it has none.
    pub(crate) payload: LocalSlice,
    /// Where in the data ring.
    pub(crate) ring_offset: u64,
    payload_posted: bool,
}

impl Relayed {
    /// Nothing of it posted yet.
    pub(crate) fn new(
        grant: LaneGrant,
        descriptor: Descriptor,
        slot: u32,
        payload: LocalSlice,
        ring_offset: u64,
    ) -> Self {
        Self { grant, descriptor, slot, payload, ring_offset, payload_posted: false }
    }
}

#[derive(Debug)]
enum Item {
    /// `news`: it says what was not said before.
    Message {
        message: Encoded,
        news: bool,
    },
    Mailbox {
        slot: u32,
        bytes: [u8; MAILBOX_BYTES],
        news: bool,
    },
    Answer(Answer),
    Relayed(Relayed),
}

/// One connection's queue.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: VecDeque<Item>,
    /// How many of these are blobs of the own lane: each is there once, so the lane bounds them.
    relayed: usize,
    /// The newest mailbox of each slot, not yet posted.
    mailboxes: [Option<[u8; MAILBOX_BYTES]>; PEER_MAILBOX_SLOTS as usize],
    /// The last of each slot that was queued for its post.
    written: [Option<[u8; MAILBOX_BYTES]>; PEER_MAILBOX_SLOTS as usize],
    /// What the last heartbeat said.
    beaten: Option<Box<Encoded>>,
}

/// The queue has grown past its limit: the peer takes nothing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Overrun;

impl Outbox {
    /// Queues a message.
    pub(crate) fn message(&mut self, message: Encoded) {
        self.settle_mailboxes();
        self.queue.push_back(Item::Message { message, news: true });
    }

    /// Queues a message that is said again and again. `says`: the same without what differs each time.
    pub(crate) fn heartbeat(&mut self, message: Encoded, says: &Encoded) {
        let news = self.beaten.as_ref().is_none_or(|last| last.as_bytes() != says.as_bytes());
        if news {
            self.beaten = Some(Box::new(*says));
        }
        self.settle_mailboxes();
        self.queue.push_back(Item::Message { message, news });
    }

    /// Queues a mailbox, in place of an older one that has not left.
    pub(crate) fn mailbox(&mut self, mailbox: &Mailbox) {
        self.mailboxes[mailbox.slot() as usize] = Some(mailbox.encode());
    }

    /// Queues an answer.
    pub(crate) fn answer(&mut self, answer: Answer) {
        self.settle_mailboxes();
        self.queue.push_back(Item::Answer(answer));
    }

    /// Queues a blob of the own lane.
    pub(crate) fn relayed(&mut self, relayed: Relayed) {
        self.relayed += 1;
        self.queue.push_back(Item::Relayed(relayed));
    }

    /// Nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.mailboxes.iter().all(Option::is_none)
    }

    fn settle_mailboxes(&mut self) {
        for ((slot, mailbox), last) in (0..).zip(&mut self.mailboxes).zip(&mut self.written) {
            if let Some(bytes) = mailbox.take() {
                let news = last.replace(bytes) != Some(bytes);
                self.queue.push_back(Item::Mailbox { slot, bytes, news });
            }
        }
    }

    /// Posts as much as the connection takes and rings its doorbell. `mailbox`: the peer's mailbox region.
    ///
    /// # Errors
    /// If too much is left.
    ///
    /// # Panics
    /// If a post is refused that no peer can cause: a piece outside of our own arena.
    pub(crate) fn flush<F: Fabric>(&mut self, fabric: &mut F, conn: ConnId, mailbox: RemoteKey) -> Result<(), Overrun> {
        if self.is_empty() {
            return Ok(());
        }
        // While older things wait for room, mailboxes go on being replaced.
        if self.queue.is_empty() {
            self.settle_mailboxes();
        }
        let mut solicited = false;
        while let Some(item) = self.queue.front_mut() {
            solicited |= item.is_news();
            match item.post(fabric, conn, mailbox) {
                Ok(()) => {
                    self.relayed -= usize::from(matches!(item, Item::Relayed(_)));
                    self.queue.pop_front();
                }
                // Not connected: the fabric's Closed is on its way and will clear everything.
                Err(PostError::Full | PostError::NotConnected) => break,
                Err(error @ (PostError::TooLong { .. } | PostError::OutOfRegion)) => {
                    panic!("the driver posted what the fabric can't take: {error}")
                }
            }
            if self.queue.is_empty() {
                self.settle_mailboxes();
            }
        }
        if solicited {
            fabric.submit(conn);
        } else {
            fabric.submit_unsolicited(conn);
        }
        if self.queue.len() - self.relayed > MAX_OUTBOX { Err(Overrun) } else { Ok(()) }
    }
}

impl Item {
    /// Whether the peer is to be woken for it.
    const fn is_news(&self) -> bool {
        match self {
            Self::Message { news, .. } | Self::Mailbox { news, .. } => *news,
            Self::Answer(_) | Self::Relayed(_) => true,
        }
    }

    fn post<F: Fabric>(&mut self, fabric: &mut F, conn: ConnId, mailbox: RemoteKey) -> Result<(), PostError> {
        match self {
            Self::Message { message, .. } => fabric.send(conn, message.as_bytes()),
            Self::Mailbox { slot, bytes, .. } => {
                let to = RemoteAddr { key: mailbox, offset: mailbox_offset(*slot) };
                let imm = Immediate::Mailbox { slot: *slot }.encode();
                fabric.write_imm(conn, Payload::Inline(bytes), to, imm, None)
            }
            Self::Answer(answer) => answer.post(fabric, conn),
            Self::Relayed(relayed) => relayed.post(fabric, conn),
        }
    }
}

impl Answer {
    /// Goes on where the send queue was full.
    fn post<F: Fabric>(&mut self, fabric: &mut F, conn: ConnId) -> Result<(), PostError> {
        while let Some(&piece) = self.pieces.get(self.posted) {
            let to = RemoteAddr { key: self.reads, offset: read_offset(self.slot) + self.landed };
            let signal = if self.posted + 1 == self.pieces.len() {
                Some(self.token.0)
            } else {
                self.posted.is_multiple_of(SIGNAL_EVERY).then_some(NO_READ)
            };
            fabric.write(conn, Payload::Region(piece), to, signal)?;
            self.posted += 1;
            self.landed += u64::from(piece.len);
        }
        fabric.send(conn, self.done.as_bytes())
    }
}

impl Relayed {
    /// Payload, then descriptor: goes on where the send queue was full.
    fn post<F: Fabric>(&mut self, fabric: &mut F, conn: ConnId) -> Result<(), PostError> {
        let seq = self.descriptor.blob.seq;
        let signal = seq.0.is_multiple_of(SIGNAL_EVERY as u64).then_some(NO_READ);
        if self.payload.len > 0 && !self.payload_posted {
            let to = RemoteAddr { key: self.grant.data, offset: self.ring_offset };
            fabric.write(conn, Payload::Region(self.payload), to, None)?;
            self.payload_posted = true;
        }
        let slot = self.slot;
        let to = RemoteAddr { key: self.grant.descriptors, offset: descriptor_offset(slot) };
        let imm = Immediate::Blob { slot }.encode();
        fabric.write_imm(conn, Payload::Inline(&self.descriptor.encode()), to, imm, signal)
    }
}

#[cfg(test)]
mod tests;
