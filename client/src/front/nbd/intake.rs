//! From a connection's bytes to requests, and from a WRITE's payload to the ring.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use twinsan_nbd::{Command, Request, Step, reply};
use twinsan_wire::{BlobKind, Lba};

use super::conn::{Conn, Incoming, Part, Place};
use super::{ConnId, NbdFront, fail};
use crate::front::backend::Backend;
use crate::front::limits::{MAX_PRIVATE_BYTES, REQUESTS_PER_TURN};
use crate::front::requests::{Failure, InLine, OpKind};
use crate::front::span::Span;
use crate::memory::Memory;

/// How a connection goes on.
enum Next {
    /// With another step.
    Again,
    /// When its socket is ready, its turn comes, or fewer of its requests are open.
    Wait,
}

impl NbdFront {
    /// One connection's turn.
    pub(super) fn run<B: Backend>(&mut self, id: ConnId, backend: &mut B) {
        self.touch(id);
        for _ in 0..REQUESTS_PER_TURN {
            match self.step(id, backend) {
                Ok(Next::Again) => {}
                Ok(Next::Wait) => return,
                Err(why) => {
                    self.conns[id].broken = Some(why);
                    return;
                }
            }
        }
        self.run_later(id);
    }

    fn step<B: Backend>(&mut self, id: ConnId, backend: &mut B) -> Result<Next, String> {
        let conn = &mut self.conns[id];
        if conn.is_closed() || conn.in_line || conn.finishing || conn.broken.is_some() {
            return Ok(Next::Wait);
        }
        if conn.incoming.is_some() {
            return self.receive(id, backend);
        }
        conn.held = !conn.may_begin(&self.requests.share(id));
        if conn.held || self.stopping.is_some() {
            return Ok(Next::Wait);
        }
        match conn.advance()? {
            Step::Hungry => return conn.hungry(),
            Step::Entered => conn.negotiation = None,
            Step::Request(request) => self.begin(id, request, backend),
            Step::Refused(refused) => {
                let structured = conn.server.structured();
                conn.output.reply(|bytes| {
                    reply::error(bytes, structured, refused.cookie, refused.errno, &refused.message);
                });
            }
            Step::Payload => unreachable!("a WRITE is being received until its payload has been taken"),
            Step::Finish => conn.finishing = true,
        }
        Ok(Next::Again)
    }

    fn begin<B: Backend>(&mut self, id: ConnId, Request { cookie, command }: Request, backend: &mut B) {
        let conn = &mut self.conns[id];
        if let Some(why) = &self.requests.failed {
            conn.server.discard_payload();
            let structured = conn.server.structured();
            return fail(&mut conn.output, structured, cookie, &Failure::Gone(why.clone()));
        }
        match command {
            // What FLUSH asks for is true already: see the module's text. CACHE is advice.
            Command::Flush | Command::Cache { .. } => conn.output.reply(|bytes| reply::success(bytes, cookie)),
            Command::Read { offset, len } => self.requests.begin_read(id, cookie, offset, len),
            Command::Write { offset, len } => {
                backend.requested();
                let op = self.requests.begin(id, cookie, OpKind::CHANGE);
                self.conns[id].input.expect_like(len);
                self.conns[id].incoming = Some(Incoming { op, offset, left: len, part: None });
            }
            // TRIM may leave its edges as they are (proto.md), WRITE_ZEROES may not.
            Command::Trim { offset, len } => self.requests.begin_discard(id, cookie, (offset, len)),
            Command::WriteZeroes { offset, len, no_hole } => {
                let kind = if no_hole { BlobKind::Zeroes } else { BlobKind::Discard };
                self.requests.begin_zeroes(id, cookie, (offset, len), kind);
            }
        }
        self.serve_line(backend);
    }

    /// Goes on with the payload of a WRITE: what has come along with other bytes, then straight from the socket.
    fn receive<B: Backend>(&mut self, id: ConnId, backend: &mut B) -> Result<Next, String> {
        let conn = &self.conns[id];
        if conn.incoming.as_ref().is_some_and(|incoming| incoming.part.is_none()) && !self.open_part(id, false, backend)
        {
            return Ok(Next::Wait);
        }
        let whole = self.conns[id].fill_part(&self.requests.memory)?;
        if whole {
            self.close_part(id, backend);
            return Ok(Next::Again);
        }
        Ok(if self.conns[id].input.more { Next::Again } else { Next::Wait })
    }

    /// Decides where the next part of a WRITE is received. `false`: nowhere for now. `turn`: it is first in line.
    pub(super) fn open_part<B: Backend>(&mut self, id: ConnId, turn: bool, backend: &mut B) -> bool {
        let span = self.next_span(id);
        let conn = &mut self.conns[id];
        let place = if self.reservation.is_some() || !span.is_whole() || self.requests.ranges.wanted(&span.range()) {
            let share = self.requests.share_mut(id);
            conn.held = share.private >= MAX_PRIVATE_BYTES;
            if conn.held {
                return false;
            }
            let bytes = vec![0; span.blocks as usize * self.options.shape.block_bytes as usize];
            share.private += bytes.len();
            Place::Private(bytes)
        } else if (turn || self.requests.line.is_empty())
            && let Some(data_pos) = backend.place(span.len)
        {
            self.reservation = Some(id);
            Place::Ring { data_pos }
        } else {
            conn.in_line = true;
            self.requests.line.push_back(InLine::Front(id));
            return false;
        };
        let incoming = conn.incoming.as_mut().expect("a WRITE is being received");
        incoming.offset += u64::from(span.len);
        incoming.left -= span.len;
        incoming.part = Some(Part { span, filled: 0, place });
        let (op, last) = (incoming.op, incoming.left == 0);
        self.requests.expect_part(op, last);
        true
    }

    /// The part of its WRITE that a connection receives next.
    fn next_span(&self, id: ConnId) -> Span {
        let incoming = self.conns[id].incoming.as_ref().expect("a WRITE is being received");
        Span::first_part(&self.options.shape, incoming.offset, incoming.left)
    }

    /// Whether a connection that is first in line can go on.
    pub(super) fn can_open_part<B: Backend>(&self, id: ConnId, backend: &mut B) -> bool {
        let span = self.next_span(id);
        self.reservation.is_some() || self.requests.ranges.wanted(&span.range()) || backend.place(span.len).is_some()
    }

    /// A part's payload is whole: commits it, or makes it a job.
    fn close_part<B: Backend>(&mut self, id: ConnId, backend: &mut B) {
        let incoming = self.conns[id].incoming.as_mut().expect("a WRITE is being received");
        let (op, last) = (incoming.op, incoming.left == 0);
        let part = incoming.part.take().expect("a part is being received");
        if last {
            self.conns[id].incoming = None;
        }
        let Part { span, place, .. } = part;
        match place {
            Place::Ring { data_pos } => {
                self.reservation = None;
                // The place is still the next one, unless blobs without payload have used up the window's slots.
                if backend.place(span.len) == Some(data_pos) && !self.requests.ranges.wanted(&span.range()) {
                    let seq = backend.write(BlobKind::Write, Lba(span.lba), span.blocks);
                    return self.requests.part_committed(op, seq);
                }
                let bytes = self.rescue(id, data_pos, span.len, span.len);
                self.requests.add_write_job(op, span, bytes);
            }
            Place::Private(bytes) => self.requests.add_write_job(op, span, bytes),
        }
        self.serve_line(backend);
    }

    /// Gives window space, first come, first served.
    pub(super) fn serve_line<B: Backend>(&mut self, backend: &mut B) {
        while let Some(&first) = self.requests.line.front() {
            match first {
                InLine::Front(id) => {
                    if !self.can_open_part(id, backend) {
                        return;
                    }
                    self.requests.line.pop_front();
                    self.conns[id].in_line = false;
                    self.open_part(id, true, backend);
                    self.run_later(id);
                }
                InLine::Job(id) => {
                    if !self.requests.job_fits(id, backend) {
                        return;
                    }
                    if self.requests.job_has_payload(id) {
                        self.evict();
                    }
                    self.requests.line.pop_front();
                    self.requests.commit_job(id, backend);
                }
            }
        }
    }

    /// Moves the reservation's holder to a private buffer: somebody else commits a payload first (invariant 1).
    pub(super) fn evict(&mut self) {
        let Some(id) = self.reservation.take() else { return };
        let part = self.conns[id].incoming.as_ref().and_then(|incoming| incoming.part.as_ref());
        let part = part.expect("the reservation's holder is receiving a part");
        let Place::Ring { data_pos } = part.place else { panic!("the reservation's holder receives into the ring") };
        let (filled, len) = (part.filled, part.span.len);
        let bytes = self.rescue(id, data_pos, filled, len);
        let part = self.conns[id].incoming.as_mut().and_then(|incoming| incoming.part.as_mut());
        part.expect("still there").place = Place::Private(bytes);
    }

    /// Copies what has been received into the ring out of it, into a buffer of the part's whole length.
    fn rescue(&mut self, id: ConnId, data_pos: u64, filled: u32, len: u32) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        let memory = &self.requests.memory;
        memory.arena().copy_out(memory.staged(data_pos), &mut bytes[..filled as usize]);
        self.requests.share_mut(id).private += bytes.len();
        bytes
    }

    /// The rest of a WRITE is not received: its connection is gone, or it has been answered.
    pub(super) fn stop_receiving(&mut self, id: ConnId, incoming: &Incoming) {
        let conn = &mut self.conns[id];
        if let Some(Part { place: Place::Private(bytes), .. }) = &incoming.part {
            self.requests.share_mut(id).private -= bytes.len();
        }
        if std::mem::take(&mut conn.in_line) {
            self.requests.line.retain(|waiter| *waiter != InLine::Front(id));
        }
        if self.reservation == Some(id) {
            self.reservation = None;
        }
        self.requests.cut_off(incoming.op, u32::from(incoming.part.is_some()));
        self.run_later(id);
    }
}

impl Conn {
    /// The protocol's next step on what has been received.
    fn advance(&mut self) -> Result<Step, String> {
        let mut result = Ok((0, Step::Hungry));
        self.output.reply(|bytes| result = self.server.advance(self.input.bytes(), bytes));
        let (used, step) = result.map_err(|violation| violation.to_string())?;
        self.input.consume(used);
        Ok(step)
    }

    /// All bytes are used: receives more.
    fn hungry(&mut self) -> Result<Next, String> {
        let Some(fd) = self.fd.as_ref().filter(|_| self.input.more) else { return Ok(Next::Wait) };
        match self.input.receive(fd.as_fd()) {
            Ok(0) => Err("the client has closed".into()),
            Ok(_) => Ok(Next::Again),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.input.more = false;
                Ok(Next::Wait)
            }
            Err(error) => Err(format!("receiving: {error}")),
        }
    }

    /// Receives as much of the current part as there is; whether it is whole.
    fn fill_part(&mut self, memory: &Memory) -> Result<bool, String> {
        let part = self.incoming.as_mut().and_then(|incoming| incoming.part.as_mut()).expect("a part is open");
        let here = self.input.bytes();
        let here = &here[..here.len().min(part.missing())];
        if !here.is_empty() {
            part.copy_in(here, memory);
            let taken = here.len();
            self.input.consume(taken);
            self.server.payload_taken(u32::try_from(taken).expect("at most a payload"));
        }
        if part.missing() == 0 {
            return Ok(true);
        }
        let Some(fd) = self.fd.as_ref().filter(|_| self.input.more) else { return Ok(false) };
        let asked = part.missing();
        match part.receive(fd.as_fd(), memory) {
            Ok(0) => Err("the client has closed in the middle of a payload".into()),
            Ok(n) => {
                self.server.payload_taken(u32::try_from(n).expect("at most a payload"));
                // A short receive has emptied the socket. So, most likely, has one that ends a payload: rather than
                // asking in vain, the loop goes on and posts it; if there is more, the socket reports itself.
                self.input.more = false;
                Ok(n == asked)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.input.more = false;
                Ok(false)
            }
            Err(error) => Err(format!("receiving a payload: {error}")),
        }
    }
}

impl Part {
    fn missing(&self) -> usize {
        (self.span.len - self.filled) as usize
    }

    fn copy_in(&mut self, bytes: &[u8], memory: &Memory) {
        let filled = self.filled as usize;
        match &mut self.place {
            Place::Ring { data_pos } => memory.arena().copy_in(memory.staged(*data_pos) + filled, bytes),
            Place::Private(buffer) => {
                let at = self.span.head as usize + filled;
                buffer[at..at + bytes.len()].copy_from_slice(bytes);
            }
        }
        self.filled += u32::try_from(bytes.len()).expect("at most a payload");
    }

    /// One receive of what is missing.
    fn receive(&mut self, fd: BorrowedFd<'_>, memory: &Memory) -> io::Result<usize> {
        let (filled, missing) = (self.filled as usize, self.missing());
        let n = match &mut self.place {
            Place::Ring { data_pos } => memory.arena().recv_into(fd, memory.staged(*data_pos) + filled, missing)?,
            Place::Private(buffer) => {
                let at = self.span.head as usize + filled;
                rustix::io::retry_on_intr(|| rustix::io::read(fd, &mut buffer[at..at + missing]))?
            }
        };
        self.filled += u32::try_from(n).expect("at most a payload");
        Ok(n)
    }
}
