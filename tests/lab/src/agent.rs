//! The launcher's end of a guest's serial line: jobs that run in the guest, each with what it has said so far.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::message::{ToGuest, ToLauncher, bytes, send, text};

/// A guest's agent.
#[derive(Clone, Debug)]
pub struct Agent {
    name: &'static str,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    line: Mutex<UnixStream>,
    /// How many times as long as they say everybody waits ([`crate::machine::Kind::slowness`]).
    slowness: u32,
    state: Mutex<State>,
    change: Condvar,
}

#[derive(Debug, Default)]
struct State {
    up: bool,
    gone: bool,
    /// Lines that are no messages.
    garbled: u64,
    /// The last of them.
    last_garbled: String,
    last_job: u64,
    jobs: HashMap<u64, Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    said: Vec<u8>,
    exit: Option<i32>,
    log: Option<File>,
}

impl State {
    /// For an error: a garbled line may be what somebody waits for.
    fn garbled(&self) -> Option<String> {
        let Self { garbled, last_garbled, .. } = self;
        (*garbled > 0).then(|| format!("{garbled} lines from it were no messages, the last one {last_garbled:?}"))
    }
}

/// So much of a garbled line is kept.
const GARBLED_CHARS: usize = 300;

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its exit status; 128 + n after signal n.
    pub code: i32,
    /// All that it said.
    pub text: String,
}

impl Agent {
    /// Listens to a guest that is starting. All that is waited for may take `slowness` times as long as whoever waits says.
    ///
    /// # Errors
    /// If there is no thread for it.
    pub fn new(name: &'static str, line: UnixStream, slowness: u32) -> Result<Self> {
        let reader = BufReader::new(line.try_clone()?);
        let shared = Shared { line: Mutex::new(line), slowness, state: Mutex::default(), change: Condvar::new() };
        let agent = Self { name, shared: Arc::new(shared) };
        let listener = agent.clone();
        std::thread::Builder::new().name(format!("agent {name}")).spawn(move || listener.listen(reader))?;
        Ok(agent)
    }

    fn listen(&self, mut reader: BufReader<UnixStream>) {
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
            match serde_json::from_slice(&line) {
                Ok(message) => self.take(message),
                Err(_) => self.note_garbled(&line),
            }
            line.clear();
        }
        self.state().gone = true;
        self.shared.change.notify_all();
    }

    fn note_garbled(&self, line: &[u8]) {
        let mut state = self.state();
        // Before the agent has made its terminal raw, the terminal may echo.
        if state.up {
            state.garbled += 1;
            state.last_garbled = lossy(line).trim_end().chars().take(GARBLED_CHARS).collect();
        }
    }

    /// What came from the guest and was no message, if anything did.
    #[must_use]
    pub fn garbled(&self) -> Option<String> {
        self.state().garbled()
    }

    fn take(&self, message: ToLauncher) {
        let mut state = self.state();
        match message {
            ToLauncher::Hello { .. } => state.up = true,
            ToLauncher::Output { job, data } => {
                if let Some(job) = state.jobs.get_mut(&job) {
                    let data = bytes(&data);
                    if let Some(log) = &mut job.log {
                        // A full disk under the logs shows elsewhere too.
                        let _ = log.write_all(&data);
                    }
                    job.said.extend(data);
                }
            }
            ToLauncher::Exit { job, code } => {
                if let Some(job) = state.jobs.get_mut(&job) {
                    job.exit = Some(code);
                }
            }
        }
        drop(state);
        self.shared.change.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `look` finds something.
    fn wait<T>(&self, what: &str, within: Duration, mut look: impl FnMut(&mut State) -> Option<T>) -> Result<T> {
        let within = within * self.shared.slowness;
        let end = Instant::now() + within;
        let mut state = self.state();
        loop {
            if let Some(found) = look(&mut state) {
                return Ok(found);
            }
            if state.gone {
                bail!("{}: the guest is gone ({what})", self.name);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let garbled = state.garbled().map(|garbled| format!(" ({garbled})")).unwrap_or_default();
                bail!("{}: not within {} s: {what}{garbled}", self.name, within.as_secs_f32());
            }
            state = self.shared.change.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until the guest is up.
    ///
    /// # Errors
    /// If it ends, or takes longer.
    pub fn wait_up(&self, within: Duration) -> Result<()> {
        self.wait("it boots", within, |state| state.up.then_some(()))
    }

    fn send(&self, message: &ToGuest) -> Result<()> {
        let mut line = self.shared.line.lock().unwrap_or_else(PoisonError::into_inner);
        send(&mut *line, message).with_context(|| format!("{}: the guest's line", self.name))
    }

    fn new_job(&self, log: Option<File>) -> Result<u64> {
        let mut state = self.state();
        ensure!(!state.gone, "{}: the guest is gone", self.name);
        state.last_job += 1;
        let job = state.last_job;
        state.jobs.insert(job, Progress { log, ..Progress::default() });
        Ok(job)
    }

    /// Runs a command for the shell, and does not wait. What it says also goes to `log`.
    ///
    /// # Errors
    /// If the guest is gone.
    pub fn spawn(&self, command: &str, log: Option<File>) -> Result<Job> {
        self.start(command, log, false)
    }

    /// The same, for a command that gets input.
    ///
    /// # Errors
    /// If the guest is gone.
    pub fn spawn_with_input(&self, command: &str) -> Result<Job> {
        self.start(command, None, true)
    }

    fn start(&self, command: &str, log: Option<File>, input: bool) -> Result<Job> {
        let number = self.new_job(log)?;
        self.send(&ToGuest::Run { job: number, command: command.to_owned(), input })?;
        Ok(Job { agent: self.clone(), number, command: command.to_owned() })
    }

    /// Writes a file in the guest.
    ///
    /// # Errors
    /// If the guest can't, or is gone.
    pub fn put(&self, path: &str, mode: u32, data: &[u8], within: Duration) -> Result<()> {
        let number = self.new_job(None)?;
        self.send(&ToGuest::Put { job: number, path: path.to_owned(), mode, data: text(data) })?;
        let job = Job { agent: self.clone(), number, command: format!("put {path}") };
        let output = job.wait(within)?;
        ensure!(output.code == 0, "{}: {path}: {}", self.name, output.text.trim_end());
        Ok(())
    }

    /// Hangs up; the guest ends by itself. Its listening thread ends too.
    pub fn close(&self) {
        let line = self.shared.line.lock().unwrap_or_else(PoisonError::into_inner);
        // It may have ended before.
        let _ = line.shutdown(Shutdown::Both);
    }
}

/// Something that runs in a guest.
#[derive(Debug)]
pub struct Job {
    agent: Agent,
    number: u64,
    command: String,
}

impl Job {
    fn progress<T>(&self, what: &str, within: Duration, mut look: impl FnMut(&Progress) -> Option<T>) -> Result<T> {
        let looked = self.agent.wait(what, within, |state| look(&state.jobs[&self.number]));
        looked.with_context(|| format!("{:?} said so far: {}", self.command, tail(&self.said())))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it takes longer, or the guest is gone.
    pub fn wait(&self, within: Duration) -> Result<Output> {
        let output = |p: &Progress| p.exit.map(|code| Output { code, text: lossy(&p.said) });
        self.progress("it ends", within, output)
    }

    /// Waits until `found` finds something in what it said.
    ///
    /// # Errors
    /// If it takes longer, the job ends without it, or the guest is gone.
    pub fn wait_for<T>(&self, what: &str, within: Duration, found: impl Fn(&str) -> Option<T>) -> Result<T> {
        let looked = self.progress(what, within, |p| {
            let found = found(&lossy(&p.said));
            if found.is_none() && p.exit.is_some() { Some(None) } else { found.map(Some) }
        })?;
        looked.with_context(|| format!("{:?} ended without it ({what}): {}", self.command, tail(&self.said())))
    }

    /// All that it has said so far.
    #[must_use]
    pub fn said(&self) -> String {
        self.agent.state().jobs.get(&self.number).map(|p| lossy(&p.said)).unwrap_or_default()
    }

    /// Takes the bytes from `from` on; `None` once it has ended and all were taken.
    pub(crate) fn said_since(&self, from: usize, within: Duration) -> Result<Option<Vec<u8>>> {
        self.progress("it says something", within, |p| {
            let more = p.said.get(from..).filter(|more| !more.is_empty());
            more.map(|more| Some(more.to_vec())).or_else(|| p.exit.map(|_| None))
        })
    }

    /// Whether it still runs, as far as is known here.
    #[must_use]
    pub fn is_running(&self) -> bool {
        let state = self.agent.state();
        !state.gone && state.jobs.get(&self.number).is_some_and(|p| p.exit.is_none())
    }

    /// A signal for it and all its children.
    ///
    /// # Errors
    /// If the guest is gone.
    pub fn signal(&self, signal: i32) -> Result<()> {
        self.agent.send(&ToGuest::Signal { job: self.number, signal })
    }

    /// More input; none at all: its end.
    ///
    /// # Errors
    /// If the guest is gone.
    pub fn input(&self, data: &[u8]) -> Result<()> {
        self.agent.send(&ToGuest::Input { job: self.number, data: text(data) })
    }
}

fn lossy(said: &[u8]) -> String {
    String::from_utf8_lossy(said).into_owned()
}

/// The last lines, for an error.
#[must_use]
pub fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// So much of a line is in an excerpt.
const EXCERPT_CHARS: usize = 160;

/// At most `most` lines of a text: two thirds of them from its beginning, the rest from its end.
pub(crate) fn excerpt(text: &str, most: usize) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(|line| line.chars().take(EXCERPT_CHARS).collect()).collect();
    let more = lines.len().saturating_sub(most);
    if more > 0 {
        // One more than that, for the note's own line.
        let begin = most * 2 / 3;
        lines.splice(begin..=begin + more, [format!("({} lines left out)", more + 1)]);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_has_a_beginning_an_end_and_no_more_lines_than_asked_for() {
        let text: String = (0..100).map(|n| format!("line {n} {}\n", "x".repeat(n * 10))).collect();
        let lines = excerpt(&text, 10);
        assert_eq!(lines.len(), 10, "{lines:?}");
        assert!(lines[0].starts_with("line 0") && lines[9].starts_with("line 99"), "{lines:?}");
        assert!(lines.contains(&"(91 lines left out)".to_owned()), "{lines:?}");
        assert!(lines.iter().all(|line| line.chars().count() <= EXCERPT_CHARS));
        assert_eq!(excerpt("one\ntwo\n", 2), ["one", "two"]);
        assert!(excerpt("", 2).is_empty());
    }

    /// An agent, and the guest's end of its line; the guest is up.
    fn up() -> (Agent, UnixStream) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let agent = Agent::new("san1", ours, 1).unwrap();
        theirs.write_all(b"an echo, before the terminal is raw\n").unwrap();
        send(&mut theirs, &ToLauncher::Hello { name: "san1".into() }).unwrap();
        agent.wait_up(Duration::from_secs(60)).unwrap();
        (agent, theirs)
    }

    #[test]
    fn a_line_that_is_no_message_is_named_by_who_waits_in_vain() {
        let (agent, mut guest) = up();
        let job = agent.spawn("true", None).unwrap();
        guest.write_all(b"{\"exit\":{\"job\":1,\"co\xff\n").unwrap();
        // What comes after it counts; once it is there, so is the line before.
        send(&mut guest, &ToLauncher::Output { job: 1, data: "said".into() }).unwrap();
        job.wait_for("it says something", Duration::from_secs(60), |said| said.contains("said").then_some(())).unwrap();
        let error = format!("{:#}", job.wait(Duration::ZERO).unwrap_err());
        assert!(error.contains("1 lines from it were no messages"), "{error}");
        assert!(error.contains(r#"\"co"#), "{error}");
    }

    #[test]
    fn an_echo_before_the_guest_is_up_is_nothing_to_speak_of() {
        let (agent, _guest) = up();
        assert_eq!(agent.garbled(), None);
    }
}
