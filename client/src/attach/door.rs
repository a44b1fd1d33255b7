//! Where requests come in: an address for NBD clients, or a block device of this host's kernel.
//!
//! ```text
//!                                       ┌─ in use ──▶ left to a process that comes after this one
//! closed ──open──▶ open ──release──▶ asking
//!                                       └─ free ────▶ taken away
//! ```
//!
//! A listener is simply closed. A kernel device in use is not taken from under a mounted filesystem: its requests wait
//! for the next `twinsan attach`, so that a restart of this one is a pause, not an error.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use twinsan_fabric::{Fabric, Interest};

use super::driver::DOOR;
use crate::device::{NbdDevice, Usage, UsageCheck};
use crate::front::{NbdAddress, NbdFront, NbdListener, Watcher};

/// The fabric, as the front end's watcher.
pub(crate) struct Sockets<'a, F: Fabric>(pub(crate) &'a mut F);

impl<F: Fabric> Watcher for Sockets<'_, F> {
    fn watch(&mut self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> Result<(), String> {
        self.0.watch(fd, token, interest).map_err(|error| error.to_string())
    }

    fn unwatch(&mut self, fd: BorrowedFd<'_>) {
        self.0.unwatch(fd);
    }
}

/// One or the other.
#[derive(Debug)]
pub(crate) enum Door {
    /// For NBD clients.
    Listener(NbdListener),
    /// For this host's kernel.
    Device(DeviceDoor),
    /// It was one, and is closed for good.
    Closed,
}

/// The kernel's device, and how far its end has come.
#[derive(Debug)]
pub(crate) struct DeviceDoor {
    device: NbdDevice,
    open: bool,
    check: Option<UsageCheck>,
    /// Somebody uses it: it stays when this process ends.
    stays: bool,
}

impl From<NbdListener> for Door {
    fn from(listener: NbdListener) -> Self {
        Self::Listener(listener)
    }
}

impl From<NbdDevice> for Door {
    fn from(device: NbdDevice) -> Self {
        Self::Device(DeviceDoor { device, open: false, check: None, stays: false })
    }
}

impl Door {
    /// The volume is open: lets requests in.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn open<F: Fabric>(&mut self, fabric: &mut F, front: &mut NbdFront) -> anyhow::Result<()> {
        match self {
            // Who connected before waits in the listener's backlog.
            Self::Listener(listener) => fabric.watch(listener.as_fd(), DOOR, Interest::Readable)?,
            Self::Device(door) => {
                let path = door.device.path();
                if door.device.exists() {
                    tracing::info!("{} has waited for a process to serve it", path.display());
                }
                front.accept_kernel(door.device.serve().map_err(|error| refused(&path, &error))?);
                door.open = true;
            }
            Self::Closed => {}
        }
        Ok(())
    }

    /// What was watched under [`DOOR`] is ready. Returns whether requests must not come in any more: see
    /// [`Door::release`].
    pub(crate) fn ready<F: Fabric>(&mut self, fabric: &mut F, front: &mut NbdFront) -> bool {
        match self {
            Self::Listener(listener) => accept(listener, front),
            Self::Device(door) => {
                let Some(check) = door.check.take() else { return false };
                fabric.unwatch(check.as_fd());
                door.stays = match check.answer() {
                    Ok(usage) => usage == Usage::InUse,
                    Err(error) => {
                        tracing::warn!("asking whether {} is in use: {error}", door.device.path().display());
                        true
                    }
                };
                return true;
            }
            Self::Closed => {}
        }
        false
    }

    /// A device whose socket has ended gets another one: the kernel hangs up when a request takes long, and keeps it.
    pub(crate) fn tick<F: Fabric>(&mut self, fabric: &mut F, front: &mut NbdFront) {
        let Self::Device(door) = self else { return };
        if !door.open {
            return;
        }
        front.close_hung_up(&mut Sockets(fabric));
        if front.connections() == 0 {
            match door.device.serve() {
                Ok(socket) => front.accept_kernel(socket),
                Err(error) => tracing::error!("a new socket for {}: {error}", door.device.path().display()),
            }
        }
    }

    /// The process is to end: closes the door to new clients. `true`: at once; else once [`Door::ready`] says so, until
    /// when requests are served as before.
    pub(crate) fn release<F: Fabric>(&mut self, fabric: &mut F) -> bool {
        let Self::Device(door) = self else {
            self.close_listener(fabric);
            return true;
        };
        if !door.open {
            return true;
        }
        let asked = UsageCheck::begin(door.device.path()).and_then(|check| {
            fabric.watch(check.as_fd(), DOOR, Interest::Readable).map_err(std::io::Error::other)?;
            Ok(check)
        });
        match asked {
            Ok(check) => door.check = Some(check),
            Err(error) => {
                tracing::warn!("asking whether {} is in use: {error}", door.device.path().display());
                door.stays = true;
            }
        }
        door.check.is_none()
    }

    /// Every request that has begun has been answered: takes a device away, or leaves it.
    pub(crate) fn close<F: Fabric>(&mut self, fabric: &mut F, front: &mut NbdFront) {
        let Self::Device(mut door) = std::mem::replace(self, Self::Closed) else { return };
        if !door.open {
            return;
        }
        front.close_all(&mut Sockets(fabric));
        let path = door.device.path();
        let path = path.display();
        if door.stays {
            tracing::warn!("{path} is in use and stays; its requests wait until the volume is attached to it again");
        } else if let Err(error) = door.device.disconnect() {
            tracing::error!("{path} could not be taken away: {error}");
        }
    }

    fn close_listener<F: Fabric>(&mut self, fabric: &mut F) {
        if let Self::Listener(listener) = self {
            fabric.unwatch(listener.as_fd());
            *self = Self::Closed;
        }
    }

    /// Where people find the volume `name`.
    pub(crate) fn place(&self, name: &str) -> impl fmt::Display {
        match self {
            Self::Listener(listener) => match &listener.address {
                NbdAddress::Unix(path) => format!("nbd+unix:///{name}?socket={}", path.display()),
                NbdAddress::Tcp(host) => format!("nbd://{host}/{name}"),
            },
            Self::Device(door) => door.device.path().display().to_string(),
            Self::Closed => String::from("no place any more"),
        }
    }

    /// Whether an earlier process has left a device that waits for this one.
    pub(crate) const fn is_awaited(&self) -> bool {
        matches!(self, Self::Device(door) if door.device.exists())
    }
}

fn refused(device: &Path, error: &std::io::Error) -> anyhow::Error {
    anyhow::anyhow!("the kernel does not take {}: {error}", device.display())
}

fn accept(listener: &NbdListener, front: &mut NbdFront) {
    loop {
        match listener.accept() {
            Ok(Some(fd)) => {
                if !front.accept(fd) {
                    tracing::warn!("too many NBD connections: one was turned away");
                }
            }
            Ok(None) => return,
            // Of one connection (it is gone again), or for want of descriptors: later ones may do better.
            Err(error) => return tracing::warn!("accepting an NBD connection: {error}"),
        }
    }
}
