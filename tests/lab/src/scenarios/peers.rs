//! What else gives a host a block device in another host's RAM, beside a pair, all of it in the same guests: the kernel's own
//! iSCSI, iSER and NVMe over fabrics, and drbd. The same program writes to each in turn; what a run tells are ratios.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::device::over_rdma;
use super::measures::measured;
use crate::pair::{Front, Pair, Plan, Timing, VolumeStatus};
use crate::scenario::Stage;
use crate::topology::{Host, Lab, SANS};

/// What a slice writes: bytes at a time, and how often. Beginning, end and name of each are the same for everybody.
const SIZES: [Size; 4] = [
    Size { name: "4 KiB", bytes: 4 << 10, writes: 300 },
    Size { name: "8 KiB", bytes: 8 << 10, writes: 300 },
    Size { name: "96 KiB", bytes: 96 << 10, writes: 80 },
    Size { name: "1 MiB", bytes: 1 << 20, writes: 16 },
];
/// Everybody has a slice of each size in each.
const ROUNDS: usize = 7;
/// What of each device is written to, and read back after each slice.
const SPAN: &str = "4MiB";
/// Where san1 is reached by the client.
const TARGET: &str = "10.3.1.1";
/// To see what one costs.
const CALLS: u32 = 20_000;
/// A dozen programs are started, one after the other, on one CPU.
const SETUP: Duration = Duration::from_secs(120);

#[derive(Clone, Copy)]
struct Size {
    name: &'static str,
    bytes: usize,
    writes: u32,
}

/// Who takes part.
struct Peer {
    /// In the table, and what the guest's script calls it.
    key: &'static str,
    /// What a completed write has reached.
    copies: &'static str,
    /// Where the load runs.
    host: Host,
    device: String,
}

/// All of them in turns; ours first in the table.
pub(super) fn peers(stage: &mut Stage) -> Result<()> {
    let lab = &stage.lab;
    // A host that stands still for a moment is no failure here. The lane holds all that a slice writes.
    let timing = Timing { takeover: 5000, drop: 5000, join: 10_000, ..Timing::DEFAULT };
    let plan = Plan { timing, staging: "64MiB", ..Plan::two_hosts("rdma") };
    let (pair, device) = Pair::serve(lab, plan, Front::Ublk)?;
    over_rdma(lab)?;
    let mut contestants =
        vec![Peer { key: "twinsan", copies: "2 hosts' RAM", host: Host::Client, device: device.to_owned() }];
    contestants.extend(others(lab)?);
    let before = pair.until(lab, 0, "dual", |status| status.dual)?;
    let mut figures = vec![vec![Vec::new(); SIZES.len()]; contestants.len()];
    for round in 0..ROUNDS {
        for (s, size) in SIZES.iter().enumerate() {
            for turn in 0..contestants.len() {
                // Another one begins in each round.
                let c = (round + turn) % contestants.len();
                figures[c][s].push(slice(lab, &contestants[c], *size)?);
                if c == 0 {
                    until_flushed(lab, &pair)?;
                }
            }
        }
    }
    let after = pair.until(lab, 0, "dual", |status| status.dual)?;
    ensure!(before.epoch == after.epoch, "the pair's members changed meanwhile: its pauses are in the figures");
    ensure!(drbd_is_whole(lab)?, "drbd lost its other half meanwhile: it was measured with one copy");
    let call = system_call(lab)?;
    stage.note(format!(
        "{} contestants, {ROUNDS} rounds; a program's system call takes {call:.1} µs here",
        contestants.len()
    ));
    stage.table = table(&contestants, &figures);
    stage.figures = Some(json(&contestants, &figures));
    Ok(())
}

/// Sets the others up, and says where they are.
fn others(lab: &Lab) -> Result<Vec<Peer>> {
    for host in SANS {
        lab.node(host).sh_within(SETUP, "sh /lab/guest/peers san")?;
    }
    let san1 = lab.node(Host::San1);
    san1.until("drbd has found its other half", SETUP, "[ \"$(drbdadm cstate peers)\" = Connected ]")?;
    san1.sh_within(SETUP, &format!("sh /lab/guest/peers target {TARGET}"))?;
    san1.until("drbd is whole", SETUP, WHOLE)?;
    let said = lab.node(Host::Client).sh_within(SETUP, &format!("sh /lab/guest/peers client {TARGET}"))?;
    let device = |key: &str| {
        let device = said.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        let device = device.filter(|device| device.starts_with("/dev/"));
        device.map(str::to_owned).with_context(|| format!("the client has no device {key}: {said}"))
    };
    let mut peers = Vec::new();
    for (key, copies) in [
        ("nvme-rdma", "1 host's RAM"),
        ("iser", "1 host's RAM"),
        ("nvme-tcp", "1 host's RAM"),
        ("iscsi", "1 host's RAM"),
        ("nbdkit", "1 host's RAM"),
        ("nvme-drbd", "2 hosts' RAM"),
    ] {
        peers.push(Peer { key, copies, host: Host::Client, device: device(key)? });
    }
    // On its primary itself: the one hop to the other half, and none from a client.
    peers.push(Peer { key: "drbd", copies: "2 hosts' RAM", host: Host::San1, device: "/dev/drbd0".to_owned() });
    Ok(peers)
}

const WHOLE: &str = "[ \"$(drbdadm cstate peers) $(drbdadm dstate peers)\" = 'Connected UpToDate/UpToDate' ]";

fn drbd_is_whole(lab: &Lab) -> Result<bool> {
    Ok(lab.node(Host::San1).try_sh(WHOLE)?.code == 0)
}

/// The median of a slice's writes, in microseconds.
fn slice(lab: &Lab, peer: &Peer, size: Size) -> Result<f64> {
    let Size { bytes, writes, .. } = size;
    let command = format!(
        "/lab/bin/twinsan-perf run {} --bytes {bytes} --depth 1 --count {writes} --span {SPAN} --overwrite --json",
        peer.device
    );
    let (_, result) = measured(lab, peer.host, &command).with_context(|| peer.key)?;
    let write = &result["jobs"][0]["write"];
    ensure!(write["count"].as_u64() == Some(u64::from(writes)), "{}: {result}", peer.key);
    ensure!(result["checked_bytes"].as_u64() > Some(0), "{}: nothing was read back: {result}", peer.key);
    write["p50_us"].as_f64().filter(|us| *us > 0.0).with_context(|| format!("{}: no median", peer.key))
}

/// What the pair has staged is written to the shelf behind its caller's back, and would be in the next one's figures.
fn until_flushed(lab: &Lab, pair: &Pair) -> Result<()> {
    let empty = |status: &VolumeStatus| status.lane.staged_blobs == 0;
    for node in 0..SANS.len() {
        pair.until(lab, node, "all is flushed", empty)?;
    }
    Ok(())
}

/// What User-Mode Linux takes from every program and not from its kernel, in microseconds.
fn system_call(lab: &Lab) -> Result<f64> {
    let said = lab.node(Host::Client).sh(&format!("dd if=/dev/zero of=/dev/null bs=1 count={CALLS} 2>&1"))?;
    let seconds = said.split(" copied, ").nth(1).and_then(|rest| rest.split_whitespace().next());
    let seconds: f64 = seconds.with_context(|| said.clone())?.parse().with_context(|| said.clone())?;
    // A read and a write for each.
    Ok(seconds * 1e6 / f64::from(CALLS) / 2.0)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Theirs over ours, round by round: least, median, most.
fn ratios(theirs: &[f64], ours: &[f64]) -> [f64; 3] {
    let ratios: Vec<f64> = theirs.iter().zip(ours).map(|(theirs, ours)| theirs / ours).collect();
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    [least, median(&ratios), ratios.iter().copied().fold(0.0, f64::max)]
}

/// Medians in microseconds, and between brackets their ratio to ours.
fn table(contestants: &[Peer], figures: &[Vec<Vec<f64>>]) -> Vec<String> {
    let mut head = format!("{:<10} {:<13}", "median, µs", "copies");
    for size in &SIZES {
        head += &format!(" {:>15}", size.name);
    }
    let mut lines = vec![head];
    for (peer, sizes) in contestants.iter().zip(figures) {
        let mut line = format!("{:<10} {:<13}", peer.key, peer.copies);
        for (rounds, ours) in sizes.iter().zip(&figures[0]) {
            let [_, ratio, _] = ratios(rounds, ours);
            line += &format!(" {:>15}", format!("{:.0} ({ratio:.2})", median(rounds)));
        }
        lines.push(line);
    }
    lines
}

fn json(contestants: &[Peer], figures: &[Vec<Vec<f64>>]) -> Value {
    let one = |(peer, sizes): (&Peer, &Vec<Vec<f64>>)| {
        let sizes = SIZES.iter().zip(sizes).zip(&figures[0]).map(|((size, rounds), ours)| {
            let [least, median_ratio, most] = ratios(rounds, ours);
            json!({
                "bytes": size.bytes,
                "slice_p50_us": rounds,
                "p50_us": median(rounds),
                "over_ours": { "least": least, "median": median_ratio, "most": most },
            })
        });
        json!({ "key": peer.key, "copies": peer.copies, "load_on": peer.host.name(), "sizes": sizes.collect::<Vec<_>>() })
    };
    contestants.iter().zip(figures).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_of_one_round_and_not_of_the_medians() {
        // All are slow in the second round: the machine was.
        let ours = [10.0, 100.0, 12.0];
        let theirs = [20.0, 200.0, 12.0];
        assert_eq!(median(&theirs), 20.0);
        assert_eq!(ratios(&theirs, &ours), [1.0, 2.0, 2.0]);
    }
}
