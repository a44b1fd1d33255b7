//! What the rows of `docs/protocol.md`, section 6, have in common: a node on each SAN host, fenced by SCSI-3 reservations, and
//! a client under load.

use std::time::Duration;

use anyhow::Result;

use crate::load::{Kind, Load, SOME};
use crate::pair::{Front, Pair, Plan, Timing, VolumeStatus};
use crate::scenario::Stage;
use crate::topology::Lab;

/// The longest that a caller may wait when somebody dies, freezes or is cut off: four times the longest that was seen. What
/// it catches is a wait for somebody else's timeout, as iSCSI's or the kernel's.
pub(super) const PAUSE: Duration = Duration::from_secs(10);
/// The same where the matrix says that nobody notices.
pub(super) const HARDLY: Duration = Duration::from_secs(5);

/// A dual pair under load.
pub(super) struct Running {
    pub(super) pair: Pair,
    pub(super) load: Load,
    pub(super) primary: usize,
}

impl Running {
    pub(super) fn start(stage: &Stage) -> Result<Self> {
        Self::start_with(stage, "rdma", Front::Ublk)
    }

    pub(super) fn start_with(stage: &Stage, fabric: &'static str, front: Front) -> Result<Self> {
        Self::start_as(stage, Plan::two_hosts(fabric), front, Kind::Full)
    }

    /// With writes that a lane of 64 MiB holds for longer than the kernel takes to give up a path. Dropping somebody
    /// meanwhile would take the very disk that is away (rule 7).
    pub(super) fn start_paced(stage: &Stage, staging: &'static str) -> Result<Self> {
        let plan = Plan { staging, ..steady() };
        Self::start_as(stage, plan, Front::Ublk, Kind::Paced)
    }

    pub(super) fn start_as(stage: &Stage, plan: Plan, front: Front, kind: Kind) -> Result<Self> {
        let (pair, device) = Pair::serve(&stage.lab, plan, front)?;
        let primary = pair.until_dual(&stage.lab)?;
        let load = Load::start_kind(&stage.lab, device, kind)?;
        load.goes_on(SOME)?;
        Ok(Self { pair, load, primary })
    }

    pub(super) fn secondary(&self) -> usize {
        1 - self.primary
    }

    /// `node` serves without the other one.
    pub(super) fn until_solo(&self, lab: &Lab, node: usize) -> Result<VolumeStatus> {
        self.pair.until(lab, node, "it serves alone", |status| status.role == "primary" && !status.dual)
    }

    /// Everything is well again, nothing is lost, and no request took longer than `most`.
    pub(super) fn finish(self, stage: &mut Stage, most: Duration) -> Result<()> {
        self.load.goes_on(SOME)?;
        self.pair.until_dual(&stage.lab)?;
        let outcome = self.load.end_and_check(&stage.lab, most)?;
        stage.note(outcome.note());
        Ok(())
    }
}

/// A guest that gets no CPU for half a second is not dropped: for scenarios that need the pair dual at one moment.
pub(super) fn steady() -> Plan {
    Plan { timing: Timing { drop: 5000, ..Timing::DEFAULT }, ..Plan::two_hosts("rdma") }
}

/// A host comes back from the dead, and its node with it.
pub(super) fn revive(lab: &mut Lab, pair: &mut Pair, node: usize) -> Result<()> {
    let host = pair.host(node);
    lab.power_cycle(&[host])?;
    pair.install(lab, host)?;
    pair.start_node(lab, node)
}
