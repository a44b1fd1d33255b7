//! A volume without a front end: one program that writes and reads, and waits for each.
//!
//! For measuring: what a durable write takes from the session's call to its completion, with nothing of NBD or ublk
//! in it. The loop, the posts and the waiting are those of [`super::driver`], with the caller in the front end's place.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use twinsan_arena::PagePolicy;
use twinsan_control::Config;
use twinsan_fabric::parts::Ticks;
use twinsan_fabric::{Event as FabricEvent, Fabric, Interest};
use twinsan_session::{Action, Ended, Event, Session, SessionConfig, Status};
use twinsan_staging::Geometry;
use twinsan_wire::{BlobKind, Lba, NodeId, Seq, VolumeShape};

use super::clock::Clock;
use super::driver::SIGNALS;
use super::nodes::Nodes;
use super::signals::Signals;
use super::volume::Volume;
use super::{discover, notice, targets, timing};
use crate::memory::Memory;

/// As the driver's.
const TICK_MS: u64 = 10;
/// One that takes longer has failed: whoever measures does not wait for a volume that is not served.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the farewell may take to leave.
const FAREWELL: Duration = Duration::from_millis(200);
/// The read buffer in use: there is one caller.
const SLOT: u32 = 0;

/// An attached volume.
pub struct Direct<F: Fabric> {
    fabric: F,
    nodes: Nodes,
    volume: Volume,
    memory: Memory,
    shape: VolumeShape,
    clock: Clock,
    signals: Signals,
    events: Vec<FabricEvent>,
    ticks: Ticks,
    completed: Seq,
    read_done: bool,
    ended: Option<Ended>,
    interrupted: bool,
}

impl<F: Fabric> Direct<F> {
    /// Attaches to the volume, and returns when it is open.
    ///
    /// # Errors
    /// If the configuration, the nodes or the volume do not allow it, or not in time.
    pub fn open(config: &Config, name: &str, mut fabric: F) -> anyhow::Result<Self> {
        let volume = config.volume(name)?;
        let targets = targets(config, volume)?;
        let clock = Clock::start();
        let mut signals = Signals::catch().context("catching SIGTERM and SIGINT")?;
        fabric.watch(signals.as_fd(), SIGNALS, Interest::Readable)?;
        let shape = discover::shape(&mut fabric, &targets, &mut signals, clock)?.context("interrupted")?;
        let geometry = Geometry::for_volume(shape.ring_bytes, shape.block_bytes)
            .with_context(|| format!("volume \"{name}\": what a node says of it"))?;
        let memory = Memory::new(name, shape.ring_bytes, PagePolicy::Auto, config.shares_memory())?;
        let region = fabric.register(memory.arena().clone())?;
        let nodes = Nodes::new(targets, memory.clone(), region, shape, volume.integrity);
        let mut session = SessionConfig::new(geometry, shape.blocks);
        session.timing = timing(config);
        let volume = Volume {
            session: Session::new(session),
            actions: Vec::with_capacity(256),
            now_ms: clock.now_ms(),
            ladder: None,
        };
        let mut direct = Self {
            fabric,
            nodes,
            volume,
            memory,
            shape,
            clock,
            signals,
            events: Vec::with_capacity(256),
            ticks: Ticks::new(TICK_MS, config.timing.heartbeat_ms, clock.now_ms()),
            completed: Seq::ZERO,
            read_done: false,
            ended: None,
            interrupted: false,
        };
        direct.volume.session.start(direct.volume.now_ms, &mut direct.volume.actions);
        direct.carry_out();
        direct.until("the volume to open", |direct| direct.volume.session.is_open())?;
        Ok(direct)
    }

    /// What the nodes say of the volume.
    #[must_use]
    pub const fn shape(&self) -> VolumeShape {
        self.shape
    }

    /// Who serves, who holds.
    #[must_use]
    pub fn status(&self) -> Status {
        self.volume.session.status()
    }

    /// Writes `payload` to `lba` and returns when it is durable: how long that took. The clock starts when the payload
    /// lies in the registered ring, where front ends receive it, and stops when the session says that the write has
    /// completed; the payload's CRC, if the volume has them, is in it.
    ///
    /// # Errors
    /// If the session ends, or it takes too long.
    pub fn write(&mut self, lba: Lba, payload: &[u8]) -> anyhow::Result<Duration> {
        let blocks = self.blocks(payload.len())?;
        let len = blocks * self.shape.block_bytes;
        self.until("room in the lane", |direct| direct.volume.session.place(len).is_some())?;
        let at = self.volume.session.place(len).expect("just seen");
        self.memory.arena().copy_in(self.memory.staged(at), payload);
        let begin = Instant::now();
        self.volume.now_ms = self.clock.now_ms();
        let Volume { session, actions, now_ms, .. } = &mut self.volume;
        let seq = session.write(BlobKind::Write, lba, blocks, *now_ms, actions);
        self.act();
        self.until("the write to complete", |direct| direct.completed >= seq)?;
        Ok(begin.elapsed())
    }

    /// Reads from `lba` on: how long it took until the bytes were in the registered buffer, from which they are copied.
    ///
    /// # Errors
    /// As [`Direct::write`].
    pub fn read(&mut self, lba: Lba, into: &mut [u8]) -> anyhow::Result<Duration> {
        let blocks = self.blocks(into.len())?;
        let begin = Instant::now();
        self.read_done = false;
        self.volume.now_ms = self.clock.now_ms();
        let Volume { session, actions, now_ms, .. } = &mut self.volume;
        session.read(lba, blocks, SLOT, *now_ms, actions);
        self.act();
        self.until("the read to complete", |direct| direct.read_done)?;
        let took = begin.elapsed();
        self.memory.arena().copy_out(Memory::read_slot(SLOT), into);
        Ok(took)
    }

    /// Keeps the session alive for so long, at least for one turn of the loop.
    ///
    /// # Errors
    /// If the session ends.
    pub fn idle(&mut self, time: Duration) -> anyhow::Result<()> {
        let begin = Instant::now();
        loop {
            self.turn()?;
            if begin.elapsed() >= time {
                return Ok(());
            }
        }
    }

    /// Waits until both nodes hold every write and have released all that were made so far.
    ///
    /// # Errors
    /// If they don't in time.
    pub fn settle(&mut self) -> anyhow::Result<()> {
        self.until("both nodes to have flushed everything", |direct| {
            let status = direct.status();
            status.dual && status.links.iter().all(|link| link.holder && link.released >= Some(status.last))
        })
    }

    /// Ends the session in order.
    ///
    /// # Errors
    /// If the nodes don't take part.
    pub fn detach(mut self) -> anyhow::Result<()> {
        self.volume.handle(Event::Detach);
        self.act();
        let begin = Instant::now();
        while self.ended.is_none() {
            ensure!(begin.elapsed() < PATIENCE, "no detach within {} s", PATIENCE.as_secs());
            self.one_turn();
        }
        let begin = Instant::now();
        while !(self.nodes.is_flushed() && self.nodes.is_alone()) && begin.elapsed() < FAREWELL {
            self.one_turn();
        }
        match self.ended {
            Some(Ended::Detached) => Ok(()),
            Some(ended) => bail!("{}", notice::why_ended(ended)),
            None => unreachable!("waited for"),
        }
    }

    /// A number of whole blocks, as a blob or a read has it.
    fn blocks(&self, bytes: usize) -> anyhow::Result<u32> {
        let VolumeShape { block_bytes, .. } = self.shape;
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let most = twinsan_wire::limits::MAX_PAYLOAD_BYTES;
        ensure!(
            bytes > 0 && bytes <= most && bytes.is_multiple_of(block_bytes),
            "{bytes} bytes at once: this volume takes a multiple of its block, {block_bytes}, up to {most}"
        );
        Ok(bytes / block_bytes)
    }

    fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> anyhow::Result<()> {
        let begin = Instant::now();
        while !holds(self) {
            ensure!(begin.elapsed() < PATIENCE, "waited {} s in vain for {what}", PATIENCE.as_secs());
            self.turn()?;
        }
        Ok(())
    }

    fn turn(&mut self) -> anyhow::Result<()> {
        self.one_turn();
        ensure!(!self.interrupted, "interrupted");
        match self.ended {
            Some(ended) => bail!("{}", notice::why_ended(ended)),
            None => Ok(()),
        }
    }

    /// As `Driver::run`, without a front end.
    fn one_turn(&mut self) {
        self.wait();
        self.volume.now_ms = self.clock.now_ms();
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            if !matches!(event, FabricEvent::Message { .. }) {
                self.ticks.stir(self.volume.now_ms);
            }
            if matches!(event, FabricEvent::Ready { token: SIGNALS }) {
                self.interrupted |= self.signals.take();
            } else if let Some(event) = self.nodes.handle(event, &mut self.fabric, self.volume.now_ms) {
                self.volume.handle(event);
                self.carry_out();
            }
        }
        self.events = events;
        self.tick();
        self.act();
    }

    /// As `Driver::wait`.
    fn wait(&mut self) {
        let left = self.ticks.left(self.clock.now_ms());
        self.fabric.poll(&mut self.events, Some(left));
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
    }

    /// Carries out what the session wants, and posts it.
    fn act(&mut self) {
        self.carry_out();
        self.nodes.flush(&mut self.fabric);
    }

    fn carry_out(&mut self) {
        while !self.volume.actions.is_empty() {
            let mut actions = std::mem::take(&mut self.volume.actions);
            let mut events = Vec::new();
            for action in actions.drain(..) {
                events.extend(self.carry_out_one(action));
            }
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
            Action::Post { conn, blob } => self.nodes.post(conn, blob),
            Action::WritesCompleted { upto } => self.completed = self.completed.max(upto),
            Action::ReadCompleted { .. } => self.read_done = true,
            Action::Opened { .. } => {}
            Action::Ended(ended) => self.ended = Some(ended),
            Action::Notice(notice) => notice::log(notice, &self.nodes),
        }
        None
    }
}
