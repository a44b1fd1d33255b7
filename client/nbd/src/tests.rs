//! Byte transcripts against proto.md, and properties over arbitrary streams.

use proptest::prelude::*;

use crate::limits::{MAX_OPTION_BYTES, MAX_OPTIONS, MAX_PAYLOAD_BYTES};
use crate::proto::{cmd, flag, info, option, rep};
use crate::{Command, Errno, Export, Server, Step, Violation, reply};

const SIZE: u64 = 0x4000_0000;

fn export() -> Export {
    Export { name: "db".into(), description: "a database".into(), size: SIZE, block_bytes: 4096 }
}

/// What came of a whole stream: steps without Hungry, the replies, and the violation that ended it. Payloads are
/// taken by the test, in whatever pieces they come.
#[derive(Debug, PartialEq, Default)]
struct Outcome {
    steps: Vec<Step>,
    out: Vec<u8>,
    payload: Vec<u8>,
    violation: Option<Violation>,
    structured: bool,
}

fn run<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut all = Outcome::default();
    let mut server = Server::new(export(), &mut all.out);
    'stream: for piece in pieces {
        let mut rest = piece;
        loop {
            let (used, step) = match server.advance(rest, &mut all.out) {
                Ok(done) => done,
                Err(violation) => {
                    all.violation = Some(violation);
                    break 'stream;
                }
            };
            rest = &rest[used..];
            assert!(server.held_capacity() <= 2 * MAX_OPTION_BYTES, "memory is bounded");
            match step {
                Step::Hungry => {
                    assert!(rest.is_empty(), "hungry with {} bytes left", rest.len());
                    break;
                }
                Step::Payload if rest.is_empty() => break,
                Step::Payload => {
                    let take = rest.len().min(server.payload_left() as usize);
                    all.payload.extend(&rest[..take]);
                    rest = &rest[take..];
                    server.payload_taken(u32::try_from(take).unwrap());
                }
                Step::Finish => {
                    all.steps.push(step);
                    break 'stream;
                }
                step => all.steps.push(step),
            }
        }
    }
    all.structured = server.structured();
    all
}

const GREETING: &[u8] = b"NBDMAGICIHAVEOPT\x00\x03";

fn flags(value: u32) -> Vec<u8> {
    value.to_be_bytes().to_vec()
}

fn opt(number: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"IHAVEOPT".to_vec();
    bytes.extend(number.to_be_bytes());
    bytes.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
    bytes.extend(data);
    bytes
}

fn go(number: u32, name: &[u8], types: &[u16]) -> Vec<u8> {
    let mut data = u32::try_from(name.len()).unwrap().to_be_bytes().to_vec();
    data.extend(name);
    data.extend(u16::try_from(types.len()).unwrap().to_be_bytes());
    data.extend(types.iter().flat_map(|t| t.to_be_bytes()));
    opt(number, &data)
}

fn rep(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x00\x03\xe8\x89\x04\x55\x65\xa9".to_vec();
    bytes.extend(option.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
    bytes.extend(data);
    bytes
}

fn request(command: u16, flags: u16, cookie: u64, offset: u64, len: u32) -> Vec<u8> {
    let mut bytes = b"\x25\x60\x95\x13".to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(command.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(len.to_be_bytes());
    bytes
}

/// A handshake up to the transmission phase, then `rest`.
fn entered(structured: bool, rest: &[u8]) -> Outcome {
    let mut bytes = flags(3);
    if structured {
        bytes.extend(opt(option::STRUCTURED_REPLY, &[]));
    }
    bytes.extend(go(option::GO, b"db", &[]));
    let length = run([bytes.as_slice()]).out.len();
    bytes.extend(rest);
    let mut outcome = run([bytes.as_slice()]);
    assert_eq!(outcome.structured, structured);
    assert_eq!(outcome.steps.remove(0), Step::Entered);
    outcome.out.drain(..length);
    outcome
}

fn refusal(structured: bool, bytes: &[u8]) -> (Errno, String) {
    match entered(structured, bytes).steps.as_slice() {
        [Step::Refused(refused)] => (refused.errno, refused.message.clone()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_client_past_the_handshake_begins_with_requests_and_gets_simple_replies() {
    let mut server = Server::past_handshake(export());
    let mut out = Vec::new();
    let mut read = 0x2560_9513_u32.to_be_bytes().to_vec();
    read.extend([0, 0, 0, 0]);
    read.extend(7_u64.to_be_bytes());
    read.extend(4096_u64.to_be_bytes());
    read.extend(512_u32.to_be_bytes());
    let (used, step) = server.advance(&read, &mut out).unwrap();
    assert_eq!((used, out.len(), server.structured()), (28, 0, false));
    assert!(matches!(step, Step::Request(request) if request.command == Command::Read { offset: 4096, len: 512 }));
}

#[test]
fn go_with_block_sizes_as_libnbd_does_it() {
    let mut bytes = flags(3);
    bytes.extend(opt(8, &[]));
    bytes.extend(go(7, b"db", &[info::BLOCK_SIZE, info::NAME, info::DESCRIPTION]));
    let outcome = run([bytes.as_slice()]);
    let mut expected = GREETING.to_vec();
    expected.extend(rep(8, rep::ACK, &[]));
    // NBD_INFO_EXPORT: type 0, size, HAS_FLAGS | FLUSH | FUA | TRIM | WRITE_ZEROES | DF | MULTI_CONN | CACHE | FAST_ZERO.
    expected.extend(rep(7, rep::INFO, b"\x00\x00\x00\x00\x00\x00\x40\x00\x00\x00\x0d\xed"));
    expected.extend(rep(7, rep::INFO, b"\x00\x01db"));
    expected.extend(rep(7, rep::INFO, b"\x00\x02a database"));
    expected.extend(rep(7, rep::INFO, b"\x00\x03\x00\x00\x10\x00\x00\x00\x10\x00\x02\x00\x00\x00"));
    expected.extend(rep(7, rep::ACK, &[]));
    assert_eq!(outcome.out, expected);
    assert_eq!(outcome.steps, [Step::Entered]);
    assert!(outcome.structured);
}

#[test]
fn export_name_with_and_without_zeroes() {
    for (client, tail) in [(3, 0), (1, 124), (0, 124)] {
        let mut bytes = flags(client);
        bytes.extend(opt(option::EXPORT_NAME, b""));
        let outcome = run([bytes.as_slice()]);
        let mut expected = GREETING.to_vec();
        // Without structured replies DF (bit 7) must not be there.
        expected.extend(b"\x00\x00\x00\x00\x40\x00\x00\x00\x0d\x6d");
        expected.extend(vec![0; tail]);
        assert_eq!(outcome.out, expected, "client flags {client}");
        assert_eq!(outcome.steps, [Step::Entered]);
    }
}

#[test]
fn export_name_of_nobody_ends_the_connection() {
    let mut bytes = flags(3);
    bytes.extend(opt(option::EXPORT_NAME, b"other"));
    assert_eq!(run([bytes.as_slice()]).violation, Some(Violation::UnknownExport("other".into())));
}

#[test]
fn list_abort_and_the_answers_to_everything_else() {
    let mut bytes = flags(3);
    bytes.extend(opt(option::LIST, &[]));
    bytes.extend(opt(option::LIST, b"x"));
    for unsupported in [5, 9, 10, 11, 4711] {
        bytes.extend(opt(unsupported, b"whatever"));
    }
    bytes.extend(go(option::INFO, b"nosuch", &[]));
    bytes.extend(opt(option::ABORT, &[]));
    bytes.extend(b"after the end nothing is looked at");
    let outcome = run([bytes.as_slice()]);
    let mut expected = GREETING.to_vec();
    expected.extend(rep(3, rep::SERVER, b"\x00\x00\x00\x02db"));
    expected.extend(rep(3, rep::ACK, &[]));
    expected.extend(rep(3, rep::ERR_INVALID, b"this option has no data"));
    for unsupported in [5, 9, 10, 11, 4711_u32] {
        let text = format!("option {unsupported} is not supported");
        expected.extend(rep(unsupported, rep::ERR_UNSUP, text.as_bytes()));
    }
    expected.extend(rep(6, rep::ERR_UNKNOWN, b"no export \"nosuch\" here, only \"db\""));
    expected.extend(rep(2, rep::ACK, &[]));
    assert_eq!(outcome.out, expected);
    assert_eq!(outcome.steps, [Step::Finish]);
}

#[test]
fn info_does_not_enter_and_default_export_is_ours() {
    let mut bytes = flags(3);
    bytes.extend(go(option::INFO, b"", &[]));
    let outcome = run([bytes.as_slice()]);
    assert_eq!(outcome.steps, []);
    assert!(outcome.out.ends_with(&rep(6, rep::ACK, &[])));
}

#[test]
fn malformed_info_is_invalid_and_haggling_goes_on() {
    for (data, kind) in [
        (&b""[..], rep::ERR_INVALID),
        (b"\x00\x00", rep::ERR_INVALID),
        (b"\x00\x00\x00\x09db\x00\x00", rep::ERR_INVALID),
        (b"\x00\x00\x00\x02db\x00", rep::ERR_INVALID),
        (b"\x00\x00\x00\x02db\x00\x01", rep::ERR_INVALID),
        (b"\x00\x00\x00\x02db\x00\x00\x00", rep::ERR_INVALID),
        (b"\x00\x00\x10\x01", rep::ERR_TOO_BIG),
    ] {
        let mut bytes = flags(3);
        bytes.extend(opt(option::GO, data));
        let refused = run([bytes.as_slice()]);
        let head = &refused.out[GREETING.len()..][..16];
        assert_eq!(head[8..16], [7_u32.to_be_bytes(), kind.to_be_bytes()].concat(), "{data:?}");
        bytes.extend(go(option::GO, b"db", &[]));
        assert_eq!(run([bytes.as_slice()]).steps, [Step::Entered]);
    }
}

#[test]
fn long_option_data_is_read_off_and_refused() {
    let long = vec![b'x'; MAX_OPTION_BYTES + 1];
    let mut bytes = flags(3);
    bytes.extend(opt(option::GO, &long));
    bytes.extend(opt(10, &long));
    bytes.extend(go(option::GO, b"db", &[]));
    let outcome = run([bytes.as_slice()]);
    let mut expected = GREETING.to_vec();
    expected.extend(rep(7, rep::ERR_TOO_BIG, b"8193 bytes of option data, at most 8192"));
    expected.extend(rep(10, rep::ERR_UNSUP, b"option 10 is not supported"));
    assert!(outcome.out.starts_with(&expected));
    assert_eq!(outcome.steps, [Step::Entered]);

    let mut bytes = flags(3);
    bytes.extend(b"IHAVEOPT\x00\x00\x00\x07\xff\xff\xff\xff");
    assert_eq!(run([bytes.as_slice()]).violation, Some(Violation::OptionLength(u32::MAX)));
}

#[test]
fn a_client_that_breaks_the_handshake_is_shut_out() {
    assert_eq!(run([flags(4).as_slice()]).violation, Some(Violation::ClientFlags(4)));
    let mut bytes = flags(3);
    bytes.extend([0; 16]);
    assert_eq!(run([bytes.as_slice()]).violation, Some(Violation::OptionMagic(0)));
    let mut bytes = flags(3);
    for _ in 0..=MAX_OPTIONS {
        bytes.extend(opt(option::LIST, &[]));
    }
    assert_eq!(run([bytes.as_slice()]).violation, Some(Violation::TooManyOptions));
}

#[test]
fn requests_and_their_payloads() {
    let mut bytes = request(cmd::WRITE, flag::FUA, 7, 4096, 4);
    bytes.extend(b"data");
    bytes.extend(request(cmd::READ, 0, 8, 100, 1));
    bytes.extend(request(cmd::FLUSH, 0, 9, 0, 0));
    bytes.extend(request(cmd::TRIM, 0, 10, 0, 0x4000_0000));
    bytes.extend(request(cmd::WRITE_ZEROES, flag::NO_HOLE | flag::FAST_ZERO | flag::FUA, 11, 1, 2));
    bytes.extend(request(cmd::CACHE, 0, 12, SIZE - 1, 1));
    bytes.extend(request(cmd::DISC, 0, 13, 0, 0));
    let outcome = entered(false, &bytes);
    let commands: Vec<_> = outcome
        .steps
        .iter()
        .filter_map(|step| if let Step::Request(r) = step { Some((r.cookie, r.command)) } else { None })
        .collect();
    assert_eq!(
        commands,
        [
            (7, Command::Write { offset: 4096, len: 4 }),
            (8, Command::Read { offset: 100, len: 1 }),
            (9, Command::Flush),
            (10, Command::Trim { offset: 0, len: 0x4000_0000 }),
            (11, Command::WriteZeroes { offset: 1, len: 2, no_hole: true }),
            (12, Command::Cache { offset: SIZE - 1, len: 1 }),
        ]
    );
    assert_eq!(outcome.payload, b"data");
    assert_eq!(outcome.steps.last(), Some(&Step::Finish));
    assert_eq!(outcome.out, b"", "replies are the driver's in this phase");
}

#[test]
fn refusals_are_those_of_the_specification() {
    let invalid = |bytes: Vec<u8>| assert_eq!(refusal(true, &bytes).0, Errno::Invalid);
    invalid(request(cmd::READ, 0, 1, SIZE, 1));
    invalid(request(cmd::READ, 0, 1, u64::MAX, 1));
    invalid(request(cmd::TRIM, 0, 1, SIZE - 1, 2));
    invalid(request(cmd::CACHE, 0, 1, SIZE - 1, 2));
    invalid(request(cmd::READ, 0, 1, 0, 0));
    invalid(request(cmd::READ, 0, 1, 0, MAX_PAYLOAD_BYTES + 1));
    invalid(request(cmd::READ, flag::NO_HOLE, 1, 0, 1));
    invalid(request(cmd::TRIM, flag::DF, 1, 0, 1));
    invalid(request(cmd::FLUSH, 0, 1, 0, 1));
    invalid(request(cmd::FLUSH, flag::DF, 1, 0, 0));
    invalid(request(7, 0, 1, 0, 1));
    invalid(request(cmd::WRITE_ZEROES, 1 << 15, 1, 0, 1));
    assert_eq!(refusal(true, &request(cmd::WRITE_ZEROES, 0, 1, SIZE - 1, 2)).0, Errno::NoSpace);
    assert_eq!(
        refusal(true, &[request(cmd::WRITE, 0, 1, SIZE - 1, 2), b"xx".to_vec()].concat()),
        (Errno::NoSpace, "2 bytes at 1073741823 go past the end of the volume, 1073741824".into())
    );
    // DF needs structured replies.
    assert_eq!(refusal(false, &request(cmd::READ, flag::DF, 1, 0, 1)).0, Errno::Invalid);
    assert!(matches!(entered(true, &request(cmd::READ, flag::DF, 1, 0, 1)).steps[..], [Step::Request(_)]));
}

#[test]
fn the_payload_of_a_refused_write_is_read_off() {
    let len = MAX_PAYLOAD_BYTES + 1;
    let mut bytes = request(cmd::WRITE, 0, 1, 0, len);
    bytes.extend(vec![0x25; len as usize]);
    bytes.extend(request(cmd::FLUSH, 0, 2, 0, 0));
    let outcome = entered(true, &bytes);
    assert!(matches!(&outcome.steps[..], [Step::Refused(_), Step::Request(flush)] if flush.cookie == 2));
    assert_eq!(outcome.payload, b"");
}

#[test]
fn a_driver_may_refuse_a_payload_in_the_middle() {
    let mut out = Vec::new();
    let mut server = Server::new(export(), &mut out);
    let bytes = [flags(3), go(option::GO, b"", &[]), request(cmd::WRITE, 0, 1, 0, 8)].concat();
    let (used, step) = server.advance(&bytes, &mut out).unwrap();
    assert_eq!(step, Step::Entered);
    assert!(matches!(server.advance(&bytes[used..], &mut out).unwrap().1, Step::Request(_)));
    server.payload_taken(3);
    server.discard_payload();
    let rest = [b"abcde".to_vec(), request(cmd::FLUSH, 0, 2, 0, 0)].concat();
    let (used, step) = server.advance(&rest, &mut out).unwrap();
    assert_eq!(used, rest.len());
    assert!(matches!(step, Step::Request(flush) if flush.command == Command::Flush));
}

#[test]
fn not_a_request_ends_the_connection() {
    assert_eq!(entered(true, &[0; 28]).violation, Some(Violation::RequestMagic(0)));
}

#[test]
fn replies_byte_by_byte() {
    let bytes = |f: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        f(&mut out);
        out
    };
    let cookie = 0x0102_0304_0506_0708;
    assert_eq!(bytes(&|o| reply::success(o, cookie)), b"\x67\x44\x66\x98\0\0\0\0\x01\x02\x03\x04\x05\x06\x07\x08");
    assert_eq!(
        bytes(&|o| reply::error(o, false, cookie, Errno::NoSpace, "full")),
        b"\x67\x44\x66\x98\0\0\0\x1c\x01\x02\x03\x04\x05\x06\x07\x08"
    );
    assert_eq!(
        bytes(&|o| reply::error(o, true, cookie, Errno::Shutdown, "gone")),
        b"\x66\x8e\x33\xef\0\x01\x80\x01\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\x0a\0\0\0\x6c\0\x04gone"
    );
    assert_eq!(
        bytes(&|o| reply::read_head(o, true, cookie, 0x1000, 512)),
        b"\x66\x8e\x33\xef\0\x01\0\x01\x01\x02\x03\x04\x05\x06\x07\x08\0\0\x02\x08\0\0\0\0\0\0\x10\0"
    );
    assert_eq!(
        bytes(&|o| reply::read_head(o, false, cookie, 0x1000, 512)),
        b"\x67\x44\x66\x98\0\0\0\0\x01\x02\x03\x04\x05\x06\x07\x08"
    );
    let long = "ü".repeat(300);
    assert_eq!(bytes(&|o| reply::error(o, true, 1, Errno::Io, &long)).len(), 20 + 6 + 512);
    assert_eq!(Errno::Io.number(), 5);
}

/// Streams that mostly make sense, so that they get far.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let option = prop_oneof![
        (0..12_u32, prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(n, data)| opt(n, &data)),
        (
            6..8_u32,
            prop_oneof![Just(&b"db"[..]), Just(&b""[..]), Just(&b"x"[..])],
            prop::collection::vec(0..5_u16, 0..4)
        )
            .prop_map(|(n, name, types)| go(n, name, &types)),
        Just(opt(option::STRUCTURED_REPLY, &[])),
        Just(opt(10, &vec![1; MAX_OPTION_BYTES + 5])),
    ];
    let request = (0..9_u16, 0..40_u16, any::<u64>(), prop_oneof![0..SIZE, Just(SIZE - 1)], 0..300_u32).prop_map(
        |(command, flags, cookie, offset, len)| {
            let mut bytes = request(command, flags, cookie, offset, len);
            if command == cmd::WRITE {
                bytes.extend((0..len).map(|i| i.to_le_bytes()[0]));
            }
            bytes
        },
    );
    (
        prop_oneof![9 => 0..4_u32, 1 => any::<u32>()],
        prop::collection::vec(option, 0..6),
        any::<bool>(),
        prop::collection::vec(request, 0..20),
        prop::collection::vec(any::<u8>(), 0..40),
    )
        .prop_map(|(client, options, enter, requests, tail)| {
            let mut bytes = flags(client);
            bytes.extend(options.concat());
            if enter {
                bytes.extend(go(option::GO, b"db", &[]));
            }
            bytes.extend(requests.concat());
            bytes.extend(tail);
            bytes
        })
}

proptest! {
    #[test]
    fn every_split_of_a_stream_gives_the_same(bytes in stream(), cuts in prop::collection::vec(1..200_usize, 1..40)) {
        let whole = run([bytes.as_slice()]);
        let mut pieces = Vec::new();
        let mut rest = bytes.as_slice();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, tail) = rest.split_at((*cut).min(rest.len()));
            pieces.push(piece);
            rest = tail;
        }
        prop_assert_eq!(&whole, &run(pieces));
        prop_assert_eq!(&whole, &run(bytes.chunks(1)));
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_keep_little(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        run([bytes.as_slice()]);
        let mut with_flags = flags(3);
        with_flags.extend(&bytes);
        run([with_flags.as_slice()]);
        entered(true, &bytes);
    }

    #[test]
    fn accepted_ranges_are_inside_and_not_empty(
        command in 0..8_u16, flags: u16, offset: u64, len: u32, structured: bool,
    ) {
        let bytes = request(command, flags, 1, offset, len);
        for step in entered(structured, &bytes).steps {
            let Step::Request(request) = step else { continue };
            let (offset, len) = match request.command {
                Command::Flush => continue,
                Command::Read { offset, len } | Command::Write { offset, len } => {
                    prop_assert!(len <= MAX_PAYLOAD_BYTES);
                    (offset, len)
                }
                Command::Trim { offset, len }
                | Command::Cache { offset, len }
                | Command::WriteZeroes { offset, len, .. } => (offset, len),
            };
            prop_assert!(len > 0 && offset + u64::from(len) <= SIZE);
        }
    }
}
