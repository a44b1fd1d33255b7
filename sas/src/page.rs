//! 4 KiB of memory, aligned as every disk wants it for O_DIRECT.

use crate::layout::PAGE_BYTES;

/// One superblock slot or heartbeat block in memory.
#[derive(Clone, PartialEq, Eq)]
#[repr(C, align(4096))]
pub struct Page(pub [u8; PAGE_BYTES]);

const _: () = assert!(size_of::<Page>() == PAGE_BYTES);

impl Page {
    /// All zeros.
    pub const ZERO: Self = Self([0; PAGE_BYTES]);

    /// Never written, or erased.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|&b| b == 0)
    }

    /// Puts the CRC32C of all but the last four bytes into these.
    pub(crate) fn seal(&mut self) {
        let (body, sum) = self.0.split_at_mut(PAGE_BYTES - 4);
        sum.copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
    }

    /// Whether the last four bytes are the CRC32C of the others.
    #[must_use]
    pub(crate) fn is_sealed(&self) -> bool {
        let (body, sum) = self.0.split_at(PAGE_BYTES - 4);
        crc32c::crc32c(body).to_le_bytes() == sum
    }
}

impl core::fmt::Debug for Page {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Page({:02x?}…)", &self.0[..16])
    }
}
