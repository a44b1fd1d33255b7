//! One connection: its queue pair, what waits to leave by it and what has come.
//!
//! ```text
//! Accepting ──established, or something has come──▶ Open ──▶ (dropped: queue pair first, then the memory)
//! ```
//!
//! A connection of ours is made `Open` when the connection manager says that it is established.
//!
//! Posts go through `posted` (not rung for yet, contract 3), `rung` (they may go, when there is a credit for those that
//! take one), and `flying` (in the device's send queue, until a completion of it or of a later one):
//!
//! ```text
//! queue:  | rung, waits for a credit ……… | posted |       flying:  | in the send queue ……… |
//! ```

mod receiving;
mod sending;
mod watch;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use twinsan_arena::Arena;
use twinsan_fabric::{CloseReason, ConnId, Event, RemoteKey};

use self::sending::{Flying, Queued};
use self::watch::{Signals, Watch};
use crate::credits::{Credits, RECEIVE_CREDITS, SPARE_RECEIVES};
use crate::exposure::Exposures;
use crate::fabric::MAX_INLINE;
use crate::greeting::Greeting;
use crate::pool::Pool;
use crate::sys::{
    Access, BATCH, CmId, Completion, ConnectOptions, MemoryRegion, ProtectionDomain, QueuePair, QueueSizes,
};

/// Receives that are always posted, but for the moment between a message and its next turn.
const RECEIVES: usize = RECEIVE_CREDITS as usize + SPARE_RECEIVES as usize;

/// Credit messages of ours in the send queue, beyond the caller's posts. More wait for completions.
const SPARE_SENDS: usize = 8;

/// A send is repeated so often before its peer counts as unreachable: with [`ACK_TIMEOUT`] after about 0.3 s.
const RETRIES: u8 = 3;

/// For a receiver without receives, which does not happen between us (see `credits`): finite, so that a peer that breaks
/// the rule is found out.
const RECEIVER_RETRIES: u8 = 3;

/// 4.096 µs × 2^14 = 67 ms: long beside any network's round trip, short beside a takeover. `watch` sees to devices that
/// take longer than they are told.
const ACK_TIMEOUT: u8 = 14;

/// Says how long acknowledgements may take. Before the route is resolved on our side, as the kernel may take it into the
/// route; before the request is accepted on the other.
pub(crate) fn set_patience(id: &CmId) {
    if let Err(error) = id.set_ack_timeout(ACK_TIMEOUT) {
        tracing::debug!(%error, "a dead peer will be noticed later: the acknowledgement timeout can't be set");
    }
}

/// Rounds of [`BATCH`] completions taken of one connection in one poll.
const ROUNDS: usize = 4;

/// Where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Accepted by us, not yet known to be established; nobody has heard of it. Given up at the deadline.
    Accepting(Instant),
    /// In use.
    Open,
}

/// See the module. Dropping it tells the peer and destroys everything, in the order of the fields.
#[derive(Debug)]
pub(crate) struct Connection {
    pair: QueuePair,
    pool: Pool,
    exposures: Exposures,
    /// Regions that are sent from, by their number.
    locals: Vec<Option<MemoryRegion>>,
    domain: Rc<ProtectionDomain>,

    queue: VecDeque<Queued>,
    rung: usize,
    flying: VecDeque<Flying>,
    /// The number of the first of `flying`.
    first_flying: u64,
    /// The caller's posts so far.
    posts: u64,
    /// The caller's posts that have not completed.
    outstanding: usize,
    signals: Signals,
    spare_flying: usize,
    depth: usize,
    watch: Watch,

    credits: Credits,
    /// Receives that have been used and are to be posted again.
    used: Vec<usize>,
    completions: Vec<Completion>,
    pub(crate) stage: Stage,
    /// It is over, for this reason; not told yet.
    failure: Option<CloseReason>,
    /// The completion channel will say when something completes.
    armed: bool,
}

impl Connection {
    /// On an identifier that is bound to a device, with all its receives posted. On failure the identifier comes back, if it
    /// still can.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn new(id: CmId, depth: usize, stage: Stage) -> Result<Self, (io::Error, Option<CmId>)> {
        let domain = ProtectionDomain::new(id).map_err(|(error, id)| (error, Some(id)))?;
        let made = Self::on_domain(&domain, depth, stage);
        made.map_err(|error| (error, Rc::into_inner(domain).map(ProtectionDomain::into_id)))
    }

    fn on_domain(domain: &Rc<ProtectionDomain>, depth: usize, stage: Stage) -> io::Result<Self> {
        let sizes =
            QueueSizes { sends: small(depth + SPARE_SENDS), receives: small(RECEIVES), inline: small(MAX_INLINE) };
        let pool = Pool::new(domain, depth, RECEIVES)?;
        let pair = QueuePair::new(domain, sizes)?;
        let mut connection = Self {
            pair,
            pool,
            exposures: Exposures::default(),
            locals: Vec::new(),
            domain: Rc::clone(domain),
            queue: VecDeque::with_capacity(depth),
            rung: 0,
            flying: VecDeque::with_capacity(depth + SPARE_SENDS),
            first_flying: 0,
            posts: 0,
            outstanding: 0,
            signals: Signals::new(depth),
            spare_flying: 0,
            depth,
            watch: Watch::default(),
            credits: Credits::new(),
            used: (0..RECEIVES).collect(),
            completions: Vec::with_capacity(BATCH),
            stage,
            failure: None,
            armed: false,
        };
        connection.post_receives()?;
        Ok(connection)
    }

    /// Begins to connect.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn connect(&self) -> io::Result<()> {
        self.pair.connect(&ConnectOptions {
            private_data: &Greeting { credits: RECEIVE_CREDITS }.encode(),
            retries: RETRIES,
            receiver_retries: RECEIVER_RETRIES,
        })
    }

    /// Accepts the peer's request. The number of retries is the requester's to say (IB Architecture 12.6.5).
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn accept(&self) -> io::Result<()> {
        self.pair.accept(&ConnectOptions {
            private_data: &Greeting { credits: RECEIVE_CREDITS }.encode(),
            retries: RETRIES,
            receiver_retries: RECEIVER_RETRIES,
        })
    }

    /// What the peer has said.
    pub(crate) const fn greeted(&mut self, greeting: Greeting) {
        self.credits.begin(greeting.credits);
    }

    /// Whether the caller may use it.
    pub(crate) fn is_open(&self) -> bool {
        self.stage == Stage::Open && self.failure.is_none()
    }

    /// Takes what has completed, hands it out, and sends what may go now. Returns whether it has left something: one
    /// connection does not keep the others waiting.
    pub(crate) fn poll(&mut self, conn: ConnId, events: &mut Vec<Event>) -> bool {
        let (mut any, mut more) = (false, true);
        for _ in 0..ROUNDS {
            let count = self.take(conn, events);
            any |= count > 0;
            more = count == BATCH;
            if !more {
                break;
            }
        }
        if any {
            self.refill();
            self.launch();
        }
        more
    }

    /// Takes the rest when it is over: what came before the end is told before it.
    pub(crate) fn poll_out(&mut self, conn: ConnId, events: &mut Vec<Event>) {
        while self.take(conn, events) > 0 {}
    }

    /// Over, as the connection manager says, or we. The first reason stands.
    pub(crate) fn fail(&mut self, why: CloseReason) {
        self.failure.get_or_insert(why);
    }

    /// Why it is over, if it is.
    pub(crate) const fn failure(&self) -> Option<&CloseReason> {
        self.failure.as_ref()
    }

    /// The peer has disconnected: it may have been stopped before that, for breaking the rules.
    pub(crate) fn disconnected(&mut self, conn: ConnId, events: &mut Vec<Event>) {
        self.poll_out(conn, events);
        if self.failure.is_none() && self.pair.is_stopped() {
            self.fail(stopped_by_peer());
        }
        self.fail(CloseReason::Ended);
    }

    /// Opens a range, which the caller has checked, of region `number`.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn expose(&mut self, number: usize, arena: &Arc<Arena>, range: (usize, usize)) -> io::Result<RemoteKey> {
        // What is written to here is sent from here, sooner or later: better now than within the first answer.
        self.local(number, arena)?;
        self.exposures.open(&self.domain, arena, range)
    }

    /// Registers region `number` for sending, if it is not.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn local(&mut self, number: usize, arena: &Arc<Arena>) -> io::Result<()> {
        if self.locals.len() <= number {
            self.locals.resize_with(number + 1, || None);
        }
        if self.locals[number].is_none() {
            let address = arena.as_ptr().addr() as u64;
            let region = MemoryRegion::new(&self.domain, arena, (0, arena.len()), address, Access::Read)?;
            self.locals[number] = Some(region);
        }
        Ok(())
    }

    /// When it wants to be looked at without an event.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        match self.stage {
            Stage::Accepting(deadline) => Some(deadline),
            Stage::Open => self.watch.wake_at(),
        }
    }

    /// Gives up a peer that acknowledges nothing any more. All completions so far have been taken.
    pub(crate) fn check_peer(&mut self, now: Instant) {
        if self.watch.is_dead(now) {
            self.fail(CloseReason::Unreachable(format!("no acknowledgement for {} ms", watch::SILENCE.as_millis())));
        }
    }

    /// Sees to it that the descriptor becomes readable with the next completion.
    pub(crate) fn arm(&mut self) {
        if !self.armed {
            match self.pair.arm() {
                Ok(()) => self.armed = true,
                Err(e) => self.fail(CloseReason::Unreachable(format!("the completion queue can't be armed: {e}"))),
            }
        }
    }

    /// The descriptor was readable.
    pub(crate) fn hush(&mut self) {
        self.pair.hush();
        self.armed = false;
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pair.as_fd()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.pair.disconnect();
    }
}

/// The device has stopped the queue pair, and no send of ours has failed: the peer's write or message was not allowed.
fn stopped_by_peer() -> CloseReason {
    CloseReason::Violation("a write outside of what was opened to it, or a message that fits nowhere".into())
}

fn small(size: usize) -> u32 {
    u32::try_from(size).expect("a queue's size")
}
