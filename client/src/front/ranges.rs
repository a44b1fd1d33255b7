//! Who may change which blocks: read-modify-write under a range lock.
//!
//! A request that is not aligned reads the blocks at its edges, merges, and writes them back. What others write to
//! those blocks in between would be lost. So it queues for its blocks; and whoever wants to write over blocks that
//! somebody queues for queues too. First come, first served: nobody starves. Writes that touch no such block, which is to say
//! all writes of a client that keeps to the block size, never enter the queue.
//!
//! The order of two overlapping blobs is their seq (rule 2), which is given when they are committed. So the lock is
//! held from before the read until the commit, not until the completion: a later read of the same blocks is ordered
//! after the commit (rule 1).

use std::collections::VecDeque;
use std::ops::Range;

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

/// Blocks, at least one.
pub(crate) type Blocks = Range<u64>;

#[derive(Debug)]
struct Entry {
    ticket: Ticket,
    blocks: Blocks,
}

/// Everybody who queues, oldest first.
#[derive(Debug, Default)]
pub(crate) struct RangeQueue {
    next: u64,
    entries: VecDeque<Entry>,
}

impl RangeQueue {
    /// Whether anybody queues for any of these blocks.
    pub(crate) fn wanted(&self, blocks: &Blocks) -> bool {
        self.entries.iter().any(|entry| overlap(&entry.blocks, blocks))
    }

    /// Queues for these blocks.
    pub(crate) fn enqueue(&mut self, blocks: Blocks) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        self.entries.push_back(Entry { ticket, blocks });
        ticket
    }

    /// Whether nobody before it wants any of its blocks.
    ///
    /// # Panics
    /// If the ticket has been released.
    pub(crate) fn granted(&self, ticket: Ticket) -> bool {
        let at = self.entries.iter().position(|entry| entry.ticket == ticket).expect("the ticket is in the queue");
        let own = &self.entries[at].blocks;
        !self.entries.range(..at).any(|entry| overlap(&entry.blocks, own))
    }

    /// Leaves the queue.
    pub(crate) fn release(&mut self, ticket: Ticket) {
        self.entries.retain(|entry| entry.ticket != ticket);
    }
}

fn overlap(a: &Blocks, b: &Blocks) -> bool {
    a.start < b.end && b.start < a.end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_come_first_served() {
        let mut queue = RangeQueue::default();
        let a = queue.enqueue(0..2);
        let b = queue.enqueue(1..4);
        let c = queue.enqueue(5..6);
        let d = queue.enqueue(3..6);
        assert!(queue.granted(a) && queue.granted(c));
        assert!(!queue.granted(b) && !queue.granted(d));
        // Somebody queues for 2 and 4, though it is not granted yet: a newcomer may not pass.
        assert!(queue.wanted(&(2..3)) && queue.wanted(&(4..5)) && queue.wanted(&(0..100)));
        assert!(!queue.wanted(&(6..100)));
        queue.release(a);
        assert!(queue.granted(b) && !queue.granted(d));
        queue.release(c);
        assert!(!queue.granted(d));
        queue.release(b);
        assert!(queue.granted(d));
        queue.release(d);
        assert!(!queue.wanted(&(0..100)));
    }
}
