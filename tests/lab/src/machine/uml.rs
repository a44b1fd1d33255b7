//! User-Mode Linux: a kernel that is a process. Boots in a second, needs neither root nor KVM, has one CPU.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::{Devices, Machine, Spec, agent_line, forget, remember, spawn_with};

/// One machine.
#[derive(Debug)]
pub struct Uml {
    kernel: PathBuf,
    root: PathBuf,
    /// For UML's own sockets.
    run: PathBuf,
    process: Option<Child>,
}

impl Uml {
    /// A machine that is off.
    #[must_use]
    pub fn new(kernel: PathBuf, root: PathBuf, run: PathBuf) -> Self {
        Self { kernel, root, run, process: None }
    }

    fn pid(&self) -> Result<Pid> {
        let process = self.process.as_ref().context("the machine is off")?;
        Ok(Pid::from_child(process))
    }
}

impl Machine for Uml {
    fn start(&mut self, spec: &Spec, devices: &Devices<'_>) -> Result<UnixStream> {
        let (agent, line) = agent_line()?;
        let console = File::options().create(true).append(true).open(&spec.console);
        let console = console.with_context(|| spec.console.display().to_string())?;
        // setpriv, as the kernel ends the machine with its launcher in whatever way that ends, frozen or not.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(&self.kernel);
        command.arg(format!("mem={}M", spec.memory_mib));
        command.args(["rootfstype=hostfs", &format!("rootflags={}", self.root.display()), "rw", "init=/sbin/lab-init"]);
        command.args(["quiet", "loglevel=4", "con0=null,fd:1", "con=null", "ssl=null"]);
        command.arg(format!("ssl0=fd:{}", line.as_raw_fd()));
        command.arg(format!("uml_dir={}", self.run.display())).arg(format!("umid={}", spec.name));
        command.arg(format!("lab.name={}", spec.name)).arg("lab.agent=/dev/ttyS0");
        command.arg(format!("lab.share={}", spec.share.display()));
        for (i, end) in devices.network.iter().enumerate() {
            let mac = format!("52:54:00:00:{:02x}:{i:02x}", spec.number);
            command.arg(format!("vec{i}:transport=fd,fd={},mtu=9000,mac={mac}", end.as_raw_fd()));
        }
        if let Some(disk) = devices.disk {
            command.arg(format!("ubd0={}", disk.display()));
        }
        command.stdin(Stdio::null()).stdout(console.try_clone()?).stderr(console).process_group(0);
        // Its memory is an unlinked file where these say, and /dev/shm without them: on a disk it would be slow.
        for name in ["TMPDIR", "TMP", "TEMP"] {
            command.env_remove(name);
        }
        let mut inherited = devices.network.clone();
        inherited.push(line.as_fd());
        let process = spawn_with(&mut command, &inherited).context("setpriv (Debian: util-linux)")?;
        remember(Pid::from_child(&process));
        self.process = Some(process);
        Ok(agent)
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // The whole group: its user processes are traced processes of the host. It may have ended by itself.
            let pid = Pid::from_child(&process);
            let _ = kill_process_group(pid, Signal::KILL);
            // Before it is reaped, as its number may then be somebody else's.
            forget(pid);
            let _ = process.wait();
        }
    }

    fn freeze(&mut self) -> Result<()> {
        // Not its group: the traced ones stop by themselves with the next thing that they want.
        Ok(kill_process(self.pid()?, Signal::STOP)?)
    }

    fn thaw(&mut self) -> Result<()> {
        Ok(kill_process(self.pid()?, Signal::CONT)?)
    }

    fn is_on(&mut self) -> bool {
        self.process.as_mut().is_some_and(|p| matches!(p.try_wait(), Ok(None)))
    }

    fn group(&self) -> Option<Pid> {
        self.process.as_ref().map(Pid::from_child)
    }
}

impl Drop for Uml {
    fn drop(&mut self) {
        self.kill();
    }
}
