//! NBD clients that connect.

use std::os::fd::AsFd;

use twinsan_fabric::{Fabric, Interest};

use super::News;
use crate::attach::driver::DOOR;
use crate::front::{CONNECTIONS_PER_TURN, NbdFront, NbdListener};

/// Who connected before waits in the listener's backlog.
pub(super) fn open<F: Fabric>(listener: &NbdListener, fabric: &mut F) -> anyhow::Result<Option<News>> {
    fabric.watch(listener.as_fd(), DOOR, Interest::Readable)?;
    Ok(Some(News::Open))
}

pub(super) fn close<F: Fabric>(listener: &NbdListener, fabric: &mut F) {
    fabric.unwatch(listener.as_fd());
}

/// A turn's worth of them: who else waits is reported again, and requests go on in between.
pub(super) fn accept(listener: &NbdListener, front: &mut NbdFront) {
    let mut turned_away = 0;
    for _ in 0..CONNECTIONS_PER_TURN {
        match listener.accept() {
            Ok(Some(fd)) => turned_away += u32::from(!front.accept(fd)),
            Ok(None) => break,
            // Of one connection (it is gone again), or for want of descriptors: later ones may do better.
            Err(error) => {
                tracing::warn!("accepting an NBD connection: {error}");
                break;
            }
        }
    }
    if turned_away > 0 {
        tracing::warn!("too many NBD connections: {turned_away} turned away");
    }
}
