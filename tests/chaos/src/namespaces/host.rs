//! A host that is a network namespace and nothing else. It has no name and no place: it ends with the one process that
//! was started in it first, and with everything else in the enclosure.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::cable::MTU;
use super::tun;

/// A namespace, held open by a process that sleeps.
#[derive(Debug)]
pub(super) struct Host {
    holder: Child,
}

/// One end of a cable.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    /// The interface.
    pub(super) name: &'static str,
    /// Its address, and the prefix of the cable's network.
    pub(super) address: &'static str,
}

/// For `unshare` to have made a namespace.
const PATIENCE: Duration = Duration::from_secs(10);

impl Host {
    /// A new one, without any link but its own.
    ///
    /// # Errors
    /// If it can't be made: no root, no util-linux, no iproute2.
    pub(super) fn new() -> Result<Self> {
        let mut command = Command::new("unshare");
        command.args(["--net", "sleep", "infinity"]).stdin(Stdio::null());
        let host = Self { holder: command.spawn().context("unshare (Debian: util-linux)")? };
        let own = fs::read_link("/proc/self/ns/net")?;
        let begin = Instant::now();
        while fs::read_link(host.namespace()).is_ok_and(|its| its == own) {
            ensure!(begin.elapsed() < PATIENCE, "unshare --net has made no namespace");
            std::thread::sleep(Duration::from_millis(1));
        }
        host.run("ip", &["link", "set", "lo", "up"])?;
        Ok(host)
    }

    fn namespace(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.holder.id()).into()
    }

    /// What starts a program there: its command line goes behind it. The process is then that program's own.
    pub(super) fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.namespace().display()));
        command
    }

    /// Plugs one end of a new cable in, and gives what comes out of it.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn plug(&self, end: End) -> Result<File> {
        let packets = tun::open(end.name)?;
        run(Command::new("ip").args(["link", "set", end.name, "netns", &self.holder.id().to_string()]))?;
        self.run("ip", &["address", "add", end.address, "dev", end.name])?;
        self.run("ip", &["link", "set", end.name, "mtu", &MTU.to_string(), "up"])?;
        Ok(packets)
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<()> {
        run(self.enter().arg(program).args(arguments))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A command that has to work.
///
/// # Errors
/// With what it said.
pub(super) fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{}", program.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} ended with {}: {}", output.status, said.trim());
    Ok(())
}
