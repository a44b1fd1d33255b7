//! The disk goes wrong: slots torn and rotten, I/O that fails, a full or a slow disk, a path that fails over.

use crate::common::*;
use twinsan_sim::Process;

/// A dies as it writes that B is a member: one slot is a mix of two superblocks, the other one says A alone.
#[test]
fn a_slot_torn_by_the_death_of_its_writer() {
    passes(FenceKind::Pr, |w| {
        let client = solo(w)?;
        complete(w, client, 0)?;
        w.tear_next_slot();
        w.start_node(B);
        reach(w, "A has died", |w| w.process(NODE_A) == Process::Down)?;
        reach(w, "B serves", |w| w.role(B) == Some(Role::Primary))?;
        complete(w, client, 0)?;
        Ok(())
    });
}

/// Section 6, the last row: nobody guesses what the superblock said.
#[test]
fn both_slots_rotten() {
    let mut world = World::new(SimConfig::scripted(FenceKind::Pr));
    let client = solo(&mut world).expect("a cluster");
    complete(&mut world, client, 0).expect("a write");
    world.run_for(20);
    world.crash_node(A);
    world.rot_both_slots();
    world.start_node(A);
    world.start_node(B);
    assert!(!world.run_until(3_000, |w| w.role(A) == Some(Role::Primary) || w.role(B) == Some(Role::Primary)));
    assert_eq!(world.superblock(), None);
    assert!(world.trace_lines().iter().any(|line| line.contains("SuperblockCorrupt")), "and they say why");
}

/// Rule 11: a failed write, which may have landed, is kept and tried again, whoever is alone or not.
#[test]
fn some_io_fails() {
    for (times, alone) in [(6, false), (3, true)] {
        passes(FenceKind::Pr, |w| {
            let client = dual(w)?;
            for node in [A, B] {
                w.fail_some_io(node, 400);
            }
            if alone {
                w.crash_node(B);
            }
            for lba in 0..times {
                complete(w, client, lba)?;
            }
            for node in [A, B] {
                w.fail_some_io(node, 0);
            }
            Ok(())
        });
    }
}

/// Rule 11: dual, writes complete from RAM until the lane is full, then wait; nothing fails, and nobody is replaced, as
/// the other one would find no more room.
#[test]
fn a_full_disk() {
    passes(FenceKind::Pr, |w| {
        let client = dual(w)?;
        let epoch = w.superblock().map(|s| s.epoch);
        w.fill_disk(true);
        let mut last = Seq::ZERO;
        while let Some(seq) = w.write(client, BlobKind::Write, last.0 % 16, 1) {
            last = seq;
            reach(w, "it completes from RAM", |w| w.completed(client) == seq)?;
        }
        if last < Seq(16) {
            return Err(NotReached("the lane takes 16 blobs"));
        }
        w.run_for(1_000);
        if w.write(client, BlobKind::Write, 0, 1).is_some() {
            w.broken("a blob that is not on the disk has been released");
        }
        w.fill_disk(false);
        reach(w, "there is room in the lane again", |w| w.released(A) == last)?;
        complete(w, client, 0)?;
        if w.superblock().map(|s| s.epoch) != epoch {
            w.broken("a full disk has moved the volume");
        }
        Ok(())
    });
}

/// Alone, "completed" means on the disk: the write waits.
#[test]
fn a_full_disk_alone() {
    passes(FenceKind::Pr, |w| {
        let client = solo(w)?;
        w.fill_disk(true);
        let seq = write(w, client, 3)?;
        w.run_for(1_000);
        if w.completed(client) >= seq {
            w.broken("completed without being anywhere else than in one RAM");
        }
        w.fill_disk(false);
        reach(w, "it completes", |w| w.completed(client) == seq)
    });
}

/// Slow is not dead: heartbeats come from the fabric, and dual nobody waits for the disk.
#[test]
fn a_slow_disk_moves_nothing() {
    passes(FenceKind::Pr, |w| {
        let client = dual(w)?;
        let epoch = w.superblock().map(|s| s.epoch);
        w.slow_disk(A, 2_000);
        for lba in 0..8 {
            complete(w, client, lba)?;
        }
        w.run_for(1_000);
        if w.superblock().map(|s| s.epoch) != epoch {
            w.broken("a slow disk has moved the volume");
        }
        w.slow_disk(A, 0);
        Ok(())
    });
}

/// A's writes wait for dm-multipath to fail over; A freezes, B fences and writes; A's come by the other path.
#[test]
fn writes_that_wait_for_another_path() {
    passes(FenceKind::Pr, |w| {
        let client = dual(w)?;
        w.fail_path_over(A, 900_000);
        complete(w, client, 0)?;
        w.run_for(5);
        w.freeze(NODE_A);
        reach(w, "B serves", |w| w.role(B) == Some(Role::Primary))?;
        let newer = complete(w, client, 0)?;
        w.run_for(1_000);
        if w.on_disk(0).seq != newer.0 {
            w.broken("what waited has landed over something newer");
        }
        w.thaw(NODE_A);
        Ok(())
    });
}

/// Rule 6, under the fence: A marks the volume as in use while B, outside, tries, as it was marked clean, and the slot that
/// still says so rots: it stands down.
#[test]
fn a_volume_that_is_clean_no_more() {
    passes(FenceKind::Pr, |w| {
        let client = dual(w)?;
        complete(w, client, 0)?;
        reach(w, "it is marked clean", |w| w.superblock().is_some_and(|s| s.clean))?;
        w.run_for(50);
        let in_use =
            w.hold_disk(|n, access| n == A && matches!(access, DiskAccess::Slot { superblock: s, .. } if !s.clean));
        write(w, client, 0)?;
        w.run_for(5);
        w.freeze(NODE_A);
        w.crash_node(B);
        w.start_node(B);
        w.run_for(100);
        w.slow_disk(B, 100);
        reach(w, "B tries, as it is clean", |w| w.role(B) == Some(Role::TakingOver))?;
        w.release(in_use);
        reach(w, "A has marked it", |w| w.superblock().is_some_and(|s| !s.clean))?;
        w.rot_older_slot();
        reach(w, "B stands down", |w| w.fired_so_far(6, "stands down under the fence") == 1)?;
        w.slow_disk(B, 0);
        w.thaw(NODE_A);
        reach(w, "A goes on", |w| w.role(A) == Some(Role::Primary))?;
        Ok(())
    });
}
