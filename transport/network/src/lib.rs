//! All fabrics as one: `tcp://host:port`, `unix:///path`, `rdma://host:port` and `shm:///path`, side by side in one loop.
//!
//! The scheme of an address says which fabric a listener or a connection belongs to. RDMA and shared memory are opened when
//! their first address is used, and not before: where there is no RDMA, that address is an error that says so
//! ([`FabricError::NoTransport`]), and everything else goes on.
//!
//! - The others number their connections from [`RDMA_CONNECTIONS`] and [`SHM_CONNECTIONS`] on, so a [`ConnId`] says whose
//!   it is.
//! - Regions are registered with all, in the same order, and so have the same [`RegionId`] everywhere.
//! - The limits are those of the tightest, whether it is open or not.
//! - There is one spin, which looks at all, and one sleep: the others' descriptors are watched by the sockets' epoll.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use twinsan_arena::Arena;
use twinsan_fabric::parts::{Queues, Wait, Waiting, poll_until};
use twinsan_fabric::{
    ConnId, Event, Fabric, FabricError, Interest, Limits, Payload, PostError, RegionId, RemoteAddr, RemoteKey,
    WaitPolicy, WorkId,
};
use twinsan_shm::{ShmFabric, ShmOptions};
use twinsan_tcp::{TcpFabric, TcpOptions};
use twinsan_verbs::{VerbsFabric, VerbsOptions};

/// Numbers of RDMA connections are above this, those of sockets below.
pub const RDMA_CONNECTIONS: u64 = 1 << 48;

/// Numbers of connections over shared memory are above this.
pub const SHM_CONNECTIONS: u64 = 1 << 49;

/// The others' descriptors are watched with these. Callers' tokens are below them.
const RDMA_TOKEN: u64 = u64::MAX;
const SHM_TOKEN: u64 = u64::MAX - 1;

/// How a [`Network`] behaves.
#[derive(Clone, Copy, Debug)]
pub struct NetworkOptions {
    /// How [`Fabric::poll`] waits.
    pub wait: WaitPolicy,
    /// How long [`Fabric::connect`] may take before the peer is unreachable.
    pub connect_timeout: Duration,
}

impl Default for NetworkOptions {
    fn default() -> Self {
        Self { wait: WaitPolicy::default(), connect_timeout: TcpOptions::default().connect_timeout }
    }
}

/// See the crate.
#[derive(Debug)]
pub struct Network {
    sockets: TcpFabric,
    rdma: Option<VerbsFabric>,
    shm: Option<ShmFabric>,
    options: NetworkOptions,
    regions: Vec<Arc<Arena>>,
    waiting: Waiting,
}

/// A fabric with queues in memory, beside the sockets.
trait Side: Fabric + Queues + AsFd {}

impl Side for VerbsFabric {}
impl Side for ShmFabric {}

/// Which fabric an address belongs to.
enum Scheme {
    Socket,
    Rdma,
    Shm,
}

impl Network {
    /// Without regions, connections and listeners; nothing but the sockets is open.
    ///
    /// # Errors
    /// If the system gives no epoll.
    pub fn new(options: NetworkOptions) -> Result<Self, FabricError> {
        // No spin of its own: that would be blind to the others.
        let sockets = TcpOptions {
            wait: WaitPolicy { spin: Duration::ZERO },
            connect_timeout: options.connect_timeout,
            ..TcpOptions::default()
        };
        let sockets = TcpFabric::new(sockets)?;
        let waiting = Waiting::new(options.wait);
        Ok(Self { sockets, rdma: None, shm: None, options, regions: Vec::new(), waiting })
    }

    /// The fabric for the use of `address`, opened if it is not.
    fn open(&mut self, address: &str) -> Result<&mut dyn Fabric, FabricError> {
        Ok(match scheme(address)? {
            Scheme::Socket => &mut self.sockets,
            Scheme::Rdma => {
                let opened = match self.rdma.take() {
                    Some(rdma) => rdma,
                    None => self.join(self.new_rdma(address)?, RDMA_TOKEN)?,
                };
                self.rdma.insert(opened)
            }
            Scheme::Shm => {
                let opened = match self.shm.take() {
                    Some(shm) => shm,
                    None => self.join(self.new_shm()?, SHM_TOKEN)?,
                };
                self.shm.insert(opened)
            }
        })
    }

    fn new_rdma(&self, address: &str) -> Result<VerbsFabric, FabricError> {
        let options = VerbsOptions {
            connect_timeout: self.options.connect_timeout,
            first_conn: RDMA_CONNECTIONS,
            ..VerbsOptions::default()
        };
        let opened = VerbsFabric::new(options);
        opened.map_err(|e| FabricError::NoTransport { address: address.to_owned(), why: e.to_string() })
    }

    fn new_shm(&self) -> Result<ShmFabric, FabricError> {
        let connect_timeout = self.options.connect_timeout;
        ShmFabric::new(ShmOptions { connect_timeout, first_conn: SHM_CONNECTIONS, ..ShmOptions::default() })
    }

    /// Registers all regions with one that has just been opened, and watches it.
    fn join<S: Side>(&mut self, mut side: S, token: u64) -> Result<S, FabricError> {
        for arena in &self.regions {
            side.register(Arc::clone(arena))?;
        }
        self.sockets.watch(side.as_fd(), token, Interest::Readable)?;
        tracing::debug!(kind = std::any::type_name::<S>(), "a fabric is open");
        Ok(side)
    }

    /// Those that are open beside the sockets.
    fn sides(&mut self) -> impl Iterator<Item = (u64, &mut dyn Side)> {
        let rdma = self.rdma.as_mut().map(|rdma| (RDMA_TOKEN, rdma as &mut dyn Side));
        let shm = self.shm.as_mut().map(|shm| (SHM_TOKEN, shm as &mut dyn Side));
        rdma.into_iter().chain(shm)
    }

    /// The fabric that a connection belongs to. One of a fabric that is not open is unknown to the sockets too.
    fn of(&mut self, conn: ConnId) -> &mut dyn Fabric {
        match (&mut self.rdma, &mut self.shm) {
            (_, Some(shm)) if conn.0 > SHM_CONNECTIONS => shm,
            (Some(rdma), _) if (RDMA_CONNECTIONS..SHM_CONNECTIONS).contains(&conn.0) => rdma,
            _ => &mut self.sockets,
        }
    }
}

impl Queues for Network {
    fn waiting(&mut self) -> &mut Waiting {
        &mut self.waiting
    }

    fn has_queues(&self) -> bool {
        self.rdma.is_some() || self.shm.is_some()
    }

    fn poll_queues(&mut self, events: &mut Vec<Event>) -> usize {
        self.sides().map(|(_, side)| side.poll_queues(events)).sum()
    }

    /// Sleeps in the sockets' epoll, which hears of the others' events too.
    fn look(&mut self, events: &mut Vec<Event>, wait: Wait) {
        let first = events.len();
        let timeout = match wait {
            Wait::Not => None,
            Wait::For(time) => Some(time),
            Wait::Forever => Some(Duration::MAX),
        };
        self.sockets.poll(events, timeout);
        let now = Instant::now();
        for (token, side) in self.sides() {
            let own = |event: &Event| matches!(event, Event::Ready { token: ready } if *ready == token);
            let ready = (first..events.len()).find(|&at| own(&events[at])).map(|at| events.remove(at)).is_some();
            if ready || wait != Wait::Not || side.next_timer().is_some_and(|at| at <= now) {
                side.look(events, Wait::Not);
            }
        }
    }

    fn prepare_to_sleep(&mut self, events: &mut Vec<Event>) -> usize {
        let mut found = 0;
        for (_, side) in self.sides() {
            found += side.prepare_to_sleep(events);
        }
        found
    }

    fn next_timer(&self) -> Option<Instant> {
        let rdma = self.rdma.as_ref().and_then(Queues::next_timer);
        rdma.into_iter().chain(self.shm.as_ref().and_then(Queues::next_timer)).min()
    }
}

impl Fabric for Network {
    fn limits(&self) -> Limits {
        [twinsan_verbs::LIMITS, twinsan_shm::LIMITS].into_iter().fold(self.sockets.limits(), |a, b| Limits {
            max_inline: a.max_inline.min(b.max_inline),
            max_message: a.max_message.min(b.max_message),
            send_depth: a.send_depth.min(b.send_depth),
        })
    }

    fn register(&mut self, arena: Arc<Arena>) -> Result<RegionId, FabricError> {
        let id = self.sockets.register(Arc::clone(&arena))?;
        for (_, side) in self.sides() {
            let same = side.register(Arc::clone(&arena))?;
            assert_eq!(id, same, "all number regions from zero");
        }
        self.regions.push(arena);
        Ok(id)
    }

    fn expose(&mut self, conn: ConnId, region: RegionId, offset: u64, len: u64) -> Result<RemoteKey, FabricError> {
        self.of(conn).expose(conn, region, offset, len)
    }

    fn listen(&mut self, address: &str) -> Result<String, FabricError> {
        self.open(address)?.listen(address)
    }

    fn connect(&mut self, address: &str) -> Result<ConnId, FabricError> {
        self.open(address)?.connect(address)
    }

    fn write(
        &mut self,
        conn: ConnId,
        payload: Payload<'_>,
        to: RemoteAddr,
        signal: Option<WorkId>,
    ) -> Result<(), PostError> {
        self.of(conn).write(conn, payload, to, signal)
    }

    fn write_imm(
        &mut self,
        conn: ConnId,
        payload: Payload<'_>,
        to: RemoteAddr,
        imm: u32,
        signal: Option<WorkId>,
    ) -> Result<(), PostError> {
        self.of(conn).write_imm(conn, payload, to, imm, signal)
    }

    fn send(&mut self, conn: ConnId, message: &[u8]) -> Result<(), PostError> {
        self.of(conn).send(conn, message)
    }

    fn submit(&mut self, conn: ConnId) {
        self.of(conn).submit(conn);
    }

    fn submit_unsolicited(&mut self, conn: ConnId) {
        self.of(conn).submit_unsolicited(conn);
    }

    fn disconnect(&mut self, conn: ConnId) {
        self.of(conn).disconnect(conn);
    }

    fn watch(&mut self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> Result<(), FabricError> {
        assert!(token < SHM_TOKEN, "the token {token:#x} is taken");
        self.sockets.watch(fd, token, interest)
    }

    fn unwatch(&mut self, fd: BorrowedFd<'_>) {
        self.sockets.unwatch(fd);
    }

    fn peer_core(&self, conn: ConnId) -> Option<usize> {
        self.shm.as_ref().filter(|_| conn.0 > SHM_CONNECTIONS)?.peer_core(conn)
    }

    fn poll(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> usize {
        poll_until(self, events, timeout)
    }
}

fn scheme(address: &str) -> Result<Scheme, FabricError> {
    match address.split_once("://").map(|(scheme, _)| scheme) {
        Some("tcp" | "unix") => Ok(Scheme::Socket),
        Some("rdma") => Ok(Scheme::Rdma),
        Some("shm") => Ok(Scheme::Shm),
        _ => {
            let why = "it begins with tcp://, unix://, rdma:// or shm://".to_owned();
            Err(FabricError::Address { address: address.to_owned(), why })
        }
    }
}
