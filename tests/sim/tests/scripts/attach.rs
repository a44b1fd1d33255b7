//! Rule 10: a new session, over one that lives or not, and in the middle of everything else.

use crate::common::*;
use twinsan_replica::{Event, RelayPhase, Weakness as Replica};

const BOTH: [FenceKind; 2] = [FenceKind::Pr, FenceKind::Lock];

/// Many writes in flight at once, over few blocks.
fn burst(w: &mut World, client: usize) {
    for lba in 0..6 {
        let _ = w.write(client, BlobKind::Write, lba % 3, 2);
    }
}

/// Writes that fill the lane several times over, each completed.
fn wraps(w: &mut World, client: usize) -> Result<(), NotReached> {
    for lba in 0..40 {
        let mut last = None;
        for _ in 0..500 {
            last = w.write(client, BlobKind::Write, lba % 7, 2);
            if last.is_some() {
                break;
            }
            w.run_for(2);
        }
        let last = last.ok_or(NotReached("lane space comes back"))?;
        reach(w, "it completes", |w| w.completed(client) >= last)?;
    }
    Ok(())
}

/// The volume is the new client's: it works, and the old one has been told.
fn is_taken(w: &mut World, old: usize, new: usize) -> Result<(), NotReached> {
    reach(w, "the new client attaches", |w| w.client_is_open(new))?;
    reach(w, "the old one is told", |w| w.is_superseded(old))?;
    wraps(w, new)
}

/// Without the order, a second client waits as long as the first one lives; with it, the first one ends.
#[test]
fn a_live_session_is_taken_over_only_by_order() {
    for fence in BOTH {
        passes(fence, |w| {
            let old = dual(w)?;
            burst(w, old);
            let waits = w.start_client();
            w.run_for(3_000);
            if w.client_is_open(waits) || !w.client_is_open(old) {
                w.broken("a session that lives is not replaced without an order");
            }
            w.crash_client(waits);
            burst(w, old);
            let new = w.start_client_over();
            is_taken(w, old, new)
        });
    }
}

#[test]
fn a_live_session_at_a_lone_primary_is_taken_over() {
    for fence in BOTH {
        passes(fence, |w| {
            let old = solo(w)?;
            burst(w, old);
            let new = w.start_client_over();
            is_taken(w, old, new)
        });
    }
}

/// What the old session has on its way to either node lands no more: its connections are destroyed first.
#[test]
fn the_old_clients_late_writes() {
    for node in [A, B] {
        let late: Script = if node == A { |w| late_writes(w, A) } else { |w| late_writes(w, B) };
        scenario(FenceKind::Pr, replica(Replica::KeepOldSession), late);
    }
}

fn late_writes(w: &mut World, node: NodeId) -> Result<(), NotReached> {
    let old = dual(w)?;
    let late = w.hold_messages(move |from, to, item| {
        from == Host::Client(old) && to == Host::Node(node) && matches!(item, Item::Blob(_))
    });
    burst(w, old);
    w.run_for(2);
    w.freeze(Host::Client(old));
    let new = w.start_client_over();
    reach(w, "the new client attaches", |w| w.client_is_open(new))?;
    let disk = w.hold_disk(|_, access| matches!(access, DiskAccess::Block { .. }));
    burst(w, new);
    w.run_for(20);
    w.release(late);
    w.run_for(5);
    if node == B {
        w.crash_and_lose_writes(A); // What counts is then what B holds.
    }
    w.release(disk);
    w.run_for(20);
    w.thaw(Host::Client(old));
    reach(w, "the old one is told", |w| w.is_superseded(old)) // And nothing is written over what landed.
}

/// The old client stands still while it is replaced, and goes on with its requests when it thaws.
#[test]
fn the_old_client_thaws_later() {
    for fence in BOTH {
        passes(fence, |w| {
            let old = dual(w)?;
            burst(w, old);
            w.freeze(Host::Client(old));
            let new = w.start_client_over();
            reach(w, "the new client attaches", |w| w.client_is_open(new))?;
            burst(w, new);
            w.run_for(300);
            w.thaw(Host::Client(old));
            is_taken(w, old, new)
        });
    }
}

/// The old client is cut off from one node or both while it is replaced, and comes back.
#[test]
fn the_old_client_comes_back_by_another_connection() {
    for fence in BOTH {
        passes(fence, |w| {
            let old = dual(w)?;
            burst(w, old);
            for node in [NODE_A, NODE_B] {
                w.cut(Host::Client(old), node);
            }
            let new = w.start_client_over();
            reach(w, "the new client attaches", |w| w.client_is_open(new))?;
            burst(w, new);
            for node in [NODE_B, NODE_A] {
                w.mend(Host::Client(old), node);
                w.run_for(100);
            }
            is_taken(w, old, new)
        });
    }
}

/// Two orders: the one that attaches last has it, and the other one does not take it back.
#[test]
fn two_that_take_over() {
    for fence in BOTH {
        passes(fence, |w| {
            let old = dual(w)?;
            let news = [w.start_client_over(), w.start_client_over()];
            let open = |w: &World| news.iter().filter(|&&new| w.client_is_open(new)).count();
            reach(w, "one of them attaches", |w| open(w) == 1)?;
            reach(w, "the old one is told", |w| w.is_superseded(old))?;
            w.run_for(3_000);
            if open(w) != 1 || news.iter().any(|&new| w.is_superseded(new)) {
                w.broken("an order is meant for the session that was there when it was given");
            }
            Ok(())
        });
    }
}

/// The primary dies at some moment of it: the old session goes on, or the new one's order is carried out at the other
/// node; nobody is told that the session has ended before it has.
#[test]
fn the_primary_dies_in_the_middle_of_an_attach() {
    for fence in BOTH {
        for steps in 0..40 {
            let mut w = World::new(SimConfig::scripted(fence));
            let reached = dies_after(&mut w, steps);
            w.finish();
            assert!(reached.is_ok() && w.violation().is_none(), "{steps}: {reached:?} {:?}", w.violation());
        }
    }
}

fn dies_after(w: &mut World, steps: u64) -> Result<(), NotReached> {
    let old = dual(w)?;
    burst(w, old);
    let new = w.start_client_over();
    for _ in 0..steps * 8 {
        w.step();
    }
    w.crash_node(A);
    reach(w, "B serves", |w| serves(w, B))?;
    is_taken(w, old, new)
}

/// The secondary dies, freezes or is cut off while the primary waits for its word that the old lane is gone: rule 7.
#[test]
fn the_secondary_is_lost_in_the_middle_of_an_attach() {
    for fence in BOTH {
        for lose in
            [|w: &mut World| w.crash_node(B), |w: &mut World| w.freeze(NODE_B), |w: &mut World| w.cut(NODE_A, NODE_B)]
        {
            let mut w = World::new(SimConfig::scripted(fence));
            let reached = loses_the_secondary(&mut w, lose);
            w.release_all();
            w.finish();
            assert!(reached.is_ok() && w.violation().is_none(), "{reached:?} {:?}", w.violation());
        }
    }
}

fn loses_the_secondary(w: &mut World, lose: fn(&mut World)) -> Result<(), NotReached> {
    let old = dual(w)?;
    burst(w, old);
    w.hold_messages(|_, to, item| {
        to == NODE_A && matches!(item, Item::Peer(m) if matches!(m.body, PeerBody::LaneDropped { .. }))
    });
    let new = w.start_client_over();
    w.run_for(20);
    lose(w);
    is_taken(w, old, new)
}

/// Rule 10 throws a join away: the joiner's lane is the old session's.
#[test]
fn an_attach_during_a_join() {
    for fence in BOTH {
        passes(fence, |w| {
            let old = solo(w)?;
            burst(w, old);
            hold_blobs(w, B, Seq(3));
            w.start_node(B);
            reach(w, "B joins", |w| w.role(B) == Some(Role::Joining))?;
            burst(w, old);
            let new = w.start_client_over();
            is_taken(w, old, new)?;
            w.release_all();
            reach(w, "both are members", World::is_dual)?;
            Ok(())
        });
    }
}

/// The client is relayed for, or lost the primary, as the new one attaches over it.
#[test]
fn an_attach_over_a_client_that_is_relayed_for() {
    for fence in BOTH {
        passes(fence, |w| {
            let old = dual(w)?;
            complete(w, old, 0)?;
            w.cut(Host::Client(old), NODE_B);
            write(w, old, 1)?;
            reach(w, "A feeds B", |w| w.relay(A) == Some(RelayPhase::Feeding))?;
            burst(w, old);
            let new = w.start_client_over();
            is_taken(w, old, new)?;
            if w.counts().drops > 0 || !w.is_dual() {
                w.broken("both nodes are well: they stay members");
            }
            Ok(())
        });
    }
}

/// The volume moves as the new client attaches: before, behind and between.
#[test]
fn an_attach_during_a_handover() {
    for fence in BOTH {
        for steps in 0..30 {
            let mut w = World::new(SimConfig::scripted(fence));
            let reached = moves_meanwhile(&mut w, steps);
            w.finish();
            assert!(reached.is_ok() && w.violation().is_none(), "{steps}: {reached:?} {:?}", w.violation());
        }
    }
}

fn moves_meanwhile(w: &mut World, steps: u64) -> Result<(), NotReached> {
    let old = dual(w)?;
    burst(w, old);
    w.order(A, Event::Switchover);
    for _ in 0..steps * 4 {
        w.step();
    }
    let new = w.start_client_over();
    is_taken(w, old, new)
}

/// The primary freezes as the new client comes; the node that takes over replaces the session.
#[test]
fn an_attach_during_a_takeover() {
    for fence in BOTH {
        passes(fence, |w| {
            let old = dual(w)?;
            burst(w, old);
            w.freeze(NODE_A);
            let new = w.start_client_over();
            reach(w, "B serves", |w| serves(w, B))?;
            is_taken(w, old, new)?;
            w.thaw(NODE_A);
            w.run_for(500);
            complete(w, new, 0)?;
            Ok(())
        });
    }
}
