//! CRC32C of what is 64 bytes or little more. Payloads are the drivers', who have the processor's instruction for it.

use crc::{CRC_32_ISCSI, Crc, Digest, Table};

/// Castagnoli's polynomial as in iSCSI (RFC 3720, section 12.1), 16 bytes a step.
const CRC32C: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);
static TABLE: Crc<u32, Table<16>> = CRC32C;

/// Of one piece.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    TABLE.checksum(bytes)
}

/// Of two pieces, one after the other: a message without the four bytes that hold its own CRC.
pub(crate) fn crc32c_of_two(first: &[u8], second: &[u8]) -> u32 {
    let mut digest: Digest<'_, u32, Table<16>> = TABLE.digest();
    digest.update(first);
    digest.update(second);
    digest.finalize()
}
