//! Where requests come in: one volume, no thread.
//!
//! ```text
//! NBD clients, the kernel's nbd ──▶ nbd  ──┐
//!                                          ├──▶ requests ──▶ Backend: the session
//! the kernel's ublk driver ───────▶ ublk ──┘
//! ```
//!
//! A driver calls `ready` for what it watches and the two `…completed` methods for what the volume has done, then
//! `work`, which does everything that can be done, and `send`, which sends what is owed. Nothing
//! here waits.

mod backend;
mod jobs;
mod limits;
mod nbd;
mod ranges;
mod reads;
mod requests;
mod slots;
mod span;
#[cfg(test)]
mod testing;
mod ublk;

pub use self::backend::{Backend, Watcher};
pub use self::nbd::{NbdAddress, NbdFront, NbdListener, NbdOptions};
pub use self::span::Shape;
pub(crate) use self::ublk::{DEPTH, max_io_bytes};
pub use self::ublk::{RequestQueue, UblkFront};

use twinsan_wire::Seq;

pub(crate) type PortId = u32;
pub(crate) type OpId = u32;
pub(crate) type JobId = u32;

/// One or the other front.
#[derive(Debug)]
pub enum FrontEnd {
    /// NBD, for clients or the kernel.
    Nbd(Box<NbdFront>),
    /// The kernel's ublk driver.
    Ublk(Box<UblkFront>),
}

impl FrontEnd {
    /// The descriptor watched under `token` is ready.
    pub fn ready(&mut self, token: u64) {
        match self {
            Self::Nbd(front) => front.ready(token),
            // Its one descriptor is the door's.
            Self::Ublk(_) => {}
        }
    }

    /// The volume: every write up to here is durable.
    pub fn writes_completed(&mut self, upto: Seq) {
        match self {
            Self::Nbd(front) => front.writes_completed(upto),
            Self::Ublk(front) => front.writes_completed(upto),
        }
    }

    /// The volume: the read into buffer `slot` is there.
    ///
    /// # Panics
    /// If nothing is being read into it.
    pub fn read_completed(&mut self, slot: u32) {
        match self {
            Self::Nbd(front) => front.read_completed(slot),
            Self::Ublk(front) => front.read_completed(slot),
        }
    }

    /// Takes requests and commits what can be committed: to be called after a batch of events. [`FrontEnd::send`]
    /// follows, once the driver has posted what came of it.
    pub fn work<B: Backend>(&mut self, backend: &mut B, now_ms: u64) {
        match self {
            Self::Nbd(front) => front.work(backend, now_ms),
            Self::Ublk(front) => front.work(backend, now_ms),
        }
    }

    /// Sends what is owed.
    pub fn send(&mut self, watcher: &mut impl Watcher) {
        match self {
            Self::Nbd(front) => front.send(watcher),
            Self::Ublk(front) => front.send(),
        }
    }

    /// Whether [`FrontEnd::work`] can do something without hearing of an event first.
    #[must_use]
    pub fn has_work(&self) -> bool {
        match self {
            Self::Nbd(front) => front.has_work(),
            Self::Ublk(front) => front.has_work(),
        }
    }

    /// Answers by an error what has taken too long, if there is such a limit.
    pub fn expire(&mut self, now_ms: u64) {
        match self {
            Self::Nbd(front) => front.expire(now_ms),
            Self::Ublk(front) => front.expire(now_ms),
        }
    }

    /// The volume is gone: everything, now and later, is answered by an error that says `why`.
    pub fn fail(&mut self, why: &str) {
        match self {
            Self::Nbd(front) => front.fail(why),
            Self::Ublk(front) => front.fail(why),
        }
    }

    /// Begins no more requests; those that have begun go on.
    pub fn stop(&mut self) {
        match self {
            Self::Nbd(front) => front.stop(),
            Self::Ublk(front) => front.stop(),
        }
    }

    /// Whether every request that has begun has ended and is answered.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        match self {
            Self::Nbd(front) => front.is_idle(),
            Self::Ublk(front) => front.is_idle(),
        }
    }

    /// Ends all connections.
    pub fn close_all(&mut self, watcher: &mut impl Watcher) {
        match self {
            Self::Nbd(front) => front.close_all(watcher),
            Self::Ublk(front) => drop(front.detach()),
        }
    }
}
