//! Rule 1 at the bench: what a read shows, from where, and what it waits for.

use twinsan_replica::{Action, ConnId, Event, Piece, PieceSource};
use twinsan_wire::{ClientMsg, Generation, Lba, PeerBody, Role, Seq};

use crate::rig::{BLOCK, Rig, is_flush, is_read};

fn read(rig: &mut Rig, id: u64, lba: u64, blocks: u32) {
    let epoch = rig.status().superblock.epoch;
    rig.client(1, ClientMsg::Read { id, epoch, after: Seq(0), lba: Lba(lba), blocks, slot: 0 });
}

/// What the client has been answered, by the read's number.
fn answers(rig: &mut Rig) -> Vec<(u64, Vec<Piece>)> {
    let of = |action| match action {
        Action::AnswerRead { id, pieces, .. } => Some((id, pieces)),
        _ => None,
    };
    let mut answers: Vec<_> = rig.said().into_iter().filter_map(of).collect();
    answers.sort_by_key(|&(id, _)| id);
    answers
}

fn disk_read(rig: &mut Rig) {
    let token =
        rig.pending.iter().find_map(|a| if let Action::ReadDisk { token, .. } = a { Some(*token) } else { None });
    rig.end(is_read, Event::DiskRead { token: token.expect("one is under way"), result: Ok(()) });
}

/// Each block from where its newest bytes are: the disk, or its own place in the ring.
#[test]
fn a_read_is_put_together_from_disk_and_ring() {
    let mut rig = Rig::attached();
    rig.hold(is_flush);
    rig.write_at(1, 1, 4..9, 1);
    read(&mut rig, 1, 3, 4);
    read(&mut rig, 2, 6, 2);
    assert_eq!(answers(&mut rig), [], "alone, what is in RAM does not count yet");
    rig.end_batch(Ok(()));
    let staged = |place: u64| PieceSource::Staged { seq: Seq(1), data_pos: place * u64::from(BLOCK) };
    let disk = Piece { lba: Lba(3), blocks: 1, source: PieceSource::Disk };
    let first = Piece { lba: Lba(4), blocks: 3, source: staged(1) };
    let second = Piece { lba: Lba(6), blocks: 2, source: staged(3) };
    assert_eq!(answers(&mut rig), [(1, vec![disk, first]), (2, vec![second])]);
}

/// What the disk showed may be of a batch that was under way, and is shown only when that is durable. A batch beside the
/// read's blocks is waited for by nobody.
#[test]
fn a_read_from_the_disk_waits_for_the_batch_that_it_may_have_seen() {
    for (lba, waits) in [(4, true), (5, true), (3, false), (6, false)] {
        let mut rig = Rig::attached();
        rig.hold(|action| is_flush(action) || is_read(action));
        read(&mut rig, 1, 4, 2);
        rig.write(1, 1, lba);
        disk_read(&mut rig);
        assert_eq!(answers(&mut rig).is_empty(), waits, "a write of block {lba} is under way, 4 and 5 are read");
        rig.end_batch(Ok(()));
        assert_eq!(answers(&mut rig).is_empty(), !waits);
    }
}

/// It can't have seen what no batch has written, and does not wait for that: under steady overwriting it would wait for ever.
#[test]
fn a_read_from_the_disk_does_not_wait_for_what_came_after_the_batch() {
    let mut rig = Rig::attached();
    rig.hold(|action| is_flush(action) || is_read(action));
    read(&mut rig, 1, 4, 1);
    rig.write(1, 1, 4);
    rig.write(1, 2, 4);
    disk_read(&mut rig);
    assert_eq!(answers(&mut rig), [], "the first may have been seen");
    rig.end_batch(Ok(()));
    assert_eq!(rig.status().flushed, Seq(1));
    assert_eq!(answers(&mut rig).len(), 1, "the second is under way only now");
}

/// A mirror takes no reads: one that it kept would show, when it serves, what was the newest long before.
#[test]
fn a_mirror_keeps_no_read_for_later() {
    let mut rig = Rig::secondary();
    rig.hold(|action| matches!(action, Action::Fence));
    rig.event(Event::ClientUp { conn: ConnId(1) });
    rig.client(1, ClientMsg::Resume { generation: Generation(1), first: Seq(1) });
    read(&mut rig, 1, 0, 1);
    rig.peer(1, 1, PeerBody::TakeOver);
    assert_eq!(rig.status().role, Role::TakingOver);
    read(&mut rig, 2, 0, 1);
    rig.let_go();
    assert_eq!(rig.status().role, Role::Primary);
    assert_eq!(answers(&mut rig), []);
    read(&mut rig, 3, 0, 1);
    assert_eq!(answers(&mut rig).len(), 1, "of its own epoch");
}
