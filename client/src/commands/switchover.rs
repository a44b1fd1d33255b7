//! `twinsan switchover`: finds who serves, tells it to hand over, and waits until the other one serves.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::Serialize;
use twinsan_control::Config;
use twinsan_control::admin::{HandoverState, Request, Response, ask};
use twinsan_control::config::Node;
use twinsan_wire::Role;

use super::{ADMIN_TIMEOUT, volume_status};
use crate::cli::SwitchoverArgs;

/// How long a handover may take. It is called off by itself long before, unless the disk is in trouble in its middle.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What has been done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Switched {
    /// The volume's name.
    pub volume: String,
    /// Who served.
    pub from: String,
    /// Who serves now.
    pub to: String,
    /// Since this epoch.
    pub epoch: u64,
    /// From the stop of the one to the other's word that it serves; `None`: the one that knows has ended meanwhile.
    pub pause_ms: Option<u64>,
}

impl fmt::Display for Switched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { volume, from, to, epoch, pause_ms } = self;
        write!(f, "volume \"{volume}\" is served by {to} now, no longer by {from} (epoch {epoch})")?;
        match pause_ms {
            Some(pause_ms) => write!(f, "; the pause was {pause_ms} ms"),
            None => Ok(()),
        }
    }
}

/// Moves the volume to its other node.
///
/// # Errors
/// If the volume is not configured, nobody serves it, the one that does refuses (it says why), or the other one does
/// not go on.
pub fn switchover(config: &Config, args: &SwitchoverArgs) -> anyhow::Result<Switched> {
    let volume = config.volume(&args.volume)?.name.as_str();
    let (from, to, before) = find_primary(config, volume)?;
    match ask(&from.admin, &Request::Switchover { volume: volume.to_owned() }, ADMIN_TIMEOUT)? {
        Response::Done { .. } => {}
        Response::Failed { message } => bail!("node \"{}\": {message}", from.name),
        Response::Status(_) => bail!("node \"{}\" answered something else: is it of another version?", from.name),
    }
    let since = Instant::now();
    while since.elapsed() < PATIENCE {
        if let Some(switched) = look(volume, from, to, before)? {
            return Ok(switched);
        }
        std::thread::sleep(LOOK_EVERY);
    }
    bail!(
        "volume \"{volume}\": {} has been handing over to {} for {} s; see twinsan status and both nodes' logs",
        from.name,
        to.name,
        PATIENCE.as_secs()
    )
}

/// Who serves, the other node, and the epoch.
fn find_primary<'a>(config: &'a Config, volume: &str) -> anyhow::Result<(&'a Node, &'a Node, u64)> {
    let mut said = Vec::new();
    for (at, node) in config.nodes.iter().enumerate() {
        match volume_status(node, volume, ADMIN_TIMEOUT) {
            Ok(status) if status.role == Role::Primary.name() => {
                return Ok((node, &config.nodes[1 - at], status.epoch));
            }
            Ok(status) => said.push(format!("node \"{}\" is {}", node.name, status.role)),
            Err(error) => said.push(format!("node \"{}\": {error:#}", node.name)),
        }
    }
    bail!("nobody serves volume \"{volume}\": {}", said.join("; "))
}

/// What has come of it; `None`: it is under way.
fn look(volume: &str, from: &Node, to: &Node, before: u64) -> anyhow::Result<Option<Switched>> {
    let done = |epoch, pause_ms| Switched {
        volume: volume.to_owned(),
        from: from.name.clone(),
        to: to.name.clone(),
        epoch,
        pause_ms,
    };
    let Ok(status) = volume_status(from, volume, ADMIN_TIMEOUT) else {
        // It may have been told to end as well; who serves says so.
        let other = volume_status(to, volume, ADMIN_TIMEOUT)
            .with_context(|| format!("node \"{}\" does not answer", from.name))?;
        let serves = other.role == Role::Primary.name() && other.epoch > before;
        return Ok(serves.then(|| done(other.epoch, None)));
    };
    let handover = status.handover;
    let why = handover.why.unwrap_or_default();
    match handover.state {
        HandoverState::Done => Ok(Some(done(handover.epoch.unwrap_or(status.epoch), handover.pause_ms))),
        HandoverState::UnderWay => Ok(None),
        HandoverState::CalledOff => bail!("node \"{}\" goes on: {why}", from.name),
        HandoverState::Failed | HandoverState::Never => bail!(
            "{} did not go on, and the volume was taken over by rule 5; see twinsan status and both nodes' logs",
            to.name
        ),
    }
}
