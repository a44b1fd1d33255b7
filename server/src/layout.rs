//! Where what lies in a volume's arena.
//!
//! | region | bytes | written by | read by |
//! | --- | --- | --- | --- |
//! | descriptor ring | 64 for each slot | the session's client, one-sided | the reactor, once, by copy |
//! | peer mailboxes | [`PEER_MAILBOX_BYTES`] | the other node, one-sided | the reactor, by copy |
//! | zeros | [`MAX_READ_BYTES`] | nobody | the fabric: a read's zeroed pieces |
//! | read slab | [`MAX_OPEN_READS`] × [`MAX_READ_BYTES`] | the disk | the fabric: a read's pieces from the disk |
//! | data ring | as configured | the session's client, one-sided | the disk; the fabric: a read's staged pieces |
//!
//! One arena, so that one registration serves the fabric and one the disk. What a peer may write and what it may not
//! share no page.

use twinsan_wire::Seq;
use twinsan_wire::layout::{PEER_MAILBOX_BYTES, descriptor_offset, descriptor_ring_bytes, descriptor_slot};
use twinsan_wire::limits::{MAX_OPEN_READS, MAX_READ_BYTES, lane_slots};

const PAGE: u64 = 4096;

/// Offsets in a volume's arena; all on page boundaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// The descriptor ring.
    pub(crate) descriptors: u64,
    /// Its slots.
    pub(crate) slots: u32,
    /// The mailboxes that the other node writes.
    pub(crate) mailboxes: u64,
    /// Zeros.
    pub(crate) zeros: u64,
    /// Buffers for what the disk is read into.
    pub(crate) slab: u64,
    /// The data ring.
    pub(crate) ring: u64,
    /// Its size.
    pub(crate) ring_bytes: u64,
}

impl Layout {
    /// For a data ring of so many bytes.
    pub(crate) const fn new(ring_bytes: u64) -> Self {
        let (descriptors, slots) = (0, lane_slots(ring_bytes));
        let mailboxes = descriptors + descriptor_ring_bytes(slots).next_multiple_of(PAGE);
        let zeros = mailboxes + PEER_MAILBOX_BYTES.next_multiple_of(PAGE);
        let slab = zeros + (MAX_READ_BYTES as u64).next_multiple_of(PAGE);
        let ring = slab + MAX_OPEN_READS as u64 * MAX_READ_BYTES as u64;
        Self { descriptors, slots, mailboxes, zeros, slab, ring, ring_bytes }
    }

    /// What the arena must have.
    pub(crate) const fn bytes(&self) -> u64 {
        self.ring + self.ring_bytes
    }

    /// The size of the descriptor ring.
    pub(crate) const fn descriptor_bytes(&self) -> u64 {
        descriptor_ring_bytes(self.slots)
    }

    /// A blob's slot in the descriptor ring.
    pub(crate) const fn slot(&self, seq: Seq) -> u32 {
        descriptor_slot(seq, self.slots)
    }

    /// Where a descriptor lies.
    pub(crate) const fn descriptor(&self, slot: u32) -> u64 {
        assert!(slot < self.slots, "no such descriptor slot");
        self.descriptors + descriptor_offset(slot)
    }

    /// The buffer of a slab slot.
    pub(crate) const fn slab_slot(&self, slot: u32) -> u64 {
        assert!((slot as usize) < MAX_OPEN_READS, "no such slab slot");
        self.slab + slot as u64 * MAX_READ_BYTES as u64
    }

    /// Where a position of the data ring lies.
    pub(crate) const fn staged(&self, data_pos: u64) -> u64 {
        self.ring + data_pos % self.ring_bytes
    }
}

/// An arena offset in memory's own type.
///
/// # Panics
/// If it is none: an arena is mapped, so all of its offsets fit.
pub(crate) fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("an offset in memory")
}

const _: () = assert!((MAX_READ_BYTES as u64).is_multiple_of(PAGE));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_follow_each_other_on_pages_and_overlap_nowhere() {
        let layout = Layout::new(64 << 20);
        let regions = [
            (layout.descriptors, 16_384 * 64),
            (layout.mailboxes, PEER_MAILBOX_BYTES),
            (layout.zeros, u64::from(MAX_READ_BYTES)),
            (layout.slab, MAX_OPEN_READS as u64 * u64::from(MAX_READ_BYTES)),
            (layout.ring, layout.ring_bytes),
        ];
        for pair in regions.windows(2) {
            let [(start, len), (next, _)] = *pair else { unreachable!("windows of two") };
            assert!(start + len <= next, "{layout:?}");
            assert!(next - (start + len) < PAGE, "{layout:?}");
        }
        assert!(regions.iter().all(|(start, _)| start % PAGE == 0));
        assert_eq!(layout.bytes(), layout.ring + (64 << 20));
    }

    #[test]
    fn slab_slots_and_ring_positions_stay_inside() {
        let layout = Layout::new(4 << 20);
        let last = u32::try_from(MAX_OPEN_READS).unwrap() - 1;
        assert_eq!(layout.slab_slot(0), layout.slab);
        assert_eq!(layout.slab_slot(last) + u64::from(MAX_READ_BYTES), layout.ring);
        assert_eq!(layout.slot(Seq(1024)), 0);
        assert_eq!(layout.descriptor(1023) + 64, layout.mailboxes);
        assert_eq!(layout.staged(0), layout.ring);
        assert_eq!(layout.staged((4 << 20) - 512), layout.bytes() - 512);
        assert_eq!(layout.staged(4 << 20), layout.ring);
        assert_eq!(layout.staged(9 << 20), layout.ring + (1 << 20));
    }
}
