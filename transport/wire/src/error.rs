//! Why bytes from a peer are not what they should be.

use crate::limits::PROTOCOL_VERSION;

/// The peer's bytes break the wire format: names what was read, the value found and what would be right.
///
/// Whoever gets one destroys the connection (it can't be known what else is wrong), except for
/// [`DecodeError::Torn`], which only says that a newer mailbox is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Too short, too long, or of another length than its header says.
    #[error("{what}: {found} bytes where {expected} are right")]
    Length {
        /// What was read.
        what: &'static str,
        /// The bytes that came.
        found: usize,
        /// The bytes that this kind takes.
        expected: usize,
    },
    /// Not TwinSAN's, or not at its beginning.
    #[error("{what}: magic {found:#010x} where {expected:#010x} is right")]
    Magic {
        /// What was read.
        what: &'static str,
        /// The first four bytes, little-endian.
        found: u32,
        /// What they should be.
        expected: u32,
    },
    /// The peer speaks another version of the protocol. Reported before anything that a version may change.
    #[error("{what}: protocol version {found}, this program speaks {}", PROTOCOL_VERSION)]
    Version {
        /// What was read.
        what: &'static str,
        /// The peer's version.
        found: u8,
    },
    /// The bytes were changed on the way.
    #[error("{what}: it carries CRC32C {found:#010x}, its bytes give {computed:#010x}")]
    Checksum {
        /// What was read.
        what: &'static str,
        /// The CRC that it carries.
        found: u32,
        /// The CRC of its bytes.
        computed: u32,
    },
    /// A mailbox that was copied while it was being written over, or was never written: wait for the next.
    #[error("mailbox: torn (it carries CRC32C {found:#010x}, its bytes give {computed:#010x})")]
    Torn {
        /// The CRC that it carries.
        found: u32,
        /// The CRC of its bytes.
        computed: u32,
    },
    /// A kind that does not exist, or that may not be said here.
    #[error("{what}: kind {found:#04x} does not belong here")]
    Kind {
        /// What was read.
        what: &'static str,
        /// The kind's byte.
        found: u8,
    },
    /// A field with a value that it can't have.
    #[error("{field} is {value}; right is: {right}")]
    Field {
        /// The field, with the encoding that it belongs to.
        field: &'static str,
        /// What it holds.
        value: u64,
        /// What it may hold.
        right: &'static str,
    },
}

impl DecodeError {
    /// Whether this is no error but a mailbox that is being written over: the next one will tell.
    #[must_use]
    pub const fn is_torn(&self) -> bool {
        matches!(self, Self::Torn { .. })
    }
}
