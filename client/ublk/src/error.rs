//! What can go wrong.

use std::io;

/// Each says what to do about it, where there is something to do.
#[derive(Debug, thiserror::Error)]
pub enum UblkError {
    /// No driver.
    #[error("this kernel has no ublk driver, or it is not loaded (no {path}): modprobe ublk_drv")]
    NoDriver {
        /// The file that it would bring.
        path: &'static str,
    },
    /// The driver is older than what is needed.
    #[error("this kernel's ublk driver lacks {missing}: Linux 6.5 or newer has it; --nbd-device does without")]
    TooOld {
        /// The features' names.
        missing: String,
    },
    /// Anything that the system refuses.
    #[error("{what}: {source}")]
    System {
        /// What was asked of it.
        what: &'static str,
        /// Its answer.
        source: io::Error,
    },
}

impl UblkError {
    /// For `map_err`.
    pub(crate) fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System { what, source: source.into() }
    }

    /// The system's number for it, if it has one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::System { source, .. } => source.raw_os_error(),
            Self::NoDriver { .. } | Self::TooOld { .. } => None,
        }
    }
}
