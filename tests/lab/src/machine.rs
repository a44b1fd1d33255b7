//! A host that can be switched on, cut off, frozen: User-Mode Linux, or QEMU.

pub mod qemu;
mod qmp;
pub mod uml;

use std::fmt::Debug;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, getpriority_process, kill_process_group, setpriority_pgrp};
use rustix::thread::{CapabilitySet, capabilities};

/// What the lab's machines are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// User-Mode Linux.
    Uml,
    /// QEMU without KVM (TCG), with Debian's stock kernel.
    Qemu,
}

impl Kind {
    /// Everything that the lab waits for may take so many times as long as on the fastest kind, and everything that has to
    /// outlast something takes so many times as long. The one place where a machine's speed is known.
    #[must_use]
    pub const fn slowness(self) -> u32 {
        match self {
            Self::Uml => 1,
            Self::Qemu => 6,
        }
    }

    /// Its first disk beyond the root.
    #[must_use]
    pub const fn disk(self) -> &'static str {
        match self {
            Self::Uml => "/dev/ubda",
            Self::Qemu => "/dev/vdb",
        }
    }

    /// What its kernel takes for itself beyond what User-Mode Linux does.
    #[must_use]
    pub const fn kernel_mib(self) -> u32 {
        match self {
            Self::Uml => 0,
            Self::Qemu => 256,
        }
    }

    /// Whether a frozen machine's clock stands still; else it jumps on when the machine thaws.
    #[must_use]
    pub const fn clock_stands_still(self) -> bool {
        matches!(self, Self::Qemu)
    }
}

/// What a machine is made of; the same for every start.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Its host name.
    pub name: &'static str,
    /// Memory.
    pub memory_mib: u32,
    /// What it is, and how slow.
    pub kind: Kind,
    /// Distinguishes its network addresses from the others'.
    pub number: u8,
    /// The folder that is /lab in it.
    pub share: PathBuf,
    /// What its kernel says.
    pub console: PathBuf,
}

/// A host of the lab.
pub trait Machine: Debug + Send {
    /// Switches it on.
    ///
    /// # Errors
    /// If it can't be started.
    fn start(&mut self, spec: &Spec, devices: &Devices<'_>) -> Result<UnixStream>;

    /// Pulls its plug: nothing that it had in memory is written anywhere. Does nothing to one that is off.
    fn kill(&mut self);

    /// It does nothing at all until [`Machine::thaw`]; what is in flight on the wire or at the disk goes on.
    ///
    /// # Errors
    /// If it is off.
    fn freeze(&mut self) -> Result<()>;

    /// It goes on where it was.
    ///
    /// # Errors
    /// If it is off.
    fn thaw(&mut self) -> Result<()>;

    /// Whether it is on. One that switched itself off is not.
    fn is_on(&mut self) -> bool;

    /// All of its processes, if it is on.
    fn group(&self) -> Option<Pid>;
}

/// What is plugged into a machine.
#[derive(Debug)]
pub struct Devices<'a> {
    /// Its ends of the cables: eth0, eth1, …
    pub network: Vec<BorrowedFd<'a>>,
    /// A disk, as a path that can be opened.
    pub disk: Option<&'a Path>,
}

/// Only one process is started at a time, as what the one inherits is open to the other in that moment.
static SPAWNING: Mutex<()> = Mutex::new(());

/// Starts a process that inherits `descriptors` under their own numbers.
fn spawn_with(command: &mut Command, descriptors: &[BorrowedFd<'_>]) -> io::Result<Child> {
    let _turn = SPAWNING.lock().unwrap_or_else(PoisonError::into_inner);
    for descriptor in descriptors {
        fcntl_setfd(descriptor, FdFlags::empty())?;
    }
    let child = command.spawn();
    for descriptor in descriptors {
        fcntl_setfd(descriptor, FdFlags::CLOEXEC)?;
    }
    child
}

/// The process groups of machines that are on, for an end in a hurry.
static ON: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

fn on() -> MutexGuard<'static, Vec<Pid>> {
    ON.lock().unwrap_or_else(PoisonError::into_inner)
}

fn remember(group: Pid) {
    on().push(group);
}

fn forget(group: Pid) {
    on().retain(|&other| other != group);
}

/// Pulls every machine's plug, from any thread.
pub fn kill_all() {
    for group in on().drain(..) {
        // It may have ended by itself.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// How many steps behind: all that the kernel's scheduler knows, which takes less where there are not so many (nice(2)).
const STEPS: i32 = 19;

/// How machines that boot share the processors with those that are in use: a step behind, or as everybody.
#[derive(Debug, Default)]
pub struct Pace {
    /// The groups of those that are a step behind; `None`: nobody is.
    behind: Mutex<Option<Vec<Pid>>>,
}

impl Pace {
    /// What starts at this pace gets what processors the others leave.
    #[must_use]
    pub fn behind() -> Self {
        Self { behind: Mutex::new(Some(Vec::new())) }
    }

    /// For a machine that has just been started.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn apply(&self, group: Pid) -> Result<()> {
        if let Some(groups) = &mut *self.lock() {
            setpriority_pgrp(Some(group), getpriority_process(None)? + STEPS)?;
            groups.push(group);
        }
        Ok(())
    }

    /// From now on as everybody.
    pub fn hurry(&self) {
        let own = getpriority_process(None).unwrap_or(0);
        for group in self.lock().take().into_iter().flatten() {
            // It may have ended by itself. Who is not allowed to do this never is behind (`may_hurry`).
            let _ = setpriority_pgrp(Some(group), own);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<Pid>>> {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether this process may give others their priority back.
#[must_use]
pub fn may_hurry() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_NICE))
}

/// A line for the agent: our end, and the machine's.
fn agent_line() -> io::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = UnixStream::pair()?;
    Ok((ours, theirs.into()))
}
