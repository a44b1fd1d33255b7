//! A node's status as metrics: names end with their base unit (seconds, bytes), labels name the volume. Fields and counters are
//! those of [`NodeStatus`]. Names are a promise to whoever has built alerts on them.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use twinsan_control::admin::{DiskPathStatus, NodeStatus, PathState, VolumeStatus};
use twinsan_wire::Role;

type Labels = Vec<(&'static str, String)>;
/// What a metric is for one volume; `None`: not known, so not told.
type Value = fn(&VolumeStatus) -> Option<f64>;

const GAUGES: &[(&str, &str, Value)] = &[
    ("epoch", "Changes of members or primary so far, as known here", |v| Some(number(v.epoch))),
    ("dual", "1: completed writes are in two nodes' RAM", |v| Some(flag(v.dual))),
    ("clean", "1: nothing is staged anywhere", |v| Some(flag(v.clean))),
    ("client_connected", "1: the volume's client is connected here", |v| Some(flag(v.session.is_some()))),
    ("peer_connected", "1: the link to the other node is up", |v| Some(flag(v.peer.connected))),
    ("peer_disk_reachable", "1: the other node has a usable path to the disk, as it last said", |v| {
        v.peer.path_state.map(usable)
    }),
    ("staged_bytes", "Payload received here and not yet released: what a takeover would have to write", |v| {
        Some(number(v.lane.staged_bytes))
    }),
    ("staged_blobs", "Writes received here and not yet released", |v| Some(number(v.lane.staged_blobs))),
    ("staged_age_seconds", "Since the oldest of them has been there", |v| Some(seconds(v.lane.staged_age_ms))),
    ("staged_copies", "In how many nodes' RAM a completed write of them is, and nowhere else; 0: on the disk", |v| {
        Some(f64::from(v.lane.copies))
    }),
    ("lane_bytes", "Room for staged payload", |v| Some(number(v.lane.ring_bytes))),
    ("flush_bytes_per_second", "What the disk takes, by the last batches", |v| v.lane.flush_bytes_per_s.map(number)),
    ("drain_seconds", "How long a takeover would have to write, at that pace", |v| v.lane.drain_ms.map(seconds)),
    ("at_takeover_budget", "1: writes wait for the disk, as takeover_budget_ms is used up", |v| {
        Some(flag(v.lane.at_budget))
    }),
    ("last_drain_bytes", "What this node's last takeover had to write before it served", |v| {
        v.lane.last_drain.map(|drain| number(drain.bytes))
    }),
    ("last_drain_seconds", "How long this node's last takeover wrote before it served", |v| {
        v.lane.last_drain.map(|drain| seconds(drain.ms))
    }),
    ("open_reads", "Reads that have not been answered", |v| Some(number(v.lane.open_reads))),
    ("memory_bytes", "Staging memory", |v| Some(number(v.memory.bytes))),
    ("memory_locked", "1: the kernel can't swap it out", |v| Some(flag(v.memory.locked))),
    ("disk_reachable", "1: this node has a usable path to the disk", |v| Some(usable(v.disk.path_state))),
    ("disk_well", "1: the last operation on the disk worked", |v| Some(flag(v.disk.well))),
];

/// In the OpenMetrics text format.
pub(super) fn text(node: &NodeStatus) -> String {
    let mut page = Page { registry: Registry::with_prefix("twinsan"), volumes: &node.volumes };
    let build = vec![("node", node.node.clone()), ("version", node.version.clone())];
    page.gauge("build_info", "1, with the node's name and the program's version", vec![(build, 1.0)]);
    page.gauge("uptime_seconds", "Since the process started", vec![(Labels::new(), seconds(node.uptime_ms))]);
    page.roles();
    for (name, help, value) in GAUGES {
        let of = |volume| Some((named(volume), value(volume)?));
        page.gauge(name, help, node.volumes.iter().filter_map(of).collect());
    }
    page.paths();
    page.counters();
    let mut text = String::new();
    encode(&mut text, &page.registry).expect("a String takes everything");
    text
}

struct Page<'a> {
    registry: Registry,
    volumes: &'a [VolumeStatus],
}

impl Page<'_> {
    /// One of them is 1, so that an alert can name it.
    fn roles(&mut self) {
        let mut each = Vec::new();
        for (volume, role) in self.volumes.iter().flat_map(|volume| Role::ALL.map(|role| (volume, role.name()))) {
            let labels = vec![("volume", volume.name.clone()), ("role", role.to_owned())];
            each.push((labels, flag(volume.role == role)));
        }
        self.gauge("role", "1 for what this node does for the volume, 0 for what it does not", each);
    }

    fn paths(&mut self) {
        let (mut active, mut failures) = (Vec::new(), Vec::new());
        for (volume, path) in self.volumes.iter().flat_map(|volume| volume.disk.paths.iter().map(move |p| (volume, p)))
        {
            let DiskPathStatus { name, hctl, state, .. } = path;
            let labels = vec![("volume", volume.name.clone()), ("path", name.clone()), ("hctl", hctl.clone())];
            active.push((labels.clone(), flag(state == "active")));
            failures.push((labels, path.failures));
        }
        self.gauge("disk_path_active", "1: neither standby nor unregistered, failed or gone", active);
        self.counter("disk_path_failures", "How often the path was lost", failures);
    }

    fn counters(&mut self) {
        let errors = self.volumes.iter().map(|volume| (named(volume), volume.disk.errors)).collect();
        self.counter("disk_errors", "Operations on the disk that failed", errors);
        let Some(first) = self.volumes.first() else { return };
        for name in first.counters.keys() {
            let of = |volume: &VolumeStatus| Some((named(volume), *volume.counters.get(name)?));
            self.counter(name, "Since the process started", self.volumes.iter().filter_map(of).collect());
        }
    }

    fn gauge(&mut self, name: &str, help: &str, values: Vec<(Labels, f64)>) {
        let family = Family::<Labels, Gauge<f64, AtomicU64>>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).set(value);
        }
        self.registry.register(name, help, family);
    }

    fn counter(&mut self, name: &str, help: &str, values: Vec<(Labels, u64)>) {
        let family = Family::<Labels, Counter>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).inc_by(value);
        }
        self.registry.register(name, help, family);
    }
}

fn named(volume: &VolumeStatus) -> Labels {
    vec![("volume", volume.name.clone())]
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53, and shown to people beyond")]
fn number(n: u64) -> f64 {
    n as f64
}

fn seconds(ms: u64) -> f64 {
    number(ms) / 1000.0
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

fn usable(paths: PathState) -> f64 {
    flag(paths == PathState::Usable)
}
