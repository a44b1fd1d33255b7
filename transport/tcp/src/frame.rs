//! The 32 bytes before every payload.
//!
//! All numbers little-endian; what an operation does not use is zero and checked.
//!
//! ```text
//! offset  size  field
//!      0     1  op        1 write, 2 write with immediate, 3 message, 4 credits only
//!      1     1  flags     0
//!      2     2  credits   receive credits that the sender of this frame gives back
//!      4     4  imm       op 2: the immediate
//!      8     8  key       op 1, 2: the remote key
//!     16     8  offset    op 1, 2: first byte, from the start of the range that the key opens
//!     24     4  len       bytes that follow this header
//!     28     4  magic     "TWF1"
//! ```
//!
//! Credits: each side starts with [`RECEIVE_CREDITS`] of the other's receive buffers. A message and a write with
//! immediate take one each, as a verbs receive queue has it; plain writes take none. The receiver gives them back
//! with whatever it sends next, at the latest when half are owed, then by a frame of their own (which takes none).

/// Bytes of a header.
pub(crate) const HEADER: usize = 32;

/// Messages and immediates that a side may send before it gets credits back.
pub const RECEIVE_CREDITS: u16 = 256;

const MAGIC: [u8; 4] = *b"TWF1";

/// What a frame does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// A write that is not reported.
    Write { key: u64, offset: u64 },
    /// A write that is reported with these 32 bits.
    WriteImm { key: u64, offset: u64, imm: u32 },
    /// A message.
    Message,
    /// Nothing but the header's credits.
    Credits,
}

/// A decoded header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// What it does.
    pub(crate) op: Op,
    /// Bytes that follow.
    pub(crate) len: u32,
    /// Credits that it brings.
    pub(crate) credits: u16,
}

impl Op {
    /// Whether it takes one of the receiver's credits.
    pub(crate) const fn takes_credit(self) -> bool {
        matches!(self, Self::WriteImm { .. } | Self::Message)
    }
}

impl Header {
    /// Its bytes.
    pub(crate) fn encode(&self) -> [u8; HEADER] {
        let (op, imm, key, offset) = match self.op {
            Op::Write { key, offset } => (1, 0, key, offset),
            Op::WriteImm { key, offset, imm } => (2, imm, key, offset),
            Op::Message => (3, 0, 0, 0),
            Op::Credits => (4, 0, 0, 0),
        };
        let mut bytes = [0; HEADER];
        bytes[0] = op;
        bytes[2..4].copy_from_slice(&self.credits.to_le_bytes());
        bytes[4..8].copy_from_slice(&imm.to_le_bytes());
        bytes[8..16].copy_from_slice(&key.to_le_bytes());
        bytes[16..24].copy_from_slice(&offset.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.len.to_le_bytes());
        bytes[28..32].copy_from_slice(&MAGIC);
        bytes
    }

    /// From its bytes.
    ///
    /// # Errors
    /// A text that says what is wrong with them.
    pub(crate) fn decode(bytes: &[u8; HEADER]) -> Result<Self, String> {
        let [op, flags, c0, c1, rest @ ..] = *bytes;
        let [i0, i1, i2, i3, rest @ ..] = rest;
        let [k0, k1, k2, k3, k4, k5, k6, k7, rest @ ..] = rest;
        let [o0, o1, o2, o3, o4, o5, o6, o7, rest @ ..] = rest;
        let [l0, l1, l2, l3, magic @ ..] = rest;
        if magic != MAGIC {
            return Err(format!("frame magic {magic:02x?} instead of {MAGIC:02x?}"));
        }
        if flags != 0 {
            return Err(format!("frame flags {flags:#04x} instead of 0"));
        }
        let imm = u32::from_le_bytes([i0, i1, i2, i3]);
        let key = u64::from_le_bytes([k0, k1, k2, k3, k4, k5, k6, k7]);
        let offset = u64::from_le_bytes([o0, o1, o2, o3, o4, o5, o6, o7]);
        let len = u32::from_le_bytes([l0, l1, l2, l3]);
        let decoded = match op {
            1 => Op::Write { key, offset },
            2 => Op::WriteImm { key, offset, imm },
            3 => Op::Message,
            4 => Op::Credits,
            other => return Err(format!("frame operation {other} instead of 1 to 4")),
        };
        let header = Self { op: decoded, len, credits: u16::from_le_bytes([c0, c1]) };
        // What the operation does not use must be zero: encoding again says so for every field at once.
        if header.encode() != *bytes || (decoded == Op::Credits && len != 0) {
            return Err(format!("frame of operation {op} with a field set that it does not use"));
        }
        Ok(header)
    }
}

/// Puts `credits` into an encoded header.
pub(crate) fn set_credits(header: &mut [u8], credits: u16) {
    header[2..4].copy_from_slice(&credits.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_pinned() {
        let header = Header {
            op: Op::WriteImm { key: 0x1122_3344_5566_7788, offset: 0x0102_0304_0506_0708, imm: 0xa1b2_c3d4 },
            len: 0x0001_0203,
            credits: 0x0a0b,
        };
        #[rustfmt::skip]
        let bytes = [
            2, 0, 0x0b, 0x0a,
            0xd4, 0xc3, 0xb2, 0xa1,
            0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,
            8, 7, 6, 5, 4, 3, 2, 1,
            3, 2, 1, 0,
            b'T', b'W', b'F', b'1',
        ];
        assert_eq!(header.encode(), bytes);
        assert_eq!(Header::decode(&bytes), Ok(header));
    }

    #[test]
    fn operations_have_their_numbers_and_come_back() {
        let ops = [Op::Write { key: 5, offset: 6 }, Op::WriteImm { key: 7, offset: 8, imm: 9 }, Op::Message];
        for (op, number) in ops.into_iter().zip(1..) {
            let header = Header { op, len: 17, credits: 3 };
            let bytes = header.encode();
            assert_eq!(bytes[0], number);
            assert_eq!(Header::decode(&bytes), Ok(header));
        }
        let credits = Header { op: Op::Credits, len: 0, credits: 128 };
        assert_eq!(credits.encode()[0], 4);
        assert_eq!(Header::decode(&credits.encode()), Ok(credits));
    }

    #[test]
    fn credits_are_set_in_place() {
        let mut bytes = Header { op: Op::Message, len: 1, credits: 0 }.encode();
        set_credits(&mut bytes, 0x0102);
        assert_eq!(Header::decode(&bytes), Ok(Header { op: Op::Message, len: 1, credits: 0x0102 }));
    }

    #[test]
    fn whatever_does_not_belong_is_refused() {
        let good = Header { op: Op::Message, len: 8, credits: 0 }.encode();
        let refused = |at: usize, value: u8, word: &str| {
            let mut bad = good;
            bad[at] = value;
            let why = Header::decode(&bad).expect_err("a bad header was taken");
            assert!(why.contains(word), "byte {at}: {why}");
        };
        refused(28, b'X', "magic");
        refused(31, b'2', "magic");
        refused(1, 1, "flags");
        refused(0, 0, "operation 0");
        refused(0, 5, "operation 5");
        refused(4, 1, "does not use");
        refused(8, 1, "does not use");
        refused(23, 1, "does not use");
        let mut long_credits = Header { op: Op::Credits, len: 0, credits: 1 }.encode();
        long_credits[24] = 1;
        assert!(Header::decode(&long_credits).is_err());
        assert!(Header::decode(b"GET /twinsan HTTP/1.1\r\nHost: x\r\n").is_err_and(|why| why.contains("magic")));
    }
}
