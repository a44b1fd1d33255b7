//! A pair of one's own on this host, with a listener beside each node.

use std::fmt;
use std::net::TcpListener;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, anyhow};
use twinsan_control::Config;

use crate::cluster::{Cluster, NODES, Options, Programs};
use crate::fabric::{open, shares_memory};
use crate::hops::Way;
use crate::wire::Listener;

/// The volume's size.
pub const VOLUME_BYTES: u64 = 256 << 20;
/// Its block; all sizes of ours are multiples of it.
pub const BLOCK_BYTES: u32 = 512;

/// What the pair's nodes and clients talk by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A scheme of socket files: `shm`, `unix`.
    File(&'static str),
    /// A scheme (`tcp`, `rdma`) and one of this host's addresses, IPv6 in brackets.
    At(String, String),
}

impl Kind {
    /// TCP on loopback.
    #[must_use]
    pub fn tcp() -> Self {
        Self::At("tcp".into(), "127.0.0.1".into())
    }

    /// An address that nobody has; `name` makes it unique among socket files.
    pub(crate) fn address(&self, cluster: &Cluster, name: &str) -> Result<String> {
        Ok(match self {
            Self::File(scheme) => cluster.socket(scheme, name),
            // The port may be taken between here and its use; then a node says so.
            Self::At(scheme, host) => {
                let port = TcpListener::bind(format!("{host}:0"))?.local_addr()?.port();
                format!("{scheme}://{host}:{port}")
            }
        })
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once("://") {
            None if text == "shm" => Ok(Self::File("shm")),
            None if text == "unix" => Ok(Self::File("unix")),
            None if text == "tcp" => Ok(Self::tcp()),
            Some((scheme @ ("tcp" | "rdma"), host)) if !host.is_empty() && !host.contains('/') => {
                Ok(Self::At(scheme.into(), host.into()))
            }
            _ => {
                Err("write shm, unix, tcp, or a scheme and an address of this host without a port: rdma://10.0.0.1"
                    .into())
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(scheme) => f.write_str(scheme),
            Self::At(scheme, host) => write!(f, "{scheme}://{host}"),
        }
    }
}

/// How the pair is configured.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The fabric.
    pub kind: Kind,
    /// Payload CRCs.
    pub integrity: bool,
    /// How long every loop polls before it sleeps, in microseconds.
    pub spin_us: u64,
    /// The nodes run many times slower than usual: few heartbeats, nobody is taken for dead before ten seconds, and
    /// nobody waits for a flusher that rests.
    pub patient: bool,
}

impl Setup {
    /// Makes the cluster's files; starts nothing.
    ///
    /// # Errors
    /// As [`Cluster::create`].
    pub fn create(&self, programs: Programs, folder: &Path) -> Result<Cluster> {
        let options = Options {
            volume_bytes: VOLUME_BYTES,
            block_bytes: BLOCK_BYTES,
            staging: "64MiB".into(),
            takeover_budget_ms: 0,
            disk_folder: folder.to_owned(),
            keep: false,
        };
        let listen = |cluster: &Cluster, name: &str| Ok(vec![self.address(cluster, name)?]);
        let cluster = Cluster::create_at(programs, &options, listen)?;
        let text = std::fs::read_to_string(cluster.config())?;
        std::fs::write(cluster.config(), self.configure(text))?;
        Ok(cluster)
    }

    fn configure(&self, mut text: String) -> String {
        // The volume's table is the last one.
        text.push_str(&format!("integrity = {}\n\n[timing]\nspin_us = {}\n", self.integrity, self.spin_us));
        if self.patient {
            text.push_str(
                "heartbeat_ms = 200\ntakeover_ms = 10000\ndrop_ms = 10000\njoin_ms = 20000\nflush_rest_ms = 0\n",
            );
        }
        text
    }

    fn address(&self, cluster: &Cluster, name: &str) -> Result<String> {
        self.kind.address(cluster, name)
    }
}

/// Two nodes and their listeners; all end when it is dropped.
pub struct Local {
    /// The nodes.
    pub cluster: Cluster,
    /// Where the listeners are.
    pub wire: [Way; 2],
    over: Arc<AtomicBool>,
    listeners: Vec<JoinHandle<()>>,
}

impl Local {
    /// Starts everything.
    ///
    /// # Errors
    /// If something does not start.
    pub fn start(setup: &Setup, folder: &Path) -> Result<Self> {
        let mut cluster = setup.create(Programs::build()?, folder)?;
        for node in 0..NODES.len() {
            cluster.start_node(node)?;
        }
        let mut local = Self {
            cluster,
            wire: [(); 2].map(|()| Way { client: String::new(), node: String::new() }),
            over: Arc::default(),
            listeners: Vec::new(),
        };
        for (node, name) in NODES.into_iter().enumerate() {
            let url = setup.address(&local.cluster, &format!("{name}.wire"))?;
            let bound = local.listener(url, Duration::from_micros(setup.spin_us))?;
            local.wire[node] = Way { client: bound.clone(), node: bound };
        }
        Ok(local)
    }

    /// The pair's configuration.
    ///
    /// # Errors
    /// Ours, if it is wrong.
    pub fn config(&self) -> Result<Config> {
        Ok(Config::load(&self.cluster.config())?)
    }

    fn listener(&mut self, url: String, spin: Duration) -> Result<String> {
        let over = Arc::clone(&self.over);
        let (tell, told) = channel();
        self.listeners.push(thread::Builder::new().name("listener".into()).spawn(move || {
            let listening = Listener::new(&open, spin, shares_memory(&url)).and_then(|mut listener| {
                let bound = listener.listen(&url)?;
                Ok((listener, bound))
            });
            match listening {
                Ok((mut listener, bound)) => {
                    let _ = tell.send(Ok(bound));
                    listener.serve(&over);
                }
                Err(error) => drop(tell.send(Err(error))),
            }
        })?);
        told.recv().map_err(|_| anyhow!("a listener ended at once"))?
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for listener in self.listeners.drain(..) {
            let _ = listener.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_read_as_they_are_shown() {
        for text in ["shm", "unix", "tcp://127.0.0.1", "tcp://[::1]", "rdma://10.0.0.1"] {
            assert_eq!(text.parse::<Kind>().unwrap().to_string(), text);
        }
        assert_eq!("tcp".parse(), Ok(Kind::tcp()));
        for text in ["", "rdma", "rdma://", "udp://1.2.3.4", "tcp://h/x", "unix:///x"] {
            assert!(text.parse::<Kind>().unwrap_err().contains("rdma://10.0.0.1"), "{text}");
        }
    }
}
