//! A fabric that reports everything and moves less.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use twinsan_arena::Arena;
use twinsan_fabric::{
    ConnId, Event, Fabric, FabricError, Interest, Limits, LocalSlice, Payload, PostError, RegionId, RemoteAddr,
    RemoteKey, WaitPolicy, WorkId,
};
use twinsan_perf::fabric::{Product, open};

/// What it does to plain writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// They arrive.
    None,
    /// They don't.
    NoPayload,
    /// Only the first of each length does.
    OldPayload,
    /// Their first half does.
    HalfPayload,
}

/// One maker for each lie, in its order.
pub(crate) const LIARS: [fn(WaitPolicy) -> Result<Lying>; 4] = [
    |wait| Lying::open(wait, Lie::None),
    |wait| Lying::open(wait, Lie::NoPayload),
    |wait| Lying::open(wait, Lie::OldPayload),
    |wait| Lying::open(wait, Lie::HalfPayload),
];

/// The product's fabric, but for the lie.
pub(crate) struct Lying {
    inner: Product,
    lie: Lie,
    seen: Vec<u32>,
}

impl Lying {
    /// With a lie.
    ///
    /// # Errors
    /// The inner fabric's.
    pub(crate) fn open(wait: WaitPolicy, lie: Lie) -> Result<Self> {
        Ok(Self { inner: open(wait)?, lie, seen: Vec::new() })
    }
}

impl Fabric for Lying {
    fn write(
        &mut self,
        conn: ConnId,
        payload: Payload<'_>,
        to: RemoteAddr,
        signal: Option<WorkId>,
    ) -> Result<(), PostError> {
        let Payload::Region(slice) = payload else { return self.inner.write(conn, payload, to, signal) };
        let first = !self.seen.contains(&slice.len);
        self.seen.push(slice.len);
        let len = match self.lie {
            Lie::None => slice.len,
            Lie::OldPayload if first => slice.len,
            Lie::NoPayload | Lie::OldPayload => return Ok(()),
            Lie::HalfPayload => slice.len / 2,
        };
        self.inner.write(conn, Payload::Region(LocalSlice { len, ..slice }), to, signal)
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn register(&mut self, arena: Arc<Arena>) -> Result<RegionId, FabricError> {
        self.inner.register(arena)
    }

    fn expose(&mut self, conn: ConnId, region: RegionId, offset: u64, len: u64) -> Result<RemoteKey, FabricError> {
        self.inner.expose(conn, region, offset, len)
    }

    fn listen(&mut self, address: &str) -> Result<String, FabricError> {
        self.inner.listen(address)
    }

    fn connect(&mut self, address: &str) -> Result<ConnId, FabricError> {
        self.inner.connect(address)
    }

    fn write_imm(
        &mut self,
        conn: ConnId,
        payload: Payload<'_>,
        to: RemoteAddr,
        imm: u32,
        signal: Option<WorkId>,
    ) -> Result<(), PostError> {
        self.inner.write_imm(conn, payload, to, imm, signal)
    }

    fn send(&mut self, conn: ConnId, message: &[u8]) -> Result<(), PostError> {
        self.inner.send(conn, message)
    }

    fn submit(&mut self, conn: ConnId) {
        self.inner.submit(conn);
    }

    fn disconnect(&mut self, conn: ConnId) {
        self.inner.disconnect(conn);
    }

    fn watch(&mut self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> Result<(), FabricError> {
        self.inner.watch(fd, token, interest)
    }

    fn unwatch(&mut self, fd: BorrowedFd<'_>) {
        self.inner.unwatch(fd);
    }

    fn poll(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> usize {
        self.inner.poll(events, timeout)
    }
}
