//! Whether a device may be taken away: asked when this process is to end.

use std::io;
use std::os::fd::AsFd;
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
            Ok(usage) => self.stays = usage == Usage::InUse,
            Err(error) => self.unknown(device, &error),
        }
        true
    }

    fn unknown(&mut self, device: &Path, error: &io::Error) {
        tracing::warn!("asking whether {} is in use: {error}", device.display());
        self.stays = true;
    }
}
