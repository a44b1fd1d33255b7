//! [`VerbsFabric`]: the trait, over the parts.

mod making;
mod polling;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use twinsan_arena::Arena;
use twinsan_fabric::parts::{Poller, Regions, Resolver, Token, Waiting, Watches, poll_until, within};
use twinsan_fabric::{
    ConnId, Event, Fabric, FabricError, Interest, Limits, Payload, PostError, RegionId, RemoteAddr, RemoteKey,
    WaitPolicy, WorkId,
};
use twinsan_wire::limits::MAX_MESSAGE_BYTES;

use crate::address::Address;
use crate::connection::Connection;
use crate::dial::Dial;
use crate::sys::{CmId, EventChannel};

/// Inline bytes of a post: what mlx5 takes without growing its send queue's entries, and a descriptor twice.
pub(crate) const MAX_INLINE: usize = 128;

/// Posts outstanding on one connection, unless the options say otherwise.
const SEND_DEPTH: usize = 512;

/// What a fabric with default options can carry, known without a device.
pub const LIMITS: Limits = Limits { max_inline: MAX_INLINE, max_message: MAX_MESSAGE_BYTES, send_depth: SEND_DEPTH };

/// How a [`VerbsFabric`] behaves.
#[derive(Clone, Copy, Debug)]
pub struct VerbsOptions {
    /// How [`Fabric::poll`] waits.
    pub wait: WaitPolicy,
    /// Posts outstanding on one connection, at least 1; each takes about 600 bytes of registered memory.
    pub send_depth: usize,
    /// How long [`Fabric::connect`] may take before the peer is unreachable.
    pub connect_timeout: Duration,
    /// Connections are numbered from here on, below 2^62: where another fabric in the process numbers from zero.
    pub first_conn: u64,
}

impl Default for VerbsOptions {
    fn default() -> Self {
        Self {
            wait: WaitPolicy::default(),
            send_depth: SEND_DEPTH,
            connect_timeout: Duration::from_secs(2),
            first_conn: 0,
        }
    }
}

/// This host has no RDMA that could be used.
#[derive(Debug, thiserror::Error)]
#[error("no RDMA here: {0}; use tcp:// instead, or see \"RDMA\" in docs/operations.md")]
pub struct NoRdma(String);

/// One that listens.
#[derive(Debug)]
struct Listener {
    _id: CmId,
    address: String,
}

/// The fabric over RDMA verbs; see the crate.
#[derive(Debug)]
pub struct VerbsFabric {
    // Before the channel whose identifiers they hold, though those keep it alive.
    connections: BTreeMap<ConnId, Connection>,
    making: BTreeMap<ConnId, Dial>,
    listeners: Vec<Listener>,
    channel: EventChannel,
    options: VerbsOptions,
    poller: Poller,
    resolver: Option<Resolver<SocketAddr>>,
    regions: Regions,
    watches: Watches,
    next_conn: u64,
    /// Events that came up outside of poll.
    pending: Vec<Event>,
    waiting: Waiting,
    /// Kept for its memory.
    over: Vec<ConnId>,
}

impl VerbsFabric {
    /// A fabric without regions, connections and listeners. The first one of a process opens the libraries.
    ///
    /// # Errors
    /// [`NoRdma`], which says what is missing.
    pub fn new(options: VerbsOptions) -> Result<Self, NoRdma> {
        let channel = EventChannel::new().map_err(|e| no_rdma(&e))?;
        let poller = Poller::new().map_err(|e| NoRdma(format!("the system gives no epoll ({e})")))?;
        poller
            .add(channel.as_fd(), Token::Listener(0), Interest::Readable)
            .map_err(|e| NoRdma(format!("the connection manager's channel can't be watched ({e})")))?;
        Ok(Self {
            connections: BTreeMap::new(),
            making: BTreeMap::new(),
            listeners: Vec::new(),
            channel,
            options,
            poller,
            resolver: None,
            regions: Regions::default(),
            watches: Watches::default(),
            next_conn: options.first_conn,
            pending: Vec::new(),
            waiting: Waiting::new(options.wait),
            over: Vec::new(),
        })
    }

    fn new_conn(&mut self) -> ConnId {
        self.next_conn += 1;
        ConnId(self.next_conn)
    }

    fn post_write(
        &mut self,
        conn: ConnId,
        payload: Payload<'_>,
        to: RemoteAddr,
        imm: Option<u32>,
        signal: Option<WorkId>,
    ) -> Result<(), PostError> {
        match payload {
            Payload::Inline(bytes) => {
                within(bytes.len(), MAX_INLINE)?;
                self.open_slot(conn)?.write_inline(bytes, to, imm, signal);
            }
            Payload::Region(slice) => {
                let span = self.regions.span(slice)?;
                let arena = Arc::clone(&self.regions.as_slice()[span.region]);
                let connection = self.open_slot(conn)?;
                if let Err(e) = connection.local(span.region, &arena) {
                    connection.fail(twinsan_fabric::CloseReason::Unreachable(cant_register(arena.len(), &e)));
                    return Err(PostError::NotConnected);
                }
                connection.write_region(span, to, imm, signal);
            }
        }
        Ok(())
    }

    /// The connection, if it has a free slot.
    fn open_slot(&mut self, conn: ConnId) -> Result<&mut Connection, PostError> {
        let connection = self.connections.get_mut(&conn).ok_or(PostError::NotConnected)?;
        connection.room()?;
        Ok(connection)
    }
}

impl Fabric for VerbsFabric {
    fn limits(&self) -> Limits {
        Limits { send_depth: self.options.send_depth, ..LIMITS }
    }

    /// Takes note of it. Each connection registers for itself what it needs; see the crate.
    fn register(&mut self, arena: Arc<Arena>) -> Result<RegionId, FabricError> {
        self.regions.register(arena)
    }

    fn expose(&mut self, conn: ConnId, region: RegionId, offset: u64, len: u64) -> Result<RemoteKey, FabricError> {
        let arena = self.regions.to_expose(region, offset, len)?;
        let connection = self.connections.get_mut(&conn).ok_or(FabricError::Invalid("no such connection"))?;
        let size = |size| usize::try_from(size).expect("inside of an arena");
        let exposed = connection.expose(region.0 as usize, arena, (size(offset), size(len)));
        exposed.map_err(|source| FabricError::Io { what: cant_register(size(len), &source), source })
    }

    fn listen(&mut self, address: &str) -> Result<String, FabricError> {
        self.begin_listen(address, &Address::parse(address)?)
    }

    fn connect(&mut self, address: &str) -> Result<ConnId, FabricError> {
        self.begin_connect(Address::parse(address)?)
    }

    fn write(
        &mut self,
        conn: ConnId,
        payload: Payload<'_>,
        to: RemoteAddr,
        signal: Option<WorkId>,
    ) -> Result<(), PostError> {
        self.post_write(conn, payload, to, None, signal)
    }

    fn write_imm(
        &mut self,
        conn: ConnId,
        payload: Payload<'_>,
        to: RemoteAddr,
        imm: u32,
        signal: Option<WorkId>,
    ) -> Result<(), PostError> {
        self.post_write(conn, payload, to, Some(imm), signal)
    }

    fn send(&mut self, conn: ConnId, message: &[u8]) -> Result<(), PostError> {
        within(message.len(), MAX_MESSAGE_BYTES)?;
        self.open_slot(conn)?.message(message);
        Ok(())
    }

    fn submit(&mut self, conn: ConnId) {
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.ring();
        }
    }

    fn disconnect(&mut self, conn: ConnId) {
        // Dropping a connection destroys its queue pair and deregisters its memory before it returns (contract 5).
        self.connections.remove(&conn);
        self.making.remove(&conn);
        self.pending.retain(|event| event.conn() != Some(conn));
    }

    fn watch(&mut self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> Result<(), FabricError> {
        self.watches.watch(&self.poller, fd, token, interest)
    }

    fn unwatch(&mut self, fd: BorrowedFd<'_>) {
        self.watches.unwatch(&self.poller, fd);
    }

    fn poll(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> usize {
        poll_until(self, events, timeout)
    }
}

impl AsFd for VerbsFabric {
    /// Readable when there is something to poll for, if [`prepare_to_sleep`](twinsan_fabric::parts::Queues) was called before: for an epoll
    /// that this fabric shares with others.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poller.as_fd()
    }
}

fn cant_register(bytes: usize, error: &io::Error) -> String {
    let advice = if error.raw_os_error() == Some(rustix::io::Errno::NOMEM.raw_os_error()) {
        "; the limit on locked memory counts each registration: LimitMEMLOCK=infinity, or ulimit -l unlimited"
    } else {
        ""
    };
    format!("registering {bytes} bytes with the RDMA device: {error}{advice}")
}

/// What an error in opening the connection manager means. `ENOSYS`, `ENODEV` and `EOPNOTSUPP` are a kernel without it.
fn no_rdma(error: &io::Error) -> NoRdma {
    use rustix::io::Errno;
    let kernel = "the kernel has no RDMA connection manager, or no RDMA device is configured";
    match Errno::from_io_error(error) {
        Some(Errno::NOSYS | Errno::NODEV | Errno::OPNOTSUPP | Errno::NOENT | Errno::NXIO) => {
            NoRdma(format!("{kernel} ({error})"))
        }
        Some(_) => NoRdma(format!("the connection manager can't be opened ({error})")),
        None => NoRdma(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_no_rdma() {
        for errno in [libc::ENOSYS, libc::ENODEV, libc::EOPNOTSUPP, libc::ENOENT] {
            let told = no_rdma(&io::Error::from_raw_os_error(errno)).to_string();
            assert!(told.starts_with("no RDMA here: the kernel has no RDMA") && told.contains("use tcp://"), "{told}");
        }
        let told = no_rdma(&io::Error::from_raw_os_error(libc::EACCES)).to_string();
        assert!(told.starts_with("no RDMA here: the connection manager can't be opened"), "{told}");
    }

    #[test]
    fn too_little_lockable_memory_is_told_with_the_remedy() {
        let told = cant_register(1 << 20, &io::Error::from_raw_os_error(libc::ENOMEM));
        assert!(told.contains("1048576 bytes") && told.contains("LimitMEMLOCK"), "{told}");
    }
}
