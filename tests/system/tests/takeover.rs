//! `twinsan attach --takeover` with real processes (rule 10): a live client is replaced while it writes. It ends with a
//! clear word, its requests are answered, and what it was told to be done is there.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use twinsan_perf::cluster::{Cluster, VOLUME};
use twinsan_system::{PATIENCE, VOLUME_BYTES, dual_cluster};
use twinsan_witness::nbd::Client;
use twinsan_witness::pattern::{BLOCK, Model, Random, fill};

/// A second `twinsan attach`, killed when dropped.
struct Second {
    child: Child,
    socket: PathBuf,
}

impl Drop for Second {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn second(cluster: &Cluster, name: &str, more: &[&str]) -> (Command, PathBuf) {
    let socket = cluster.run(name);
    let export = format!("unix:{}", socket.display());
    let mut command = cluster.twinsan(&["attach", VOLUME, "--nbd", &export]);
    command.args(more);
    (command, socket)
}

fn takes_over(cluster: &Cluster, name: &str) -> Result<Second> {
    let (mut command, socket) = second(cluster, name, &["--takeover"]);
    let second = Second { child: command.spawn()?, socket };
    cluster.wait_until("the second client is open", PATIENCE, |_| Client::connect(&second.socket, VOLUME).is_ok())?;
    Ok(second)
}

/// Writes until a request fails, which is then open: it may have happened or not, so it is not judged.
fn write_until_it_fails(socket: PathBuf, completed: Arc<AtomicU64>) -> JoinHandle<Result<Model>> {
    std::thread::spawn(move || {
        let mut client = Client::connect(&socket, VOLUME)?;
        let (mut model, mut random) = (Model::new(VOLUME_BYTES), Random::new(7));
        loop {
            let blocks = random.below(60) + 1;
            let first = random.below(VOLUME_BYTES / BLOCK as u64 - blocks);
            let (blocks, stamp) = (usize::try_from(blocks)?, model.next_stamp());
            let mut buffer = vec![0; blocks * BLOCK];
            fill(&mut buffer, first, stamp);
            if client.write(first * BLOCK as u64, &buffer).is_err() {
                model.completed(first, blocks, 0);
                return Ok(model);
            }
            model.completed(first, blocks, stamp);
            completed.fetch_add(1, Ordering::Release);
        }
    })
}

fn nothing_is_lost(socket: &Path, model: &Model) -> Result<()> {
    let mut client = Client::connect(socket, VOLUME)?;
    let (mut buffer, mut lost) = (vec![0; 1 << 20], Vec::new());
    for offset in (0..VOLUME_BYTES).step_by(buffer.len()) {
        client.read(offset, &mut buffer)?;
        model.check(offset / BLOCK as u64, &buffer, &mut lost);
    }
    ensure!(lost.is_empty(), "{} completed writes are lost, first {:?}", Model::writes_lost(&lost), lost[0]);
    Ok(())
}

#[test]
fn a_live_client_is_taken_over_by_order_only() -> Result<()> {
    let mut cluster = dual_cluster()?;
    let completed = Arc::new(AtomicU64::new(0));
    let load = write_until_it_fails(cluster.nbd_socket(), Arc::clone(&completed));
    let goes_on = |cluster: &Cluster, more: u64| {
        let goal = completed.load(Ordering::Acquire) + more;
        cluster.wait_until("writes complete", PATIENCE, |_| completed.load(Ordering::Acquire) >= goal)
    };
    goes_on(&cluster, 50)?;

    let (mut command, _) = second(&cluster, "refused.sock", &[]);
    let refused = command.output()?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(refused.status.code() == Some(1) && said.contains("--takeover") && said.contains(VOLUME), "{said}");
    goes_on(&cluster, 50)?;

    let new = takes_over(&cluster, "new.sock")?;
    let ended = cluster.wait_client(PATIENCE)?;
    let said = cluster.log_tail("client.log");
    ensure!(ended.code() == Some(3) && said.contains("another client has attached"), "{ended}: {said}");
    let model = load.join().expect("the load's thread")?;
    nothing_is_lost(&new.socket, &model)?;
    ensure!(cluster.is_dual(), "the pair is not disturbed");
    Ok(())
}

/// The old client stands still while it is replaced, with requests of its caller's open: when it goes on, they fail, and
/// nothing of it lands.
#[test]
fn a_client_that_was_stopped_is_taken_over_and_writes_no_more() -> Result<()> {
    let mut cluster = dual_cluster()?;
    let completed = Arc::new(AtomicU64::new(0));
    let load = write_until_it_fails(cluster.nbd_socket(), Arc::clone(&completed));
    cluster.wait_until("writes complete", PATIENCE, |_| completed.load(Ordering::Acquire) >= 50)?;
    let old =
        rustix::process::Pid::from_raw(i32::try_from(cluster.client_pid().context("it runs")?)?).context("a pid")?;
    rustix::process::kill_process(old, rustix::process::Signal::STOP)?;
    let new = takes_over(&cluster, "new.sock")?;
    let mut client = Client::connect(&new.socket, VOLUME)?;
    let mut marked = vec![0; 1 << 20];
    for offset in (0..VOLUME_BYTES).step_by(marked.len()) {
        fill(&mut marked, offset / BLOCK as u64, u64::MAX);
        client.write(offset, &marked)?;
    }
    rustix::process::kill_process(old, rustix::process::Signal::CONT)?;
    let ended = cluster.wait_client(PATIENCE)?;
    ensure!(ended.code() == Some(3), "{ended}: {}", cluster.log_tail("client.log"));
    load.join().expect("the load's thread")?;
    std::thread::sleep(Duration::from_millis(100));
    let mut all_marked = Model::new(VOLUME_BYTES);
    all_marked.completed(0, usize::try_from(VOLUME_BYTES)? / BLOCK, u64::MAX);
    nothing_is_lost(&new.socket, &all_marked)
}
