//! Round trips over the socket fabric: a payload and its descriptor out, a 64-byte mailbox back.
//!
//! `cargo run --release -p twinsan-tcp --example pingpong [-- ROUNDS [SPIN_MICROSECONDS]]`
//!
//! The shape of a blob and its ACK, without what the nodes do in between. The other end is a thread with a fabric of
//! its own; what is printed are microseconds of the whole round trip, of which each half has one wake-up if nobody
//! spins.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use twinsan_arena::{Arena, ArenaOptions, PagePolicy};
use twinsan_fabric::{ConnId, Event, Fabric, LocalSlice, Payload, RegionId, RemoteAddr, RemoteKey, WaitPolicy};
use twinsan_tcp::{TcpFabric, TcpOptions};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Payload sizes.
const SIZES: [u32; 5] = [0, 4 << 10, 10_240, 102_400, 1 << 20];
/// The descriptor lands behind the longest payload.
const DESCRIPTOR_AT: u64 = 1 << 20;
const REGION: usize = 2 << 20;
const BYE: u32 = u32::MAX;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let rounds: usize = arguments.next().map_or(Ok(20_000), |text| text.parse())?;
    let spin: u64 = arguments.next().map_or(Ok(0), |text| text.parse())?;
    let spin = Duration::from_micros(spin);
    let file = format!("unix://{}/pingpong-{}.sock", std::env::temp_dir().display(), std::process::id());
    println!("{rounds} rounds, spinning {} µs before sleeping; round trip in µs", spin.as_micros());
    println!("{:<8}{:>10}{:>9}{:>9}{:>9}", "", "payload", "p50", "p99", "max");
    for (name, address) in [("unix", file.as_str()), ("tcp", "tcp://127.0.0.1:0")] {
        let (tell, told) = channel();
        let address = address.to_owned();
        let server = thread::spawn(move || serve(&address, spin, &tell));
        let outcome = told.recv().map_err(Failure::from).and_then(|address| ping(name, &address, rounds, spin));
        server.join().map_err(|_| "the server panicked")??;
        outcome?;
    }
    Ok(())
}

/// One end: its fabric, its region, and what it has learnt of the other's.
struct End {
    fabric: TcpFabric,
    region: RegionId,
    events: Vec<Event>,
}

impl End {
    fn new(spin: Duration) -> Result<Self, Failure> {
        let mut fabric = TcpFabric::new(TcpOptions { wait: WaitPolicy { spin }, ..TcpOptions::default() })?;
        let arena = Arena::new(&ArenaOptions {
            name: "pingpong".into(),
            bytes: REGION,
            pages: PagePolicy::Small,
            lock: false,
        })?;
        let region = fabric.register(Arc::new(arena))?;
        Ok(Self { fabric, region, events: Vec::new() })
    }

    /// The next event.
    fn next(&mut self) -> Event {
        while self.events.is_empty() {
            self.fabric.poll(&mut self.events, Some(Duration::from_secs(10)));
        }
        self.events.remove(0)
    }

    /// Tells the other end our key, and learns its.
    fn swap_keys(&mut self, conn: ConnId) -> Result<RemoteKey, Failure> {
        let key = self.fabric.expose(conn, self.region, 0, REGION as u64)?;
        self.fabric.send(conn, &key.0.to_le_bytes())?;
        self.fabric.submit(conn);
        match self.next() {
            Event::Message { bytes, .. } => Ok(RemoteKey(u64::from_le_bytes(bytes[..].try_into()?))),
            other => Err(format!("{other:?} instead of a key").into()),
        }
    }
}

fn serve(address: &str, spin: Duration, tell: &Sender<String>) -> Result<(), Failure> {
    let mut end = End::new(spin)?;
    tell.send(end.fabric.listen(address)?)?;
    let Event::Accepted { conn } = end.next() else { return Err("not accepted".into()) };
    let key = end.swap_keys(conn)?;
    let to = RemoteAddr { key, offset: 0 };
    loop {
        match end.next() {
            Event::Immediate { imm: BYE, .. } | Event::Closed { .. } => return Ok(()),
            Event::Immediate { imm, .. } => {
                end.fabric.write_imm(conn, Payload::Inline(&[7; 64]), to, imm, None)?;
                end.fabric.submit(conn);
            }
            other => return Err(format!("{other:?} instead of a blob").into()),
        }
    }
}

fn ping(name: &str, address: &str, rounds: usize, spin: Duration) -> Result<(), Failure> {
    let mut end = End::new(spin)?;
    let conn = end.fabric.connect(address)?;
    let Event::Connected { .. } = end.next() else { return Err("not connected".into()) };
    let key = end.swap_keys(conn)?;
    let descriptor = RemoteAddr { key, offset: DESCRIPTOR_AT };
    for len in SIZES {
        // Long payloads in fewer rounds: a gigabyte each is plenty.
        let rounds = rounds.min((1 << 30) / (len as usize + 1)).max(100);
        let mut times = Vec::with_capacity(rounds);
        for round in 0..rounds + rounds / 10 {
            let start = Instant::now();
            if len > 0 {
                let payload = Payload::Region(LocalSlice { region: end.region, offset: 0, len });
                end.fabric.write(conn, payload, RemoteAddr { key, offset: 0 }, None)?;
            }
            end.fabric.write_imm(conn, Payload::Inline(&[1; 64]), descriptor, len, None)?;
            end.fabric.submit(conn);
            match end.next() {
                Event::Immediate { imm, .. } if imm == len => {}
                other => return Err(format!("{other:?} instead of the ACK").into()),
            }
            // The first tenth warms caches and buffers up.
            if round >= rounds / 10 {
                times.push(start.elapsed());
            }
        }
        report(name, len, &mut times);
    }
    end.fabric.write_imm(conn, Payload::Inline(&[]), descriptor, BYE, None)?;
    end.fabric.submit(conn);
    while !matches!(end.next(), Event::Closed { .. }) {}
    Ok(())
}

fn report(name: &str, len: u32, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() - 1) * part / 100].as_nanos() as f64 / 1000.0;
    println!("{name:<8}{len:>10}{:>9.1}{:>9.1}{:>9.1}", at(50), at(99), at(100));
}
