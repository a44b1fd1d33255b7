//! Rule 13 by scripts: the primary moves and nobody is fenced; whatever breaks on the way ends in rule 5, or in nothing.

use crate::common::*;
use twinsan_replica::{Event, HandedOver, Weakness as Replica};
use twinsan_wire::PeerMsg;

const BOTH: [FenceKind; 2] = [FenceKind::Pr, FenceKind::Lock];

fn nobody_is_fenced(w: &mut World) {
    let counts = w.counts();
    if counts.takeovers_rule_5 + counts.fence_kills + counts.fenced + counts.drops > 0 {
        w.broken("a planned handover fences nobody and drops nobody");
    }
}

fn is_hand_over(from: Host, item: &Item) -> bool {
    from == NODE_A && matches!(item, Item::Peer(PeerMsg { body: PeerBody::HandOver { .. }, .. }))
}

/// The superblock write that names B, by its slots.
fn is_naming(access: &DiskAccess, turn: usize) -> bool {
    matches!(access, DiskAccess::Slot { turn: t, superblock } if *t == turn && superblock.primary == Some(B))
}

/// To and fro: everything goes on, both stay members, and what was open completes.
#[test]
fn to_and_fro_under_load() {
    for fence in BOTH {
        passes(fence, |w| {
            let client = dual(w)?;
            for round in 0..6 {
                let (from, to) = if round % 2 == 0 { (A, B) } else { (B, A) };
                let mut last = Seq::ZERO;
                for lba in 0..4 {
                    last = write(w, client, lba)?;
                }
                w.read(client, 0, 4).ok_or(NotReached("the read is taken"))?;
                w.order(from, Event::Switchover);
                last = write(w, client, 5)?.max(last);
                reach(w, "the other one serves", |w| serves(w, to))?;
                reach(w, "both are members", World::is_dual)?;
                reach(w, "all completes", |w| w.completed(client) == last && w.client_is_idle(client))?;
                reach(w, "the old one knows", |w| matches!(w.handed_over(from), Some(HandedOver::Done { .. })))?;
                w.run_for(20); // What was released gets back to the client.
            }
            nobody_is_fenced(w);
            Ok(())
        });
    }
}

/// SIGTERM at the primary: it hands over, is dropped, and ends; the other one serves alone.
#[test]
fn sigterm_hands_over_and_ends() {
    for fence in BOTH {
        passes(fence, |w| {
            let client = dual(w)?;
            write(w, client, 0)?;
            w.order(A, Event::Shutdown);
            let last = write(w, client, 1)?;
            reach(w, "A has ended", |w| w.role(A).is_none())?;
            reach(w, "B serves and all completes", |w| serves(w, B) && w.completed(client) == last)?;
            let counts = w.counts();
            if counts.takeovers_rule_5 + counts.fence_kills + counts.fenced > 0 || counts.drops != 1 {
                w.broken("an orderly end fences nobody, and drops who has ended");
            }
            Ok(())
        });
    }
}

/// Both are told to end at once: nobody hands over to one that goes, and the volume is clean.
#[test]
fn both_told_to_end() {
    for fence in BOTH {
        for delay in [0, 1, 2, 3, 5, 8] {
            let mut w = World::new(SimConfig::scripted(fence));
            let client = dual(&mut w).expect("it is dual");
            write(&mut w, client, 0).expect("it is taken");
            w.order(A, Event::Shutdown);
            w.run_for(delay);
            w.order(B, Event::Shutdown);
            let ended = w.run_until(5_000, |w| w.role(A).is_none() && w.role(B).is_none());
            assert!(ended, "{:?} {:?}", w.role(A), w.role(B));
            assert!(w.superblock().is_some_and(|s| s.clean), "{:?}", w.superblock());
            w.finish();
            assert_eq!(w.violation(), None);
        }
    }
}

/// The telling is lost with the link, and the link comes back: it is told again, and nobody is fenced.
#[test]
fn a_lost_telling_is_repeated() {
    for fence in BOTH {
        passes(fence, |w| {
            let client = dual(w)?;
            w.hold_messages(|from, _, item| is_hand_over(from, item));
            w.order(A, Event::Switchover);
            reach(w, "A has handed over", |w| w.role(A) == Some(Role::Secondary))?;
            w.run_for(10);
            w.cut(NODE_A, NODE_B);
            w.run_for(30);
            w.release_all();
            w.mend(NODE_A, NODE_B);
            reach(w, "B serves", |w| serves(w, B))?;
            complete(w, client, 0)?;
            nobody_is_fenced(w);
            Ok(())
        });
    }
}

/// The telling is lost, and the link stays broken: one of the two goes by rule 5.
#[test]
fn a_lost_telling_ends_in_rule_5() {
    for fence in BOTH {
        passes(fence, |w| {
            let client = dual(w)?;
            write(w, client, 0)?;
            w.hold_messages(|from, _, item| is_hand_over(from, item));
            w.order(A, Event::Switchover);
            reach(w, "A has handed over", |w| w.role(A) == Some(Role::Secondary))?;
            w.cut(NODE_A, NODE_B);
            complete(w, client, 1)?;
            if w.counts().takeovers_rule_5 == 0 {
                w.broken("somebody took over");
            }
            Ok(())
        });
    }
}

/// The old primary dies while its disk I/O ends, while either slot is written, before and after the other one is told.
#[test]
fn the_old_primary_dies_in_the_middle() {
    for fence in BOTH {
        passes(fence, |w| {
            dies_at(w, |w, client| {
                hold_block(w, A, 0);
                write(w, client, 0)?;
                w.run_for(20);
                w.order(A, Event::Switchover);
                w.run_for(20);
                Ok(())
            })
        });
        for turn in [0, 1] {
            for lands in [false, true] {
                let script = move |w: &mut World| {
                    w.hold_disk(move |n, access| n == A && is_naming(&access, turn));
                    w.order(A, Event::Switchover);
                    w.run_for(30);
                    if lands {
                        w.crash_node(A);
                        w.release_all();
                    } else {
                        w.crash_and_lose_writes(A);
                    }
                };
                let mut w = World::new(SimConfig::scripted(fence));
                let client = dual(&mut w).expect("it is dual");
                complete(&mut w, client, 0).expect("it completes");
                write(&mut w, client, 1).expect("it is taken");
                script(&mut w);
                complete(&mut w, client, 2).unwrap_or_else(|e| panic!("{fence:?} {turn} {lands} {e:?}"));
                w.finish();
                assert_eq!(w.violation(), None, "{fence:?} {turn} {lands}");
            }
        }
        passes(fence, |w| {
            dies_at(w, |w, client| {
                w.hold_messages(|from, _, item| is_hand_over(from, item));
                write(w, client, 0)?;
                w.order(A, Event::Switchover);
                reach(w, "A has handed over", |w| w.role(A) == Some(Role::Secondary))?;
                w.run_for(20);
                Ok(())
            })
        });
        passes(fence, |w| {
            dies_at(w, |w, client| {
                write(w, client, 0)?;
                w.order(A, Event::Switchover);
                reach(w, "B is told", |w| w.counts().handovers_told == 1)
            })
        });
    }
}

fn dies_at(w: &mut World, how: fn(&mut World, usize) -> Result<(), NotReached>) -> Result<(), NotReached> {
    let client = dual(w)?;
    complete(w, client, 3)?;
    how(w, client)?;
    w.crash_node(A);
    w.release_all();
    complete(w, client, 4)?;
    reach(w, "B serves", |w| serves(w, B))
}

/// The new primary dies before it is told, when it is told, and as soon as it serves: the old one is a member.
#[test]
fn the_new_primary_dies_in_the_middle() {
    for fence in BOTH {
        for moment in 0..3 {
            let mut w = World::new(SimConfig::scripted(fence));
            let client = dual(&mut w).expect("it is dual");
            complete(&mut w, client, 0).expect("it completes");
            if moment == 0 {
                w.hold_messages(|from, _, item| is_hand_over(from, item));
            }
            write(&mut w, client, 1).expect("it is taken");
            w.order(A, Event::Switchover);
            let reached = w.run_until(2_000, |w| match moment {
                0 => w.role(A) == Some(Role::Secondary),
                1 => w.counts().handovers_told == 1,
                _ => serves(w, B),
            });
            assert!(reached, "{fence:?} {moment}");
            w.crash_node(B);
            w.release_all();
            complete(&mut w, client, 2).unwrap_or_else(|e| panic!("{fence:?} {moment} {e:?}"));
            assert!(serves(&w, A), "{fence:?} {moment}");
            w.finish();
            assert_eq!(w.violation(), None, "{fence:?} {moment}");
        }
    }
}

/// † The primary's own disk I/O ends first: a write of its own would land over the new one's.
#[test]
fn a_write_of_the_old_primary_in_flight() {
    scenario(FenceKind::Pr, replica(Replica::HandOverInFlight), |w| {
        let client = dual(w)?;
        let queued = hold_block(w, A, 0);
        complete(w, client, 0)?;
        w.run_for(20);
        w.order(A, Event::Switchover);
        w.run_for(30);
        w.release(queued);
        reach(w, "B serves", |w| serves(w, B))?;
        complete(w, client, 0).map(drop)
    });
}

/// † What the new primary holds, the old one may not have received yet: only its ACK in the new epoch says so.
#[test]
fn handed_over_unheard() {
    scenario(FenceKind::Pr, replica(Replica::HandOverUnheard), |w| {
        let client = dual(w)?;
        complete(w, client, 0)?;
        let last = hold_blobs(w, A, Seq(2));
        let seq = write(w, client, 0)?;
        reach(w, "B has it", |w| w.received(B) == seq)?;
        w.order(A, Event::Switchover);
        reach(w, "B serves", |w| serves(w, B))?;
        w.run_for(20);
        w.crash_and_lose_writes(B);
        w.release(last);
        reach(w, "A serves and has it", |w| serves(w, A) && w.completed(client) == seq)
    });
}

/// † The new primary is frozen as it is told; the old one takes over, by rule 5, and ends in order. The claim is free
/// when the other one thaws, as nobody had to kill it: its word is of an epoch that has gone by.
#[test]
fn told_too_late() {
    scenario(FenceKind::Lock, replica(Replica::AcceptUnread), |w| {
        let client = dual(w)?;
        let words = w.hold_messages(|from, _, item| is_hand_over(from, item));
        complete(w, client, 0)?;
        w.order(A, Event::Switchover);
        reach(w, "A has handed over", |w| w.role(A) == Some(Role::Secondary))?;
        w.freeze(NODE_B);
        w.release(words);
        reach(w, "A serves again", |w| serves(w, A))?;
        complete(w, client, 0)?;
        w.order(A, Event::Shutdown);
        reach(w, "A has ended", |w| w.role(A).is_none())?;
        w.thaw(NODE_B);
        w.run_for(500);
        Ok(())
    });
}

/// The same with the old one still serving: the thawing one neither kills it nor writes.
#[test]
fn told_too_late_while_the_old_one_serves() {
    for fence in BOTH {
        passes(fence, |w| {
            let client = dual(w)?;
            w.hold_messages(|from, _, item| is_hand_over(from, item));
            w.order(A, Event::Switchover);
            reach(w, "A has handed over", |w| w.role(A) == Some(Role::Secondary))?;
            w.freeze(NODE_B);
            w.release_all();
            reach(w, "A serves again", |w| serves(w, A))?;
            complete(w, client, 0)?;
            w.thaw(NODE_B);
            reach(w, "B is a member again", World::is_dual)?;
            if !serves(w, A) || w.counts().fence_kills > 0 {
                w.broken("the one that was replaced does not disturb the one that serves");
            }
            Ok(())
        });
    }
}

/// A client is attaching: an order is refused, and an end waits until the new session is in.
#[test]
fn an_attach_comes_first() {
    for fence in BOTH {
        passes(fence, |w| {
            let old = dual(w)?;
            complete(w, old, 0)?;
            w.crash_client(old);
            let generation = w.hold_disk(|n, access| {
                n == A && matches!(access, DiskAccess::Slot { superblock: s, .. } if s.generation.0 == 2)
            });
            let new = w.start_client();
            w.run_for(50);
            w.order(A, Event::Switchover);
            w.order(A, Event::Shutdown);
            w.run_for(50);
            if w.counts().handovers > 0 {
                w.broken("handed over in the middle of an attach");
            }
            w.release(generation);
            reach(w, "the new client is in", |w| w.client_is_open(new))?;
            reach(w, "A has ended", |w| w.role(A).is_none())?;
            complete(w, new, 0)?;
            if w.counts().takeovers_rule_5 > 0 {
                w.broken("it was handed over");
            }
            Ok(())
        });
    }
}

/// A joiner is no member: an order is refused, an end goes on alone.
#[test]
fn a_joiner_is_not_handed_to() {
    for fence in BOTH {
        passes(fence, |w| {
            let client = solo(w)?;
            complete(w, client, 0)?;
            w.hold_messages(|from, to, item| (from, to) == (NODE_B, NODE_A) && matches!(item, Item::Mailbox(_)));
            w.start_node(B);
            reach(w, "B joins", |w| w.role(B) == Some(Role::Joining))?;
            w.order(A, Event::Switchover);
            w.run_for(20);
            if w.counts().handovers > 0 {
                w.broken("handed over to one that is no member");
            }
            w.order(A, Event::Shutdown);
            reach(w, "A has ended", |w| w.role(A).is_none())?;
            w.release_all();
            complete(w, client, 0).map(drop)
        });
    }
}

/// The secondary dies while the primary's I/O ends: nothing has happened, and the primary goes on alone.
#[test]
fn called_off_before_anything_has_happened() {
    for fence in BOTH {
        passes(fence, |w| {
            let client = dual(w)?;
            let disk = hold_block(w, A, 0);
            complete(w, client, 0)?;
            w.run_for(20);
            w.read(client, 1, 1).ok_or(NotReached("the read is taken"))?;
            w.order(A, Event::Switchover);
            w.run_for(10);
            w.crash_node(B);
            w.run_for(10);
            w.release(disk);
            reach(w, "A serves alone", |w| serves(w, A) && settled_members(w) == 1)?;
            complete(w, client, 0)?;
            reach(w, "the read is answered", |w| w.client_is_idle(client))?;
            if w.counts().handovers_called_off != 1 {
                w.broken("it was called off");
            }
            Ok(())
        });
    }
}

/// The disk is slow: an order that holds the service up for too long is called off, and its reads are answered.
#[test]
fn called_off_when_the_disk_is_slow() {
    for fence in BOTH {
        passes(fence, |w| {
            let client = dual(w)?;
            let disk = hold_block(w, A, 0);
            complete(w, client, 0)?;
            w.run_for(20);
            w.order(A, Event::Switchover);
            w.run_for(10);
            w.read(client, 1, 1).ok_or(NotReached("the read is taken"))?;
            let seq = write(w, client, 1)?;
            w.run_for(400);
            if w.completed(client) < seq || !w.client_is_idle(client) || !serves(w, A) {
                w.broken("it goes on, in RAM");
            }
            w.release(disk);
            w.order(A, Event::Switchover);
            reach(w, "B serves", |w| serves(w, B))
        });
    }
}

/// The client reaches the secondary only: the primary hands over, and the volume is available.
#[test]
fn a_client_that_reaches_the_secondary_only() {
    for fence in BOTH {
        passes(fence, |w| {
            let client = dual(w)?;
            complete(w, client, 0)?;
            w.cut(Host::Client(client), NODE_A);
            let seq = write(w, client, 1)?;
            reach(w, "B serves", |w| serves(w, B))?;
            reach(w, "it completes", |w| w.completed(client) == seq)?;
            if w.counts().takeovers_rule_5 > 0 {
                w.broken("two healthy nodes hand over, and do not fence");
            }
            Ok(())
        });
    }
}

/// An attach that reaches the secondary only first causes a handover; over a live session it causes none.
#[test]
fn an_attach_that_reaches_the_secondary_only() {
    for fence in BOTH {
        passes(fence, |w| {
            let old = dual(w)?;
            complete(w, old, 0)?;
            let new = w.start_client();
            w.cut(Host::Client(new), NODE_A);
            w.run_for(1_000);
            if w.counts().handovers > 0 || w.client_is_open(new) {
                w.broken("a live session is not disturbed");
            }
            w.crash_client(old);
            reach(w, "the new one is in", |w| w.client_is_open(new))?;
            complete(w, new, 0).map(drop)
        });
    }
}
