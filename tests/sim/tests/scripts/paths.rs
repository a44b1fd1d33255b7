//! Rule 11 by scripts: who does not reach the disk asks who does; where neither does, RAM goes on.

use crate::common::*;
use twinsan_replica::{Event, Weakness as Replica};
use twinsan_sim::Pathless;

const BOTH: [FenceKind; 2] = [FenceKind::Pr, FenceKind::Lock];
/// With `local-lock` a killed holder's queued write keeps the claim until a path is back: nobody can serve before.
const CASES: [(FenceKind, Pathless); 3] =
    [(FenceKind::Pr, Pathless::Fails), (FenceKind::Pr, Pathless::Queues), (FenceKind::Lock, Pathless::Fails)];

fn serves(w: &World, node: NodeId) -> bool {
    w.role(node) == Some(Role::Primary)
}

/// A world in which the script runs, and everything is mended after it.
fn run(fence: FenceKind, script: impl FnOnce(&mut World) -> Result<(), NotReached>) {
    let mut w = World::new(SimConfig::scripted(fence));
    if let Err(error) = script(&mut w) {
        panic!("{error:?} {:?}", w.violation());
    }
    w.release_all();
    w.finish();
    assert_eq!(w.violation(), None);
}

/// † All of the primary's paths are gone: the other one takes over at once, and not when some timeout has passed.
#[test]
fn a_primary_without_paths_asks() {
    scenario(FenceKind::Pr, replica(Replica::DeafToAsking), |w| {
        let client = dual(w)?;
        complete(w, client, 0)?;
        w.lose_paths(A, Pathless::Fails);
        let seq = write(w, client, 1)?;
        if !w.run_until(200, |w| serves(w, B)) {
            w.broken("a healthy node reaches the disk and the client, and the volume stays with the other");
        }
        reach(w, "all completes", |w| w.completed(client) == seq)
    });
}

/// The disk refuses the primary's writes for ever, with its own key in place: no fence has come, so it does not act as if
/// one had; it counts as one that does not reach the disk.
#[test]
fn a_primary_whose_writes_are_refused_asks() {
    run(FenceKind::Pr, |w| {
        let client = dual(w)?;
        complete(w, client, 0)?;
        w.refuse_writes(A, true);
        let seq = write(w, client, 1)?;
        reach(w, "B serves", |w| serves(w, B))?;
        reach(w, "it completes", |w| w.completed(client) == seq)?;
        w.refuse_writes(A, false);
        reach(w, "A has joined", World::is_dual)?;
        assert!(serves(w, B), "nothing moves back");
        assert_eq!(w.counts().takeovers_rule_5, 1);
        Ok(())
    });
}

/// The same for every fence, and whether I/O fails or is queued; the path's return moves nothing back.
#[test]
fn the_volume_moves_once() {
    for (fence, how) in CASES {
        run(fence, |w| {
            let client = dual(w)?;
            complete(w, client, 0)?;
            w.lose_paths(A, how);
            write(w, client, 1)?;
            reach(w, "B serves", |w| serves(w, B))?;
            complete(w, client, 2)?;
            w.run_for(500);
            assert_eq!(w.counts().takeovers_rule_5, 1, "nobody takes over who can't");
            w.paths_return(A);
            w.start_node(A);
            reach(w, "A has joined", World::is_dual)?;
            w.run_for(1_000);
            assert!(serves(w, B), "nothing moves back");
            assert_eq!(w.counts().takeovers_rule_5, 1);
            Ok(())
        });
    }
}

/// Alone, with the other one outside: that one goes by rule 6 at once.
#[test]
fn a_lone_primary_without_paths_asks_who_is_outside() {
    for (fence, how) in CASES {
        run(fence, |w| {
            let client = solo(w)?;
            complete(w, client, 0)?;
            // The other one never gets in: its joins make no progress.
            w.hold_messages(|from, to, item| (from, to) == (NODE_B, NODE_A) && matches!(item, Item::Mailbox(_)));
            w.start_node(B);
            reach(w, "B joins", |w| w.role(B) == Some(Role::Joining))?;
            let taken = w.counts().takeovers_rule_6;
            w.lose_paths(A, how);
            let seq = write(w, client, 1)?;
            reach(w, "B serves", |w| serves(w, B))?;
            w.release_all();
            reach(w, "it completes", |w| w.completed(client) == seq)?;
            let counts = w.counts();
            assert_eq!(counts.takeovers_rule_6 + counts.takeovers_rule_5, taken + 1);
            Ok(())
        });
    }
}

/// The one that was asked has fenced, and loses its own paths before it serves; those of the one that asked are back.
#[test]
fn paths_change_sides_during_a_takeover() {
    run(FenceKind::Pr, |w| {
        let client = dual(w)?;
        complete(w, client, 0)?;
        w.hold_disk(|n, access| {
            n == B && matches!(access, DiskAccess::Slot { superblock: s, .. } if s.primary == Some(B))
        });
        w.lose_paths(A, Pathless::Fails);
        let seq = write(w, client, 1)?;
        reach(w, "B takes over", |w| w.role(B) == Some(Role::TakingOver))?;
        w.run_for(300);
        w.lose_paths(B, Pathless::Fails);
        w.paths_return(A);
        w.release_all();
        w.run_for(5_000);
        if !serves(w, A) {
            w.broken("a healthy node reaches the disk and the client, and waits for one that does not");
        }
        reach(w, "all completes", |w| w.completed(client) == seq)
    });
}

/// A serves alone, without paths; a write that lets B in is queued behind them, and B is dead. Returns the client.
fn with_a_join_queued(w: &mut World) -> Result<usize, NotReached> {
    let client = solo(w)?;
    complete(w, client, 0)?;
    let joining = w.hold_disk(|n, access| {
        n == A && matches!(access, DiskAccess::Slot { superblock: s, .. } if s.members.is_dual())
    });
    w.start_node(B);
    reach(w, "B joins", |w| w.role(B) == Some(Role::Joining))?;
    w.run_for(50);
    w.lose_paths(A, Pathless::Queues);
    w.release(joining);
    w.crash_node(B);
    Ok(client)
}

/// † Alone and without paths, with a write queued that lets a joiner in, which dies: the next incarnation, asked, would
/// kill the one member that is left, and could not go on where the slot that says what was before rots.
#[test]
fn asked_the_wrong_one() {
    scenario(FenceKind::Lock, replica(Replica::AskAnybody), |w| {
        let client = with_a_join_queued(w)?;
        w.run_for(60);
        w.start_node(B);
        w.run_for(300);
        w.paths_return(A);
        // B may be asked before the watcher sees the path.
        reach(w, "what was queued lands", |w| w.superblock().is_some_and(|s| s.members.is_dual()))?;
        w.rot_older_slot();
        w.run_for(100);
        w.start_node(A);
        complete(w, client, 1).map(drop)
    });
}

/// Alone and without paths, with a write queued that lets a joiner in, which dies. Its next incarnation takes over, and kills
/// the one member that is left; half of what was queued lands: nobody has acted on that, so what stood there before counts.
#[test]
fn a_join_that_was_written_half_way_is_none() {
    passes(FenceKind::Lock, |w| {
        let client = with_a_join_queued(w)?;
        w.freeze(NODE_A);
        w.start_node(B);
        w.run_for(1_000);
        w.paths_return(A);
        reach(w, "B serves", |w| serves(w, B))?;
        complete(w, client, 1).map(drop)
    });
}

/// Neither reaches the disk: writes complete from RAM until the lanes are full, reads of staged blocks are answered,
/// then everything waits; nothing is dropped and nothing fails.
#[test]
fn without_any_path_writes_complete_until_the_lanes_are_full() {
    for (fence, how) in CASES {
        run(fence, |w| {
            let client = dual(w)?;
            complete(w, client, 0)?;
            w.run_for(50);
            let epochs = w.counts().epochs;
            w.lose_paths(A, how);
            w.lose_paths(B, how);
            w.run_for(60);
            let mut last = complete(w, client, 0)?;
            w.read(client, 0, 1).ok_or(NotReached("the read is taken"))?;
            reach(w, "what is staged is read", |w| w.client_is_idle(client))?;
            while let Some(seq) = w.write(client, BlobKind::Write, last.0 % 8, 1) {
                last = seq;
                w.run_for(5);
            }
            reach(w, "all that fitted has completed", |w| w.completed(client) == last)?;
            assert!(last.0 > 12, "a lane of 16 slots is full: {last}");
            w.run_for(2_000);
            assert!(serves(w, A) && w.write(client, BlobKind::Write, 0, 1).is_none(), "it waits");
            let counts = w.counts();
            // B may have been asked before it knew of its own paths; its fence has failed.
            assert_eq!((counts.epochs, counts.drops, counts.fence_kills), (epochs, 0, 0), "nobody can do better");
            w.paths_return(A);
            w.run_for(100);
            complete(w, client, 1).map(drop)
        });
    }
}

/// Neither reaches the disk, and the other one's path is back first: then it serves.
#[test]
fn the_first_to_have_a_path_again_serves() {
    for (fence, how) in CASES {
        run(fence, |w| {
            let client = dual(w)?;
            w.lose_paths(A, how);
            w.lose_paths(B, how);
            w.run_for(60);
            complete(w, client, 0)?;
            w.paths_return(B);
            reach(w, "B serves", |w| serves(w, B))?;
            complete(w, client, 1).map(drop)
        });
    }
}

/// A secondary without paths stays a member, and is not handed to; a primary that is to end goes on alone first.
#[test]
fn a_secondary_without_paths_is_a_member_and_no_more() {
    for fence in BOTH {
        run(fence, |w| {
            let client = dual(w)?;
            w.lose_paths(B, Pathless::Fails);
            w.run_for(60);
            complete(w, client, 0)?;
            assert!(w.is_dual());
            w.order(A, Event::Switchover);
            w.run_for(100);
            assert_eq!(w.counts().handovers, 0);
            w.order(A, Event::Shutdown);
            reach(w, "A has ended", |w| w.role(A).is_none())?;
            assert!(w.superblock().is_some_and(|s| s.clean), "it drained, and is clean");
            w.paths_return(B);
            complete(w, client, 1).map(drop)
        });
    }
}

/// The primary loses its paths in the middle of a handover: what can't be written ends in rule 5.
#[test]
fn paths_lost_in_the_middle_of_a_handover() {
    for (fence, how) in CASES {
        for turn in [0, 1] {
            run(fence, |w| {
                let client = dual(w)?;
                complete(w, client, 0)?;
                let slot = w.hold_disk(move |n, access| {
                    n == A && matches!(access, DiskAccess::Slot { turn: t, superblock } if t == turn && superblock.primary == Some(B))
                });
                w.order(A, Event::Switchover);
                w.run_for(20);
                w.lose_paths(A, how);
                w.release(slot);
                if how == Pathless::Fails {
                    let seq = write(w, client, 1)?;
                    reach(w, "B serves", |w| serves(w, B))?;
                    reach(w, "it completes", |w| w.completed(client) == seq)?;
                }
                w.run_for(500);
                w.paths_return(A);
                complete(w, client, 2).map(drop)
            });
        }
    }
}

/// Whom the old primary names loses its paths before it can go on: it asks back.
#[test]
fn the_new_primary_has_no_path() {
    for fence in BOTH {
        run(fence, |w| {
            let client = dual(w)?;
            complete(w, client, 0)?;
            w.hold_messages(|from, to, item| {
                (from, to) == (NODE_A, NODE_B)
                    && matches!(item, Item::Peer(m) if matches!(m.body, PeerBody::HandOver { .. }))
            });
            w.order(A, Event::Switchover);
            reach(w, "A has handed over", |w| w.role(A) == Some(Role::Secondary))?;
            w.lose_paths(B, Pathless::Fails);
            w.run_for(60);
            w.release_all();
            let seq = write(w, client, 1)?;
            reach(w, "A serves again", |w| serves(w, A))?;
            reach(w, "it completes", |w| w.completed(client) == seq)
        });
    }
}
