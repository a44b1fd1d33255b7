//! Sizes that every host agrees on, and their relations.

/// The version of every encoding in this crate and of the rules behind them. Both ends must have the same.
pub const PROTOCOL_VERSION: u8 = 1;

/// The most that a node may say of a superblock's write counter, epoch and generation. Each grows by one at a time and
/// never comes near; whoever says more lies, and would have its hearer run out of numbers.
pub const MAX_COUNT: u64 = i64::MAX as u64;

/// A descriptor, and a descriptor ring's stride.
pub const DESCRIPTOR_BYTES: usize = 64;
/// A mailbox.
pub const MAILBOX_BYTES: usize = 64;
/// The longest payload of one blob.
pub const MAX_PAYLOAD_BYTES: u32 = 1 << 20;
/// The most blocks that one payload-free blob covers; a longer request is several blobs.
pub const MAX_ZERO_BLOCKS: u32 = 1 << 20;
/// The longest read that one request carries.
pub const MAX_READ_BYTES: u32 = 1 << 20;
/// Reads that one session may have open at a node.
pub const MAX_OPEN_READS: usize = 64;
/// The longest small message, its header included.
pub const MAX_MESSAGE_BYTES: usize = 512;
/// The least descriptor ring slots of a lane. See [`lane_slots`].
pub const MIN_LANE_SLOTS: u32 = 1 << 10;
/// The most descriptor ring slots of a lane.
pub const MAX_LANE_SLOTS: u32 = 1 << 17;
/// Payload bytes of the data ring for which a lane has a slot. A lane of shorter blobs is full before its ring is.
const SLOT_BYTES: u64 = 4096;
/// The least data ring: two longest payloads, so that one that skips to the wrap still fits.
pub const MIN_RING_BYTES: u64 = 4 * MAX_PAYLOAD_BYTES as u64;
/// The smallest logical block.
pub const MIN_BLOCK_BYTES: u32 = 512;
/// The largest logical block.
pub const MAX_BLOCK_BYTES: u32 = 4096;

/// Descriptor ring slots of a lane whose data ring has so many bytes: the most blobs staged and not released. One for
/// each 4 KiB, and a power of two.
#[must_use]
pub const fn lane_slots(ring_bytes: u64) -> u32 {
    let wanted = ring_bytes.div_ceil(SLOT_BYTES);
    if wanted >= MAX_LANE_SLOTS as u64 {
        MAX_LANE_SLOTS
    } else if wanted <= MIN_LANE_SLOTS as u64 {
        MIN_LANE_SLOTS
    } else {
        // Below MAX_LANE_SLOTS, a u32.
        #[allow(clippy::cast_possible_truncation)]
        let wanted = wanted as u32;
        wanted.next_power_of_two()
    }
}

const _: () = assert!(MIN_LANE_SLOTS.is_power_of_two() && MAX_LANE_SLOTS.is_power_of_two());
const _: () = assert!(lane_slots(MIN_RING_BYTES) == MIN_LANE_SLOTS);
const _: () = assert!(MIN_RING_BYTES >= 2 * MAX_PAYLOAD_BYTES as u64);
const _: () =
    assert!(MAX_PAYLOAD_BYTES.is_multiple_of(MAX_BLOCK_BYTES) && MAX_READ_BYTES.is_multiple_of(MAX_BLOCK_BYTES));
const _: () = assert!(MIN_BLOCK_BYTES <= MAX_BLOCK_BYTES);
