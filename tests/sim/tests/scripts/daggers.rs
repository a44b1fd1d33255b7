//! The protocol's † rules that section 8 has no story for: the rule as it stands survives, the old wording does not.

use crate::common::*;
use twinsan_replica::Weakness as Replica;
use twinsan_replica::{Action, Event, LinkId, Replica as Machine, ReplicaConfig, SlotRead, Timing};
use twinsan_session::Weakness as Session;
use twinsan_staging::Geometry;
use twinsan_wire::{Epoch, Incarnation, Member, Members, PeerMsg, Superblock};

/// Rule 4 †: a superblock that was merely read is acted on only after fencing. Here it was written half-way; who acted
/// on it would drop the only copy, before the rotting of that slot takes it back.
#[test]
fn a_superblock_that_was_merely_read() {
    scenario(FenceKind::Pr, replica(Replica::ActUnfenced), |w| {
        let client = dual(w)?;
        complete(w, client, 0)?;
        w.freeze(NODE_A);
        w.hold_disk(|n, access| n == B && matches!(access, DiskAccess::Slot { turn: 1, .. }));
        reach(w, "B has written one slot", |w| settled_members(w) == 1)?;
        w.crash_and_lose_writes(B);
        w.cut(NODE_A, NODE_B);
        w.start_node(B);
        w.freeze(NODE_B);
        w.thaw(NODE_A);
        reach(w, "A finds itself fenced", |w| w.counts().fenced > 0)?;
        w.run_for(30);
        w.rot_newest_slot();
        w.run_for(100);
        w.thaw(NODE_B);
        w.mend_all();
        Ok(())
    });
}

/// Section 3 †: a torn mailbox is waited out till the next. Here 255 is written over by 256, and 511 is what a reader
/// without the checksum sees: an ACK of blobs that the secondary never had.
#[test]
fn a_mailbox_seen_while_it_is_written_over() {
    scenario(FenceKind::Pr, Weakness::Driver(DriverWeakness::BelieveTornMailboxes), |w| {
        let client = dual(w)?;
        while complete(w, client, 0)? < Seq(254) {
            w.run_for(5); // What was released gets back to the client.
        }
        w.run_for(5);
        hold_blobs(w, B, Seq(257));
        let acks = w.hold_messages(|from, to, item| (from, to) == (NODE_B, NODE_A) && matches!(item, Item::Mailbox(_)));
        write(w, client, 0)?;
        let last = write(w, client, 0)?;
        reach(w, "B has both", |w| w.received(B) == last)?;
        w.release(acks);
        reach(w, "they complete", |w| w.completed(client) >= last)?;
        write(w, client, 1)?;
        w.run_for(50);
        w.crash_node(A);
        reach(w, "B serves", |w| w.role(B) == Some(Role::Primary))
    });
}

/// Section 3 †: every message between nodes names the epoch and both incarnations, and what does not fit is ignored.
/// Here the primary's word that it has stopped, of an epoch that has gone by: who believed it would fence one that
/// serves. Straight at the machine, as connections keep order and the simulator's network has no such stragglers.
#[test]
fn a_word_of_another_epoch() {
    let (epoch, straggler) = (Epoch(6), Epoch(5));
    assert!(!fences(None, straggler), "a word of an older epoch is believed");
    assert!(fences(Some(Replica::BelieveEveryEpoch), straggler), "the wrong wording shows");
    assert!(fences(None, epoch), "a word of this epoch counts");
}

/// Whether a secondary in epoch 6 fences its primary when that one says `TakeOver` in `said`.
fn fences(weakness: Option<Replica>, said: Epoch) -> bool {
    let geometry = Geometry::new(8, 16 * 512, 512).expect("a small lane");
    let mut config = ReplicaConfig::new(B, geometry, 64, Timing::default(), 1 << 20);
    config.weakness = weakness;
    let (mut node, mut out) = (Machine::new(config, 7), Vec::new());
    node.start(0, &mut out);
    let (me, primary) = (node.status().incarnation, Incarnation::from_random(1));
    let solo = Members::solo(Member { node: A, incarnation: primary });
    let old = Superblock { counter: 5, epoch: Epoch(5), primary: Some(A), members: solo, ..Superblock::default() };
    let members = solo.with(Member { node: B, incarnation: me });
    let superblock = Superblock { counter: 6, epoch: Epoch(6), members, ..old };
    let link = LinkId(1);
    let says = |epoch, body| Event::Peer { link, msg: PeerMsg { epoch, from: primary, to: Some(me), body } };
    for event in [
        Event::SuperblockRead(Ok(SlotRead { superblock: old, settled: true, older: None })),
        Event::LinkUp { link, peer: primary },
        says(Epoch(5), PeerBody::Status { role: Role::Primary, beat: 1, paths: true }),
        Event::Admitted(Ok(())),
        says(Epoch(5), PeerBody::JoinAccept { generation: Generation(0), first: None }),
        says(Epoch(6), PeerBody::Announce { superblock }),
    ] {
        node.handle(event, 1, &mut out);
    }
    assert_eq!(node.status().role, Role::Secondary);
    out.clear();
    node.handle(says(said, PeerBody::TakeOver), 2, &mut out);
    out.contains(&Action::Fence)
}

/// Rule 15 †: both heartbeats, or the fabric's and the client's word. The primary's network dies, its disk stays.
#[test]
fn the_clients_word() {
    scenario(FenceKind::Pr, replica(Replica::DeafToClients), |w| {
        let client = dual(w)?;
        w.cut(NODE_A, NODE_B);
        w.cut(Host::Client(client), NODE_A);
        let seq = write(w, client, 0)?;
        if !w.run_until(3_000, |w| w.completed(client) == seq) {
            w.broken("the volume is unavailable while a healthy node reaches the disk and the client");
        }
        Ok(())
    });
}

/// Rule 10 †: the primary writes the generation into the superblock; without it two sessions get one number.
#[test]
fn a_number_of_its_own_for_every_session() {
    scenario(FenceKind::Lock, replica(Replica::GenerationInRam), |w| {
        let first = solo(w)?;
        complete(w, first, 0)?;
        w.crash_client(first);
        w.crash_node(A);
        w.start_node(B);
        let second = w.start_client();
        reach(w, "the next client is in", |w| w.client_is_open(second))
    });
}

/// Section 3 †: one-sided writes of the old primary land in read buffers until its connection is destroyed.
#[test]
fn a_read_buffer_that_the_old_primary_still_writes() {
    scenario(FenceKind::Pr, Weakness::Session(Session::ReuseReadBufferBeforeClose), |w| {
        let client = dual(w)?;
        complete(w, client, 0)?;
        w.run_for(20);
        let answers = w.hold_messages(|from, _, item| from == NODE_A && !matches!(item, Item::Peer(_)));
        w.read(client, 0, 1).ok_or(NotReached("the read is taken"))?;
        w.run_for(5);
        w.freeze(NODE_A);
        reach(w, "B serves and answers", |w| w.role(B) == Some(Role::Primary) && w.client_is_idle(client))?;
        complete(w, client, 0)?;
        let word = w.hold_messages(|from, _, item| from == NODE_B && matches!(item, Item::Node(m) if is_read_done(m)));
        w.read(client, 1, 1).ok_or(NotReached("the buffer is used again"))?;
        w.run_for(5);
        w.release(answers);
        w.run_for(5);
        w.release(word);
        reach(w, "it is answered", |w| w.client_is_idle(client))?;
        w.thaw(NODE_A);
        Ok(())
    });
}

fn is_read_done(msg: &twinsan_wire::NodeMsg) -> bool {
    matches!(msg, twinsan_wire::NodeMsg::ReadDone { .. })
}
