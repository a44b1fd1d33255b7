//! Order, coalescing, and a send queue that is full.

use twinsan_fabric::RegionId;
use twinsan_wire::{
    Blob, BlobKind, Epoch, Generation, Incarnation, Lba, Members, NodeFrame, NodeMsg, Refusal, Role, Seq,
};

use super::*;
use crate::fake::{Call, Fake};

const CONN: ConnId = ConnId(7);
const KEY: RemoteKey = RemoteKey(70);
const READS: RemoteKey = RemoteKey(71);

fn completion(durable: u64) -> Mailbox {
    let from = Incarnation::from_random(1);
    let durable = Some(Seq(durable));
    Mailbox::Completion { epoch: Epoch(1), from, generation: Generation(1), durable, released: Seq(0), relayed: false }
}

fn ack(received: u64) -> Mailbox {
    let me = Incarnation::from_random(1);
    let first = Some(Seq(1));
    Mailbox::Ack {
        epoch: Epoch(1),
        from: me,
        to: me,
        generation: Generation(1),
        first,
        received: Seq(received),
        released: Seq(0),
    }
}

fn released(upto: u64) -> Mailbox {
    let me = Incarnation::from_random(1);
    Mailbox::Released { epoch: Epoch(1), from: me, to: me, generation: Generation(1), released: Seq(upto) }
}

fn message(why: Refusal) -> Encoded {
    NodeFrame { msg: NodeMsg::Refused { why }, grant: None }.encode()
}

fn written(mailbox: &Mailbox) -> Call {
    let to = RemoteAddr { key: KEY, offset: mailbox_offset(mailbox.slot()) };
    let imm = Immediate::Mailbox { slot: mailbox.slot() }.encode();
    Call::WriteImm { conn: CONN, bytes: mailbox.encode().to_vec(), to, imm }
}

fn sent(message: &Encoded) -> Call {
    Call::Send { conn: CONN, bytes: message.as_bytes().to_vec() }
}

fn flushed(outbox: &mut Outbox, fabric: &mut Fake) -> Vec<Call> {
    outbox.flush(fabric, CONN, KEY).unwrap();
    fabric.take()
}

#[test]
fn only_the_newest_mailbox_of_a_kind_leaves_and_all_at_one_doorbell() {
    let (mut outbox, mut fabric) = (Outbox::default(), Fake::new());
    outbox.mailbox(&ack(1));
    outbox.mailbox(&released(1));
    outbox.mailbox(&ack(2));
    outbox.mailbox(&ack(3));
    let expected = [written(&ack(3)), written(&released(1)), Call::Submit(CONN)];
    assert_eq!(flushed(&mut outbox, &mut fabric), expected);
    assert!(outbox.is_empty());
    assert_eq!(flushed(&mut outbox, &mut fabric), [], "nothing to say, no doorbell");
}

#[test]
fn a_mailbox_never_overtakes_a_message_nor_a_message_a_mailbox() {
    let (mut outbox, mut fabric) = (Outbox::default(), Fake::new());
    let (first, second) = (message(Refusal::Busy), message(Refusal::NotReady));
    outbox.mailbox(&completion(1));
    outbox.message(first);
    outbox.mailbox(&completion(2));
    outbox.mailbox(&completion(3));
    outbox.message(second);
    let expected = [written(&completion(1)), sent(&first), written(&completion(3)), sent(&second), Call::Submit(CONN)];
    assert_eq!(flushed(&mut outbox, &mut fabric), expected);
}

#[test]
fn a_full_send_queue_keeps_order_and_goes_on_replacing_mailboxes() {
    let (mut outbox, mut fabric) = (Outbox::default(), Fake::new());
    let (first, second) = (message(Refusal::Busy), message(Refusal::NotReady));
    outbox.message(first);
    outbox.message(second);
    fabric.room = 1;
    assert_eq!(flushed(&mut outbox, &mut fabric), [sent(&first), Call::Submit(CONN)]);
    outbox.mailbox(&completion(1));
    assert_eq!(flushed(&mut outbox, &mut fabric), [Call::Submit(CONN)]);
    outbox.mailbox(&completion(2));
    fabric.room = 9;
    assert_eq!(flushed(&mut outbox, &mut fabric), [sent(&second), written(&completion(2)), Call::Submit(CONN)]);
}

fn answer(pieces: u32) -> (Answer, Vec<LocalSlice>, Encoded) {
    let slice = |index| LocalSlice { region: RegionId(0), offset: u64::from(index) * 8192, len: 512 };
    let slices: Vec<LocalSlice> = (0..pieces).map(slice).collect();
    let done = message(Refusal::Busy);
    (Answer::new(ReadToken(5), READS, 2, slices.clone(), done), slices, done)
}

#[test]
fn an_answer_lands_in_its_slot_piece_after_piece_and_its_message_last() {
    let (mut outbox, mut fabric) = (Outbox::default(), Fake::new());
    let (answer, slices, done) = answer(3);
    outbox.answer(answer);
    let write = |index: usize, signal| {
        let to = RemoteAddr { key: READS, offset: read_offset(2) + index as u64 * 512 };
        Call::Write { conn: CONN, slice: slices[index], to, signal }
    };
    let expected = [write(0, Some(NO_READ)), write(1, None), write(2, Some(5)), sent(&done), Call::Submit(CONN)];
    assert_eq!(flushed(&mut outbox, &mut fabric), expected);
}

#[test]
fn an_answer_goes_on_where_the_send_queue_was_full() {
    let (mut outbox, mut fabric) = (Outbox::default(), Fake::new());
    let (whole, ..) = answer(40);
    outbox.answer(whole);
    let mut posts = flushed(&mut outbox, &mut fabric);

    let (in_parts, ..) = answer(40);
    outbox.answer(in_parts);
    let mut parts = Vec::new();
    while !outbox.is_empty() {
        fabric.room = 3;
        parts.extend(flushed(&mut outbox, &mut fabric));
    }
    let is_post = |call: &Call| !matches!(call, Call::Submit(_));
    posts.retain(is_post);
    parts.retain(is_post);
    assert_eq!(parts, posts);
    let signalled = posts.iter().filter(|call| matches!(call, Call::Write { signal: Some(_), .. })).count();
    assert_eq!(signalled, 40_usize.div_ceil(SIGNAL_EVERY) + 1, "so that the send queue's entries are freed");
}

#[test]
fn a_peer_that_takes_nothing_is_an_overrun() {
    let (mut outbox, mut fabric) = (Outbox::default(), Fake::new());
    fabric.room = 0;
    for _ in 0..MAX_OUTBOX {
        outbox.message(message(Refusal::Busy));
    }
    assert_eq!(outbox.flush(&mut fabric, CONN, KEY), Ok(()));
    outbox.message(message(Refusal::Busy));
    assert_eq!(outbox.flush(&mut fabric, CONN, KEY), Err(Overrun));
}

/// A relay may have a whole lane to send, however many blobs that is.
#[test]
fn a_lane_that_waits_to_be_relayed_is_none() {
    let (mut outbox, mut fabric) = (Outbox::default(), Fake::new());
    let blob = Blob {
        generation: Generation(1),
        seq: Seq(1),
        kind: BlobKind::Zeroes,
        lba: Lba(0),
        blocks: 1,
        data_pos: 0,
        payload_len: 0,
    };
    let payload = LocalSlice { region: RegionId(0), offset: 0, len: 0 };
    let relayed = |seq: u64| {
        let descriptor = Descriptor { blob: Blob { seq: Seq(seq), ..blob }, payload_crc: None, timed: false };
        Relayed::new(LaneGrant { descriptors: KEY, data: KEY }, descriptor, 0, payload, 0)
    };
    fabric.room = 0;
    for seq in 1..=3 * MAX_OUTBOX as u64 {
        outbox.relayed(relayed(seq));
    }
    outbox.message(message(Refusal::Busy));
    assert_eq!(outbox.flush(&mut fabric, CONN, KEY), Ok(()));
    fabric.room = 3 * MAX_OUTBOX;
    assert_eq!(outbox.flush(&mut fabric, CONN, KEY), Ok(()));
    fabric.room = 0;
    for _ in 0..MAX_OUTBOX {
        outbox.message(message(Refusal::Busy));
    }
    assert_eq!(outbox.flush(&mut fabric, CONN, KEY), Err(Overrun), "what has left is not counted");
}

#[test]
fn a_connection_that_has_gone_keeps_its_items_for_nobody() {
    let (mut outbox, mut fabric) = (Outbox::default(), Fake::new());
    fabric.disconnect(CONN);
    fabric.take();
    outbox.message(message(Refusal::Busy));
    assert_eq!(flushed(&mut outbox, &mut fabric), [Call::Submit(CONN)], "the fabric's Closed clears them");
}

fn view(role: Role) -> Encoded {
    let msg = NodeMsg::View {
        role,
        from: Incarnation::from_random(1),
        epoch: Epoch(1),
        primary: None,
        members: Members::NONE,
        joiner: None,
        generation: Generation(1),
    };
    NodeFrame { msg, grant: None }.encode()
}

#[test]
fn a_heartbeat_that_says_nothing_new_wakes_nobody() {
    let (mut outbox, mut fabric) = (Outbox::default(), Fake::new());
    let (first, second) = (view(Role::Secondary), view(Role::Primary));
    let mut beat = |view: &Encoded| {
        outbox.heartbeat(*view, view);
        flushed(&mut outbox, &mut fabric)
    };
    assert_eq!(beat(&first), [sent(&first), Call::Submit(CONN)], "the first is news");
    assert_eq!(beat(&first), [sent(&first), Call::SubmitUnsolicited(CONN)]);
    assert_eq!(beat(&second), [sent(&second), Call::Submit(CONN)], "so is a change");
    assert_eq!(beat(&second), [sent(&second), Call::SubmitUnsolicited(CONN)]);
    assert_eq!(beat(&first), [sent(&first), Call::Submit(CONN)], "and the change back");
}

#[test]
fn what_differs_each_time_is_no_news() {
    let (mut outbox, mut fabric) = (Outbox::default(), Fake::new());
    outbox.heartbeat(message(Refusal::Busy), &view(Role::Primary));
    outbox.flush(&mut fabric, CONN, KEY).unwrap();
    fabric.take();
    let later = message(Refusal::NotReady);
    outbox.heartbeat(later, &view(Role::Primary));
    assert_eq!(flushed(&mut outbox, &mut fabric), [sent(&later), Call::SubmitUnsolicited(CONN)]);
}

#[test]
fn a_mailbox_that_is_written_again_wakes_nobody() {
    let (mut outbox, mut fabric) = (Outbox::default(), Fake::new());
    outbox.mailbox(&released(1));
    assert_eq!(flushed(&mut outbox, &mut fabric), [written(&released(1)), Call::Submit(CONN)]);
    outbox.mailbox(&released(1));
    assert_eq!(flushed(&mut outbox, &mut fabric), [written(&released(1)), Call::SubmitUnsolicited(CONN)]);
    // Each kind by itself, and news of one takes the other along.
    outbox.mailbox(&released(1));
    outbox.mailbox(&ack(1));
    let both = [written(&ack(1)), written(&released(1)), Call::Submit(CONN)];
    assert_eq!(flushed(&mut outbox, &mut fabric), both);
    outbox.mailbox(&released(2));
    assert_eq!(flushed(&mut outbox, &mut fabric), [written(&released(2)), Call::Submit(CONN)]);
    outbox.mailbox(&released(1));
    assert_eq!(flushed(&mut outbox, &mut fabric), [written(&released(1)), Call::Submit(CONN)], "an older one is news");
}

#[test]
fn news_beside_a_heartbeat_wakes() {
    let (mut outbox, mut fabric) = (Outbox::default(), Fake::new());
    let (view, refused) = (view(Role::Primary), message(Refusal::Busy));
    outbox.heartbeat(view, &view);
    outbox.flush(&mut fabric, CONN, KEY).unwrap();
    fabric.take();
    outbox.message(refused);
    outbox.heartbeat(view, &view);
    assert_eq!(flushed(&mut outbox, &mut fabric), [sent(&refused), sent(&view), Call::Submit(CONN)]);
    // What found no room is still news when it finds some.
    outbox.message(refused);
    outbox.heartbeat(view, &view);
    fabric.room = 0;
    assert_eq!(flushed(&mut outbox, &mut fabric), [Call::Submit(CONN)]);
    fabric.room = 9;
    assert_eq!(flushed(&mut outbox, &mut fabric), [sent(&refused), sent(&view), Call::Submit(CONN)]);
}
