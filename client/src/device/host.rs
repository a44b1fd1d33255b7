//! What a process that serves a block device of its own host has to be spared.
//!
//! The kernel frees memory by writing dirty pages out, maybe to this very device. If this process then has to wait for
//! memory, both wait for each other.

use std::fs;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::configure_io_flusher_behavior;

/// Asks the kernel for it. What it refuses is said and gone without: the device works, but may stand still for good
/// when memory is short.
pub(crate) fn protect() {
    let refused = [
        // Its allocations don't wait for write-back (prctl(2), Linux 5.6).
        ("PR_SET_IO_FLUSHER", configure_io_flusher_behavior(true).err().map(|error| error.to_string())),
        // None of its pages is swapped out, nor dropped and read again.
        ("mlockall", mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE).err().map(|error| error.to_string())),
        // It is the last one to be killed for want of memory.
        ("oom_score_adj", fs::write("/proc/self/oom_score_adj", "-1000").err().map(|error| error.to_string())),
    ];
    for (what, why) in refused {
        if let Some(why) = why {
            tracing::warn!(
                "{what}: {why}. Cost: when memory is short, writing it out to this device may hang the host"
            );
        }
    }
}
