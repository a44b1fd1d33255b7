//! Where things stand on the disk. `docs/disk-format.md` has the whole table; these are its offsets, in bytes.

use twinsan_wire::{Lba, NodeId};

/// A superblock slot, a heartbeat block, and the unit in which both are read and written.
pub const PAGE_BYTES: usize = 4096;
/// [`PAGE_BYTES`] as an offset.
pub const PAGE: u64 = PAGE_BYTES as u64;
/// The two superblock slots.
pub const SLOT_OFFSETS: [u64; 2] = [0, PAGE];
/// The heartbeat blocks of node A and node B.
pub const HEARTBEAT_OFFSETS: [u64; 2] = [2 * PAGE, 3 * PAGE];
/// Where the volume's block 0 lies. What is between the heartbeat blocks and here is reserved and zero.
pub const DATA_OFFSET: u64 = 1 << 20;
/// The logical block sizes that a volume may have.
pub const BLOCK_SIZES: [u32; 2] = [512, 4096];

const _: () = assert!(HEARTBEAT_OFFSETS[1] + PAGE <= DATA_OFFSET);
const _: () = assert!(DATA_OFFSET.is_multiple_of(BLOCK_SIZES[1] as u64));

/// The heartbeat block of `node`.
#[must_use]
pub const fn heartbeat_offset(node: NodeId) -> u64 {
    HEARTBEAT_OFFSETS[node.index()]
}

/// Where block `lba` of a volume with blocks of `block_bytes` lies on the disk, in bytes.
///
/// # Panics
/// Past 2^64 bytes: the caller checks `lba` against the volume's size first.
#[must_use]
pub const fn data_byte(lba: Lba, block_bytes: u32) -> u64 {
    let bytes = lba.0.checked_mul(block_bytes as u64).expect("a block past 2^64 bytes");
    DATA_OFFSET.checked_add(bytes).expect("a block past 2^64 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_follow_the_first_mebibyte() {
        assert_eq!(data_byte(Lba(0), 512), 1_048_576);
        assert_eq!(data_byte(Lba(3), 512), 1_048_576 + 1_536);
        assert_eq!(data_byte(Lba(3), 4096), 1_048_576 + 12_288);
        assert_eq!(heartbeat_offset(NodeId::A), 8_192);
        assert_eq!(heartbeat_offset(NodeId::B), 12_288);
    }
}
