//! What is served.

use crate::limits::MAX_PAYLOAD_BYTES;
use crate::proto::transmission as t;

/// The one block device that a server offers, by its name and as the default export (the empty name).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// What clients ask for.
    pub name: String,
    /// For people; may be empty.
    pub description: String,
    /// Bytes.
    pub size: u64,
    /// The volume's logical block in bytes: advertised as the minimum to clients that ask for the constraints. Others
    /// may send anything (proto.md: they assume a minimum of 1), and the driver serves it.
    pub block_bytes: u32,
}

impl Export {
    /// The transmission flags: only what the driver honours.
    ///
    /// * FLUSH, FUA: a reply to a write is only sent when the write is durable, so both are true at once.
    /// * `CAN_MULTI_CONN`: for the same reason FLUSH holds across connections; and there is no cache per connection.
    /// * DF: a READ is always answered by one chunk. May only be set with structured replies.
    /// * `FAST_ZERO`: zeros travel as a descriptor without payload, so they are never slower than a write.
    #[must_use]
    pub fn transmission_flags(&self, structured: bool) -> u16 {
        let flags = t::HAS_FLAGS
            | t::SEND_FLUSH
            | t::SEND_FUA
            | t::SEND_TRIM
            | t::SEND_WRITE_ZEROES
            | t::CAN_MULTI_CONN
            | t::SEND_CACHE
            | t::SEND_FAST_ZERO;
        if structured { flags | t::SEND_DF } else { flags }
    }

    /// Minimum, preferred and maximum block size for `NBD_INFO_BLOCK_SIZE`, in bytes.
    #[must_use]
    pub fn block_sizes(&self) -> [u32; 3] {
        [self.block_bytes, self.block_bytes.max(4096), MAX_PAYLOAD_BYTES]
    }

    /// Whether a client that asks for `name` means this export.
    #[must_use]
    pub fn answers_to(&self, name: &[u8]) -> bool {
        name.is_empty() || name == self.name.as_bytes()
    }
}
