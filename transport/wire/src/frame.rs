//! The header of every small message, and the buffer that a message is encoded into.
//!
//! | offset | bytes | field |
//! | ---: | ---: | --- |
//! | 0 | 4 | magic, `TwSg` |
//! | 4 | 1 | protocol version |
//! | 5 | 1 | kind |
//! | 6 | 2 | length of the whole message |
//! | 8 | 4 | reserved, zero |
//! | 12 | 4 | CRC32C of the message without these four bytes |

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::crc::crc32c_of_two;
use crate::error::DecodeError;
use crate::limits::{MAX_MESSAGE_BYTES, PROTOCOL_VERSION};

/// Bytes of a message's header.
pub const HEADER_BYTES: usize = 16;

/// The first four bytes of every message.
pub(crate) const MESSAGE_MAGIC: u32 = u32::from_le_bytes(*b"TwSg");

const CRC_OFFSET: usize = 12;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    magic: U32,
    version: u8,
    kind: u8,
    length: U16,
    reserved: U32,
    crc: U32,
}

const _: () = assert!(size_of::<Header>() == HEADER_BYTES);
const _: () = assert!(MAX_MESSAGE_BYTES <= u16::MAX as usize);

/// The kind's byte of what may be a message.
pub(crate) fn kind(bytes: &[u8]) -> Option<u8> {
    bytes.get(core::mem::offset_of!(Header, kind)).copied()
}

/// A message's bytes, ready to be sent.
#[derive(Clone, Copy)]
pub struct Encoded {
    length: usize,
    bytes: [u8; MAX_MESSAGE_BYTES],
}

impl Encoded {
    /// What goes on the wire.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// Header and body.
    pub(crate) fn new<B: IntoBytes + Immutable>(kind: u8, body: &B) -> Self {
        const { assert!(HEADER_BYTES + size_of::<B>() <= MAX_MESSAGE_BYTES) };
        let length = HEADER_BYTES + size_of::<B>();
        let mut bytes = [0; MAX_MESSAGE_BYTES];
        bytes[HEADER_BYTES..length].copy_from_slice(body.as_bytes());
        let mut header = Header {
            magic: MESSAGE_MAGIC.into(),
            version: PROTOCOL_VERSION,
            kind,
            length: u16::try_from(length).expect("at most MAX_MESSAGE_BYTES").into(),
            reserved: U32::ZERO,
            crc: U32::ZERO,
        };
        let crc = crc32c_of_two(&header.as_bytes()[..CRC_OFFSET], &bytes[HEADER_BYTES..length]);
        header.crc = crc.into();
        bytes[..HEADER_BYTES].copy_from_slice(header.as_bytes());
        Self { length, bytes }
    }
}

impl AsRef<[u8]> for Encoded {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl core::fmt::Debug for Encoded {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("Encoded").field(&self.as_bytes()).finish()
    }
}

/// A message whose header is right: what is left is the kind's own.
pub(crate) struct Message<'a> {
    /// What the caller expects it to be.
    what: &'static str,
    /// The kind's byte.
    pub(crate) kind: u8,
    body: &'a [u8],
}

impl<'a> Message<'a> {
    /// Checks the header: first what no version changes (length, magic, version), then the rest.
    pub(crate) fn parse(what: &'static str, bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let Ok((header, body)) = Header::read_from_prefix(bytes) else {
            return Err(DecodeError::Length { what, found: bytes.len(), expected: HEADER_BYTES });
        };
        if header.magic != MESSAGE_MAGIC {
            return Err(DecodeError::Magic { what, found: header.magic.get(), expected: MESSAGE_MAGIC });
        }
        if header.version != PROTOCOL_VERSION {
            return Err(DecodeError::Version { what, found: header.version });
        }
        let length = usize::from(header.length.get());
        if length != bytes.len() {
            return Err(DecodeError::Length { what, found: bytes.len(), expected: length });
        }
        let computed = crc32c_of_two(&bytes[..CRC_OFFSET], body);
        if header.crc != computed {
            return Err(DecodeError::Checksum { what, found: header.crc.get(), computed });
        }
        if header.reserved != U32::ZERO {
            return Err(DecodeError::Field {
                field: "Header.reserved",
                value: header.reserved.get().into(),
                right: "zero",
            });
        }
        Ok(Self { what, kind: header.kind, body })
    }

    /// The body, which must have exactly its kind's size.
    pub(crate) fn body<B: FromBytes>(&self) -> Result<B, DecodeError> {
        B::read_from_bytes(self.body).map_err(|_| DecodeError::Length {
            what: self.what,
            found: HEADER_BYTES + self.body.len(),
            expected: HEADER_BYTES + size_of::<B>(),
        })
    }

    /// For a kind without body.
    pub(crate) fn no_body(&self) -> Result<(), DecodeError> {
        self.body::<()>()
    }

    /// A kind that the caller does not know.
    pub(crate) fn unknown_kind(&self) -> DecodeError {
        DecodeError::Kind { what: self.what, found: self.kind }
    }
}
