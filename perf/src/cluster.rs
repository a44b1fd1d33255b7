//! A pair of real `twinsand` processes and a `twinsan attach`, on this host, in folders of their own.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use twinsan_control::admin::{Request, Response, VolumeStatus, ask};

/// The volume's name in every cluster of ours.
pub const VOLUME: &str = "vol1";
/// The nodes' names.
pub const NODES: [&str; 2] = ["san1", "san2"];
/// Between two looks at something that is awaited.
const LOOK: Duration = Duration::from_millis(10);

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The node.
    pub twinsand: PathBuf,
    /// The client.
    pub twinsan: PathBuf,
}

impl Programs {
    /// Builds them with the cargo that runs us, else takes them from beside our own program.
    ///
    /// # Errors
    /// If they don't build, or aren't there.
    pub fn build() -> Result<Self> {
        let own = std::env::current_exe()?;
        // Tests live one folder deeper than programs: target/debug/deps.
        let folders: Vec<PathBuf> = own.ancestors().skip(1).take(2).map(Path::to_path_buf).collect();
        if let Some(cargo) = std::env::var_os("CARGO") {
            let release = folders.iter().any(|f| f.ends_with("release"));
            let mut build = Command::new(cargo);
            build.args(["build", "--quiet", "--bin", "twinsand", "--bin", "twinsan"]);
            build.args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml")]);
            if release {
                build.arg("--release");
            }
            let status = build.status().context("cargo build")?;
            ensure!(status.success(), "cargo could not build twinsand and twinsan");
        }
        for folder in &folders {
            let found = Self { twinsand: folder.join("twinsand"), twinsan: folder.join("twinsan") };
            if found.twinsand.is_file() && found.twinsan.is_file() {
                return Ok(found);
            }
        }
        bail!("no twinsand and twinsan beside {}; build them first", own.display())
    }
}

/// What a cluster is to be like.
#[derive(Clone, Debug)]
pub struct Options {
    /// The volume's size.
    pub volume_bytes: u64,
    /// The volume's logical block.
    pub block_bytes: u32,
    /// The lane's data ring, as the configuration spells it.
    pub staging: String,
    /// The configuration's `takeover_budget_ms`; 0: no bound but the lane.
    pub takeover_budget_ms: u64,
    /// Where the disk file goes; its filesystem is what the race runs against.
    pub disk_folder: PathBuf,
    /// Leave everything where it is.
    pub keep: bool,
}

/// A running pair with its client. Ends everything when dropped.
#[derive(Debug)]
pub struct Cluster {
    programs: Programs,
    nodes: [Option<Child>; 2],
    client: Option<Child>,
    /// A client that has been taken over, and has to end.
    superseded: Option<Child>,
    /// Clients so far that took over: each has a socket of its own.
    takeovers: u32,
    run: Folder,
    disk: Folder,
}

/// A temporary folder that may be kept.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    _temporary: Option<TempDir>,
}

impl Folder {
    fn new(inside: &Path, prefix: &str, keep: bool) -> Result<Self> {
        let made = tempfile::Builder::new().prefix(prefix).tempdir_in(inside);
        let made = made.with_context(|| format!("a folder in {}", inside.display()))?;
        let path = made.path().to_path_buf();
        let temporary = if keep {
            let _ = made.keep();
            None
        } else {
            Some(made)
        };
        Ok(Self { path, _temporary: temporary })
    }
}

impl Cluster {
    /// Makes the folders, the key, the configuration and the volume. Starts nothing. All talk by shared memory.
    ///
    /// # Errors
    /// If a file can't be made, or `twinsan format` fails.
    pub fn create(programs: Programs, options: &Options) -> Result<Self> {
        Self::create_at(programs, options, |cluster, name| Ok(vec![cluster.socket("shm", name)]))
    }

    /// The same with nodes that listen at addresses of one's own choice, best first.
    ///
    /// # Errors
    /// The same, and those of the choice.
    pub fn create_at(
        programs: Programs,
        options: &Options,
        listen: impl Fn(&Self, &str) -> Result<Vec<String>>,
    ) -> Result<Self> {
        let cluster = Self::folders(programs, options)?;
        let [a, b] = NODES.map(|name| listen(&cluster, name));
        let listen = [a?, b?];
        cluster.set_up(options, &listen)
    }

    /// The address of a socket file in the cluster's folder.
    #[must_use]
    pub fn socket(&self, scheme: &str, name: &str) -> String {
        format!("{scheme}://{}", self.run(&format!("{name}.fabric")).display())
    }

    fn folders(programs: Programs, options: &Options) -> Result<Self> {
        // Socket paths must be short (108 bytes), so they get a folder of their own.
        let run = Folder::new(&std::env::temp_dir(), "twinsan-", options.keep)?;
        let disk = Folder::new(&options.disk_folder, "twinsan-disk-", options.keep)?;
        Ok(Self { programs, nodes: [None, None], client: None, superseded: None, takeovers: 0, run, disk })
    }

    fn set_up(self, options: &Options, listen: &[Vec<String>; 2]) -> Result<Self> {
        self.write_key()?;
        fs::write(self.config(), self.configuration(options, listen))?;
        self.format(options)?;
        Ok(self)
    }

    fn write_key(&self) -> Result<()> {
        let mut key = [0; 32];
        File::open("/dev/urandom")?.read_exact(&mut key)?;
        let mut options = File::options();
        let mut file = options.create(true).write(true).truncate(true).mode(0o600).open(self.run("key"))?;
        Ok(std::io::Write::write_all(&mut file, &key)?)
    }

    fn configuration(&self, options: &Options, listen: &[Vec<String>; 2]) -> String {
        let node = |name: &str, listen: &[String]| {
            let admin = self.run(&format!("{name}.admin"));
            format!("[[node]]\nname = \"{name}\"\nlisten = {listen:?}\nadmin = \"{}\"\n\n", admin.display())
        };
        let timing = match options.takeover_budget_ms {
            0 => String::new(),
            ms => format!("\n[timing]\ntakeover_budget_ms = {ms}\n"),
        };
        format!(
            "{}{}[[volume]]\nname = \"{VOLUME}\"\ndisk = \"{}\"\nfence = \"local-lock\"\nkey_file = \"{}\"\nstaging = \"{}\"\n{timing}",
            node(NODES[0], &listen[0]),
            node(NODES[1], &listen[1]),
            self.disk_file().display(),
            self.run("key").display(),
            options.staging
        )
    }

    fn format(&self, options: &Options) -> Result<()> {
        let size = options.volume_bytes.to_string();
        let block = options.block_bytes.to_string();
        let output = self.twinsan(&["format", VOLUME, "--size", &size, "--block", &block]).output()?;
        ensure!(output.status.success(), "twinsan format: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// A file of the cluster's.
    #[must_use]
    pub fn run(&self, name: &str) -> PathBuf {
        self.run.path.join(name)
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.run("twinsan.toml")
    }

    /// The shared disk.
    #[must_use]
    pub fn disk_file(&self) -> PathBuf {
        self.disk.path.join("disk.img")
    }

    /// The client's NBD socket.
    #[must_use]
    pub fn nbd_socket(&self) -> PathBuf {
        match self.takeovers {
            0 => self.run("nbd.sock"),
            n => self.run(&format!("nbd{n}.sock")),
        }
    }

    /// A `twinsan` command with this cluster's configuration.
    #[must_use]
    pub fn twinsan(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.programs.twinsan);
        command.arg("--config").arg(self.config()).args(arguments).stdin(Stdio::null());
        command
    }

    /// A process whose words go to a log of its own, and which a terminal's Ctrl-C does not reach.
    fn spawn(&self, mut command: Command, log: &str) -> Result<Child> {
        let log = File::options().create(true).append(true).open(self.run(log))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        command.spawn().with_context(|| format!("{}", command.get_program().display()))
    }

    /// Starts a node.
    ///
    /// # Errors
    /// If it runs already, or can't be started.
    pub fn start_node(&mut self, node: usize) -> Result<()> {
        self.spawn_node(node, Command::new(&self.programs.twinsand))
    }

    /// Starts a node by another program, which gets the node's command line behind its own.
    ///
    /// # Errors
    /// As [`Cluster::start_node`].
    pub fn start_node_by(&mut self, node: usize, mut by: Command) -> Result<()> {
        by.arg(&self.programs.twinsand);
        self.spawn_node(node, by)
    }

    fn spawn_node(&mut self, node: usize, mut command: Command) -> Result<()> {
        ensure!(self.nodes[node].is_none(), "{} runs already", NODES[node]);
        command.arg("--config").arg(self.config()).args(["--node", NODES[node]]);
        self.nodes[node] = Some(self.spawn(command, &format!("{}.log", NODES[node]))?);
        Ok(())
    }

    /// The node's process, if it was started and not reaped.
    #[must_use]
    pub fn node_pid(&self, node: usize) -> Option<u32> {
        self.nodes[node].as_ref().map(Child::id)
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// If the node does not run.
    pub fn kill_node(&mut self, node: usize) -> Result<()> {
        let mut child = self.nodes[node].take().with_context(|| format!("{} does not run", NODES[node]))?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Any signal; the process stays ours.
    ///
    /// # Errors
    /// If the node does not run.
    pub fn signal_node(&self, node: usize, signal: Signal) -> Result<()> {
        let child = self.nodes[node].as_ref().with_context(|| format!("{} does not run", NODES[node]))?;
        Ok(kill_process(pid(child)?, signal)?)
    }

    /// SIGTERM, and waits for its end.
    ///
    /// # Errors
    /// If it does not run, or does not end in time.
    pub fn stop_node(&mut self, node: usize, within: Duration) -> Result<ExitStatus> {
        self.signal_node(node, Signal::TERM)?;
        self.wait_node(node, within)
    }

    /// How a node's process has ended by itself, once: then it can be started again.
    ///
    /// # Errors
    /// The system's.
    pub fn node_ended(&mut self, node: usize) -> Result<Option<ExitStatus>> {
        ended(&mut self.nodes[node])
    }

    /// Waits for a node's process to end by itself.
    ///
    /// # Errors
    /// If it does not run, or does not end in time.
    pub fn wait_node(&mut self, node: usize, within: Duration) -> Result<ExitStatus> {
        let child = self.nodes[node].as_mut().with_context(|| format!("{} does not run", NODES[node]))?;
        let status = wait_child(child, within).with_context(|| format!("{} did not end", NODES[node]))?;
        self.nodes[node] = None;
        Ok(status)
    }

    /// Starts `twinsan attach` with the NBD socket, and waits until it takes connections.
    ///
    /// # Errors
    /// If it ends, or does not open the volume in time.
    pub fn attach(&mut self, within: Duration) -> Result<()> {
        self.attach_with(&[], within)
    }

    /// The same with more arguments.
    ///
    /// # Errors
    /// The same.
    pub fn attach_with(&mut self, more: &[&str], within: Duration) -> Result<()> {
        self.start_client_by(None, more)?;
        let begin = Instant::now();
        while twinsan_witness::nbd::Client::connect(&self.nbd_socket(), VOLUME).is_err() {
            let child = self.client.as_mut().expect("just started");
            if let Some(status) = child.try_wait()? {
                self.client = None;
                bail!("twinsan attach ended ({status}):\n{}", self.log_tail("client.log"));
            }
            ensure!(begin.elapsed() < within, "the volume did not open:\n{}", self.log_tail("client.log"));
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Starts `twinsan attach` with the NBD socket, by another program if one is named, which gets the client's command
    /// line behind its own. Waits for nothing.
    ///
    /// # Errors
    /// If it runs already, or can't be started.
    pub fn start_client_by(&mut self, by: Option<Command>, more: &[&str]) -> Result<()> {
        ensure!(self.client.is_none(), "the client runs already");
        let export = format!("unix:{}", self.nbd_socket().display());
        let own = self.twinsan(&[&["attach", VOLUME, "--nbd", &export], more].concat());
        let command = match by {
            None => own,
            Some(mut by) => {
                by.arg(own.get_program()).args(own.get_args());
                by
            }
        };
        self.client = Some(self.spawn(command, "client.log")?);
        Ok(())
    }

    /// Starts another client beside the one that has the volume, with `--takeover`. From here on it is the client; the earlier
    /// one has to end by itself. Waits for nothing.
    ///
    /// # Errors
    /// If none runs, an earlier one has not ended yet, or it can't be started.
    pub fn take_client_over_by(&mut self, by: Option<Command>) -> Result<()> {
        ensure!(self.superseded.is_none(), "a client that was taken over has not ended yet");
        self.superseded = Some(self.client.take().context("the client does not run")?);
        self.takeovers += 1;
        self.start_client_by(by, &["--takeover"])
    }

    /// How the client that was taken over has ended, once.
    ///
    /// # Errors
    /// The system's.
    pub fn superseded_ended(&mut self) -> Result<Option<ExitStatus>> {
        ended(&mut self.superseded)
    }

    /// How the client's process has ended by itself, once: then it can be started again.
    ///
    /// # Errors
    /// The system's.
    pub fn client_ended(&mut self) -> Result<Option<ExitStatus>> {
        ended(&mut self.client)
    }

    /// Any signal; the process stays ours.
    ///
    /// # Errors
    /// If the client does not run.
    pub fn signal_client(&self, signal: Signal) -> Result<()> {
        let child = self.client.as_ref().context("the client does not run")?;
        Ok(kill_process(pid(child)?, signal)?)
    }

    /// Starts both nodes and the client, and waits until both nodes are members.
    ///
    /// # Errors
    /// As [`Cluster::start_node`], [`Cluster::attach`] and [`Cluster::wait_until`].
    pub fn start(&mut self, within: Duration) -> Result<()> {
        for node in 0..NODES.len() {
            self.start_node(node)?;
        }
        self.attach(within)?;
        self.wait_until("the pair is dual", within, Self::is_dual)
    }

    /// The client's process.
    #[must_use]
    pub fn client_pid(&self) -> Option<u32> {
        self.client.as_ref().map(Child::id)
    }

    /// Waits for the client's process to end by itself.
    ///
    /// # Errors
    /// If it does not run, or does not end in time.
    pub fn wait_client(&mut self, within: Duration) -> Result<ExitStatus> {
        let child = self.client.as_mut().context("the client does not run")?;
        let status = wait_child(child, within).context("the client did not end")?;
        self.client = None;
        Ok(status)
    }

    /// SIGKILL to the client.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill_client(&mut self) -> Result<()> {
        let mut child = self.client.take().context("the client does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// SIGTERM to the client, and waits for its end.
    ///
    /// # Errors
    /// If it does not run, or does not end in time.
    pub fn detach(&mut self, within: Duration) -> Result<ExitStatus> {
        self.signal_client(Signal::TERM)?;
        let child = self.client.as_mut().context("the client does not run")?;
        let status = wait_child(child, within).context("the client did not end")?;
        self.client = None;
        Ok(status)
    }

    /// What a node says of the volume.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn status(&self, node: usize) -> Result<VolumeStatus> {
        let socket = self.run(&format!("{}.admin", NODES[node]));
        match ask(&socket, &Request::Status, Duration::from_secs(2))? {
            Response::Status(status) => {
                status.volumes.into_iter().find(|v| v.name == VOLUME).context("the node knows no such volume")
            }
            other => bail!("an unexpected answer: {other:?}"),
        }
    }

    /// The node that serves, if one does.
    #[must_use]
    pub fn primary(&self) -> Option<usize> {
        (0..2).find(|&node| self.nodes[node].is_some() && self.status(node).is_ok_and(|v| v.role == "primary"))
    }

    /// Both nodes hold every completed write.
    #[must_use]
    pub fn is_dual(&self) -> bool {
        let dual = |node| self.status(node).is_ok_and(|v| v.dual && (v.role == "primary" || v.role == "secondary"));
        dual(0) && dual(1)
    }

    /// Waits until both nodes are members and nothing is left to flush, so that what is measured next begins from rest.
    ///
    /// # Errors
    /// As [`Cluster::wait_until`].
    pub fn settle(&self, within: Duration) -> Result<()> {
        let rests = |c: &Self| {
            let lane = c.primary().and_then(|node| c.status(node).ok()).map(|v| v.lane);
            c.is_dual() && lane.is_some_and(|lane| lane.flushed == lane.received)
        };
        self.wait_until("the pair is dual and all is flushed", within, rests)
    }

    /// Waits until something holds.
    ///
    /// # Errors
    /// If it does not in time: with what was awaited, and the nodes' last words.
    pub fn wait_until(&self, what: &str, within: Duration, mut holds: impl FnMut(&Self) -> bool) -> Result<()> {
        let begin = Instant::now();
        while !holds(self) {
            if begin.elapsed() >= within {
                let logs: String = NODES.map(|n| format!("--- {n}\n{}", self.log_tail(&format!("{n}.log")))).concat();
                bail!("waited {} s in vain until {what}\n{logs}", within.as_secs());
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// The last lines of a log.
    #[must_use]
    pub fn log_tail(&self, name: &str) -> String {
        let text = fs::read_to_string(self.run(name)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n") + "\n"
    }
}

impl Drop for Cluster {
    /// Nothing is left running; whom SIGKILL can't end, nobody can.
    fn drop(&mut self) {
        for child in self.nodes.iter_mut().chain([&mut self.client, &mut self.superseded]).flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn pid(child: &Child) -> Result<Pid> {
    Pid::from_raw(i32::try_from(child.id())?).context("process 0")
}

fn ended(child: &mut Option<Child>) -> Result<Option<ExitStatus>> {
    let Some(running) = child else { return Ok(None) };
    let status = running.try_wait()?;
    if status.is_some() {
        *child = None;
    }
    Ok(status)
}

fn wait_child(child: &mut Child, within: Duration) -> Result<ExitStatus> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        ensure!(begin.elapsed() < within, "still running after {} s", within.as_secs());
        std::thread::sleep(LOOK);
    }
}
