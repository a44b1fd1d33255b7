//! The relay (rule 14, section 6): one of the client's links is broken, the link between the nodes is well, and the pair
//! stays a pair.

use crate::common::*;
use twinsan_replica::{RelayPhase, Weakness as Replica};
use twinsan_sim::Pathless;
use twinsan_wire::ClientMsg;

const BOTH: [FenceKind; 2] = [FenceKind::Pr, FenceKind::Lock];

/// The client has lost the secondary, B, for good; A feeds it.
fn relayed(w: &mut World) -> Result<usize, NotReached> {
    let client = dual(w)?;
    complete(w, client, 0)?;
    w.cut(Host::Client(client), NODE_B);
    write(w, client, 1)?;
    reach(w, "A feeds B", |w| feeds(w, A))?;
    Ok(client)
}

/// Several times the lane's length.
fn wraps(w: &mut World, client: usize) -> Result<(), NotReached> {
    for lba in 0..80 {
        let last = write_blocks(w, client, lba % 13, 3)?;
        reach(w, "it completes", |w| w.completed(client) >= last)?;
        w.run_for(2);
    }
    Ok(())
}

fn nobody_is_dropped(w: &mut World) {
    if w.counts().drops > 0 || !w.is_dual() {
        w.broken("both nodes are well and reach each other: they stay members");
    }
}

/// Section 6, "link client–secondary broken": the pair stays dual, writes complete by ACKs, and lane space comes back.
#[test]
fn the_client_loses_the_secondary() {
    for fence in BOTH {
        passes(fence, |w| {
            let client = relayed(w)?;
            wraps(w, client)?;
            nobody_is_dropped(w);
            Ok(())
        });
    }
}

/// What completed by a relayed blob's ACK is in B's RAM: nothing is lost when A dies and the disk has not got it.
#[test]
fn the_primary_dies_while_it_relays() {
    for fence in BOTH {
        passes(fence, |w| {
            let client = relayed(w)?;
            wraps(w, client)?;
            hold_block(w, A, 5);
            let last = complete(w, client, 5)?;
            w.crash_and_lose_writes(A);
            w.mend(Host::Client(client), NODE_B);
            reach(w, "B serves", |w| serves(w, B))?;
            if w.completed(client) < last || w.on_disk(5).seq != last.0 {
                w.broken("B has drained what it was fed");
            }
            complete(w, client, 6)?;
            Ok(())
        });
    }
}

/// Section 6, "link client–primary broken": handover, and the old primary stays a member, fed by relay.
#[test]
fn the_client_loses_the_primary() {
    for fence in BOTH {
        passes(fence, |w| {
            let client = dual(w)?;
            complete(w, client, 0)?;
            w.cut(Host::Client(client), NODE_A);
            write(w, client, 1)?;
            reach(w, "B serves", |w| serves(w, B))?;
            reach(w, "B feeds A", |w| feeds(w, B))?;
            wraps(w, client)?;
            nobody_is_dropped(w);
            if w.counts().takeovers_rule_5 > 0 || w.counts().handovers != 1 {
                w.broken("it is handed over, once");
            }
            // It holds what completed.
            hold_block(w, B, 7);
            let last = complete(w, client, 7)?;
            w.crash_and_lose_writes(B);
            w.mend(Host::Client(client), NODE_A);
            reach(w, "A serves", |w| serves(w, A))?;
            if w.on_disk(7).seq != last.0 {
                w.broken("A has drained what it was fed");
            }
            complete(w, client, 8)?;
            Ok(())
        });
    }
}

/// The link heals: the client feeds B itself, its Resume destroys the relay, and no relay comes again.
#[test]
fn the_link_heals() {
    for fence in BOTH {
        passes(fence, |w| {
            let client = relayed(w)?;
            wraps(w, client)?;
            w.mend(Host::Client(client), NODE_B);
            reach(w, "the client feeds B", |w| w.relay(A) == Some(RelayPhase::Off))?;
            let before = w.counts().relayed;
            wraps(w, client)?;
            if w.counts().relayed != before {
                w.broken("who is fed by the client needs no relay");
            }
            nobody_is_dropped(w);
            Ok(())
        });
    }
}

/// The link between the nodes breaks too: rule 7.
#[test]
fn the_link_between_the_nodes_breaks_too() {
    for fence in BOTH {
        passes(fence, |w| {
            let client = relayed(w)?;
            w.cut(NODE_A, NODE_B);
            let last = write(w, client, 2)?;
            reach(w, "A serves alone", |w| settled_members(w) == 1)?;
            reach(w, "what was open completes", |w| w.completed(client) >= last)?;
            if !serves(w, A) {
                w.broken("the primary is left in place");
            }
            Ok(())
        });
    }
}

/// The nodes hear each other, but nothing of the relay arrives: rule 7, after the drop timeout.
#[test]
fn a_relay_that_brings_nothing() {
    for fence in BOTH {
        passes(fence, |w| {
            let client = relayed(w)?;
            w.hold_messages(|from, to, item| (from, to) == (NODE_A, NODE_B) && matches!(item, Item::Blob(_)));
            let last = write(w, client, 2)?;
            reach(w, "A serves alone", |w| settled_members(w) == 1)?;
            reach(w, "what was open completes", |w| w.completed(client) >= last)?;
            Ok(())
        });
    }
}

/// The primary loses its paths while it relays: it goes on in RAM, as the other one is not within the client's reach; when it
/// is again, the volume moves there.
#[test]
fn the_relaying_primary_loses_its_paths() {
    for fence in BOTH {
        passes(fence, |w| {
            let client = relayed(w)?;
            complete(w, client, 2)?;
            w.run_for(100);
            w.lose_paths(A, Pathless::Fails);
            w.run_for(100);
            for lba in 3..9 {
                complete(w, client, lba)?;
                w.run_for(100);
            }
            if w.counts().asked > 0 || !serves(w, A) || !w.is_dual() {
                w.broken("nobody is asked who could not serve the client");
            }
            w.mend(Host::Client(client), NODE_B);
            reach(w, "B serves", |w| serves(w, B))?;
            complete(w, client, 9)?;
            Ok(())
        });
    }
}

/// The same where it never comes up.
#[test]
fn a_relay_that_does_not_come_up() {
    passes(FenceKind::Pr, |w| {
        let client = dual(w)?;
        w.hold_messages(|from, to, item| {
            (from, to) == (NODE_A, NODE_B) && matches!(item, Item::Client(ClientMsg::Resume { .. }))
        });
        w.cut(Host::Client(client), NODE_B);
        let last = write(w, client, 2)?;
        reach(w, "A serves alone, and it completes", |w| settled_members(w) == 1 && w.completed(client) >= last)
    });
}

/// A new client reaches the primary only: the secondary is fed by relay from its first blob on.
#[test]
fn an_attach_that_reaches_the_primary_only() {
    for fence in BOTH {
        passes(fence, |w| {
            let old = relayed(w)?;
            wraps(w, old)?;
            w.detach(old);
            w.run_for(50);
            let client = w.start_client();
            w.cut(Host::Client(client), NODE_B);
            reach(w, "it attaches", |w| w.client_is_open(client))?;
            write(w, client, 1)?;
            reach(w, "A feeds B", |w| feeds(w, A))?;
            wraps(w, client)?;
            nobody_is_dropped(w);
            Ok(())
        });
    }
}

/// The client dies while it is relayed for, and the next one attaches over that.
#[test]
fn an_attach_during_a_relay() {
    for fence in BOTH {
        passes(fence, |w| {
            let old = relayed(w)?;
            write(w, old, 3)?;
            w.crash_client(old);
            let client = w.start_client();
            reach(w, "it attaches", |w| w.client_is_open(client))?;
            wraps(w, client)?;
            nobody_is_dropped(w);
            Ok(())
        });
    }
}

/// Rule 13's last line: an attach that reaches the secondary only moves the primary, which then feeds the other one.
#[test]
fn an_attach_that_reaches_the_secondary_only() {
    for fence in BOTH {
        passes(fence, |w| {
            let old = dual(w)?;
            complete(w, old, 0)?;
            w.detach(old);
            w.run_for(50);
            let client = w.start_client();
            w.cut(Host::Client(client), NODE_A);
            reach(w, "B serves", |w| serves(w, B))?;
            reach(w, "it attaches", |w| w.client_is_open(client))?;
            write(w, client, 1)?;
            reach(w, "B feeds A", |w| feeds(w, B))?;
            wraps(w, client)?;
            nobody_is_dropped(w);
            Ok(())
        });
    }
}

/// The client that was relayed for is gone, dead or in order, and the next one reaches the other node only: nobody is left for
/// whom the relay would keep the primary where it is.
#[test]
fn the_next_client_reaches_the_fed_one_only() {
    for fence in BOTH {
        passes(fence, |w| moves_with_the_next_client(w, World::crash_client));
        passes(fence, |w| moves_with_the_next_client(w, World::detach));
    }
}

fn moves_with_the_next_client(w: &mut World, goes: fn(&mut World, usize)) -> Result<(), NotReached> {
    let old = relayed(w)?;
    complete(w, old, 3)?;
    goes(w, old);
    w.run_for(50);
    let client = w.start_client();
    w.cut(Host::Client(client), NODE_A);
    reach(w, "B serves", |w| serves(w, B))?;
    reach(w, "it attaches", |w| w.client_is_open(client))?;
    wraps(w, client)?;
    nobody_is_dropped(w);
    Ok(())
}

/// The client's links come and go in turn, under load; the nodes stay members throughout.
#[test]
fn links_that_flap() {
    for fence in BOTH {
        passes(fence, |w| {
            let client = dual(w)?;
            for round in 0..12 {
                let node = if round % 3 == 0 { NODE_A } else { NODE_B };
                w.cut(Host::Client(client), node);
                for lba in 0..10 {
                    let last = write_blocks(w, client, lba, 2)?;
                    w.run_for(10 + 7 * round);
                    reach(w, "it completes", |w| w.completed(client) >= last)?;
                }
                w.mend(Host::Client(client), node);
                w.run_for(20 * round);
            }
            nobody_is_dropped(w);
            Ok(())
        });
    }
}

/// The client is back at B while blobs of the relay are still on their way there: what is destroyed lands no more.
#[test]
fn the_relays_last_blobs_are_late() {
    scenario(FenceKind::Pr, replica(Replica::KeepEarlierFeeder), |w| {
        let client = relayed(w)?;
        complete(w, client, 0)?;
        let late = w.hold_messages(|from, to, item| (from, to) == (NODE_A, NODE_B) && matches!(item, Item::Blob(_)));
        write(w, client, 1)?;
        w.mend(Host::Client(client), NODE_B);
        reach(w, "the client feeds B", |w| w.received(B) >= w.received(A))?;
        wraps(w, client)?; // Over the places of what is late.
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

/// B is slow to hear that it may release: the client does not write over what B still holds.
#[test]
fn what_the_fed_one_has_not_released() {
    scenario(FenceKind::Pr, replica(Replica::ReleasedByGuess), |w| {
        let client = relayed(w)?;
        complete(w, client, 0)?;
        w.run_for(100);
        w.hold_messages(|from, to, item| {
            (from, to) == (NODE_A, NODE_B) && matches!(item, Item::Mailbox(Mailbox::Released { .. }))
        });
        // What follows it on the link waits too, so this has to be quick. A write that finds no room is not taken.
        for lba in 0..40 {
            let _ = w.write(client, BlobKind::Write, lba % 13, 3);
            w.run_for(2);
        }
        w.crash_node(A);
        w.mend(Host::Client(client), NODE_B);
        reach(w, "B serves what it holds", |w| serves(w, B))
    });
}

/// An old primary that was frozen while its relay came up: B serves by then, and its client feeds it.
#[test]
fn a_relay_from_the_past() {
    scenario(FenceKind::Pr, replica(Replica::BelieveAnyRelay), |w| {
        let client = frozen_as_it_relays(w)?;
        complete(w, client, 2)?;
        the_past_feeds_nobody(w, client);
        complete(w, client, 3)?;
        Ok(())
    });
}
