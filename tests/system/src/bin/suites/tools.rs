//! Running other people's programs: which package has them, how long they may take, what they said.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};

/// The longest that any one command may take; a hang is a failure, not a wait.
const LIMIT: Duration = Duration::from_secs(180);
/// Between two looks at a process.
const LOOK: Duration = Duration::from_millis(10);
/// So much of what a program said goes into an error.
const SAID: usize = 4000;

/// Which Debian package has a program.
const PACKAGES: [(&str, &str); 17] = [
    ("nbdinfo", "libnbd-bin"),
    ("file", "file"), // nbdinfo asks it what an export begins with.
    ("nbdcopy", "libnbd-bin"),
    ("nbdfuse", "libnbd-bin"),
    ("python3", "python3 and python3-libnbd"),
    ("qemu-io", "qemu-utils"),
    ("qemu-img", "qemu-utils"),
    ("fio", "fio"),
    ("mkfs.ext4", "e2fsprogs"),
    ("fsck.ext4", "e2fsprogs"),
    ("losetup", "mount"),
    ("mount", "mount"),
    ("umount", "mount"),
    ("cp", "coreutils"),
    ("cmp", "diffutils"),
    ("diff", "diffutils"),
    ("sha256sum", "coreutils"),
];

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on SIGINT and SIGTERM end the suite in order, so that no mount and no loop device stays behind.
pub(crate) fn heed_signals() -> Result<()> {
    let flag = INTERRUPTED.get_or_init(Arc::default);
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(flag))?;
    }
    Ok(())
}

/// Whether a signal has asked for the end.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// A command, whose program is known to be there.
///
/// Debian's own folders come first: python3-libnbd belongs to Debian's python, not to whichever else is on the PATH.
///
/// # Errors
/// If the program is not there: with the package that has it.
pub(crate) fn tool(name: &str) -> Result<Command> {
    let package = PACKAGES.iter().find(|(program, _)| *program == name).map(|(_, package)| *package);
    let package = package.with_context(|| format!("{name} is in no package of the list"))?;
    let path = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].map(|folder| Path::new(folder).join(name));
    let path = path.iter().find(|p| p.is_file());
    let path = path.with_context(|| format!("{name} is missing: apt-get install {package}"))?;
    let mut command = Command::new(path);
    command.env("LC_ALL", "C");
    Ok(command)
}

/// What a program that has ended said.
#[derive(Debug)]
pub(crate) struct Said {
    command: String,
    status: ExitStatus,
    /// Both streams, as they came.
    pub(crate) text: String,
}

impl Said {
    /// Its text, if it succeeded.
    pub(crate) fn success(self) -> Result<String> {
        ensure!(self.status.success(), "{} ended with {}:\n{}", self.command, self.status, last(&self.text));
        Ok(self.text)
    }

    /// Its text, if it ended with `code`: what was wanted.
    pub(crate) fn code(self, code: i32) -> Result<String> {
        let found = self.status.code();
        ensure!(
            found == Some(code),
            "{} ended with {}, not with {code}:\n{}",
            self.command,
            self.status,
            last(&self.text)
        );
        Ok(self.text)
    }
}

fn last(text: &str) -> &str {
    let mut from = text.len().saturating_sub(SAID);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    &text[from..]
}

/// Runs a command to its end.
///
/// # Errors
/// If it can't be started, or takes too long.
pub(crate) fn run(command: &mut Command) -> Result<Said> {
    Running::start(command)?.end()
}

/// A program that runs meanwhile. Ends, with all that it started, when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    output: File,
    command: String,
    begin: Instant,
}

impl Running {
    /// Starts it, in a process group of its own; what it says goes to a file, so it never waits for a reader.
    ///
    /// # Errors
    /// If it can't be started.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let words: Vec<&OsStr> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
        let words: Vec<_> = words.iter().map(|w| w.to_string_lossy()).collect();
        let words = words.join(" ");
        let output = tempfile::tempfile()?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output.try_clone()?).process_group(0);
        let child = command.spawn().with_context(|| words.clone())?;
        Ok(Self { child, output, command: words, begin: Instant::now() })
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it takes too long, or a signal has asked for the end.
    pub(crate) fn end(mut self) -> Result<Said> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                let text = self.text()?;
                return Ok(Said { command: self.command.clone(), status, text });
            }
            if self.begin.elapsed() > LIMIT {
                bail!("{} has not ended after {} s:\n{}", self.command, LIMIT.as_secs(), last(&self.text()?));
            }
            ensure!(!interrupted(), "interrupted");
            std::thread::sleep(LOOK);
        }
    }

    /// What it has said so far.
    ///
    /// # Errors
    /// The filesystem's.
    pub(crate) fn text(&self) -> Result<String> {
        let len = usize::try_from(self.output.metadata()?.len())?;
        let mut bytes = vec![0; len];
        // At a position: the program writes through the same open file, whose own position must stay its.
        self.output.read_exact_at(&mut bytes, 0)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
                let _ = kill_process_group(group, Signal::KILL);
            }
            let _ = self.child.wait();
        }
    }
}

/// Waits until something holds.
///
/// # Errors
/// If it does not within a minute, or a signal has asked for the end.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !holds()? {
        ensure!(begin.elapsed() < twinsan_system::PATIENCE, "waited in vain until {what}");
        ensure!(!interrupted(), "interrupted");
        std::thread::sleep(LOOK);
    }
    Ok(())
}
