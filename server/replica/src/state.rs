//! What a node may be doing, and what holds while it does.
//!
//! ```text
//!               ┌────────────────────────── fence lost to another ──────────────┐
//!               ▼                                                               │
//!  Inspecting ─▶ Waiting ──rule 8──▶ Joining ──announced──▶ Secondary ◀── handed over (13) ──┐
//!      ▲           │ rule 6            │ rule 5/6              │ rule 5 │ handed to (13)     │
//!      │           └───────────────────┴───────────┬───────────┘        ▼                    │
//!      │                                           ▼                TakingOver: Accepting ▶ Fenced
//!      │                     TakingOver: Fencing ▶ Reading ▶ Draining ▶ Writing │            │
//!      │                                                           │            │            │
//!      └── Fenced ◀── own key gone (rule 9) ── Primary ◀───────────┴────────────┘            │
//!                                               Solo ⇄ Join ▶ Dual ▶ Dropping ▶ Solo         │
//!                                                              Dual ⇄ HandingOver ───────────┘
//! ```
//!
//! | state | lane | fence | superblock |
//! | --- | --- | --- | --- |
//! | Inspecting, Waiting | none that counts | no | a hint |
//! | Joining | filling, does not count yet | admitted | told by the primary |
//! | Secondary | counts | admitted | told by its writer |
//! | TakingOver | as before, until Reading says | being taken, held from Reading on | authoritative from Draining on |
//! | Accepting | counts | admitted; the claim is being taken | told by its writer: it names this node |
//! | Primary | counts | held | ours |
//! | Fenced | may count | gone | unknown until read |

use twinsan_wire::{Incarnation, Seq, Superblock};

use crate::ids::ConnId;

/// What the node is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum State {
    /// The superblock is being read for the first time.
    Inspecting,
    /// Outside: waits for a primary to join, or for the right to take over (rules 6, 8, 12).
    Waiting(Admission),
    /// The primary has accepted; the lane fills (rule 8).
    Joining,
    /// A member that mirrors.
    Secondary,
    /// On the way to serve.
    TakingOver(TakeOver),
    /// Serves.
    Primary(Phase),
    /// The own key is gone (rule 9); what the superblock says is being found out.
    Fenced {
        /// A settled superblock still names this incarnation.
        member: bool,
    },
    /// A lone primary that has ended in order: all is on the disk, and marked clean.
    Leaving(Leaving),
    /// Nothing more is done.
    Stopped,
}

/// Whether this host may be let in (rule 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Admission {
    /// Not asked for.
    None,
    /// Asked for.
    Asked,
    /// No earlier write of this host can land, and it is registered.
    Granted,
}

/// Where a node stood when it began to take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Standing {
    /// With nothing.
    Outside,
    /// With a lane that may have become a member's without our knowing.
    Joiner,
    /// With a lane that counts.
    Member,
    /// Fenced, and a member as far as is known.
    Fenced,
}

/// The steps of rules 5 and 6, in order; or the one of rule 13.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TakeOver {
    /// Fencing all others.
    Fencing(Standing),
    /// Fenced; the superblock is read again, and mended where a slot needs it.
    Reading,
    /// Rule 5: everything unreleased goes to the disk, up to `target`.
    Draining {
        /// The last seq received when the drain began.
        target: Seq,
    },
    /// The superblock that makes it the primary is being written.
    Writing,
    /// Rule 13: the superblock names this node, as the old primary has told. The claim is being taken, without a fence.
    Accepting {
        /// It has been; the superblock is read again, as that word may have been long on its way.
        claimed: bool,
    },
}

/// What a primary is with respect to the other node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// Alone: a blob completes when it is flushed.
    Solo,
    /// The other one is joining (rule 8).
    Join(Join),
    /// Both count: a blob completes when both hold it.
    Dual {
        /// The last seq that the member has ACKed.
        acked: Seq,
        /// Since when there is no link to it.
        lost_at: Option<u64>,
    },
    /// Rule 7: nothing completes until everything up to `target` is on the disk and the superblock names one member.
    Dropping {
        /// The last seq received when it began.
        target: Seq,
    },
    /// Rule 13: nothing is flushed, completed or answered. Its own disk I/O ends; then, in the superblock write of
    /// [`Purpose::HandOver`], the other one is named, and there is no way back.
    HandingOver {
        /// As while dual.
        acked: Seq,
        /// When it began.
        since: u64,
    },
}

/// A join in progress, as the primary sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Join {
    /// Who joins.
    pub(crate) incarnation: Incarnation,
    /// Where its lane begins; `None`: not heard yet, or no client has said.
    pub(crate) first: Option<Seq>,
    /// What it has ACKed; `None`: nothing heard yet.
    pub(crate) acked: Option<Seq>,
    /// When it last made progress.
    pub(crate) progress_at: u64,
    /// It has been offered this node's own lane (rule 14), which may be where its lane begins. What it has not ACKed stays
    /// here from then on, and the client hears of nothing as released that it has not released.
    pub(crate) relayed: bool,
}

/// The last steps of an orderly end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Leaving {
    /// Its disk I/O in flight ends.
    Quieting,
    /// The claim is being let go.
    Releasing,
}

/// A superblock write that has been issued: until its outcome is known both the old and the new one must allow what
/// is done (rule 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SuperblockWrite {
    /// What is being written.
    pub(crate) next: Superblock,
    /// Why.
    pub(crate) purpose: Purpose,
    /// The action is out; else it failed and is tried again at this time.
    pub(crate) retry_at: Option<u64>,
}

/// Why a superblock is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    /// Rules 5 and 6.
    TakeOver,
    /// Section 7: the other slot said something else, or nothing.
    Mend,
    /// Rule 7.
    Drop,
    /// Rule 8.
    Join,
    /// Rule 13.
    HandOver,
    /// Rule 10.
    Attach,
    /// Rule 12: the clean flag comes or goes.
    Clean,
    /// Rule 12: an orderly end.
    End,
    /// Overtaken by events: only its end matters.
    Void,
}

/// A new session on its way (rule 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Attach {
    /// Who asked.
    pub(crate) conn: ConnId,
    /// How far it is.
    pub(crate) step: AttachStep,
}

/// The steps of rule 10, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum AttachStep {
    /// The old session's blobs go to the disk.
    Flushing,
    /// The member drops the old lane.
    Confirming,
    /// The generation is being written.
    Writing,
}

/// A state's name: what the table of transitions is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Inspecting,
    Waiting,
    Joining,
    Secondary,
    Fencing,
    Reading,
    Draining,
    Writing,
    Accepting,
    Solo,
    Join,
    Dual,
    Dropping,
    HandingOver,
    Fenced,
    Leaving,
    Stopped,
}

impl Step {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 17] = [
        Self::Inspecting,
        Self::Waiting,
        Self::Joining,
        Self::Secondary,
        Self::Fencing,
        Self::Reading,
        Self::Draining,
        Self::Writing,
        Self::Accepting,
        Self::Solo,
        Self::Join,
        Self::Dual,
        Self::Dropping,
        Self::HandingOver,
        Self::Fenced,
        Self::Leaving,
        Self::Stopped,
    ];

    /// Whether `next` may follow. Who serves, or held the fence, and learns that it is out goes back to Waiting.
    pub(crate) fn may_become(self, next: Self) -> bool {
        use Step::{
            Accepting, Draining, Dropping, Dual, Fenced, Fencing, HandingOver, Inspecting, Join, Joining, Leaving,
            Reading, Secondary, Solo, Stopped, Waiting, Writing,
        };
        match self {
            Inspecting => matches!(next, Waiting | Stopped),
            Waiting => matches!(next, Waiting | Joining | Fencing | Stopped),
            Joining => matches!(next, Waiting | Secondary | Fencing | Stopped),
            Secondary => matches!(next, Waiting | Secondary | Fencing | Accepting | Stopped),
            Fencing => matches!(next, Waiting | Joining | Secondary | Fenced | Reading),
            Reading => matches!(next, Waiting | Draining | Writing | Fenced),
            Draining => matches!(next, Writing | Fenced),
            Writing => matches!(next, Solo | Fenced),
            Accepting => matches!(next, Accepting | Dual | Fenced),
            Solo => matches!(next, Join | Fenced | Waiting | Leaving | Stopped),
            Join => matches!(next, Solo | Dual | Fenced | Waiting | Stopped),
            Dual => matches!(next, Dropping | HandingOver | Fenced | Waiting | Stopped),
            Dropping => matches!(next, Solo | Fenced | Waiting | Stopped),
            HandingOver => matches!(next, Dual | Secondary | Fenced | Waiting | Stopped),
            Fenced => matches!(next, Fenced | Waiting | Fencing | Stopped),
            Leaving => matches!(next, Leaving | Fenced | Stopped),
            Stopped => false,
        }
    }
}

impl State {
    pub(crate) fn step(self) -> Step {
        match self {
            Self::Inspecting => Step::Inspecting,
            Self::Waiting(_) => Step::Waiting,
            Self::Joining => Step::Joining,
            Self::Secondary => Step::Secondary,
            Self::TakingOver(TakeOver::Fencing(_)) => Step::Fencing,
            Self::TakingOver(TakeOver::Reading) => Step::Reading,
            Self::TakingOver(TakeOver::Draining { .. }) => Step::Draining,
            Self::TakingOver(TakeOver::Writing) => Step::Writing,
            Self::TakingOver(TakeOver::Accepting { .. }) => Step::Accepting,
            Self::Primary(Phase::Solo) => Step::Solo,
            Self::Primary(Phase::Join(_)) => Step::Join,
            Self::Primary(Phase::Dual { .. }) => Step::Dual,
            Self::Primary(Phase::Dropping { .. }) => Step::Dropping,
            Self::Primary(Phase::HandingOver { .. }) => Step::HandingOver,
            Self::Fenced { .. } => Step::Fenced,
            Self::Leaving(_) => Step::Leaving,
            Self::Stopped => Step::Stopped,
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::String;

    use super::Step;

    /// The table as text: a change of it is a change of the protocol's shape, and wants to be seen.
    const TABLE: &str = "\
Inspecting > Waiting Stopped
Waiting > Waiting Joining Fencing Stopped
Joining > Waiting Secondary Fencing Stopped
Secondary > Waiting Secondary Fencing Accepting Stopped
Fencing > Waiting Joining Secondary Reading Fenced
Reading > Waiting Draining Writing Fenced
Draining > Writing Fenced
Writing > Solo Fenced
Accepting > Accepting Dual Fenced
Solo > Waiting Join Fenced Leaving Stopped
Join > Waiting Solo Dual Fenced Stopped
Dual > Waiting Dropping HandingOver Fenced Stopped
Dropping > Waiting Solo Fenced Stopped
HandingOver > Waiting Secondary Dual Fenced Stopped
Fenced > Waiting Fencing Fenced Stopped
Leaving > Fenced Leaving Stopped
Stopped >
";

    #[test]
    fn the_table_of_transitions() {
        let mut table = String::new();
        for from in Step::ALL {
            table += &std::format!("{from:?} >");
            for to in Step::ALL.into_iter().filter(|&to| from.may_become(to)) {
                table += &std::format!(" {to:?}");
            }
            table += "\n";
        }
        assert_eq!(table, TABLE);
    }
}
