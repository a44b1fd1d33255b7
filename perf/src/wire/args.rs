//! `twinsan-perf wire`.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use clap::Args;
use twinsan_control::Size;

use super::figures::Wire;
use super::{Budget, Listener, MAX_BYTES, MIN_BYTES, SIZES, Settings, both_ends, measure};
use crate::fabric::{is_local, open, shares_memory};

/// One end, or both.
#[derive(Clone, Debug, Args)]
pub struct WireArgs {
    /// Where the end that answers listens: tcp://host:port, rdma://host:port, unix:///path or shm:///path; with --listen several,
    /// with commas between
    #[arg(long, value_name = "URL", required = true, value_delimiter = ',')]
    pub fabric: Vec<String>,
    /// Be the end that answers, until SIGTERM or SIGINT; prints its addresses on standard output, a line each
    #[arg(long, group = "ends", conflicts_with_all = ["sizes", "rounds", "row_ms", "json"])]
    pub listen: bool,
    /// Be the end that asks [default, where the address is another host's]
    #[arg(long, group = "ends")]
    pub connect: bool,
    /// Be both ends, on two threads [default, where the address is shm://, unix:// or loopback]
    #[arg(long = "self", group = "ends")]
    pub both: bool,
    /// Payload sizes, like 64,4KiB,1MiB
    #[arg(long, value_name = "SIZES", value_delimiter = ',', value_parser = payload)]
    pub sizes: Vec<u32>,
    /// Rounds that count in each line
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub rounds: u64,
    /// A line ends after so many milliseconds, however many rounds are left
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    pub row_ms: u64,
    /// Poll up to so many microseconds before sleeping, at both ends; each end is told its own
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(0..=100_000))]
    pub spin_us: u64,
    /// Print one JSON object instead of the table
    #[arg(long)]
    pub json: bool,
}

/// What the arguments make of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    Listen,
    Connect,
    Both,
}

impl WireArgs {
    fn ends(&self) -> Ends {
        match (self.listen, self.connect, self.both) {
            (true, ..) => Ends::Listen,
            (_, true, _) => Ends::Connect,
            (.., true) => Ends::Both,
            _ if self.fabric.iter().all(|url| is_local(url)) => Ends::Both,
            _ => Ends::Connect,
        }
    }

    fn settings(&self) -> Result<Settings> {
        let [url] = self.fabric.as_slice() else {
            bail!("--fabric with {} addresses: only --listen takes several", self.fabric.len())
        };
        Ok(Settings {
            url: url.clone(),
            sizes: if self.sizes.is_empty() { SIZES.to_vec() } else { self.sizes.clone() },
            budget: Budget { count: self.rounds, time: Duration::from_millis(self.row_ms) },
            spin: Duration::from_micros(self.spin_us),
            quiet: self.json,
        })
    }
}

/// Does as told; the end that answers has no result.
///
/// # Errors
/// See [`both_ends`].
pub fn run(args: &WireArgs) -> Result<Option<Wire>> {
    match args.ends() {
        Ends::Listen => listen(args).map(|()| None),
        Ends::Connect => measure(&open, &args.settings()?).map(Some),
        Ends::Both => both_ends(&args.settings()?).map(Some),
    }
}

fn listen(args: &WireArgs) -> Result<()> {
    let over = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&over))?;
    }
    let mut listener =
        Listener::new(&open, Duration::from_micros(args.spin_us), args.fabric.iter().any(|url| shares_memory(url)))?;
    let mut out = std::io::stdout();
    for url in &args.fabric {
        writeln!(out, "listening at {}", listener.listen(url)?)?;
    }
    out.flush()?;
    listener.serve(&over);
    Ok(())
}

/// A payload's size, as the configuration writes sizes.
///
/// # Errors
/// If it is none, or out of bounds.
pub fn payload(text: &str) -> Result<u32> {
    let size: Size = text.parse().map_err(|error| anyhow::anyhow!("\"{text}\": {error}"))?;
    let bytes = size.bytes();
    ensure!(
        (u64::from(MIN_BYTES)..=u64::from(MAX_BYTES)).contains(&bytes),
        "\"{text}\": a payload has {MIN_BYTES} bytes to 1 MiB here"
    );
    Ok(u32::try_from(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        wire: WireArgs,
    }

    fn parsed(arguments: &[&str]) -> Result<WireArgs, clap::Error> {
        Line::try_parse_from([&["wire"], arguments].concat()).map(|line| line.wire)
    }

    #[test]
    fn who_we_are_follows_from_the_address() {
        let ends = |arguments: &[&str]| parsed(arguments).unwrap().ends();
        assert_eq!(ends(&["--fabric", "unix:///tmp/x"]), Ends::Both);
        assert_eq!(ends(&["--fabric", "tcp://127.0.0.1:0"]), Ends::Both);
        assert_eq!(ends(&["--fabric", "tcp://127.0.0.1:7", "--connect"]), Ends::Connect);
        assert_eq!(ends(&["--fabric", "tcp://san1:7"]), Ends::Connect);
        assert_eq!(ends(&["--fabric", "tcp://10.0.0.1:7", "--self"]), Ends::Both);
        assert_eq!(ends(&["--fabric", "tcp://san1:7", "--listen"]), Ends::Listen);
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        assert!(parsed(&[]).is_err(), "no address");
        assert!(parsed(&["--fabric", "x", "--listen", "--self"]).is_err());
        assert!(parsed(&["--fabric", "x", "--listen", "--json"]).is_err(), "it prints no result");
        assert!(parsed(&["--fabric", "x", "--rounds", "0"]).is_err());
        assert!(parsed(&["--fabric", "x,y", "--listen"]).is_ok());
        assert!(parsed(&["--fabric", "x,y"]).unwrap().settings().is_err(), "to which of the two?");
    }

    #[test]
    fn sizes_are_written_as_in_the_configuration() {
        let sizes = |text: &str| parsed(&["--fabric", "x", "--sizes", text]).map(|args| args.settings().unwrap().sizes);
        assert_eq!(sizes("64,4KiB,1MiB").unwrap(), [64, 4096, 1 << 20]);
        assert_eq!(parsed(&["--fabric", "x"]).unwrap().settings().unwrap().sizes, SIZES);
        for (text, named) in [("4KiB,2MiB", "2MiB"), ("8", "\"8\""), ("many", "many")] {
            let error = sizes(text).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
