//! A pair of nodes and a client, as an operator sets them up: configuration, key and volume, then processes on the hosts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::rand::{GetRandomFlags, getrandom};
use serde::Deserialize;
use twinsan_control::admin::NodeStatus;
pub use twinsan_control::admin::VolumeStatus;

use crate::agent::{Job, Output, tail};
use crate::machine::Kind;
use crate::topology::{DISK, Host, Lab, SANS};

/// The nodes' names.
pub const NODES: [&str; 2] = ["san1", "san2"];
/// The volume.
pub const VOLUME: &str = "vol1";
/// The volume's size.
pub const VOLUME_MIB: u64 = 128;
/// Where the configuration is, on every host.
pub const CONFIG: &str = "/etc/twinsan/twinsan.toml";
/// For whatever ends by itself in a moment. One CPU a guest, and few on the host.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// It reads and writes a few pages. But now and then the answer to a read never comes, by an iSCSI connection that is well
/// (seen on User-Mode Linux, with the shelf idle); the kernel gives such a command up after 30 s, and asks again.
const FORMATTED: Duration = Duration::from_secs(90);
/// Between two looks at something that is awaited. Each is a program that is started on the host that it asks about, and half
/// of what that host can do with it.
const LOOK: Duration = Duration::from_millis(150);

/// How a pair is set up.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where each node runs.
    pub hosts: [Host; 2],
    /// `tcp` or `rdma`.
    pub fabric: &'static str,
    /// `local-lock` or `scsi-pr`.
    pub fence: &'static str,
    /// The lane's data ring.
    pub staging: &'static str,
    /// How soon others are given up, on the fastest hosts.
    pub timing: Timing,
}

/// `[timing]` of the configuration, in ms. Slow hosts get all of it multiplied ([`Kind::slowness`]): their heartbeats are late
/// by as much as they are slow, or more, as all four wait for few CPUs. With shorter times the lab would show takeovers that
/// nobody caused.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Between two heartbeats.
    pub heartbeat: u32,
    /// A primary silent for so long is replaced.
    pub takeover: u32,
    /// A secondary silent for so long is dropped.
    pub drop: u32,
    /// A joiner without progress for so long is thrown away.
    pub join: u32,
}

impl Timing {
    /// What a configuration that says nothing has.
    pub const DEFAULT: Self = Self { heartbeat: 50, takeover: 1000, drop: 500, join: 2000 };

    fn table(self, slowness: u32) -> String {
        let [heartbeat, takeover, drop, join] =
            [self.heartbeat, self.takeover, self.drop, self.join].map(|ms| ms * slowness);
        format!(
            "[timing]\nheartbeat_ms = {heartbeat}\ntakeover_ms = {takeover}\ndrop_ms = {drop}\njoin_ms = {join}\n\n"
        )
    }
}

/// The command line of `twinsan` on a host, with the pair's configuration.
#[must_use]
pub fn twinsan(arguments: &str) -> String {
    format!("/lab/bin/twinsan --config {CONFIG} {arguments}")
}

impl Plan {
    /// Both nodes on one host, where the fence can reach both.
    #[must_use]
    pub fn one_host() -> Self {
        Self {
            hosts: [Host::San1, Host::San1],
            fabric: "tcp",
            fence: "local-lock",
            staging: "16MiB",
            timing: Timing::DEFAULT,
        }
    }

    /// A node on each SAN host.
    #[must_use]
    pub fn two_hosts(fabric: &'static str) -> Self {
        Self { hosts: SANS, fabric, fence: "scsi-pr", staging: "16MiB", timing: Timing::DEFAULT }
    }

    /// What `twinsan.toml` says. Addresses: the client's link first, then the one between the nodes; each side dials
    /// the first that it can reach.
    fn configuration(&self, kind: Kind) -> String {
        let mut text = self.timing.table(kind.slowness());
        for (node, name) in NODES.into_iter().enumerate() {
            let (client_side, node_side) = match self.hosts[node] {
                Host::San2 => ("10.3.2.1", "10.4.0.2"),
                _ => ("10.3.1.1", "10.4.0.1"),
            };
            let (fabric, port) = (self.fabric, 7401 + node);
            text += &format!(
                "[[node]]\nname = \"{name}\"\nlisten = [\"{fabric}://{client_side}:{port}\", \
                 \"{fabric}://{node_side}:{port}\"]\nadmin = \"/run/twinsan/{name}.sock\"\n\n"
            );
        }
        let Self { fence, staging, .. } = self;
        text + &format!(
            "[[volume]]\nname = \"{VOLUME}\"\ndisk = \"{DISK}\"\nfence = \"{fence}\"\nkey_file = \"vol1.key\"\n\
             staging = \"{staging}\"\n"
        )
    }
}

/// How the volume is a block device on the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Front {
    /// An NBD server on a socket, and Debian's `nbd-client`.
    NbdClient,
    /// The kernel's nbd driver, served by `twinsan attach` itself.
    NbdDevice,
    /// The kernel's ublk driver.
    Ublk,
}

impl Front {
    /// For `twinsan attach`.
    const fn arguments(self) -> &'static str {
        match self {
            Self::NbdClient => "--nbd unix:/run/nbd.sock",
            Self::NbdDevice => "--nbd-device /dev/nbd0",
            Self::Ublk => "--ublk --ublk-id 0",
        }
    }

    /// The block device that it makes.
    #[must_use]
    pub const fn device(self) -> &'static str {
        match self {
            Self::NbdClient | Self::NbdDevice => "/dev/nbd0",
            Self::Ublk => "/dev/ublkb0",
        }
    }
}

/// A pair that is set up.
#[derive(Debug)]
pub struct Pair {
    plan: Plan,
    nodes: [Option<Job>; 2],
    client: Option<Job>,
}

impl Pair {
    /// Puts configuration and key on all hosts, and formats the disk. Starts nothing.
    ///
    /// # Errors
    /// If a host can't, or `twinsan format` fails.
    pub fn deploy(lab: &Lab, plan: Plan) -> Result<Self> {
        let mut key = [0; 32];
        getrandom(&mut key, GetRandomFlags::empty())?;
        let pair = Self { plan, nodes: [None, None], client: None };
        // On the share too, for hosts that are switched off and on again.
        std::fs::write(lab.share().join("vol1.key"), key)?;
        std::fs::write(lab.share().join("twinsan.toml"), pair.plan.configuration(lab.kind()))?;
        for host in [pair.plan.hosts[0], pair.plan.hosts[1], Host::Client] {
            pair.install(lab, host)?;
        }
        let format = format!("format {VOLUME} --size {VOLUME_MIB}MiB --block 4096");
        let command = twinsan(&format);
        let output = lab.node(pair.plan.hosts[0]).spawn("format", &command)?.wait(FORMATTED)?;
        ensure!(output.code == 0, "twinsan {format} ended with {}: {}", output.code, output.text);
        Ok(pair)
    }

    /// A pair that is dual, with a client, and its block device there.
    ///
    /// # Errors
    /// If it does not come to that.
    pub fn serve(lab: &Lab, plan: Plan, front: Front) -> Result<(Self, &'static str)> {
        let mut pair = Self::deploy(lab, plan)?;
        pair.start_node(lab, 0)?;
        pair.start_node(lab, 1)?;
        let device = pair.attach(lab, front)?;
        pair.until_dual(lab)?;
        Ok((pair, device))
    }

    /// What a host needs before anything of ours runs on it; again after it was switched off.
    ///
    /// # Errors
    /// If it can't.
    pub fn install(&self, lab: &Lab, host: Host) -> Result<()> {
        let install = "install -d -m 700 /etc/twinsan /run/twinsan && cp /lab/twinsan.toml /etc/twinsan && \
                       install -m 600 /lab/vol1.key /etc/twinsan";
        lab.node(host).sh(install)?;
        Ok(())
    }

    /// `twinsan` on a host, with this configuration.
    ///
    /// # Errors
    /// If the host is gone. Any exit status is an answer.
    pub fn twinsan(&self, lab: &Lab, host: Host, arguments: &str) -> Result<Output> {
        lab.node(host).try_sh(&twinsan(arguments))
    }

    /// The host that a node runs on.
    #[must_use]
    pub fn host(&self, node: usize) -> Host {
        self.plan.hosts[node]
    }

    /// Starts a node's process.
    ///
    /// # Errors
    /// If it runs, or its host is off.
    pub fn start_node(&mut self, lab: &Lab, node: usize) -> Result<()> {
        let name = NODES[node];
        ensure!(self.nodes[node].as_ref().is_none_or(|job| !job.is_running()), "{name} runs already");
        let command = format!("exec /lab/bin/twinsand --config {CONFIG} --node {name}");
        self.nodes[node] = Some(lab.node(self.host(node)).spawn(&format!("twinsand-{name}"), &command)?);
        Ok(())
    }

    /// A signal for a node's process.
    ///
    /// # Errors
    /// If it was never started, or its host is gone.
    pub fn signal_node(&self, node: usize, signal: i32) -> Result<()> {
        self.nodes[node].as_ref().with_context(|| format!("{} was not started", NODES[node]))?.signal(signal)
    }

    /// Waits for the end of a node's process, and gives its exit status.
    ///
    /// # Errors
    /// If it does not end in time.
    pub fn wait_node(&mut self, node: usize) -> Result<i32> {
        let job = self.nodes[node].take().with_context(|| format!("{} was not started", NODES[node]))?;
        Ok(job.wait(PATIENCE)?.code)
    }

    /// Whether the node's process runs.
    #[must_use]
    pub fn node_runs(&self, node: usize) -> bool {
        self.nodes[node].as_ref().is_some_and(Job::is_running)
    }

    /// What the node's process has said, since it was started last.
    #[must_use]
    pub fn node_said(&self, node: usize) -> String {
        self.nodes[node].as_ref().map(Job::said).unwrap_or_default()
    }

    /// Starts `twinsan attach` on the client, and waits until the volume is open. Gives the block device.
    ///
    /// # Errors
    /// If it ends, or does not say so in time.
    pub fn attach(&mut self, lab: &Lab, front: Front) -> Result<&'static str> {
        self.attach_from(lab, Host::Client, front, "")?;
        Ok(front.device())
    }

    /// The same once the client that is attached now, or counts as that, has gone.
    ///
    /// # Errors
    /// The same.
    pub fn attach_waiting(&mut self, lab: &Lab, front: Front) -> Result<&'static str> {
        self.attach_from(lab, Host::Client, front, " --wait")?;
        Ok(front.device())
    }

    /// The same on any host that reaches the nodes. Gives the client that was attached before.
    ///
    /// # Errors
    /// The same.
    pub fn attach_from(&mut self, lab: &Lab, host: Host, front: Front, more: &str) -> Result<Option<Job>> {
        let client = lab.node(host);
        let arguments = front.arguments().to_owned() + more;
        let command = format!("exec {}", twinsan(&format!("attach {VOLUME} {arguments}")));
        let job = client.spawn("attach", &command)?;
        // Its only line of standard output (`twinsan attach --help`).
        let ready = |said: &str| said.lines().any(|line| line.contains(READY)).then_some(());
        job.wait_for("the volume is open", PATIENCE, ready)?;
        if front == Front::NbdClient {
            client.sh(&format!("nbd-client -unix /run/nbd.sock -N {VOLUME} {} -b 4096", front.device()))?;
        }
        Ok(self.client.replace(job))
    }

    /// `twinsan attach` itself.
    ///
    /// # Errors
    /// If it was not started.
    pub fn client(&self) -> Result<&Job> {
        self.client.as_ref().context("the client is not attached")
    }

    /// What a node says of the volume; `None` if it does not answer.
    ///
    /// # Errors
    /// If its host is gone.
    pub fn status(&self, lab: &Lab, node: usize) -> Result<Option<VolumeStatus>> {
        let output = self.twinsan(lab, self.host(node), "status --json 2> /dev/null")?;
        serde_json::from_str::<AllStatus>(&output.text).with_context(|| tail(&output.text))?;
        Ok(volume_of(&output.text, NODES[node]))
    }

    /// Waits until a node's status is as wanted.
    ///
    /// # Errors
    /// If it is not in time: with the last one.
    pub fn until(
        &self,
        lab: &Lab,
        node: usize,
        what: &str,
        holds: impl Fn(&VolumeStatus) -> bool,
    ) -> Result<VolumeStatus> {
        let begin = Instant::now();
        loop {
            let status = self.status(lab, node)?;
            if let Some(status) = status.as_ref().filter(|status| holds(status)) {
                return Ok(status.clone());
            }
            let role =
                status.map_or("no answer".to_owned(), |s| format!("{}, dual: {}, epoch {}", s.role, s.dual, s.epoch));
            ensure!(
                begin.elapsed() < lab.scaled(PATIENCE),
                "{} not in {} s: {what} ({role}); it said:\n{}",
                NODES[node],
                lab.scaled(PATIENCE).as_secs(),
                tail(&self.node_said(node))
            );
            lab.sleep(LOOK);
        }
    }

    /// Waits until both nodes hold every completed write, and says which is primary.
    ///
    /// # Errors
    /// If it does not come to that.
    pub fn until_dual(&self, lab: &Lab) -> Result<usize> {
        let dual = |status: &VolumeStatus| status.dual && (status.role == "primary" || status.role == "secondary");
        let begin = Instant::now();
        loop {
            // The two are asked one after the other, and may have changed between.
            let roles = [self.until(lab, 0, "dual", dual)?.role, self.until(lab, 1, "dual", dual)?.role];
            if let Some(primary) = roles.iter().position(|role| role == "primary")
                && roles[1 - primary] == "secondary"
            {
                return Ok(primary);
            }
            ensure!(begin.elapsed() < lab.scaled(PATIENCE), "the nodes are {roles:?}");
        }
    }
}

/// What `twinsan attach` says once clients may connect.
const READY: &str = " is ready at ";

/// What `twinsan status --json` tells of the volume on a node; `None`: that has not answered.
pub(crate) fn volume_of(json: &str, node: &str) -> Option<VolumeStatus> {
    let mut all: AllStatus = serde_json::from_str(json).ok()?;
    let Answer::Status(status) = all.nodes.remove(node)? else { return None };
    status.volumes.into_iter().find(|volume| volume.name == VOLUME)
}

/// `twinsan status --json`.
#[derive(Debug, Deserialize)]
struct AllStatus {
    nodes: BTreeMap<String, Answer>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Status(Box<NodeStatus>),
    Unreachable(#[expect(dead_code, reason = "that it did not answer is all that is asked")] String),
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use twinsan_control::config::Config;

    use super::*;

    #[test]
    fn every_plan_is_a_configuration_on_every_machine() {
        let timing = Timing { takeover: 5000, ..Timing::DEFAULT };
        for plan in [Plan::one_host(), Plan::two_hosts("rdma"), Plan { timing, ..Plan::two_hosts("tcp") }] {
            for kind in [Kind::Uml, Kind::Qemu] {
                let text = plan.configuration(kind);
                Config::parse(&text, Path::new(CONFIG)).unwrap_or_else(|error| panic!("{kind:?}: {error}\n{text}"));
            }
        }
    }
}
