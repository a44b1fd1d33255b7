//! The fence by itself, by `pr-lab`: what SCSI-3 reservations and dm-multipath do to a node, on a real LUN.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::parts::BOTH_PATHS;
use crate::agent::{Job, Output};
use crate::scenario::Stage;
use crate::topology::{DISK, Host, Lab, Link, PATH_LOSS};

/// A fence on a host, held by a process that takes commands.
struct Holder {
    host: Host,
    process: Job,
}

impl Holder {
    fn start(lab: &Lab, host: Host) -> Result<Self> {
        let name = host.name();
        lab.node(host).sh(&format!("rm -f /run/pr-lab.{name}"))?;
        let process = lab.node(host).spawn("pr-lab", &format!("exec /lab/bin/pr-lab node {name} {DISK}"))?;
        let there = format!("[ -S /run/pr-lab.{name} ]");
        lab.node(host).until("pr-lab listens", Duration::from_secs(20), &there)?;
        Ok(Self { host, process })
    }

    fn try_tell(&self, lab: &Lab, command: &str) -> Result<Output> {
        let name = self.host.name();
        lab.node(self.host).try_sh(&format!("/lab/bin/pr-lab tell {name} {command}"))
    }

    fn tell(&self, lab: &Lab, command: &str) -> Result<String> {
        let output = self.try_tell(lab, command)?;
        ensure!(output.code == 0, "{}: {command}: {}", self.host.name(), output.text);
        Ok(output.text)
    }

    /// The flood was refused, and had written something before.
    fn was_refused(&self, lab: &Lab) -> Result<()> {
        let said = self.tell(lab, "flooded")?;
        let pages = said.split_whitespace().find_map(|word| word.parse::<u64>().ok()).context("a count of pages")?;
        ensure!(pages > 0 && said.contains("reservation conflict"), "{}'s flood: {said}", self.host.name());
        Ok(())
    }
}

/// How long a write that is late may take to land.
const LATE: Duration = Duration::from_secs(2);

/// The one that fences sees no late write of the other, who was the reservation's holder.
pub(super) fn holder(stage: &mut Stage) -> Result<()> {
    fenced_flood(stage, true)
}

/// The same for a victim that only was a registrant: LIO aborts no tasks of such a one by itself.
pub(super) fn no_holder(stage: &mut Stage) -> Result<()> {
    fenced_flood(stage, false)
}

fn fenced_flood(stage: &mut Stage, victim_holds: bool) -> Result<()> {
    let lab = &stage.lab;
    let (winner, victim) = (Holder::start(lab, Host::San1)?, Holder::start(lab, Host::San2)?);
    if victim_holds {
        victim.tell(lab, "fence")?;
    } else {
        winner.tell(lab, "fence")?;
        victim.tell(lab, "admit")?;
        winner.tell(lab, "yield")?;
        victim.tell(lab, "accept")?;
    }
    victim.tell(lab, "flood 2")?;
    lab.sleep(Duration::from_millis(500));
    winner.tell(lab, "fence")?;
    winner.tell(lab, "fill 1")?;
    lab.sleep(LATE);
    let verified = winner.tell(lab, "verify 1")?;
    victim.was_refused(lab)?;
    let check = victim.try_tell(lab, "check")?;
    ensure!(check.code != 0 && check.text.contains("gone"), "the victim's key: {}", check.text);
    stage.note(verified.trim().trim_start_matches("ok ").to_owned());
    Ok(())
}

/// A path comes back to one host while the other one fences it: it notices, and leaves no key behind.
pub(super) fn path_against_fence(stage: &mut Stage) -> Result<()> {
    let lab = &stage.lab;
    let other = Holder::start(lab, Host::San2)?;
    let race = lab.node(Host::San1).spawn("race", &format!("exec /lab/bin/pr-lab race {DISK} /run/go"))?;
    race.wait_for("the path is about to be registered", PATH_LOSS, |said| said.contains("paused").then_some(()))?;
    other.tell(lab, "fence")?;
    lab.node(Host::San1).sh("touch /run/go")?;
    let output = race.wait(PATH_LOSS)?;
    ensure!(output.code == 0 && output.text.contains("ok: fenced"), "{}", output.text);
    ensure!(keys(lab, Host::San2)?.starts_with("2 keys"), "{}", keys(lab, Host::San2)?);
    Ok(())
}

/// A key of a process that is dead is no obstacle, and does not stay.
pub(super) fn stale_key(stage: &mut Stage) -> Result<()> {
    let lab = &stage.lab;
    let first = Holder::start(lab, Host::San1)?;
    first.tell(lab, "fence")?;
    let before = keys(lab, Host::San1)?;
    first.process.signal(libc::SIGKILL)?;
    first.process.wait(PATH_LOSS)?;
    ensure!(keys(lab, Host::San1)? == before, "a dead process's registration went by itself");
    let second = Holder::start(lab, Host::San1)?;
    second.tell(lab, "fence")?;
    let after = keys(lab, Host::San1)?;
    ensure!(after != before && after.starts_with("2 keys"), "first {before}, then {after}");
    second.tell(lab, "write 1")?;
    Ok(())
}

/// From "N keys" on, as `pr-lab keys` prints them.
fn keys(lab: &Lab, host: Host) -> Result<String> {
    let text = lab.node(host).sh(&format!("/lab/bin/pr-lab keys {DISK}"))?;
    let at = text.find(", ").with_context(|| text.clone())?;
    Ok(text[at + 2..].trim_end().to_owned())
}

/// Writes queued in dm-multipath outlive their process. As long as one can still land, its host is not let in again.
pub(super) fn queued_write(stage: &mut Stage) -> Result<()> {
    let lab = &stage.lab;
    let winner = Holder::start(lab, Host::San1)?;
    let victim = Holder::start(lab, Host::San2)?;
    winner.tell(lab, "fence")?;
    victim.tell(lab, "admit")?;
    winner.tell(lab, "yield")?;
    victim.tell(lab, "accept")?;
    // multipathd would end the queueing at once, as its configuration says.
    lab.node(Host::San2).sh("pkill -STOP -x multipathd && dmsetup message mpatha 0 queue_if_no_path")?;
    victim.tell(lab, "flood 2")?;
    for link in [Link::A2, Link::B2] {
        lab.cable(link).cut();
    }
    let none = "dmsetup status mpatha; [ $(dmsetup status mpatha | grep -oE ' [0-9]+:[0-9]+ F ' | wc -l) = 2 ]";
    lab.node(Host::San2).until("all paths count as lost", 2 * PATH_LOSS, none)?;
    victim.process.signal(libc::SIGKILL)?;
    winner.tell(lab, "fence")?;
    winner.tell(lab, "fill 1")?;

    // The dead process's writes are still there, somewhere: the host's claim is not free.
    let second = lab
        .node(Host::San2)
        .try_sh("python3 -c \"import os; os.open('/dev/mapper/mpatha', os.O_RDWR | os.O_EXCL)\"")?;
    ensure!(
        second.code != 0 && second.text.contains("busy"),
        "the claim is free while writes are queued: {}",
        second.text
    );
    for link in [Link::A2, Link::B2] {
        lab.cable(link).mend();
    }
    lab.node(Host::San2).sh("pkill -CONT -x multipathd")?;
    lab.node(Host::San2).until("both paths are back", 2 * PATH_LOSS, BOTH_PATHS)?;
    lab.sleep(LATE);
    winner.tell(lab, "verify 1")?;
    let ended = victim.process.wait(PATH_LOSS)?;
    ensure!(ended.code == 128 + libc::SIGKILL, "pr-lab ended with {}", ended.code);
    let victim = Holder::start(lab, Host::San2)?;
    victim.tell(lab, "admit")?;
    winner.tell(lab, "verify 1")?;
    stage.note("queued writes of a dead process were refused");
    Ok(())
}

/// A host comes back from other initiator ports. With its earlier life's key LIO takes what it has just registered for
/// unregistered, though READ KEYS shows it; the node finds out, registers anew, and the reservation stays all the while.
pub(super) fn new_ports(stage: &mut Stage) -> Result<()> {
    let lab = &stage.lab;
    let san = lab.node(Host::San1);
    let first = Holder::start(lab, Host::San1)?;
    first.tell(lab, "fence")?;
    first.process.signal(libc::SIGKILL)?;
    first.process.wait(PATH_LOSS)?;
    // As after a boot: udev is done with the paths and with the map that were there before. What it still has to do about them
    // is done to the new ones, of the same names: multipathd takes an old map's event for its own map's, and the old one's end
    // takes the new one's link away.
    san.sh("iscsiadm -m node --logout > /dev/null && udevadm settle --timeout 20")?;
    san.until("the map is gone", PATH_LOSS, "multipath -F; ! dmsetup info mpatha 2> /dev/null")?;
    san.sh("udevadm settle --timeout 20")?;
    san.sh("for record in $(iscsiadm -m node | cut -d, -f1 | sort -r); do iscsiadm -m node -p $record --login; done")?;
    san.sh_within(2 * PATH_LOSS, "sh /lab/guest/paths && udevadm settle --timeout 20")?;
    let second = Holder::start(lab, Host::San1)?;
    second.tell(lab, "fence")?;
    let refused = refused_paths(lab)?;
    ensure!(refused > 0, "no path refuses a write: LIO is not what it was, or the ports are the same");
    for _ in 0..2 {
        second.tell(lab, "check")?;
        ensure!(keys(lab, Host::San1)?.contains("; reserved by"), "{}", keys(lab, Host::San1)?);
    }
    ensure!(refused_paths(lab)? == 0, "a path still refuses: {}", keys(lab, Host::San1)?);
    ensure!(keys(lab, Host::San1)?.contains(", 2 keys") || keys(lab, Host::San1)?.starts_with("2 keys"));
    second.tell(lab, "write 1")?;
    stage.note(format!("{refused} of 2 paths refused, and were registered anew"));
    Ok(())
}

/// By how many of its paths san1 can't write.
fn refused_paths(lab: &Lab) -> Result<usize> {
    let said = lab.node(Host::San1).sh("for path in $(multipathd show paths format '%d' | tail -n +2); do \
         for try in 1 2 3; do \
         said=$(dd if=/dev/zero of=/dev/$path bs=4096 seek=256 count=1 oflag=direct 2>&1) && break; done; \
         echo \"$path: $said\"; done")?;
    Ok(said.lines().filter(|line| line.contains("Invalid exchange")).count())
}
