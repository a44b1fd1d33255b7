//! The receiving half of a connection: bytes from the kernel to regions and events.
//!
//! One buffer of the whole fabric's takes headers, messages and small payloads, several frames in one recv(2); from
//! there a payload is copied to its place. What is left of a long payload after that is received straight into its
//! region. Between two calls a connection keeps at most one header or one message: that is all the memory that a peer
//! can make it hold.
//!
//! The header is checked whole before the first byte of its payload lands (contract 4).

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustix::net::RecvFlags;
use twinsan_arena::Arena;
use twinsan_fabric::parts::Exposures;
use twinsan_fabric::{CloseReason, ConnId, Event};

use crate::credits::Credits;
use crate::frame::{HEADER, Header, Op};
use crate::socket;

/// Bytes of the fabric's receive buffer: more than this of one payload is worth a recv of its own, and a payload of
/// this size still costs only a microsecond or two of copying.
pub(crate) const SCRATCH: usize = 16 << 10;

/// After so many bytes the next connection has its turn: one longest blob, some 100 µs of copying.
const BYTES_PER_VISIT: usize = 1 << 20;

/// What the next bytes are.
#[derive(Debug)]
enum State {
    /// A header, of which `have` bytes are here.
    Header { bytes: [u8; HEADER], have: usize },
    /// A payload, whose next byte goes to `at`.
    Payload { region: usize, at: usize, left: usize, imm: Option<u32> },
    /// A message, of `len` bytes.
    Message { bytes: Vec<u8>, len: usize },
}

const NEXT: State = State::Header { bytes: [0; HEADER], have: 0 };

/// See the module.
#[derive(Debug)]
pub(crate) struct Inbox {
    state: State,
}

/// What receiving needs of the fabric and the connection.
pub(crate) struct Context<'a> {
    pub(crate) conn: ConnId,
    pub(crate) regions: &'a [Arc<Arena>],
    pub(crate) exposures: &'a Exposures,
    pub(crate) credits: &'a mut Credits,
    pub(crate) max_message: usize,
    pub(crate) scratch: &'a mut [u8],
    pub(crate) events: &'a mut Vec<Event>,
}

impl Inbox {
    /// At the start of a connection.
    pub(crate) const fn new() -> Self {
        Self { state: NEXT }
    }

    /// Receives what is there, within this visit's share.
    ///
    /// # Errors
    /// The reason why the connection is over.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        let mut received = 0;
        while received < BYTES_PER_VISIT {
            let (asked, got) = match self.state {
                State::Payload { region, at, left, .. } if left >= cx.scratch.len() => {
                    (left, cx.regions[region].recv_into(socket, at, left))
                }
                _ => (cx.scratch.len(), recv(socket, cx.scratch)),
            };
            let got = match got {
                Ok(0) => return Err(CloseReason::Ended),
                Ok(got) => got,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(socket::reason(&e)),
            };
            received += got;
            match &mut self.state {
                State::Payload { at, left, .. } if *left >= cx.scratch.len() => {
                    *at += got;
                    *left -= got;
                    self.land(cx);
                }
                _ => {
                    // Out of the context for the call, which needs both.
                    let scratch = std::mem::take(&mut cx.scratch);
                    let taken = self.take(&scratch[..got], cx);
                    cx.scratch = scratch;
                    taken.map_err(CloseReason::Violation)?;
                }
            }
            // A short read means that the socket is empty (epoll(7), "Do I need to continuously read…"); the epoll
            // is level-triggered, so nothing is lost if it no longer is.
            if got < asked {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Works through received bytes.
    fn take(&mut self, mut input: &[u8], cx: &mut Context<'_>) -> Result<(), String> {
        while !input.is_empty() {
            match &mut self.state {
                State::Header { bytes, have } => {
                    let count = input.len().min(HEADER - *have);
                    bytes[*have..*have + count].copy_from_slice(&input[..count]);
                    *have += count;
                    input = &input[count..];
                    if *have == HEADER {
                        let header = Header::decode(bytes)?;
                        self.begin(&header, cx)?;
                    }
                }
                State::Payload { region, at, left, .. } => {
                    let count = input.len().min(*left);
                    cx.regions[*region].copy_in(*at, &input[..count]);
                    *at += count;
                    *left -= count;
                    input = &input[count..];
                    self.land(cx);
                }
                State::Message { bytes, len } => {
                    let count = input.len().min(*len - bytes.len());
                    bytes.extend_from_slice(&input[..count]);
                    input = &input[count..];
                    self.deliver(cx);
                }
            }
        }
        Ok(())
    }

    /// A header is complete.
    fn begin(&mut self, header: &Header, cx: &mut Context<'_>) -> Result<(), String> {
        cx.credits.returned(header.credits)?;
        if header.op.takes_credit() {
            cx.credits.used()?;
        }
        match header.op {
            Op::Write { key, offset } => self.begin_payload(key, offset, header.len, None, cx),
            Op::WriteImm { key, offset, imm } => self.begin_payload(key, offset, header.len, Some(imm), cx),
            Op::Message => {
                let len = header.len as usize;
                if len > cx.max_message {
                    return Err(format!("a message of {len} bytes, the limit is {}", cx.max_message));
                }
                self.state = State::Message { bytes: Vec::with_capacity(len), len };
                self.deliver(cx);
                Ok(())
            }
            Op::Credits => {
                self.state = NEXT;
                Ok(())
            }
        }
    }

    fn begin_payload(
        &mut self,
        key: u64,
        offset: u64,
        len: u32,
        imm: Option<u32>,
        cx: &mut Context<'_>,
    ) -> Result<(), String> {
        let (region, at) = cx.exposures.find(key, offset, len)?;
        self.state = State::Payload { region, at, left: len as usize, imm };
        self.land(cx);
        Ok(())
    }

    /// Reports the payload if it is whole.
    fn land(&mut self, cx: &mut Context<'_>) {
        if let State::Payload { left: 0, imm, .. } = self.state {
            cx.events.extend(imm.map(|imm| Event::Immediate { conn: cx.conn, imm }));
            self.state = NEXT;
        }
    }

    /// Reports the message if it is whole.
    fn deliver(&mut self, cx: &mut Context<'_>) {
        if let State::Message { bytes, len } = &mut self.state
            && bytes.len() == *len
        {
            let bytes = std::mem::take(bytes).into_boxed_slice();
            cx.events.push(Event::Message { conn: cx.conn, bytes });
            self.state = NEXT;
        }
    }
}

fn recv(socket: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<usize> {
    let (got, _) = rustix::net::recv(socket, into, RecvFlags::empty())?;
    Ok(got)
}
