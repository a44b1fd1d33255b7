//! Nodes, and a client, under callgrind, and its counters.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use thiserror::Error;

use crate::cluster::{Cluster, NODES};
use crate::program::find;

/// What the client's process is called.
const CLIENT: &str = "client";
/// A vgdb that takes longer has hung.
const VGDB: Duration = Duration::from_secs(30);
/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(5);
/// See the file.
const SHIM: &str = include_str!("uring_wait.c");

/// Tells the shim which file holds the disk while it is there.
const HOLD: &str = "TWINSAN_DISK_HOLD";

/// A vgdb and its valgrind have missed each other, for good: only new processes help.
#[derive(Debug, Error)]
#[error("vgdb {what} to {name}: no answer in {} s", VGDB.as_secs())]
pub struct Hung {
    what: String,
    name: String,
}

/// What of a cluster is counted: both nodes, and the client if it is started here.
#[derive(Debug)]
pub struct Counted {
    valgrind: PathBuf,
    vgdb: PathBuf,
    /// Names of processes, the nodes' first.
    processes: Vec<&'static str>,
    /// Since when each of them is counted.
    since: Vec<Instant>,
    /// Dumps made, which callgrind numbers from 1.
    dumps: usize,
    /// Where dumps are kept.
    keep: Option<PathBuf>,
}

/// What a process has executed.
#[derive(Clone, Debug)]
pub struct Dump {
    /// Callgrind's file.
    pub text: String,
    /// All of it.
    pub instructions: f64,
    /// In so much time.
    pub seconds: f64,
}

impl Counted {
    /// Starts both nodes of a cluster. Dumps are copied to the folder `keep`, if there is one.
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
        let keep = keep.map(Path::to_path_buf);
        let counted = Self { valgrind, vgdb, processes: NODES.to_vec(), since: Vec::new(), dumps: 0, keep };
        for (node, name) in NODES.into_iter().enumerate() {
            let mut command = counted.callgrind(cluster, name);
            command.env("LD_PRELOAD", &shim).env(HOLD, hold_file(cluster));
            cluster.start_node_by(node, command)?;
        }
        Ok(counted)
    }

    /// Starts the client, which is counted from now on. Waits for nothing.
    ///
    /// # Errors
    /// If it can't be started, or dumps were made without it.
    pub fn attach(&mut self, cluster: &mut Cluster) -> Result<()> {
        ensure!(self.dumps == 0, "a client has to be there from the first dump on");
        cluster.start_client_by(Some(self.callgrind(cluster, CLIENT)), &[])?;
        self.processes.push(CLIENT);
        Ok(())
    }

    /// While it is so, no node hears of a disk access that has ended. Not for longer than the pair is patient.
    ///
    /// # Errors
    /// If the file can't be made or removed.
    pub fn hold_disk(&self, cluster: &Cluster, hold: bool) -> Result<()> {
        let file = hold_file(cluster);
        if hold { Ok(fs::write(file, "")?) } else { Ok(fs::remove_file(file)?) }
    }

    fn callgrind(&self, cluster: &Cluster, name: &str) -> Command {
        let mut command = Command::new(&self.valgrind);
        // At rest a process executes so little that by default it looks at vgdb's pipe too rarely, and the two may miss each
        // other: seen once in 200 calls, and in none of 800 with this.
        command.args(["--tool=callgrind", "--vgdb-poll=200"]).arg(pipes(cluster));
        command.arg(format!("--callgrind-out-file={}", out_file(cluster, name).display()));
        command
    }

    /// Counts from zero: since when.
    ///
    /// # Errors
    /// If a process does not obey.
    pub fn restart(&mut self, cluster: &Cluster) -> Result<Instant> {
        self.since = self.tell(cluster, "zero")?;
        Ok(Instant::now())
    }

    /// What the processes have executed, under which `load`: the nodes', then the client's.
    ///
    /// # Errors
    /// If a process does not obey, or callgrind's file can't be read.
    pub fn dump(&mut self, cluster: &Cluster, load: &str) -> Result<Vec<Dump>> {
        let until = self.tell(cluster, "dump")?;
        self.dumps += 1;
        let mut dumps = Vec::new();
        for (i, name) in self.processes.iter().enumerate() {
            let file = PathBuf::from(format!("{}.{}", out_file(cluster, name).display(), self.dumps));
            let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
            let no_summary = || format!("{}: no summary of instructions", file.display());
            let instructions = summary(&text).with_context(no_summary)?;
            if let Some(keep) = &self.keep {
                let kept = keep.join(format!("callgrind.out.{}.{name}.{load}", self.dumps));
                fs::write(&kept, &text).with_context(|| kept.display().to_string())?;
            }
            fs::remove_file(&file)?;
            let seconds = until[i].duration_since(*self.since.get(i).context("not counted yet")?).as_secs_f64();
            dumps.push(Dump { text, instructions, seconds });
        }
        Ok(dumps)
    }

    /// Has callgrind do something in all processes: when each had done it.
    fn tell(&self, cluster: &Cluster, what: &str) -> Result<Vec<Instant>> {
        let tell = |(i, name): (usize, &&str)| {
            let pid = if *name == CLIENT { cluster.client_pid() } else { cluster.node_pid(i) };
            let pid = pid.with_context(|| format!("{name} does not run"))?;
            let mut vgdb = Command::new(&self.vgdb);
            vgdb.arg(pipes(cluster)).arg(format!("--pid={pid}")).arg(what).stdin(Stdio::null());
            let child = vgdb.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
            let output =
                within(child, VGDB)?.ok_or_else(|| Hung { what: what.to_owned(), name: (*name).to_owned() })?;
            if !output.status.success() {
                bail!("vgdb {what} to {name}: {}", String::from_utf8_lossy(&output.stderr));
            }
            Ok(Instant::now())
        };
        self.processes.iter().enumerate().map(tell).collect()
    }
}

/// Where valgrind and vgdb meet: in the cluster's folder, which goes when it does.
fn pipes(cluster: &Cluster) -> String {
    format!("--vgdb-prefix={}", cluster.run("vgdb").display())
}

/// A program's last words, of which there are few. None: it had not ended in time, and has been killed.
fn within(mut child: Child, time: Duration) -> Result<Option<Output>> {
    let begin = Instant::now();
    while child.try_wait()?.is_none() {
        if begin.elapsed() >= time {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        sleep(LOOK);
    }
    Ok(Some(child.wait_with_output()?))
}

fn hold_file(cluster: &Cluster) -> PathBuf {
    cluster.run("hold")
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
    fn a_program_that_hangs_is_ended() {
        let child = |program: &str| {
            Command::new("sh").args(["-c", program]).stderr(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap()
        };
        let output = within(child("echo word >&2; exit 3"), VGDB).unwrap().unwrap();
        assert_eq!((output.status.code(), &output.stderr[..]), (Some(3), &b"word\n"[..]));
        assert!(within(child("exec sleep 1000"), Duration::ZERO).unwrap().is_none());
    }

    #[test]
    fn a_dump_is_read_by_its_summary() {
        let dump = "version: 1\ncreator: callgrind-3.19.0\npid: 7\nevents: Ir\nsummary: 828768\n\nfn=(1) x\n0 5\n";
        assert_eq!(summary(dump), Some(828_768.0));
        assert_eq!(summary("events: Ir Dr\nsummary: 1 2\n"), None, "other events");
        assert_eq!(summary("events: Ir\nsummary: \n"), None);
    }
}
