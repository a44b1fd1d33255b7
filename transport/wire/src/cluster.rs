//! Who holds the data: the superblock's contents and the role a node reports.

use core::fmt;

use crate::ids::{Epoch, Generation, Incarnation, NodeId};

/// One node's process, as a member names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// Which node.
    pub node: NodeId,
    /// Which life of it.
    pub incarnation: Incarnation,
}

/// The incarnations whose RAM holds every completed blob that is not yet on the disk: none, one (solo) or two (dual).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Members(pub [Option<Incarnation>; 2]);

impl Members {
    /// Nobody.
    pub const NONE: Self = Self([None; 2]);

    /// Solo.
    #[must_use]
    pub fn solo(member: Member) -> Self {
        let mut all = [None; 2];
        all[member.node.index()] = Some(member.incarnation);
        Self(all)
    }

    /// The incarnation of `node` that is a member.
    #[must_use]
    pub fn of(self, node: NodeId) -> Option<Incarnation> {
        self.0[node.index()]
    }

    /// Whether this very incarnation is a member.
    #[must_use]
    pub fn contains(self, member: Member) -> bool {
        self.of(member.node) == Some(member.incarnation)
    }

    /// With `member` in its node's place.
    #[must_use]
    pub fn with(mut self, member: Member) -> Self {
        self.0[member.node.index()] = Some(member.incarnation);
        self
    }

    /// Two members.
    #[must_use]
    pub fn is_dual(self) -> bool {
        self.0.iter().all(Option::is_some)
    }

    /// No member.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0.iter().all(Option::is_none)
    }
}

/// The replicated part of the superblock: what the protocol reads and writes. The volume's UUID, size and block size
/// stand beside it on the disk and never change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Superblock {
    /// +1 at every write of the superblock; the higher slot serves.
    pub counter: u64,
    /// +1 at every change of members, primary or generation.
    pub epoch: Epoch,
    /// The node that serves, always a member; none only before the first start.
    pub primary: Option<NodeId>,
    /// Whose RAM counts.
    pub members: Members,
    /// The session that may write.
    pub generation: Generation,
    /// Nothing is staged anywhere (rule 12).
    pub clean: bool,
}

impl Superblock {
    /// The primary's incarnation.
    #[must_use]
    pub fn primary_member(&self) -> Option<Member> {
        let node = self.primary?;
        Some(Member { node, incarnation: self.members.of(node)? })
    }
}

impl fmt::Display for Superblock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} members [", self.epoch, self.generation)?;
        for node in NodeId::BOTH {
            if let Some(incarnation) = self.members.of(node) {
                let star = if self.primary == Some(node) { "*" } else { "" };
                write!(f, " {node}{star}={incarnation}")?;
            }
        }
        write!(f, " ]{}", if self.clean { " clean" } else { "" })
    }
}

/// What a node is doing for a volume, as it tells the other node, its clients and `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Reads the superblock, or holds nothing and waits to join or to take over.
    Waiting,
    /// Refuses to serve a dual volume whose members are gone (rule 12).
    Refusing,
    /// Receives blobs, is not a member yet (rule 8).
    Joining,
    /// A member that mirrors (rules 1, 8).
    Secondary,
    /// Fences, drains or writes the superblock, to become the primary (rules 5, 6).
    TakingOver,
    /// Serves.
    Primary,
    /// Lost its fence (rule 9).
    Fenced,
    /// Ends in order.
    Leaving,
}

impl Role {
    /// All of them, in wire order.
    pub const ALL: [Self; 8] = [
        Self::Waiting,
        Self::Refusing,
        Self::Joining,
        Self::Secondary,
        Self::TakingOver,
        Self::Primary,
        Self::Fenced,
        Self::Leaving,
    ];

    /// The word that people and `--json` see.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Refusing => "refusing",
            Self::Joining => "joining",
            Self::Secondary => "secondary",
            Self::TakingOver => "taking-over",
            Self::Primary => "primary",
            Self::Fenced => "fenced",
            Self::Leaving => "leaving",
        }
    }
}
