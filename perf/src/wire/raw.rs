//! Raw verbs beside our fabric: the same round trips by a bare queue pair, for `rdma://` addresses.
//!
//! No credits, no queues, no events, no checks: what is left of a line's time when these are taken from it is the fabric's
//! own. The end that answers has a second listener for it, at the next port.

use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use twinsan_verbs::raw::{RawEnd, RawListener, Shape, Wait};

use super::figures::{RowFigures, Times};
use super::ping::Budget;

/// Rounds before the first that counts: one part in so many.
const WARM_UP: u64 = 10;

/// The lines: named like [`super::Row`]s, whose counterparts they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RawRow {
    /// [`super::Row::Ack`].
    Ack,
    /// [`super::Row::BlobBothWays`].
    BlobBothWays,
    /// [`super::Row::Blob`].
    Blob,
}

impl RawRow {
    const fn name(self) -> &'static str {
        match self {
            Self::Ack => "raw ack",
            Self::BlobBothWays => "raw write+imm",
            Self::Blob => "raw w+imm, ack",
        }
    }

    const fn shape(self, bytes: u32) -> Shape {
        match self {
            Self::Ack => Shape { payload: 0, answer: 0 },
            Self::BlobBothWays => Shape { payload: bytes, answer: bytes },
            Self::Blob => Shape { payload: bytes, answer: 0 },
        }
    }
}

/// Where the bare queue pair's listener is: one port on.
///
/// # Errors
/// If the address is not RDMA's, or has no such port.
fn beside(url: &str) -> Result<String> {
    let (host, port) = url.rsplit_once(':').with_context(|| format!("{url} has no port"))?;
    let port: u16 = port.parse().with_context(|| format!("{url} has no port"))?;
    let next = port.checked_add(1).with_context(|| format!("{url}: there is no port after it for raw verbs"))?;
    Ok(format!("{host}:{next}"))
}

/// Whether an address has raw verbs below it.
pub(crate) fn has_raw(url: &str) -> bool {
    url.starts_with("rdma://")
}

/// Answers, one peer after the other, on a thread of its own and as long as the process lives.
///
/// # Errors
/// If the address is taken.
pub(crate) fn serve(url: &str, spin: Duration) -> Result<()> {
    let address = beside(url)?;
    let (tell, told) = channel();
    let at = address.clone();
    let serve = move || {
        let bound = RawListener::bind(&at);
        let (mut listener, outcome) = match bound {
            Ok(listener) => (Some(listener), Ok(())),
            Err(error) => (None, Err(error)),
        };
        let failed = outcome.is_err();
        if tell.send(outcome).is_err() || failed {
            return;
        }
        loop {
            match listener.take().map_or_else(|| RawListener::bind(&at), Ok).and_then(RawListener::accept) {
                Ok(mut end) => while end.answer(Wait::Sleep(spin)).is_ok() {},
                // Nobody came in time.
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        }
    };
    thread::Builder::new().name("raw verbs".into()).spawn(serve)?;
    let bound = told.recv().context("the thread for raw verbs ended")?;
    bound.with_context(|| format!("listening at {address} for raw verbs"))
}

/// All lines.
///
/// # Errors
/// If the other end has no raw verbs, or the device fails.
pub(crate) fn measure(url: &str, sizes: &[u32], budget: Budget, spin: Duration) -> Result<Vec<RowFigures>> {
    let address = beside(url)?;
    let mut end = RawEnd::connect(&address).with_context(|| format!("connecting to {address} for raw verbs"))?;
    let mut rows = vec![line(&mut end, RawRow::Ack, 0, budget, spin)?];
    for row in [RawRow::BlobBothWays, RawRow::Blob] {
        for &bytes in sizes {
            rows.push(line(&mut end, row, bytes, budget, spin)?);
        }
    }
    Ok(rows)
}

fn line(end: &mut RawEnd, row: RawRow, bytes: u32, budget: Budget, spin: Duration) -> Result<RowFigures> {
    let (shape, wait, warm) = (row.shape(bytes), Wait::Sleep(spin), budget.count / WARM_UP);
    let (mut times, mut begin, mut made) = (Vec::new(), Instant::now(), 0);
    while (times.len() as u64) < budget.count {
        let start = Instant::now();
        end.ask(shape, wait).with_context(|| format!("{} {bytes}", row.name()))?;
        if made == warm {
            begin = Instant::now();
        } else if made > warm {
            times.push(start.elapsed());
        }
        made += 1;
        if begin.elapsed() >= budget.time && made > warm {
            break;
        }
    }
    ensure!(!times.is_empty(), "not one round of {} {bytes} within {:?}", row.name(), budget.time);
    let round_trip = Times::of(&times);
    let one_way_us = (row != RawRow::Blob).then_some(round_trip.p50_us / 2.0);
    Ok(RowFigures { row: row.name(), bytes, round_trip, one_way_us, checked: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_verbs_are_one_port_on() {
        assert_eq!(beside("rdma://10.0.0.1:7500").unwrap(), "rdma://10.0.0.1:7501");
        assert_eq!(beside("rdma://[fd00::1]:1").unwrap(), "rdma://[fd00::1]:2");
        for url in ["rdma://10.0.0.1:65535", "rdma://10.0.0.1", "rdma://10.0.0.1:x"] {
            assert!(beside(url).unwrap_err().to_string().contains(url), "{url}");
        }
        assert!(has_raw("rdma://10.0.0.1:1") && !has_raw("tcp://10.0.0.1:1"));
    }
}
