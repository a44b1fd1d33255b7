//! `twinsan.toml`: one file for both nodes and all clients.
//!
//! ```toml
//! reactors = 1                              # threads of a node that serve volumes
//!
//! [[node]]                                  # exactly two; the first is node A, the second node B
//! name = "san1"
//! listen = ["tcp://127.0.0.1:7401"]         # where others dial; also "rdma://…", "unix:///path", "shm:///path"
//! admin = "/run/twinsan/san1.sock"          # local, mode 0600
//! metrics = "127.0.0.1:9466"                # optional: http://127.0.0.1:9466/metrics
//!
//! [[node]]
//! name = "san2"
//! listen = ["tcp://127.0.0.1:7402"]
//! admin = "/run/twinsan/san2.sock"
//!
//! [[volume]]
//! name = "db"
//! disk = "/dev/mapper/db"                   # or a file; formatted by `twinsan format`
//! fence = "local-lock"                      # or "scsi-pr", for two hosts
//! multipath = true                          # the disk has to be a dm-multipath map; default: true with scsi-pr
//! key_file = "db.key"                       # needed beyond loopback
//! staging = "64 MiB"                        # RAM for staged payloads, on each node and on the client
//! integrity = true                          # CRC32C over every payload
//!
//! [timing]                                  # all optional
//! heartbeat_ms = 50
//! takeover_ms = 1000
//! drop_ms = 500
//! join_ms = 2000
//! flush_rest_ms = 100
//! takeover_budget_ms = 0
//! spin_us = 100
//! ```
//!
//! With more than one reactor, volume number i (from 0) is served by reactor i mod `reactors` of either node, and reactor r
//! listens at each of its node's addresses with r added to the port, or `.r` to the path (r > 0).
//!
//! Relative paths, those of `unix:` and `shm:` addresses included, count from the file's own directory.

mod address;
mod check;
mod raw;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use twinsan_wire::NodeId;
use twinsan_wire::message::VolumeName;

use crate::Size;

pub use address::{Address, AddressError};

/// The whole file, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it was read from.
    pub path: PathBuf,
    /// How many threads of a node serve volumes.
    pub reactors: usize,
    /// Node A, node B.
    pub nodes: [Node; 2],
    /// In file order; at least one.
    pub volumes: Vec<Volume>,
    /// How long is too long.
    pub timing: Timing,
}

/// One `[[node]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name; also in the superblock.
    pub name: String,
    /// Where it listens and is dialled, best first; at least one.
    pub listen: Vec<Address>,
    /// Its admin socket.
    pub admin: PathBuf,
    /// Where it tells its metrics by HTTP; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
}

/// One `[[volume]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: VolumeName,
    /// The shared disk: a block device or a file.
    pub disk: PathBuf,
    /// What keeps the other node's writes off it.
    pub fence: FenceKind,
    /// Whether the disk has to be a dm-multipath map.
    pub multipath: bool,
    /// The pre-shared key; `None`: whoever can connect may.
    pub key_file: Option<PathBuf>,
    /// The lane's data ring, per node and on the client.
    pub staging: Size,
    /// Whether payloads carry a CRC32C.
    pub integrity: bool,
}

/// How writes of another node are kept off the disk (`docs/protocol.md` section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FenceKind {
    /// Both nodes on one host: the kernel's exclusive claim, and SIGKILL.
    LocalLock,
    /// Each node on its own host: SCSI-3 persistent reservations.
    ScsiPr,
}

impl FenceKind {
    /// The word in the file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LocalLock => "local-lock",
            Self::ScsiPr => "scsi-pr",
        }
    }
}

/// The `[timing]` table. Never part of safety: it decides when to try (rule 15), not who wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timing {
    /// Between two heartbeats, on the fabric and on the disk.
    pub heartbeat_ms: u64,
    /// A primary silent for so long, on the fabric and on the disk, is taken over from.
    pub takeover_ms: u64,
    /// A secondary silent for so long is dropped.
    pub drop_ms: u64,
    /// A joiner that makes no progress for so long is thrown away.
    pub join_ms: u64,
    /// While both nodes hold every completed write, how long the flusher gathers after each batch. 0: not at all.
    pub flush_rest_ms: u64,
    /// While both nodes hold every completed write, no more is in RAM only than the disk takes in so long. 0: as much as
    /// the lane holds.
    pub takeover_budget_ms: u64,
    /// How long a reactor polls before it sleeps, in microseconds. Buys the wake-up's latency with a core's time.
    pub spin_us: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat_ms: 50,
            takeover_ms: 1000,
            drop_ms: 500,
            join_ms: 2000,
            flush_rest_ms: 100,
            takeover_budget_ms: 0,
            spin_us: 100,
        }
    }
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("{path}: {source}", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// Not TOML, an unknown or missing key, or a value of the wrong type; the text shows the place.
    #[error("{path}: {source}", path = path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where in it, and what was expected.
        source: Box<toml::de::Error>,
    },
    /// A value that is well formed and wrong.
    #[error("{path}: {place}: {key} = {value}: {why}", path = path.display())]
    Value {
        /// Which file.
        path: PathBuf,
        /// Which table: `node "san1"`.
        place: String,
        /// Which key of it.
        key: &'static str,
        /// What stands there.
        value: String,
        /// What is wrong, and what would be right.
        why: String,
    },
    /// The file has too few or too many of a table.
    #[error("{path}: {why}", path = path.display())]
    Tables {
        /// Which file.
        path: PathBuf,
        /// How many there are, and how many there have to be.
        why: String,
    },
    /// A name on the command line that the file does not have.
    #[error("{path}: no {what} is called \"{name}\"; there is {known}", path = path.display())]
    Unknown {
        /// Which file.
        path: PathBuf,
        /// `node` or `volume`.
        what: &'static str,
        /// The name asked for.
        name: String,
        /// The names that it has.
        known: String,
    },
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`] names the file, the key, its value and what would be right.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        // Absolute at once: a daemon's working directory is nobody's business later.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let text = std::fs::read_to_string(&path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
        Self::parse(&text, &path)
    }

    /// Checks a text as if it had been read from `path`.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let raw: raw::File = toml::from_str(text)
            .map_err(|source| ConfigError::Syntax { path: path.to_owned(), source: Box::new(source) })?;
        check::checked(raw, path)
    }

    /// The node of that name.
    ///
    /// # Errors
    /// [`ConfigError::Unknown`] lists the names there are.
    pub fn node(&self, name: &str) -> Result<(NodeId, &Node), ConfigError> {
        NodeId::BOTH
            .into_iter()
            .map(|id| (id, &self.nodes[id.index()]))
            .find(|(_, node)| node.name == name)
            .ok_or_else(|| self.unknown("node", name, self.nodes.iter().map(|node| node.name.as_str())))
    }

    /// Whether nodes and clients may be reached by shared memory: then that which they send from has to be lendable.
    #[must_use]
    pub fn shares_memory(&self) -> bool {
        self.nodes.iter().flat_map(|node| &node.listen).any(|address| matches!(address, Address::Shm(_)))
    }

    /// Which reactor of either node serves the volume with this place in the file.
    #[must_use]
    pub const fn reactor_of(&self, place: usize) -> usize {
        place % self.reactors
    }

    /// Where a node's reactor listens and is dialled, best first.
    ///
    /// # Panics
    /// If there is no such reactor: for all that there are, the file has been checked.
    #[must_use]
    pub fn addresses(&self, node: NodeId, reactor: usize) -> Vec<Address> {
        assert!(reactor < self.reactors, "no reactor {reactor}");
        let listen = &self.nodes[node.index()].listen;
        listen.iter().map(|address| address.of_reactor(reactor).expect("checked")).collect()
    }

    /// Where the volume is served by a node, best first.
    ///
    /// # Panics
    /// If the file has no such volume.
    #[must_use]
    pub fn addresses_of(&self, node: NodeId, volume: &Volume) -> Vec<Address> {
        let place = self.volumes.iter().position(|other| other.name == volume.name).expect("a volume of this file");
        self.addresses(node, self.reactor_of(place))
    }

    /// The volume of that name.
    ///
    /// # Errors
    /// [`ConfigError::Unknown`] lists the names there are.
    pub fn volume(&self, name: &str) -> Result<&Volume, ConfigError> {
        self.volumes
            .iter()
            .find(|volume| volume.name.as_str() == name)
            .ok_or_else(|| self.unknown("volume", name, self.volumes.iter().map(|volume| volume.name.as_str())))
    }

    fn unknown<'a>(&self, what: &'static str, name: &str, known: impl Iterator<Item = &'a str>) -> ConfigError {
        let known: Vec<String> = known.map(|known| format!("\"{known}\"")).collect();
        ConfigError::Unknown { path: self.path.clone(), what, name: name.to_owned(), known: known.join(", ") }
    }
}
