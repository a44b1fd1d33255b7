//! The kernel's nbd device, by netlink (`linux/nbd-netlink.h`): no ioctl that blocks, no process or thread besides.
//!
//! ```text
//!          connect                     the process dies                  nobody came in time
//! (none) ──────────▶ served ──────────────────────────────▶ waiting ────────────────────────▶ failing
//!    ▲                 │  ▲                                    │                                 │
//!    └── disconnect ───┘  └────────────── reconnect ───────────┴─────────────────────────────────┘
//! ```
//!
//! The kernel gets one end of a socket pair that is past the handshake, and the front end the other.
//!
//! * **served**: a request without an answer for [`REQUEST_TIMEOUT_S`] has the kernel hang up and keep it (and what
//!   else is open) for the next socket, which we give it at once: a long outage costs a new socket now and then, never
//!   an error. What was sent twice is written twice, in order: the earlier copy is committed, or dropped with its
//!   socket, before the later one is read.
//! * **waiting**: what was open when the process died comes again that long after it was first sent, new requests as
//!   soon as there is a socket.
//! * **failing**: nobody has come within the dead timeout. Requests fail, so that nothing hangs for good; a new
//!   process still takes the device up.
//!
//! One socket, as everything ends up in one loop; more would only spread the kernel's half over more threads.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use twinsan_nbd::Export;

use super::Claim;
use super::genl::{Genl, Message};

/// See the module's text. Longer than a takeover, and short enough to wait for after a crash.
const REQUEST_TIMEOUT_S: u64 = 10;

const FAMILY: &str = "nbd";
const CMD_CONNECT: u8 = 1;
const CMD_DISCONNECT: u8 = 2;
const CMD_RECONFIGURE: u8 = 3;
const ATTR_INDEX: u16 = 1;
const ATTR_SIZE_BYTES: u16 = 2;
const ATTR_BLOCK_SIZE_BYTES: u16 = 3;
const ATTR_TIMEOUT: u16 = 4;
const ATTR_SERVER_FLAGS: u16 = 5;
const ATTR_CLIENT_FLAGS: u16 = 6;
const ATTR_SOCKETS: u16 = 7;
const ATTR_DEAD_CONN_TIMEOUT: u16 = 8;
const ATTR_BACKEND_IDENTIFIER: u16 = 10;
const SOCK_ITEM: u16 = 1;
const SOCK_FD: u16 = 1;
/// What every identity begins with.
const IDENTITY: &str = "twinsan ";

/// `/dev/nbdN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NbdDeviceName(u32);

impl FromStr for NbdDeviceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_prefix("/dev/nbd").filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
        // The kernel's own limit: minor numbers have 20 bits.
        number
            .and_then(|number| number.parse().ok())
            .filter(|&index| index < 1 << 20)
            .map(Self)
            .ok_or_else(|| format!("\"{text}\" is no device of the kernel's nbd driver: write /dev/nbd0, /dev/nbd1 …"))
    }
}

impl NbdDeviceName {
    fn name(self) -> String {
        format!("nbd{}", self.0)
    }

    /// The device's file.
    #[must_use]
    pub fn path(self) -> PathBuf {
        Path::new("/dev").join(self.name())
    }
}

/// A device that this process alone may serve, not looked at for a volume yet.
#[derive(Debug)]
pub(crate) struct ClaimedNbd {
    device: NbdDeviceName,
    genl: Genl,
    family: u16,
    _claim: Claim,
}

impl ClaimedNbd {
    /// Takes the device for this process; the kernel is told nothing yet.
    ///
    /// # Errors
    /// If the kernel has no nbd driver, or somebody else has the device.
    pub(crate) fn take(device: NbdDeviceName) -> anyhow::Result<Self> {
        let claim = Claim::take(&device.name())?;
        let mut genl = Genl::open().context("netlink")?;
        let family = match genl.family(FAMILY) {
            Ok(family) => family,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                bail!("this kernel has no nbd driver, or it is not loaded: modprobe nbd")
            }
            Err(error) => return Err(error).context("looking for the kernel's nbd driver"),
        };
        if let Some(owner) = owner(device).filter(|owner| !owner.starts_with(IDENTITY)) {
            bail!("in use by {owner}: {}", instead(device));
        }
        Ok(Self { device, genl, family, _claim: claim })
    }

    /// The device for one volume, whose `identity` no other one has.
    ///
    /// # Errors
    /// If the device is in use for anything else.
    pub(crate) fn device(self, identity: &str, export: Export, dead_timeout: Duration) -> anyhow::Result<NbdDevice> {
        let Self { device, genl, family, _claim } = self;
        let identity = format!("{IDENTITY}{identity}");
        let owner = owner(device);
        if let Some(owner) = &owner {
            ensure!(*owner == identity, "in use by \"{owner}\", and this is \"{identity}\": {}", instead(device));
            let sectors = attribute(device, "size").and_then(|text| text.parse::<u64>().ok());
            ensure!(
                sectors.is_none_or(|sectors| sectors * 512 == export.size),
                "made when the volume had not {} bytes, as it has now: {}",
                export.size,
                instead(device)
            );
        }
        // Whole seconds; zero would mean not to wait.
        let dead_timeout_s = dead_timeout.as_secs().max(1);
        Ok(NbdDevice { device, genl, family, identity, export, dead_timeout_s, exists: owner.is_some(), _claim })
    }
}

/// What people can do about a device that they can't have.
fn instead(device: NbdDeviceName) -> String {
    format!("take another device, or end that use: nbd-client -d {}", device.path().display())
}

/// A file of the device's folder in sysfs; `None` if there is none.
fn attribute(device: NbdDeviceName, file: &str) -> Option<String> {
    let text = fs::read_to_string(Path::new("/sys/block").join(device.name()).join(file)).ok()?;
    Some(text.trim_end().to_owned())
}

/// Whom the kernel serves a device for: an identity, or else a process; `None` if it is free.
fn owner(device: NbdDeviceName) -> Option<String> {
    let pid = attribute(device, "pid")?;
    Some(attribute(device, "backend").filter(|text| !text.is_empty()).unwrap_or_else(|| format!("process {pid}")))
}

/// The device, for one volume.
#[derive(Debug)]
pub(crate) struct NbdDevice {
    device: NbdDeviceName,
    genl: Genl,
    family: u16,
    identity: String,
    export: Export,
    dead_timeout_s: u64,
    /// The kernel has it, made by us or by an earlier process.
    exists: bool,
    _claim: Claim,
}

impl NbdDevice {
    /// The device's file.
    pub(crate) fn path(&self) -> PathBuf {
        self.device.path()
    }

    /// Whether the kernel has it: an earlier process's, before the first [`NbdDevice::serve`].
    pub(crate) const fn exists(&self) -> bool {
        self.exists
    }

    /// Makes the device, or gives one that has lost its socket a new one. Returns our end. If the kernel has not
    /// noticed the loss yet, it drops the new socket at once: our end hangs up, and it is to be tried again.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn serve(&mut self) -> io::Result<OwnedFd> {
        let (ours, kernels) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let message = self.request(u32::try_from(kernels.as_raw_fd()).expect("descriptors are not negative"));
        self.genl.command(message)?;
        self.exists = true;
        Ok(ours.into())
    }

    fn request(&self, socket: u32) -> Message {
        let command = if self.exists { CMD_RECONFIGURE } else { CMD_CONNECT };
        let message = Message::new(self.family, command).u32(ATTR_INDEX, self.device.0);
        // A size in RECONFIGURE would wait for what is open, and is the same.
        let message = if self.exists {
            message
        } else {
            message
                .u64(ATTR_SIZE_BYTES, self.export.size)
                .u64(ATTR_BLOCK_SIZE_BYTES, u64::from(self.export.block_bytes))
                .u64(ATTR_SERVER_FLAGS, u64::from(self.export.transmission_flags(false)))
        };
        // Client flags: none. DESTROY_ON_DISCONNECT would take away /dev/nbdN, which modprobe made and other programs
        // count on; DISCONNECT_ON_CLOSE would take the device away with the first program that closes it.
        message
            .u64(ATTR_CLIENT_FLAGS, 0)
            .u64(ATTR_TIMEOUT, REQUEST_TIMEOUT_S)
            .u64(ATTR_DEAD_CONN_TIMEOUT, self.dead_timeout_s)
            .string(ATTR_BACKEND_IDENTIFIER, &self.identity)
            .nested(ATTR_SOCKETS, |m| m.nested(SOCK_ITEM, |m| m.u32(SOCK_FD, socket)))
    }

    /// Takes the device away. Our end of its socket has been closed before: a kernel that finds it full would wait to
    /// say good-bye.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn disconnect(&mut self) -> io::Result<()> {
        self.genl.command(Message::new(self.family, CMD_DISCONNECT).u32(ATTR_INDEX, self.device.0))?;
        self.exists = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!("/dev/nbd0".parse(), Ok(NbdDeviceName(0)));
        assert_eq!("/dev/nbd15".parse::<NbdDeviceName>().unwrap().path(), Path::new("/dev/nbd15"));
        for wrong in ["", "nbd0", "/dev/nbd", "/dev/nbd-1", "/dev/nbd1p1", "/dev/nbd+1", "/dev/sda", "/dev/nbd9999999"]
        {
            assert!(wrong.parse::<NbdDeviceName>().unwrap_err().contains("write /dev/nbd0"), "{wrong}");
        }
    }
}
