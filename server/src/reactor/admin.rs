//! The control thread's requests.

use twinsan_control::admin::{
    DiskPathStatus, DiskStatus, DrainStatus, HandoverState, HandoverStatus, LaneStatus, MemberStatus, MemoryStatus,
    NodeStatus, PathState, PeerStatus, Request, Response, SessionStatus, VolumeStatus,
};
use twinsan_fabric::Fabric;
use twinsan_replica::{Drained, Event, HandedOver, Obstacle};
use twinsan_sas::multipath::{PathStatus, Watch};
use twinsan_wire::{Incarnation, NodeId, Role};

use super::Reactor;
use crate::conn::{Conn, Stage};
use crate::control::Asked;
use crate::memory;
use crate::notice;
use crate::volume::Volume;

impl<F: Fabric> Reactor<F> {
    pub(super) fn administer(&mut self, asked: Asked) {
        let response = match asked.request {
            Request::Status => Response::Status(Box::new(self.status())),
            Request::Recover { volume, accept_data_loss } => self.recover(&volume, accept_data_loss),
            Request::Switchover { volume } => self.switch_over(&volume),
        };
        // Whoever asked may have given up: nobody to tell.
        let _ = asked.answer.try_send(response);
    }

    fn recover(&mut self, name: &str, accept_data_loss: bool) -> Response {
        let failed = |message: String| Response::Failed { message };
        let Some(index) = self.find(name) else { return unknown(name) };
        if !accept_data_loss {
            return failed("completed writes may be lost: say that you accept it (accept_data_loss)".to_owned());
        }
        let role = self.volumes[index].replica.status().role;
        if role != Role::Refusing {
            return failed(format!("volume \"{name}\" is {} on this node: nothing to recover", role.name()));
        }
        tracing::warn!(volume = name, "an operator accepts the loss of completed writes: starting");
        self.feed(index, Event::Recover);
        Response::Done { message: format!("volume \"{name}\" is starting, with what is on the disk") }
    }

    /// Begins; what comes of it, the status tells.
    fn switch_over(&mut self, name: &str) -> Response {
        let Some(index) = self.find(name) else { return unknown(name) };
        let volume = &self.volumes[index];
        let other = volume.node_name(volume.other_node()).to_owned();
        let serves = volume.replica.status().superblock.primary == Some(volume.other_node());
        match volume.replica.obstacle() {
            Some(Obstacle::NotPrimary) if serves => {
                let message = format!("volume \"{name}\" is not served by this node; ask {other}");
                return Response::Failed { message };
            }
            Some(why) => {
                let message = format!("volume \"{name}\" can't be handed over: {}", notice::obstacle(why, &other));
                return Response::Failed { message };
            }
            None => {}
        }
        tracing::info!(volume = name, "an operator hands the volume over to {other}");
        self.feed(index, Event::Switchover);
        Response::Done { message: format!("volume \"{name}\" is being handed over to {other}") }
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.volumes.iter().position(|volume| volume.facts.name.as_str() == name)
    }

    fn status(&self) -> NodeStatus {
        NodeStatus {
            node: self.identity.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_ms: self.now,
            volumes: (0..self.volumes.len()).map(|index| self.volume_status(index)).collect(),
        }
    }

    fn volume_status(&self, index: usize) -> VolumeStatus {
        let volume = &self.volumes[index];
        let facts = &volume.facts;
        let status = volume.replica.status();
        let superblock = &status.superblock;
        let name_of = |node: NodeId| volume.node_name(node).to_owned();
        let member = |node: NodeId| {
            let incarnation = hex(superblock.members.of(node)?);
            Some(MemberStatus { node: name_of(node), incarnation })
        };
        VolumeStatus {
            name: facts.name.as_str().to_owned(),
            uuid: twinsan_sas::Uuid(facts.shape.uuid).to_string(),
            size_bytes: facts.shape.blocks * u64::from(facts.shape.block_bytes),
            block_bytes: facts.shape.block_bytes,
            role: status.role.name().to_owned(),
            incarnation: hex(status.incarnation),
            epoch: superblock.epoch.0,
            primary: superblock.primary.map(name_of),
            members: NodeId::BOTH.into_iter().filter_map(member).collect(),
            joiner: status.joiner.map(hex),
            dual: superblock.members.is_dual(),
            clean: superblock.clean,
            generation: superblock.generation.0,
            session: self.session(index, &status),
            peer: self.peer(index, &status),
            handover: handover(volume, status.handed_over),
            lane: lane(volume, &status, self.now),
            memory: memory_status(volume),
            disk: disk(volume, &status),
            counters: volume.counters.by_name(),
        }
    }

    fn session(&self, index: usize, status: &twinsan_replica::Status) -> Option<SessionStatus> {
        let is_ours =
            |conn: &Conn| conn.volume == Some(index) && matches!(conn.stage, Stage::Client { grant: Some(_), .. });
        let (_, conn) = self.conns.iter().find(|(_, conn)| is_ours(conn)).filter(|_| status.session)?;
        Some(SessionStatus { generation: status.generation.0, connected_ms: self.now.saturating_sub(conn.since) })
    }

    fn peer(&self, index: usize, status: &twinsan_replica::Status) -> PeerStatus {
        let volume = &self.volumes[index];
        let is_link = |conn: &Conn| conn.volume == Some(index) && matches!(conn.stage, Stage::Link { .. });
        let link = self.conns.iter().find(|(_, conn)| is_link(conn)).map(|(_, conn)| conn);
        PeerStatus {
            node: volume.node_name(volume.other_node()).to_owned(),
            connected: link.is_some(),
            connected_ms: link.map(|conn| self.now.saturating_sub(conn.since)),
            role: status.peer_role.map(|role| role.name().to_owned()),
            path_state: status.peer_role.map(|_| path_state(status.peer_paths)),
            trouble: volume.dial_trouble.clone(),
        }
    }
}

fn unknown(volume: &str) -> Response {
    Response::Failed { message: format!("no volume is called \"{volume}\" here") }
}

fn handover(volume: &Volume, last: HandedOver) -> HandoverStatus {
    let of = |state| HandoverStatus { state, ..HandoverStatus::default() };
    match last {
        HandedOver::Never => of(HandoverState::Never),
        HandedOver::UnderWay { .. } => of(HandoverState::UnderWay),
        HandedOver::Done { epoch, pause_ms } => {
            HandoverStatus { epoch: Some(epoch.0), pause_ms: Some(pause_ms), ..of(HandoverState::Done) }
        }
        HandedOver::CalledOff(why) => {
            let why = notice::obstacle(why, volume.node_name(volume.other_node()));
            HandoverStatus { why: Some(why), ..of(HandoverState::CalledOff) }
        }
        HandedOver::Failed => of(HandoverState::Failed),
    }
}

const fn path_state(usable: bool) -> PathState {
    if usable { PathState::Usable } else { PathState::None }
}

fn hex(incarnation: Incarnation) -> String {
    format!("{:016x}", incarnation.get())
}

fn lane(volume: &Volume, status: &twinsan_replica::Status, now: u64) -> LaneStatus {
    let staged_blobs = status.received.0 - status.released.0;
    let oldest = volume.arrivals[volume.layout.slot(status.released.next()) as usize];
    LaneStatus {
        ring_bytes: volume.facts.shape.ring_bytes,
        slots: volume.layout.slots,
        received: status.received.0,
        durable: status.durable.0,
        flushed: status.flushed.0,
        released: status.released.0,
        staged_blobs,
        staged_bytes: status.staged_bytes,
        staged_age_ms: if staged_blobs == 0 { 0 } else { now.saturating_sub(oldest) },
        copies: if status.dual { 2 } else { 0 },
        flush_bytes_per_s: status.flush_bytes_per_s,
        drain_ms: status.flush_bytes_per_s.and_then(|rate| (status.staged_bytes * 1000).checked_div(rate)),
        at_budget: status.at_budget,
        last_drain: status.drained.map(|Drained { blobs, bytes, ms }| DrainStatus { blobs, bytes, ms }),
        open_reads: status.reads as u64,
    }
}

fn memory_status(volume: &Volume) -> MemoryStatus {
    let report = volume.arena.report();
    MemoryStatus {
        bytes: report.mapped as u64,
        pages: memory::page_word(report.pages).to_owned(),
        locked: report.locked,
        advice: report.downgrades.iter().map(ToString::to_string).collect(),
    }
}

fn disk(volume: &Volume, status: &twinsan_replica::Status) -> DiskStatus {
    let health = volume.flusher.health();
    DiskStatus {
        path: volume.facts.disk.display().to_string(),
        facts: volume.facts.disk_facts.clone(),
        well: !status.disk_trouble && health.well,
        path_state: path_state(status.paths),
        last_error: health.last_error,
        errors: health.errors,
        map: volume.facts.map.clone(),
        paths: volume.watch.as_ref().map_or_else(Vec::new, disk_paths),
    }
}

fn disk_paths(watch: &Watch) -> Vec<DiskPathStatus> {
    let now = watch.now_ms();
    let told = |path: PathStatus| DiskPathStatus {
        name: path.id.name,
        hctl: path.hctl,
        state: path.state.name().to_owned(),
        dm: path.dm,
        for_ms: now.saturating_sub(path.since_ms),
        failures: path.failures,
    };
    watch.paths().paths.into_iter().map(told).collect()
}
