//! Generic netlink, as much of it as it takes to command the kernel's nbd driver: one request, its acknowledgement.
//!
//! Layout by netlink(7) and `linux/genetlink.h`: everything is in the host's byte order and padded to four bytes.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

const HEADER_BYTES: usize = 16;
const GENERIC_HEADER_BYTES: usize = 4;
const ATTRIBUTE_BYTES: usize = 4;

/// `NLMSG_ERROR`: the acknowledgement, whose error is 0 if all went well.
const MSG_ERROR: u16 = 2;
/// `GENL_ID_CTRL`: the family that knows all others.
const CONTROL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
/// `NLM_F_REQUEST | NLM_F_ACK`.
const REQUEST_ACK: u16 = 1 | 4;
const NESTED: u16 = 1 << 15;

/// One request being written.
#[derive(Debug)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    /// To `family`, for its command `command`.
    pub(crate) fn new(family: u16, command: u8) -> Self {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[4..6].copy_from_slice(&family.to_ne_bytes());
        bytes[6..8].copy_from_slice(&REQUEST_ACK.to_ne_bytes());
        // The command, and version 1 of its family.
        bytes.extend([command, 1, 0, 0]);
        Self(bytes)
    }

    pub(crate) fn u32(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    pub(crate) fn u64(self, kind: u16, value: u64) -> Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// With the zero byte at its end.
    pub(crate) fn string(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// An attribute made of attributes.
    pub(crate) fn nested(mut self, kind: u16, inner: impl FnOnce(Self) -> Self) -> Self {
        let at = self.0.len();
        self.0.extend([0; ATTRIBUTE_BYTES]);
        let mut message = inner(self);
        let len = message.0.len() - at;
        message.attribute_header(at, kind | NESTED, len);
        message
    }

    fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let at = self.0.len();
        self.0.extend([0; ATTRIBUTE_BYTES]);
        self.0.extend(value);
        self.attribute_header(at, kind, ATTRIBUTE_BYTES + value.len());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn attribute_header(&mut self, at: usize, kind: u16, len: usize) {
        let len = u16::try_from(len).expect("attributes are short");
        self.0[at..at + 2].copy_from_slice(&len.to_ne_bytes());
        self.0[at + 2..at + 4].copy_from_slice(&kind.to_ne_bytes());
    }

    fn finish(mut self, sequence: u32) -> Vec<u8> {
        let len = u32::try_from(self.0.len()).expect("messages are short");
        self.0[..4].copy_from_slice(&len.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }
}

/// What one datagram said.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    /// The acknowledgement, if it was in there: 0, or a negated errno.
    ack: Option<i32>,
    /// The number of the family that was asked for.
    family: Option<u16>,
}

/// A socket to the kernel.
#[derive(Debug)]
pub(crate) struct Genl {
    socket: OwnedFd,
    sequence: u32,
}

impl Genl {
    pub(crate) fn open() -> io::Result<Self> {
        let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
        let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, Some(netlink::GENERIC))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The number of the family `name`. Asking for it has the kernel load the module that brings it, if it can.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    pub(crate) fn family(&mut self, name: &str) -> io::Result<u16> {
        let said = self.request(Message::new(CONTROL, CTRL_CMD_GETFAMILY).string(CTRL_ATTR_FAMILY_NAME, name))?;
        said.family.ok_or_else(|| io::Error::other("the kernel acknowledged a family and did not name it"))
    }

    /// Sends a request; returns when the kernel has carried it out.
    ///
    /// # Errors
    /// What the kernel answers.
    pub(crate) fn command(&mut self, message: Message) -> io::Result<()> {
        self.request(message).map(drop)
    }

    fn request(&mut self, message: Message) -> io::Result<Said> {
        self.sequence += 1;
        let bytes = message.finish(self.sequence);
        rustix::net::send(&self.socket, &bytes, SendFlags::empty())?;
        let mut all = Said::default();
        let mut buffer = [0; 8192];
        while all.ack.is_none() {
            let (n, _) =
                rustix::io::retry_on_intr(|| rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::empty()))?;
            let said = parse(&buffer[..n], self.sequence)?;
            all.ack = said.ack;
            all.family = all.family.or(said.family);
        }
        match all.ack {
            Some(0) | None => Ok(all),
            Some(errno) => Err(io::Error::from_raw_os_error(-errno)),
        }
    }
}

/// Reads the messages of one datagram that answer request `sequence`.
fn parse(mut bytes: &[u8], sequence: u32) -> io::Result<Said> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "a netlink message that is cut off");
    let mut said = Said::default();
    while !bytes.is_empty() {
        let len = u32_at(bytes, 0).ok_or_else(malformed)? as usize;
        let message = bytes.get(..len).filter(|message| message.len() >= HEADER_BYTES).ok_or_else(malformed)?;
        if u32_at(message, 8) == Some(sequence) {
            match u16_at(message, 4) {
                Some(MSG_ERROR) => {
                    let errno = message.get(HEADER_BYTES..).and_then(|rest| rest.first_chunk());
                    said.ack = Some(i32::from_ne_bytes(*errno.ok_or_else(malformed)?));
                }
                Some(CONTROL) => {
                    let attributes = message.get(HEADER_BYTES + GENERIC_HEADER_BYTES..).ok_or_else(malformed)?;
                    said.family = find(attributes, CTRL_ATTR_FAMILY_ID).and_then(|value| u16_at(value, 0));
                }
                _ => {}
            }
        }
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or(&[]);
    }
    Ok(said)
}

/// A datagram of anybody's: nothing is believed that does not stand in it.
#[cfg(feature = "fuzz")]
pub(crate) fn fuzz(datagram: &[u8], sequence: u32) {
    let Ok(said) = parse(datagram, sequence) else { return };
    let holds = |bytes: &[u8]| datagram.windows(bytes.len()).any(|window| window == bytes);
    assert!(said.ack.is_none_or(|ack| holds(&ack.to_ne_bytes())), "{said:?} is made up");
    assert!(said.family.is_none_or(|family| holds(&family.to_ne_bytes())), "{said:?} is made up");
    assert!(said == Said::default() || holds(&sequence.to_ne_bytes()), "{said:?} answers another request");
}

/// The value of the first attribute of a kind.
fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let (len, kind) = (usize::from(u16_at(attributes, 0)?), u16_at(attributes, 2)?);
        let value = attributes.get(ATTRIBUTE_BYTES..len)?;
        if kind & !NESTED == wanted {
            return Some(value);
        }
        attributes = attributes.get(len.next_multiple_of(4)..)?;
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Little-endian hosts only, as the bytes are the host's.
    #[cfg(target_endian = "little")]
    #[test]
    fn a_request_byte_by_byte() {
        let message = Message::new(0x1a, 1).u32(1, 7).string(10, "abc").nested(7, |m| m.nested(1, |m| m.u32(1, 9)));
        #[rustfmt::skip]
        let expected = [
            52, 0, 0, 0,  0x1a, 0,  5, 0,  3, 0, 0, 0,  0, 0, 0, 0,
            1, 1, 0, 0,
            8, 0,  1, 0,  7, 0, 0, 0,
            8, 0,  10, 0, b'a', b'b', b'c', 0,
            16, 0,  7, 0x80,
            12, 0,  1, 0x80,
            8, 0,  1, 0,  9, 0, 0, 0,
        ];
        assert_eq!(message.finish(3), expected);
    }

    #[test]
    fn the_kernel_answers_and_knows_its_own_family() {
        let mut genl = Genl::open().unwrap();
        assert_eq!(genl.family("nlctrl").unwrap(), CONTROL);
        let error = genl.family("no-such-family").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}");
    }

    #[test]
    fn what_is_cut_off_is_no_answer_and_others_answers_are_not_ours() {
        let mut ack = vec![20, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0];
        ack[..4].copy_from_slice(&20_u32.to_ne_bytes());
        ack[4..6].copy_from_slice(&MSG_ERROR.to_ne_bytes());
        ack[8..12].copy_from_slice(&5_u32.to_ne_bytes());
        ack.extend((-16_i32).to_ne_bytes());
        assert_eq!(parse(&ack, 5).unwrap(), Said { ack: Some(-16), family: None });
        assert_eq!(parse(&ack, 6).unwrap(), Said::default());
        for len in 1..ack.len() {
            assert!(parse(&ack[..len], 5).is_err(), "{len} bytes of it");
        }
    }
}
