//! Why there is no arena.

use std::io;

/// Why there is no arena.
#[derive(Debug, thiserror::Error)]
pub enum ArenaError {
    /// A size of nothing.
    #[error("arena \"{name}\" of 0 bytes: give it at least 1")]
    Empty {
        /// Which.
        name: String,
    },
    /// Prefaulting it would drive the host out of memory.
    #[error(
        "arena \"{name}\" needs {bytes} bytes and only {available} are available on this host: \
         give the volume a smaller ring, or the host more memory"
    )]
    NoMemory {
        /// Which.
        name: String,
        /// What it takes.
        bytes: usize,
        /// What there is, by the kernel's estimate (`MemAvailable`).
        available: usize,
    },
    /// The kernel does not give the memory.
    #[error("arena \"{name}\" of {bytes} bytes: {what}: {source}")]
    System {
        /// Which.
        name: String,
        /// What it takes.
        bytes: usize,
        /// What was tried.
        what: &'static str,
        /// The kernel's word.
        source: io::Error,
    },
}
