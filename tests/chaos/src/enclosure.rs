//! Where chaos happens: process, mount and network namespaces of its own, which the kernel takes down with all that is in
//! them when the one process that began in them ends, however that ends.
//!
//! So the program runs twice. The outer one makes a folder, starts `unshare`, which starts the inner one, waits, and removes the
//! folder. The inner one does all the work; it ends in order once its standard input ends, which is when the outer one has
//! been told to end, or is dead.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use twinsan_perf::cluster::Programs;

use crate::namespaces;

/// The inner program's first argument; the folder follows, then the outer one's arguments.
pub const INSIDE: &str = "--inside";
/// The outer one looks so often whether it is over.
const LOOK: Duration = Duration::from_millis(50);
/// For the inner one to end in order once it was told.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs this program again inside, and gives its exit code.
///
/// # Errors
/// If there is no root, or something is missing that it takes.
pub fn run(arguments: Vec<OsString>) -> Result<ExitCode> {
    namespaces::check()?;
    // Here, where cargo may be asked; inside they are found beside the program.
    Programs::build()?;
    let folder = tempfile::Builder::new().prefix("twinsan-chaos-").tempdir()?;
    let told = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&told))?;
    }
    let mut inside = start(folder.path(), arguments)?;
    let status = wait(&mut inside, &told)?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

fn start(folder: &Path, arguments: Vec<OsString>) -> Result<Child> {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
    command.arg(std::env::current_exe()?).arg(INSIDE).arg(folder).args(arguments);
    command.env_remove("CARGO").env("TMPDIR", folder).stdin(Stdio::piped());
    command.spawn().context("unshare (Debian: util-linux)")
}

fn wait(inside: &mut Child, told: &AtomicBool) -> Result<ExitStatus> {
    let mut since = None;
    loop {
        if let Some(status) = inside.try_wait()? {
            return Ok(status);
        }
        if told.load(Ordering::Relaxed) {
            drop(inside.stdin.take());
            if since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                // Takes the inner one along, and that one everything else.
                inside.kill()?;
            }
        }
        std::thread::sleep(LOOK);
    }
}

/// Set once the inner program is to end: its standard input has ended, or it was told by a signal.
///
/// # Errors
/// The system's.
pub fn told() -> Result<Arc<AtomicBool>> {
    let told = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&told))?;
    }
    let seen = Arc::clone(&told);
    std::thread::Builder::new().name("end".into()).spawn(move || {
        let mut byte = [0];
        while std::io::stdin().read(&mut byte).is_ok_and(|len| len > 0) {}
        seen.store(true, Ordering::Relaxed);
    })?;
    Ok(told)
}

/// The folder and the outer program's arguments, if this is the inner one.
#[must_use]
pub fn inside(mut arguments: impl Iterator<Item = OsString>) -> Option<(PathBuf, Vec<OsString>)> {
    if arguments.next()? != INSIDE {
        return None;
    }
    Some((arguments.next()?.into(), arguments.collect()))
}
