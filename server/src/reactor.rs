//! The reactor: one thread that polls the fabric, feeds the volumes' machines, and carries out what they want done.
//!
//! It decides nothing about roles, epochs or members. What it does keep:
//!
//! 1. Actions are carried out in order, each before the machine sees the next event. What is to leave is queued
//!    (`outbox.rs`) and posted when all that a poll brought has been fed; what is closed is closed at once.
//! 2. Closing is a barrier: the fabric has destroyed the connection before the next action is carried out, and
//!    whatever of it was already polled is thrown away, as it is no longer in the table.
//! 3. It never waits for a disk: jobs go to the volume's flusher, whose answers ring the doorbell.
//! 4. The heartbeats come from this loop and no other, so that a reactor that hangs is seen as dead.
//!
//! | module | |
//! | --- | --- |
//! | `actions` | carrying out |
//! | `setup` | who may connect, and dialling the other node |
//! | `relay` | feeding the other node (rule 14) |
//! | `traffic` | messages and immediates, checked, become events |
//! | `admin` | the control thread's requests |

mod actions;
mod admin;
mod relay;
mod setup;
#[cfg(test)]
mod tests;
mod traffic;

use std::collections::VecDeque;
use std::os::fd::AsFd;

use anyhow::Context;
use crossbeam_channel::Receiver;
use twinsan_auth::Keyring;
use twinsan_fabric::parts::Ticks;
use twinsan_fabric::{CloseReason, ConnId, Event as FabricEvent, Fabric, Interest};
use twinsan_replica::{Action, Event, LinkId, RelayId};
use twinsan_wire::NodeId;

use crate::clock::Clock;
use crate::conn::{Conn, Conns, Stage};
use crate::control::Asked;
use crate::doorbell::Doorbell;
use crate::limits::{SETUP_TIMEOUT_MS, TICK_MS};
use crate::outbox::Overrun;
use crate::placement::Placement;
use crate::signals::Signals;
use crate::volume::Volume;
use crate::watchdog::Watchdog;

const BELL: u64 = 1;
const SIGNALS: u64 = 2;

/// What the reactor hears besides its fabric.
pub(crate) struct Ears {
    /// Rung by flushers, the watchers of paths and the control thread.
    pub(crate) bell: Doorbell,
    /// SIGTERM and SIGINT.
    pub(crate) signals: Signals,
    /// From the control thread.
    pub(crate) requests: Receiver<Asked>,
    /// The service manager's.
    pub(crate) watchdog: Watchdog,
}

/// Who this node is.
pub(crate) struct Identity {
    /// Which of the two.
    pub(crate) node: NodeId,
    /// Its name.
    pub(crate) name: String,
    /// The volumes' keys.
    pub(crate) keyring: Keyring,
}

/// How the node ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// In order: every volume was handed over, drained or left.
    Orderly,
    /// At once, as a second signal asked. It is safe; the other node takes it for a crash.
    Forced,
}

/// See the module.
pub(crate) struct Reactor<F: Fabric> {
    fabric: F,
    conns: Conns,
    volumes: Vec<Volume>,
    identity: Identity,
    ears: Ears,
    clock: Clock,
    now: u64,
    ticks: Ticks,
    /// Events that came up while actions were carried out: fed next, in order.
    inbox: VecDeque<(usize, Event)>,
    /// Kept for its memory.
    actions: Vec<Action>,
    /// Kept for its memory.
    dirty: Vec<ConnId>,
    signals_seen: usize,
    placement: Placement,
    /// Rejected set-ups are logged at most once a second.
    rejections_quiet_until: u64,
}

impl<F: Fabric> Reactor<F> {
    /// Takes everything over. Nothing happens before [`Reactor::run`].
    ///
    /// # Errors
    /// If the fabric can't watch the descriptors.
    pub(crate) fn new(
        mut fabric: F,
        volumes: Vec<Volume>,
        identity: Identity,
        ears: Ears,
        clock: Clock,
        heartbeat_ms: u64,
    ) -> anyhow::Result<Self> {
        fabric.watch(ears.bell.as_fd(), BELL, Interest::Readable).context("watching the doorbell")?;
        fabric.watch(ears.signals.as_fd(), SIGNALS, Interest::Readable).context("watching for signals")?;
        Ok(Self {
            fabric,
            conns: Conns::default(),
            volumes,
            identity,
            ears,
            clock,
            now: 0,
            ticks: Ticks::new(TICK_MS, heartbeat_ms, clock.now_ms()),
            inbox: VecDeque::new(),
            actions: Vec::new(),
            dirty: Vec::new(),
            signals_seen: 0,
            placement: Placement::of_this_thread(),
            rejections_quiet_until: 0,
        })
    }

    /// From now on lets others in at `address`. Where that is.
    ///
    /// # Errors
    /// If it can't be listened at.
    pub(crate) fn listen(&mut self, address: &str) -> anyhow::Result<String> {
        Ok(self.fabric.listen(address)?)
    }

    /// Runs until every volume has ended, or a second signal comes.
    pub(crate) fn run(mut self) -> Ending {
        self.start();
        self.ears.watchdog.ready();
        let mut events = Vec::new();
        loop {
            let wait = self.ticks.left(self.now);
            self.fabric.poll(&mut events, Some(wait));
            self.turn(&mut events);
            if self.signals_seen > 1 {
                return Ending::Forced;
            }
            if self.volumes.iter().all(|volume| volume.ended) {
                return Ending::Orderly;
            }
        }
    }

    fn start(&mut self) {
        self.now = self.clock.now_ms();
        for volume in 0..self.volumes.len() {
            let mut actions = std::mem::take(&mut self.actions);
            self.volumes[volume].replica.start(self.now, &mut actions);
            self.carry_out(volume, actions);
            self.feed_inbox();
        }
        self.flush_outboxes();
    }

    /// One turn of the loop: all that a poll brought, the clock's part, and what is to leave.
    fn turn(&mut self, events: &mut Vec<FabricEvent>) {
        self.now = self.clock.now_ms();
        for event in events.drain(..) {
            self.fabric_event(event);
        }
        if self.ticks.take(self.now) {
            self.tick();
        }
        self.flush_outboxes();
    }

    fn fabric_event(&mut self, event: FabricEvent) {
        // At rest there are heartbeats, by message and by mailbox, and the disk's heartbeat, which rings the bell.
        let comes_or_goes =
            matches!(event, FabricEvent::Accepted { .. } | FabricEvent::Connected { .. } | FabricEvent::Closed { .. });
        if comes_or_goes {
            self.ticks.stir(self.now);
        }
        match event {
            FabricEvent::Accepted { conn } => self.accepted(conn),
            FabricEvent::Connected { conn } => self.connected(conn),
            FabricEvent::Message { conn, bytes } => self.message(conn, &bytes),
            FabricEvent::Immediate { conn, imm } => self.immediate(conn, imm),
            FabricEvent::Sent { conn, work } => self.sent(conn, work),
            FabricEvent::Closed { conn, why } => self.closed(conn, &why),
            FabricEvent::Ready { token: BELL } => self.answer_bell(),
            FabricEvent::Ready { .. } => self.signalled(),
        }
    }

    fn tick(&mut self) {
        for volume in 0..self.volumes.len() {
            self.feed(volume, Event::Tick);
        }
        self.expire();
        self.ears.watchdog.pet(self.now);
    }

    /// Connections whose set-up takes too long, and dials whose address does not answer.
    fn expire(&mut self) {
        let now = self.now;
        let late = |conn: &Conn| conn.is_passing() && !conn.is_dial() && now >= conn.since + SETUP_TIMEOUT_MS;
        for conn in self.conns.which(late) {
            tracing::debug!(conn = conn.0, "its set-up took longer than {SETUP_TIMEOUT_MS} ms: closed");
            self.destroy(conn);
        }
        self.expire_dials();
    }

    fn answer_bell(&mut self) {
        self.ears.bell.hush();
        for volume in 0..self.volumes.len() {
            while let Ok(done) = self.volumes[volume].done.try_recv() {
                self.disk_done(volume, done);
            }
            if let Some(usable) = self.volumes[volume].paths.news() {
                self.feed(volume, Event::Paths { usable });
            }
        }
        while let Ok(asked) = self.ears.requests.try_recv() {
            self.administer(asked);
        }
    }

    fn signalled(&mut self) {
        let before = self.signals_seen;
        self.signals_seen += self.ears.signals.take();
        if before == 0 && self.signals_seen > 0 {
            tracing::info!("asked to end: handing over, draining or leaving (a second signal ends at once)");
            self.ears.watchdog.stopping();
            for volume in 0..self.volumes.len() {
                self.feed(volume, Event::Shutdown);
            }
        }
    }

    /// Gives a machine an event and carries out what follows, and all that comes up by that.
    fn feed(&mut self, volume: usize, event: Event) {
        self.inbox.push_back((volume, event));
        self.feed_inbox();
    }

    fn feed_inbox(&mut self) {
        while let Some((volume, event)) = self.inbox.pop_front() {
            let mut actions = std::mem::take(&mut self.actions);
            self.volumes[volume].replica.handle(event, self.now, &mut actions);
            self.carry_out(volume, actions);
        }
    }

    fn carry_out(&mut self, volume: usize, mut actions: Vec<Action>) {
        for action in actions.drain(..) {
            self.act(volume, action);
        }
        self.actions = actions;
    }

    /// Destroys a connection (contract 5): what was queued before leaves first, then nothing of it lands any more, and
    /// the reads whose answers it carried have ended. The machine is told by the caller, where it is to be told.
    fn destroy(&mut self, conn: ConnId) -> Option<Conn> {
        let mut gone = self.conns.remove(conn)?;
        let mailbox = gone.mailbox();
        // An overrun is no matter here: it is destroyed anyway.
        let _ = gone.outbox.flush(&mut self.fabric, conn, mailbox);
        self.fabric.disconnect(conn);
        self.end_answers(conn, &gone);
        Some(gone)
    }

    /// The connection is gone: the memory of its answers is ours again.
    fn end_answers(&mut self, conn: ConnId, gone: &Conn) {
        let Some(index) = gone.volume else { return };
        let volume = &mut self.volumes[index];
        volume.stopwatch.forget(conn);
        let ended: Vec<_> = volume.answering.iter().filter(|&(_, by)| *by == conn).map(|(&token, _)| token).collect();
        for token in ended {
            volume.answering.remove(&token);
            volume.slab.end(token);
            self.inbox.push_back((index, Event::ReadAnswered { token }));
        }
    }

    /// Destroys a connection and tells its machine, if that knew it.
    fn destroy_and_tell(&mut self, conn: ConnId) {
        if let Some(gone) = self.destroy(conn) {
            self.tell_gone(conn, &gone);
        }
    }

    fn tell_gone(&mut self, conn: ConnId, gone: &Conn) {
        if let Some(volume) = gone.volume {
            match gone.stage {
                Stage::Link { .. } => self.inbox.push_back((volume, Event::LinkDown { link: LinkId(conn.0) })),
                Stage::Relay { .. } => self.inbox.push_back((volume, Event::RelayDown { relay: RelayId(conn.0) })),
                Stage::Client { .. } => {
                    let conn = twinsan_replica::ConnId(conn.0);
                    self.inbox.push_back((volume, Event::ClientDown { conn }));
                }
                _ => {}
            }
        }
        self.feed_inbox();
    }

    fn closed(&mut self, conn: ConnId, why: &CloseReason) {
        let Some(gone) = self.conns.remove(conn) else { return };
        // The fabric has looked first: frames, keys and bounds are its own.
        if let CloseReason::Violation(what) = why {
            self.note_violation(conn, gone.volume, what);
        }
        self.end_answers(conn, &gone);
        if gone.is_dial() {
            self.dial_failed(conn, &gone, why);
        }
        self.tell_gone(conn, &gone);
    }

    /// Posts what is queued; whoever takes nothing any more is cut off.
    fn flush_outboxes(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        self.conns.take_dirty(&mut dirty);
        for id in dirty.drain(..) {
            let Some(conn) = self.conns.get_mut(id) else { continue };
            let mailbox = conn.mailbox();
            let outcome = conn.outbox.flush(&mut self.fabric, id, mailbox);
            match outcome {
                Ok(()) if conn.outbox.is_empty() => {}
                // What found no room goes with the next turn, at the latest a tick away.
                Ok(()) => drop(self.conns.outbox(id)),
                Err(Overrun) => {
                    if let Some(volume) = conn.volume {
                        self.volumes[volume].counters.overruns += 1;
                    }
                    tracing::warn!(conn = id.0, "the peer takes nothing any more: connection closed");
                    self.destroy_and_tell(id);
                }
            }
        }
        self.dirty = dirty;
    }
}
