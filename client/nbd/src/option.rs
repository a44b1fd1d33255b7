//! Option data: taken apart once, completely.

use crate::limits::MAX_STRING_BYTES;

/// The data of INFO and GO.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InfoRequest<'a> {
    /// The export asked for, as sent.
    pub(crate) name: &'a [u8],
    /// The information types asked for, two bytes each.
    types: &'a [u8],
}

/// Why option data is refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BadOption {
    /// `NBD_REP_ERR_INVALID`.
    Invalid(&'static str),
    /// `NBD_REP_ERR_TOO_BIG`.
    TooBig(String),
}

impl<'a> InfoRequest<'a> {
    /// Layout: name length (u32), name, number of requests (u16), that many types (u16 each); nothing after them.
    pub(crate) fn parse(data: &'a [u8]) -> Result<Self, BadOption> {
        let (len, rest) = data.split_first_chunk().ok_or(BadOption::Invalid("shorter than its name's length field"))?;
        let len = u32::from_be_bytes(*len);
        if len as usize > MAX_STRING_BYTES {
            return Err(BadOption::TooBig(format!("export name of {len} bytes, at most {MAX_STRING_BYTES}")));
        }
        let (name, rest) =
            rest.split_at_checked(len as usize).ok_or(BadOption::Invalid("the name is longer than the option"))?;
        let (count, types) = rest.split_first_chunk().ok_or(BadOption::Invalid("no number of information requests"))?;
        if types.len() != usize::from(u16::from_be_bytes(*count)) * 2 {
            return Err(BadOption::Invalid("the number of information requests does not match the length"));
        }
        Ok(Self { name, types })
    }

    /// Whether information of type `info` is asked for.
    pub(crate) fn wants(&self, info: u16) -> bool {
        self.types.chunks_exact(2).any(|pair| pair == info.to_be_bytes())
    }
}
