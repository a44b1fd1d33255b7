//! What a fault driver needs of the hosts that it torments: two SAN nodes, a client, the links between them, a disk.
//!
//! [`crate::namespaces`] is the one of this host. A lab of real machines is another.

use std::fmt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use twinsan_control::admin::VolumeStatus;

use crate::fault::Fault;

/// A SAN node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum San {
    /// The first of the configuration.
    One,
    /// The second.
    Two,
}

impl San {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::One, Self::Two];

    /// Its place in the configuration.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Its name there.
    #[must_use]
    pub const fn name(self) -> &'static str {
        twinsan_perf::cluster::NODES[self as usize]
    }

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::One => Self::Two,
            Self::Two => Self::One,
        }
    }
}

impl fmt::Display for San {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A program under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Program {
    /// A node.
    Node(San),
    /// The client.
    Client,
}

impl Program {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Node(San::One), Self::Node(San::Two), Self::Client];
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(san) => san.fmt(f),
            Self::Client => f.write_str("client"),
        }
    }
}

/// What a program's process is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// SIGKILL: at once, whatever it does.
    Die,
    /// SIGSTOP.
    Freeze,
    /// SIGCONT.
    Thaw,
    /// SIGTERM: end in order.
    Leave,
}

/// A link between two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Link {
    /// From the client to a node.
    Client(San),
    /// From the first node to the second.
    Nodes,
}

impl Link {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Client(San::One), Self::Client(San::Two), Self::Nodes];
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(san) => write!(f, "client-{san}"),
            Self::Nodes => write!(f, "{}-{}", San::One, San::Two),
        }
    }
}

/// A direction of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// Both.
    Both,
    /// From the host that is named first.
    Forward,
    /// Towards it.
    Backward,
}

/// What a link is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// No packet passes this way.
    pub cut: Option<Way>,
    /// Every packet is so late, both ways.
    pub delay: Duration,
    /// And up to so much later.
    pub jitter: Duration,
}

impl Condition {
    /// Whether packets of one way are lost.
    #[must_use]
    pub fn is_cut(self, way: Way) -> bool {
        self.cut == Some(Way::Both) || self.cut == Some(way)
    }

    /// Both at once.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let cut = match (self.cut, other.cut) {
            (Some(a), Some(b)) if a != b => Some(Way::Both),
            (a, b) => a.or(b),
        };
        Self { cut, delay: self.delay.max(other.delay), jitter: self.jitter.max(other.jitter) }
    }
}

/// Behind the disk's back, to a block that holds what was completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sabotage {
    /// Its bytes become somebody else's.
    Corrupt,
    /// It is again what it was before its last write.
    Undo,
}

/// Asks a node for its status; `None` if it does not answer in a second.
pub type Eye = Box<dyn FnMut() -> Option<VolumeStatus> + Send>;

/// The hosts.
pub trait World {
    /// Whether a fault can be made here.
    fn can(&self, _: Fault) -> bool {
        true
    }

    /// How many times as long as on this machine everything may take.
    fn slowness(&self) -> u32 {
        1
    }

    /// Starts a program that does not run. The client attaches, and waits as long as another one counts as attached.
    ///
    /// # Errors
    /// If it runs, or can't be started.
    fn start(&mut self, program: Program) -> Result<()>;

    /// Gives it an order. `Die` has come to its end when this returns.
    ///
    /// # Errors
    /// If it does not run.
    fn order(&mut self, program: Program, order: Order) -> Result<()>;

    /// Whether its process is there, in whatever state.
    fn runs(&self, program: Program) -> bool;

    /// Whether its process is about to die, though it may still look alive: it has been killed.
    fn is_dying(&self, program: Program) -> bool;

    /// How its process has ended, unless by [`Order::Die`]; told once.
    ///
    /// # Errors
    /// The system's.
    fn ended(&mut self, program: Program) -> Result<Option<ExitStatus>>;

    /// Whether the client that was started last has taken the volume, so that requests reach it.
    fn is_open(&self) -> bool;

    /// Bytes of memory that are its own.
    fn memory(&self, program: Program) -> Option<u64>;

    /// From now on the link is like this.
    ///
    /// # Errors
    /// The system's.
    fn link(&mut self, link: Link, condition: Condition) -> Result<()>;

    /// The disk has no room for a block that was never written before; or it has again.
    ///
    /// # Errors
    /// The system's.
    fn fill_disk(&mut self, full: bool) -> Result<()>;

    /// `twinsan switchover` on the host of the node that serves, in a process of its own, as it waits for its outcome. It
    /// may be refused.
    ///
    /// # Errors
    /// If it can't be started.
    fn switchover(&mut self, from: San) -> Result<()>;

    /// Another client is started beside the one that has the volume, to take it over by order. From here on it is the
    /// client, and the one that was started last.
    ///
    /// # Errors
    /// If it can't be started.
    fn take_over(&mut self) -> Result<()>;

    /// How the client that was taken over has ended; told once.
    ///
    /// # Errors
    /// The system's.
    fn superseded(&mut self) -> Result<Option<ExitStatus>>;

    /// Looks at a node, from a thread of its own.
    fn eye(&self, san: San) -> Eye;

    /// What is at so many bytes of the volume on the disk itself, which no node is writing.
    ///
    /// # Errors
    /// The system's.
    fn peek(&self, offset: u64, data: &mut [u8]) -> Result<()>;

    /// Writes there, behind everybody's back.
    ///
    /// # Errors
    /// The system's.
    fn poke(&self, offset: u64, data: &[u8]) -> Result<()>;

    /// Copies configuration and logs to a folder.
    ///
    /// # Errors
    /// The system's.
    fn keep(&self, folder: &Path) -> Result<()>;

    /// The end of a program's log.
    fn log_tail(&self, program: Program) -> String;
}
