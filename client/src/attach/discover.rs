//! Before the session: asks whichever node answers what the volume is, because the client's memory takes its shape.

use std::time::Duration;

use anyhow::bail;
use twinsan_fabric::{Event, Fabric};
use twinsan_session::ConnectError;
use twinsan_wire::{NodeId, VolumeShape};

use super::clock::Clock;
use super::dial::{Dial, Dialled, Target};
use super::driver::SIGNALS;
use super::signals::Signals;

/// Between two attempts at a node that was not reached.
const RETRY_MS: u64 = 200;

/// One node, being asked.
struct Asked {
    dial: Dial,
    retry_ms: u64,
    reported: bool,
}

/// Asks both until one answers. `None`: a signal came first.
pub(crate) fn shape<F: Fabric>(
    fabric: &mut F,
    targets: &[Target; 2],
    signals: &mut Signals,
    clock: Clock,
) -> anyhow::Result<Option<VolumeShape>> {
    let mut nodes = targets.clone().map(|target| Asked { dial: Dial::new(target), retry_ms: 0, reported: false });
    let mut events = Vec::new();
    loop {
        let now = clock.now_ms();
        for node in &mut nodes {
            let dialled = if !node.dial.is_idle() {
                node.dial.tick(fabric, now)
            } else if node.retry_ms <= now {
                node.dial.begin(fabric, now)
            } else {
                None
            };
            if let Some(shape) = node.answered(dialled, fabric, now)? {
                return Ok(Some(shape));
            }
        }
        fabric.poll(&mut events, Some(Duration::from_millis(20)));
        for event in events.drain(..) {
            if matches!(event, Event::Ready { token: SIGNALS }) && signals.take() {
                return Ok(None);
            }
            let now = clock.now_ms();
            for id in NodeId::BOTH {
                let node = &mut nodes[id.index()];
                let dialled = node.event(&event, fabric, now);
                if let Some(shape) = node.answered(dialled, fabric, now)? {
                    return Ok(Some(shape));
                }
            }
        }
    }
}

impl Asked {
    fn event<F: Fabric>(&mut self, event: &Event, fabric: &mut F, now_ms: u64) -> Option<Dialled> {
        match event {
            Event::Connected { conn } if self.dial.owns(*conn) => self.dial.connected(fabric, now_ms),
            Event::Message { conn, bytes } if self.dial.owns(*conn) => self.dial.message(fabric, now_ms, bytes),
            Event::Closed { conn, why } if self.dial.owns(*conn) => self.dial.closed(fabric, now_ms, why),
            _ => None,
        }
    }

    fn answered<F: Fabric>(
        &mut self,
        dialled: Option<Dialled>,
        fabric: &mut F,
        now_ms: u64,
    ) -> anyhow::Result<Option<VolumeShape>> {
        let name = &self.dial.target().name;
        match dialled {
            None => Ok(None),
            Some(Dialled::Welcomed { conn, welcome }) => {
                // The session makes its own connections, once its memory is there.
                fabric.disconnect(conn);
                Ok(Some(welcome.volume))
            }
            // A wrong key or volume is nothing that waiting mends.
            Some(Dialled::Failed { error: ConnectError::Rejected, why }) => bail!("node \"{name}\" at {why}"),
            Some(Dialled::Failed { why, .. }) => {
                if !std::mem::replace(&mut self.reported, true) {
                    tracing::warn!(node = name, "not reached, trying on: {why}");
                }
                self.retry_ms = now_ms + RETRY_MS;
                Ok(None)
            }
        }
    }
}
