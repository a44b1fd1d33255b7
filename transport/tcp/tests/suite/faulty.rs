//! The fault injector does what it promises: its faults happen, and it catches callers that break the contract.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use twinsan_arena::{Arena, ArenaOptions, PagePolicy};
use twinsan_fabric::conformance::{PATIENCE, mailbox_under_overwrite};
use twinsan_fabric::faulty::{Faults, FaultyFabric};
use twinsan_fabric::{ConnId, Event, Fabric, LocalSlice, Payload, PostError, RegionId, RemoteAddr, RemoteKey};
use twinsan_tcp::TcpFabric;

use crate::setups::{fabric, faulty, faulty_unix};

#[test]
fn mailboxes_do_tear() {
    for make in [faulty, faulty_unix] {
        let torn = mailbox_under_overwrite(make());
        assert!(torn > 0, "no mailbox was torn: the injector injects nothing");
    }
}

/// An injector and a plain fabric, connected; everything of the plain one's region is open to the injector.
struct Ends {
    faulty: FaultyFabric<TcpFabric>,
    plain: TcpFabric,
    here: Arc<Arena>,
    there: Arc<Arena>,
    region: RegionId,
    conn: ConnId,
    key: RemoteKey,
    /// What the injector has reported.
    events: Vec<Event>,
    /// What the plain one has reported.
    seen: Vec<Event>,
}

const BYTES: usize = 1 << 16;

fn arena() -> Arc<Arena> {
    let options = ArenaOptions { name: "faulty".into(), bytes: BYTES, pages: PagePolicy::Small, lock: false };
    Arc::new(Arena::new(&options).expect("a small arena"))
}

impl Ends {
    fn new(faults: Faults) -> Self {
        let (mut faulty, mut plain, here, there) = (FaultyFabric::new(fabric(), faults), fabric(), arena(), arena());
        let region = faulty.register(Arc::clone(&here)).expect("register");
        let over_there = plain.register(Arc::clone(&there)).expect("register");
        let address = plain.listen("tcp://127.0.0.1:0").expect("listen");
        let conn = faulty.connect(&address).expect("connect");
        let key = RemoteKey(0);
        let mut ends = Self { faulty, plain, here, there, region, conn, key, events: Vec::new(), seen: Vec::new() };
        ends.wait(|ends| matches!(ends.events[..], [Event::Connected { .. }]) && !ends.seen.is_empty());
        ends.events.clear();
        let Some(Event::Accepted { conn }) = ends.seen.pop() else { panic!("not accepted") };
        ends.key = ends.plain.expose(conn, over_there, 0, BYTES as u64).expect("expose");
        ends
    }

    fn wait(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            self.faulty.poll(&mut self.events, None);
            self.plain.poll(&mut self.seen, Some(Duration::from_micros(100)));
            assert!(start.elapsed() < PATIENCE, "waited in vain: {:?}, {:?}", self.events, self.seen);
        }
    }

    fn write(&mut self, offset: u64, signal: Option<u64>) -> Result<(), PostError> {
        let payload = Payload::Region(LocalSlice { region: self.region, offset, len: 4096 });
        let outcome = self.faulty.write(self.conn, payload, RemoteAddr { key: self.key, offset }, signal);
        self.faulty.submit(self.conn);
        outcome
    }

    fn there(&self) -> u8 {
        let mut byte = [0];
        self.there.copy_out(0, &mut byte);
        byte[0]
    }
}

/// A plain write lands late, so a caller that changes its memory early sends the wrong bytes; and is found out.
#[test]
fn early_reuse_is_caught() {
    let mut caught = 0;
    for seed in 0..20 {
        let mut ends = Ends::new(Faults::with_seed(seed));
        ends.here.copy_in(0, &[1; 4096]);
        ends.write(0, Some(1)).expect("a post");
        ends.here.copy_in(0, &[2; 4096]);
        let outcome = catch_unwind(AssertUnwindSafe(|| ends.wait(|ends| !ends.events.is_empty())));
        let panic = outcome.expect_err("early reuse went unnoticed");
        let told = panic.downcast_ref::<String>().expect("a text");
        assert!(told.contains("contract 2"), "{told}");
        caught += u32::from(ends.there() == 2);
    }
    assert!(caught > 0, "memory was never read late");
}

/// The same, unguarded: the receiver gets what the memory has become.
#[test]
fn early_reuse_sends_garbage() {
    let mut garbage = 0;
    for seed in 0..20 {
        let mut ends = Ends::new(Faults { guard_memory: false, ..Faults::with_seed(seed) });
        ends.here.copy_in(0, &[1; 4096]);
        ends.write(0, Some(1)).expect("a post");
        ends.here.copy_in(0, &[2; 4096]);
        ends.wait(|ends| ends.there() != 0);
        garbage += u32::from(ends.there() == 2);
    }
    assert!(garbage > 0, "memory was never read late");
}

/// Plain writes may be missing until something is told; then they are there.
#[test]
fn plain_writes_land_late() {
    let mut late = 0;
    for seed in 0..20 {
        let mut ends = Ends::new(Faults { hold: u32::MAX - 1, ..Faults::with_seed(seed) });
        ends.here.copy_in(0, &[1; 4096]);
        ends.write(0, None).expect("a post");
        // Nothing to wait for: that nothing comes is the point.
        for _ in 0..50 {
            ends.faulty.poll(&mut ends.events, None);
            ends.plain.poll(&mut ends.seen, None);
        }
        late += u32::from(ends.there() == 0);
        ends.faulty.send(ends.conn, b"look").expect("a post");
        ends.faulty.submit(ends.conn);
        ends.wait(|ends| !ends.seen.is_empty());
        assert_eq!(ends.there(), 1);
    }
    assert_eq!(late, 20, "a silent write landed before anything was told");
}

/// The limits are the injector's.
#[test]
fn limits_are_small() {
    let mut ends = Ends::new(Faults { send_depth: 3, ..Faults::with_seed(1) });
    let limits = ends.faulty.limits();
    assert_eq!((limits.max_inline, limits.send_depth), (64, 3));
    for _ in 0..3 {
        ends.write(0, None).expect("one of three slots");
    }
    assert_eq!(ends.write(0, None), Err(PostError::Full));
    let to = RemoteAddr { key: ends.key, offset: 0 };
    let outcome = ends.faulty.write(ends.conn, Payload::Inline(&[0; 65]), to, None);
    assert_eq!(outcome, Err(PostError::TooLong { len: 65, limit: 64 }));
}

/// Connections break at random: told once, at both ends, and nothing comes after.
#[test]
fn connections_drop() {
    for seed in 0..20 {
        let mut ends = Ends::new(Faults { drop_one_in: 50, ..Faults::with_seed(seed) });
        let conn = ends.conn;
        let mut signal = 0;
        ends.wait(|ends| {
            match ends.write(signal % 8 * 4096, Some(signal)) {
                Ok(()) => signal += 1,
                Err(PostError::Full | PostError::NotConnected) => {}
                Err(other) => panic!("{other}"),
            }
            ends.events.iter().any(|event| matches!(event, Event::Closed { .. }))
        });
        assert!(matches!(ends.events.last(), Some(Event::Closed { conn: on, .. }) if *on == conn));
        let reported = ends.events.len();
        ends.wait(|ends| ends.seen.iter().any(|event| matches!(event, Event::Closed { .. })));
        assert_eq!(ends.events.len(), reported, "something came after Closed");
        assert_eq!(ends.faulty.send(conn, b"x"), Err(PostError::NotConnected));
    }
}
