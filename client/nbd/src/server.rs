//! One connection, from the greeting to the end.
//!
//! ```text
//! Flags ─▶ Option ─▶ OptionData ─┐        Option ◀── every option but GO and EXPORT_NAME
//!            ▲ ▲                 │
//!            │ └── OptionDiscard │        (data too long to keep)
//!            └───────────────────┤
//!                                ▼
//!                             Header ─▶ Payload   the driver takes it
//!                                │ ▲ └▶ Discard   a refused WRITE's payload
//!                                ▼ └───────┘
//!                             Finished    ABORT, DISC
//! ```

use crate::export::Export;
use crate::handshake::{self, After, Agreed, OptionHeader};
use crate::limits::{MAX_OPTION_BYTES, MAX_OPTION_DISCARD_BYTES, MAX_OPTIONS};
use crate::proto::{OPTION_BYTES, REQUEST_BYTES, cmd, option};
use crate::request::{Header, Refused, Request};

/// What a driver does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// All given bytes are used: receive more.
    Hungry,
    /// The handshake is over; requests follow.
    Entered,
    /// Carry it out and answer it. The payload of a WRITE follows on the stream: see [`Server::payload_left`].
    Request(Request),
    /// Answer it with the error.
    Refused(Refused),
    /// The stream stands at a WRITE's payload, which is the driver's to take.
    Payload,
    /// The client is done: answer what is open, send what is owed, then close.
    Finish,
}

/// The client broke the protocol so that nothing can be answered: the connection ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Flags that the server did not offer.
    #[error("client flags {0:#x}: only FIXED_NEWSTYLE (1) and NO_ZEROES (2) are offered")]
    ClientFlags(u32),
    /// Not an option.
    #[error("option magic {0:#018x} instead of IHAVEOPT")]
    OptionMagic(u64),
    /// An option's data is absurdly long.
    #[error("{0} bytes of option data")]
    OptionLength(u32),
    /// Endless haggling.
    #[error("more than {MAX_OPTIONS} options")]
    TooManyOptions,
    /// `EXPORT_NAME` of an export that is not here.
    #[error("no export \"{0}\" here")]
    UnknownExport(String),
    /// Not a request.
    #[error("request magic {0:#010x} instead of 0x25609513")]
    RequestMagic(u32),
}

#[derive(Debug)]
enum Phase {
    Flags,
    Option,
    OptionData(OptionHeader),
    OptionDiscard { header: OptionHeader, left: u32 },
    Header,
    Payload { left: u32 },
    Discard { left: u32 },
    Finished,
}

/// One connection's protocol state.
#[derive(Debug)]
pub struct Server {
    export: Export,
    agreed: Agreed,
    phase: Phase,
    /// A header or an option's data, until it is whole; at most [`MAX_OPTION_BYTES`].
    held: Vec<u8>,
    options: u32,
}

impl Server {
    /// A new connection; `out` gets the greeting.
    #[must_use]
    pub fn new(export: Export, out: &mut Vec<u8>) -> Self {
        handshake::greet(out);
        let held = Vec::with_capacity(REQUEST_BYTES);
        Self { export, agreed: Agreed::default(), phase: Phase::Flags, held, options: 0 }
    }

    /// A connection to a client that knows the export without asking, as the kernel does: it begins with requests, and
    /// gets simple replies.
    #[must_use]
    pub fn past_handshake(export: Export) -> Self {
        let held = Vec::with_capacity(REQUEST_BYTES);
        Self { export, agreed: Agreed::default(), phase: Phase::Header, held, options: 0 }
    }

    /// Whether the client has agreed to structured replies.
    #[must_use]
    pub const fn structured(&self) -> bool {
        self.agreed.structured
    }

    /// Payload bytes of the current WRITE that the driver has not yet taken.
    #[must_use]
    pub const fn payload_left(&self) -> u32 {
        match self.phase {
            Phase::Payload { left } => left,
            _ => 0,
        }
    }

    /// The driver has taken `n` payload bytes off the stream.
    ///
    /// # Panics
    /// If there were not as many: the driver has lost its place in the stream.
    pub fn payload_taken(&mut self, n: u32) {
        let left = self.payload_left().checked_sub(n).expect("more payload taken than there is");
        self.phase = if left == 0 { Phase::Header } else { Phase::Payload { left } };
    }

    /// The driver has refused the current WRITE: the rest of its payload is read off in here.
    pub fn discard_payload(&mut self) {
        if let Phase::Payload { left } = self.phase {
            self.phase = Phase::Discard { left };
        }
    }

    /// Goes on by one step. Returns how many bytes of `input` were used, and the step; replies of the handshake go to
    /// `out`. To be called again with what is left until it says [`Step::Hungry`], [`Step::Payload`] or
    /// [`Step::Finish`].
    ///
    /// # Errors
    /// [`Violation`]: the connection is to be closed at once.
    pub fn advance(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(usize, Step), Violation> {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            match self.phase {
                Phase::Payload { .. } => return Ok((used, Step::Payload)),
                Phase::Finished => return Ok((used, Step::Finish)),
                Phase::OptionDiscard { left: 0, header } => {
                    handshake::answer_too_big(header, out);
                    self.phase = Phase::Option;
                }
                Phase::Discard { left: 0 } => self.phase = Phase::Header,
                Phase::OptionDiscard { left: ref mut n, .. } | Phase::Discard { left: ref mut n } => {
                    if rest.is_empty() {
                        return Ok((used, Step::Hungry));
                    }
                    let take = u32::try_from(rest.len()).unwrap_or(u32::MAX).min(*n);
                    *n -= take;
                    used += take as usize;
                }
                Phase::Flags | Phase::Option | Phase::OptionData(_) | Phase::Header => {
                    used += self.hold(rest);
                    if self.held.len() < self.wanted() {
                        return Ok((used, Step::Hungry));
                    }
                    if let Some(step) = self.act(out)? {
                        return Ok((used, step));
                    }
                }
            }
        }
    }

    /// How many bytes the current phase acts on.
    fn wanted(&self) -> usize {
        match self.phase {
            Phase::Flags => 4,
            Phase::Option => OPTION_BYTES,
            Phase::OptionData(header) => header.len as usize,
            Phase::Header => REQUEST_BYTES,
            _ => 0,
        }
    }

    /// Keeps as many bytes as are still wanted; returns how many.
    fn hold(&mut self, rest: &[u8]) -> usize {
        let take = rest.len().min(self.wanted() - self.held.len());
        self.held.extend_from_slice(&rest[..take]);
        take
    }

    /// Acts on what is held, which is whole.
    fn act(&mut self, out: &mut Vec<u8>) -> Result<Option<Step>, Violation> {
        let step = match self.phase {
            Phase::Flags => {
                self.agreed = handshake::client_flags(self.held_array())?;
                self.phase = Phase::Option;
                None
            }
            Phase::Option => {
                self.begin_option(OptionHeader::parse(&self.held_array())?)?;
                None
            }
            Phase::OptionData(header) => {
                let after = handshake::answer(&self.export, &mut self.agreed, header.option, &self.held, out)?;
                self.end_option(&after)
            }
            _ => Some(self.begin_request(Header::parse(&self.held_array())?)),
        };
        self.held.clear();
        Ok(step)
    }

    fn begin_option(&mut self, header: OptionHeader) -> Result<(), Violation> {
        self.options += 1;
        if self.options > MAX_OPTIONS {
            return Err(Violation::TooManyOptions);
        }
        let kept = header.len as usize <= MAX_OPTION_BYTES;
        // EXPORT_NAME has no error reply, so an impossible one ends the connection.
        if header.len > MAX_OPTION_DISCARD_BYTES || (!kept && header.option == option::EXPORT_NAME) {
            return Err(Violation::OptionLength(header.len));
        }
        self.phase = if kept { Phase::OptionData(header) } else { Phase::OptionDiscard { header, left: header.len } };
        Ok(())
    }

    fn end_option(&mut self, after: &After) -> Option<Step> {
        match after {
            After::Haggle => {
                self.phase = Phase::Option;
                None
            }
            After::Transmission => {
                // The handshake's buffer may be large; requests need 28 bytes.
                self.held = Vec::with_capacity(REQUEST_BYTES);
                self.phase = Phase::Header;
                Some(Step::Entered)
            }
            After::Finish => {
                self.phase = Phase::Finished;
                Some(Step::Finish)
            }
        }
    }

    fn begin_request(&mut self, header: Header) -> Step {
        if header.command == cmd::DISC {
            self.phase = Phase::Finished;
            return Step::Finish;
        }
        match header.check(self.export.size, self.agreed.structured) {
            Ok(request) => {
                if header.payload() > 0 {
                    self.phase = Phase::Payload { left: header.payload() };
                }
                Step::Request(request)
            }
            Err(refused) => {
                if header.payload() > 0 {
                    self.phase = Phase::Discard { left: header.payload() };
                }
                Step::Refused(refused)
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn held_capacity(&self) -> usize {
        self.held.capacity()
    }

    fn held_array<const N: usize>(&self) -> [u8; N] {
        *self.held.first_chunk().expect("act is called when as many bytes are held as wanted")
    }
}
