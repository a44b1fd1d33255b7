//! The failure matrix (section 6), rows that no other file of scripts is about. `docs/protocol.md` names them.

use crate::common::*;
use twinsan_replica::Event;

const BOTH: [FenceKind; 2] = [FenceKind::Pr, FenceKind::Lock];

/// Writes until the lane has been round, each as there is room, and each completes.
fn goes_on(w: &mut World, client: usize) -> Result<(), NotReached> {
    for lba in 0..40 {
        let mut last = w.write(client, BlobKind::Write, lba % 11, 2);
        for _ in 0..1_000 {
            if last.is_some() {
                break;
            }
            w.run_for(2);
            last = w.write(client, BlobKind::Write, lba % 11, 2);
        }
        let last = last.ok_or(NotReached("lane space comes back"))?;
        reach(w, "it completes", |w| w.completed(client) >= last)?;
    }
    Ok(())
}

/// A few writes that have not completed.
fn burst(w: &mut World, client: usize) {
    for lba in 0..5 {
        let _ = w.write(client, BlobKind::Write, lba, 2);
    }
}

/// Dual, with writes in flight, then `fails`; the client's own requests all complete, by `server`.
fn row(fence: FenceKind, fails: impl Fn(&mut World, usize), server: NodeId) {
    let mut w = World::new(SimConfig::scripted(fence));
    let reached = (|| {
        let client = dual(&mut w)?;
        goes_on(&mut w, client)?;
        w.run_for(300);
        burst(&mut w, client);
        fails(&mut w, client);
        reach(&mut w, "it serves", |w| serves(w, server))?;
        goes_on(&mut w, client)
    })();
    w.release_all();
    w.finish();
    assert!(reached.is_ok() && w.violation().is_none(), "{reached:?} {:?}", w.violation());
}

#[test]
fn the_primarys_process_is_killed() {
    for fence in BOTH {
        row(fence, |w, _| w.crash_node(A), B);
    }
}

/// Nobody answers, nothing is refused, and its writes in flight never leave it.
#[test]
fn the_primarys_host_dies() {
    for fence in BOTH {
        row(
            fence,
            |w, client| {
                w.cut(NODE_A, NODE_B);
                w.cut(Host::Client(client), NODE_A);
                w.crash_and_lose_writes(A);
            },
            B,
        );
    }
}

#[test]
fn the_primary_freezes_and_thaws() {
    for fence in BOTH {
        row(fence, |w, _| w.freeze(NODE_A), B);
        passes(fence, |w| {
            let client = dual(w)?;
            burst(w, client);
            w.freeze(NODE_A);
            reach(w, "B serves", |w| serves(w, B))?;
            goes_on(w, client)?;
            w.thaw(NODE_A);
            goes_on(w, client)?;
            if !serves(w, B) {
                w.broken("who thaws takes nothing back");
            }
            Ok(())
        });
    }
}

#[test]
fn the_secondary_is_killed_frozen_or_cut_off() {
    for fence in BOTH {
        row(fence, |w, _| w.crash_node(B), A);
        row(fence, |w, _| w.freeze(NODE_B), A);
        row(
            fence,
            |w, client| {
                w.cut(NODE_A, NODE_B);
                w.cut(Host::Client(client), NODE_B);
            },
            A,
        );
    }
}

#[test]
fn the_link_between_the_nodes_breaks() {
    for fence in BOTH {
        row(fence, |w, _| w.cut(NODE_A, NODE_B), A);
    }
}

/// At many moments of each: the other one, or nobody but itself, goes on.
#[test]
fn the_primary_dies_in_the_middle_of_a_drop_or_a_join() {
    for fence in BOTH {
        for steps in 0..50 {
            let mut w = World::new(SimConfig::scripted(fence));
            let reached = dies_while_it_drops(&mut w, steps * 3);
            w.finish();
            assert!(reached.is_ok() && w.violation().is_none(), "{steps}: {reached:?} {:?}", w.violation());
            let mut w = World::new(SimConfig::scripted(fence));
            let reached = dies_while_one_joins(&mut w, steps * 3);
            w.finish();
            assert!(reached.is_ok() && w.violation().is_none(), "{steps}: {reached:?} {:?}", w.violation());
        }
    }
}

fn dies_while_it_drops(w: &mut World, steps: u64) -> Result<(), NotReached> {
    let client = dual(w)?;
    burst(w, client);
    w.cut(NODE_A, NODE_B);
    reach(w, "it drops B", |w| w.counts().drops > 0)?;
    for _ in 0..steps {
        w.step();
    }
    w.crash_node(A);
    reach(w, "B serves", |w| serves(w, B))?;
    goes_on(w, client)
}

fn dies_while_one_joins(w: &mut World, steps: u64) -> Result<(), NotReached> {
    let client = solo(w)?;
    burst(w, client);
    w.start_node(B);
    for _ in 0..steps {
        w.step();
    }
    burst(w, client);
    w.crash_node(A);
    w.run_for(50);
    w.start_node(A);
    let open = |w: &World| serves(w, A) || serves(w, B);
    reach(w, "somebody serves", open)?;
    goes_on(w, client)
}

#[test]
fn the_client_is_killed() {
    for fence in BOTH {
        passes(fence, |w| {
            let old = dual(w)?;
            goes_on(w, old)?;
            burst(w, old);
            w.crash_client(old);
            let new = w.start_client();
            reach(w, "the next one attaches", |w| w.client_is_open(new))?;
            for lba in 0..11 {
                w.read(new, lba, 1);
                w.run_for(5);
            }
            goes_on(w, new)
        });
    }
}

#[test]
fn the_client_is_cut_off_from_both() {
    for fence in BOTH {
        passes(fence, |w| {
            let client = dual(w)?;
            goes_on(w, client)?;
            burst(w, client);
            for node in [NODE_A, NODE_B] {
                w.cut(Host::Client(client), node);
            }
            burst(w, client);
            w.run_for(5_000);
            if w.client_is_idle(client) || !w.client_is_open(client) {
                w.broken("its requests wait");
            }
            for node in [NODE_A, NODE_B] {
                w.mend(Host::Client(client), node);
            }
            goes_on(w, client)
        });
    }
}

/// Rule 12: nobody serves until an operator says so.
#[test]
fn both_nodes_are_killed_while_dual() {
    for fence in BOTH {
        passes(fence, |w| {
            let client = dual(w)?;
            burst(w, client);
            w.allow_loss();
            w.crash_node(A);
            w.crash_node(B);
            w.start_node(A);
            w.start_node(B);
            w.run_for(5_000);
            if w.role(A) != Some(Role::Refusing) && w.role(B) != Some(Role::Refusing) {
                w.broken("they refuse");
            }
            w.order(A, Event::Recover);
            w.order(B, Event::Recover);
            reach(w, "somebody serves", |w| serves(w, A) || serves(w, B))
        });
    }
}

#[test]
fn both_nodes_are_stopped_in_order() {
    for fence in BOTH {
        passes(fence, |w| {
            let client = dual(w)?;
            goes_on(w, client)?;
            w.order(A, Event::Shutdown);
            w.order(B, Event::Shutdown);
            reach(w, "both have ended", |w| w.role(A).is_none() && w.role(B).is_none())?;
            if !w.superblock().is_some_and(|s| s.clean) {
                w.broken("the volume is clean");
            }
            w.start_node(B);
            reach(w, "B serves", |w| serves(w, B))?;
            goes_on(w, client)
        });
    }
}

/// It is started again, or the other one is: what completed was on the disk.
#[test]
fn the_lone_node_is_killed() {
    for fence in BOTH {
        for next in [A, B] {
            let mut w = World::new(SimConfig::scripted(fence));
            let reached = (|| {
                let client = solo(&mut w)?;
                goes_on(&mut w, client)?;
                burst(&mut w, client);
                w.crash_node(A);
                w.run_for(10);
                w.start_node(next);
                reach(&mut w, "it serves", |w| serves(w, next))?;
                goes_on(&mut w, client)
            })();
            w.finish();
            assert!(reached.is_ok() && w.violation().is_none(), "{next}: {reached:?} {:?}", w.violation());
        }
    }
}

/// What a driver does when a checksum is wrong: it destroys the connection, and the client sends again what was on it.
#[test]
fn a_connection_is_torn_down_and_resumed() {
    for node in [NODE_A, NODE_B] {
        let mut w = World::new(SimConfig::scripted(FenceKind::Pr));
        let reached = (|| {
            let client = dual(&mut w)?;
            burst(&mut w, client);
            w.cut(Host::Client(client), node);
            w.mend(Host::Client(client), node);
            goes_on(&mut w, client)
        })();
        w.finish();
        assert!(reached.is_ok() && w.violation().is_none(), "{reached:?} {:?}", w.violation());
    }
}

/// One slot: the other one serves, and is mended. Both: nobody serves what nobody can tell.
#[test]
fn superblock_slots_rot() {
    passes(FenceKind::Pr, |w| {
        let client = dual(w)?;
        burst(w, client);
        w.rot_newest_slot();
        w.crash_node(A);
        reach(w, "B serves", |w| serves(w, B))?;
        goes_on(w, client)
    });
    let mut w = World::new(SimConfig::scripted(FenceKind::Pr));
    w.rot_newest_slot();
    w.rot_newest_slot();
    w.start_node(A);
    w.start_node(B);
    w.run_for(5_000);
    assert!(w.superblock().is_none() && w.violation().is_none(), "{:?}", w.violation());
    assert!([A, B].iter().all(|&node| w.role(node) != Some(Role::Primary)), "nobody serves");
}
