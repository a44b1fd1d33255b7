//! What goes to the disk, in which batches (rule 2).
//!
//! One batch is in flight at a time, so no two disk writes over one block ever are. A batch takes the oldest blobs that
//! are not flushed, up to a size, and for every block of theirs it writes the newest bytes that may be flushed, whoever's
//! those are. So when it has ended well, its blobs are flushed, whatever has come meanwhile.
//!
//! ```text
//!   released ≤ flushed ≤ taken ≤ limit ≤ received
//! ```
//!
//! *flushed*: in a batch that has ended well; *taken*: in a batch.
//!
//! What is *due* is known per block: the newest blob that may be flushed, unless a batch has taken those very bytes. What it
//! has written of a newer blob is not written again when that one's turn comes. What a failed batch was to write is due
//! again. That knowledge only spares writes: where it is lost, or `limit` goes back, it is made anew from all that is not
//! flushed.

use alloc::vec::Vec;

use twinsan_staging::{Index, Lane};
use twinsan_wire::{Blob, BlobKind, Lba, Seq};

use crate::action::{Source, WriteRange};

/// Writes of one batch, unless its last blob is in more pieces. Where the lane is full, who waits for room waits for a batch to
/// end, and to a disk a few KiB here and there are as much work as many in one place.
pub(crate) const MAX_WRITES: usize = 1 << 10;

/// The flusher's positions in the lane, and what is due.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Flusher {
    flushed: Seq,
    taken: Seq,
    issued: Seq,
    in_flight: Vec<InFlight>,
    next_batch: u64,
    /// The newest blob over each block among those in (taken, `known_upto`], where the disk has not got it yet.
    due: Index,
    /// `None`: what is due is to be found out.
    known_upto: Option<Seq>,
    /// After a failure: not before this time.
    pub(crate) retry_at: Option<u64>,
    /// Once all that was due is flushed: while dual, not before this time unless there is [much](Flusher::much_is_due) to do.
    pub(crate) rests_until: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct InFlight {
    number: u64,
    upto: Seq,
    writes: Vec<WriteRange>,
    /// It was cut off at its size: the next one follows at once.
    is_cut: bool,
    /// Its positions were declared void: it no longer counts.
    void: bool,
}

/// How a batch has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It no longer counts.
    Void,
    /// Its blobs are due again.
    Failed,
    /// Its blobs are flushed; so are all that were due when it was made, unless it `is_cut`.
    Flushed { is_cut: bool },
}

impl Flusher {
    /// Everything up to `released` is on the disk, and nothing is known of the rest.
    pub(crate) fn new(released: Seq) -> Self {
        Self {
            flushed: released,
            taken: released,
            issued: released,
            in_flight: Vec::new(),
            next_batch: 1,
            due: Index::new(),
            known_upto: None,
            retry_at: None,
            rests_until: None,
        }
    }

    /// Rules 5, 6 and 9: all knowledge of what was flushed is void. A batch in flight no longer counts.
    pub(crate) fn forget(&mut self, released: Seq) {
        self.flushed = released;
        self.taken = released;
        self.issued = released;
        self.forget_what_is_due();
        self.retry_at = None;
        self.rests_until = None;
        for batch in &mut self.in_flight {
            batch.void = true;
        }
    }

    /// It is found out again when a batch is made.
    pub(crate) fn forget_what_is_due(&mut self) {
        self.due.clear();
        self.known_upto = None;
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

    /// What is due up to `limit` is so much that it has to go: a quarter of the lane.
    fn much_is_due(&self, lane: &Lane, limit: Seq) -> bool {
        let (Some(oldest), Some(newest)) = (lane.get(self.flushed.next()), lane.get(limit)) else { return false };
        if newest.seq < oldest.seq {
            return false;
        }
        let geometry = lane.geometry();
        let blobs = limit.0 - self.flushed.0;
        let bytes = newest.data_pos + u64::from(newest.payload_len) - oldest.data_pos;
        blobs >= u64::from(geometry.slots() / 4) || bytes >= geometry.ring_bytes() / 4
    }

    /// No batch is made now, unless [much](Flusher::much_is_due) is due. What comes meanwhile is taken note of as it comes: all of
    /// it at once, at the end, would hold up whatever else this thread has to do.
    pub(crate) fn goes_on_resting(&mut self, lane: &Lane, limit: Seq) -> bool {
        self.follow(lane, limit);
        !self.much_is_due(lane, limit)
    }

    /// The next batch of what may be flushed, up to `limit`: its number and its writes.
    pub(crate) fn next_batch(&mut self, lane: &Lane, limit: Seq, how: Batching) -> Option<(u64, Vec<WriteRange>)> {
        let limit = if how.oldest_first { self.next_few(lane, limit, how.max_bytes) } else { limit };
        self.follow(lane, limit);
        let busy = !self.in_flight.is_empty() && !how.overlapping;
        if busy || self.retry_at.is_some() || self.taken >= limit {
            return None;
        }
        if self.known_upto.is_none() {
            self.known_upto = Some(self.taken);
            self.follow(lane, limit);
        }
        let writes = self.take(lane, limit, how);
        let number = self.next_batch;
        self.next_batch += 1;
        let is_cut = self.taken < limit;
        self.in_flight.push(InFlight { number, upto: self.taken, writes: writes.clone(), is_cut, void: false });
        Some((number, writes))
    }

    /// What is known to be due is that up to `limit`. Where that goes back, what a newer blob has covered is due again.
    fn follow(&mut self, lane: &Lane, limit: Seq) {
        let Some(known_upto) = self.known_upto else { return };
        if limit < known_upto {
            self.forget_what_is_due();
        } else if limit > known_upto {
            for blob in lane.range(known_upto.next()..=limit) {
                self.due.insert(blob.lba, blob.blocks, blob.seq);
            }
            self.known_upto = Some(limit);
        }
    }

    /// Takes the oldest blobs: no more to write than a batch may, but one in any case, and whatever has nothing left to write.
    /// Of zeros with more than that over them it takes the first blocks; the next batch goes on there.
    /// Zeros count as what they cover: a disk that can't be told to zero has to be written.
    fn take(&mut self, lane: &Lane, limit: Seq, how: Batching) -> Vec<WriteRange> {
        let most = how.max_bytes / u64::from(how.block_bytes);
        let mut writes = Vec::new();
        let mut blocks = 0;
        for blob in lane.range(self.taken.next()..=limit) {
            let is_first = writes.is_empty();
            let room = if writes.len() < how.max_writes { most.saturating_sub(blocks) } else { 0 };
            if !is_first && u64::from(blob.blocks) > room && self.left_of(blob) > room {
                break;
            }
            // Zeros may lie under any number of newer writes.
            let now =
                if is_first && blob.payload_len == 0 { self.fitting(blob, most, how.max_writes) } else { blob.blocks };
            let is_whole = now == blob.blocks;
            if is_whole {
                self.taken = blob.seq;
            }
            let issued = &mut self.issued;
            self.due.take(blob.lba, now, |first, end, seq| {
                let newest = if seq == blob.seq { blob } else { lane.get(seq).expect("what is due is held") };
                let source = source(newest, first, how.block_bytes);
                writes.push(WriteRange { lba: first, blocks: end.0 - first.0, seq, source });
                blocks += end.0 - first.0;
                *issued = seq.max(*issued);
            });
            if !is_whole {
                break;
            }
        }
        assert!(!writes.is_empty(), "a batch of nothing");
        writes.sort_unstable_by_key(|w| w.lba);
        writes
    }

    /// How many blocks of the blob, from its first on, have no more to write than a batch may: its first part in any case.
    fn fitting(&self, blob: &Blob, most: u64, max_writes: usize) -> u32 {
        let (mut parts, mut blocks) = (0, 0);
        for part in self.due.resolve(blob.lba, blob.blocks).filter(|part| part.seq.is_some()) {
            parts += 1;
            blocks += u64::from(part.blocks);
            if parts > 1 && (parts > max_writes || blocks > most) {
                return u32::try_from(part.lba.0 - blob.lba.0).expect("within the blob");
            }
        }
        blob.blocks
    }

    /// Blocks over which something is left to write for the blob.
    fn left_of(&self, blob: &Blob) -> u64 {
        let due = self.due.resolve(blob.lba, blob.blocks).filter(|part| part.seq.is_some());
        due.map(|part| u64::from(part.blocks)).sum()
    }

    /// Only in a wrong wording: a batch that knows nothing of what comes after it.
    fn next_few(&self, lane: &Lane, limit: Seq, max_bytes: u64) -> Seq {
        let block_bytes = u64::from(lane.geometry().block_bytes());
        let mut bytes = 0;
        let mut upto = self.taken;
        for blob in lane.range(self.taken.next()..=limit) {
            bytes += u64::from(blob.blocks) * block_bytes;
            if upto > self.taken && bytes > max_bytes {
                break;
            }
            upto = blob.seq;
        }
        upto
    }

    /// How much a batch in flight writes, if that tells how fast the disk is: of zeros it takes any number in no time.
    pub(crate) fn blocks_of(&self, number: u64) -> Option<u64> {
        let writes = &self.in_flight.iter().find(|b| b.number == number)?.writes;
        let all_staged = writes.iter().all(|w| matches!(w.source, Source::Staged { .. }));
        all_staged.then(|| writes.iter().map(|w| w.blocks).sum())
    }

    /// A batch has ended. After a failure its blobs are due again, as a whole.
    pub(crate) fn ended(&mut self, number: u64, ok: bool) -> Ended {
        let at = self.in_flight.iter().position(|b| b.number == number).expect("a batch ends once");
        let batch = self.in_flight.remove(at);
        if batch.void {
            return Ended::Void;
        }
        if ok {
            self.flushed = self.flushed.max(batch.upto);
            self.taken = self.taken.max(batch.upto);
            Ended::Flushed { is_cut: batch.is_cut }
        } else {
            self.taken = self.flushed;
            // Where all is to be found out, they are found too.
            if self.known_upto.is_some() {
                for write in &batch.writes {
                    let blocks = u32::try_from(write.blocks).expect("of one blob");
                    self.due.put_back(write.lba, blocks, write.seq);
                }
            }
            Ended::Failed
        }
    }
}

/// How batches are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batching {
    /// What one batch writes at most, unless its first blob alone is more.
    pub(crate) max_bytes: u64,
    /// In how many pieces at most, unless its last blob is in more.
    pub(crate) max_writes: usize,
    pub(crate) block_bytes: u32,
    /// Test-only wrong wording.
    pub(crate) overlapping: bool,
    /// Test-only wrong wording.
    pub(crate) oldest_first: bool,
}

fn source(blob: &Blob, start: Lba, block_bytes: u32) -> Source {
    match blob.kind {
        BlobKind::Write => Source::Staged { data_pos: blob.data_pos + (start.0 - blob.lba.0) * u64::from(block_bytes) },
        kind @ (BlobKind::Zeroes | BlobKind::Discard) => Source::Zeros(kind),
    }
}

#[cfg(test)]
mod tests;
