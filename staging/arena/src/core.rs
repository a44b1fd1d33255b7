//! Whose caches the calling thread fills.

/// The core that the calling thread runs on at this moment; `None` if the system does not say. By the C library, which has it
/// from memory that it shares with the kernel.
#[must_use]
pub fn current_core() -> Option<usize> {
    // SAFETY: it takes nothing, and touches no memory of ours.
    usize::try_from(unsafe { libc::sched_getcpu() }).ok()
}
