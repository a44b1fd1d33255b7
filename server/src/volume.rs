//! One volume on this node: its machine, its memory, and what the driver keeps beside them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crossbeam_channel::Receiver;
use twinsan_arena::Arena;
use twinsan_control::Address;
use twinsan_fabric::{ConnId, LocalSlice, RegionId};
use twinsan_replica::{Piece, PieceSource, ReadToken, Replica};
use twinsan_sas::multipath::Watch;
use twinsan_wire::limits::MAX_READ_BYTES;
use twinsan_wire::message::{VolumeName, VolumeShape};
use twinsan_wire::{Incarnation, NodeId, Seq};

use crate::counters::Counters;
use crate::dial::Dial;
use crate::flusher::{Done, Flusher};
use crate::layout::Layout;
use crate::paths::Paths;
use crate::slab::Slab;
use crate::stopwatch::Stopwatch;

/// What does not change while the process lives.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// Its name.
    pub(crate) name: VolumeName,
    /// This node.
    pub(crate) node: NodeId,
    /// The names of node A and node B.
    pub(crate) nodes: [String; 2],
    /// Where the other node is dialled.
    pub(crate) other: Vec<Address>,
    /// How long one of these may take to answer a dial for a relay. Rule 7 drops who is not fed in time, so they share
    /// that time.
    pub(crate) relay_dial_ms: u64,
    /// What both nodes and all clients agree on.
    pub(crate) shape: VolumeShape,
    /// Payload CRCs are checked.
    pub(crate) integrity: bool,
    /// Its disk.
    pub(crate) disk: std::path::PathBuf,
    /// The dm-multipath map that it is, if it is one.
    pub(crate) map: Option<String>,
    /// What is known of how the disk is written.
    pub(crate) disk_facts: Vec<String>,
}

/// One volume.
pub(crate) struct Volume {
    /// What does not change.
    pub(crate) facts: Facts,
    /// The machine.
    pub(crate) replica: Replica,
    /// What new connections are told.
    pub(crate) incarnation: Incarnation,
    /// Where what lies.
    pub(crate) layout: Layout,
    /// The memory.
    pub(crate) arena: Arc<Arena>,
    /// The same, for the fabric.
    pub(crate) region: RegionId,
    /// The thread that does its disk I/O.
    pub(crate) flusher: Flusher,
    /// What that thread has done.
    pub(crate) done: Receiver<Done>,
    /// The watch over its disk's paths, where it has any.
    pub(crate) watch: Option<Watch>,
    /// What is heard of the disk's paths.
    pub(crate) paths: Paths,
    /// Buffers for reads.
    pub(crate) slab: Slab,
    /// Reads whose answers are on their way, and by which connection.
    pub(crate) answering: BTreeMap<ReadToken, ConnId>,
    /// The dials in progress, by [`crate::dial::Errand`].
    pub(crate) dials: [Option<Dial>; 2],
    /// Index of the other node's address that answered last; the first one until one has.
    pub(crate) answered: usize,
    /// The last thing that a dial failed with, so that it is logged once.
    pub(crate) dial_trouble: Option<String>,
    /// When each descriptor slot was last filled.
    pub(crate) arrivals: Box<[u64]>,
    /// How long timed blobs take.
    pub(crate) stopwatch: Stopwatch,
    /// What has happened.
    pub(crate) counters: Counters,
    /// Its machine has ended.
    pub(crate) ended: bool,
}

impl Volume {
    /// The bytes of an answer, in order. The disk's pieces lie packed in the read's slab slot.
    pub(crate) fn slices(&self, token: ReadToken, pieces: &[Piece]) -> Vec<LocalSlice> {
        let slot = self.slab.slot(token);
        slices(&self.layout, self.region, self.facts.shape.block_bytes, slot, pieces)
    }

    /// A blob has been staged now.
    pub(crate) fn arrived(&mut self, seq: Seq, now: u64) {
        self.arrivals[self.layout.slot(seq) as usize] = now;
    }

    /// The other node.
    pub(crate) fn other_node(&self) -> NodeId {
        self.facts.node.other()
    }

    /// A node's name.
    pub(crate) fn node_name(&self, node: NodeId) -> &str {
        &self.facts.nodes[node.index()]
    }
}

fn slices(layout: &Layout, region: RegionId, block_bytes: u32, slot: Option<u32>, pieces: &[Piece]) -> Vec<LocalSlice> {
    let mut from_disk = 0;
    let mut total = 0;
    let slices = pieces.iter().map(|piece| {
        let len = piece.blocks * block_bytes;
        total += len;
        assert!(total <= MAX_READ_BYTES, "the machine refuses longer reads");
        let offset = match piece.source {
            PieceSource::Zeros { .. } => layout.zeros,
            PieceSource::Staged { data_pos, .. } => layout.staged(data_pos),
            PieceSource::Disk => {
                let slot = slot.expect("what comes from the disk has been read into a slot");
                let offset = layout.slab_slot(slot) + from_disk;
                from_disk += u64::from(len);
                offset
            }
        };
        LocalSlice { region, offset, len }
    });
    slices.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinsan_wire::Lba;

    #[test]
    fn an_answer_is_put_together_from_where_its_pieces_lie() {
        let layout = Layout::new(4 << 20);
        let region = RegionId(3);
        let piece = |lba, blocks, source| Piece { lba: Lba(lba), blocks, source };
        let pieces = [
            piece(10, 1, PieceSource::Disk),
            piece(11, 2, PieceSource::Staged { seq: Seq(4), data_pos: (4 << 20) + 8192 }),
            piece(13, 3, PieceSource::Disk),
            piece(16, 1, PieceSource::Zeros { seq: Seq(5) }),
        ];
        let at = |offset, len| LocalSlice { region, offset, len };
        let expected = [
            at(layout.slab_slot(2), 4096),
            at(layout.ring + 8192, 8192),
            at(layout.slab_slot(2) + 4096, 12288),
            at(layout.zeros, 4096),
        ];
        assert_eq!(slices(&layout, region, 4096, Some(2), &pieces), expected);
    }
}
