//! A request: its header taken apart and checked, once.

use crate::limits::MAX_PAYLOAD_BYTES;
use crate::proto::{self, cmd, flag};
use crate::server::Violation;

/// A request that may be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The client's mark, handed back in the reply.
    pub cookie: u64,
    /// What to do.
    pub command: Command,
}

/// What to do. Ranges are bytes, inside of the export, never empty. FUA is not shown: every reply means durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Read; at most [`MAX_PAYLOAD_BYTES`].
    Read {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u32,
    },
    /// Write `len` bytes that follow on the stream; at most [`MAX_PAYLOAD_BYTES`].
    Write {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u32,
    },
    /// All writes replied to are to be durable.
    Flush,
    /// The bytes are not needed any more; what they read as afterwards is left to the server.
    Trim {
        /// First byte.
        offset: u64,
        /// Bytes; up to 4 GiB.
        len: u32,
    },
    /// Make the bytes zero.
    WriteZeroes {
        /// First byte.
        offset: u64,
        /// Bytes; up to 4 GiB.
        len: u32,
        /// Keep their space.
        no_hole: bool,
    },
    /// Have the bytes at hand: advice.
    Cache {
        /// First byte.
        offset: u64,
        /// Bytes; up to 4 GiB.
        len: u32,
    },
}

/// A request that may not be carried out, and what to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The client's mark.
    pub cookie: u64,
    /// The error.
    pub errno: Errno,
    /// For people; sent with structured replies.
    pub message: String,
}

/// The errors of proto.md, section "Error values".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errno {
    /// The device failed.
    Io,
    /// The request makes no sense.
    Invalid,
    /// A write past the end.
    NoSpace,
    /// The server goes down.
    Shutdown,
}

impl Errno {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Io => 5,
            Self::Invalid => 22,
            Self::NoSpace => 28,
            Self::Shutdown => 108,
        }
    }
}

/// A request's header as sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) flags: u16,
    pub(crate) command: u16,
    pub(crate) cookie: u64,
    pub(crate) offset: u64,
    pub(crate) len: u32,
}

impl Header {
    /// Layout: magic (u32), flags (u16), command (u16), cookie (u64), offset (u64), length (u32).
    pub(crate) fn parse(raw: &[u8; proto::REQUEST_BYTES]) -> Result<Self, Violation> {
        fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
            let (head, tail) = rest.split_first_chunk().expect("the fields make 28 bytes");
            *rest = tail;
            *head
        }
        let mut rest = raw.as_slice();
        let magic = u32::from_be_bytes(take(&mut rest));
        if magic != proto::REQUEST_MAGIC {
            return Err(Violation::RequestMagic(magic));
        }
        Ok(Self {
            flags: u16::from_be_bytes(take(&mut rest)),
            command: u16::from_be_bytes(take(&mut rest)),
            cookie: u64::from_be_bytes(take(&mut rest)),
            offset: u64::from_be_bytes(take(&mut rest)),
            len: u32::from_be_bytes(take(&mut rest)),
        })
    }

    /// The one check of a request. Past it, ranges are good.
    ///
    /// Errors are proto.md's: `ENOSPC` for writes and zeroing past the end, else `EINVAL`; a payload over the maximum
    /// is `EINVAL` too (`EOVERFLOW` is kept for DF, which no length makes impossible here).
    pub(crate) fn check(&self, size: u64, structured: bool) -> Result<Request, Refused> {
        let Self { command, offset, len, .. } = *self;
        let past_end = match command {
            cmd::WRITE | cmd::WRITE_ZEROES => Errno::NoSpace,
            cmd::READ | cmd::TRIM | cmd::CACHE => Errno::Invalid,
            cmd::FLUSH => return self.check_flush(),
            other => return Err(self.refused(Errno::Invalid, format!("command {other} is not supported"))),
        };
        self.check_flags(structured)?;
        if len == 0 {
            return Err(self.refused(Errno::Invalid, "length 0".into()));
        }
        if matches!(command, cmd::READ | cmd::WRITE) && len > MAX_PAYLOAD_BYTES {
            return Err(self.refused(Errno::Invalid, format!("{len} bytes, at most {MAX_PAYLOAD_BYTES}")));
        }
        if offset.checked_add(u64::from(len)).is_none_or(|end| end > size) {
            let message = format!("{len} bytes at {offset} go past the end of the volume, {size}");
            return Err(self.refused(past_end, message));
        }
        let command = match command {
            cmd::READ => Command::Read { offset, len },
            cmd::WRITE => Command::Write { offset, len },
            cmd::TRIM => Command::Trim { offset, len },
            cmd::CACHE => Command::Cache { offset, len },
            _ => Command::WriteZeroes { offset, len, no_hole: self.flags & flag::NO_HOLE != 0 },
        };
        Ok(Request { cookie: self.cookie, command })
    }

    fn check_flush(&self) -> Result<Request, Refused> {
        // proto.md: FLUSH's offset and length are reserved and must be zero.
        if self.offset != 0 || self.len != 0 {
            return Err(self.refused(Errno::Invalid, "FLUSH has no offset and no length".into()));
        }
        self.check_flags(false)?;
        Ok(Request { cookie: self.cookie, command: Command::Flush })
    }

    /// Flags that the command does not have, or that were not agreed on, are `EINVAL`. FUA is allowed on every
    /// command (proto.md).
    fn check_flags(&self, structured: bool) -> Result<(), Refused> {
        let allowed = flag::FUA
            | match self.command {
                cmd::WRITE_ZEROES => flag::NO_HOLE | flag::FAST_ZERO,
                cmd::READ if structured => flag::DF,
                _ => 0,
            };
        match self.flags & !allowed {
            0 => Ok(()),
            bad => Err(self.refused(Errno::Invalid, format!("flags {bad:#06x} do not fit command {}", self.command))),
        }
    }

    /// Payload bytes that follow on the stream, whatever becomes of the request.
    pub(crate) fn payload(&self) -> u32 {
        if self.command == cmd::WRITE { self.len } else { 0 }
    }

    fn refused(&self, errno: Errno, message: String) -> Refused {
        Refused { cookie: self.cookie, errno, message }
    }
}
