//! `twinsan format`.

use anyhow::Context;
use twinsan_control::{Config, Size};
use twinsan_sas::NodeName;
use twinsan_sas::format::{DataState, FormatError, FormatOptions, FormatReport};

use crate::cli::FormatArgs;

/// Makes the volume; returns what was made.
///
/// # Errors
/// If the volume is not configured, or its disk is in use, too small, or carries something.
pub fn format(config: &Config, args: &FormatArgs) -> anyhow::Result<FormatReport> {
    let volume = config.volume(&args.volume)?;
    let name = |at: usize| -> anyhow::Result<NodeName> {
        let node = &config.nodes[at].name;
        NodeName::new(node).with_context(|| format!("node name \"{node}\" does not fit into a superblock"))
    };
    let options = FormatOptions {
        path: volume.disk.clone(),
        name: volume.name,
        bytes: args.size.map(Size::bytes),
        block_bytes: Some(args.block),
        nodes: [name(0)?, name(1)?],
        force: args.force,
        zero: args.zero,
    };
    twinsan_sas::format::format(&options).map_err(|error| {
        let hint = match &error {
            FormatError::Missing { .. } => Some("give it with --size, like --size 1GiB"),
            FormatError::Occupied { .. } => Some("if what it carries may go, say --force"),
            FormatError::InUse { .. } => Some("stop twinsand on both nodes first"),
            _ => None,
        };
        let error = anyhow::Error::new(error);
        match hint {
            Some(hint) => anyhow::anyhow!("{error:#} ({hint})"),
            None => error,
        }
    })
}

/// What was made, in words.
#[must_use]
pub fn describe(volume: &str, report: &FormatReport) -> String {
    use std::fmt::Write;

    let identity = &report.identity;
    let size = Size(identity.blocks * u64::from(identity.block_bytes));
    let mut text =
        format!("volume \"{volume}\" formatted: {size}, blocks of {} bytes, {}", identity.block_bytes, identity.uuid);
    for found in &report.erased {
        write!(text, "\nerased: {found}").expect("writing to a string");
    }
    match report.data {
        DataState::Fresh | DataState::Zeroed => text.push_str("\nit reads as zeros"),
        DataState::Kept { bytes } => {
            let kept = Size(bytes);
            write!(text, "\nits first {kept} still read as what the disk held; --zero would have cleared them")
                .expect("writing to a string");
        }
    }
    text
}
