//! One end: a fabric, a region of it, and waiting as the product waits.
//!
//! | in a place | bytes | written by |
//! | --- | --- | --- |
//! | out | 1 MiB | this end: payloads to send |
//! | times to send | 256 KiB | this end |
//! | in | 1 MiB | the peer: payloads |
//! | times | 256 KiB | the peer: nanoseconds of the rounds that it was asked to make, 4 bytes each |
//! | note | one page | the peer |
//!
//! A connection has a place of its own; the last three parts of it are open to its peer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use twinsan_arena::{Arena, ArenaOptions, PagePolicy};
use twinsan_fabric::{
    ConnId, Event, Fabric, LocalSlice, Payload, PostError, RegionId, RemoteAddr, RemoteKey, WaitPolicy, WorkId,
};

use super::MAX_BYTES;
use super::note::{NOTE_BYTES, Note};
use crate::fabric::Maker;

const PAYLOAD: usize = MAX_BYTES as usize;
/// Rounds whose times fit.
pub(crate) const MAX_TIMES: usize = 65_536;
const TIMES: usize = 4 * MAX_TIMES;
const PAGE: usize = 4096;

const OUT: usize = 0;
const OUT_TIMES: usize = OUT + PAYLOAD;
const OPEN: usize = OUT_TIMES + TIMES;
const IN: usize = OPEN;
const IN_TIMES: usize = IN + PAYLOAD;
const NOTE: usize = IN_TIMES + TIMES;
const PLACE: usize = NOTE + PAGE;

const _: () = assert!(NOTE_BYTES <= PAGE && PLACE.is_multiple_of(PAGE));

/// The product's loops wake up this often (`TICK_MS` of node and client).
const TICK: Duration = Duration::from_millis(10);
/// A peer that does not answer for so long is gone.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Work requests between two signalled ones, as in the client's outbox: a send queue frees its entries only at those.
const SIGNAL_EVERY: u64 = 32;
/// Version of what the ends say to each other.
const VERSION: u32 = 1;

/// What the ends say to each other outside of rounds, as JSON: a message that does not begin with a note's magic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Talk {
    /// First thing on a connection, both ways.
    Hello { version: u32, key: u64, spin_us: u64 },
    /// Asks for rounds with somebody else: as a node, over the asked end's own connection.
    Measure { url: String, row: String, bytes: u32, count: u64, most_ms: u64, spin_us: u64 },
    /// Asks for bare verbs at an address of the asked end's, with a port of its choice.
    Raw { url: String, spin_us: u64 },
    /// There.
    RawAt { url: String },
    /// So many times are in the asker's memory.
    Measured { count: usize, checked: u64 },
    /// It can't, and why; `broken`: its connection broke ([`Broken`]).
    Failed { why: String, broken: bool },
}

/// The connection broke: what was measured says nothing, and may be measured again over another.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Broken(pub(crate) String);

/// See the module.
pub(crate) struct End<F: Fabric> {
    pub(crate) fabric: F,
    pub(crate) arena: Arc<Arena>,
    region: RegionId,
    events: Vec<Event>,
    ready: VecDeque<Event>,
    spin_us: u64,
    posts: u64,
}

/// A connection, its place here, and what the peer has opened to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) conn: ConnId,
    pub(crate) place: usize,
    pub(crate) key: RemoteKey,
}

impl<F: Fabric> End<F> {
    /// With memory for so many connections, which can be `lent` where the fabric wants that.
    pub(crate) fn new(maker: Maker<'_, F>, spin: Duration, places: usize, lent: bool) -> Result<Self> {
        let mut fabric = maker(WaitPolicy { spin })?;
        let options = ArenaOptions { name: "wire".into(), bytes: places * PLACE, pages: PagePolicy::Auto, lock: true };
        let arena = Arc::new(if lent { Arena::lendable(&options)? } else { Arena::new(&options)? });
        let region = fabric.register(Arc::clone(&arena))?;
        let (events, ready) = (Vec::new(), VecDeque::new());
        let spin_us = u64::try_from(spin.as_micros())?;
        Ok(Self { fabric, arena, region, events, ready, spin_us, posts: 0 })
    }

    /// The next event, if one comes before the loop's next tick.
    pub(crate) fn next(&mut self) -> Option<Event> {
        if self.ready.is_empty() {
            // As `server/src/reactor.rs` and `client/src/attach/driver.rs` wait.
            self.fabric.poll(&mut self.events, Some(TICK));
            self.ready.extend(self.events.drain(..));
        }
        self.ready.pop_front()
    }

    /// The next event that is more than a post's end; `what` is awaited.
    pub(crate) fn awaited(&mut self, what: &str) -> Result<Event> {
        let begin = Instant::now();
        loop {
            match self.next() {
                Some(Event::Sent { .. } | Event::Ready { .. }) => {}
                Some(Event::Closed { why, .. }) => {
                    return Err(Broken(format!("the connection ended while {what} was awaited: {why}")).into());
                }
                Some(event) => return Ok(event),
                None if begin.elapsed() > PATIENCE => bail!("no {what} within {} s", PATIENCE.as_secs()),
                None => {}
            }
        }
    }

    /// Says Hello and opens a place.
    pub(crate) fn hello(&mut self, conn: ConnId, place: usize) -> Result<()> {
        let at = place * PLACE + OPEN;
        let key = self.fabric.expose(conn, self.region, at as u64, (PLACE - OPEN) as u64)?;
        self.talk(conn, &Talk::Hello { version: VERSION, key: key.0, spin_us: self.spin_us })
    }

    /// Says something.
    pub(crate) fn talk(&mut self, conn: ConnId, talk: &Talk) -> Result<()> {
        let text = serde_json::to_vec(talk)?;
        let limit = self.fabric.limits().max_message;
        let sent = self.fabric.send(conn, &text);
        sent.with_context(|| format!("{} bytes to say, a message has at most {limit}", text.len()))?;
        self.fabric.submit(conn);
        Ok(())
    }

    fn signal(&mut self) -> Option<WorkId> {
        self.posts += 1;
        self.posts.is_multiple_of(SIGNAL_EVERY).then_some(self.posts)
    }

    /// Posts a payload from this end's place into the peer's.
    pub(crate) fn post_payload(&mut self, peer: &Peer, bytes: u32) -> Result<(), PostError> {
        let signal = self.signal();
        let slice = self.slice(peer.place * PLACE + OUT, bytes);
        self.fabric.write(peer.conn, Payload::Region(slice), into(peer, IN), signal)
    }

    /// Posts a note as descriptors and mailboxes are posted.
    pub(crate) fn post_note(&mut self, peer: &Peer, note: &Note) -> Result<(), PostError> {
        let signal = self.signal();
        self.fabric.write_imm(peer.conn, Payload::Inline(&note.encode()), into(peer, NOTE), note.imm(), signal)
    }

    /// Posts an immediate with its row's and round's bits again as its 4 bytes.
    pub(crate) fn post_imm(&mut self, peer: &Peer, imm: u32) -> Result<(), PostError> {
        let signal = self.signal();
        self.fabric.write_imm(peer.conn, Payload::Inline(&imm.to_le_bytes()), into(peer, NOTE), imm, signal)
    }

    /// The 4 bytes of the last immediate without a note.
    pub(crate) fn take_imm(&self, place: usize) -> u32 {
        let mut bytes = [0; 4];
        self.arena.copy_out(place * PLACE + NOTE, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// Posts times into the peer's memory; a message that is sent after it finds them there.
    pub(crate) fn post_times(&mut self, peer: &Peer, times: &[Duration]) -> Result<()> {
        let nanos = |time: &Duration| u32::try_from(time.as_nanos()).unwrap_or(u32::MAX).to_le_bytes();
        let bytes: Vec<u8> = times.iter().take(MAX_TIMES).flat_map(nanos).collect();
        let at = peer.place * PLACE + OUT_TIMES;
        self.arena.copy_in(at, &bytes);
        let slice = self.slice(at, u32::try_from(bytes.len())?);
        let signal = self.signal();
        Ok(self.fabric.write(peer.conn, Payload::Region(slice), into(peer, IN_TIMES), signal)?)
    }

    /// The times that the peer has written here.
    pub(crate) fn take_times(&self, place: usize, count: usize) -> Vec<Duration> {
        let mut bytes = vec![0; 4 * count.min(MAX_TIMES)];
        self.arena.copy_out(place * PLACE + IN_TIMES, &mut bytes);
        let nanos = |word: &[u8]| u32::from_le_bytes(word.try_into().expect("4 bytes"));
        bytes.chunks_exact(4).map(|word| Duration::from_nanos(nanos(word).into())).collect()
    }

    /// The note that the peer has written here; whole, as its immediate has come.
    pub(crate) fn take_note(&self, place: usize) -> Option<Note> {
        let mut bytes = [0; NOTE_BYTES];
        self.arena.copy_out(place * PLACE + NOTE, &mut bytes);
        Note::decode(&bytes)
    }

    fn slice(&self, offset: usize, len: u32) -> LocalSlice {
        LocalSlice { region: self.region, offset: offset as u64, len }
    }
}

/// Where this end's payloads lie.
pub(crate) const fn outgoing(place: usize) -> usize {
    place * PLACE + OUT
}

/// Where the peer's lie.
pub(crate) const fn incoming(place: usize) -> usize {
    place * PLACE + IN
}

const fn into(peer: &Peer, at: usize) -> RemoteAddr {
    RemoteAddr { key: peer.key, offset: (at - OPEN) as u64 }
}

/// The key that a peer's Hello opens.
pub(crate) fn key(talk: &Talk) -> Result<RemoteKey> {
    match talk {
        Talk::Hello { version: VERSION, key, .. } => Ok(RemoteKey(*key)),
        Talk::Hello { version, .. } => bail!("the other end is another build: it says version {version}, we {VERSION}"),
        other => bail!("{other:?} instead of a Hello"),
    }
}

/// From a message that is no note.
pub(crate) fn listen_to(bytes: &[u8]) -> Result<Talk> {
    serde_json::from_slice(bytes)
        .with_context(|| format!("no message of twinsan-perf: {}", String::from_utf8_lossy(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_build_and_a_stranger_are_told_apart() {
        assert!(key(&Talk::Hello { version: 9, key: 1, spin_us: 0 }).unwrap_err().to_string().contains("version 9"));
        assert!(listen_to(b"GET / HTTP/1.1").unwrap_err().to_string().contains("GET /"));
        let long = Talk::Failed { why: "x".repeat(300), broken: false };
        assert_eq!(listen_to(&serde_json::to_vec(&long).unwrap()).unwrap(), long);
    }
}
