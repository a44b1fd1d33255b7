//! What a key opens, on the device itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use twinsan_arena::{Arena, ArenaOptions, PagePolicy};
use twinsan_fabric::conformance::{PATIENCE, Setup};
use twinsan_fabric::{CloseReason, ConnId, Event, Fabric, LocalSlice, Payload, RegionId, RemoteAddr, RemoteKey};

/// A lane: no multiple of a page, so that its neighbours share pages with it.
const LANE: u64 = 100_000;
const LANES: u64 = 3;
const REGION: usize = 1 << 20;

/// Two ends with a region each.
pub(crate) struct Ends {
    pub(crate) client: Box<dyn Fabric>,
    pub(crate) node: Box<dyn Fabric>,
    pub(crate) client_events: Vec<Event>,
    pub(crate) node_events: Vec<Event>,
    pub(crate) from: RegionId,
    pub(crate) region: RegionId,
    pub(crate) arena: Arc<Arena>,
    address: String,
}

pub(crate) fn arena() -> Arc<Arena> {
    let options = ArenaOptions { name: "lanes".into(), bytes: REGION, pages: PagePolicy::Small, lock: false };
    Arc::new(Arena::new(&options).expect("a megabyte"))
}

impl Ends {
    pub(crate) fn new(setup: Setup) -> Self {
        let Setup { left: mut client, right: mut node, address, .. } = setup;
        let (source, arena) = (arena(), arena());
        source.copy_in(0, &vec![0xbb; REGION]);
        let from = client.register(source).expect("register");
        let region = node.register(Arc::clone(&arena)).expect("register");
        let address = node.listen(&address).expect("listen");
        Self { client, node, client_events: Vec::new(), node_events: Vec::new(), from, region, arena, address }
    }

    pub(crate) fn wait<T>(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = done(self) {
                return found;
            }
            self.client.poll(&mut self.client_events, None);
            self.node.poll(&mut self.node_events, Some(Duration::from_micros(200)));
            assert!(start.elapsed() < PATIENCE, "{what}: {:?}, {:?}", self.client_events, self.node_events);
        }
    }

    /// A connection: the client's id, the node's.
    pub(crate) fn connect(&mut self) -> (ConnId, ConnId) {
        let conn = self.client.connect(&self.address).expect("connect");
        self.wait("connected", |ends| {
            take(&mut ends.client_events, |event| matches!(event, Event::Connected { conn: on } if *on == conn))
        });
        let accepted =
            self.wait("accepted", |ends| take(&mut ends.node_events, |event| matches!(event, Event::Accepted { .. })));
        let Event::Accepted { conn: there } = accepted else { unreachable!("picked") };
        (conn, there)
    }

    fn write(&mut self, conn: ConnId, key: RemoteKey, offset: u64, len: u32) {
        let payload = Payload::Region(LocalSlice { region: self.from, offset: 0, len });
        self.client.write_imm(conn, payload, RemoteAddr { key, offset }, 1, None).expect("a post");
        self.client.submit(conn);
    }

    /// The write ends the connection as the client's fault, and nothing has landed.
    fn refused(&mut self, (conn, there): (ConnId, ConnId), key: RemoteKey, offset: u64, len: u32) {
        self.write(conn, key, offset, len);
        let closed = self.wait("the end", |ends| take(&mut ends.node_events, |event| is_of(event, there)));
        assert!(
            matches!(closed, Event::Closed { why: CloseReason::Violation(_), .. }),
            "{closed:?} for {len} at {offset}"
        );
        self.wait("the client's end", |ends| take(&mut ends.client_events, |event| is_of(event, conn)));
        assert!(self.arena.is_zero(0, REGION), "{len} bytes at {offset} landed");
    }
}

fn take(events: &mut Vec<Event>, mut wanted: impl FnMut(&Event) -> bool) -> Option<Event> {
    let at = events.iter().position(&mut wanted)?;
    Some(events.remove(at))
}

fn is_of(event: &Event, of: ConnId) -> bool {
    matches!(event, Event::Closed { conn, .. } | Event::Immediate { conn, .. } if *conn == of)
}

/// Lanes side by side, a connection each. Whatever a client adds to its key, or takes from it, it reaches its own lane or
/// nothing; another's key opens nothing on its connection, nor do numbers near its own.
pub(crate) fn a_client_reaches_its_own_lane_and_nothing_else(setup: Setup) {
    let mut ends = Ends::new(setup);
    let mut clients = Vec::new();
    for lane in 0..LANES {
        let pair = ends.connect();
        let key = ends.node.expose(pair.1, ends.region, lane * LANE, LANE).expect("expose");
        clients.push((pair, key));
    }
    let (_, other) = clients[2];
    // One byte before it, one behind it, across either end, a neighbour's first byte by an offset.
    let cases =
        [(u64::MAX, 1), (LANE, 1), (LANE - 1, 2), (u64::MAX, 2), (LANE * 2, 64), (0_u64.wrapping_sub(LANE), 64)];
    for (offset, len) in cases {
        let pair = ends.connect();
        let key = ends.node.expose(pair.1, ends.region, LANE, LANE).expect("expose");
        ends.refused(pair, key, offset, len);
    }
    // Keys of others, and guessed ones: another slot, another generation of one, the address moved by a lane.
    let guesses = |RemoteKey(own): RemoteKey| {
        let moved = own.wrapping_sub(LANE << 32);
        [other, RemoteKey(own ^ 1), RemoteKey(own ^ 0x100), RemoteKey(moved), RemoteKey(own & 0xffff_ffff)]
    };
    for guess in 0..5 {
        let pair = ends.connect();
        let own = ends.node.expose(pair.1, ends.region, LANE, LANE).expect("expose");
        ends.refused(pair, guesses(own)[guess], 0, 64);
    }
    // Those that kept to theirs are unharmed, and reach all of it.
    for (lane, (pair, key)) in (0..LANES).zip(clients) {
        let len = u32::try_from(LANE).expect("small");
        ends.write(pair.0, key, 0, len);
        let told = ends.wait("an immediate", |ends| take(&mut ends.node_events, |event| is_of(event, pair.1)));
        assert!(matches!(told, Event::Immediate { imm: 1, .. }), "{told:?}");
        let mut bytes = vec![0; REGION];
        ends.arena.copy_out(0, &mut bytes);
        let full = usize::try_from((lane + 1) * LANE).expect("small");
        assert!(bytes[..full].iter().all(|&byte| byte == 0xbb) && bytes[full..].iter().all(|&byte| byte == 0));
    }
}

/// Descriptors, and what the device counts, are as before.
pub(crate) fn many_connections_leave_nothing_behind(setup: Setup) {
    let mut ends = Ends::new(setup);
    let once = |ends: &mut Ends, round: u32| {
        let (conn, there) = ends.connect();
        let key = ends.node.expose(there, ends.region, 0, LANE).expect("expose");
        ends.write(conn, key, 0, 64);
        ends.wait("an immediate", |ends| take(&mut ends.node_events, |event| is_of(event, there)));
        if round.is_multiple_of(2) {
            ends.client.disconnect(conn);
            ends.wait("its end", |ends| take(&mut ends.node_events, |event| is_of(event, there)));
        } else {
            ends.node.disconnect(there);
            ends.wait("its end", |ends| take(&mut ends.client_events, |event| is_of(event, conn)));
        }
    };
    once(&mut ends, 0);
    let before = descriptors();
    for round in 0..100 {
        once(&mut ends, round);
    }
    assert_eq!(descriptors(), before, "open descriptors");
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("proc").count()
}
