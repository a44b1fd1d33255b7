//! The other node's words: which of them fit, what each leads to, and when it is let in or given up (section 3, rules 7 and 8).

use twinsan_replica::{Action, ConnId, Event, LinkId, Notice, Probe};
use twinsan_wire::{
    ClientMsg, Epoch, Generation, Incarnation, Mailbox, Member, NodeId, PeerBody, PeerMsg, Role, Seq, Superblock,
};

use crate::rig::{Rig, a_alone, is_flush, is_write, other, tells};

fn announces(body: &PeerBody) -> bool {
    matches!(body, PeerBody::Announce { .. })
}

fn is_told_released(rig: &mut Rig, upto: Seq) -> bool {
    rig.said().iter().any(
        |a| matches!(a, Action::PeerMailbox { mailbox: Mailbox::Released { released, .. }, .. } if *released == upto),
    )
}

/// What fits: this epoch, its sender, this incarnation, the session's generation; and with one of them wrong.
fn names(rig: &Rig) -> [(bool, Epoch, Incarnation, Incarnation, Generation); 5] {
    let status = rig.status();
    let (epoch, me, generation) = (status.superblock.epoch, status.incarnation, status.generation);
    [
        (false, epoch.next(), other(1), me, generation),
        (false, epoch, other(2), me, generation),
        (false, epoch, other(1), other(3), generation),
        (false, epoch, other(1), me, generation.next()),
        (true, epoch, other(1), me, generation),
    ]
}

/// A joiner, node B, of node A's incarnation 1.
fn joiner() -> Rig {
    let mut rig = Rig::linked(NodeId::B, a_alone());
    rig.hear_of_primary();
    rig.peer(1, 1, PeerBody::JoinAccept { generation: Generation(1), first: Some(Seq(1)) });
    assert_eq!(rig.status().role, Role::Joining);
    rig
}

/// A mirror with a client; two blobs are here.
fn mirror() -> Rig {
    let mut rig = Rig::secondary();
    rig.event(Event::ClientUp { conn: ConnId(1) });
    rig.client(1, ClientMsg::Resume { generation: Generation(1), first: Seq(1) });
    rig.write(1, 1, 0);
    rig.write(1, 2, 1);
    rig.said();
    rig
}

// ---- what fits ----------------------------------------------------------------------------------------------------

/// Section 3: every mailbox names the epoch, both incarnations and the session, and what does not fit is ignored.
#[test]
fn an_ack_counts_that_fits() {
    for begun in [None, Some(Seq(1))] {
        let mut rig = Rig::dual();
        rig.write(1, 1, 0);
        for (fits, epoch, from, to, generation) in names(&rig) {
            let (received, released) = (Seq(1), Seq::ZERO);
            let mailbox = Mailbox::Ack { epoch, from, to, generation, first: begun, received, released };
            rig.event(Event::PeerMailbox { link: LinkId(1), mailbox });
            assert_eq!(rig.status().durable == Seq(1), fits, "{mailbox:?}");
        }
    }
}

#[test]
fn a_released_position_counts_that_fits() {
    let mut rig = mirror();
    for (fits, epoch, from, to, generation) in names(&rig) {
        let mailbox = Mailbox::Released { epoch, from, to, generation, released: Seq(2) };
        rig.event(Event::PeerMailbox { link: LinkId(1), mailbox });
        assert_eq!(rig.status().released == Seq(2), fits, "{mailbox:?}");
    }
}

#[test]
fn an_order_counts_that_fits() {
    let mut rig = mirror();
    let body = PeerBody::CloseSession { generation: Generation(1) };
    for (fits, epoch, from, to, generation) in names(&rig) {
        let body = if generation == Generation(1) { body } else { PeerBody::CloseSession { generation } };
        rig.event(Event::Peer { link: LinkId(1), msg: PeerMsg { epoch, from, to: Some(to), body } });
        assert_eq!(!rig.status().session, fits, "{body:?} in {epoch:?}");
    }
}

/// Rule 13: what is told to an earlier incarnation is not for this one.
#[test]
fn a_handover_is_told_to_one_incarnation() {
    for (to, taken) in [(other(3), false), (Rig::secondary().status().incarnation, true)] {
        let mut rig = Rig::secondary();
        let named = rig.disk.superblock;
        let superblock = Superblock { counter: 9, epoch: named.epoch.next(), primary: Some(NodeId::B), ..named };
        rig.said();
        let msg =
            PeerMsg { epoch: superblock.epoch, from: other(1), to: Some(to), body: PeerBody::HandOver { superblock } };
        rig.event(Event::Peer { link: LinkId(1), msg });
        assert_eq!(rig.said().contains(&Action::AcceptFence), taken);
    }
}

/// An older status counts for nothing, so each has a number of its own.
#[test]
fn every_status_has_a_higher_number() {
    let mut rig = Rig::dual();
    rig.said();
    rig.wait(300);
    let of = |action: &Action| match action {
        Action::SendPeer { msg: PeerMsg { body: PeerBody::Status { beat, .. }, .. }, .. } => Some(*beat),
        _ => None,
    };
    let beats: Vec<u64> = rig.said().iter().filter_map(of).collect();
    assert!(beats.len() >= 5 && beats.is_sorted_by(|a, b| a < b), "{beats:?}");
}

// ---- announcements ------------------------------------------------------------------------------------------------

/// A primary says what stands on the disk to one that has just connected, and to one that is behind; to nobody else.
#[test]
fn an_epoch_is_announced_to_who_may_not_know_it() {
    let mut rig = Rig::dual();
    let epoch = rig.status().superblock.epoch;
    rig.said();
    rig.peer_status(1, 1, Role::Secondary);
    assert!(!tells(&rig.said(), announces), "it is in this epoch");
    let body = PeerBody::Status { role: Role::Secondary, beat: 1000, paths: true };
    let msg = PeerMsg { epoch: Epoch(epoch.0 - 1), from: other(1), to: None, body };
    rig.event(Event::Peer { link: LinkId(1), msg });
    assert!(tells(&rig.said(), announces), "it is behind");
    rig.hold(|a| *a == Action::Probe);
    rig.event(Event::LinkDown { link: LinkId(1) });
    rig.said();
    rig.link(2, 1);
    assert!(tells(&rig.said(), announces), "it has just connected");
    let mut rig = Rig::secondary();
    rig.said();
    rig.event(Event::Peer { link: LinkId(1), msg });
    assert!(!tells(&rig.said(), announces), "who mirrors announces nothing");
}

/// A mirror enters an epoch once, and goes back to none.
#[test]
fn a_mirror_goes_by_a_newer_epoch_only() {
    let mut rig = mirror();
    let named = rig.disk.superblock;
    for epoch in [Epoch(named.epoch.0 - 1), named.epoch] {
        rig.peer(1, 1, PeerBody::Announce { superblock: Superblock { epoch, ..named } });
        let entered = rig.said().iter().any(|a| matches!(a, Action::Notice(Notice::EpochEntered(_))));
        assert!(!entered, "{epoch:?}");
        assert_eq!(rig.status().superblock, named);
    }
}

/// The lane stays as long as its session; rule 10.
#[test]
fn a_new_session_begins_with_an_empty_lane_and_a_new_epoch_does_not() {
    let mut rig = mirror();
    let named = rig.disk.superblock;
    let newer = Superblock { counter: 3, epoch: named.epoch.next(), ..named };
    rig.peer(1, 1, PeerBody::Announce { superblock: newer });
    assert_eq!((rig.status().received, rig.status().session), (Seq(2), true));
    let next = Superblock { counter: 4, epoch: newer.epoch.next(), generation: Generation(2), ..named };
    rig.peer(1, 1, PeerBody::Announce { superblock: next });
    assert_eq!((rig.status().received, rig.status().session), (Seq::ZERO, false));
}

/// It announces the epoch in which this one joins, without it: it knows of no join. What is older says nothing.
#[test]
fn a_joiner_hears_that_it_joins_no_more() {
    let mut rig = joiner();
    let me = rig.status().incarnation;
    rig.peer(1, 1, PeerBody::Announce { superblock: Superblock { epoch: Epoch::ZERO, ..a_alone() } });
    assert_eq!((rig.status().role, rig.status().incarnation), (Role::Joining, me));
    rig.peer(1, 1, PeerBody::Announce { superblock: a_alone() });
    assert_eq!(rig.status().role, Role::Waiting);
    assert_ne!(rig.status().incarnation, me, "it drops what it holds");
}

/// A slot that was written half-way, and read, may have rotted away: its epoch is given to another, with a higher counter.
#[test]
fn outside_the_higher_counter_counts_within_an_epoch() {
    let gone = Member { node: NodeId::B, incarnation: other(9) };
    for (counter, counts) in [(0, false), (1, false), (2, true)] {
        let mut rig = Rig::linked(NodeId::B, a_alone());
        let superblock = Superblock { counter, members: a_alone().members.with(gone), ..a_alone() };
        rig.hold(|a| *a == Action::ReadSuperblock);
        rig.peer(1, 1, PeerBody::Announce { superblock });
        assert_eq!(rig.status().superblock == superblock, counts, "counter {counter}");
    }
    let mut rig = mirror();
    let named = rig.disk.superblock;
    rig.peer(1, 1, PeerBody::Announce { superblock: Superblock { counter: 9, ..named } });
    assert_eq!(rig.status().superblock, named, "a member knows what stands there");
}

// ---- joins --------------------------------------------------------------------------------------------------------

/// It is told so, and becomes another; so does one that has only asked.
#[test]
fn a_joiner_that_is_thrown_away_drops_its_lane() {
    let mut asked = Rig::linked(NodeId::B, a_alone());
    asked.hear_of_primary();
    for mut rig in [joiner(), asked] {
        let me = rig.status().incarnation;
        rig.peer(1, 1, PeerBody::JoinAbort);
        assert_eq!(rig.status().role, Role::Waiting);
        assert_ne!(rig.status().incarnation, me);
    }
}

/// The joiner gives it up, or its link is gone.
#[test]
fn a_join_ends_with_the_joiners_word_or_its_link() {
    let mut rig = Rig::attached();
    rig.joining(1);
    rig.peer(1, 1, PeerBody::JoinAbort);
    assert_eq!(rig.status().joiner, None);
    let mut rig = Rig::attached();
    rig.joining(1);
    rig.event(Event::LinkDown { link: LinkId(1) });
    assert_eq!(rig.status().joiner, None);
}

/// Who believes that it joins and does not is told so. The joiner is not, nor one that waits, nor a member that is behind.
#[test]
fn only_who_joins_in_vain_is_sent_away() {
    let aborts = |rig: &mut Rig, role| {
        rig.said();
        rig.peer_status(1, 1, role);
        tells(&rig.said(), |body| *body == PeerBody::JoinAbort)
    };
    let mut rig = Rig::attached();
    rig.link(1, 1);
    assert!(!aborts(&mut rig, Role::Waiting));
    assert!(aborts(&mut rig, Role::Joining));
    let mut rig = Rig::attached();
    rig.joining(1);
    assert!(!aborts(&mut rig, Role::Joining));
    assert!(!aborts(&mut Rig::dual(), Role::Joining));
}

/// While it lasts, the joiner hears what is on the disk, as a member does.
#[test]
fn a_joiner_hears_what_is_released() {
    let mut rig = Rig::attached();
    rig.joining(1);
    rig.hold(is_write);
    rig.ack(1, Some(Seq(1)), Seq::ZERO);
    rig.said();
    rig.write(1, 1, 0);
    rig.ack(1, Some(Seq(1)), Seq(1));
    assert!(is_told_released(&mut rig, Seq(1)));
}

/// A joiner that gets on is given time, as long as it takes; one that says the same again and again is not.
#[test]
fn a_join_lasts_as_long_as_it_gets_on() {
    let mut rig = Rig::attached();
    rig.hold(is_flush);
    for seq in 1..=6 {
        rig.write(1, seq, seq);
    }
    // The first batch has the first blob only, the second one the rest: the joiner has to have all of them.
    let batch = rig.pending.iter().find_map(|a| if let Action::Flush { batch, .. } = a { Some(*batch) } else { None });
    let batch = batch.expect("it is under way");
    rig.end(is_flush, Event::Flushed { batch, result: Ok(()), us: 100 });
    rig.joining(1);
    let wait = |rig: &mut Rig, acked| {
        for _ in 0..15 {
            rig.wait_with(100, 1, 1, Role::Joining);
            rig.client(1, ClientMsg::Heartbeat);
            rig.ack(1, Some(Seq(2)), Seq(acked));
        }
        rig.status().joiner.is_some()
    };
    for acked in 1..=5 {
        assert!(wait(&mut rig, acked), "at {acked}");
    }
    assert!(!wait(&mut rig, 5) || !wait(&mut rig, 5));
}

/// Rule 8 takes a superblock write, and a primary that stays.
#[test]
fn nobody_is_let_in_while_something_else_is_under_way() {
    type Step = fn(&mut Rig);
    let busy: [(&str, Step); 4] = [
        ("an end", |rig| rig.event(Event::Shutdown)),
        ("no path", |rig| rig.event(Event::Paths { usable: false })),
        ("another session", |rig| {
            rig.event(Event::ClientUp { conn: ConnId(2) });
            rig.client(2, ClientMsg::Attach { over: Generation(1) });
        }),
        ("nothing", |_| {}),
    ];
    for (why, step) in busy {
        let mut rig = Rig::attached();
        rig.link(1, 1);
        rig.wait_with(5000, 1, 1, Role::Waiting);
        rig.client(1, ClientMsg::Heartbeat);
        rig.hold(is_flush);
        rig.write(1, 1, 0);
        step(&mut rig);
        rig.peer(1, 1, PeerBody::JoinRequest);
        assert_eq!(rig.status().joiner.is_some(), why == "nothing", "{why}");
    }
    let mut rig = Rig::attached();
    rig.link(1, 1);
    rig.hold(is_write);
    rig.wait_with(61_000, 1, 1, Role::Waiting);
    assert!(rig.pending.iter().any(is_write), "rule 12: the clean mark");
    rig.peer(1, 1, PeerBody::JoinRequest);
    assert_eq!(rig.status().joiner, None);
}

/// Rule 7: who has just been given up is not let in at once, or the two would do nothing else; but soon.
#[test]
fn who_was_dropped_is_let_in_after_a_while() {
    let mut rig = Rig::dual();
    rig.link(2, 2); // Another life of it.
    rig.wait(10);
    rig.peer(2, 2, PeerBody::JoinRequest);
    assert!(!rig.status().dual && rig.status().joiner.is_none());
    rig.wait_with(1000, 2, 2, Role::Waiting);
    rig.peer(2, 2, PeerBody::JoinRequest);
    assert_eq!(rig.status().joiner, Some(other(2)));
}

/// Rule 7: its process lives and answers, and nobody hears the other's heartbeats.
#[test]
fn a_member_without_a_link_is_dropped_though_it_lives() {
    let mut rig = Rig::dual();
    rig.hold(|a| *a == Action::Probe);
    rig.event(Event::LinkDown { link: LinkId(1) });
    let alive = |rig: &mut Rig, ms: u64| {
        for _ in 0..ms / 50 {
            rig.wait(50);
            rig.end(|a| *a == Action::Probe, Event::Probed(Probe::Alive(other(1))));
        }
        rig.status().dual
    };
    assert!(alive(&mut rig, 450));
    assert!(!alive(&mut rig, 100));
}

/// It says that it leaves: nobody waits until it has been silent for long.
#[test]
fn a_member_that_leaves_is_dropped_at_once() {
    let mut rig = Rig::dual();
    rig.peer(1, 1, PeerBody::Leave);
    rig.wait(10);
    assert!(!rig.status().dual);
}

/// A joiner that is thrown away again and again would cost the service each time: the next one waits longer.
#[test]
fn who_was_thrown_away_waits_longer_each_time() {
    let mut rig = Rig::attached();
    rig.link(1, 1);
    rig.wait_with(5000, 1, 1, Role::Waiting);
    let mut waits = Vec::new();
    for n in 1..=12 {
        rig.link(n, n);
        let since = rig.now;
        loop {
            rig.client(1, ClientMsg::Heartbeat);
            rig.peer(n, n, PeerBody::JoinRequest);
            if rig.status().joiner == Some(other(n)) {
                break;
            }
            rig.wait_with(50, n, n, Role::Waiting);
        }
        waits.push(rig.now - since);
        rig.peer(n, n, PeerBody::JoinAbort);
        assert_eq!(rig.status().joiner, None);
    }
    assert!(waits[0] == 0 && waits[1..].iter().all(|&ms| ms > 0), "{waits:?}");
    assert!(waits[1] <= 150, "half of `retry_ms`, and up to as much as that: {waits:?}");
    assert!(waits[1..5].iter().max() < waits[8..].iter().max() && waits.iter().any(|&ms| ms > 1000), "{waits:?}");
}

/// Of a volume that was never attached there is no lane to open.
#[test]
fn a_joiner_of_no_session_has_no_lane() {
    let fresh = Superblock { generation: Generation::ZERO, ..a_alone() };
    let mut rig = Rig::linked(NodeId::B, fresh);
    rig.peer_status(1, 1, Role::Primary);
    rig.peer(1, 1, PeerBody::Announce { superblock: fresh });
    rig.wait(200);
    rig.peer(1, 1, PeerBody::JoinAccept { generation: Generation::ZERO, first: None });
    assert_eq!(rig.status().role, Role::Joining);
    rig.event(Event::ClientUp { conn: ConnId(1) });
    rig.client(1, ClientMsg::Resume { generation: Generation::ZERO, first: Seq(1) });
    assert!(!rig.status().session);
}
