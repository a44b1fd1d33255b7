//! A join whose joiner the client does not reach (rules 8 and 14): the primary feeds it from its own lane. The
//! counter-examples of section 8 about joins and relays, each with this feeder.

use crate::common::*;
use twinsan_replica::{RelayPhase, Weakness as Replica};
use twinsan_session::Weakness as Session;
use twinsan_wire::ClientMsg;

const BOTH: [FenceKind; 2] = [FenceKind::Pr, FenceKind::Lock];

/// A serves alone, its client has written, and does not reach B, which is about to start.
fn cut_from_b(w: &mut World) -> Result<usize, NotReached> {
    let client = solo(w)?;
    for lba in 0..5 {
        complete(w, client, lba)?;
    }
    w.cut(Host::Client(client), NODE_B);
    Ok(client)
}

/// Blobs of the relay to B from now on wait.
fn hold_relayed(w: &mut World) -> twinsan_sim::HoldId {
    w.hold_messages(|from, to, item| (from, to) == (NODE_A, NODE_B) && matches!(item, Item::Blob(_)))
}

/// Writes of several times the lane's length, each as there is room.
fn wraps(w: &mut World, client: usize) -> Result<(), NotReached> {
    for lba in 0..60 {
        let mut last = w.write(client, BlobKind::Write, lba % 13, 3);
        for _ in 0..500 {
            if last.is_some() {
                break;
            }
            w.run_for(2);
            last = w.write(client, BlobKind::Write, lba % 13, 3);
        }
        let last = last.ok_or(NotReached("lane space comes back"))?;
        reach(w, "it completes", |w| w.completed(client) >= last)?;
    }
    Ok(())
}

/// B joins while the client, which does not reach it, goes on writing; and is fed on as a member.
#[test]
fn a_joiner_that_the_client_does_not_reach() {
    for fence in BOTH {
        passes(fence, |w| {
            let client = cut_from_b(w)?;
            w.start_node(B);
            w.run_for(20);
            wraps(w, client)?;
            reach(w, "both are members", World::is_dual)?;
            reach(w, "A feeds B", |w| feeds(w, A))?;
            wraps(w, client)?;
            if w.counts().drops > 0 || w.counts().joins_thrown_away > 0 {
                w.broken("it joins at the first try, and stays");
            }
            // What completes is in B's RAM.
            w.run_for(300);
            hold_block(w, A, 5);
            let last = complete(w, client, 5)?;
            w.crash_and_lose_writes(A);
            w.mend(Host::Client(client), NODE_B);
            reach(w, "B serves", |w| serves(w, B))?;
            if w.on_disk(5).seq != last.0 {
                w.broken("B has drained what it was fed");
            }
            wraps(w, client)
        });
    }
}

/// An idle volume: nothing is written while B joins.
#[test]
fn a_join_by_relay_on_an_idle_volume() {
    for fence in BOTH {
        passes(fence, |w| {
            let client = cut_from_b(w)?;
            w.start_node(B);
            reach(w, "both are members", World::is_dual)?;
            wraps(w, client)
        });
    }
}

/// Join too early: P has flushed 1 and 2, J has ACKed 1 only.
#[test]
fn join_too_early_by_relay() {
    scenario(FenceKind::Pr, replica(Replica::JoinTooEarly), |w| {
        let client = cut_from_b(w)?;
        let held = hold_block(w, A, 0);
        let joins = w.hold_disk(|node, access| node == A && matches!(access, DiskAccess::Slot { .. }));
        w.start_node(B);
        reach(w, "A feeds B", |w| feeds(w, A))?;
        let first = write(w, client, 0)?;
        reach(w, "B has the first one", |w| w.received(B) == first)?;
        hold_relayed(w);
        write(w, client, 0)?;
        w.hold_messages(|from, to, item| (from, to) == (NODE_A, NODE_B) && matches!(item, Item::Mailbox(_)));
        w.run_for(2);
        w.release(held);
        w.run_for(50); // Whoever completes the second one now, forgets that B lacks it.
        w.release(joins);
        reach(w, "both are members", |w| settled_members(w) == 2)?;
        w.cut(NODE_A, NODE_B); // What is on its way is lost.
        w.run_for(10);
        w.crash_client(client); // It would send the second one again.
        w.crash_node(A);
        reach(w, "B, a member, serves", |w| serves(w, B))
    });
}

/// Resumed too low: A's relay to J is on its way when J, which A has forgotten, takes over by rule 6.
#[test]
fn resumed_too_low_by_relay() {
    passes(FenceKind::Pr, |w| {
        let client = cut_from_b(w)?;
        let late = w.hold_messages(|from, to, item| {
            (from, to) == (NODE_A, NODE_B) && matches!(item, Item::Client(ClientMsg::Resume { .. }))
        });
        w.start_node(B);
        reach(w, "the relay is on its way", |w| w.relay(A) == Some(RelayPhase::Connecting))?;
        w.run_for(30);
        write(w, client, 0)?;
        w.run_for(5);
        w.crash_node(A);
        w.mend(Host::Client(client), NODE_B);
        reach(w, "B serves", |w| serves(w, B))?;
        w.release(late);
        complete(w, client, 0)?;
        Ok(())
    });
}

/// Late relay: the client is back and feeds J itself, while blobs of the relay are still on their way there.
#[test]
fn the_relays_last_blobs_to_a_joiner_are_late() {
    scenario(FenceKind::Pr, replica(Replica::KeepEarlierFeeder), |w| {
        let client = cut_from_b(w)?;
        let late = hold_relayed(w);
        w.start_node(B);
        reach(w, "A feeds B", |w| feeds(w, A))?;
        for _ in 0..3 {
            let _ = w.write(client, BlobKind::Write, 1, 1);
        }
        w.run_for(2);
        w.mend(Host::Client(client), NODE_B);
        reach(w, "both are members", World::is_dual)?;
        wraps(w, client)?; // Over the places of what is late.
        w.run_for(300);
        w.hold_disk(|node, access| node == A && matches!(access, DiskAccess::Block { .. }));
        for lba in 0..4 {
            complete(w, client, lba)?;
        }
        w.release(late);
        w.run_for(20);
        w.crash_and_lose_writes(A);
        reach(w, "B serves", |w| serves(w, B))
    });
}

/// Released by guess: J is slow to hear that it may release. The client, who does not know J, writes over nothing that J
/// still holds.
#[test]
fn what_a_joiner_fed_by_relay_has_not_released() {
    scenario(FenceKind::Pr, replica(Replica::ReleasedByGuess), |w| {
        let client = cut_from_b(w)?;
        // B becomes no member before the lane has been round.
        let joins = w.hold_disk(|node, access| node == A && matches!(access, DiskAccess::Slot { .. }));
        w.start_node(B);
        reach(w, "A feeds B", |w| feeds(w, A))?;
        w.hold_messages(|from, to, item| {
            (from, to) == (NODE_A, NODE_B) && matches!(item, Item::Mailbox(Mailbox::Released { .. }))
        });
        for lba in 0..60 {
            let _ = w.write(client, BlobKind::Write, lba % 13, 3);
            w.run_for(1);
        }
        w.release(joins);
        w.run_for(3);
        w.crash_node(A);
        w.mend(Host::Client(client), NODE_B);
        reach(w, "somebody serves", |w| serves(w, B))
    });
}

/// The client is back at J in the middle of the join. J's lane has begun below what the client has completed, and J holds
/// what it has not heard to be released; the client asks it for the first time, and must not take that for free.
#[test]
fn a_joiner_that_was_fed_by_relay_is_asked_for_the_first_time() {
    scenario(FenceKind::Pr, Weakness::Session(Session::TrustFirstAsk), |w| {
        let client = cut_from_b(w)?;
        let joins = w.hold_disk(|node, access| node == A && matches!(access, DiskAccess::Slot { .. }));
        w.start_node(B);
        reach(w, "A feeds B", |w| feeds(w, A))?;
        w.run_for(5);
        w.hold_messages(|from, to, item| {
            (from, to) == (NODE_A, NODE_B) && matches!(item, Item::Mailbox(Mailbox::Released { .. }))
        });
        for lba in 0..4 {
            complete(w, client, lba)?;
        }
        let before = w.resumes(client);
        w.mend(Host::Client(client), NODE_B);
        reach(w, "the client feeds B", |w| w.resumes(client) > before)?;
        w.release(joins);
        reach(w, "both are members", |w| settled_members(w) == 2)?;
        for lba in 0..60 {
            let _ = w.write(client, BlobKind::Write, 5 + lba % 8, 4);
            w.run_for(1);
        }
        w.crash_and_lose_writes(A);
        reach(w, "B serves what it holds", |w| serves(w, B))
    });
}

/// An old primary's relay: what it holds is of the past, and J joins another one.
#[test]
fn a_joiner_is_fed_by_its_own_primary_only() {
    scenario(FenceKind::Pr, replica(Replica::BelieveAnyRelay), |w| {
        let client = frozen_as_it_relays(w)?;
        the_past_feeds_nobody(w, client);
        Ok(())
    });
}

/// The primary dies at any moment of it: before it has let J in, J has no part in it; after, J serves.
#[test]
fn the_primary_dies_during_a_join_by_relay() {
    for fence in BOTH {
        for steps in 0..60 {
            during_a_join(fence, steps, |w, client| {
                w.crash_and_lose_writes(A);
                w.mend(Host::Client(client), NODE_B);
                w.run_for(300);
                w.start_node(A);
            });
        }
    }
}

#[test]
fn the_joiner_dies_or_freezes_during_a_join_by_relay() {
    for fence in BOTH {
        for steps in 0..40 {
            during_a_join(fence, steps, |w, _| w.crash_node(B));
            during_a_join(fence, steps, |w, _| w.freeze(NODE_B));
        }
    }
}

#[test]
fn the_nodes_are_cut_apart_during_a_join_by_relay() {
    for fence in BOTH {
        for steps in 0..40 {
            during_a_join(fence, steps, |w, _| w.cut(NODE_A, NODE_B));
        }
    }
}

#[test]
fn the_client_comes_back_to_the_joiner_during_a_join_by_relay() {
    for fence in BOTH {
        for steps in 0..60 {
            during_a_join(fence, steps, |w, client| w.mend(Host::Client(client), NODE_B));
        }
    }
}

/// Rule 10 over it; and the end of the client, after which nobody is there to say what J lacks.
#[test]
fn the_client_is_replaced_or_ends_during_a_join_by_relay() {
    for fence in BOTH {
        for steps in 0..40 {
            during_a_join(fence, steps, |w, _| {
                let new = w.start_client_over();
                w.cut(Host::Client(new), NODE_B);
            });
            during_a_join(fence, steps, World::crash_client);
        }
    }
}

/// The client loses the primary too, or instead: it comes to J as soon as J may serve.
#[test]
fn the_client_loses_the_primary_during_a_join_by_relay() {
    for fence in BOTH {
        for steps in 0..40 {
            during_a_join(fence, steps, |w, client| {
                w.cut(Host::Client(client), NODE_A);
                w.mend(Host::Client(client), NODE_B);
                w.run_for(3_000);
                if !w.client_is_idle(client) {
                    w.broken("a healthy node reaches the disk and the client");
                }
            });
        }
    }
}

/// Brings a join by relay under load to some point of it, lets something happen, and then all be mended.
fn during_a_join(fence: FenceKind, steps: u64, what: fn(&mut World, usize)) {
    let mut w = World::new(SimConfig::scripted(fence));
    let reached = joins_under_load(&mut w, steps, what);
    w.release_all();
    w.finish();
    assert!(reached.is_ok() && w.violation().is_none(), "{steps}: {reached:?} {:?}", w.violation());
}

fn joins_under_load(w: &mut World, steps: u64, what: fn(&mut World, usize)) -> Result<(), NotReached> {
    let client = cut_from_b(w)?;
    w.start_node(B);
    reach(w, "A is to feed B", |w| w.relay(A).is_some_and(|relay| relay != RelayPhase::Off))?;
    for _ in 0..3 {
        let _ = w.write(client, BlobKind::Write, steps % 5, 2);
    }
    for step in 0..steps * 3 {
        w.step();
        if step % 7 == 0 {
            let _ = w.write(client, BlobKind::Write, step % 5, 1);
        }
    }
    what(w, client);
    Ok(())
}
