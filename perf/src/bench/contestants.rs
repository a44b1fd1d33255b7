//! Who is compared. All are started once, and answer the same client.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use twinsan_witness::pattern::Model;

use super::cpu::Process;
use super::file::DirectIo;
use super::nbd::{Address, Nbd};
use super::result::Contestant;
use super::target::Target;
use crate::cluster::{Cluster, NODES, Options, Programs, VOLUME};
use crate::program::{Program, find};
use crate::quorum;

/// Ours.
pub const OURS: &str = "twinsan";
/// All there are, in the table's order.
pub const ALL: [Contestant; 6] = [
    Contestant { key: OURS, name: "TwinSAN pair", copies: "two in RAM, one disk behind" },
    Contestant { key: "nbdkit", name: "nbdkit memory", copies: "one in RAM: the floor" },
    Contestant { key: "nbdkit-twice", name: "client writes two nbdkit", copies: "two in RAM" },
    Contestant { key: "quorum", name: "qemu quorum, two nbdkit", copies: "two in RAM" },
    Contestant { key: "file", name: "file, O_DIRECT|O_DSYNC", copies: "one on disk" },
    Contestant { key: "qemu-nbd", name: "the same by qemu-nbd", copies: "one on disk" },
];

/// The volume's block: all jobs' offsets are multiples of it.
const BLOCK_BYTES: u32 = 512;
/// For whatever ends by itself in a moment.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is written at once when a file is made.
const CHUNK: usize = 1 << 20;

/// What they are like.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Each one's device.
    pub device_bytes: u64,
    /// Each node's lane for payloads in ours.
    pub staging_bytes: u64,
    /// Where disk files go.
    pub folder: PathBuf,
}

/// One of them, running.
pub struct Lane {
    /// Who it is.
    pub who: Contestant,
    /// What is measured.
    pub target: Box<dyn Target>,
    /// Its servers.
    pub processes: Vec<Process>,
    /// What has to be there.
    pub model: Model,
    /// After its target: who is connected goes first.
    running: Running,
}

/// What ends with a contestant.
enum Running {
    Pair(Box<Cluster>),
    Programs { _programs: Vec<Program>, _folders: Vec<TempDir> },
}

/// The contestant of a name.
///
/// # Errors
/// If there is none; with the names that there are.
pub fn named(key: &str) -> Result<Contestant> {
    let names = ALL.map(|c| c.key).join(", ");
    ALL.into_iter().find(|c| c.key == key).with_context(|| format!("no contestant \"{key}\": there are {names}"))
}

/// That the programs of all of them are there, before any is started.
///
/// # Errors
/// With the Debian package of the first that is missing.
pub fn check_programs(contestants: &[Contestant]) -> Result<()> {
    for who in contestants {
        let needed: &[(&str, &str)] = match who.key {
            "nbdkit" | "nbdkit-twice" => &[("nbdkit", "nbdkit")],
            "quorum" => &[("nbdkit", "nbdkit"), ("qemu-storage-daemon", "qemu-system-common")],
            "qemu-nbd" => &[("qemu-nbd", "qemu-utils")],
            _ => &[],
        };
        for (program, package) in needed {
            find(program, package)
                .with_context(|| format!("for \"{}\", which --only with other names leaves out", who.key))?;
        }
    }
    Ok(())
}

impl Lane {
    /// Starts one.
    ///
    /// # Errors
    /// If something is missing or does not start.
    pub fn start(who: &Contestant, setup: &Setup) -> Result<Self> {
        let bytes = setup.device_bytes;
        let (target, processes, running): (Box<dyn Target>, _, _) = match who.key {
            OURS => pair(setup)?,
            "nbdkit" => {
                let ram = Ram::start(bytes, &["a"])?;
                (Box::new(Nbd::connect(&ram.sockets(), "")?), ram.processes("nbdkit"), ram.running())
            }
            "nbdkit-twice" => {
                let ram = Ram::start(bytes, &["a", "b"])?;
                (Box::new(Nbd::connect(&ram.sockets(), "")?), ram.processes("nbdkit"), ram.running())
            }
            "quorum" => {
                let mut ram = Ram::start(bytes, &["a", "b"])?;
                let front = quorum::quorum(ram.folder.path(), "front", &["a", "b"].map(|n| ram.folder.path().join(n)))?;
                let address = [Address::Unix(ram.folder.path().join("front"))];
                let target = Nbd::connect(&address, quorum::EXPORT)?;
                let mut processes = vec![("qemu-storage-daemon".to_owned(), front.pid())];
                processes.extend(ram.processes("nbdkit"));
                ram.programs.insert(0, front);
                (Box::new(target), processes, ram.running())
            }
            "file" => {
                let folder = disk_folder(&setup.folder)?;
                let path = make_file(folder.path(), bytes)?;
                let running = Running::Programs { _programs: Vec::new(), _folders: vec![folder] };
                (Box::new(DirectIo::open(&path, true)?), Vec::new(), running)
            }
            _ => {
                let folder = disk_folder(&setup.folder)?;
                let path = make_file(folder.path(), bytes)?;
                // Socket paths must be short, so they have a folder of their own.
                let run = short_folder()?;
                let program = quorum::file(run.path(), "nbd", &path)?;
                let target = Nbd::connect(&[Address::Unix(run.path().join("nbd"))], "")?;
                let processes = vec![("qemu-nbd".to_owned(), program.pid())];
                let running = Running::Programs { _programs: vec![program], _folders: vec![run, folder] };
                (Box::new(target), processes, running)
            }
        };
        ensure!(target.bytes() == bytes, "{} has {} bytes and not {bytes}", who.name, target.bytes());
        Ok(Self { who: who.clone(), target, processes, model: Model::new(bytes), running })
    }

    /// What it does behind its answers comes to its end, so that the next slice, whoever's it is, begins from rest.
    ///
    /// # Errors
    /// If it does not.
    pub fn settle(&self) -> Result<()> {
        match &self.running {
            Running::Pair(cluster) => cluster.settle(PATIENCE),
            Running::Programs { .. } => Ok(()),
        }
    }

    /// Ours: the epoch, which grows whenever a member is lost or comes back, and with every failover. Else 0.
    ///
    /// # Errors
    /// If no node answers.
    pub fn epoch(&self) -> Result<u64> {
        match &self.running {
            Running::Pair(cluster) => {
                let epochs = (0..NODES.len()).filter_map(|node| cluster.status(node).ok()).map(|v| v.epoch);
                epochs.max().context("no node answers")
            }
            Running::Programs { .. } => Ok(0),
        }
    }

    /// Ours: on which pages each node's staging memory lies. Else nothing.
    ///
    /// # Errors
    /// If a node does not answer.
    pub fn pages(&self) -> Result<Vec<String>> {
        match &self.running {
            Running::Pair(cluster) => {
                (0..NODES.len()).map(|node| cluster.status(node).map(|v| v.memory.pages)).collect()
            }
            Running::Programs { .. } => Ok(Vec::new()),
        }
    }

    /// What its servers said last, where that tells why something happened.
    #[must_use]
    pub fn words(&self) -> String {
        match &self.running {
            Running::Pair(cluster) => {
                NODES.map(|name| format!("--- {name}\n{}", cluster.log_tail(&format!("{name}.log")))).concat()
            }
            Running::Programs { .. } => String::new(),
        }
    }
}

fn pair(setup: &Setup) -> Result<(Box<dyn Target>, Vec<Process>, Running)> {
    let options = Options {
        volume_bytes: setup.device_bytes,
        block_bytes: BLOCK_BYTES,
        staging: setup.staging_bytes.to_string(),
        takeover_budget_ms: 0,
        disk_folder: setup.folder.clone(),
        keep: false,
    };
    let mut cluster = Cluster::create(Programs::build()?, &options)?;
    cluster.start(PATIENCE)?;
    let target = Nbd::connect(&[Address::Unix(cluster.nbd_socket())], VOLUME)?;
    let mut processes = Vec::new();
    for (node, name) in NODES.into_iter().enumerate() {
        processes.push((format!("twinsand {name}"), cluster.node_pid(node).context("a node has ended")?));
    }
    processes.push(("twinsan attach".to_owned(), cluster.client_pid().context("the client has ended")?));
    Ok((Box::new(target), processes, Running::Pair(Box::new(cluster))))
}

/// Servers in RAM.
struct Ram {
    programs: Vec<Program>,
    names: Vec<&'static str>,
    folder: TempDir,
}

impl Ram {
    fn start(bytes: u64, names: &[&'static str]) -> Result<Self> {
        let folder = short_folder()?;
        let programs = names.iter().map(|name| quorum::memory(folder.path(), name, bytes)).collect::<Result<_>>()?;
        Ok(Self { programs, names: names.to_vec(), folder })
    }

    fn sockets(&self) -> Vec<Address> {
        self.names.iter().map(|name| Address::Unix(self.folder.path().join(name))).collect()
    }

    fn processes(&self, name: &str) -> Vec<Process> {
        self.programs.iter().zip(&self.names).map(|(p, n)| (format!("{name} {n}"), p.pid())).collect()
    }

    fn running(self) -> Running {
        Running::Programs { _programs: self.programs, _folders: vec![self.folder] }
    }
}

fn short_folder() -> Result<TempDir> {
    Ok(tempfile::Builder::new().prefix("twinsan-peer-").tempdir()?)
}

fn disk_folder(inside: &Path) -> Result<TempDir> {
    let made = tempfile::Builder::new().prefix("twinsan-disk-").tempdir_in(inside);
    made.with_context(|| format!("a folder in {}", inside.display()))
}

/// A file with all its blocks, so that no write allocates.
fn make_file(folder: &Path, bytes: u64) -> Result<PathBuf> {
    let path = folder.join("disk.img");
    let file = File::create(&path)?;
    let zeros = vec![0; CHUNK];
    for offset in (0..bytes).step_by(CHUNK) {
        let len = usize::try_from((bytes - offset).min(CHUNK as u64))?;
        file.write_all_at(&zeros[..len], offset).with_context(|| path.display().to_string())?;
    }
    file.sync_all()?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_nobody_has_is_answered_by_those_that_there_are() {
        assert_eq!(named("file").unwrap().key, "file");
        let error = named("ceph").unwrap_err().to_string();
        assert!(error.contains("\"ceph\"") && error.contains("nbdkit-twice, quorum"), "{error}");
    }
}
