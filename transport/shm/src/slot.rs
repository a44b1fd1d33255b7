//! A post, as it stands in the ring.
//!
//! All numbers little-endian; what an operation does not use is zero and checked.
//!
//! ```text
//! offset  size  field
//!      0     1  op        1 write, 2 write with immediate, 3 message
//!      1     1  source    0 the bytes follow this header, 1 they are in the sender's memory
//!      2     1  signalled 1: the sender wants to know when it is taken
//!      3     1  0
//!      4     4  imm       op 2: the immediate
//!      8     8  key       op 1, 2: the remote key
//!     16     8  offset    op 1, 2: first byte, from the start of the range that the key opens
//!     24     4  len       number of bytes
//!     28     4  region    source 1: which memory of the sender's
//!     32     8  from      source 1: first byte in it
//!     40    24  0
//!     64   512  the bytes, if they follow
//! ```

use twinsan_wire::limits::MAX_MESSAGE_BYTES;

/// Bytes of a slot's header.
pub(crate) const HEADER: usize = 64;

/// Bytes of a slot.
pub(crate) const SLOT: usize = HEADER + MAX_MESSAGE_BYTES;

/// What a post does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// A write that is not reported.
    Write { key: u64, offset: u64 },
    /// A write that is reported with these 32 bits.
    WriteImm { key: u64, offset: u64, imm: u32 },
    /// A message.
    Message,
}

/// Where its bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Behind the header.
    Inline,
    /// In the sender's memory.
    Region { region: u32, from: u64 },
}

/// A decoded header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) op: Op,
    pub(crate) source: Source,
    pub(crate) len: u32,
    pub(crate) signalled: bool,
}

impl Header {
    /// Its bytes.
    pub(crate) fn encode(&self) -> [u8; HEADER] {
        let (op, imm, key, offset) = match self.op {
            Op::Write { key, offset } => (1, 0, key, offset),
            Op::WriteImm { key, offset, imm } => (2, imm, key, offset),
            Op::Message => (3, 0, 0, 0),
        };
        let (source, region, from) = match self.source {
            Source::Inline => (0, 0, 0),
            Source::Region { region, from } => (1, region, from),
        };
        let mut bytes = [0; HEADER];
        bytes[0] = op;
        bytes[1] = source;
        bytes[2] = u8::from(self.signalled);
        bytes[4..8].copy_from_slice(&imm.to_le_bytes());
        bytes[8..16].copy_from_slice(&key.to_le_bytes());
        bytes[16..24].copy_from_slice(&offset.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.len.to_le_bytes());
        bytes[28..32].copy_from_slice(&region.to_le_bytes());
        bytes[32..40].copy_from_slice(&from.to_le_bytes());
        bytes
    }

    /// From its bytes.
    ///
    /// # Errors
    /// A text that says what is wrong with them.
    pub(crate) fn decode(bytes: &[u8; HEADER]) -> Result<Self, String> {
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let (key, offset) = (u64_at(8), u64_at(16));
        let op = match bytes[0] {
            1 => Op::Write { key, offset },
            2 => Op::WriteImm { key, offset, imm: u32_at(4) },
            3 => Op::Message,
            other => return Err(format!("a post of operation {other} instead of 1 to 3")),
        };
        let source = match bytes[1] {
            0 => Source::Inline,
            1 => Source::Region { region: u32_at(28), from: u64_at(32) },
            other => return Err(format!("a post from {other} instead of 0 or 1")),
        };
        let header = Self { op, source, len: u32_at(24), signalled: bytes[2] != 0 };
        // What it does not use must be zero: encoding again says so for every field at once.
        if header.encode() != *bytes {
            return Err(format!("a post of operation {} with a field set that it does not use", bytes[0]));
        }
        if op == Op::Message && source != Source::Inline {
            return Err("a message that is not in its slot".to_owned());
        }
        if source == Source::Inline && header.len as usize > MAX_MESSAGE_BYTES {
            return Err(format!("{} bytes in a slot, the limit is {MAX_MESSAGE_BYTES}", header.len));
        }
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: Header = Header {
        op: Op::WriteImm { key: 0x1122_3344_5566_7788, offset: 0x0102_0304_0506_0708, imm: 0xa1b2_c3d4 },
        source: Source::Region { region: 0x0a0b_0c0d, from: 0x2122_2324_2526_2728 },
        len: 0x0001_0203,
        signalled: true,
    };

    #[test]
    fn every_byte_is_pinned() {
        #[rustfmt::skip]
        let mut bytes = vec![
            2, 1, 1, 0,
            0xd4, 0xc3, 0xb2, 0xa1,
            0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,
            8, 7, 6, 5, 4, 3, 2, 1,
            3, 2, 1, 0,
            0x0d, 0x0c, 0x0b, 0x0a,
            0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21,
        ];
        bytes.resize(HEADER, 0);
        assert_eq!(FULL.encode()[..], bytes);
        assert_eq!(Header::decode(&FULL.encode()), Ok(FULL));
    }

    #[test]
    fn all_kinds_come_back() {
        for op in [Op::Write { key: 1, offset: 2 }, Op::WriteImm { key: 3, offset: 4, imm: 5 }, Op::Message] {
            let inline = Header { op, source: Source::Inline, len: 512, signalled: false };
            assert_eq!(Header::decode(&inline.encode()), Ok(inline));
        }
    }

    #[test]
    fn whatever_does_not_belong_is_refused() {
        let refused = |header: Header, at: usize, value: u8, word: &str| {
            let mut bytes = header.encode();
            bytes[at] = value;
            let why = Header::decode(&bytes).expect_err("a bad header was taken");
            assert!(why.contains(word), "byte {at}: {why}");
        };
        let message = Header { op: Op::Message, source: Source::Inline, len: 8, signalled: false };
        refused(message, 0, 0, "operation 0");
        refused(message, 0, 4, "operation 4");
        refused(message, 1, 2, "from 2");
        refused(message, 1, 1, "not in its slot");
        for at in [2, 3, 4, 8, 23, 28, 32, 40, 63] {
            refused(message, at, 2, "does not use");
        }
        refused(message, 26, 1, "65544 bytes in a slot");
        refused(FULL, 2, 2, "does not use");
    }
}
