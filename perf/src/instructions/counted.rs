//! Nodes under callgrind, and its counters.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::cluster::{Cluster, NODES};
use crate::program::find;

/// See the file.
const SHIM: &str = include_str!("uring_wait.c");

/// Both nodes, counted.
#[derive(Debug)]
pub struct Counted {
    vgdb: PathBuf,
    /// Dumps made, which callgrind numbers from 1.
    dumps: usize,
    /// Where dumps are kept.
    keep: Option<PathBuf>,
}

impl Counted {
    /// Starts both nodes of a cluster. Dumps are moved to the folder `keep`, if there is one.
    ///
    /// # Errors
    /// If valgrind is missing, or the shim does not compile.
    pub fn start(cluster: &mut Cluster, shim: Option<&Path>, keep: Option<&Path>) -> Result<Self> {
        let valgrind = find("valgrind", "valgrind")?;
        let vgdb = find("vgdb", "valgrind")?;
        let shim = match shim {
            Some(shim) => fs::canonicalize(shim).with_context(|| shim.display().to_string())?,
            None => compile_shim(&cluster.run(""))?,
        };
        for (node, name) in NODES.into_iter().enumerate() {
            let mut command = Command::new(&valgrind);
            command.env("LD_PRELOAD", &shim).arg("--tool=callgrind");
            command.arg(format!("--callgrind-out-file={}", out_file(cluster, name).display()));
            cluster.start_node_by(node, command)?;
        }
        Ok(Self { vgdb, dumps: 0, keep: keep.map(Path::to_path_buf) })
    }

    /// Counts from zero: since when.
    ///
    /// # Errors
    /// If a node does not obey.
    pub fn restart(&mut self, cluster: &Cluster) -> Result<Instant> {
        self.tell(cluster, "zero")?;
        Ok(Instant::now())
    }

    /// What both nodes have executed, under which `load`.
    ///
    /// # Errors
    /// If a node does not obey, or callgrind's file can't be read.
    pub fn counts(&mut self, cluster: &Cluster, load: &str) -> Result<[f64; 2]> {
        self.tell(cluster, "dump")?;
        self.dumps += 1;
        let mut counts = [0.0; 2];
        for (name, count) in NODES.into_iter().zip(&mut counts) {
            let file = PathBuf::from(format!("{}.{}", out_file(cluster, name).display(), self.dumps));
            let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
            *count = summary(&text).with_context(|| format!("{}: no summary of instructions", file.display()))?;
            if let Some(keep) = &self.keep {
                let kept = keep.join(format!("callgrind.out.{}.{name}.{load}", self.dumps));
                fs::write(&kept, text).with_context(|| kept.display().to_string())?;
            }
            fs::remove_file(&file)?;
        }
        Ok(counts)
    }

    /// Has callgrind do something in both nodes.
    fn tell(&self, cluster: &Cluster, what: &str) -> Result<()> {
        for (node, name) in NODES.into_iter().enumerate() {
            let pid = cluster.node_pid(node).with_context(|| format!("{name} does not run"))?;
            let output =
                Command::new(&self.vgdb).arg(format!("--pid={pid}")).arg(what).stdin(Stdio::null()).output()?;
            if !output.status.success() {
                bail!("vgdb {what} to {name}: {}", String::from_utf8_lossy(&output.stderr));
            }
        }
        Ok(())
    }
}

fn out_file(cluster: &Cluster, name: &str) -> PathBuf {
    cluster.run(&format!("{name}.callgrind"))
}

/// Compiles `uring_wait.so` into a folder.
///
/// # Errors
/// If there is no compiler.
pub fn compile_shim(folder: &Path) -> Result<PathBuf> {
    let cc = find("cc", "gcc")?;
    let (source, shim) = (folder.join("uring_wait.c"), folder.join("uring_wait.so"));
    fs::write(&source, SHIM)?;
    let output = Command::new(cc).args(["-O2", "-shared", "-fPIC", "-o"]).arg(&shim).arg(&source).output()?;
    ensure!(output.status.success(), "cc {}: {}", source.display(), String::from_utf8_lossy(&output.stderr));
    Ok(shim)
}

/// The line `summary: N` of a dump with the one event Ir.
fn summary(text: &str) -> Option<f64> {
    let only_instructions = text.lines().any(|line| line == "events: Ir");
    let line = text.lines().find_map(|line| line.strip_prefix("summary: ")).filter(|_| only_instructions)?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_is_read_by_its_summary() {
        let dump = "version: 1\ncreator: callgrind-3.19.0\npid: 7\nevents: Ir\nsummary: 828768\n\nfn=(1) x\n0 5\n";
        assert_eq!(summary(dump), Some(828_768.0));
        assert_eq!(summary("events: Ir Dr\nsummary: 1 2\n"), None, "other events");
        assert_eq!(summary("events: Ir\nsummary: \n"), None);
    }
}
