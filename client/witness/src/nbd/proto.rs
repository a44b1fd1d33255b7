//! What a client says and hears on an NBD connection: the handshake, a request's header, a simple reply.

use std::io::{self, Read, Write};

use super::{Error, Result};

const NBDMAGIC: u64 = 0x4e42_444d_4147_4943;
const IHAVEOPT: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const REQUEST: u32 = 0x2560_9513;
const SIMPLE_REPLY: u32 = 0x6744_6698;
const OPT_GO: u32 = 7;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const INFO_EXPORT: u16 = 0;
const INFO_BLOCK_SIZE: u16 = 3;
const FLAGS_FIXED_NO_ZEROES: u32 = 3;

/// Bytes of a request's header.
pub const HEADER_BYTES: usize = 28;
/// Bytes of a simple reply, without what was read.
pub const REPLY_BYTES: usize = 16;
/// A request's flag, Force Unit Access: durable before the reply.
pub const FUA: u16 = 1;
/// An export's flag: FLUSH is understood.
pub const SEND_FLUSH: u16 = 1 << 2;
/// An export's flag: [`FUA`] is understood.
pub const SEND_FUA: u16 = 1 << 3;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Bytes.
    Read,
    /// The payload follows the header.
    Write,
    /// The end.
    Disc,
    /// What has been replied to becomes durable.
    Flush,
}

/// What the server offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Export {
    /// In bytes.
    pub size: u64,
    /// Its transmission flags.
    pub flags: u16,
}

/// The server's answer to a request. What was read follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Of the request.
    pub cookie: u64,
    /// 0, or `NBD_E...`.
    pub code: u32,
}

/// A request's header.
#[must_use]
pub fn header(command: Command, flags: u16, cookie: u64, offset: u64, len: u32) -> [u8; HEADER_BYTES] {
    let number: u16 = match command {
        Command::Read => 0,
        Command::Write => 1,
        Command::Disc => 2,
        Command::Flush => 3,
    };
    let mut header = [0; HEADER_BYTES];
    header[0..4].copy_from_slice(&REQUEST.to_be_bytes());
    header[4..6].copy_from_slice(&flags.to_be_bytes());
    header[6..8].copy_from_slice(&number.to_be_bytes());
    header[8..16].copy_from_slice(&cookie.to_be_bytes());
    header[16..24].copy_from_slice(&offset.to_be_bytes());
    header[24..28].copy_from_slice(&len.to_be_bytes());
    header
}

/// A simple reply.
///
/// # Errors
/// If it is none.
pub fn reply(bytes: &[u8; REPLY_BYTES]) -> Result<Reply> {
    require(bytes[0..4] == SIMPLE_REPLY.to_be_bytes(), || format!("not a simple reply: {bytes:02x?}"))?;
    let code = u32::from_be_bytes(bytes[4..8].try_into().expect("4 bytes"));
    Ok(Reply { cookie: u64::from_be_bytes(bytes[8..16].try_into().expect("8 bytes")), code })
}

/// The handshake: opens the export `name`.
///
/// # Errors
/// If the server refuses, or speaks something else.
pub fn open(stream: &mut (impl Read + Write), name: &str) -> Result<Export> {
    require(u64(stream)? == NBDMAGIC && u64(stream)? == IHAVEOPT, || "not an NBD server".to_owned())?;
    require(u16(stream)? & 1 == 1, || "the server does not speak fixed newstyle".to_owned())?;
    let mut option = FLAGS_FIXED_NO_ZEROES.to_be_bytes().to_vec();
    option.extend(IHAVEOPT.to_be_bytes());
    option.extend(OPT_GO.to_be_bytes());
    let name_len = length(name.as_bytes())?;
    option.extend((name_len + 8).to_be_bytes());
    option.extend(name_len.to_be_bytes());
    option.extend(name.as_bytes());
    option.extend(1_u16.to_be_bytes());
    option.extend(INFO_BLOCK_SIZE.to_be_bytes());
    stream.write_all(&option)?;
    let mut export = Export::default();
    loop {
        require(u64(stream)? == OPTION_REPLY && u32(stream)? == OPT_GO, || "not a reply to GO".to_owned())?;
        let (kind, len) = (u32(stream)?, u32(stream)? as usize);
        require(len <= 65_536, || format!("an option reply of {len} bytes"))?;
        let mut data = vec![0; len];
        stream.read_exact(&mut data)?;
        match kind {
            REP_ACK => return Ok(export),
            REP_INFO if data.len() >= 12 && data[..2] == INFO_EXPORT.to_be_bytes() => {
                export.size = u64::from_be_bytes(data[2..10].try_into().expect("8 bytes"));
                export.flags = u16::from_be_bytes(data[10..12].try_into().expect("2 bytes"));
            }
            REP_INFO => {}
            code => {
                let why = String::from_utf8_lossy(&data).into_owned();
                return Err(Error::Refused { export: name.to_owned(), code, why });
            }
        }
    }
}

/// A payload's length.
///
/// # Errors
/// If NBD can't say it.
pub fn length(data: &[u8]) -> Result<u32> {
    u32::try_from(data.len()).map_err(|_| Error::Protocol(format!("{} bytes are too many", data.len())))
}

pub(super) fn require(holds: bool, why: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Protocol(why())) }
}

fn u16(stream: &mut impl Read) -> io::Result<u16> {
    let mut b = [0; 2];
    stream.read_exact(&mut b)?;
    Ok(u16::from_be_bytes(b))
}

fn u32(stream: &mut impl Read) -> io::Result<u32> {
    let mut b = [0; 4];
    stream.read_exact(&mut b)?;
    Ok(u32::from_be_bytes(b))
}

fn u64(stream: &mut impl Read) -> io::Result<u64> {
    let mut b = [0; 8];
    stream.read_exact(&mut b)?;
    Ok(u64::from_be_bytes(b))
}
