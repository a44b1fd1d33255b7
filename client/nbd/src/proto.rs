//! The numbers of proto.md, section "Values". All are sent in network byte order.

/// `NBDMAGIC`, the first eight bytes.
pub const MAGIC: u64 = 0x4e42_444d_4147_4943;
/// `IHAVEOPT`, before the handshake flags and before every option.
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// Before every option reply.
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Before every request.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// Before every simple reply.
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// Before every structured reply chunk.
pub const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;
/// Bytes of a request's header.
pub const REQUEST_BYTES: usize = 28;
/// Bytes of an option's header.
pub const OPTION_BYTES: usize = 16;

/// Server and client handshake flag: options may be answered by errors.
pub const FLAG_FIXED_NEWSTYLE: u16 = 1 << 0;
/// Server and client handshake flag: no 124 zeros after `EXPORT_NAME`.
pub const FLAG_NO_ZEROES: u16 = 1 << 1;

/// Transmission flags.
pub mod transmission {
    /// Always set.
    pub const HAS_FLAGS: u16 = 1 << 0;
    /// FLUSH is understood.
    pub const SEND_FLUSH: u16 = 1 << 2;
    /// The FUA flag is understood.
    pub const SEND_FUA: u16 = 1 << 3;
    /// TRIM is understood.
    pub const SEND_TRIM: u16 = 1 << 5;
    /// `WRITE_ZEROES` is understood.
    pub const SEND_WRITE_ZEROES: u16 = 1 << 6;
    /// The DF flag is understood.
    pub const SEND_DF: u16 = 1 << 7;
    /// FLUSH on one connection covers the writes of all.
    pub const CAN_MULTI_CONN: u16 = 1 << 8;
    /// CACHE is understood.
    pub const SEND_CACHE: u16 = 1 << 10;
    /// The `FAST_ZERO` flag is understood.
    pub const SEND_FAST_ZERO: u16 = 1 << 11;
}

/// Options.
pub mod option {
    /// Choose an export and begin; can't be answered by an error.
    pub const EXPORT_NAME: u32 = 1;
    /// End.
    pub const ABORT: u32 = 2;
    /// Name all exports.
    pub const LIST: u32 = 3;
    /// Describe an export.
    pub const INFO: u32 = 6;
    /// Describe an export and begin.
    pub const GO: u32 = 7;
    /// Reply in chunks from now on.
    pub const STRUCTURED_REPLY: u32 = 8;
}

/// Option replies.
pub mod rep {
    /// Done.
    pub const ACK: u32 = 1;
    /// One export's name.
    pub const SERVER: u32 = 2;
    /// One piece of information.
    pub const INFO: u32 = 3;
    /// The server does not know the option.
    pub const ERR_UNSUP: u32 = (1 << 31) + 1;
    /// The option's data makes no sense.
    pub const ERR_INVALID: u32 = (1 << 31) + 3;
    /// No such export.
    pub const ERR_UNKNOWN: u32 = (1 << 31) + 6;
    /// The option's data is too long.
    pub const ERR_TOO_BIG: u32 = (1 << 31) + 9;
}

/// Information types.
pub mod info {
    /// Size and transmission flags.
    pub const EXPORT: u16 = 0;
    /// The canonical name.
    pub const NAME: u16 = 1;
    /// For people.
    pub const DESCRIPTION: u16 = 2;
    /// Minimum, preferred, maximum.
    pub const BLOCK_SIZE: u16 = 3;
}

/// Commands.
pub mod cmd {
    /// Read.
    pub const READ: u16 = 0;
    /// Write; the payload follows.
    pub const WRITE: u16 = 1;
    /// End, once all is answered.
    pub const DISC: u16 = 2;
    /// Make everything replied to durable.
    pub const FLUSH: u16 = 3;
    /// These bytes are not needed any more.
    pub const TRIM: u16 = 4;
    /// Have these bytes at hand.
    pub const CACHE: u16 = 5;
    /// Make these bytes zero.
    pub const WRITE_ZEROES: u16 = 6;
}

/// Command flags.
pub mod flag {
    /// Durable before the reply.
    pub const FUA: u16 = 1 << 0;
    /// `WRITE_ZEROES`: keep the space allocated.
    pub const NO_HOLE: u16 = 1 << 1;
    /// READ: one chunk.
    pub const DF: u16 = 1 << 2;
    /// `WRITE_ZEROES`: fail rather than be slow.
    pub const FAST_ZERO: u16 = 1 << 4;
}

/// Structured reply types.
pub mod chunk {
    /// Flag: the last chunk.
    pub const DONE: u16 = 1 << 0;
    /// Bytes of a READ.
    pub const OFFSET_DATA: u16 = 1;
    /// An error with a message.
    pub const ERROR: u16 = (1 << 15) + 1;
}
