//! The end that answers, as a node would: it polls like one, and makes rounds with another listener when asked.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use twinsan_fabric::{ConnId, Event, Fabric, PostError};

use super::end::{Broken, End, Peer, Talk, incoming, key, listen_to, outgoing};
use super::note::{self, From, Note};
use super::ping::{Budget, Pinger, Run};
use super::{Row, raw};
use crate::fabric::Maker;

/// Connections at once.
const PLACES: usize = 4;
/// Whoever asks for rounds bounds their time, and so do we: the others wait meanwhile.
const MEASURE_TIME: Duration = Duration::from_secs(5);

/// See the module.
pub struct Listener<'a, F: Fabric> {
    maker: Maker<'a, F>,
    end: End<F>,
    /// Those that have not said Hello have no key.
    peers: BTreeMap<ConnId, (usize, Option<Peer>)>,
    free: Vec<usize>,
    /// Where we were asked to measure, and how long we spun.
    asked: Option<(String, Duration, Pinger<F>)>,
}

impl<'a, F: Fabric> Listener<'a, F> {
    /// Nobody can connect yet. Its memory can be `lent`, which shared memory wants.
    ///
    /// # Errors
    /// If the fabric or the memory can't be had.
    pub fn new(maker: Maker<'a, F>, spin: Duration, lent: bool) -> Result<Self> {
        let end = End::new(maker, spin, PLACES, lent)?;
        Ok(Self { maker, end, peers: BTreeMap::new(), free: (0..PLACES).rev().collect(), asked: None })
    }

    /// Takes an address; returns it as bound.
    ///
    /// # Errors
    /// If it is wrong or taken.
    pub fn listen(&mut self, url: &str) -> Result<String> {
        self.end.fabric.listen(url).with_context(|| format!("listening at {url}"))
    }

    /// Answers until `over`. Who says what he may not say is cut off.
    pub fn serve(&mut self, over: &AtomicBool) {
        while !over.load(Ordering::Relaxed) {
            let Some(event) = self.end.next() else { continue };
            let conn = match &event {
                Event::Accepted { conn } | Event::Message { conn, .. } | Event::Immediate { conn, .. } => *conn,
                Event::Closed { conn, .. } => {
                    self.forget(*conn);
                    continue;
                }
                Event::Connected { .. } | Event::Sent { .. } | Event::Ready { .. } => continue,
            };
            if let Err(error) = self.take(conn, event) {
                eprintln!("twinsan-perf: a connection is closed: {error:#}");
                self.end.fabric.disconnect(conn);
                self.forget(conn);
            }
        }
    }

    fn forget(&mut self, conn: ConnId) {
        if let Some((place, _)) = self.peers.remove(&conn) {
            self.free.push(place);
        }
    }

    fn take(&mut self, conn: ConnId, event: Event) -> Result<()> {
        match event {
            Event::Accepted { .. } => self.accepted(conn),
            Event::Immediate { imm, .. } => {
                let peer = self.peer(conn)?;
                match note::row_of(imm) {
                    Some(Row::Immediate) => self.end.post_imm(&peer, self.end.take_imm(peer.place))?,
                    Some(_) => {
                        let note = self.end.take_note(peer.place).context("an immediate without a note")?;
                        self.answer(&peer, note)?;
                    }
                    None => bail!("{imm:#x} is no immediate of ours"),
                }
                self.end.fabric.submit(conn);
                Ok(())
            }
            Event::Message { bytes, .. } => match Note::decode(&bytes) {
                Some(note) => {
                    let peer = self.peer(conn)?;
                    self.answer(&peer, note)?;
                    self.end.fabric.submit(conn);
                    Ok(())
                }
                None => self.hear(conn, &listen_to(&bytes)?),
            },
            other => bail!("{other:?} is nothing to answer"),
        }
    }

    fn accepted(&mut self, conn: ConnId) -> Result<()> {
        let place = self.free.pop().with_context(|| format!("{PLACES} connections are enough"))?;
        self.peers.insert(conn, (place, None));
        Ok(())
    }

    fn peer(&self, conn: ConnId) -> Result<Peer> {
        self.peers.get(&conn).and_then(|&(_, peer)| peer).context("it has not said Hello")
    }

    /// Looks at what came, and answers as the row wants it.
    fn answer(&mut self, peer: &Peer, asked: Note) -> Result<(), PostError> {
        let (end, place) = (&mut self.end, peer.place);
        let mut answer = asked;
        if matches!(asked.row, Row::Blob | Row::BlobBothWays) {
            answer.seen = note::look(&end.arena, incoming(place), &asked);
        }
        if matches!(asked.row, Row::BlobBothWays | Row::Read) {
            note::stamp(&end.arena, outgoing(place), &asked, From::Answerer);
            end.post_payload(peer, asked.bytes)?;
        }
        match asked.row {
            Row::Read | Row::Message => end.fabric.send(peer.conn, &answer.encode()),
            _ => end.post_note(peer, &answer),
        }
    }

    fn hear(&mut self, conn: ConnId, talk: &Talk) -> Result<()> {
        if let Talk::Raw { url, spin_us } = talk {
            self.peer(conn)?;
            let answer = match raw::answer(url, Duration::from_micros(*spin_us)) {
                Ok(url) => Talk::RawAt { url },
                Err(error) => failed(&error),
            };
            return self.end.talk(conn, &answer);
        }
        let Talk::Measure { url, row, bytes, count, most_ms, spin_us } = talk else {
            let key = key(talk)?;
            let known = self.peers.get_mut(&conn).context("a connection that nobody accepted")?;
            let place = known.0;
            known.1 = Some(Peer { conn, place, key });
            return self.end.hello(conn, place);
        };
        let peer = self.peer(conn)?;
        let budget = Budget { count: *count, time: Duration::from_millis(*most_ms).min(MEASURE_TIME) };
        let answer = match self.measure(url, row, *bytes, budget, Duration::from_micros(*spin_us)) {
            Ok(run) => {
                self.end.post_times(&peer, &run.times)?;
                Talk::Measured { count: run.times.len(), checked: run.checked }
            }
            Err(error) => {
                // The next one begins from scratch.
                self.asked = None;
                failed(&error)
            }
        };
        self.end.talk(conn, &answer)
    }

    fn measure(&mut self, url: &str, row: &str, bytes: u32, budget: Budget, spin: Duration) -> Result<Run> {
        let row = Row::ALL.into_iter().find(|r| r.name() == row).with_context(|| format!("no row \"{row}\""))?;
        if self.asked.as_ref().is_none_or(|(known, spun, _)| (known.as_str(), *spun) != (url, spin)) {
            let pinger = Pinger::connect(self.maker, url, spin)?;
            self.asked = Some((url.to_owned(), spin, pinger));
        }
        let (.., pinger) = self.asked.as_mut().expect("connected");
        pinger.run(row, bytes, budget)
    }
}

/// In words that fit a message.
fn failed(error: &anyhow::Error) -> Talk {
    Talk::Failed { why: format!("{error:#}").chars().take(300).collect(), broken: error.is::<Broken>() }
}
