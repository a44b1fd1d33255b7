//! The end that asks, and measures.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use twinsan_fabric::{Event, Fabric, PostError};

use super::Row;
use super::end::{Broken, End, MAX_TIMES, PATIENCE, Peer, Talk, incoming, key, listen_to, outgoing};
use super::note::{self, From, Note, Seen};
use crate::fabric::{Maker, shares_memory};

/// One round in so many is not counted, and looked at in full.
const CHECK_EVERY: u64 = 64;
/// Rounds before the first that counts: one part in so many.
const WARM_UP: u64 = 10;
/// The one place that a pinger needs.
const HERE: usize = 0;

/// How far a line goes: a number of rounds, and a time after which it ends short.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// At most so many rounds that count.
    pub count: u64,
    /// At most so long.
    pub time: Duration,
}

/// What a line came to.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Of each round that counts.
    pub times: Vec<Duration>,
    /// Rounds whose whole payload was compared.
    pub checked: u64,
}

/// See the module.
pub struct Pinger<F: Fabric> {
    end: End<F>,
    peer: Peer,
    peer_spin: Duration,
    round: u64,
}

impl<F: Fabric> Pinger<F> {
    /// Connects to a [`super::Listener`].
    ///
    /// # Errors
    /// If it is not there, or is something else.
    pub fn connect(maker: Maker<'_, F>, url: &str, spin: Duration) -> Result<Self> {
        let mut end = End::new(maker, spin, HERE + 1, shares_memory(url))?;
        let conn = end.fabric.connect(url)?;
        let connected = end.awaited("connection").with_context(|| format!("connecting to {url}"))?;
        ensure!(matches!(connected, Event::Connected { .. }), "{connected:?} instead of a connection to {url}");
        end.hello(conn, HERE)?;
        let hello = hear(&mut end, "Hello")?;
        let peer = Peer { conn, place: HERE, key: key(&hello)? };
        let spin_us = if let Talk::Hello { spin_us, .. } = hello { spin_us } else { 0 };
        Ok(Self { end, peer, peer_spin: Duration::from_micros(spin_us), round: 0 })
    }

    /// How long the other end polls before it sleeps.
    #[must_use]
    pub const fn peer_spin(&self) -> Duration {
        self.peer_spin
    }

    /// Makes rounds of a row.
    ///
    /// # Errors
    /// If the connection fails, or a payload did not arrive as it was sent.
    pub fn run(&mut self, row: Row, bytes: u32, budget: Budget) -> Result<Run> {
        let warm = budget.count / WARM_UP;
        let mut run = Run::default();
        let (mut begin, mut made) = (Instant::now(), 0);
        while (run.times.len() as u64) < budget.count {
            let whole = made % CHECK_EVERY == 0;
            let took = self.round(row, bytes, whole)?;
            run.checked += u64::from(whole);
            if made == warm {
                begin = Instant::now();
            } else if made > warm && !whole {
                run.times.push(took);
            }
            made += 1;
            // Ten times as long to warm up would be no warming up.
            if begin.elapsed() >= budget.time && made > warm {
                break;
            }
        }
        ensure!(!run.times.is_empty(), "not one round of {} {bytes} within {:?}", row.name(), budget.time);
        Ok(run)
    }

    /// One round; its time.
    fn round(&mut self, row: Row, bytes: u32, whole: bool) -> Result<Duration> {
        self.round += 1;
        let note = Note { row, bytes, whole, round: self.round, seen: Seen::default() };
        let sends = matches!(row, Row::Blob | Row::BlobBothWays);
        if sends {
            note::stamp(&self.end.arena, outgoing(HERE), &note, From::Asker);
        }
        let begin = Instant::now();
        self.post(&note).map_err(|error| match error {
            PostError::NotConnected => anyhow::Error::new(Broken("the connection has ended".into())),
            error => anyhow::Error::new(error).context(format!("posting {} {bytes}", row.name())),
        })?;
        self.end.fabric.submit(self.peer.conn);
        let answer = self.end.awaited("answer")?;
        let took = begin.elapsed();
        self.check(&note, &answer).with_context(|| format!("{} {bytes}, round {}", row.name(), self.round))?;
        Ok(took)
    }

    fn post(&mut self, note: &Note) -> Result<(), PostError> {
        let (end, peer) = (&mut self.end, &self.peer);
        match note.row {
            Row::Blob | Row::BlobBothWays => {
                end.post_payload(peer, note.bytes)?;
                end.post_note(peer, note)
            }
            Row::Ack => end.post_note(peer, note),
            Row::Immediate => end.post_imm(peer, note.imm()),
            Row::Read | Row::Message => end.fabric.send(peer.conn, &note.encode()),
        }
    }

    /// Whether the answer is this round's, and both ends have received what the other has sent.
    fn check(&self, asked: &Note, answer: &Event) -> Result<()> {
        let answered = match answer {
            Event::Immediate { imm, .. } if *imm == asked.imm() && asked.row == Row::Immediate => {
                let bytes = self.end.take_imm(HERE);
                ensure!(bytes == *imm, "its 4 bytes are {bytes:#x} instead of {imm:#x}");
                return Ok(());
            }
            Event::Immediate { imm, .. } if *imm == asked.imm() => self.end.take_note(HERE),
            Event::Message { bytes, .. } if matches!(asked.row, Row::Read | Row::Message) => Note::decode(bytes),
            other => bail!("{other:?} is not its answer"),
        };
        let Some(answered) = answered else { bail!("the answer carries no note") };
        let same = (answered.row, answered.round) == (asked.row, asked.round);
        ensure!(same, "the answer is that of {} {}", answered.row.name(), answered.round);
        if matches!(asked.row, Row::Blob | Row::BlobBothWays) {
            compare("the payload that we sent", answered.seen, note::expected(asked, From::Asker))?;
        }
        if matches!(asked.row, Row::BlobBothWays | Row::Read) {
            let seen = note::look(&self.end.arena, incoming(HERE), asked);
            compare("the payload that we got", seen, note::expected(asked, From::Answerer))?;
        }
        Ok(())
    }

    /// Has the other end make rounds with the listener at `url`, as a node does: so that one who is neither learns what
    /// lies between two others.
    ///
    /// # Errors
    /// If either end fails; with its own words.
    pub fn ask(&mut self, url: &str, row: Row, bytes: u32, budget: Budget, spin: Duration) -> Result<Run> {
        let Budget { count, time } = budget;
        ensure!(count <= MAX_TIMES as u64, "{count} rounds at once: {MAX_TIMES} at most");
        ensure!(time < PATIENCE / 2, "{time:?} at once: less than {:?}, please", PATIENCE / 2);
        let (most_ms, spin_us) = (u64::try_from(time.as_millis())?, u64::try_from(spin.as_micros())?);
        let talk = Talk::Measure { url: url.into(), row: row.name().into(), bytes, count, most_ms, spin_us };
        self.end.talk(self.peer.conn, &talk)?;
        match hear(&mut self.end, "the other end's times")? {
            Talk::Measured { count, checked } => Ok(Run { times: self.end.take_times(HERE, count), checked }),
            Talk::Failed { why, broken: true } => Err(Broken(format!("the other end, with {url}: {why}")).into()),
            Talk::Failed { why, .. } => bail!("the other end, with {url}: {why}"),
            other => bail!("{other:?} instead of times"),
        }
    }
}

impl<F: Fabric> Pinger<F> {
    /// Has the other end answer bare verbs at `url`, an address of its own with port 0: with which port.
    pub(super) fn offer_raw(&mut self, url: &str, spin: Duration) -> Result<String> {
        let spin_us = u64::try_from(spin.as_micros())?;
        self.end.talk(self.peer.conn, &Talk::Raw { url: url.into(), spin_us })?;
        match hear(&mut self.end, "bare verbs")? {
            Talk::RawAt { url } => Ok(url),
            Talk::Failed { why, .. } => bail!("the other end: {why}"),
            other => bail!("{other:?} instead of bare verbs"),
        }
    }
}

fn hear<F: Fabric>(end: &mut End<F>, what: &str) -> Result<Talk> {
    match end.awaited(what)? {
        Event::Message { bytes, .. } => listen_to(&bytes),
        other => bail!("{other:?} instead of {what}"),
    }
}

fn compare(what: &str, seen: Seen, expected: Seen) -> Result<()> {
    ensure!(
        seen == expected,
        "{what} is not what arrived: {seen:x?} there, {expected:x?} sent; this fabric moves no data, or the wrong data"
    );
    Ok(())
}
