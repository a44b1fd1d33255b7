//! `twinsan-perf hops`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use twinsan_control::Config;

use super::report::Hops;
use super::{Settings, Way, hops};
use crate::cluster::VOLUME;
use crate::fabric::open;
use crate::local::{Kind, Local, Setup};
use crate::wire::args::payload;

/// What is measured unless one says otherwise.
const SIZES: [u32; 5] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];

/// A pair that runs, or one of our own.
#[derive(Clone, Debug, Args)]
pub struct HopsArgs {
    /// The volume of a pair that runs; on each node's host runs `twinsan-perf wire --listen`. Without it: a pair of our
    /// own on this host
    #[arg(requires_all = ["config", "wire", "overwrite"])]
    pub volume: Option<String>,
    /// The pair's configuration
    #[arg(long, value_name = "FILE", env = "TWINSAN_CONFIG", requires = "volume")]
    pub config: Option<PathBuf>,
    /// Where a node's listener is, once for each node: san1=tcp://10.0.0.1:7500; with a comma and a second address, if the
    /// other node's host reaches it by another than the client
    #[arg(long, value_name = "NODE=URL[,URL]", requires = "volume")]
    pub wire: Vec<String>,
    /// Say that you know: the first 64 MiB of the volume are written over
    #[arg(long, requires = "volume")]
    pub overwrite: bool,
    /// What a pair of our own talks by: shm, unix, tcp, or a scheme and an address of this host, like rdma://10.0.0.1
    #[arg(long, value_name = "FABRIC", default_value = "unix", conflicts_with = "volume")]
    pub fabric: Kind,
    /// A pair of our own goes without payload CRCs
    #[arg(long, conflicts_with = "volume")]
    pub no_integrity: bool,
    /// A pair of our own polls so many microseconds before sleeping
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 100, conflicts_with = "volume",
          value_parser = clap::value_parser!(u64).range(0..=100_000))]
    pub spin_us: u64,
    /// Where the disk file (256 MiB) of a pair of our own goes
    #[arg(long, value_name = "FOLDER", default_value_os_t = std::env::temp_dir(), conflicts_with = "volume")]
    pub dir: PathBuf,
    /// Payload sizes, like 4KiB,1MiB; multiples of the volume's block
    #[arg(long, value_name = "SIZES", value_delimiter = ',', value_parser = payload)]
    pub sizes: Vec<u32>,
    /// Rounds; in each, durable writes and the three hops have a slice each
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    pub rounds: u16,
    /// Writes, or round trips, in a slice, which ends after 200 ms in any case
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub writes: u64,
    /// End with status 1 if durable 4 KiB writes (or the first size) take more than so many times their hops' sum
    #[arg(long, value_name = "RATIO")]
    pub limit: Option<f64>,
    /// Print one JSON object instead of the table
    #[arg(long)]
    pub json: bool,
}

/// Measures.
///
/// # Errors
/// See [`hops`].
pub fn run(args: &HopsArgs) -> Result<Hops> {
    match (&args.volume, &args.config) {
        (Some(volume), Some(file)) => {
            let config = Config::load(file)?;
            let wire = listeners(&config, &args.wire)?;
            hops(&open, &config, &args.settings(volume, wire))
        }
        _ => {
            let setup = Setup {
                kind: args.fabric.clone(),
                integrity: !args.no_integrity,
                spin_us: args.spin_us,
                patient: false,
            };
            let local = Local::start(&setup, &args.dir)?;
            hops(&open, &local.config()?, &args.settings(VOLUME, local.wire.clone()))
        }
    }
}

impl HopsArgs {
    fn settings(&self, volume: &str, wire: [Way; 2]) -> Settings {
        Settings {
            volume: volume.into(),
            wire,
            sizes: if self.sizes.is_empty() { SIZES.into() } else { self.sizes.clone() },
            rounds: self.rounds.into(),
            writes: self.writes,
            quiet: self.json,
        }
    }

    /// Whether the limit, if there is one, is kept.
    #[must_use]
    pub fn is_kept(&self, hops: &Hops) -> bool {
        let judged = hops.sizes.iter().find(|size| size.bytes == 4096).or(hops.sizes.first());
        self.limit.is_none_or(|limit| judged.is_some_and(|size| size.ratio <= limit))
    }
}

/// One for each node, by its place in the configuration.
fn listeners(config: &Config, given: &[String]) -> Result<[Way; 2]> {
    let mut urls: [Option<Way>; 2] = [None, None];
    for pair in given {
        let Some((name, urls_of)) = pair.split_once('=') else {
            bail!("--wire {pair}: write NODE=URL, like san1=tcp://10.0.0.1:7500");
        };
        let (node, _) = config.node(name).with_context(|| format!("--wire {pair}"))?;
        let (client, node_side) = urls_of.split_once(',').unwrap_or((urls_of, urls_of));
        let way = Way { client: client.to_owned(), node: node_side.to_owned() };
        let before = urls[node.index()].replace(way);
        ensure!(before.is_none(), "--wire {pair}: node \"{name}\" has one already");
    }
    let [a, b] = urls;
    let missing = |node: usize| format!("no --wire for node \"{0}\": write --wire {0}=URL", config.nodes[node].name);
    Ok([a.with_context(|| missing(0))?, b.with_context(|| missing(1))?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::path::Path;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        hops: HopsArgs,
    }

    const RUNNING: [&str; 7] =
        ["hops", "db", "--config", "x.toml", "--wire", "san1=unix:///a", "--wire=san2=unix:///b"];

    #[test]
    fn a_volume_is_written_over_only_by_its_word() {
        assert!(Line::try_parse_from(RUNNING).is_err());
        let args = Line::try_parse_from([&RUNNING[..], &["--overwrite"]].concat()).unwrap().hops;
        assert_eq!(args.wire.len(), 2);
        assert!(Line::try_parse_from(["hops", "--spin-us", "0", "--no-integrity"]).is_ok(), "a pair of our own");
        assert!(Line::try_parse_from([&RUNNING[..], &["--overwrite", "--spin-us", "0"]].concat()).is_err());
    }

    #[test]
    fn every_node_has_one_listener() {
        let text = "[[node]]\nname = \"san1\"\nlisten = [\"tcp://127.0.0.1:1\"]\nadmin = \"a\"\n\
                    [[node]]\nname = \"san2\"\nlisten = [\"tcp://127.0.0.1:2\"]\nadmin = \"b\"\n\
                    [[volume]]\nname = \"db\"\ndisk = \"d\"\nfence = \"local-lock\"\nstaging = \"64MiB\"\n";
        let config = Config::parse(text, Path::new("/x.toml")).unwrap();
        let of = |given: &[&str]| {
            let given: Vec<String> = given.iter().map(ToString::to_string).collect();
            listeners(&config, &given).map_err(|error| format!("{error:#}"))
        };
        let way = |client: &str, node: &str| Way { client: client.into(), node: node.into() };
        let both = of(&["san2=tcp://b:1,tcp://b2:1", "san1=tcp://a:1"]).unwrap();
        assert_eq!(both, [way("tcp://a:1", "tcp://a:1"), way("tcp://b:1", "tcp://b2:1")]);
        assert!(of(&["san1=tcp://a:1"]).unwrap_err().contains("\"san2\""));
        assert!(of(&["san1=a", "san1=b"]).unwrap_err().contains("has one already"));
        assert!(of(&["tcp://a:1"]).unwrap_err().contains("NODE=URL"));
        assert!(of(&["san3=a"]).unwrap_err().contains("san3"));
    }
}
