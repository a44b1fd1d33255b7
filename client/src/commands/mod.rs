//! The administrator's commands.

mod format;
mod prove;
mod recover;
mod status;
mod switchover;

use std::time::Duration;

use anyhow::{Context, bail};
use twinsan_control::admin::{Request, Response, VolumeStatus, ask};
use twinsan_control::config::Node;

pub use self::format::{describe, format};
pub use self::prove::{Proof, RoundReport, Verdict, prove};
pub use self::recover::recover;
pub use self::status::{AllStatus, status};
pub use self::switchover::{Switched, switchover};

/// How long a node may take to answer on its admin socket.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(5);

/// What a node says of a volume.
fn volume_status(node: &Node, volume: &str, within: Duration) -> anyhow::Result<VolumeStatus> {
    let Response::Status(status) = ask(&node.admin, &Request::Status, within)? else {
        bail!("it answered something else: is it of another version?");
    };
    status.volumes.into_iter().find(|v| v.name == volume).context("it does not have this volume")
}
