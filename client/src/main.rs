//! `twinsan`: the client and the administrator's command.
#![forbid(unsafe_code)]

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tracing_subscriber::EnvFilter;
use twinsan::attach::{self, Attach, Place, Superseded};
use twinsan::cli::{AttachArgs, Cli, Command, PlaceArgs};
use twinsan::commands::Verdict;
use twinsan::{commands, say};
use twinsan_control::Config;

/// Another client has taken the volume: not a failure that a restart mends.
const EXIT_SUPERSEDED: u8 = 3;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let ansi = std::io::stderr().is_terminal();
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    subscriber.with_ansi(ansi).with_target(false).init();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("twinsan: {}", in_words(&error));
            if error.is::<Superseded>() { ExitCode::from(EXIT_SUPERSEDED) } else { ExitCode::FAILURE }
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let config = Config::load(&cli.config)?;
    match cli.command {
        Command::Attach(args) => attach::attach(&config, &options(args))?,
        Command::Format(args) => {
            let report = commands::format(&config, &args)?;
            say(&commands::describe(&args.volume, &report))?;
        }
        Command::Status(args) => {
            let status = commands::status(&config, &args)?;
            if args.json {
                say(&serde_json::to_string_pretty(&status)?)?;
            } else {
                say(&status.to_string().trim_end_matches('\n'))?;
            }
            if !status.is_whole() {
                return Ok(ExitCode::FAILURE);
            }
        }
        Command::Recover(args) => say(&commands::recover(&config, &args)?)?,
        Command::Prove(args) => {
            let proof = commands::prove(&config, &cli.config, &args)?;
            if args.json {
                say(&serde_json::to_string_pretty(&proof)?)?;
            } else {
                say(&proof)?;
            }
            if proof.verdict != Verdict::Kept {
                return Ok(ExitCode::FAILURE);
            }
        }
        Command::Switchover(args) => {
            let switched = commands::switchover(&config, &args)?;
            if args.json {
                say(&serde_json::to_string_pretty(&switched)?)?;
            } else {
                say(&switched)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The error and its causes. Many of ours say their cause themselves: it is not said twice.
fn in_words(error: &anyhow::Error) -> String {
    let mut words = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !words.contains(&cause) {
            words = format!("{words}: {cause}");
        }
    }
    words
}

fn options(args: AttachArgs) -> Attach {
    let AttachArgs {
        volume,
        place,
        nbd_allow_remote,
        nbd_dead_timeout,
        ublk_id,
        io_timeout,
        wait,
        takeover,
        spin_us,
        ladder,
    } = args;
    let place = match place {
        PlaceArgs { nbd: Some(address), .. } => Place::Nbd { address, allow_remote: nbd_allow_remote },
        PlaceArgs { nbd_device: Some(device), .. } => Place::NbdDevice { device, dead_timeout: nbd_dead_timeout },
        PlaceArgs { ublk: true, .. } => Place::Ublk { id: ublk_id },
        PlaceArgs { .. } => unreachable!("clap asks for one of them"),
    };
    Attach { volume, place, io_timeout, wait, takeover, spin: spin_us.map(Duration::from_micros), ladder }
}
