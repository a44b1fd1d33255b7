//! `twinsand`: one node of a TwinSAN pair. `twinsand --config twinsan.toml --node san1`.
//!
//! Threads: the reactors (`node.rs`, `reactor.rs`), one flusher per volume (`flusher.rs`), one for the admin socket
//! (`control.rs`), one for the metrics where they are wanted (`metrics.rs`). Crash-only: a panic anywhere aborts the
//! process, and the other node goes on with every completed write; a service manager starts it again.
//!
//! | exit code | meaning | start again? |
//! | ---: | --- | --- |
//! | 0 | ended in order: handed over, drained or left | - |
//! | 1 | could not start: an address taken, a disk out of reach, no memory | yes, it may pass |
//! | 2 | wrong command line | no |
//! | 3 | wrong configuration, key or disk: a person is needed | no |
//! | 4 | ended at once by a second signal | - |
//! | 134 (SIGABRT) | a panic | yes |
//! | 137 (SIGKILL) | killed; with `local-lock`, perhaps by the other node's fence | yes |
#![forbid(unsafe_code)]

mod clock;
mod conn;
mod control;
mod counters;
mod dial;
mod doorbell;
#[cfg(test)]
mod fake;
mod flusher;
mod incoming;
mod layout;
mod limits;
mod memory;
mod metrics;
mod node;
mod notice;
mod outbox;
mod paths;
mod placement;
mod reactor;
mod scsi;
mod signals;
mod slab;
mod start;
mod stopwatch;
#[cfg(test)]
mod testbed;
mod utc;
mod volume;
mod watchdog;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::reactor::Ending;
use crate::start::StartError;

const COULD_NOT_START: u8 = 1;
const WRONG_SETUP: u8 = 3;
const FORCED: u8 = 4;

/// One node of a TwinSAN pair.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The configuration file, the same for both nodes and all clients.
    #[arg(long, value_name = "FILE", env = "TWINSAN_CONFIG", default_value = "twinsan.toml")]
    config: PathBuf,
    /// Which of its nodes this is.
    #[arg(long, value_name = "NAME")]
    node: String,
    /// What to log: error, warn, info, debug, trace, or a tracing filter.
    #[arg(long, value_name = "FILTER", default_value = "info", env = "RUST_LOG", value_parser = log_filter)]
    log: String,
}

/// Refuses a filter that is none.
fn log_filter(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// The error and its causes. Many errors tell their cause themselves; nothing is said twice.
fn in_words(error: &anyhow::Error) -> String {
    let mut words = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if words.is_empty() {
            words = cause;
        } else if !words.contains(&cause) {
            words = format!("{words}: {cause}");
        }
    }
    words
}

fn main() -> ExitCode {
    let args = Args::parse();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(args.log))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    let node = match start::start(&args.config, &args.node) {
        Ok(node) => node,
        Err(error) => {
            tracing::error!("{}", in_words(&error));
            let code = if error.is::<StartError>() { WRONG_SETUP } else { COULD_NOT_START };
            return ExitCode::from(code);
        }
    };
    match node.run() {
        Ending::Orderly => {
            tracing::info!("ended in order");
            ExitCode::SUCCESS
        }
        Ending::Forced => {
            tracing::warn!("ended at once, by a second signal");
            ExitCode::from(FORCED)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_its_causes_once() {
        let inner = anyhow::Error::new(std::io::Error::other("disk on fire"));
        assert_eq!(in_words(&inner.context("volume db")), "volume db: disk on fire");
        let inner = anyhow::Error::new(std::io::Error::other("disk on fire"));
        assert_eq!(in_words(&inner.context("volume db: disk on fire")), "volume db: disk on fire");
    }

    #[test]
    fn the_command_line_is_checked() {
        let parsed = Args::try_parse_from(["twinsand", "--node", "san1", "--config", "x.toml"]).unwrap();
        assert_eq!((parsed.node.as_str(), parsed.config.to_str()), ("san1", Some("x.toml")));
        assert!(Args::try_parse_from(["twinsand"]).is_err(), "a node has a name");
        assert!(Args::try_parse_from(["twinsand", "--node", "san1", "--log", "=x="]).is_err());
    }
}
