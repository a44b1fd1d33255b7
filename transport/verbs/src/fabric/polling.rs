//! Waiting, and what there is to do when something is ready.
//!
//! A poll that finds completions makes no system call but the doorbells that follow from them; one that finds none makes
//! one, epoll_wait(2).

use std::time::{Duration, Instant};

use twinsan_fabric::parts::{Readiness, Token, Wait};
use twinsan_fabric::{CloseReason, ConnId, Event};

use super::VerbsFabric;
use crate::connection::Stage;

/// After so many polls in a row that were content with the completion queues, the descriptors are looked at.
const MOST_UNLOOKED: u32 = 16;

/// While spinning, the descriptors are looked at once in so many looks at the completion queues.
const LOOK_EVERY: u32 = 8;

/// The first so many looks of a spin don't give way to others: about a microsecond.
const EAGER_LOOKS: u32 = 4;

impl VerbsFabric {
    /// [`twinsan_fabric::Fabric::poll`].
    pub(super) fn poll_until(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) {
        let before = events.len();
        self.poll_queues(events);
        if events.len() > before && self.unlooked < MOST_UNLOOKED {
            self.unlooked += 1;
            return;
        }
        // Who is going to sleep at once looks at the descriptors by that.
        if events.len() > before || timeout.is_none() || !self.options.wait.spin.is_zero() {
            self.look(events, Wait::Not);
        }
        let Some(timeout) = timeout.filter(|_| events.len() == before) else { return };
        let start = Instant::now();
        let end = start.checked_add(timeout);
        let mut looks = 0;
        while events.len() == before {
            let now = Instant::now();
            if end.is_some_and(|end| now >= end) {
                return;
            }
            if now.duration_since(start) < self.options.wait.spin {
                self.spin(events, looks);
                looks += 1;
                continue;
            }
            if self.prepare_to_sleep(events) > 0 {
                return;
            }
            let until = [end, self.next_timer()].into_iter().flatten().min();
            self.look(events, until.map_or(Wait::Forever, |until| Wait::For(until.saturating_duration_since(now))));
        }
    }

    fn spin(&mut self, events: &mut Vec<Event>, looks: u32) {
        if looks >= EAGER_LOOKS {
            std::thread::yield_now();
        }
        if looks % LOOK_EVERY == LOOK_EVERY - 1 {
            self.look(events, Wait::Not);
        } else {
            self.poll_queues(events);
        }
    }

    /// Looks at the completion queues alone, without a system call. Returns the number of events added.
    pub fn poll_queues(&mut self, events: &mut Vec<Event>) -> usize {
        let before = events.len();
        self.take_some(events);
        events.len() - before
    }

    /// As above. Returns whether completions may be left: not all of them make events.
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

    /// Sees to it that the descriptor of this fabric becomes readable with the next event, and takes what has come until
    /// then. Returns the number of events added: only if there are none may the caller sleep, until
    /// [`VerbsFabric::next_timer`] at most.
    pub fn prepare_to_sleep(&mut self, events: &mut Vec<Event>) -> usize {
        for connection in self.connections.values_mut() {
            connection.arm();
        }
        // A completion that was there before the arming wakes nobody: none may be left, whether it makes an event or not.
        let before = events.len();
        while self.take_some(events) && events.len() == before {}
        events.len() - before
    }

    /// Looks at the descriptors, and at the completion queues after them: for whoever has seen the descriptor of this fabric
    /// readable. Returns the number of events added.
    pub fn poll_descriptors(&mut self, events: &mut Vec<Event>) -> usize {
        let before = events.len();
        self.look(events, Wait::Not);
        events.len() - before
    }

    /// One epoll_wait, and all that follows from it.
    fn look(&mut self, events: &mut Vec<Event>, wait: Wait) {
        self.unlooked = 0;
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

    fn dispatch(&mut self, ready: Readiness, events: &mut Vec<Event>) {
        match ready.token {
            Token::Conn(conn) => {
                if let Some(connection) = self.connections.get_mut(&conn) {
                    connection.hush();
                }
            }
            // What brings connections here is the connection manager's one channel.
            Token::Listener(_) => self.manage(events),
            Token::Watch(fd) => events.extend(self.watched.get(&fd).map(|&token| Event::Ready { token })),
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
