//! A device of the kernel's nbd driver.

use std::path::PathBuf;

use twinsan_fabric::Fabric;

use super::release::Release;
use super::{News, Sockets};
use crate::device::NbdDevice;
use crate::front::NbdFront;

/// The device, and how far its end has come.
#[derive(Debug)]
pub(crate) struct NbdDoor {
    device: NbdDevice,
    open: bool,
    release: Release,
}

impl NbdDoor {
    pub(super) fn new(device: NbdDevice) -> Self {
        Self { device, open: false, release: Release::default() }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.device.path()
    }

    pub(super) const fn is_awaited(&self) -> bool {
        self.device.exists()
    }

    pub(super) fn open(&mut self, front: &mut NbdFront) -> anyhow::Result<Option<News>> {
        let path = self.path();
        if self.device.exists() {
            tracing::info!("{} has waited for a process to serve it", path.display());
        }
        let socket = self.device.serve();
        let socket = socket.map_err(|error| anyhow::anyhow!("the kernel does not take {}: {error}", path.display()))?;
        front.accept_kernel(socket);
        self.open = true;
        Ok(Some(News::Open))
    }

    pub(super) fn ready<F: Fabric>(&mut self, fabric: &mut F) -> Option<News> {
        let answered = self.release.answered(&self.device.path(), fabric);
        // No new request is served from here on: what is open must not be ours to close.
        self.release.let_go();
        answered.then_some(News::Released)
    }

    /// A device whose socket has ended gets another one: the kernel hangs up when a request takes long, and keeps it.
    pub(super) fn tick<F: Fabric>(&mut self, fabric: &mut F, front: &mut NbdFront) {
        if !self.open {
            return;
        }
        front.close_hung_up(&mut Sockets(fabric));
        if front.connections() == 0 {
            match self.device.serve() {
                Ok(socket) => front.accept_kernel(socket),
                Err(error) => tracing::error!("a new socket for {}: {error}", self.path().display()),
            }
        }
    }

    pub(super) fn release<F: Fabric>(&mut self, fabric: &mut F) -> bool {
        !self.open || self.release.begin(&self.device.path(), fabric)
    }

    pub(super) fn close<F: Fabric>(mut self, fabric: &mut F, front: &mut NbdFront) {
        if !self.open {
            return;
        }
        front.close_all(&mut Sockets(fabric));
        let path = self.path();
        let path = path.display();
        if self.release.stays() {
            tracing::warn!("{path} is in use and stays; its requests wait until the volume is attached to it again");
        } else if let Err(error) = self.device.disconnect() {
            tracing::error!("{path} could not be taken away: {error}");
        }
    }
}
