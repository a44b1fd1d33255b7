//! What a well-formed file may still get wrong.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use twinsan_wire::limits::MIN_RING_BYTES;
use twinsan_wire::message::VolumeName;

use super::address::MAX_UNIX_PATH;
use super::{Address, Config, ConfigError, FenceKind, Node, Timing, Volume, raw};
use crate::Size;

/// More would not be mapped by any host that we know; it catches a unit typed wrong.
const MAX_STAGING: Size = Size(1 << 40);
/// The ring is exposed and mapped in whole pages.
const STAGING_UNIT: Size = Size(4096);
/// The reactor's tick: nothing finer can be kept.
const MIN_HEARTBEAT_MS: u64 = 10;
/// Ten minutes: catches a unit typed wrong, and keeps sums far from overflow.
const MAX_MS: u64 = 600_000;
/// Longer than a tick would hold up the tick.
const MAX_SPIN_US: u64 = 10_000;
/// Data that only RAM holds grows with it.
const MAX_FLUSH_REST_MS: u64 = 1000;

const NAME_RULE: &str = "write 1 to 63 of a-z A-Z 0-9 . _ -";

/// One file being checked.
struct Checker<'a> {
    path: &'a Path,
    /// Relative paths count from here.
    base: &'a Path,
}

pub(super) fn checked(raw: raw::File, path: &Path) -> Result<Config, ConfigError> {
    let base = path.parent().unwrap_or(Path::new("/"));
    let checker = Checker { path, base };
    let nodes = checker.nodes(raw.node)?;
    let volumes = checker.volumes(raw.volume)?;
    let reactors = checker.reactors(raw.reactors, &nodes, &volumes)?;
    checker.no_open_door(&nodes, &volumes)?;
    checker.timing(&raw.timing)?;
    Ok(Config { path: path.to_owned(), reactors, nodes, volumes, timing: raw.timing })
}

impl Checker<'_> {
    fn nodes(&self, raw: Vec<raw::Node>) -> Result<[Node; 2], ConfigError> {
        let mut nodes = Vec::with_capacity(raw.len());
        for node in raw {
            nodes.push(self.node(node)?);
        }
        let [a, b]: [Node; 2] = nodes.try_into().map_err(|nodes: Vec<Node>| ConfigError::Tables {
            path: self.path.to_owned(),
            why: format!("{} [[node]] tables; write exactly two", nodes.len()),
        })?;
        if a.name == b.name {
            return Err(self.node_error(&b, "name", &b.name, "the other node has this name too; give each its own"));
        }
        if a.admin == b.admin {
            let why = format!("node \"{}\" has this socket too; give each its own", a.name);
            return Err(self.node_error(&b, "admin", &a.admin.display(), why));
        }
        let admins = [Address::Unix(a.admin.clone()), Address::Unix(b.admin.clone())];
        let mut seen: Vec<&Address> = admins.iter().collect();
        for node in [&a, &b] {
            for address in &node.listen {
                if seen.iter().any(|other| other.is_in_the_way_of(address)) {
                    return Err(self.node_error(node, "listen", address, "this address stands here twice"));
                }
                seen.push(address);
            }
        }
        Ok([a, b])
    }

    /// Each has a volume, and its own addresses.
    fn reactors(&self, count: u64, nodes: &[Node; 2], volumes: &[Volume]) -> Result<usize, ConfigError> {
        let wrong = |why: String| self.value("at the top".to_owned(), "reactors", count.to_string(), why);
        let most = volumes.len();
        let reactors = usize::try_from(count).unwrap_or(usize::MAX);
        if !(1..=most).contains(&reactors) {
            return Err(wrong(format!("each serves a volume, and there are {most}; write 1 to {most}")));
        }
        let mut seen: Vec<(Address, String)> = nodes
            .iter()
            .map(|node| (Address::Unix(node.admin.clone()), format!("{}'s admin socket", node.name)))
            .collect();
        for node in nodes {
            let name = &node.name;
            // The other node's are another host's, as a rule.
            let metrics = node.metrics.map(|at| (Address::of_tcp(at), format!("where {name} tells its metrics")));
            for (first, reactor) in
                node.listen.iter().flat_map(|first| (0..reactors).map(move |reactor| (first, reactor)))
            {
                let Some(address) = first.of_reactor(reactor) else {
                    return Err(wrong(format!(
                        "reactor {reactor} of {name} would have no address beside {first}: no such port, or too long a path"
                    )));
                };
                if let Some((_, whose)) =
                    seen.iter().chain(&metrics).find(|(other, _)| other.is_in_the_way_of(&address))
                {
                    return Err(wrong(format!(
                        "reactor {reactor} of {name} would listen at {address}, which is {whose}; leave {reactors} ports \
                         (or names) to each address"
                    )));
                }
                seen.push((address, format!("reactor {reactor}'s of {name}")));
            }
        }
        Ok(reactors)
    }

    fn node(&self, raw: raw::Node) -> Result<Node, ConfigError> {
        let raw::Node { name, listen, admin, metrics } = raw;
        let admin = self.base.join(admin);
        let mut node = Node { name, listen: Vec::with_capacity(listen.len()), admin, metrics: None };
        if VolumeName::new(&node.name).is_none() {
            return Err(self.node_error(&node, "name", &node.name, NAME_RULE));
        }
        if listen.is_empty() {
            let why = "name at least one address, like \"tcp://127.0.0.1:7401\"";
            return Err(self.value(format!("node \"{}\"", node.name), "listen", "[]".to_owned(), why));
        }
        for text in &listen {
            match Address::parse(text, self.base) {
                Ok(address) => node.listen.push(address),
                Err(why) => return Err(self.node_error(&node, "listen", text, why.0)),
            }
        }
        let len = node.admin.as_os_str().len();
        if len > MAX_UNIX_PATH {
            let why = format!("{len} bytes; a socket's path has at most {MAX_UNIX_PATH}");
            return Err(self.node_error(&node, "admin", &node.admin.display(), why));
        }
        if let Some(text) = metrics {
            let why = "write an IP address and a port, like \"127.0.0.1:9466\" or \"[::1]:9466\"";
            let at = text.parse().map_err(|_| self.node_error(&node, "metrics", &text, why))?;
            if node.listen.iter().any(|address| address.is_in_the_way_of(&Address::of_tcp(at))) {
                let why = "the node listens there for clients; give each its own port";
                return Err(self.node_error(&node, "metrics", &text, why));
            }
            node.metrics = Some(at);
        }
        Ok(node)
    }

    fn volumes(&self, raw: Vec<raw::Volume>) -> Result<Vec<Volume>, ConfigError> {
        if raw.is_empty() {
            return Err(ConfigError::Tables {
                path: self.path.to_owned(),
                why: "no [[volume]] table; write at least one".to_owned(),
            });
        }
        let mut volumes: Vec<Volume> = Vec::with_capacity(raw.len());
        for volume in raw {
            let volume = self.volume(volume)?;
            if volumes.iter().any(|other| other.name == volume.name) {
                let why = "another volume has this name; give each its own";
                return Err(self.volume_error(&volume, "name", &volume.name.as_str(), why));
            }
            if let Some(other) = volumes.iter().find(|other| other.disk == volume.disk) {
                let why = format!("volume \"{}\" has this disk too; give each its own", other.name.as_str());
                return Err(self.volume_error(&volume, "disk", &volume.disk.display(), why));
            }
            volumes.push(volume);
        }
        Ok(volumes)
    }

    fn volume(&self, raw: raw::Volume) -> Result<Volume, ConfigError> {
        let Some(name) = VolumeName::new(&raw.name) else {
            return Err(self.value(format!("volume \"{}\"", raw.name), "name", quoted(&raw.name), NAME_RULE));
        };
        let volume = Volume {
            name,
            disk: self.base.join(raw.disk),
            fence: raw.fence,
            // Two hosts with one path each are two single points of failure: to be said, not to be forgotten.
            multipath: raw.multipath.unwrap_or(raw.fence == FenceKind::ScsiPr),
            key_file: raw.key_file.map(|file| self.base.join(file)),
            staging: raw.staging,
            integrity: raw.integrity,
        };
        let least = Size(MIN_RING_BYTES);
        if volume.staging < least || volume.staging > MAX_STAGING || !volume.staging.0.is_multiple_of(STAGING_UNIT.0) {
            let why = format!("write a multiple of {STAGING_UNIT} from {least} to {MAX_STAGING}");
            return Err(self.volume_error(&volume, "staging", &volume.staging, why));
        }
        Ok(volume)
    }

    /// Beyond this host, nobody may come in without a key.
    fn no_open_door(&self, nodes: &[Node; 2], volumes: &[Volume]) -> Result<(), ConfigError> {
        let Some(open) = volumes.iter().find(|volume| volume.key_file.is_none()) else {
            return Ok(());
        };
        for node in nodes {
            if let Some(address) = node.listen.iter().find(|address| !address.is_local()) {
                let why = format!(
                    "may reach beyond this host, and volume \"{}\" has no key_file: give every volume one, or listen \
                     on loopback (127.0.0.1, [::1]), unix: or shm: only",
                    open.name.as_str()
                );
                return Err(self.node_error(node, "listen", address, why));
            }
        }
        Ok(())
    }

    fn timing(&self, timing: &Timing) -> Result<(), ConfigError> {
        let wrong = |key, value: u64, why: String| Err(self.value("[timing]".to_owned(), key, value.to_string(), why));
        let heartbeat = timing.heartbeat_ms;
        if !(MIN_HEARTBEAT_MS..=MAX_MS).contains(&heartbeat) {
            return wrong("heartbeat_ms", heartbeat, format!("write {MIN_HEARTBEAT_MS} to {MAX_MS}"));
        }
        let silences = [("takeover_ms", timing.takeover_ms), ("drop_ms", timing.drop_ms), ("join_ms", timing.join_ms)];
        for (key, value) in silences {
            if value <= 2 * heartbeat {
                let least = 2 * heartbeat + 1;
                let why = format!(
                    "one late heartbeat (heartbeat_ms = {heartbeat}) must not look like a death; write at least {least}"
                );
                return wrong(key, value, why);
            }
            if value > MAX_MS {
                return wrong(key, value, format!("write at most {MAX_MS}"));
            }
        }
        if timing.flush_rest_ms > MAX_FLUSH_REST_MS {
            let why = format!("what a takeover has to write grows with it; write 0 to {MAX_FLUSH_REST_MS}");
            return wrong("flush_rest_ms", timing.flush_rest_ms, why);
        }
        if timing.takeover_budget_ms > MAX_MS {
            let why = format!("write 0 (no bound but the lane's size) to {MAX_MS}");
            return wrong("takeover_budget_ms", timing.takeover_budget_ms, why);
        }
        if timing.spin_us > MAX_SPIN_US {
            return wrong("spin_us", timing.spin_us, format!("write 0 to {MAX_SPIN_US}"));
        }
        Ok(())
    }

    fn value(&self, place: String, key: &'static str, value: String, why: impl Into<String>) -> ConfigError {
        ConfigError::Value { path: PathBuf::from(self.path), place, key, value, why: why.into() }
    }

    fn node_error(&self, node: &Node, key: &'static str, value: &dyn Display, why: impl Into<String>) -> ConfigError {
        self.value(format!("node \"{}\"", node.name), key, quoted(value), why)
    }

    fn volume_error(
        &self,
        volume: &Volume,
        key: &'static str,
        value: &dyn Display,
        why: impl Into<String>,
    ) -> ConfigError {
        self.value(format!("volume \"{}\"", volume.name.as_str()), key, quoted(value), why)
    }
}

fn quoted(text: &(impl Display + ?Sized)) -> String {
    format!("\"{text}\"")
}
