//! Waiting, and what there is to do when something is ready.
//!
//! A poll that finds one short transfer makes two system calls: epoll_wait(2) and recv(2).

use std::time::Instant;

use twinsan_fabric::{CloseReason, ConnId, Event};
use twinsan_wire::limits::MAX_MESSAGE_BYTES;

use super::TcpFabric;
use crate::connection::Connection;
use twinsan_fabric::parts::{Queues, Readiness, Token, Wait, Waiting};

impl Queues for TcpFabric {
    fn waiting(&mut self) -> &mut Waiting {
        &mut self.waiting
    }

    /// All that comes, comes by descriptors.
    fn has_queues(&self) -> bool {
        false
    }

    fn poll_queues(&mut self, events: &mut Vec<Event>) -> usize {
        let before = events.len();
        self.collect(events);
        events.len() - before
    }

    /// One epoll_wait, and all that follows from it.
    fn look(&mut self, events: &mut Vec<Event>, wait: Wait) {
        let count = self.poller.wait(wait);
        for index in 0..count {
            if let Some(ready) = self.poller.ready(index) {
                self.dispatch(ready, events);
            }
        }
        if self.timer().is_some() {
            self.timers(Instant::now(), events);
        }
        self.collect(events);
    }

    fn prepare_to_sleep(&mut self, _: &mut Vec<Event>) -> usize {
        0
    }

    fn next_timer(&self) -> Option<Instant> {
        self.timer()
    }
}

impl TcpFabric {
    fn dispatch(&mut self, ready: Readiness, events: &mut Vec<Event>) {
        match ready.token {
            Token::Conn(conn) if self.connections.contains_key(&conn) => self.serve(conn, ready, events),
            Token::Conn(conn) => self.dialled(conn),
            Token::Listener(index) => self.accept(index, events),
            Token::Watch(fd) => events.extend(self.watches.ready(fd)),
            Token::Resolver => self.resolved(events),
        }
    }

    /// A connection has bytes, or room.
    fn serve(&mut self, conn: ConnId, ready: Readiness, events: &mut Vec<Event>) {
        if ready.writable
            && let Some(connection) = self.connections.get_mut(&conn)
        {
            connection.room(self.regions.as_slice(), &self.poller);
        }
        if ready.readable {
            self.receive(conn, events);
        }
        self.note_news(conn);
    }

    /// Receives from a connection; the end of it is reported.
    fn receive(&mut self, conn: ConnId, events: &mut Vec<Event>) {
        let max_message = MAX_MESSAGE_BYTES;
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let received =
            connection.receive(self.regions.as_slice(), &self.poller, max_message, &mut self.scratch, events);
        if let Err(why) = received {
            self.close(conn, why, events);
        }
    }

    /// Reports what has come up: events of set-up, completions, broken connections.
    fn collect(&mut self, events: &mut Vec<Event>) {
        events.append(&mut self.pending);
        while let Some(conn) = self.news.pop() {
            let Some(connection) = self.connections.get_mut(&conn) else { continue };
            connection.listed = false;
            events.extend(connection.outbox.reap().map(|work| Event::Sent { conn, work }));
            if connection.broken().is_some() {
                self.read_out(conn, events);
            }
        }
    }

    /// Sending has failed: what the peer said before it closed is still worth reading.
    fn read_out(&mut self, conn: ConnId, events: &mut Vec<Event>) {
        let why = self.connections.get(&conn).and_then(Connection::broken);
        self.receive(conn, events);
        if let Some(why) = why.filter(|_| self.connections.contains_key(&conn)) {
            self.close(conn, why, events);
        }
    }

    fn close(&mut self, conn: ConnId, why: CloseReason, events: &mut Vec<Event>) {
        if let Some(mut connection) = self.connections.remove(&conn) {
            events.extend(connection.outbox.reap().map(|work| Event::Sent { conn, work }));
            tracing::debug!(conn = conn.0, %why, "connection closed");
            events.push(Event::Closed { conn, why });
        }
    }
}
