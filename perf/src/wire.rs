//! Round trips over our own fabric code: what a link costs before the protocol adds anything.
//!
//! Two ends, each with a fabric of its own; one asks ([`Pinger`]), the other answers ([`Listener`]). What is posted is
//! what the product posts ([`Row`]), and both ends poll as the product polls. Payloads are stamped and
//! looked at by the end that received them, so that a fabric that moves nothing is no fast fabric: see [`note`].
//!
//! ```text
//! asks                                                    answers
//!   stamp payload, write down the note
//!   ├─ clock starts
//!   │  post, one doorbell ──────────────────────────────▶ copies the note out, looks at both ends of the payload
//!   │                                                     posts the answer, with what it saw
//!   │  wait, as the product waits ◀──────────────────────
//!   └─ clock stops
//!   compare what the other end saw; every 64th round, which is not counted, all of the payload by its CRC32C
//! ```
//!
//! Whoever can connect to a [`Listener`] may write into the memory that it gives away for that purpose, and make it
//! connect elsewhere ([`Pinger::ask`]): it is a measuring instrument for closed networks, and asks for no key.

pub mod args;
pub mod end;
pub mod figures;
pub mod listen;
pub mod note;
pub mod ping;
mod raw;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use twinsan_fabric::Fabric;

pub use self::end::Broken;
use self::figures::{Raw, RowFigures, Times, Wire};
pub use self::listen::Listener;
pub use self::ping::{Budget, Pinger};
use self::raw::RawPinger;
use crate::fabric::{Maker, open, shares_memory};

/// Where there are bare verbs to compare with.
const RDMA: &str = "rdma://";
/// The least payload: both stamps fit.
pub const MIN_BYTES: u32 = 64;
/// The longest: a blob's.
pub const MAX_BYTES: u32 = twinsan_wire::limits::MAX_PAYLOAD_BYTES;
/// What is measured unless one says otherwise.
pub const SIZES: [u32; 7] = [64, 512, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];

/// One kind of round trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    /// A client's blob and its ACK: payload WRITE, descriptor as inline `WRITE_WITH_IMM`, one doorbell; back, an inline
    /// 64-byte mailbox with immediate.
    Blob,
    /// The same as [`Row::Blob`] both ways: half of it is client → node.
    BlobBothWays,
    /// An immediate with 4 bytes inline, both ways: the fabric's floor. (Without any it would be no write to a device.)
    Immediate,
    /// A 64-byte mailbox, written inline with immediate, both ways: half of it is secondary → primary, or primary →
    /// client. A descriptor without payload (`WRITE_ZEROES`, DISCARD) is the same post.
    Ack,
    /// As nodes answer reads: a message asks; the bytes come by one-sided WRITE, and a message says so.
    Read,
    /// A 64-byte message both ways.
    Message,
}

impl Row {
    /// In the order of the table.
    pub const ALL: [Self; 6] = [Self::Immediate, Self::Ack, Self::Message, Self::BlobBothWays, Self::Blob, Self::Read];

    /// What tables and JSON call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Blob => "write+imm, ack",
            Self::BlobBothWays => "write+imm",
            Self::Immediate => "imm",
            Self::Ack => "ack",
            Self::Read => "read",
            Self::Message => "message",
        }
    }

    /// Whether it carries a payload, and so has a line for each size.
    #[must_use]
    pub const fn has_payload(self) -> bool {
        matches!(self, Self::Blob | Self::BlobBothWays | Self::Read)
    }

    /// Whether both halves are alike, so that one of them takes half the time.
    #[must_use]
    pub const fn is_symmetric(self) -> bool {
        matches!(self, Self::BlobBothWays | Self::Immediate | Self::Ack | Self::Message)
    }

    /// Its number in notes.
    #[must_use]
    pub(crate) const fn code(self) -> u32 {
        match self {
            Self::Blob => 1,
            Self::BlobBothWays => 2,
            Self::Immediate => 3,
            Self::Ack => 4,
            Self::Read => 5,
            Self::Message => 6,
        }
    }

    pub(crate) fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|row| row.code() == code)
    }
}

/// What is measured.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the other end listens, or is made to.
    pub url: String,
    /// Payload sizes.
    pub sizes: Vec<u32>,
    /// How far each line goes.
    pub budget: Budget,
    /// How long both ends poll before they sleep.
    pub spin: Duration,
    /// No progress bar.
    pub quiet: bool,
}

/// Both ends in this process, each on a thread of its own.
///
/// # Errors
/// If the fabric can't be had or fails, or a payload did not arrive as it was sent.
pub fn both_ends(settings: &Settings) -> Result<Wire> {
    let over = Arc::new(AtomicBool::new(false));
    let (tell, told) = channel();
    let (url, spin, stop) = (settings.url.clone(), settings.spin, Arc::clone(&over));
    let listener = thread::Builder::new().name("listener".into()).spawn(move || -> Result<()> {
        let mut listener = Listener::new(&open, spin, shares_memory(&url))?;
        let bound = listener.listen(&url)?;
        // Whoever asked may have failed meanwhile.
        let _ = tell.send(bound);
        listener.serve(&stop);
        Ok(())
    })?;
    let outcome = match told.recv() {
        Ok(bound) => measure(&open, &Settings { url: bound, ..settings.clone() }),
        Err(_) => Err(anyhow::anyhow!("the other end did not come up")),
    };
    over.store(true, Ordering::Relaxed);
    let served = listener.join().map_err(|_| anyhow::anyhow!("the other end panicked"))?;
    // Why it ended says more than that it did.
    served.context("the end that answers")?;
    Ok(Wire { both_ends_here: true, ..outcome? })
}

/// Asks the other end, which listens at `settings.url`.
///
/// # Errors
/// As [`both_ends`].
pub fn measure<F: Fabric>(maker: Maker<'_, F>, settings: &Settings) -> Result<Wire> {
    check_sizes(&settings.sizes)?;
    let begin = Instant::now();
    let mut pinger = Pinger::connect(maker, &settings.url, settings.spin)?;
    // Bare verbs take turns with our fabric, line by line.
    let mut raw = settings.url.starts_with(RDMA).then(|| raw_beside(&mut pinger, settings)).transpose()?;
    let lines = lines(&settings.sizes);
    let bar = progress(settings.quiet, lines.len() as u64);
    let mut rows = Vec::with_capacity(lines.len());
    for (row, bytes) in lines {
        bar.set_message(format!("{} {bytes}", row.name()));
        let run = pinger.run(row, bytes, settings.budget)?;
        let mut figures = RowFigures::new(row, bytes, &run);
        if let (Some(raw), Some(shape)) = (&mut raw, raw::shape(row, bytes)) {
            let times = Times::of(&raw.run(shape, settings.budget)?);
            figures.raw = Some(Raw { ratio: figures.round_trip.p50_us / times.p50_us, round_trip: times });
        }
        rows.push(figures);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(Wire {
        fabric: settings.url.clone(),
        both_ends_here: false,
        spin_us: u64::try_from(settings.spin.as_micros()).unwrap_or(u64::MAX),
        rows,
        seconds: begin.elapsed().as_secs_f64(),
    })
}

/// Bare verbs to the host that answers.
fn raw_beside<F: Fabric>(pinger: &mut Pinger<F>, settings: &Settings) -> Result<RawPinger> {
    let host = settings.url.rsplit_once(':').map_or(settings.url.as_str(), |(host, _)| host);
    let url = pinger.offer_raw(&format!("{host}:0"), settings.spin)?;
    RawPinger::connect(&url, settings.spin)
}

/// The table's lines.
fn lines(sizes: &[u32]) -> Vec<(Row, u32)> {
    let of = |row: Row| if row.has_payload() { sizes.to_vec() } else { vec![0] };
    Row::ALL.into_iter().flat_map(|row| of(row).into_iter().map(move |bytes| (row, bytes))).collect()
}

fn check_sizes(sizes: &[u32]) -> Result<()> {
    ensure!(!sizes.is_empty(), "no payload size: give at least one");
    for &bytes in sizes {
        if !(MIN_BYTES..=MAX_BYTES).contains(&bytes) {
            bail!("a payload of {bytes} bytes: a blob's has {MIN_BYTES} to {MAX_BYTES} here");
        }
    }
    Ok(())
}

pub(crate) fn progress(quiet: bool, lines: u64) -> ProgressBar {
    let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(lines) };
    let style = ProgressStyle::with_template("{msg:26} {bar:30} {pos}/{len} {eta}").expect("a constant template");
    bar.set_style(style);
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_code_of_its_own() {
        for row in Row::ALL {
            assert_eq!(Row::from_code(row.code()), Some(row));
        }
        assert_eq!(Row::from_code(0), None);
        assert_eq!(Row::from_code(7), None);
    }

    #[test]
    fn rows_without_payload_have_one_line() {
        let lines = lines(&[64, 4096]);
        assert_eq!(lines.len(), 3 + 3 * 2);
        assert!(lines.iter().all(|&(row, bytes)| row.has_payload() == (bytes > 0)));
    }

    #[test]
    fn sizes_that_are_no_payload_are_named() {
        for bytes in [0, 63, MAX_BYTES + 1] {
            let error = check_sizes(&[4096, bytes]).unwrap_err().to_string();
            assert!(error.contains(&format!("{bytes} bytes")), "{error}");
        }
        assert!(check_sizes(&[]).is_err());
        assert!(check_sizes(&SIZES).is_ok());
    }
}
