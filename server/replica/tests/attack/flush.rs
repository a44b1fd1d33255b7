//! Rule 2 at the bench: what is written of which blob, from where, and how much at once.

use twinsan_replica::{ReplicaConfig, Source, Timing, WriteRange};
use twinsan_wire::{Lba, NodeId, Seq};

use crate::rig::{BLOCK, Rig, config, is_flush};

/// So many blocks, the first of them from block `place` of the data ring.
fn range(seq: u64, lba: u64, blocks: u64, place: u64) -> WriteRange {
    let source = Source::Staged { data_pos: place * u64::from(BLOCK) };
    WriteRange { lba: Lba(lba), blocks, seq: Seq(seq), source }
}

/// Newest wins, and what is left of an older blob comes from its own place in the ring.
#[test]
fn a_blob_that_is_covered_in_its_middle_is_written_in_two_pieces() {
    let mut rig = Rig::attached();
    rig.hold(is_flush);
    rig.write(1, 1, 10);
    rig.write_at(1, 2, 4..9, 1);
    rig.write_at(1, 3, 5..7, 6);
    let (first, writes) = rig.batch();
    assert_eq!(writes, [range(1, 10, 1, 0)], "the others came when it was under way");
    rig.end_batch(Ok(()));
    let (second, writes) = rig.batch();
    assert_eq!(writes, [range(2, 4, 1, 1), range(3, 5, 2, 6), range(2, 7, 2, 4)]);
    assert_ne!(first, second, "its end is told by its number");
    rig.end_batch(Ok(()));
    assert!(!rig.pending.iter().any(is_flush), "all is written");
}

/// A batch is as large as it may be, and no larger, but for a blob that is larger by itself.
#[test]
fn a_batch_has_its_bound() {
    let timing = Timing { flush_rest_ms: 0, ..Timing::default() };
    let mut rig = Rig::dual_with(ReplicaConfig { timing, max_batch_bytes: 3 * u64::from(BLOCK), ..config(NodeId::A) });
    rig.hold(is_flush);
    rig.write(1, 1, 0);
    rig.write_at(1, 2, 10..12, 1);
    rig.write_at(1, 3, 20..21, 3);
    rig.write_at(1, 4, 30..34, 4);
    rig.write_at(1, 5, 40..41, 8);
    rig.ack(1, Some(Seq(1)), Seq(1));
    rig.ack(1, Some(Seq(1)), Seq(5));
    let seqs = |rig: &Rig| rig.batch().1.iter().map(|write| write.seq.0).collect::<Vec<_>>();
    assert_eq!(seqs(&rig), [1], "as soon as it is durable");
    rig.end_batch(Ok(()));
    assert_eq!(seqs(&rig), [2, 3], "three blocks");
    rig.end_batch(Ok(()));
    assert_eq!(seqs(&rig), [4], "one that is larger");
    rig.end_batch(Ok(()));
    assert_eq!(seqs(&rig), [5]);
}
