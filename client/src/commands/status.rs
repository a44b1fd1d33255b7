//! `twinsan status`: what both nodes say, beside each other.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use twinsan_control::admin::{DrainStatus, LaneStatus, NodeStatus, PathState, Request, Response, VolumeStatus, ask};
use twinsan_control::{Config, Size};
use twinsan_wire::Role;

use super::ADMIN_TIMEOUT;
use crate::cli::StatusArgs;

/// Both nodes' answers.
#[derive(Debug, Serialize)]
pub struct AllStatus {
    /// By node name.
    pub nodes: BTreeMap<String, Answer>,
}

/// One node's.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It answered.
    Status(Box<NodeStatus>),
    /// It did not; why.
    Unreachable(String),
}

impl AllStatus {
    /// Whether every node has answered.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.nodes.values().all(|answer| matches!(answer, Answer::Status(_)))
    }
}

/// Asks both nodes.
///
/// # Errors
/// If the volume is not configured. A node that does not answer is part of the result.
pub fn status(config: &Config, args: &StatusArgs) -> anyhow::Result<AllStatus> {
    if let Some(volume) = &args.volume {
        config.volume(volume)?;
    }
    let nodes = config.nodes.iter().map(|node| {
        let answer = match ask(&node.admin, &Request::Status, ADMIN_TIMEOUT) {
            Ok(Response::Status(mut status)) => {
                status.volumes.retain(|volume| args.volume.as_ref().is_none_or(|wanted| volume.name == *wanted));
                Answer::Status(status)
            }
            Ok(Response::Done { message } | Response::Failed { message }) => Answer::Unreachable(message),
            Err(error) => Answer::Unreachable(error.to_string()),
        };
        (node.name.clone(), answer)
    });
    Ok(AllStatus { nodes: nodes.collect() })
}

impl fmt::Display for AllStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, answer) in &self.nodes {
            match answer {
                Answer::Unreachable(why) => writeln!(f, "node {name}: no answer: {why}")?,
                Answer::Status(node) => {
                    let up = node.uptime_ms / 1000;
                    writeln!(f, "node {name}: pid {}, up {up} s, version {}", node.pid, node.version)?;
                    for volume in &node.volumes {
                        show_volume(f, volume)?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn show_volume(f: &mut fmt::Formatter<'_>, volume: &VolumeStatus) -> fmt::Result {
    let VolumeStatus { name, role, size_bytes, block_bytes, epoch, generation, .. } = volume;
    let mode = match (volume.dual, volume.clean) {
        (true, _) if role == Role::Refusing.name() => {
            "dual when both nodes lost their memory: completed writes may be missing; see twinsan recover --help"
        }
        (true, _) => "dual: completed writes are in two nodes' memory",
        (false, true) => "clean: everything is on the disk",
        (false, false) => "solo: completed writes are on the disk",
    };
    writeln!(f, "  volume {name}: {role}; {mode}")?;
    let size = Size(*size_bytes);
    let members = volume.members.iter().map(|member| member.node.as_str()).collect::<Vec<_>>().join(", ");
    let primary = volume.primary.as_deref().unwrap_or("nobody");
    writeln!(f, "    {size}, blocks of {block_bytes} bytes; epoch {epoch}, primary {primary}, members {members}")?;
    match &volume.session {
        Some(session) => {
            writeln!(f, "    client: session {}, connected {} s", session.generation, session.connected_ms / 1000)?;
        }
        None => writeln!(f, "    client: none connected here (session {generation} in the superblock)")?,
    }
    let peer = if volume.peer.connected { "up" } else { "DOWN" };
    let paths = if volume.peer.path_state == Some(PathState::None) { ", which has no path to the disk" } else { "" };
    writeln!(f, "    link to {}: {peer}{paths}", volume.peer.node)?;
    let lane = &volume.lane;
    writeln!(
        f,
        "    staged: {} blobs, {} bytes of {}, oldest {} ms; received {}, durable {}, released {}",
        lane.staged_blobs,
        lane.staged_bytes,
        Size(lane.ring_bytes),
        lane.staged_age_ms,
        lane.received,
        lane.durable,
        lane.released
    )?;
    show_drain(f, lane)?;
    let well = if volume.disk.well { "well" } else { "IN TROUBLE" };
    let paths = if volume.disk.path_state == PathState::None { ", paths: none" } else { "" };
    writeln!(f, "    disk {}: {well}{paths}, {} errors", volume.disk.path, volume.disk.errors)?;
    if let Some(error) = &volume.disk.last_error {
        writeln!(f, "      last error: {error}")?;
    }
    for path in &volume.disk.paths {
        let dm = path.dm.as_deref().map_or_else(String::new, |dm| format!(", dm-multipath {dm}"));
        let times = match path.failures {
            0 => String::new(),
            1 => ", lost once".to_owned(),
            times => format!(", lost {times} times"),
        };
        let (name, hctl, state, seconds) = (&path.name, &path.hctl, &path.state, path.for_ms / 1000);
        writeln!(f, "      path {name:<5} {hctl:<9} {state} for {seconds} s{dm}{times}")?;
    }
    let locked = if volume.memory.locked { "locked" } else { "NOT locked" };
    writeln!(f, "    memory: {} MiB in {} pages, {locked}", volume.memory.bytes >> 20, volume.memory.pages)?;
    volume.memory.advice.iter().try_for_each(|advice| writeln!(f, "      {advice}"))
}

/// What a takeover would have to write, and what the last one had to.
fn show_drain(f: &mut fmt::Formatter<'_>, lane: &LaneStatus) -> fmt::Result {
    if let (Some(pace), Some(ms)) = (lane.flush_bytes_per_s, lane.drain_ms) {
        let held = if lane.at_budget { "; writes wait for it (takeover_budget_ms)" } else { "" };
        writeln!(f, "    the disk takes {}/s: a takeover now would write for {ms} ms{held}", Mib(pace))?;
    }
    if let Some(DrainStatus { blobs, bytes, ms }) = lane.last_drain {
        let pace = (bytes * 1000).checked_div(ms).map_or_else(String::new, |pace| format!(", {}/s", Mib(pace)));
        writeln!(f, "    last takeover here: {blobs} blobs, {} written in {ms} ms{pace}", Mib(bytes))?;
    }
    Ok(())
}

/// Bytes that nobody has chosen, to be compared.
struct Mib(u64);

impl fmt::Display for Mib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[expect(clippy::cast_precision_loss, reason = "one digit is shown")]
        let mib = self.0 as f64 / f64::from(1 << 20);
        write!(f, "{mib:.1} MiB")
    }
}
