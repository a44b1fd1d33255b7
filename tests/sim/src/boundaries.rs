//! Restarts at every action boundary: a tale is told once to count what its nodes do, and then again for each single
//! action of each node, after which that node is killed and started again.
//!
//! A crash-only process may die between any two things that it does. Heartbeats, and who says again where he stands,
//! are no boundaries: between two of them nothing has changed.

use twinsan_replica::Action;
use twinsan_wire::{BlobKind, NodeId, NodeMsg, PeerBody};

use crate::config::{FenceKind, SimConfig};
use crate::event::{Ev, Host};
use crate::faults::Remedy;
use crate::plan::{Deed, Fault, Request, What};
use crate::shrink::Case;
use crate::trace::trace;
use crate::world::{Process, World};

/// A node is killed after so many of its actions, and started again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boundary {
    /// Which.
    pub node: NodeId,
    /// After this action, counted from 1.
    pub action: u64,
    /// How long it is down, in µs.
    pub down_us: u64,
}

/// How long a node is down: before anybody notices, and longer than any timeout.
const DOWN_US: [u64; 2] = [1_000, 450_000];

/// A run with something that nodes do, undisturbed.
#[derive(Clone, Copy, Debug)]
pub struct Tale {
    /// Its name.
    pub name: &'static str,
    /// What happens, at which ms.
    faults: &'static [(u64, Fault)],
    /// The rules that fire in it, as `cargo sim` words them.
    shows: &'static [(u8, &'static str)],
}

/// Every way by which members, primary or session change, or a node comes and goes.
pub const TALES: [Tale; 10] = [
    Tale { name: "start and join", faults: &[], shows: &[(8, "joined")] },
    Tale {
        name: "handover, and back",
        faults: &[(200, Fault::Switchover), (700, Fault::Switchover)],
        shows: &[(13, "done")],
    },
    Tale {
        name: "takeover from a frozen primary",
        faults: &[(200, Fault::FreezePrimary)],
        shows: &[(5, "by a member: both heartbeats stand still"), (5, "serves")],
    },
    Tale {
        name: "a secondary is dropped, and joins",
        faults: &[(200, Fault::FreezeOther)],
        shows: &[(7, "dropped"), (8, "joined")],
    },
    Tale { name: "the nodes are cut apart", faults: &[(200, Fault::CutNodes)], shows: &[(7, "dropped")] },
    Tale {
        name: "another session attaches",
        faults: &[(200, Fault::CrashClient)],
        shows: &[(10, "the secondary confirms that it has dropped the old lane")],
    },
    Tale {
        name: "the primary stops in order",
        faults: &[(200, Fault::StopPrimary)],
        shows: &[(13, "done"), (7, "dropped")],
    },
    Tale {
        name: "the primary loses its paths",
        faults: &[(200, Fault::PrimaryLosesPaths)],
        shows: &[(11, "asks the other node to take over"), (5, "serves")],
    },
    Tale { name: "a relay", faults: &[(200, Fault::CutClient)], shows: &[(14, "a relay feeds")] },
    Tale {
        name: "some I/O fails",
        faults: &[(150, Fault::CrashOther), (300, Fault::SomeIoFails), (500, Fault::SlotRots)],
        shows: &[(7, "dropped"), (11, "a batch fails, and is tried again")],
    },
];

impl Tale {
    /// As a list. Whom a fault strikes, and for how long, its dice say: the first ones are taken with which the tale shows
    /// what it is about.
    ///
    /// # Panics
    /// If there are none.
    #[must_use]
    pub fn case(&self, fence: FenceKind) -> Case {
        let cases = (0..200).map(|dice| self.case_with(fence, dice));
        let shows = |case: &Case| {
            let world = case.run(false);
            world.violation().is_some() || self.shows.iter().all(|&(rule, way)| world.fired_so_far(rule, way) > 0)
        };
        let first = { cases }.find(shows);
        first.unwrap_or_else(|| panic!("no run of the tale {:?} shows {:?}, {fence:?}", self.name, self.shows))
    }

    fn case_with(&self, fence: FenceKind, dice: u64) -> Case {
        let config = SimConfig { writes: 1, ..SimConfig::scripted(fence) };
        let requests = (0..90).map(|n| {
            let write = if n % 4 == 3 { None } else { Some(BlobKind::Write) };
            let request = Request { write, lba: n * 7 % 13, blocks: u32::try_from(n % 3 + 1).expect("few") };
            Deed { at_us: 100_000 + n * 13_000, what: What::Request { client: 0, request } }
        });
        let faults = self
            .faults
            .iter()
            .map(|&(ms, fault)| Deed { at_us: ms * 1000, what: What::Fault { fault, dice: dice + ms } });
        let mut deeds: Vec<Deed> = requests.chain(faults).collect();
        deeds.sort_by_key(|deed| deed.at_us);
        Case { config: SimConfig { trace: false, ..config }, deeds, until_us: 1_800_000 }
    }
}

/// The same case for each boundary of each node.
#[must_use]
pub fn at_each_boundary(case: &Case) -> Vec<Case> {
    let world = case.run(false);
    let each = |node: NodeId| (1..=world.actions[node.index()]).map(move |action| (node, action));
    let boundaries = NodeId::BOTH.into_iter().flat_map(each);
    let cases = boundaries.flat_map(|(node, action)| DOWN_US.map(|down_us| Boundary { node, action, down_us }));
    cases
        .map(|boundary| {
            let mut case = case.clone();
            case.config.boundary = Some(boundary);
            case
        })
        .collect()
}

/// Not what is said again and again.
pub(crate) fn changes_something(action: &Action) -> bool {
    match action {
        Action::WriteHeartbeat { .. } | Action::ReadHeartbeat | Action::Probe | Action::Notice(_) => false,
        Action::SendPeer { msg, .. } => !matches!(msg.body, PeerBody::Status { .. }),
        Action::SendClient { msg, .. } => !matches!(msg, NodeMsg::View { .. }),
        _ => true,
    }
}

impl World {
    /// A boundary was to be gone through, and the node was not killed there: the only RAM that holds something would have
    /// been lost, or it has not got so far.
    #[must_use]
    pub fn boundary_left_out(&self) -> bool {
        self.config.boundary.is_some() && !self.boundary_done
    }

    /// A node has done something; true: it is gone.
    pub(crate) fn passes_boundary(&mut self, node: NodeId) -> bool {
        if self.process(Host::Node(node)) == Process::Down {
            return true;
        }
        if self.plan_ended_us > 0 {
            return false; // All is mended, and the run looks at what has become of it.
        }
        self.actions[node.index()] += 1;
        let Some(boundary) = self.config.boundary.filter(|b| b.node == node) else { return false };
        if boundary.action != self.actions[node.index()] || self.would_lose_ram(node) {
            return false;
        }
        trace!(self, Host::Node(node), "=== action {} is done", boundary.action);
        self.boundary_done = true;
        self.crash_node(node);
        self.after(boundary.down_us, Ev::Heal(Remedy::Start(node)));
        true
    }
}
