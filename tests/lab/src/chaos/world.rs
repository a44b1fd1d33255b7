//! The lab's hosts as the driver sees them.

use std::cell::Cell;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use twinsan_chaos::fault::Fault;
use twinsan_chaos::world::{Condition, Eye, Link as ChaosLink, Order, Program, San, Way, World};

use crate::agent::{Job, tail};
use crate::pair::{CONFIG, NODES, PATIENCE, Pair, Plan, VOLUME, twinsan, volume_of};
use crate::topology::{Host, Lab, Link, SANS};

/// For a node to tell its status. The guests have few CPUs, and a serial line.
const EYE: Duration = Duration::from_secs(2);
/// What `twinsan attach` says once requests reach it.
const READY: &str = " is ready at ";
/// The client's device.
pub(super) const DEVICE: &str = "/dev/nbd0";
/// Guests share the machine's CPUs, and a takeover waits for a LUN to be reset.
const SLOWNESS: u32 = 3;

/// The lab, and what runs on it.
#[derive(Debug)]
pub(super) struct Hosts<'l> {
    lab: &'l Lab,
    /// Of the nodes, then of the client.
    jobs: [Option<Job>; 3],
    links: [Cell<Condition>; 3],
}

impl<'l> Hosts<'l> {
    /// Puts configuration and key on all hosts, and formats the disk. Starts nothing.
    ///
    /// # Errors
    /// As [`Pair::deploy`].
    pub(super) fn deploy(lab: &'l Lab) -> Result<Self> {
        Pair::deploy(lab, Plan::two_hosts("rdma"))?;
        Ok(Self { lab, jobs: [None, None, None], links: Default::default() })
    }

    fn host(program: Program) -> Host {
        match program {
            Program::Node(san) => SANS[san.index()],
            Program::Client => Host::Client,
        }
    }

    const fn index(program: Program) -> usize {
        match program {
            Program::Node(san) => san.index(),
            Program::Client => 2,
        }
    }

    fn job(&self, program: Program) -> Result<&Job> {
        self.jobs[Self::index(program)].as_ref().with_context(|| format!("{program} does not run"))
    }
}

impl World for Hosts<'_> {
    fn can(&self, fault: Fault) -> bool {
        match fault {
            Fault::Cut(_, way, _) => way == Way::Both,
            Fault::Fill(_) | Fault::LeaveClient(_) | Fault::TakeOver => false,
            _ => true,
        }
    }

    fn slowness(&self) -> u32 {
        SLOWNESS * self.lab.kind().slowness()
    }

    fn start(&mut self, program: Program) -> Result<()> {
        ensure!(self.jobs[Self::index(program)].is_none(), "{program} runs already");
        let (log, command) = match program {
            Program::Node(san) => ("twinsand", format!("/lab/bin/twinsand --config {CONFIG} --node {}", san.name())),
            Program::Client => ("attach", twinsan(&format!("attach {VOLUME} --nbd-device {DEVICE} --wait"))),
        };
        let job = self.lab.node(Self::host(program)).spawn(log, &format!("exec {command}"))?;
        self.jobs[Self::index(program)] = Some(job);
        Ok(())
    }

    fn order(&mut self, program: Program, order: Order) -> Result<()> {
        let signal = match order {
            Order::Die => libc::SIGKILL,
            Order::Freeze => libc::SIGSTOP,
            Order::Thaw => libc::SIGCONT,
            Order::Leave => libc::SIGTERM,
        };
        self.job(program)?.signal(signal)?;
        if order == Order::Die {
            self.job(program)?.wait(PATIENCE)?;
            self.jobs[Self::index(program)] = None;
        }
        Ok(())
    }

    fn runs(&self, program: Program) -> bool {
        self.jobs[Self::index(program)].is_some()
    }

    /// Nobody kills here but the driver: this fence takes registrations away.
    fn is_dying(&self, program: Program) -> bool {
        self.jobs[Self::index(program)].as_ref().is_some_and(|job| !job.is_running())
    }

    fn ended(&mut self, program: Program) -> Result<Option<ExitStatus>> {
        if !self.is_dying(program) {
            return Ok(None);
        }
        let output = self.job(program)?.wait(PATIENCE)?;
        self.jobs[Self::index(program)] = None;
        // The agent tells of signals as a shell does.
        Ok(Some(ExitStatus::from_raw(if output.code > 128 { output.code - 128 } else { output.code << 8 })))
    }

    fn is_open(&self) -> bool {
        self.jobs[2].as_ref().is_some_and(|job| job.said().contains(READY))
    }

    /// Asking would cost the guests more than it tells: `cargo chaos` shows it.
    fn memory(&self, _: Program) -> Option<u64> {
        None
    }

    fn link(&mut self, link: ChaosLink, condition: Condition) -> Result<()> {
        let (cable, before) = match link {
            ChaosLink::Client(San::One) => (Link::C1, &self.links[0]),
            ChaosLink::Client(San::Two) => (Link::C2, &self.links[1]),
            ChaosLink::Nodes => (Link::Inter, &self.links[2]),
        };
        if before.replace(condition) == condition {
            return Ok(());
        }
        let cable = self.lab.cable(cable);
        cable.mend();
        match condition.cut {
            Some(Way::Both) => cable.cut(),
            Some(_) => bail!("the lab's cables have no directions"),
            None => cable.delay(condition.delay),
        }
        Ok(())
    }

    fn fill_disk(&mut self, _: bool) -> Result<()> {
        bail!("the lab's disk is never full")
    }

    fn switchover(&mut self, from: San) -> Result<()> {
        let command = twinsan(&format!("switchover {VOLUME}"));
        self.lab.node(SANS[from.index()]).spawn("switchover", &command).map(|_| ())
    }

    fn take_over(&mut self) -> Result<()> {
        bail!("the lab's client has one device")
    }

    fn superseded(&mut self) -> Result<Option<ExitStatus>> {
        Ok(None)
    }

    fn eye(&self, san: San) -> Eye {
        let agent = self.lab.node(SANS[san.index()]).agent().cloned();
        Box::new(move || {
            let command = twinsan("status --json 2> /dev/null");
            let said = agent.as_ref().ok()?.spawn(&command, None).ok()?.wait(EYE).ok()?;
            volume_of(&said.text, NODES[san.index()])
        })
    }

    fn peek(&self, _: u64, _: &mut [u8]) -> Result<()> {
        bail!("there is no sabotage in the lab")
    }

    fn poke(&self, _: u64, _: &[u8]) -> Result<()> {
        bail!("there is no sabotage in the lab")
    }

    /// The lab keeps its logs by itself.
    fn keep(&self, _: &Path) -> Result<()> {
        Ok(())
    }

    fn log_tail(&self, program: Program) -> String {
        self.jobs[Self::index(program)].as_ref().map(|job| tail(&job.said())).unwrap_or_default()
    }
}
