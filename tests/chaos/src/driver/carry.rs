//! How a fault begins, goes on, and ends.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::supervise::Client;
use super::{Driver, SERVES};
use crate::fault::{Extent, Fault, Role, Wire};
use crate::guard::Look;
use crate::load::Load;
use crate::strike::{Strike, strike};
use crate::verdict::Broken;
use crate::world::{Condition, Link, Order, Program, San, Way, World};

/// A fault that goes on.
#[derive(Clone, Debug)]
pub(super) struct Active {
    fault: Fault,
    since: Instant,
    /// Its time is over then; later, if it has to be outlived, or takes longer.
    until: Instant,
    /// Whom it concerns.
    san: San,
    links: Vec<(Link, Condition)>,
    /// Of one that strikes both nodes: the second has been struck.
    both: bool,
    /// The volume has to serve before it ends.
    outlive: Outlive,
}

/// Whether the volume has served in spite of a fault.
#[derive(Clone, Copy, Debug)]
enum Outlive {
    /// That is not asked.
    No,
    /// From this moment on.
    After(Instant),
    /// Once so many requests have completed.
    At(u64),
}

/// What of a fault's effects is not there at once has come after that; shorter ones need not be outlived.
const EFFECT: Duration = Duration::from_millis(1500);
/// Within that the volume has to serve though a fault goes on which is survived. Takeovers wait for `takeover_ms` (1 s),
/// and for a drain.
const SURVIVAL: Duration = Duration::from_secs(30);
/// For a node to end in order, or to be alone.
const ENDING: Duration = Duration::from_secs(60);

impl<W: World, L: Load> Driver<'_, W, L> {
    pub(super) fn begin_fault(&mut self, fault: Fault, single: bool) -> Result<()> {
        let now = Instant::now();
        let outlived = single && fault.is_survived() && fault.time() > EFFECT;
        let outlive = if outlived { Outlive::After(now + EFFECT) } else { Outlive::No };
        let san = self.concerned(fault);
        let links = self.links_of(fault, san);
        let active = Active { fault, since: now, until: now + fault.time(), san, links, both: false, outlive };
        match self.try_fault(&active, single)? {
            Strike::Done => {
                self.log.line(&format!("{fault}: {}", self.whom(&active)));
                *self.report.faults.entry(fault.kind()).or_default() += 1;
                self.active.push(active);
                self.relink()
            }
            Strike::Spared(why) => {
                self.log.line(&format!("no {fault}: {why}"));
                self.report.skipped += 1;
                Ok(())
            }
        }
    }

    fn whom(&self, active: &Active) -> String {
        match active.fault {
            Fault::KillClient(_)
            | Fault::FreezeClient(_)
            | Fault::LeaveClient(_)
            | Fault::IsolateClient(_)
            | Fault::TakeOver => "client".into(),
            Fault::Cut(..) | Fault::Slow { .. } => active.links.iter().map(|(link, _)| link.to_string()).collect(),
            Fault::Fill(_) => "disk".into(),
            Fault::Switchover => format!("from {}", self.primary),
            _ => active.san.to_string(),
        }
    }

    fn node(&self, role: Role) -> San {
        match role {
            Role::Primary => self.primary,
            Role::Secondary => self.primary.other(),
        }
    }

    fn concerned(&self, fault: Fault) -> San {
        match fault {
            Fault::Kill(role, ..) | Fault::Freeze(role, ..) | Fault::Leave(role, _) | Fault::Isolate(role, _) => {
                self.node(role)
            }
            Fault::KillAlone(_) | Fault::LeaveBoth(_) => self.node(Role::Secondary),
            _ => self.primary,
        }
    }

    fn links_of(&self, fault: Fault, san: San) -> Vec<(Link, Condition)> {
        let cut = |links: &[Link]| {
            let dead = Condition { cut: Some(Way::Both), ..Condition::default() };
            links.iter().map(|&link| (link, dead)).collect()
        };
        let link = |wire: Wire| match wire {
            Wire::Client(role) => Link::Client(self.node(role)),
            Wire::Nodes => Link::Nodes,
        };
        match fault {
            Fault::Kill(_, Extent::Host, _) | Fault::Freeze(_, Extent::Host, _) | Fault::Isolate(..) => {
                cut(&[Link::Client(san), Link::Nodes])
            }
            Fault::IsolateClient(_) => cut(&[Link::Client(San::One), Link::Client(San::Two)]),
            Fault::Cut(wire, way, _) => vec![(link(wire), Condition { cut: Some(way), ..Condition::default() })],
            Fault::Slow { wire, delay, jitter, .. } => vec![(link(wire), Condition { cut: None, delay, jitter })],
            _ => Vec::new(),
        }
    }

    /// Does what the fault is, but for the links.
    fn try_fault(&mut self, active: &Active, single: bool) -> Result<Strike> {
        let san = active.san;
        match active.fault {
            Fault::Kill(_, extent, _) => {
                // A host that is gone says nothing any more: first the links, then the process.
                if extent == Extent::Host {
                    self.set_links(active.links.clone())?;
                }
                self.strike(san, Order::Die)
            }
            Fault::Freeze(..) => self.strike(san, Order::Freeze),
            Fault::Leave(..) | Fault::LeaveBoth(_) => self.strike(san, Order::Leave),
            Fault::KillAlone(_) => self.strike(san, Order::Die),
            Fault::Switchover => self.world.switchover(self.primary).map(|()| Strike::Done),
            Fault::Fill(_) => self.fill(),
            Fault::KillClient(_) => self.end_client(Order::Die, Client::Away),
            Fault::LeaveClient(_) => self.end_client(Order::Leave, Client::Leaving),
            Fault::FreezeClient(_) => self.end_client(Order::Freeze, Client::Open),
            Fault::TakeOver => self.take_over(single),
            Fault::Cut(..) | Fault::Isolate(..) | Fault::IsolateClient(_) | Fault::Slow { .. } => Ok(Strike::Done),
        }
    }

    fn strike(&mut self, san: San, order: Order) -> Result<Strike> {
        let struck = strike(self.world, &mut self.guard, san, order)?;
        if struck == Strike::Done {
            self.nodes.held[san.index()] = true;
            self.nodes.leaving[san.index()] = order == Order::Leave;
        } else {
            self.relink()?;
        }
        Ok(struck)
    }

    fn end_client(&mut self, order: Order, then: Client) -> Result<Strike> {
        let is_frozen = self.active.iter().any(|active| matches!(active.fault, Fault::FreezeClient(_)));
        if self.client != Client::Open || is_frozen {
            return Ok(Strike::Spared("the client is not attached, or frozen"));
        }
        self.world.order(Program::Client, order)?;
        self.client = then;
        Ok(Strike::Done)
    }

    /// By itself only: an order that can't be carried out at once is not repeated.
    fn take_over(&mut self, single: bool) -> Result<Strike> {
        if !single || self.client != Client::Open {
            return Ok(Strike::Spared("something else is going on"));
        }
        self.world.take_over()?;
        self.client = Client::TakingOver;
        Ok(Strike::Done)
    }

    fn fill(&mut self) -> Result<Strike> {
        if self.load.thirsts() {
            return Ok(Strike::Spared("it has been full in this round"));
        }
        if self.client != Client::Open {
            return Ok(Strike::Spared("the client is not attached"));
        }
        if !self.load.has_fresh() {
            return Ok(Strike::Spared("nothing is left that was never written to"));
        }
        self.world.fill_disk(true)?;
        self.load.thirst().map(|()| Strike::Done)
    }

    /// Ends what is to end.
    pub(super) fn carry_on(&mut self) -> Result<()> {
        let mut at = 0;
        while let Some(mut active) = self.active.get(at).cloned() {
            if self.goes_on(&mut active)? {
                self.active[at] = active;
                at += 1;
            } else {
                self.log.line(&format!("over: {}", active.fault.kind()));
                self.active.remove(at);
            }
        }
        self.relink()
    }

    fn goes_on(&mut self, active: &mut Active) -> Result<bool> {
        if matches!(active.fault, Fault::KillAlone(_) | Fault::LeaveBoth(_)) && !active.both {
            return self.strike_other(active);
        }
        if Instant::now() < active.until || !self.is_outlived(active)? {
            return Ok(true);
        }
        let ended = match active.fault {
            Fault::Kill(..) => self.bring_back(active.san)?,
            Fault::Freeze(..) => self.thaw(active.san)?,
            Fault::Leave(..) => self.bring_back_who_left(active, active.san)?,
            Fault::KillAlone(_) => self.bring_back(active.san)? && self.bring_back(active.san.other())?,
            Fault::LeaveBoth(_) => {
                self.bring_back_who_left(active, active.san)? && self.bring_back_who_left(active, active.san.other())?
            }
            Fault::Fill(_) => self.world.fill_disk(false).map(|()| true)?,
            Fault::FreezeClient(_) => self.world.order(Program::Client, Order::Thaw).map(|()| true)?,
            Fault::KillClient(_) => self.attach().map(|()| true)?,
            Fault::LeaveClient(_) => self.attach_again(active)?,
            Fault::TakeOver => self.is_taken_over(active)?,
            Fault::Switchover | Fault::Cut(..) | Fault::Isolate(..) | Fault::IsolateClient(_) | Fault::Slow { .. } => {
                true
            }
        };
        Ok(!ended)
    }

    /// Whether the volume has served since the fault had its effect.
    fn is_outlived(&self, active: &mut Active) -> Result<bool> {
        let completed = self.load.completed();
        match active.outlive {
            Outlive::No => return Ok(true),
            Outlive::After(moment) if Instant::now() < moment => {}
            Outlive::After(_) => active.outlive = Outlive::At(completed + SERVES),
            Outlive::At(goal) if completed >= goal => return Ok(true),
            Outlive::At(_) => {}
        }
        if active.since.elapsed() < SURVIVAL {
            return Ok(false);
        }
        let words =
            format!("{} goes on, which is survived, and for {} s nobody serves", active.fault, SURVIVAL.as_secs());
        Err(Broken::Stuck(words).into())
    }

    /// The second half of a fault that strikes both: once the other one is alone, so that what was completed is on the disk.
    fn strike_other(&mut self, active: &mut Active) -> Result<bool> {
        let other = active.san.other();
        let first_is_down = !self.world.runs(Program::Node(active.san));
        let alone = self.looks[other.index()].as_ref().is_some_and(Look::is_alone);
        if first_is_down && alone && self.guard.may_strike(other) {
            let order = if matches!(active.fault, Fault::KillAlone(_)) { Order::Die } else { Order::Leave };
            let struck = self.strike(other, order)?;
            self.log.line(&format!("{}: {other}, alone: {struck:?}", active.fault.kind()));
            active.both = struck == Strike::Done;
            active.until = Instant::now() + active.fault.time();
        } else if active.since.elapsed() > self.scaled(ENDING) {
            return Err(Broken::Stuck(format!("{other} is not alone though {} has gone", active.san)).into());
        }
        Ok(true)
    }

    fn bring_back(&mut self, san: San) -> Result<bool> {
        if self.nodes.held[san.index()] {
            self.nodes.held[san.index()] = false;
            self.start_node(san)?;
        }
        Ok(true)
    }

    /// Who was killed by the fence meanwhile is started again.
    fn thaw(&mut self, san: San) -> Result<bool> {
        self.nodes.held[san.index()] = false;
        if !self.world.runs(Program::Node(san)) {
            self.start_node(san)?;
        } else if !self.world.is_dying(Program::Node(san)) {
            self.world.order(Program::Node(san), Order::Thaw)?;
            self.guard.back(san);
        }
        Ok(true)
    }

    /// Of two who leave, one may be back already while the other has not left yet.
    fn bring_back_who_left(&mut self, active: &Active, san: San) -> Result<bool> {
        if !self.nodes.held[san.index()] || !self.world.runs(Program::Node(san)) {
            return self.bring_back(san);
        }
        if active.until.elapsed() > self.scaled(ENDING) {
            let words = format!("{san} has not ended {} s after SIGTERM", ENDING.as_secs());
            return Err(Broken::Stuck(words).into());
        }
        Ok(false)
    }

    fn attach_again(&mut self, active: &Active) -> Result<bool> {
        if self.client == Client::Away {
            return self.attach().map(|()| true);
        }
        if active.until.elapsed() > self.scaled(ENDING) {
            let words = format!("the client has not ended {} s after SIGTERM", ENDING.as_secs());
            return Err(Broken::Stuck(words).into());
        }
        Ok(false)
    }

    fn is_taken_over(&self, active: &Active) -> Result<bool> {
        if active.until.elapsed() > self.scaled(ENDING) {
            let words = format!("the client is not taken over {} s after the order", ENDING.as_secs());
            return Err(Broken::Stuck(words).into());
        }
        Ok(self.client == Client::Open)
    }

    /// Each link as all faults that go on have it.
    fn relink(&mut self) -> Result<()> {
        self.set_links(Vec::new())
    }

    /// The same, with what comes on top of that.
    fn set_links(&mut self, mut conditions: Vec<(Link, Condition)>) -> Result<()> {
        conditions.extend(self.active.iter().flat_map(|active| active.links.clone()));
        for link in Link::ALL {
            let own = conditions.iter().filter(|(of, _)| *of == link).map(|&(_, condition)| condition);
            self.world.link(link, own.fold(Condition::default(), Condition::and))?;
        }
        Ok(())
    }
}
