//! What may happen to a pair and its client.

use std::fmt;
use std::time::Duration;

use crate::world::Way;

/// A node by what it does when the fault begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It serves.
    Primary,
    /// The other one.
    Secondary,
}

/// A link by what its ends do when the fault begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// From the client to a node.
    Client(Role),
    /// Between the nodes.
    Nodes,
}

/// What is struck of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// The process: its kernel goes on, closes its connections, and acknowledges what comes for it.
    Process,
    /// Its host: nothing comes from it any more.
    Host,
}

/// One fault. Times are how long it goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// SIGKILL, and started again.
    Kill(Role, Extent, Duration),
    /// SIGSTOP, SIGCONT.
    Freeze(Role, Extent, Duration),
    /// SIGTERM, and started again.
    Leave(Role, Duration),
    /// One is killed; then the other one, once it is alone. Both are started again.
    KillAlone(Duration),
    /// Both end in order, one after the other. Both are started again.
    LeaveBoth(Duration),
    /// `twinsan switchover`.
    Switchover,
    /// No packet passes.
    Cut(Wire, Way, Duration),
    /// Both links of a node are cut.
    Isolate(Role, Duration),
    /// Both links of the client are cut.
    IsolateClient(Duration),
    /// A link is slow.
    Slow {
        /// Which.
        wire: Wire,
        /// Each packet is so late.
        delay: Duration,
        /// And up to so much more.
        jitter: Duration,
        /// For so long.
        time: Duration,
    },
    /// The disk is full, and is written to where it never was.
    Fill(Duration),
    /// SIGKILL to the client; another one attaches.
    KillClient(Duration),
    /// SIGSTOP, SIGCONT.
    FreezeClient(Duration),
    /// SIGTERM; another one attaches.
    LeaveClient(Duration),
    /// Another client takes the volume over, while this one works.
    TakeOver,
}

impl Fault {
    /// How long it goes on by itself.
    #[must_use]
    pub const fn time(self) -> Duration {
        match self {
            Self::Kill(_, _, time)
            | Self::Freeze(_, _, time)
            | Self::Leave(_, time)
            | Self::KillAlone(time)
            | Self::LeaveBoth(time)
            | Self::Cut(_, _, time)
            | Self::Isolate(_, time)
            | Self::IsolateClient(time)
            | Self::Slow { time, .. }
            | Self::Fill(time)
            | Self::KillClient(time)
            | Self::FreezeClient(time)
            | Self::LeaveClient(time) => time,
            Self::Switchover | Self::TakeOver => Duration::ZERO,
        }
    }

    /// Whether the volume has to serve while it goes on, if it is the only one: a healthy node reaches disk and client
    /// (protocol, section 2).
    #[must_use]
    pub const fn is_survived(self) -> bool {
        match self {
            Self::Kill(..)
            | Self::Freeze(..)
            | Self::Leave(..)
            | Self::Switchover
            | Self::Cut(..)
            | Self::Isolate(..)
            | Self::Slow { .. } => true,
            Self::KillAlone(_)
            | Self::LeaveBoth(_)
            | Self::IsolateClient(_)
            | Self::Fill(_)
            | Self::KillClient(_)
            | Self::FreezeClient(_)
            | Self::LeaveClient(_)
            | Self::TakeOver => false,
        }
    }

    /// Its kind, for counting.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        use Extent::{Host, Process};
        use Role::{Primary, Secondary};
        match self {
            Self::Kill(Primary, Process, _) => "kill primary",
            Self::Kill(Secondary, Process, _) => "kill secondary",
            Self::Kill(Primary, Host, _) => "lose primary's host",
            Self::Kill(Secondary, Host, _) => "lose secondary's host",
            Self::Freeze(Primary, Process, _) => "freeze primary",
            Self::Freeze(Secondary, Process, _) => "freeze secondary",
            Self::Freeze(Primary, Host, _) => "freeze primary's host",
            Self::Freeze(Secondary, Host, _) => "freeze secondary's host",
            Self::Leave(Primary, _) => "stop primary",
            Self::Leave(Secondary, _) => "stop secondary",
            Self::KillAlone(_) => "kill one, then the other",
            Self::LeaveBoth(_) => "stop both",
            Self::Switchover => "switchover",
            Self::Cut(Wire::Client(Primary), Way::Both, _) => "cut client-primary",
            Self::Cut(Wire::Client(Secondary), Way::Both, _) => "cut client-secondary",
            Self::Cut(Wire::Nodes, Way::Both, _) => "cut primary-secondary",
            Self::Cut(Wire::Client(Primary), _, _) => "cut client-primary one way",
            Self::Cut(Wire::Client(Secondary), _, _) => "cut client-secondary one way",
            Self::Cut(Wire::Nodes, _, _) => "cut primary-secondary one way",
            Self::Isolate(Primary, _) => "isolate primary",
            Self::Isolate(Secondary, _) => "isolate secondary",
            Self::IsolateClient(_) => "isolate client",
            Self::Slow { .. } => "slow link",
            Self::Fill(_) => "disk full",
            Self::KillClient(_) => "kill client",
            Self::FreezeClient(_) => "freeze client",
            Self::LeaveClient(_) => "detach client",
            Self::TakeOver => "take client over",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())?;
        match *self {
            Self::Switchover | Self::TakeOver => return Ok(()),
            Self::Cut(_, Way::Forward, _) => f.write_str(" (there)")?,
            Self::Cut(_, Way::Backward, _) => f.write_str(" (back)")?,
            Self::Slow { wire, delay, jitter, .. } => {
                write!(f, " ({wire:?}, {} to {} ms)", delay.as_millis(), (delay + jitter).as_millis())?;
            }
            _ => {}
        }
        write!(f, " for {:.1} s", self.time().as_secs_f64())
    }
}
