//! What the nodes say, where their admin sockets can be reached from here.

use std::time::Duration;

use twinsan_control::Config;
use twinsan_control::admin::VolumeStatus;
use twinsan_wire::Role;

use crate::commands::volume_status;

/// For an answer: a frozen node must not stall the test.
const TIMEOUT: Duration = Duration::from_millis(500);

/// Who does what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sight {
    /// The node that says that it serves.
    pub(super) primary: Option<String>,
    /// The other one of the configuration, whatever it does.
    pub(super) other: Option<String>,
    /// Both say that both hold every completed write.
    pub(super) dual: bool,
    /// Nodes that answered.
    pub(super) answers: usize,
}

/// Asks both nodes.
pub(super) fn look(config: &Config, volume: &str) -> Sight {
    let said: Vec<Option<VolumeStatus>> =
        config.nodes.iter().map(|node| volume_status(node, volume, TIMEOUT).ok()).collect();
    let is = |status: &Option<VolumeStatus>, role: Role| status.as_ref().is_some_and(|v| v.role == role.name());
    let primary = said.iter().position(|status| is(status, Role::Primary));
    let dual = |status: &Option<VolumeStatus>| {
        status.as_ref().is_some_and(|v| v.dual) && (is(status, Role::Primary) || is(status, Role::Secondary))
    };
    Sight {
        primary: primary.map(|at| config.nodes[at].name.clone()),
        other: primary.map(|at| config.nodes[1 - at].name.clone()),
        dual: said.iter().all(dual),
        answers: said.iter().flatten().count(),
    }
}
