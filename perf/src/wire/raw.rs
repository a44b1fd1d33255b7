//! Bare verbs beside our fabric: the same round trips by one queue pair and nothing around it.
//!
//! What is between the two is what the fabric costs: credits, queues, events, one loop for many connections. Payloads are
//! not looked at here; it is the fabric's that have to arrive.

use std::io::ErrorKind;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use twinsan_verbs::raw::{RawEnd, RawListener, Shape, Wait};

use super::Row;
use super::ping::Budget;

/// The answer's length goes as a number of these.
const ANSWER_UNIT: u32 = 512;

/// The same round trip in bare verbs; `None`: there is none.
pub(crate) fn shape(row: Row, bytes: u32) -> Option<Shape> {
    match row {
        Row::Ack => Some(Shape { payload: 0, answer: 0 }),
        Row::Blob => Some(Shape { payload: bytes, answer: 0 }),
        Row::BlobBothWays if bytes.is_multiple_of(ANSWER_UNIT) => Some(Shape { payload: bytes, answer: bytes }),
        Row::BlobBothWays | Row::Immediate | Row::Read | Row::Message => None,
    }
}

/// Answers one peer at an address with a port of the system's choice, on a thread of its own, until the peer goes. Gives the
/// address.
///
/// # Errors
/// If there is no RDMA.
pub(crate) fn answer(url: &str, spin: Duration) -> Result<String> {
    let (tell, told) = channel();
    let url = url.to_owned();
    thread::Builder::new().name("raw verbs".into()).spawn(move || serve(&url, Wait::Sleep(spin), &tell))?;
    told.recv().map_err(|_| anyhow!("the thread for raw verbs ended at once"))?
}

fn serve(url: &str, wait: Wait, tell: &Sender<Result<String>>) {
    let listener = match RawListener::bind(url).with_context(|| format!("raw verbs at {url}")) {
        Ok(listener) => listener,
        Err(error) => return drop(tell.send(Err(error))),
    };
    let _ = tell.send(Ok(listener.address().to_owned()));
    let Ok(mut end) = listener.accept() else { return };
    loop {
        match end.answer(wait) {
            Ok(()) => {}
            // Nothing was asked for a while.
            Err(error) if error.kind() == ErrorKind::TimedOut => {}
            Err(_) => return,
        }
    }
}

/// The end that asks.
pub(crate) struct RawPinger {
    end: RawEnd,
    wait: Wait,
}

impl RawPinger {
    /// Connects to where [`answer`] says.
    ///
    /// # Errors
    /// If nobody is there.
    pub(crate) fn connect(url: &str, spin: Duration) -> Result<Self> {
        let end = RawEnd::connect(url).with_context(|| format!("raw verbs to {url}"))?;
        Ok(Self { end, wait: Wait::Sleep(spin) })
    }

    /// The times of rounds, after a tenth to warm up.
    ///
    /// # Errors
    /// If the device or the peer fails.
    pub(crate) fn run(&mut self, shape: Shape, budget: Budget) -> Result<Vec<Duration>> {
        for _ in 0..=budget.count / 10 {
            self.end.ask(shape, self.wait)?;
        }
        let (start, mut times) = (Instant::now(), Vec::new());
        while (times.len() as u64) < budget.count && (times.is_empty() || start.elapsed() < budget.time) {
            let begin = Instant::now();
            self.end.ask(shape, self.wait)?;
            times.push(begin.elapsed());
        }
        Ok(times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_both_can_do_is_compared() {
        assert_eq!(shape(Row::Ack, 0), Some(Shape { payload: 0, answer: 0 }));
        assert_eq!(shape(Row::Blob, 100), Some(Shape { payload: 100, answer: 0 }));
        assert_eq!(shape(Row::BlobBothWays, 4096), Some(Shape { payload: 4096, answer: 4096 }));
        assert_eq!(shape(Row::BlobBothWays, 100), None, "the answer would be longer");
        assert_eq!(shape(Row::Read, 4096), None);
    }
}
