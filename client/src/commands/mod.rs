//! The administrator's commands.

mod format;
mod prove;
mod recover;
mod status;
mod switchover;

use std::time::Duration;

pub use self::format::{describe, format};
pub use self::prove::{Proof, RoundReport, Verdict, prove};
pub use self::recover::recover;
pub use self::status::{AllStatus, status};
pub use self::switchover::{Switched, switchover};

/// How long a node may take to answer on its admin socket.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(5);
