//! Four hosts and seven cables, each with a name:
//!
//! ```text
//!              shelf: one LUN, controllers A and B
//!            A1 │  │ B1          A2 │  │ B2          disk paths, iSCSI
//!             san1 ────── inter ────── san2          rxe
//!               └── c1 ── client ── c2 ──┘           rxe
//! ```

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::fs::{MemfdFlags, memfd_create};
use tempfile::TempDir;

use crate::agent::{Job, excerpt};
use crate::cable::{Cable, Side};
use crate::cache::Parts;
use crate::machine::qemu::Qemu;
use crate::machine::uml::Uml;
use crate::machine::{Devices, Kind, Machine, Pace, Spec};
use crate::node::{BOOT, Node};
use crate::programs;

/// The shared disk.
pub const LUN_BYTES: u64 = 512 << 20;
/// The same, as the SAN hosts see it.
pub const DISK: &str = "/dev/mapper/mpatha";
/// The disk's serial number, after which the shelf names its file of reservations.
pub const SERIAL: &str = "shelf0001";

/// A host says in less than this what it waits for.
const STATE: Duration = Duration::from_secs(10);

/// How many lines of that follow a failed scenario's row.
const EXCERPT: usize = 40;

/// The run's folder: short, as sockets' paths have to be.
const PREFIX: &str = "twinsan-lab-";
/// The lock in it.
const ALIVE: &str = "alive.lock";

/// A host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// The disk shelf.
    Shelf,
    /// The first SAN host.
    San1,
    /// The second SAN host.
    San2,
    /// The client.
    Client,
}

/// All of them.
pub const HOSTS: [Host; 4] = [Host::Shelf, Host::San1, Host::San2, Host::Client];
/// The SAN hosts.
pub const SANS: [Host; 2] = [Host::San1, Host::San2];

impl Host {
    /// Its host name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Shelf => "shelf",
            Self::San1 => "san1",
            Self::San2 => "san2",
            Self::Client => "client",
        }
    }

    /// The host of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        HOSTS.into_iter().find(|host| host.name() == name)
    }

    const fn memory_mib(self) -> u32 {
        match self {
            Self::Shelf | Self::Client => 256,
            // Where both nodes of a pair run under valgrind.
            Self::San1 => 896,
            Self::San2 => 384,
        }
    }

    /// Its cables in the order of its network devices.
    const fn cables(self) -> &'static [(Link, Side)] {
        match self {
            Self::Shelf => &[(Link::A1, Side::A), (Link::B1, Side::A), (Link::A2, Side::A), (Link::B2, Side::A)],
            Self::San1 => &[(Link::A1, Side::B), (Link::B1, Side::B), (Link::Inter, Side::A), (Link::C1, Side::A)],
            Self::San2 => &[(Link::A2, Side::B), (Link::B2, Side::B), (Link::Inter, Side::B), (Link::C2, Side::A)],
            Self::Client => &[(Link::C1, Side::B), (Link::C2, Side::B)],
        }
    }

    /// The command that makes it what it is, after it has booted; `disk` is the shelf's.
    fn setup(self, disk: &str) -> String {
        let setup = match self {
            Self::Shelf => return format!("sh /lab/guest/shelf {disk} 10.2.11.1 10.2.12.1 10.2.21.1 10.2.22.1"),
            Self::San1 => {
                "sh /lab/guest/san 1 10.2.11.2 10.2.12.2 10.2.11.1 10.2.12.1 && \
                 sh /lab/guest/links +eth2=10.4.0.1 +eth3=10.3.1.1"
            }
            Self::San2 => {
                "sh /lab/guest/san 2 10.2.21.2 10.2.22.2 10.2.21.1 10.2.22.1 && \
                 sh /lab/guest/links +eth2=10.4.0.2 +eth3=10.3.2.1"
            }
            Self::Client => "modprobe -a nbd ublk_drv && sh /lab/guest/links +eth0=10.3.1.9 +eth1=10.3.2.9",
        };
        setup.to_owned()
    }

    /// The command that connects a SAN host to the shelf, which has to be there.
    fn connect(self) -> String {
        let shelf = if self == Self::San1 { "10.2.11.1 10.2.12.1" } else { "10.2.21.1 10.2.22.1" };
        format!("sh /lab/guest/login {shelf} && sh /lab/guest/paths")
    }
}

/// A cable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// san1 to the shelf's controller A.
    A1,
    /// san1 to the shelf's controller B.
    B1,
    /// san2 to the shelf's controller A.
    A2,
    /// san2 to the shelf's controller B.
    B2,
    /// san1 to san2.
    Inter,
    /// san1 to the client.
    C1,
    /// san2 to the client.
    C2,
}

/// All of them.
pub const LINKS: [Link; 7] = [Link::A1, Link::B1, Link::A2, Link::B2, Link::Inter, Link::C1, Link::C2];

/// The lab, switched on.
#[derive(Debug)]
pub struct Lab {
    kind: Kind,
    // In this order: the machines end before their cables, disk and folder go.
    nodes: Vec<Node>,
    cables: Vec<Cable>,
    /// A file of memory without a name, so that nothing of it is ever left.
    disk: File,
    folder: TempDir,
    /// Locked as long as this process lives.
    _alive: File,
}

impl Lab {
    /// Cables and hosts, all off; what they say goes to `logs`.
    ///
    /// # Errors
    /// If memory, sockets or the programs are not to be had.
    pub fn create(parts: &Parts, logs: &Path) -> Result<Self> {
        let kind = parts.kind();
        ensure_memory(kind, 1)?;
        // Until the folder is whole: who removes the folders in a hurry finds all of it, or nothing.
        let mut folders = folders();
        sweep();
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir().context("a folder for the run")?;
        let alive = File::create(folder.path().join(ALIVE))?;
        alive.lock()?;
        folders.retain(|earlier| earlier.exists());
        folders.push(folder.path().to_path_buf());
        let share = folder.path().join("share");
        fs::create_dir_all(share.join("shelf"))?;
        programs::share(&share)?;
        let disk = File::from(memfd_create("lab-disk", MemfdFlags::CLOEXEC)?);
        disk.set_len(LUN_BYTES)?;
        let cables = LINKS.into_iter().map(|_| Cable::new()).collect::<Result<_>>()?;
        let node = |host: Host| {
            let spec = Spec {
                name: host.name(),
                memory_mib: host.memory_mib() + kind.kernel_mib(),
                kind,
                number: host as u8,
                share: share.clone(),
                console: logs.join(format!("{}.console.log", host.name())),
            };
            let machine: Box<dyn Machine> = match parts.clone() {
                Parts::Uml { kernel, root } => Box::new(Uml::new(kernel, root, folder.path().join("uml"))),
                Parts::Qemu(boot) => Box::new(Qemu::new(boot)),
            };
            Node::new(spec, machine, logs.to_path_buf())
        };
        Ok(Self { kind, nodes: HOSTS.into_iter().map(node).collect(), cables, disk, folder, _alive: alive })
    }

    /// Switches everything on, and waits until every SAN host has two disk paths.
    ///
    /// # Errors
    /// With what the host in question said.
    pub fn boot(&mut self, pace: &Pace) -> Result<()> {
        self.switch_all_on(&HOSTS, pace)
    }

    /// Waits until a lab that has stood ready for a while is as one that has just been switched on: every host answers, every
    /// path to the disk is there.
    ///
    /// # Errors
    /// If it does not come to that.
    pub fn until_ready(&self) -> Result<()> {
        self.tell(&HOSTS, "ready", |host| match host {
            Host::Shelf | Host::Client => "true".to_owned(),
            Host::San1 | Host::San2 => "sh /lab/guest/paths".to_owned(),
        })
    }

    fn switch_all_on(&mut self, hosts: &[Host], pace: &Pace) -> Result<()> {
        for &host in hosts {
            self.switch_on(host, pace)?;
        }
        for &host in hosts {
            self.node(host).wait_up()?;
        }
        // The SAN hosts need the shelf only for the second half.
        let disk = self.kind.disk();
        self.tell(hosts, "setup", |host| host.setup(disk))?;
        let sans: Vec<Host> = hosts.iter().copied().filter(|host| SANS.contains(host)).collect();
        self.tell(&sans, "setup", Host::connect)
    }

    /// What its hosts are.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// As long as that is on these hosts, which may be slow ([`Kind::slowness`]).
    #[must_use]
    pub fn scaled(&self, time: Duration) -> Duration {
        time * self.kind.slowness()
    }

    /// Waits for what takes so long on the fastest hosts.
    pub fn sleep(&self, time: Duration) {
        std::thread::sleep(self.scaled(time));
    }

    /// A host.
    #[must_use]
    pub fn node(&self, host: Host) -> &Node {
        &self.nodes[host as usize]
    }

    /// A host, to be switched or frozen.
    pub fn node_mut(&mut self, host: Host) -> &mut Node {
        &mut self.nodes[host as usize]
    }

    /// A cable.
    #[must_use]
    pub fn cable(&self, link: Link) -> &Cable {
        &self.cables[link as usize]
    }

    /// The folder that is /lab in all guests.
    #[must_use]
    pub fn share(&self) -> PathBuf {
        self.folder.path().join("share")
    }

    /// The run's folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn switch_on(&mut self, host: Host, pace: &Pace) -> Result<()> {
        let cables = host.cables();
        for &(link, side) in cables {
            self.cables[link as usize].drain(side);
        }
        let network = cables.iter().map(|&(link, side)| self.cables[link as usize].end(side)).collect();
        // A name for what has none: the launcher's own descriptor.
        let disk = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.disk.as_raw_fd()));
        let disk = (host == Host::Shelf).then_some(disk.as_path());
        self.nodes[host as usize].start(&Devices { network, disk }, pace)
    }

    /// Runs a command on each of some hosts at the same time.
    fn tell(&self, hosts: &[Host], log: &str, command: impl Fn(Host) -> String) -> Result<()> {
        let started = |&host: &Host| Ok((host, self.node(host).spawn(log, &command(host))?));
        let jobs: Vec<(Host, Job)> = hosts.iter().map(started).collect::<Result<_>>()?;
        for (host, job) in jobs {
            let output = job.wait(BOOT)?;
            ensure!(output.code == 0, "setting up {} failed ({}):\n{}", host.name(), output.code, output.text);
        }
        Ok(())
    }

    /// Has every host that answers log what its processes wait for (`HOST.state.log`). Gives the same in short, for whoever has
    /// no logs.
    pub fn log_state(&self) -> Vec<String> {
        let ask = |host: Host| (host, self.node(host).spawn("state", "sh /lab/guest/state"));
        let asked: Vec<_> = HOSTS.into_iter().map(ask).collect();
        let mut lines = Vec::new();
        for (host, job) in asked {
            // One that is frozen, or hangs, has said what it could.
            let ended = job.as_ref().is_ok_and(|job| job.wait(STATE).is_ok());
            let said = job.map(|job| job.said()).unwrap_or_default();
            let name = host.name();
            lines.push(match ended {
                true => format!("{name} answers"),
                false if said.is_empty() => format!("{name} does not answer"),
                false => format!("{name} did not say all within {} s", STATE.as_secs()),
            });
            lines.extend(self.node(host).garbled());
            lines.extend(excerpt(&said, EXCERPT).into_iter().map(|line| format!("  {line}")));
        }
        lines
    }

    /// Pulls the plugs of some hosts and switches them on again, on the same cables, as fresh as after a boot.
    ///
    /// # Errors
    /// If one does not come up.
    pub fn power_cycle(&mut self, hosts: &[Host]) -> Result<()> {
        for &host in hosts {
            self.node_mut(host).kill();
        }
        self.switch_all_on(hosts, &Pace::default())
    }
}

/// The folders of this process's labs, for [`remove_folders`].
static FOLDERS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn folders() -> MutexGuard<'static, Vec<PathBuf>> {
    FOLDERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes the labs' folders, from any thread: for an end in a hurry. No lab can be made any more.
pub fn remove_folders() {
    let mut folders = folders();
    for folder in folders.drain(..) {
        // The lab may have ended by itself.
        let _ = fs::remove_dir_all(folder);
    }
    std::mem::forget(folders);
}

/// Removes the folders of runs that were killed: those whose lock nobody holds.
fn sweep() {
    for folder in runs() {
        let lock = File::options().append(true).open(folder.join(ALIVE));
        if lock.is_ok_and(|lock| lock.try_lock().is_ok()) {
            // Another run may be sweeping too.
            let _ = fs::remove_dir_all(&folder);
        }
    }
}

/// The folders of all runs, whoever's.
#[must_use]
pub fn runs() -> Vec<PathBuf> {
    let entries = fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
    ours.map(|entry| entry.path()).collect()
}

/// User-Mode Linux lives in /dev/shm, and one that finds it full dies of SIGBUS somewhere in its kernel; QEMU takes memory as
/// everybody does, and is killed where there is not enough.
///
/// # Errors
/// If there is not enough for so many labs.
pub fn ensure_memory(kind: Kind, labs: u64) -> Result<()> {
    let mib = |host: Host| u64::from(host.memory_mib() + kind.kernel_mib());
    let needed = labs * (HOSTS.into_iter().map(|host| mib(host) << 20).sum::<u64>() + LUN_BYTES);
    if kind == Kind::Qemu {
        let free = available_bytes()?;
        ensure!(free >= needed, "{} MiB of memory are free, and the guests need {} MiB", free >> 20, needed >> 20);
        return Ok(());
    }
    let shm = rustix::fs::statvfs("/dev/shm").context("/dev/shm, where guests' memory is")?;
    let free = shm.f_bavail * shm.f_frsize;
    ensure!(
        free >= needed,
        "/dev/shm has {} MiB free, and the guests' memory needs {} MiB there (mount -o remount,size=4G /dev/shm)",
        free >> 20,
        needed >> 20
    );
    Ok(())
}

fn available_bytes() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kib.context("MemAvailable in /proc/meminfo")? << 10)
}

/// How long a kernel waits before it believes that a path is gone, and a little more (`guest/san`).
pub const PATH_LOSS: Duration = Duration::from_secs(30);
