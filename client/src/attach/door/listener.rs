//! NBD clients that connect.

use std::os::fd::AsFd;

use twinsan_fabric::{Fabric, Interest};

use super::News;
use crate::attach::driver::DOOR;
use crate::front::{NbdFront, NbdListener};

/// Clients taken in at once, before the volume's own events have their turn.
const ACCEPTS_PER_VISIT: usize = 16;

/// Who connected before waits in the listener's backlog.
pub(super) fn open<F: Fabric>(listener: &NbdListener, fabric: &mut F) -> anyhow::Result<Option<News>> {
    fabric.watch(listener.as_fd(), DOOR, Interest::Readable)?;
    Ok(Some(News::Open))
}

pub(super) fn close<F: Fabric>(listener: &NbdListener, fabric: &mut F) {
    fabric.unwatch(listener.as_fd());
}

pub(super) fn accept(listener: &NbdListener, front: &mut NbdFront) {
    for _ in 0..ACCEPTS_PER_VISIT {
        match listener.accept() {
            // Whoever is turned away has been hung up on.
            Ok(Some(fd)) => drop(front.accept(fd)),
            Ok(None) => return,
            // Of one connection (it is gone again), or for want of descriptors: later ones may do better.
            Err(error) => return tracing::warn!("accepting an NBD connection: {error}"),
        }
    }
}
