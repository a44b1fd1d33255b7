//! A node's machine, among peers that have the key and say what they like.
//!
//! The first byte chooses where it begins and who is hostile: the clients alone, or the other node as well. Then a
//! script. Whatever is said goes through the encoder and the decoder first, as it does in the driver.
//!
//! Against hostile *clients* all of this must hold (`bench.rs` looks at every action):
//! - the machine gives up nowhere;
//! - only what this session put into its lane goes to the disk, to its own blocks, inside the volume;
//! - nothing completes that was not received, and flushed or ACKed;
//! - answers go to who asked, for what was asked, with bytes that the session or the disk has;
//! - lanes and open reads stay within their bounds;
//! - in the end the node serves, and an honest client attaches, writes and reads.
//!
//! A node that has the key is trusted with the data (section 9 of the protocol); where it lies as well, the machine must
//! not give up, nor leave the volume, the lane or the received blobs.

mod bench;

use twinsan_replica::{ConnId, Event, LinkId, RelayId};
use twinsan_wire::{
    Blob, BlobKind, ClientMsg, Descriptor, Epoch, Generation, Incarnation, Lba, Mailbox, Member, Members, NodeId,
    NodeMsg, PeerBody, PeerMsg, Role, Seq, Superblock,
};

use self::bench::{BLOCK, Bench, RING, VOLUME_BLOCKS, other};
use crate::input::Input;
use crate::seal::sealed_message;

/// Clients that may be connected at once.
const CLIENTS: usize = 3;
/// The honest client's patience, in steps of 100 ms.
const PATIENCE: u64 = 100;

pub(crate) fn run(data: &[u8]) {
    let mut input = Input(data);
    let how = input.byte();
    let mut bench = match how % 5 {
        0 => Bench::new(NodeId::A, Superblock::default()),
        1 => attached(),
        2 => dual(),
        3 => secondary(),
        _ => Bench::new(NodeId::B, alone(Generation(1))),
    };
    bench.hostile_peer = how & 0x80 != 0;
    while !input.is_empty() && !bench.exited {
        step(&mut bench, &mut input);
    }
    if !bench.hostile_peer && how % 5 < 3 && !bench.exited {
        serves_the_next(&mut bench);
    }
}

// ---- beginnings -----------------------------------------------------------------------------------------------------

/// The other node serves alone.
fn alone(generation: Generation) -> Superblock {
    let members = Members::solo(Member { node: NodeId::A, incarnation: other(1) });
    Superblock { counter: 1, epoch: Epoch(1), primary: Some(NodeId::A), members, generation, clean: false }
}

fn attached() -> Bench {
    let mut bench = Bench::new(NodeId::A, Superblock::default());
    bench.settle();
    client_up(&mut bench);
    let conn = *bench.clients.keys().next().expect("it has just come");
    bench.client(conn, ClientMsg::Attach { over: Generation::ZERO });
    bench.settle();
    assert!(bench.attached.is_some());
    bench
}

fn dual() -> Bench {
    let mut bench = attached();
    link_up(&mut bench);
    for beat in 0..100 {
        bench.wait(50);
        let body = PeerBody::Status { role: Role::Waiting, beat: beat + 1, paths: true };
        peer_says(&mut bench, body);
        bench.settle();
    }
    peer_says(&mut bench, PeerBody::JoinRequest);
    acks(&mut bench, 0, 0);
    bench.settle();
    assert!(bench.status().dual, "{:?}", bench.status());
    bench
}

fn secondary() -> Bench {
    let mut bench = Bench::new(NodeId::B, alone(Generation(1)));
    link_up(&mut bench);
    bench.settle();
    let superblock = bench.disk.superblock;
    peer_says(&mut bench, PeerBody::Status { role: Role::Primary, beat: 1, paths: true });
    peer_says(&mut bench, PeerBody::Announce { superblock });
    for _ in 0..4 {
        bench.wait(50);
        bench.settle();
    }
    peer_says(&mut bench, PeerBody::JoinAccept { generation: Generation(1), first: Some(Seq(1)) });
    let me = Member { node: NodeId::B, incarnation: bench.status().incarnation };
    let superblock = Superblock { counter: 2, epoch: Epoch(2), members: superblock.members.with(me), ..superblock };
    bench.disk.superblock = superblock;
    peer_says(&mut bench, PeerBody::Announce { superblock });
    bench.settle();
    assert_eq!(bench.status().role, Role::Secondary);
    bench
}

// ---- the script -----------------------------------------------------------------------------------------------------

fn step(bench: &mut Bench, input: &mut Input<'_>) {
    match input.byte() % 24 {
        0 => bench.wait(10),
        1 => bench.wait(u64::from(input.byte()) * 20),
        2 => {
            let which = input.below(8);
            bench.answer(which, input.byte());
        }
        3 | 4 => bench.settle(),
        5 => client_up(bench),
        6 => client_down(bench, input),
        7..=9 => next_blob(bench, input),
        10 => any_blob(bench, input),
        11 | 12 => client_says(bench, input),
        13 => {
            let conn = client(bench, input);
            let said = sealed_message(input.counted());
            if let (Some(conn), Some(Ok(msg))) = (conn, said.map(|bytes| ClientMsg::decode(&bytes))) {
                bench.client(conn, msg);
            }
        }
        14 => acks(bench, u64::from(input.byte() % 4), u64::from(input.byte() % 4)),
        15 => {
            let role = Role::ALL[input.below(Role::ALL.len())];
            let beat = bench.now;
            peer_says(bench, PeerBody::Status { role, beat, paths: true });
        }
        16 => peer_says(bench, PeerBody::JoinRequest),
        17 => match bench.link.take() {
            Some(link) => bench.event(Event::LinkDown { link: LinkId(link) }),
            None => link_up(bench),
        },
        18 => bench.event(Event::Paths { usable: input.flag() }),
        19 => bench.event(Event::Switchover),
        // What only a node can do that lies.
        _ if !bench.hostile_peer => bench.settle(),
        20 | 21 => any_word(bench, input),
        22 => any_mailbox(bench, input),
        _ => relayed(bench, input),
    }
}

fn client_up(bench: &mut Bench) {
    if bench.clients.len() < CLIENTS {
        let conn = bench.name();
        bench.clients.insert(conn, false);
        bench.event(Event::ClientUp { conn: ConnId(conn) });
    }
}

fn client(bench: &Bench, input: &mut Input<'_>) -> Option<u64> {
    let which = input.below(CLIENTS);
    bench.clients.keys().nth(which % bench.clients.len().max(1)).copied()
}

fn client_down(bench: &mut Bench, input: &mut Input<'_>) {
    if let Some(conn) = client(bench, input) {
        bench.clients.remove(&conn);
        bench.event(Event::ClientDown { conn: ConnId(conn) });
    }
}

/// As an honest client would put it.
fn next_blob(bench: &mut Bench, input: &mut Input<'_>) {
    let status = bench.status();
    let seq = status.received.next();
    let blob = Blob {
        generation: status.generation,
        seq,
        kind: BlobKind::Write,
        lba: Lba(u64::from(input.byte() % 6)),
        blocks: 1,
        data_pos: seq.0.wrapping_sub(1).wrapping_mul(u64::from(BLOCK)),
        payload_len: BLOCK,
    };
    put(bench, input, blob);
}

fn any_blob(bench: &mut Bench, input: &mut Input<'_>) {
    let status = bench.status();
    let kind = [BlobKind::Write, BlobKind::Zeroes, BlobKind::Discard][input.below(3)];
    let blocks = input.short(1);
    let seq = Seq(input.number(status.received.0));
    let blob = Blob {
        generation: Generation(input.number(status.generation.0)),
        seq,
        kind,
        lba: Lba(input.number(VOLUME_BLOCKS - 1)),
        blocks,
        data_pos: input.number(seq.0.wrapping_mul(u64::from(BLOCK))),
        payload_len: if kind == BlobKind::Write { blocks.wrapping_mul(BLOCK) } else { 0 },
    };
    put(bench, input, blob);
}

fn put(bench: &mut Bench, input: &mut Input<'_>, blob: Blob) {
    let descriptor = Descriptor { blob, payload_crc: None, timed: false };
    if let (Some(conn), Ok(taken)) = (client(bench, input), Descriptor::decode(&descriptor.encode())) {
        bench.blob(conn, taken.blob);
    }
}

fn client_says(bench: &mut Bench, input: &mut Input<'_>) {
    let status = bench.status();
    let Some(conn) = client(bench, input) else { return };
    let kind = input.byte();
    let msg = match kind % 6 {
        // Over a live session, or not.
        0 => ClientMsg::Attach { over: if kind < 128 { Generation::ZERO } else { status.generation } },
        1 => ClientMsg::Resume {
            generation: Generation(input.number(status.generation.0)),
            first: Seq(input.number(status.received.0)),
        },
        2 => ClientMsg::Read {
            id: u64::from(input.byte()),
            epoch: Epoch(input.number(status.superblock.epoch.0)),
            after: Seq(input.number(status.received.0)),
            lba: Lba(input.number(0)),
            blocks: input.short(1),
            slot: input.short(0),
        },
        3 => ClientMsg::Unreachable {
            node: NodeId::BOTH[input.below(2)],
            epoch: Epoch(input.number(status.superblock.epoch.0)),
            generation: Generation(input.number(status.generation.0)),
        },
        4 => ClientMsg::Heartbeat,
        _ => ClientMsg::Detach,
    };
    bench.client(conn, msg);
}

// ---- the other node -------------------------------------------------------------------------------------------------

fn link_up(bench: &mut Bench) {
    let link = bench.name();
    bench.link = Some(link);
    bench.event(Event::LinkUp { link: LinkId(link), peer: other(bench.peer) });
}

/// What it may say, in this epoch.
fn peer_says(bench: &mut Bench, body: PeerBody) {
    let status = bench.status();
    let (epoch, to) = (status.superblock.epoch, Some(status.incarnation));
    say(bench, PeerMsg { epoch, from: other(bench.peer), to, body });
}

fn say(bench: &mut Bench, msg: PeerMsg) {
    if let (Some(link), Ok(msg)) = (bench.link, PeerMsg::decode(msg.encode().as_bytes())) {
        bench.event(Event::Peer { link: LinkId(link), msg });
    }
}

/// An honest ACK: it has `less` fewer than this node, and has released `kept` fewer than that.
fn acks(bench: &mut Bench, less: u64, kept: u64) {
    let status = bench.status();
    let received = Seq(status.received.0.saturating_sub(less));
    bench.mailbox(Mailbox::Ack {
        epoch: status.superblock.epoch,
        from: other(bench.peer),
        to: status.incarnation,
        generation: status.generation,
        first: Some(Seq(1)),
        received,
        released: Seq(received.0.saturating_sub(kept)),
    });
}

fn anybody(bench: &Bench, input: &mut Input<'_>) -> Incarnation {
    match input.byte() % 4 {
        0 => bench.status().incarnation,
        1 | 2 => other(bench.peer),
        _ => other(u64::from(input.byte())),
    }
}

fn any_superblock(bench: &mut Bench, input: &mut Input<'_>) -> Superblock {
    let now = bench.status().superblock;
    let mut member = || input.flag().then(|| anybody(bench, input));
    let members = Members([member(), member()]);
    let superblock = Superblock {
        counter: input.number(now.counter),
        epoch: Epoch(input.number(now.epoch.0)),
        primary: [None, Some(NodeId::A), Some(NodeId::B)][input.below(3)],
        members,
        generation: Generation(input.number(now.generation.0)),
        clean: input.flag(),
    };
    // One that no decoder takes stands on no disk either.
    let announced = PeerMsg { epoch: now.epoch, from: other(1), to: None, body: PeerBody::Announce { superblock } };
    if input.flag() && PeerMsg::decode(announced.encode().as_bytes()).is_ok() {
        bench.disk.superblock = superblock;
    }
    superblock
}

fn any_word(bench: &mut Bench, input: &mut Input<'_>) {
    let status = bench.status();
    let body = match input.byte() % 13 {
        0 => {
            let role = Role::ALL[input.below(Role::ALL.len())];
            PeerBody::Status { role, beat: input.number(bench.now), paths: input.flag() }
        }
        1 | 2 => PeerBody::Announce { superblock: any_superblock(bench, input) },
        3 => PeerBody::JoinRequest,
        4 => PeerBody::JoinAccept {
            generation: Generation(input.number(status.generation.0)),
            first: input.flag().then(|| Seq(input.number(status.received.0))),
        },
        5 => PeerBody::JoinAbort,
        6 => PeerBody::CloseSession { generation: Generation(input.number(status.generation.0)) },
        7 => PeerBody::DropLane { generation: Generation(input.number(status.generation.0)) },
        8 => PeerBody::LaneDropped { generation: Generation(input.number(status.generation.0)) },
        9 => PeerBody::Leave,
        10 => PeerBody::TakeOver,
        11 => PeerBody::HandOver { superblock: any_superblock(bench, input) },
        _ => PeerBody::AskHandOver,
    };
    let epoch = Epoch(input.number(status.superblock.epoch.0));
    let (from, to) = (anybody(bench, input), input.flag().then(|| anybody(bench, input)));
    // Mostly what fits, as the rest is ignored.
    let msg = match input.byte() % 4 {
        0 => PeerMsg { epoch, from, to, body },
        _ => PeerMsg { epoch: status.superblock.epoch, from: other(bench.peer), to: Some(status.incarnation), body },
    };
    say(bench, msg);
}

fn any_mailbox(bench: &mut Bench, input: &mut Input<'_>) {
    let status = bench.status();
    let epoch = Epoch(input.number(status.superblock.epoch.0));
    let (from, to) = (anybody(bench, input), anybody(bench, input));
    let generation = Generation(input.number(status.generation.0));
    let (received, released) = (Seq(input.number(status.received.0)), Seq(input.number(status.released.0)));
    let mailbox = match input.byte() % 3 {
        0 if released <= received && received.0 - released.0 <= u64::from(twinsan_wire::limits::MAX_LANE_SLOTS) => {
            let first = input.flag().then(|| Seq(input.number(1).max(1)));
            Mailbox::Ack { epoch, from, to, generation, first, received, released }
        }
        1 => Mailbox::Completion { epoch, from, generation, durable: Some(received), released, relayed: input.flag() },
        _ => Mailbox::Released { epoch, from, to, generation, released },
    };
    bench.mailbox(mailbox);
}

/// Rule 14, by who does not keep to it.
fn relayed(bench: &mut Bench, input: &mut Input<'_>) {
    let status = bench.status();
    match input.byte() % 4 {
        0 if bench.clients.len() < CLIENTS => {
            let (conn, from) = (bench.name(), anybody(bench, input));
            bench.clients.insert(conn, false);
            bench.event(Event::RelayAccepted { conn: ConnId(conn), from });
        }
        1 => {
            if let Some(relay) = bench.relay.take() {
                bench.event(Event::RelayDown { relay: RelayId(relay) });
            }
        }
        _ => {
            let msg = NodeMsg::Resumed {
                generation: Generation(input.number(status.generation.0)),
                from: anybody(bench, input),
                received: Seq(input.number(status.received.0)),
            };
            if let Some(relay) = bench.relay {
                bench.event(Event::Relay { relay: RelayId(relay), msg });
            }
        }
    }
}

// ---- the end --------------------------------------------------------------------------------------------------------

/// Those who made trouble go, and so does the other node; the disk works. An honest client is served.
fn serves_the_next(bench: &mut Bench) {
    bench.event(Event::Paths { usable: true });
    // One by one: the others may be told of it, or closed.
    while let Some((conn, _)) = bench.clients.pop_first() {
        bench.event(Event::ClientDown { conn: ConnId(conn) });
    }
    if let Some(link) = bench.link.take() {
        bench.event(Event::LinkDown { link: LinkId(link) });
    }
    bench.attached = None;
    goes_on_until(bench, |bench| bench.status().role == Role::Primary && !bench.status().dual);
    client_up(bench);
    let conn = *bench.clients.keys().next().expect("it has just come");
    // Refused while an earlier attach is being carried out, whose client has gone: it asks again.
    for _ in 0..PATIENCE {
        bench.client(conn, ClientMsg::Attach { over: Generation::ZERO });
        bench.settle();
        if bench.attached.is_some() {
            break;
        }
        bench.wait(100);
    }
    let (_, generation) = bench.attached.expect("an honest client is let in");
    let (lba, payload_len) = (Lba(VOLUME_BLOCKS - 1), BLOCK);
    let blob = Blob { generation, seq: Seq(1), kind: BlobKind::Write, lba, blocks: 1, data_pos: RING, payload_len };
    bench.blob(conn, blob);
    goes_on_until(bench, |bench| bench.completed.get(&generation) == Some(&Seq(1)));
    let (epoch, answered) = (bench.status().superblock.epoch, bench.answered);
    bench.client(conn, ClientMsg::Read { id: 1, epoch, after: Seq(1), lba, blocks: 1, slot: 0 });
    goes_on_until(bench, |bench| bench.answered > answered);
}

fn goes_on_until(bench: &mut Bench, wanted: impl Fn(&Bench) -> bool) {
    for _ in 0..PATIENCE {
        bench.settle();
        if wanted(bench) {
            return;
        }
        bench.wait(100);
    }
    panic!("an honest client is not served: {:?}", bench.status());
}
