//! A device of the kernel's ublk driver.
//!
//! ```text
//! Closed ──open──▶ Starting ──disk is there──▶ Open ──free──▶ Stopping ──disk is gone──▶ Down
//!   │ ▲ the dead process is not gone yet         │
//!   └─┘ tick: again                              └── in use: left to the next process
//! ```

use std::os::fd::AsFd;
use std::path::PathBuf;

use anyhow::Context;
use twinsan_fabric::{Fabric, Interest};
use twinsan_ublk::Happened;

use super::News;
use super::release::Release;
use crate::attach::driver::DOOR;
use crate::device::ublk::{UblkDevice, path};
use crate::front::UblkFront;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    /// The volume is open, and the driver has not let the dead process go.
    Waiting,
    Starting,
    Open,
    Stopping,
    Down,
    /// It did not start, and waits for another process.
    Failed,
}

/// The device, and how far it has come.
#[derive(Debug)]
pub(crate) struct UblkDoor {
    device: UblkDevice,
    /// Its number, once it has a queue.
    id: Option<u32>,
    state: State,
    release: Release,
}

impl UblkDoor {
    pub(super) fn new(device: UblkDevice) -> Self {
        Self { device, id: None, state: State::Closed, release: Release::default() }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.id.map_or_else(|| PathBuf::from("a ublk device"), path)
    }

    pub(super) const fn is_awaited(&self) -> bool {
        self.device.is_awaited()
    }

    pub(super) fn open<F: Fabric>(&mut self, fabric: &mut F, front: &mut UblkFront) -> anyhow::Result<Option<News>> {
        let Some(queue) = self.device.open()? else {
            self.state = State::Waiting;
            return Ok(None);
        };
        fabric.watch(queue.as_fd(), DOOR, Interest::Readable)?;
        self.id = Some(queue.id());
        self.state = State::Starting;
        if self.device.is_awaited() {
            tracing::info!("{} has waited for a process to serve it", self.path().display());
        }
        front.attach(queue);
        Ok(None)
    }

    pub(super) fn tick<F: Fabric>(&mut self, fabric: &mut F, front: &mut UblkFront) -> Option<News> {
        if self.state != State::Waiting {
            return None;
        }
        self.open(fabric, front).unwrap_or_else(|error| Some(News::Shut(error)))
    }

    pub(super) fn ready<F: Fabric>(&mut self, fabric: &mut F, front: &mut UblkFront) -> Option<News> {
        let mut news = None;
        front.poll(|happened| match happened {
            Happened::Started(result) if self.state == State::Starting => news = self.started(result),
            Happened::Stopped(result) => news = self.stopped(result),
            Happened::Aborted { error, .. } if self.state == State::Starting => news = self.started(Err(error)),
            // Of a start that has failed already, by a tag, the rest is no news.
            Happened::Request { .. } | Happened::Started(_) | Happened::Aborted { .. } => {}
        });
        if self.release.answered(&self.path(), fabric) {
            return self.answered(front);
        }
        news
    }

    fn started(&mut self, result: std::io::Result<()>) -> Option<News> {
        match result.with_context(|| format!("the kernel does not start {}", self.path().display())) {
            Ok(()) => {
                self.state = State::Open;
                Some(News::Open)
            }
            Err(error) => {
                // One that others may still use is not taken away for it.
                self.state = if self.device.is_awaited() { State::Failed } else { State::Down };
                Some(News::Shut(error))
            }
        }
    }

    fn stopped(&mut self, result: std::io::Result<()>) -> Option<News> {
        if let Err(error) = result {
            tracing::error!("the kernel does not stop {}: {error}", self.path().display());
        }
        self.state = State::Down;
        Some(News::Released)
    }

    /// It is known whether somebody uses the device. If nobody does, its disk goes while requests are still served.
    fn answered(&mut self, front: &mut UblkFront) -> Option<News> {
        if self.release.stays() || !self.stop(front) { Some(News::Released) } else { None }
    }

    /// Has the disk go; whether that has begun.
    fn stop(&mut self, front: &mut UblkFront) -> bool {
        match front.queue().map(twinsan_ublk::Queue::stop) {
            Some(Ok(())) => {
                self.state = State::Stopping;
                true
            }
            Some(Err(error)) => {
                tracing::error!("stopping {}: {error}", self.path().display());
                false
            }
            None => false,
        }
    }

    pub(super) fn release<F: Fabric>(&mut self, fabric: &mut F) -> bool {
        self.state != State::Open || self.release.begin(&self.path(), fabric)
    }

    pub(super) fn slam(&mut self, front: &mut UblkFront) {
        if self.state == State::Open {
            self.stop(front);
        }
    }

    pub(super) const fn is_down(&self) -> bool {
        !matches!(self.state, State::Stopping)
    }

    pub(super) fn close<F: Fabric>(mut self, fabric: &mut F, front: &mut UblkFront) {
        let path = self.path();
        let path = path.display();
        // The driver keeps a device as long as its queue is open.
        if let Some(queue) = front.detach() {
            fabric.unwatch(queue.as_fd());
        }
        match (self.state, self.id) {
            (State::Down, Some(id)) => {
                if let Err(error) = self.device.delete(id) {
                    tracing::error!("{path} could not be taken away: {error}");
                }
            }
            (State::Open | State::Starting | State::Stopping | State::Failed, _) => {
                tracing::warn!("{path} stays; its requests wait until the volume is attached to it again");
            }
            _ => {}
        }
    }
}
