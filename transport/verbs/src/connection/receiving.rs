//! Completions, and what the peer's messages say.

use std::io;
use std::time::Instant;

use twinsan_fabric::{CloseReason, ConnId, Event};

use super::{Connection, Stage, stopped_by_peer};
use crate::message::{self, HEADER, Kind};
use crate::sys::{Completion, Done, Failure};

/// A work request's number is that of a receive's slot with this bit, or of a send.
const RECEIVE: u64 = 1 << 63;

impl Connection {
    /// Posts the receives that have been used, with one call.
    ///
    /// # Errors
    /// The device's.
    pub(super) fn post_receives(&mut self) -> io::Result<()> {
        let Self { pair, pool, used, .. } = self;
        let receives = used.drain(..).map(|slot| pool.receive(slot, RECEIVE | slot as u64));
        pair.post_receives(pool.memory(), receives)
    }

    /// Posts receives again, then gives back the credits for them: in this order, as the peer may use them at once.
    pub(super) fn refill(&mut self) {
        if self.failure.is_some() {
            return;
        }
        match self.post_receives() {
            Ok(()) => self.return_credits(),
            Err(e) => self.fail(CloseReason::Unreachable(format!("the device took no receives: {e}"))),
        }
    }

    /// Takes one batch of completions; returns their number.
    pub(super) fn take(&mut self, conn: ConnId, events: &mut Vec<Event>) -> usize {
        let mut completions = std::mem::take(&mut self.completions);
        let count = match self.pair.completions(&mut completions) {
            Ok(count) => count,
            Err(e) => {
                self.fail(CloseReason::Unreachable(e.to_string()));
                0
            }
        };
        let before = self.first_flying;
        for completion in completions.drain(..) {
            self.completed(completion, conn, events);
        }
        if self.first_flying > before {
            self.watch.completed(self.first_flying, Instant::now);
        }
        self.completions = completions;
        count
    }

    fn completed(&mut self, Completion { number, outcome }: Completion, conn: ConnId, events: &mut Vec<Event>) {
        // What follows a message that broke the rules may have come with it; nothing of it counts.
        if matches!(self.failure, Some(CloseReason::Violation(_))) {
            return;
        }
        let slot = (number & RECEIVE != 0).then_some((number & !RECEIVE) as usize);
        let done = match outcome {
            Ok(done) => done,
            Err(failure) => return self.fail(reason(failure, slot.is_some())),
        };
        // What the peer sends shows that it is established, whatever the connection manager's message about that is
        // doing meanwhile.
        if matches!(self.stage, Stage::Accepting(_)) {
            self.stage = Stage::Open;
            events.push(Event::Accepted { conn });
        }
        match (done, slot) {
            (Done::Sent, None) => self.sent(number, conn, events),
            // Its key was looked at by nobody; ours travel as messages.
            (Done::Immediate { len: 0, .. }, Some(_)) => {
                self.fail(CloseReason::Violation("a write with immediate of no bytes, which needs no key".into()));
            }
            (Done::Immediate { imm, .. }, Some(slot)) => {
                self.used.push(slot);
                match self.credits.used() {
                    Ok(()) => events.push(Event::Immediate { conn, imm }),
                    Err(why) => self.fail(CloseReason::Violation(why)),
                }
            }
            (Done::Message(len), Some(slot)) => {
                self.used.push(slot);
                if let Err(why) = self.take_message(slot, len, conn, events) {
                    self.fail(CloseReason::Violation(why));
                }
            }
            (done, slot) => panic!("the device says {done:?} of receive {slot:?}, work request {number:#x}"),
        }
    }

    fn take_message(&mut self, slot: usize, len: usize, conn: ConnId, events: &mut Vec<Event>) -> Result<(), String> {
        let at = self.pool.receive_at(slot);
        // Copied out once, then checked; what is beyond the message is some older one's.
        let mut start = [0; HEADER + 20];
        let filled = len.min(start.len());
        self.pool.get(at, &mut start[..filled]);
        let head = message::decode(&start, len)?;
        if head.credits > 0 {
            self.credits.returned(head.credits)?;
        }
        match head.kind {
            Kind::Credits => {}
            Kind::Message => {
                self.credits.used()?;
                let mut bytes = vec![0; len - HEADER].into_boxed_slice();
                self.pool.get(at + HEADER, &mut bytes);
                events.push(Event::Message { conn, bytes });
            }
            Kind::Empty { to, imm } => {
                self.credits.used()?;
                if !self.exposures.allow_empty(to) {
                    return Err(format!("a write of no bytes to {to:?}, outside of what was opened to it"));
                }
                events.extend(imm.map(|imm| Event::Immediate { conn, imm }));
            }
        }
        Ok(())
    }
}

/// What a failed work request, a receive or a send, says about the connection. Only the first one counts: all that follow
/// are flushed.
fn reason(failure: Failure, receive: bool) -> CloseReason {
    match failure {
        Failure::Flushed => stopped_by_peer(),
        Failure::RemoteAccess if receive => stopped_by_peer(),
        Failure::TooLong if receive => CloseReason::Violation("a message longer than any may be".into()),
        Failure::RemoteAccess => CloseReason::Violation("it did not let us write where it had told us to".into()),
        Failure::RemoteRequest => CloseReason::Violation("it did not take our message".into()),
        Failure::NoReceiver => CloseReason::Violation("it had no receive for what it had given a credit for".into()),
        Failure::NoAnswer | Failure::TooLong | Failure::Other(_) => CloseReason::Unreachable(failure.to_string()),
    }
}
