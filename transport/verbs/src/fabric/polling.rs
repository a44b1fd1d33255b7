//! Waiting, and what there is to do when something is ready.

use std::time::Instant;

use twinsan_fabric::parts::{Queues, Readiness, Token, Wait, Waiting};
use twinsan_fabric::{CloseReason, ConnId, Event};

use super::VerbsFabric;
use crate::connection::Stage;

impl Queues for VerbsFabric {
    fn waiting(&mut self) -> &mut Waiting {
        &mut self.waiting
    }

    fn has_queues(&self) -> bool {
        true
    }

    fn poll_queues(&mut self, events: &mut Vec<Event>) -> usize {
        let before = events.len();
        self.take_some(events);
        events.len() - before
    }

    fn look(&mut self, events: &mut Vec<Event>, wait: Wait) {
        let count = self.poller.wait(wait);
        for index in 0..count {
            if let Some(ready) = self.poller.ready(index) {
                self.dispatch(ready, events);
            }
        }
        self.poll_queues(events);
        if self.next_timer().is_some() {
            self.timers(Instant::now());
            self.poll_queues(events);
        }
    }

    fn prepare_to_sleep(&mut self, events: &mut Vec<Event>) -> usize {
        for connection in self.connections.values_mut() {
            connection.arm();
        }
        // A completion that was there before the arming wakes nobody: none may be left, whether it makes an event or not.
        let before = events.len();
        while self.take_some(events) && events.len() == before {}
        events.len() - before
    }

    fn next_timer(&self) -> Option<Instant> {
        self.timer()
    }
}

impl VerbsFabric {
    /// Looks at the completion queues. Returns whether completions may be left: not all of them make events.
    fn take_some(&mut self, events: &mut Vec<Event>) -> bool {
        events.append(&mut self.pending);
        let mut over = std::mem::take(&mut self.over);
        let mut more = false;
        for (&conn, connection) in &mut self.connections {
            more |= connection.poll(conn, events);
            if connection.failure().is_some() {
                connection.poll_out(conn, events);
                over.push(conn);
            }
        }
        for conn in over.drain(..) {
            self.close(conn, events);
        }
        self.over = over;
        more
    }

    fn dispatch(&mut self, ready: Readiness, events: &mut Vec<Event>) {
        match ready.token {
            Token::Conn(conn) => {
                if let Some(connection) = self.connections.get_mut(&conn) {
                    connection.hush();
                }
            }
            // What brings connections here is the connection manager's one channel.
            Token::Listener(_) => self.manage(events),
            Token::Watch(fd) => events.extend(self.watches.ready(fd)),
            Token::Resolver => self.resolved(),
        }
    }

    /// Reports the end of a connection that has failed, after it is destroyed.
    fn close(&mut self, conn: ConnId, events: &mut Vec<Event>) {
        let Some(connection) = self.connections.remove(&conn) else { return };
        let why = connection.failure().cloned().unwrap_or(CloseReason::Ended);
        let known = connection.stage == Stage::Open;
        drop(connection);
        tracing::debug!(conn = conn.0, %why, "connection closed");
        if known {
            events.push(Event::Closed { conn, why });
        }
    }
}
