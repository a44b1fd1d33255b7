//! Rule 13 as the client sees it: a new epoch with the same members and the other primary. Nothing is lost, nothing
//! completes twice, and what was open goes on.

use super::*;

/// A hands over to B.
const HANDED: Epoch = Epoch(DUAL.0 + 1);

fn b_serves() -> Say {
    Say::primary_b(HANDED, [A1, B1])
}

fn completed(actions: &[Action]) -> Vec<u64> {
    let upto = actions.iter().filter_map(|action| match action {
        Action::WritesCompleted { upto } => Some(upto.0),
        _ => None,
    });
    upto.collect()
}

fn read_again(id: u64, epoch: Epoch, slot: u32) -> ClientMsg {
    ClientMsg::Read { id, epoch, after: Seq(2), lba: Lba(0), blocks: 1, slot }
}

#[test]
fn what_was_open_goes_on_at_the_new_primary() {
    let (mut rig, a, b) = Rig::open_dual(config());
    rig.write(0);
    rig.write(1);
    let (first, _) = rig.read(3);
    let (second, _) = rig.read(4);
    assert_eq!(completed(&rig.mailbox(a, A1, DUAL, Some(1), 0)), [1]);
    let moved = rig.say(b, b_serves());
    assert_eq!(closes(&moved), [a], "nothing of the old primary's lands in a buffer any more");
    assert_eq!(sends(&moved), [(b, read_again(first, HANDED, 3)), (b, read_again(second, HANDED, 4))]);
    // The new one begins lower than the old one ended: what has completed stays so, and does not complete again.
    assert_eq!(completed(&rig.mailbox(b, B1, HANDED, Some(0), 0)), [0; 0]);
    let (again, asked) = rig.connect(A, A1);
    assert_eq!(sends(&asked), [(again, resume(2))]);
    assert_eq!(posts(&rig.resumed(again, A1, 1)), [(again, 2)], "what the handover cut off on its way to the old one");
    assert_eq!(completed(&rig.mailbox(b, B1, HANDED, Some(2), 0)), [2]);
    let answered = rig.read_done(b, first, HANDED, 2);
    assert_eq!(answered, [Action::ReadCompleted { id: first, slot: 3 }]);
    assert_eq!(posts(&rig.write(2)), [(again, 3), (b, 3)]);
}

#[test]
fn the_old_primary_says_it_first() {
    let (mut rig, a, b) = Rig::open_dual(config());
    rig.write(0);
    let (id, _) = rig.read(3);
    // It has written the superblock and mirrors; who serves is the new one's to say.
    let hint = rig.say(a, b_serves().hint(Role::Secondary, A1));
    assert_eq!(sends(&hint), []);
    assert_eq!(closes(&hint), []);
    rig.wait(100);
    assert_eq!(rig.session.status().epoch, DUAL);
    let moved = rig.say(b, b_serves());
    assert_eq!(closes(&moved), [a]);
    let again = ClientMsg::Read { id, epoch: HANDED, after: Seq(1), lba: Lba(0), blocks: 1, slot: 3 };
    assert_eq!(sends(&moved), [(b, again)], "once");
}

#[test]
fn nothing_of_the_old_epoch_counts_any_more() {
    let (mut rig, _, b) = Rig::open_dual(config());
    rig.write(0);
    rig.write(1);
    let (id, _) = rig.read(3);
    rig.say(b, b_serves());
    let (again, _) = rig.connect(A, A1);
    rig.resumed(again, A1, 2);
    assert_eq!(rig.mailbox(again, A1, DUAL, Some(2), 0), [], "a completion of the epoch before");
    assert_eq!(rig.read_done(again, id, DUAL, 2), [], "an answer of the epoch before");
    assert_eq!(rig.mailbox(again, A1, HANDED, None, 0), [], "the secondary completes nothing");
    assert_eq!(completed(&rig.mailbox(b, B1, HANDED, Some(2), 0)), [2]);
}

#[test]
fn to_and_fro() {
    let (mut rig, mut a, mut b) = Rig::open_dual(config());
    let mut epoch = DUAL;
    for round in 0..6u64 {
        epoch = epoch.next();
        rig.write(round % 4);
        let seq = round + 1;
        let (id, _) = rig.read(3);
        let to_b = round % 2 == 0;
        let (new, old) = if to_b { (b, a) } else { (a, b) };
        let view = if to_b { Say::primary_b(epoch, [A1, B1]) } else { Say::primary_a(epoch, [A1, B1]) };
        let moved = rig.say(new, view);
        assert_eq!(closes(&moved), [old]);
        assert_eq!(sends(&moved).len(), 1, "the read, once");
        let (node, incarnation, from) = if to_b { (A, A1, B1) } else { (B, B1, A1) };
        let (again, asked) = rig.connect(node, incarnation);
        assert_eq!(sends(&asked), [(again, resume(seq))]);
        rig.resumed(again, incarnation, seq);
        assert_eq!(completed(&rig.mailbox(new, from, epoch, Some(seq), 0)), [seq]);
        assert_eq!(rig.read_done(new, id, epoch, seq), [Action::ReadCompleted { id, slot: 3 }]);
        if to_b {
            a = again;
        } else {
            b = again;
        }
        rig.mailbox(a, A1, epoch, None, seq);
        rig.mailbox(b, B1, epoch, None, seq);
    }
    assert_eq!([rig.phase(A), rig.phase(B)], [LinkPhase::Feeding; 2]);
}
