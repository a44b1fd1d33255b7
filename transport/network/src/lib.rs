//! All fabrics as one: `tcp://host:port`, `unix:///path` and `rdma://host:port`, side by side in one loop.
//!
//! The scheme of an address says which fabric a listener or a connection belongs to. RDMA is opened when the first
//! `rdma://` address is used, and not before: where there is none, that address is an error that says so
//! ([`FabricError::NoTransport`]), and everything else goes on.
//!
//! - The RDMA fabric numbers its connections from [`RDMA_CONNECTIONS`] on, so a [`ConnId`] says whose it is.
//! - Regions are registered with both, in the same order, and so have the same [`RegionId`] in both.
//! - The limits are those of the tightest, whether it is open or not.
//! - There is one spin, which looks at both, and one sleep: the RDMA fabric's descriptor is watched by the other's epoll.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use twinsan_arena::Arena;
use twinsan_fabric::{
    ConnId, Event, Fabric, FabricError, Interest, Limits, Payload, PostError, RegionId, RemoteAddr, RemoteKey,
    WaitPolicy, WorkId,
};
use twinsan_tcp::{TcpFabric, TcpOptions};
use twinsan_verbs::{VerbsFabric, VerbsOptions};

/// Numbers of RDMA connections are above this, those of sockets below.
pub const RDMA_CONNECTIONS: u64 = 1 << 48;

/// What the RDMA fabric's descriptor is watched with. Callers' tokens are below it.
const RDMA_TOKEN: u64 = u64::MAX;

/// After so many polls in a row that were content with RDMA's completion queues, the descriptors are looked at.
const MOST_UNLOOKED: u32 = 16;

/// While spinning, the descriptors are looked at once in so many looks at RDMA's completion queues.
const LOOK_EVERY: u32 = 4;

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
    options: NetworkOptions,
    regions: Vec<Arc<Arena>>,
    unlooked: u32,
}

/// Which fabric an address belongs to.
enum Scheme {
    Socket,
    Rdma,
}

impl Network {
    /// Without regions, connections and listeners; RDMA is not opened yet.
    ///
    /// # Errors
    /// If the system gives no epoll.
    pub fn new(options: NetworkOptions) -> Result<Self, FabricError> {
        // No spin of its own: that would be blind to RDMA.
        let sockets = TcpOptions {
            wait: WaitPolicy { spin: Duration::ZERO },
            connect_timeout: options.connect_timeout,
            ..TcpOptions::default()
        };
        Ok(Self { sockets: TcpFabric::new(sockets)?, rdma: None, options, regions: Vec::new(), unlooked: 0 })
    }

    /// The RDMA fabric, opened if it is not, for the use of `address`.
    fn open_rdma(&mut self, address: &str) -> Result<&mut VerbsFabric, FabricError> {
        if self.rdma.is_none() {
            let options = VerbsOptions {
                connect_timeout: self.options.connect_timeout,
                first_conn: RDMA_CONNECTIONS,
                ..VerbsOptions::default()
            };
            let opened = VerbsFabric::new(options);
            let mut rdma =
                opened.map_err(|e| FabricError::NoTransport { address: address.to_owned(), why: e.to_string() })?;
            for arena in &self.regions {
                rdma.register(Arc::clone(arena))?;
            }
            self.sockets.watch(rdma.as_fd(), RDMA_TOKEN, Interest::Readable)?;
            tracing::debug!("RDMA is open");
            self.rdma = Some(rdma);
        }
        self.rdma.as_mut().ok_or(FabricError::Invalid("no RDMA"))
    }

    /// The fabric that a connection belongs to. A connection of RDMA's without RDMA is unknown to sockets too.
    fn of(&mut self, conn: ConnId) -> &mut dyn Fabric {
        match &mut self.rdma {
            Some(rdma) if conn.0 > RDMA_CONNECTIONS => rdma,
            _ => &mut self.sockets,
        }
    }

    fn look_at_descriptors(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) {
        self.unlooked = 0;
        let first = events.len();
        self.sockets.poll(events, timeout);
        let Some(rdma) = &mut self.rdma else { return };
        let own = |event: &Event| matches!(event, Event::Ready { token: RDMA_TOKEN });
        let ready = (first..events.len()).find(|&at| own(&events[at])).map(|at| events.remove(at)).is_some();
        if ready || rdma.next_timer().is_some_and(|at| at <= Instant::now()) {
            rdma.poll_descriptors(events);
        }
    }

    fn poll_until(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) {
        let before = events.len();
        if let Some(rdma) = &mut self.rdma
            && rdma.poll_queues(events) > 0
            && self.unlooked < MOST_UNLOOKED
        {
            self.unlooked += 1;
            return;
        }
        // Who is going to sleep at once looks at the descriptors by that.
        if events.len() > before || timeout.is_none() || !self.options.wait.spin.is_zero() {
            self.look_at_descriptors(events, None);
        }
        let Some(timeout) = timeout.filter(|_| events.len() == before) else { return };
        let start = Instant::now();
        let end = start.checked_add(timeout);
        let mut looks = 0_u32;
        while events.len() == before {
            let now = Instant::now();
            if end.is_some_and(|end| now >= end) {
                return;
            }
            if now.duration_since(start) < self.options.wait.spin {
                std::thread::yield_now();
                looks += 1;
                match &mut self.rdma {
                    Some(rdma) if !looks.is_multiple_of(LOOK_EVERY) => drop(rdma.poll_queues(events)),
                    _ => self.look_at_descriptors(events, None),
                }
            } else {
                self.sleep(events, now, end);
            }
        }
    }

    /// Sleeps in the sockets' epoll, which hears of RDMA's events too.
    fn sleep(&mut self, events: &mut Vec<Event>, now: Instant, end: Option<Instant>) {
        let mut timer = None;
        if let Some(rdma) = &mut self.rdma {
            if rdma.prepare_to_sleep(events) > 0 {
                return;
            }
            timer = rdma.next_timer();
        }
        let until = [end, timer].into_iter().flatten().min();
        let wait = until.map_or(Duration::MAX, |until| until.saturating_duration_since(now));
        self.look_at_descriptors(events, Some(wait));
    }
}

impl Fabric for Network {
    fn limits(&self) -> Limits {
        let (sockets, rdma) = (self.sockets.limits(), twinsan_verbs::LIMITS);
        Limits {
            max_inline: sockets.max_inline.min(rdma.max_inline),
            max_message: sockets.max_message.min(rdma.max_message),
            send_depth: sockets.send_depth.min(rdma.send_depth),
        }
    }

    fn register(&mut self, arena: Arc<Arena>) -> Result<RegionId, FabricError> {
        let id = self.sockets.register(Arc::clone(&arena))?;
        if let Some(rdma) = &mut self.rdma {
            let same = rdma.register(Arc::clone(&arena))?;
            assert_eq!(id, same, "both number regions from zero");
        }
        self.regions.push(arena);
        Ok(id)
    }

    fn expose(&mut self, conn: ConnId, region: RegionId, offset: u64, len: u64) -> Result<RemoteKey, FabricError> {
        self.of(conn).expose(conn, region, offset, len)
    }

    fn listen(&mut self, address: &str) -> Result<String, FabricError> {
        match scheme(address)? {
            Scheme::Socket => self.sockets.listen(address),
            Scheme::Rdma => self.open_rdma(address)?.listen(address),
        }
    }

    fn connect(&mut self, address: &str) -> Result<ConnId, FabricError> {
        match scheme(address)? {
            Scheme::Socket => self.sockets.connect(address),
            Scheme::Rdma => self.open_rdma(address)?.connect(address),
        }
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

    fn disconnect(&mut self, conn: ConnId) {
        self.of(conn).disconnect(conn);
    }

    fn watch(&mut self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> Result<(), FabricError> {
        assert!(token != RDMA_TOKEN, "the token {RDMA_TOKEN:#x} is taken");
        self.sockets.watch(fd, token, interest)
    }

    fn unwatch(&mut self, fd: BorrowedFd<'_>) {
        self.sockets.unwatch(fd);
    }

    fn poll(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> usize {
        let before = events.len();
        self.poll_until(events, timeout);
        events.len() - before
    }
}

fn scheme(address: &str) -> Result<Scheme, FabricError> {
    if address.starts_with("tcp://") || address.starts_with("unix://") {
        return Ok(Scheme::Socket);
    }
    if address.starts_with("rdma://") {
        return Ok(Scheme::Rdma);
    }
    let why = "it begins with tcp://, unix:// or rdma://".to_owned();
    Err(FabricError::Address { address: address.to_owned(), why })
}
