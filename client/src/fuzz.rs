//! What the kernel answers over netlink, for the fuzz targets (`tests/fuzz`).

/// A datagram, as an answer to request `sequence`.
pub fn genl(datagram: &[u8], sequence: u32) {
    crate::device::fuzz_genl(datagram, sequence);
}
