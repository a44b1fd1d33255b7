//! A lab whose hands do nothing would pass every other scenario: here each of them is looked at.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::scenario::Stage;
use crate::topology::{Host, Lab, Link};

pub(super) fn power_and_cables(stage: &mut Stage) -> Result<()> {
    cables(&stage.lab)?;
    freeze(&mut stage.lab)?;
    kill(&mut stage.lab)?;
    stage.note("cut, delay, loss, freeze, kill");
    Ok(())
}

fn ping(lab: &Lab, address: &str) -> Result<bool> {
    Ok(lab.node(Host::Client).try_sh(&format!("ping -c 1 -W 1 {address}"))?.code == 0)
}

fn cables(lab: &Lab) -> Result<()> {
    let cable = lab.cable(Link::C1);
    ensure!(ping(lab, "10.3.1.1")? && ping(lab, "10.3.2.1")?, "a new lab's cables");
    cable.cut();
    ensure!(!ping(lab, "10.3.1.1")?, "a frame passed a cable that is cut");
    ensure!(ping(lab, "10.3.2.1")?, "the other cable was cut too");
    cable.mend();
    ensure!(ping(lab, "10.3.1.1")?, "a cable that was mended");
    cable.delay(Duration::from_millis(100));
    let begin = Instant::now();
    ensure!(ping(lab, "10.3.1.1")?, "a slow cable");
    // Once each way.
    ensure!(begin.elapsed() >= Duration::from_millis(200), "a delay of 100 ms took {:?}", begin.elapsed());
    cable.mend();
    cable.lose_one_in(1);
    ensure!(!ping(lab, "10.3.1.1")?, "a frame passed a cable that loses all");
    cable.mend();
    Ok(())
}

fn freeze(lab: &mut Lab) -> Result<()> {
    let counting = "i=0; while :; do i=$((i + 1)); echo $i; sleep 0.02; done";
    let job = lab.node(Host::San1).spawn("count", counting)?;
    job.wait_for("it counts", Duration::from_secs(10), |said| said.lines().nth(3).map(|_| ()))?;
    let clock = FrozenClock::freeze(lab, Host::San1)?;
    // What was on its way has arrived by then.
    lab.sleep(Duration::from_millis(300));
    let before = job.said();
    lab.sleep(Duration::from_millis(500));
    ensure!(job.said() == before, "a frozen host went on counting");
    ensure!(!ping(lab, "10.3.1.1")?, "a frozen host answered");
    clock.thaw(lab)?;
    let len = before.lines().count();
    job.wait_for("it goes on", Duration::from_secs(10), |said| said.lines().nth(len).map(|_| ()))?;
    job.signal(libc::SIGKILL)?;
    Ok(())
}

/// A host that is frozen, and what its clock says of that.
pub(super) struct FrozenClock {
    host: Host,
    /// When the host's clock had been read, just before it froze.
    asked: Instant,
    before: Duration,
    frozen: Instant,
}

impl FrozenClock {
    pub(super) fn freeze(lab: &mut Lab, host: Host) -> Result<Self> {
        let before = uptime(lab, host)?;
        let asked = Instant::now();
        lab.node_mut(host).freeze()?;
        Ok(Self { host, asked, before, frozen: Instant::now() })
    }

    /// Gives by how much its clock lags since, where it stands still while the host is frozen, as its kind of machine should.
    pub(super) fn thaw(self, lab: &mut Lab) -> Result<Option<Duration>> {
        let frozen = self.frozen.elapsed();
        lab.node_mut(self.host).thaw()?;
        if !lab.kind().clock_stands_still() {
            return Ok(None);
        }
        let ran = uptime(lab, self.host)?.saturating_sub(self.before);
        let lag = self.asked.elapsed().saturating_sub(ran);
        let name = self.host.name();
        // The rest is for how long a busy host's answer takes to get here. A clock that jumps on lags by nothing.
        let enough = lag >= frozen * 3 / 4;
        ensure!(enough, "{name} was frozen for {frozen:?}, and its clock lags by {lag:?} only");
        Ok(Some(lag))
    }
}

/// What a host's clock says.
fn uptime(lab: &Lab, host: Host) -> Result<Duration> {
    let said = lab.node(host).sh("cut -d ' ' -f 1 /proc/uptime")?;
    Ok(Duration::try_from_secs_f64(said.trim().parse()?)?)
}

fn kill(lab: &mut Lab) -> Result<()> {
    lab.node(Host::San2).sh("echo here > /run/before")?;
    lab.node_mut(Host::San2).kill();
    ensure!(!lab.node_mut(Host::San2).is_on() && !ping(lab, "10.3.2.1")?, "a killed host lives");
    lab.power_cycle(&[Host::San2])?;
    ensure!(lab.node(Host::San2).try_sh("test -e /run/before")?.code != 0, "a killed host kept its memory");
    ensure!(ping(lab, "10.3.2.1")?, "on the same cables again");
    Ok(())
}
