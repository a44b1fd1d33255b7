//! How soon the end of a peer is seen, between two hosts: for the lab.
//!
//! ```text
//! rdma-watch listen  rdma://10.4.0.1:7471           answers every message
//! rdma-watch connect rdma://10.4.0.1:7471 [SECONDS] sends one every 10 ms, and says when and why it ended
//! ```
//!
//! `connect` prints `connected`, then at the end one line `closed after N ms: WHY`, N counted from the last answer; it
//! ends with 1 if nothing had ended within the seconds (60), and with 3 if the connection was never made.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use twinsan_fabric::{Event, Fabric, PostError};
use twinsan_network::{Network, NetworkOptions};

const EVERY: Duration = Duration::from_millis(10);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut network = Network::new(NetworkOptions::default()).expect("an epoll");
    match words[..] {
        ["listen", address] => listen(&mut network, address),
        ["connect", address] => connect(&mut network, address, Duration::from_secs(60)),
        ["connect", address, seconds] => {
            connect(&mut network, address, Duration::from_secs(seconds.parse().expect("a number of seconds")))
        }
        _ => {
            eprintln!("rdma-watch listen ADDRESS | connect ADDRESS [SECONDS]");
            ExitCode::from(2)
        }
    }
}

fn say(text: &str) {
    println!("{text}");
    std::io::stdout().flush().expect("somebody reads this");
}

fn listen(network: &mut Network, address: &str) -> ! {
    let bound = network.listen(address).unwrap_or_else(|e| panic!("{e}"));
    say(&format!("listening at {bound}"));
    let mut events = Vec::new();
    loop {
        network.poll(&mut events, Some(Duration::from_secs(1)));
        for event in events.drain(..) {
            match event {
                Event::Message { conn, bytes } => {
                    // No room: the connection is about to end.
                    let _ = network.send(conn, &bytes);
                    network.submit(conn);
                }
                other => say(&format!("{other:?}")),
            }
        }
    }
}

fn connect(network: &mut Network, address: &str, patience: Duration) -> ExitCode {
    let conn = network.connect(address).unwrap_or_else(|e| panic!("{e}"));
    let (start, mut events) = (Instant::now(), Vec::new());
    let (mut connected, mut answered, mut next) = (false, start, start);
    while start.elapsed() < patience {
        if connected && Instant::now() >= next {
            next = Instant::now() + EVERY;
            match network.send(conn, b"are you there?") {
                Ok(()) | Err(PostError::Full) => network.submit(conn),
                // Its end is on the way.
                Err(_) => {}
            }
        }
        network.poll(&mut events, Some(next.saturating_duration_since(Instant::now()).clamp(EVERY / 10, EVERY)));
        for event in events.drain(..) {
            match event {
                Event::Connected { .. } => {
                    connected = true;
                    say(&format!("connected after {} ms", start.elapsed().as_millis()));
                }
                Event::Message { .. } => answered = Instant::now(),
                Event::Closed { why, .. } => {
                    say(&format!("closed after {} ms: {why}", answered.elapsed().as_millis()));
                    return ExitCode::from(if connected { 0 } else { 3 });
                }
                other => say(&format!("{other:?}")),
            }
        }
    }
    ExitCode::FAILURE
}
