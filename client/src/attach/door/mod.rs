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

mod listener;
mod nbd;
mod release;
mod ublk;

use std::fmt;
use std::os::fd::BorrowedFd;

use twinsan_fabric::{Fabric, Interest};

use self::nbd::NbdDoor;
use self::ublk::UblkDoor;
use crate::device::NbdDevice;
use crate::device::ublk::UblkDevice;
use crate::front::{FrontEnd, NbdAddress, NbdFront, NbdListener, UblkFront, Watcher};

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

/// One of them.
#[derive(Debug)]
pub(crate) enum Door {
    /// For NBD clients.
    Listener(NbdListener),
    /// For this host's kernel, by its nbd driver.
    Nbd(Box<NbdDoor>),
    /// For this host's kernel, by its ublk driver.
    Ublk(Box<UblkDoor>),
    /// It was one, and is closed for good.
    Closed,
}

/// What a door has come to.
#[derive(Debug)]
pub(crate) enum News {
    /// Requests may come.
    Open,
    /// Requests need not be begun any more: see [`Door::release`].
    Released,
    /// No request can come, and why.
    Shut(anyhow::Error),
}

impl From<NbdListener> for Door {
    fn from(listener: NbdListener) -> Self {
        Self::Listener(listener)
    }
}

impl From<NbdDevice> for Door {
    fn from(device: NbdDevice) -> Self {
        Self::Nbd(Box::new(NbdDoor::new(device)))
    }
}

impl From<UblkDevice> for Door {
    fn from(device: UblkDevice) -> Self {
        Self::Ublk(Box::new(UblkDoor::new(device)))
    }
}

impl Door {
    /// The volume is open: lets requests in, at once or soon.
    pub(crate) fn open<F: Fabric>(&mut self, fabric: &mut F, front: &mut FrontEnd) -> Option<News> {
        let opened = match self {
            Self::Listener(listener) => listener::open(listener, fabric),
            Self::Nbd(door) => door.open(nbd_front(front)),
            Self::Ublk(door) => door.open(fabric, ublk_front(front)),
            Self::Closed => Ok(None),
        };
        opened.unwrap_or_else(|error| Some(News::Shut(error)))
    }

    /// What was watched under [`DOOR`](super::driver::DOOR) is ready.
    pub(crate) fn ready<F: Fabric>(&mut self, fabric: &mut F, front: &mut FrontEnd) -> Option<News> {
        match self {
            Self::Listener(listener) => {
                listener::accept(listener, nbd_front(front));
                None
            }
            Self::Nbd(door) => door.ready(fabric),
            Self::Ublk(door) => door.ready(fabric, ublk_front(front)),
            Self::Closed => None,
        }
    }

    /// Time has passed.
    pub(crate) fn tick<F: Fabric>(&mut self, fabric: &mut F, front: &mut FrontEnd) -> Option<News> {
        match self {
            Self::Listener(_) | Self::Closed => None,
            Self::Nbd(door) => {
                door.tick(fabric, nbd_front(front));
                None
            }
            Self::Ublk(door) => door.tick(fabric, ublk_front(front)),
        }
    }

    /// The process is to end: closes the door to new clients. `true`: at once; else once there is [`News::Released`],
    /// until when requests are served as before.
    pub(crate) fn release<F: Fabric>(&mut self, fabric: &mut F) -> bool {
        match self {
            Self::Listener(listener) => {
                listener::close(listener, fabric);
                *self = Self::Closed;
                true
            }
            Self::Nbd(door) => door.release(fabric),
            Self::Ublk(door) => door.release(fabric),
            Self::Closed => true,
        }
    }

    /// Every request that has begun has been answered: takes a device away, or leaves it.
    pub(crate) fn close<F: Fabric>(&mut self, fabric: &mut F, front: &mut FrontEnd) {
        match std::mem::replace(self, Self::Closed) {
            Self::Listener(_) | Self::Closed => {}
            Self::Nbd(door) => door.close(fabric, nbd_front(front)),
            Self::Ublk(door) => door.close(fabric, ublk_front(front)),
        }
    }

    /// The volume is gone and all requests fail: has a device go, whoever uses it. [`Door::close`] follows, once this is
    /// [`Door::is_slammed`].
    pub(crate) fn slam(&mut self, front: &mut FrontEnd) {
        if let Self::Ublk(door) = self {
            door.slam(ublk_front(front));
        }
    }

    /// Whether nothing of a device is left that would have to be waited for.
    pub(crate) fn is_slammed(&self) -> bool {
        match self {
            Self::Ublk(door) => door.is_down(),
            _ => true,
        }
    }

    /// Where people find the volume `name`.
    pub(crate) fn place(&self, name: &str) -> impl fmt::Display {
        match self {
            Self::Listener(listener) => match &listener.address {
                NbdAddress::Unix(path) => format!("nbd+unix:///{name}?socket={}", path.display()),
                NbdAddress::Tcp(host) => format!("nbd://{host}/{name}"),
            },
            Self::Nbd(door) => door.path().display().to_string(),
            Self::Ublk(door) => door.path().display().to_string(),
            Self::Closed => String::from("no place any more"),
        }
    }

    /// Whether an earlier process has left a device that waits for this one.
    pub(crate) const fn is_awaited(&self) -> bool {
        match self {
            Self::Nbd(door) => door.is_awaited(),
            Self::Ublk(door) => door.is_awaited(),
            Self::Listener(_) | Self::Closed => false,
        }
    }

    /// Whether its requests come by ublk, whose front they need.
    pub(crate) const fn is_ublk(&self) -> bool {
        matches!(self, Self::Ublk(_))
    }
}

fn nbd_front(front: &mut FrontEnd) -> &mut NbdFront {
    match front {
        FrontEnd::Nbd(front) => front,
        FrontEnd::Ublk(_) => panic!("an NBD door has an NBD front"),
    }
}

fn ublk_front(front: &mut FrontEnd) -> &mut UblkFront {
    match front {
        FrontEnd::Ublk(front) => front,
        FrontEnd::Nbd(_) => panic!("a ublk door has a ublk front"),
    }
}
