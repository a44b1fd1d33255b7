//! Whether a device may be taken away: asked when this process is to end.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use twinsan_fabric::{Fabric, Interest};

use crate::attach::driver::DOOR;
use crate::device::{Usage, UsageCheck};

/// The question, and what came of it.
#[derive(Debug, Default)]
pub(super) struct Release {
    check: Option<UsageCheck>,
    /// Somebody uses it: it stays when this process ends.
    stays: bool,
    /// Nobody did, and nobody can, until this is closed.
    held: Option<OwnedFd>,
}

impl Release {
    pub(super) const fn stays(&self) -> bool {
        self.stays
    }

    /// Asks. `true`: there is no need to wait for an answer.
    pub(super) fn begin<F: Fabric>(&mut self, device: &Path, fabric: &mut F) -> bool {
        let asked = UsageCheck::begin(device.to_owned()).and_then(|check| {
            fabric.watch(check.as_fd(), DOOR, Interest::Readable).map_err(io::Error::other)?;
            Ok(check)
        });
        match asked {
            Ok(check) => self.check = Some(check),
            Err(error) => self.unknown(device, &error),
        }
        self.check.is_none()
    }

    /// Whether the answer has just come.
    pub(super) fn answered<F: Fabric>(&mut self, device: &Path, fabric: &mut F) -> bool {
        let Some(answer) = self.check.as_ref().and_then(UsageCheck::answer) else { return false };
        if let Some(check) = self.check.take() {
            fabric.unwatch(check.as_fd());
        }
        match answer {
            Ok(Usage::Free(fd)) => self.held = Some(fd),
            Ok(Usage::Gone) => {}
            Ok(Usage::InUse) => self.stays = true,
            Err(error) => self.unknown(device, &error),
        }
        true
    }

    /// The disk is gone: it need not be held any more.
    pub(super) fn disk_gone(&mut self) {
        self.held = None;
    }

    /// Others may use the device again. Who closes it last writes back what they have left dirty, which the loop has to
    /// serve: so a thread of its own does.
    pub(super) fn let_go(&mut self) {
        let Some(held) = self.held.take() else { return };
        // Without a thread the descriptor is closed here, as it was the closure's.
        if let Err(error) = std::thread::Builder::new().name("let go".into()).spawn(move || drop(held)) {
            tracing::warn!("a thread to close a device: {error}");
        }
    }

    fn unknown(&mut self, device: &Path, error: &io::Error) {
        tracing::warn!("asking whether {} is in use: {error}", device.display());
        self.stays = true;
    }
}
