//! The connection table.
//!
//! ```text
//!  accepted ─▶ Listening ──proof──▶ Admitted ──Ready──▶ Link / Client (a relay that feeds us is like one)
//!                  │                    └─ a probe ─▶ Parting
//!                  └── wrong ─▶ Parting
//!  dialled  ─▶ Dialling ─connected▶ Proving ─Welcome──▶ Link   (node B)
//!                                              ├──────▶ Relay
//!                                              └──────▶ gone   (a probe)
//! ```
//!
//! Nothing of a connection reaches a machine before Link, Client or Relay. All stages but these three have a deadline.

use std::collections::BTreeMap;

use twinsan_auth::{Connector, Listener};
use twinsan_fabric::ConnId;
use twinsan_wire::message::{LaneGrant, Purpose, RemoteKey};

use crate::dial::Errand;
use crate::outbox::Outbox;

/// One connection.
#[derive(Debug)]
pub(crate) struct Conn {
    /// Index of the volume that it means; not known before a Hello has been proven.
    pub(crate) volume: Option<usize>,
    /// How far it is.
    pub(crate) stage: Stage,
    /// When it reached its present stage, or for a set-up, when that began.
    pub(crate) since: u64,
    /// What waits to leave.
    pub(crate) outbox: Outbox,
    /// It is on the list of those with something to leave.
    pub(crate) listed: bool,
}

/// How far a connection is.
#[derive(Debug)]
pub(crate) enum Stage {
    /// We connect to the other node, to see who is there or for the link.
    Dialling(Purpose),
    /// Connected; we prove who we are.
    Proving(Purpose, Box<Connector>),
    /// It has connected to us and is to prove who it is.
    Listening(Box<Listener>),
    /// Proven and welcomed; Ready is to come.
    Admitted(Purpose),
    /// All is said; the peer closes, or the deadline does.
    Parting,
    /// The link to the other node.
    Link {
        /// Its mailbox region.
        mailbox: RemoteKey,
    },
    /// A client, or a relay that feeds us in its place; that one has no regions, and is written nothing.
    Client {
        /// Its mailbox region.
        mailbox: RemoteKey,
        /// Its read buffers.
        reads: RemoteKey,
        /// The lane, once it has been opened to this connection.
        grant: Option<LaneGrant>,
    },
    /// Ours: we feed the other node by it (rule 14).
    Relay {
        /// Its lane, once it has been opened to us.
        grant: Option<LaneGrant>,
    },
}

impl Conn {
    /// In a stage of the set-up.
    pub(crate) fn new(volume: Option<usize>, stage: Stage, now: u64) -> Self {
        Self { volume, stage, since: now, outbox: Outbox::default(), listed: false }
    }

    /// Still in the set-up, or parting: it has a deadline.
    pub(crate) fn is_passing(&self) -> bool {
        !matches!(self.stage, Stage::Link { .. } | Stage::Client { .. } | Stage::Relay { .. })
    }

    /// Ours, on the way to the other node.
    pub(crate) fn is_dial(&self) -> bool {
        matches!(self.stage, Stage::Dialling(_) | Stage::Proving(..))
    }

    /// What it is dialled for.
    pub(crate) fn errand(&self) -> Errand {
        match self.stage {
            Stage::Dialling(Purpose::Relay { .. }) | Stage::Proving(Purpose::Relay { .. }, _) => Errand::Relay,
            _ => Errand::Probe,
        }
    }

    /// It has been told an incarnation of ours, or has told us, and the set-up is not through.
    pub(crate) fn names_incarnation(&self) -> bool {
        matches!(self.stage, Stage::Dialling(_) | Stage::Proving(..) | Stage::Admitted(_))
    }

    /// Where its mailboxes are written; none in the set-up.
    pub(crate) fn mailbox(&self) -> RemoteKey {
        match self.stage {
            Stage::Link { mailbox } | Stage::Client { mailbox, .. } => mailbox,
            _ => NO_KEY,
        }
    }
}

/// Opens nothing: for those who have nothing to write here.
pub(crate) const NO_KEY: RemoteKey = RemoteKey(0);

/// All connections.
#[derive(Debug, Default)]
pub(crate) struct Conns {
    table: BTreeMap<ConnId, Conn>,
    /// Those with something to leave.
    dirty: Vec<ConnId>,
}

impl Conns {
    pub(crate) fn insert(&mut self, id: ConnId, conn: Conn) {
        let earlier = self.table.insert(id, conn);
        assert!(earlier.is_none(), "a connection's number is never used again");
    }

    pub(crate) fn get(&self, id: ConnId) -> Option<&Conn> {
        self.table.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.table.get_mut(&id)
    }

    pub(crate) fn remove(&mut self, id: ConnId) -> Option<Conn> {
        self.table.remove(&id)
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ConnId, &Conn)> {
        self.table.iter().map(|(&id, conn)| (id, conn))
    }

    /// The ids of those that `wanted` picks.
    pub(crate) fn which(&self, wanted: impl Fn(&Conn) -> bool) -> Vec<ConnId> {
        self.iter().filter(|(_, conn)| wanted(conn)).map(|(id, _)| id).collect()
    }

    /// The outbox of a connection that is there; whatever is put into it leaves with the next flush.
    pub(crate) fn outbox(&mut self, id: ConnId) -> Option<&mut Outbox> {
        let conn = self.table.get_mut(&id)?;
        if !conn.listed {
            conn.listed = true;
            self.dirty.push(id);
        }
        Some(&mut conn.outbox)
    }

    /// Moves the list of those with something to leave into `dirty`, which is empty.
    pub(crate) fn take_dirty(&mut self, dirty: &mut Vec<ConnId>) {
        std::mem::swap(&mut self.dirty, dirty);
        for id in dirty {
            if let Some(conn) = self.table.get_mut(id) {
                conn.listed = false;
            }
        }
    }
}
