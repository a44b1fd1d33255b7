//! What is registered, and in which order it is changed (protocol section 5, `scsi-pr`). No I/O of its own: it works on
//! any [`Lun`], the real one or the tests' model.
//!
//! ```text
//!            let_in(): one new key, on every path that answers
//!   out ───────────────────────────────────────────────────────▶ in ◀──┐ mend(): a path that came back gets the key
//!    ▲                                                           │  └──┘
//!    ├──── forget() ─────────────────────────────────────────────┤
//!    └──── the key is gone (another node has fenced) ◀───────────┘ fence(): nobody else is in, and the LUN is reserved
//! ```
//!
//! **Every method is called while no write of this host is in flight or can be issued**: the flusher has awaited them,
//! and nobody else on this host can write, as the claim is held. Hence a path may be registered here whatever
//! dm-multipath thinks of it: until the registration has been checked, nothing goes out on it.
//!
//! What is never done here: RELEASE, CLEAR, and unregistering a path that may hold the reservation. Without a
//! reservation everybody may write, also who was fenced long ago and has only been frozen since.

mod error;
mod mend;
mod renew;

use std::collections::BTreeSet;

pub use error::{PathError, ReservationError};
use error::{Trouble, Unanswered};

use super::spc::{Capabilities, Command, Keys, Malformed, Reservation, ReservationKey, ReservationType, Status};
use crate::multipath::PathId;

/// The logical unit behind all of this host's paths.
pub trait Lun {
    /// The paths that answer now, best first.
    fn live(&mut self) -> Vec<PathId>;

    /// Sends a command by one path. When it returns, the command has ended, unless it is one that does no harm late
    /// (all but [`Command::is_registration`]).
    ///
    /// # Errors
    /// Whatever is not the LUN's own answer. Whether the command was done is then unknown.
    fn run(&mut self, path: &PathId, command: Command) -> Result<Status, PathError>;

    /// Waits a moment: the LUN is busy.
    fn pause(&mut self);
}

/// What [`Registrar::fence`] has done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fenced {
    /// The keys that were removed.
    pub victims: Vec<ReservationKey>,
}

/// A LUN's answer that decides something.
enum Answer {
    Good(Vec<u8>),
    Conflict,
}

/// How often a command is sent again after a unit attention or BUSY.
const MAX_TRIES: u32 = 20;
/// How often an operation starts again as somebody else changed the keys meanwhile.
const MAX_ROUNDS: u32 = 16;

/// See the module's text.
#[derive(Debug)]
pub struct Registrar<L> {
    lun: L,
    key: Option<ReservationKey>,
    registered: BTreeSet<PathId>,
    /// The last refused write found every path registered: nothing there to mend.
    puzzled: bool,
}

impl<L: Lun> Registrar<L> {
    /// Nothing is registered yet.
    pub const fn new(lun: L) -> Self {
        Self { lun, key: None, registered: BTreeSet::new(), puzzled: false }
    }

    /// The own key, while in.
    pub const fn key(&self) -> Option<ReservationKey> {
        self.key
    }

    /// The paths that are known to be registered with it.
    pub const fn registered(&self) -> &BTreeSet<PathId> {
        &self.registered
    }

    /// The LUN.
    pub const fn lun(&mut self) -> &mut L {
        &mut self.lun
    }

    /// Lets go of the key here; on the LUN it stays, as the reservation may hang on it. That lets nobody write: whoever
    /// on this host wants to has to hold its claim, and then registers with a new key over this one.
    pub fn forget(&mut self) {
        self.key = None;
        self.registered.clear();
        self.puzzled = false;
    }

    /// Only `known` paths are still believed to be registered.
    pub fn doubt(&mut self, known: &BTreeSet<PathId>) {
        self.registered.retain(|path| known.contains(path));
    }

    /// Rule 8: registers every path that answers with one new key of `fresh`. An earlier life's key is replaced, by
    /// REGISTER AND IGNORE EXISTING KEY: the paths are this host's own, and its claim says that no write of that life
    /// is in flight. On a path that is down now that key stays; it is nobody's, a fence removes it.
    pub fn let_in(&mut self, fresh: &mut dyn FnMut() -> ReservationKey) -> Result<(), ReservationError> {
        self.forget();
        for _ in 0..MAX_ROUNDS {
            let live = self.lun.live();
            self.check_capabilities(&live)?;
            let key = fresh();
            let (mut unknown, mut refused) = (None, None);
            for path in &live {
                match self.run(path, Command::RegisterAnyway { new: key }) {
                    Ok(Answer::Good(_)) => drop(self.registered.insert(path.clone())),
                    // Not an answer to this command, says SPC (table 67): the path is of no use.
                    Ok(Answer::Conflict) => {}
                    Err(Trouble::Silent(error)) => unknown = Some(error),
                    Err(Trouble::NotReady(error)) => tracing::warn!(%error, "not registered yet"),
                    Err(Trouble::Refused(error)) => {
                        tracing::warn!(%error, "not registered");
                        refused = Some(error);
                    }
                    Err(Trouble::Lun(error)) => return Err(error),
                }
            }
            match unknown {
                None if self.registered.is_empty() => return Err(refused.unwrap_or(ReservationError::NoPath(None))),
                None => {
                    self.key = Some(key);
                    return self.settle_in(key);
                }
                // The key may yet appear on that path, when it will say nothing about us: take another one.
                Some(error) => {
                    self.registered.clear();
                    tracing::warn!(%error, "a registration has no known end: starting again with a new key");
                }
            }
        }
        Err(ReservationError::Unsettled("registering"))
    }

    /// Another node's fence may have come between the first path and the last: each path is asked once.
    fn settle_in(&mut self, key: ReservationKey) -> Result<(), ReservationError> {
        let keys = self.read_keys()?;
        let found = keys.keys.iter().filter(|&&other| other == key).count();
        if found >= self.registered.len() || self.mend(true)? {
            return Ok(());
        }
        self.forget();
        Err(ReservationError::Gone(key))
    }

    fn check_capabilities(&mut self, live: &[PathId]) -> Result<(), ReservationError> {
        let data = self.first(live, Command::ReportCapabilities)?;
        let capabilities = Capabilities::parse(&data)?;
        if !capabilities.registrants_only {
            return Err(ReservationError::NotCapable("it has no type Write Exclusive, Registrants Only"));
        }
        if !capabilities.persists {
            return Err(ReservationError::NotCapable(
                "it forgets reservations when it loses power (no PTPL), and a frozen node could write after that",
            ));
        }
        Ok(())
    }

    /// Whether the own key is registered still.
    pub fn stands(&mut self) -> Result<bool, ReservationError> {
        let Some(key) = self.key else { return Ok(false) };
        Ok(self.read_keys()?.contains(key))
    }

    /// Rules 5 and 6: nobody but this node is registered, the LUN is reserved, and what others had in flight has ended
    /// or never will.
    pub fn fence(&mut self) -> Result<Fenced, ReservationError> {
        let key = self.key.ok_or(ReservationError::NotIn)?;
        if !self.mend(false)? {
            return Err(ReservationError::Gone(key));
        }
        let (mut victims, mut reset) = (Vec::new(), false);
        for _ in 0..MAX_ROUNDS {
            match self.fence_round(key)? {
                Round::Removed(victim) => {
                    reset = false;
                    if !victims.contains(&victim) {
                        victims.push(victim);
                    }
                }
                Round::Again => {}
                Round::Alone if reset => return Ok(Fenced { victims }),
                // Whoever was removed, and also where there was nobody to remove: LIO aborts the tasks of the
                // reservation's holder only (core_scsi3_pro_preempt), the holder may have been an earlier life of this
                // very host, and the one who removed the others may have died before its reset.
                Round::Alone => {
                    self.reset()?;
                    reset = true;
                }
            }
        }
        Err(ReservationError::Unsettled("fencing"))
    }

    fn fence_round(&mut self, key: ReservationKey) -> Result<Round, ReservationError> {
        let keys = self.read_keys()?;
        if !keys.contains(key) {
            self.forget();
            return Err(ReservationError::Gone(key));
        }
        let reservation = self.read_reservation()?;
        if let Some(&victim) = keys.keys.iter().find(|&&other| other != key) {
            self.by_registered_path(Command::PreemptAndAbort { key, victim })?;
            return Ok(Round::Removed(victim));
        }
        match reservation {
            None => {
                self.by_registered_path(Command::Reserve { key })?;
                Ok(Round::Again)
            }
            Some(Reservation { key: Some(holder), kind: ReservationType::REGISTRANTS_ONLY }) => {
                // Somebody else's: it has come since the keys were read.
                Ok(if holder == key { Round::Alone } else { Round::Again })
            }
            Some(Reservation { kind, .. }) => Err(ReservationError::Foreign(kind)),
        }
    }

    /// Rule 13: the reservation and the registrations stay as they are, and have to be what they should.
    pub fn accept(&mut self) -> Result<(), ReservationError> {
        let key = self.key.ok_or(ReservationError::NotIn)?;
        if !self.mend(false)? || !self.stands()? {
            self.forget();
            return Err(ReservationError::Gone(key));
        }
        match self.read_reservation()? {
            Some(Reservation { kind: ReservationType::REGISTRANTS_ONLY, .. }) => Ok(()),
            Some(Reservation { kind, .. }) => Err(ReservationError::Foreign(kind)),
            None => Err(ReservationError::Unreserved),
        }
    }

    // ---- one command ------------------------------------------------------------------------------------------------

    pub(super) fn read_keys(&mut self) -> Result<Keys, ReservationError> {
        Ok(Keys::parse(&self.by_any_path(Command::ReadKeys)?)?)
    }

    pub(super) fn read_reservation(&mut self) -> Result<Option<Reservation>, ReservationError> {
        Ok(Reservation::parse(&self.by_any_path(Command::ReadReservation)?)?)
    }

    fn reset(&mut self) -> Result<(), ReservationError> {
        self.by_any_path(Command::Reset).map(drop)
    }

    /// By a registered path, which answered a moment ago, else by whatever answers now.
    fn by_any_path(&mut self, command: Command) -> Result<Vec<u8>, ReservationError> {
        let registered: Vec<PathId> = self.registered.iter().cloned().collect();
        match self.first(&registered, command) {
            Err(ReservationError::NoPath(_) | ReservationError::Refused { .. }) => {
                let live = self.lun.live();
                self.first(&live, command)
            }
            answer => answer,
        }
    }

    /// A change that needs the own registration. `false`: a conflict, whose meaning READ KEYS tells.
    fn by_registered_path(&mut self, command: Command) -> Result<bool, ReservationError> {
        let key = self.key.ok_or(ReservationError::NotIn)?;
        let paths: Vec<PathId> = self.registered.iter().cloned().collect();
        let mut why = Unanswered::default();
        for path in paths {
            match self.run(&path, command) {
                Ok(Answer::Good(_)) => return Ok(true),
                // It may also be this path that is not registered any more.
                Ok(Answer::Conflict) if self.mend(true)? => return Ok(false),
                Ok(Answer::Conflict) => return Err(ReservationError::Gone(key)),
                Err(trouble) => why.add(trouble)?,
            }
        }
        Err(why.error())
    }

    /// By the first of these paths that brings an answer.
    fn first(&mut self, paths: &[PathId], command: Command) -> Result<Vec<u8>, ReservationError> {
        let mut why = Unanswered::default();
        for path in paths {
            match self.run(path, command) {
                Ok(Answer::Good(data)) => return Ok(data),
                // None of what is asked here is ever refused for a reservation of this kind (SPC-4 table 66).
                Ok(Answer::Conflict) => return Err(ReservationError::Unsettled(command.name())),
                Err(trouble) => why.add(trouble)?,
            }
        }
        Err(why.error())
    }

    fn run_parsed<T>(
        &mut self,
        path: &PathId,
        command: Command,
        parse: impl Fn(&[u8]) -> Result<T, Malformed>,
    ) -> Result<T, Trouble> {
        match self.run(path, command)? {
            Answer::Good(data) => parse(&data).map_err(|error| Trouble::Lun(error.into())),
            Answer::Conflict => Err(Trouble::Lun(ReservationError::Unsettled(command.name()))),
        }
    }

    /// Sends it until it is answered with more than "later".
    fn run(&mut self, path: &PathId, command: Command) -> Result<Answer, Trouble> {
        for _ in 0..MAX_TRIES {
            match self.lun.run(path, command).map_err(Trouble::Silent)? {
                Status::Good(data) => return Ok(Answer::Good(data)),
                Status::Conflict => return Ok(Answer::Conflict),
                // Said once for every event and path, and nothing was done.
                Status::Check(sense) if sense.is_passing() => {}
                Status::Check(sense) => {
                    let (command, path) = (command.name(), path.name.clone());
                    return Err(if sense.is_refusal() {
                        Trouble::Refused(ReservationError::Refused { command, path, sense })
                    } else {
                        Trouble::NotReady(PathError { path, what: format!("{command}: {sense}") })
                    });
                }
                Status::Again(_) => self.lun.pause(),
            }
        }
        let what = format!("{} was put off {MAX_TRIES} times", command.name());
        Err(Trouble::NotReady(PathError { path: path.name.clone(), what }))
    }
}

/// What one round of [`Registrar::fence`] has done.
enum Round {
    Removed(ReservationKey),
    Again,
    Alone,
}
