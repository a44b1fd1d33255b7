//! Who kills: the operator, who is asked to, or a command.

use std::io::{BufRead, IsTerminal, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use anyhow::{Context, Result, bail, ensure};

use super::site::Sight;
use crate::cli::ProveArgs;

/// Who kills.
#[derive(Debug)]
pub(super) enum Trigger {
    /// Each line that the operator enters.
    Operator(Receiver<String>),
    /// By `sh -c`.
    Command { kill: String, restart: Option<String> },
}

/// Something that was asked for.
#[derive(Debug)]
pub(super) enum Pending {
    /// The operator's Enter.
    Enter,
    /// A command's end.
    Command(Child, &'static str),
}

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    UnderWay,
    Done,
    /// The operator wants no more.
    Enough,
}

/// What a round is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round<'a> {
    pub(super) number: u32,
    pub(super) volume: &'a str,
    pub(super) sight: &'a Sight,
}

impl Trigger {
    /// # Errors
    /// If nobody could kill anything.
    pub(super) fn new(args: &ProveArgs) -> Result<Self> {
        if let Some(kill) = &args.kill_command {
            return Ok(Self::Command { kill: kill.clone(), restart: args.restart_command.clone() });
        }
        let input = std::io::stdin();
        ensure!(
            input.is_terminal(),
            "nobody is there to kill anything: run this in a terminal, or give --kill-command, like \
             --kill-command 'ssh root@$TWINSAN_PRIMARY systemctl kill -s KILL twinsand'"
        );
        let (lines, operator) = channel();
        std::thread::Builder::new().name("operator".to_owned()).spawn(move || {
            for line in input.lock().lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self::Operator(operator))
    }

    /// Begins to kill.
    pub(super) fn kill(&self, round: Round<'_>) -> Result<Pending> {
        match self {
            Self::Operator(_) => {
                let who = match (&round.sight.primary, &round.sight.other) {
                    (Some(primary), Some(other)) => format!(" ({primary} serves, {other} mirrors)"),
                    _ => String::new(),
                };
                tell(&format!(
                    "round {}: kill, freeze or cut off one thing now: a node's process, its host, a cable, a path, or the \
                     client{who}. Then press Enter; q and Enter ends the test",
                    round.number
                ));
                Ok(Pending::Enter)
            }
            Self::Command { kill, .. } => run(kill, round).map(|child| Pending::Command(child, "--kill-command")),
        }
    }

    /// Begins to start again what was killed. `None`: somebody else does, and the nodes will say when it is done.
    pub(super) fn restart(&self, round: Round<'_>) -> Result<Option<Pending>> {
        match self {
            Self::Operator(_) => {
                tell("the volume goes on. Start again, or mend, what was killed");
                if round.sight.answers > 0 {
                    return Ok(None);
                }
                tell("then press Enter when twinsan status says, on the nodes, that both are members again");
                Ok(Some(Pending::Enter))
            }
            Self::Command { restart: Some(restart), .. } => {
                run(restart, round).map(|child| Some(Pending::Command(child, "--restart-command")))
            }
            Self::Command { restart: None, .. } => Ok(None),
        }
    }

    /// Whether it is done.
    pub(super) fn progress(&self, pending: &mut Pending) -> Result<Progress> {
        match (self, pending) {
            (Self::Operator(lines), _) => match lines.try_recv() {
                Ok(line) if line.trim() == "q" => Ok(Progress::Enough),
                Ok(_) => Ok(Progress::Done),
                Err(TryRecvError::Empty) => Ok(Progress::UnderWay),
                Err(TryRecvError::Disconnected) => Ok(Progress::Enough),
            },
            (Self::Command { .. }, Pending::Command(child, what)) => match child.try_wait()? {
                None => Ok(Progress::UnderWay),
                Some(status) if status.success() => Ok(Progress::Done),
                Some(status) => bail!("{what} ended with {status}"),
            },
            (Self::Command { .. }, Pending::Enter) => Ok(Progress::Done),
        }
    }
}

fn run(command: &str, round: Round<'_>) -> Result<Child> {
    let node = |name: &Option<String>| name.clone().unwrap_or_default();
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).stdin(Stdio::null());
    // Standard output is the result's.
    shell.stdout(std::io::stderr());
    shell.env("TWINSAN_ROUND", round.number.to_string()).env("TWINSAN_VOLUME", round.volume);
    shell.env("TWINSAN_PRIMARY", node(&round.sight.primary)).env("TWINSAN_SECONDARY", node(&round.sight.other));
    shell.spawn().context("sh")
}

/// A line for whoever looks on.
pub(super) fn tell(words: &str) {
    let mut out = std::io::stderr().lock();
    let clear = if out.is_terminal() { "\r\x1b[K" } else { "" };
    let _ = writeln!(out, "{clear}{words}");
}
