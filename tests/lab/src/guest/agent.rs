//! The guest's end of the serial line: runs what the launcher says, any number of jobs at a time.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, PipeReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::message::{ToGuest, ToLauncher, bytes, send, text};

/// Between two looks at a job that has closed nothing and may have ended: its own children can hold its output open.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 30_000_000 };

/// The line, for whoever has something to say.
type Line = Arc<Mutex<File>>;

struct Job {
    group: Pid,
    input: Option<ChildStdin>,
}

type Jobs = Arc<Mutex<HashMap<u64, Job>>>;

/// Serves the launcher until the line ends.
///
/// # Errors
/// If the line can't be opened or breaks.
pub fn serve(line: &Path, name: &str) -> Result<()> {
    let device = File::options().read(true).write(true).open(line).with_context(|| line.display().to_string())?;
    // A virtio port is no terminal and needs none of this.
    if let Ok(mut mode) = tcgetattr(&device) {
        mode.make_raw();
        tcsetattr(&device, OptionalActions::Now, &mode).context("raw mode")?;
    }
    let out: Line = Arc::new(Mutex::new(device.try_clone()?));
    let jobs = Jobs::default();
    send(&mut *lock(&out), &ToLauncher::Hello { name: name.to_owned() })?;
    for line in BufReader::new(device).lines() {
        let line = line.context("the launcher's line")?;
        let message = serde_json::from_str(&line).with_context(|| format!("from the launcher: {line}"))?;
        if let Err(error) = handle(message, &out, &jobs) {
            eprintln!("lab-guest: {error:#}");
        }
    }
    Ok(())
}

fn handle(message: ToGuest, out: &Line, jobs: &Jobs) -> Result<()> {
    match message {
        ToGuest::Run { job, command, input } => {
            if let Err(error) = run(job, &command, input, out, jobs) {
                let data = format!("lab-guest: {error:#}\n");
                send(&mut *lock(out), &ToLauncher::Output { job, data })?;
                send(&mut *lock(out), &ToLauncher::Exit { job, code: 127 })?;
            }
        }
        ToGuest::Input { job, data } => {
            if let Some(job) = lock(jobs).get_mut(&job) {
                if data.is_empty() {
                    job.input = None;
                } else if let Some(input) = &mut job.input {
                    input.write_all(&bytes(&data))?;
                    input.flush()?;
                }
            }
        }
        ToGuest::Signal { job, signal } => {
            let signal = Signal::from_named_raw(signal).with_context(|| format!("signal {signal}"))?;
            if let Some(job) = lock(jobs).get(&job) {
                kill_process_group(job.group, signal)?;
            }
        }
        ToGuest::Put { job, path, mode, data } => {
            let code = match put(Path::new(&path), mode, &bytes(&data)) {
                Ok(()) => 0,
                Err(error) => {
                    send(&mut *lock(out), &ToLauncher::Output { job, data: format!("{error:#}\n") })?;
                    1
                }
            };
            send(&mut *lock(out), &ToLauncher::Exit { job, code })?;
        }
    }
    Ok(())
}

fn put(path: &Path, mode: u32, data: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    fs::write(path, data).with_context(|| path.display().to_string())?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).with_context(|| path.display().to_string())
}

fn run(job: u64, command: &str, input: bool, out: &Line, jobs: &Jobs) -> Result<()> {
    let (reader, writer) = std::io::pipe()?;
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]).process_group(0);
    shell.stdin(if input { Stdio::piped() } else { Stdio::null() });
    shell.stdout(writer.try_clone()?).stderr(writer);
    let mut child = shell.spawn().context("sh")?;
    // The command holds our ends of the pipe; with them open it would never end.
    drop(shell);
    let group = Pid::from_child(&child);
    lock(jobs).insert(job, Job { group, input: child.stdin.take() });
    let (out, jobs) = (Arc::clone(out), Arc::clone(jobs));
    std::thread::spawn(move || {
        let code = match relay(job, &mut child, reader, &out) {
            Ok(status) => status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            Err(error) => {
                eprintln!("lab-guest: job {job}: {error:#}");
                127
            }
        };
        lock(&jobs).remove(&job);
        // The launcher is gone if this fails, and the main loop sees that too.
        let _ = send(&mut *lock(&out), &ToLauncher::Exit { job, code });
    });
    Ok(())
}

/// Passes on what the job says until it has ended; a daemon that it leaves behind may keep the pipe, and is not heard.
fn relay(job: u64, child: &mut Child, mut reader: PipeReader, out: &Line) -> Result<ExitStatus> {
    let mut buffer = [0; 4096];
    let mut ended = None;
    loop {
        let mut ready = [PollFd::new(&reader, PollFlags::IN)];
        // What it said between the last look and its end is still in the pipe.
        let wait = if ended.is_some() { Timespec::default() } else { LOOK };
        if poll(&mut ready, Some(&wait))? == 0 {
            if let Some(status) = ended {
                return Ok(status);
            }
            ended = child.try_wait()?;
            continue;
        }
        let len = reader.read(&mut buffer)?;
        if len == 0 {
            return Ok(child.wait()?);
        }
        send(&mut *lock(out), &ToLauncher::Output { job, data: text(&buffer[..len]) })?;
    }
}

/// A thread that panics ends the program (`panic = "abort"`), so nobody ever meets a poisoned lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
