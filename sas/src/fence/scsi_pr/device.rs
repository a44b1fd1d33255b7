//! The real LUN: a thread per path, so that one that hangs in the kernel holds up nobody but itself.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::registrar::{Lun, PathError};
use super::sg::Device;
use super::spc::{Command, Status};
use crate::multipath::{PathId, PathInfo, ScsiDisk};

/// What the kernel gives a command: as much as the disk's own reads and writes get. Shorter would be a danger to others:
/// when it has passed the kernel goes on from aborting the command to resetting the LUN, under everybody's writes, and a
/// busy LUN is no dead one. Nobody waits for so long, see below.
const TIMEOUT: Duration = Duration::from_secs(30);
/// A path that does not say that it is ready within this time is left out.
const READY_PATIENCE: Duration = Duration::from_secs(1);
/// A LUN that answers at all answers questions in milliseconds.
const PATIENCE: Duration = Duration::from_secs(4);
/// PREEMPT AND ABORT, and the reset, wait until the LUN has stopped the victim's writes.
const CHANGE_PATIENCE: Duration = Duration::from_secs(11);

type Outcome = Result<Status, PathError>;

/// Takes commands to one path, one after the other. The thread ends after its last command when this is dropped.
#[derive(Debug)]
struct Courier {
    jobs: Sender<Command>,
    outcomes: Receiver<Outcome>,
    /// Commands that nobody waited for, whose ends are still to come.
    abandoned: u32,
}

impl Courier {
    fn start(info: PathInfo) -> Option<Self> {
        let (jobs, its_jobs) = channel::<Command>();
        let (its_outcomes, outcomes) = channel();
        let name = format!("path {}", info.id.name);
        let run = move || {
            let failed = |e: std::io::Error| PathError { path: info.id.name.clone(), what: format!("open: {e}") };
            // Opening waits too, while the kernel mends the path.
            let mut device = None;
            while let Ok(command) = its_jobs.recv() {
                if device.is_none() {
                    device = Device::open(&info).map_err(failed).map_err(|error| its_outcomes.send(Err(error))).ok();
                }
                let Some(opened) = &device else { continue };
                if its_outcomes.send(opened.run(command, TIMEOUT)).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name(name).spawn(run).ok()?;
        Some(Self { jobs, outcomes, abandoned: 0 })
    }

    /// Takes in the ends of commands that nobody waited for. `false`: there are more to come.
    fn is_free(&mut self) -> bool {
        while self.abandoned > 0 {
            match self.outcomes.try_recv() {
                Ok(_) => self.abandoned -= 1,
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return false,
            }
        }
        true
    }

    /// Sends a command; [`Courier::hear`] brings its end. `false`: the path hangs in an earlier one.
    fn send(&mut self, command: Command) -> bool {
        self.is_free() && self.jobs.send(command).is_ok()
    }

    /// Waits for the end of what was sent; `None` for ever.
    fn hear(&mut self, until: Option<Instant>) -> Option<Outcome> {
        let heard = match until {
            None => self.outcomes.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(until) => self.outcomes.recv_timeout(until.saturating_duration_since(Instant::now())),
        };
        if heard.is_err() {
            self.abandoned += 1;
        }
        heard.ok()
    }
}

/// The couriers of a disk's paths.
#[derive(Debug, Default)]
pub(crate) struct Couriers(BTreeMap<PathId, Courier>);

impl Couriers {
    fn of(&mut self, info: &PathInfo) -> Option<&mut Courier> {
        if !self.0.contains_key(&info.id) {
            self.0.insert(info.id.clone(), Courier::start(info.clone())?);
        }
        self.0.get_mut(&info.id)
    }

    /// Asks all of `paths` at once, and waits up to `patience` for all of them. `None`: no answer, or not asked, as the
    /// kernel says that the path can't be reached, where a command would only wait.
    pub(crate) fn ask_all(&mut self, paths: &[PathInfo], command: Command, patience: Duration) -> Vec<Option<Status>> {
        debug_assert!(!command.is_change(), "nobody waits for its end");
        self.0.retain(|id, _| paths.iter().any(|path| path.id == *id));
        let until = Instant::now() + patience;
        let mut sent =
            |path: &PathInfo| path.is_running() && self.of(path).is_some_and(|courier| courier.send(command));
        let sent: Vec<bool> = paths.iter().map(&mut sent).collect();
        let mut hear = |(path, sent): (&PathInfo, bool)| {
            let courier = self.0.get_mut(&path.id).filter(|_| sent)?;
            courier.hear(Some(until))?.ok()
        };
        paths.iter().zip(sent).map(&mut hear).collect()
    }
}

/// See the module's text.
#[derive(Debug)]
pub struct DeviceLun {
    disk: ScsiDisk,
    couriers: Couriers,
    seen: BTreeMap<PathId, PathInfo>,
}

impl DeviceLun {
    /// The LUN behind a disk.
    #[must_use]
    pub fn new(disk: ScsiDisk) -> Self {
        Self { disk, couriers: Couriers::default(), seen: BTreeMap::new() }
    }
}

impl Lun for DeviceLun {
    fn live(&mut self) -> Vec<PathId> {
        let paths = self.disk.paths().unwrap_or_default();
        let answers = self.couriers.ask_all(&paths, Command::TestUnitReady, READY_PATIENCE);
        self.seen = paths.iter().map(|path| (path.id.clone(), path.clone())).collect();
        let mut live: Vec<(bool, PathId)> = Vec::new();
        for (path, answer) in paths.into_iter().zip(answers) {
            let Some(answer) = answer else { continue };
            // Whatever it says, it is there; those that are ready first.
            let ready = match answer {
                Status::Check(sense) => sense.is_passing(),
                Status::Good(_) | Status::Conflict | Status::Again(_) => true,
            };
            live.push((!ready, path.id));
        }
        live.sort();
        live.into_iter().map(|(_, id)| id).collect()
    }

    fn run(&mut self, path: &PathId, command: Command) -> Result<Status, PathError> {
        let failed = |what: &str| PathError { path: path.name.clone(), what: format!("{}: {what}", command.name()) };
        let info = self.seen.get(path).ok_or_else(|| failed("the path is gone"))?.clone();
        let courier = self.couriers.of(&info).ok_or_else(|| failed("no thread for it"))?;
        if !courier.send(command) {
            return Err(failed("the path hangs"));
        }
        // A registration that came late could undo a fence: its end is awaited, however long the kernel takes.
        let patience = if command.is_change() || command == Command::Reset { CHANGE_PATIENCE } else { PATIENCE };
        let until = (!command.is_registration()).then(|| Instant::now() + patience);
        courier.hear(until).unwrap_or_else(|| Err(failed("no answer in time")))
    }

    fn pause(&mut self) {
        thread::sleep(Duration::from_millis(50));
    }
}
