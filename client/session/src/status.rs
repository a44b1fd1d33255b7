//! What people want to know of a session.

use twinsan_wire::{Epoch, Generation, Incarnation, NodeId, Seq};

use crate::action::Ended;
use crate::link::{Link, LinkPhase, State};
use crate::session::Session;

/// How far a session is in its life.
///
/// ```text
///   Attaching ──Attached──▶ Open ──Detach──▶ Detaching ──all completed──▶ Ended
///       └── refused, Detach ──┴── superseded ──┴──────────────────────────▲
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// No session yet (rule 10).
    Attaching,
    /// Reads and writes are taken.
    Open {
        /// The session.
        generation: Generation,
    },
    /// No new ones are taken; what is open completes.
    Detaching {
        /// The session.
        generation: Generation,
    },
    /// Nothing happens any more.
    Ended(Ended),
}

impl Phase {
    /// The session, once it is open and until it has ended.
    #[must_use]
    pub const fn generation(self) -> Option<Generation> {
        match self {
            Self::Open { generation } | Self::Detaching { generation } => Some(generation),
            Self::Attaching | Self::Ended(_) => None,
        }
    }

    pub(crate) const fn is_over(self) -> bool {
        matches!(self, Self::Ended(_))
    }
}

/// A session at a glance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Status {
    /// How far it is.
    pub phase: Phase,
    /// The epoch that the session acts under; zero: no primary has been heard yet.
    pub epoch: Epoch,
    /// Who serves.
    pub primary: Option<NodeId>,
    /// Two members.
    pub dual: bool,
    /// The last seq given.
    pub last: Seq,
    /// Every write up to here has completed.
    pub completed: Seq,
    /// Every blob up to here is forgotten; those after it are kept to be sent again.
    pub freed: Seq,
    /// Reads that have not been answered.
    pub open_reads: usize,
    /// The nodes, by [`NodeId::index`].
    pub links: [LinkStatus; 2],
}

/// One node, as the session sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkStatus {
    /// The connection's state.
    pub phase: LinkPhase,
    /// Who is at the other end.
    pub incarnation: Option<Incarnation>,
    /// Its lane counts, or is about to: it is a member or joins.
    pub holder: bool,
    /// What its lane has released, as far as is known.
    pub released: Option<Seq>,
    /// Since when it has been out of reach.
    pub down_since_ms: Option<u64>,
}

impl Session {
    /// How the session stands.
    #[must_use]
    pub fn status(&self) -> Status {
        let known = self.known.as_ref();
        Status {
            phase: self.phase,
            epoch: known.map_or(Epoch::ZERO, |known| known.epoch),
            primary: known.map(|known| known.primary.node),
            dual: known.is_some_and(|known| known.members.is_dual()),
            last: self.last(),
            completed: self.completed,
            freed: self.window.freed(),
            open_reads: self.reads.len(),
            links: NodeId::BOTH.map(|node| self.link_status(node)),
        }
    }

    fn link_status(&self, node: NodeId) -> LinkStatus {
        let link: &Link = &self.links[node.index()];
        let incarnation = match &link.state {
            State::Up(up) => Some(up.incarnation),
            State::Idle { .. } | State::Connecting => None,
        };
        LinkStatus {
            phase: link.phase(),
            incarnation,
            holder: self.known.as_ref().is_some_and(|known| known.holder(node).is_some()),
            released: link.lane.map(|lane| lane.released),
            down_since_ms: link.down_since,
        }
    }
}
