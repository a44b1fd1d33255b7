//! What may be broken, and how a run ends.

use std::process::ExitStatus;

use serde::Serialize;
use thiserror::Error;
use twinsan_witness::ledger::Ledger;

use crate::world::Program;

/// What ends a run before its time.
#[derive(Debug, Error)]
pub enum Broken {
    /// A completed write is missing, or a read went back.
    #[error("{0}")]
    Promise(String),
    /// The load was told of an error.
    #[error("{0} requests were answered with an error")]
    Failed(u64),
    /// A request of the driver's own was.
    #[error("a request has failed: {0}")]
    Request(String),
    /// A program ended as nobody wanted it.
    #[error("{0} has ended by itself ({1})")]
    Died(Program, ExitStatus),
    /// The volume does not come back.
    #[error("stuck: {0}")]
    Stuck(String),
    /// Somebody wants to end it.
    #[error("told to end")]
    Told,
}

impl Broken {
    /// With the histories of the units concerned.
    #[must_use]
    pub fn promise(ledger: &Ledger) -> Self {
        let told: Vec<String> = ledger.evidence().iter().map(ToString::to_string).collect();
        Self::Promise(told.join("\n"))
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// In good order.
    Kept,
    /// A completed write is missing, a read went back, or a block holds nobody's write.
    Broken,
    /// A request was answered with an error.
    Failed,
    /// A program ended by itself, and not by the other one's fence.
    Died,
    /// The volume did not come back, or not in spite of a fault that is survived.
    Stuck,
    /// Somebody ended it.
    #[default]
    Ended,
}

impl Verdict {
    /// What ended it.
    #[must_use]
    pub fn of(broken: &Broken) -> Self {
        match broken {
            Broken::Promise(_) => Self::Broken,
            Broken::Failed(_) | Broken::Request(_) => Self::Failed,
            Broken::Died(..) => Self::Died,
            Broken::Stuck(_) => Self::Stuck,
            Broken::Told => Self::Ended,
        }
    }
}
