//! The protocol's † rules that section 8 has no story for: the rule as it stands survives, the old wording does not.

mod common;

use common::*;
use twinsan_replica::Weakness as Replica;

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
        w.crash_node(B);
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
