//! Why a registration or a fence has failed.

use crate::fence::scsi_pr::spc::{Malformed, ReservationKey, ReservationType, Sense};

/// A path has not brought the LUN's answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("path {path}: {what}")]
pub struct PathError {
    /// By its kernel name.
    pub path: String,
    /// The transport's or the kernel's word.
    pub what: String,
}

/// Why a registration or a fence has failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReservationError {
    /// Nobody answers.
    #[error("no path to the LUN answers{}", detail(.0.as_ref()))]
    NoPath(Option<PathError>),
    /// Another node has removed the own key.
    #[error("the own key {0} is no longer registered: another node has fenced this one")]
    Gone(ReservationKey),
    /// No key has been registered, or the registration was let go.
    #[error("this node is not registered")]
    NotIn,
    /// The reservation is not one that we make.
    #[error(
        "the LUN is reserved with {0}, which no TwinSAN node makes; who made it has to release it \
         (sg_persist --in --read-reservation shows it)"
    )]
    Foreign(ReservationType),
    /// There is no reservation where there has to be one.
    #[error("the LUN is not reserved: whoever reaches it may write")]
    Unreserved,
    /// The LUN can't do what we need.
    #[error("the LUN can't be fenced with reservations: {0}")]
    NotCapable(&'static str),
    /// The LUN refuses a command.
    #[error("{command} by path {path}: {sense}")]
    Refused {
        /// Which.
        command: &'static str,
        /// Which way.
        path: String,
        /// Why.
        sense: Sense,
    },
    /// The LUN answered nonsense.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Somebody else went on registering, or the LUN went on saying "later".
    #[error("{0} did not come to an end: somebody goes on changing the registrations")]
    Unsettled(&'static str),
}

fn detail(error: Option<&PathError>) -> String {
    error.map_or_else(String::new, |error| format!(" ({error})"))
}

impl ReservationError {
    /// Somebody else was quicker, or holds on; otherwise the LUN can't be used.
    #[must_use]
    pub const fn is_lost(&self) -> bool {
        matches!(self, Self::Gone(_) | Self::Foreign(_) | Self::Unsettled(_))
    }
}

/// Why a command has not been answered by GOOD or a conflict.
pub(super) enum Trouble {
    /// The path brought no answer; whether the command was done is unknown.
    Silent(PathError),
    /// The path answers that it can't (an ALUA path in standby or transition): not done.
    NotReady(PathError),
    /// Its target port refuses: not done. Another path may lead to one that does not.
    Refused(ReservationError),
    /// What the LUN says makes no sense, by no path.
    Lun(ReservationError),
}

/// Why no path has answered so far. A refusal says more than silence.
#[derive(Default)]
pub(super) struct Unanswered {
    refused: Option<ReservationError>,
    last: Option<PathError>,
}

impl Unanswered {
    /// The next path's trouble; an error if no other path would answer either.
    pub(super) fn add(&mut self, trouble: Trouble) -> Result<(), ReservationError> {
        match trouble {
            Trouble::Silent(error) | Trouble::NotReady(error) => self.last = Some(error),
            Trouble::Refused(error) => self.refused = Some(error),
            Trouble::Lun(error) => return Err(error),
        }
        Ok(())
    }

    pub(super) fn error(self) -> ReservationError {
        self.refused.unwrap_or(ReservationError::NoPath(self.last))
    }
}
