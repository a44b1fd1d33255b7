//! What one state of the machine is, for a search over all of them: everything that a later decision depends on, and
//! nothing else.
//!
//! Left out: the configuration and the generator of random numbers (the same for all states of a search), and what is
//! only told to people. Times become ages and waits, short of what makes a difference. Numbers that are names (of
//! incarnations, connections, reads, batches) are given anew by the caller, who knows where else they stand; so are those
//! that only tell newer from older (epochs, counters), for which he first asks for all of them ([`Replica::numbers`]).
//!
//! Every field is named here, so that a new one does not compile until somebody has said what it is.

use alloc::collections::BTreeMap;

use twinsan_wire::{Epoch, Incarnation, Superblock};

use crate::config::Timing;
use crate::exposure::Pace;
use crate::flush::Flusher;
use crate::handover::HandedOver;
use crate::ids::{ConnId, LinkId, ReadToken};
use crate::machine::{Client, Failing, Refusals, Refused, Replica, Timers};
use crate::peer::{Missed, Peer};
use crate::random::Random;
use crate::reads::{OpenRead, ReadStep, Reads};
use crate::relay::{Feed, Relay};
use crate::state::{Attach, Join, Phase, State, SuperblockWrite};

/// Gives names anew: the same one for the same thing wherever it stands.
pub trait Names {
    /// An incarnation's.
    fn incarnation(&mut self, incarnation: Incarnation) -> Incarnation;
    /// A connection's, a client's or the other node's.
    fn conn(&mut self, conn: u64) -> u64;
    /// A read's of this machine.
    fn token(&mut self, token: u64) -> u64;
    /// A flush batch's of this machine.
    fn batch(&mut self, batch: u64) -> u64;
    /// A value of the other node's disk heartbeat.
    fn other_beat(&mut self, beat: u64) -> u64;

    /// An epoch's number.
    fn epoch(&mut self, epoch: Epoch) -> Epoch;
    /// A superblock's counter.
    fn counter(&mut self, counter: u64) -> u64;

    /// All that a superblock names.
    fn superblock(&mut self, superblock: &mut Superblock) {
        superblock.epoch = self.epoch(superblock.epoch);
        superblock.counter = self.counter(superblock.counter);
        for member in superblock.members.0.iter_mut().flatten() {
            *member = self.incarnation(*member);
        }
    }
}

/// A timeout from here on never ends, so that an age makes no difference.
const NEVER_MS: u64 = 1 << 40;

/// Times as they look from now.
#[derive(Clone, Copy)]
struct Clock {
    now: u64,
    timing: Timing,
}

impl Clock {
    /// When something happened, of which nobody asks but whether it is `timeout` ago.
    fn age(self, at: &mut u64, timeout: u64) {
        *at = if timeout >= NEVER_MS { 0 } else { self.now.saturating_sub(*at).min(timeout) };
    }

    /// Until when something waits.
    fn wait(self, until: &mut u64) {
        *until = until.saturating_sub(self.now);
    }

    /// How often something was tried, of which only the longest wait depends.
    fn tries(self, times: &mut u32) {
        let mut longest = 0;
        while longest < 10 && self.timing.retry_ms << longest < self.timing.backoff_max_ms {
            longest += 1;
        }
        *times = (*times).min(longest);
    }
}

impl Replica {
    /// All epochs and superblocks' counters that stand here: those that [`Replica::canonical`] will ask new ones for.
    pub fn numbers(&self, now: u64, epoch: &mut dyn FnMut(Epoch), counter: &mut dyn FnMut(u64)) {
        let written = self.superblock_write.map(|write| write.next);
        for superblock in [Some(self.superblock), written].into_iter().flatten() {
            epoch(superblock.epoch);
            counter(superblock.counter);
        }
        epoch(self.peer.epoch);
        self.peer.missed_lately(now, self.cfg.timing).into_iter().for_each(|word| epoch(word.epoch));
        if self.relay.is_wanted() {
            epoch(self.relay.epoch);
        }
        self.relay.released.into_iter().for_each(|(of, _)| epoch(of));
        if let HandedOver::UnderWay { since: _, epoch: began } = self.handed {
            epoch(began);
        }
    }

    /// This state as a search tells it from others, at `now` of the machine's clock. It can be compared and hashed, and
    /// must not be run.
    #[must_use]
    pub fn canonical(&self, now: u64, names: &mut dyn Names) -> Self {
        let mut state = self.clone();
        state.strip(Clock { now, timing: self.cfg.timing }, names);
        state
    }

    fn strip(&mut self, clock: Clock, names: &mut dyn Names) {
        let Self {
            cfg,
            random,
            now,
            me,
            state,
            superblock,
            superblock_write,
            reading_superblock,
            superblock_read_at,
            superblock_as_of,
            read_again: _,
            peer,
            lane: _,
            index: _,
            flusher,
            pace,
            exposure: _,
            drained,
            reads,
            clients,
            session,
            relay,
            may_release: _,
            completed: _,
            attach,
            failing,
            paths: _,
            handed,
            leaving_since,
            recover: _,
            offered: _,
            told_refusing: _,
            timers,
            out,
        } = self;
        assert!(out.is_empty(), "between two events nothing is to be done");
        assert!(cfg.timing.takeover_budget_ms == 0, "with a budget, how fast the disk was is of the state");
        *pace = Pace::default();
        *drained = None;
        if !*reading_superblock {
            *superblock_read_at = 0;
        }
        peer.strip_reads(clock, [superblock_read_at, superblock_as_of]);
        *random = Random::new(0);
        *now = 0;
        *me = names.incarnation(*me);
        state.strip(clock, names);
        names.superblock(superblock);
        if let Some(SuperblockWrite { next, purpose: _, retry_at }) = superblock_write {
            names.superblock(next);
            retry_at.iter_mut().for_each(|at| clock.wait(at));
        }
        peer.strip(clock, names);
        flusher.strip(|at| clock.wait(at), names);
        reads.strip(clock, names);
        let heard = |(conn, mut client): (ConnId, Client), names: &mut dyn Names| {
            let Client { heard_at, relay } = &mut client;
            clock.age(heard_at, clock.timing.client_dead_ms.max(clock.timing.takeover_ms));
            *relay = relay.map(|from| names.incarnation(from));
            (ConnId(names.conn(conn.0)), client)
        };
        *clients = core::mem::take(clients).into_iter().map(|client| heard(client, names)).collect();
        session.iter_mut().for_each(|conn| conn.0 = names.conn(conn.0));
        relay.strip(clock, names);
        if let Some(Attach { conn, step: _ }) = attach {
            conn.0 = names.conn(conn.0);
        }
        failing.strip();
        handed.strip(names);
        leaving_since.iter_mut().for_each(|at| clock.age(at, clock.timing.leave_ms));
        timers.strip(clock);
    }
}

impl State {
    fn strip(&mut self, clock: Clock, names: &mut dyn Names) {
        let Self::Primary(phase) = self else { return };
        match phase {
            Phase::Join(Join { incarnation, first: _, acked: _, progress_at, relayed: _ }) => {
                *incarnation = names.incarnation(*incarnation);
                clock.age(progress_at, clock.timing.join_ms);
            }
            Phase::Dual { acked: _, lost_at } => {
                lost_at.iter_mut().for_each(|at| clock.age(at, clock.timing.drop_ms));
            }
            Phase::HandingOver { acked: _, since } => clock.age(since, clock.timing.takeover_ms),
            Phase::Solo | Phase::Dropping { target: _ } => {}
        }
    }
}

impl Relay {
    fn strip(&mut self, clock: Clock, names: &mut dyn Names) {
        let drop_ms = clock.timing.drop_ms;
        let Self { feed, epoch, dialling: _, released, acked: _, progress_at, patient_since, wanted_at } = self;
        released.iter_mut().for_each(|(of, _)| *of = names.epoch(*of));
        // Of one that is off it will be set before it is looked at.
        *epoch = if matches!(feed, Feed::Off) { Epoch::ZERO } else { names.epoch(*epoch) };
        match feed {
            Feed::Off => {}
            Feed::Wanted { since } | Feed::Connecting { since } => clock.age(since, drop_ms),
            Feed::Resuming { since, relay } => {
                clock.age(since, drop_ms);
                relay.0 = names.conn(relay.0);
            }
            Feed::Feeding { relay, sent: _ } => relay.0 = names.conn(relay.0),
        }
        // Of one that feeds nobody it makes no difference.
        if matches!(feed, Feed::Feeding { .. }) {
            clock.age(wanted_at, clock.timing.takeover_ms);
        } else {
            *wanted_at = 0;
        }
        // Which of the two is older makes a difference, however old both are.
        let older = *progress_at < *patient_since;
        clock.age(progress_at, drop_ms);
        clock.age(patient_since, drop_ms);
        if older && progress_at == patient_since {
            *progress_at += 1;
        }
    }
}

impl Peer {
    /// The client's word, as long as it counts.
    fn missed_lately(&self, now: u64, timing: Timing) -> Option<Missed> {
        self.missed.filter(|word| now.saturating_sub(word.at) < timing.takeover_ms)
    }

    /// Of the times at which the superblock was read, only whether the client's word is older is asked, or will be of a word
    /// that comes now.
    fn strip_reads(&self, clock: Clock, reads: [&mut u64; 2]) {
        let since = self.missed_lately(clock.now, clock.timing).map(|word| word.since);
        for at in reads {
            *at = u64::from(since.is_some_and(|since| *at >= since)) + 2 * u64::from(*at == clock.now);
        }
    }

    fn strip(&mut self, clock: Clock, names: &mut dyn Names) {
        let timing = clock.timing;
        self.missed = self.missed_lately(clock.now, timing);
        let Self {
            link,
            incarnation,
            role: _,
            role_since,
            beat,
            heard_at,
            refused: _,
            probing: _,
            probe_at,
            disk_beat,
            disk_moved_at,
            reading_beat: _,
            read_beat_at,
            missed,
            epoch,
            paths: _,
            leaving: _,
            asked_at,
            thrown_away,
        } = self;
        *link = link.map(|link| LinkId(names.conn(link.0)));
        for incarnation in [incarnation, thrown_away].into_iter().flatten() {
            *incarnation = names.incarnation(*incarnation);
        }
        clock.age(role_since, timing.takeover_ms);
        *epoch = names.epoch(*epoch);
        *beat = 0; // By one link each is higher than those before.
        clock.age(heard_at, timing.takeover_ms.max(timing.drop_ms).max(2 * timing.heartbeat_ms));
        clock.wait(probe_at);
        *disk_beat = disk_beat.map(|beat| names.other_beat(beat));
        clock.age(disk_moved_at, timing.takeover_ms);
        clock.wait(read_beat_at);
        if let Some(Missed { since, at, epoch, generation: _ }) = missed {
            *epoch = names.epoch(*epoch);
            *since = 0; // What it is compared with says how ([`Peer::strip_reads`]).
            clock.age(at, timing.takeover_ms);
        }
        asked_at.iter_mut().for_each(|at| clock.age(at, crate::handover::ASKED_HEARTBEATS * timing.heartbeat_ms));
    }
}

impl Flusher {
    fn strip(&mut self, wait: impl Fn(&mut u64), names: &mut dyn Names) {
        self.rename_batches(|number| names.batch(number));
        [&mut self.retry_at, &mut self.rests_until].into_iter().flatten().for_each(wait);
    }
}

impl Reads {
    fn strip(&mut self, clock: Clock, names: &mut dyn Names) {
        let mut open = BTreeMap::new();
        for (token, mut read) in core::mem::take(&mut self.open) {
            let OpenRead { conn, id: _, slot: _, pieces: _, needs: _, pins: _, step } = &mut read;
            conn.0 = names.conn(conn.0);
            if let ReadStep::Retry(at) = step {
                clock.wait(at);
            }
            open.insert(ReadToken(names.token(token.0)), read);
        }
        *self = Self { next: 0, open };
    }
}

impl Failing {
    fn strip(&mut self) {
        let Refusals { superblock, flush, heartbeat } = &mut self.refusals;
        for Refused { asking: _, times } in [superblock, flush, heartbeat] {
            *times = (*times).min(Refusals::HOPELESS);
        }
    }
}

impl HandedOver {
    fn strip(&mut self, names: &mut dyn Names) {
        match self {
            Self::UnderWay { since, epoch } => (*since, *epoch) = (0, names.epoch(*epoch)),
            _ => *self = Self::Never,
        }
    }
}

impl Timers {
    fn strip(&mut self, clock: Clock) {
        let Self {
            heartbeat_at,
            beat,
            disk_heartbeat_at,
            disk_beat,
            writing_heartbeat: _,
            checking_fence: _,
            yielding: _,
            fence_failed: _,
            ask_takeover_at,
            hand_over_not_before,
            fenced_at,
            reread_at,
            try_not_before,
            turned_away,
            join_not_before,
            joins_thrown_away,
            admit_again: _,
            ask_at,
            staged_at,
            drain_began,
        } = self;
        *drain_began = 0;
        (*beat, *disk_beat) = (0, 0);
        for until in [
            heartbeat_at,
            disk_heartbeat_at,
            ask_takeover_at,
            hand_over_not_before,
            reread_at,
            try_not_before,
            join_not_before,
            ask_at,
        ] {
            clock.wait(until);
        }
        clock.age(fenced_at, clock.timing.takeover_ms);
        clock.age(staged_at, clock.timing.clean_ms);
        clock.tries(turned_away);
        clock.tries(joins_thrown_away);
    }
}
