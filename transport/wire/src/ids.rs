//! Numbers that must not be mixed up.

use core::fmt;

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident, $tag:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// The first value: nothing has happened yet.
            pub const ZERO: Self = Self(0);

            /// The next one.
            ///
            /// # Panics
            /// At 2^64, which no volume reaches.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.checked_add(1).expect("a 64-bit counter has run out"))
            }

            /// The one before, or zero.
            #[must_use]
            pub const fn prev(self) -> Self {
                Self(self.0.saturating_sub(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($tag, "{}"), self.0)
            }
        }
    };
}

counter!(
    /// A blob's number in its session: 1, 2, 3 … without gaps, given by the client. Zero: none yet.
    Seq, "#"
);
counter!(
    /// The superblock's count of changes of members, primary or generation.
    Epoch, "e"
);
counter!(
    /// A session's number; zero: the volume has never been attached.
    Generation, "g"
);
counter!(
    /// A logical block's number on the volume.
    Lba, "lba "
);

/// One of the two nodes of a volume: its index in the configuration's node list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeId {
    /// The first node.
    A,
    /// The second node.
    B,
}

impl NodeId {
    /// Both, in order.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// 0 or 1.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::A => 0,
            Self::B => 1,
        }
    }

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// From an index; `None` past 1.
    #[must_use]
    pub const fn from_index(index: usize) -> Option<Self> {
        match index {
            0 => Some(Self::A),
            1 => Some(Self::B),
            _ => None,
        }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::B => "B",
        })
    }
}

/// A node's random id, new at every process start and whenever it drops its lanes other than by rule 10. Never zero:
/// on the wire and on the disk zero is "nobody".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub core::num::NonZeroU64);

impl Incarnation {
    /// From random bits; zero is replaced.
    #[must_use]
    pub const fn from_random(bits: u64) -> Self {
        Self(match core::num::NonZeroU64::new(bits) {
            Some(n) => n,
            None => core::num::NonZeroU64::MAX,
        })
    }

    /// The wire's form.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// From the wire's or the disk's form.
    #[must_use]
    pub const fn from_wire(raw: u64) -> Option<Self> {
        match core::num::NonZeroU64::new(raw) {
            Some(n) => Some(Self(n)),
            None => None,
        }
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "i{:016x}", self.0)
    }
}
