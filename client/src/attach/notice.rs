//! The session's notices, in words.

use twinsan_session::{Ended, Notice};
use twinsan_wire::Refusal;

use super::nodes::Nodes;

pub(crate) fn log(notice: Notice, nodes: &Nodes) {
    match notice {
        Notice::NewEpoch { epoch, primary, dual } => {
            let members = if dual { "two nodes hold every write" } else { "one node holds every write" };
            tracing::info!(epoch = epoch.0, primary = nodes.name(primary), "{members}");
        }
        Notice::NodeLost { node } => tracing::warn!(node = nodes.name(node), "node lost; requests wait or go on"),
        Notice::NodeResumed { node, resent } => {
            tracing::info!(node = nodes.name(node), resent, "node takes writes");
        }
        Notice::NeedsRecovery { node } => tracing::error!(
            node = nodes.name(node),
            "the volume was held by two nodes and both are gone: completed writes may be lost. Bring one of them back \
             with its memory, or accept the loss with: twinsan recover --accept-data-loss VOLUME --node {}",
            nodes.name(node)
        ),
        Notice::NodeViolation(what) => tracing::error!("a node broke the protocol, connection destroyed: it {what}"),
    }
}

/// For the error that open requests, and the operator, get.
pub(crate) const fn why_ended(ended: Ended) -> &'static str {
    match ended {
        Ended::Detached => "the volume is detached",
        Ended::Superseded => "another client has attached to this volume; this one may not write to it any more",
        Ended::Refused(Refusal::Busy) => {
            "another client is attached to this volume: stop it first, wait for it with --wait, or take the volume over from \
             it with --takeover, which ends it"
        }
        Ended::Refused(Refusal::NeedsRecovery) => {
            "the volume was held by two nodes and both are gone: see twinsan recover --help"
        }
        Ended::Refused(Refusal::Superseded) => "a newer session holds this volume",
        Ended::Refused(Refusal::NotReady) => "no node is ready to serve this volume",
    }
}
