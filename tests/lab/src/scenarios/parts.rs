//! The kernel's parts by themselves, with other people's tools: what all other scenarios rest on.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::agent::Output;
use crate::scenario::{Stage, ms};
use crate::topology::{DISK, Host, Lab, Link, PATH_LOSS, SANS, SERIAL};

/// Two paths a node, and rxe between every pair, in both directions.
pub(super) fn topology(stage: &mut Stage) -> Result<()> {
    for host in SANS {
        let paths = sd_paths(&stage.lab, host)?;
        ensure!(paths.len() == 2, "{} has the paths {paths:?}", host.name());
    }
    for (server, client, address) in [
        (Host::San1, Host::San2, "10.4.0.1"),
        (Host::San2, Host::San1, "10.4.0.2"),
        (Host::San1, Host::Client, "10.3.1.1"),
        (Host::Client, Host::San1, "10.3.1.9"),
        (Host::San2, Host::Client, "10.3.2.1"),
        (Host::Client, Host::San2, "10.3.2.9"),
    ] {
        rdma_ping(&stage.lab, server, client, address)?;
    }
    stage.note("6 of 6 rping");
    Ok(())
}

/// rdma_cm, RDMA WRITE and RDMA READ, a few thousand bytes a turn, compared (`-v` and `-V`).
fn rdma_ping(lab: &Lab, server: Host, client: Host, address: &str) -> Result<()> {
    let listening = lab.node(server).spawn("rping", &format!("rping -s -a {address} -p 7174 -C 20 -S 4000 -V"))?;
    // rping does not say that it listens; an early client is refused at once.
    let ping = format!("rping -c -a {address} -p 7174 -C 20 -S 4000 -V");
    let begin = Instant::now();
    loop {
        let output = lab.node(client).try_sh(&ping)?;
        if output.code == 0 {
            break;
        }
        let (from, to) = (client.name(), server.name());
        ensure!(
            begin.elapsed() < lab.scaled(Duration::from_secs(10)),
            "rping {from} to {to} ({address}): {}",
            output.text
        );
        ensure!(listening.is_running(), "rping on {to} ended: {}", listening.said());
        std::thread::sleep(Duration::from_millis(50));
    }
    let output = listening.wait(Duration::from_secs(10))?;
    ensure!(!output.text.contains("corrupt"), "rping on {}: {}", server.name(), output.text);
    Ok(())
}

/// The sd devices of the disk that are usable.
pub(super) fn sd_paths(lab: &Lab, host: Host) -> Result<Vec<String>> {
    let shown = lab.node(host).sh("multipathd show paths format '%d %t %T'")?;
    let usable = shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let usable = usable.filter_map(|words| match words[..] {
        [device, "active", "ready"] => Some(device.to_owned()),
        _ => None,
    });
    Ok(usable.collect())
}

/// `sg_persist` on a path. A unit attention (exit status 6), with which a device reports what has happened to it, is
/// not an answer: asked again, it gives one (SPC-4 5.14).
fn sg_persist(lab: &Lab, host: Host, path: &str, arguments: &str) -> Result<Output> {
    for _ in 0..5 {
        let output = lab.node(host).try_sh(&format!("sg_persist --no-inquiry {arguments} /dev/{path}"))?;
        if output.code != 6 {
            return Ok(output);
        }
    }
    bail!("{}: {path} reports unit attentions without end", host.name())
}

/// Registers a key on every path of a host.
fn register(lab: &Lab, host: Host, key: u32) -> Result<()> {
    for path in sd_paths(lab, host)? {
        let arguments = format!("--out --register-ignore --param-aptpl --param-sark={key:#x}");
        let output = sg_persist(lab, host, &path, &arguments)?;
        ensure!(output.code == 0, "registering {key:#x} through {path} of {}: {}", host.name(), output.text);
    }
    Ok(())
}

fn first_path(lab: &Lab, host: Host) -> Result<String> {
    let path = sd_paths(lab, host)?.into_iter().next();
    path.with_context(|| format!("{} has no path", host.name()))
}

/// A `PERSISTENT RESERVE OUT` on a host's first path. Gives the exit status: 24 is a reservation conflict.
fn reserve_out(lab: &Lab, host: Host, arguments: &str) -> Result<i32> {
    Ok(sg_persist(lab, host, &first_path(lab, host)?, &format!("--out {arguments}"))?.code)
}

/// What is registered, as a host reads it; sorted.
fn keys(lab: &Lab, host: Host) -> Result<Vec<u64>> {
    let output = sg_persist(lab, host, &first_path(lab, host)?, "--in --read-keys")?;
    ensure!(output.code == 0, "READ KEYS: {}", output.text);
    let hex = output.text.lines().filter_map(|line| line.trim().strip_prefix("0x"));
    let mut keys = hex.map(|hex| Ok(u64::from_str_radix(hex, 16)?)).collect::<Result<Vec<_>>>()?;
    keys.sort_unstable();
    Ok(keys)
}

/// How many registrations the LUN has: one for every path that may write.
pub(super) fn registrations(lab: &Lab, host: Host) -> Result<usize> {
    Ok(keys(lab, host)?.len())
}

/// How a write went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// It is on the disk.
    Done,
    /// Reservation conflict.
    Refused,
    /// No path.
    Failed,
}

/// One block, past the page cache.
pub(super) fn write(lab: &Lab, host: Host, device: &str) -> Result<Written> {
    let write = format!("dd if=/dev/zero of={device} bs=4096 seek=1000 count=1 oflag=direct,dsync");
    let output = lab.node(host).try_sh(&write)?;
    match output.code {
        0 => Ok(Written::Done),
        // EBADE, which is what the block layer makes of RESERVATION CONFLICT.
        _ if output.text.contains("Invalid exchange") => Ok(Written::Refused),
        _ if output.text.contains("Input/output error") => Ok(Written::Failed),
        _ => bail!("{}: {}", host.name(), output.text),
    }
}

/// sg_persist's exit status for a reservation conflict (sg3_utils(8)).
const CONFLICT: i32 = 24;

pub(super) fn reservations(stage: &mut Stage) -> Result<()> {
    let lab = &stage.lab;
    register(lab, Host::San1, 1)?;
    register(lab, Host::San2, 2)?;
    ensure!(keys(lab, Host::San1)? == [1, 1, 2, 2], "{:?}", keys(lab, Host::San1)?);
    ensure!(reserve_out(lab, Host::San1, "--reserve --param-rk=1 --prout-type=5")? == 0, "RESERVE");
    ensure!(
        reserve_out(lab, Host::San2, "--reserve --param-rk=9 --prout-type=5")? == CONFLICT,
        "RESERVE by a wrong key"
    );
    for host in SANS {
        ensure!(write(lab, host, DISK)? == Written::Done, "{}, a registrant, writes", host.name());
    }

    // san2 fences san1: on the map and on every path, and only it.
    let preempt = "--preempt-abort --param-rk=2 --param-sark=1 --prout-type=5";
    ensure!(reserve_out(lab, Host::San2, preempt)? == 0, "PREEMPT AND ABORT");
    ensure!(keys(lab, Host::San2)? == [2, 2], "{:?}", keys(lab, Host::San2)?);
    ensure!(write(lab, Host::San1, DISK)? == Written::Refused, "a fenced host wrote through dm-multipath");
    for path in sd_paths(lab, Host::San1)? {
        ensure!(
            write(lab, Host::San1, &format!("/dev/{path}"))? == Written::Refused,
            "a fenced host wrote through {path}"
        );
    }
    ensure!(write(lab, Host::San2, DISK)? == Written::Done, "the host that fenced writes");
    ensure!(sd_paths(lab, Host::San1)?.len() == 2, "a conflict is no path failure");
    register(lab, Host::San1, 3)?;
    ensure!(write(lab, Host::San1, DISK)? == Written::Done, "registered again");
    stage.note("conflict, pre-emption and re-registration on 4 paths");
    Ok(())
}

/// The fabric's conformance suite on one host's rxe device.
pub(super) fn rdma_conformance(stage: &mut Stage) -> Result<()> {
    let suite = "TWINSAN_RDMA_ADDRESS=rdma://10.4.0.1:0 exec /lab/bin/rdma-conformance";
    let job = stage.lab.node(Host::San1).spawn("conformance", suite)?;
    let output = job.wait(Duration::from_secs(240))?;
    let last = output.text.lines().last().unwrap_or_default().to_owned();
    ensure!(output.code == 0, "{}", output.text);
    stage.note(last);
    Ok(())
}

pub(super) fn shelf_power_cut(stage: &mut Stage) -> Result<()> {
    register(&stage.lab, Host::San1, 1)?;
    ensure!(reserve_out(&stage.lab, Host::San1, "--reserve --param-rk=1 --prout-type=5")? == 0, "RESERVE");
    ensure!(write(&stage.lab, Host::San2, DISK)? == Written::Refused, "san2 is not registered");
    let kept = stage.lab.share().join("shelf/pr").join(format!("aptpl_{SERIAL}"));
    ensure!(kept.is_file(), "the shelf keeps no {}", kept.display());

    // san1 stays away: its registrations have to be there without it, or nobody could fence it meanwhile.
    for link in [Link::A1, Link::B1] {
        stage.lab.cable(link).cut();
    }
    let begin = Instant::now();
    stage.lab.power_cycle(&[Host::Shelf])?;
    let answers = "for path in $(multipathd show paths raw format %d); do sg_turs /dev/$path || exit 1; done";
    stage.lab.node(Host::San2).until("the shelf answers", 2 * PATH_LOSS, answers)?;
    let back = begin.elapsed();
    // A shelf that was away for longer than a path's timeout is there again before multipathd has seen that.
    stage.lab.node(Host::San2).until("both paths are back", 2 * PATH_LOSS, BOTH_PATHS)?;
    ensure!(keys(&stage.lab, Host::San2)? == [1, 1], "{:?} are registered", keys(&stage.lab, Host::San2)?);
    ensure!(write(&stage.lab, Host::San2, DISK)? == Written::Refused, "the reservation is gone: san2 wrote");
    for link in [Link::A1, Link::B1] {
        stage.lab.cable(link).mend();
    }
    stage.lab.node(Host::San1).until("both paths are back", 2 * PATH_LOSS, BOTH_PATHS)?;
    ensure!(write(&stage.lab, Host::San1, DISK)? == Written::Done, "san1's registration is gone");
    stage.note(format!("the shelf answers again after {}", ms(back)));
    Ok(())
}

/// Succeeds once a SAN host has both of its paths.
pub(super) const BOTH_PATHS: &str =
    "[ $(multipathd show paths format '%t %T' | grep -c 'active ready') = 2 ] || { multipath -ll; false; }";

pub(super) fn paths(stage: &mut Stage) -> Result<()> {
    let lab = &stage.lab;
    lab.cable(Link::A1).cut();
    let begin = Instant::now();
    ensure!(write(lab, Host::San1, DISK)? == Written::Done, "a write while one path is cut");
    let failover = begin.elapsed();
    lab.cable(Link::B1).cut();
    ensure!(write(lab, Host::San1, DISK)? == Written::Failed, "a write without any path");
    ensure!(write(lab, Host::San2, DISK)? == Written::Done, "the other host's paths are its own");
    lab.cable(Link::A1).mend();
    lab.cable(Link::B1).mend();
    let back = lab.node(Host::San1).until("both paths are back", 2 * PATH_LOSS, BOTH_PATHS)?;
    ensure!(write(lab, Host::San1, DISK)? == Written::Done, "a write through paths that came back");
    stage.note(format!("a cut path costs the next write {}, back after {}", ms(failover), ms(back)));
    Ok(())
}
