//! Faults for tests: requests that fail, or that the kernel does only a part of.

use super::Op;
use super::buffers::Transfer;

/// What happens to a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// It fails with this errno, and nothing is done.
    Errno(i32),
    /// Only so many bytes are done.
    Limit(u64),
    /// The kernel does nothing and says that it did 0 bytes.
    Nothing,
}

impl Fault {
    pub(super) fn limit(self, most: u64) -> u64 {
        match self {
            Self::Limit(bytes) => bytes.min(most),
            Self::Errno(_) | Self::Nothing => most,
        }
    }

    pub(super) fn result(self) -> Option<i32> {
        match self {
            Self::Errno(errno) => Some(-errno),
            Self::Nothing => Some(0),
            Self::Limit(_) => None,
        }
    }
}

/// The faults to come.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<(Op, u32, Fault)>);

impl Faults {
    /// The `nth` (from 0) request of kind `op` from now on gets `fault`.
    pub(super) fn plan(&mut self, op: Op, nth: u32, fault: Fault) {
        self.0.push((op, nth, fault));
    }

    pub(super) fn next(&mut self, transfer: &Transfer) -> Option<Fault> {
        let mut hit = None;
        self.0.retain_mut(|(op, countdown, fault)| {
            if *op != transfer.op() {
                return true;
            }
            if *countdown == 0 && hit.is_none() {
                hit = Some(*fault);
                return false;
            }
            *countdown = countdown.saturating_sub(1);
            true
        });
        hit
    }
}
