//! The volume, attached by a process of its own, as an operator would: it may be killed like everything else.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use twinsan_witness::nbd;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);
/// For a client that is told to end.
const LAST: Duration = Duration::from_secs(10);

/// A `twinsan attach`.
#[derive(Debug)]
pub(super) struct Attached {
    config: PathBuf,
    volume: String,
    folder: TempDir,
    child: Option<Child>,
}

impl Attached {
    /// Nothing runs yet.
    pub(super) fn new(config: &Path, volume: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("twinsan-prove-").tempdir().context("a folder for the socket")?;
        Ok(Self { config: config.to_owned(), volume: volume.to_owned(), folder, child: None })
    }

    /// Where NBD clients connect.
    pub(super) fn socket(&self) -> PathBuf {
        self.folder.path().join("nbd.sock")
    }

    /// Attaches; `Ok(false)`: `goes_on` did not want to wait any longer.
    ///
    /// # Errors
    /// If the client ends instead, with its last words.
    pub(super) fn attach(&mut self, within: Duration, goes_on: impl Fn() -> bool) -> Result<bool> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut command = Command::new(std::env::current_exe().context("the program itself")?);
        command.arg("--config").arg(&self.config).args(["attach", &self.volume, "--nbd"]);
        command.arg(format!("unix:{}", self.socket().display()));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // Ctrl-C is for the test, which ends its client in order.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        self.child = Some(command.spawn().context("twinsan attach")?);
        let begin = Instant::now();
        loop {
            if nbd::Client::connect(&self.socket(), &self.volume).is_ok() {
                return Ok(true);
            }
            if self.has_ended() {
                bail!("twinsan attach ended: {}", self.last_words());
            }
            if begin.elapsed() > within || !goes_on() {
                return Ok(false);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Whether the process is gone.
    pub(super) fn has_ended(&mut self) -> bool {
        match &mut self.child {
            Some(child) => child.try_wait().is_ok_and(|status| status.is_some()),
            None => true,
        }
    }

    /// Ends it at once: whatever it has under way gets no answer.
    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// What it said last.
    pub(super) fn last_words(&self) -> String {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(3)..].join("\n")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("attach.log")
    }
}

impl Drop for Attached {
    /// In order, if it can; a client that hangs, as the volume does, is killed.
    fn drop(&mut self) {
        let Some(child) = &self.child else { return };
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let begin = Instant::now();
        while !self.has_ended() && begin.elapsed() < LAST {
            std::thread::sleep(LOOK);
        }
        self.kill();
    }
}
