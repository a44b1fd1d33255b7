//! The client's memory: one arena, registered once.
//!
//! | region | bytes | written by | read by |
//! | --- | --- | --- | --- |
//! | mailboxes | `MAILBOX_AREAS` × one page | a node, one-sided | the loop, by copy |
//! | read buffers | [`MAX_OPEN_READS`] × [`MAX_READ_BYTES`] | the primary, one-sided | NBD sockets; the loop, by copy |
//! | data ring | as the nodes have it | NBD sockets; the loop | the fabric |
//!
//! The data ring is the nodes' rings' twin: a payload lies at the same position here and there, is posted from here
//! to both, and is sent again from here (rule 14).

use std::sync::Arc;

use twinsan_arena::{Arena, ArenaError, ArenaOptions, PagePolicy};
use twinsan_wire::layout::CLIENT_MAILBOX_BYTES;
use twinsan_wire::limits::{MAX_OPEN_READS, MAX_READ_BYTES};

/// Connections that may be open or in setup at once have a mailbox area each: per node the one in use, and one more.
pub(crate) const MAILBOX_AREAS: usize = 4;

const PAGE: usize = 4096;
const READ_BYTES: usize = MAX_READ_BYTES as usize;
const READS_AT: usize = MAILBOX_AREAS * PAGE;
const RING_AT: usize = READS_AT + MAX_OPEN_READS * READ_BYTES;

const _: () = assert!(CLIENT_MAILBOX_BYTES <= PAGE as u64 && READ_BYTES.is_multiple_of(PAGE));

/// The arena and what lies where in it.
#[derive(Clone, Debug)]
pub struct Memory {
    arena: Arc<Arena>,
    ring_bytes: u64,
}

impl Memory {
    /// For a data ring of `ring_bytes` bytes, the nodes' size. If it is to be `lent`, nodes on this host can be given it to
    /// read.
    ///
    /// # Errors
    /// If there is not as much memory.
    pub fn new(volume: &str, ring_bytes: u64, pages: PagePolicy, lent: bool) -> Result<Self, ArenaError> {
        let ring = usize::try_from(ring_bytes).unwrap_or(usize::MAX);
        let options =
            ArenaOptions { name: format!("{volume} lane"), bytes: RING_AT.saturating_add(ring), pages, lock: true };
        let arena = if lent { Arena::lendable(&options) } else { Arena::new(&options) }?;
        Ok(Self { arena: Arc::new(arena), ring_bytes })
    }

    /// The arena itself, for registration.
    #[must_use]
    pub const fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }

    /// Where a mailbox area begins.
    pub(crate) const fn mailboxes(area: usize) -> usize {
        assert!(area < MAILBOX_AREAS, "no such mailbox area");
        area * PAGE
    }

    /// Where the read buffers begin; they follow each other.
    pub(crate) const fn reads() -> usize {
        READS_AT
    }

    /// Where a read buffer begins.
    pub(crate) const fn read_slot(slot: u32) -> usize {
        assert!((slot as usize) < MAX_OPEN_READS, "no such read buffer");
        READS_AT + slot as usize * READ_BYTES
    }

    /// Where a position of the data ring lies in any host's ring.
    pub(crate) const fn ring_offset(&self, data_pos: u64) -> u64 {
        data_pos % self.ring_bytes
    }

    /// Where a position of the data ring lies in the arena.
    pub(crate) fn staged(&self, data_pos: u64) -> usize {
        RING_AT + usize::try_from(self.ring_offset(data_pos)).expect("the ring is in memory")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_do_not_overlap_and_end_with_the_arena() {
        let memory = Memory::new("test", 4 << 20, PagePolicy::Small, false).unwrap();
        assert_eq!(Memory::mailboxes(MAILBOX_AREAS - 1) + PAGE, Memory::reads());
        let last = u32::try_from(MAX_OPEN_READS).unwrap() - 1;
        assert_eq!(Memory::read_slot(last) + READ_BYTES, memory.staged(0));
        assert_eq!(memory.staged((4 << 20) - 1) + 1, memory.arena().len());
        assert_eq!(memory.staged(4 << 20), memory.staged(0));
    }
}
