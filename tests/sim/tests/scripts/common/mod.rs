//! A cluster on strings: what the scripted scenarios share.

pub(crate) use twinsan_replica::RelayPhase;
pub(crate) use twinsan_sim::{DiskAccess, DriverWeakness, FenceKind, Host, Item, SimConfig, Weakness, World};
pub(crate) use twinsan_wire::{BlobKind, ClientMsg, Generation, Mailbox, NodeId, PeerBody, Role, Seq};

pub(crate) const A: NodeId = NodeId::A;
pub(crate) const B: NodeId = NodeId::B;
pub(crate) const NODE_A: Host = Host::Node(NodeId::A);
pub(crate) const NODE_B: Host = Host::Node(NodeId::B);

/// A step of a script did not come about.
#[derive(Debug)]
#[expect(dead_code, reason = "said by Debug, where it ends a test")]
pub(crate) struct NotReached(pub(crate) &'static str);

pub(crate) type Script = fn(&mut World) -> Result<(), NotReached>;

/// Runs a script as things are: every step must come about and every promise be kept, also when everything is mended.
/// With `weakness`, a promise must be broken on the way or at the end.
pub(crate) fn scenario(fence: FenceKind, weakness: Weakness, script: Script) {
    passes(fence, script);
    let mut world = World::new(SimConfig::scripted(fence).weakened(Some(weakness)));
    let reached = script(&mut world);
    world.release_all();
    world.finish();
    let said = world.violation();
    if said.is_none() {
        print_trace(&world);
    }
    assert!(said.is_some(), "{} is not caught; the script: {reached:?}", weakness.name());
}

/// Runs a script as things are.
pub(crate) fn passes(fence: FenceKind, script: impl Fn(&mut World) -> Result<(), NotReached>) {
    let mut world = World::new(SimConfig::scripted(fence));
    let reached = script(&mut world);
    if reached.is_ok() {
        world.release_all();
        world.finish();
    }
    let said = world.violation().cloned();
    if reached.is_err() || said.is_some() {
        print_trace(&world);
    }
    assert!(reached.is_ok(), "{reached:?} {said:?}");
    assert_eq!(said, None);
}

fn print_trace(world: &World) {
    for line in world.trace_lines().iter().filter(|l| !l.contains("Status {") && !l.contains("View {")) {
        println!("{line}");
    }
}

/// The step must come about within two seconds of simulated time.
pub(crate) fn reach(world: &mut World, what: &'static str, done: impl FnMut(&World) -> bool) -> Result<(), NotReached> {
    if world.run_until(2_000, done) { Ok(()) } else { Err(NotReached(what)) }
}

/// By its own word and the disk's.
pub(crate) fn serves(w: &World, node: NodeId) -> bool {
    w.role(node) == Some(Role::Primary) && w.superblock().is_some_and(|s| s.primary == Some(node))
}

/// It feeds the other node in the client's place.
pub(crate) fn feeds(w: &World, node: NodeId) -> bool {
    w.relay(node) == Some(RelayPhase::Feeding)
}

/// A is frozen while its relay to B comes up, and what it says by that waits; B serves, and its client, which this gives, is
/// back.
pub(crate) fn frozen_as_it_relays(w: &mut World) -> Result<usize, NotReached> {
    let client = dual(w)?;
    complete(w, client, 0)?;
    w.hold_messages(|from, to, item| {
        (from, to) == (NODE_A, NODE_B) && matches!(item, Item::Client(ClientMsg::Resume { .. }))
    });
    w.cut(Host::Client(client), NODE_B);
    write(w, client, 1)?;
    reach(w, "A's relay is on its way", |w| w.relay(A) == Some(RelayPhase::Connecting))?;
    w.run_for(5);
    w.freeze(NODE_A);
    w.mend(Host::Client(client), NODE_B);
    reach(w, "B serves", |w| serves(w, B))?;
    Ok(client)
}

/// What has waited arrives: a node of the past must not take the client's place.
pub(crate) fn the_past_feeds_nobody(w: &mut World, client: usize) {
    let before = w.resumes(client);
    w.release_all();
    w.run_for(300);
    if w.resumes(client) != before {
        w.broken("a node of the past takes the client's place");
    }
}

/// A serves alone, with one client that is open. Returns the client.
pub(crate) fn solo(world: &mut World) -> Result<usize, NotReached> {
    world.start_node(A);
    let client = world.start_client();
    reach(world, "A serves alone", |w| w.role(A) == Some(Role::Primary) && w.client_is_open(client))?;
    Ok(client)
}

/// A serves, B is a member and fed, one client is open.
pub(crate) fn dual(world: &mut World) -> Result<usize, NotReached> {
    let client = solo(world)?;
    world.start_node(B);
    reach(world, "both are members", World::is_dual)?;
    world.run_for(50);
    Ok(client)
}

/// One block written; the seq.
pub(crate) fn write(world: &mut World, client: usize, lba: u64) -> Result<Seq, NotReached> {
    write_blocks(world, client, lba, 1)
}

pub(crate) fn write_blocks(world: &mut World, client: usize, lba: u64, blocks: u32) -> Result<Seq, NotReached> {
    world.write(client, BlobKind::Write, lba, blocks).ok_or(NotReached("the write is taken"))
}

/// One block written and completed.
pub(crate) fn complete(world: &mut World, client: usize, lba: u64) -> Result<Seq, NotReached> {
    let seq = write(world, client, lba)?;
    reach(world, "the write completes", |w| w.completed(client) >= seq)?;
    Ok(seq)
}

/// Holds blobs from `from` on, on their way to `node`.
pub(crate) fn hold_blobs(world: &mut World, node: NodeId, from: Seq) -> twinsan_sim::HoldId {
    world.hold_messages(move |_, to, item| to == Host::Node(node) && matches!(item, Item::Blob(b) if b.seq >= from))
}

/// Holds writes of one block by one node.
pub(crate) fn hold_block(world: &mut World, node: NodeId, lba: u64) -> twinsan_sim::HoldId {
    world.hold_disk(move |n, access| n == node && matches!(access, DiskAccess::Block { lba: l, .. } if l == lba))
}

pub(crate) fn settled_members(world: &World) -> usize {
    world.superblock().map_or(0, |s| s.members.0.iter().flatten().count())
}

pub(crate) fn replica(weakness: twinsan_replica::Weakness) -> Weakness {
    Weakness::Replica(weakness)
}
