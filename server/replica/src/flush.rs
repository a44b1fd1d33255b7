//! What goes to the disk, in which batches (rule 2).
//!
//! One batch is in flight at a time, so no two disk writes over one block ever are. A batch takes the oldest blobs
//! that are due, up to a size, and leaves out every part that a newer blob covers which may be flushed too. Such a
//! blob counts as flushed once the newer one is.
//!
//! ```text
//!   released ≤ flushed ≤ handled ≤ issued ≤ limit ≤ received
//! ```
//!
//! *handled*: in an ended batch, or left out of it; *flushed*: handled, and so is all that it was left out for, and all
//! that those were left out for.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use twinsan_staging::Cover;
use twinsan_staging::Lane;
use twinsan_wire::{Blob, BlobKind, Lba, Seq};

use crate::action::{Source, WriteRange};

/// The flusher's positions in the lane.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Flusher {
    handled: Seq,
    flushed: Seq,
    issued: Seq,
    in_flight: Vec<InFlight>,
    next_batch: u64,
    /// For each blob in (flushed, handled]: the newest blob that it was left out for.
    waits_for: VecDeque<Seq>,
    /// After a failure: not before this time.
    pub(crate) retry_at: Option<u64>,
    /// After a batch: while dual, not before this time unless there is [much](Flusher::much_is_due) to do.
    pub(crate) rests_until: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct InFlight {
    number: u64,
    upto: Seq,
    /// What it writes; `None` where zeros are among it, of which a disk takes any number in no time.
    blocks: Option<u64>,
    /// For each blob of the batch, what it was left out for.
    waits_for: Vec<Seq>,
    /// Ended and failed, or its positions were declared void: it no longer counts.
    void: bool,
}

impl Flusher {
    /// Everything up to `released` is on the disk, and nothing is known of the rest.
    pub(crate) fn new(released: Seq) -> Self {
        Self {
            handled: released,
            flushed: released,
            issued: released,
            in_flight: Vec::new(),
            next_batch: 1,
            waits_for: VecDeque::new(),
            retry_at: None,
            rests_until: None,
        }
    }

    /// Rules 5, 6 and 9: all knowledge of what was flushed is void. A batch in flight no longer counts.
    pub(crate) fn forget(&mut self, released: Seq) {
        self.handled = released;
        self.flushed = released;
        self.issued = released;
        self.waits_for.clear();
        self.retry_at = None;
        self.rests_until = None;
        for batch in &mut self.in_flight {
            batch.void = true;
        }
    }

    /// On the disk by its own bytes or by newer ones over the same blocks.
    pub(crate) fn flushed(&self) -> Seq {
        self.flushed
    }

    /// The newest blob of which the disk may hold a byte.
    pub(crate) fn issued(&self) -> Seq {
        self.issued
    }

    /// For a search over all states: gives the batches other numbers.
    #[cfg(feature = "explore")]
    pub(crate) fn rename_batches(&mut self, mut name: impl FnMut(u64) -> u64) {
        self.next_batch = 0;
        self.in_flight.iter_mut().for_each(|batch| batch.number = name(batch.number));
    }

    /// No write of ours is in flight.
    pub(crate) fn is_quiet(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// What is due up to `limit` is worth a batch at once: as much as one writes, or a quarter of the lane.
    pub(crate) fn much_is_due(&self, lane: &Lane, limit: Seq, max_bytes: u64) -> bool {
        let (Some(oldest), Some(newest)) = (lane.get(self.handled.next()), lane.get(limit)) else { return false };
        if newest.seq < oldest.seq {
            return false;
        }
        let geometry = lane.geometry();
        let blobs = limit.0 - self.handled.0;
        let bytes = newest.data_pos + u64::from(newest.payload_len) - oldest.data_pos;
        blobs >= u64::from(geometry.slots() / 4) || bytes >= max_bytes.min(geometry.ring_bytes() / 4)
    }

    /// The next batch of what is due up to `limit`: its number and its writes. A batch without writes has ended
    /// already.
    pub(crate) fn next_batch(&mut self, lane: &Lane, limit: Seq, how: Batching) -> Option<(u64, Vec<WriteRange>)> {
        let busy = !self.in_flight.is_empty() && !how.overlapping;
        // What has been issued and failed is due again.
        let start = if how.overlapping { self.issued } else { self.handled };
        if busy || self.retry_at.is_some() || start >= limit {
            return None;
        }
        let upto = cut(lane, start, limit, how.max_bytes);
        let newest = if how.oldest_first { upto } else { limit };
        let mut writes = Vec::new();
        let waits_for = paint(lane, start, upto, newest, how.block_bytes, &mut writes);
        writes.sort_unstable_by_key(|w| w.lba);
        let number = self.next_batch;
        self.next_batch += 1;
        self.issued = self.issued.max(upto);
        let all_staged = writes.iter().all(|w| matches!(w.source, Source::Staged { .. }));
        let blocks = all_staged.then(|| writes.iter().map(|w| w.blocks).sum());
        self.in_flight.push(InFlight { number, upto, blocks, waits_for, void: false });
        if writes.is_empty() {
            self.ended(number, true);
        }
        Some((number, writes))
    }

    /// What a batch in flight writes, if that tells how fast the disk is.
    pub(crate) fn blocks_of(&self, number: u64) -> Option<u64> {
        self.in_flight.iter().find(|b| b.number == number)?.blocks
    }

    /// A batch has ended. After a failure it is due again, as a whole. False: it no longer counts.
    pub(crate) fn ended(&mut self, number: u64, ok: bool) -> bool {
        let at = self.in_flight.iter().position(|b| b.number == number).expect("a batch ends once");
        let batch = self.in_flight.remove(at);
        if batch.void {
            return false;
        }
        if !ok {
            self.issued = self.issued.max(self.handled);
            return true;
        }
        if batch.upto > self.handled {
            self.handled = batch.upto;
            self.waits_for.extend(batch.waits_for);
        }
        while let Some(upto) = self.settled() {
            while self.flushed < upto {
                self.waits_for.pop_front();
                self.flushed = self.flushed.next();
            }
        }
        assert!(self.flushed <= self.handled, "flushed before it was written");
        true
    }

    /// The next blob and all that it was left out for, if all of them are handled. What one was left out for may in
    /// turn have been left out for a newer one, in a later batch that saw more.
    fn settled(&self) -> Option<Seq> {
        let mut upto = self.flushed.next();
        let mut at = self.flushed;
        for &wait in &self.waits_for {
            at = at.next();
            upto = upto.max(wait);
            if upto > self.handled {
                return None;
            }
            if at == upto {
                return Some(upto);
            }
        }
        None
    }
}

/// How batches are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batching {
    /// What one batch covers at most, unless its first blob alone is more.
    pub(crate) max_bytes: u64,
    pub(crate) block_bytes: u32,
    /// Test-only wrong wording.
    pub(crate) overlapping: bool,
    /// Test-only wrong wording.
    pub(crate) oldest_first: bool,
}

/// The last blob of a batch that begins after `after`: at least one, at most `max_bytes` to write, not past `limit`.
/// Zeros count as what they cover: a disk that can't be told to zero has to be written.
fn cut(lane: &Lane, after: Seq, limit: Seq, max_bytes: u64) -> Seq {
    let block_bytes = u64::from(lane.geometry().block_bytes());
    let mut bytes = 0;
    let mut upto = after;
    for blob in lane.range(after.next()..=limit) {
        bytes += u64::from(blob.blocks) * block_bytes;
        if upto > after && bytes > max_bytes {
            break;
        }
        upto = blob.seq;
    }
    assert!(upto > after, "a batch of nothing");
    upto
}

/// Paints from the newest blob backwards; emits what is not covered of the blobs in (after, upto]. Returns for each of
/// those the newest blob past `upto` that covers a part of it (or zero).
fn paint(lane: &Lane, after: Seq, upto: Seq, newest: Seq, block_bytes: u32, writes: &mut Vec<WriteRange>) -> Vec<Seq> {
    let mut cover = Cover::new();
    for blob in lane.range(upto.next()..=newest).rev() {
        cover.paint(blob.lba, blob.end(), blob.seq, |_, _| {});
    }
    let mut waits_for = Vec::new();
    for blob in lane.range(after.next()..=upto).rev() {
        waits_for.push(cover.covered_by(blob.lba, blob.end()).unwrap_or(Seq::ZERO));
        cover.paint(blob.lba, blob.end(), blob.seq, |start, end| {
            writes.push(WriteRange {
                lba: start,
                blocks: end.0 - start.0,
                seq: blob.seq,
                source: source(blob, start, block_bytes),
            });
        });
    }
    waits_for.reverse();
    waits_for
}

fn source(blob: &Blob, start: Lba, block_bytes: u32) -> Source {
    match blob.kind {
        BlobKind::Write => Source::Staged { data_pos: blob.data_pos + (start.0 - blob.lba.0) * u64::from(block_bytes) },
        kind @ (BlobKind::Zeroes | BlobKind::Discard) => Source::Zeros(kind),
    }
}
