//! A device of the kernel's ublk driver.
//!
//! ```text
//! Closed ──open──▶ Starting ──disk is there──▶ Open ──free──▶ Stopping ──disk is gone──▶ Down
//!   │ ▲ the dead process is not gone yet         │
//!   └─┘ tick: again                              └── in use: left to the next process
//! ```

use std::os::fd::AsFd;
use std::path::PathBuf;

use twinsan_fabric::{Fabric, Interest};
use twinsan_ublk::Happened;

use super::News;
use super::release::Release;
use crate::attach::driver::DOOR;
use crate::device::ublk::{UblkDevice, path};
use crate::front::UblkFront;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
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

/// What is wanted of a disk that is not there yet. The kernel reads its partition table through us before it is: who left
/// then would leave that read, and the start with it, to nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Wish {
    #[default]
    Serve,
    Release,
    Slam,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Nothing,
    /// Requests may come.
    Serve,
    /// Requests are served until the disk is there.
    Wait,
    /// To be asked whether it is in use.
    Ask,
    /// The disk is to go.
    Stop,
}

/// How far a device has come, and where it is to go.
#[derive(Clone, Copy, Debug, Default)]
struct Course {
    state: State,
    wish: Wish,
}

impl Course {
    fn started(&mut self) -> Next {
        self.state = State::Open;
        match self.wish {
            Wish::Serve => Next::Serve,
            Wish::Release => Next::Ask,
            Wish::Slam => Next::Stop,
        }
    }

    fn release(&mut self) -> Next {
        self.leave(Wish::Release, Next::Ask)
    }

    fn slam(&mut self) -> Next {
        self.leave(Wish::Slam, Next::Stop)
    }

    fn leave(&mut self, wish: Wish, next: Next) -> Next {
        match self.state {
            State::Starting => {
                self.wish = wish;
                Next::Wait
            }
            State::Open => next,
            _ => Next::Nothing,
        }
    }

    const fn is_down(self) -> bool {
        !matches!(self.state, State::Starting | State::Stopping)
    }
}

/// The device, and how far it has come.
#[derive(Debug)]
pub(crate) struct UblkDoor {
    device: UblkDevice,
    /// Its number, once it has a queue.
    id: Option<u32>,
    course: Course,
    release: Release,
}

impl UblkDoor {
    pub(super) fn new(device: UblkDevice) -> Self {
        Self { device, id: None, course: Course::default(), release: Release::default() }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.id.map_or_else(|| PathBuf::from("a ublk device"), path)
    }

    pub(super) const fn is_awaited(&self) -> bool {
        self.device.is_awaited()
    }

    pub(super) fn open<F: Fabric>(&mut self, fabric: &mut F, front: &mut UblkFront) -> anyhow::Result<Option<News>> {
        let Some(queue) = self.device.open()? else {
            self.course.state = State::Waiting;
            return Ok(None);
        };
        fabric.watch(queue.as_fd(), DOOR, Interest::Readable)?;
        self.id = Some(queue.id());
        self.course.state = State::Starting;
        if self.device.is_awaited() {
            tracing::info!("{} has waited for a process to serve it", self.path().display());
        }
        front.attach(queue);
        Ok(None)
    }

    pub(super) fn tick<F: Fabric>(&mut self, fabric: &mut F, front: &mut UblkFront) -> Option<News> {
        if self.course.state != State::Waiting {
            return None;
        }
        self.open(fabric, front).unwrap_or_else(|error| Some(News::Shut(error)))
    }

    pub(super) fn ready<F: Fabric>(&mut self, fabric: &mut F, front: &mut UblkFront) -> Option<News> {
        let mut news = None;
        let mut next = Next::Nothing;
        front.poll(|happened| match happened {
            Happened::Started(Ok(())) if self.course.state == State::Starting => next = self.course.started(),
            Happened::Started(Err(error)) | Happened::Aborted { error, .. } if self.course.state == State::Starting => {
                news = Some(self.not_started(error));
            }
            Happened::Stopped(result) => news = self.stopped(result),
            // Of a start that has failed already, by a tag, the rest is no news.
            Happened::Request { .. } | Happened::Started(_) | Happened::Aborted { .. } => {}
        });
        if self.release.answered(&self.path(), fabric) {
            return self.answered(front);
        }
        match next {
            Next::Serve => Some(News::Open),
            Next::Ask => self.release.begin(&self.path(), fabric).then_some(News::Released),
            Next::Stop => {
                self.stop(front);
                None
            }
            Next::Nothing | Next::Wait => news,
        }
    }

    fn not_started(&mut self, error: std::io::Error) -> News {
        // One that others may still use is not taken away for it.
        self.course.state = if self.device.is_awaited() { State::Failed } else { State::Down };
        News::Shut(anyhow::Error::new(error).context(format!("the kernel does not start {}", self.path().display())))
    }

    fn stopped(&mut self, result: std::io::Result<()>) -> Option<News> {
        if let Err(error) = result {
            tracing::error!("the kernel does not stop {}: {error}", self.path().display());
            self.release.let_go();
        }
        // Removing it may wait for those who have it open.
        self.release.disk_gone();
        self.course.state = State::Down;
        Some(News::Released)
    }

    /// It is known whether somebody uses the device. If nobody does, its disk goes while requests are still served.
    fn answered(&mut self, front: &mut UblkFront) -> Option<News> {
        if !self.release.stays() && self.stop(front) {
            return None;
        }
        self.release.let_go();
        Some(News::Released)
    }

    /// Has the disk go; whether that has begun.
    fn stop(&mut self, front: &mut UblkFront) -> bool {
        match front.queue().map(twinsan_ublk::Queue::stop) {
            Some(Ok(())) => {
                self.course.state = State::Stopping;
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
        match self.course.release() {
            Next::Ask => self.release.begin(&self.path(), fabric),
            next => next != Next::Wait,
        }
    }

    pub(super) fn slam(&mut self, front: &mut UblkFront) {
        if self.course.slam() == Next::Stop {
            self.stop(front);
        }
    }

    pub(super) const fn is_down(&self) -> bool {
        self.course.is_down()
    }

    pub(super) fn close<F: Fabric>(mut self, fabric: &mut F, front: &mut UblkFront) {
        let path = self.path();
        let path = path.display();
        // The driver keeps a device as long as its queue is open.
        if let Some(queue) = front.detach() {
            fabric.unwatch(queue.as_fd());
        }
        match (self.course.state, self.id) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn starting() -> Course {
        Course { state: State::Starting, ..Course::default() }
    }

    #[test]
    fn who_is_told_to_leave_while_the_disk_comes_serves_until_it_is_there() {
        let mut course = starting();
        assert_eq!(course.started(), Next::Serve);
        assert_eq!(course.release(), Next::Ask);

        let mut course = starting();
        assert_eq!(course.release(), Next::Wait);
        assert!(!course.is_down(), "the start is waited for");
        assert_eq!(course.started(), Next::Ask);
        assert_eq!(course.slam(), Next::Stop);
    }

    #[test]
    fn a_volume_that_is_gone_takes_a_disk_that_was_coming_with_it() {
        for released in [false, true] {
            let mut course = starting();
            if released {
                course.release();
            }
            assert_eq!(course.slam(), Next::Wait);
            assert!(!course.is_down());
            assert_eq!(course.started(), Next::Stop);
        }
    }

    #[test]
    fn without_a_disk_there_is_nothing_to_wait_for() {
        for state in [State::Closed, State::Waiting, State::Down, State::Failed] {
            let mut course = Course { state, ..Course::default() };
            assert_eq!((course.release(), course.slam(), course.is_down()), (Next::Nothing, Next::Nothing, true));
        }
    }
}
