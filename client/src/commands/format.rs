//! `twinsan format`.

use anyhow::Context;
use twinsan_control::{Config, FenceKind, Size, Volume};
use twinsan_sas::NodeName;
use twinsan_sas::fence::scsi_pr;
use twinsan_sas::format::{DataState, FormatError, FormatOptions, FormatReport};
use twinsan_sas::multipath::Sysfs;

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
    check_paths(volume)?;
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

/// Refuses a disk that the nodes would refuse, and one that is reserved: a node on another host may be serving it, and
/// the claim of this host says nothing about that.
fn check_paths(volume: &Volume) -> anyhow::Result<()> {
    if !volume.multipath && volume.fence == FenceKind::LocalLock {
        return Ok(());
    }
    let path = &volume.disk;
    let disk = Sysfs::default().find(path)?;
    if volume.multipath {
        disk.require_map(path)?;
    }
    if volume.fence == FenceKind::ScsiPr {
        let reserved = scsi_pr::reservation_of(disk).with_context(|| path.display().to_string())?;
        if let Some((reservation, registered)) = reserved {
            let key = reservation.key.map_or_else(|| "nobody".to_owned(), |key| format!("key {key}"));
            anyhow::bail!(
                "{}: the LUN is reserved by {key}, {}; {registered} paths are registered. A node may be serving it: stop \
                 twinsand on both hosts; what they leave registered goes with sg_persist --out --clear --param-rk=KEY, \
                 on a path of the host that KEY belongs to",
                path.display(),
                reservation.kind
            );
        }
    }
    Ok(())
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
