//! Rule 15's client word at a node outside: who serves alone loses its network, its disk stays, and the other node,
//! which is no member, is all that the client reaches.

use crate::common::*;
use twinsan_replica::Weakness as Replica;

const BOTH: [FenceKind; 2] = [FenceKind::Pr, FenceKind::Lock];

fn takeovers(w: &World) -> u64 {
    w.counts().takeovers_rule_5 + w.counts().takeovers_rule_6
}

/// A hears nobody any more and is heard by nobody; it reaches the disk as before.
fn isolate_a(w: &mut World, client: usize) {
    w.cut(NODE_A, NODE_B);
    w.cut(Host::Client(client), NODE_A);
}

/// B serves for good, and what the client asks for completes, while A goes on without its network.
fn b_goes_on(w: &mut World, client: usize) -> Result<(), NotReached> {
    let open = write(w, client, 1)?;
    reach(w, "B serves", |w| serves(w, B))?;
    reach(w, "what was open completes", |w| w.completed(client) >= open)?;
    let before = takeovers(w);
    for _ in 0..20 {
        complete(w, client, 0)?;
        w.run_for(100);
    }
    if takeovers(w) != before {
        w.broken("whom the client reaches is left alone");
    }
    Ok(())
}

/// A serves alone and loses its network for good; B starts only then, and what it knows it has read from the disk.
#[test]
fn started_when_the_network_was_gone() {
    for fence in BOTH {
        passes(fence, |w| {
            let client = solo(w)?;
            complete(w, client, 0)?;
            isolate_a(w, client);
            w.start_node(B);
            b_goes_on(w, client)
        });
    }
}

/// B was a member, has died, been dropped and started again, and was about to join when A's network went.
#[test]
fn about_to_join_when_the_network_went() {
    for fence in BOTH {
        passes(fence, |w| {
            let client = dual(w)?;
            complete(w, client, 0)?;
            w.crash_node(B);
            reach(w, "A serves alone", |w| settled_members(w) == 1)?;
            w.hold_messages(|from, _, item| from == NODE_A && matches!(item, Item::Peer(m) if is_accept(&m.body)));
            w.start_node(B);
            complete(w, client, 0)?;
            w.run_for(200);
            isolate_a(w, client);
            b_goes_on(w, client)
        });
    }
}

fn is_accept(body: &PeerBody) -> bool {
    matches!(body, PeerBody::JoinAccept { .. })
}

/// A dropped B when it could tell nobody: the client knows an older epoch than the disk, and B has it from there.
#[test]
fn an_epoch_that_the_client_has_not_heard_of() {
    for fence in BOTH {
        passes(fence, |w| {
            let client = dual(w)?;
            complete(w, client, 0)?;
            isolate_a(w, client);
            w.crash_node(B);
            w.start_node(B);
            reach(w, "A serves alone", |w| serves(w, A) && settled_members(w) == 1)?;
            b_goes_on(w, client)
        });
    }
}

/// B joins; A's word that it is a member, which the client has heard, does not get through to it any more. So the client
/// knows a newer epoch than B, and the disk before long one that is newer still.
#[test]
fn a_joiner_that_has_not_heard_the_end_of_its_join() {
    for fence in BOTH {
        passes(fence, |w| {
            let client = solo(w)?;
            complete(w, client, 0)?;
            w.hold_messages(|from, _, item| from == NODE_A && matches!(item, Item::Peer(m) if is_of_two(&m.body)));
            w.start_node(B);
            reach(w, "A has let it in", |w| settled_members(w) == 2)?;
            w.run_for(5);
            isolate_a(w, client);
            reach(w, "A serves alone again", |w| serves(w, A) && settled_members(w) == 1)?;
            if w.role(B) != Some(Role::Joining) {
                return Err(NotReached("B has heard nothing"));
            }
            b_goes_on(w, client)
        });
    }
}

fn is_of_two(body: &PeerBody) -> bool {
    matches!(body, PeerBody::Announce { superblock } if superblock.members.is_dual())
}

/// Its network comes back: it is outside, finds who serves, and joins. Nobody moves again.
#[test]
fn back_from_the_silence_it_joins() {
    for fence in BOTH {
        passes(fence, |w| {
            let client = solo(w)?;
            isolate_a(w, client);
            w.start_node(B);
            b_goes_on(w, client)?;
            let before = takeovers(w);
            w.mend_all();
            w.start_node(A); // `local-lock` has killed it.
            reach(w, "both are members", World::is_dual)?;
            for _ in 0..10 {
                complete(w, client, 0)?;
                w.run_for(100);
            }
            if takeovers(w) != before || !serves(w, B) {
                w.broken("who comes back joins");
            }
            Ok(())
        });
    }
}

/// The links between the nodes stay broken, and those to the client break in turn: the volume follows its client, and
/// moves only when that has lost whom it had.
#[test]
fn it_follows_its_client_and_never_moves_by_itself() {
    passes(FenceKind::Pr, |w| {
        let client = solo(w)?;
        isolate_a(w, client);
        w.start_node(B);
        let mut last = write(w, client, 0)?;
        for round in 1..=6 {
            let (there, gone) = if round % 2 == 1 { (B, A) } else { (A, B) };
            if !w.run_until(5_000, |w| serves(w, there) && w.completed(client) >= last) {
                return Err(NotReached("it follows"));
            }
            w.mend(Host::Client(client), Host::Node(gone)); // Both are reached again: that moves nothing.
            for _ in 0..10 {
                complete(w, client, 1)?;
                w.run_for(100);
            }
            if takeovers(w) != 1 + round || !serves(w, there) {
                w.broken("one move, and no more");
            }
            w.cut(Host::Client(client), Host::Node(there));
            last = write(w, client, 0)?;
        }
        Ok(())
    });
}

/// Two clients accuse the two nodes of each other: the old one reaches B only, the new one A only. The volume stays where
/// the newest session is.
#[test]
fn an_old_client_takes_the_volume_from_nobody() {
    for fence in BOTH {
        scenario(fence, replica(Replica::BelieveAnyClient), |w| {
            let old = solo(w)?;
            w.cut(NODE_A, NODE_B);
            w.start_node(B);
            w.freeze(Host::Client(old));
            let new = w.start_client();
            w.cut(Host::Client(new), NODE_B);
            reach(w, "the new one is in", |w| w.client_is_open(new))?;
            w.cut(Host::Client(old), NODE_A);
            w.thaw(Host::Client(old));
            stays_at_a(w, new)
        });
    }
}

/// One that has no session yet, and reaches B only: it waits.
#[test]
fn a_client_without_a_session_takes_the_volume_from_nobody() {
    for fence in BOTH {
        scenario(fence, replica(Replica::BelieveAnyClient), |w| {
            let client = solo(w)?;
            w.cut(NODE_A, NODE_B);
            w.cut(Host::Client(client), NODE_B);
            w.start_node(B);
            let late = w.start_client();
            w.cut(Host::Client(late), NODE_A);
            stays_at_a(w, client)
        });
    }
}

fn stays_at_a(w: &mut World, client: usize) -> Result<(), NotReached> {
    let end = w.now_ms() + 3_000;
    while w.now_ms() < end && serves(w, A) && w.violation().is_none() {
        complete(w, client, 0)?;
        w.run_for(50);
    }
    if !serves(w, A) {
        w.broken("it is taken from a client that works by one that has no session");
    }
    Ok(())
}
