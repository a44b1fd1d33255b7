//! What people put on a block device: fio's own verification, a filesystem, a database.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::agent::Job;
use crate::topology::{Host, Lab};

/// For tools that write a lot.
const LONG: Duration = Duration::from_secs(120);

/// Random writes with checksums, read back by fio itself. Gives the MiB verified.
pub(super) fn fio_verify(lab: &Lab, host: Host, device: &str) -> Result<u64> {
    fio(lab, host, device, "--do_verify=1")
}

/// Reads back what [`fio_verify`] has written.
pub(super) fn fio_verify_again(lab: &Lab, host: Host, device: &str) -> Result<u64> {
    fio(lab, host, device, "--verify_only=1")
}

fn fio(lab: &Lab, host: Host, device: &str, how: &str) -> Result<u64> {
    let fio = format!(
        "fio --name=verify --filename={device} --direct=1 --ioengine=libaio --iodepth=8 --rw=randwrite --bsrange=4k-64k \
         --size=24m --verify=crc32c --verify_fatal=1 {how} --output-format=json"
    );
    let text = lab.node(host).sh_within(LONG, &fio)?;
    // Warnings may come before it.
    let json = text.find('{').map(|at| &text[at..]).context("fio's report")?;
    let report: serde_json::Value = serde_json::from_str(json).with_context(|| text.clone())?;
    let job = &report["jobs"][0];
    let (errors, read) = (job["error"].as_u64(), job["read"]["io_bytes"].as_u64().unwrap_or(0));
    ensure!(errors == Some(0) && read >= 24 << 20, "fio: error {errors:?}, {read} bytes read back");
    Ok(read >> 20)
}

/// A filesystem with a database that says after each commit that it is done; `disturb` happens in the middle. Then
/// everything that was committed has to be there. Gives the rows.
pub(super) fn ext4_and_sqlite(
    lab: &mut Lab,
    device: &str,
    disturb: impl FnOnce(&mut Lab) -> Result<()>,
) -> Result<u64> {
    let job = start_commits(lab, device)?;
    let before = job.wait_for("20 commits", LONG, reached(20))?;
    disturb(lab)?;
    job.wait_for("20 more commits", LONG, reached(before + 20))?;
    job.signal(libc::SIGKILL)?;
    job.wait(LONG)?;
    let committed = last_number(&job.said()).context("no commit")?;
    // The shell has ended; a sqlite3 that was committing ends when the kernel has its last write.
    let umount = "while pidof sqlite3 > /dev/null; do sleep 0.05; done; umount /mnt/volume";
    lab.node(Host::Client).sh_within(LONG, umount)?;
    committed_rows(lab, device, committed)
}

/// The same, and the client's host loses power. Gives how many commits it had reported.
pub(super) fn commits_until_power_cut(lab: &mut Lab, device: &str) -> Result<u64> {
    let job = start_commits(lab, device)?;
    job.wait_for("40 commits", LONG, reached(40))?;
    lab.node_mut(Host::Client).kill();
    last_number(&job.said()).context("no commit")
}

fn start_commits(lab: &Lab, device: &str) -> Result<Job> {
    let client = lab.node(Host::Client);
    client
        .sh_within(LONG, &format!("mkfs.ext4 -q -F {device} && mkdir -p /mnt/volume && mount {device} /mnt/volume"))?;
    client.sh("sqlite3 /mnt/volume/db 'pragma journal_mode=wal; create table t(n integer primary key, what blob);'")?;
    // FULL: a commit that was reported is on the device. A line appears only after its commit.
    let commits = "n=0; while n=$((n + 1)); do sqlite3 /mnt/volume/db \"pragma synchronous=full; \
                   insert into t values($n, randomblob(3000));\" && echo $n || exit 1; done";
    client.spawn("sqlite", commits)
}

/// Mounts the filesystem, which mends itself, and counts the rows of a database that has reported so many commits.
pub(super) fn committed_rows(lab: &Lab, device: &str, committed: u64) -> Result<u64> {
    let client = lab.node(Host::Client);
    client.sh_within(LONG, &format!("mkdir -p /mnt/volume && mount {device} /mnt/volume"))?;
    let kept = client.sh("sqlite3 /mnt/volume/db 'pragma integrity_check; select count(*), max(n) from t;'")?;
    client.sh_within(LONG, &format!("umount /mnt/volume && e2fsck -f -n {device}"))?;
    let mut lines = kept.lines();
    ensure!(lines.next() == Some("ok"), "sqlite: {kept}");
    let counts: Vec<u64> = lines.next().unwrap_or_default().split('|').filter_map(|n| n.parse().ok()).collect();
    // The one that was being committed at the end may be there too.
    ensure!(
        matches!(counts[..], [count, last] if count == last && (last == committed || last == committed + 1)),
        "{committed} commits were reported, and the database has {kept}"
    );
    Ok(counts[0])
}

fn reached(goal: u64) -> impl Fn(&str) -> Option<u64> {
    move |said| last_number(said).filter(|&n| n >= goal)
}

fn last_number(said: &str) -> Option<u64> {
    said.lines().rev().find_map(|line| line.trim().parse().ok())
}
