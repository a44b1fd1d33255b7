//! Two real `twinsand` processes on one disk file, in a directory that goes with them.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub(crate) mod client;
pub(crate) mod raw;
pub(crate) mod site;

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use twinsan_control::admin::{NodeStatus, Request, Response, VolumeStatus, ask};
use twinsan_sas::NodeName;
use twinsan_sas::format::{FormatError, FormatOptions, format};
use twinsan_wire::VolumeName;

/// No wait takes this long unless something is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// The volume of every cluster.
pub(crate) const VOLUME: &str = "db";
/// Its size.
pub(crate) const VOLUME_BYTES: u64 = 64 << 20;

pub(crate) const NODES: [&str; 2] = ["san1", "san2"];

/// A disk, a configuration, and up to two processes; what is left of them is killed at the end.
pub(crate) struct Cluster {
    /// Sockets, configuration and logs: a socket's path must be short.
    dir: tempfile::TempDir,
    /// The disk: `/tmp` may have no direct I/O.
    disk_dir: tempfile::TempDir,
    nodes: [Option<Child>; 2],
}

impl Cluster {
    /// A formatted disk and a configuration, whose volume has these further lines; nothing runs yet.
    pub(crate) fn new(volume_lines: &str) -> Self {
        let disk_dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let cluster = Self { dir: tempfile::tempdir().unwrap(), disk_dir, nodes: [None, None] };
        cluster.configure(volume_lines);
        cluster.format(VOLUME, NODES);
        cluster
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn disk(&self) -> PathBuf {
        self.disk_dir.path().join("disk.img")
    }

    pub(crate) fn configure(&self, volume_lines: &str) {
        let node = |name: &str| {
            format!("[[node]]\nname = \"{name}\"\nlisten = [\"unix://{name}.fabric\"]\nadmin = \"{name}.sock\"\n")
        };
        let disk = self.disk();
        let volume = format!("[[volume]]\nname = \"{VOLUME}\"\ndisk = {disk:?}\nfence = \"local-lock\"\n");
        let text = format!("{}{}{volume}{volume_lines}\n", node(NODES[0]), node(NODES[1]));
        fs::write(self.path("twinsan.toml"), text).unwrap();
    }

    /// The key file `db.key`, whose words the configuration's volume lines say.
    pub(crate) fn write_key(&self, key: &str) -> PathBuf {
        let path = self.path("db.key");
        fs::write(&path, key).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// With so many reactors, and one more volume of this name on a disk of its own.
    pub(crate) fn add_volume(&self, name: &str, reactors: usize) {
        let disk = self.disk_of(name);
        let file = self.path("twinsan.toml");
        let text = fs::read_to_string(&file).unwrap();
        let volume =
            format!("[[volume]]\nname = \"{name}\"\ndisk = {disk:?}\nfence = \"local-lock\"\nstaging = \"4 MiB\"\n");
        fs::write(file, format!("reactors = {reactors}\n{text}{volume}")).unwrap();
        Self::format_disk(disk, name, NODES);
    }

    /// The disk of a volume that was added.
    pub(crate) fn disk_of(&self, name: &str) -> PathBuf {
        self.disk_dir.path().join(format!("{name}.img"))
    }

    pub(crate) fn format(&self, volume: &str, nodes: [&str; 2]) {
        Self::format_disk(self.disk(), volume, nodes);
    }

    fn format_disk(path: PathBuf, volume: &str, nodes: [&str; 2]) {
        let options = FormatOptions {
            path,
            name: VolumeName::new(volume).unwrap(),
            bytes: Some(VOLUME_BYTES),
            block_bytes: Some(4096),
            nodes: nodes.map(|name| NodeName::new(name).unwrap()),
            force: true,
            zero: false,
        };
        // Another test's child holds a copy of an earlier claim, until it has become the program that it is to be.
        let begin = Instant::now();
        while let Err(error) = format(&options) {
            let busy = matches!(error, FormatError::InUse { .. }) && begin.elapsed() < Duration::from_secs(10);
            assert!(busy, "{error}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The program, ready to be started; what it says goes to a file of its node's name.
    pub(crate) fn command(&self, node: usize) -> Command {
        let log = File::options().create(true).append(true).open(self.path(&format!("{}.log", NODES[node]))).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_twinsand"));
        command.arg("--config").arg(self.path("twinsan.toml")).args(["--node", NODES[node]]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command
    }

    pub(crate) fn start(&mut self, node: usize) {
        assert!(self.nodes[node].is_none(), "it runs already");
        self.nodes[node] = Some(self.command(node).spawn().unwrap());
    }

    pub(crate) fn kill(&mut self, node: usize) {
        let mut child = self.nodes[node].take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM, and what it ended with.
    pub(crate) fn stop(&mut self, node: usize) -> ExitStatus {
        self.signal(node, Signal::TERM);
        self.ended(node)
    }

    pub(crate) fn signal(&self, node: usize, signal: Signal) {
        let pid = self.nodes[node].as_ref().expect("it runs").id();
        kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
    }

    /// Whether it has ended by itself; if so, it may be started again.
    pub(crate) fn has_ended(&mut self, node: usize) -> bool {
        let ended = self.nodes[node].as_mut().expect("it was started").try_wait().unwrap().is_some();
        if ended {
            self.nodes[node] = None;
        }
        ended
    }

    fn process(&self, node: usize) -> PathBuf {
        Path::new("/proc").join(self.nodes[node].as_ref().expect("it runs").id().to_string())
    }

    /// Descriptors that a node has open.
    pub(crate) fn handles(&self, node: usize) -> usize {
        fs::read_dir(self.process(node).join("fd")).unwrap().count()
    }

    /// Memory that a node has in use, in KiB.
    pub(crate) fn memory_kib(&self, node: usize) -> u64 {
        let status = fs::read_to_string(self.process(node).join("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("proc(5) has it");
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self, node: usize) -> ExitStatus {
        let mut child = self.nodes[node].take().expect("it runs");
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if Instant::now() >= deadline {
                child.kill().unwrap();
                panic!("{} does not end; it said:\n{}", NODES[node], self.log(node));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn log(&self, node: usize) -> String {
        fs::read_to_string(self.path(&format!("{}.log", NODES[node]))).unwrap_or_default()
    }

    pub(crate) fn ask(&self, node: usize, request: &Request) -> Option<Response> {
        ask(&self.path(&format!("{}.sock", NODES[node])), request, Duration::from_secs(5)).ok()
    }

    pub(crate) fn status(&self, node: usize) -> Option<NodeStatus> {
        match self.ask(node, &Request::Status)? {
            Response::Status(status) => Some(*status),
            other => panic!("status answers {other:?}"),
        }
    }

    /// Waits until the node's volume is as `wanted`.
    pub(crate) fn wait(&self, node: usize, what: &str, wanted: impl Fn(&VolumeStatus) -> bool) -> VolumeStatus {
        let deadline = Instant::now() + PATIENCE;
        let mut last = None;
        while Instant::now() < deadline {
            if let Some(mut status) = self.status(node) {
                let volume = status.volumes.remove(0);
                if wanted(&volume) {
                    return volume;
                }
                last = Some(volume);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!(
            "{} never was {what}; at last it was {last:#?}\n{}:\n{}\n{}:\n{}",
            NODES[node],
            NODES[0],
            self.log(0),
            NODES[1],
            self.log(1)
        );
    }

    /// Waits until both nodes say that both count; returns which one serves.
    pub(crate) fn wait_dual(&self) -> usize {
        let settled = |volume: &VolumeStatus| volume.dual && ["primary", "secondary"].contains(&volume.role.as_str());
        let a = self.wait(0, "dual", settled);
        let b = self.wait(1, "dual", |volume| settled(volume) && volume.epoch == a.epoch);
        match (a.role.as_str(), b.role.as_str()) {
            ("primary", "secondary") => 0,
            ("secondary", "primary") => 1,
            both => panic!("the roles are {both:?}"),
        }
    }

    pub(crate) fn config(&self) -> twinsan_control::Config {
        twinsan_control::Config::load(&self.path("twinsan.toml")).unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.nodes.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The bytes of a range of the volume as they stand on the disk file.
pub(crate) fn on_disk(path: &Path, offset: u64, len: usize) -> Vec<u8> {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; len];
    File::open(path).unwrap().read_exact_at(&mut bytes, twinsan_sas::layout::DATA_OFFSET + offset).unwrap();
    bytes
}
