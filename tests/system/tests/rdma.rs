//! Hosts without RDMA: the programs start, say so, and go on with what there is.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use twinsan_perf::cluster::{Cluster, NODES, VOLUME};
use twinsan_system::{PATIENCE, cluster, programs};

/// Killed when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A configuration in which each node is reached by RDMA first.
fn with_rdma_first(cluster: &Cluster) -> Result<PathBuf> {
    let text = fs::read_to_string(cluster.config())?;
    // TEST-NET-1 (RFC 5737): nobody's, and never reached.
    let changed = text.replace("listen = [", "listen = [\"rdma://192.0.2.1:7471\", ");
    // The same address twice is refused.
    let changed = changed.replacen("192.0.2.1", "192.0.2.2", 1);
    ensure!(changed.matches("rdma://192.0.2.").count() == NODES.len(), "nothing to change in {text}");
    let path = cluster.run("rdma.toml");
    fs::write(&path, changed)?;
    Ok(path)
}

/// Whatever this machine has, the program finds a broken libibverbs in place of any.
fn without_rdma(program: &Path, cluster: &Cluster) -> Result<Command> {
    let folder = cluster.run("no-rdma");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("libibverbs.so.1"), b"no library")?;
    let mut command = Command::new(program);
    command.env("LD_LIBRARY_PATH", folder).stdin(Stdio::null());
    Ok(command)
}

#[test]
fn attach_goes_on_with_the_next_address() -> Result<()> {
    let mut pair = cluster()?;
    pair.start_node(0)?;
    pair.start_node(1)?;
    let config = with_rdma_first(&pair)?;
    let mut command = without_rdma(&programs()?.twinsan, &pair)?;
    let socket = pair.run("without-rdma.sock");
    let log = pair.run("without-rdma.log");
    command.arg("--config").arg(&config).args(["attach", VOLUME, "--nbd", &format!("unix:{}", socket.display())]);
    let mut client = Running(command.stdout(Stdio::null()).stderr(fs::File::create(&log)?).spawn()?);
    let begin = Instant::now();
    while twinsan_witness::nbd::Client::connect(&socket, VOLUME).is_err() {
        let said = fs::read_to_string(&log)?;
        ensure!(client.0.try_wait()?.is_none() && begin.elapsed() < PATIENCE, "it did not attach: {said}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let said = fs::read_to_string(&log)?;
    for word in ["no RDMA here", "libibverbs.so.1", "rdma://192.0.2.", "reached by shm://"] {
        ensure!(said.contains(word), "\"{word}\" is missing in: {said}");
    }
    drop(UnixStream::connect(&socket).context("it still listens")?);
    Ok(())
}

#[test]
fn a_node_that_can_not_listen_says_what_would_do() -> Result<()> {
    let cluster = cluster()?;
    let config = with_rdma_first(&cluster)?;
    let mut command = without_rdma(&programs()?.twinsand, &cluster)?;
    let output = command.arg("--config").arg(config).args(["--node", NODES[0]]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success(), "it must refuse; it said: {said}");
    for word in ["rdma://192.0.2.2:7471", "no RDMA here", "libibverbs.so.1", "use tcp://"] {
        ensure!(said.contains(word), "\"{word}\" is missing in: {said}");
    }
    Ok(())
}

#[test]
fn no_program_needs_an_rdma_library_to_start() -> Result<()> {
    let programs = programs()?;
    for program in [&programs.twinsand, &programs.twinsan] {
        let output = Command::new("ldd").arg(program).output().context("ldd")?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success() && said.contains("libc.so"), "ldd says {said}");
        ensure!(!said.contains("ibverbs") && !said.contains("rdmacm"), "{} needs {said}", program.display());
    }
    Ok(())
}
