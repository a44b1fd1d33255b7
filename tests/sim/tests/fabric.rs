//! Connections that go wrong while their path is whole: late writes, half-open ends, corrupt bytes.

mod common;

use common::*;

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
