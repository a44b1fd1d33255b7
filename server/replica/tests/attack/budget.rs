//! The takeover budget: what completes in RAM is bounded by what the disk takes in time, and goes on as it takes it.

use twinsan_replica::{Action, ConnId, DiskError, Event, LinkId, ReplicaConfig, Timing};
use twinsan_wire::{Blob, BlobKind, ClientMsg, Generation, Lba, NodeId, PeerBody, Role, Seq};

use crate::rig::{BLOCK, Rig, config, with_long_lane};

/// One block a batch; 100 ms of the disk's.
fn budgeted() -> ReplicaConfig {
    let timing = Timing { takeover_budget_ms: 100, flush_rest_ms: 10_000, ..Timing::default() };
    ReplicaConfig { timing, max_batch_bytes: u64::from(BLOCK), ..config(NodeId::A) }
}

/// Write `seq`, of one block, is here and at the other node.
fn staged(rig: &mut Rig, seq: u64) {
    rig.write(1, seq, seq);
    rig.ack(1, Some(Seq(1)), Seq(seq));
}

/// Ends the one batch that is under way, after so long.
fn flush(rig: &mut Rig, us: u64) {
    let Some(&Action::Flush { batch, .. }) = rig.pending.first() else { panic!("nothing is being flushed") };
    rig.end(|a| matches!(a, Action::Flush { .. }), Event::Flushed { batch, result: Ok(()), us });
}

#[test]
fn what_completes_in_ram_is_what_the_disk_takes_in_time() {
    let mut rig = Rig::dual_with(budgeted());
    rig.hold(|a| matches!(a, Action::Flush { .. }));
    for seq in 1..=3 {
        staged(&mut rig, seq);
    }
    assert_eq!(rig.status().durable, Seq(3), "as long as nothing is known of the disk, nothing waits");
    // 50 ms for a block: two of them in the budget.
    flush(&mut rig, 50_000);
    assert_eq!(rig.status().flushed, Seq(1));
    assert!(!rig.status().at_budget);
    staged(&mut rig, 4);
    assert_eq!((rig.status().durable, rig.status().at_budget), (Seq(3), true), "2 and 3 are in RAM only");
    assert_eq!(rig.status().flush_bytes_per_s, Some(20 * u64::from(BLOCK)));
    // The rest of 10 s does not count: somebody waits.
    flush(&mut rig, 50_000);
    assert_eq!((rig.status().flushed, rig.status().durable), (Seq(2), Seq(4)));
    // A disk that has become faster.
    staged(&mut rig, 5);
    assert_eq!(rig.status().durable, Seq(4));
    flush(&mut rig, 1);
    assert_eq!((rig.status().flushed, rig.status().durable, rig.status().at_budget), (Seq(3), Seq(5), false));
}

/// What counts is how fast the disk is by now: of what was long ago, ever less is remembered.
#[test]
fn the_pace_follows_the_disk() {
    let mut config = budgeted();
    config.timing.flush_rest_ms = 0;
    let mut rig = Rig::dual_with(config);
    rig.hold(|a| matches!(a, Action::Flush { .. }));
    let mut seq = 0;
    let mut took = |us| {
        seq += 1;
        staged(&mut rig, seq);
        flush(&mut rig, us);
        rig.status().flush_bytes_per_s.expect("measured")
    };
    for _ in 0..3 {
        assert_eq!(took(20_000_000), u64::from(BLOCK) / 20);
    }
    let paces = [(); 6].map(|()| took(1_000_000));
    assert!(paces.is_sorted() && paces[5] > u64::from(BLOCK) / 2, "{paces:?}");
}

/// A rest that lasts until the budget is used up lets a write wait for a whole batch, though the disk had nothing to do.
#[test]
fn the_flusher_begins_before_a_write_has_to_wait_for_the_budget() {
    let mut rig = Rig::dual_with(with_long_lane(budgeted()));
    rig.hold(|a| matches!(a, Action::Flush { .. }));
    staged(&mut rig, 1);
    // 25 ms for a block: four of them in the budget.
    flush(&mut rig, 25_000);
    staged(&mut rig, 2);
    assert_eq!((rig.status().flushed, rig.pending.len()), (Seq(1), 0), "it rests");
    for seq in 3..=5 {
        staged(&mut rig, seq);
    }
    assert_eq!((rig.status().durable, rig.status().at_budget), (Seq(5), false), "four are in RAM only");
    flush(&mut rig, 25_000);
    staged(&mut rig, 6);
    assert_eq!((rig.status().durable, rig.status().at_budget), (Seq(6), false));
}

/// What is flushed goes by the ACKs: it may pass what fits into the budget. 5 is written for 2, and so 3 and 4 have
/// nothing left to write.
#[test]
fn the_disk_may_be_ahead_of_the_budget() {
    let mut rig = Rig::dual_with(budgeted());
    rig.hold(|a| matches!(a, Action::Flush { .. }));
    staged(&mut rig, 1);
    flush(&mut rig, 60_000_000);
    for seq in 2..=5 {
        rig.write(1, seq, 9);
    }
    rig.ack(1, Some(Seq(1)), Seq(5));
    assert_eq!((rig.status().durable, rig.status().at_budget), (Seq(2), true));
    assert_eq!(rig.status().flushed, Seq(1));
    flush(&mut rig, 60_000_000);
    assert_eq!((rig.status().flushed, rig.status().durable, rig.status().at_budget), (Seq(5), Seq(5), false));
}

/// Its numbers begin anew.
#[test]
fn a_new_session_has_the_budget_for_itself() {
    let mut rig = Rig::dual_with(budgeted());
    rig.hold(|a| matches!(a, Action::Flush { .. }));
    for seq in 1..=3 {
        staged(&mut rig, seq);
    }
    rig.event(Event::ClientUp { conn: ConnId(2) });
    rig.client(2, ClientMsg::Attach { over: Generation(1) });
    for _ in 1..=3 {
        flush(&mut rig, 50_000);
    }
    rig.peer(1, 1, PeerBody::LaneDropped { generation: Generation(1) });
    assert_eq!(rig.status().generation, Generation(2));
    for seq in 1..=3 {
        rig.write(2, seq, seq);
        rig.ack(1, Some(Seq(1)), Seq(seq));
    }
    assert_eq!((rig.status().durable, rig.status().at_budget), (Seq(2), true));
}

#[test]
fn one_blob_always_completes_however_slow_the_disk_is() {
    let mut rig = Rig::dual_with(budgeted());
    rig.hold(|a| matches!(a, Action::Flush { .. }));
    staged(&mut rig, 1);
    flush(&mut rig, 60_000_000);
    staged(&mut rig, 2);
    assert_eq!(rig.status().durable, Seq(2));
    staged(&mut rig, 3);
    assert_eq!((rig.status().durable, rig.status().at_budget), (Seq(2), true));
    flush(&mut rig, 60_000_000);
    assert_eq!(rig.status().durable, Seq(3));
}

#[test]
fn a_blob_that_is_larger_than_the_budget_completes_alone() {
    let mut rig = Rig::dual_with(budgeted());
    rig.hold(|a| matches!(a, Action::Flush { .. }));
    staged(&mut rig, 1);
    flush(&mut rig, 60_000_000);
    let blob = Blob {
        generation: Generation(1),
        seq: Seq(2),
        kind: BlobKind::Write,
        lba: Lba(0),
        blocks: 3,
        data_pos: u64::from(BLOCK),
        payload_len: 3 * BLOCK,
    };
    rig.event(Event::Blob { conn: ConnId(1), blob });
    rig.ack(1, Some(Seq(1)), Seq(2));
    assert_eq!(rig.status().durable, Seq(2));
}

#[test]
fn alone_nothing_is_in_ram_only_and_nothing_waits_for_the_budget() {
    let mut rig = Rig::dual_with(budgeted());
    rig.hold(|a| matches!(a, Action::Flush { .. }));
    for seq in 1..=3 {
        staged(&mut rig, seq);
    }
    flush(&mut rig, 60_000_000);
    rig.let_go();
    rig.event(Event::LinkDown { link: LinkId(1) });
    rig.wait(2000);
    assert!(!rig.status().dual);
    rig.write(1, 4, 4);
    assert_eq!((rig.status().durable, rig.status().at_budget), (Seq(4), false));
}

#[test]
fn a_takeover_tells_what_it_had_to_write() {
    let mut rig = Rig::secondary();
    rig.event(Event::ClientUp { conn: ConnId(1) });
    rig.client(1, ClientMsg::Resume { generation: Generation(1), first: Seq(1) });
    rig.write(1, 1, 7);
    rig.write(1, 2, 7);
    assert_eq!(rig.status().drained, None);
    rig.hold(|a| matches!(a, Action::Flush { .. }));
    rig.event(Event::LinkDown { link: LinkId(1) });
    rig.wait(1500);
    assert_eq!(rig.status().role, Role::TakingOver);
    rig.wait(40);
    let begun = rig.now;
    rig.wait(80);
    rig.let_go();
    assert_eq!(rig.status().role, Role::Primary);
    let drained = rig.status().drained.expect("rule 5");
    assert_eq!((drained.blobs, drained.bytes), (2, 2 * u64::from(BLOCK)));
    assert!((rig.now - begun..2000).contains(&drained.ms), "{drained:?}");
}

/// Rule 11: no budget makes anybody wait for a disk that takes nothing.
#[test]
fn a_disk_that_takes_nothing_holds_nothing_back() {
    let mut rig = Rig::dual_with(budgeted());
    rig.hold(|a| matches!(a, Action::Flush { .. }));
    staged(&mut rig, 1);
    flush(&mut rig, 60_000_000);
    staged(&mut rig, 2);
    staged(&mut rig, 3);
    assert_eq!((rig.status().durable, rig.status().at_budget), (Seq(2), true));
    let Some(&Action::Flush { batch, .. }) = rig.pending.first() else { panic!("nothing is being flushed") };
    let result = Err(DiskError::Failed);
    rig.end(|a| matches!(a, Action::Flush { .. }), Event::Flushed { batch, result, us: 100 });
    assert_eq!((rig.status().durable, rig.status().at_budget), (Seq(3), false));
}

/// A disk discards any number of blocks in no time; that is not how fast it writes.
#[test]
fn a_discard_is_no_measure() {
    let mut rig = Rig::dual_with(budgeted());
    rig.hold(|a| matches!(a, Action::Flush { .. }));
    staged(&mut rig, 1);
    flush(&mut rig, 50_000);
    let pace = rig.status().flush_bytes_per_s;
    let blob = Blob {
        generation: Generation(1),
        seq: Seq(2),
        kind: BlobKind::Discard,
        lba: Lba(0),
        blocks: 40,
        data_pos: u64::from(BLOCK),
        payload_len: 0,
    };
    rig.event(Event::Blob { conn: ConnId(1), blob });
    rig.ack(1, Some(Seq(1)), Seq(2));
    rig.wait(11_000);
    flush(&mut rig, 1);
    assert_eq!(rig.status().flushed, Seq(2));
    assert_eq!(rig.status().flush_bytes_per_s, pace);
}
