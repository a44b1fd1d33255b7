//! The one loop: NBD sockets or the kernel's queue, the session, the fabric. No thread hop between any two of them.
//!
//! ```text
//!            ┌─────────────── poll: fabric, requests, signals ◀────────────────┐
//!            ▼                                                                  │
//!   fabric events ─▶ session ─▶ actions ─▶ completions to the front end         │
//!   requests ──────▶ front end ─▶ session (place, write, read) ─▶ actions       │
//!                                              │                                │
//!                                              ▼                                │
//!                            post to both nodes: one doorbell each              │
//!                            replies: one gathered write per connection ────────┘
//! ```
//!
//! ```text
//! Opening ──Opened──▶ Serving ──signal──▶ Releasing ──▶ Stopping ──idle──▶ Detaching ──Ended──▶ Over
//!    └─── signal ──────────────────────────────────────────▲                               ▲
//!    └─── refused ────────────┴── superseded ──────────────────────────────────────────────┘
//! ```

use std::time::{Duration, Instant};

use twinsan_fabric::parts::Ticks;
use twinsan_fabric::{Event as FabricEvent, Fabric};
use twinsan_session::{Action, Ended, Event};
use twinsan_wire::NodeId;

use super::clock::Clock;
use super::door::{Door, News, Sockets};
use super::ladder::Ladder;
use super::nodes::Nodes;
use super::notice;
use super::placement::Placement;
use super::signals::Signals;
use super::volume::Volume;
use crate::front::FrontEnd;

/// Tokens of the watched descriptors; those of NBD connections follow.
pub(crate) const SIGNALS: u64 = 0;
pub(crate) const DOOR: u64 = 1;
pub(crate) const FIRST_CONNECTION: u64 = 2;

/// How often the session hears that time has passed.
const TICK_MS: u64 = 10;
/// How long an orderly end may take; then it is as if the process had been killed, which loses nothing completed.
const STOP_TIMEOUT_MS: u64 = 30_000;
/// How long the farewell may take to leave.
const FAREWELL: Duration = Duration::from_millis(200);

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The session has ended.
    Ended(Ended),
    /// It was told to stop, and could not in order: so many connections' requests were open, or the primary was not in
    /// reach.
    Abandoned,
    /// No request could come in, and why.
    Shut(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Opening,
    Serving,
    /// Requests are still served until the door says that it is released.
    Releasing {
        deadline_ms: u64,
    },
    Stopping {
        deadline_ms: u64,
    },
    Detaching {
        deadline_ms: u64,
    },
    Over(Outcome),
}

/// Everything that the loop owns.
pub(crate) struct Driver<F: Fabric> {
    pub(crate) fabric: F,
    pub(crate) nodes: Nodes,
    pub(crate) volume: Volume,
    pub(crate) front: FrontEnd,
    pub(crate) door: Door,
    pub(crate) signals: Signals,
    pub(crate) clock: Clock,
    /// Called once, when the volume is open and requests may come.
    pub(crate) on_ready: Box<dyn FnMut(&Door)>,
    state: State,
    /// Why no request can come in.
    shut: Option<String>,
    ticks: Ticks,
    placement: Placement,
}

/// What a driver is made of.
pub(crate) struct Parts<F: Fabric> {
    pub(crate) fabric: F,
    pub(crate) nodes: Nodes,
    pub(crate) volume: Volume,
    pub(crate) front: FrontEnd,
    pub(crate) door: Door,
    pub(crate) signals: Signals,
    pub(crate) clock: Clock,
    /// The pair's.
    pub(crate) heartbeat_ms: u64,
    pub(crate) on_ready: Box<dyn FnMut(&Door)>,
}

impl<F: Fabric> Driver<F> {
    pub(crate) fn new(parts: Parts<F>) -> Self {
        let Parts { fabric, nodes, volume, front, door, signals, clock, heartbeat_ms, on_ready } = parts;
        let ticks = Ticks::new(TICK_MS, heartbeat_ms, clock.now_ms());
        let (state, shut, placement) = (State::Opening, None, Placement::of_this_thread());
        Self { fabric, nodes, volume, front, door, signals, clock, on_ready, state, shut, ticks, placement }
    }

    /// Until the session ends or a signal ends it.
    pub(crate) fn run(mut self) -> Outcome {
        self.volume.now_ms = self.clock.now_ms();
        self.volume.session.start(self.volume.now_ms, &mut self.volume.actions);
        self.carry_out();
        let mut events = Vec::with_capacity(256);
        loop {
            self.wait(&mut events);
            self.volume.now_ms = self.clock.now_ms();
            for event in events.drain(..) {
                self.dispatch(event);
            }
            self.tick();
            self.front.work(&mut self.volume, self.clock.now_ms());
            self.carry_out();
            self.nodes.flush(&mut self.fabric);
            self.climb(Ladder::posted);
            self.front.send(&mut Sockets(&mut self.fabric));
            self.climb(Ladder::answered);
            self.go_on();
            if let State::Over(outcome) = &self.state {
                let outcome = outcome.clone();
                self.farewell(&outcome, &mut events);
                self.write_ladder();
                return self.shut.map_or(outcome, Outcome::Shut);
            }
        }
    }

    /// Polls; the fabric spins for a while before it sleeps, if that pays.
    fn wait(&mut self, events: &mut Vec<FabricEvent>) {
        let wait = (!self.front.has_work()).then(|| self.ticks.left(self.clock.now_ms()));
        self.fabric.poll(events, wait);
    }

    fn dispatch(&mut self, event: FabricEvent) {
        // Nodes' heartbeats are messages.
        if !matches!(event, FabricEvent::Message { .. }) {
            self.ticks.stir(self.volume.now_ms);
        }
        match event {
            FabricEvent::Ready { token: SIGNALS } => {
                if self.signals.take() {
                    self.stop();
                }
            }
            FabricEvent::Ready { token: DOOR } => {
                let news = self.door.ready(&mut self.fabric, &mut self.front);
                self.heard(news);
            }
            FabricEvent::Ready { token } => {
                self.front.ready(token);
                self.placement.arrived(self.nodes.cores(&self.fabric));
            }
            event => {
                if let Some(event) = self.nodes.handle(event, &mut self.fabric, self.volume.now_ms) {
                    self.volume.handle(event);
                    self.carry_out();
                }
            }
        }
    }

    fn tick(&mut self) {
        let now = self.volume.now_ms;
        if !self.ticks.take(now) {
            return;
        }
        for node in NodeId::BOTH {
            if let Some(event) = self.nodes.tick(node, &mut self.fabric, now) {
                self.volume.handle(event);
                self.carry_out();
            }
        }
        self.volume.handle(Event::Tick);
        self.carry_out();
        self.front.expire(now);
        if matches!(self.state, State::Serving | State::Releasing { .. }) {
            let news = self.door.tick(&mut self.fabric, &mut self.front);
            self.heard(news);
        }
    }

    /// The door has come to something.
    fn heard(&mut self, news: Option<News>) {
        match (news, &self.state) {
            (Some(News::Open), State::Serving) => (self.on_ready)(&self.door),
            (Some(News::Released), &State::Releasing { deadline_ms }) => self.begin_no_more(deadline_ms),
            // Told to stop while the disk was coming, which it does not.
            (Some(News::Shut(why)), &State::Releasing { deadline_ms }) => {
                self.shut = Some(format!("{why:#}"));
                self.begin_no_more(deadline_ms);
            }
            (Some(News::Shut(why)), _) => {
                self.shut = Some(format!("{why:#}"));
                self.stop();
            }
            _ => {}
        }
    }

    /// Carries out all actions in order, and those that follow from them.
    fn carry_out(&mut self) {
        while !self.volume.actions.is_empty() {
            let mut actions = std::mem::take(&mut self.volume.actions);
            let mut events = Vec::new();
            for action in actions.drain(..) {
                events.extend(self.carry_out_one(action));
            }
            // The buffer is used again; nothing has been added meanwhile, as events wait until here.
            self.volume.actions = actions;
            for event in events {
                self.volume.handle(event);
            }
        }
    }

    fn carry_out_one(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Connect { node } => return self.nodes.connect(node, &mut self.fabric, self.volume.now_ms),
            Action::Close { conn } => self.nodes.close(conn, &mut self.fabric),
            Action::Send { conn, msg } => self.nodes.send(conn, msg),
            Action::Post { conn, blob } => {
                self.placement.posted(blob.payload_len);
                self.nodes.post(conn, blob);
            }
            Action::WritesCompleted { upto } => {
                self.climb(|ladder| ladder.completed(upto));
                self.front.writes_completed(upto);
            }
            Action::ReadCompleted { slot, .. } => self.front.read_completed(slot),
            Action::Opened { generation } => self.opened(generation),
            Action::Ended(ended) => self.ended(ended),
            Action::Notice(notice) => notice::log(notice, &self.nodes),
        }
        None
    }

    /// For whoever wants to know where the microseconds go.
    fn climb(&mut self, step: impl FnOnce(&mut Ladder)) {
        if let Some(ladder) = &mut self.volume.ladder {
            self.nodes.take_times().for_each(|times| ladder.times(times));
            step(ladder);
        }
    }

    fn write_ladder(&mut self) {
        if let Some(Err(error)) = self.volume.ladder.take().map(Ladder::write) {
            tracing::error!("the file of --ladder: {error}");
        }
    }

    fn opened(&mut self, generation: twinsan_wire::Generation) {
        tracing::info!(generation = generation.0, "attached");
        if self.state != State::Opening {
            return;
        }
        self.state = State::Serving;
        let news = self.door.open(&mut self.fabric, &mut self.front);
        self.heard(news);
    }

    /// A signal: no new requests; those that are open end first. A second one ends it at once.
    fn stop(&mut self) {
        let deadline_ms = self.volume.now_ms + STOP_TIMEOUT_MS;
        match self.state {
            State::Opening | State::Serving => {
                tracing::info!("stopping");
                if self.door.release(&mut self.fabric) {
                    self.begin_no_more(deadline_ms);
                } else {
                    self.state = State::Releasing { deadline_ms };
                }
            }
            State::Releasing { .. } | State::Stopping { .. } | State::Detaching { .. } => {
                self.state = State::Over(Outcome::Abandoned);
            }
            State::Over(_) => {}
        }
    }

    fn begin_no_more(&mut self, deadline_ms: u64) {
        self.front.stop();
        self.state = State::Stopping { deadline_ms };
    }

    /// What is due while it stops.
    fn go_on(&mut self) {
        match self.state {
            State::Stopping { deadline_ms } if self.front.is_idle() => {
                self.door.close(&mut self.fabric, &mut self.front);
                self.state = State::Detaching { deadline_ms };
                self.volume.handle(Event::Detach);
                self.carry_out();
                self.nodes.flush(&mut self.fabric);
            }
            State::Releasing { deadline_ms } | State::Stopping { deadline_ms } | State::Detaching { deadline_ms }
                if self.volume.now_ms >= deadline_ms =>
            {
                self.state = State::Over(Outcome::Abandoned);
            }
            _ => {}
        }
    }

    fn ended(&mut self, ended: Ended) {
        if ended != Ended::Detached {
            self.front.fail(notice::why_ended(ended));
        }
        self.state = State::Over(Outcome::Ended(ended));
    }

    /// Lets what was said last leave: replies to NBD clients, the Detach. A socket that is closed with received bytes
    /// unread would take what it has not sent with it; so they are read until the nodes close, or for a moment.
    fn farewell(&mut self, outcome: &Outcome, events: &mut Vec<FabricEvent>) {
        let begin = Instant::now();
        if *outcome != Outcome::Abandoned {
            self.door.slam(&mut self.front);
        }
        self.nodes.flush(&mut self.fabric);
        self.front.send(&mut Sockets(&mut self.fabric));
        while *outcome != Outcome::Abandoned && begin.elapsed() < FAREWELL {
            let quiet = self.front.is_idle() && self.door.is_slammed();
            if quiet && self.nodes.is_flushed() && self.nodes.is_alone() {
                break;
            }
            self.fabric.poll(events, Some(Duration::from_millis(TICK_MS)));
            for event in events.drain(..) {
                match event {
                    FabricEvent::Ready { token: DOOR } => drop(self.door.ready(&mut self.fabric, &mut self.front)),
                    FabricEvent::Ready { token } => self.front.ready(token),
                    event => drop(self.nodes.handle(event, &mut self.fabric, self.clock.now_ms())),
                }
            }
            self.nodes.flush(&mut self.fabric);
            self.front.send(&mut Sockets(&mut self.fabric));
        }
        if *outcome != Outcome::Abandoned {
            self.door.close(&mut self.fabric, &mut self.front);
        }
        self.front.close_all(&mut Sockets(&mut self.fabric));
    }
}
