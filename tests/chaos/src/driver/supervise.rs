//! What an init system does: starts again what has ended; and what the load needs when its client has.

use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::Driver;
use crate::load::Load;
use crate::verdict::Broken;
use crate::world::{Program, San, World};

/// The nodes' processes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Nodes {
    /// A fault goes on which starts it again when it is over.
    pub(super) held: [bool; 2],
    /// It has been told to leave.
    pub(super) leaving: [bool; 2],
    /// When it is to be started.
    restart: [Option<Instant>; 2],
}

/// The client's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Client {
    /// It has the volume, and the load is at it.
    Open,
    /// It has been told to leave.
    Leaving,
    /// There is none.
    Away,
    /// One was started, and has not got the volume yet.
    Attaching,
    /// One was started beside another one, which has not ended yet.
    TakingOver,
}

/// A node that has ended by itself is started again after a time up to this.
const RESTART: Duration = Duration::from_millis(1500);
/// SIGKILL.
const KILLED: i32 = 9;
/// `twinsand`: it could not start, which may pass. `twinsan attach`: nobody confirmed that it has left.
const MAY_PASS: i32 = 1;
/// `twinsan attach`: another client has taken over.
const SUPERSEDED: i32 = 3;

impl<W: World, L: Load> Driver<'_, W, L> {
    pub(super) fn supervise(&mut self) -> Result<()> {
        for san in San::BOTH {
            if let Some(status) = self.world.ended(Program::Node(san))? {
                self.node_ended(san, status)?;
            }
            if self.nodes.restart[san.index()].is_some_and(|at| at <= Instant::now()) {
                self.start_node(san)?;
            }
        }
        if let Some(status) = self.world.ended(Program::Client)? {
            self.client_ended(status)?;
        }
        if let Some(status) = self.world.superseded()? {
            self.superseded(status)?;
        }
        if self.client == Client::Attaching && self.world.is_open() {
            self.client_is_open()?;
        }
        Ok(())
    }

    fn node_ended(&mut self, san: San, status: ExitStatus) -> Result<()> {
        use std::os::unix::process::ExitStatusExt;
        self.guard.died(san, Instant::now());
        if status.success() && self.nodes.leaving[san.index()] {
            self.log.line(&format!("{san} has left"));
        } else if status.signal() == Some(KILLED) {
            self.report.fenced += 1;
            self.log.line(&format!("{san} was killed by the other one's fence"));
        } else if status.code() == Some(MAY_PASS) {
            self.report.start_failures += 1;
            self.log.line(&format!("{san} could not start"));
        } else {
            return Err(Broken::Died(Program::Node(san), status).into());
        }
        if !self.nodes.held[san.index()] {
            self.start_soon(san);
        }
        Ok(())
    }

    /// As systemd would.
    pub(super) fn start_soon(&mut self, san: San) {
        let after = RESTART.mul_f64(self.random.share());
        self.nodes.restart[san.index()] = Some(Instant::now() + after);
    }

    pub(super) fn start_node(&mut self, san: San) -> Result<()> {
        self.nodes.restart[san.index()] = None;
        self.nodes.leaving[san.index()] = false;
        self.world.start(Program::Node(san))?;
        self.guard.back(san);
        self.log.line(&format!("{san} is started"));
        Ok(())
    }

    fn client_ended(&mut self, status: ExitStatus) -> Result<()> {
        if self.client != Client::Leaving || !matches!(status.code(), Some(0 | MAY_PASS)) {
            return Err(Broken::Died(Program::Client, status).into());
        }
        self.client = Client::Away;
        self.log.line(&format!("the client has left ({status})"));
        Ok(())
    }

    /// The load has to leave it before it may go to the next one.
    fn superseded(&mut self, status: ExitStatus) -> Result<()> {
        if self.client != Client::TakingOver || status.code() != Some(SUPERSEDED) {
            return Err(Broken::Died(Program::Client, status).into());
        }
        self.client = Client::Attaching;
        self.log.line("the client has been taken over");
        Ok(())
    }

    pub(super) fn attach(&mut self) -> Result<()> {
        self.world.start(Program::Client)?;
        self.client = Client::Attaching;
        self.log.line("a client attaches");
        Ok(())
    }

    /// All that the client before it has left open is settled now.
    fn client_is_open(&mut self) -> Result<()> {
        self.load.next_session()?;
        self.client = Client::Open;
        self.log.line("the client is attached");
        Ok(())
    }
}
