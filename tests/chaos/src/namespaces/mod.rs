//! Hosts on this machine: each a network namespace of its own, with a cable to each other one.
//!
//! ```text
//!                      client
//!         10.3.1.2 ──────┴────── 10.3.2.2
//!            │                      │
//!         10.3.1.1               10.3.2.1
//!           san1 ───────────────── san2
//!         10.4.0.1               10.4.0.2
//! ```
//!
//! No host forwards anything, and none has a default route: who loses a cable loses that way. Both nodes run on one kernel,
//! so their fence is `local-lock`, and a frozen one that is fenced is killed. The disk is a file on a tmpfs of limited size.

mod cable;
mod disk;
mod host;
mod process;
// The only unsafe code of the tests: one ioctl.
#[allow(unsafe_code)]
mod tun;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use twinsan_control::admin::{Request, Response, ask};
use twinsan_perf::cluster::{Cluster, NODES, Options, Programs, VOLUME};
use twinsan_sas::layout::DATA_OFFSET;

use self::cable::Cable;
use self::disk::Disk;
use self::host::{End, Host};
use crate::world::{Condition, Eye, Link, Order, Program, San, World};

/// How long a node may take to tell its status.
const EYE: Duration = Duration::from_secs(1);
/// What `twinsan attach` prints once it takes connections.
const READY: &str = " is ready at ";
/// The addresses that each node listens at: the client's way first, then the other node's.
const LISTEN: [[&str; 2]; 2] =
    [["tcp://10.3.1.1:7401", "tcp://10.4.0.1:7401"], ["tcp://10.3.2.1:7402", "tcp://10.4.0.2:7402"]];

/// The hosts of this machine.
#[derive(Debug)]
pub struct Namespaces {
    // Dropped in this order: processes before what they use.
    cluster: Cluster,
    switchovers: Vec<Child>,
    cables: [Cable; 3],
    nodes: [Host; 2],
    client: Host,
    disk: Disk,
    /// How much of the client's log is of earlier lives.
    log_before: u64,
}

impl Namespaces {
    /// Makes hosts, cables, the disk and the volume, of `volume_bytes`. Starts nothing. To be called inside the enclosure
    /// only, with a folder of its own for the disk.
    ///
    /// # Errors
    /// If something of it can't be made.
    pub fn new(programs: Programs, disk: &Path, volume_bytes: u64) -> Result<Self> {
        let disk = Disk::mount(disk)?;
        let (client, nodes) = (Host::new()?, [Host::new()?, Host::new()?]);
        let cable = |(a, at_a), (b, at_b): (&Host, End)| -> Result<Cable> {
            let a: &Host = a;
            Cable::new([a.plug(at_a)?, b.plug(at_b)?])
        };
        let end = |name, address| End { name, address };
        let cables = [
            cable((&client, end("client-san1", "10.3.1.2/24")), (&nodes[0], end("san1-client", "10.3.1.1/24")))?,
            cable((&client, end("client-san2", "10.3.2.2/24")), (&nodes[1], end("san2-client", "10.3.2.1/24")))?,
            cable((&nodes[0], end("san1-san2", "10.4.0.1/24")), (&nodes[1], end("san2-san1", "10.4.0.2/24")))?,
        ];
        let options = Options {
            volume_bytes,
            block_bytes: 4096,
            staging: "16MiB".into(),
            takeover_budget_ms: 0,
            disk_folder: disk.folder().to_owned(),
            keep: false,
        };
        let listen = LISTEN.map(|addresses| addresses.map(str::to_owned).to_vec());
        let cluster =
            Cluster::create_at(programs, &options, |_, name| Ok(listen[usize::from(name != NODES[0])].clone()))?;
        Ok(Self { cluster, switchovers: Vec::new(), cables, nodes, client, disk, log_before: 0 })
    }

    /// Leads to the NBD socket of the client that was started last.
    #[must_use]
    pub fn nbd_socket(&self) -> PathBuf {
        self.cluster.run("client.sock")
    }

    /// What the clients' log says from here on is the next one's, which `start` starts; requests go there.
    fn next_client(&mut self, start: impl FnOnce(&mut Cluster, Command) -> Result<()>) -> Result<()> {
        self.log_before = fs::metadata(self.cluster.run(&Self::log(Program::Client))).map_or(0, |log| log.len());
        start(&mut self.cluster, self.client.enter())?;
        let link = self.nbd_socket();
        if fs::symlink_metadata(&link).is_ok() {
            fs::remove_file(&link)?;
        }
        Ok(symlink(self.cluster.nbd_socket(), link)?)
    }

    fn pid(&self, program: Program) -> Option<u32> {
        match program {
            Program::Node(san) => self.cluster.node_pid(san.index()),
            Program::Client => self.cluster.client_pid(),
        }
    }

    fn signal(&self, program: Program, signal: Signal) -> Result<()> {
        match program {
            Program::Node(san) => self.cluster.signal_node(san.index(), signal),
            Program::Client => self.cluster.signal_client(signal),
        }
    }

    fn log(program: Program) -> String {
        format!("{program}.log")
    }
}

impl World for Namespaces {
    fn start(&mut self, program: Program) -> Result<()> {
        match program {
            Program::Node(san) => self.cluster.start_node_by(san.index(), self.nodes[san.index()].enter()),
            Program::Client => self.next_client(|cluster, by| cluster.start_client_by(Some(by), &["--wait"])),
        }
    }

    fn order(&mut self, program: Program, order: Order) -> Result<()> {
        match (order, program) {
            (Order::Die, Program::Node(san)) => self.cluster.kill_node(san.index()),
            (Order::Die, Program::Client) => self.cluster.kill_client(),
            (Order::Freeze, _) => {
                self.signal(program, Signal::STOP)?;
                process::wait_stopped(self.pid(program).context("it runs")?);
                Ok(())
            }
            (Order::Thaw, _) => self.signal(program, Signal::CONT),
            (Order::Leave, _) => self.signal(program, Signal::TERM),
        }
    }

    fn runs(&self, program: Program) -> bool {
        self.pid(program).is_some()
    }

    fn is_dying(&self, program: Program) -> bool {
        self.pid(program).is_some_and(process::is_dying)
    }

    fn ended(&mut self, program: Program) -> Result<Option<ExitStatus>> {
        self.switchovers.retain_mut(|child| child.try_wait().is_ok_and(|ended| ended.is_none()));
        match program {
            Program::Node(san) => self.cluster.node_ended(san.index()),
            Program::Client => self.cluster.client_ended(),
        }
    }

    fn is_open(&self) -> bool {
        let log = fs::read(self.cluster.run(&Self::log(Program::Client))).unwrap_or_default();
        let own = usize::try_from(self.log_before).ok().and_then(|before| log.get(before..));
        self.runs(Program::Client) && own.is_some_and(|own| String::from_utf8_lossy(own).contains(READY))
    }

    fn memory(&self, program: Program) -> Option<u64> {
        process::memory(self.pid(program)?)
    }

    fn link(&mut self, link: Link, condition: Condition) -> Result<()> {
        let cable = match link {
            Link::Client(san) => &self.cables[san.index()],
            Link::Nodes => &self.cables[2],
        };
        cable.set(condition);
        Ok(())
    }

    fn fill_disk(&mut self, full: bool) -> Result<()> {
        if full { self.disk.fill() } else { self.disk.free() }
    }

    /// Both nodes' admin sockets are in one place: the command finds who serves.
    fn switchover(&mut self, _: San) -> Result<()> {
        let log = fs::File::options().create(true).append(true).open(self.cluster.run("switchover.log"))?;
        let mut command = self.cluster.twinsan(&["switchover", VOLUME]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.switchovers.push(command.spawn().context("twinsan switchover")?);
        Ok(())
    }

    fn take_over(&mut self) -> Result<()> {
        self.next_client(|cluster, by| cluster.take_client_over_by(Some(by)))
    }

    fn superseded(&mut self) -> Result<Option<ExitStatus>> {
        self.cluster.superseded_ended()
    }

    fn eye(&self, san: San) -> Eye {
        let socket = self.cluster.run(&format!("{}.admin", NODES[san.index()]));
        Box::new(move || match ask(&socket, &Request::Status, EYE) {
            Ok(Response::Status(status)) => status.volumes.into_iter().find(|volume| volume.name == VOLUME),
            _ => None,
        })
    }

    fn peek(&self, offset: u64, data: &mut [u8]) -> Result<()> {
        use std::os::unix::fs::FileExt;
        Ok(fs::File::open(self.cluster.disk_file())?.read_exact_at(data, DATA_OFFSET + offset)?)
    }

    fn poke(&self, offset: u64, data: &[u8]) -> Result<()> {
        use std::os::unix::fs::FileExt;
        let file = fs::File::options().write(true).open(self.cluster.disk_file())?;
        Ok(file.write_all_at(data, DATA_OFFSET + offset)?)
    }

    fn keep(&self, folder: &Path) -> Result<()> {
        let logs = ["twinsan.toml", "san1.log", "san2.log", "client.log", "switchover.log"];
        for name in logs {
            let from = self.cluster.run(name);
            if from.is_file() {
                fs::copy(from, folder.join(name)).with_context(|| format!("{}", folder.display()))?;
            }
        }
        Ok(())
    }

    fn log_tail(&self, program: Program) -> String {
        self.cluster.log_tail(&Self::log(program))
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for child in &mut self.switchovers {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Whether this process may do all that, and has what it takes.
///
/// # Errors
/// With what is missing, and how to get it.
pub fn check() -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "chaos makes network namespaces and mounts a tmpfs: it needs root (sudo -E env PATH=\"$PATH\" cargo chaos …)"
    );
    for (program, package) in
        [("unshare", "util-linux"), ("nsenter", "util-linux"), ("mount", "mount"), ("ip", "iproute2")]
    {
        let there = Command::new(program).arg("--help").stdin(Stdio::null()).output();
        ensure!(there.is_ok(), "{program} is missing (Debian: apt-get install {package})");
    }
    ensure!(Path::new("/dev/net/tun").exists(), "/dev/net/tun is missing: modprobe tun");
    Ok(())
}
