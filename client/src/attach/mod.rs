//! `twinsan attach`: a volume as a block device, for NBD clients or for this host's kernel.

mod clock;
mod dial;
mod direct;
mod discover;
mod door;
mod driver;
mod ladder;
mod nodes;
mod notice;
mod outbox;
mod placement;
mod signals;
mod volume;

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use twinsan_arena::PagePolicy;
use twinsan_auth::Key;
use twinsan_control::Config;
use twinsan_control::config::Volume as VolumeConfig;
use twinsan_fabric::{Fabric, Interest, WaitPolicy};
use twinsan_nbd::Export;
use twinsan_network::{Network, NetworkOptions};
use twinsan_session::{Ended, Session, SessionConfig, Timing};
use twinsan_staging::Geometry;
use twinsan_ublk::Control;
use twinsan_wire::{NodeId, VolumeShape};

use self::clock::Clock;
use self::dial::Target;
pub use self::direct::Direct;
use self::door::Door;
use self::driver::{Driver, FIRST_CONNECTION, Outcome, Parts, SIGNALS};
pub use self::ladder::HEADER as LADDER_HEADER;
use self::ladder::Ladder;
use self::nodes::Nodes;
use self::signals::Signals;
use self::volume::Volume;
use crate::device::ublk::UblkDevice;
use crate::device::{self, ClaimedNbd, NbdDeviceName};
use crate::front::{FrontEnd, NbdAddress, NbdFront, NbdListener, NbdOptions, Shape, UblkFront};
use crate::memory::Memory;

/// Where a volume's requests come in.
#[derive(Clone, Debug)]
pub enum Place {
    /// From NBD clients.
    Nbd {
        /// Where they connect.
        address: NbdAddress,
        /// That address may be one that other hosts reach.
        allow_remote: bool,
    },
    /// From this host's kernel, by its nbd driver.
    NbdDevice {
        /// The device.
        device: NbdDeviceName,
        /// How long its requests wait for a new process when this one has died.
        dead_timeout: Duration,
    },
    /// From this host's kernel, by its ublk driver.
    Ublk {
        /// N of `/dev/ublkbN`; `None`: a free one.
        id: Option<u32>,
    },
}

/// What `twinsan attach` was told.
#[derive(Clone, Debug)]
pub struct Attach {
    /// The volume's name in the configuration.
    pub volume: String,
    /// Where its requests come in.
    pub place: Place,
    /// A request that takes longer is answered by EIO. `None`: it waits.
    pub io_timeout: Option<Duration>,
    /// Wait while another client is attached.
    pub wait: bool,
    /// Take the volume over from another client that is attached.
    pub takeover: bool,
    /// How long to poll before sleeping. `None`: as configured.
    pub spin: Option<Duration>,
    /// Where to write how long each step of the last writes took.
    pub ladder: Option<PathBuf>,
}

/// The session was taken over by another client: its own exit code, so that a supervisor does not fight it.
#[derive(Debug, thiserror::Error)]
#[error("volume \"{0}\": another client has attached to it; this one may not write to it any more")]
pub struct Superseded(String);

/// Attaches and serves until a signal, or until another client takes the volume.
///
/// # Errors
/// If the configuration, the addresses, the nodes or the volume do not allow it; [`Superseded`].
pub fn attach(config: &Config, options: &Attach) -> anyhow::Result<()> {
    let volume = config.volume(&options.volume)?;
    let targets = targets(config, volume)?;
    let clock = Clock::start();
    let mut signals = Signals::catch().context("catching SIGTERM and SIGINT")?;
    // The place is taken before anything else, so that a mistake in it shows at once.
    let taken = Taken::take(&options.place)?;
    let spin = options.spin.unwrap_or(Duration::from_micros(config.timing.spin_us));
    let mut fabric = Network::new(NetworkOptions { wait: WaitPolicy { spin }, ..NetworkOptions::default() })?;
    fabric.watch(signals.as_fd(), SIGNALS, Interest::Readable)?;
    let Some(said) = discover::shape(&mut fabric, &targets, &mut signals, clock)? else { return Ok(()) };
    let parts = assemble(config, options, volume, targets, &said, (fabric, signals, clock, taken))?;
    match Driver::new(parts).run() {
        Outcome::Ended(Ended::Detached) => Ok(()),
        Outcome::Ended(Ended::Superseded) => Err(Superseded(options.volume.clone()).into()),
        Outcome::Ended(ended) => bail!("volume \"{}\": {}", options.volume, notice::why_ended(ended)),
        Outcome::Abandoned => bail!(
            "volume \"{}\": stopped without its nodes' word; what was completed is safe, what was still open may or \
             may not have happened",
            options.volume
        ),
        Outcome::Shut(why) => bail!("volume \"{}\": {why}", options.volume),
    }
}

/// A place that is ours, before the volume's shape is known.
enum Taken {
    Listener(NbdListener),
    Nbd { claimed: ClaimedNbd, path: String, dead_timeout: Duration },
    Ublk { control: Box<Control>, id: Option<u32> },
}

impl Taken {
    fn take(place: &Place) -> anyhow::Result<Self> {
        match place {
            Place::Nbd { address, allow_remote } => Ok(Self::Listener(NbdListener::bind(address, *allow_remote)?)),
            Place::NbdDevice { device, dead_timeout } => {
                let path = device.path().display().to_string();
                let claimed = ClaimedNbd::take(*device).with_context(|| path.clone())?;
                Ok(Self::Nbd { claimed, path, dead_timeout: *dead_timeout })
            }
            Place::Ublk { id } => Ok(Self::Ublk { control: Box::new(Control::open()?), id: *id }),
        }
    }

    fn door(self, uuid: [u8; 16], shape: &Shape, export: &Export) -> anyhow::Result<Door> {
        match self {
            Self::Listener(listener) => Ok(listener.into()),
            Self::Nbd { claimed, path, dead_timeout } => {
                device::protect();
                let identity = format!("volume {} {:032x}", export.name, u128::from_be_bytes(uuid));
                let device = claimed.device(&identity, export.clone(), dead_timeout).with_context(|| path)?;
                Ok(device.into())
            }
            Self::Ublk { control, id } => {
                device::protect();
                Ok(UblkDevice::find(*control, id, uuid, shape)?.into())
            }
        }
    }
}

/// The pair's own idea of a silence counts for its clients too: who raises it for slow hosts raises both.
fn timing(config: &Config) -> Timing {
    let pair = config.timing;
    Timing { heartbeat_ms: pair.heartbeat_ms, silent_ms: pair.takeover_ms, ..Timing::default() }
}

fn targets(config: &Config, volume: &VolumeConfig) -> anyhow::Result<[Target; 2]> {
    let key = volume.key_file.as_deref().map(Key::load).transpose()?;
    Ok(NodeId::BOTH.map(|node| {
        let at = &config.nodes[node.index()];
        let addresses = config.addresses_of(node, volume).iter().map(ToString::to_string).collect();
        Target { node, name: at.name.clone(), addresses, volume: volume.name, key: key.clone() }
    }))
}

/// Everything that depends on the volume's shape.
fn assemble(
    config: &Config,
    options: &Attach,
    volume: &VolumeConfig,
    targets: [Target; 2],
    said: &VolumeShape,
    (mut fabric, signals, clock, taken): (Network, Signals, Clock, Taken),
) -> anyhow::Result<Parts<Network>> {
    let geometry = Geometry::for_volume(said.ring_bytes, said.block_bytes)
        .map_err(|error| anyhow::anyhow!("volume \"{}\": a node says: {error}", options.volume))?;
    let shape = Shape { block_bytes: said.block_bytes, blocks: said.blocks, max_payload: geometry.max_payload() };
    let export = Export {
        name: options.volume.clone(),
        description: format!("TwinSAN volume {}", options.volume),
        size: shape.bytes(),
        block_bytes: said.block_bytes,
    };
    let door = taken.door(said.uuid, &shape, &export)?;
    let memory = Memory::new(&options.volume, said.ring_bytes, PagePolicy::Auto, config.shares_memory())?;
    tracing::debug!("{}", memory.arena().report());
    let region = fabric.register(memory.arena().clone())?;
    let nodes = Nodes::new(targets, memory.clone(), region, *said, volume.integrity).timed(options.ladder.is_some());
    let mut session_config = SessionConfig::new(geometry, said.blocks);
    session_config.timing = timing(config);
    // Who left the device waiting may count as attached for a moment after its death.
    session_config.wait_if_busy = options.wait || door.is_awaited();
    session_config.take_over = options.takeover;
    let session = Session::new(session_config);
    let io_timeout_ms = options.io_timeout.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    let front = if door.is_ublk() {
        FrontEnd::Ublk(Box::new(UblkFront::new(shape, io_timeout_ms, memory)))
    } else {
        let options = NbdOptions { export, shape, io_timeout_ms, first_token: FIRST_CONNECTION };
        FrontEnd::Nbd(Box::new(NbdFront::new(options, memory)))
    };
    let on_ready = Box::new(ready(options.volume.clone(), shape));
    let ladder = options.ladder.as_deref().map(|path| ladder(path, &geometry)).transpose()?;
    let volume = Volume { session, actions: Vec::with_capacity(256), now_ms: 0, ladder };
    Ok(Parts { fabric, nodes, volume, front, door, signals, clock, heartbeat_ms: config.timing.heartbeat_ms, on_ready })
}

fn ladder(path: &Path, geometry: &Geometry) -> anyhow::Result<Ladder> {
    let file = File::create(path).with_context(|| format!("--ladder {}", path.display()))?;
    Ok(Ladder::new(file, geometry.block_bytes(), geometry.slots()))
}

/// Tells people and the service manager that requests may come.
fn ready(name: String, shape: Shape) -> impl FnMut(&Door) {
    move |door| {
        let size = twinsan_control::Size(shape.bytes());
        let place = door.place(&name);
        let bytes = shape.block_bytes;
        let words = format!("volume \"{name}\" ({size}, blocks of {bytes} bytes) is ready at {place}");
        if let Err(error) = crate::say(&words) {
            tracing::warn!("{words}; standard output: {error}");
        }
        if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
            tracing::warn!("telling the service manager: {error}");
        }
    }
}
