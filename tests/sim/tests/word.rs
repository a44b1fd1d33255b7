//! Rule 15's client word at a node outside: who serves alone loses its network, its disk stays, and the other node,
//! which is no member, is all that the client reaches.

mod common;

use common::*;

const BOTH: [FenceKind; 2] = [FenceKind::Pr, FenceKind::Lock];

fn serves(w: &World, node: NodeId) -> bool {
    w.role(node) == Some(Role::Primary) && w.superblock().is_some_and(|s| s.primary == Some(node))
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
    let takeovers = w.counts().takeovers_rule_5 + w.counts().takeovers_rule_6;
    for _ in 0..20 {
        complete(w, client, 0)?;
        w.run_for(100);
    }
    if w.counts().takeovers_rule_5 + w.counts().takeovers_rule_6 != takeovers {
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
