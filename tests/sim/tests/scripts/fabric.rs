//! Connections that go wrong while their path is whole: late writes, half-open ends, corrupt bytes.

use crate::common::*;

/// A host loses its connections and the other one does not hear of it: a firewall has forgotten them, a host was gone for
/// long and TCP's next attempt is minutes away.
fn half_open_link(hears: Host, believes: Host) -> impl Fn(&mut World) -> Result<(), NotReached> {
    move |w| {
        let client = dual(w)?;
        complete(w, client, 0)?;
        if !w.half_open(hears, believes) {
            return Err(NotReached("there is a link"));
        }
        w.run_for(1_000);
        complete(w, client, 1)?;
        reach(w, "both are members, who hear each other", World::is_dual)
    }
}

#[test]
fn a_link_that_only_the_dialling_node_believes_in() {
    passes(FenceKind::Pr, half_open_link(NODE_A, NODE_B));
}

#[test]
fn a_link_that_only_the_listening_node_believes_in() {
    passes(FenceKind::Pr, half_open_link(NODE_B, NODE_A));
}

#[test]
fn a_client_that_believes_in_a_connection_to_a_node() {
    for node in [NODE_A, NODE_B] {
        passes(FenceKind::Pr, |w| {
            let client = dual(w)?;
            if !w.half_open(node, Host::Client(client)) {
                return Err(NotReached("there is a connection"));
            }
            complete(w, client, 0)?;
            reach(w, "both are members", World::is_dual)
        });
    }
}

#[test]
fn a_node_that_believes_in_a_connection_to_a_client() {
    for node in [NODE_A, NODE_B] {
        passes(FenceKind::Pr, |w| {
            let client = dual(w)?;
            if !w.half_open(Host::Client(client), node) {
                return Err(NotReached("there is a connection"));
            }
            complete(w, client, 0)?;
            reach(w, "both are members", World::is_dual)
        });
    }
}

/// Section 6: CRC mismatch: connection torn down, counted, resent.
#[test]
fn a_corrupt_blob() {
    for node in [A, B] {
        passes(FenceKind::Pr, |w| {
            let client = dual(w)?;
            let resumes = w.resumes(client);
            w.corrupt_next_blob(node);
            complete(w, client, 0)?;
            if w.counts().corrupt_blobs != 1 || w.resumes(client) != resumes + 1 {
                w.broken("a corrupt blob was taken");
            }
            Ok(())
        });
    }
}

#[test]
fn a_corrupt_message() {
    for (from, to) in [(NODE_A, NODE_B), (NODE_B, NODE_A), (Host::Client(0), NODE_A), (NODE_A, Host::Client(0))] {
        passes(FenceKind::Pr, |w| {
            let client = dual(w)?;
            if !w.corrupt_next_message(from, to) {
                return Err(NotReached("there is a connection"));
            }
            reach(w, "it arrives", |w| w.counts().corrupt_messages == 1)?;
            complete(w, client, 0)?;
            reach(w, "both are members", World::is_dual)
        });
    }
}

/// A one-sided write of a session that has been replaced, under way for longer than anybody believes that its sender lives:
/// it may land until its receiver has destroyed the connection, and that comes before the new session (rule 10).
#[test]
fn a_write_that_is_later_than_the_next_session() {
    passes(FenceKind::Pr, |w| {
        let old = dual(w)?;
        for node in [NODE_A, NODE_B] {
            if !w.stall(Host::Client(old), node, 1_500_000) {
                return Err(NotReached("there is a connection"));
            }
        }
        write(w, old, 0)?;
        w.freeze(Host::Client(old));
        let new = w.start_client();
        reach(w, "the new session is open", |w| w.client_is_open(new))?;
        complete(w, new, 0)?;
        w.run_for(2_000);
        w.thaw(Host::Client(old));
        Ok(())
    });
}

/// The primary's words are late for both, and no connection ends: it lives, and is not heard. What it says lands in the end.
#[test]
fn a_primary_whose_words_are_late() {
    for fence in [FenceKind::Pr, FenceKind::Lock] {
        passes(fence, |w| {
            let client = dual(w)?;
            w.stall(NODE_A, NODE_B, 1_200_000);
            w.stall(NODE_A, Host::Client(client), 1_200_000);
            complete(w, client, 0)?;
            w.run_for(1_500);
            complete(w, client, 0)?;
            Ok(())
        });
    }
}

/// Rule 15: cut apart from the beginning, both find nobody who serves. Both fence; one gets through.
#[test]
fn both_try() {
    passes(FenceKind::Pr, |w| {
        w.cut(NODE_A, NODE_B);
        for node in [A, B] {
            w.slow_disk(node, 100);
        }
        w.start_node(A);
        w.start_node(B);
        let client = w.start_client();
        reach(w, "one serves", |w| w.client_is_open(client))?;
        complete(w, client, 0)?;
        if w.fired_so_far(15, "both try, and the fence lets one through") == 0 {
            return Err(NotReached("the other one has tried, too"));
        }
        for node in [A, B] {
            w.slow_disk(node, 0);
        }
        w.mend(NODE_A, NODE_B);
        Ok(())
    });
}
