//! What one state of the machine is, for a search over all of them: everything that a later decision depends on, and
//! nothing else.
//!
//! Times become ages and waits, short of what makes a difference; names (of incarnations and connections) are given
//! anew by the caller, who knows where else they stand. Every field is named here, so that a new one does not compile
//! until somebody has said what it is.

use twinsan_wire::{Epoch, Incarnation, Members};

use crate::config::Timing;
use crate::link::{Duty, LaneMark, Link, State, Up};
use crate::session::Session;
use crate::view::{Known, View};

/// Gives names anew: the same one for the same thing wherever it stands.
pub trait Names {
    /// An incarnation's.
    fn incarnation(&mut self, incarnation: Incarnation) -> Incarnation;
    /// A connection's.
    fn conn(&mut self, conn: u64) -> u64;
    /// An epoch's number.
    fn epoch(&mut self, epoch: Epoch) -> Epoch;
}

/// Times as they look from now.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    now: u64,
    pub(crate) timing: Timing,
}

impl Clock {
    /// When something happened, of which nobody asks but whether it is `timeout` ago.
    pub(crate) fn age(self, at: &mut u64, timeout: u64) {
        *at = self.now.saturating_sub(*at).min(timeout);
    }

    /// Until when something waits.
    pub(crate) fn wait(self, until: &mut u64) {
        *until = until.saturating_sub(self.now);
    }
}

impl Session {
    /// All epochs that stand here: those that [`Session::canonical`] will ask new ones for.
    pub fn epochs(&self, tell: &mut dyn FnMut(Epoch)) {
        self.known.into_iter().for_each(|known| tell(known.epoch));
        let said = self.links.iter().filter_map(|link| link.up()?.said);
        said.for_each(|view| tell(view.epoch));
        self.reads.epoch().into_iter().for_each(tell);
    }

    /// This state as a search tells it from others, at `now` of the machine's clock. It can be compared and hashed, and
    /// must not be run.
    #[must_use]
    pub fn canonical(&self, now: u64, names: &mut dyn Names) -> Self {
        let mut state = self.clone();
        let clock = Clock { now, timing: self.config.timing };
        let Self {
            config: _,
            phase: _,
            known,
            links,
            window: _,
            completed: _,
            reads,
            now,
            beat_at,
            attach_cut_off_at,
            over: _,
        } = &mut state;
        if let Some(Known { epoch, primary, members, joiner, generation: _ }) = known {
            *epoch = names.epoch(*epoch);
            primary.incarnation = names.incarnation(primary.incarnation);
            rename(members, joiner, names);
        }
        links.iter_mut().for_each(|link| link.strip(clock, names));
        reads.rename(|conn, epoch| (names.conn(conn), names.epoch(epoch)));
        clock.age(now, clock.timing.silent_ms / 2 + 1);
        clock.wait(beat_at);
        attach_cut_off_at.iter_mut().for_each(|at| clock.age(at, clock.timing.busy_grace_ms));
        state
    }
}

fn rename(members: &mut Members, joiner: &mut Option<Incarnation>, names: &mut dyn Names) {
    for incarnation in members.0.iter_mut().chain([joiner]).flatten() {
        *incarnation = names.incarnation(*incarnation);
    }
}

impl Link {
    fn strip(&mut self, clock: Clock, names: &mut dyn Names) {
        let Self { state, lane, down_since, attempts } = self;
        match state {
            State::Idle { retry_at } => clock.wait(retry_at),
            State::Connecting => {}
            State::Up(up) => up.strip(clock, names),
        }
        if let Some(LaneMark { incarnation, released: _, relayed: _ }) = lane {
            *incarnation = names.incarnation(*incarnation);
        }
        down_since.iter_mut().for_each(|at| clock.age(at, clock.timing.unreachable_ms));
        let mut longest = 1;
        while longest < 17 && clock.timing.backoff_first_ms << (longest - 1) < clock.timing.backoff_max_ms {
            longest += 1;
        }
        *attempts = (*attempts).min(longest);
    }
}

impl Up {
    fn strip(&mut self, clock: Clock, names: &mut dyn Names) {
        let Self { conn, incarnation, since, heard, said, duty } = self;
        conn.0 = names.conn(conn.0);
        *incarnation = names.incarnation(*incarnation);
        clock.age(since, clock.timing.backoff_max_ms);
        clock.age(heard, clock.timing.silent_ms);
        if let Some(View { role: _, from, epoch, primary: _, members, joiner, generation: _ }) = said {
            *epoch = names.epoch(*epoch);
            *from = names.incarnation(*from);
            rename(members, joiner, names);
        }
        match duty {
            Duty::Listening { ask_at } => clock.wait(ask_at),
            Duty::Attaching | Duty::Resuming { .. } | Duty::Feeding { .. } => {}
        }
    }
}
