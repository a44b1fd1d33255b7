//! A primary at work: what completes, is answered and released, and when it may not be (rules 1, 2, 12).

use twinsan_replica::{Action, ConnId, DiskError, Event, LinkId};
use twinsan_wire::{ClientMsg, Epoch, Generation, Lba, Role, Seq};

use crate::rig::{Rig, is_flush, is_read, is_write};

fn is_answered(rig: &mut Rig) -> bool {
    rig.said().iter().any(|a| matches!(a, Action::AnswerRead { .. }))
}

/// The client reads one block.
fn read(rig: &mut Rig, id: u64, lba: u64, epoch: Epoch) {
    rig.client(1, ClientMsg::Read { id, epoch, after: Seq(0), lba: Lba(lba), blocks: 1, slot: 0 });
}

/// Write `seq` is here and at the other node.
fn both_hold(rig: &mut Rig, seq: u64) {
    rig.write(1, seq, seq);
    rig.ack(1, Some(Seq(1)), Seq(seq));
}

/// Rule 12: with the mark on the disk, who starts takes it that nothing is in RAM. What completes in RAM waits until it is gone.
#[test]
fn nothing_completes_in_ram_while_the_volume_is_marked_clean() {
    let mut rig = Rig::dual();
    rig.wait_with(61_000, 1, 1, Role::Secondary);
    assert!(rig.disk.superblock.clean);
    rig.hold(is_write);
    both_hold(&mut rig, 1);
    assert_eq!(rig.completed(), Seq::ZERO);
    rig.let_go();
    assert_eq!((rig.completed(), rig.disk.superblock.clean), (Seq(1), false));
}

/// Rule 12: it counts as set from the issue of its write.
#[test]
fn nothing_completes_in_ram_while_the_mark_is_being_written() {
    let mut rig = Rig::dual();
    rig.hold(is_write);
    rig.wait_with(61_000, 1, 1, Role::Secondary);
    assert!(rig.pending.iter().any(is_write) && !rig.status().superblock.clean);
    both_hold(&mut rig, 1);
    assert_eq!(rig.completed(), Seq::ZERO);
    rig.let_go();
    assert_eq!((rig.completed(), rig.disk.superblock.clean), (Seq(1), false));
}

/// Rule 12: the mark comes when nothing has been staged for a minute, and all of it is on the disk.
#[test]
fn a_volume_in_use_is_not_marked_clean() {
    let mut rig = Rig::dual();
    rig.wait_with(30_000, 1, 1, Role::Secondary);
    both_hold(&mut rig, 1);
    rig.wait_with(59_000, 1, 1, Role::Secondary);
    assert!(!rig.disk.superblock.clean);
    rig.wait_with(2000, 1, 1, Role::Secondary);
    assert!(rig.disk.superblock.clean);

    let mut rig = Rig::dual();
    rig.hold(is_flush);
    both_hold(&mut rig, 1);
    rig.wait_with(61_000, 1, 1, Role::Secondary);
    assert!(!rig.disk.superblock.clean, "a batch is in flight");
    rig.let_go();
    rig.wait_with(100, 1, 1, Role::Secondary);
    assert!(rig.disk.superblock.clean);

    // What has not been ACKed is in one RAM only.
    let mut rig = Rig::dual();
    rig.write(1, 1, 1);
    rig.wait_with(61_000, 1, 1, Role::Secondary);
    assert!(!rig.disk.superblock.clean);
}

/// A lone primary's mark need not go: what completes is on the disk.
#[test]
fn alone_the_mark_stays() {
    let mut rig = Rig::attached();
    rig.wait(61_000);
    assert!(rig.disk.superblock.clean);
    rig.said();
    rig.write(1, 1, 1);
    assert_eq!(rig.completed(), Seq(1));
    assert!(rig.disk.superblock.clean && !rig.said().iter().any(is_write));
}

/// Section 3: inside rule 7 nothing is released, as the other one may take over and flush all that it holds.
#[test]
fn nothing_is_released_while_the_other_one_is_dropped() {
    let mut rig = Rig::dual();
    rig.hold(|a| is_flush(a) || is_write(a));
    both_hold(&mut rig, 1);
    rig.event(Event::LinkDown { link: LinkId(1) });
    rig.wait(20);
    rig.hold(is_write);
    rig.settle();
    rig.wait(20);
    assert!(rig.pending.iter().any(is_write), "it names one member");
    assert_eq!((rig.status().flushed, rig.status().released), (Seq(1), Seq::ZERO));
    rig.let_go();
    assert_eq!(rig.status().released, Seq(1));
}

/// Rule 8: as long as it is not known where the joiner begins, it holds nothing up.
#[test]
fn a_joiner_that_says_nothing_holds_nothing_up() {
    let mut rig = Rig::attached();
    rig.joining(1);
    rig.write(1, 1, 0);
    assert_eq!((rig.completed(), rig.status().released), (Seq(1), Seq(1)));
}

/// Section 9: the client sends it again in the epoch in which it will be answered.
#[test]
fn a_read_of_another_epoch_is_ignored() {
    let mut rig = Rig::attached();
    let epoch = rig.status().superblock.epoch;
    for stale in [Epoch(epoch.0 - 1), epoch.next()] {
        read(&mut rig, 1, 0, stale);
        assert!(!is_answered(&mut rig));
    }
    read(&mut rig, 1, 0, epoch);
    assert!(is_answered(&mut rig));
}

/// Rule 13: what it shows is here and durable; but who hands over answers nothing.
#[test]
fn who_hands_over_answers_no_read() {
    let mut rig = Rig::dual();
    both_hold(&mut rig, 1);
    rig.hold(|a| matches!(a, Action::WriteHeartbeat { .. }) || is_flush(a));
    rig.wait_with(300, 1, 1, Role::Secondary);
    rig.event(Event::Switchover);
    let epoch = rig.status().superblock.epoch;
    rig.said();
    read(&mut rig, 1, 1, epoch);
    rig.wait_with(500, 1, 1, Role::Secondary);
    assert!(!is_answered(&mut rig));
    rig.wait_with(1000, 1, 1, Role::Secondary);
    assert!(is_answered(&mut rig), "it has been called off, as its I/O does not end");
}

/// A read that the disk fails is tried again, after a while.
#[test]
fn a_read_that_fails_is_tried_again_after_a_while() {
    let mut rig = Rig::attached();
    rig.hold(is_read);
    let epoch = rig.status().superblock.epoch;
    read(&mut rig, 1, 0, epoch);
    let token =
        rig.pending.iter().find_map(|a| if let Action::ReadDisk { token, .. } = a { Some(*token) } else { None });
    let token = token.expect("it is under way");
    rig.end(is_read, Event::DiskRead { token, result: Err(DiskError::Failed) });
    assert!(rig.status().disk_trouble);
    rig.wait(90);
    assert!(!rig.pending.iter().any(is_read));
    rig.wait(20);
    rig.let_go();
    assert!(is_answered(&mut rig) && !rig.status().disk_trouble);
}

/// The trouble of a read ends with it, if no other one is there that would find out whether the disk works.
#[test]
fn the_trouble_of_reads_ends_with_the_last_of_them() {
    let mut rig = Rig::attached();
    rig.hold(is_read);
    let epoch = rig.status().superblock.epoch;
    read(&mut rig, 1, 0, epoch);
    let token =
        rig.pending.iter().find_map(|a| if let Action::ReadDisk { token, .. } = a { Some(*token) } else { None });
    rig.end(is_read, Event::DiskRead { token: token.expect("it is under way"), result: Err(DiskError::Failed) });
    rig.event(Event::ClientDown { conn: ConnId(1) });
    assert!(!rig.status().disk_trouble && rig.status().reads == 0);
}

/// A client that goes takes its own reads with it: a mirror's relay, or another client, has none.
#[test]
fn a_connection_that_goes_voids_its_own_reads_only() {
    let mut rig = Rig::attached();
    rig.hold(is_read);
    let epoch = rig.status().superblock.epoch;
    read(&mut rig, 1, 0, epoch);
    rig.event(Event::ClientUp { conn: ConnId(2) });
    rig.event(Event::ClientDown { conn: ConnId(2) });
    assert_eq!(rig.status().reads, 1);
    rig.event(Event::ClientDown { conn: ConnId(1) });
    assert_eq!(rig.status().reads, 0);
}

/// Section 9: only who serves takes reads in, or who stopped to hand over and may still go on. A mirror's would keep space that its
/// primary has released.
#[test]
fn a_mirror_takes_no_reads_in() {
    let mut rig = Rig::secondary();
    rig.event(Event::ClientUp { conn: ConnId(1) });
    rig.client(1, ClientMsg::Resume { generation: Generation(1), first: Seq(1) });
    rig.write(1, 1, 1);
    let epoch = rig.status().superblock.epoch;
    read(&mut rig, 1, 1, epoch);
    assert_eq!(rig.status().reads, 0);
}
