//! The protocol's † rules that section 8 has no story for: the rule as it stands survives, the old wording does not.

mod common;

use common::*;
use twinsan_replica::Weakness as Replica;
use twinsan_session::Weakness as Session;

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
