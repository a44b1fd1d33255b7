//! Option haggling (proto.md, "Fixed newstyle negotiation"): one whole option in, its replies out.

use crate::export::Export;
use crate::limits::{MAX_OPTION_BYTES, MAX_STRING_BYTES};
use crate::option::{BadOption, InfoRequest};
use crate::proto::{self, info, option, rep};
use crate::server::Violation;

/// What has been agreed so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Agreed {
    /// The client set `NBD_FLAG_C_NO_ZEROES`.
    pub(crate) no_zeroes: bool,
    /// The client asked for structured replies.
    pub(crate) structured: bool,
}

/// Where an option leads.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// More options.
    Haggle,
    /// The transmission phase.
    Transmission,
    /// The end, once the replies are sent.
    Finish,
}

/// The server's first words.
pub(crate) fn greet(out: &mut Vec<u8>) {
    out.extend(proto::MAGIC.to_be_bytes());
    out.extend(proto::OPTION_MAGIC.to_be_bytes());
    out.extend((proto::FLAG_FIXED_NEWSTYLE | proto::FLAG_NO_ZEROES).to_be_bytes());
}

/// The client's answer: its flags. An unknown flag ends the connection (proto.md: MUST).
pub(crate) fn client_flags(raw: [u8; 4]) -> Result<Agreed, Violation> {
    let flags = u32::from_be_bytes(raw);
    let known = u32::from(proto::FLAG_FIXED_NEWSTYLE | proto::FLAG_NO_ZEROES);
    if flags & !known != 0 {
        return Err(Violation::ClientFlags(flags));
    }
    // A client without FIXED_NEWSTYLE is served in the same way (proto.md: MAY).
    Ok(Agreed { no_zeroes: flags & u32::from(proto::FLAG_NO_ZEROES) != 0, structured: false })
}

/// An option's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OptionHeader {
    /// Which option.
    pub(crate) option: u32,
    /// Bytes of data that follow.
    pub(crate) len: u32,
}

impl OptionHeader {
    /// Layout: magic (u64), option (u32), length (u32).
    pub(crate) fn parse(raw: &[u8; proto::OPTION_BYTES]) -> Result<Self, Violation> {
        let (magic, rest) = raw.split_first_chunk::<8>().expect("16 bytes hold 8");
        let (option, len) = rest.split_first_chunk::<4>().expect("8 bytes hold 4");
        let magic = u64::from_be_bytes(*magic);
        if magic != proto::OPTION_MAGIC {
            return Err(Violation::OptionMagic(magic));
        }
        let len = len.try_into().expect("8 bytes are 4 and 4");
        Ok(Self { option: u32::from_be_bytes(*option), len: u32::from_be_bytes(len) })
    }
}

/// Answers one option whose data is whole.
pub(crate) fn answer(
    export: &Export,
    agreed: &mut Agreed,
    option: u32,
    data: &[u8],
    out: &mut Vec<u8>,
) -> Result<After, Violation> {
    match option {
        option::EXPORT_NAME => {
            // No error reply exists for this one: the connection ends (proto.md: SHOULD).
            if !export.answers_to(data) {
                return Err(Violation::UnknownExport(String::from_utf8_lossy(data).into_owned()));
            }
            out.extend(export.size.to_be_bytes());
            out.extend(export.transmission_flags(agreed.structured).to_be_bytes());
            if !agreed.no_zeroes {
                out.extend([0; 124]);
            }
            return Ok(After::Transmission);
        }
        option::ABORT => {
            reply(out, option, rep::ACK, &[]);
            return Ok(After::Finish);
        }
        option::LIST if data.is_empty() => {
            let name = export.name.as_bytes();
            let mut server = length(name).to_be_bytes().to_vec();
            server.extend(name);
            reply(out, option, rep::SERVER, &server);
            reply(out, option, rep::ACK, &[]);
        }
        option::STRUCTURED_REPLY if data.is_empty() => {
            agreed.structured = true;
            reply(out, option, rep::ACK, &[]);
        }
        option::LIST | option::STRUCTURED_REPLY => {
            reply(out, option, rep::ERR_INVALID, b"this option has no data");
        }
        option::INFO | option::GO => match InfoRequest::parse(data) {
            Ok(request) if export.answers_to(request.name) => {
                describe(export, *agreed, option, &request, out);
                if option == option::GO {
                    return Ok(After::Transmission);
                }
            }
            Ok(request) => {
                let asked = String::from_utf8_lossy(request.name);
                let text = format!("no export \"{asked}\" here, only \"{}\"", export.name);
                // Unknown names are the client's bytes: as a reply string they may not grow past the limit.
                let text = if text.len() > MAX_STRING_BYTES { "no such export here" } else { text.as_str() };
                reply(out, option, rep::ERR_UNKNOWN, text.as_bytes());
            }
            Err(BadOption::Invalid(why)) => reply(out, option, rep::ERR_INVALID, why.as_bytes()),
            Err(BadOption::TooBig(why)) => reply(out, option, rep::ERR_TOO_BIG, why.as_bytes()),
        },
        _ => unsupported(option, out),
    }
    Ok(After::Haggle)
}

/// Answers one option whose data was too long to keep and has been read off.
pub(crate) fn answer_too_big(header: OptionHeader, out: &mut Vec<u8>) {
    match header.option {
        option::EXPORT_NAME..=option::LIST | option::INFO..=option::STRUCTURED_REPLY => {
            let text = format!("{} bytes of option data, at most {MAX_OPTION_BYTES}", header.len);
            reply(out, header.option, rep::ERR_TOO_BIG, text.as_bytes());
        }
        _ => unsupported(header.option, out),
    }
}

fn unsupported(option: u32, out: &mut Vec<u8>) {
    let text = format!("option {option} is not supported");
    reply(out, option, rep::ERR_UNSUP, text.as_bytes());
}

fn describe(export: &Export, agreed: Agreed, option: u32, request: &InfoRequest<'_>, out: &mut Vec<u8>) {
    let mut about = info::EXPORT.to_be_bytes().to_vec();
    about.extend(export.size.to_be_bytes());
    about.extend(export.transmission_flags(agreed.structured).to_be_bytes());
    reply(out, option, rep::INFO, &about);
    for (kind, text) in [(info::NAME, &export.name), (info::DESCRIPTION, &export.description)] {
        if request.wants(kind) && !text.is_empty() {
            let mut about = kind.to_be_bytes().to_vec();
            about.extend(text.as_bytes());
            reply(out, option, rep::INFO, &about);
        }
    }
    if request.wants(info::BLOCK_SIZE) {
        let mut about = info::BLOCK_SIZE.to_be_bytes().to_vec();
        about.extend(export.block_sizes().into_iter().flat_map(u32::to_be_bytes));
        reply(out, option, rep::INFO, &about);
    }
    reply(out, option, rep::ACK, &[]);
}

/// Layout: magic (u64), option (u32), type (u32), length (u32), data.
fn reply(out: &mut Vec<u8>, option: u32, kind: u32, data: &[u8]) {
    out.extend(proto::OPTION_REPLY_MAGIC.to_be_bytes());
    out.extend(option.to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.extend(length(data).to_be_bytes());
    out.extend(data);
}

fn length(data: &[u8]) -> u32 {
    u32::try_from(data.len()).expect("replies are a few KiB")
}
