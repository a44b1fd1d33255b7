//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use twinsan_control::Size;

use crate::device::NbdDeviceName;
use crate::front::NbdAddress;

/// A block device whose every completed write is in two hosts' memory, or on the shared disk.
#[derive(Debug, Parser)]
#[command(name = "twinsan", version, max_term_width = 100)]
pub struct Cli {
    /// The configuration that the two nodes and all clients share
    #[arg(long, global = true, value_name = "FILE", default_value = "twinsan.toml", env = "TWINSAN_CONFIG")]
    pub config: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a volume a block device, for NBD clients or for this host's kernel, until SIGTERM or SIGINT
    ///
    /// Prints one line on standard output when requests may come; messages go to standard error (RUST_LOG sets how
    /// many). A node that dies is a pause for the caller, never an error.
    ///
    /// A kernel device outlives this process if that is killed, or is told to end while the device is in use: requests
    /// wait until the same command runs again.
    ///
    /// Exit status: 0 ended in order; 1 failed; 2 wrong usage; 3 another client has taken the volume.
    Attach(AttachArgs),
    /// Write a new, empty volume to its disk, as configured
    Format(FormatArgs),
    /// Show what the nodes say of the volumes
    ///
    /// Exit status: 0 if both nodes answered, else 1.
    Status(StatusArgs),
    /// Let a node serve a volume again although completed writes may be lost
    ///
    /// Only for a volume that both nodes held in memory (dual) when both lost it: a node then refuses to serve it, and
    /// says so in its log and in `twinsan status`. If one of the two nodes still runs, or its host is only cut off,
    /// bring that one back instead: it has everything.
    Recover(RecoverArgs),
    /// Let the other node serve a volume: a pause of milliseconds for its clients, never an error
    ///
    /// Before planned work on a node; a node that is ended in order (SIGTERM) does it by itself. Both stay members, and
    /// the same command moves the volume back.
    Switchover(SwitchoverArgs),
    /// Kill things under a volume that is being written, and see whether every completed write is still there
    ///
    /// Attaches the volume, writes blocks that name the write they come from, and reads them back all the time. Round
    /// by round something is killed: by you, when asked to, or by --kill-command. Tells what had completed, what came
    /// back, and how long the longest request waited. Both nodes have to be there again before the next round.
    ///
    /// Only for a volume that was made for it: it is overwritten from its beginning.
    ///
    /// Exit status: 0 every promise was kept; 1 one was broken, the volume stood still, or the test could not be made.
    Prove(ProveArgs),
}

/// Exactly one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct PlaceArgs {
    /// Serve NBD clients that connect here: unix:/path.sock or tcp:host:port
    #[arg(long, value_name = "ADDRESS")]
    pub nbd: Option<NbdAddress>,
    /// Serve this device of the kernel's nbd driver, like /dev/nbd0 (root)
    #[arg(long, value_name = "DEVICE")]
    pub nbd_device: Option<NbdDeviceName>,
    /// Make /dev/ublkbN by the kernel's ublk driver (root; Linux 6.5 or newer)
    #[arg(long)]
    pub ublk: bool,
}

/// `twinsan attach`.
#[derive(Debug, Args)]
pub struct AttachArgs {
    /// The volume's name in the configuration
    pub volume: String,
    /// Where its requests come in.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Let other hosts connect over TCP; whoever can may read and write the volume, as NBD asks for no key
    #[arg(long, conflicts_with_all = ["nbd_device", "ublk"])]
    pub nbd_allow_remote: bool,
    /// N of /dev/ublkbN [default: a free one, or where an earlier process has left the volume]
    #[arg(long, value_name = "N", conflicts_with_all = ["nbd", "nbd_device"])]
    pub ublk_id: Option<u32>,
    /// How long requests of --nbd-device wait for a new process if this one dies, before they fail, like "30s"
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "5min", conflicts_with_all = ["nbd", "ublk"])]
    pub nbd_dead_timeout: Duration,
    /// Answer a request that takes longer by EIO, like "30s" or "500ms" [default: wait for ever]
    ///
    /// A write that was answered so may still happen.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub io_timeout: Option<Duration>,
    /// Wait while another client is attached, instead of giving up
    #[arg(long)]
    pub wait: bool,
    /// Take the volume over from another client that is attached and lives: it ends, and its open requests fail
    ///
    /// What it was told to be done stays done; what it had open may have happened or not. Only the client that is
    /// attached when this command first hears the volume's node gives way, not one that attaches after that.
    #[arg(long, conflicts_with = "wait")]
    pub takeover: bool,
    /// Poll up to so many microseconds before sleeping [default: spin_us of the configuration]
    #[arg(long, value_name = "MICROSECONDS", value_parser = clap::value_parser!(u64).range(0..=100_000))]
    pub spin_us: Option<u64>,
    /// Measure where the time of each write goes, and write that into this file at the end (docs/performance.md)
    #[arg(long, value_name = "FILE")]
    pub ladder: Option<PathBuf>,
}

/// `twinsan format`.
#[derive(Debug, Args)]
pub struct FormatArgs {
    /// The volume's name in the configuration
    pub volume: String,
    /// The volume's size, like "1 GiB" [default: all of the disk]
    #[arg(long)]
    pub size: Option<Size>,
    /// The logical block in bytes, 512 or 4096; requests that are not aligned to it take a read and a write
    #[arg(long, value_name = "BYTES", default_value_t = 4096)]
    pub block: u32,
    /// Format a disk that carries something else; what it carries is lost
    #[arg(long)]
    pub force: bool,
    /// Write zeros over the whole volume instead of leaving what the disk holds
    #[arg(long)]
    pub zero: bool,
}

/// `twinsan status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Only this volume
    pub volume: Option<String>,
    /// One JSON object: the nodes' own answers, by name
    #[arg(long)]
    pub json: bool,
}

/// `twinsan switchover`.
#[derive(Debug, Args)]
pub struct SwitchoverArgs {
    /// The volume's name in the configuration
    pub volume: String,
    /// One JSON object: volume, from, to, epoch, `pause_ms`
    #[arg(long)]
    pub json: bool,
}

/// `twinsan recover`.
#[derive(Debug, Args)]
pub struct RecoverArgs {
    /// The volume's name in the configuration
    pub volume: String,
    /// The node that is to serve [default: one that refuses to; the two are alike, what counts is on the shared disk]
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Say that you know: writes that were completed may be lost
    #[arg(long, required = true)]
    pub accept_data_loss: bool,
}

/// `twinsan prove`.
#[derive(Debug, Args)]
pub struct ProveArgs {
    /// The volume's name in the configuration; what it holds is overwritten
    pub volume: String,
    /// How many times something is killed
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub rounds: u32,
    /// What kills, by `sh -c`, once a round, instead of you
    ///
    /// It finds in its environment: TWINSAN_ROUND (from 1), TWINSAN_VOLUME, TWINSAN_PRIMARY (the node that serves) and
    /// TWINSAN_SECONDARY; the last two are empty where no admin socket can be reached from here.
    #[arg(long, value_name = "COMMAND")]
    pub kill_command: Option<String>,
    /// What starts again what was killed, by `sh -c` and with the same environment, once the volume has gone on
    #[arg(long, value_name = "COMMAND", requires = "kill_command")]
    pub restart_command: Option<String>,
    /// How much of the volume is used, from its beginning
    #[arg(long, default_value = "256MiB")]
    pub span: Size,
    /// Requests in flight
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub depth: u32,
    /// How long a volume may stand still before the test ends, like "2min"
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "2min")]
    pub patience: Duration,
    /// Overwrite a volume that holds something else than what an earlier prove has written
    #[arg(long)]
    pub overwrite: bool,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

/// A whole number and `ms`, `s` or `min`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = (&text[..digits], text[digits..].trim_start());
    let scale = match unit {
        "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        _ => return Err(format!("\"{text}\" is no time: write a whole number and ms, s or min, like \"30s\"")),
    };
    let time = number.parse::<u64>().ok().and_then(|number| number.checked_mul(scale));
    match time {
        Some(0) => Err(format!("\"{text}\" would fail every request: write at least 1ms")),
        Some(ms) => Ok(Duration::from_millis(ms)),
        None => Err(format!("\"{text}\" is no time: write a whole number and ms, s or min, like \"30s\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn times() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("500 ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2min"), Ok(Duration::from_secs(120)));
        for wrong in ["", "5", "s", "-1s", "1.5s", "0s", "1h", "99999999999999999999s"] {
            assert!(duration(wrong).unwrap_err().contains(&format!("\"{wrong}\"")), "{wrong}");
        }
    }

    #[test]
    fn recover_takes_the_word() {
        assert!(Cli::try_parse_from(["twinsan", "recover", "db", "--node", "san1"]).is_err());
        assert!(Cli::try_parse_from(["twinsan", "recover", "--accept-data-loss", "db", "--node", "san1"]).is_ok());
    }
}
