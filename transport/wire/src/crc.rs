//! CRC32C of what is 64 bytes or little more. Payloads are the drivers', who have the processor's instruction for it.

use crc::{CRC_32_ISCSI, Crc, Digest, Table};

/// Castagnoli's polynomial as in iSCSI (RFC 3720, section 12.1), 16 bytes a step.
static CRC32C: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// Of one piece.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    CRC32C.checksum(bytes)
}

/// Of two pieces, one after the other: a message without the four bytes that hold its own CRC.
pub(crate) fn crc32c_of_two(first: &[u8], second: &[u8]) -> u32 {
    let mut digest: Digest<'_, u32, Table<16>> = CRC32C.digest();
    digest.update(first);
    digest.update(second);
    digest.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The catalogue's check value, and the test vectors of RFC 3720, appendix B.4.
    #[test]
    fn it_is_castagnoli() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c_of_two(b"1234", b"56789"), crc32c(b"123456789"));
    }
}
