//! Open reads (rule 1): resolved once, pinned, answered when all that they show is durable.
//!
//! ```text
//!   Waiting ──staged pieces durable──▶ OnDisk ──disk pieces read──▶ Settling ──what it saw durable──▶ Answering
//! ```

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use twinsan_staging::Index;
use twinsan_staging::Lane;
use twinsan_wire::{BlobKind, Lba, Seq};

use crate::action::{Piece, PieceSource};
use crate::ids::{ConnId, ReadToken};

/// One read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct OpenRead {
    pub(crate) conn: ConnId,
    pub(crate) id: u64,
    pub(crate) slot: u32,
    pub(crate) pieces: Vec<Piece>,
    /// The newest staged blob that it shows, or may have seen on the disk.
    pub(crate) needs: Seq,
    /// The oldest staged payload that it uses.
    pub(crate) pins: Option<Seq>,
    pub(crate) step: ReadStep,
}

/// How far a read is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ReadStep {
    Waiting,
    OnDisk,
    /// The disk failed; tried again at this time.
    Retry(u64),
    Settling,
    Answering,
}

/// All open reads, by token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Reads {
    pub(crate) next: u64,
    pub(crate) open: BTreeMap<ReadToken, OpenRead>,
}

impl Reads {
    pub(crate) fn insert(&mut self, read: OpenRead) {
        self.next += 1;
        self.open.insert(ReadToken(self.next), read);
    }

    /// The oldest staged blob whose space must stay.
    pub(crate) fn oldest_pin(&self) -> Option<Seq> {
        self.open.values().filter_map(|r| r.pins).min()
    }
}

/// What blocks `lba..` consist of right now.
pub(crate) fn resolve(index: &Index, lane: Option<&Lane>, lba: Lba, blocks: u32, block_bytes: u32) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for part in index.resolve(lba, blocks) {
        let source = match part.seq {
            None => PieceSource::Disk,
            Some(seq) => {
                let blob = lane.and_then(|l| l.get(seq)).expect("the index names staged blobs only");
                match blob.kind {
                    BlobKind::Write => PieceSource::Staged {
                        seq,
                        data_pos: blob.data_pos + (part.lba.0 - blob.lba.0) * u64::from(block_bytes),
                    },
                    BlobKind::Zeroes | BlobKind::Discard => PieceSource::Zeros { seq },
                }
            }
        };
        pieces.push(Piece { lba: part.lba, blocks: part.blocks, source });
    }
    pieces
}

/// The newest staged blob among the pieces, and the oldest whose payload is used.
pub(crate) fn needs_and_pins(pieces: &[Piece]) -> (Seq, Option<Seq>) {
    let mut needs = Seq::ZERO;
    let mut pins: Option<Seq> = None;
    for piece in pieces {
        match piece.source {
            PieceSource::Disk => {}
            PieceSource::Zeros { seq } => needs = needs.max(seq),
            PieceSource::Staged { seq, .. } => {
                needs = needs.max(seq);
                pins = Some(pins.map_or(seq, |p| p.min(seq)));
            }
        }
    }
    (needs, pins)
}
