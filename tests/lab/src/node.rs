//! A host of the lab with its agent: switched on and off, frozen, and told to run things.

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::agent::{Agent, Job, Output, tail};
use crate::machine::{Devices, Machine, Pace, Spec};

/// For what a guest does in a moment.
pub const SOON: Duration = Duration::from_secs(30);
/// For booting.
pub const BOOT: Duration = Duration::from_secs(120);
/// Between two looks at something that is awaited.
const LOOK: Duration = Duration::from_millis(50);

/// One host.
#[derive(Debug)]
pub struct Node {
    spec: Spec,
    machine: Box<dyn Machine>,
    agent: Option<Agent>,
    logs: PathBuf,
    frozen: bool,
}

impl Node {
    /// A host that is off. The logs of what runs on it go to `logs`.
    #[must_use]
    pub fn new(spec: Spec, machine: Box<dyn Machine>, logs: PathBuf) -> Self {
        Self { spec, machine, agent: None, logs, frozen: false }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.spec.name
    }

    /// Switches it on; [`Node::wait_up`] waits for it.
    ///
    /// # Errors
    /// If it is on, or can't be started.
    pub fn start(&mut self, devices: &Devices<'_>, pace: &Pace) -> Result<()> {
        ensure!(!self.machine.is_on(), "{} is on already", self.spec.name);
        let line = self.machine.start(&self.spec, devices)?;
        if let Some(group) = self.machine.group() {
            pace.apply(group).with_context(|| format!("the priority of {}", self.spec.name))?;
        }
        self.agent = Some(Agent::new(self.spec.name, line, self.spec.kind.slowness())?);
        self.frozen = false;
        Ok(())
    }

    /// Waits until it takes commands.
    ///
    /// # Errors
    /// With its console's last lines, if it does not.
    pub fn wait_up(&self) -> Result<()> {
        self.agent()?.wait_up(BOOT).with_context(|| {
            let console = std::fs::read_to_string(&self.spec.console).unwrap_or_default();
            format!("the console of {}:\n{}", self.spec.name, tail(&console))
        })
    }

    /// Whether it is on (it may be frozen).
    pub fn is_on(&mut self) -> bool {
        self.machine.is_on()
    }

    /// Pulls its plug.
    pub fn kill(&mut self) {
        self.machine.kill();
        if let Some(agent) = self.agent.take() {
            agent.close();
        }
        self.frozen = false;
    }

    /// It does nothing at all until it is thawed.
    ///
    /// # Errors
    /// If it is off.
    pub fn freeze(&mut self) -> Result<()> {
        self.machine.freeze().with_context(|| format!("freezing {}", self.spec.name))?;
        self.frozen = true;
        Ok(())
    }

    /// It goes on. Does nothing to one that was not frozen.
    ///
    /// # Errors
    /// If it is off.
    pub fn thaw(&mut self) -> Result<()> {
        if self.frozen {
            self.machine.thaw().with_context(|| format!("thawing {}", self.spec.name))?;
            self.frozen = false;
        }
        Ok(())
    }

    pub(crate) fn agent(&self) -> Result<&Agent> {
        self.agent.as_ref().with_context(|| format!("{} is off", self.spec.name))
    }

    /// What came from it and was no message, if anything did.
    pub(crate) fn garbled(&self) -> Option<String> {
        self.agent.as_ref().and_then(Agent::garbled)
    }

    /// Runs a command for the shell.
    ///
    /// # Errors
    /// If it takes longer than [`SOON`], or the host is gone. Any exit status is an answer.
    pub fn try_sh(&self, command: &str) -> Result<Output> {
        self.agent()?.spawn(command, None)?.wait(SOON)
    }

    /// Runs a command that has to succeed, and gives what it said.
    ///
    /// # Errors
    /// If it fails, takes longer than [`SOON`], or the host is gone.
    pub fn sh(&self, command: &str) -> Result<String> {
        self.sh_within(SOON, command)
    }

    /// The same for one that takes its time.
    ///
    /// # Errors
    /// The same.
    pub fn sh_within(&self, within: Duration, command: &str) -> Result<String> {
        let output = self.agent()?.spawn(command, None)?.wait(within)?;
        let name = self.spec.name;
        ensure!(output.code == 0, "{name}: {command:?} ended with {}: {}", output.code, tail(&output.text));
        Ok(output.text)
    }

    /// Starts a command that goes on; what it says goes to `NAME.LOG.log` too.
    ///
    /// # Errors
    /// If the log can't be made, or the host is gone.
    pub fn spawn(&self, log: &str, command: &str) -> Result<Job> {
        let path = self.logs.join(format!("{}.{log}.log", self.spec.name));
        let file = File::options().create(true).append(true).open(&path);
        self.agent()?.spawn(command, Some(file.with_context(|| path.display().to_string())?))
    }

    /// Writes a file in it.
    ///
    /// # Errors
    /// If it can't.
    pub fn put(&self, path: &str, mode: u32, data: &[u8]) -> Result<()> {
        self.agent()?.put(path, mode, data, SOON)
    }

    /// Waits until a command succeeds, and says how long that took.
    ///
    /// # Errors
    /// If it does not in time.
    pub fn until(&self, what: &str, within: Duration, command: &str) -> Result<Duration> {
        let begin = Instant::now();
        let slowness = self.spec.kind.slowness();
        let within = within * slowness;
        loop {
            let output = self.try_sh(command)?;
            if output.code == 0 {
                return Ok(begin.elapsed());
            }
            let waited = within.as_secs();
            ensure!(begin.elapsed() < within, "{}: not in {waited} s: {what}: {}", self.spec.name, tail(&output.text));
            std::thread::sleep(LOOK * slowness);
        }
    }
}
