//! Reply bytes of the transmission phase.
//!
//! Without structured replies everything is a simple reply. With them, a READ must be answered by chunks (proto.md);
//! successes of the other commands stay simple replies, the shorter form, and errors are chunks, as those carry a
//! message.

use crate::proto::{SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC, chunk};
use crate::request::Errno;

/// The longest message that is sent with an error.
pub const MAX_MESSAGE_BYTES: usize = 512;

/// Success of a command that returns no bytes.
pub fn success(out: &mut Vec<u8>, cookie: u64) {
    simple(out, cookie, 0);
}

/// Success of a READ: this head, then the `len` bytes themselves.
pub fn read_head(out: &mut Vec<u8>, structured: bool, cookie: u64, offset: u64, len: u32) {
    if structured {
        head(out, chunk::OFFSET_DATA, cookie, len + 8);
        out.extend(offset.to_be_bytes());
    } else {
        simple(out, cookie, 0);
    }
}

/// Failure of any command.
pub fn error(out: &mut Vec<u8>, structured: bool, cookie: u64, errno: Errno, message: &str) {
    if !structured {
        return simple(out, cookie, errno.number());
    }
    let message = &message[..message.floor_char_boundary(MAX_MESSAGE_BYTES)];
    let len = u16::try_from(message.len()).expect("cut to 512");
    head(out, chunk::ERROR, cookie, u32::from(len) + 6);
    out.extend(errno.number().to_be_bytes());
    out.extend(len.to_be_bytes());
    out.extend(message.as_bytes());
}

/// Layout: magic (u32), error (u32), cookie (u64).
fn simple(out: &mut Vec<u8>, cookie: u64, error: u32) {
    out.extend(SIMPLE_REPLY_MAGIC.to_be_bytes());
    out.extend(error.to_be_bytes());
    out.extend(cookie.to_be_bytes());
}

/// Layout: magic (u32), flags (u16), type (u16), cookie (u64), length (u32). Every reply here is one chunk: DONE.
fn head(out: &mut Vec<u8>, kind: u16, cookie: u64, len: u32) {
    out.extend(STRUCTURED_REPLY_MAGIC.to_be_bytes());
    out.extend(chunk::DONE.to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.extend(cookie.to_be_bytes());
    out.extend(len.to_be_bytes());
}
