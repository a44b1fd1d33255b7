//! The 64 bytes that follow a payload into a lane.
//!
//! | offset | bytes | field |
//! | ---: | ---: | --- |
//! | 0 | 4 | magic, `TwSd` |
//! | 4 | 1 | protocol version |
//! | 5 | 1 | kind: 1 write, 2 zeroes, 3 discard |
//! | 6 | 2 | flags: bit 0, the payload CRC is given; bit 1, the node is to say how long it took ([`crate::Times`]) |
//! | 8 | 8 | generation |
//! | 16 | 8 | seq |
//! | 24 | 8 | first logical block |
//! | 32 | 8 | position in the data ring |
//! | 40 | 4 | number of blocks |
//! | 44 | 4 | payload length in bytes |
//! | 48 | 4 | payload CRC32C |
//! | 52 | 8 | reserved, zero |
//! | 60 | 4 | CRC32C of bytes 0 to 59 |

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::blob::{Blob, BlobKind};
use crate::codec::parts::{bad, check_span, zero};
use crate::crc::crc32c;
use crate::error::DecodeError;
use crate::ids::{Generation, Lba, Seq};
use crate::limits::{
    DESCRIPTOR_BYTES, MAX_BLOCK_BYTES, MAX_PAYLOAD_BYTES, MAX_ZERO_BLOCKS, MIN_BLOCK_BYTES, PROTOCOL_VERSION,
};

const WHAT: &str = "descriptor";
const MAGIC: u32 = u32::from_le_bytes(*b"TwSd");
const CRC_OFFSET: usize = 60;
const FLAG_PAYLOAD_CRC: u16 = 1;
const FLAG_TIMED: u16 = 2;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Raw {
    magic: U32,
    version: u8,
    kind: u8,
    flags: U16,
    generation: U64,
    seq: U64,
    lba: U64,
    data_pos: U64,
    blocks: U32,
    payload_len: U32,
    payload_crc: U32,
    reserved: [u8; 8],
    crc: U32,
}

const _: () = assert!(size_of::<Raw>() == DESCRIPTOR_BYTES);
const _: () = assert!(core::mem::offset_of!(Raw, crc) == CRC_OFFSET);

/// A blob as it stands in a descriptor ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Descriptor {
    /// What is staged.
    pub blob: Blob,
    /// CRC32C of the payload, where integrity is on; always `None` for a kind without payload.
    pub payload_crc: Option<u32>,
    /// The node is to say how long it took.
    pub timed: bool,
}

impl Descriptor {
    /// The bytes for the ring.
    #[must_use]
    pub fn encode(&self) -> [u8; DESCRIPTOR_BYTES] {
        let blob = &self.blob;
        let raw = Raw {
            magic: MAGIC.into(),
            version: PROTOCOL_VERSION,
            kind: match blob.kind {
                BlobKind::Write => 1,
                BlobKind::Zeroes => 2,
                BlobKind::Discard => 3,
            },
            flags: self.flags().into(),
            generation: blob.generation.0.into(),
            seq: blob.seq.0.into(),
            lba: blob.lba.0.into(),
            data_pos: blob.data_pos.into(),
            blocks: blob.blocks.into(),
            payload_len: blob.payload_len.into(),
            payload_crc: self.payload_crc.unwrap_or(0).into(),
            reserved: [0; 8],
            crc: U32::ZERO,
        };
        let mut bytes: [u8; DESCRIPTOR_BYTES] = zerocopy::transmute!(raw);
        let crc = crc32c(&bytes[..CRC_OFFSET]);
        bytes[CRC_OFFSET..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    const fn flags(&self) -> u16 {
        let crc = if self.payload_crc.is_some() { FLAG_PAYLOAD_CRC } else { 0 };
        crc | if self.timed { FLAG_TIMED } else { 0 }
    }

    /// From bytes that were copied out of the ring. What depends on the volume is
    /// [`VolumeShape::check_blob`](crate::message::VolumeShape::check_blob)'s.
    ///
    /// # Errors
    /// If a bit was changed on the way, or a field holds what no client may say.
    pub fn decode(bytes: &[u8; DESCRIPTOR_BYTES]) -> Result<Self, DecodeError> {
        let raw: Raw = zerocopy::transmute!(*bytes);
        if raw.magic != MAGIC {
            return Err(DecodeError::Magic { what: WHAT, found: raw.magic.get(), expected: MAGIC });
        }
        if raw.version != PROTOCOL_VERSION {
            return Err(DecodeError::Version { what: WHAT, found: raw.version });
        }
        let computed = crc32c(&bytes[..CRC_OFFSET]);
        if raw.crc != computed {
            return Err(DecodeError::Checksum { what: WHAT, found: raw.crc.get(), computed });
        }
        zero("Descriptor.reserved", &raw.reserved)?;
        let blob = raw.blob()?;
        let payload_crc = raw.payload_crc(blob.kind)?;
        Ok(Self { blob, payload_crc, timed: raw.flags.get() & FLAG_TIMED != 0 })
    }
}

impl Raw {
    fn blob(&self) -> Result<Blob, DecodeError> {
        let kind = match self.kind {
            1 => BlobKind::Write,
            2 => BlobKind::Zeroes,
            3 => BlobKind::Discard,
            found => return Err(DecodeError::Kind { what: WHAT, found }),
        };
        if self.generation == U64::ZERO {
            return Err(bad("Descriptor.generation", 0u64, "at least 1: zero is a volume never attached"));
        }
        if self.seq == U64::ZERO {
            return Err(bad("Descriptor.seq", 0u64, "at least 1"));
        }
        let (blocks, payload_len) = (self.blocks.get(), self.payload_len.get());
        check_span("Descriptor.lba", self.lba.get(), blocks)?;
        check_payload(kind, blocks, payload_len)?;
        if self.data_pos.get().checked_add(payload_len.into()).is_none() {
            return Err(bad("Descriptor.data_pos", self.data_pos, "a position whose payload ends below 2^64"));
        }
        Ok(Blob {
            generation: Generation(self.generation.get()),
            seq: Seq(self.seq.get()),
            kind,
            lba: Lba(self.lba.get()),
            blocks,
            data_pos: self.data_pos.get(),
            payload_len,
        })
    }

    fn payload_crc(&self, kind: BlobKind) -> Result<Option<u32>, DecodeError> {
        let given = match self.flags.get() & !FLAG_TIMED {
            0 => false,
            FLAG_PAYLOAD_CRC if kind == BlobKind::Write => true,
            _ => {
                let right = "0, plus 1 for a write (payload CRC given), plus 2 (timed)";
                return Err(bad("Descriptor.flags", self.flags.get(), right));
            }
        };
        let crc = self.payload_crc.get();
        if !given && crc != 0 {
            return Err(bad("Descriptor.payload_crc", crc, "zero where flag 0 is not set"));
        }
        Ok(given.then_some(crc))
    }
}

/// What a kind's blocks and payload may be on any volume, whatever its block size.
fn check_payload(kind: BlobKind, blocks: u32, payload_len: u32) -> Result<(), DecodeError> {
    if blocks == 0 {
        return Err(bad("Descriptor.blocks", blocks, "at least 1"));
    }
    if kind != BlobKind::Write {
        if payload_len != 0 {
            return Err(bad("Descriptor.payload_len", payload_len, "0 for zeroes and discard"));
        }
        if blocks > MAX_ZERO_BLOCKS {
            return Err(bad("Descriptor.blocks", blocks, "at most MAX_ZERO_BLOCKS, 1048576"));
        }
        return Ok(());
    }
    if payload_len > MAX_PAYLOAD_BYTES {
        return Err(bad("Descriptor.payload_len", payload_len, "at most MAX_PAYLOAD_BYTES, 1048576"));
    }
    let of = |block_bytes: u32| blocks.checked_mul(block_bytes) == Some(payload_len);
    if !of(MIN_BLOCK_BYTES) && !of(MAX_BLOCK_BYTES) {
        return Err(bad("Descriptor.payload_len", payload_len, "512 or 4096 times the number of blocks"));
    }
    Ok(())
}
