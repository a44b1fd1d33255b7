//! A LUN in memory that keeps SPC-4's rules of persistent reservations, and what LIO makes of them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::registrar::{Lun, PathError};
use super::spc::{Command, ReservationKey, ReservationType, Sense, Status};
use crate::multipath::PathId;

/// An initiator port to a target port: what a registration belongs to.
pub(super) type Nexus = (&'static str, String);

/// The LUN.
#[derive(Default)]
pub(super) struct State {
    pub(super) keys: BTreeMap<Nexus, ReservationKey>,
    pub(super) generation: u32,
    pub(super) holder: Option<(Nexus, ReservationType)>,
    /// LIO keeps "this one is registered" beside the registrations, per host and LUN of a target port (`se_deve`),
    /// whatever the initiator port: removing any registration of a host there clears it, only a new one sets it.
    forgotten: BTreeSet<Nexus>,
    attentions: BTreeMap<Nexus, Vec<Sense>>,
    /// Writes that the LUN has begun and not ended.
    pub(super) in_flight: Vec<(Nexus, &'static str)>,
    /// What has landed.
    pub(super) landed: Vec<&'static str>,
    pub(super) resets: u32,
    persists: bool,
}

/// Everybody's view of it.
#[derive(Clone)]
pub(super) struct FakeLun(Rc<RefCell<State>>);

/// What a script does when a command comes.
type Script = Box<dyn FnMut(&FakeLun)>;

/// One host's view.
pub(super) struct FakeHost {
    lun: FakeLun,
    name: &'static str,
    paths: Vec<PathId>,
    pub(super) down: BTreeSet<String>,
    /// Their target port answers, and knows no such LUN.
    pub(super) unmapped: BTreeSet<String>,
    /// Before the command of this number, counted from now on.
    scripts: Vec<(u32, Script)>,
    /// The command of this number is done, and its answer is lost with the path.
    swallowed: Option<u32>,
    pub(super) commands: Vec<(String, Command)>,
}

pub(super) fn key(bits: u64) -> ReservationKey {
    ReservationKey::new(bits).expect("not zero")
}

const fn attention(qualifier: u8) -> Sense {
    Sense { key: 6, code: 0x2a, qualifier }
}

impl FakeLun {
    pub(super) fn new() -> Self {
        Self(Rc::new(RefCell::new(State { persists: true, ..State::default() })))
    }

    pub(super) fn forgetful() -> Self {
        Self(Rc::new(RefCell::new(State::default())))
    }

    pub(super) fn state(&self) -> std::cell::RefMut<'_, State> {
        self.0.borrow_mut()
    }

    pub(super) fn keys_of(&self, host: &str) -> Vec<(String, u64)> {
        let state = self.state();
        let own = state.keys.iter().filter(|((name, _), _)| *name == host);
        own.map(|((_, path), key)| (path.clone(), key.get())).collect()
    }

    pub(super) fn holder_key(&self) -> Option<ReservationKey> {
        self.state().holder_key()
    }

    pub(super) fn generation(&self) -> u32 {
        self.state().generation
    }

    /// Somebody else unregisters this path.
    pub(super) fn strike(&self, host: &'static str, path: &str) {
        self.state().keys.remove(&(host, path.to_owned()));
    }

    pub(super) fn host(&self, name: &'static str) -> FakeHost {
        let paths = ["sda", "sdb"].map(|path| PathId { name: path.to_owned(), serial: 1 }).to_vec();
        let (scripts, commands) = (Vec::new(), Vec::new());
        let (down, unmapped) = (BTreeSet::new(), BTreeSet::new());
        FakeHost { lun: self.clone(), name, paths, down, unmapped, scripts, swallowed: None, commands }
    }

    /// The host logs in at this target port anew, from another initiator port (iSCSI: another ISID): what is registered
    /// there, and may hold the reservation, is another's now.
    pub(super) fn new_initiator_port(&self, host: &'static str, path: &str) {
        let (here, before) = ((host, path.to_owned()), (host, format!("{path}, earlier")));
        let mut state = self.state();
        if let Some(key) = state.keys.remove(&here) {
            state.keys.insert(before.clone(), key);
        }
        if let Some((holder, _)) = state.holder.as_mut().filter(|(holder, _)| *holder == here) {
            *holder = before;
        }
    }

    /// A write begins: what the LUN checks is whether the path is registered. LIO lets a holder write, refuses who comes
    /// from another initiator port of the holder's, and asks its own note of the others.
    pub(super) fn begin_write(&self, host: &'static str, path: &str, what: &'static str) -> bool {
        let nexus = (host, path.to_owned());
        let mut state = self.state();
        let allowed = match &state.holder {
            None => true,
            Some((holder, _)) if *holder == nexus => true,
            Some((holder, _)) if port(holder) == nexus => false,
            Some(_) => state.keys.contains_key(&nexus) && !state.forgotten.contains(&nexus),
        };
        if allowed {
            state.in_flight.push((nexus, what));
        }
        allowed
    }

    /// What is in flight lands.
    pub(super) fn end_writes(&self) {
        let mut state = self.state();
        let ended: Vec<_> = state.in_flight.drain(..).map(|(_, what)| what).collect();
        state.landed.extend(ended);
    }
}

/// The target port, for this host.
fn port(nexus: &Nexus) -> Nexus {
    let name = nexus.1.split(',').next().unwrap_or_default();
    (nexus.0, name.to_owned())
}

impl State {
    fn holder_key(&self) -> Option<ReservationKey> {
        self.holder.as_ref().and_then(|(nexus, _)| self.keys.get(nexus)).copied()
    }

    fn run(&mut self, nexus: &Nexus, command: Command) -> Status {
        if let Some(sense) = self.attentions.get_mut(nexus).and_then(Vec::pop) {
            return Status::Check(sense);
        }
        let own = self.keys.get(nexus).copied();
        match command {
            Command::TestUnitReady => Status::Good(Vec::new()),
            Command::ReadKeys => Status::Good(self.read_keys()),
            Command::ReadReservation => Status::Good(self.read_reservation()),
            Command::ReportCapabilities => Status::Good(vec![0, 8, u8::from(self.persists), 0x80, 0xea, 0x01, 0, 0]),
            Command::Register { old, .. } if old != own => Status::Conflict,
            Command::Register { new, .. } => self.register(nexus, new),
            Command::RegisterAnyway { new } => self.register(nexus, Some(new)),
            Command::Reserve { key } => self.reserve(nexus, key),
            Command::PreemptAndAbort { key, .. } | Command::PreemptOwn { key } if own != Some(key) => Status::Conflict,
            Command::PreemptOwn { key } => self.preempt_own(nexus, key),
            Command::PreemptAndAbort { victim, .. } => self.preempt(nexus, victim),
            Command::Reset => {
                self.resets += 1;
                self.in_flight.clear();
                let all: Vec<Nexus> = self.keys.keys().cloned().collect();
                for nexus in all {
                    self.attentions.entry(nexus).or_default().push(Sense { key: 6, code: 0x29, qualifier: 0 });
                }
                Status::Good(Vec::new())
            }
        }
    }

    fn read_keys(&self) -> Vec<u8> {
        let mut data = self.generation.to_be_bytes().to_vec();
        data.extend(u32::try_from(self.keys.len() * 8).expect("few").to_be_bytes());
        data.extend(self.keys.values().flat_map(|key| key.get().to_be_bytes()));
        data
    }

    fn read_reservation(&self) -> Vec<u8> {
        let mut data = self.generation.to_be_bytes().to_vec();
        let Some((_, kind)) = &self.holder else {
            data.extend([0; 4]);
            return data;
        };
        data.extend(16_u32.to_be_bytes());
        data.extend(self.holder_key().map_or(0, ReservationKey::get).to_be_bytes());
        data.extend([0, 0, 0, 0, 0, kind.0, 0, 0]);
        data
    }

    fn register(&mut self, nexus: &Nexus, new: Option<ReservationKey>) -> Status {
        self.generation = self.generation.wrapping_add(1);
        match new {
            Some(key) => {
                if self.keys.insert(nexus.clone(), key).is_none() {
                    self.forgotten.remove(&port(nexus));
                }
            }
            None => {
                self.remove(nexus);
                if self.holder.as_ref().is_some_and(|(holder, _)| holder == nexus) {
                    self.holder = None;
                    self.attend_all_but(nexus, attention(4));
                }
            }
        }
        Status::Good(Vec::new())
    }

    fn reserve(&mut self, nexus: &Nexus, key: ReservationKey) -> Status {
        if self.keys.get(nexus) != Some(&key) || self.holder.as_ref().is_some_and(|(holder, _)| holder != nexus) {
            return Status::Conflict;
        }
        self.holder = Some((nexus.clone(), ReservationType::REGISTRANTS_ONLY));
        Status::Good(Vec::new())
    }

    fn preempt(&mut self, nexus: &Nexus, victim: ReservationKey) -> Status {
        let victims: Vec<Nexus> =
            self.keys.iter().filter(|(_, key)| **key == victim).map(|(nexus, _)| nexus.clone()).collect();
        if victims.is_empty() {
            return Status::Conflict;
        }
        let held = self.holder_key() == Some(victim);
        for gone in &victims {
            self.remove(gone);
            self.attentions.entry(gone.clone()).or_default().push(attention(5));
        }
        if held {
            self.holder = Some((nexus.clone(), ReservationType::REGISTRANTS_ONLY));
            // LIO: of a holder only.
            self.in_flight.retain(|(from, _)| !victims.contains(from));
        }
        self.generation = self.generation.wrapping_add(1);
        Status::Good(Vec::new())
    }

    fn remove(&mut self, nexus: &Nexus) {
        if self.keys.remove(nexus).is_some() {
            self.forgotten.insert(port(nexus));
        }
    }

    /// Spares the one it comes by where the key holds the reservation, says SPC; else LIO removes that one too.
    fn preempt_own(&mut self, nexus: &Nexus, key: ReservationKey) -> Status {
        let held = self.holder_key() == Some(key);
        let own: Vec<Nexus> = self.keys.iter().filter(|(_, k)| **k == key).map(|(nexus, _)| nexus.clone()).collect();
        for gone in own.into_iter().filter(|other| !held || other != nexus) {
            self.remove(&gone);
            self.attentions.entry(gone).or_default().push(attention(5));
        }
        if held {
            self.holder = Some((nexus.clone(), ReservationType::REGISTRANTS_ONLY));
        }
        self.generation = self.generation.wrapping_add(1);
        Status::Good(Vec::new())
    }

    fn attend_all_but(&mut self, nexus: &Nexus, sense: Sense) {
        let others: Vec<Nexus> = self.keys.keys().filter(|other| *other != nexus).cloned().collect();
        for other in others {
            self.attentions.entry(other).or_default().push(sense);
        }
    }
}

impl FakeHost {
    /// Before the `nth` (from 0) command from now on.
    pub(super) fn before(&mut self, nth: u32, script: impl FnMut(&FakeLun) + 'static) {
        self.scripts.push((nth, Box::new(script)));
    }

    /// The `nth` command from now on is done, and its path goes down before the answer comes.
    pub(super) fn swallow(&mut self, nth: u32) {
        self.swallowed = Some(nth);
    }

    fn scripted(&mut self) -> bool {
        let mut due = Vec::new();
        self.scripts.retain_mut(|(countdown, script)| {
            if *countdown == 0 {
                due.push(std::mem::replace(script, Box::new(|_| {})));
                return false;
            }
            *countdown -= 1;
            true
        });
        for mut script in due {
            script(&self.lun);
        }
        match &mut self.swallowed {
            Some(0) => {
                self.swallowed = None;
                true
            }
            Some(countdown) => {
                *countdown -= 1;
                false
            }
            None => false,
        }
    }
}

impl Lun for FakeHost {
    fn live(&mut self) -> Vec<PathId> {
        self.paths.iter().filter(|path| !self.down.contains(&path.name)).cloned().collect()
    }

    fn run(&mut self, path: &PathId, command: Command) -> Result<Status, PathError> {
        let swallowed = self.scripted();
        self.commands.push((path.name.clone(), command));
        let lost = PathError { path: path.name.clone(), what: "no answer".to_owned() };
        if self.down.contains(&path.name) {
            return Err(lost);
        }
        if self.unmapped.contains(&path.name) {
            return Ok(Status::Check(Sense { key: 5, code: 0x25, qualifier: 0 }));
        }
        let status = self.lun.state().run(&(self.name, path.name.clone()), command);
        if swallowed {
            self.down.insert(path.name.clone());
            return Err(lost);
        }
        Ok(status)
    }

    fn pause(&mut self) {}
}
