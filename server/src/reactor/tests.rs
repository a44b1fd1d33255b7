//! The reactor over a fabric that remembers what was done to it, with a real disk below and the clock in the test's hand.

use std::time::Instant;

use twinsan_auth::{Connector, ConnectorStep, Key};
use twinsan_fabric::CloseReason;
use twinsan_wire::message::{LaneGrant, Purpose, RemoteKey, SetupMsg, VolumeName};
use twinsan_wire::{
    Epoch, Generation, Incarnation, Mailbox, Members, NodeFrame, NodeMsg, PeerBody, PeerMsg, Rejection, Role, Seq,
    Times,
};

use super::*;
use crate::fake::{Call, Fake};
use crate::testbed::{self, Testbed};

const NONCE: [u8; 32] = [9; 32];

struct Rig {
    _bed: Testbed,
    reactor: Reactor<Fake>,
}

impl Rig {
    /// Of this node, not started: the machine has said nothing yet.
    fn new(node: NodeId, key: Option<Key>) -> Self {
        let bell = Doorbell::new().unwrap();
        let (bed, volume) = testbed::volume(node, &bell);
        let (_, requests) = crossbeam_channel::bounded(1);
        let signals = Signals::catch(1).unwrap().remove(0);
        let ears = Ears { bell, signals, requests, watchdog: Watchdog::from_environment(1).remove(0) };
        let keyring = Keyring::from_iter([(volume.facts.name, key)]);
        let identity = Identity { node, name: "san1".to_owned(), keyring };
        let reactor = Reactor::new(Fake::new(), vec![volume], identity, ears, Clock::start(), 50).unwrap();
        Self { _bed: bed, reactor }
    }

    fn take(&mut self) -> Vec<Call> {
        self.reactor.flush_outboxes();
        self.reactor.fabric.take()
    }

    fn message(&mut self, conn: ConnId, bytes: &[u8]) {
        self.reactor.fabric_event(FabricEvent::Message { conn, bytes: bytes.into() });
    }

    /// What was sent to `conn` since the last look.
    fn sent(&mut self, conn: ConnId) -> Vec<Vec<u8>> {
        let of = |call| match call {
            Call::Send { conn: to, bytes } if to == conn => Some(bytes),
            _ => None,
        };
        self.take().into_iter().filter_map(of).collect()
    }

    /// A connection that proves itself for `purpose`, up to its Ready.
    fn let_in(&mut self, conn: ConnId, purpose: Purpose) {
        let (mut connector, hello) = Connector::new(purpose, name(), None, NONCE);
        self.reactor.fabric_event(FabricEvent::Accepted { conn });
        self.message(conn, hello.encode().as_bytes());
        loop {
            let [bytes] = &self.sent(conn)[..] else { panic!("one answer to each message") };
            match connector.handle_bytes(bytes).unwrap() {
                ConnectorStep::Send(msg) => self.message(conn, msg.encode().as_bytes()),
                ConnectorStep::Welcomed(_) => break,
            }
        }
        let reads = matches!(purpose, Purpose::Client).then_some(RemoteKey(2));
        self.message(conn, SetupMsg::Ready { mailbox: RemoteKey(1), reads }.encode().as_bytes());
    }

    fn counter(&self, name: &str) -> u64 {
        self.reactor.volumes[0].counters.by_name()[name]
    }
}

fn name() -> VolumeName {
    VolumeName::new("db").unwrap()
}

fn peer() -> Purpose {
    Purpose::Peer { node: NodeId::B, incarnation: Incarnation::from_random(77) }
}

#[test]
fn a_client_that_is_let_in_is_told_who_serves() {
    let mut rig = Rig::new(NodeId::A, None);
    rig.let_in(ConnId(1), Purpose::Client);
    let [view] = &rig.sent(ConnId(1))[..] else { panic!("one message") };
    assert!(matches!(NodeFrame::decode(view).unwrap().msg, NodeMsg::View { .. }));
    assert_eq!(rig.counter("clients_connected"), 1);
}

#[test]
fn closing_lets_the_last_word_leave_and_then_nothing_in() {
    let mut rig = Rig::new(NodeId::A, None);
    let conn = ConnId(1);
    rig.let_in(conn, Purpose::Client);
    rig.take();
    let id = twinsan_replica::ConnId(1);
    let msg = NodeMsg::Refused { why: twinsan_wire::Refusal::Superseded };
    rig.reactor.act(0, Action::SendClient { conn: id, msg });
    rig.reactor.act(0, Action::CloseClient { conn: id });
    let last_word = Call::Send { conn, bytes: NodeFrame { msg, grant: None }.encode().as_bytes().to_vec() };
    assert_eq!(rig.reactor.fabric.take(), [last_word, Call::Submit(conn), Call::Disconnect(conn)]);
    // What the same poll had brought already is of nobody.
    rig.message(conn, b"nonsense that would be a violation");
    rig.reactor.fabric_event(FabricEvent::Immediate { conn, imm: 0 });
    rig.reactor.fabric_event(FabricEvent::Closed { conn, why: CloseReason::Ended });
    assert_eq!(rig.take(), []);
    assert_eq!(rig.counter("violations"), 0);
}

#[test]
fn a_new_link_destroys_the_one_before_it() {
    let mut rig = Rig::new(NodeId::A, None);
    rig.let_in(ConnId(1), peer());
    rig.take();
    rig.let_in(ConnId(2), peer());
    assert!(rig.take().contains(&Call::Disconnect(ConnId(1))));
    assert!(matches!(rig.reactor.conns.get(ConnId(2)).unwrap().stage, Stage::Link { .. }));
    assert_eq!(rig.counter("links_connected"), 2);
}

#[test]
fn a_probe_is_answered_and_never_becomes_a_link() {
    let mut rig = Rig::new(NodeId::A, None);
    let conn = ConnId(1);
    let (mut connector, hello) = Connector::new(Purpose::Probe { node: NodeId::B }, name(), None, NONCE);
    rig.reactor.fabric_event(FabricEvent::Accepted { conn });
    rig.message(conn, hello.encode().as_bytes());
    let ConnectorStep::Send(proof) = connector.handle_bytes(&rig.sent(conn)[0]).unwrap() else { panic!("a proof") };
    rig.message(conn, proof.encode().as_bytes());
    let calls = rig.take();
    assert!(!calls.iter().any(|call| matches!(call, Call::Expose { .. })), "a probe gets no key: {calls:?}");
    assert!(matches!(rig.reactor.conns.get(conn).unwrap().stage, Stage::Parting));
    rig.reactor.now += SETUP_TIMEOUT_MS;
    rig.reactor.expire();
    assert_eq!(rig.take(), [Call::Disconnect(conn)]);
}

#[test]
fn who_does_not_know_the_key_is_told_no_and_nothing_else() {
    let mut rig = Rig::new(NodeId::A, Some(Key::new(&[1; 32]).unwrap()));
    let conn = ConnId(1);
    let (_, hello) = Connector::new(Purpose::Client, name(), None, NONCE);
    rig.reactor.fabric_event(FabricEvent::Accepted { conn });
    rig.message(conn, hello.encode().as_bytes());
    let rejected = SetupMsg::Rejected { why: Rejection::WrongKey };
    assert_eq!(rig.sent(conn), [rejected.encode().as_bytes()]);
    assert_eq!(rig.counter("setups_rejected"), 1);
    rig.message(conn, hello.encode().as_bytes());
    assert!(rig.take().contains(&Call::Disconnect(conn)), "whatever comes after a no is cut off");
}

#[test]
fn whoever_says_nothing_is_cut_off_in_time() {
    let mut rig = Rig::new(NodeId::A, None);
    rig.reactor.fabric_event(FabricEvent::Accepted { conn: ConnId(1) });
    rig.reactor.now += SETUP_TIMEOUT_MS - 1;
    rig.reactor.expire();
    assert_eq!(rig.take(), []);
    rig.reactor.now += 1;
    rig.reactor.expire();
    assert_eq!(rig.take(), [Call::Disconnect(ConnId(1))]);
}

/// Begins a probe as the machine would; returns the connection of the first address.
fn dialled(rig: &mut Rig) -> ConnId {
    rig.take();
    rig.reactor.act(0, Action::Probe);
    assert_eq!(rig.reactor.fabric.take(), [Call::Connect("unix:///first.fabric".to_owned())]);
    rig.reactor.volumes[0].dials[0].as_ref().unwrap().conn.unwrap()
}

fn close(rig: &mut Rig, conn: ConnId, why: &CloseReason) -> Vec<Call> {
    rig.reactor.closed(conn, why);
    rig.take()
}

#[test]
fn a_probe_goes_through_all_addresses_before_it_says_refused() {
    let mut rig = Rig::new(NodeId::A, None);
    let conn = dialled(&mut rig);
    let calls = close(&mut rig, conn, &CloseReason::Refused);
    assert_eq!(calls, [Call::Connect("unix:///second.fabric".to_owned())]);
    let conn = rig.reactor.volumes[0].dials[0].as_ref().unwrap().conn.unwrap();
    close(&mut rig, conn, &CloseReason::Refused);
    assert!(rig.reactor.volumes[0].dials[0].is_none());
}

#[test]
fn a_silent_address_is_left_in_time() {
    let mut rig = Rig::new(NodeId::A, None);
    let conn = dialled(&mut rig);
    rig.reactor.now += crate::limits::DIAL_TIMEOUT_MS;
    rig.reactor.expire();
    let calls = rig.take();
    assert_eq!(calls, [Call::Disconnect(conn), Call::Connect("unix:///second.fabric".to_owned())]);
}

/// Two dead addresses before the right one would take longer than rule 7 waits.
#[test]
fn a_relay_dials_the_address_first_that_answered_last_and_waits_less() {
    let mut rig = Rig::new(NodeId::A, None);
    rig.take();
    rig.reactor.volumes[0].answered = 1;
    rig.reactor.act(0, Action::RelayConnect { to: Incarnation::from_random(7) });
    assert_eq!(rig.take(), [Call::Connect("unix:///second.fabric".to_owned())]);
    let conn = rig.reactor.volumes[0].dials[1].as_ref().unwrap().conn.unwrap();
    rig.reactor.now += rig.reactor.volumes[0].facts.relay_dial_ms;
    rig.reactor.expire();
    assert_eq!(rig.take(), [Call::Disconnect(conn), Call::Connect("unix:///first.fabric".to_owned())]);
}

#[test]
fn a_new_incarnation_voids_what_was_said_in_the_old_ones_name() {
    let mut rig = Rig::new(NodeId::B, None);
    let conn = dialled(&mut rig);
    rig.reactor.act(0, Action::Incarnation(Incarnation::from_random(123)));
    assert_eq!(rig.reactor.fabric.take(), [Call::Disconnect(conn)]);
    assert!(rig.reactor.volumes[0].dials[0].is_none());
    assert!(matches!(rig.reactor.inbox.front(), Some((0, Event::Probed(twinsan_replica::Probe::Silent)))));
}

#[test]
fn news_of_the_paths_reach_the_machine() {
    let mut rig = Rig::new(NodeId::A, None);
    let bell = Doorbell::new().unwrap();
    let teller = rig.reactor.volumes[0].paths.teller(bell);
    for usable in [false, true] {
        teller.tell(usable);
        rig.reactor.answer_bell();
        assert_eq!(rig.reactor.volumes[0].replica.status().paths, usable);
    }
}

/// Gives a connection's client the lane, as far as the table knows.
fn grant(rig: &mut Rig, conn: ConnId) {
    let stage = &mut rig.reactor.conns.get_mut(conn).unwrap().stage;
    let Stage::Client { grant, .. } = stage else { panic!("{stage:?}") };
    *grant = Some(LaneGrant { descriptors: RemoteKey(3), data: RemoteKey(4) });
}

#[test]
fn whoever_has_had_no_lane_for_the_longest_makes_room_and_who_has_one_does_not() {
    let mut rig = Rig::new(NodeId::A, None);
    let limit = crate::limits::MAX_CONNECTIONS as u64;
    for conn in 0..limit {
        rig.let_in(ConnId(conn), Purpose::Client);
    }
    rig.take();
    grant(&mut rig, ConnId(0));
    rig.reactor.fabric_event(FabricEvent::Accepted { conn: ConnId(limit) });
    assert_eq!(rig.take(), [Call::Disconnect(ConnId(1))]);
    rig.reactor.fabric_event(FabricEvent::Accepted { conn: ConnId(limit + 1) });
    assert_eq!(rig.take(), [Call::Disconnect(ConnId(limit))], "who has not even proven anything goes before");
}

#[test]
fn too_many_connections_are_turned_away() {
    let mut rig = Rig::new(NodeId::A, None);
    let limit = crate::limits::MAX_CONNECTIONS as u64;
    for conn in 0..limit {
        rig.let_in(ConnId(conn), Purpose::Client);
        grant(&mut rig, ConnId(conn));
    }
    rig.take();
    rig.reactor.fabric_event(FabricEvent::Accepted { conn: ConnId(limit) });
    assert_eq!(rig.take(), [Call::Disconnect(ConnId(limit))]);
}

/// What the fabric finds counts like what is found here; who has proven nothing is not the volume's matter.
#[test]
fn a_violation_that_the_fabric_finds_is_counted() {
    let mut rig = Rig::new(NodeId::A, None);
    rig.let_in(ConnId(1), Purpose::Client);
    rig.reactor.fabric_event(FabricEvent::Accepted { conn: ConnId(2) });
    for (conn, counted) in [(2, 0), (1, 1)] {
        let why = CloseReason::Violation("a write beyond its range".to_owned());
        rig.reactor.fabric_event(FabricEvent::Closed { conn: ConnId(conn), why });
        assert_eq!(rig.counter("violations"), counted);
    }
}

#[test]
fn a_crowd_that_proves_nothing_keeps_nobody_out() {
    let mut rig = Rig::new(NodeId::A, None);
    rig.let_in(ConnId(0), peer());
    rig.take();
    let limit = crate::limits::MAX_CONNECTIONS as u64;
    for conn in 1..=limit {
        rig.reactor.fabric_event(FabricEvent::Accepted { conn: ConnId(conn) });
    }
    assert_eq!(rig.take(), [Call::Disconnect(ConnId(1))], "the one that has had longest, and not the link");
    rig.let_in(ConnId(limit + 1), Purpose::Client);
    assert_eq!(rig.counter("clients_connected"), 1);
    assert!(matches!(rig.reactor.conns.get(ConnId(0)).unwrap().stage, Stage::Link { .. }));
}

#[test]
fn who_asks_how_long_a_blob_took_is_told_behind_the_word_that_ends_it() {
    let mut rig = Rig::new(NodeId::A, None);
    let conn = ConnId(1);
    rig.let_in(conn, Purpose::Client);
    rig.take();
    let generation = Generation(4);
    rig.reactor.volumes[0].stopwatch.came(conn, generation, Seq(9), Instant::now());
    let (epoch, from) = (Epoch(2), Incarnation::from_random(77));
    let completion = |durable| Mailbox::Completion {
        epoch,
        from,
        generation,
        durable: Some(Seq(durable)),
        released: Seq(0),
        relayed: false,
    };
    let complete = |mailbox| Action::ClientMailbox { conn: twinsan_replica::ConnId(1), mailbox };
    rig.reactor.act(0, complete(completion(8)));
    assert!(matches!(&rig.take()[..], [Call::WriteImm { .. }, Call::Submit(_)]), "it does not cover the blob");
    rig.reactor.act(0, complete(completion(9)));
    let calls = rig.take();
    let [Call::WriteImm { .. }, Call::Send { bytes, .. }, Call::Submit(_)] = &calls[..] else { panic!("{calls:?}") };
    let times = Times::decode(bytes).unwrap();
    assert_eq!((times.generation, times.seq, times.to_ack_ns), (generation, Seq(9), None));
    assert!(times.to_completion_ns.is_some());
    // A connection takes what it asked with it.
    rig.reactor.volumes[0].stopwatch.came(conn, generation, Seq(10), Instant::now());
    rig.reactor.fabric_event(FabricEvent::Closed { conn, why: CloseReason::Ended });
    assert!(rig.reactor.volumes[0].stopwatch.is_idle());
}

#[test]
fn heartbeats_at_rest_wake_neither_the_other_node_nor_the_client() {
    let mut rig = Rig::new(NodeId::A, None);
    let (link, client) = (ConnId(1), ConnId(2));
    rig.let_in(link, peer());
    rig.let_in(client, Purpose::Client);
    rig.take();
    let me = Incarnation::from_random(1);
    // What a primary says with each heartbeat.
    let mut beat = |beat, role, released| {
        let body = PeerBody::Status { role, beat, paths: true };
        let msg = PeerMsg { epoch: Epoch(1), from: me, to: None, body };
        let members = Members::NONE;
        let (generation, epoch) = (Generation(1), Epoch(1));
        let view = NodeMsg::View { role, from: me, epoch, primary: None, members, joiner: None, generation };
        let mailbox = Mailbox::Released { epoch, from: me, to: me, generation, released: Seq(released) };
        rig.reactor.act(0, Action::SendPeer { link: LinkId(link.0), msg });
        rig.reactor.act(0, Action::SendClient { conn: twinsan_replica::ConnId(client.0), msg: view });
        rig.reactor.act(0, Action::PeerMailbox { link: LinkId(link.0), mailbox });
        let mut doorbells = rig.take();
        doorbells.retain(|call| matches!(call, Call::Submit(_) | Call::SubmitUnsolicited(_)));
        doorbells
    };
    let (wake, spare) = (Call::Submit, Call::SubmitUnsolicited);
    assert_eq!(beat(1, Role::Waiting, 0), [wake(link), wake(client)]);
    assert_eq!(beat(2, Role::Waiting, 0), [spare(link), spare(client)]);
    assert_eq!(beat(3, Role::Waiting, 0), [spare(link), spare(client)]);
    assert_eq!(beat(4, Role::Primary, 0), [wake(link), wake(client)], "another role is news");
    assert_eq!(beat(5, Role::Primary, 7), [wake(link), spare(client)], "and what may be forgotten");
    assert_eq!(beat(6, Role::Primary, 7), [spare(link), spare(client)]);
    let msg = PeerMsg { epoch: Epoch(1), from: me, to: None, body: PeerBody::Leave };
    for _ in 0..2 {
        rig.reactor.act(0, Action::SendPeer { link: LinkId(link.0), msg });
        assert_eq!(rig.take().last(), Some(&wake(link)), "all other words wake, each time");
    }
}
