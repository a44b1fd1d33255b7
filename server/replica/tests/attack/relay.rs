//! The relay (rule 14) at the bench: when it is wanted, what is posted, whose word counts, and when it is given up.

use twinsan_replica::{Action, ConnId, Event, HandedOver, LinkId, RelayId, RelayPhase};
use twinsan_wire::{ClientMsg, Generation, Mailbox, NodeId, NodeMsg, PeerBody, Role, Seq, Superblock};

use crate::rig::{Rig, other, tells};

fn word(rig: &Rig) -> ClientMsg {
    let superblock = rig.status().superblock;
    ClientMsg::Unreachable { node: NodeId::B, epoch: superblock.epoch, generation: superblock.generation }
}

/// Two members, of which the client reaches this one; three blobs are here, and one there. The dial is not answered.
fn wanted() -> Rig {
    let mut rig = Rig::dual();
    rig.peer_status(1, 1, Role::Secondary);
    rig.hold(|action| matches!(action, Action::RelayConnect { .. } | Action::Flush { .. }));
    for seq in 1..=3 {
        rig.write(1, seq, seq);
    }
    rig.ack(1, Some(Seq(1)), Seq(1));
    rig.said();
    let msg = word(&rig);
    rig.client(1, msg);
    assert!(rig.said().contains(&Action::RelayConnect { to: other(1) }));
    rig
}

fn dialled(rig: &mut Rig, relay: u64) {
    let is_dial = |action: &Action| matches!(action, Action::RelayConnect { .. });
    rig.end(is_dial, Event::RelayDialled(Some(RelayId(relay))));
}

fn resumed(rig: &mut Rig, relay: u64, received: u64) {
    let msg = NodeMsg::Resumed { generation: rig.status().generation, from: other(1), received: Seq(received) };
    rig.event(Event::Relay { relay: RelayId(relay), msg });
}

fn feeding() -> Rig {
    let mut rig = wanted();
    dialled(&mut rig, 7);
    resumed(&mut rig, 7, 1);
    assert_eq!(rig.status().relay, RelayPhase::Feeding);
    rig
}

fn posted(rig: &mut Rig) -> Vec<u64> {
    let of = |action| if let Action::RelayPost { blob, .. } = action { Some(blob.seq.0) } else { None };
    rig.said().into_iter().filter_map(of).collect()
}

#[test]
fn it_says_what_a_client_would_and_feeds_what_is_missing() {
    let mut rig = wanted();
    dialled(&mut rig, 7);
    let msg = ClientMsg::Resume { generation: Generation(1), first: Seq(1) };
    assert!(rig.said().contains(&Action::SendRelay { relay: RelayId(7), msg }));
    resumed(&mut rig, 7, 1);
    assert_eq!(posted(&mut rig), [2, 3]);
    let msg = word(&rig);
    rig.client(1, msg); // Again and again: it is there.
    rig.write(1, 4, 4);
    assert_eq!(posted(&mut rig), [4]);
    rig.ack(1, Some(Seq(1)), Seq(4));
    assert_eq!(rig.completed(), Seq(4));
}

/// The client is told the lower one of both positions, and that it holds for both; and only while one feeds the other.
#[test]
fn released_is_what_both_have_released() {
    let mut rig = feeding();
    rig.let_go();
    rig.ack_and_release(1, Some(Seq(1)), Seq(3), Seq::ZERO);
    rig.wait_with(200, 1, 1, Role::Secondary);
    assert_eq!(rig.status().released, Seq(3));
    let told = |rig: &mut Rig| {
        let of = |action: &Action| match action {
            Action::ClientMailbox { mailbox: Mailbox::Completion { released, relayed, .. }, .. } => {
                Some((*released, *relayed))
            }
            _ => None,
        };
        rig.said().iter().filter_map(of).next_back()
    };
    assert_eq!(told(&mut rig), Some((Seq::ZERO, true)));
    rig.ack_and_release(1, Some(Seq(1)), Seq(3), Seq(2));
    assert_eq!(told(&mut rig), Some((Seq(2), true)));
    rig.ack_and_release(1, Some(Seq(1)), Seq(3), Seq(1));
    assert_eq!(told(&mut rig), None, "what was released stays so");
    rig.event(Event::RelayDown { relay: RelayId(7) });
    assert_eq!(told(&mut rig), Some((Seq(3), false)), "what it had not said while the other one lagged");
    rig.write(1, 4, 4);
    rig.ack_and_release(1, Some(Seq(1)), Seq(4), Seq(3));
    assert_eq!(told(&mut rig), Some((Seq(4), false)), "its own alone");
}

/// Whoever is fed ends it when its client is back; it begins again at a newer word only.
#[test]
fn it_begins_again_at_a_newer_word_only() {
    let mut rig = feeding();
    rig.event(Event::RelayDown { relay: RelayId(7) });
    rig.wait_with(300, 1, 1, Role::Secondary);
    assert_eq!(rig.status().relay, RelayPhase::Off);
    let msg = word(&rig);
    rig.client(1, msg);
    assert_eq!(rig.status().relay, RelayPhase::Connecting);
}

#[test]
fn one_that_brings_nothing_ends_in_rule_7_also_if_it_comes_and_goes() {
    let mut rig = feeding();
    let begun = rig.now;
    for relay in 8.. {
        rig.wait_with(100, 1, 1, Role::Secondary);
        rig.event(Event::RelayDown { relay: RelayId(relay - 1) });
        let msg = word(&rig);
        rig.client(1, msg);
        if rig.status().relay == RelayPhase::Off {
            break; // The pair is being given up.
        }
        dialled(&mut rig, relay);
    }
    assert!((500..700).contains(&(rig.now - begun)), "the drop timeout is 500 ms: {} ms", rig.now - begun);
    rig.let_go();
    assert!(!rig.status().dual, "{:?}", rig.status());
}

/// The answer to a dial that is not wanted any more is closed, and what is said there counts for nothing.
#[test]
fn a_dial_that_was_overtaken() {
    let mut rig = wanted();
    rig.event(Event::LinkUp { link: LinkId(2), peer: other(2) }); // It has died: rule 7.
    dialled(&mut rig, 7);
    assert!(rig.said().contains(&Action::CloseRelay { relay: RelayId(7) }));
    resumed(&mut rig, 7, 1);
    assert_eq!(posted(&mut rig), [0; 0]);
}

/// The client itself has fed it meanwhile, and what it lacked when it answered has been released here.
#[test]
fn an_answer_from_before_the_client_was_back() {
    let mut rig = wanted();
    dialled(&mut rig, 7);
    rig.let_go();
    rig.ack(1, Some(Seq(1)), Seq(3));
    rig.wait_with(200, 1, 1, Role::Secondary);
    assert_eq!(rig.status().released, Seq(3));
    rig.said();
    resumed(&mut rig, 7, 1);
    assert!(rig.said().contains(&Action::CloseRelay { relay: RelayId(7) }));
    assert!(rig.status().dual);
}

// ---- who is fed -------------------------------------------------------------------------------------------------

const RESUME: ClientMsg = ClientMsg::Resume { generation: Generation(1), first: Seq(1) };

fn accepted(rig: &mut Rig, conn: u64, from: u64) {
    rig.event(Event::RelayAccepted { conn: ConnId(conn), from: other(from) });
}

/// Each takes the other's place, and is destroyed before the other one is answered.
#[test]
fn a_relay_and_a_client_take_each_others_place() {
    let mut rig = Rig::secondary();
    rig.event(Event::ClientUp { conn: ConnId(1) });
    rig.client(1, RESUME);
    for (before, after) in [(1, 2), (2, 3)] {
        rig.said();
        if after == 2 {
            accepted(&mut rig, after, 1);
        } else {
            rig.event(Event::ClientUp { conn: ConnId(after) });
        }
        rig.client(after, RESUME);
        let said = rig.said();
        let at = |wanted: &dyn Fn(&Action) -> bool| said.iter().position(wanted).expect("it happens");
        let closed = at(&|action| *action == Action::CloseClient { conn: ConnId(before) });
        let answered = at(&|action| matches!(action, Action::SendClient { msg: NodeMsg::Resumed { .. }, .. }));
        assert!(closed < answered, "{said:?}");
        rig.write(after, after - 1, 5);
        assert_eq!(rig.status().received, Seq(after - 1));
    }
}

/// A mirror believes its primary and nobody else, and a relay that says more than Resume is none.
#[test]
fn who_may_relay_and_what_it_may_say() {
    let mut rig = Rig::secondary();
    accepted(&mut rig, 1, 2);
    rig.client(1, RESUME);
    assert!(rig.said().contains(&Action::CloseClient { conn: ConnId(1) }), "another incarnation");
    for msg in [ClientMsg::Attach { over: Generation::ZERO }, ClientMsg::Detach, ClientMsg::Heartbeat] {
        accepted(&mut rig, 2, 1);
        rig.client(2, msg);
        assert!(rig.said().contains(&Action::CloseClient { conn: ConnId(2) }), "{msg:?}");
    }
    let mut primary = Rig::dual();
    accepted(&mut primary, 2, 1);
    primary.client(2, RESUME);
    assert!(primary.said().contains(&Action::CloseClient { conn: ConnId(2) }), "a primary is fed by its client");
    assert!(primary.status().session);
}

/// Who feeds ends a relay that says anything but Resumed.
#[test]
fn a_relay_hears_no_views() {
    let mut rig = Rig::secondary();
    rig.event(Event::ClientUp { conn: ConnId(1) });
    accepted(&mut rig, 2, 1);
    rig.said();
    rig.wait(60);
    rig.client(2, RESUME);
    let said = rig.said();
    let viewed = |conn| {
        let view = |a: &Action| matches!(a, Action::SendClient { conn: to, msg: NodeMsg::View { .. } } if *to == conn);
        said.iter().any(view)
    };
    assert!(viewed(ConnId(1)) && !viewed(ConnId(2)), "{said:?}");
}

/// Rule 8: the client does not reach a joiner. What it has not ACKed stays here from the moment that its lane may begin
/// where this one's does, and the client hears of nothing as released that the joiner has not released.
#[test]
fn a_joiner_is_fed_and_nothing_is_released_that_it_has_not_acked() {
    let mut rig = Rig::attached();
    rig.write(1, 1, 1);
    rig.joining(1);
    rig.peer_status(1, 1, Role::Joining);
    rig.hold(|action| matches!(action, Action::RelayConnect { .. } | Action::WriteSuperblock(_)));
    let msg = word(&rig);
    rig.client(1, msg);
    assert_eq!(rig.status().joiner, Some(other(1)), "it is not thrown away");
    dialled(&mut rig, 7);
    let msg = ClientMsg::Resume { generation: Generation(1), first: Seq(2) };
    assert!(rig.said().contains(&Action::SendRelay { relay: RelayId(7), msg }));
    for seq in 2..=4 {
        rig.write(1, seq, seq);
    }
    assert_eq!(rig.status().released, Seq(1), "its answer is on the way");
    resumed(&mut rig, 7, 1);
    assert_eq!(posted(&mut rig), [2, 3, 4]);
    rig.ack_and_release(1, Some(Seq(2)), Seq(3), Seq(1));
    assert_eq!((rig.status().flushed, rig.status().released), (Seq(4), Seq(3)));
    assert!(!rig.said().iter().any(|action| matches!(action, Action::WriteSuperblock(_))), "it lacks the last one");
    rig.ack_and_release(1, Some(Seq(2)), Seq(4), Seq(2));
    let told = rig.said().into_iter().rev().find_map(|action| match action {
        Action::ClientMailbox { mailbox: Mailbox::Completion { released, relayed, .. }, .. } => {
            Some((released, relayed))
        }
        _ => None,
    });
    assert_eq!(told, Some((Seq(2), true)));
    // It becomes a member, and is fed on.
    rig.let_go();
    assert!(rig.status().dual && rig.status().relay == RelayPhase::Feeding, "{:?}", rig.status());
}

/// Whoever comes next says what the joiner lacks; until then it would lack what nobody sends.
#[test]
fn a_join_by_relay_ends_with_the_client() {
    let mut rig = Rig::attached();
    rig.joining(1);
    rig.peer_status(1, 1, Role::Joining);
    rig.hold(|action| matches!(action, Action::RelayConnect { .. }));
    let msg = word(&rig);
    rig.client(1, msg);
    dialled(&mut rig, 7);
    rig.said();
    rig.event(Event::ClientDown { conn: ConnId(1) });
    assert!(rig.said().contains(&Action::CloseRelay { relay: RelayId(7) }));
    assert_eq!(rig.status().joiner, None);
}

/// The client reaches B again and feeds it, so B has closed the relay; A never hears of that. The client would wait for ever
/// for what B's ACKs by the relay said of released space.
#[test]
fn one_that_the_client_does_not_ask_for_any_more_ends() {
    let mut rig = feeding();
    rig.ack(1, Some(Seq(1)), Seq(3));
    for _ in 0..30 {
        rig.client(1, ClientMsg::Heartbeat);
        rig.wait_with(50, 1, 1, Role::Secondary);
    }
    assert!(rig.said().contains(&Action::CloseRelay { relay: RelayId(7) }));
    assert_eq!(rig.status().relay, RelayPhase::Off);
}

/// But not while something is on its way by it, nor while the client says that it is needed.
#[test]
fn one_that_is_needed_goes_on() {
    let mut rig = feeding();
    rig.ack(1, Some(Seq(1)), Seq(3));
    for _ in 0..30 {
        let msg = word(&rig);
        rig.client(1, msg);
        rig.wait_with(50, 1, 1, Role::Secondary);
    }
    assert_eq!(rig.status().relay, RelayPhase::Feeding);
}

/// Rule 11: a primary that feeds the other node in the client's place, and loses its paths, keeps the volume: the client
/// does not reach that one, and here RAM does until the lanes are full.
#[test]
fn who_feeds_the_other_node_does_not_ask_it_to_take_over() {
    let mut rig = feeding();
    rig.said();
    rig.event(Event::Paths { usable: false });
    rig.wait_with(100, 1, 1, Role::Secondary);
    assert_eq!(rig.status().relay, RelayPhase::Feeding);
    assert!(!tells(&rig.said(), |body| *body == PeerBody::TakeOver));
}

/// Rule 13: who is to end hands over to one that the client does not reach, too. Until that one is named, it is fed.
#[test]
fn who_ends_feeds_the_other_node_until_that_one_is_named() {
    let mut rig = feeding();
    rig.event(Event::Shutdown);
    assert!(matches!(rig.status().handed_over, HandedOver::UnderWay { .. }), "a batch is in flight");
    rig.said();
    rig.write(1, 4, 4);
    assert_eq!((posted(&mut rig), rig.status().relay), (vec![4], RelayPhase::Feeding));
    rig.end_batch(Ok(()));
    assert_eq!((rig.status().role, rig.status().relay), (Role::Secondary, RelayPhase::Off));
    assert!(rig.said().contains(&Action::CloseRelay { relay: RelayId(7) }));
}

/// What it can't be fed it will lack again: who was given up for that is let in later than who was just lost.
#[test]
fn who_could_not_be_fed_waits_longer() {
    let mut rig = Rig::dual();
    let mut waits = Vec::new();
    for n in 1..=10 {
        rig.hold(|action| matches!(action, Action::RelayConnect { .. }));
        rig.peer_status(n, n, Role::Secondary);
        let msg = word(&rig);
        rig.client(1, msg);
        while rig.status().dual {
            rig.wait_with(50, n, n, Role::Secondary);
        }
        rig.let_go();
        let (since, next) = (rig.now, n + 1);
        rig.link(next, next);
        while rig.status().joiner.is_none() {
            rig.wait(10);
            rig.peer(next, next, PeerBody::JoinRequest);
        }
        waits.push(rig.now - since);
        rig.ack(next, Some(Seq(1)), Seq::ZERO);
        assert!(rig.status().dual, "{:?}", rig.status());
    }
    assert!(waits.iter().any(|&ms| ms > 170), "it would be 150 at most: {waits:?}");
}

/// One dial at a time, or the answers could be taken for each other's.
#[test]
fn a_dial_waits_for_the_end_of_the_one_before() {
    let mut rig = wanted();
    rig.hold(|action| matches!(action, Action::RelayConnect { .. }));
    rig.settle();
    rig.event(Event::ClientUp { conn: ConnId(2) });
    rig.client(2, ClientMsg::Attach { over: Generation(1) });
    rig.peer(1, 1, PeerBody::LaneDropped { generation: Generation(1) });
    assert_eq!((rig.status().generation, rig.status().relay), (Generation(2), RelayPhase::Off));
    rig.peer_status(1, 1, Role::Secondary);
    rig.said();
    let msg = word(&rig);
    rig.client(2, msg);
    let dial = Action::RelayConnect { to: other(1) };
    assert_eq!((rig.status().relay, rig.said().contains(&dial)), (RelayPhase::Connecting, false));
    dialled(&mut rig, 7);
    let said = rig.said();
    assert!(said.contains(&Action::CloseRelay { relay: RelayId(7) }) && said.contains(&dial), "{said:?}");
}

/// In a new epoch what another one has sent counts no more; its own primary's goes on.
#[test]
fn a_relay_ends_with_its_senders_time() {
    let fed = || {
        let mut rig = Rig::secondary();
        accepted(&mut rig, 1, 1);
        rig.client(1, RESUME);
        let named = rig.disk.superblock;
        let superblock = Superblock { counter: named.counter + 1, epoch: named.epoch.next(), ..named };
        rig.disk.superblock = superblock;
        rig.peer(1, 1, PeerBody::Announce { superblock });
        assert!(rig.status().session && rig.status().superblock == superblock);
        rig.said();
        rig
    };
    let mut handed = fed();
    let named = handed.disk.superblock;
    let superblock =
        Superblock { counter: named.counter + 1, epoch: named.epoch.next(), primary: Some(NodeId::B), ..named };
    handed.disk.superblock = superblock;
    handed.peer(1, 1, PeerBody::HandOver { superblock });
    let mut taken = fed();
    taken.event(Event::LinkDown { link: LinkId(1) });
    taken.wait(100);
    for mut rig in [handed, taken] {
        assert_eq!(rig.status().role, Role::Primary);
        assert!(rig.said().contains(&Action::CloseClient { conn: ConnId(1) }));
        rig.write(1, 1, 5);
        assert_eq!((rig.status().session, rig.status().received), (false, Seq::ZERO));
    }
}
