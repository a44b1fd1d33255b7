//! An NBD client that says anything, in any pieces.
//!
//! Whether it begins with a handshake or as the kernel does, where the stream is cut, then the stream.

use twinsan_nbd::limits::MAX_PAYLOAD_BYTES;
use twinsan_nbd::{Command, Export, Request, Server, Step, Violation, reply};

use crate::input::Input;

const SIZE: u64 = 1 << 30;

/// What came of a stream.
#[derive(Debug, PartialEq, Default)]
struct Outcome {
    steps: Vec<Step>,
    replies: Vec<u8>,
    payload: Vec<u8>,
    violation: Option<Violation>,
    structured: bool,
}

pub(crate) fn run(data: &[u8]) {
    let mut input = Input(data);
    let handshake = !input.byte().is_multiple_of(4);
    let cuts = input.counted();
    let whole = converse(handshake, input.0, &[]);
    assert_eq!(converse(handshake, input.0, cuts), whole, "it depends on how the stream is cut");
    for step in &whole.steps {
        match step {
            Step::Request(request) => check(request),
            Step::Refused(refused) => answer(whole.structured, |out| {
                reply::error(out, whole.structured, refused.cookie, refused.errno, &refused.message);
            }),
            Step::Hungry | Step::Entered | Step::Payload | Step::Finish => {}
        }
    }
    // An option is answered by a few short replies; a flood can't make the answers outgrow it without bound.
    assert!(whole.replies.len() <= 256 + 64 * data.len(), "{} bytes of replies", whole.replies.len());
}

fn check(request: &Request) {
    let (offset, len) = match request.command {
        Command::Read { offset, len } | Command::Write { offset, len } => {
            assert!(len <= MAX_PAYLOAD_BYTES);
            (offset, len)
        }
        Command::Trim { offset, len } | Command::Cache { offset, len } | Command::WriteZeroes { offset, len, .. } => {
            (offset, len)
        }
        Command::Flush => (0, 0),
    };
    assert!(offset.checked_add(u64::from(len)).is_some_and(|end| end <= SIZE), "{request:?} beyond the volume");
}

/// Every reply begins as one.
fn answer(structured: bool, write: impl Fn(&mut Vec<u8>)) {
    let mut out = Vec::new();
    write(&mut out);
    let magic = if structured { 0x668e_33ef_u32 } else { 0x6744_6698 };
    assert!(out.starts_with(&magic.to_be_bytes()));
}

fn converse(handshake: bool, mut stream: &[u8], cuts: &[u8]) -> Outcome {
    let export = Export { name: "db".into(), description: "a database".into(), size: SIZE, block_bytes: 4096 };
    let mut all = Outcome::default();
    let mut server = if handshake { Server::new(export, &mut all.replies) } else { Server::past_handshake(export) };
    let mut cuts = cuts.iter();
    while !stream.is_empty() {
        let piece = cuts.next().map_or(stream.len(), |&cut| usize::from(cut) + 1).min(stream.len());
        let (now, later) = stream.split_at(piece);
        stream = later;
        if !piece_of(&mut server, now, &mut all) {
            break;
        }
    }
    all.structured = server.structured();
    all
}

/// False: the conversation is over.
fn piece_of(server: &mut Server, mut rest: &[u8], all: &mut Outcome) -> bool {
    loop {
        let (used, step) = match server.advance(rest, &mut all.replies) {
            Ok(done) => done,
            Err(violation) => {
                all.violation = Some(violation);
                return false;
            }
        };
        rest = &rest[used..];
        match step {
            Step::Hungry => {
                assert!(rest.is_empty(), "hungry with {} bytes left", rest.len());
                return true;
            }
            Step::Payload if rest.is_empty() => return true,
            Step::Payload => {
                let take = rest.len().min(server.payload_left() as usize);
                all.payload.extend(&rest[..take]);
                rest = &rest[take..];
                server.payload_taken(u32::try_from(take).expect("at most what is left"));
            }
            Step::Finish => {
                all.steps.push(step);
                return false;
            }
            step => all.steps.push(step),
        }
    }
}
