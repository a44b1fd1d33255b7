//! An established connection: its socket and what belongs to it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use twinsan_arena::Arena;
use twinsan_fabric::{CloseReason, ConnId, Event, Interest};

use crate::credits::Credits;
use crate::inbox::{Context, Inbox};
use crate::outbox::{Flushed, Outbox};
use crate::socket;
use twinsan_fabric::parts::{Exposures, Poller, Token};

/// See the module. Dropping it closes the socket, and epoll forgets it.
#[derive(Debug)]
pub(crate) struct Connection {
    id: ConnId,
    socket: OwnedFd,
    inbox: Inbox,
    pub(crate) outbox: Outbox,
    pub(crate) exposures: Exposures,
    credits: Credits,
    /// The socket is full; epoll tells when it no longer is.
    blocked: bool,
    /// Sending has failed. What the peer had sent before may still be there to be read, so this is not the end yet.
    broken: Option<CloseReason>,
    /// It is on the fabric's list of connections that the next poll looks at.
    pub(crate) listed: bool,
}

impl Connection {
    /// Takes over a connected socket and begins to watch it.
    pub(crate) fn new(id: ConnId, socket: OwnedFd, poller: &Poller) -> io::Result<Self> {
        poller.add(socket.as_fd(), Token::Conn(id), Interest::Readable)?;
        Ok(Self {
            id,
            socket,
            inbox: Inbox::new(),
            outbox: Outbox::new(),
            exposures: Exposures::default(),
            credits: Credits::new(),
            blocked: false,
            broken: None,
            listed: false,
        })
    }

    /// Whether posts are still taken.
    pub(crate) const fn is_open(&self) -> bool {
        self.broken.is_none()
    }

    /// Sends what may go, unless the socket is known to be full.
    pub(crate) fn flush(&mut self, regions: &[Arc<Arena>], poller: &Poller) {
        if !self.blocked && self.broken.is_none() && self.outbox.has_work(&self.credits) {
            self.send(regions, poller);
        }
    }

    /// The socket has room again.
    pub(crate) fn room(&mut self, regions: &[Arc<Arena>], poller: &Poller) {
        if self.blocked && self.broken.is_none() {
            self.send(regions, poller);
        }
    }

    /// Whether the next poll must look at it, event or not.
    pub(crate) const fn has_news(&self) -> bool {
        self.outbox.has_gone() || self.broken.is_some()
    }

    /// Receives what is there, and answers credits.
    ///
    /// # Errors
    /// The reason why the connection is over.
    pub(crate) fn receive(
        &mut self,
        regions: &[Arc<Arena>],
        poller: &Poller,
        max_message: usize,
        scratch: &mut [u8],
        events: &mut Vec<Event>,
    ) -> Result<(), CloseReason> {
        let mut cx = Context {
            conn: self.id,
            regions,
            exposures: &self.exposures,
            credits: &mut self.credits,
            max_message,
            scratch,
            events,
        };
        self.inbox.receive(self.socket.as_fd(), &mut cx)?;
        // Credits may have come for posts that waited, or be owed.
        self.flush(regions, poller);
        Ok(())
    }

    /// Why it broke, once nothing more can be read.
    pub(crate) fn broken(&self) -> Option<CloseReason> {
        self.broken.clone()
    }

    fn send(&mut self, regions: &[Arc<Arena>], poller: &Poller) {
        let outcome = self.outbox.flush(self.socket.as_fd(), regions, &mut self.credits);
        let blocked = match outcome {
            Ok(flushed) => flushed == Flushed::Blocked,
            Err(e) => {
                self.broken = Some(socket::reason(&e));
                false
            }
        };
        if blocked != self.blocked {
            let interest = if blocked { Interest::ReadableWritable } else { Interest::Readable };
            if let Err(e) = poller.modify(self.socket.as_fd(), Token::Conn(self.id), interest) {
                self.broken = Some(CloseReason::Unreachable(format!("epoll_ctl: {e}")));
            }
            self.blocked = blocked;
        }
    }
}
